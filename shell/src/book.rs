//! The files of unfinished questions, as files. Whose they are and what becomes of them is
//! [`mesh_core::device::unfinished::book`]'s to say, what is in them [`Unfinished`]'s.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use mesh_core::device::unfinished::Unfinished;
use mesh_core::device::unfinished::book::{
    Book, FOLDER, Fate, NAMES_MAX, Name, Page, entries, set_aside_words,
};
use mesh_core::ids::DeviceId;
use mesh_core::limits::UNFINISHED_FILE_BYTES_MAX;

use crate::{files, random};

/// A name, and that it is ours.
#[derive(Debug)]
pub struct Held {
    folder: PathBuf,
    name: Name,
    _lock: File,
}

/// What processes that are gone left behind.
#[derive(Debug, Default)]
pub struct Found {
    /// Their questions.
    pub unfinished: Unfinished,
    /// The files, for [`Keeper::adopt`].
    pub left: Vec<Held>,
    /// What is to be said of files that are not understood.
    pub trouble: Vec<String>,
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
        files::make_private_dir(folder)?;
        for _ in 0..NAMES_MAX {
            let chance = random::request_id().map_err(io::Error::other)?;
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
        match files::read_private_bytes(&self.file(), UNFINISHED_FILE_BYTES_MAX as u64) {
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
pub fn find(folder: &Path, device: DeviceId) -> Found {
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
pub struct Keeper {
    jobs: Sender<Job>,
    thread: JoinHandle<()>,
}

impl Keeper {
    /// For a process of a device with this folder. Nothing is written until there is something.
    ///
    /// # Errors
    ///
    /// When the system gives no thread.
    pub fn start(folder: &Path, device: DeviceId) -> io::Result<Self> {
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
    pub fn keep(&self, unfinished: Unfinished) {
        let _ended = self.jobs.send(Job::Keep(unfinished));
    }

    /// What is in these files will be in what is kept next.
    pub fn adopt(&self, left: Vec<Held>) {
        let _ended = self.jobs.send(Job::Adopt(left));
    }

    /// Waits until all of it is on disk.
    pub fn finish(self) {
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
            if let Err(error) = self.write() {
                tracing::warn!(%error, "unfinished questions cannot be written down");
            }
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
                let file = self.held.insert(held).file();
                files::write_private(&file, bytes)?;
            }
        }
        self.book.written().into_iter().for_each(Held::remove);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const DEVICE: DeviceId = DeviceId::from_u128(7);

    /// What `synesis` writes of one question that was asked; made by hand.
    fn one() -> Unfinished {
        let body = r#"[{"id":"req_00000000000000000000000000000001","wire_id":"req_00000000000000000000000000000001","title":"Why?","body":1,"sent_at":1,"asked_anew":false,"cancelled":false,"next_sequence":1,"whole":false,"said":[{"text":"Because"}],"open":"text","hidden":{}}]"#;
        let hash = ring::digest::digest(&ring::digest::SHA256, body.as_bytes());
        let sum: String = hash.as_ref().iter().map(|b| format!("{b:02x}")).collect();
        let head = format!(
            r#"{{"format":"synesis-unfinished","version":1,"device":"{DEVICE}","sha256":"{sum}"}}"#
        );
        Unfinished::decode(format!("{head}\n{body}").as_bytes(), DEVICE).unwrap()
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder.join(FOLDER)).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn what_a_process_leaves_is_found_by_the_next_and_only_once_it_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let first = Keeper::start(dir.path(), DEVICE).unwrap();
        first.keep(one());
        while !dir.path().join(FOLDER).exists() || names(dir.path()).len() < 2 {
            std::thread::yield_now();
        }
        assert!(find(dir.path(), DEVICE).left.is_empty(), "it lives");
        first.finish();
        let path = dir.path().join(FOLDER).join(&names(dir.path())[0]);
        let mode = fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        let found = find(dir.path(), DEVICE);
        assert_eq!(found.unfinished, one());
        assert!(
            find(dir.path(), DEVICE).left.is_empty(),
            "it is being picked up"
        );
        let second = Keeper::start(dir.path(), DEVICE).unwrap();
        second.adopt(found.left);
        second.keep(found.unfinished);
        second.finish();
        assert_eq!(names(dir.path()).len(), 2, "the first one's are gone");

        let found = find(dir.path(), DEVICE);
        assert_eq!(found.unfinished.len(), 1);
        let third = Keeper::start(dir.path(), DEVICE).unwrap();
        third.adopt(found.left);
        third.keep(Unfinished::default());
        third.finish();
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn what_is_not_understood_is_set_aside_and_hinders_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join(FOLDER);
        files::make_private_dir(&folder).unwrap();
        let good = one().encode(DEVICE).unwrap();
        let foreign = one().encode(DeviceId::from_u128(8)).unwrap();
        let newer = br#"{"format":"synesis-unfinished","version":2}"#;
        files::write_private(&folder.join("a.json"), &good).unwrap();
        files::write_private(&folder.join("b.json"), &good[..good.len() - 1]).unwrap();
        files::write_private(&folder.join("c.json"), foreign).unwrap();
        files::write_private(&folder.join("d.json"), [&newer[..], b"\n"].concat()).unwrap();
        files::write_private(&folder.join("e.json"), "s3cret").unwrap();
        files::write_private(&folder.join("f.json"), &good).unwrap();
        let open = fs::Permissions::from_mode(0o644);
        fs::set_permissions(folder.join("f.json"), open).unwrap();
        files::write_private(&folder.join("g.json.1.0.new"), "half").unwrap();
        files::write_private(&folder.join("g.lock"), "").unwrap();
        let found = find(dir.path(), DEVICE);
        assert_eq!(found.unfinished, one());
        assert_eq!(found.left.len(), 1);
        let words = found.trouble.join("\n");
        for said in ["damaged", "another device's", "later version", "chmod 600"] {
            assert!(words.contains(said), "{words}");
        }
        assert!(
            !words.contains("s3cret") && found.trouble.len() == 5,
            "{words}"
        );
        let aside: Vec<_> = names(dir.path());
        assert_eq!(
            aside,
            [
                "a.json",
                "a.lock",
                "b.json.set-aside",
                "c.json.set-aside",
                "d.json.set-aside",
                "e.json.set-aside",
                "f.json.set-aside",
            ]
        );
    }

    #[test]
    fn a_file_in_use_is_let_be_and_half_of_one_shows_nothing_of_what_is_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let held = Held::new(&dir.path().join(FOLDER)).unwrap();
        files::write_private(&held.file(), "half of a file").unwrap();
        assert!(find(dir.path(), DEVICE).trouble.is_empty(), "it is in use");
        drop(held);
        let found = find(dir.path(), DEVICE);
        assert!(found.left.is_empty() && found.unfinished.is_empty());
        assert!(found.trouble[0].contains("damaged"), "{found:?}");
        assert!(!found.trouble[0].contains("half of a file"));
        assert_eq!(names(dir.path()).len(), 1);
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

    #[test]
    fn a_folder_without_any_has_none() {
        let dir = tempfile::tempdir().unwrap();
        let found = find(dir.path(), DEVICE);
        assert!(found.unfinished.is_empty() && found.trouble.is_empty());
        assert!(!dir.path().join(FOLDER).exists());
    }
}
