//! A limit that comes near: who is told, when, and how often.

use super::net::{Net, Upstream};
use super::*;
use crate::billing::money::Nanos;
use crate::wire::message::Notice;

fn notice(kind: &str, number: u32) -> Notice {
    Notice {
        kind: kind.to_owned(),
        data: serde_json::json!(number),
    }
}

/// One charge, 1 000 tokens in and 500 out, passes 80 % of the ceiling.
fn near_the_ceiling() -> Net {
    let mut net = Net::connected();
    net.outside.account.ceiling = Nanos(12_000_000);
    net
}

#[test]
fn whoever_asks_is_told_or_the_next_who_does() {
    let mut net = Net::connected();
    net.outside.upstreams.push_back(Upstream::Hang(&[]));
    let first = net.ask(1, Ask::new("Why?"));
    net.ends[0].device.notice(notice(Notice::LIMIT, 1));
    net.ends[0].device.notice(notice("another", 1));
    net.run(secs(1));
    assert_eq!(net.ends[0].notices, [first]);
    net.upstream_says(&["Because."]);
    net.run(secs(1));

    net.ends[0].device.notice(notice(Notice::LIMIT, 2));
    net.run(secs(1));
    net.outside.upstreams.push_back(Upstream::Whole(SKY));
    let second = net.ask(2, Ask::new("Why?"));
    net.outside.upstreams.push_back(Upstream::Whole(SKY));
    net.ask(3, Ask::new("Why?"));
    assert_eq!(net.ends[0].notices, [first, second]);
}

/// The last text and the end of an answer are read together, the control stream after them: what it
/// says of the charge comes too late for the answer that was charged.
#[test]
fn an_answer_brings_the_limit_that_its_charge_came_near_also_when_it_overtakes_the_control_stream()
{
    let mut net = near_the_ceiling();
    net.reads_at_once = true;
    net.outside.upstreams.push_back(Upstream::Hang(&["The "]));
    let id = net.ask(1, Ask::new("Why?").max_tokens(500));
    net.run(secs(1));
    net.upstream_says(&["sky."]);
    net.run(secs(1));
    assert!(
        net.ends[0].ended.contains_key(&id),
        "{:?}",
        net.ends[0].failed
    );
    assert_eq!(net.ends[0].ended[&id].notice, None, "it was told already");
    assert_eq!(net.ends[0].notices, [id]);

    net.outside.account.ceiling = Nanos(12_000_000_000);
    net.outside.upstreams.push_back(Upstream::Whole(SKY));
    net.ask(2, Ask::new("Why?"));
    net.run(secs(1));
    assert_eq!(net.ends[0].notices, [id], "once");
}

#[test]
fn a_whole_answer_and_one_that_failed_bring_it_too() {
    for broken in [false, true] {
        let mut net = near_the_ceiling();
        net.reads_at_once = true;
        net.outside
            .upstreams
            .push_back(Upstream::Hang(&["The sky "]));
        let id = net.ask(1, Ask::new("Why?").max_tokens(500).stream(broken));
        net.run(secs(1));
        if broken {
            // What came is charged by estimate, which is little.
            net.outside.account.ceiling = Nanos(1);
            net.upstream_goes_on("is ");
            net.upstream_breaks();
        } else {
            net.upstream_says(&["is blue."]);
        }
        net.run(secs(1));
        let end = &net.ends[0];
        assert_eq!(end.failed.contains_key(&id), broken);
        assert_eq!(end.whole.contains_key(&id), !broken);
        assert_eq!(end.notices, [id], "broken: {broken}");
    }
}

#[test]
fn a_device_that_was_away_is_told_when_it_comes_back_for_its_answer() {
    let mut net = near_the_ceiling();
    net.outside.upstreams.push_back(Upstream::Hang(&["The "]));
    let id = net.ask(1, Ask::new("Why?").max_tokens(500));
    net.run(secs(1));
    net.black = true;
    net.run(limits::QUIC_IDLE_TIMEOUT / 2);
    net.upstream_says(&["sky."]);
    net.run(limits::QUIC_IDLE_TIMEOUT + secs(1));
    net.black = false;
    net.run_to(secs(120), |net| net.ends[0].ended.contains_key(&id));
    assert_eq!(net.ends[0].notices, [id]);
}

#[test]
fn every_device_of_the_account_is_told() {
    let mut net = near_the_ceiling();
    let other = net.add_stranger();
    net.give(other, Input::Connect);
    net.run(secs(1));
    net.outside.upstreams.push_back(Upstream::Whole(SKY));
    net.ask(1, Ask::new("Why?").max_tokens(500));
    net.run(secs(1));
    let id = RequestId::from_u128(2);
    net.outside.account.ceiling = Nanos(12_000_000_000);
    net.outside.upstreams.push_back(Upstream::Whole(SKY));
    let request = Ask::new("Why?").into_request(id);
    net.give(other, Input::Escalate(Box::new(request)));
    assert_eq!(net.ends[other].notices, [id]);
}

#[test]
fn notices_that_are_remembered_are_bounded() {
    let mut net = Net::connected();
    for number in 0..100 {
        net.ends[0].device.notice(notice(Notice::LIMIT, number));
    }
    assert_eq!(net.ends[0].device.notices.len(), limits::NOTICES_REMEMBERED);
}
