//! What happens in a script, and in what words it is said on the wire.

use arbitrary::Arbitrary;
use mesh_core::billing::price::Price;
use mesh_core::dialect::MaxTokensField;
use mesh_core::gateway::{Config, Keeping, Model, Rates};
use mesh_core::ids::{DeviceId, RequestId};
use mesh_core::wire::message::DialectName;
use serde_json::json;

use crate::steps::Span;
use crate::wire::framed;

#[derive(Debug, Arbitrary)]
pub(super) enum Step {
    Wait(Span),
    Knock {
        from: u8,
        validated: bool,
    },
    Device {
        conn: u8,
        what: DeviceDoes,
    },
    Outside {
        ask: u8,
        how: How,
    },
    Upstream {
        ask: u8,
        what: Upstream,
    },
    /// A session at once, and a question on it that is being answered.
    Establish {
        device: bool,
        id: u8,
    },
    Revoke {
        device: bool,
    },
    Configure {
        openai: bool,
    },
    Unasked {
        id: u8,
    },
    Stop,
    Drain {
        limit: Span,
        spread: Span,
        alternates: u8,
    },
}

#[derive(Debug, Arbitrary)]
pub(super) enum DeviceDoes {
    Completes { certificate: Certificate },
    OpensAStream,
    Says { stream: u8, what: Says, cut: bool },
    Raw { stream: u8, bytes: [u8; 6] },
    Ends { stream: u8, reset: bool },
    Stops { stream: u8 },
    Acknowledges,
    Leaves,
}

#[derive(Debug, Arbitrary)]
pub(super) enum Certificate {
    First,
    Second,
    Garbage,
    None,
}

#[derive(Debug, Arbitrary)]
pub(super) enum Says {
    Hello {
        device: bool,
    },
    Heartbeat {
        device: bool,
        sequence: u8,
    },
    Prewarm {
        device: bool,
    },
    Question {
        id: u8,
        other: bool,
        stream: bool,
        model: u8,
        max_tokens: u16,
    },
    Cancel {
        id: u8,
    },
    Resume {
        id: u8,
        next: u8,
    },
    ChunkAck {
        id: u8,
        through: u8,
    },
    Call {
        id: u8,
        method: u8,
    },
    Upload,
    Error,
    /// What only gateways say.
    Wrong,
}

#[derive(Clone, Copy, Debug, Arbitrary)]
pub(super) enum How {
    Well,
    Unavailable,
    /// Carried out, but nobody could say so.
    WellButLost,
    NotAdmitted,
}

#[derive(Debug, Arbitrary)]
pub(super) enum Upstream {
    Head { status: u8 },
    Text,
    Finish,
    Garbage { bytes: [u8; 4] },
    Over { broken: Option<Failure> },
}

#[derive(Clone, Copy, Debug, Arbitrary)]
pub(super) enum Failure {
    Connect,
    Timeout,
    Reset,
}

pub(super) fn device(first: bool) -> DeviceId {
    DeviceId::from_u128(if first { 1 } else { 2 })
}

pub(super) fn request_id(id: u8) -> RequestId {
    RequestId::from_u128(u128::from(id % 6) + 1)
}

/// What is asked under an id; found again in the upstream's request.
pub(super) fn query(id: u8, other: bool) -> String {
    format!("query {} {other}.", id % 6)
}

pub(super) fn said(what: &Says) -> Vec<u8> {
    let vitals = json!({"cpu_usage": 0.5, "memory_usage": 0.5, "disk_usage": 0.5,
        "active_sessions": 0, "pending_queries": 0});
    let id_of = |id: &u8| json!({"request_id": request_id(*id).to_string()});
    match what {
        Says::Hello { device: first } => framed(
            0x10,
            &json!({"device_id": device(*first).to_string(), "agent": "f", "features": []}),
        ),
        Says::Heartbeat {
            device: first,
            sequence,
        } => framed(
            0x01,
            &json!({"device_id": device(*first).to_string(), "timestamp": 1,
                "sequence": sequence, "vitals": vitals}),
        ),
        Says::Prewarm { device: first } => framed(
            0x08,
            &json!({"device_id": device(*first).to_string(), "timestamp": 1, "gpu_usage": 0.9,
                "reason": "r"}),
        ),
        Says::Question {
            id,
            other,
            stream,
            model,
            max_tokens,
        } => {
            let model = ["auto", "openai", "anthropic", "nothing"][usize::from(model % 4)];
            framed(
                0x03,
                &json!({"request_id": request_id(*id).to_string(), "session_id": "s",
                    "query": query(*id, *other), "model": model, "max_tokens": max_tokens,
                    "stream": stream}),
            )
        }
        Says::Cancel { id } => framed(0x14, &id_of(id)),
        Says::Resume { id, next } => {
            let mut resume = id_of(id);
            resume["next_sequence"] = (*next % 8).into();
            framed(0x13, &resume)
        }
        Says::ChunkAck { id, through } => {
            let mut ack = id_of(id);
            ack["received_through"] = (*through % 8).into();
            framed(0x15, &ack)
        }
        Says::Call { id, method } => {
            let method = ["ping", "account.summary", "nothing"][usize::from(method % 3)];
            framed(0x20, &json!({"id": id, "method": method}))
        }
        Says::Upload => framed(
            0x30,
            &json!({"name": "n", "base_model": "b", "format": "gguf", "size_bytes": 1,
                "sha256": "0"}),
        ),
        Says::Error => framed(
            0x07,
            &json!({"code": "INTERNAL", "message": "m", "retryable": true}),
        ),
        Says::Wrong => framed(0x31, &json!({"upload_id": "u", "offset": 0})),
    }
}

pub(super) fn config(default_model: &str) -> Config {
    let model = |name: &str, dialect| Model {
        name: name.to_owned(),
        provider: name.to_owned(),
        dialect,
        provider_model: "m".to_owned(),
        max_tokens_field: MaxTokensField::MaxTokens,
        price: Price::CLAUDE_SONNET,
    };
    Config {
        models: vec![
            model("openai", DialectName::Openai),
            model("anthropic", DialectName::Anthropic),
        ],
        default_model: default_model.to_owned(),
        tunnels_max: 6,
        keeping: Keeping::default(),
        rates: Rates::default(),
    }
}

/// The question of a request id, without which body it came with.
pub(super) fn of(request: RequestId) -> String {
    format!("query {} ", request.as_u128() - 1)
}

/// The question in an upstream's request.
pub(super) fn query_in(body: &str) -> Option<&str> {
    let at = body.find("query ")?;
    body.get(at..at + "query 0".len())
}

pub(super) fn piece(dialect: DialectName, text: &str) -> Vec<u8> {
    let event = match dialect {
        DialectName::Openai => json!({"choices": [{"index": 0, "delta": {"content": text}}]}),
        DialectName::Anthropic => {
            json!({"type": "content_block_delta", "delta": {"text": text}})
        }
    };
    format!("data: {event}\n\n").into_bytes()
}

pub(super) fn end(dialect: DialectName) -> Vec<u8> {
    match dialect {
        DialectName::Openai => {
            let stop = json!({"choices": [{"index": 0, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 10, "completion_tokens": 20}});
            format!("data: {stop}\n\ndata: [DONE]\n\n").into_bytes()
        }
        DialectName::Anthropic => {
            let delta = json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"},
                "usage": {"input_tokens": 10, "output_tokens": 20}});
            let stop = json!({"type": "message_stop"});
            format!("data: {delta}\n\ndata: {stop}\n\n").into_bytes()
        }
    }
}
