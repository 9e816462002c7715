//! What devices are told when something is refused or fails: the code, the words, what to do.

use std::time::Duration;

use serde_json::json;

use super::Model;
use super::transcript::Bill;
use crate::api;
use crate::billing::account::Denied;
use crate::billing::account::alert::Alert;
use crate::billing::ledger::Charge;
use crate::dialect::BuildError;
use crate::dialect::chat::tokens::{self, NotCounted};
use crate::dialect::failure::{FailureKind, UpstreamFailure};
use crate::error::ErrorCode;
use crate::escalation::request::Invalid;
use crate::ids::RequestId;
use crate::rate::Wait;
use crate::wire::message::{ErrorMessage, Notice};

/// How often a device beats, seconds.
pub(super) const HEARTBEAT_SECS: u32 = 30;

/// Names listed when a model is not known; more would not fit an error frame.
const MODEL_NAMES_LISTED_MAX: usize = 40;

fn error(code: ErrorCode, request: Option<RequestId>, message: impl Into<String>) -> ErrorMessage {
    ErrorMessage {
        request_id: request,
        ..api::refusal(code, message)
    }
}

pub(super) fn invalid(why: &Invalid, id: RequestId) -> ErrorMessage {
    error(ErrorCode::InvalidRequest, Some(id), why.to_string())
}

pub(super) fn untranslatable(why: &BuildError, id: RequestId) -> ErrorMessage {
    let details = match why {
        BuildError::Chat(bad) => Some(json!({ "field": bad.field() })),
        BuildError::Adapter | BuildError::Encoding => None,
    };
    ErrorMessage {
        details,
        ..error(why.code(), Some(id), why.to_string())
    }
}

pub(super) fn unreadable(id: RequestId) -> ErrorMessage {
    error(
        ErrorCode::InvalidRequest,
        Some(id),
        "the request holds a number that JSON cannot write",
    )
}

pub(super) fn unknown_model(asked: &str, models: &[Model], id: Option<RequestId>) -> ErrorMessage {
    let mut names: Vec<&str> = models
        .iter()
        .take(MODEL_NAMES_LISTED_MAX)
        .map(|model| model.name.as_str())
        .collect();
    names.push("auto");
    names.sort_unstable();
    let known = names.join(", ");
    let message = format!("this gateway has no model {asked:?}; it has {known}");
    ErrorMessage {
        details: Some(json!({"field": "model", "unknown": "model"})),
        ..error(ErrorCode::InvalidRequest, id, message)
    }
}

/// A count that no server can be asked for.
pub(super) fn uncounted(why: &NotCounted) -> ErrorMessage {
    let refused = |code| error(code, None, why.to_string());
    match why {
        NotCounted::Dialect | NotCounted::Server => refused(ErrorCode::NotFound),
        NotCounted::Body(bad) => ErrorMessage {
            details: Some(json!({"field": bad.field()})),
            ..refused(ErrorCode::InvalidRequest)
        },
    }
}

/// A count that the server did not give.
pub(super) fn count_failed(failure: &UpstreamFailure, provider: &str) -> ErrorMessage {
    if tokens::is_unknown(failure) {
        return uncounted(&NotCounted::Server);
    }
    ErrorMessage {
        request_id: None,
        ..upstream(failure, provider, RequestId::from_u128(0))
    }
}

pub(super) fn receive_full() -> ErrorMessage {
    ErrorMessage {
        retry_after_secs: Some(1),
        ..error(
            ErrorCode::RateLimited,
            None,
            "too many large requests at once; send them in turn",
        )
    }
}

pub(super) fn stopping(id: RequestId) -> ErrorMessage {
    ErrorMessage {
        retry_after_secs: Some(5),
        ..error(
            ErrorCode::ShuttingDown,
            Some(id),
            "the gateway is stopping; ask again shortly",
        )
    }
}

pub(super) fn store_unavailable(id: RequestId) -> ErrorMessage {
    ErrorMessage {
        request_id: Some(id),
        ..store_down()
    }
}

pub(super) fn store_down() -> ErrorMessage {
    ErrorMessage {
        retryable: true,
        retry_after_secs: Some(5),
        ..error(
            ErrorCode::Internal,
            None,
            "the gateway cannot reach its store, so nothing was charged; ask again shortly",
        )
    }
}

