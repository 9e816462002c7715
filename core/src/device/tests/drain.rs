//! A gateway that goes away in good order, and its devices: over real QUIC, in virtual time.

use super::net::{DEVICE, Net, UP, Upstream};
use super::*;
use crate::gateway::{Drain, Event};
use crate::limits;

const SKY: &str = "The sky is blue.";

fn drain(limit_secs: u64, alternates: &[&str]) -> gateway::Input {
    gateway::Input::Drain(Drain {
        limit: secs(limit_secs),
        spread: secs(10),
        store: secs(30),
        alternates: alternates.iter().map(|&name| name.to_owned()).collect(),
    })
}

/// Asked, with the first of three pieces here and the model server waiting.
fn in_the_middle(stream: bool) -> (Net, RequestId) {
    let mut net = Net::connected();
    let hangs = Upstream::Hang(&["The sky "]);
    net.outside.upstreams.push_back(hangs);
    let id = net.ask(1, Ask::new("Why?").stream(stream));
    net.run(secs(1));
    (net, id)
}

fn asked(net: &Net) -> Vec<&'static str> {
    let asked = net.outside.asked.iter().copied();
    asked.filter(|asked| *asked != "checkpoint").collect()
}

fn refusal(net: &Net, id: RequestId) -> ErrorCode {
    let AskError::Remote(error) = &net.ends[0].failed[&id] else {
        panic!("{:?}", net.ends[0].failed)
    };
    error.code
}

#[test]
fn a_running_answer_is_finished_and_then_the_gateway_is_gone() {
    for stream in [true, false] {
        let (mut net, id) = in_the_middle(stream);
        net.tell(drain(60, &[]));
        net.run(secs(30));
        assert!(!net.outside.stopped);
        net.upstream_says(&["is ", "blue."]);
        net.run(secs(1));
        assert!(net.outside.stopped);
        let end = &net.ends[0];
        let text = match stream {
            true => end.texts[&id].clone(),
            false => end.whole[&id].content.clone(),
        };
        assert_eq!(text, SKY);
        assert_eq!((end.cuts, end.failed.len()), (0, 0));
        assert_eq!(asked(&net), ["hold", "call", "settle"]);
        assert_eq!(net.gateway.tunnels(), 0);
    }
}

#[test]
fn what_is_left_at_the_limit_is_cut_off_and_costs_the_account_nothing() {
    let (mut net, id) = in_the_middle(true);
    net.tell(drain(20, &[]));
    net.run(secs(19));
    assert!(net.ends[0].failed.is_empty());
    net.run(secs(4));
    assert!(net.outside.stopped);
    assert_eq!(refusal(&net, id), ErrorCode::Interrupted);
    assert_eq!(net.ends[0].texts[&id], "The sky ");
    assert_eq!(asked(&net), ["hold", "call", "abandon", "lose"]);
    let account = &net.outside.account;
    assert_eq!((account.spent, account.holds.len()), (Nanos::ZERO, 0));
    // Two of the provider's tokens are eight bytes, by the usual estimate.
    assert_eq!(net.outside.lost[&id].tokens.completion, 2);
}

#[test]
fn stopped_twice_it_does_not_wait_for_the_limit() {
    let (mut net, id) = in_the_middle(true);
    net.tell(drain(60, &[]));
    net.run(secs(1));
    net.tell(gateway::Input::Stop);
    net.run(secs(3));
    assert!(net.outside.stopped);
    assert_eq!(refusal(&net, id), ErrorCode::Interrupted);
}

#[test]
fn the_loss_is_booked_before_the_gateway_goes_if_the_store_comes_back_in_time() {
    let (mut net, id) = in_the_middle(true);
    net.outside.silent = true;
    net.tell(gateway::Input::Stop);
    net.run(secs(15));
    assert!(!net.outside.stopped && net.ends[0].failed.is_empty());
    net.outside.silent = false;
    net.run(secs(40));
    assert!(net.outside.stopped && net.outside.lost.contains_key(&id));
    assert_eq!(unbooked(&net), []);
}

