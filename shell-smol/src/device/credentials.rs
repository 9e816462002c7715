//! The enrolment, from the private file that `synesis cloud login` keeps. What it must be is
//! [`mesh_core::identity::enrolment`]'s business.

use std::io;
use std::path::Path;

use mesh_core::error::ErrorClass;
use mesh_core::identity::enrolment::{ENROL_ANEW, Enrolment, FILE, NOT_ENROLLED};
use mesh_shell::files;
use mesh_shell::random::provider;

use crate::error::Error;

/// The enrolment kept in a folder.
///
/// # Errors
///
/// Class Auth when the device was never enrolled, Io when the file cannot be read or others may
/// read it, Certificate when it is damaged.
pub fn load(folder: &Path) -> Result<Enrolment, Error> {
    let path = folder.join(FILE);
    let bytes = match files::read_private_bytes(&path, files::PRIVATE_BYTES_MAX) {
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
