//! Replays every input that is kept: the corpus, and whatever once failed.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use anabranch_fuzz::{TARGETS, target};
use std::fs;
use std::path::{Path, PathBuf};

/// Bytes of all kept inputs together: enough to reach what can be reached, little enough to be carried along.
const KEPT: u64 = 640 * 1024;

fn here(below: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(below)
}

/// The inputs of a target, if it has any.
fn inputs(set: &str, name: &str) -> Vec<PathBuf> {
    let Ok(dir) = fs::read_dir(here(set).join(name)) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = dir.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn replay(name: &str) {
    let target = target(name).unwrap();
    let kept = inputs("corpus", name);
    assert!(!kept.is_empty(), "{name} has no corpus");
    for path in kept.iter().chain(&inputs("regressions", name)) {
        println!("{}", path.display());
        (target.run)(&fs::read(path).unwrap());
    }
    (target.run)(&[]);
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                replay(stringify!($name));
            }
        )*

        #[test]
        fn every_target_is_replayed() {
            let replayed = [$(stringify!($name)),*];
            assert_eq!(TARGETS.iter().map(|target| target.name).collect::<Vec<_>>(), replayed);
        }
    };
}

targets! { blob file folder frame header home link payload rows run session text value }

#[test]
fn what_is_kept_belongs_to_a_target_and_is_small() {
    let mut bytes = 0;
    for set in ["corpus", "regressions"] {
        for entry in fs::read_dir(here(set)).unwrap() {
            let dir = entry.unwrap();
            let name = dir.file_name().into_string().unwrap();
            assert!(target(&name).is_some(), "{set}/{name} belongs to no target");
            for path in inputs(set, &name) {
                bytes += fs::metadata(path).unwrap().len();
            }
        }
    }
    assert!(bytes <= KEPT, "{bytes} bytes are kept; minimise them with -set_cover_merge=1");
}
