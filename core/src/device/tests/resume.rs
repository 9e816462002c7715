//! Answers that survive a lost tunnel: devices and a gateway over real QUIC, in virtual time.

use super::net::{DEVICE, Net, UP, Upstream};
use super::*;
use crate::gateway::{Event, Keeping, Rates, Return};
use crate::wire::message::{Message, Resume};

pub(super) const SKY: &str = "The sky is blue.";

/// Asked, with the first of three pieces here and the model server waiting.
pub(super) fn in_the_middle(stream: bool) -> (Net, RequestId) {
    let mut net = Net::connected();
    net.outside
        .upstreams
        .push_back(Upstream::Hang(&["The sky "]));
    let id = net.ask(1, Ask::new("Why?").stream(stream));
    net.run(secs(1));
    (net, id)
}

pub(super) fn attached(net: &Net) -> Vec<(Return, u64, bool)> {
    let back = net.outside.events.iter().filter_map(|event| {
        let Event::Attached {
            how, from, running, ..
        } = event
        else {
            return None;
        };
        Some((*how, *from, *running))
    });
    back.collect()
}

pub(super) fn count(net: &Net, what: &str) -> usize {
    net.outside
        .asked
        .iter()
        .filter(|asked| **asked == what)
        .count()
}

/// What was asked of the outside world, besides to write down what has been used so far.
pub(super) fn asked(net: &Net) -> Vec<&'static str> {
    let asked = net.outside.asked.iter().copied();
    asked.filter(|asked| *asked != "checkpoint").collect()
}

/// Until both sides have given the tunnel up: 120 s after they last spoke without an answer. The
/// model server is not silent meanwhile.
pub(super) fn black_out(net: &mut Net, said: &str) {
    net.black = true;
    net.run(secs(60));
    net.upstream_goes_on(said);
    net.run(secs(60));
    net.upstream_goes_on("");
    let is_lost = |net: &Net| net.state(0) != UP && net.gateway.sessions() == 0;
    net.run_to(secs(90), is_lost);
}

/// A router that forgets leaves no trace, and whoever waits for an answer says nothing by itself.
#[test]
fn an_answer_under_way_is_not_held_up_long_by_a_router_that_forgot_its_device() {
    let (mut net, id) = in_the_middle(true);
    net.run(secs(30));
    net.rebinds = 1;
    net.upstream_says(&["is ", "blue."]);
    let took = net.run_to(secs(20), |net| net.ends[0].ended.contains_key(&id));
    assert!(took <= limits::AWAITED_SILENCE + secs(1), "{took:?}");
    let end = &net.ends[0];
    assert_eq!((end.texts[&id].as_str(), end.cuts), (SKY, 0));
    assert_eq!(net.gateway.sessions(), 1, "the tunnel is still the first");
}

pub(super) fn light(net: &mut Net) {
    net.black = false;
    net.give(0, Input::NetworkChanged);
    net.run_to(secs(70), |net| net.state(0) == UP);
    net.run(secs(1));
}

#[test]
fn an_answer_cut_in_the_middle_goes_on_where_it_was_with_one_call_and_one_charge() {
    let (mut net, id) = in_the_middle(true);
    assert_eq!(net.ends[0].texts[&id], "The sky ");
    black_out(&mut net, "is ");
    net.upstream_says(&["blue."]);
    light(&mut net);
    let end = &net.ends[0];
    assert_eq!(end.texts[&id], SKY);
    assert_eq!(end.ended[&id].cost_nanos, Nanos(10_815_000));
    assert_eq!((end.cuts, end.resumed.as_slice()), (1, &[1][..]));
    assert_eq!(attached(&net), [(Return::Resumed, 1, false)]);
    assert_eq!(asked(&net), ["hold", "call", "settle"]);
    assert_eq!(net.outside.account.spent, Nanos(10_815_000));
    let stats = end.device.stats();
    assert_eq!((stats.requests_sent, stats.requests_succeeded), (1, 1));
}

