//! Conversations kept on the device: one small JSON file per `--session NAME`.
//!
//! The gateway never stores a prompt; what a conversation was about is known here only.
//!
//! # Invariants
//!
//! 1. A name cannot leave the folder: it is 1–64 of `A-Z a-z 0-9 . _ -` and begins with a letter
//!    or digit.
//! 2. A file is 0600 and replaced whole: a crash leaves the old conversation or the new one.
//! 3. A conversation is bounded by [`SESSION_TURNS_MAX`] and [`SESSION_BYTES_MAX`]: the oldest
//!    turns are forgotten first, in pairs.
//! 4. Two programs that go on with the same conversation at once both leave their turns: reading
//!    and replacing happen under one lock.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use mesh_core::limits::{SESSION_BYTES_MAX, SESSION_TURNS_MAX};
use mesh_core::wire::message::Turn;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::files;

/// A conversation's name on the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionName(String);

/// A name that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a session's name is 1 to 64 letters, digits, dots, dashes and underscores, and begins with a letter or digit"
)]
pub struct BadSessionName;

impl FromStr for SessionName {
    type Err = BadSessionName;

    fn from_str(text: &str) -> Result<Self, BadSessionName> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let begins_well = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        if begins_well && text.len() <= 64 && text.chars().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadSessionName)
        }
    }
}

impl fmt::Display for SessionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a conversation could not be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The system refused.
    #[error("the conversation in {path} cannot be read or written: {error}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The file is not a conversation.
    #[error("{path} is not a conversation; delete it to begin anew")]
    Malformed {
        /// Which file.
        path: PathBuf,
    },
}

impl From<SessionError> for Error {
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::Malformed { .. } => Self::Serialization(error.to_string()),
            SessionError::Io { path, error } => Self::file(&path, error),
        }
    }
}

/// The folder of conversations.
#[derive(Clone, Debug)]
pub struct Sessions {
    folder: PathBuf,
}

/// The file's content.
#[derive(Default, Serialize, Deserialize)]
struct Kept {
    version: u32,
    turns: Vec<Turn>,
}

impl Sessions {
    /// The conversations in `folder`, which is made when the first one is kept.
    #[must_use]
    pub const fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The turns so far, oldest first; none for a new conversation.
    ///
    /// # Errors
    ///
    /// When the file is there and cannot be read, or is not a conversation.
    pub fn turns(&self, name: &SessionName) -> Result<Vec<Turn>, SessionError> {
        let path = self.path(name);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(SessionError::Io { path, error }),
        };
        let mut text = String::new();
        // JSON makes at most six bytes of one: a larger file is not ours.
        let limit = u64::try_from(SESSION_BYTES_MAX)
            .unwrap_or(u64::MAX)
            .saturating_mul(8);
        match file.take(limit).read_to_string(&mut text) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(SessionError::Malformed { path });
            }
            Err(error) => return Err(SessionError::Io { path, error }),
        }
        match serde_json::from_str::<Kept>(&text) {
            Ok(kept) if kept.version == 1 => Ok(kept.turns),
            Ok(_) | Err(_) => Err(SessionError::Malformed { path }),
        }
    }

    /// Adds turns to the conversation and forgets the oldest past the bounds.
    ///
    /// # Errors
    ///
    /// As [`Self::turns`], and when the file cannot be replaced.
    pub fn append(&self, name: &SessionName, new: &[Turn]) -> Result<(), SessionError> {
        let path = self.path(name);
        let refused = |path: &Path| {
            let path = path.to_owned();
            move |error| SessionError::Io { path, error }
        };
        files::make_private_dir(&self.folder).map_err(refused(&self.folder))?;
        let lock_path = self.folder.join(".lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(refused(&lock_path))?;
        lock.lock().map_err(refused(&lock_path))?;
        let mut turns = self.turns(name)?;
        turns.extend_from_slice(new);
        let kept = Kept {
            version: 1,
            turns: bounded(turns),
        };
        let text = serde_json::to_vec(&kept).map_err(|error| SessionError::Io {
            path: path.clone(),
            error: error.into(),
        })?;
        files::write_private(&path, &text).map_err(refused(&path))
    }

    fn path(&self, name: &SessionName) -> PathBuf {
        self.folder.join(format!("{name}.json"))
    }
}

