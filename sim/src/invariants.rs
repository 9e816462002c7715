//! What must hold, as functions whose names are sentences.
//!
//! Those here are told of one thing that is about to be recorded, and look at the record from before
//! it. What must hold at the end of a run is in [`at_end`]. To add one: write the function, name it in
//! the list.

pub mod at_end;
mod drain;
pub mod money;
mod rates;

use self::drain::{
    a_device_is_not_sent_away_before_its_turn,
    a_gateway_that_goes_away_takes_in_nobody_and_nothing,
    an_answer_is_cut_off_only_when_the_time_of_its_gateway_is_over,
    devices_are_sent_away_one_after_another,
};
use self::rates::{
    no_more_answers_run_at_once_than_may,
    nobody_asks_more_of_a_gateway_than_a_bucket_of_a_minutes_worth_gives,
    nothing_is_refused_for_a_rate_that_it_is_within, what_is_beyond_a_rate_is_refused,
    what_is_refused_for_a_rate_is_asked_again_while_there_is_time,
    what_was_refused_for_a_rate_is_not_asked_again_before_its_time,
};
use mesh_core::device::{AskError, State, Why};
use mesh_core::error::ErrorCode;
use mesh_core::ids::RequestId;
use mesh_core::tunnel::FailureKind;
use mesh_core::wire::message::FinishReason;

use crate::queue::{Micros, SECOND};
use crate::record::rates::Asking;
use crate::record::{Outcome, Record, Violation};

