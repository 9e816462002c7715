//! The files of unfinished questions: each process of the device that asks has one of its own, in a
//! folder that all of them look into. What is in them is [`mesh_core::device::unfinished`]'s business.
//!
//! ```text
//!   unfinished/NAME.json    0600, written whole or not at all; gone when nothing is unfinished
//!   unfinished/NAME.lock    locked as long as its process lives: only what is not may be picked up
//! ```
//!
//! # Invariants
//!
//! 1. A file of a living process is never read by another.
//! 2. What was picked up is removed only after it is in the file of whoever picked it up.
//! 3. A file that is not understood is set aside under another name, and hinders nothing.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use mesh_core::device::unfinished::{FOLDER, Unfinished};
use mesh_core::ids::DeviceId;
use mesh_core::limits::UNFINISHED_FILE_BYTES_MAX;

use super::credentials::read_private;
use crate::random;

const FILE: &str = ".json";
const LOCK: &str = ".lock";
/// What a file that is not understood is called from then on.
const ASIDE: &str = ".set-aside";
/// What a process that died may have left half written.
const HALF: &str = ".new";
/// Names that are tried for a new file.
const NAMES_MAX: usize = 16;

/// The file of this process.
#[derive(Debug)]
struct Book {
    folder: PathBuf,
    device: DeviceId,
    /// There when there is a file.
    held: Option<Held>,
}

/// A name, and that it is ours.
#[derive(Debug)]
pub(crate) struct Held {
    folder: PathBuf,
    name: String,
    _lock: File,
}

/// What processes that are gone left behind.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Their questions.
    pub(crate) unfinished: Unfinished,
    /// The files, for [`Keeper::adopt`].
    pub(crate) left: Vec<Held>,
    /// What is to be said of files that are not understood.
    pub(crate) trouble: Vec<String>,
}

impl Held {
    /// Takes a name, unless it is another living process's.
    fn take(folder: &Path, name: &str) -> io::Result<Option<Self>> {
        let path = folder.join(format!("{name}{LOCK}"));
        let lock = private(File::options().write(true).create(true), &path)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        // Whoever removed it in between had a lock on the same file, not on the name.
        let ours = lock.metadata()?.ino();
        let same = fs::metadata(&path).is_ok_and(|now| now.ino() == ours);
        Ok(same.then(|| Self {
            folder: folder.to_owned(),
            name: name.to_owned(),
            _lock: lock,
        }))
    }

    fn file(&self) -> PathBuf {
        self.folder.join(format!("{}{FILE}", self.name))
    }

    /// Removes the file with its lock.
    fn remove(self) {
        let _none = fs::remove_file(self.file());
        let _none = fs::remove_file(self.folder.join(format!("{}{LOCK}", self.name)));
    }
}

fn private(options: &mut fs::OpenOptions, path: &Path) -> io::Result<File> {
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600).open(path)
}

/// What processes that are gone left behind in a device's folder.
pub(crate) fn find(folder: &Path, device: DeviceId) -> Found {
    let folder = folder.join(FOLDER);
    let mut found = Found::default();
    let Ok(entries) = fs::read_dir(&folder) else {
        // Nothing was ever kept.
        return found;
    };
    let files: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    let names: BTreeSet<&str> = files
        .iter()
        .filter_map(|file| file.strip_suffix(FILE).or(file.strip_suffix(LOCK)))
        .collect();
    for name in names {
        let Ok(Some(held)) = Held::take(&folder, name) else {
            continue;
        };
        let mine = format!("{name}{FILE}.");
        let half = files
            .iter()
            .filter(|file| file.starts_with(&mine) && file.ends_with(HALF));
        for half in half {
            let _none = fs::remove_file(folder.join(half));
        }
        match read(&held.file(), device) {
            Ok(Some(unfinished)) => {
                found.unfinished.add(unfinished);
                found.left.push(held);
            }
            Ok(None) => held.remove(),
            Err(why) => {
                found.trouble.push(set_aside(&held, &why));
                held.remove();
            }
        }
    }
    found
}

fn read(path: &Path, device: DeviceId) -> Result<Option<Unfinished>, String> {
    let bytes = match read_private(path, UNFINISHED_FILE_BYTES_MAX as u64) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    Unfinished::decode(&bytes, device)
        .map(Some)
        .map_err(|unreadable| unreadable.to_string())
}

fn set_aside(held: &Held, why: &str) -> String {
    let path = held.file();
    let aside = held.folder.join(format!("{}{FILE}{ASIDE}", held.name));
    match fs::rename(&path, &aside) {
        Ok(()) => format!(
            "a file of unfinished questions cannot be used: {why}; it is set aside as {}",
            aside.display()
        ),
        Err(error) => format!(
            "a file of unfinished questions cannot be used: {why}; {} cannot be set aside: {error}",
            path.display()
        ),
    }
}

