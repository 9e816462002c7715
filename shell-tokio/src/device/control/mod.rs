//! The agent's control socket: how other programs of the same user ask through its tunnel.
//! What is said over it is [`mesh_core::device::control`]'s business.
//!
//! # Invariants
//!
//! 1. The socket is 0600 in a private folder, and a peer of another user is turned away before a
//!    byte of it is read.
//! 2. One agent per data folder: the one that holds the lock. A socket file left by a crash is
//!    replaced, a living agent's never.
//! 3. A line is bounded, and so is the number of programs; a hostile one hurts only itself.
//! 4. A program that goes away has its answer cancelled.

mod lines;
mod link;
mod server;

use std::path::Path;

pub(crate) use mesh_core::device::control::{Command, Event, Failure};
use mesh_shell::control::Place;
pub use mesh_shell::control::{ControlError, socket_path};
use tokio::net::UnixListener;

pub use self::link::AgentLink;
pub(crate) use self::server::serve;
use crate::error::Error;

/// The socket of a running agent; removed when dropped.
#[derive(Debug)]
pub(crate) struct ControlSocket {
    pub(crate) listener: UnixListener,
    pub(crate) place: Place,
}

impl From<ControlError> for Error {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::AlreadyRunning { .. } | ControlError::PathTooLong { .. } => {
                Self::Validation(error.to_string())
            }
            ControlError::Io { path, error } => Self::file(&path, error),
        }
    }
}

impl ControlSocket {
    /// Takes the folder's lock and listens.
    ///
    /// # Errors
    ///
    /// [`ControlError`]; nothing of a running agent is touched.
    pub(crate) fn bind(folder: &Path) -> Result<Self, ControlError> {
        let (place, listener) = Place::take(folder)?;
        match UnixListener::from_std(listener) {
            Ok(listener) => Ok(Self { listener, place }),
            Err(error) => Err(place.refused(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use mesh_core::error::ErrorClass;

    use super::*;

    #[tokio::test]
    async fn a_second_agent_is_refused_and_a_dead_ones_socket_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = socket_path(dir.path());
        let first = ControlSocket::bind(dir.path()).unwrap();
        let second = Error::from(ControlSocket::bind(dir.path()).unwrap_err());
        assert_eq!(second.class(), ErrorClass::Validation, "{second}");
        drop(first);
        assert!(!path.exists());

        // A crash leaves the file and frees the lock.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let third = ControlSocket::bind(dir.path()).unwrap();
        let program = tokio::net::UnixStream::connect(&path);
        let (accepted, connected) = tokio::join!(third.listener.accept(), program);
        assert!(accepted.is_ok() && connected.is_ok());
    }

    #[tokio::test]
    async fn a_path_that_does_not_fit_is_said_to_be_too_long() {
        let folder = Path::new("/tmp").join("x".repeat(100));
        let error = Error::from(ControlSocket::bind(&folder).unwrap_err());
        assert_eq!(error.class(), ErrorClass::Validation, "{error}");
    }
}
