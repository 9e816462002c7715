//! What the fake server says: behaviours, and the bytes of each in either dialect.

use std::net::SocketAddr;

use bytes::Bytes;
use serde_json::{Value, json};

use super::Gate;
use super::http::{self, Request};

/// How one request is met.
#[derive(Clone, Debug)]
pub enum Behaviour {
    /// An answer, whole or broken somewhere in the middle.
    Answer(Answer),
    /// The last message of the question, as the answer.
    Echo,
    /// A refusal with the dialect's own error body.
    Refuse {
        /// The HTTP status.
        status: u16,
        /// Seconds for the `retry-after` header.
        retry_after: Option<u32>,
        /// The message in the body.
        message: String,
    },
    /// Nothing at all: not even a status line, until the client goes away.
    Hang,
    /// The status line and headers of a stream, then nothing.
    HangAfterHead,
    /// Closes the connection without a byte.
    Drop,
    /// These very bytes, then the connection is closed.
    Raw(Bytes),
    /// An event stream that a real server once sent, one HTTP chunk for each event.
    Transcript(String),
}

impl Default for Behaviour {
    fn default() -> Self {
        Self::Answer(Answer::default())
    }
}

impl From<Answer> for Behaviour {
    fn from(answer: Answer) -> Self {
        Self::Answer(answer)
    }
}

impl Behaviour {
    /// A refusal without `retry-after`.
    #[must_use]
    pub fn refuse(status: u16) -> Self {
        Self::Refuse {
            status,
            retry_after: None,
            message: format!("scripted refusal {status}"),
        }
    }
}

/// An answer: its pieces, what it claims to have used, and how it is put on the wire.
#[derive(Clone, Debug)]
pub struct Answer {
    /// One event each.
    pub pieces: Vec<String>,
    /// What the usage report says; `None` sends none.
    pub usage: Option<Usage>,
    /// How lines end.
    pub line_ends: LineEnds,
    /// Bytes per TCP write; `None` writes an event at a time. One byte a time splits every UTF-8
    /// sequence and every line end.
    pub write_bytes: Option<usize>,
    /// Whether `: keep-alive` comments stand between the events.
    pub comments: bool,
    /// Held before each piece.
    pub gate: Option<Gate>,
    /// How it ends.
    pub ending: Ending,
    /// Reported as the finish reason, in OpenAI's words (`stop`, `length`).
    pub finish: &'static str,
}

impl Default for Answer {
    fn default() -> Self {
        Self::of(&[
            "The sky",
            " is blue",
            " because of",
            " Rayleigh scattering.",
        ])
    }
}

impl Answer {
    /// A plain answer in these pieces; 12 prompt tokens, one completion token for each piece.
    #[must_use]
    pub fn of(pieces: &[&str]) -> Self {
        let usage = Usage {
            prompt: 12,
            completion: pieces.len() as u64,
            ..Usage::default()
        };
        Self {
            pieces: pieces.iter().map(|&piece| piece.to_owned()).collect(),
            usage: Some(usage),
            line_ends: LineEnds::Lf,
            write_bytes: None,
            comments: false,
            gate: None,
            ending: Ending::Complete,
            finish: "stop",
        }
    }

    /// The whole text.
    #[must_use]
    pub fn text(&self) -> String {
        self.pieces.concat()
    }

    /// The same answer, ending otherwise.
    #[must_use]
    pub fn ending(self, ending: Ending) -> Self {
        Self { ending, ..self }
    }

    /// The same answer, each piece held at `gate`.
    #[must_use]
    pub fn gated(self, gate: &Gate) -> Self {
        Self {
            gate: Some(gate.clone()),
            ..self
        }
    }
}

/// What the server claims to have counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// All prompt tokens, cached ones included, whichever way the dialect reports them.
    pub prompt: u64,
    /// All completion tokens.
    pub completion: u64,
    /// Of the prompt, read from the cache.
    pub cache_read: u64,
    /// Of the prompt, written to the cache (Anthropic only).
    pub cache_write: u64,
    /// Of the completion, reasoning (OpenAI only).
    pub reasoning: u64,
}

/// How lines of an event stream end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineEnds {
    /// `\n`.
    Lf,
    /// `\r\n`.
    Crlf,
}

/// How an answer ends, after its pieces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// As it should.
    Complete,
    /// The connection is closed in the middle of the body.
    Cut,
    /// The connection is reset in the middle of the body.
    Reset,
    /// An event whose data is not JSON, then the rest as it should be.
    Malformed,
    /// The dialect's error event with this message, then the connection is closed.
    ErrorEvent(String),
    /// Nothing more, but the connection stays open.
    Hang,
    /// The body ends as HTTP wants, but without the dialect's closing events.
    Truncated,
}