#[test]
fn one_that_still_runs_when_the_tunnel_is_back_is_heard_on() {
    let (mut net, id) = in_the_middle(true);
    black_out(&mut net, "");
    light(&mut net);
    assert_eq!(attached(&net), [(Return::Resumed, 1, true)]);
    assert!(
        net.ends[0].resumed.is_empty(),
        "nothing has been said since"
    );
    net.upstream_says(&["is ", "blue."]);
    net.run(secs(1));
    assert_eq!(net.ends[0].resumed, [1]);
    assert_eq!(net.ends[0].texts[&id], SKY);
    assert_eq!(asked(&net), ["hold", "call", "settle"]);
}

#[test]
fn a_question_of_which_nothing_had_come_is_sent_again_and_joins_its_answer() {
    for stream in [true, false] {
        let mut net = Net::connected();
        net.outside.upstreams.push_back(Upstream::Hang(&[]));
        let id = net.ask(1, Ask::new("Why?").stream(stream));
        net.run(secs(1));
        net.black = true;
        net.run(secs(20));
        net.upstream_says(&[SKY]);
        net.run_to(secs(140), |net| net.ends[0].cuts == 1);
        light(&mut net);
        let end = &net.ends[0];
        let text = match stream {
            true => end.texts[&id].clone(),
            false => end.whole[&id].content.clone(),
        };
        assert_eq!(text, SKY);
        assert_eq!(attached(&net), [(Return::AskedAgain, 0, false)]);
        assert_eq!(asked(&net), ["hold", "call", "settle"]);
    }
}

#[test]
fn a_device_that_stays_away_has_its_answer_stopped_after_the_window_and_is_told_when_it_is_back() {
    let (mut net, id) = in_the_middle(true);
    black_out(&mut net, "");
    net.run(secs(60));
    net.upstream_goes_on("");
    assert_eq!(count(&net, "abandon"), 0);
    net.run(secs(60));
    assert_eq!(count(&net, "abandon"), 1);
    light(&mut net);
    let AskError::Remote(error) = &net.ends[0].failed[&id] else {
        panic!("{:?}", net.ends[0].failed)
    };
    assert_eq!(error.code, ErrorCode::Expired);
    let charged = net.outside.account.spent;
    assert!(charged > Nanos::ZERO && charged < Nanos(10_815_000));
    assert_eq!(error.details.as_ref().unwrap()["cost_nanos"], charged.0);
    assert_eq!(net.ends[0].texts[&id], "The sky ", "the text so far stands");
}

#[test]
fn a_drained_provider_is_read_to_the_end_and_counts_exactly() {
    let mut net = Net::without_devices();
    net.configure(|config| {
        config.keeping.drained.insert("provider".to_owned());
    });
    net.join();
    net.outside
        .upstreams
        .push_back(Upstream::Hang(&["The sky "]));
    let id = net.ask(1, Ask::new("Why?"));
    net.run(secs(1));
    black_out(&mut net, "is ");
    for _ in 0..3 {
        net.upstream_goes_on("");
        net.run(secs(60));
    }
    net.upstream_says(&["blue."]);
    assert_eq!(net.outside.account.spent, Nanos(10_815_000));
    assert_eq!(count(&net, "abandon"), 0);
    light(&mut net);
    assert_eq!(net.ends[0].texts[&id], SKY);
}

#[test]
fn what_is_kept_no_longer_is_expired_with_its_receipt() {
    let mut net = Net::without_devices();
    net.configure(|config| config.keeping.kept = Duration::ZERO);
    net.join();
    net.outside
        .upstreams
        .push_back(Upstream::Hang(&["The sky "]));
    let id = net.ask(1, Ask::new("Why?"));
    net.run(secs(1));
    black_out(&mut net, "is ");
    net.upstream_says(&["blue."]);
    assert_eq!(net.gateway.answers_kept(), 0, "nobody listened at its end");
    light(&mut net);
    assert_eq!(count(&net, "recall"), 1);
    let AskError::Remote(error) = &net.ends[0].failed[&id] else {
        panic!("{:?}", net.ends[0].failed)
    };
    assert_eq!(error.code, ErrorCode::Expired);
    assert_eq!(error.details.as_ref().unwrap()["cost_nanos"], 10_815_000);
}

