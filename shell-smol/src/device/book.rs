//! The files of unfinished questions, as files. Whose they are and what becomes of them is
//! [`mesh_core::device::unfinished::book`]'s to say, what is in them [`Unfinished`]'s.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use mesh_core::device::unfinished::Unfinished;
use mesh_core::device::unfinished::book::{
    Book, FOLDER, Fate, NAMES_MAX, Name, Page, entries, set_aside_words,
};
use mesh_core::ids::DeviceId;
use mesh_core::limits::UNFINISHED_FILE_BYTES_MAX;

use super::credentials::read_private;
use crate::random;

/// A name, and that it is ours.
#[derive(Debug)]
pub(crate) struct Held {
    folder: PathBuf,
    name: Name,
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
    fn take(folder: &Path, name: Name) -> io::Result<Option<Self>> {
        let path = folder.join(name.lock());
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
            name,
            _lock: lock,
        }))
    }

    /// Takes a name that nobody had.
    fn new(folder: &Path) -> io::Result<Self> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
        for _ in 0..NAMES_MAX {
            let chance =
                random::request_id().map_err(|error| io::Error::other(error.to_string()))?;
            if let Some(held) = Self::take(folder, Name::new(chance))? {
                return Ok(held);
            }
        }
        Err(io::Error::other("no name for it is free"))
    }

    fn file(&self) -> PathBuf {
        self.folder.join(self.name.file())
    }

    /// What becomes of its file.
    fn fate(&self, device: DeviceId) -> Fate {
        match read_private(&self.file(), UNFINISHED_FILE_BYTES_MAX as u64) {
            Ok(bytes) => Fate::of(Ok(Some(&bytes)), device),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Fate::of(Ok(None), device),
            Err(error) => Fate::of(Err(&error), device),
        }
    }

    /// Sets its file aside; what is to be said of it.
    fn set_aside(&self, why: &str) -> String {
        let (file, aside) = (self.file(), self.folder.join(self.name.set_aside()));
        match fs::rename(&file, &aside) {
            Ok(()) => set_aside_words(why, Ok(&aside.display())),
            Err(error) => set_aside_words(why, Err((&file.display(), &error))),
        }
    }

    /// Into a new file beside it, flushed, then renamed over it.
    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let half = self.folder.join(self.name.half(std::process::id()));
        let _none = fs::remove_file(&half);
        let mut file = private(File::options().write(true).create_new(true), &half)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&half, self.file())?;
        File::open(&self.folder)?.sync_all()
    }

    /// Removes the file with its lock.
    fn remove(self) {
        let _none = fs::remove_file(self.file());
        let _none = fs::remove_file(self.folder.join(self.name.lock()));
    }
}

fn private(options: &mut fs::OpenOptions, path: &Path) -> io::Result<File> {
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600).open(path)
}

/// What processes that are gone left behind in a device's folder.
pub(crate) fn find(folder: &Path, device: DeviceId) -> Found {
    let folder = folder.join(FOLDER);
    let mut found = Found::default();
    let Ok(listing) = fs::read_dir(&folder) else {
        // Nothing was ever kept.
        return found;
    };
    let listing: Vec<String> = listing
        .filter_map(|file| file.ok()?.file_name().into_string().ok())
        .collect();
    for entry in entries(&listing) {
        let Ok(Some(held)) = Held::take(&folder, entry.name) else {
            continue;
        };
        for half in entry.halves {
            let _none = fs::remove_file(folder.join(half));
        }
        match held.fate(device) {
            Fate::PickUp(unfinished) => {
                found.unfinished.add(unfinished);
                found.left.push(held);
            }
            Fate::Nothing => held.remove(),
            Fate::SetAside(why) => {
                found.trouble.push(held.set_aside(&why));
                held.remove();
            }
        }
    }
    found
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
        let desk = Desk {
            folder: folder.join(FOLDER),
            book: Book::new(device),
            held: None,
        };
        let thread = std::thread::Builder::new()
            .name("unfinished".to_owned())
            .spawn(move || desk.work(&inbox))?;
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

/// The file of this process, there once something is to be in it.
struct Desk {
    folder: PathBuf,
    book: Book<Held>,
    held: Option<Held>,
}

impl Desk {
    fn work(mut self, inbox: &Receiver<Job>) {
        while let Ok(first) = inbox.recv() {
            for job in std::iter::once(first).chain(inbox.try_iter()) {
                match job {
                    Job::Keep(unfinished) => self.book.keep(unfinished),
                    Job::Adopt(left) => self.book.adopt(left),
                }
            }
            // If it fails the next may succeed; until then what was written before stands.
            let _failed = self.write();
        }
    }

    fn write(&mut self) -> io::Result<()> {
        match self.book.next_page()? {
            None => return Ok(()),
            Some(Page::Remove) => {
                if let Some(held) = self.held.take() {
                    held.remove();
                }
            }
            Some(Page::Write(bytes)) => {
                let held = match self.held.take() {
                    Some(held) => held,
                    None => Held::new(&self.folder)?,
                };
                self.held.insert(held).write(&bytes)?;
            }
        }
        self.book.written().into_iter().for_each(Held::remove);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICE: DeviceId = DeviceId::from_u128(7);

    #[test]
    fn a_file_that_is_not_understood_is_set_aside_and_hinders_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let held = Held::new(&dir.path().join(FOLDER)).unwrap();
        held.write(b"half of a file").unwrap();
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
