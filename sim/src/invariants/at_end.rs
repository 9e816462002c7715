//! What must hold when everything has healed and come to rest.

use mesh_core::billing::ledger::Charge;
use mesh_core::device::{AskError, State};
use mesh_core::error::ErrorCode;
use mesh_core::ids::RequestId;
use mesh_core::wire::message::ErrorMessage;

use super::sentences;
use crate::outside::store::Store;
use crate::record::{Outcome, Record, Violation};

/// A run at its end.
#[derive(Debug)]
pub struct End<'a> {
    /// What happened.
    pub record: &'a Record,
    /// The store.
    pub store: &'a Store,
    /// Devices that may not come in any more.
    pub banned: &'a [bool],
    /// Answers that the gateways still work on.
    pub under_way: usize,
    /// Sessions live on all gateways together.
    pub sessions: usize,
    /// Devices that are connected.
    pub connected: usize,
    /// The probing questions that were asked after everything had healed: (device, question).
    pub probes: &'a [(usize, mesh_core::ids::RequestId)],
}

type Verdict = Result<(), String>;
type Check = fn(&End<'_>) -> Verdict;

const AT_END: &[(&str, Check)] = sentences![
    Check:
    everything_asked_is_answered_or_refused,
    every_tunnel_is_back,
    two_sessions_of_one_device_are_never_both_live,
    a_question_asked_after_the_healing_is_answered,
    no_hold_is_left_when_nothing_is_under_way,
    the_device_is_told_what_the_ledger_says,
    nothing_is_charged_that_was_never_asked_of_a_model,
    an_answer_that_was_charged_is_never_reported_lost,
    an_expired_answer_comes_with_its_receipt,
    a_question_that_was_refused_for_a_rate_costs_nothing,
];

/// Asks every invariant.
///
/// # Errors
///
/// The first that does not hold.
pub fn check(end: &End<'_>) -> Result<(), Violation> {
    for (name, holds) in AT_END {
        holds(end).map_err(|found| Violation {
            invariant: name.replace('_', " "),
            found,
        })?;
    }
    Ok(())
}

fn everything_asked_is_answered_or_refused(end: &End<'_>) -> Verdict {
    let open = end
        .record
        .questions
        .iter()
        .find(|(_, asked)| asked.outcome.is_none());
    match open {
        Some((id, asked)) => Err(format!("{id} of device {} has no end", asked.device)),
        None if end.under_way > 0 => Err(format!("{} answers still run", end.under_way)),
        None => Ok(()),
    }
}

fn every_tunnel_is_back(end: &End<'_>) -> Verdict {
    for (device, tunnel) in end.record.tunnels.iter().enumerate() {
        let up = matches!(tunnel.state, State::Connected { .. });
        if !end.banned[device] && !up {
            return Err(format!("device {device} is {}", tunnel.state));
        }
    }
    Ok(())
}

fn two_sessions_of_one_device_are_never_both_live(end: &End<'_>) -> Verdict {
    if end.sessions == end.connected {
        Ok(())
    } else {
        Err(format!(
            "{} sessions of {} connected devices",
            end.sessions, end.connected
        ))
    }
}

fn a_question_asked_after_the_healing_is_answered(end: &End<'_>) -> Verdict {
    for (device, id) in end.probes {
        let outcome = end.record.questions.get(id).map(|asked| &asked.outcome);
        let fine = matches!(outcome, Some(Some(Outcome::Answered { .. })));
        if !fine && !end.banned[*device] {
            return Err(format!("device {device}: {outcome:?}"));
        }
    }
    Ok(())
}

fn no_hold_is_left_when_nothing_is_under_way(end: &End<'_>) -> Verdict {
    match end.store.holds().next() {
        Some(request) if end.under_way == 0 => Err(format!("a hold for {request} is left")),
        Some(_) | None => Ok(()),
    }
}

fn the_device_is_told_what_the_ledger_says(end: &End<'_>) -> Verdict {
    for (&id, asked) in &end.record.questions {
        let Some(Outcome::Answered {
            charged, tokens, ..
        }) = &asked.outcome
        else {
            continue;
        };
        // What it was told was not its end: its next process asked it on, for whoever wants it.
        if asked.revived {
            continue;
        }
        let charged_as = asked.answered_as.unwrap_or(id);
        let entry = end.store.charge(asked.account, charged_as);
        let agrees = entry.map_or(*charged == 0, |entry| {
            entry.charge.0 == *charged && entry.tokens == *tokens
        });
        if !agrees {
            return Err(format!("{id}: told {charged}, the ledger says {entry:?}"));
        }
    }
    Ok(())
}

fn nothing_is_charged_that_was_never_asked_of_a_model(end: &End<'_>) -> Verdict {
    for (&id, asked) in &end.record.questions {
        let charged = end.store.charge(asked.account, id).is_some();
        if charged && asked.produced.is_empty() {
            return Err(format!("{id} was charged, and no model was called for it"));
        }
    }
    Ok(())
}

/// The questions that ended with one of these codes for good, and what stands in the ledger under their
/// last id.
fn refused_with<'a>(
    end: &'a End<'a>,
    codes: &'a [ErrorCode],
) -> impl Iterator<Item = (RequestId, &'a ErrorMessage, Option<&'a Charge>)> {
    let asked = end.record.questions.values();
    let for_good = asked.filter(|asked| !asked.revived);
    for_good.filter_map(|asked| {
        let Some(Outcome::Failed(AskError::Remote(error))) = &asked.outcome else {
            return None;
        };
        let id = error.request_id.unwrap_or(asked.wire);
        let charge = end.store.charge(asked.account, id);
        codes
            .contains(&error.code)
            .then_some((id, &**error, charge))
    })
}

fn an_answer_that_was_charged_is_never_reported_lost(end: &End<'_>) -> Verdict {
    let lost = [ErrorCode::Interrupted, ErrorCode::NotFound];
    let mut refused = refused_with(end, &lost);
    match refused.find(|(_, _, charge)| charge.is_some()) {
        Some((id, error, _)) => Err(format!("{id}: {}, and it was charged", error.code)),
        None => Ok(()),
    }
}

fn an_expired_answer_comes_with_its_receipt(end: &End<'_>) -> Verdict {
    for (id, error, charge) in refused_with(end, &[ErrorCode::Expired]) {
        let told = error.details.as_ref();
        let told = told.and_then(|details| details["cost_nanos"].as_i64());
        let stands = charge.map(|charge| charge.charge.0);
        if told != stands || told.is_none() {
            return Err(format!("{id}: told {told:?}, the ledger says {stands:?}"));
        }
    }
    Ok(())
}

fn a_question_that_was_refused_for_a_rate_costs_nothing(end: &End<'_>) -> Verdict {
    for (id, _, charge) in refused_with(end, &[ErrorCode::RateLimited]) {
        if charge.is_some() {
            return Err(format!("{id} was refused for a rate, and was charged"));
        }
    }
    Ok(())
}
