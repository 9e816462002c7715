//! Answers that survive their device's process: what was written down is enough to go on.

use super::net::{Net, UP, Upstream};
use super::*;
use crate::device::unfinished::{Listed, Unfinished};
use crate::error::ErrorClass;

const SKY: &str = "The sky is blue.";

/// A device that keeps its questions asked one, and the first of three pieces is here.
fn in_the_middle(question: Ask) -> (Net, RequestId) {
    let mut net = Net::keeping();
    net.outside
        .upstreams
        .push_back(Upstream::Hang(&["The sky "]));
    let id = net.ask(1, question);
    net.run(secs(1));
    assert_eq!(net.ends[0].kept.len(), 1);
    (net, id)
}

fn asked(net: &Net) -> Vec<&'static str> {
    let asked = net.outside.asked.iter().copied();
    asked.filter(|asked| *asked != "checkpoint").collect()
}

fn attach(net: &mut Net, id: RequestId) {
    net.give(0, Input::Attach(id));
    net.run(secs(1));
}

fn listed(net: &Net) -> Vec<Listed> {
    net.ends[0].device.unfinished()
}

#[test]
fn an_answer_goes_on_in_another_process_with_one_call_and_one_charge() {
    let (mut net, id) = in_the_middle(Ask::new("Why is the sky blue?"));
    net.restart();
    net.run_to(secs(2), |net| net.state(0) == UP);
    net.upstream_says(&["is ", "blue."]);
    net.run(secs(1));
    assert!(net.ends[0].texts.is_empty(), "nobody reads it yet");
    let listed = listed(&net);
    assert_eq!(listed[0].title, "Why is the sky blue?");
    assert!(!listed[0].open && listed[0].bytes == SKY.len() as u64);
    attach(&mut net, id);
    assert_eq!(net.ends[0].texts[&id], SKY);
    assert_eq!(net.ends[0].ended[&id].cost_nanos, Nanos(10_815_000));
    assert_eq!(asked(&net), ["hold", "call", "settle"]);
    assert_eq!(net.ends[0].kept.len(), 1, "it was not taken yet");
    net.give(0, Input::Taken(id));
    net.run(secs(1));
    assert!(net.ends[0].kept.is_empty() && net.ends[0].device.unfinished().is_empty());
}

#[test]
fn who_attaches_in_the_middle_hears_all_from_the_first_word_on() {
    let (mut net, id) = in_the_middle(Ask::new("Why?"));
    net.restart();
    net.run(secs(1));
    attach(&mut net, id);
    assert_eq!(net.ends[0].texts[&id], "The sky ");
    net.upstream_says(&["is ", "blue."]);
    net.run(secs(1));
    assert_eq!(net.ends[0].texts[&id], SKY);
    assert!(net.ends[0].ended.contains_key(&id));
    attach(&mut net, id);
    assert_eq!(net.ends[0].failed[&id], AskError::Duplicate);
}

#[test]
fn what_came_after_the_last_write_comes_again() {
    let (mut net, id) = in_the_middle(Ask::new("Why?"));
    let before = net.ends[0].kept.clone();
    net.upstream_goes_on("is ");
    net.run(secs(1));
    assert_eq!(net.ends[0].texts[&id], "The sky is ");
    net.ends[0].kept = before;
    net.restart();
    net.run(secs(1));
    net.upstream_says(&["blue."]);
    net.run(secs(1));
    attach(&mut net, id);
    assert_eq!(net.ends[0].texts[&id], SKY);
}

#[test]
fn before_the_first_piece_it_is_asked_again_and_joins_its_answer() {
    for stream in [true, false] {
        let mut net = Net::keeping();
        net.outside.upstreams.push_back(Upstream::Hang(&[]));
        let id = net.ask(1, Ask::new("Why?").stream(stream));
        net.run(secs(1));
        net.restart();
        net.run(secs(1));
        net.upstream_says(&["The sky ", "is blue."]);
        net.run(secs(1));
        attach(&mut net, id);
        assert_eq!(net.ends[0].texts[&id], SKY);
        assert_eq!(asked(&net), ["hold", "call", "settle"]);
    }
}

/// A question whose gateway lost it in the middle of its answer, and that was asked anew: with what had
/// been written down before that.
fn asked_anew() -> (Net, RequestId, Unfinished) {
    let mut net = Net::keeping();
    net.outside.upstreams = [Upstream::Hang(&["The sky "]), Upstream::Hang(&[])].into();
    let id = net.ask(1, Ask::new("Why?").stream(false));
    net.run(secs(1));
    let before = net.ends[0].kept.clone();
    net.tell(gateway::Input::Stop);
    net.run(secs(1));
    net.restart_gateway();
    net.run_to(secs(120), |net| calls(net) == 2);
    (net, id, before)
}

fn calls(net: &Net) -> usize {
    asked(net).iter().filter(|asked| **asked == "call").count()
}

