//! Connections: who they are, and what governs their sessions.
//!
//! ```text
//!  Incoming ─ accept ─▶ Handshaking ─ Connected ─▶ Knocking { hello?, admitted? }
//!                                                      │ both
//!                                                      ▼
//!                                 Closing ◀───────── Live { account, epoch, control }
//! ```

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use super::admission::{self, Load};
use super::outside::{Admitted, Ask, NotAdmitted};
use super::streams::{Lane, Stream};
use super::{Due, Event, Gateway, Output, terms};
use crate::identity;
use crate::ids::{AccountId, DeviceId};
use crate::limits;
use crate::time::Now;
use crate::transport::{self, CloseReason, ConnId, Priority, StreamId, Transport};
use crate::wire::close::CloseCode;
use crate::wire::message::{
    Heartbeat, HeartbeatAck, Hello, HelloAck, Message, PrewarmSignal, ServerStatus, SessionLimits,
};

/// One connection.
#[derive(Debug)]
pub(super) struct Tunnel {
    pub(super) remote: SocketAddr,
    pub(super) handshake: Duration,
    pub(super) device: Option<DeviceId>,
    pub(super) phase: Phase,
    pub(super) streams: BTreeMap<StreamId, Stream>,
    /// The last heartbeat's number.
    pub(super) last_beat: Option<u64>,
    /// Bytes of half-received messages.
    pub(super) received_bytes: usize,
    /// Whether it is looked at for silence (see [`super::probing`]).
    pub(super) watched: bool,
    /// Whether it was silent when it was last looked at.
    pub(super) silent: bool,
}

#[derive(Debug)]
pub(super) enum Phase {
    Handshaking,
    Knocking {
        control: Option<StreamId>,
        admitted: Option<Admitted>,
    },
    Live {
        account: AccountId,
        epoch: u64,
    },
    Closing,
}

impl Tunnel {
    /// Whether something said last on a stream has not been acknowledged yet.
    pub(super) fn is_speaking(&self) -> bool {
        self.streams
            .values()
            .any(|stream| matches!(stream.lane, Lane::Answer(_) | Lane::Spent))
    }
}

impl<T: Transport> Gateway<T> {
    /// Whose a live tunnel is.
    pub(super) fn asker(&self, conn: ConnId) -> Option<(AccountId, DeviceId)> {
        let tunnel = self.tunnels.get(&conn)?;
        let Phase::Live { account, .. } = &tunnel.phase else {
            return None;
        };
        Some((*account, tunnel.device?))
    }

    /// The control streams of an account's sessions.
    pub(super) fn controls_of(&self, id: AccountId) -> Vec<(ConnId, StreamId)> {
        let of = |(conn, tunnel): (&ConnId, &Tunnel)| match tunnel.phase {
            Phase::Live { account, .. } if account == id => {
                let mut streams = tunnel.streams.iter();
                let control = streams.find(|(_, stream)| stream.lane == Lane::Control)?.0;
                Some((*conn, *control))
            }
            Phase::Live { .. } | Phase::Handshaking | Phase::Knocking { .. } | Phase::Closing => {
                None
            }
        };
        self.tunnels.iter().filter_map(of).collect()
    }

    pub(super) fn transport_event(&mut self, now: Now, event: transport::Event) {
        match event {
            transport::Event::Incoming {
                conn,
                remote,
                validated,
            } => {
                self.incoming(now, conn, remote, validated);
            }
            transport::Event::Connected {
                conn,
                peer_certificate,
                handshake,
            } => {
                self.connected(now, conn, peer_certificate, handshake);
            }
            transport::Event::Opened { conn, stream } => {
                if let Some(tunnel) = self.tunnels.get_mut(&conn) {
                    tunnel.streams.insert(stream, Stream::default());
                    self.read(now, conn, stream);
                }
            }
            transport::Event::Readable { conn, stream } => self.read(now, conn, stream),
            transport::Event::Writable { conn, stream } => {
                if let Some(Lane::Answer(id)) = self.lane(conn, stream) {
                    self.pump(now, id);
                    self.give_room(now, id);
                }
            }
            transport::Event::Finished { conn, stream } => {
                // Nothing more is expected of the device either; unread, its end would keep the
                // stream open for ever.
                self.transport.stop(conn, stream, CloseCode::Done.as_u32());
                self.forget_stream(conn, stream);
            }
            transport::Event::Stopped { conn, stream, .. } => self.unwanted(now, conn, stream),
            transport::Event::Closed { conn, reason } => self.closed(now, conn, &reason),
            transport::Event::StreamsAvailable { .. } => {}
        }
    }

