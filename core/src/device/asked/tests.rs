//! A device against a gateway that the test plays by hand: frames no honest gateway would send, and
//! addresses that fail when the test says so.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::billing::money::Nanos;
use crate::device::{AttemptId, Attempts, Config, Input, Terms};
use crate::error::ErrorCode;
use crate::escalation::context::Question as Asking;
use crate::ids::DeviceId;
use crate::machine::Machine;
use crate::privacy::{Mode, Policy};
use crate::rng::Seed;
use crate::time::{UnixMillis, origin};
use crate::transport::{self, CloseReason, ConnStats, ConnectError, Datagram, Transmit};
use crate::tunnel::FailureKind;
use crate::wire::message::{
    Cancel, ErrorMessage, EscalationResponse, FinishReason, HeartbeatAck, HelloAck, Reply,
    ServerStatus, SessionLimits, StreamChunk, StreamEnd, TokensUsed,
};

/// A transport without a network: what it reports is what the test put there.
#[derive(Debug, Default)]
struct Scripted {
    events: VecDeque<transport::Event>,
    arrived: BTreeMap<(ConnId, StreamId), VecDeque<Bytes>>,
    sent: BTreeMap<(ConnId, StreamId), Vec<u8>>,
    finished: Vec<StreamId>,
    /// Streams that the gateway ends when they are read.
    ended: Vec<(ConnId, StreamId)>,
    /// Connections that were begun, and whether they are open.
    conns: Vec<(SocketAddr, bool)>,
    streams: u64,
    /// Bytes of each connection that is open, sent and received.
    bytes: BTreeMap<ConnId, (u64, u64)>,
}

impl Scripted {
    fn is_open(&self, conn: ConnId) -> bool {
        usize::try_from(conn.0).is_ok_and(|at| self.conns.get(at).is_some_and(|(_, open)| *open))
    }
}

impl Transport for Scripted {
    fn handle_datagram(&mut self, _now: Now, _datagram: Datagram) {}
    fn handle_timeout(&mut self, _now: Now) {}
    fn handle_rebind(&mut self, _now: Now) {}
    fn connect(&mut self, _now: Now, remote: SocketAddr) -> Result<ConnId, ConnectError> {
        self.conns.push((remote, true));
        Ok(ConnId(self.conns.len() as u64 - 1))
    }
    fn accept(&mut self, _now: Now, _conn: ConnId) {}
    fn refuse(&mut self, _now: Now, _conn: ConnId) {}
    fn retry(&mut self, _now: Now, _conn: ConnId) {}
    fn close(&mut self, _now: Now, conn: ConnId, _code: u32, _reason: &str) {
        if self.is_open(conn) {
            self.conns[conn.0 as usize].1 = false;
            let reason = CloseReason::Local;
            self.events
                .push_back(transport::Event::Closed { conn, reason });
        }
    }
    fn open(&mut self, conn: ConnId, _priority: Priority) -> Option<StreamId> {
        let stream = StreamId(self.streams);
        self.streams += 1;
        self.is_open(conn).then_some(stream)
    }
    fn set_priority(&mut self, _conn: ConnId, _stream: StreamId, _priority: Priority) {}
    fn writable(&self, _conn: ConnId, _stream: StreamId) -> usize {
        usize::MAX
    }
    fn send(&mut self, conn: ConnId, stream: StreamId, data: &[u8]) {
        self.sent.entry((conn, stream)).or_default().extend(data);
    }
    fn finish(&mut self, _conn: ConnId, stream: StreamId) {
        self.finished.push(stream);
    }
    fn reset(&mut self, _conn: ConnId, _stream: StreamId, _code: u32) {}
    fn stop(&mut self, _conn: ConnId, _stream: StreamId, _code: u32) {}
    fn read(&mut self, conn: ConnId, stream: StreamId) -> Read {
        let arrived = self.arrived.get_mut(&(conn, stream));
        match arrived.and_then(VecDeque::pop_front) {
            Some(data) => Read::Data(data),
            None if self.ended.contains(&(conn, stream)) => Read::End,
            None => Read::Blocked,
        }
    }
    fn probe(&mut self, _now: Now, _conn: ConnId) {}
    fn stats(&self, conn: ConnId) -> Option<ConnStats> {
        let &(sent_bytes, received_bytes) = self.bytes.get(&conn)?;
        Some(ConnStats {
            rtt: Duration::from_millis(20),
            sent_bytes,
            received_bytes,
            lost_packets: 0,
            last_received: origin(),
            in_flight: false,
            remote: self.conns[0].0,
        })
    }
    fn flush(&mut self, _now: Now) {}
    fn poll_event(&mut self) -> Option<transport::Event> {
        self.events.pop_front()
    }
    fn poll_transmit(&mut self, _now: Now, _buf: &mut Vec<u8>) -> Option<Transmit> {
        None
    }
    fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        None
    }
}

