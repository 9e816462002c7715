//! The files of unfinished questions, of which each process of a device that asks has one, in a
//! folder that all of them look into: which file is what, whose it is, and what becomes of those
//! whose process is gone. A shell has the files themselves.
//!
//! ```text
//!   unfinished/NAME.json             0600, written whole or not at all; gone when nothing is unfinished
//!   unfinished/NAME.lock             locked as long as its process lives: only what is not may be picked up
//!   unfinished/NAME.json.….new       half written; of a process that is gone, rubbish
//!   unfinished/NAME.json.set-aside   was not understood; left for a person to look at
//! ```
//!
//! # Invariants
//!
//! 1. A file of a living process is never read by another.
//! 2. What was picked up is removed only after it is in the file of whoever picked it up.
//! 3. A file that is not understood is set aside under another name, and hinders nothing.

use std::collections::BTreeSet;
use std::fmt::Display;

use super::Unfinished;
use crate::ids::{DeviceId, RequestId};

/// The folder of these files, in the device's own.
pub const FOLDER: &str = "unfinished";
/// Names that are tried for a new file: each is 128 bits of chance, so that the first one is free.
pub const NAMES_MAX: usize = 16;

const FILE: &str = ".json";
const LOCK: &str = ".lock";
const ASIDE: &str = ".set-aside";
const HALF: &str = ".new";

/// What the files of one process are called by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(String);

impl Name {
    /// A new one, of an id that chance has made.
    #[must_use]
    pub fn new(chance: RequestId) -> Self {
        Self(format!("{:032x}", chance.as_u128()))
    }

    /// The file of its questions.
    #[must_use]
    pub fn file(&self) -> String {
        format!("{}{FILE}", self.0)
    }

    /// The file that is locked as long as its process lives.
    #[must_use]
    pub fn lock(&self) -> String {
        format!("{}{LOCK}", self.0)
    }

    /// What its file is called from then on when it is not understood.
    #[must_use]
    pub fn set_aside(&self) -> String {
        format!("{}{FILE}{ASIDE}", self.0)
    }

    fn is_half(&self, file: &str) -> bool {
        file.strip_prefix(&self.0)
            .and_then(|rest| rest.strip_prefix(FILE)?.strip_prefix('.'))
            .is_some_and(|rest| rest.ends_with(HALF))
    }
}

/// A name that is in the folder, and what its process may have left half written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name.
    pub name: Name,
    /// Files that go, once the name's lock shows that its process is gone.
    pub halves: Vec<String>,
}

/// The names in a listing of the folder, each once and in order.
#[must_use]
pub fn entries(listing: &[String]) -> Vec<Entry> {
    let names: BTreeSet<&str> = listing
        .iter()
        .filter_map(|file| file.strip_suffix(FILE).or(file.strip_suffix(LOCK)))
        .collect();
    let entry = |name: &str| {
        let name = Name(name.to_owned());
        let halves = listing.iter().filter(|file| name.is_half(file));
        let halves = halves.cloned().collect();
        Entry { name, halves }
    };
    names.into_iter().map(entry).collect()
}

/// What becomes of the file of a process that is gone.
#[derive(Clone, Debug, PartialEq)]
pub enum Fate {
    /// There is none: its lock goes.
    Nothing,
    /// Its questions go on here. It is handed to [`Book::adopt`], and goes when that says so.
    PickUp(Unfinished),
    /// It is renamed to [`Name::set_aside`] and its lock goes, for this reason.
    SetAside(String),
}

impl Fate {
    /// Of what was read: the file's bytes, `None` where there is no file, or why it cannot be read.
    #[must_use]
    pub fn of(read: Result<Option<&[u8]>, &dyn Display>, device: DeviceId) -> Self {
        let bytes = match read {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Self::Nothing,
            Err(why) => return Self::SetAside(why.to_string()),
        };
        match Unfinished::decode(bytes, device) {
            Ok(unfinished) => Self::PickUp(unfinished),
            Err(unreadable) => Self::SetAside(unreadable.to_string()),
        }
    }
}

/// What a person is told of a file that was set aside: as what, or which file could not be and why.
#[must_use]
pub fn set_aside_words(
    why: &str,
    aside: Result<&dyn Display, (&dyn Display, &dyn Display)>,
) -> String {
    let begin = format!("a file of unfinished questions cannot be used: {why}");
    match aside {
        Ok(aside) => format!("{begin}; it is set aside as {aside}"),
        Err((file, error)) => format!("{begin}; {file} cannot be set aside: {error}"),
    }
}

/// What is to be in the file of this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Page {
    /// These bytes.
    Write(Vec<u8>),
    /// Nothing is unfinished: the file goes, with its lock.
    Remove,
}

/// What one process writes down: the last word counts, and files that it picked up (`F`) go only
/// after what was in them is in its own.
#[derive(Debug)]
pub struct Book<F> {
    device: DeviceId,
    wanted: Option<Unfinished>,
    adopted: Vec<F>,
}

