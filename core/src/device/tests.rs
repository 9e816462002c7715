mod drain;
mod net;
mod notices;
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
fn a_streamed_answer_arrives_in_order_with_its_exact_charge() {
    let mut net = Net::connected();
    net.outside.upstreams.push_back(Upstream::Whole(SKY));
    let id = net.ask(1, Ask::new("Why is the sky blue?"));
    net.run(secs(1));
    let end = &net.ends[0];
    assert_eq!(end.texts[&id], "The sky is blue.");
    let receipt = &end.ended[&id];
    // $3 and $15 a million: 1 000 in and 500 out are 10 500 000 nanos, and 3 % on top.
    assert_eq!(receipt.cost_nanos, Nanos(10_815_000));
    assert_eq!(receipt.base_nanos, Nanos(10_500_000));
    assert_eq!(receipt.finish_reason, FinishReason::Stop);
    assert_eq!(receipt.model_used, "sonnet-real");
    assert_eq!(net.outside.asked, ["hold", "call", "settle"]);
    assert_eq!(net.outside.account.spent, Nanos(10_815_000));
    assert!(net.outside.account.holds.is_empty());
    assert_eq!(net.gateway.answers_under_way(), 0);
    let stats = end.device.stats();
    assert_eq!(
        (
            stats.requests_sent,
            stats.requests_succeeded,
            stats.requests_failed
        ),
        (1, 1, 0)
    );
}

#[test]
fn an_unstreamed_answer_comes_whole() {
    let mut net = Net::connected();
    net.outside.upstreams.push_back(Upstream::Whole(SKY));
    let id = net.ask(1, Ask::new("Why?").stream(false));
    net.run(secs(1));
    let answer = &net.ends[0].whole[&id];
    assert_eq!(answer.content, "The sky is blue.");
    assert_eq!(answer.cost_nanos, Nanos(10_815_000));
    assert_eq!(net.ends[0].chunks, 0);
}

#[test]
fn thirty_questions_at_once_are_all_answered_and_charged_once() {
    let mut net = Net::connected();
    for number in 1..=30 {
        net.outside.upstreams.push_back(Upstream::Whole(SKY));
        net.ask(number, Ask::new("Why?"));
    }
    net.run(secs(5));
    assert_eq!(net.ends[0].ended.len(), 30);
    assert_eq!(net.outside.account.spent, Nanos(30 * 10_815_000));
    assert!(
        net.ends[0]
            .texts
            .values()
            .all(|text| text == "The sky is blue.")
    );
}

#[test]
fn cancelled_before_the_first_piece_nothing_is_charged() {
    let mut net = Net::connected();
    net.outside.upstreams.push_back(Upstream::Hang(&[]));
    let id = net.ask(1, Ask::new("Why?"));
    net.run(secs(2));
    net.give(0, Input::Cancel(id));
    net.run(secs(1));
    let receipt = &net.ends[0].ended[&id];
    assert_eq!(receipt.finish_reason, FinishReason::Cancelled);
    assert_eq!(receipt.cost_nanos, Nanos::ZERO);
    assert_eq!(
        net.outside.asked,
        ["hold", "call", "checkpoint", "abandon", "release"]
    );
    assert!(net.outside.account.holds.is_empty());
}

#[test]
fn cancelled_after_the_first_piece_what_was_produced_is_charged() {
    let mut net = Net::connected();
    net.outside
        .upstreams
        .push_back(Upstream::Hang(&["The sky "]));
    let id = net.ask(1, Ask::new("Why?"));
    net.run(secs(2));
    assert_eq!(net.ends[0].texts[&id], "The sky ");
    net.give(0, Input::Cancel(id));
    net.run(secs(1));
    let receipt = &net.ends[0].ended[&id];
    assert_eq!(receipt.finish_reason, FinishReason::Cancelled);
    assert!(receipt.estimated && receipt.cost_nanos > Nanos::ZERO);
    assert_eq!(net.outside.account.spent, receipt.cost_nanos);
    assert_eq!(
        net.outside.asked,
        ["hold", "call", "checkpoint", "abandon", "settle"]
    );
}

