//! What must hold of how much may be asked.

use mesh_core::device::AskError;
use mesh_core::error::ErrorCode;

use super::{Seen, Verdict};
use crate::queue::{Micros, SECOND};
use crate::record::{Outcome, Record};

/// What a question waits at least to be taken, from when it was asked.
const PATIENCE: Micros = 30 * SECOND;

pub(super) fn nobody_asks_more_of_a_gateway_than_a_bucket_of_a_minutes_worth_gives(
    record: &Record,
    now: Micros,
    seen: &Seen<'_>,
) -> Verdict {
    let Seen::Begun(asking) = seen else {
        return Ok(());
    };
    match record.rates.over_the_rate(now, asking) {
        Some((whose, count, span)) => Err(format!(
            "gateway {} began with {count} questions of {whose:?} in {span} µs; {} a minute may be asked",
            asking.gateway,
            record.rates.limits_of(whose).0
        )),
        None => Ok(()),
    }
}

/// By an exact count of tokens, of which what is refused for too many answers at once takes one too.
pub(super) fn what_is_beyond_a_rate_is_refused(
    record: &Record,
    now: Micros,
    seen: &Seen<'_>,
) -> Verdict {
    let Seen::Begun(asking) = seen else {
        return Ok(());
    };
    match record.rates.wait(now, asking) {
        Some((whose, secs)) => Err(format!(
            "gateway {} began with {}, and {whose:?} had {secs} s to wait",
            asking.gateway, asking.request
        )),
        None => Ok(()),
    }
}

pub(super) fn no_more_answers_run_at_once_than_may(
    record: &Record,
    _: Micros,
    seen: &Seen<'_>,
) -> Verdict {
    let Seen::Begun(asking) = seen else {
        return Ok(());
    };
    match record.rates.too_many(asking, true) {
        Some(whose) => Err(format!(
            "gateway {} began with {} while {} answers of {whose:?} ran",
            asking.gateway,
            asking.request,
            record.rates.limits_of(whose).1
        )),
        None => Ok(()),
    }
}

/// By the same count: what joins its answer or comes back for it takes no token and is never one too many.
pub(super) fn nothing_is_refused_for_a_rate_that_it_is_within(
    record: &Record,
    now: Micros,
    seen: &Seen<'_>,
) -> Verdict {
    let Seen::Refused(asking) = seen else {
        return Ok(());
    };
    if record.rates.runs(asking.gateway, asking.request) {
        return Err(format!("{} was refused while it ran", asking.request));
    }
    let beyond = record.rates.wait(now, asking).is_some();
    if beyond || record.rates.too_many(asking, false).is_some() {
        return Ok(());
    }
    Err(format!(
        "gateway {} refused {} of {}, which with its account was within {:?}",
        asking.gateway, asking.request, asking.device, record.rates.limits
    ))
}

/// Unless its device may not have heard of the refusal.
pub(super) fn what_was_refused_for_a_rate_is_not_asked_again_before_its_time(
    record: &Record,
    now: Micros,
    seen: &Seen<'_>,
) -> Verdict {
    let (Seen::Begun(asking) | Seen::Refused(asking)) = seen else {
        return Ok(());
    };
    let Some(refusal) = record.rates.refusal(asking.request) else {
        return Ok(());
    };
    let due = refusal.at + Micros::from(refusal.secs) * SECOND;
    if now >= due || refusal.heard_by != record.heard_by(asking.request) {
        return Ok(());
    }
    Err(format!(
        "{} had {} s to wait, and came back after {} ms",
        asking.request,
        refusal.secs,
        (now - refusal.at) / 1000
    ))
}

/// A refusal for a rate is an end only if the time that it names is not before the question's own; and
/// that is the time after which it would have been taken.
pub(super) fn what_is_refused_for_a_rate_is_asked_again_while_there_is_time(
    record: &Record,
    now: Micros,
    seen: &Seen<'_>,
) -> Verdict {
    let Seen::Ended(id, Outcome::Failed(AskError::Remote(error))) = seen else {
        return Ok(());
    };
    if error.code != ErrorCode::RateLimited {
        return Ok(());
    }
    let Some(asked) = record.questions.get(id) else {
        return Ok(());
    };
    let Some(secs) = error.retry_after_secs else {
        return Err(format!("{id} was refused, and not told for how long"));
    };
    match record.rates.refusal(error.request_id.unwrap_or(*id)) {
        Some(refusal) if refusal.secs == secs => {}
        Some(refusal) => {
            return Err(format!(
                "{id} was told to wait {secs} s, and had {} to wait",
                refusal.secs
            ));
        }
        None => return Err(format!("{id} was refused for a rate by no gateway")),
    }
    let again = now + Micros::from(secs) * SECOND;
    if again < asked.at + PATIENCE {
        return Err(format!(
            "{id} was given up {} ms after it was asked, and might have been asked again {secs} s later",
            (now - asked.at) / 1000
        ));
    }
    Ok(())
}
