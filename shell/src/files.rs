//! Private files: 0600, in 0700 folders, written whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// No secret or configuration file of ours is larger.
pub const PRIVATE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Two threads that write the same file at once each write their own.
static WRITTEN: AtomicU64 = AtomicU64::new(0);

/// Makes a folder, and what is missing above it, that only its owner may enter.
///
/// # Errors
///
/// The system's word.
pub fn make_private_dir(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Writes a file that only its owner may read: into a new file beside it, flushed, then renamed over
/// it, so that a crash leaves the old file or the new one, never a part.
///
/// # Errors
///
/// The system's word; what was there before is untouched.
pub fn write_private(path: &Path, bytes: impl AsRef<[u8]>) -> io::Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut temporary_name = name.to_owned();
    let serial = WRITTEN.fetch_add(1, Ordering::Relaxed);
    temporary_name.push(format!(".{}.{serial}.new", std::process::id()));
    let temporary = folder.join(temporary_name);
    let written = (|| {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        // What a crashed process of the same number left under this name.
        let _none = fs::remove_file(&temporary);
        let mut file = options.open(&temporary)?;
        file.write_all(bytes.as_ref())?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    })();
    if written.is_err() {
        let _best_effort = fs::remove_file(&temporary);
        return written;
    }
    File::open(folder)?.sync_all()
}

/// Reads a file that holds secrets.
///
/// # Errors
///
/// The system's word, or what to do about a file that others may read or that is too large to be
/// one of ours.
pub fn read_private(path: &Path) -> io::Result<String> {
    let bytes = read_private_bytes(path, PRIVATE_BYTES_MAX)?;
    String::from_utf8(bytes).map_err(|_| {
        let words = "stream did not contain valid UTF-8";
        io::Error::new(io::ErrorKind::InvalidData, words)
    })
}

/// The same of at most so many bytes, which need not be text.
///
/// # Errors
///
/// As [`read_private`].
pub fn read_private_bytes(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777;
        if mode & 0o077 != 0 {
            let words = format!(
                "others may read it (mode {mode:03o}); if you trust what is in it: chmod 600 '{}'",
                path.display()
            );
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, words));
        }
    }
    let mut bytes = Vec::new();
    // Read, not asked of the metadata: a device or a pipe has no length.
    file.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        let words = "it is far too large to be one of ours";
        return Err(io::Error::new(io::ErrorKind::InvalidData, words));
    }
    Ok(bytes)
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn mode(path: &Path) -> Option<u32> {
        Some(fs::metadata(path).ok()?.permissions().mode() & 0o777)
    }

    #[test]
    fn a_private_file_is_0600_whole_and_leaves_no_other_behind() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("a/b");
        make_private_dir(&folder).unwrap();
        assert_eq!(mode(&folder), Some(0o700));
        let path = folder.join("secret");
        write_private(&path, "one").unwrap();
        write_private(&path, "two").unwrap();
        assert_eq!(mode(&path), Some(0o600));
        assert_eq!(read_private(&path).unwrap(), "two");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
    }

    /// The umask belongs to the whole process, so the test above runs once more in one of its own.
    #[test]
    fn an_open_umask_opens_nothing() {
        let name = concat!(
            module_path!(),
            "::a_private_file_is_0600_whole_and_leaves_no_other_behind"
        );
        let name = name.split_once("::").unwrap().1;
        let again = std::process::Command::new("sh")
            .args(["-c", "umask 000; exec \"$0\" --exact \"$1\""])
            .arg(std::env::current_exe().unwrap())
            .arg(name)
            .output()
            .unwrap();
        let words = String::from_utf8_lossy(&again.stdout);
        assert!(
            again.status.success() && words.contains("1 passed"),
            "{words}"
        );
    }

    #[test]
    fn writers_at_once_leave_one_whole_file() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("secret");
        let texts = ["a", "b", "c", "d"].map(|text| text.repeat(10_000));
        std::thread::scope(|scope| {
            for text in &texts {
                let path = &path;
                scope.spawn(move || write_private(path, text).unwrap());
            }
        });
        assert!(texts.contains(&read_private(&path).unwrap()));
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_far_too_large_is_not_read_to_its_end() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("secret");
        write_private(&path, "").unwrap();
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(PRIVATE_BYTES_MAX + 1).unwrap();
        let error = read_private(&path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        file.set_len(PRIVATE_BYTES_MAX).unwrap();
        assert!(read_private(&path).is_ok());
    }

    #[test]
    fn a_failed_write_leaves_what_was_there() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("taken");
        fs::create_dir(&path).unwrap();
        assert!(write_private(&path, "x").is_err());
        assert!(path.is_dir());
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
        assert!(write_private(&root.path().join("no/such/folder"), "x").is_err());
    }

    #[test]
    fn a_secret_that_others_may_read_is_refused_with_what_to_do() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("secret");
        write_private(&path, "s3cret").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = read_private(&path).unwrap_err().to_string();
        assert!(
            error.contains("chmod 600") && !error.contains("s3cret"),
            "{error}"
        );
    }
}