#[test]
fn a_denied_hold_is_a_refusal_that_names_the_money() {
    let mut net = Net::connected();
    net.outside.account.ceiling = Nanos(1000);
    let id = net.ask(1, Ask::new("Why?"));
    net.run(secs(1));
    let AskError::Remote(error) = &net.ends[0].failed[&id] else {
        panic!("{:?}", net.ends[0].failed)
    };
    assert_eq!(error.code, ErrorCode::PaymentRequired);
    assert_eq!(net.outside.asked, ["hold"]);
    assert_eq!(net.ends[0].device.stats().requests_failed, 1);
}

#[test]
fn an_upstream_that_fails_before_the_first_piece_is_tried_again() {
    let mut net = Net::connected();
    net.outside.upstreams = [
        Upstream::Status(503),
        Upstream::Break(&[]),
        Upstream::Whole(SKY),
    ]
    .into();
    let id = net.ask(1, Ask::new("Why?"));
    net.run(secs(5));
    assert_eq!(net.ends[0].texts[&id], "The sky is blue.");
    assert_eq!(
        net.outside.asked,
        ["hold", "call", "call", "call", "settle"]
    );
    assert_eq!(net.outside.account.spent, Nanos(10_815_000));
}

#[test]
fn an_upstream_that_breaks_after_the_first_piece_fails_with_the_text_so_far() {
    let mut net = Net::connected();
    net.outside
        .upstreams
        .push_back(Upstream::Break(&["The sky "]));
    let id = net.ask(1, Ask::new("Why?"));
    net.run(secs(5));
    assert_eq!(net.ends[0].texts[&id], "The sky ");
    let AskError::Remote(error) = &net.ends[0].failed[&id] else {
        panic!("{:?}", net.ends[0].failed)
    };
    assert_eq!(error.code, ErrorCode::UpstreamError);
    assert!(error.details.is_some(), "what was charged is said");
}

#[test]
fn a_hold_granted_too_late_is_given_back() {
    let mut net = Net::connected();
    net.outside.silent = true;
    let id = net.ask(1, Ask::new("Why?"));
    net.run(limits::STORE_TIMEOUT + secs(1));
    let AskError::Remote(error) = &net.ends[0].failed[&id] else {
        panic!("{:?}", net.ends[0].failed)
    };
    assert!(error.retryable, "{error:?}");
    let (ask, late) = net.outside.unanswered.pop().unwrap();
    let gateway::Ask::Hold { hold, .. } = late else {
        panic!("{late:?}")
    };
    net.outside
        .command(hold.request, Command::Hold(hold.clone()))
        .unwrap();
    net.tell(gateway::Input::Told {
        id: ask,
        told: Told::Held(Ok(Granted {
            tier: Tier::MANAGED,
        })),
    });
    assert_eq!(net.outside.asked, ["hold", "release"]);
    net.run(limits::SETTLE_RETRY_MAX);
    assert_eq!(net.outside.account.holds.len(), 1, "the store is down");
    net.outside.silent = false;
    net.run(limits::SETTLE_RETRY_MAX);
    assert_eq!(net.outside.asked, ["hold", "release", "release", "release"]);
    assert!(net.outside.account.holds.is_empty());
}

#[test]
fn a_settle_is_asked_again_until_the_store_is_back_and_charged_once() {
    let mut net = Net::connected();
    net.outside
        .upstreams
        .push_back(Upstream::Hang(&["The sky "]));
    let id = net.ask(1, Ask::new("Why?"));
    net.run(secs(1));
    net.outside.silent = true;
    net.give(0, Input::Cancel(id));
    net.run(secs(5));
    assert!(
        net.ends[0].ended.is_empty(),
        "no charge is reported before it is written"
    );
    net.outside.silent = false;
    net.run(limits::SETTLE_RETRY_MAX);
    assert_eq!(net.outside.account.spent, net.ends[0].ended[&id].cost_nanos);
    assert!(
        net.outside
            .asked
            .iter()
            .filter(|asked| **asked == "settle")
            .count()
            > 2
    );
}

#[test]
fn a_question_asked_while_connecting_is_sent_once_when_there_is_a_session() {
    let mut net = Net::new();
    net.black = true;
    net.outside.upstreams.push_back(Upstream::Whole(SKY));
    net.give(0, Input::Connect);
    let id = net.ask(1, Ask::new("Why?"));
    net.run(secs(10));
    net.black = false;
    net.run(secs(10));
    assert_eq!(net.ends[0].texts[&id], "The sky is blue.");
    assert_eq!(net.outside.asked, ["hold", "call", "settle"]);
}

