//! Attempts: how long each has, how many there are, and whose word ends them.

use super::*;

#[test]
fn a_first_attempt_has_thirty_seconds_and_a_reconnect_five() {
    let mut rig = Rig::new(Attempts::default());
    rig.give(Input::Connect);
    assert_eq!(rig.state(), State::Connecting);
    rig.wait(Duration::from_millis(29_999));
    assert_eq!(rig.state(), State::Connecting);
    rig.wait(Duration::from_millis(1));
    assert_eq!(rig.state(), again(1));
    // The first retry is immediate.
    assert_eq!((rig.started, rig.abandoned), (2, 1));
    rig.wait(Duration::from_millis(4_999));
    assert_eq!((rig.state(), rig.abandoned), (again(1), 1));
    rig.wait(Duration::from_millis(1));
    assert_eq!((rig.state(), rig.abandoned), (again(2), 2));
    rig.wait(Duration::from_secs(1));
    assert_eq!(rig.started, 3, "the second within a second");
}

#[test]
fn attempts_are_used_up_and_then_it_waits_for_a_command_or_a_new_network() {
    let mut rig = Rig::new(Attempts::AtMost(3));
    rig.give(Input::Connect);
    for n in 1..=3 {
        rig.fail(FailureKind::Refused);
        assert_eq!(rig.state(), again(n));
        rig.wait_for_attempt();
    }
    rig.fail(FailureKind::Refused);
    assert_eq!(rig.state(), State::Failed);
    assert_eq!(rig.tunnel.failure().unwrap().kind, FailureKind::Refused);
    assert_eq!(rig.tunnel.poll_timeout(), None);
    rig.give(Input::NetworkChanged);
    assert_eq!(rig.state(), State::Connecting);
    rig.fail(FailureKind::Refused);
    assert_eq!(rig.state(), again(1), "a new network has its own attempts");
}

#[test]
fn an_agent_tries_for_ever_within_a_minute_each() {
    let mut rig = Rig::new(Attempts::Forever);
    rig.give(Input::Connect);
    for n in 1..=40 {
        rig.fail(FailureKind::Unreachable);
        assert_eq!(rig.state(), again(n));
        let (due, _) = rig.tunnel.poll_timeout().unwrap();
        assert!(due <= rig.now.instant + Duration::from_secs(60));
        rig.wait_for_attempt();
    }
}

#[test]
fn a_refused_certificate_fails_at_once() {
    let mut rig = Rig::new(Attempts::Forever);
    rig.give(Input::Connect);
    rig.fail(FailureKind::CertificateExpired);
    assert_eq!(rig.state(), State::Failed);
}

#[test]
fn revoking_a_live_session_fails_through_reconnecting() {
    let mut rig = Rig::connected();
    rig.lose(FailureKind::Revoked);
    assert_eq!(rig.state(), State::Failed);
    let changes = &rig.changes[rig.changes.len() - 2..];
    assert_eq!(changes, [(UP, again(1)), (again(1), State::Failed)]);
    assert_eq!(rig.started, 1, "nothing is tried");
}

#[test]
fn the_gateways_word_on_when_to_come_back_wins() {
    let mut rig = Rig::connected();
    let attempt = rig.live.pop().unwrap();
    let failure = Failure {
        retry_after: Some(Duration::from_secs(17)),
        ..FailureKind::Overloaded.into()
    };
    rig.give(Input::SessionLost { attempt, failure });
    rig.wait(Duration::from_millis(16_999));
    assert_eq!(rig.started, 1);
    rig.wait(Duration::from_millis(1));
    assert_eq!(rig.started, 2);
}

#[test]
fn who_was_replaced_by_the_same_device_elsewhere_does_not_fight_for_the_place() {
    let waits = (0..64).map(|seed| {
        let mut rig = Rig::seeded(Attempts::Forever, seed);
        rig.give(Input::Connect);
        rig.establish();
        rig.wait_healthy(Duration::from_secs(31));
        rig.lose(FailureKind::Replaced);
        assert_eq!((rig.state(), rig.started), (again(1), 1), "not at once");
        let lost = rig.now.instant;
        rig.tunnel.poll_timeout().unwrap().0 - lost
    });
    let waits: Vec<Duration> = waits.collect();
    assert!(waits.iter().all(|wait| *wait <= limits::BACKOFF_MAX));
    // Of 64 draws the chance that none is in the top tenth is about a thousandth, for these seeds
    // it is settled.
    assert!(
        waits
            .iter()
            .any(|wait| *wait > limits::BACKOFF_MAX * 9 / 10)
    );
}

