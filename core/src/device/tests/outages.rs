//! Networks that go dark and gateways that restart: how long it takes until something is heard again.

use super::*;

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

/// The gateway asks every second for a word, since nobody acknowledges its pieces; the device hears that.
#[test]
fn who_is_not_heard_notices_it_though_he_hears() {
    let mut net = Net::connected();
    net.outside.upstreams.push_back(Upstream::Hang(&["The "]));
    let id = net.ask(1, Ask::new("Why?"));
    net.run(secs(1));
    net.ends[0].changes.clear();
    net.mute = true;
    net.upstream_goes_on("sky ");
    let began = net.now.instant;
    let sought = |net: &Net| net.state(0) == State::Reconnecting { attempt: 1 };
    net.run_to(secs(60), sought);
    let noticed = net.now.instant - began;
    // 29 s to its next heartbeat, ten for the acknowledgement, twenty of probing.
    assert!((secs(58)..secs(60)).contains(&noticed), "{noticed:?}");
    assert_eq!(net.ends[0].doubts, [true], "what it hears does not calm it");
    assert_eq!(net.ends[0].texts[&id], "The sky ");
    net.mute = false;
    net.upstream_says(&["is blue."]);
    net.run_to(secs(3), |net| net.ends[0].ended.contains_key(&id));
    assert_eq!(net.ends[0].texts[&id], "The sky is blue.");
}

/// A firewall with a stale entry lets nothing through to or from one port.
#[test]
fn a_flow_that_is_swallowed_is_left_for_another_port() {
    let mut net = Net::connected();
    net.run(secs(5));
    net.swallowed = Some(0);
    let ping = |net: &mut Net, id| {
        let (method, params) = (Method::Ping, None);
        net.give(0, Input::Call { id, method, params });
    };
    ping(&mut net, 1);
    // When the old session is given up, and another attempt has come to nothing since.
    let moved = net.run_to(secs(300), |net| net.rebinds > 0);
    assert!((secs(120)..secs(200)).contains(&moved), "{moved:?}");
    net.run_to(secs(60), |net| net.state(0) == UP);
    ping(&mut net, 2);
    net.run(secs(1));
    assert!(matches!(net.ends[0].replies.get(&2), Some(Ok(_))));
    assert_eq!(net.rebinds, 1, "there is a tunnel again");
}

#[test]
fn after_longer_than_the_idle_timeout_it_answers_within_one_backoff() {
    let (took, _, changes) = outage(secs(150));
    assert!(took <= secs(65), "{took:?}");
    assert_eq!(changes.last().unwrap().1, UP);
}