#[test]
fn a_question_waits_no_longer_than_it_may_and_is_refused_where_nothing_is_sought() {
    let mut net = Net::new();
    let early = net.ask(1, Ask::new("Why?"));
    assert!(matches!(
        net.ends[0].failed[&early],
        AskError::NotConnected(None)
    ));
    net.black = true;
    net.give(0, Input::Connect);
    let short = net.ask(2, Ask::new("Why?").timeout_secs(7));
    let waiting = net.ask(3, Ask::new("Why?"));
    net.run(secs(8));
    assert_eq!(net.ends[0].failed[&short], AskError::TimedOut);
    assert!(!net.ends[0].failed.contains_key(&waiting));
    net.give(0, Input::Disconnect);
    assert!(matches!(
        net.ends[0].failed[&waiting],
        AskError::NotConnected(_)
    ));
    assert_eq!(net.ends[0].device.questions_under_way(), 0);
}

#[test]
fn what_breaks_a_rule_or_comes_twice_is_refused_before_it_is_sent() {
    let mut net = Net::connected();
    let empty = net.ask(1, Ask::new(" "));
    assert!(matches!(net.ends[0].failed[&empty], AskError::Invalid(_)));
    let huge = net.ask(
        2,
        Ask::new("Why?").knowledge("a", "x".repeat(10 << 20), 1.0),
    );
    assert_eq!(net.ends[0].failed[&huge], AskError::TooLarge);
    net.outside.upstreams.push_back(Upstream::Hang(&[]));
    net.ask(3, Ask::new("Why?"));
    let twice = net.ask(3, Ask::new("Why?"));
    assert_eq!(net.ends[0].failed[&twice], AskError::Duplicate);
    assert_eq!(net.ends[0].device.stats().requests_sent, 1);
}

#[test]
fn when_the_gateway_restarts_the_tunnel_comes_back() {
    let mut net = Net::connected();
    net.run(secs(1));
    net.restart_gateway();
    net.give(
        0,
        Input::Call {
            id: 1,
            method: Method::Ping,
            params: None,
        },
    );
    net.run_to(secs(40), |net| net.ends[0].replies.contains_key(&1));
    let Err(AskError::TunnelLost(lost)) = &net.ends[0].replies[&1] else {
        panic!("{:?}", net.ends[0].replies)
    };
    assert_eq!(lost.kind, FailureKind::Forgotten);
    net.run_to(secs(1), |net| net.state(0) == UP);
    let stats = net.ends[0].device.stats();
    assert_eq!((stats.reconnections, stats.epoch), (1, Some(2)));
    net.outside.upstreams.push_back(Upstream::Whole(SKY));
    let next = net.ask(2, Ask::new("Why?"));
    net.run(secs(1));
    assert_eq!(net.ends[0].texts[&next], "The sky is blue.");
}

/// What the tunnel did in an outage of so long: how long it took to answer after it, the doubts,
/// and the states it went through.
fn outage(span: Duration) -> (Duration, Vec<bool>, Vec<(Duration, State)>) {
    let mut net = Net::connected();
    net.run(secs(5));
    net.ends[0].changes.clear();
    net.black = true;
    let began = net.since_start();
    // A call is what notices the outage; it is lost or answered, both are fine.
    net.give(
        0,
        Input::Call {
            id: 1,
            method: Method::Ping,
            params: None,
        },
    );
    net.run(span);
    net.black = false;
    let mut number = 2;
    let healed = net.now.instant;
    while !matches!(net.ends[0].replies.get(&number), Some(Ok(_))) {
        assert!(net.now.instant - healed < secs(200), "never answers again");
        number += 1;
        net.give(
            0,
            Input::Call {
                id: number,
                method: Method::Ping,
                params: None,
            },
        );
        net.run(DELAY * 5);
    }
    let changes = net.ends[0]
        .changes
        .iter()
        .map(|(at, state)| (*at - began, *state));
    (
        net.now.instant - healed,
        net.ends[0].doubts.clone(),
        changes.collect(),
    )
}

#[test]
fn after_a_second_in_the_dark_it_answers_within_half_a_second() {
    let (took, _, changes) = outage(secs(1));
    assert!(took <= Duration::from_millis(500), "{took:?}");
    assert_eq!(changes, []);
}