/// A device, its clock, and everything it has said.
struct Play {
    device: Device<Scripted>,
    now: Now,
    said: Vec<Output>,
}

const FIRST: ConnId = ConnId(0);

impl Play {
    fn new() -> Self {
        let config = Config {
            device_id: DeviceId::from_u128(7),
            agent: "test".to_owned(),
            attempts: Attempts::default(),
            privacy: Policy::default(),
            terms: Terms::default(),
        };
        let now = Now {
            instant: origin(),
            wall: UnixMillis(0),
        };
        Self {
            device: Device::new(Scripted::default(), config, &Seed::new([1; 32])),
            now,
            said: Vec::new(),
        }
    }

    fn give(&mut self, input: Input) {
        self.device.handle_input(self.now, input).unwrap();
        self.said
            .extend(std::iter::from_fn(|| self.device.poll_output()));
    }

    fn wait(&mut self, millis: u64) {
        self.now = self.now.after(Duration::from_millis(millis));
        self.give(Input::Timeout);
    }

    fn happens(&mut self, event: transport::Event) {
        self.device.transport.events.push_back(event);
        self.give(Input::Timeout);
    }

    /// The addresses of the attempt that asked last.
    fn resolve(&mut self, addresses: &[&str]) {
        let attempt = self.attempt();
        let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
        let result = Ok(addresses);
        self.give(Input::Resolved { attempt, result });
    }

    fn attempt(&self) -> AttemptId {
        let asked = self.said.iter().rev().find_map(|output| {
            let Output::Resolve { attempt, .. } = output else {
                return None;
            };
            Some(*attempt)
        });
        asked.unwrap()
    }

    fn connected(&mut self, conn: ConnId) {
        self.happens(transport::Event::Connected {
            conn,
            peer_certificate: None,
            handshake: Duration::from_millis(1),
        });
    }

    fn refused(&mut self, conn: ConnId, reason: CloseReason) {
        self.device.transport.conns[conn.0 as usize].1 = false;
        self.device.transport.bytes.remove(&conn);
        self.happens(transport::Event::Closed { conn, reason });
    }

    /// All of it arrives at one moment, as the frames of one datagram do.
    fn gateway_sends(&mut self, stream: StreamId, messages: &[Message]) {
        let mut bytes = Vec::new();
        for message in messages {
            codec::encode(message, &mut bytes).unwrap();
        }
        let arrived = &mut self.device.transport.arrived;
        let queue = arrived.entry((FIRST, stream)).or_default();
        queue.push_back(Bytes::from(bytes));
        let conn = FIRST;
        self.happens(transport::Event::Readable { conn, stream });
    }

    /// With a session, and nothing said yet.
    fn established() -> Self {
        let mut play = Self::new();
        play.give(Input::Connect);
        play.resolve(&["10.0.0.1:1"]);
        play.connected(FIRST);
        let ack = HelloAck {
            epoch: 1,
            server_time: UnixMillis(0),
            heartbeat_secs: 30,
            limits: SessionLimits::default(),
            features: Vec::new(),
        };
        play.gateway_sends(StreamId(0), &[Message::HelloAck(ack)]);
        assert_eq!(play.device.state(), State::Connected { in_doubt: false });
        play.said.clear();
        play
    }

    /// A question on its stream.
    fn ask(&mut self) -> StreamId {
        self.give(Input::Escalate(Box::new(
            Asking::new("why?").into_request(ID),
        )));
        StreamId(self.device.transport.streams - 1)
    }

