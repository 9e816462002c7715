//! Answers that survive their gateway: finished before it went down, or under way at another one.

use bytes::Bytes;

use super::net::{DEVICE, Net, UP, Upstream, gateway_config};
use super::resume::{SKY, asked, attached, black_out, count, in_the_middle, light};
use super::*;
use crate::gateway::{Event, Return, Transcript};
use crate::wire::message::ErrorMessage;
use crate::wire::message::{Message, Resume};

/// One whose first piece is here; it ended while its device was away, and its gateway after it.
fn finished_before_the_restart() -> (Net, RequestId) {
    let (mut net, id) = in_the_middle(true);
    black_out(&mut net, "is ");
    net.upstream_says(&["blue."]);
    net.restart_gateway();
    (net, id)
}

/// One of which nothing is here.
fn finished_unheard(stream: bool) -> (Net, RequestId) {
    let mut net = Net::connected();
    net.outside.upstreams.push_back(Upstream::Hang(&[]));
    let id = net.ask(1, Ask::new("Why?").stream(stream));
    net.run(secs(1));
    net.black = true;
    net.run(secs(20));
    net.upstream_says(&[SKY]);
    net.run_to(secs(140), |net| net.ends[0].cuts == 1);
    net.restart_gateway();
    (net, id)
}

fn failed(net: &Net, end: usize, id: RequestId) -> ErrorMessage {
    let AskError::Remote(error) = &net.ends[end].failed[&id] else {
        panic!("{:?}", net.ends[end].failed)
    };
    (**error).clone()
}

/// How the gateway refused last.
fn refused(net: &Net) -> Option<ErrorCode> {
    let mut events = net.outside.events.iter().rev();
    events.find_map(|event| {
        let Event::Failed { code, .. } = event else {
            return None;
        };
        Some(*code)
    })
}

#[test]
fn an_answer_finished_while_its_device_was_away_is_told_by_the_gateways_next_life() {
    let (mut net, id) = finished_before_the_restart();
    light(&mut net);
    let end = &net.ends[0];
    assert_eq!(end.texts[&id], SKY);
    assert_eq!(end.ended[&id].cost_nanos, Nanos(10_815_000));
    assert_eq!(end.ended[&id].model_used, "sonnet-real");
    assert_eq!(end.resumed, [1]);
    assert_eq!(attached(&net), [(Return::Resumed, 1, false)]);
    assert_eq!(asked(&net), ["hold", "call", "settle", "recall"]);
    assert_eq!(net.gateway.answers_kept(), 0, "the store has it");
}

#[test]
fn the_same_question_sent_again_gets_the_answer_that_was_finished_before() {
    for stream in [true, false] {
        let (mut net, id) = finished_unheard(stream);
        light(&mut net);
        let end = &net.ends[0];
        let text = match stream {
            true => end.texts[&id].clone(),
            false => end.whole[&id].content.clone(),
        };
        assert_eq!(text, SKY);
        assert_eq!(attached(&net), [(Return::AskedAgain, 0, false)]);
        assert_eq!(asked(&net), ["hold", "call", "settle", "hold", "recall"]);
        assert_eq!(net.outside.account.spent, Nanos(10_815_000));
        assert!(net.outside.account.holds.is_empty());
        assert_eq!((net.gateway.answers_under_way(), refused(&net)), (0, None));
    }
}

#[test]
fn after_its_time_the_receipt_is_told_and_a_damaged_text_is_none() {
    for (unheard, damaged) in [(false, false), (true, false), (false, true), (true, true)] {
        let (mut net, id) = match unheard {
            true => finished_unheard(true),
            false => finished_before_the_restart(),
        };
        let kept = std::mem::take(&mut net.outside.kept);
        if damaged {
            let torn = |transcript: Transcript| {
                let bytes = transcript.as_bytes();
                Transcript::from_bytes(bytes.slice(..bytes.len() / 2))
            };
            net.outside.kept = kept
                .into_iter()
                .map(|(id, text)| (id, torn(text)))
                .collect();
        }
        light(&mut net);
        let error = failed(&net, 0, id);
        assert_eq!(error.code, ErrorCode::Expired);
        assert_eq!(error.details.unwrap()["cost_nanos"], 10_815_000);
        assert_eq!(net.gateway.answers_kept(), 0);
    }
}

#[test]
fn where_nothing_is_kept_the_store_is_given_nothing() {
    for kept in [0, 600] {
        let mut net = Net::without_devices();
        net.configure(|config| config.keeping.kept = secs(kept));
        net.join();
        net.outside.upstreams.push_back(Upstream::Whole(&[SKY]));
        net.ask(1, Ask::new("Why?"));
        net.run(secs(1));
        assert_eq!(net.outside.kept.len(), usize::from(kept > 0));
    }
}