#[test]
fn after_ten_seconds_in_the_dark_it_was_in_doubt_and_answers_within_a_second_and_a_half() {
    let (took, doubts, changes) = outage(secs(10));
    assert!(took <= Duration::from_millis(1_500), "{took:?}");
    assert_eq!((doubts, changes), (vec![true, false], vec![]));
}

#[test]
fn after_a_minute_in_the_dark_it_was_reconnecting_and_answers_within_three_seconds() {
    let (took, doubts, changes) = outage(secs(60));
    assert!(took <= secs(3), "{took:?}");
    assert_eq!(doubts, [true]);
    let (reconnecting, state) = changes[0];
    assert_eq!(state, State::Reconnecting { attempt: 1 });
    assert!(
        (secs(20)..secs(23)).contains(&reconnecting),
        "{reconnecting:?}"
    );
    assert_eq!(changes.last().unwrap().1, UP);
}

/// It is the gateway that has something on its way, and the device that says nothing.
#[test]
fn the_rest_of_an_answer_comes_soon_after_however_long_in_the_dark() {
    for (dark, beats) in [(2, 0), (5, 3), (10, 7), (15, 12), (19, 19)] {
        let mut net = Net::connected();
        net.outside.upstreams.push_back(Upstream::Hang(&["The "]));
        let id = net.ask(1, Ask::new("Why?"));
        net.run(secs(1) + Duration::from_millis(977) * beats);
        net.black = true;
        net.upstream_says(&["sky."]);
        net.run(secs(dark));
        net.black = false;
        let answered = |net: &Net| net.ends[0].ended.contains_key(&id);
        let took = net.run_to(secs(60), answered);
        assert_eq!(net.ends[0].texts[&id], "The sky.");
        assert!(took <= Duration::from_millis(1_500), "{dark} s: {took:?}");
        assert!(net.ends[0].changes.len() <= 2, "{:?}", net.ends[0].changes);
    }
}

#[test]
fn after_longer_than_the_idle_timeout_it_answers_within_one_backoff() {
    let (took, _, changes) = outage(secs(150));
    assert!(took <= secs(65), "{took:?}");
    assert_eq!(changes.last().unwrap().1, UP);
}

#[test]
fn a_revoked_device_loses_its_session_at_once_and_tries_no_more() {
    let mut net = Net::connected();
    net.outside.upstreams.push_back(Upstream::Hang(&["The "]));
    let id = net.ask(1, Ask::new("Why?"));
    net.run(secs(1));
    net.tell(gateway::Input::Revoked(DEVICE));
    net.run(secs(1));
    assert_eq!(
        (net.state(0), failure(&net, 0)),
        (State::Failed, FailureKind::Revoked)
    );
    assert!(matches!(net.ends[0].failed[&id], AskError::TunnelLost(_)));
    assert_eq!(net.gateway.sessions(), 0);
    assert!(
        net.outside.account.holds.is_empty(),
        "what was produced is charged, the rest void"
    );
}

#[test]
fn a_heartbeat_whose_number_was_used_before_ends_the_session() {
    let mut net = Net::connected();
    let now = net.now;
    let (attempt, _) = net.ends[0].device.tunnel.session().expect("a session");
    net.ends[0].changes.clear();
    net.ends[0].device.send_heartbeat(now, attempt, 0);
    net.give(0, Input::Unpause(RequestId::from_u128(1)));
    net.run(secs(1));
    let states: Vec<State> = net.ends[0].changes.iter().map(|&(_, to)| to).collect();
    assert_eq!(states, [State::Reconnecting { attempt: 1 }, UP]);
    assert_eq!(net.ends[0].device.stats().epoch, Some(2));
}

#[test]
fn who_is_not_let_in_is_told_why() {
    for (word, kind) in [
        (NotAdmitted::Unknown, FailureKind::Unauthorized),
        (NotAdmitted::Mismatched, FailureKind::Unauthorized),
        (NotAdmitted::Revoked, FailureKind::Revoked),
    ] {
        let mut net = Net::new();
        net.outside.admission = Err(word);
        net.give(0, Input::Connect);
        net.run(secs(1));
        assert_eq!((net.state(0), failure(&net, 0)), (State::Failed, kind));
    }
    let mut net = Net::new();
    net.outside.admission = Err(NotAdmitted::Unavailable);
    net.give(0, Input::Connect);
    net.run(secs(1));
    assert!(
        matches!(net.state(0), State::Reconnecting { .. }),
        "a store that is down may come back"
    );
    net.outside.admission = Ok(());
    net.run_to(secs(10), |net| net.state(0) == UP);
}

