//! Who is let in, who is thrown out, and what each is told.

use super::*;

#[test]
fn a_revoked_device_loses_its_session_at_once_and_tries_no_more() {
    let mut net = Net::connected();
    net.outside.upstreams.push_back(Upstream::Hang(&["The "]));
    let id = net.ask(1, Ask::new("Why?"));
    net.run(secs(1));
    net.tell(gateway::Input::Revoked(DEVICE));
    net.run(secs(1));
    assert_eq!(
        (net.state(0), failure(&net, 0)),
        (State::Failed, FailureKind::Revoked)
    );
    assert!(matches!(net.ends[0].failed[&id], AskError::TunnelLost(_)));
    assert_eq!(net.gateway.sessions(), 0);
    assert!(
        net.outside.account.holds.is_empty(),
        "what was produced is charged, the rest void"
    );
}

#[test]
fn a_heartbeat_whose_number_was_used_before_ends_the_session() {
    let mut net = Net::connected();
    let now = net.now;
    let (attempt, _) = net.ends[0].device.tunnel.session().expect("a session");
    net.ends[0].changes.clear();
    net.ends[0].device.send_heartbeat(now, attempt, 0);
    net.give(0, Input::Unpause(RequestId::from_u128(1)));
    net.run(secs(1));
    let states: Vec<State> = net.ends[0].changes.iter().map(|&(_, to)| to).collect();
    assert_eq!(states, [State::Reconnecting { attempt: 1 }, UP]);
    assert_eq!(net.ends[0].device.stats().epoch, Some(2));
}

#[test]
fn who_is_not_let_in_is_told_why() {
    for (word, kind) in [
        (NotAdmitted::Unknown, FailureKind::Unauthorized),
        (NotAdmitted::Mismatched, FailureKind::Unauthorized),
        (NotAdmitted::Revoked, FailureKind::Revoked),
    ] {
        let mut net = Net::new();
        net.outside.admission = Err(word);
        net.give(0, Input::Connect);
        net.run(secs(1));
        assert_eq!((net.state(0), failure(&net, 0)), (State::Failed, kind));
    }
    let mut net = Net::new();
    net.outside.admission = Err(NotAdmitted::Unavailable);
    net.give(0, Input::Connect);
    net.run(secs(1));
    assert!(
        matches!(net.state(0), State::Reconnecting { .. }),
        "a store that is down may come back"
    );
    net.outside.admission = Ok(());
    net.run_to(secs(10), |net| net.state(0) == UP);
}

#[test]
fn a_certificate_that_is_missing_foreign_or_expired_fails_at_once_with_its_own_error() {
    let mut net = Net::without_devices();
    let stranger = World::named("stranger");
    let expired = net.world.device_leaf(2021);
    net.add_device(None, Attempts::Forever);
    net.add_device(Some(stranger.device_leaf(2040)), Attempts::Forever);
    net.add_device(Some(expired), Attempts::Forever);
    let kinds = [
        FailureKind::CertificateRequired,
        FailureKind::UnknownCa,
        FailureKind::CertificateExpired,
    ];
    for (end, kind) in kinds.into_iter().enumerate() {
        net.give(end, Input::Connect);
        net.run(secs(1));
        assert_eq!((net.state(end), failure(&net, end)), (State::Failed, kind));
    }
}

#[test]
fn the_same_device_connecting_anew_replaces_its_old_session() {
    let mut net = Net::connected();
    let leaf = net.world.device_leaf(2040);
    net.add_device(Some(leaf), Attempts::AtMost(0));
    net.give(1, Input::Connect);
    net.run_to(secs(1), |net| net.state(1) == UP);
    net.run_to(secs(1), |net| net.state(0) != UP);
    assert_eq!(net.gateway.sessions(), 1);
    let why = net.outside.events.iter().any(|event| {
        matches!(event, gateway::Event::TunnelDown { reason, .. } if reason.contains("anew"))
    });
    assert!(why);
}

#[test]
fn of_two_sessions_of_one_device_the_later_admitted_stays_whichever_is_told_first() {
    let mut net = Net::without_devices();
    for _ in 0..2 {
        let leaf = net.world.device_leaf(2040);
        net.add_device(Some(leaf), Attempts::AtMost(0));
    }
    net.outside.admits_late = true;
    net.give(0, Input::Connect);
    net.run(secs(1));
    net.outside.admits_late = false;
    net.give(1, Input::Connect);
    net.run_to(secs(1), |net| net.state(1) == UP);
    let late = net.outside.late.pop().unwrap();
    net.tell(late);
    net.run_to(secs(1), |net| net.state(0) == State::Failed);
    assert_eq!((net.state(1), net.gateway.sessions()), (UP, 1));
}