fn unbooked(net: &Net) -> Vec<RequestId> {
    let events = net.outside.events.iter();
    let unbooked = events.filter_map(|event| {
        let Event::Unbooked { device, request } = event else {
            return None;
        };
        assert_eq!(*device, DEVICE);
        Some(*request)
    });
    unbooked.collect()
}

#[test]
fn a_store_that_stays_away_holds_a_gateway_up_for_a_time_and_no_longer() {
    // Stopped at once, and drained with an answer that ends by itself and cannot be charged.
    for (going, most) in [(gateway::Input::Stop, 20), (drain(40, &[]), 70)] {
        let (mut net, id) = in_the_middle(true);
        net.outside.silent = true;
        net.tell(going);
        net.run(secs(1));
        if most == 70 {
            net.upstream_says(&["is ", "blue."]);
        }
        net.run(secs(most - 3));
        assert!(!net.outside.stopped, "{most}");
        assert_eq!(unbooked(&net), []);
        let took = net.run_to(secs(10), |net| net.outside.stopped);
        assert!(took < secs(6), "{most}: {took:?}");
        assert_eq!(unbooked(&net), [id]);
        assert_eq!(
            (net.gateway.tunnels(), net.gateway.answers_under_way()),
            (0, 0)
        );
        assert_eq!(
            (net.gateway.answers_kept(), net.gateway.kept_bytes()),
            (0, 0)
        );
        assert!(net.ends[0].failed.is_empty() && net.ends[0].ended.is_empty());
        assert!(net.outside.ledger.is_empty() && net.outside.lost.is_empty());
    }
}

#[test]
fn one_of_which_nothing_has_come_is_free_for_another_gateway_under_its_own_id() {
    let mut net = Net::connected();
    net.outside.upstreams.push_back(Upstream::Hang(&[]));
    let id = net.ask(1, Ask::new("Why?"));
    net.run(secs(1));
    net.tell(gateway::Input::Stop);
    net.run(secs(3));
    assert!(net.outside.stopped);
    assert_eq!(asked(&net), ["hold", "call", "abandon", "release"]);
    net.restart_gateway();
    net.outside.upstreams.push_back(Upstream::Whole(&[SKY]));
    net.run_to(secs(30), |net| net.ends[0].ended.contains_key(&id));
    assert_eq!(net.ends[0].texts[&id], SKY);
    assert_eq!(net.outside.ledger.len(), 1);
}

#[test]
fn a_new_question_waits_for_the_next_gateway_while_a_running_answer_is_finished() {
    let (mut net, first) = in_the_middle(true);
    net.tell(drain(60, &[]));
    net.run(secs(1));
    let second = net.ask(2, Ask::new("And the sea?"));
    net.run(secs(5));
    assert_eq!(asked(&net), ["hold", "call"], "nothing new is begun");
    assert!(matches!(net.state(0), State::Reconnecting { .. }));
    net.upstream_says(&["is ", "blue."]);
    net.run(secs(1));
    assert_eq!(net.ends[0].texts[&first], SKY);
    assert!(net.outside.stopped);
    net.restart_gateway();
    net.outside.upstreams.push_back(Upstream::Whole(&["Too."]));
    net.run_to(secs(20), |net| net.ends[0].ended.contains_key(&second));
    assert_eq!(net.ends[0].texts[&second], "Too.");
    assert!(net.ends[0].failed.is_empty());
}

#[test]
fn a_question_that_crosses_the_word_of_going_away_is_asked_again_elsewhere() {
    let (mut net, first) = in_the_middle(true);
    // On its way when the gateway says so.
    let second = net.ask(2, Ask::new("And the sea?"));
    net.tell(drain(60, &[]));
    net.run(secs(2));
    net.upstream_says(&["is ", "blue."]);
    net.run(secs(1));
    assert_eq!(net.ends[0].texts[&first], SKY);
    assert!(net.outside.stopped);
    let refused = |event: &Event| matches!(event, Event::Failed { request, code, .. } if *request == second && *code == ErrorCode::ShuttingDown);
    assert!(net.outside.events.iter().any(refused));
    net.restart_gateway();
    net.outside.upstreams.push_back(Upstream::Whole(&["Too."]));
    net.run_to(secs(20), |net| net.ends[0].ended.contains_key(&second));
    assert_eq!(
        asked(&net),
        ["hold", "call", "settle", "hold", "call", "settle"]
    );
}

