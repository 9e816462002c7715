//! One connection of the ideal transport: numbered packets, sent again until they are acknowledged,
//! and streams within them.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use mesh_core::transport::{ConnId, ConnStats, Event, Priority, Read, StreamId};

use super::packet::{self, FRAME_HEADER, Packet, Say};

/// Frames of one packet, bytes.
const FRAMES_MAX: usize = 1150;
/// Packets on their way at once.
const WINDOW: usize = 64;
/// Bytes queued on a stream before its owner is told to wait.
const QUEUE: usize = 64 * 1024;
/// Unread bytes of a stream, KiB.
const ROOM_KIB: u32 = 512;
/// Streams open at once.
const STREAMS: usize = 64;
/// Before the first packet's fate is known.
const RTT_FIRST: Duration = Duration::from_millis(333);
/// The longest wait before a packet is sent again: this is what is ideal about it.
const RESEND_MAX: Duration = Duration::from_secs(4);
/// As in production.
const IDLE: Duration = Duration::from_secs(120);
/// Longer than between heartbeats, which keep a session alive by themselves.
const KEEP_ALIVE: Duration = Duration::from_secs(31);
/// Before a hello is sent again.
const HELLO_AGAIN: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Stream {
    priority: Priority,
    out: BytesMut,
    /// Everything queued is followed by the end.
    finish: bool,
    finished: bool,
    /// Bytes sent, and how many KiB the peer takes.
    sent: u64,
    room_kib: u32,
    full: bool,
    /// Resets, stops and room to be told.
    says: Vec<Say>,
    unread: VecDeque<Bytes>,
    end: Option<Read>,
    read: u64,
    granted_kib: u32,
}

impl Stream {
    fn new(priority: Priority) -> Self {
        Self {
            priority,
            out: BytesMut::new(),
            finish: false,
            finished: false,
            sent: 0,
            room_kib: ROOM_KIB,
            full: false,
            says: Vec::new(),
            unread: VecDeque::new(),
            end: None,
            read: 0,
            granted_kib: ROOM_KIB,
        }
    }

    fn wants_to_send(&self) -> bool {
        let room = u64::from(self.room_kib) * 1024 > self.sent;
        let ends = self.finish && !self.finished && self.out.is_empty();
        !self.says.is_empty() || ends || (room && !self.out.is_empty())
    }

    /// Whether nothing more can come of it, either way.
    fn is_over(&self) -> bool {
        self.finished && self.end.is_some() && self.unread.is_empty() && self.says.is_empty()
    }
}

#[derive(Debug)]
struct Sent {
    number: u32,
    frames: Vec<u8>,
    at: Instant,
    again: bool,
    /// Streams that are finished once this has arrived.
    finishes: Vec<StreamId>,
}

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) id: ConnId,
    pub(super) tag: u64,
    pub(super) remote: SocketAddr,
    /// The client's hello, until it is welcome.
    pub(super) hello: Option<Vec<u8>>,
    hello_at: Instant,
    is_client: bool,
    pub(super) started: Instant,
    next_number: u32,
    unacked: VecDeque<Sent>,
    duplicates: u32,
    expected: u32,
    early: BTreeMap<u32, Vec<u8>>,
    ack_due: bool,
    streams: BTreeMap<StreamId, Stream>,
    next_stream: u64,
    refused_stream: bool,
    rtt: Duration,
    doublings: u32,
    last_received: Instant,
    last_moved: Instant,
    asked_since: bool,
    sent_bytes: u64,
    received_bytes: u64,
    lost: u64,
    pub(super) armed: Option<Instant>,
    out: VecDeque<Vec<u8>>,
}

impl Conn {
    pub(super) fn new(
        id: ConnId,
        tag: u64,
        remote: SocketAddr,
        hello: Option<Vec<u8>>,
        now: Instant,
    ) -> Self {
        Self {
            id,
            tag,
            remote,
            is_client: hello.is_some(),
            hello,
            hello_at: now,
            started: now,
            next_number: 0,
            unacked: VecDeque::new(),
            duplicates: 0,
            expected: 0,
            early: BTreeMap::new(),
            ack_due: false,
            streams: BTreeMap::new(),
            next_stream: 0,
            refused_stream: false,
            rtt: RTT_FIRST,
            doublings: 0,
            last_received: now,
            last_moved: now,
            asked_since: false,
            sent_bytes: 0,
            received_bytes: 0,
            lost: 0,
            armed: None,
            out: VecDeque::new(),
        }
    }

