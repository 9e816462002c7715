//! `synesis cloud ask`: one question, its answer on stdout, its receipt on stderr.
//!
//! ```text
//!   Waiting ── first piece ──▶ Answering ── end ──▶ done, receipt
//!      │ Ctrl-C                    │ Ctrl-C
//!      ▼                           ▼
//!   Cancelling (the provider stops too) ── end ──▶ exit 130, receipt
//!      │ Ctrl-C again
//!      ▼
//!   exit 130 at once
//! ```

use std::time::Instant;

use mesh_core::escalation::receipt::Receipt;
use mesh_core::wire::message::{EscalationRequest, FinishReason, Notice, Role, StreamEnd, Turn};
use serde::Serialize;

use super::args::Ask;
use super::link::Link;
use super::output::Output;
use super::receipt;
use super::{Interrupts, Scene, Stop, question, wall};
use crate::device::answer::{Answer, Part};
use crate::device::sessions::{SessionName, Sessions};
use crate::error::Error;
use crate::random;

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report<'a> {
    content: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<String>,
    /// As this machine's clock saw it, question to last piece.
    elapsed_ms: u64,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    receipt: Option<Receipt>,
    /// What came near of the account's limits meanwhile.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notices: Vec<&'a serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<serde_json::Value>,
}

/// How an answer came out.
pub(super) struct Outcome {
    /// The text, as far as it came.
    pub(super) content: String,
    /// Usage and charge, if it got so far.
    pub(super) receipt: Option<StreamEnd>,
    /// What else there is to tell.
    pub(super) notices: Vec<Notice>,
    /// Why it is not whole.
    pub(super) stop: Option<Stop>,
}

/// Asks, or goes on with what was asked.
pub(super) async fn run(ask: &Ask, scene: &Scene) -> Result<(), Stop> {
    if let Some(id) = &ask.resume {
        return super::resume::run(ask, id, scene).await;
    }
    let output = scene.output;
    let name = match &ask.session {
        Some(name) => Some(name.parse::<SessionName>().map_err(Stop::invalid)?),
        None => None,
    };
    let sessions = Sessions::new(scene.paths.sessions());
    let mut question = question::gather(ask, output).map_err(Stop::invalid)?;
    if let Some(name) = &name {
        question = question.session(name.to_string());
        for turn in sessions.turns(name).map_err(Error::from)? {
            question = question.turn(turn.role, turn.content, turn.timestamp);
        }
    }
    let request = question.into_request(random::request_id()?);
    mesh_core::escalation::request::validate(&request).map_err(Stop::invalid)?;

    let asked = Instant::now();
    let spinner = output.spinner("connecting");
    let mut interrupts = Interrupts::new()?;
    let link = interrupts.or(Link::open(scene)).await?;
    spinner.say("waiting for the answer");
    let turns = name.is_some().then(|| user_turn(&request));
    let answer = interrupts.or(link.ask(request)).await?;
    let outcome = follow(answer, output, !ask.json, Some(spinner), &mut interrupts).await;
    link.close().await;

    show(ask, &outcome, asked, output)?;
    let whole = outcome
        .receipt
        .as_ref()
        .is_some_and(|end| matches!(end.finish_reason, FinishReason::Stop | FinishReason::Length));
    if let (Some(name), Some(asked), true) = (&name, turns, whole) {
        let said = Turn {
            role: Role::Assistant,
            content: outcome.content,
            timestamp: wall(),
        };
        sessions.append(name, &[asked, said]).map_err(Error::from)?;
    }
    outcome.stop.map_or(Ok(()), Err)
}

/// The answer as JSON, or its receipt.
pub(super) fn show(
    ask: &Ask,
    outcome: &Outcome,
    asked: Instant,
    output: Output,
) -> Result<(), Stop> {
    if ask.json {
        let millis = u64::try_from(asked.elapsed().as_millis()).unwrap_or(u64::MAX);
        output.json(&Report {
            content: &outcome.content,
            session: ask.session.clone(),
            elapsed_ms: millis,
            receipt: outcome.receipt.as_ref().map(Receipt::from),
            notices: outcome.notices.iter().map(|notice| &notice.data).collect(),
            error: outcome.stop.as_ref().and_then(Stop::to_json),
        })?;
    } else if let Some(end) = &outcome.receipt {
        receipt::print_line(output, end);
    }
    Ok(())
}

/// Follows an answer to its end, and prints its pieces as they come if so wanted. The first Ctrl-C
/// cancels, the second leaves.
pub(super) async fn follow(
    mut answer: Answer,
    output: Output,
    print: bool,
    mut spinner: Option<super::output::Spinner>,
    interrupts: &mut Interrupts,
) -> Outcome {
    let mut content = String::new();
    let mut notices = Vec::new();
    let mut interrupted = false;
    // Whether the terminal's cursor is in the middle of a line of the answer.
    let mut in_line = false;
    let stop = loop {
        let piece = tokio::select! {
            part = answer.recv() => part,
            () = interrupts.next() => {
                if interrupted {
                    break Some(Stop::Interrupted);
                }
                interrupted = true;
                answer.cancel();
                drop(spinner.take());
                say_cancelling(output, std::mem::take(&mut in_line));
                continue;
            }
        };
        // The spinner's line must be gone before the answer begins.
        drop(spinner.take());
        match piece {
            Ok(Some(part @ (Part::Delta(_) | Part::Cut | Part::Resumed(_) | Part::Notice(_)))) => {
                say(output, std::mem::take(&mut in_line), part.words());
                if let Part::Notice(notice) = part {
                    notices.push(notice);
                }
            }
            Ok(Some(Part::Text(text))) => {
                content.push_str(&text);
                in_line = !content.ends_with('\n');
                if print && let Err(stop) = output.piece(&text) {
                    break Some(stop);
                }
            }
            Ok(None) if interrupted => break Some(Stop::Interrupted),
            Ok(None) => break None,
            Err(_) if interrupted => break Some(Stop::Interrupted),
            Err(error) => break Some(error.into()),
        }
    };
    drop(spinner);
    if print
        && !content.is_empty()
        && !content.ends_with('\n')
        && !matches!(stop, Some(Stop::PipeClosed))
    {
        // A pipe that closes only now has had the whole answer.
        let _ = output.piece("\n");
    }
    Outcome {
        content,
        receipt: answer.receipt().cloned(),
        notices,
        stop,
    }
}

/// Says on a line of its own that the answer is being cancelled.
fn say_cancelling(output: Output, in_line: bool) {
    let words = "Cancelling; Ctrl-C again leaves at once.".to_owned();
    say(output, in_line, Some(words));
}

/// Says something on a line of its own.
fn say(output: Output, in_line: bool, words: Option<String>) {
    let Some(words) = words else {
        return;
    };
    let feed = if in_line { "\n" } else { "" };
    output.note(&format!("{feed}{words}"));
}

fn user_turn(request: &EscalationRequest) -> Turn {
    Turn {
        role: Role::User,
        content: request.query.clone(),
        timestamp: wall(),
    }
}
