//! What a question comes to: its answer with its charge, or why there is none.

use super::*;

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