    /// News of the question, as text that names the kind of it.
    fn news(&self) -> Vec<String> {
        let news = self.said.iter().filter_map(|output| {
            let Output::Answer { request: ID, event } = output else {
                return None;
            };
            Some(match event {
                AnswerEvent::Chunk(text) => format!("chunk {text}"),
                AnswerEvent::Delta(delta) => format!("{delta:?}"),
                AnswerEvent::Ended(_) => "ended".to_owned(),
                AnswerEvent::Cut => "cut".to_owned(),
                AnswerEvent::Notice(notice) => notice.kind.clone(),
                AnswerEvent::Resumed { at } => format!("resumed at {at}"),
                AnswerEvent::Whole(answer) => format!("whole {}", answer.content),
                AnswerEvent::Failed(AskError::Remote(error)) => error.message.clone(),
                AnswerEvent::Failed(AskError::Protocol(_)) => "not understood".to_owned(),
                AnswerEvent::Failed(error) => error.to_string(),
            })
        });
        news.collect()
    }
}

const ID: RequestId = RequestId::from_u128(5);

fn chunk(sequence: u64, content: &str, is_final: bool) -> Message {
    Message::StreamChunk(StreamChunk {
        request_id: ID,
        content: content.to_owned(),
        sequence,
        is_final,
        delta: None,
    })
}

fn end(request_id: RequestId) -> Message {
    Message::StreamEnd(StreamEnd {
        request_id,
        tokens_used: TokensUsed::default(),
        cost_cents: 0,
        cost_nanos: Nanos(0),
        base_nanos: Nanos(0),
        model_used: "m".to_owned(),
        finish_reason: FinishReason::Stop,
        latency_ms: 1,
        estimated: false,
        hidden: 0,
        route: Route::Cloud,
        notice: None,
    })
}

fn whole(content: &str) -> Message {
    let answer = serde_json::json!({
        "request_id": ID, "content": content, "model_used": "m",
        "tokens_used": TokensUsed::default(), "cost_cents": 0, "cost_nanos": 0,
        "base_nanos": 0, "latency_ms": 1, "finish_reason": "stop",
    });
    let answer: EscalationResponse = serde_json::from_value(answer).unwrap();
    Message::EscalationResponse(Box::new(answer))
}

fn failure(message: &str) -> ErrorMessage {
    ErrorMessage {
        code: ErrorCode::UpstreamError,
        message: message.to_owned(),
        details: None,
        retryable: true,
        retry_after_secs: None,
        request_id: Some(ID),
    }
}

fn error(message: &str) -> Message {
    Message::Error(failure(message))
}

#[test]
fn an_answer_has_one_last_event_whatever_follows_it_in_the_same_datagram() {
    let stray = Message::Reply(Reply {
        id: 1,
        result: None,
        error: Some(failure("no")),
    });
    for after in [error("too late"), whole("again"), end(ID), stray] {
        let mut play = Play::established();
        let stream = play.ask();
        play.gateway_sends(stream, &[chunk(0, "so", true), end(ID), after]);
        assert_eq!(play.news(), ["chunk so", "ended"]);
        let stats = play.device.stats();
        assert_eq!((stats.requests_succeeded, stats.requests_failed), (1, 0));
    }
}

#[test]
fn the_first_of_two_whole_answers_counts_and_the_first_of_two_errors() {
    for (first, second, news) in [
        (whole("one"), whole("two"), "whole one"),
        (error("one"), error("two"), "one"),
    ] {
        let mut play = Play::established();
        let stream = play.ask();
        play.gateway_sends(stream, &[first, second]);
        assert_eq!(play.news(), [news]);
    }
}

#[test]
fn text_before_an_error_stands_and_the_error_is_last() {
    let mut play = Play::established();
    let stream = play.ask();
    play.gateway_sends(
        stream,
        &[
            chunk(0, "so ", false),
            chunk(1, "far", false),
            error("broke"),
        ],
    );
    assert_eq!(play.news(), ["chunk so ", "chunk far", "broke"]);
}

#[test]
fn an_answer_of_another_question_or_of_the_control_stream_ends_only_the_question() {
    let other = end(RequestId::from_u128(6));
    for wrong in [other, Message::Cancel(Cancel { request_id: ID })] {
        let mut play = Play::established();
        let stream = play.ask();
        play.gateway_sends(stream, &[wrong]);
        assert_eq!(play.news(), ["not understood"]);
        assert_eq!(play.device.state(), State::Connected { in_doubt: false });
    }
}

