//! A device against a gateway that the test plays by hand: frames no honest gateway would send, and
//! addresses that fail when the test says so.

mod again;
mod hidden;
mod scripted;

use std::time::Duration;

use bytes::Bytes;
use serde_json::value::RawValue;

use self::scripted::Scripted;
use super::*;
use crate::api::Method;
use crate::billing::money::Nanos;
use crate::device::{AttemptId, Attempts, Config, Input, Terms};
use crate::error::ErrorCode;
use crate::escalation::context::Question as Asking;
use crate::ids::DeviceId;
use crate::machine::Machine;
use crate::privacy::{Mode, Policy};
use crate::rng::Seed;
use crate::time::{UnixMillis, origin};
use crate::transport::{self, CloseReason};
use crate::tunnel::FailureKind;
use crate::wire::message::{
    Cancel, ErrorMessage, EscalationResponse, FinishReason, HeartbeatAck, HelloAck, Reply,
    ServerStatus, SessionLimits, StreamChunk, StreamEnd, TokensUsed,
};

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
