//! Where programs come in: a port of loopback, or a Unix socket of this user's.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream as Knock;
use std::path::{Path, PathBuf};

use mesh_core::device::control::SOCKET_PATH_BYTES_MAX;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::error::Error;

/// A listener.
pub(super) enum Door {
    /// On loopback.
    Port(TcpListener),
    /// In the file system.
    Socket(SocketFile),
}

/// A connection.
pub(super) enum Guest {
    /// On loopback.
    Port(TcpStream),
    /// In the file system.
    Socket(UnixStream),
}

impl Door {
    /// The next connection. Over the Unix socket only those of the same user, or of root.
    pub(super) async fn next(&self) -> io::Result<Guest> {
        match self {
            Self::Port(listener) => listener.accept().await.map(|(stream, _)| {
                // Pieces are small and are to leave at once.
                let _best_effort = stream.set_nodelay(true);
                Guest::Port(stream)
            }),
            Self::Socket(file) => loop {
                let (stream, _) = file.listener.accept().await?;
                let uid = stream.peer_cred()?.uid();
                if uid == file.uid || uid == 0 {
                    return Ok(Guest::Socket(stream));
                }
                tracing::warn!(uid, "another user's program was turned away");
            },
        }
    }
}

/// A Unix socket of mode 0600; removed when dropped.
pub(super) struct SocketFile {
    listener: UnixListener,
    uid: u32,
    path: PathBuf,
}

impl SocketFile {
    /// Listens. A socket that nobody listens on is replaced; nothing else is.
    ///
    /// # Errors
    ///
    /// When the path is taken, too long, or the system refuses.
    pub(super) fn bind(path: &Path) -> Result<Self, Error> {
        if path.as_os_str().len() >= SOCKET_PATH_BYTES_MAX {
            return Err(Error::Validation(format!(
                "the endpoint's socket {} has too long a path for the system",
                path.display()
            )));
        }
        let refused = |error| Error::file(path, error);
        match fs::symlink_metadata(path) {
            Ok(found) if found.file_type().is_socket() && Knock::connect(path).is_err() => {
                fs::remove_file(path).map_err(refused)?;
            }
            Ok(_) => return Err(refused(io::ErrorKind::AlreadyExists.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(refused(error)),
        }
        let listener = UnixListener::bind(path).map_err(refused)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(refused)?;
        let uid = fs::metadata(path).map_err(refused)?.uid();
        Ok(Self {
            listener,
            uid,
            path: path.to_owned(),
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_is_private_replaces_a_dead_one_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("endpoint.sock");
        let first = SocketFile::bind(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(SocketFile::bind(&path).is_err(), "somebody listens");
        drop(first);
        assert!(!path.exists());
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        drop(SocketFile::bind(&path).unwrap());
        fs::write(&path, "somebody's file").unwrap();
        assert!(SocketFile::bind(&path).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "somebody's file");
        let long = folder.path().join("x".repeat(200));
        assert!(SocketFile::bind(&long).is_err());
    }
}