#[test]
fn a_call_too_large_for_a_message_is_refused_and_opens_no_stream() {
    let mut play = Play::established();
    let streams = play.device.transport.streams;
    let long = format!("\"{}\"", "x".repeat(limits::FRAME_MEDIUM_BYTES_MAX));
    play.give(Input::Call {
        id: 3,
        method: Method::Ping,
        params: Some(RawValue::from_string(long).unwrap()),
    });
    let refused = |output: &Output| matches!(output, Output::Replied { id: 3, result: Err(error) } if *error == AskError::TooLarge);
    assert!(play.said.iter().any(refused), "{:?}", play.said);
    assert_eq!(play.device.transport.streams, streams);
}

fn refusal(alert: u8) -> CloseReason {
    CloseReason::Tls {
        alert,
        by_peer: true,
        reason: String::new(),
    }
}

#[test]
fn addresses_take_turns_a_quarter_second_apart_and_the_losers_are_closed() {
    let mut play = Play::new();
    play.give(Input::Connect);
    play.resolve(&["[::1]:1", "[::2]:1", "10.0.0.1:1"]);
    let dialled = |play: &Play| -> Vec<String> {
        let conns = play.device.transport.conns.iter();
        conns.map(|(address, _)| address.to_string()).collect()
    };
    assert_eq!(dialled(&play), ["[::1]:1"]);
    play.wait(249);
    assert_eq!(dialled(&play).len(), 1);
    play.wait(1);
    assert_eq!(dialled(&play), ["[::1]:1", "10.0.0.1:1"]);
    play.connected(ConnId(1));
    let open: Vec<bool> = play.device.transport.conns.iter().map(|c| c.1).collect();
    assert_eq!(open, [false, true]);
    play.wait(1000);
    assert_eq!(dialled(&play).len(), 2, "nothing is dialled after one won");
}

#[test]
fn a_refused_certificate_is_not_hidden_by_an_address_that_never_answers() {
    let mut play = Play::new();
    play.give(Input::Connect);
    play.resolve(&["[::1]:1", "10.0.0.1:1"]);
    play.wait(250);
    play.refused(ConnId(0), refusal(48));
    // The other address stays dark until the attempt's time is up.
    play.wait(30_000);
    assert_eq!(play.device.state(), State::Failed);
    let failure = play.device.tunnel.failure().unwrap();
    assert_eq!(failure.kind, FailureKind::UnknownCa);
}

#[test]
fn a_refused_certificate_is_not_hidden_by_a_later_failure_elsewhere() {
    let mut play = Play::new();
    play.give(Input::Connect);
    play.resolve(&["[::1]:1", "10.0.0.1:1"]);
    play.wait(250);
    play.refused(ConnId(0), refusal(45));
    if play.device.transport.is_open(ConnId(1)) {
        play.refused(ConnId(1), CloseReason::Refused);
    }
    assert_eq!(play.device.state(), State::Failed);
    let failure = play.device.tunnel.failure().unwrap();
    assert_eq!(failure.kind, FailureKind::CertificateExpired);
}

/// Bytes both ways, then beats both ways.
fn counted(play: &Play) -> [u64; 4] {
    let stats = play.device.stats();
    [
        stats.sent_bytes,
        stats.received_bytes,
        stats.heartbeats_sent,
        stats.heartbeats_acked,
    ]
}

#[test]
fn a_lost_connection_keeps_what_was_counted_on_it() {
    let mut play = Play::established();
    let ack = HeartbeatAck {
        sequence: 0,
        server_time: UnixMillis(0),
        latency_ms: 1,
        pending_messages: 0,
        server_status: ServerStatus::Healthy,
    };
    play.gateway_sends(StreamId(0), &[Message::HeartbeatAck(ack)]);
    play.device.transport.bytes.insert(FIRST, (700, 300));
    play.wait(0);
    assert_eq!(counted(&play), [700, 300, 1, 1]);
    play.refused(FIRST, CloseReason::TimedOut);
    assert_eq!(play.device.state(), State::Reconnecting { attempt: 1 });
    assert_eq!(counted(&play), [700, 300, 1, 1]);
}

#[test]
fn a_session_that_is_silent_still_counts_its_beats() {
    let mut play = Play::established();
    // The beat at the start is never acknowledged: doubt after 10 s, silence 20 s later.
    for _ in 0..31 {
        play.wait(1000);
    }
    assert_eq!(play.device.state(), State::Reconnecting { attempt: 1 });
    let [_, _, beats, acked] = counted(&play);
    assert!((1..=2).contains(&beats), "{beats}");
    assert_eq!(acked, 0);
}

