//! The enrolment, from the private file that `synesis cloud login` keeps. What it must be is
//! [`mesh_core::identity::enrolment`]'s business.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use mesh_core::error::ErrorClass;
use mesh_core::identity::enrolment::{ENROL_ANEW, Enrolment, FILE, NOT_ENROLLED};

use crate::error::Error;
use crate::random::provider;

/// No file of ours is larger.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The enrolment kept in a folder.
///
/// # Errors
///
/// Class Auth when the device was never enrolled, Io when the file cannot be read or others may
/// read it, Certificate when it is damaged.
pub fn load(folder: &Path) -> Result<Enrolment, Error> {
    let path = folder.join(FILE);
    let bytes = match read_private(&path, FILE_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Error::new(ErrorClass::Auth, NOT_ENROLLED));
        }
        Err(error) => return Err(Error::file(&path, &error)),
    };
    let text = String::from_utf8_lossy(&bytes);
    Enrolment::parse(&text, provider()).map_err(|unfit| {
        let words = format!("{}: {unfit}; {ENROL_ANEW}", path.display());
        Error::new(ErrorClass::Certificate, words)
    })
}

/// Reads a file that holds secrets, unless others may read it too or it is too large.
pub(super) fn read_private(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::PermissionsExt::mode(&file.metadata()?.permissions());
        if mode & 0o077 != 0 {
            let words = format!(
                "others may read it (mode {:03o}); if you trust what is in it: chmod 600 '{}'",
                mode & 0o777,
                path.display()
            );
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, words));
        }
    }
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        let words = "it is far too large to be one of ours";
        return Err(io::Error::new(io::ErrorKind::InvalidData, words));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn refused(text: &str, mode: u32) -> Error {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        load(folder.path()).unwrap_err()
    }

    #[test]
    fn a_device_that_was_never_enrolled_is_told_to_enrol() {
        let folder = tempfile::tempdir().unwrap();
        let error = load(folder.path()).unwrap_err();
        assert_eq!(error.class(), ErrorClass::Auth);
        assert!(error.to_string().contains("synesis cloud login"));
    }

    #[test]
    fn a_file_that_others_may_read_is_refused_with_what_to_do() {
        let error = refused("{\"key\":\"s3cret\"}", 0o640);
        assert_eq!(error.class(), ErrorClass::Io);
        let words = error.to_string();
        assert!(
            words.contains("chmod 600") && !words.contains("s3cret"),
            "{words}"
        );
    }

    #[test]
    fn a_damaged_file_shows_nothing_of_what_is_in_it() {
        let error = refused("{\"key\":\"s3cret\"", 0o600);
        assert_eq!(error.class(), ErrorClass::Certificate);
        let words = error.to_string();
        assert!(
            words.contains("--force") && !words.contains("s3cret"),
            "{words}"
        );
    }
}