#[test]
fn a_certificate_that_is_missing_foreign_or_expired_fails_at_once_with_its_own_error() {
    let mut net = Net::without_devices();
    let stranger = World::named("stranger");
    let expired = net.world.device_leaf(2021);
    net.add_device(None, Attempts::Forever);
    net.add_device(Some(stranger.device_leaf(2040)), Attempts::Forever);
    net.add_device(Some(expired), Attempts::Forever);
    let kinds = [
        FailureKind::CertificateRequired,
        FailureKind::UnknownCa,
        FailureKind::CertificateExpired,
    ];
    for (end, kind) in kinds.into_iter().enumerate() {
        net.give(end, Input::Connect);
        net.run(secs(1));
        assert_eq!((net.state(end), failure(&net, end)), (State::Failed, kind));
    }
}

#[test]
fn the_same_device_connecting_anew_replaces_its_old_session() {
    let mut net = Net::connected();
    let leaf = net.world.device_leaf(2040);
    net.add_device(Some(leaf), Attempts::AtMost(0));
    net.give(1, Input::Connect);
    net.run_to(secs(1), |net| net.state(1) == UP);
    net.run_to(secs(1), |net| net.state(0) != UP);
    assert_eq!(net.gateway.sessions(), 1);
    let why = net.outside.events.iter().any(|event| {
        matches!(event, gateway::Event::TunnelDown { reason, .. } if reason.contains("anew"))
    });
    assert!(why);
}