    fn incoming(&mut self, now: Now, conn: ConnId, remote: SocketAddr, validated: bool) {
        let load = Load {
            handshakes: self.handshakes,
            tunnels: self.tunnels.len(),
            tunnels_max: self.config.tunnels_max,
            stopping: self.draining.is_some(),
        };
        match admission::verdict(load, validated) {
            admission::Verdict::Accept => {
                self.handshakes += 1;
                let tunnel = Tunnel {
                    remote,
                    handshake: Duration::ZERO,
                    device: None,
                    phase: Phase::Handshaking,
                    streams: BTreeMap::new(),
                    last_beat: None,
                    received_bytes: 0,
                    watched: false,
                    silent: false,
                };
                self.tunnels.insert(conn, tunnel);
                self.transport.accept(now, conn);
            }
            admission::Verdict::Retry => self.transport.retry(now, conn),
            admission::Verdict::Refuse => {
                self.transport.refuse(now, conn);
                self.event(Event::HandshakeRefused { remote });
            }
        }
    }

    fn connected(
        &mut self,
        now: Now,
        conn: ConnId,
        certificate: Option<Bytes>,
        handshake: Duration,
    ) {
        let Some(tunnel) = self.tunnels.get_mut(&conn) else {
            return;
        };
        self.handshakes -= 1;
        tunnel.handshake = handshake;
        tunnel.phase = Phase::Knocking {
            control: None,
            admitted: None,
        };
        let Some(certificate) = certificate else {
            self.close(now, conn, CloseCode::Unauthorized, "no device certificate");
            return;
        };
        match identity::device_id_of(&certificate) {
            Ok(device) => {
                tunnel.device = Some(device);
                let hello_by = now.instant + limits::HELLO_TIMEOUT;
                self.deadlines.set(Due::Hello(conn), Some(hello_by));
                let certificate = identity::Fingerprint::of(&certificate);
                self.ask_admission(
                    now,
                    conn,
                    Ask::Admit {
                        device,
                        certificate,
                    },
                );
            }
            Err(_) => self.close(
                now,
                conn,
                CloseCode::Unauthorized,
                "not a device certificate",
            ),
        }
    }

    pub(super) fn admission_told(
        &mut self,
        now: Now,
        conn: ConnId,
        word: Result<Admitted, NotAdmitted>,
    ) {
        let Some(tunnel) = self.tunnels.get_mut(&conn) else {
            return;
        };
        let Phase::Knocking { admitted, .. } = &mut tunnel.phase else {
            return;
        };
        match word {
            Ok(granted) => {
                *admitted = Some(granted);
                self.establish(now, conn);
            }
            Err(refused) => {
                let code = match refused {
                    NotAdmitted::Unknown | NotAdmitted::Mismatched => CloseCode::Unauthorized,
                    NotAdmitted::Revoked => CloseCode::Revoked,
                    NotAdmitted::Unavailable => CloseCode::Overloaded,
                };
                self.close(now, conn, code, &refused.to_string());
            }
        }
    }

    pub(super) fn hello(&mut self, now: Now, conn: ConnId, stream: StreamId, hello: &Hello) {
        let Some(tunnel) = self.tunnels.get_mut(&conn) else {
            return;
        };
        let fresh = matches!(tunnel.phase, Phase::Knocking { control: None, .. });
        if !fresh || tunnel.device != Some(hello.device_id) {
            self.close(
                now,
                conn,
                CloseCode::Protocol,
                "a Hello that does not belong here",
            );
            return;
        }
        if let Phase::Knocking { control, .. } = &mut tunnel.phase {
            *control = Some(stream);
        }
        self.set_lane(conn, stream, Lane::Control);
        self.transport.set_priority(conn, stream, Priority::Control);
        self.establish(now, conn);
    }

    /// Once both the device has said hello and the store has admitted it.
    fn establish(&mut self, now: Now, conn: ConnId) {
        let Some(tunnel) = self.tunnels.get_mut(&conn) else {
            return;
        };
        let Phase::Knocking {
            control: Some(control),
            admitted: Some(admitted),
        } = tunnel.phase
        else {
            return;
        };
        let Some(device) = tunnel.device else { return };
        let Admitted { account, epoch } = admitted;
        // Of two that the store admitted, one may be told late.
        if self.live_epoch(device) > Some(epoch) {
            let why = "the device has connected anew";
            return self.close(now, conn, CloseCode::Replaced, why);
        }
        let Some(tunnel) = self.tunnels.get_mut(&conn) else {
            return;
        };
        tunnel.phase = Phase::Live { account, epoch };
        let (remote, handshake) = (tunnel.remote, tunnel.handshake);
        self.deadlines.set(Due::Hello(conn), None);
        if let Some(older) = self.live.insert(device, conn) {
            self.close(
                now,
                older,
                CloseCode::Replaced,
                "the device has connected anew",
            );
        }
        let ack = HelloAck {
            epoch,
            server_time: now.wall,
            heartbeat_secs: terms::HEARTBEAT_SECS,
            limits: SessionLimits::default(),
            features: Vec::new(),
        };
        self.send(now, conn, control, &Message::HelloAck(ack));
        self.event(Event::TunnelUp {
            device,
            account,
            epoch,
            remote,
            handshake,
        });
        let waiting: Vec<StreamId> = self
            .tunnels
            .get(&conn)
            .map(|tunnel| {
                tunnel
                    .streams
                    .keys()
                    .copied()
                    .filter(|&s| s != control)
                    .collect()
            })
            .unwrap_or_default();
        for stream in waiting {
            self.read(now, conn, stream);
        }
    }

