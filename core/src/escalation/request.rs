//! The rules a question must keep, checked by the device before sending and by the gateway again.
//!
//! # Invariants
//!
//! 1. A request that passes [`validate`] on the device passes it on the gateway: the same code.
//! 2. Two requests have the same [`body_hash`] only if they ask the same thing: it is what makes a
//!    repeated id harmless and a reused one a conflict.

use std::fmt;
use std::io;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::limits;
use crate::wire::message::EscalationRequest;

/// What a question breaks, in words for the person who asked it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// There is nothing to answer.
    #[error("the question is empty; write what you want to know")]
    EmptyQuery,
    /// `query` is too long.
    #[error(
        "the question has {characters} characters; at most {max} are allowed, pass long material as context"
    )]
    QueryTooLong {
        /// How many there are.
        characters: usize,
        /// How many may be.
        max: usize,
    },
    /// `max_tokens` is out of range.
    #[error("max_tokens is {given}; it must be from 1 to {max}")]
    MaxTokens {
        /// What was asked.
        given: u32,
        /// The most that may be.
        max: u32,
    },
    /// `timeout_secs` is out of range.
    #[error("timeout_secs is {given}; it must be from 1 to {max}")]
    Timeout {
        /// What was asked.
        given: u32,
        /// The most that may be.
        max: u32,
    },
    /// A name is empty, too long or has characters that names do not have.
    #[error("{field} must be 1 to {max} characters without control characters")]
    Name {
        /// Which field.
        field: &'static str,
        /// The most characters that may be.
        max: usize,
    },
    /// A relevance is no fraction.
    #[error("the relevance of context passage {index} must be a number from 0.0 to 1.0")]
    Relevance {
        /// Which passage, from 0.
        index: usize,
    },
    /// A list is too long.
    #[error("{field} has {given} entries; at most {max} are allowed")]
    TooMany {
        /// Which list.
        field: &'static str,
        /// How many there are.
        given: usize,
        /// How many may be.
        max: usize,
    },
}

/// Checks every rule that does not need the gateway's own tables.
///
/// # Errors
///
/// The first rule broken, in words that say what to change.
pub fn validate(request: &EscalationRequest) -> Result<(), Invalid> {
    query(request)?;
    if !(1..=limits::MAX_TOKENS_MAX).contains(&request.max_tokens) {
        return Err(Invalid::MaxTokens {
            given: request.max_tokens,
            max: limits::MAX_TOKENS_MAX,
        });
    }
    if let Some(given) = request.timeout_secs
        && !(1..=limits::ESCALATION_TIMEOUT_SECS_MAX).contains(&given)
    {
        return Err(Invalid::Timeout {
            given,
            max: limits::ESCALATION_TIMEOUT_SECS_MAX,
        });
    }
    name("model", &request.model)?;
    name("session_id", &request.session_id)?;
    for (field, value) in [
        ("project_id", &request.project_id),
        ("lora_id", &request.lora_id),
    ] {
        value
            .as_deref()
            .map_or(Ok(()), |value| name(field, value))?;
    }
    let context = &request.context;
    for (field, given) in [
        ("context.local_knowledge", context.local_knowledge.len()),
        (
            "context.conversation_history",
            context.conversation_history.len(),
        ),
        ("context.constraints", context.constraints.len()),
    ] {
        if given > limits::CONTEXT_ENTRIES_MAX {
            return Err(Invalid::TooMany {
                field,
                given,
                max: limits::CONTEXT_ENTRIES_MAX,
            });
        }
    }
    match context
        .local_knowledge
        .iter()
        .position(|k| !(0.0..=1.0).contains(&k.relevance))
    {
        Some(index) => Err(Invalid::Relevance { index }),
        None => Ok(()),
    }
}

fn query(request: &EscalationRequest) -> Result<(), Invalid> {
    if request.chat.is_some() && request.query.is_empty() {
        return Ok(());
    }
    if request.query.trim().is_empty() {
        return Err(Invalid::EmptyQuery);
    }
    // A character has at most four bytes, so most questions need no count.
    if request.query.len() <= limits::QUERY_CHARS_MAX {
        return Ok(());
    }
    let characters = request.query.chars().count();
    if characters > limits::QUERY_CHARS_MAX {
        return Err(Invalid::QueryTooLong {
            characters,
            max: limits::QUERY_CHARS_MAX,
        });
    }
    Ok(())
}

fn name(field: &'static str, value: &str) -> Result<(), Invalid> {
    let max = limits::NAME_CHARS_MAX;
    let fine =
        !value.is_empty() && value.chars().count() <= max && !value.chars().any(char::is_control);
    if fine {
        Ok(())
    } else {
        Err(Invalid::Name { field, max })
    }
}