#[test]
fn what_is_private_leaves_as_a_token_and_the_answer_has_it_again() {
    let mut play = Play::established();
    let question = Asking::new("Is ada@example.com valid?").into_request(ID);
    play.give(Input::Escalate(Box::new(question)));
    let stream = StreamId(play.device.transport.streams - 1);
    let sent = &play.device.transport.sent[&(FIRST, stream)];
    let sent = String::from_utf8_lossy(sent).into_owned();
    assert!(
        sent.contains("Is [EMAIL_1] valid?") && !sent.contains("ada"),
        "{sent}"
    );
    let pieces = [
        chunk(0, "Yes: [EMA", false),
        chunk(1, "IL_1], [EMAIL", true),
        end(ID),
    ];
    play.gateway_sends(stream, &pieces);
    assert_eq!(
        play.news(),
        [
            "chunk Yes: ",
            "chunk ada@example.com, ",
            "chunk [EMAIL",
            "ended"
        ]
    );
    let hidden = play.said.iter().find_map(|output| {
        let Output::Answer {
            event: AnswerEvent::Ended(end),
            ..
        } = output
        else {
            return None;
        };
        Some(end.hidden)
    });
    assert_eq!(hidden, Some(1));
}

#[test]
fn a_whole_answer_has_what_was_private_again_and_a_failed_one_what_was_held_back() {
    for (said, news) in [
        (whole("Dear [EMAIL_1]"), vec!["whole Dear ada@example.com"]),
        (
            chunk(0, "Dear [EM", true),
            vec!["chunk Dear ", "chunk [EM", "no"],
        ),
    ] {
        let mut play = Play::established();
        let question = Asking::new("Write to ada@example.com").into_request(ID);
        play.give(Input::Escalate(Box::new(question)));
        let stream = StreamId(play.device.transport.streams - 1);
        play.gateway_sends(stream, &[said, error("no")]);
        assert_eq!(play.news(), news);
    }
}

#[test]
fn a_device_that_blocks_sends_nothing_private_and_says_what_was_found() {
    let mut play = Play::established();
    play.device.config.privacy.mode = Mode::Block;
    let streams = play.device.transport.streams;
    let question = Asking::new("Is ada@example.com valid?").into_request(ID);
    play.give(Input::Escalate(Box::new(question)));
    assert_eq!(play.device.transport.streams, streams);
    let news = play.news().concat();
    assert!(news.contains("1 EMAIL") && !news.contains("ada"), "{news}");
}

/// What the device has said on a stream of a connection, in frames.
fn said_on(play: &Play, conn: ConnId, stream: StreamId) -> Vec<Message> {
    let bytes = play.device.transport.sent.get(&(conn, stream));
    let mut decoder = FrameDecoder::new();
    let mut frames = decoder.feed(bytes.map_or(&[], Vec::as_slice));
    let mut messages = Vec::new();
    while let Some(frame) = frames.next() {
        let frame = frame.unwrap();
        messages.push(codec::decode(frame.frame_type, frame.payload).unwrap());
    }
    messages
}

/// The stream that was opened last.
fn last_stream(play: &Play) -> StreamId {
    StreamId(play.device.transport.streams - 1)
}

fn resumes(play: &Play) -> Vec<u64> {
    (0..play.device.transport.streams)
        .flat_map(|stream| said_on(play, FIRST, StreamId(stream)))
        .filter_map(|message| {
            let Message::Resume(resume) = message else {
                return None;
            };
            Some(resume.next_sequence)
        })
        .collect()
}

#[test]
fn pieces_that_never_come_are_asked_for_by_resume_and_what_waited_is_dropped() {
    let mut play = Play::established();
    let stream = play.ask();
    let mut pieces = vec![chunk(0, "a", false)];
    pieces.extend((2..=258).map(|sequence| chunk(sequence, "x", false)));
    play.gateway_sends(stream, &pieces);
    assert_eq!(resumes(&play), [1]);
    let again = [chunk(1, "b", false), chunk(2, "c", true), end(ID)];
    play.gateway_sends(last_stream(&play), &again);
    let news = [
        "chunk a",
        "cut",
        "resumed at 1",
        "chunk b",
        "chunk c",
        "ended",
    ];
    assert_eq!(play.news(), news);
}

