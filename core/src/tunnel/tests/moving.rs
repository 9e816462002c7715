//! A gateway that goes away asks its devices to move: when they do, and what becomes of what is under way.

use super::*;

#[test]
fn asked_to_move_it_moves_in_time_and_finishes_beside_it_what_is_under_way() {
    for busy in [false, true] {
        let mut rig = Rig::connected();
        let old = rig.newest();
        rig.is_asked_to_move();
        rig.works(old, busy, false);
        rig.wait_healthy(Duration::from_secs(5) - Duration::from_millis(1));
        assert_eq!(rig.state(), UP);
        rig.wait(Duration::from_millis(1));
        assert_eq!(rig.state(), again(1));
        assert_eq!(rig.live.contains(&old), busy);
        rig.establish();
        assert_eq!(rig.state(), UP);
        assert_eq!(rig.live.contains(&old), busy);
        rig.works(old, false, false);
        assert_eq!(rig.live, [rig.newest()]);
    }
}

#[test]
fn what_is_under_way_on_a_session_that_was_left_has_the_gateways_time_and_no_more() {
    let mut rig = Rig::connected();
    let old = rig.newest();
    rig.is_asked_to_move();
    rig.works(old, true, false);
    rig.wait_healthy(Duration::from_secs(5));
    rig.establish();
    rig.wait_healthy(Duration::from_secs(56));
    assert!(rig.live.contains(&old));
    rig.wait_healthy(Duration::from_secs(1));
    assert_eq!(rig.live, [rig.newest()]);
    assert_eq!(rig.state(), UP);
}

#[test]
fn asked_to_move_it_moves_at_once_when_something_waits_to_be_begun() {
    let mut rig = Rig::connected();
    let old = rig.newest();
    rig.works(old, true, true);
    assert_eq!(rig.state(), UP, "nobody asked");
    rig.is_asked_to_move();
    assert!(rig.tunnel.is_asked_to_move());
    rig.works(old, true, true);
    assert_eq!(rig.state(), again(1));
    rig.establish();
    assert!(!rig.tunnel.is_asked_to_move());
    assert!(rig.live.contains(&old));
}

#[test]
fn attempts_do_not_run_out_while_answers_are_finished_on_a_session_that_was_left() {
    let mut rig = Rig::new(Attempts::AtMost(1));
    rig.give(Input::Connect);
    rig.establish();
    let old = rig.newest();
    rig.is_asked_to_move();
    rig.works(old, true, true);
    for n in 1..4 {
        assert_eq!(rig.state(), again(n));
        rig.wait_for_attempt();
        rig.fail(FailureKind::Refused);
    }
    rig.works(old, false, true);
    rig.wait_for_attempt();
    rig.fail(FailureKind::Refused);
    assert_eq!(rig.state(), State::Failed);
    assert!(rig.live.is_empty());
}

#[test]
fn a_session_on_which_answers_are_finished_is_not_moved_to_another_port() {
    let mut rig = Rig::new(Attempts::Forever);
    rig.give(Input::Connect);
    rig.establish();
    let old = rig.newest();
    rig.is_asked_to_move();
    rig.works(old, true, true);
    rig.wait_for_attempt();
    assert!(!rig.fail(FailureKind::TimedOut).contains(&Output::Rebind));
    rig.works(old, false, false);
    rig.wait_for_attempt();
    assert!(rig.fail(FailureKind::TimedOut).contains(&Output::Rebind));
}

#[test]
fn a_session_that_was_left_may_be_lost_and_only_a_final_word_of_it_counts() {
    for (kind, state) in [
        (FailureKind::GoingAway, again(1)),
        (FailureKind::Revoked, State::Failed),
    ] {
        let mut rig = Rig::connected();
        let old = rig.newest();
        rig.is_asked_to_move();
        rig.works(old, true, true);
        rig.lose(kind);
        assert_eq!(rig.state(), state);
        assert!(!rig.live.contains(&old));
    }
    let mut rig = Rig::connected();
    let old = rig.newest();
    rig.is_asked_to_move();
    rig.works(old, true, true);
    rig.give(Input::Disconnect);
    assert_eq!(rig.state(), State::Disconnected);
    assert!(rig.live.is_empty(), "nothing of it is left");
}