/// Another process has the answer of the second call.
fn has_the_second_answer(net: &mut Net, id: RequestId) {
    net.restart();
    net.run(secs(1));
    net.upstream_says(&["The sky ", "is blue."]);
    net.run(secs(1));
    attach(net, id);
    assert_eq!(net.ends[0].texts[&id], SKY);
    assert_eq!(calls(net), 2);
}

#[test]
fn asked_anew_under_another_id_it_goes_on_under_that_one() {
    let (mut net, id, _) = asked_anew();
    net.run(secs(1));
    assert_ne!(net.ends[0].kept.questions[0].wire_id, id);
    has_the_second_answer(&mut net, id);
}

/// It had not been written down yet that it was asked anew: the same id follows from the old one again.
#[test]
fn who_dies_before_the_new_id_was_written_down_asks_for_the_same_answer() {
    let (mut net, id, before) = asked_anew();
    assert_eq!(before.questions[0].wire_id, id);
    net.ends[0].kept = before;
    has_the_second_answer(&mut net, id);
}

#[test]
fn what_was_hidden_is_put_back_though_the_process_is_another() {
    let mut net = Net::keeping();
    net.outside
        .upstreams
        .push_back(Upstream::Hang(&["write to [EMA"]));
    let id = net.ask(1, Ask::new("Whom? ada@example.com"));
    net.run(secs(1));
    net.restart();
    net.run(secs(1));
    net.upstream_says(&["IL_1] now"]);
    net.run(secs(1));
    attach(&mut net, id);
    assert_eq!(net.ends[0].texts[&id], "write to ada@example.com now");
    assert_eq!(net.ends[0].ended[&id].hidden, 1);
}

#[test]
fn an_answer_that_ended_while_nobody_was_there_waits_for_whoever_wants_it() {
    let (mut net, id) = in_the_middle(Ask::new("Why?"));
    net.upstream_says(&["is ", "blue."]);
    net.run(secs(1));
    assert_eq!(net.ends[0].ended.len(), 1);
    // Its reader was slow, and died with the process.
    net.ends[0].ended.clear();
    net.restart();
    attach(&mut net, id);
    assert_eq!(net.ends[0].texts[&id], SKY);
    assert!(net.ends[0].ended.contains_key(&id));
}

#[test]
fn after_too_long_there_is_the_text_so_far_and_a_clear_end() {
    let (mut net, id) = in_the_middle(Ask::new("Why?"));
    net.black = true;
    net.run(limits::UNFINISHED_RESUMABLE + secs(1));
    net.black = false;
    net.ends[0].kept = {
        let mut kept = net.ends[0].kept.clone();
        kept.questions.retain(|kept| kept.id == id);
        kept
    };
    net.ends[0].failed.clear();
    net.restart();
    net.run(secs(1));
    attach(&mut net, id);
    assert_eq!(net.ends[0].texts[&id], "The sky ");
    let words = net.ends[0].failed[&id].to_string();
    assert!(words.contains("too long"), "{words}");
    assert_eq!(net.ends[0].failed[&id].class(), ErrorClass::Timeout);
}

#[test]
fn it_is_forgotten_in_the_end() {
    let (mut net, _) = in_the_middle(Ask::new("Why?"));
    let kept = net.ends[0].kept.clone();
    net.run(limits::UNFINISHED_KEPT + secs(1));
    net.ends[0].kept = kept;
    net.restart();
    net.run(secs(1));
    assert!(listed(&net).is_empty() && net.ends[0].kept.is_empty());
}

#[test]
fn a_device_that_says_goodbye_keeps_what_is_under_way() {
    let (mut net, id) = in_the_middle(Ask::new("Why?"));
    net.give(0, Input::Stop);
    net.run(secs(1));
    assert!(net.ends[0].stopped);
    assert!(net.ends[0].failed.contains_key(&id), "its reader is told");
    assert_eq!(net.ends[0].kept.len(), 1);
    net.ends[0].failed.clear();
    net.restart();
    net.run(secs(1));
    net.upstream_says(&["is ", "blue."]);
    attach(&mut net, id);
    assert_eq!(net.ends[0].texts[&id], SKY);
    assert_eq!(asked(&net), ["hold", "call", "settle"]);
}

#[test]
fn asked_again_with_the_same_words_it_goes_on_and_with_others_it_does_not() {
    let (mut net, id) = in_the_middle(Ask::new("Why?"));
    net.restart();
    net.run(secs(1));
    net.ask(1, Ask::new("Another?"));
    assert_eq!(net.ends[0].failed.remove(&id), Some(AskError::Duplicate));
    net.ask(1, Ask::new("Why?"));
    net.upstream_says(&["is ", "blue."]);
    net.run(secs(1));
    assert_eq!(net.ends[0].texts[&id], SKY);
    assert_eq!(asked(&net), ["hold", "call", "settle"]);
}

#[test]
fn nothing_kept_is_said_to_be_so() {
    let mut net = Net::keeping();
    let id = RequestId::from_u128(9);
    attach(&mut net, id);
    assert_eq!(net.ends[0].failed[&id], AskError::NothingKept);
    assert_eq!(net.ends[0].failed[&id].class(), ErrorClass::Validation);
}

