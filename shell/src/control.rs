//! The place of an agent's control socket in its data folder. What is said over the socket is
//! [`mesh_core::device::control`]'s business.
//!
//! # Invariants
//!
//! 1. The socket is 0600 in a private folder.
//! 2. One agent per data folder, of whichever shell: the one that holds the lock. A socket file left
//!    by a crash is replaced, a living agent's never.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use mesh_core::device::control::{LOCK, SOCKET, SOCKET_PATH_BYTES_MAX};

use crate::files;

/// The place of a running agent: the socket's file, removed when dropped, and the folder's lock.
#[derive(Debug)]
pub struct Place {
    /// The user whose programs may connect.
    uid: u32,
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
    #[error("{}: {error}", path.display())]
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

impl Place {
    /// Takes the folder's lock and listens, with a socket that does not block.
    ///
    /// # Errors
    ///
    /// [`ControlError`]; nothing of a running agent is touched.
    pub fn take(folder: &Path) -> Result<(Self, UnixListener), ControlError> {
        let path = socket_path(folder);
        if path.as_os_str().len() >= SOCKET_PATH_BYTES_MAX {
            return Err(ControlError::PathTooLong { path });
        }
        let refused = |error| ControlError::Io {
            path: path.clone(),
            error,
        };
        files::make_private_dir(folder).map_err(refused)?;
        let lock = lock(folder)?;
        // The lock is ours, so whatever lies here is a dead agent's.
        match fs::remove_file(&path) {
            Ok(()) => tracing::info!("removed the control socket of an agent that died"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(refused(error)),
        }
        let listener = UnixListener::bind(&path).map_err(refused)?;
        listener.set_nonblocking(true).map_err(refused)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(refused)?;
        let uid = fs::metadata(&path).map_err(refused)?.uid();
        let place = Self {
            uid,
            path,
            _lock: lock,
        };
        Ok((place, listener))
    }

    /// The user whose programs may connect, besides root's.
    #[must_use]
    pub const fn uid(&self) -> u32 {
        self.uid
    }

    /// The runtime would not take the socket.
    #[must_use]
    pub fn refused(&self, error: io::Error) -> ControlError {
        ControlError::Io {
            path: self.path.clone(),
            error,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _gone = fs::remove_file(&self.path);
    }
}

fn lock(folder: &Path) -> Result<File, ControlError> {
    let path = folder.join(LOCK);
    let refused = |error| ControlError::Io {
        path: path.clone(),
        error,
    };
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(refused)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(ControlError::AlreadyRunning {
            folder: folder.to_owned(),
        }),
        Err(TryLockError::Error(error)) => Err(refused(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_agent_is_refused_and_a_dead_ones_socket_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let socket = socket_path(dir.path());
        let first = Place::take(dir.path()).unwrap();
        let mode = fs::metadata(&socket).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let second = Place::take(dir.path());
        assert!(
            matches!(second, Err(ControlError::AlreadyRunning { .. })),
            "{second:?}"
        );
        assert!(socket.exists(), "the first one's is untouched");
        drop(first);
        assert!(!socket.exists());

        // A crash leaves the file and frees the lock.
        drop(UnixListener::bind(&socket).unwrap());
        assert!(socket.exists());
        Place::take(dir.path()).unwrap();
    }

    #[test]
    fn a_path_that_does_not_fit_is_said_to_be_too_long() {
        let folder = Path::new("/tmp").join("x".repeat(100));
        let error = Place::take(&folder).unwrap_err();
        assert!(matches!(error, ControlError::PathTooLong { .. }));
        assert!(error.to_string().contains("too long"), "{error}");
        assert!(!folder.exists());
    }

    #[test]
    fn what_the_system_refuses_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(LOCK)).unwrap();
        let error = Place::take(dir.path()).unwrap_err().to_string();
        assert!(error.contains(LOCK), "{error}");
    }
}