/// One step of a script.
#[derive(Debug)]
pub(super) enum Step {
    /// Writes bytes.
    Write(Bytes),
    /// Writes a piece of the answer, one TCP write each.
    Piece(Vec<Bytes>),
    /// Waits at a gate.
    Pass(Gate),
    /// Waits until the client goes away.
    Hang,
    /// Closes.
    Close,
    /// Closes with a reset.
    Reset,
}

/// Where Anthropic's clients have tokens counted. An answer's prompt tokens are what is counted.
const COUNT: &str = "/v1/messages/count_tokens";

/// The two formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// OpenAI Chat Completions.
    OpenAi,
    /// Anthropic Messages.
    Anthropic,
}

impl Dialect {
    /// Both.
    pub const ALL: [Self; 2] = [Self::OpenAi, Self::Anthropic];

    /// A server's base URL as a gateway's configuration wants it: with `/v1` for OpenAI's format,
    /// without for Anthropic's.
    #[must_use]
    pub fn base_url(self, server: SocketAddr) -> String {
        match self {
            Self::OpenAi => format!("http://{server}/v1"),
            Self::Anthropic => format!("http://{server}"),
        }
    }

    /// Where questions are posted.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::OpenAi => "/v1/chat/completions",
            Self::Anthropic => "/v1/messages",
        }
    }

    /// By the path; `None` for everything that asks no question.
    pub(super) fn of(request: &Request) -> Option<Self> {
        let path = request.path.split('?').next();
        if path == Some(COUNT) {
            return Some(Self::Anthropic);
        }
        Self::ALL
            .into_iter()
            .find(|dialect| path == Some(dialect.path()))
    }

    fn error_body(self, kind: &str, message: &str) -> Value {
        match self {
            Self::OpenAi => json!({"error": {"message": message, "type": kind, "code": null}}),
            Self::Anthropic => {
                json!({"type": "error", "error": {"type": kind, "message": message}})
            }
        }
    }
}

/// What is served beside questions: the list of models, and 404.
pub(super) fn aside(request: &Request) -> Vec<Step> {
    let reply = if request.method == "GET" && request.path.starts_with("/v1/models") {
        let model = json!({"id": "scripted", "object": "model", "created": 0, "owned_by": "test"});
        http::whole(
            200,
            &[],
            &json!({"object": "list", "data": [model]}).to_string(),
        )
    } else {
        http::whole(
            404,
            &[],
            &json!({"error": {"message": "no such path"}}).to_string(),
        )
    };
    vec![Step::Write(reply)]
}

impl Behaviour {
    /// The steps that carry the behaviour out for `request`.
    pub(super) fn steps(self, dialect: Dialect, request: &Request) -> Vec<Step> {
        match self {
            Self::Answer(answer) if request.path == COUNT => {
                let tokens = answer.usage.unwrap_or_default().prompt;
                let body = json!({"input_tokens": tokens}).to_string();
                vec![Step::Write(http::whole(200, &[], &body))]
            }
            Self::Echo => {
                let asked = request.json();
                let messages = asked["messages"].as_array();
                let last = messages.and_then(|all| all.last()?["content"].as_str());
                Self::from(Answer::of(&[last.unwrap_or_default()])).steps(dialect, request)
            }
            Self::Answer(answer) => {
                let asked = request.json();
                let model = asked["model"].as_str().unwrap_or("scripted").to_owned();
                if asked["stream"].as_bool().unwrap_or(false) {
                    let with_usage = dialect == Dialect::Anthropic
                        || asked["stream_options"]["include_usage"]
                            .as_bool()
                            .unwrap_or(false);
                    Writer {
                        dialect,
                        model,
                        answer,
                        with_usage,
                    }
                    .streamed()
                } else {
                    whole_answer(dialect, &model, answer)
                }
            }
            Self::Refuse {
                status,
                retry_after,
                message,
            } => {
                let kind = match status {
                    401 => "authentication_error",
                    429 => "rate_limit_error",
                    400..=499 => "invalid_request_error",
                    _ => "api_error",
                };
                let extra: Vec<_> = retry_after
                    .map(|s| ("retry-after", s.to_string()))
                    .into_iter()
                    .collect();
                let body = dialect.error_body(kind, &message).to_string();
                vec![Step::Write(http::whole(status, &extra, &body))]
            }
            Self::Hang => vec![Step::Hang],
            Self::HangAfterHead => vec![Step::Write(http::stream_head()), Step::Hang],
            Self::Drop => vec![Step::Close],
            Self::Raw(bytes) => vec![Step::Write(bytes), Step::Close],
            Self::Transcript(events) => {
                let chunks = events
                    .split_inclusive("\n\n")
                    .map(|event| http::chunk(event.as_bytes()));
                let pieces = chunks.map(|chunk| Step::Piece(vec![chunk]));
                let end = Step::Write(http::chunk(b""));
                [Step::Write(http::stream_head())]
                    .into_iter()
                    .chain(pieces)
                    .chain([end])
                    .collect()
            }
        }
    }
}