    fn live_epoch(&self, device: DeviceId) -> Option<u64> {
        match self.tunnels.get(self.live.get(&device)?)?.phase {
            Phase::Live { epoch, .. } => Some(epoch),
            Phase::Handshaking | Phase::Knocking { .. } | Phase::Closing => None,
        }
    }

    pub(super) fn heartbeat(&mut self, now: Now, conn: ConnId, stream: StreamId, beat: &Heartbeat) {
        let Some(tunnel) = self.tunnels.get_mut(&conn) else {
            return;
        };
        let wrong = if tunnel.device != Some(beat.device_id) {
            Some("a heartbeat of another device")
        } else if tunnel.last_beat >= Some(beat.sequence) {
            // An acknowledgement would not say which of the two arrived.
            Some("a heartbeat's number was used before")
        } else {
            None
        };
        if let Some(why) = wrong {
            self.close(now, conn, CloseCode::Protocol, why);
            return;
        }
        tunnel.last_beat = Some(beat.sequence);
        let rtt = self
            .transport
            .stats(conn)
            .map(|stats| stats.rtt)
            .unwrap_or_default();
        let ack = HeartbeatAck {
            sequence: beat.sequence,
            server_time: now.wall,
            latency_ms: u32::try_from(rtt.as_millis()).unwrap_or(u32::MAX),
            pending_messages: 0,
            server_status: ServerStatus::Healthy,
        };
        self.send(now, conn, stream, &Message::HeartbeatAck(ack));
    }

    pub(super) fn prewarm(&mut self, now: Now, conn: ConnId, signal: &PrewarmSignal) {
        if !self.speaks_for(conn, signal.device_id) {
            self.close(now, conn, CloseCode::Protocol, "a signal of another device");
            return;
        }
        if let Some(model) = self.model("auto") {
            let provider = model.provider.clone();
            self.outputs.push_back(Output::Warm { provider });
        }
    }

    fn speaks_for(&self, conn: ConnId, device: DeviceId) -> bool {
        self.tunnels
            .get(&conn)
            .is_some_and(|tunnel| tunnel.device == Some(device))
    }

    pub(super) fn close(&mut self, now: Now, conn: ConnId, code: CloseCode, why: &str) {
        let Some(tunnel) = self.tunnels.get_mut(&conn) else {
            return;
        };
        if matches!(tunnel.phase, Phase::Closing) {
            return;
        }
        if matches!(tunnel.phase, Phase::Handshaking) {
            self.handshakes -= 1;
        }
        tunnel.phase = Phase::Closing;
        let device = tunnel.device;
        self.left(now, conn);
        self.transport.close(now, conn, code.as_u32(), why);
        self.event(Event::TunnelDown {
            device,
            reason: why.to_owned(),
        });
    }

    fn closed(&mut self, now: Now, conn: ConnId, reason: &CloseReason) {
        let Some(tunnel) = self.tunnels.get(&conn) else {
            return;
        };
        let (device, told) = (tunnel.device, matches!(tunnel.phase, Phase::Closing));
        if matches!(tunnel.phase, Phase::Handshaking) {
            self.handshakes -= 1;
        }
        self.left(now, conn);
        self.tunnels.remove(&conn);
        if !told {
            self.event(Event::TunnelDown {
                device,
                reason: reason.to_string(),
            });
        }
    }

    /// Nobody listens on the connection any more.
    fn left(&mut self, now: Now, conn: ConnId) {
        self.deadlines.set(Due::Hello(conn), None);
        self.deadlines.set(Due::Look(conn), None);
        let Some(tunnel) = self.tunnels.get_mut(&conn) else {
            return;
        };
        self.received_bytes = self.received_bytes.saturating_sub(tunnel.received_bytes);
        tunnel.received_bytes = 0;
        let streams = std::mem::take(&mut tunnel.streams);
        if let Some(device) = tunnel.device
            && self.live.get(&device) == Some(&conn)
        {
            self.live.remove(&device);
        }
        for (stream, was) in streams {
            if let Lane::Answer(id) = was.lane {
                self.detach(now, id, conn, stream);
            }
        }
    }
}
