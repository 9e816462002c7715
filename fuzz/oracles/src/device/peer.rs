//! What the gateway and the network do to a device's connections, and the frames that this takes.

use arbitrary::Arbitrary;
use mesh_core::ids::RequestId;
use mesh_core::transport::CloseReason;
use serde_json::json;

use crate::wire::framed;

/// What the gateway and the network do to a connection.
#[derive(Debug, Arbitrary)]
pub(super) enum Peer {
    Up,
    Lost(Lost),
    Says { stream: u8, what: Says, cut: bool },
    Raw { stream: u8, bytes: [u8; 6] },
    Ends { stream: u8, reset: bool },
    Stops { stream: u8 },
    Acknowledges,
    Allows { more: u8 },
    OpensAStream,
}

#[derive(Debug, Arbitrary)]
pub(super) enum Lost {
    TimedOut,
    Reset,
    Refused,
    Code(u8),
    Tls { alert: u8, by_peer: bool },
}

#[derive(Debug, Arbitrary)]
pub(super) enum Says {
    HelloAck {
        secs: u8,
    },
    HeartbeatAck {
        sequence: u8,
    },
    GoAway {
        ms: u16,
        secs: u8,
    },
    Notice,
    Error {
        code: u8,
        id: Option<u8>,
    },
    Chunk {
        id: u8,
        sequence: u8,
        is_final: bool,
        other: bool,
    },
    End {
        id: u8,
    },
    Whole {
        id: u8,
    },
    Reply {
        id: u8,
        error: bool,
    },
    /// What only devices say.
    Wrong,
}

pub(super) fn request_id(id: u8) -> RequestId {
    RequestId::from_u128(u128::from(id % 6) + 1)
}

/// The text of each piece of each answer, unless the gateway contradicts itself.
pub(super) fn piece(id: u8, sequence: u8) -> String {
    format!("{}.{sequence};", id % 6)
}

pub(super) fn said(what: &Says) -> Vec<u8> {
    let cost = |id: u8| {
        json!({"request_id": request_id(id).to_string(), "tokens_used": {"prompt": 1, "completion": 1},
            "cost_cents": 0, "cost_nanos": 1, "base_nanos": 1, "model_used": "m",
            "finish_reason": "stop", "latency_ms": 1})
    };
    let codes = [
        "RATE_LIMITED",
        "UNAUTHORIZED",
        "INTERNAL",
        "UPSTREAM_ERROR",
        "SHUTTING_DOWN",
    ];
    let error = |code: u8, id: Option<u8>| {
        json!({"code": codes[usize::from(code) % codes.len()], "message": "no", "retryable": true,
            "retry_after_secs": code, "request_id": id.map(|id| request_id(id).to_string())})
    };
    match what {
        Says::HelloAck { secs } => framed(
            0x11,
            &json!({"epoch": 1, "server_time": 1, "heartbeat_secs": secs}),
        ),
        Says::HeartbeatAck { sequence } => framed(
            0x02,
            &json!({"sequence": sequence, "server_time": 1, "latency_ms": 1,
                "pending_messages": 0, "server_status": {"status": "healthy"}}),
        ),
        Says::GoAway { ms, secs } => {
            framed(0x12, &json!({"reconnect_in_ms": ms, "try_for_secs": secs}))
        }
        Says::Notice => framed(0x16, &json!({"kind": "k", "data": [1]})),
        Says::Error { code, id } => framed(0x07, &error(*code, *id)),
        Says::Chunk {
            id,
            sequence,
            is_final,
            other,
        } => {
            let content = if *other {
                "other".to_owned()
            } else {
                piece(*id, *sequence)
            };
            let id = request_id(*id).to_string();
            framed(
                0x05,
                &json!({"request_id": id, "content": content, "sequence": sequence,
                    "is_final": is_final}),
            )
        }
        Says::End { id } => framed(0x06, &cost(*id)),
        Says::Whole { id } => {
            let mut whole = cost(*id);
            whole["content"] = "whole".into();
            framed(0x04, &whole)
        }
        Says::Reply { id, error: true } => {
            framed(0x21, &json!({"id": id % 6, "error": error(0, None)}))
        }
        Says::Reply { id, error: false } => {
            framed(0x21, &json!({"id": id % 6, "result": {"a": 1}}))
        }
        Says::Wrong => framed(0x14, &json!({"request_id": request_id(0).to_string()})),
    }
}

pub(super) fn lost(why: &Lost) -> CloseReason {
    match why {
        Lost::TimedOut => CloseReason::TimedOut,
        Lost::Reset => CloseReason::Reset,
        Lost::Refused => CloseReason::Refused,
        Lost::Code(code) => CloseReason::Application {
            code: u32::from(*code % 9),
            reason: "why".to_owned(),
        },
        Lost::Tls { alert, by_peer } => CloseReason::Tls {
            alert: *alert,
            by_peer: *by_peer,
            reason: "alert".to_owned(),
        },
    }
}