#[test]
fn a_fast_answer_costs_few_writes_and_one_that_is_over_at_once_hardly_any() {
    let (mut net, _) = in_the_middle(Ask::new("Why?"));
    let before = net.ends[0].writes;
    for _ in 0..1000 {
        net.upstream_goes_on("x");
        net.run(Duration::from_millis(1));
    }
    let writes = net.ends[0].writes - before;
    assert!((3..=6).contains(&writes), "{writes}");
    let mut net = Net::keeping();
    for number in 1..=10 {
        net.outside.upstreams.push_back(Upstream::Whole(&[SKY]));
        let id = net.ask(number, Ask::new("Why?"));
        net.run(Duration::from_millis(40));
        assert!(net.ends[0].ended.contains_key(&id));
        net.give(0, Input::Taken(id));
    }
    net.run(secs(1));
    assert!(net.ends[0].writes <= 4, "{}", net.ends[0].writes);
    assert!(net.ends[0].kept.is_empty());
}

#[test]
fn a_device_that_is_not_to_keep_anything_says_nothing_of_it() {
    let mut net = Net::connected();
    net.outside
        .upstreams
        .push_back(Upstream::Hang(&["The sky "]));
    net.ask(1, Ask::new("Why?"));
    net.run(secs(5));
    assert_eq!(net.ends[0].writes, 0);
}

/// A tunnel that is lost, so that the next words come over another.
fn lose_tunnel(net: &mut Net) {
    net.black = true;
    net.run_to(secs(140), |net| net.ends[0].cuts == 1);
}

fn light(net: &mut Net) {
    net.black = false;
    net.give(0, Input::NetworkChanged);
    net.run_to(secs(70), |net| net.state(0) == UP);
    net.run(secs(1));
}

#[test]
fn a_cancel_while_the_tunnel_is_away_reaches_the_gateway_when_it_is_back() {
    for heard in [&["The sky "][..], &[]] {
        let mut net = Net::connected();
        net.outside.upstreams.push_back(Upstream::Hang(heard));
        let id = net.ask(1, Ask::new("Why?").timeout_secs(300));
        net.run(secs(1));
        net.black = true;
        net.run(secs(60));
        if !heard.is_empty() {
            // It must not be taken for dead by its gateway.
            net.upstream_goes_on("");
        }
        lose_tunnel(&mut net);
        net.give(0, Input::Cancel(id));
        assert!(net.ends[0].failed.is_empty());
        light(&mut net);
        assert_eq!(
            net.ends[0].ended[&id].finish_reason,
            FinishReason::Cancelled
        );
        assert!(asked(&net).contains(&"abandon"), "{:?}", asked(&net));
        let calls = asked(&net).iter().filter(|asked| **asked == "call").count();
        assert_eq!(calls, 1);
    }
}

#[test]
fn a_cancel_outlives_the_process_too_and_nobody_is_shown_the_question() {
    let (mut net, id) = in_the_middle(Ask::new("Why?"));
    net.black = true;
    net.give(0, Input::Cancel(id));
    net.run(secs(1));
    assert_eq!(net.ends[0].kept.len(), 1);
    net.restart();
    net.black = false;
    assert!(listed(&net).is_empty());
    net.run(secs(5));
    assert!(asked(&net).contains(&"abandon"), "{:?}", asked(&net));
    assert!(net.ends[0].kept.is_empty());
}

#[test]
fn one_that_was_cancelled_waits_for_a_tunnel_as_long_as_its_gateway_would() {
    let mut net = Net::connected();
    net.outside
        .upstreams
        .push_back(Upstream::Hang(&["The sky "]));
    let id = net.ask(1, Ask::new("Why?"));
    net.run(secs(1));
    lose_tunnel(&mut net);
    net.give(0, Input::Cancel(id));
    net.run(limits::CANCEL_WAITS.saturating_sub(secs(1)));
    assert!(net.ends[0].failed.is_empty());
    net.run(secs(2));
    assert!(matches!(net.ends[0].failed[&id], AskError::TunnelLost(_)));
}

#[test]
fn an_answer_that_stops_in_the_middle_fails_after_its_idle_time_and_is_stopped() {
    let (mut net, id) = in_the_middle(Ask::new("Why?"));
    // The gateway's own clock of the model server is kept from it.
    let heard = net.since_start();
    net.give(0, Input::Pause(id));
    net.run(secs(30));
    net.give(0, Input::Unpause(id));
    assert!(net.ends[0].failed.is_empty(), "its reader was slow");
    for _ in 0..2 {
        net.run(secs(60));
        net.upstream_goes_on("");
    }
    net.run(secs(29));
    assert!(net.ends[0].failed.is_empty());
    net.run(secs(2));
    let waited = net.since_start() - heard;
    assert_eq!(
        net.ends[0].failed.get(&id),
        Some(&AskError::Silent(limits::ANSWER_IDLE)),
        "{waited:?}"
    );
    net.run(secs(1));
    assert!(asked(&net).contains(&"abandon"), "{:?}", asked(&net));
}