impl<F> Book<F> {
    /// One of this device, with nothing in it.
    #[must_use]
    pub const fn new(device: DeviceId) -> Self {
        Self {
            device,
            wanted: None,
            adopted: Vec::new(),
        }
    }

    /// All that is to be kept now.
    pub fn keep(&mut self, unfinished: Unfinished) {
        self.wanted = Some(unfinished);
    }

    /// What is in these files will be in what is kept next.
    pub fn adopt(&mut self, files: Vec<F>) {
        self.adopted.extend(files);
    }

    /// What is to be written now, if something is; then [`Self::written`], unless it fails. What
    /// failed is not tried again: the file has what it had, and the next word replaces it.
    ///
    /// # Errors
    ///
    /// As [`Unfinished::encode`].
    pub fn next_page(&mut self) -> Result<Option<Page>, serde_json::Error> {
        let Some(unfinished) = self.wanted.take() else {
            return Ok(None);
        };
        if unfinished.is_empty() {
            return Ok(Some(Page::Remove));
        }
        unfinished.encode(self.device).map(Page::Write).map(Some)
    }

    /// The page is on disk: these files go.
    #[must_use]
    pub fn written(&mut self) -> Vec<F> {
        std::mem::take(&mut self.adopted)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{DEVICE, some};
    use super::*;

    fn listing(files: &[&str]) -> Vec<String> {
        files.iter().map(|file| (*file).to_owned()).collect()
    }

    fn adopting(files: &[u8]) -> Book<u8> {
        let mut book = Book::new(DEVICE);
        book.adopt(files.to_vec());
        book
    }

    #[test]
    fn a_process_has_its_files_under_one_name() {
        let name = Name::new(RequestId::from_u128(7));
        assert_eq!(name.file(), "00000000000000000000000000000007.json");
        assert_eq!(name.lock(), "00000000000000000000000000000007.lock");
        let half = format!("{}.9.0.new", name.file());
        let found = entries(&[name.lock(), half.clone(), name.file(), name.set_aside()]);
        let halves = vec![half];
        assert_eq!(found, [Entry { name, halves }]);
    }

    #[test]
    fn names_come_once_and_in_order_and_what_is_none_of_ours_is_left_alone() {
        let found = entries(&listing(&[
            "b.lock",
            "a.json.1.0.new",
            "b.json",
            "a.lock",
            "ab.json.1.new",
            "a.json.set-aside",
            "a.jsonx.new",
            "notes.txt",
            "c.json.3.new",
        ]));
        let names: Vec<_> = found.iter().map(|entry| entry.name.file()).collect();
        assert_eq!(names, ["a.json", "b.json"]);
        assert_eq!(found[0].halves, ["a.json.1.0.new"]);
        assert!(found[1].halves.is_empty());
        assert!(entries(&[]).is_empty());
    }

    #[test]
    fn what_is_understood_is_picked_up_and_all_else_is_set_aside_with_the_reason() {
        let good = some().encode(DEVICE).unwrap();
        let fate = |bytes: &[u8]| Fate::of(Ok(Some(bytes)), DEVICE);
        assert_eq!(fate(&good), Fate::PickUp(some()));
        assert_eq!(Fate::of(Ok(None), DEVICE), Fate::Nothing);
        let foreign = some().encode(DeviceId::from_u128(8)).unwrap();
        let newer = br#"{"format":"synesis-unfinished","version":2}"#;
        let newer = [&newer[..], b"\n"].concat();
        for (bytes, said) in [
            (&good[..good.len() - 1], "damaged"),
            (b"", "damaged"),
            (b"s3cret", "damaged"),
            (&foreign, "another device's"),
            (&newer, "later version"),
        ] {
            let Fate::SetAside(why) = fate(bytes) else {
                panic!("{said}: not set aside");
            };
            assert!(why.contains(said) && !why.contains("s3cret"), "{why}");
        }
        let unread = Fate::of(Err(&"others may read it"), DEVICE);
        assert_eq!(unread, Fate::SetAside("others may read it".to_owned()));
    }

    #[test]
    fn the_last_word_counts_and_is_written_once() {
        let mut book = Book::<u8>::new(DEVICE);
        assert_eq!(book.next_page().unwrap(), None);
        book.keep(Unfinished::default());
        book.keep(some());
        let bytes = some().encode(DEVICE).unwrap();
        assert_eq!(book.next_page().unwrap(), Some(Page::Write(bytes)));
        assert_eq!(book.next_page().unwrap(), None);
        book.keep(Unfinished::default());
        assert_eq!(book.next_page().unwrap(), Some(Page::Remove));
    }

    #[test]
    fn what_was_picked_up_goes_only_after_it_is_in_the_new_file() {
        let mut book = adopting(&[1, 2]);
        assert_eq!(book.next_page().unwrap(), None, "nothing is said of it yet");
        book.keep(some());
        assert!(book.next_page().unwrap().is_some());
        // The write failed: nobody said that it is written, and both stay until a later one is.
        book.adopt(vec![3]);
        book.keep(some());
        assert!(book.next_page().unwrap().is_some());
        assert_eq!(book.written(), [1, 2, 3]);
        assert!(book.written().is_empty());
    }
}
