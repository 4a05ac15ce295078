//! Files with flipped bits and missing ends: an error that says so or an answer, never a panic or a hang.
//!
//! SQLite keeps no checksum of its pages: what is flipped inside a key or a value comes back flipped, and the layers
//! above, which know hashes, have to notice. So what is asserted of an answer is that it was given, and for the parts of
//! the file whose damage must not go unnoticed, that it was refused.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anabranch_core::storage::{Durability, Order, Storage, StorageError, Table};
use anabranch_store::{Options, SqliteStorage};
use tempfile::TempDir;

use crate::ledger;

const PAGE: usize = 4096;

/// How many bytes between two flips; odd, so that they fall everywhere within pages.
const STRIDE: usize = 397;

struct Specimen {
    directory: TempDir,
    bytes: Vec<u8>,
}

impl Specimen {
    fn new(commits: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.db");
        let storage = SqliteStorage::create(&path, Options::default()).unwrap();
        for n in 0..commits {
            ledger::append(&storage, n, Durability::Normal).unwrap();
        }
        let mut writer = storage.write(Durability::Full).unwrap();
        for n in 0..4_u8 {
            writer.put(Table::Blob, &[n; 32], &vec![n; 10_000]).unwrap();
        }
        writer.commit().unwrap();
        drop(storage);
        let bytes = fs::read(path).unwrap();
        Self { directory, bytes }
    }

    /// Puts `bytes` in the place of the file.
    fn with(&self, bytes: &[u8]) -> PathBuf {
        let path = self.directory.path().join("damaged.db");
        for suffix in ["-wal", "-shm"] {
            let _ = fs::remove_file(self.directory.path().join(format!("damaged.db{suffix}")));
        }
        fs::write(&path, bytes).unwrap();
        path
    }

    fn with_flipped(&self, at: usize, bit: u8) -> PathBuf {
        let mut bytes = self.bytes.clone();
        bytes[at] ^= 1 << bit;
        self.with(&bytes)
    }
}

/// Opens, reads everything, checks and writes: what a program does with its database.
fn use_all(path: &Path) -> Result<Vec<String>, StorageError> {
    let storage = SqliteStorage::open(path, Options::default())?;
    let reader = storage.read()?;
    for table in Table::ALL {
        for order in [Order::Ascending, Order::Descending] {
            reader.scan(table, b"", None, order, &mut |_, _| ControlFlow::Continue(()))?;
        }
    }
    for n in 0..4_u8 {
        reader.get(Table::Blob, &[n; 32])?;
    }
    drop(reader);
    let findings = storage.check()?;
    let mut writer = storage.write(Durability::Normal)?;
    writer.put(Table::Local, b"k", b"v")?;
    writer.put(Table::Cell, b"\x40", b"v")?;
    writer.put(Table::Blob, &[9; 32], &[9; 5_000])?;
    writer.commit()?;
    Ok(findings)
}

/// Damage of a byte that says what the file is may make it look like something else.
fn about_damage(error: &StorageError, at: usize) -> bool {
    match error {
        StorageError::Corrupt(_) => true,
        StorageError::NewerVersion { .. } | StorageError::OlderVersion { .. } => {
            (60..64).contains(&at)
        }
        StorageError::Foreign { .. } => (68..72).contains(&at),
        _ => false,
    }
}

#[test]
fn a_flipped_bit_anywhere_is_an_answer_or_an_error() {
    let specimen = Specimen::new(120);
    let mut refused = 0;
    for (turn, at) in (0..specimen.bytes.len()).step_by(STRIDE).enumerate() {
        let path = specimen.with_flipped(at, (turn % 8) as u8);
        if let Err(error) = use_all(&path) {
            assert!(about_damage(&error, at), "byte {at}: {error}");
            refused += 1;
        }
    }
    assert!(refused > 0);
}

#[test]
fn a_flipped_bit_in_the_header_is_an_answer_or_an_error() {
    let specimen = Specimen::new(10);
    for at in 0..100 {
        for bit in [0, 3, 7] {
            if let Err(error) = use_all(&specimen.with_flipped(at, bit)) {
                assert!(about_damage(&error, at), "bit {bit} of byte {at}: {error}");
            }
        }
    }
}