#[test]
fn a_session_that_dies_young_does_not_reset_the_backoff() {
    let mut rig = Rig::new(Attempts::AtMost(4));
    rig.give(Input::Connect);
    for _ in 0..4 {
        rig.establish();
        rig.wait_healthy(Duration::from_secs(29));
        rig.lose(FailureKind::Protocol);
        assert_eq!(rig.state(), again(1));
        rig.wait(Duration::from_secs(4));
    }
    rig.establish();
    rig.lose(FailureKind::Protocol);
    assert_eq!(rig.state(), State::Failed);

    let mut rig = Rig::new(Attempts::AtMost(4));
    rig.give(Input::Connect);
    for _ in 0..9 {
        rig.establish();
        rig.wait_healthy(Duration::from_secs(30));
        let started = rig.started;
        rig.lose(FailureKind::Protocol);
        assert_eq!((rig.state(), rig.started), (again(1), started + 1));
    }
}

#[test]
fn connecting_twice_is_the_callers_mistake() {
    let mut rig = Rig::connected();
    let again = rig.tunnel.handle_input(rig.now, Input::Connect);
    assert_eq!(again, Err(Rejected::AlreadyUp));
    rig.give(Input::Disconnect);
    assert_eq!(rig.state(), State::Disconnected);
    assert!(rig.live.is_empty());
    assert_eq!(rig.give(Input::Disconnect), []);
}

#[test]
fn after_an_attempt_to_which_nothing_came_back_the_next_is_made_from_another_port() {
    let mut rig = Rig::new(Attempts::Forever);
    rig.give(Input::Connect);
    let said = rig.wait(limits::CONNECT_TIMEOUT);
    let asked = |said: &[Output]| said.iter().position(|said| *said == Output::Rebind);
    let started = said
        .iter()
        .position(|said| matches!(said, Output::StartAttempt { .. }));
    assert!(asked(&said).unwrap() < started.unwrap(), "{said:?}");
    // What was refused came back.
    assert_eq!(asked(&rig.fail(FailureKind::Refused)), None);
    rig.wait_for_attempt();
    rig.establish();
    rig.fall_silent();
    rig.wait_for_attempt();
    let fail = |rig: &mut Rig| rig.fail(FailureKind::TimedOut);
    assert_eq!(asked(&fail(&mut rig)), None, "the old session may answer");
    rig.lose(FailureKind::TimedOut);
    rig.wait_for_attempt();
    assert!(asked(&fail(&mut rig)).is_some());
}

/// A session that was silent and answers again, with an attempt beside it that was given up.
fn taken_back() -> Rig {
    let mut rig = Rig::connected();
    let old = rig.newest();
    rig.fall_silent();
    rig.traffic(old, rig.now.instant, false);
    assert_eq!((rig.state(), rig.started), (UP, 2));
    rig
}

#[test]
fn who_was_overtaken_by_its_own_attempt_takes_the_place_back_at_once_and_once_only() {
    let mut rig = taken_back();
    rig.wait_healthy(Duration::from_secs(31));
    let lost = rig.lose(FailureKind::Replaced);
    let why = Why::Failed(FailureKind::Overtaken.into());
    let (from, to) = (UP, again(1));
    assert_eq!(lost[0], Output::Changed { from, to, why });
    assert_eq!(rig.started, 3, "at once");
    rig.establish();
    rig.wait_healthy(Duration::from_secs(31));
    // Nothing of its own is left that could have taken it this time.
    let lost = rig.lose(FailureKind::Replaced);
    let why = Why::Failed(FailureKind::Replaced.into());
    assert_eq!(lost, [Output::Changed { from, to, why }]);
}

#[test]
fn an_attempt_that_was_given_up_overtakes_nobody_after_the_idle_timeout() {
    for (secs, kind) in [(119, FailureKind::Overtaken), (120, FailureKind::Replaced)] {
        let mut rig = taken_back();
        rig.wait_healthy(Duration::from_secs(secs));
        let lost = rig.lose(FailureKind::Replaced);
        let why = Why::Failed(kind.into());
        let (from, to) = (UP, again(1));
        assert_eq!(lost[0], Output::Changed { from, to, why }, "{secs} s");
    }
}

#[test]
fn an_attempt_may_be_overtaken_by_the_one_before_it() {
    let mut rig = Rig::new(Attempts::Forever);
    rig.give(Input::Connect);
    rig.give(Input::NetworkChanged);
    rig.fail(FailureKind::Replaced);
    assert_eq!((rig.state(), rig.started), (again(1), 3), "at once");
    rig.establish();
    rig.lose(FailureKind::Replaced);
    let most = wait_max(2);
    let due = rig.tunnel.poll_timeout().unwrap().0;
    assert!(
        due <= rig.now.instant + most,
        "an attempt came to nothing again"
    );
}