pub(super) fn denied(why: &Denied, id: RequestId) -> ErrorMessage {
    let code = match why {
        Denied::Conflict => ErrorCode::Conflict,
        Denied::InProgress => ErrorCode::InProgress,
        Denied::Expired { .. } => ErrorCode::Expired,
        Denied::Interrupted { .. } => ErrorCode::Interrupted,
        Denied::QuotaSpent { .. } | Denied::GuestCap { .. } => ErrorCode::QuotaExceeded,
        Denied::Insufficient { .. } | Denied::Owing { .. } | Denied::NoProviderKey { .. } => {
            ErrorCode::PaymentRequired
        }
        Denied::UnknownGuest => ErrorCode::Forbidden,
        Denied::TooManyHolds => ErrorCode::RateLimited,
        Denied::UnknownAccount => ErrorCode::Unauthorized,
        Denied::Overflow => ErrorCode::InvalidRequest,
    };
    let refused = error(code, Some(id), why.to_string());
    match why {
        Denied::Expired { charge } => with_bill(refused, &Bill::of(charge)),
        Denied::InProgress | Denied::TooManyHolds => ErrorMessage {
            retry_after_secs: Some(1),
            ..refused
        },
        Denied::Conflict
        | Denied::Interrupted { .. }
        | Denied::QuotaSpent { .. }
        | Denied::GuestCap { .. }
        | Denied::UnknownGuest
        | Denied::NoProviderKey { .. }
        | Denied::Insufficient { .. }
        | Denied::Owing { .. }
        | Denied::UnknownAccount
        | Denied::Overflow => refused,
    }
}

/// What devices are told when a limit comes near.
pub(super) fn limit_notice(alert: &Alert) -> Notice {
    let data = serde_json::to_value(alert).unwrap_or_default();
    Notice {
        kind: Notice::LIMIT.to_owned(),
        data,
    }
}

/// A provider's failure. The failure's own message is a sentence already.
pub(super) fn upstream(failure: &UpstreamFailure, provider: &str, id: RequestId) -> ErrorMessage {
    let (code, advice) = match failure.kind {
        FailureKind::Unauthorized => (
            ErrorCode::UpstreamError,
            "; a valid key must be set: by the gateway's operator, or with byok your own (synesis cloud provider-key set)",
        ),
        FailureKind::Rejected { .. } => (ErrorCode::InvalidRequest, ""),
        FailureKind::Timeout => (ErrorCode::UpstreamTimeout, ""),
        FailureKind::Connect => (ErrorCode::UpstreamError, "; is it running?"),
        FailureKind::RateLimited { .. }
        | FailureKind::Overloaded { .. }
        | FailureKind::Server { .. }
        | FailureKind::Malformed
        | FailureKind::Truncated
        | FailureKind::TooLarge => (ErrorCode::UpstreamError, ""),
    };
    let seconds = |wait: Duration| u32::try_from(wait.as_secs().max(1)).unwrap_or(u32::MAX);
    ErrorMessage {
        retryable: failure.is_transient(),
        retry_after_secs: failure.kind.retry_after().map(seconds),
        ..error(
            code,
            Some(id),
            format!("{provider}: {}{advice}", failure.message),
        )
    }
}

pub(super) fn upstream_timeout(provider: &str, id: RequestId) -> ErrorMessage {
    error(
        ErrorCode::UpstreamTimeout,
        Some(id),
        format!(
            "{provider} sent nothing in time; nothing was charged. Ask again, or allow more time"
        ),
    )
}

pub(super) fn total_timeout(id: RequestId) -> ErrorMessage {
    error(
        ErrorCode::UpstreamTimeout,
        Some(id),
        format!(
            "the answer was not complete after {} s; what had come is charged",
            crate::limits::ESCALATION_TOTAL.as_secs()
        ),
    )
}

pub(super) fn answer_too_large(id: RequestId) -> ErrorMessage {
    error(
        ErrorCode::TooLarge,
        Some(id),
        "the answer does not fit one message; ask for it streamed. What had come is charged",
    )
}

