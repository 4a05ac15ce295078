//! Files that are not what they should be: each is named, and the other databases go on.

use crate::world::{Done, Home, eventually};
use std::fs;
use std::path::PathBuf;

/// A home with the databases `good` and `bad`; the file of `bad`.
fn two() -> (Home, PathBuf) {
    let home = Home::new();
    for name in ["good", "bad"] {
        home.ok(&["db", "new", name]);
        let rows: String =
            (0..200).map(|i| format!("{{\"k\":{i},\"v\":\"marked-{i}-{i}\"}}\n")).collect();
        home.fed(rows.as_bytes(), &["db", "import", name, "t", "-", "--key", "k"]);
    }
    let file = PathBuf::from(home.json(&["db", "info", "bad"])["file"].as_str().unwrap());
    // Whoever closes it last moves the write-ahead log into it.
    let log = file.with_extension("db-wal");
    eventually("the log is moved into the file", || {
        home.ok(&["db", "digest", "bad"]);
        !log.exists()
    });
    (home, file)
}

#[track_caller]
fn only_bad_is_named(home: &Home, text: &str) {
    let status: Done = home.run(&["status"]);
    status.fails(3, "1 replica cannot be opened");
    assert!(status.out.contains(text), "{status:?}");
    let listed = home.run(&["db", "ls"]);
    assert_eq!(listed.code, 3, "{listed:?}");
    home.ok(&["db", "verify", "good"]);
    let (mut serving, _) = {
        let mut serving = home.start(&["serve", "--listen", "0", "--json"]);
        let line = serving.line();
        assert!(line.contains("\"replicas\":1"), "{line}");
        (serving, line)
    };
    serving.note("bad is not served");
}

#[test]
fn a_truncated_file_is_told() {
    let (home, file) = two();
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..50]).unwrap();
    only_bad_is_named(&home, "damaged");
    home.run(&["db", "digest", "bad"]).fails(1, "restore the file from a copy");
}

#[test]
fn a_foreign_file_is_told_and_left_alone() {
    let (home, file) = two();
    let text = "a letter, and quite a long one, so that it cannot be taken for the beginning of something \
                that was interrupted when it was made";
    fs::write(&file, text).unwrap();
    only_bad_is_named(&home, "is not an Anabranch database");
    assert_eq!(fs::read_to_string(&file).unwrap(), text);
}

#[test]
fn a_file_of_a_later_version_is_told() {
    let (home, file) = two();
    let mut bytes = fs::read(&file).unwrap();
    bytes[60..64].copy_from_slice(&99_u32.to_be_bytes());
    fs::write(&file, bytes).unwrap();
    only_bad_is_named(&home, "format version 99");
}

#[test]
fn a_flipped_byte_is_found_by_verifying() {
    let (home, file) = two();
    let clean = fs::read(&file).unwrap();
    let rows = home.ok(&["db", "export", "bad", "t"]);
    let marked = clean.windows(8).enumerate().filter(|(_, w)| w == b"marked-7");
    let mut found = 0;
    for at in marked.map(|(at, _)| at) {
        let mut bytes = clean.clone();
        bytes[at] ^= 1;
        fs::write(&file, bytes).unwrap();
        let done = home.run(&["db", "verify", "bad"]);
        if done.code == 0 {
            // A page may hold leftovers that nothing reads.
            assert_eq!(home.ok(&["db", "export", "bad", "t"]), rows);
        } else {
            done.fails(1, "damaged");
            found += 1;
        }
    }
    assert!(found >= 2, "in the entry and in the cell");
    fs::write(&file, clean).unwrap();
    home.ok(&["db", "verify", "bad"]);
}
