//! From the arguments of `ask` to a question: the text, and the files that go along.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read};
use std::path::Path;

use mesh_core::escalation::context::Question;
use mesh_core::limits::{CONTEXT_BYTES_MAX, CONTEXT_PASSAGE_BYTES_MAX, QUERY_CHARS_MAX};

use super::args::Ask;
use super::output::Output;

/// Why there is no question to ask.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoQuestion {
    /// Stdin could not be read.
    #[error("the question cannot be read from stdin: {0}")]
    Stdin(io::Error),
    /// Stdin is not text.
    #[error("stdin is not UTF-8 text; a question has to be")]
    StdinNotText,
    /// Stdin does not end.
    #[error(
        "the question on stdin is longer than {QUERY_CHARS_MAX} characters; pass long material with --context FILE"
    )]
    StdinTooLong,
    /// A file cannot be read.
    #[error("the context file {path} cannot be read: {error}{hint}")]
    File {
        /// Which.
        path: String,
        /// What the system said.
        error: io::Error,
        /// What was probably meant.
        hint: &'static str,
    },
    /// A file is not text.
    #[error("the context file {0} is not text; only UTF-8 text can go along with a question")]
    Binary(String),
    /// All files together are too much.
    #[error("the context files have more than {} MiB together; pass the parts that matter", CONTEXT_BYTES_MAX >> 20)]
    ContextTooLong,
}

/// The question of these arguments, without the session's history.
///
/// Files are looked at first: a question that ended up in `--context` is noticed before anybody
/// waits for stdin.
///
/// # Errors
///
/// [`NoQuestion`], in words for the person who asked.
pub(crate) fn gather(ask: &Ask, output: Output) -> Result<Question, NoQuestion> {
    let passages = context(&ask.context, ask.question.is_none())?;
    let text = match ask.question.as_deref() {
        None | Some("-") => from_stdin(output)?,
        Some(text) => text.to_owned(),
    };
    let language = ask.language.clone().unwrap_or_default();
    let mut question = Question::new(text.trim_end())
        .model(ask.model.clone())
        .max_tokens(ask.max_tokens)
        .stream(!ask.no_stream)
        .preferences(language, ask.verbosity.into(), ask.tone.into());
    for (source, passage) in passages {
        question = question.knowledge(source, passage, 1.0);
    }
    for constraint in &ask.constraint {
        question = question.constraint(constraint.clone());
    }
    if let Some(note) = &ask.framing {
        question = question.framing(note.clone());
    }
    if let Some(prompt) = &ask.system {
        question = question.system(prompt.clone());
    }
    if let Some(project) = &ask.project {
        question = question.project(project.clone());
    }
    if let Some(secs) = ask.timeout {
        question = question.timeout_secs(secs);
    }
    Ok(question)
}

/// Everything on stdin; on a terminal, after a word on how to end it.
fn from_stdin(output: Output) -> Result<String, NoQuestion> {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        output.note("Your question, ended by Ctrl-D on a line of its own:");
    }
    read_question(stdin.lock())
}

fn read_question(from: impl Read) -> Result<String, NoQuestion> {
    // A character has at most four bytes; one more tells a question that is too long.
    let limit = QUERY_CHARS_MAX * 4 + 1;
    let mut bytes = Vec::new();
    from.take(limit as u64)
        .read_to_end(&mut bytes)
        .map_err(NoQuestion::Stdin)?;
    if bytes.len() == limit {
        return Err(NoQuestion::StdinTooLong);
    }
    String::from_utf8(bytes).map_err(|_| NoQuestion::StdinNotText)
}