#[test]
fn what_the_store_is_given_holds_the_answer_and_nothing_of_the_question() {
    let mut net = Net::connected();
    net.outside.upstreams.push_back(Upstream::Whole(&[SKY]));
    let question = Ask::new("canary-query").knowledge("a.txt", "canary-text", 1.0);
    net.ask(1, question.stream(true));
    net.run(secs(1));
    let (_, transcript) = net.outside.kept.first_key_value().unwrap();
    let text = std::str::from_utf8(transcript.as_bytes()).unwrap();
    assert!(text.contains(SKY) && !text.contains("canary"), "{text}");
    assert!(!format!("{transcript:?}").contains("sky"));
}

#[test]
fn to_another_device_a_finished_answer_does_not_exist() {
    let (mut net, id) = finished_before_the_restart();
    let other = net.add_stranger();
    net.black = false;
    net.give(other, Input::Connect);
    net.run_to(secs(2), |net| net.state(other) == UP);
    let request = Ask::new("Why?").into_request(id);
    net.give(other, Input::Escalate(Box::new(request)));
    net.run(secs(1));
    assert_eq!(failed(&net, other, id).code, ErrorCode::NotFound);
    net.raw(
        other,
        &Message::Resume(Resume {
            request_id: id,
            next_sequence: 1,
        }),
    );
    net.run(secs(1));
    assert_eq!(refused(&net), Some(ErrorCode::NotFound));
    light(&mut net);
    assert_eq!(net.ends[0].texts[&id], SKY);
}

/// The gateway goes away in the middle of an answer, which is booked as a loss.
#[test]
fn to_another_device_an_answer_that_was_lost_does_not_exist_either() {
    let (mut net, id) = in_the_middle(true);
    net.black = true;
    net.tell(gateway::Input::Stop);
    assert!(net.outside.lost.contains_key(&id));
    net.restart_gateway();
    net.black = false;
    let other = net.add_stranger();
    net.give(other, Input::Connect);
    net.run_to(secs(2), |net| net.state(other) == UP);
    let resume = Message::Resume(Resume {
        request_id: id,
        next_sequence: 1,
    });
    net.raw(other, &resume);
    net.run(secs(1));
    assert_eq!(refused(&net), Some(ErrorCode::NotFound));
    let request = Ask::new("Why?").into_request(id);
    net.give(other, Input::Escalate(Box::new(request)));
    net.run(secs(1));
    assert_eq!(failed(&net, other, id).code, ErrorCode::NotFound);
    light(&mut net);
    assert_eq!(failed(&net, 0, id).code, ErrorCode::Interrupted);
}

#[test]
fn what_another_gateway_works_on_is_waited_for() {
    let (mut net, id) = in_the_middle(true);
    black_out(&mut net, "is ");
    // The one that it comes to knows nothing; the first goes on.
    let first = net.other_gateway();
    net.outside.elsewhere = true;
    light(&mut net);
    net.run(secs(3));
    assert_eq!(refused(&net), Some(ErrorCode::InProgress));
    assert!(!net.ends[0].failed.contains_key(&id));
    let second = net.swap_gateway(first);
    net.upstream_says(&["blue."]);
    let _first = net.swap_gateway(second);
    net.run(secs(3));
    assert_eq!(net.ends[0].texts[&id], SKY);
    assert_eq!(count(&net, "call"), 1);
    assert_eq!(net.outside.account.spent, Nanos(10_815_000));
}

#[test]
fn a_question_that_another_gateway_works_on_is_sent_again_until_it_has_ended() {
    let mut net = Net::connected();
    net.outside.upstreams.push_back(Upstream::Hang(&[]));
    let id = net.ask(1, Ask::new("Why?").timeout_secs(120));
    net.run(secs(1));
    net.black = true;
    let first = net.other_gateway();
    net.outside.elsewhere = true;
    net.run(secs(60));
    light(&mut net);
    net.run(secs(5));
    assert_eq!(refused(&net), Some(ErrorCode::InProgress));
    let second = net.swap_gateway(first);
    net.upstream_says(&[SKY]);
    let _first = net.swap_gateway(second);
    net.run(secs(3));
    assert_eq!(net.ends[0].texts[&id], SKY);
    assert_eq!(count(&net, "call"), 1);
    assert_eq!(
        (net.gateway.answers_under_way(), net.gateway.answers_kept()),
        (0, 0)
    );
}