    pub(super) fn received(&mut self, now: Instant, bytes: usize) {
        self.last_received = now;
        self.last_moved = now;
        self.asked_since = false;
        self.received_bytes += bytes as u64;
    }

    /// The next packet to send.
    pub(super) fn poll_packet(&mut self) -> Option<Vec<u8>> {
        let packet = self.out.pop_front()?;
        self.sent_bytes += packet.len() as u64;
        Some(packet)
    }

    pub(super) fn say_hello(&mut self, now: Instant) {
        if let Some(hello) = &self.hello {
            self.out.push_back(hello.clone());
            self.hello_at = now;
            self.asked_since = true;
        }
    }

    pub(super) fn push(&mut self, packet: &Packet<'_>) {
        self.out.push_back(packet::encode(self.tag, packet));
    }

    pub(super) fn data(
        &mut self,
        now: Instant,
        number: u32,
        ack: u32,
        frames: &[u8],
        events: &mut VecDeque<Event>,
    ) {
        self.acked(now, ack, events);
        self.ack_due = true;
        if number.wrapping_sub(self.expected) > 4 * u32::try_from(WINDOW).unwrap_or_default() {
            return;
        }
        if number == self.expected {
            self.expected = self.expected.wrapping_add(1);
            self.frames(frames, events);
        } else {
            self.early.insert(number, frames.to_vec());
        }
        while let Some(frames) = self.early.remove(&self.expected) {
            self.expected = self.expected.wrapping_add(1);
            self.frames(&frames, events);
        }
    }

    pub(super) fn acked(&mut self, now: Instant, ack: u32, events: &mut VecDeque<Event>) {
        let mut moved = false;
        while self.unacked.front().is_some_and(|sent| sent.number < ack) {
            let Some(sent) = self.unacked.pop_front() else {
                break;
            };
            moved = true;
            if !sent.again {
                let sample = now.saturating_duration_since(sent.at);
                self.rtt = (self.rtt * 7 + sample) / 8;
            }
            for stream in sent.finishes {
                let conn = self.id;
                events.push_back(Event::Finished { conn, stream });
                self.forget_if_over(stream, events);
            }
        }
        if moved {
            self.doublings = 0;
            self.duplicates = 0;
        } else if self.unacked.front().is_some_and(|sent| sent.number == ack) {
            self.duplicates += 1;
            if self.duplicates == 3 {
                self.send_oldest_again(now);
            }
        }
    }

    fn frames(&mut self, mut frames: &[u8], events: &mut VecDeque<Event>) {
        let conn = self.id;
        while let Some((number, say, bytes, rest)) = packet::next_frame(frames) {
            frames = rest;
            let stream = StreamId(number);
            if !self.streams.contains_key(&stream) {
                // Only a client opens streams, in their order; anything else is over already.
                if self.is_client || number < self.next_stream {
                    continue;
                }
                self.next_stream = number + 1;
                self.streams.insert(stream, Stream::new(Priority::Control));
                events.push_back(Event::Opened { conn, stream });
            }
            let Some(state) = self.streams.get_mut(&stream) else {
                continue;
            };
            match say {
                Say::Bytes { end } => {
                    if !bytes.is_empty() && state.end.is_none() {
                        state.unread.push_back(Bytes::copy_from_slice(bytes));
                    }
                    if end && state.end.is_none() {
                        state.end = Some(Read::End);
                    }
                    events.push_back(Event::Readable { conn, stream });
                }
                Say::Reset(code) => {
                    state.unread.clear();
                    state.end = Some(Read::Reset(code));
                    events.push_back(Event::Readable { conn, stream });
                }
                Say::Stop(code) => {
                    state.out.clear();
                    state.finish = true;
                    state.finished = true;
                    events.push_back(Event::Stopped { conn, stream, code });
                }
                Say::Room(kib) => state.room_kib = state.room_kib.max(kib),
            }
        }
    }