/// The files' passages, each with the name of its file as it was given.
fn context(
    paths: &[impl AsRef<Path>],
    without_question: bool,
) -> Result<Vec<(String, String)>, NoQuestion> {
    let mut left = CONTEXT_BYTES_MAX;
    let mut passages = Vec::new();
    for (place, path) in paths.iter().enumerate() {
        let path = path.as_ref();
        let source = path.display().to_string();
        let refused = |error: io::Error| {
            let last = place + 1 == paths.len();
            let misplaced = last && without_question && error.kind() == io::ErrorKind::NotFound;
            let hint = if misplaced {
                " (a question goes before --context)"
            } else {
                ""
            };
            NoQuestion::File {
                path: source.clone(),
                error,
                hint,
            }
        };
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(refused)?;
        file.take(left as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(refused)?;
        left = left
            .checked_sub(bytes.len())
            .ok_or(NoQuestion::ContextTooLong)?;
        // A NUL is valid UTF-8, and the surest mark of a file that is no text.
        let text = match String::from_utf8(bytes) {
            Ok(text) if !text.contains('\0') => text,
            Ok(_) | Err(_) => return Err(NoQuestion::Binary(source)),
        };
        let cut = cut(&text);
        let parts = cut.len();
        for (part, passage) in cut.into_iter().enumerate() {
            let source = if parts == 1 {
                source.clone()
            } else {
                format!("{source} ({}/{parts})", part + 1)
            };
            passages.push((source, passage.to_owned()));
        }
    }
    Ok(passages)
}

/// Cuts a text into passages of at most [`CONTEXT_PASSAGE_BYTES_MAX`], after a line feed where
/// there is one, else after a character.
fn cut(mut text: &str) -> Vec<&str> {
    let mut passages = Vec::new();
    while text.len() > CONTEXT_PASSAGE_BYTES_MAX {
        let end = text.floor_char_boundary(CONTEXT_PASSAGE_BYTES_MAX);
        let (head, _) = text.split_at(end);
        let at = head.rfind('\n').map_or(end, |feed| feed + 1);
        let (passage, rest) = text.split_at(at);
        passages.push(passage);
        text = rest;
    }
    if !text.trim().is_empty() {
        passages.push(text);
    }
    passages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passages_end_after_lines_and_add_up_to_the_text() {
        let line = "word ".repeat(99) + "\n";
        let text = line.repeat(100);
        let passages = cut(&text);
        assert!(passages.len() > 1);
        assert_eq!(passages.concat(), text);
        assert!(
            passages
                .iter()
                .all(|p| p.len() <= CONTEXT_PASSAGE_BYTES_MAX && p.ends_with('\n'))
        );
    }

    #[test]
    fn a_text_without_lines_is_cut_between_characters() {
        let text = "ä".repeat(CONTEXT_PASSAGE_BYTES_MAX);
        assert_eq!(cut(&text).concat(), text);
        assert_eq!(cut("\n \n"), Vec::<&str>::new());
    }

    #[test]
    fn a_binary_file_is_refused_by_name_and_a_misplaced_question_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("photo.png");
        std::fs::write(&image, b"\x89PNG\0\0").unwrap();
        let error = context(&[&image], false).unwrap_err().to_string();
        assert!(
            error.contains("photo.png") && error.contains("not text"),
            "{error}"
        );

        let question = Path::new("Why is the sky blue?");
        let error = context(&[question], true).unwrap_err().to_string();
        assert!(
            error.contains("a question goes before --context"),
            "{error}"
        );
    }

    #[test]
    fn a_question_without_end_is_refused_and_not_read_for_ever() {
        let endless = io::repeat(b'a');
        assert!(matches!(
            read_question(endless),
            Err(NoQuestion::StdinTooLong)
        ));
        assert!(matches!(
            read_question(&b"\xff"[..]),
            Err(NoQuestion::StdinNotText)
        ));
        assert_eq!(read_question(&b"why?\n"[..]).unwrap(), "why?\n");
    }

    #[test]
    fn a_file_goes_along_under_the_name_it_was_given() {
        let dir = tempfile::tempdir().unwrap();
        let manual = dir.path().join("manual.txt");
        std::fs::write(&manual, "Valve B opens at 4 bar.").unwrap();
        let passages = context(&[&manual], false).unwrap();
        let source = manual.display().to_string();
        assert_eq!(passages, [(source, "Valve B opens at 4 bar.".to_owned())]);
    }
}
