//! A session that falls silent, a machine that slept, a network that changed.

use super::*;

#[test]
fn a_silent_session_is_probed_beside_new_attempts_and_may_win() {
    let mut rig = Rig::connected();
    let old = rig.newest();
    rig.fall_silent();
    assert_eq!(rig.state(), again(1));
    let probes = rig.probes;
    rig.wait(Duration::from_secs(3));
    assert_eq!(rig.probes, probes + 3);
    let tried = rig.newest();
    rig.traffic(old, rig.now.instant, false);
    assert_eq!(rig.state(), UP);
    assert_eq!(rig.live, [old]);
    assert_ne!(old, tried);
    // Late words of the abandoned attempt are nothing.
    let heartbeat = limits::HEARTBEAT_EVERY;
    let attempt = tried;
    assert_eq!(
        rig.give(Input::AttemptEstablished { attempt, heartbeat }),
        []
    );
    assert_eq!(rig.tunnel.session().unwrap().0, old);
}

#[test]
fn a_new_session_replaces_the_silent_one() {
    let mut rig = Rig::connected();
    let old = rig.newest();
    rig.fall_silent();
    let outputs = rig.establish();
    assert_eq!(outputs[0], Output::AbandonAttempt { attempt: old });
    assert_eq!(rig.state(), UP);
    assert_eq!(rig.live.len(), 1);
}

#[test]
fn doubt_is_said_after_a_second_of_silence_and_taken_back() {
    let mut rig = Rig::connected();
    rig.answer_everything();
    let attempt = rig.newest();
    rig.traffic(attempt, rig.now.instant, true);
    let outputs = rig.wait(Duration::from_secs(1));
    assert_eq!(outputs, [Output::Doubt(true), Output::Probe { attempt }]);
    assert_eq!(rig.state(), State::Connected { in_doubt: true });
    rig.wait(Duration::from_millis(10));
    rig.traffic(attempt, rig.now.instant, false);
    assert_eq!(rig.state(), UP);
}

#[test]
fn a_new_network_or_a_wake_retries_at_once_and_probes_a_session() {
    let mut rig = Rig::new(Attempts::Forever);
    rig.give(Input::Connect);
    for n in 1..=6 {
        rig.fail(FailureKind::Unreachable);
        if n > 1 {
            let asleep = Duration::from_secs(5);
            let woken = if n % 2 == 0 {
                Input::Woke { asleep }
            } else {
                Input::NetworkChanged
            };
            let started = rig.started;
            rig.give(woken);
            assert_eq!(rig.started, started + 1);
        }
        assert_eq!(rig.state(), again(n));
    }
    rig.establish();
    let probes = rig.probes;
    rig.give(Input::NetworkChanged);
    assert_eq!((rig.probes, rig.state()), (probes + 1, UP));
}

#[test]
fn after_a_sleep_longer_than_the_idle_timeout_the_session_is_not_waited_for() {
    let mut rig = Rig::connected();
    let asleep = Duration::from_secs(119);
    rig.give(Input::Woke { asleep });
    assert_eq!(rig.state(), UP);
    let asleep = Duration::from_secs(120);
    rig.give(Input::Woke { asleep });
    assert_eq!((rig.state(), rig.live.len()), (again(1), 2));
}
