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

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

pub(crate) use mesh_core::device::control::{Command, Event, Failure};
use mesh_core::device::control::{LOCK, SOCKET, SOCKET_PATH_BYTES_MAX};
use tokio::net::UnixListener;

pub use self::link::AgentLink;
pub(crate) use self::server::serve;
use crate::error::Error;
use crate::files;

/// The socket of a running agent; removed when dropped.
#[derive(Debug)]
pub(crate) struct ControlSocket {
    pub(crate) listener: UnixListener,
    /// The user whose programs may connect.
    pub(crate) uid: u32,
    path: PathBuf,
    /// Held as long as the agent lives; the system lets go of it when the process dies.
    _lock: File,
}

/// Why the agent has no socket.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Another agent serves this data folder.
    #[error(
        "an agent is already running for {}; stop it first, or use another --data-dir",
        folder.display()
    )]
    AlreadyRunning {
        /// The folder.
        folder: PathBuf,
    },
    /// The path does not fit into a socket's address.
    #[error("the control socket's path {} is too long for the system; use a shorter --data-dir", path.display())]
    PathTooLong {
        /// The path.
        path: PathBuf,
    },
    /// The system refused.
    #[error("the control socket {} cannot be made: {error}", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

/// Where the agent of this data folder listens.
#[must_use]
pub fn socket_path(folder: &Path) -> PathBuf {
    folder.join(SOCKET)
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
        let path = socket_path(folder);
        if path.as_os_str().len() >= SOCKET_PATH_BYTES_MAX {
            return Err(ControlError::PathTooLong { path });
        }
        let refused = |error| ControlError::Io {
            path: path.clone(),
            error,
        };
        files::make_private_dir(folder).map_err(refused)?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(folder.join(LOCK))
            .map_err(refused)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(ControlError::AlreadyRunning {
                    folder: folder.to_owned(),
                });
            }
            Err(TryLockError::Error(error)) => return Err(refused(error)),
        }
        // The lock is ours, so whatever lies here is a dead agent's.
        match fs::remove_file(&path) {
            Ok(()) => tracing::info!("removed the control socket of an agent that died"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(refused(error)),
        }
        let listener = UnixListener::bind(&path).map_err(refused)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(refused)?;
        let uid = fs::metadata(&path).map_err(refused)?.uid();
        Ok(Self {
            listener,
            uid,
            path,
            _lock: lock,
        })
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_second_agent_is_refused_and_a_dead_ones_socket_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let first = ControlSocket::bind(dir.path()).unwrap();
        let mode = fs::metadata(socket_path(dir.path()))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        let second = ControlSocket::bind(dir.path());
        assert!(
            matches!(second, Err(ControlError::AlreadyRunning { .. })),
            "{second:?}"
        );
        drop(first);
        assert!(!socket_path(dir.path()).exists());

        // A crash leaves the file and frees the lock.
        drop(std::os::unix::net::UnixListener::bind(socket_path(dir.path())).unwrap());
        assert!(socket_path(dir.path()).exists());
        ControlSocket::bind(dir.path()).unwrap();
    }

    #[tokio::test]
    async fn a_path_that_does_not_fit_is_said_to_be_too_long() {
        let folder = Path::new("/tmp").join("x".repeat(100));
        assert!(matches!(
            ControlSocket::bind(&folder),
            Err(ControlError::PathTooLong { .. })
        ));
    }
}
