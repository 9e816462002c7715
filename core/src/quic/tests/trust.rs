//! Who trusts whom, and what each side is told when it does not.

use super::*;
use crate::ids::DeviceId;

#[test]
fn both_sides_authenticate_and_the_gateway_learns_the_devices_certificate() {
    let (pair, ..) = Pair::connected();
    let certificate = pair.events[SERVER].iter().find_map(|event| match event {
        Event::Connected {
            peer_certificate, ..
        } => peer_certificate.clone(),
        _ => None,
    });
    let device = crate::identity::device_id_of(&certificate.unwrap());
    assert_eq!(device, Ok(DeviceId::from_u128(1)));
}

#[test]
fn a_certificate_problem_ends_the_connection_with_its_alert() {
    let world = World::new();
    let stranger = World::named("stranger");
    // TLS alerts: RFC 8446 §6.
    for (own, expected) in [
        (None, 116),
        (Some(stranger.device_leaf(2040)), 48),
        (Some(world.device_leaf(2021)), 45),
    ] {
        let mut pair = Pair::new(world.client(own), world.server(1));
        pair.connect();
        pair.run(Duration::from_secs(20));
        let reasons = pair.closed(CLIENT);
        let [
            CloseReason::Tls {
                alert,
                by_peer: true,
                ..
            },
        ] = reasons[..]
        else {
            panic!("{reasons:?}")
        };
        assert_eq!(*alert, expected);
        assert!(matches!(
            pair.closed(SERVER)[..],
            [CloseReason::Tls { by_peer: false, .. }]
        ));
        assert_eq!(pair.ends[SERVER].connections(), 0);
    }
}

#[test]
fn a_gateway_of_another_ca_is_refused_by_the_device() {
    let (world, stranger) = (World::new(), World::named("stranger"));
    let client = world.client(Some(world.device_leaf(2040)));
    let mut pair = Pair::new(client, stranger.server(1));
    pair.connect();
    let [
        CloseReason::Tls {
            alert: 48,
            by_peer: false,
            ..
        },
    ] = pair.closed(CLIENT)[..]
    else {
        panic!("{:?}", pair.closed(CLIENT))
    };
}

#[test]
fn a_newcomer_may_be_refused_or_made_to_prove_its_address() {
    let world = World::new();
    let client = || world.client(Some(world.device_leaf(2040)));
    let mut pair = Pair::new(client(), world.server(1));
    pair.admit = |quic, now, conn, _| quic.refuse(now, conn);
    pair.connect();
    assert_eq!(pair.closed(CLIENT), [&CloseReason::Refused]);
    assert!(pair.ends[SERVER].incoming.is_empty());

    let mut pair = Pair::new(client(), world.server(1));
    pair.admit = |quic, now, conn, validated| {
        if validated {
            quic.accept(now, conn)
        } else {
            quic.retry(now, conn)
        }
    };
    let (_, peer) = pair.connect();
    assert!(peer.is_some());
    let validated: Vec<bool> = pair.events[SERVER]
        .iter()
        .filter_map(|event| match event {
            Event::Incoming { validated, .. } => Some(*validated),
            _ => None,
        })
        .collect();
    assert_eq!(validated, [false, true]);
}

#[test]
fn a_tls_configuration_for_another_protocol_is_refused() {
    let world = World::new();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots(&world.server_ca))
        .with_no_client_auth();
    let config = ClientConfig {
        tls: Arc::new(tls),
        server_name: GATEWAY_NAME.to_owned(),
    };
    let refused = Quic::client(config, &Seed::new([1; 32])).unwrap_err();
    assert_eq!(refused, BadTls::OtherProtocol);
}