/// The newest turns within the bounds, beginning with a question.
fn bounded(mut turns: Vec<Turn>) -> Vec<Turn> {
    // JSON makes at most six bytes of one; the bound is on what is kept, not on the file.
    let size = |turns: &[Turn]| {
        turns
            .iter()
            .map(|turn| turn.content.len() + 64)
            .sum::<usize>()
    };
    let mut bytes = size(&turns);
    let mut forget = 0;
    while forget < turns.len()
        && (turns.len() - forget > SESSION_TURNS_MAX || bytes > SESSION_BYTES_MAX)
    {
        let pair = turns
            .get(forget..turns.len().min(forget + 2))
            .unwrap_or_default();
        bytes = bytes.saturating_sub(size(pair));
        forget += 2;
    }
    turns.drain(..forget.min(turns.len()));
    turns
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use mesh_core::time::UnixMillis;
    use mesh_core::wire::message::Role;

    use super::*;

    fn turn(role: Role, content: &str) -> Turn {
        Turn {
            role,
            content: content.to_owned(),
            timestamp: UnixMillis(7),
        }
    }

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn a_name_cannot_leave_its_folder() {
        for hostile in [
            "",
            ".",
            "..",
            ".hidden",
            "../x",
            "a/b",
            "a\\b",
            "a\0b",
            "ü",
            "-rf",
            &"a".repeat(65),
        ] {
            assert_eq!(
                hostile.parse::<SessionName>(),
                Err(BadSessionName),
                "{hostile:?}"
            );
        }
        for fine in ["trip", "2025-05_v1.2", &"a".repeat(64)] {
            assert!(fine.parse::<SessionName>().is_ok(), "{fine}");
        }
    }

    #[test]
    fn a_conversation_goes_on_where_it_stopped_and_is_private() {
        let dir = folder();
        let sessions = Sessions::new(dir.path().join("sessions"));
        let name = "trip".parse().unwrap();
        assert_eq!(sessions.turns(&name).unwrap(), []);
        sessions
            .append(
                &name,
                &[turn(Role::User, "hello"), turn(Role::Assistant, "hi")],
            )
            .unwrap();
        sessions.append(&name, &[turn(Role::User, "more")]).unwrap();
        let turns = sessions.turns(&name).unwrap();
        assert_eq!(
            turns.iter().map(|t| t.content.as_str()).collect::<Vec<_>>(),
            ["hello", "hi", "more"]
        );
        let mode = std::fs::metadata(sessions.path(&name))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn the_oldest_turns_are_forgotten_in_pairs() {
        let dir = folder();
        let sessions = Sessions::new(dir.path().to_owned());
        let name = "long".parse().unwrap();
        let mut all: Vec<Turn> = Vec::new();
        for n in 0..=SESSION_TURNS_MAX / 2 {
            all.push(turn(Role::User, &format!("q{n}")));
            all.push(turn(Role::Assistant, &format!("a{n}")));
        }
        sessions.append(&name, &all).unwrap();
        let kept = sessions.turns(&name).unwrap();
        assert_eq!(kept.len(), SESSION_TURNS_MAX);
        assert_eq!((kept[0].role, kept[0].content.as_str()), (Role::User, "q1"));

        let huge = "x".repeat(SESSION_BYTES_MAX);
        sessions
            .append(
                &name,
                &[turn(Role::User, &huge), turn(Role::Assistant, "short")],
            )
            .unwrap();
        assert_eq!(sessions.turns(&name).unwrap(), []);
    }

    #[test]
    fn a_file_that_is_no_conversation_is_said_to_be_none() {
        let dir = folder();
        let sessions = Sessions::new(dir.path().to_owned());
        let name: SessionName = "bad".parse().unwrap();
        for content in [
            &b"{"[..],
            b"[]",
            b"{\"version\":2,\"turns\":[]}",
            b"\xff\xfe",
        ] {
            std::fs::write(sessions.path(&name), content).unwrap();
            assert!(matches!(
                sessions.turns(&name),
                Err(SessionError::Malformed { .. })
            ));
        }
    }
}
