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

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use async_io::Async;
use mesh_core::device::control::{LOCK, SOCKET, SOCKET_PATH_BYTES_MAX};
use mesh_core::error::ErrorClass;

pub use self::link::{AgentAnswer, AgentLink};
pub(crate) use self::server::serve;
use crate::error::Error;

/// The socket of a running agent; removed when dropped.
#[derive(Debug)]
pub struct ControlSocket {
    listener: Async<UnixListener>,
    /// The user whose programs may connect.
    uid: u32,
    path: PathBuf,
    /// Held as long as the agent lives; the system lets go of it when the process dies.
    _lock: File,
}

impl ControlSocket {
    /// Takes the folder's lock and listens.
    ///
    /// # Errors
    ///
    /// Class Validation when an agent of either shell runs already or the path is too long, Io when
    /// the system refuses. Nothing of a running agent is touched.
    pub fn bind(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(SOCKET);
        if path.as_os_str().len() >= SOCKET_PATH_BYTES_MAX {
            let words = format!(
                "the control socket's path {} is too long for the system; use a shorter --data-dir",
                path.display()
            );
            return Err(Error::new(ErrorClass::Validation, words));
        }
        let refused = |error: io::Error| Error::file(&path, &error);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(refused)?;
        let lock = lock(folder)?;
        // The lock is ours, so whatever lies here is a dead agent's.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(refused(error)),
            Ok(()) | Err(_) => {}
        }
        let listener = Async::<UnixListener>::bind(&path).map_err(refused)?;
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
        let _gone = fs::remove_file(&self.path);
    }
}

fn lock(folder: &Path) -> Result<File, Error> {
    let path = folder.join(LOCK);
    let refused = |error: io::Error| Error::file(&path, &error);
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(refused)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(Error::new(
            ErrorClass::Validation,
            format!(
                "an agent is already running for {}; stop it first, or use another --data-dir",
                folder.display()
            ),
        )),
        Err(TryLockError::Error(error)) => Err(refused(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_agent_is_refused_and_a_dead_ones_socket_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join(SOCKET);
        let first = ControlSocket::bind(dir.path()).unwrap();
        let mode = fs::metadata(&socket).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let second = ControlSocket::bind(dir.path()).unwrap_err();
        assert_eq!(second.class(), ErrorClass::Validation, "{second}");
        drop(first);
        assert!(!socket.exists());

        // A crash leaves the file and frees the lock.
        drop(UnixListener::bind(&socket).unwrap());
        assert!(socket.exists());
        ControlSocket::bind(dir.path()).unwrap();
    }

    #[test]
    fn a_path_that_does_not_fit_is_said_to_be_too_long() {
        let folder = Path::new("/tmp").join("x".repeat(100));
        let error = ControlSocket::bind(&folder).unwrap_err();
        assert!(error.to_string().contains("too long"), "{error}");
    }
}
