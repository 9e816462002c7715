//! Devices and a gateway against each other, over real QUIC with mutual TLS, in virtual time.

mod admission;
mod answers;
mod contract;
mod drain;
mod net;
mod notices;
mod outages;
mod recall;
mod restart;
mod resume;

use std::time::{Duration, Instant};

use self::net::{DELAY, DEVICE, Net, UP, Upstream, device_config, gateway_config};
use super::*;
use crate::api::Method;
use crate::billing::account::Command;
use crate::billing::money::Nanos;
use crate::billing::tier::Tier;
use crate::error::ErrorCode;
use crate::escalation::context::Question as Ask;
use crate::gateway::Granted;
use crate::gateway::{self, Gateway, NotAdmitted, Told};
use crate::machine::properties::{self, Subject};
use crate::quic::Quic;
use crate::quic::tests::{WALL, World};
use crate::time::origin;
use crate::tunnel::FailureKind;
use crate::wire::message::FinishReason;

const SKY: &[&str] = &["The sky ", "is ", "blue."];

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn failure(net: &Net, end: usize) -> FailureKind {
    net.ends[end]
        .device
        .tunnel
        .failure()
        .expect("a failure")
        .kind
}

#[test]
fn a_device_connects_says_hello_and_beats() {
    let mut net = Net::connected();
    let stats = net.ends[0].device.stats();
    assert_eq!((stats.epoch, stats.heartbeats_sent), (Some(1), 1));
    // One round trip of the wire makes the handshake.
    assert_eq!(stats.handshake, Some(DELAY * 2));
    net.run(secs(65));
    let stats = net.ends[0].device.stats();
    assert_eq!((stats.heartbeats_sent, stats.heartbeats_acked), (3, 3));
    assert!(
        net.ends[0].doubts.is_empty(),
        "an idle tunnel is never in doubt"
    );
    assert_eq!((net.gateway.sessions(), net.ends[0].changes.len()), (1, 2));
}

#[test]
fn typed_calls_are_answered_by_name() {
    let mut net = Net::connected();
    for (id, method) in [(1, Method::Ping), (2, Method::AccountSummary)] {
        net.give(
            0,
            Input::Call {
                id,
                method,
                params: None,
            },
        );
    }
    net.run(secs(1));
    let reply = |id| net.ends[0].replies[&id].clone().unwrap();
    assert!(reply(1).contains("server_time"));
    assert!(reply(2).contains("\"ceiling\""));
}

#[test]
fn when_the_first_address_is_dead_the_next_is_tried_beside_it() {
    let mut net = Net::new();
    let dead = "[::dead]:4443".parse().unwrap();
    let alive = net.addresses.clone().unwrap()[0];
    net.addresses = Ok(vec![dead, alive]);
    net.give(0, Input::Connect);
    let took = net.run_to(secs(2), |net| net.state(0) == UP);
    // 250 ms until the second is dialled, then the handshake, hello, and its answer.
    assert_eq!(took, limits::NEXT_ADDRESS_AFTER + DELAY * 4);
}

#[test]
fn a_name_without_an_address_is_tried_again() {
    let mut net = Net::new();
    let right = std::mem::replace(&mut net.addresses, Err("no such name".into()));
    net.give(0, Input::Connect);
    net.run(secs(1));
    assert!(matches!(net.state(0), State::Reconnecting { .. }));
    net.addresses = right;
    net.run_to(secs(10), |net| net.state(0) == UP);
}

#[test]
fn a_hot_gpu_warms_the_provider_and_impossible_vitals_are_refused() {
    let mut net = Net::connected();
    let hot = Vitals {
        gpu_usage: Some(0.95),
        ..Vitals::default()
    };
    net.give(0, Input::Vitals(hot.clone()));
    net.give(0, Input::Vitals(hot));
    net.run(secs(1));
    assert_eq!(net.outside.warmed, 1);
    assert_eq!(
        net.ends[0].device.stats().prewarmed_at,
        Some(WALL.saturating_add(secs(1)))
    );
    let absurd = Vitals {
        cpu_usage: f32::NAN,
        ..Vitals::default()
    };
    let rejected = net.ends[0]
        .device
        .handle_input(net.now, Input::Vitals(absurd));
    assert!(matches!(rejected, Err(Rejected::Vitals(_))));
}

#[test]
fn stopping_either_side_ends_in_good_order() {
    let mut net = Net::connected();
    net.give(0, Input::Stop);
    net.run(secs(1));
    assert!(net.ends[0].stopped);
    assert_eq!(
        (net.state(0), net.gateway.sessions()),
        (State::Disconnected, 0)
    );

    let mut net = Net::connected();
    net.outside.upstreams.push_back(Upstream::Hang(&["The "]));
    let id = net.ask(1, Ask::new("Why?"));
    net.run(secs(1));
    net.tell(gateway::Input::Stop);
    net.run(secs(5));
    assert!(net.outside.stopped);
    let AskError::Remote(error) = &net.ends[0].failed[&id] else {
        panic!("{:?}", net.ends[0].failed)
    };
    assert_eq!(error.code, ErrorCode::Interrupted);
    assert!(
        matches!(net.state(0), State::Reconnecting { .. }),
        "it looks for the gateway's successor"
    );
}

#[test]
fn nothing_of_a_question_or_an_answer_is_in_debug() {
    const CANARY: &str = "canary-3141";
    let mut net = Net::connected();
    net.outside
        .upstreams
        .push_back(Upstream::Hang(&["canary-3141 canary-3141"]));
    net.ask(
        1,
        Ask::new(CANARY)
            .framing(CANARY)
            .knowledge(CANARY, CANARY, 1.0),
    );
    for _ in 0..6 {
        let shown = format!(
            "{:?} {:?} {:?}",
            net.ends[0].device, net.gateway, net.outside.events
        );
        assert!(!shown.contains(CANARY), "{shown}");
        net.run(DELAY);
    }
    let chunk = format!("{:?}", AnswerEvent::Chunk(CANARY.into()));
    assert!(!chunk.contains(CANARY));
}

#[test]
fn what_has_been_heard_counts_before_the_timers_that_came_due_meanwhile() {
    let mut net = Net::connected();
    let id = 1;
    net.give(
        0,
        Input::Call {
            id,
            method: Method::Ping,
            params: None,
        },
    );
    net.give(0, Input::Timeout);
    net.run(DELAY);
    // The reply is on its way; the device's process stands still until long after it came.
    net.now = net.now.after(secs(2));
    net.run(DELAY);
    assert!(net.ends[0].replies[&id].is_ok());
    assert!(net.ends[0].doubts.is_empty());
}
