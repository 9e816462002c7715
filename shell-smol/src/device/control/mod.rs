//! The agent's control socket: how other programs of the same user ask through its tunnel. What is
//! said over it is [`mesh_core::device::control`]'s business, so `synesis` and `synesis-lite` ask
//! through one another's agents.
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

use std::os::unix::net::UnixListener;
use std::path::Path;

use async_io::Async;
use mesh_core::error::ErrorClass;
use mesh_shell::control::{ControlError, Place};

pub use self::link::{AgentAnswer, AgentLink};
pub(crate) use self::server::serve;
use crate::error::Error;

/// The socket of a running agent; removed when dropped.
#[derive(Debug)]
pub struct ControlSocket {
    listener: Async<UnixListener>,
    place: Place,
}

impl From<ControlError> for Error {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::AlreadyRunning { .. } | ControlError::PathTooLong { .. } => {
                Self::new(ErrorClass::Validation, error.to_string())
            }
            ControlError::Io { path, error } => Self::file(&path, &error),
        }
    }
}

impl ControlSocket {
    /// Takes the folder's lock and listens.
    ///
    /// # Errors
    ///
    /// Class Validation when an agent of either shell runs already or the path is too long, Io when
    /// the system refuses. Nothing of a running agent is touched.
    pub fn bind(folder: &Path) -> Result<Self, Error> {
        let (place, listener) = Place::take(folder)?;
        match Async::new_nonblocking(listener) {
            Ok(listener) => Ok(Self { listener, place }),
            Err(error) => Err(place.refused(error).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use mesh_core::device::control::SOCKET;
    use smol::net::unix::UnixStream;

    use super::*;

    #[test]
    fn a_second_agent_is_refused_and_a_dead_ones_socket_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(SOCKET);
        let first = ControlSocket::bind(dir.path()).unwrap();
        let second = ControlSocket::bind(dir.path()).unwrap_err();
        assert_eq!(second.class(), ErrorClass::Validation, "{second}");
        drop(first);
        assert!(!path.exists());

        // A crash leaves the file and frees the lock.
        drop(UnixListener::bind(&path).unwrap());
        let third = ControlSocket::bind(dir.path()).unwrap();
        let program = UnixStream::connect(&path);
        let met = smol::future::zip(third.listener.accept(), program);
        let (accepted, connected) = smol::block_on(met);
        assert!(accepted.is_ok() && connected.is_ok());
    }

    #[test]
    fn a_path_that_does_not_fit_is_said_to_be_too_long() {
        let folder = Path::new("/tmp").join("x".repeat(100));
        let error = ControlSocket::bind(&folder).unwrap_err();
        assert_eq!(error.class(), ErrorClass::Validation, "{error}");
        assert!(error.to_string().contains("too long"), "{error}");
    }
}