/// From now on the gateway lets each device and account ask so often.
fn allow(net: &mut Net, per_minute: u32) {
    let mut config = gateway_config();
    config.rates.device_per_minute = per_minute;
    config.rates.account_per_minute = per_minute;
    net.tell(gateway::Input::Configured(config));
}

#[test]
fn who_asks_for_an_answer_every_second_asks_one_question() {
    let mut net = Net::connected();
    net.outside.upstreams.push_back(Upstream::Hang(&[]));
    net.ask(1, Ask::new("Why?").timeout_secs(120));
    net.run(secs(1));
    net.black = true;
    let _first = net.other_gateway();
    net.outside.elsewhere = true;
    allow(&mut net, 3);
    net.run(secs(60));
    light(&mut net);
    net.run(secs(20));
    assert!(count(&net, "hold") > 15, "{}", count(&net, "hold"));
    assert_eq!(refused(&net), Some(ErrorCode::InProgress));
}

#[test]
fn what_may_be_under_way_is_not_told_as_refused_for_a_rate() {
    let mut net = Net::keeping();
    net.outside.upstreams.push_back(Upstream::Hang(&[]));
    let id = net.ask(1, Ask::new("Why?"));
    net.run(secs(1));
    net.black = true;
    let first = net.other_gateway();
    allow(&mut net, 0);
    net.run_to(secs(140), |net| net.ends[0].cuts == 1);
    light(&mut net);
    net.run(secs(3));
    assert_eq!(refused(&net), Some(ErrorCode::RateLimited));
    let lost = matches!(
        net.ends[0].failed.remove(&id),
        Some(AskError::TunnelLost(_))
    );
    assert!(lost && net.ends[0].kept.len() == 1);
    // Where it is under way it can be had.
    let _second = net.swap_gateway(first);
    net.upstream_says(&[SKY]);
    net.give(0, Input::Attach(id));
    net.run_to(secs(140), |net| net.ends[0].ended.contains_key(&id));
    assert_eq!(net.ends[0].texts[&id], SKY);
    assert_eq!(count(&net, "call"), 1);
}

#[test]
fn an_answer_that_broke_off_is_told_with_what_there_was() {
    let mut net = Net::connected();
    net.outside.upstreams.push_back(Upstream::Hang(&[]));
    let id = net.ask(1, Ask::new("Why?"));
    net.run(secs(1));
    net.black = true;
    net.run(secs(20));
    net.upstream_goes_on("The sky ");
    net.upstream_breaks();
    net.run_to(secs(140), |net| net.ends[0].cuts == 1);
    net.restart_gateway();
    light(&mut net);
    let error = failed(&net, 0, id);
    assert_eq!(error.code, ErrorCode::UpstreamError);
    assert!(error.details.unwrap()["cost_nanos"].is_number());
    assert_eq!(net.ends[0].texts[&id], "The sky ");
}

#[test]
fn without_room_for_it_the_device_is_told_to_come_back() {
    let (mut net, id) = finished_before_the_restart();
    net.configure(|config| config.keeping.bytes_max = 1000);
    light(&mut net);
    assert_eq!(refused(&net), Some(ErrorCode::RateLimited));
    assert!(!net.ends[0].failed.contains_key(&id));
    assert_eq!(
        (net.gateway.answers_kept(), net.gateway.kept_bytes()),
        (0, 0)
    );
}

#[test]
fn a_piece_that_a_finished_answer_does_not_have_is_refused_and_nothing_stays() {
    let (mut net, id) = finished_before_the_restart();
    light(&mut net);
    let resume = |next_sequence| {
        Message::Resume(Resume {
            request_id: id,
            next_sequence,
        })
    };
    net.raw(0, &resume(9));
    net.run(secs(1));
    assert_eq!(refused(&net), Some(ErrorCode::InvalidRequest));
    assert_eq!(net.gateway.answers_kept(), 0);
    // Two at once: one is fetched, the other hears it after the first or in its place.
    net.raw(0, &resume(0));
    net.raw(0, &resume(2));
    net.run(secs(1));
    assert_eq!(net.gateway.answers_kept(), 0);
    let heard = attached(&net);
    assert_eq!(heard.len(), 3, "{heard:?}");
    let of = |event: &Event| matches!(event, Event::Failed { device, .. } if *device == DEVICE);
    assert_eq!(
        net.outside.events.iter().filter(|event| of(event)).count(),
        1
    );
}

#[test]
fn bytes_that_are_no_transcript_are_shown_as_their_number() {
    let transcript = Transcript::from_bytes(Bytes::from_static(b"canary"));
    assert_eq!(format!("{transcript:?}"), "Transcript { bytes: 6 }");
}