/// Something that is about to be recorded.
#[derive(Debug)]
pub enum Seen<'a> {
    /// A device was given text.
    Text(RequestId, &'a str),
    /// A question ended.
    Ended(RequestId, &'a Outcome),
    /// A gateway calls a model server.
    Called(RequestId),
    /// A tunnel's state changed.
    Changed(usize, State, State, &'a Why),
    /// A device's tunnel starts an attempt.
    Attempt(usize),
    /// A device sent a pre-warm signal.
    Prewarmed(usize),
    /// A device sent something, or is no longer in doubt.
    Spoke(usize),
    /// A heartbeat was answered that may have taken at most so long, µs.
    Beat(usize, Micros),
    /// A gateway took in a device, or began with a question.
    TakenIn(usize),
    /// A gateway told a device to reconnect after so long, µs.
    SentAway(usize, Micros),
    /// A gateway gave an answer up.
    CutOff(usize),
    /// A gateway begins with a question.
    Begun(&'a Asking),
    /// A gateway refuses a question: its device or account asks too much.
    Refused(&'a Asking),
    /// A device holds so many undrained outputs.
    Outputs(usize),
}

type Verdict = Result<(), String>;
type Check = fn(&Record, Micros, &Seen<'_>) -> Verdict;

/// Functions with their names, which are the sentences that are told.
macro_rules! sentences {
    ($kind:ty: $($name:ident),* $(,)?) => {
        &[$((stringify!($name), $name as $kind)),*]
    };
}
use sentences;

const ALWAYS: &[(&str, Check)] = sentences![
    Check:
    every_question_has_one_last_event,
    text_delivered_is_a_prefix_of_the_text_produced,
    a_whole_answer_is_delivered_whole,
    one_upstream_attempt_runs_at_a_time_and_none_starts_after_the_first_piece,
    an_honest_gateway_is_never_accused_of_breaking_the_protocol,
    sequence_numbers_never_go_back_and_no_honest_device_is_accused_of_breaking_the_protocol,
    only_legal_state_transitions_happen,
    no_device_is_told_of_another_agent_where_there_is_none,
    a_wait_is_within_the_bounds_of_the_backoff,
    the_backoff_forgets_only_after_a_session_that_lived_30_seconds,
    at_most_one_prewarm_signal_is_sent_a_minute,
    a_tunnel_in_doubt_is_probed_every_second,
    a_heartbeat_never_starves_behind_bulk,
    no_backlog_grows_beyond_its_limit,
    a_cut_question_waits_for_its_tunnel,
    a_question_is_not_given_up_while_there_is_a_tunnel,
    only_its_device_cancels_an_answer,
    a_finished_answer_is_kept_for_its_device,
    a_question_that_was_written_down_goes_on,
    a_gateway_that_goes_away_takes_in_nobody_and_nothing,
    an_answer_is_cut_off_only_when_the_time_of_its_gateway_is_over,
    devices_are_sent_away_one_after_another,
    a_device_is_not_sent_away_before_its_turn,
    nobody_asks_more_of_a_gateway_than_a_bucket_of_a_minutes_worth_gives,
    what_is_beyond_a_rate_is_refused,
    no_more_answers_run_at_once_than_may,
    what_was_refused_for_a_rate_is_not_asked_again_before_its_time,
    nothing_is_refused_for_a_rate_that_it_is_within,
    what_is_refused_for_a_rate_is_asked_again_while_there_is_time,
];

/// Asks every invariant.
///
/// # Errors
///
/// The first that does not hold.
pub fn check(record: &Record, now: Micros, seen: &Seen<'_>) -> Result<(), Violation> {
    for (name, holds) in ALWAYS {
        holds(record, now, seen).map_err(|found| Violation {
            invariant: name.replace('_', " "),
            found,
        })?;
    }
    Ok(())
}

fn every_question_has_one_last_event(record: &Record, _: Micros, seen: &Seen<'_>) -> Verdict {
    let (Seen::Text(id, _) | Seen::Ended(id, _)) = seen else {
        return Ok(());
    };
    match record.questions.get(id) {
        None => Err(format!("{id} was never asked")),
        Some(asked) if asked.outcome.is_some() => Err(format!("news of {id} after its end")),
        Some(_) => Ok(()),
    }
}

fn text_delivered_is_a_prefix_of_the_text_produced(
    record: &Record,
    _: Micros,
    seen: &Seen<'_>,
) -> Verdict {
    let Seen::Text(id, text) = seen else {
        return Ok(());
    };
    let Some(asked) = record.questions.get(id) else {
        return Ok(());
    };
    let produced = asked.produced.last().map_or("", String::as_str);
    let rest = produced.strip_prefix(asked.delivered.as_str());
    match rest {
        Some(rest) if rest.starts_with(text) => Ok(()),
        Some(_) | None => Err(format!(
            "{id}: {} bytes were delivered and then {text:?}; the model server produced {} bytes",
            asked.delivered.len(),
            produced.len()
        )),
    }
}

fn a_whole_answer_is_delivered_whole(record: &Record, _: Micros, seen: &Seen<'_>) -> Verdict {
    let Seen::Ended(
        id,
        Outcome::Answered {
            finish,
            tokens,
            estimated,
            ..
        },
    ) = seen
    else {
        return Ok(());
    };
    let Some(asked) = record.questions.get(id) else {
        return Ok(());
    };
    let produced = asked.produced.last().map_or("", String::as_str);
    if *finish != FinishReason::Stop {
        return Ok(());
    }
    if asked.delivered != produced {
        return Err(format!(
            "{id}: {} of {} bytes delivered",
            asked.delivered.len(),
            produced.len()
        ));
    }
    if !estimated && *tokens != asked.usage {
        return Err(format!(
            "{id}: {tokens:?} counted, {:?} was said",
            asked.usage
        ));
    }
    Ok(())
}

fn one_upstream_attempt_runs_at_a_time_and_none_starts_after_the_first_piece(
    record: &Record,
    _: Micros,
    seen: &Seen<'_>,
) -> Verdict {
    let Seen::Called(id) = seen else {
        return Ok(());
    };
    let Some(asked) = record.questions.get(id) else {
        return Err(format!("{id} was never asked"));
    };
    if asked.calling {
        return Err(format!("{id} is called while a call of it runs"));
    }
    // What died with its gateway was free, if nobody had been given any of it; what was asked under another
    // id is another answer's.
    let from = asked.orphaned.max(asked.wire_from);
    let alive = asked.produced.get(from..).unwrap_or_default();
    if alive.iter().any(|text| !text.is_empty()) {
        return Err(format!("{id} is called again after it produced text"));
    }
    if !asked.delivered.is_empty() {
        return Err(format!("{id} is called again after text was delivered"));
    }
    // A device that sends a question anew may start a second round of three.
    if asked.produced.len() >= 9 {
        return Err(format!("{id} is called {} times", asked.produced.len() + 1));
    }
    Ok(())
}

fn an_honest_gateway_is_never_accused_of_breaking_the_protocol(
    _: &Record,
    _: Micros,
    seen: &Seen<'_>,
) -> Verdict {
    if let Seen::Ended(id, Outcome::Failed(AskError::Protocol(why))) = seen {
        return Err(format!("{id}: {why}"));
    }
    Ok(())
}

/// A gateway ends a session in which a number of a heartbeat comes twice, or a device speaks out of
/// turn.
fn sequence_numbers_never_go_back_and_no_honest_device_is_accused_of_breaking_the_protocol(
    _: &Record,
    _: Micros,
    seen: &Seen<'_>,
) -> Verdict {
    if let Seen::Changed(device, _, _, Why::Failed(failure)) = seen
        && failure.kind == FailureKind::Protocol
    {
        return Err(format!("device {device} was told: {failure}"));
    }
    Ok(())
}

/// The table of legal transitions, written by name: (from, to).
const LEGAL: &[(&str, &str)] = &[
    ("Disconnected", "Connecting"),
    ("Connecting", "Connected"),
    ("Connecting", "Reconnecting"),
    ("Connecting", "Failed"),
    ("Connecting", "Disconnected"),
    ("Connected", "Reconnecting"),
    ("Connected", "Disconnected"),
    ("Reconnecting", "Reconnecting"),
    ("Reconnecting", "Connected"),
    ("Reconnecting", "Failed"),
    ("Reconnecting", "Disconnected"),
    ("Failed", "Connecting"),
    ("Failed", "Disconnected"),
];

fn only_legal_state_transitions_happen(record: &Record, _: Micros, seen: &Seen<'_>) -> Verdict {
    let Seen::Changed(device, from, to, _) = seen else {
        return Ok(());
    };
    let known = record.tunnels.get(*device).map(|tunnel| tunnel.state);
    if known.is_some_and(|known| known.name() != from.name()) {
        return Err(format!("device {device} left {from}, but was in {known:?}"));
    }
    if LEGAL.contains(&(from.name(), to.name())) {
        Ok(())
    } else {
        Err(format!("device {device}: {from} became {to}"))
    }
}

/// Each device has one agent here. One that was started anew cannot know what the last attempt of its
/// life before may still do, until a gateway has given that up.
fn no_device_is_told_of_another_agent_where_there_is_none(
    record: &Record,
    now: Micros,
    seen: &Seen<'_>,
) -> Verdict {
    const LAST_LIFE_IS_FORGOTTEN: Micros = 120 * SECOND;
    let Seen::Changed(device, _, _, Why::Failed(failure)) = seen else {
        return Ok(());
    };
    let is_new = |at: usize| {
        let tunnel = record.tunnels.get(at);
        tunnel.is_some_and(|of| of.life > 1 && now - of.began < LAST_LIFE_IS_FORGOTTEN)
    };
    if failure.kind == FailureKind::Replaced && !is_new(*device) {
        return Err(format!("device {device} lost its place: {failure}"));
    }
    Ok(())
}

/// The longest wait before the `retry`th retry, seconds.
const WAITS: [u64; 9] = [0, 0, 1, 2, 4, 8, 16, 32, 60];

fn longest_wait(retry: u32) -> Micros {
    let at = usize::try_from(retry).unwrap_or(usize::MAX).min(8);
    WAITS[at] * SECOND
}

fn a_wait_is_within_the_bounds_of_the_backoff(
    record: &Record,
    now: Micros,
    seen: &Seen<'_>,
) -> Verdict {
    let Seen::Attempt(device) = seen else {
        return Ok(());
    };
    let Some(tunnel) = record.tunnels.get(*device) else {
        return Ok(());
    };
    let Some(since) = tunnel.waiting_since.filter(|_| !tunnel.excused) else {
        return Ok(());
    };
    let (waited, longest) = (now - since, longest_wait(tunnel.retries));
    if waited > longest + SECOND / 1000 {
        return Err(format!(
            "device {device} waited {waited} µs before retry {}, at most {longest}",
            tunnel.retries
        ));
    }
    Ok(())
}

fn the_backoff_forgets_only_after_a_session_that_lived_30_seconds(
    record: &Record,
    now: Micros,
    seen: &Seen<'_>,
) -> Verdict {
    let Seen::Attempt(device) = seen else {
        return Ok(());
    };
    let Some(tunnel) = record.tunnels.get(*device) else {
        return Ok(());
    };
    // With full jitter, no wait at all is a first retry's: for any later one it is less likely than
    // one in a million.
    match tunnel.waiting_since {
        Some(since) if since == now && tunnel.retries >= 2 && !tunnel.excused => Err(format!(
            "device {device} tried at once, though it was retry {}",
            tunnel.retries
        )),
        Some(_) | None => Ok(()),
    }
}

fn at_most_one_prewarm_signal_is_sent_a_minute(
    record: &Record,
    now: Micros,
    seen: &Seen<'_>,
) -> Verdict {
    let Seen::Prewarmed(device) = seen else {
        return Ok(());
    };
    let last = record
        .tunnels
        .get(*device)
        .and_then(|tunnel| tunnel.prewarmed);
    match last {
        Some(last) if now - last < 60 * SECOND - SECOND / 1000 => Err(format!(
            "device {device}: {} ms after the last",
            (now - last) / 1000
        )),
        Some(_) | None => Ok(()),
    }
}

fn no_backlog_grows_beyond_its_limit(_: &Record, _: Micros, seen: &Seen<'_>) -> Verdict {
    if let Seen::Outputs(outputs) = seen
        && *outputs > 4096 + 64
    {
        return Err(format!("{outputs} outputs at once"));
    }
    Ok(())
}

fn a_tunnel_in_doubt_is_probed_every_second(
    record: &Record,
    now: Micros,
    seen: &Seen<'_>,
) -> Verdict {
    let Seen::Spoke(device) = seen else {
        return Ok(());
    };
    let last = record
        .tunnels
        .get(*device)
        .and_then(|tunnel| tunnel.doubted);
    match last {
        Some(last) if now - last > SECOND + SECOND / 100 => Err(format!(
            "device {device} was silent for {} ms in doubt",
            (now - last) / 1000
        )),
        Some(_) | None => Ok(()),
    }
}

fn a_heartbeat_never_starves_behind_bulk(record: &Record, now: Micros, seen: &Seen<'_>) -> Verdict {
    let Seen::Beat(device, longest) = seen else {
        return Ok(());
    };
    let sent = record.tunnels.get(*device).and_then(|tunnel| tunnel.beat);
    match sent {
        Some(sent) if now - sent > *longest => Err(format!(
            "device {device} had its heartbeat answered after {} ms, at most {} were due",
            (now - sent) / 1000,
            longest / 1000
        )),
        Some(_) | None => Ok(()),
    }
}

/// What a question waits at least for a tunnel after it was cut, unless nothing more is tried.
const WAITS_FOR_A_TUNNEL: Micros = 30 * SECOND;
/// What is left of an answer when a tunnel comes back may need a moment.
const GOES_ON_WITHIN: Micros = 40 * SECOND;
/// Streams are used up for so long at most on a path that loses much, while its tunnel is not in doubt.
const FINDS_A_STREAM: Micros = 10 * SECOND;
/// After so long at most a device that is not heard is in doubt, whatever it hears: a beat every 30 s,
/// acknowledged within ten.
const MISSES_A_BEAT: Micros = 41 * SECOND;
/// After so long a question may be overdue as soon as its tunnel is lost.
const OLD: Micros = 600 * SECOND;

fn a_cut_question_waits_for_its_tunnel(record: &Record, now: Micros, seen: &Seen<'_>) -> Verdict {
    let Seen::Ended(id, Outcome::Failed(AskError::TunnelLost(lost))) = seen else {
        return Ok(());
    };
    let Some(asked) = record.questions.get(id) else {
        return Ok(());
    };
    let seeks = record
        .tunnels
        .get(asked.device)
        .is_some_and(|tunnel| matches!(tunnel.state, State::Reconnecting { .. }));
    // What was asked long ago may be overdue at once.
    let old = now - asked.at >= OLD;
    match asked.cut {
        // One that nobody wants waits as long as its gateway does, from when it was cancelled.
        _ if !seeks || old || asked.cancelled => Ok(()),
        Some(cut) if now - cut + SECOND / 1000 >= WAITS_FOR_A_TUNNEL => Ok(()),
        Some(cut) => Err(format!("{id} was given up {} µs after {lost}", now - cut)),
        None => Err(format!("{id} was given up at once after {lost}")),
    }
}

fn a_question_is_not_given_up_while_there_is_a_tunnel(
    record: &Record,
    now: Micros,
    seen: &Seen<'_>,
) -> Verdict {
    let Seen::Ended(id, Outcome::Failed(error @ (AskError::TunnelLost(_) | AskError::TimedOut))) =
        seen
    else {
        return Ok(());
    };
    let asked = record.questions.get(id);
    let device = asked.map(|asked| asked.device);
    let untaken = asked.is_some_and(|asked| asked.produced.is_empty());
    let mute = device.and_then(|device| record.mute.get(&device));
    let unheard = mute.is_some_and(|&(since, until)| {
        let over = now.checked_sub(until);
        over.map_or(now < since + MISSES_A_BEAT, |over| over < GOES_ON_WITHIN)
    });
    if untaken && unheard {
        return Ok(());
    }
    // It may not come back before its time is over, or only just.
    let refused = asked.and_then(|asked| record.rates.refusal(asked.wire));
    let again = refused.map(|refusal| refusal.at + Micros::from(refusal.secs) * SECOND);
    if again
        .zip(asked)
        .is_some_and(|(at, asked)| at >= asked.at + WAITS_FOR_A_TUNNEL || now < at + FINDS_A_STREAM)
    {
        return Ok(());
    }
    let narrow = device.and_then(|device| record.narrow_until.get(&device));
    if narrow.is_some_and(|until| now < until.saturating_add(GOES_ON_WITHIN)) {
        return Ok(());
    }
    let tunnel = device.and_then(|device| record.tunnels.get(device));
    let up = tunnel.filter(|tunnel| tunnel.is_up() && tunnel.doubted.is_none());
    match up.and_then(|tunnel| tunnel.up_since) {
        Some(since) if now - since >= GOES_ON_WITHIN => Err(format!(
            "{id} failed ({error}) with a tunnel for {} s",
            (now - since) / SECOND
        )),
        Some(_) | None => Ok(()),
    }
}

fn only_its_device_cancels_an_answer(record: &Record, _: Micros, seen: &Seen<'_>) -> Verdict {
    let Seen::Ended(
        id,
        Outcome::Answered {
            finish: FinishReason::Cancelled,
            ..
        },
    ) = seen
    else {
        return Ok(());
    };
    match record.questions.get(id) {
        Some(asked) if !asked.cancelled => {
            Err(format!("{id} was cancelled, and not by its device"))
        }
        Some(_) | None => Ok(()),
    }
}

/// Whichever gateways have ended, and whichever it comes to.
fn a_finished_answer_is_kept_for_its_device(
    record: &Record,
    now: Micros,
    seen: &Seen<'_>,
) -> Verdict {
    let Seen::Ended(id, Outcome::Failed(AskError::Remote(error))) = seen else {
        return Ok(());
    };
    if error.code != ErrorCode::Expired {
        return Ok(());
    }
    let counted = record.questions.get(id).and_then(|asked| asked.counted);
    match counted {
        Some(at) if now - at < record.kept => Err(format!(
            "{id} expired {} s after it was complete",
            (now - at) / SECOND
        )),
        Some(_) | None => Ok(()),
    }
}

/// The process that comes after the one that died knows what that one had written down, and nobody
/// else reads it.
fn a_question_that_was_written_down_goes_on(
    record: &Record,
    _: Micros,
    seen: &Seen<'_>,
) -> Verdict {
    let Seen::Ended(
        id,
        Outcome::Failed(
            error @ (AskError::NothingKept | AskError::Duplicate | AskError::Cancelled),
        ),
    ) = seen
    else {
        return Ok(());
    };
    match record.questions.get(id) {
        Some(asked) if asked.restored.is_some() && !asked.cancelled => {
            Err(format!("{id} was written down, and then: {error}"))
        }
        Some(_) | None => Ok(()),
    }
}