/// The answer in one body.
fn whole_answer(dialect: Dialect, model: &str, answer: Answer) -> Vec<Step> {
    let text = answer.text();
    let body = match dialect {
        Dialect::OpenAi => {
            let message = json!({"role": "assistant", "content": text});
            let choice = json!({"index": 0, "message": message, "finish_reason": answer.finish});
            let mut body = json!({
                "id": "chatcmpl-scripted", "object": "chat.completion", "created": 0,
                "model": model, "choices": [choice],
            });
            if let Some(usage) = answer.usage {
                body["usage"] = openai_usage(usage);
            }
            body
        }
        Dialect::Anthropic => {
            let mut usage = json!({});
            if let Some(counted) = answer.usage {
                usage = anthropic_prompt_usage(counted);
                usage["output_tokens"] = counted.completion.into();
            }
            json!({
                "id": "msg_scripted", "type": "message", "role": "assistant", "model": model,
                "content": [{"type": "text", "text": text}],
                "stop_reason": anthropic_stop(answer.finish), "stop_sequence": null,
                "usage": usage,
            })
        }
    };
    let reply = http::whole(200, &[], &body.to_string());
    let gate = answer.gate.map(Step::Pass);
    let last = match answer.ending {
        Ending::Cut => vec![Step::Write(reply.slice(..reply.len() - 10)), Step::Close],
        Ending::Reset => vec![Step::Write(reply.slice(..reply.len() - 10)), Step::Reset],
        Ending::Hang => vec![Step::Write(reply.slice(..reply.len() - 10)), Step::Hang],
        Ending::Malformed | Ending::Truncated => {
            vec![Step::Write(http::whole(200, &[], "{\"choices\":[{"))]
        }
        Ending::ErrorEvent(message) => {
            let body = dialect.error_body("api_error", &message).to_string();
            vec![Step::Write(http::whole(500, &[], &body))]
        }
        Ending::Complete => vec![Step::Piece(vec![reply])],
    };
    gate.into_iter().chain(last).collect()
}

/// Writes an answer as an event stream.
struct Writer {
    dialect: Dialect,
    model: String,
    answer: Answer,
    with_usage: bool,
}

impl Writer {
    fn streamed(self) -> Vec<Step> {
        let mut steps = vec![Step::Write(http::stream_head())];
        steps.extend(self.opening().into_iter().map(Step::Write));
        for piece in &self.answer.pieces {
            if let Some(gate) = &self.answer.gate {
                steps.push(Step::Pass(gate.clone()));
            }
            if self.answer.comments {
                steps.push(Step::Write(self.framed(": keep-alive\n\n")));
            }
            steps.push(Step::Piece(self.cut(self.piece(piece))));
        }
        match &self.answer.ending {
            Ending::Complete => self.close(&mut steps),
            Ending::Cut => steps.push(Step::Close),
            Ending::Reset => steps.push(Step::Reset),
            Ending::Hang => steps.push(Step::Hang),
            Ending::Truncated => steps.push(Step::Write(http::chunk(b""))),
            Ending::Malformed => {
                let broken = match self.dialect {
                    Dialect::OpenAi => "data: {\"choices\":[{\"delta\":{\"content\": nope\n\n",
                    Dialect::Anthropic => "event: content_block_delta\ndata: {\"type\": nope\n\n",
                };
                steps.push(Step::Write(self.framed(broken)));
                self.close(&mut steps);
            }
            Ending::ErrorEvent(message) => {
                let body = self.dialect.error_body("overloaded_error", message);
                steps.push(Step::Write(self.event("error", &body)));
                steps.push(Step::Close);
            }
        }
        steps
    }

    /// The closing events and the end of the body.
    fn close(&self, steps: &mut Vec<Step>) {
        steps.extend(self.closing().into_iter().map(Step::Write));
        steps.push(Step::Write(http::chunk(b"")));
    }

    /// One event as one HTTP chunk.
    fn event(&self, name: &str, data: &Value) -> Bytes {
        match self.dialect {
            Dialect::OpenAi => self.framed(&format!("data: {data}\n\n")),
            Dialect::Anthropic => self.framed(&format!("event: {name}\ndata: {data}\n\n")),
        }
    }