#[test]
fn answers_are_kept_ten_minutes_after_their_end_and_then_nothing_of_them_is() {
    let mut net = Net::connected();
    net.outside.upstreams.push_back(Upstream::Whole(&[SKY]));
    net.ask(1, Ask::new("Why?"));
    net.run(secs(1));
    assert!(net.gateway.kept_bytes() > SKY.len());
    net.run(secs(598));
    assert_eq!(net.gateway.answers_kept(), 1);
    net.run(secs(2));
    assert_eq!(
        (net.gateway.answers_kept(), net.gateway.kept_bytes()),
        (0, 0)
    );
    let forgotten = |event: &Event| matches!(event, Event::Forgotten { .. });
    assert!(net.outside.events.iter().any(forgotten));
}

#[test]
fn the_same_question_sent_again_joins_the_answer_and_another_one_under_its_id_is_refused() {
    let mut net = Net::connected();
    net.outside.upstreams.push_back(Upstream::Whole(&[SKY]));
    let id = net.ask(1, Ask::new("Why?"));
    net.run(secs(1));
    net.ends[0].ended.clear();
    net.ends[0].texts.clear();
    net.ask(1, Ask::new("Why?"));
    net.run(secs(1));
    assert_eq!(net.ends[0].texts[&id], SKY);
    assert_eq!(net.ends[0].ended[&id].cost_nanos, Nanos(10_815_000));
    net.ask(1, Ask::new("How?"));
    net.run(secs(1));
    let AskError::Remote(error) = &net.ends[0].failed[&id] else {
        panic!("{:?}", net.ends[0].failed)
    };
    assert_eq!(error.code, ErrorCode::Conflict);
    assert_eq!(asked(&net), ["hold", "call", "settle"]);
}

#[test]
fn a_failure_that_charged_nothing_frees_its_id() {
    let mut net = Net::connected();
    net.outside.upstreams = [Upstream::Status(401), Upstream::Whole(&[SKY])].into();
    let id = net.ask(1, Ask::new("Why?"));
    net.run(secs(1));
    assert!(net.ends[0].failed.remove(&id).is_some());
    assert_eq!(net.gateway.answers_kept(), 0);
    net.ask(1, Ask::new("How?"));
    net.run(secs(1));
    assert_eq!(net.ends[0].texts[&id], SKY);
}

#[test]
fn an_answer_is_its_devices_alone() {
    let (mut net, id) = in_the_middle(true);
    let other = net.add_stranger();
    net.give(other, Input::Connect);
    net.run_to(secs(2), |net| net.state(other) == UP);
    let request = Ask::new("Why?").into_request(id);
    net.give(other, Input::Escalate(Box::new(request)));
    net.run(secs(1));
    let AskError::Remote(error) = &net.ends[other].failed[&id] else {
        panic!("{:?}", net.ends[other].failed)
    };
    assert_eq!(error.code, ErrorCode::NotFound);
    net.upstream_says(&["is ", "blue."]);
    net.run(secs(1));
    assert_eq!(net.ends[0].texts[&id], SKY);
}

#[test]
fn a_gateway_that_restarted_has_interrupted_the_answer_and_the_text_so_far_stands() {
    let (mut net, id) = in_the_middle(true);
    net.restart_gateway();
    net.run_to(secs(60), |net| net.ends[0].failed.contains_key(&id));
    let AskError::Remote(error) = &net.ends[0].failed[&id] else {
        panic!("{:?}", net.ends[0].failed)
    };
    assert_eq!(error.code, ErrorCode::Interrupted);
    assert_eq!(net.ends[0].texts[&id], "The sky ");
    assert_eq!(count(&net, "recall"), 1);
}

