//! One agent for each data folder, whichever shell it is of: a second tunnel of the same device
//! would end the first.

use std::fs::{self, File, TryLockError};
use std::path::Path;

use mesh_core::error::ErrorClass;

use crate::error::Error;

/// Held as long as the agent lives; the system lets go of it when the process dies.
#[derive(Debug)]
pub struct AgentLock(#[expect(dead_code, reason = "closing the file frees the lock")] File);

/// Takes the folder's lock.
///
/// # Errors
///
/// Class Validation when an agent runs already, Io when the system refuses.
pub fn take(folder: &Path) -> Result<AgentLock, Error> {
    let path = folder.join("agent.lock");
    let refused = |error: &std::io::Error| Error::file(&path, error);
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder).map_err(|error| refused(&error))?;
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|error| refused(&error))?;
    match lock.try_lock() {
        Ok(()) => Ok(AgentLock(lock)),
        Err(TryLockError::WouldBlock) => Err(Error::new(
            ErrorClass::Validation,
            format!(
                "an agent is already running for {}; stop it first, or use another --data-dir",
                folder.display()
            ),
        )),
        Err(TryLockError::Error(error)) => Err(refused(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_agent_is_refused_until_the_first_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("device");
        let first = take(&folder).unwrap();
        let error = take(&folder).unwrap_err();
        assert_eq!(error.class(), ErrorClass::Validation);
        drop(first);
        take(&folder).unwrap();
    }
}
