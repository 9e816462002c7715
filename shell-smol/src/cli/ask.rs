//! `synesis-lite ask`: one question, its answer on stdout, its receipt on stderr.
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

use std::io::{self, IsTerminal as _, Read};
use std::time::Instant;

use mesh_core::device::control::Part;
use mesh_core::device::unfinished::{NotChosen, choose};
use mesh_core::error::ErrorClass;
use mesh_core::escalation::context::Question;
use mesh_core::escalation::receipt::{self, Receipt};
use mesh_core::escalation::request::validate;
use mesh_core::ids::RequestId;
use mesh_core::limits::QUERY_CHARS_MAX;
use mesh_core::wire::message::{EscalationRequest, Notice, StreamEnd};
use mesh_shell::random;
use serde::Serialize;
use smol::future::FutureExt as _;

use super::link::{Asked, Link};
use super::output::{Stdout, line_now, note};
use super::{Interrupts, Scene, Stop, args};
use crate::error::Error;

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report<'a> {
    content: &'a str,
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
struct Outcome {
    /// The text, as far as it came.
    content: String,
    /// Usage and charge, if it got so far.
    receipt: Option<StreamEnd>,
    /// What else there is to tell.
    notices: Vec<Notice>,
    /// Why it is not whole.
    stop: Option<Stop>,
}

/// Asks, or goes on with what was asked.
pub(super) async fn run(ask: &args::Ask, scene: &Scene<'_>) -> Result<(), Stop> {
    let asked = Instant::now();
    let mut interrupts = Interrupts::new()?;
    let (link, answer) = match &ask.resume {
        Some(id) => resume(id.as_deref(), ask.json, scene, &mut interrupts).await?,
        None => {
            let question = question(ask)?;
            let link = interrupts.or(Link::open(scene)).await?;
            let answer = interrupts.or(link.ask(question)).await?;
            (link, answer)
        }
    };
    let mut out = Stdout::new();
    let outcome = follow(answer, &mut out, !ask.json, &mut interrupts).await;
    link.close().await;

    if ask.json {
        let millis = u64::try_from(asked.elapsed().as_millis()).unwrap_or(u64::MAX);
        let report = Report {
            content: &outcome.content,
            elapsed_ms: millis,
            receipt: outcome.receipt.as_ref().map(Receipt::from),
            notices: outcome.notices.iter().map(|notice| &notice.data).collect(),
            error: outcome.stop.as_ref().and_then(Stop::to_json),
        };
        out.json(&report).await?;
    } else if let Some(end) = &outcome.receipt {
        note(&receipt::line(end));
        if let Some(word) = receipt::not_whole(end.finish_reason) {
            note(word);
        }
    }
    outcome.stop.map_or(Ok(()), Err)
}

fn question(ask: &args::Ask) -> Result<EscalationRequest, Stop> {
    let text = match &ask.question {
        Some(text) => text.clone(),
        None => from_stdin()?,
    };
    let mut question = Question::new(text.trim_end())
        .model(ask.model.clone())
        .max_tokens(ask.max_tokens)
        .stream(!ask.no_stream);
    if let Some(secs) = ask.timeout {
        question = question.timeout_secs(secs);
    }
    let question = question.into_request(random::request_id()?);
    validate(&question).map_err(Error::from)?;
    Ok(question)
}

/// The unfinished question that is meant; several are listed.
async fn resume(
    id: Option<&str>,
    json: bool,
    scene: &Scene<'_>,
    interrupts: &mut Interrupts,
) -> Result<(Link, Asked), Stop> {
    let invalid = |words: String| Error::new(ErrorClass::Validation, words);
    let wanted = id
        .map(|id| {
            id.parse::<RequestId>()
                .map_err(|bad| invalid(bad.to_string()))
        })
        .transpose()?;
    let link = interrupts.or(Link::start(scene)).await?;
    let (unfinished, trouble) = interrupts.or(link.unfinished()).await?;
    for words in trouble {
        note(&words);
    }
    let chosen = choose(wanted, &unfinished);
    if let Err(NotChosen::Several(_)) = chosen {
        if json {
            let all = serde_json::json!({ "unfinished": unfinished });
            Stdout::new().json(&all).await?;
        } else {
            for listed in &unfinished {
                line_now(&listed.line())?;
            }
        }
    }
    match chosen {
        Ok(id) => {
            let answer = interrupts.or(link.resume(id)).await?;
            Ok((link, answer))
        }
        Err(not) => {
            link.close().await;
            Err(invalid(not.to_string()).into())
        }
    }
}

/// Follows an answer to its end, and prints its pieces as they come if so wanted. The first
/// interrupt cancels, the second leaves.
async fn follow(
    mut answer: Asked,
    out: &mut Stdout,
    print: bool,
    interrupts: &mut Interrupts,
) -> Outcome {
    let mut content = String::new();
    let mut notices = Vec::new();
    let mut interrupted = false;
    let stop = loop {
        let next = async { Some(answer.next().await) };
        let interrupt = async {
            interrupts.next().await;
            None
        };
        match interrupt.or(next).await {
            None if interrupted => break Some(Stop::Interrupted),
            None => {
                interrupted = true;
                answer.cancel().await;
                note("Cancelling; Ctrl-C again leaves at once.");
            }
            Some(Ok(Some(
                part @ (Part::Delta(_) | Part::Cut | Part::Resumed(_) | Part::Notice(_)),
            ))) => {
                if let Some(words) = part.words() {
                    note(&words);
                }
                if let Part::Notice(notice) = part {
                    notices.push(notice);
                }
            }
            Some(Ok(Some(Part::Text(text)))) => {
                content.push_str(&text);
                if print && let Err(stop) = out.piece(&text).await {
                    break Some(stop);
                }
            }
            Some(Ok(None) | Err(_)) if interrupted => break Some(Stop::Interrupted),
            Some(Ok(None)) => break None,
            Some(Err(error)) => break Some(error.into()),
        }
    };
    let unended = !content.is_empty() && !content.ends_with('\n');
    if print && unended && !matches!(stop, Some(Stop::PipeClosed)) {
        // A pipe that closes only now has had the whole answer.
        let _closed = out.piece("\n").await;
    }
    Outcome {
        content,
        receipt: answer.receipt().cloned(),
        notices,
        stop,
    }
}

/// Everything on stdin; on a terminal, after a word on how to end it.
fn from_stdin() -> Result<String, Error> {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        note("Your question, ended by Ctrl-D on a line of its own:");
    }
    read_question(stdin.lock())
}

fn read_question(from: impl Read) -> Result<String, Error> {
    // A character has at most four bytes; one more tells a question that is too long.
    let limit = QUERY_CHARS_MAX * 4 + 1;
    let mut bytes = Vec::new();
    from.take(limit as u64)
        .read_to_end(&mut bytes)
        .map_err(|error| Error::io("reading the question from stdin", &error))?;
    let invalid = |words: String| Error::new(ErrorClass::Validation, words);
    if bytes.len() == limit {
        return Err(invalid(format!(
            "the question on stdin is longer than {QUERY_CHARS_MAX} characters"
        )));
    }
    String::from_utf8(bytes)
        .map_err(|_| invalid("stdin is not UTF-8 text; a question has to be".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_without_end_or_of_bytes_is_refused() {
        for hostile in [
            &mut io::repeat(b'a') as &mut dyn Read,
            &mut &b"\xff\xfe"[..],
        ] {
            let error = read_question(hostile).unwrap_err();
            assert_eq!(error.class(), ErrorClass::Validation, "{error}");
        }
        assert_eq!(read_question(&b"why?\n"[..]).unwrap(), "why?\n");
    }
}