#[test]
fn a_gateway_that_restarted_before_the_first_piece_answers_after_all() {
    let mut net = Net::connected();
    net.outside.upstreams = [Upstream::Hang(&[]), Upstream::Whole(&[SKY])].into();
    let id = net.ask(1, Ask::new("Why?"));
    net.run(secs(1));
    net.restart_gateway();
    net.outside.account.holds.clear();
    net.run_to(secs(60), |net| net.ends[0].ended.contains_key(&id));
    assert_eq!(net.ends[0].texts[&id], SKY);
    assert_eq!(net.outside.account.spent, Nanos(10_815_000));
}

#[test]
fn over_the_rate_a_question_waits_its_time_and_is_answered() {
    let mut net = Net::without_devices();
    net.configure(|config| {
        config.rates = Rates {
            device_per_minute: 6,
            ..Rates::default()
        };
    });
    net.join();
    for number in 1..=7 {
        net.outside.upstreams.push_back(Upstream::Whole(&[SKY]));
        net.ask(number, Ask::new("Why?"));
    }
    net.run(secs(5));
    assert_eq!(net.ends[0].ended.len(), 6);
    // One comes back every ten seconds.
    net.run(secs(6));
    assert_eq!(net.ends[0].ended.len(), 7);
    assert!(net.ends[0].failed.is_empty());
}

#[test]
fn over_the_rate_past_its_deadline_a_question_fails_at_once() {
    let mut net = Net::without_devices();
    net.configure(|config| {
        config.rates = Rates {
            account_per_minute: 1,
            ..Rates::default()
        };
    });
    net.join();
    net.outside.upstreams.push_back(Upstream::Whole(&[SKY]));
    net.ask(1, Ask::new("Why?"));
    let second = net.ask(2, Ask::new("Why?"));
    net.run(secs(1));
    let AskError::Remote(error) = &net.ends[0].failed[&second] else {
        panic!("{:?}", net.ends[0].failed)
    };
    assert_eq!(error.code, ErrorCode::RateLimited);
    assert_eq!(error.retry_after_secs, Some(60));
}

#[test]
fn an_answer_too_many_at_once_waits_for_one_to_end_which_takes_nothing_of_its_minute() {
    let mut net = Net::without_devices();
    net.configure(|config| {
        config.rates = Rates {
            device_at_once: 1,
            device_per_minute: 2,
            ..Rates::default()
        };
    });
    net.join();
    net.outside.upstreams = [Upstream::Hang(&["a"]), Upstream::Whole(&[SKY])].into();
    let first = net.ask(1, Ask::new("Why?"));
    let second = net.ask(2, Ask::new("Why?"));
    net.run(secs(3));
    assert!(!net.ends[0].ended.contains_key(&second));
    net.give(0, Input::Cancel(first));
    net.run(secs(2));
    assert_eq!(net.ends[0].texts[&second], SKY);
}

#[test]
fn a_tunnel_that_does_not_come_back_in_time_is_named_as_the_reason() {
    let mut net = Net::connected();
    net.outside.upstreams.push_back(Upstream::Hang(&[]));
    let id = net.ask(1, Ask::new("Why?"));
    net.run(secs(1));
    net.black = true;
    net.run_to(secs(140), |net| net.ends[0].cuts == 1);
    net.run(secs(29));
    assert!(!net.ends[0].failed.contains_key(&id));
    net.run(secs(2));
    assert!(matches!(net.ends[0].failed[&id], AskError::TunnelLost(_)));
}