#[test]
fn damage_to_the_marks_of_the_file_is_always_noticed() {
    let specimen = Specimen::new(1);
    // The magic string, the format version and the application id.
    for at in (0..16).chain(60..64).chain(68..72) {
        let error = use_all(&specimen.with_flipped(at, 2)).unwrap_err();
        assert!(about_damage(&error, at), "byte {at}: {error}");
    }
}

#[test]
fn damage_to_the_schema_is_always_noticed() {
    let specimen = Specimen::new(1);
    let text = b"CREATE TABLE cell (k BLOB";
    let start = specimen.bytes.windows(text.len()).position(|window| window == text).unwrap();
    for at in start..start + text.len() {
        let error = use_all(&specimen.with_flipped(at, 1)).unwrap_err();
        assert!(matches!(error, StorageError::Corrupt(_)), "byte {at}: {error}");
    }
}

#[test]
fn a_wiped_page_is_always_noticed() {
    let specimen = Specimen::new(60);
    for page in 0..specimen.bytes.len() / PAGE {
        let mut bytes = specimen.bytes.clone();
        bytes[page * PAGE..(page + 1) * PAGE].fill(0);
        match use_all(&specimen.with(&bytes)) {
            // Without its first page nothing tells that the file was ours.
            Err(StorageError::Foreign { .. }) if page == 0 => {}
            Err(error) => assert!(about_damage(&error, 0), "page {}: {error}", page + 1),
            // A page in the middle of a large value has no structure; the value comes back with zeros.
            Ok(findings) => {
                assert!(!findings.is_empty() || is_overflow(&specimen, page), "page {}", page + 1)
            }
        }
    }
}

/// Whether the page is no b-tree page, by its type byte.
fn is_overflow(specimen: &Specimen, page: usize) -> bool {
    !matches!(specimen.bytes[page * PAGE], 2 | 5 | 10 | 13)
}

#[test]
fn a_truncated_file_is_always_noticed() {
    let specimen = Specimen::new(60);
    let length = specimen.bytes.len();
    let cuts = [
        1,
        15,
        16,
        17,
        60,
        99,
        100,
        101,
        512,
        4095,
        4096,
        4097,
        length / 2,
        length - PAGE,
        length - 1,
    ];
    for cut in cuts {
        let error = use_all(&specimen.with(&specimen.bytes[..cut])).unwrap_err();
        assert!(matches!(error, StorageError::Corrupt(_)), "cut to {cut} bytes: {error}");
    }
}

#[test]
fn a_damaged_log_ends_at_its_last_whole_commit() {
    let directory = tempfile::tempdir().unwrap();
    let storage = SqliteStorage::create(directory.path().join("x.db"), Options::default()).unwrap();
    for n in 0..40 {
        ledger::append(&storage, n, Durability::Normal).unwrap();
    }
    // As a crash would leave them: copied while in use.
    let (file, log) = (fs::read(storage.path()).unwrap(), fs::read(storage.wal_path()).unwrap());
    let copy = directory.path().join("copy.db");
    let mut counts = Vec::new();
    for at in (0..log.len()).step_by(4_001).chain([log.len()]) {
        let mut damaged = log.clone();
        if let Some(byte) = damaged.get_mut(at) {
            *byte ^= 0x10;
        }
        fs::write(&copy, &file).unwrap();
        fs::write(directory.path().join("copy.db-wal"), damaged).unwrap();
        let storage = SqliteStorage::open(&copy, Options::default()).unwrap();
        counts.push(ledger::verify(&storage));
    }
    assert!(counts.is_sorted(), "{counts:?}");
    assert_eq!((counts[0], counts[counts.len() - 1]), (0, 40));
}

#[test]
fn a_truncated_log_ends_at_its_last_whole_commit() {
    let directory = tempfile::tempdir().unwrap();
    let storage = SqliteStorage::create(directory.path().join("x.db"), Options::default()).unwrap();
    for n in 0..20 {
        ledger::append(&storage, n, Durability::Normal).unwrap();
    }
    let (file, log) = (fs::read(storage.path()).unwrap(), fs::read(storage.wal_path()).unwrap());
    let copy = directory.path().join("copy.db");
    let mut last = 0;
    for length in (0..=log.len()).step_by(3_001).chain([log.len()]) {
        fs::write(&copy, &file).unwrap();
        fs::write(directory.path().join("copy.db-wal"), &log[..length]).unwrap();
        let count = ledger::verify(&SqliteStorage::open(&copy, Options::default()).unwrap());
        assert!(count >= last);
        last = count;
    }
    assert_eq!(last, 20);
}