    pub(super) fn open(&mut self, priority: Priority) -> Option<StreamId> {
        if self.streams.len() >= STREAMS {
            // Those whose end came while nobody read them any more.
            self.streams.retain(|_, state| !state.is_over());
        }
        if !self.is_client || self.streams.len() >= STREAMS {
            self.refused_stream = true;
            return None;
        }
        let stream = StreamId(self.next_stream);
        self.next_stream += 1;
        self.streams.insert(stream, Stream::new(priority));
        Some(stream)
    }

    fn forget_if_over(&mut self, stream: StreamId, events: &mut VecDeque<Event>) {
        if self.streams.get(&stream).is_some_and(Stream::is_over) {
            self.streams.remove(&stream);
            if self.refused_stream {
                self.refused_stream = false;
                events.push_back(Event::StreamsAvailable { conn: self.id });
            }
        }
    }

    pub(super) fn set_priority(&mut self, stream: StreamId, priority: Priority) {
        if let Some(state) = self.streams.get_mut(&stream) {
            state.priority = priority;
        }
    }

    pub(super) fn writable(&self, stream: StreamId) -> usize {
        self.streams
            .get(&stream)
            .map_or(0, |state| QUEUE.saturating_sub(state.out.len()))
    }

    pub(super) fn send(&mut self, stream: StreamId, data: &[u8]) {
        if let Some(state) = self.streams.get_mut(&stream)
            && !state.finish
        {
            state.out.extend_from_slice(data);
            state.full = state.out.len() >= QUEUE;
        }
    }

    pub(super) fn finish(&mut self, stream: StreamId) {
        if let Some(state) = self.streams.get_mut(&stream) {
            state.finish = true;
        }
    }

    pub(super) fn reset(&mut self, stream: StreamId, code: u32) {
        if let Some(state) = self.streams.get_mut(&stream)
            && !state.finished
        {
            state.out.clear();
            state.finish = true;
            state.finished = true;
            state.says.push(Say::Reset(code));
        }
    }

    pub(super) fn stop(&mut self, stream: StreamId, code: u32) {
        if let Some(state) = self.streams.get_mut(&stream) {
            state.unread.clear();
            if state.end.is_none() {
                state.end = Some(Read::Gone);
                state.says.push(Say::Stop(code));
            }
        }
    }

    pub(super) fn read(&mut self, stream: StreamId, events: &mut VecDeque<Event>) -> Read {
        let Some(state) = self.streams.get_mut(&stream) else {
            return Read::Gone;
        };
        let Some(bytes) = state.unread.pop_front() else {
            let end = state.end.clone().unwrap_or(Read::Blocked);
            self.forget_if_over(stream, events);
            return end;
        };
        state.read += bytes.len() as u64;
        let wants = u32::try_from(state.read / 1024).unwrap_or_default() + ROOM_KIB;
        if wants >= state.granted_kib + ROOM_KIB / 4 {
            state.granted_kib = wants;
            state.says.push(Say::Room(wants));
        }
        Read::Data(bytes)
    }

    /// Something that the peer must acknowledge, now.
    pub(super) fn probe(&mut self, now: Instant) {
        if self.hello.is_some() {
            self.say_hello(now);
        } else if self.unacked.is_empty() {
            self.send_frames(now, Vec::new(), Vec::new());
        } else {
            self.send_oldest_again(now);
        }
    }

    fn send_frames(&mut self, now: Instant, frames: Vec<u8>, finishes: Vec<StreamId>) {
        let number = self.next_number;
        self.next_number += 1;
        let ack = self.expected;
        self.push(&Packet::Data {
            number,
            ack,
            frames: &frames,
        });
        self.ack_due = false;
        self.asked_since = true;
        self.last_moved = now;
        self.unacked.push_back(Sent {
            number,
            frames,
            at: now,
            again: false,
            finishes,
        });
    }

    fn send_oldest_again(&mut self, now: Instant) {
        let ack = self.expected;
        let Some(oldest) = self.unacked.front_mut() else {
            return;
        };
        oldest.again = true;
        oldest.at = now;
        let packet = Packet::Data {
            number: oldest.number,
            ack,
            frames: &oldest.frames,
        };
        let bytes = packet::encode(self.tag, &packet);
        self.out.push_back(bytes);
        self.asked_since = true;
        self.lost += 1;
    }

