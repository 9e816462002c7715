//! One HTTP exchange with a model server, as a step machine over bytes.
//!
//! ```text
//!                 ┌ 2xx ─▶ Sniff ──'{'──▶ Whole ─── end ───────────┐
//!   Head ─────────┤           └──other──▶ Stream ── its last event ─┼─▶ Done
//!                 └ other ─▶ ErrorBody ── end ──────────────────────┘
//! ```
//!
//! The first byte of the body decides between the two forms of an answer, not the content type:
//! there are servers that ignore `stream`, and servers that stream under a wrong name.
//!
//! # Invariants
//!
//! 1. Whatever enters, exactly one terminal output (`Finished` or `Failed`) leaves, after every
//!    piece; whatever enters after it is ignored.
//! 2. The outputs are the same however the body is cut (adjacent pieces of text taken together).
//! 3. An answer counts as finished once the server has said why it stopped: a connection that
//!    breaks between that and the last formality costs nothing but the usage.

use std::time::Duration;

use super::failure::{FailureKind, UpstreamFailure, from_error_body, parse_retry_after};
use super::neutral::{Answer, Flow, Piece};
use super::sse::{SseDecoder, SseItem};
use super::{anthropic, openai};
use crate::limits;
use crate::time::UnixMillis;
use crate::wire::message::{DialectName, FinishReason, TokensUsed};

/// The head of an HTTP response, as far as it matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The status.
    pub status: u16,
    /// The `Content-Type` field.
    pub content_type: Option<String>,
    /// How long the server asks us to wait.
    pub retry_after: Option<Duration>,
}

impl Head {
    /// Reads what matters from the header fields; `field` is given their names in lower case.
    #[must_use]
    pub fn from_fields<'a>(
        status: u16,
        field: impl Fn(&str) -> Option<&'a str>,
        wall: UnixMillis,
    ) -> Self {
        // OpenAI says it in milliseconds too; that is the more exact one.
        let exact = field("retry-after-ms")
            .and_then(|value| value.trim().parse().ok())
            .map(|ms| Duration::from_millis(ms).min(limits::RETRY_AFTER_MAX));
        let retry_after =
            exact.or_else(|| parse_retry_after(field("retry-after").unwrap_or_default(), wall));
        Self {
            status,
            content_type: field("content-type").map(str::to_owned),
            retry_after,
        }
    }
}

/// How an exchange ended other than by the end of its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// No connection was made: refused, unreachable, unknown name, TLS.
    Connect,
    /// A timer of the shell's ran out (connecting has its own).
    Timeout,
    /// The connection broke.
    Reset,
}

/// What leaves an exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// A piece of the answer.
    Piece(Piece),
    /// The answer is complete. Terminal.
    Finished {
        /// Why it ended.
        reason: FinishReason,
        /// What the provider counted, if it said so.
        usage: Option<TokensUsed>,
    },
    /// There is no more, and the answer is not complete. Terminal.
    Failed(UpstreamFailure),
}

enum State {
    Head,
    Sniff,
    Stream(Box<SseDecoder>),
    Whole(Vec<u8>),
    ErrorBody {
        status: u16,
        retry_after: Option<Duration>,
        body: Vec<u8>,
    },
    Done,
}

enum Parser {
    Openai,
    Anthropic(anthropic::Parser),
}

/// See the module documentation.
pub struct Exchange {
    state: State,
    parser: Parser,
    answer: Answer,
    terminal: Option<Output>,
}

impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = match self.state {
            State::Head => "Head",
            State::Sniff => "Sniff",
            State::Stream(_) => "Stream",
            State::Whole(_) => "Whole",
            State::ErrorBody { .. } => "ErrorBody",
            State::Done => "Done",
        };
        f.debug_struct("Exchange")
            .field("state", &state)
            .finish_non_exhaustive()
    }
}

impl Exchange {
    /// An exchange whose request has just been sent.
    #[must_use]
    pub fn new(dialect: DialectName) -> Self {
        Self {
            state: State::Head,
            parser: match dialect {
                DialectName::Openai => Parser::Openai,
                DialectName::Anthropic => Parser::Anthropic(anthropic::Parser::default()),
            },
            answer: Answer::default(),
            terminal: None,
        }
    }

    /// The response's head arrived.
    pub fn handle_head(&mut self, head: &Head) {
        if !matches!(self.state, State::Head) {
            return;
        }
        let html = head.content_type.as_ref().is_some_and(|content_type| {
            content_type
                .trim_start()
                .to_ascii_lowercase()
                .starts_with("text/html")
        });
        self.state = match head.status {
            200..=299 if html => {
                let detail = "it sent a web page; is the provider's base URL right?";
                return self.fail(UpstreamFailure::new(FailureKind::Malformed, detail));
            }
            200..=299 => State::Sniff,
            status => State::ErrorBody {
                status,
                retry_after: head.retry_after,
                body: Vec::new(),
            },
        };
    }