pub(super) fn fell_silent(provider: &str, id: RequestId) -> ErrorMessage {
    error(
        ErrorCode::UpstreamTimeout,
        Some(id),
        format!(
            "{provider} sent nothing more for {} s in the middle of the answer; what had come is charged",
            crate::limits::UPSTREAM_IDLE.as_secs()
        ),
    )
}

pub(super) fn stayed_away(id: RequestId) -> ErrorMessage {
    error(
        ErrorCode::Expired,
        Some(id),
        "the device stayed away too long, so the answer was stopped; what had come is charged",
    )
}

pub(super) fn unkeepable(id: RequestId) -> ErrorMessage {
    error(
        ErrorCode::TooLarge,
        Some(id),
        "the answer grew larger than the gateway can keep; what had come is charged",
    )
}

pub(super) fn used_for_another(id: RequestId) -> ErrorMessage {
    denied(&Denied::Conflict, id)
}

/// The text is no longer kept; the receipt is.
pub(super) fn expired(charge: &Charge, id: RequestId) -> ErrorMessage {
    let charge = Box::new(charge.clone());
    denied(&Denied::Expired { charge }, id)
}

pub(super) fn interrupted(id: RequestId) -> ErrorMessage {
    error(
        ErrorCode::Interrupted,
        Some(id),
        "the gateway restarted in the middle of the answer; it is free. Ask again under a new id",
    )
}

/// The store has the answer, and the gateway no room for it now.
pub(super) fn no_room(id: RequestId) -> ErrorMessage {
    ErrorMessage {
        retry_after_secs: Some(5),
        ..error(
            ErrorCode::RateLimited,
            Some(id),
            "the gateway keeps too many answers to fetch this one; come back for it shortly",
        )
    }
}

pub(super) fn elsewhere(id: RequestId) -> ErrorMessage {
    denied(&Denied::InProgress, id)
}

pub(super) fn no_such_piece(id: RequestId) -> ErrorMessage {
    error(
        ErrorCode::InvalidRequest,
        Some(id),
        "the answer has no such piece yet",
    )
}

/// A question beyond a rate.
pub(super) fn too_often(wait: Wait, whose: &str, id: Option<RequestId>) -> ErrorMessage {
    ErrorMessage {
        retry_after_secs: Some(wait.as_secs()),
        ..error(
            ErrorCode::RateLimited,
            id,
            format!("too many questions of this {whose} in a minute"),
        )
    }
}

/// A question while too many answers run.
pub(super) fn too_many_at_once(most: u32, whose: &str, id: RequestId) -> ErrorMessage {
    ErrorMessage {
        retry_after_secs: Some(1),
        ..error(
            ErrorCode::RateLimited,
            Some(id),
            format!("{most} answers of this {whose} are under way already; wait for one to end"),
        )
    }
}

pub(super) fn no_such_answer(id: RequestId) -> ErrorMessage {
    error(
        ErrorCode::NotFound,
        Some(id),
        "no answer is kept under this id; ask again under a new id",
    )
}

pub(super) fn no_uploads() -> ErrorMessage {
    error(
        ErrorCode::InvalidRequest,
        None,
        "this gateway takes no adapter uploads",
    )
}

pub(super) fn unknown_method(name: &str) -> ErrorMessage {
    let shown: String = name.chars().take(64).collect();
    error(
        ErrorCode::NotFound,
        None,
        format!("this gateway has no method {shown:?}"),
    )
}

pub(super) fn protocol(what: &str) -> ErrorMessage {
    error(
        ErrorCode::Protocol,
        None,
        format!("the device broke the protocol: {what}"),
    )
}

pub(super) fn unsendable() -> ErrorMessage {
    error(
        ErrorCode::TooLarge,
        None,
        "the message does not fit a frame; ask for the answer streamed",
    )
}

/// Adds what was charged all the same.
pub(super) fn with_bill(refused: ErrorMessage, bill: &Bill) -> ErrorMessage {
    let mut details = json!({
        "tokens_used": bill.tokens,
        "cost_nanos": bill.charge,
        "base_nanos": bill.base,
        "estimated": bill.estimated,
    });
    if let Some(notice) = bill.notice() {
        details[Notice::IN_DETAILS] = json!(notice);
    }
    ErrorMessage {
        details: Some(details),
        ..refused
    }
}