    /// Moves what is queued into packets, as far as the window allows.
    pub(super) fn flush(&mut self, now: Instant, events: &mut VecDeque<Event>) {
        while self.hello.is_none() && self.unacked.len() < WINDOW {
            let (mut frames, mut finishes) = (Vec::new(), Vec::new());
            self.fill(&mut frames, &mut finishes, events);
            if frames.is_empty() {
                break;
            }
            self.send_frames(now, frames, finishes);
        }
    }

    pub(super) const fn owes_an_acknowledgement(&self) -> bool {
        self.ack_due
    }

    /// Acknowledges what no packet of ours has acknowledged yet.
    pub(super) fn acknowledge(&mut self) {
        if std::mem::take(&mut self.ack_due) {
            let ack = self.expected;
            self.push(&Packet::Ack { ack });
        }
    }

    fn fill(
        &mut self,
        frames: &mut Vec<u8>,
        finishes: &mut Vec<StreamId>,
        events: &mut VecDeque<Event>,
    ) {
        while frames.len() + FRAME_HEADER < FRAMES_MAX {
            let wanting = self
                .streams
                .iter()
                .filter(|(_, state)| state.wants_to_send());
            let urgent =
                wanting.max_by_key(|(id, state)| (state.priority, std::cmp::Reverse(**id)));
            let Some((&id, _)) = urgent else { return };
            let Some(state) = self.streams.get_mut(&id) else {
                return;
            };
            if let Some(say) = state.says.pop() {
                if matches!(say, Say::Reset(_)) {
                    finishes.push(id);
                }
                packet::frame(frames, id.0, say, &[]);
                continue;
            }
            let allowed =
                u64::from(state.room_kib) * 1024 - state.sent.min(u64::from(state.room_kib) * 1024);
            let room = (FRAMES_MAX - frames.len() - FRAME_HEADER)
                .min(state.out.len())
                .min(usize::try_from(allowed).unwrap_or(usize::MAX));
            let bytes = state.out.split_to(room);
            state.sent += bytes.len() as u64;
            let end = state.finish && state.out.is_empty();
            if end {
                state.finished = true;
                finishes.push(id);
            }
            packet::frame(frames, id.0, Say::Bytes { end }, &bytes);
            if state.full && state.out.len() < QUEUE {
                state.full = false;
                let (conn, stream) = (self.id, id);
                events.push_back(Event::Writable { conn, stream });
            }
        }
    }

    fn resend_at(&self) -> Option<Instant> {
        let oldest = self.unacked.front()?;
        let wait =
            (self.rtt * 3).max(Duration::from_millis(50)) * 2u32.saturating_pow(self.doublings);
        Some(oldest.at + wait.min(RESEND_MAX))
    }

    pub(super) fn deadline(&self) -> Instant {
        let mut next = self.last_received.max(self.started) + IDLE;
        if self.hello.is_some() {
            next = next.min(self.hello_at + HELLO_AGAIN);
        } else if self.is_client && self.unacked.is_empty() {
            next = next.min(self.last_moved + KEEP_ALIVE);
        }
        self.resend_at().map_or(next, |at| next.min(at))
    }

    /// What is due at `now`; whether the connection has been silent for too long.
    pub(super) fn timeout(&mut self, now: Instant) -> bool {
        if now >= self.last_received.max(self.started) + IDLE {
            return true;
        }
        if self.hello.is_some() {
            if now >= self.hello_at + HELLO_AGAIN {
                self.say_hello(now);
            }
        } else if self.resend_at().is_some_and(|at| now >= at) {
            self.doublings = (self.doublings + 1).min(16);
            self.send_oldest_again(now);
        } else if self.is_client && self.unacked.is_empty() && now >= self.last_moved + KEEP_ALIVE {
            self.send_frames(now, Vec::new(), Vec::new());
        }
        false
    }

    pub(super) fn stats(&self) -> ConnStats {
        ConnStats {
            rtt: self.rtt,
            sent_bytes: self.sent_bytes,
            received_bytes: self.received_bytes,
            lost_packets: self.lost,
            last_received: self.last_received,
            in_flight: self.asked_since,
            remote: self.remote,
        }
    }
}