/// How long the first piece of the answer may take.
#[must_use]
pub fn first_piece_timeout(request: &EscalationRequest) -> Duration {
    request
        .timeout_secs
        .map_or(limits::ESCALATION_TIMEOUT_DEFAULT, |secs| {
            Duration::from_secs(secs.into())
        })
}

/// SHA-256 over the request's canonical JSON (the order of fields is the type's own).
///
/// # Errors
///
/// Never for a request that came off the wire; a float that is not finite cannot be written.
pub fn body_hash(request: &EscalationRequest) -> Result<[u8; 32], serde_json::Error> {
    let mut sink = HashWriter(Sha256::new());
    serde_json::to_writer(&mut sink, request)?;
    Ok(sink.0.finalize().into())
}

/// Lets serde write straight into the hash, without the text in between.
struct HashWriter(Sha256);

impl io::Write for HashWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for HashWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashWriter")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::escalation::context::Question;
    use crate::ids::RequestId;

    fn ask(query: &str) -> EscalationRequest {
        Question::new(query).into_request(RequestId::from_u128(1))
    }

    #[test]
    fn a_question_at_each_limit_passes_and_one_past_it_is_refused() {
        let longest = "ä".repeat(100_000);
        assert_eq!(validate(&ask(&longest)), Ok(()));
        assert_eq!(
            validate(&ask(&format!("{longest}ä"))),
            Err(Invalid::QueryTooLong {
                characters: 100_001,
                max: 100_000
            })
        );
        for (max_tokens, fine) in [(0, false), (1, true), (128_000, true), (128_001, false)] {
            let request = EscalationRequest {
                max_tokens,
                ..ask("why?")
            };
            assert_eq!(validate(&request).is_ok(), fine, "{max_tokens}");
        }
        for (timeout, fine) in [(0, false), (1, true), (600, true), (601, false)] {
            let request = EscalationRequest {
                timeout_secs: Some(timeout),
                ..ask("why?")
            };
            assert_eq!(validate(&request).is_ok(), fine, "{timeout}");
        }
    }

    #[test]
    fn an_empty_question_is_refused_unless_a_chat_body_carries_it() {
        assert_eq!(validate(&ask("  \n")), Err(Invalid::EmptyQuery));
        let raw = serde_json::value::RawValue::from_string("{}".into()).unwrap();
        let dialect = crate::wire::message::DialectName::Openai;
        let chat = Some(crate::wire::message::Chat { dialect, body: raw });
        let with_chat = |query| EscalationRequest {
            chat: chat.clone(),
            ..ask(query)
        };
        assert_eq!(validate(&with_chat("")), Ok(()));
        // What is said beside the body keeps its own rules.
        assert_eq!(validate(&with_chat("  \n")), Err(Invalid::EmptyQuery));
        assert!(matches!(
            validate(&with_chat(&"q".repeat(100_001))),
            Err(Invalid::QueryTooLong { .. })
        ));
    }

    #[test]
    fn a_context_has_a_thousand_entries_of_a_kind_and_not_one_more() {
        for (entries, fine) in [(999, true), (1_000, true), (1_001, false), (1_002, false)] {
            let mut request = ask("why?");
            request.context.constraints = vec![String::new(); entries];
            assert_eq!(validate(&request).is_ok(), fine, "{entries}");
        }
    }

    #[test]
    fn hostile_names_and_relevances_are_refused() {
        for model in ["", "a\nb", &"m".repeat(129)] {
            let request = EscalationRequest {
                model: model.to_owned(),
                ..ask("why?")
            };
            assert!(matches!(
                validate(&request),
                Err(Invalid::Name { field: "model", .. })
            ));
        }
        for relevance in [f32::NAN, -0.1, 1.5, f32::INFINITY] {
            let request = Question::new("why?")
                .knowledge("notes.md", "text", relevance)
                .into_request(RequestId::from_u128(1));
            assert_eq!(
                validate(&request),
                Err(Invalid::Relevance { index: 0 }),
                "{relevance}"
            );
        }
    }

    #[test]
    fn the_body_hash_tells_questions_apart_and_repeats() {
        let hash = |request: &EscalationRequest| body_hash(request).unwrap();
        assert_eq!(hash(&ask("why?")), hash(&ask("why?")));
        assert_ne!(hash(&ask("why?")), hash(&ask("why not?")));
        let louder = EscalationRequest {
            max_tokens: 2,
            ..ask("why?")
        };
        assert_ne!(hash(&ask("why?")), hash(&louder));
    }
}
