//! Replays every committed corpus on stable Rust, without libFuzzer.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "the helpers of a test fail it"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use mesh_fuzz::TARGETS;

/// A single input is small, so that a replay takes seconds and a person can read what it is.
const INPUT_BYTES_MAX: u64 = 64 * 1024;
/// All corpora together, so that a clone stays small.
const CORPORA_BYTES_MAX: u64 = 2 * 1024 * 1024;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn names(folder: &Path, extension: &str) -> BTreeSet<String> {
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter_map(|name| name.strip_suffix(extension).map(str::to_owned))
        .collect()
}

fn inputs(target: &str) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(fuzz().join("corpus").join(target))
        .unwrap_or_else(|error| panic!("the target {target} has no corpus: {error}"))
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths
}

#[test]
fn every_input_of_every_corpus_passes() {
    for (target, run) in TARGETS {
        let inputs = inputs(target);
        assert!(!inputs.is_empty(), "the corpus of {target} is empty");
        for path in inputs {
            let data = fs::read(&path).unwrap();
            let passed = std::panic::catch_unwind(|| run(&data));
            assert!(passed.is_ok(), "{}", path.display());
        }
    }
}

#[test]
fn targets_files_corpora_and_the_build_name_the_same_targets() {
    let expected: BTreeSet<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(expected.len(), TARGETS.len(), "a name is taken twice");
    assert_eq!(names(&fuzz().join("fuzz_targets"), ".rs"), expected);
    assert_eq!(names(&fuzz().join("corpus"), ""), expected);
    let dictionaries = names(&fuzz().join("dictionaries"), ".dict");
    assert!(dictionaries.is_subset(&expected), "{dictionaries:?}");

    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    let built: BTreeSet<_> = manifest
        .lines()
        .filter_map(|line| {
            line.strip_prefix("path = \"fuzz_targets/")?
                .strip_suffix(".rs\"")
        })
        .map(str::to_owned)
        .collect();
    assert_eq!(built, expected);
}

#[test]
fn corpora_stay_small() {
    let mut all = 0;
    for (target, _) in TARGETS {
        for path in inputs(target) {
            let bytes = fs::metadata(&path).unwrap().len();
            assert!(
                bytes <= INPUT_BYTES_MAX,
                "{}: {bytes} bytes",
                path.display()
            );
            all += bytes;
        }
    }
    assert!(all <= CORPORA_BYTES_MAX, "{all} bytes");
}