impl Book {
    fn write(&mut self, unfinished: &Unfinished) -> io::Result<()> {
        if unfinished.is_empty() {
            if let Some(held) = self.held.take() {
                held.remove();
            }
            return Ok(());
        }
        let bytes = unfinished.encode(self.device)?;
        let held = match self.held.take() {
            Some(held) => held,
            None => self.begin()?,
        };
        let written = write_private(&held, &bytes);
        self.held = Some(held);
        written
    }

    fn begin(&self) -> io::Result<Held> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)?;
        for _ in 0..NAMES_MAX {
            let name = random::request_id().map_err(|error| io::Error::other(error.to_string()))?;
            let name = format!("{:032x}", name.as_u128());
            if let Some(held) = Held::take(&self.folder, &name)? {
                return Ok(held);
            }
        }
        Err(io::Error::other("no name for it is free"))
    }
}

/// Into a new file beside it, flushed, then renamed over it.
fn write_private(held: &Held, bytes: &[u8]) -> io::Result<()> {
    let path = held.file();
    let half = held
        .folder
        .join(format!("{}{FILE}.{}{HALF}", held.name, std::process::id()));
    let _none = fs::remove_file(&half);
    let mut file = private(File::options().write(true).create_new(true), &half)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&half, &path)?;
    File::open(&held.folder)?.sync_all()
}

enum Job {
    Keep(Unfinished),
    Adopt(Vec<Held>),
}

/// Writes down what is to be kept, on a thread of its own: the last word counts.
#[derive(Debug)]
pub(crate) struct Keeper {
    jobs: Sender<Job>,
    thread: JoinHandle<()>,
}

impl Keeper {
    /// For a process of a device with this folder. Nothing is written until there is something.
    ///
    /// # Errors
    ///
    /// When the system gives no thread.
    pub(crate) fn start(folder: &Path, device: DeviceId) -> io::Result<Self> {
        let (jobs, inbox) = channel();
        let book = Book {
            folder: folder.join(FOLDER),
            device,
            held: None,
        };
        let thread = std::thread::Builder::new()
            .name("unfinished".to_owned())
            .spawn(move || work(book, &inbox))?;
        Ok(Self { jobs, thread })
    }

    /// All that is to be kept now.
    pub(crate) fn keep(&self, unfinished: Unfinished) {
        let _ended = self.jobs.send(Job::Keep(unfinished));
    }

    /// What is in these files will be in what is kept next.
    pub(crate) fn adopt(&self, left: Vec<Held>) {
        let _ended = self.jobs.send(Job::Adopt(left));
    }

    /// Waits until all of it is on disk.
    pub(crate) fn finish(self) {
        drop(self.jobs);
        let _panicked = self.thread.join();
    }
}

fn work(mut book: Book, inbox: &Receiver<Job>) {
    let mut left = Vec::new();
    while let Ok(first) = inbox.recv() {
        let mut last = None;
        for job in std::iter::once(first).chain(inbox.try_iter()) {
            match job {
                Job::Keep(unfinished) => last = Some(unfinished),
                Job::Adopt(more) => left.extend(more),
            }
        }
        let Some(unfinished) = last else {
            continue;
        };
        // If it fails the next may succeed; until then what was written before stands.
        if book.write(&unfinished).is_ok() {
            left.drain(..).for_each(Held::remove);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICE: DeviceId = DeviceId::from_u128(7);

    #[test]
    fn a_file_that_is_not_understood_is_set_aside_and_hinders_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let book = Book {
            folder: dir.path().join(FOLDER),
            device: DEVICE,
            held: None,
        };
        let held = book.begin().unwrap();
        write_private(&held, b"half of a file").unwrap();
        assert!(find(dir.path(), DEVICE).trouble.is_empty(), "it is in use");
        drop(held);
        let found = find(dir.path(), DEVICE);
        assert!(found.left.is_empty() && found.unfinished.is_empty());
        assert!(found.trouble[0].contains("damaged"), "{found:?}");
        assert!(!found.trouble[0].contains("half of a file"));
        let names: Vec<_> = fs::read_dir(dir.path().join(FOLDER)).unwrap().collect();
        assert_eq!(names.len(), 1);
        assert!(find(dir.path(), DEVICE).trouble.is_empty());
    }

    #[test]
    fn nothing_is_written_until_there_is_something() {
        let dir = tempfile::tempdir().unwrap();
        let keeper = Keeper::start(dir.path(), DEVICE).unwrap();
        keeper.keep(Unfinished::default());
        keeper.finish();
        assert!(!dir.path().join(FOLDER).exists());
    }
}