#[test]
fn a_stream_that_ends_early_is_gone_on_with_three_times_unless_it_brings_something() {
    let mut play = Play::established();
    play.ask();
    for round in 0..4 {
        // What the first stream brings makes the count begin anew.
        let stream = last_stream(&play);
        if round == 0 {
            play.gateway_sends(stream, &[chunk(0, "a", false)]);
        }
        play.device.transport.ended.push((FIRST, stream));
        let conn = FIRST;
        play.happens(transport::Event::Readable { conn, stream });
        let failed = play.news().iter().any(|news| news == "not understood");
        assert_eq!(failed, round == 3, "{round}");
    }
    assert_eq!(resumes(&play), [1, 1, 1]);
}

#[test]
fn what_is_over_its_rate_is_asked_again_after_its_time_and_counts_once() {
    let mut play = Play::established();
    let stream = play.ask();
    let mut limited = failure("too often");
    limited.code = ErrorCode::RateLimited;
    limited.retry_after_secs = Some(5);
    play.gateway_sends(stream, &[Message::Error(limited.clone())]);
    play.wait(4_999);
    assert_eq!(last_stream(&play), stream);
    play.wait(1);
    let again = last_stream(&play);
    assert!(matches!(
        &said_on(&play, FIRST, again)[..],
        [Message::EscalationRequest(request)] if request.request_id == ID
    ));
    assert_eq!(play.device.stats().requests_sent, 1);
    // 30 s are allowed; 5 are gone.
    limited.retry_after_secs = Some(25);
    play.gateway_sends(again, &[Message::Error(limited)]);
    assert_eq!(play.news(), ["too often"]);
}

#[test]
fn an_interrupted_answer_is_asked_for_once_more_under_a_new_id_if_nothing_of_it_was_shown() {
    let mut interrupted = failure("restarted");
    interrupted.code = ErrorCode::Interrupted;
    let mut play = Play::established();
    let stream = play.ask();
    play.gateway_sends(stream, &[Message::Error(interrupted.clone())]);
    let again = last_stream(&play);
    let [Message::EscalationRequest(request)] = &said_on(&play, FIRST, again)[..] else {
        panic!("{:?}", said_on(&play, FIRST, again))
    };
    let fresh = request.request_id;
    assert_eq!((fresh == ID, request.retry_of), (false, Some(ID)));
    let piece = StreamChunk {
        request_id: fresh,
        content: "so".to_owned(),
        sequence: 0,
        is_final: true,
        delta: None,
    };
    play.gateway_sends(again, &[Message::StreamChunk(piece), end(fresh)]);
    assert_eq!(play.news(), ["chunk so", "ended"]);

    let mut play = Play::established();
    play.ask();
    for _ in 0..2 {
        let stream = last_stream(&play);
        play.gateway_sends(stream, &[Message::Error(interrupted.clone())]);
    }
    assert_eq!(play.news(), ["restarted"], "once");

    let mut play = Play::established();
    let stream = play.ask();
    let said = [chunk(0, "so", false), Message::Error(interrupted)];
    play.gateway_sends(stream, &said);
    assert_eq!(play.news(), ["chunk so", "restarted"]);
}

#[test]
fn pieces_are_acknowledged_every_thirty_two_or_every_sixty_four_kibibytes() {
    let acks = |play: &Play, stream| -> Vec<u64> {
        let said = said_on(play, FIRST, stream);
        let acks = said.iter().filter_map(|message| {
            let Message::ChunkAck(ack) = message else {
                return None;
            };
            Some(ack.received_through)
        });
        acks.collect()
    };
    let mut play = Play::established();
    let stream = play.ask();
    for sequence in 0..70 {
        play.gateway_sends(stream, &[chunk(sequence, "x", false)]);
    }
    assert_eq!(acks(&play, stream), [31, 63]);
    let long = "x".repeat(32 * 1024);
    play.gateway_sends(stream, &[chunk(70, &long, false)]);
    assert_eq!(acks(&play, stream), [31, 63]);
    play.gateway_sends(stream, &[chunk(71, &long, false)]);
    assert_eq!(acks(&play, stream), [31, 63, 71]);
}