#[test]
fn of_two_sessions_of_one_device_the_later_admitted_stays_whichever_is_told_first() {
    let mut net = Net::without_devices();
    for _ in 0..2 {
        let leaf = net.world.device_leaf(2040);
        net.add_device(Some(leaf), Attempts::AtMost(0));
    }
    net.outside.admits_late = true;
    net.give(0, Input::Connect);
    net.run(secs(1));
    net.outside.admits_late = false;
    net.give(1, Input::Connect);
    net.run_to(secs(1), |net| net.state(1) == UP);
    let late = net.outside.late.pop().unwrap();
    net.tell(late);
    net.run_to(secs(1), |net| net.state(0) == State::Failed);
    assert_eq!((net.state(1), net.gateway.sessions()), (UP, 1));
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

/// A device alone, on a wire where nothing comes back.
struct Devices(World);

#[derive(Debug)]
enum Deed {
    Connect,
    Resolved,
    Ask(u128),
    Cancel(u128),
    Ping(u64),
    BadVitals,
    NetworkChanged,
    Noise,
    Stop,
}

impl Subject for Devices {
    type Machine = Device<Quic>;
    type Step = Deed;

    fn make(&self) -> Device<Quic> {
        let own = self.0.device_leaf(2040);
        let seed = Seed::new([3; 32]);
        Device::new(
            self.0.seeded_client(Some(own), &seed),
            device_config(),
            &seed,
        )
    }

    fn apply(&self, device: &mut Device<Quic>, now: Now, deed: &Deed) -> Result<(), Rejected> {
        let input = match deed {
            Deed::Connect => Input::Connect,
            Deed::Resolved => {
                let Some(&attempt) = device.links.keys().last() else {
                    return Ok(());
                };
                let result = Ok(vec!["[::1]:4443".parse().unwrap()]);
                Input::Resolved { attempt, result }
            }
            Deed::Ask(number) => {
                let id = RequestId::from_u128(*number);
                Input::Escalate(Box::new(Ask::new("Why?").into_request(id)))
            }
            Deed::Cancel(number) => Input::Cancel(RequestId::from_u128(*number)),
            Deed::Ping(id) => Input::Call {
                id: *id,
                method: Method::Ping,
                params: None,
            },
            Deed::BadVitals => Input::Vitals(Vitals {
                cpu_usage: 7.0,
                ..Vitals::default()
            }),
            Deed::NetworkChanged => Input::NetworkChanged,
            Deed::Noise => Input::Datagram(Datagram {
                remote: "[::1]:4443".parse().unwrap(),
                local_ip: None,
                ecn: None,
                data: b"\xC0noise that is no QUIC packet at all"[..].into(),
            }),
            Deed::Stop => Input::Stop,
        };
        device.handle_input(now, input)
    }

    fn timeout(&self, device: &mut Device<Quic>, now: Now) {
        device.handle_input(now, Input::Timeout).unwrap();
    }

    fn digest(&self, device: &Device<Quic>) -> String {
        format!("{device:?}")
    }

    fn after_step(&self, device: &mut Device<Quic>, now: Now) {
        let mut buf = Vec::new();
        while device.poll_transmit(now, &mut buf).is_some() {
            buf.clear();
        }
    }
}

fn start() -> Now {
    Now {
        instant: origin(),
        wall: WALL,
    }
}

#[test]
fn a_device_keeps_the_contract_of_machines() {
    let script = [
        (secs(0), Deed::Ask(1)),
        (secs(0), Deed::Connect),
        (secs(0), Deed::Connect),
        (secs(1), Deed::Resolved),
        (secs(1), Deed::Ask(2)),
        (secs(0), Deed::Ask(2)),
        (secs(1), Deed::Ping(1)),
        (secs(0), Deed::Ping(1)),
        (secs(0), Deed::BadVitals),
        (secs(1), Deed::Noise),
        (secs(1), Deed::Cancel(2)),
        (secs(40), Deed::NetworkChanged),
        (secs(1), Deed::Resolved),
        (secs(70), Deed::Stop),
        (secs(1), Deed::Ping(2)),
    ];
    let devices = Devices(World::new());
    properties::check(&devices, start(), &script);
    properties::backlog_is_bounded(&devices, start(), &[], |n| Deed::Ask(n as u128));
}

/// A gateway alone.
struct Gateways(World);

#[derive(Debug)]
enum GatewayDeed {
    Noise,
    ToldOfNothing,
    BadModels,
    Stop,
}

impl Subject for Gateways {
    type Machine = Gateway<Quic>;
    type Step = GatewayDeed;

    fn make(&self) -> Gateway<Quic> {
        Gateway::new(self.0.server(1), gateway_config()).unwrap()
    }

    fn apply(
        &self,
        gateway: &mut Gateway<Quic>,
        now: Now,
        deed: &GatewayDeed,
    ) -> Result<(), gateway::Rejected> {
        let input = match deed {
            GatewayDeed::Noise => gateway::Input::Datagram(Datagram {
                remote: "[::1]:1000".parse().unwrap(),
                local_ip: None,
                ecn: None,
                data: b"\x40noise that is no QUIC packet at all"[..].into(),
            }),
            GatewayDeed::ToldOfNothing => gateway::Input::Told {
                id: gateway::AskId(99),
                told: Told::Released(Ok(())),
            },
            GatewayDeed::BadModels => gateway::Input::Configured(gateway::Config {
                default_model: "none".into(),
                ..gateway_config()
            }),
            GatewayDeed::Stop => gateway::Input::Stop,
        };
        gateway.handle_input(now, input)
    }

    fn timeout(&self, gateway: &mut Gateway<Quic>, now: Now) {
        gateway.handle_input(now, gateway::Input::Timeout).unwrap();
    }

    fn digest(&self, gateway: &Gateway<Quic>) -> String {
        format!("{gateway:?}")
    }

    fn after_step(&self, gateway: &mut Gateway<Quic>, now: Now) {
        let mut buf = Vec::new();
        while gateway.poll_transmit(now, &mut buf).is_some() {
            buf.clear();
        }
    }
}

#[test]
fn a_gateway_keeps_the_contract_of_machines() {
    let script = [
        (secs(0), GatewayDeed::Noise),
        (secs(1), GatewayDeed::ToldOfNothing),
        (secs(1), GatewayDeed::BadModels),
        (secs(1), GatewayDeed::Stop),
        (secs(1), GatewayDeed::Noise),
    ];
    properties::check(&Gateways(World::new()), start(), &script);
}

/// What is left of a deadline is never negative: the machine's own cached deadline is the earliest.
#[test]
fn a_connected_device_has_a_deadline_that_moves_on() {
    let mut net = Net::connected();
    let mut last: Option<Instant> = None;
    for _ in 0..20 {
        let (due, _) = net.ends[0].device.poll_timeout().unwrap();
        assert!(due > net.now.instant);
        net.run(due - net.now.instant);
        assert!(last.is_none_or(|last| due > last));
        last = Some(due);
    }
}