    fn framed(&self, lines: &str) -> Bytes {
        match self.answer.line_ends {
            LineEnds::Lf => http::chunk(lines.as_bytes()),
            LineEnds::Crlf => http::chunk(lines.replace('\n', "\r\n").as_bytes()),
        }
    }

    /// Cuts one event into the TCP writes asked for. The cut goes through the HTTP chunk too when it
    /// is split, so each part is an HTTP chunk of its own.
    fn cut(&self, event: String) -> Vec<Bytes> {
        let event = match self.answer.line_ends {
            LineEnds::Lf => event,
            LineEnds::Crlf => event.replace('\n', "\r\n"),
        };
        match self.answer.write_bytes {
            None => vec![http::chunk(event.as_bytes())],
            Some(bytes) => event
                .as_bytes()
                .chunks(bytes.max(1))
                .map(http::chunk)
                .collect(),
        }
    }

    fn piece(&self, text: &str) -> String {
        match self.dialect {
            Dialect::OpenAi => {
                format!(
                    "data: {}\n\n",
                    self.openai_chunk(&json!({"content": text}), None)
                )
            }
            Dialect::Anthropic => {
                let delta = json!({"type": "text_delta", "text": text});
                let data = json!({"type": "content_block_delta", "index": 0, "delta": delta});
                format!("event: content_block_delta\ndata: {data}\n\n")
            }
        }
    }

    fn opening(&self) -> Vec<Bytes> {
        match self.dialect {
            Dialect::OpenAi => {
                let role = json!({"role": "assistant", "content": ""});
                vec![self.event("", &self.openai_chunk(&role, None))]
            }
            Dialect::Anthropic => {
                let usage = self.answer.usage.map(|counted| {
                    let mut usage = anthropic_prompt_usage(counted);
                    usage["output_tokens"] = 1.into();
                    usage
                });
                let mut message = json!({
                    "id": "msg_scripted", "type": "message", "role": "assistant", "content": [],
                    "model": self.model, "stop_reason": null, "stop_sequence": null,
                });
                if let Some(usage) = usage {
                    message["usage"] = usage;
                }
                let block = json!({
                    "type": "content_block_start", "index": 0,
                    "content_block": {"type": "text", "text": ""},
                });
                vec![
                    self.event(
                        "message_start",
                        &json!({"type": "message_start", "message": message}),
                    ),
                    self.event("content_block_start", &block),
                    self.event("ping", &json!({"type": "ping"})),
                ]
            }
        }
    }

    fn closing(&self) -> Vec<Bytes> {
        match self.dialect {
            Dialect::OpenAi => {
                let last = self.openai_chunk(&json!({}), Some(self.answer.finish));
                let mut events = vec![self.event("", &last)];
                if let (true, Some(usage)) = (self.with_usage, self.answer.usage) {
                    let mut chunk = self.openai_chunk(&json!({}), None);
                    chunk["choices"] = json!([]);
                    chunk["usage"] = openai_usage(usage);
                    events.push(self.event("", &chunk));
                }
                events.push(self.framed("data: [DONE]\n\n"));
                events
            }
            Dialect::Anthropic => {
                let stop = anthropic_stop(self.answer.finish);
                let delta = json!({"stop_reason": stop, "stop_sequence": null});
                let mut message_delta = json!({"type": "message_delta", "delta": delta});
                if let Some(usage) = self.answer.usage {
                    message_delta["usage"] = json!({"output_tokens": usage.completion});
                }
                let stop = json!({"type": "content_block_stop", "index": 0});
                vec![
                    self.event("content_block_stop", &stop),
                    self.event("message_delta", &message_delta),
                    self.event("message_stop", &json!({"type": "message_stop"})),
                ]
            }
        }
    }

    fn openai_chunk(&self, delta: &Value, finish: Option<&str>) -> Value {
        json!({
            "id": "chatcmpl-scripted", "object": "chat.completion.chunk", "created": 0,
            "model": self.model,
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
        })
    }
}

/// OpenAI counts cached tokens among the prompt's and reasoning among the completion's.
fn openai_usage(usage: Usage) -> Value {
    json!({
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": usage.prompt + usage.completion,
        "prompt_tokens_details": {"cached_tokens": usage.cache_read},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    })
}

/// Anthropic counts cached tokens beside `input_tokens`.
fn anthropic_prompt_usage(usage: Usage) -> Value {
    json!({
        "input_tokens": usage.prompt - usage.cache_read - usage.cache_write,
        "cache_read_input_tokens": usage.cache_read,
        "cache_creation_input_tokens": usage.cache_write,
    })
}

fn anthropic_stop(finish: &str) -> &str {
    match finish {
        "length" => "max_tokens",
        "tool_calls" => "tool_use",
        _ => "end_turn",
    }
}
