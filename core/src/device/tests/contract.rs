//! Both root machines alone, against the properties that every machine has.

use super::*;

/// A device alone, on a wire where nothing comes back.
struct Devices(World);

#[derive(Debug)]
enum Deed {
    Connect,
    Resolved,
    Ask(u128),
    Cancel(u128),
    Ping(u64),
    BadVitals,
    NetworkChanged,
    Noise,
    Stop,
}

impl Subject for Devices {
    type Machine = Device<Quic>;
    type Step = Deed;

    fn make(&self) -> Device<Quic> {
        let own = self.0.device_leaf(2040);
        let seed = Seed::new([3; 32]);
        Device::new(
            self.0.seeded_client(Some(own), &seed),
            device_config(),
            &seed,
        )
    }

    fn apply(&self, device: &mut Device<Quic>, now: Now, deed: &Deed) -> Result<(), Rejected> {
        let input = match deed {
            Deed::Connect => Input::Connect,
            Deed::Resolved => {
                let Some(&attempt) = device.links.keys().last() else {
                    return Ok(());
                };
                let result = Ok(vec!["[::1]:4443".parse().unwrap()]);
                Input::Resolved { attempt, result }
            }
            Deed::Ask(number) => {
                let id = RequestId::from_u128(*number);
                Input::Escalate(Box::new(Ask::new("Why?").into_request(id)))
            }
            Deed::Cancel(number) => Input::Cancel(RequestId::from_u128(*number)),
            Deed::Ping(id) => Input::Call {
                id: *id,
                method: Method::Ping,
                params: None,
            },
            Deed::BadVitals => Input::Vitals(Vitals {
                cpu_usage: 7.0,
                ..Vitals::default()
            }),
            Deed::NetworkChanged => Input::NetworkChanged,
            Deed::Noise => Input::Datagram(Datagram {
                remote: "[::1]:4443".parse().unwrap(),
                local_ip: None,
                ecn: None,
                data: b"\xC0noise that is no QUIC packet at all"[..].into(),
            }),
            Deed::Stop => Input::Stop,
        };
        device.handle_input(now, input)
    }

    fn timeout(&self, device: &mut Device<Quic>, now: Now) {
        device.handle_input(now, Input::Timeout).unwrap();
    }

    fn digest(&self, device: &Device<Quic>) -> String {
        format!("{device:?}")
    }

    fn after_step(&self, device: &mut Device<Quic>, now: Now) {
        let mut buf = Vec::new();
        while device.poll_transmit(now, &mut buf).is_some() {
            buf.clear();
        }
    }
}

fn start() -> Now {
    Now {
        instant: origin(),
        wall: WALL,
    }
}

#[test]
fn a_device_keeps_the_contract_of_machines() {
    let script = [
        (secs(0), Deed::Ask(1)),
        (secs(0), Deed::Connect),
        (secs(0), Deed::Connect),
        (secs(1), Deed::Resolved),
        (secs(1), Deed::Ask(2)),
        (secs(0), Deed::Ask(2)),
        (secs(1), Deed::Ping(1)),
        (secs(0), Deed::Ping(1)),
        (secs(0), Deed::BadVitals),
        (secs(1), Deed::Noise),
        (secs(1), Deed::Cancel(2)),
        (secs(40), Deed::NetworkChanged),
        (secs(1), Deed::Resolved),
        (secs(70), Deed::Stop),
        (secs(1), Deed::Ping(2)),
    ];
    let devices = Devices(World::new());
    properties::check(&devices, start(), &script);
    properties::backlog_is_bounded(&devices, start(), &[], |n| Deed::Ask(n as u128));
}

/// A gateway alone.
struct Gateways(World);

#[derive(Debug)]
enum GatewayDeed {
    Noise,
    ToldOfNothing,
    BadModels,
    Stop,
}

impl Subject for Gateways {
    type Machine = Gateway<Quic>;
    type Step = GatewayDeed;

    fn make(&self) -> Gateway<Quic> {
        Gateway::new(self.0.server(1), gateway_config()).unwrap()
    }

    fn apply(
        &self,
        gateway: &mut Gateway<Quic>,
        now: Now,
        deed: &GatewayDeed,
    ) -> Result<(), gateway::Rejected> {
        let input = match deed {
            GatewayDeed::Noise => gateway::Input::Datagram(Datagram {
                remote: "[::1]:1000".parse().unwrap(),
                local_ip: None,
                ecn: None,
                data: b"\x40noise that is no QUIC packet at all"[..].into(),
            }),
            GatewayDeed::ToldOfNothing => gateway::Input::Told {
                id: gateway::AskId(99),
                told: Told::Released(Ok(())),
            },
            GatewayDeed::BadModels => gateway::Input::Configured(gateway::Config {
                default_model: "none".into(),
                ..gateway_config()
            }),
            GatewayDeed::Stop => gateway::Input::Stop,
        };
        gateway.handle_input(now, input)
    }

    fn timeout(&self, gateway: &mut Gateway<Quic>, now: Now) {
        gateway.handle_input(now, gateway::Input::Timeout).unwrap();
    }

    fn digest(&self, gateway: &Gateway<Quic>) -> String {
        format!("{gateway:?}")
    }

    fn after_step(&self, gateway: &mut Gateway<Quic>, now: Now) {
        let mut buf = Vec::new();
        while gateway.poll_transmit(now, &mut buf).is_some() {
            buf.clear();
        }
    }
}

#[test]
fn a_gateway_keeps_the_contract_of_machines() {
    let script = [
        (secs(0), GatewayDeed::Noise),
        (secs(1), GatewayDeed::ToldOfNothing),
        (secs(1), GatewayDeed::BadModels),
        (secs(1), GatewayDeed::Stop),
        (secs(1), GatewayDeed::Noise),
    ];
    properties::check(&Gateways(World::new()), start(), &script);
}

/// What is left of a deadline is never negative: the machine's own cached deadline is the earliest.
#[test]
fn a_connected_device_has_a_deadline_that_moves_on() {
    let mut net = Net::connected();
    let mut last: Option<Instant> = None;
    for _ in 0..20 {
        let (due, _) = net.ends[0].device.poll_timeout().unwrap();
        assert!(due > net.now.instant);
        net.run(due - net.now.instant);
        assert!(last.is_none_or(|last| due > last));
        last = Some(due);
    }
}
