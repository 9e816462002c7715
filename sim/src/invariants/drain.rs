//! What must hold of gateways that go away in good order.

use mesh_core::tunnel::Why;

use super::{Seen, Verdict};
use crate::queue::{MILLI, Micros};
use crate::record::Record;

/// Of a small fleet one device follows the other after so long, whatever time there is.
const STEP_MAX: Micros = 50 * MILLI;

pub(super) fn a_gateway_that_goes_away_takes_in_nobody_and_nothing(
    record: &Record,
    _: Micros,
    seen: &Seen<'_>,
) -> Verdict {
    let Seen::TakenIn(gateway) = seen else {
        return Ok(());
    };
    if record.going_away.contains_key(gateway) {
        return Err(format!("gateway {gateway} took in a device or a question"));
    }
    Ok(())
}

pub(super) fn an_answer_is_cut_off_only_when_the_time_of_its_gateway_is_over(
    record: &Record,
    now: Micros,
    seen: &Seen<'_>,
) -> Verdict {
    let Seen::CutOff(gateway) = seen else {
        return Ok(());
    };
    match record.going_away.get(gateway) {
        Some(going) if now >= going.until => Ok(()),
        Some(going) => Err(format!(
            "gateway {gateway} cut an answer off {} ms too early",
            (going.until - now) / MILLI
        )),
        None => Err(format!("gateway {gateway} cut an answer off, and stays")),
    }
}

pub(super) fn devices_are_sent_away_one_after_another(
    record: &Record,
    _: Micros,
    seen: &Seen<'_>,
) -> Verdict {
    let Seen::SentAway(gateway, after) = seen else {
        return Ok(());
    };
    let Some(going) = record.going_away.get(gateway) else {
        return Err(format!("gateway {gateway} sends devices away, and stays"));
    };
    let due = going
        .last_sent
        .map_or(0, |last| last + going.step.min(STEP_MAX));
    // Told in whole milliseconds.
    if after.abs_diff(due) <= MILLI {
        Ok(())
    } else {
        Err(format!(
            "a device shall reconnect after {after} µs, {due} would be its turn"
        ))
    }
}

/// Unless it has a question that waits.
pub(super) fn a_device_is_not_sent_away_before_its_turn(
    record: &Record,
    now: Micros,
    seen: &Seen<'_>,
) -> Verdict {
    let Seen::Changed(device, _, _, Why::AskedToMove) = seen else {
        return Ok(());
    };
    let asks = |asked: &crate::record::Asked| asked.device == *device && asked.outcome.is_none();
    let from = record
        .tunnels
        .get(*device)
        .and_then(|tunnel| tunnel.moves_from);
    match from {
        Some(from) if now + MILLI >= from || record.questions.values().any(asks) => Ok(()),
        Some(from) => Err(format!(
            "device {device} moved {} µs before its turn",
            from - now
        )),
        None => Err(format!("device {device} moved, and nobody had asked")),
    }
}