    /// The next bytes of the body arrived. The pieces they made are to be polled before more is
    /// fed; text that is not polled is kept, up to the bound of an answer.
    pub fn handle_body(&mut self, mut bytes: &[u8]) {
        if matches!(self.state, State::Sniff) {
            bytes = bytes.trim_ascii_start();
            self.state = match bytes.first() {
                None => return,
                Some(b'{') => State::Whole(Vec::new()),
                Some(_) => State::Stream(Box::new(SseDecoder::new(limits::SSE_EVENT_BYTES_MAX))),
            };
        }
        let fed = match &mut self.state {
            State::Stream(decoder) => {
                match feed(decoder, &mut self.parser, &mut self.answer, bytes) {
                    Ok(Flow::More) => Ok(()),
                    Ok(Flow::Done) => return self.finish(),
                    Err(failure) => Err(failure),
                }
            }
            State::Whole(body) => {
                if bytes.len() > limits::WHOLE_ANSWER_BYTES_MAX.saturating_sub(body.len()) {
                    Err(FailureKind::TooLarge.into())
                } else {
                    body.extend_from_slice(bytes);
                    Ok(())
                }
            }
            State::ErrorBody { body, .. } => {
                let room = limits::ERROR_BODY_BYTES_MAX.saturating_sub(body.len());
                body.extend_from_slice(&bytes[..bytes.len().min(room)]);
                Ok(())
            }
            // Bytes before a head are the shell's mistake; nothing can be made of them.
            State::Head | State::Sniff | State::Done => Ok(()),
        };
        if let Err(failure) = fed {
            self.fail(failure);
        }
    }

    /// The body ended, or the exchange broke.
    pub fn handle_end(&mut self, end: Result<(), Broken>) {
        let broken = match end {
            Ok(()) | Err(Broken::Reset) => FailureKind::Truncated,
            Err(Broken::Connect) => FailureKind::Connect,
            Err(Broken::Timeout) => FailureKind::Timeout,
        };
        match std::mem::replace(&mut self.state, State::Done) {
            State::Done => {}
            // The status says more than a broken body takes away.
            State::ErrorBody {
                status,
                retry_after,
                body,
            } => self.fail(from_error_body(status, retry_after, &body)),
            State::Whole(body) if end.is_ok() => {
                let parsed = match &mut self.parser {
                    Parser::Openai => openai::handle_completion(&body, &mut self.answer),
                    Parser::Anthropic(parser) => parser.handle_whole(&body, &mut self.answer),
                };
                match parsed {
                    Err(failure) => self.fail(failure),
                    Ok(()) if self.answer.finish_reason().is_none() && !self.answer.has_text() => {
                        self.fail(FailureKind::Malformed.into());
                    }
                    Ok(()) => self.finish(),
                }
            }
            State::Stream(_) if self.answer.finish_reason().is_some() => self.finish(),
            State::Stream(_) | State::Whole(_) | State::Sniff | State::Head => {
                self.fail(broken.into());
            }
        }
    }

    /// The next output; pieces first, the terminal one last, then `None`.
    pub fn poll(&mut self) -> Option<Output> {
        match self.answer.pop() {
            Some(piece) => Some(Output::Piece(piece)),
            None => self.terminal.take(),
        }
    }

    /// Whether the terminal output has arisen: the rest of the body does not matter.
    #[must_use]
    pub const fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    fn finish(&mut self) {
        self.state = State::Done;
        self.terminal = Some(Output::Finished {
            reason: self.answer.finish_reason().unwrap_or(FinishReason::Stop),
            usage: self.answer.usage_at_last(),
        });
    }

    fn fail(&mut self, failure: UpstreamFailure) {
        self.state = State::Done;
        self.terminal = Some(Output::Failed(failure));
    }
}

fn feed(
    decoder: &mut SseDecoder,
    parser: &mut Parser,
    answer: &mut Answer,
    mut bytes: &[u8],
) -> Result<Flow, UpstreamFailure> {
    while let Some(item) = decoder
        .decode(&mut bytes)
        .map_err(|_| FailureKind::TooLarge)?
    {
        let flow = match (item, &mut *parser) {
            (SseItem::Comment, _) => {
                answer.keep_alive();
                Flow::More
            }
            (SseItem::Event { data, .. }, Parser::Openai) => openai::handle_event(&data, answer)?,
            (SseItem::Event { data, .. }, Parser::Anthropic(parser)) => {
                parser.handle_event(&data, answer)?
            }
        };
        if flow == Flow::Done {
            return Ok(Flow::Done);
        }
    }
    Ok(Flow::More)
}

#[cfg(test)]
mod tests;