#[test]
fn with_little_room_the_oldest_finished_answers_go_and_running_ones_do_not() {
    let mut net = Net::without_devices();
    net.configure(|config| {
        config.keeping = Keeping {
            bytes_max: 5000,
            ..Keeping::default()
        };
    });
    net.join();
    for number in 1..=8 {
        net.outside.upstreams.push_back(Upstream::Whole(&[SKY]));
        net.ask(number, Ask::new("Why?"));
        net.run(secs(1));
    }
    assert_eq!(net.ends[0].ended.len(), 8);
    assert!(net.gateway.answers_kept() < 5 && net.gateway.kept_bytes() <= 5000);
    net.ends[0].ended.clear();
    let last = net.ask(8, Ask::new("Why?"));
    net.run(secs(1));
    assert!(
        net.ends[0].ended.contains_key(&last),
        "the youngest is there"
    );
    // What had to make room is fetched from the store, as long as that has it.
    let recalls = count(&net, "recall");
    let first = net.ask(1, Ask::new("Why?"));
    net.run(secs(1));
    assert!(net.ends[0].ended.contains_key(&first));
    assert_eq!(count(&net, "recall"), recalls + 1);
    net.outside.kept.clear();
    net.ask(1, Ask::new("Why?"));
    net.run(secs(1));
    let AskError::Remote(error) = &net.ends[0].failed[&first] else {
        panic!("{:?}", net.ends[0].failed)
    };
    assert_eq!(error.code, ErrorCode::Expired);
}

#[test]
fn a_running_answer_that_cannot_be_kept_ends_as_too_large_with_what_there_is() {
    let mut net = Net::without_devices();
    net.configure(|config| {
        config.keeping = Keeping {
            bytes_max: 2000,
            ..Keeping::default()
        };
    });
    net.join();
    net.outside
        .upstreams
        .push_back(Upstream::Hang(&["The sky "]));
    let id = net.ask(1, Ask::new("Why?"));
    net.run(secs(1));
    net.upstream_goes_on(&"x".repeat(1000));
    net.run(secs(1));
    let AskError::Remote(error) = &net.ends[0].failed[&id] else {
        panic!("{:?}", net.ends[0].failed)
    };
    assert_eq!(error.code, ErrorCode::TooLarge);
    assert_eq!(net.ends[0].texts[&id].len(), 1008);
    assert_eq!(count(&net, "abandon"), 1);
}

#[test]
fn a_long_answer_is_resumed_across_many_cuts_and_its_text_is_whole() {
    let mut net = Net::connected();
    net.outside.upstreams.push_back(Upstream::Hang(&[]));
    let id = net.ask(1, Ask::new("Why?"));
    net.run(secs(1));
    let mut text = String::new();
    for cut in 0..3 {
        for piece in 0..200 {
            let word = format!("{cut}.{piece} ");
            net.upstream_goes_on(&word);
            text.push_str(&word);
            if piece == 100 {
                net.run(Duration::from_millis(5));
                net.black = true;
            }
        }
        black_out(&mut net, "mid ");
        text.push_str("mid ");
        light(&mut net);
        assert_eq!(net.ends[0].texts[&id], text);
    }
    net.upstream_says(&[]);
    net.run(secs(1));
    let end = &net.ends[0];
    assert_eq!(end.texts[&id], text);
    assert_eq!((end.cuts, end.resumed.len()), (3, 3));
    assert_eq!(asked(&net), ["hold", "call", "settle"]);
}

#[test]
fn a_resume_for_nobodys_answer_or_for_a_piece_that_is_not_there_is_refused() {
    let (mut net, id) = in_the_middle(true);
    let known = Resume {
        request_id: id,
        next_sequence: 9,
    };
    let unknown = Resume {
        request_id: RequestId::from_u128(99),
        next_sequence: 0,
    };
    for (resume, code) in [
        (known, ErrorCode::InvalidRequest),
        (unknown, ErrorCode::NotFound),
    ] {
        net.outside.events.clear();
        net.raw(0, &Message::Resume(resume));
        net.run(secs(1));
        let refused = net.outside.events.iter().find_map(|event| {
            let Event::Failed { code, device, .. } = event else {
                return None;
            };
            Some((*code, *device))
        });
        assert_eq!(refused, Some((code, DEVICE)));
    }
    net.upstream_says(&["is ", "blue."]);
    net.run(secs(1));
    assert_eq!(net.ends[0].texts[&id], SKY);
    assert!(net.outside.account.holds.is_empty());
}