#[test]
fn a_device_seeks_the_alternate_first_and_home_when_that_fails() {
    let mut net = Net::connected();
    net.tell(drain(60, &["gateway-2:4443"]));
    net.run_to(secs(5), |net| net.outside.stopped);
    net.restart_gateway();
    net.run_to(secs(60), |net| net.state(0) == UP);
    let sought = net.ends[0].sought.iter();
    let sought: Vec<Option<&str>> = sought.map(|(_, name)| name.as_deref()).collect();
    assert_eq!(&sought[..3], [None, Some("gateway-2:4443"), None]);
    // Once at home it forgets the alternate.
    let had = net.ends[0].sought.len();
    net.tell(gateway::Input::Stop);
    net.run(secs(20));
    assert!(
        net.ends[0].sought[had..]
            .iter()
            .all(|(_, name)| name.is_none())
    );
    assert!(net.ends[0].sought.len() > had);
}

#[test]
fn devices_are_sent_away_one_after_another_and_to_the_alternates_in_turn() {
    let mut net = Net::connected();
    net.add_stranger();
    net.give(1, Input::Connect);
    net.run(secs(1));
    net.tell(drain(60, &["gateway-2:4443", "gateway-3:4443"]));
    let told = net.since_start();
    net.run(secs(2));
    let sought = |end: usize| net.ends[end].sought[1].clone();
    let (first, second) = (sought(0), sought(1));
    assert_eq!(first.1.as_deref(), Some("gateway-2:4443"));
    assert_eq!(second.1.as_deref(), Some("gateway-3:4443"));
    let soon = |at: Duration, after: u64| {
        let due = told + DELAY + Duration::from_millis(after);
        assert!(
            at >= due && at <= due + Duration::from_millis(5),
            "{at:?}, {due:?}"
        );
    };
    soon(first.0, 0);
    // A small fleet needs no ten seconds.
    soon(second.0, 50);
}

#[test]
fn nobody_is_taken_in_by_a_gateway_that_goes_away() {
    let (mut net, _) = in_the_middle(true);
    let stranger = net.add_stranger();
    // In the middle of its handshake.
    net.give(stranger, Input::Connect);
    net.run(DELAY * 2);
    net.tell(drain(60, &[]));
    net.run(secs(20));
    assert!(matches!(net.state(stranger), State::Reconnecting { .. }));
    let up = |event: &&Event| matches!(event, Event::TunnelUp { .. });
    assert_eq!(net.outside.events.iter().filter(up).count(), 1);
    assert_eq!(
        net.gateway.sessions(),
        1,
        "the answer is finished on the old tunnel"
    );
}

#[test]
fn a_device_that_is_not_there_any_more_is_not_waited_for() {
    let mut net = Net::connected();
    net.black = true;
    net.tell(drain(60, &[]));
    let took = net.run_to(secs(5), |net| net.outside.stopped);
    assert!(took < limits::DRAIN_GRACE + secs(3), "{took:?}");
}

#[test]
fn a_reader_that_has_not_read_the_end_of_its_answer_is_waited_for() {
    let (mut net, id) = in_the_middle(true);
    net.give(0, Input::Pause(id));
    net.tell(drain(60, &[]));
    let long = "word ".repeat(200_000);
    let pieces = [long.as_str(), "end"];
    net.upstream_says(&pieces);
    net.run(secs(20));
    assert!(!net.outside.stopped);
    net.give(0, Input::Unpause(id));
    net.run(secs(5));
    assert!(net.outside.stopped);
    assert!(net.ends[0].ended.contains_key(&id));
    assert_eq!(
        net.ends[0].texts[&id].len(),
        "The sky ".len() + long.len() + 3
    );
}

#[test]
fn a_device_may_be_revoked_while_its_gateway_goes_away() {
    let (mut net, _) = in_the_middle(true);
    net.tell(drain(60, &[]));
    net.run(secs(1));
    net.tell(gateway::Input::Revoked(DEVICE));
    net.run(secs(5));
    assert!(net.outside.stopped);
    assert_eq!(net.state(0), State::Failed);
}
