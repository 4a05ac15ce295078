//! A process that dies in the middle of commits loses none that it was told of (I6).

use std::path::Path;

use anabranch_core::storage::Durability;
use anabranch_store::SqliteStorage;

use crate::{child, ledger};

/// How many acknowledgements to hear before each kill.
const KILLS: [u64; 12] = [1, 2, 3, 5, 17, 40, 41, 100, 150, 7, 60, 33];

pub(crate) fn append_until_killed(file: &Path) {
    let storage = SqliteStorage::open(file, ledger::options()).unwrap();
    for n in ledger::next(&storage).. {
        let durability = if n.is_multiple_of(2) { Durability::Normal } else { Durability::Full };
        ledger::append(&storage, n, durability).unwrap();
        child::say(n);
    }
}

#[test]
fn every_acknowledged_commit_survives_kill_9() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("x.db");
    drop(SqliteStorage::create(&file, ledger::options()).unwrap());
    let mut last = 0;
    for kill_after in KILLS {
        let (mut child, mut said) = child::start_role("append", &file);
        for _ in 0..kill_after {
            last = child::hear(&mut said).unwrap().parse().unwrap();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it managed to say after that and before it died counts as well.
        while let Some(n) = child::hear(&mut said) {
            last = n.parse().unwrap();
        }
        let storage = SqliteStorage::open(&file, ledger::options()).unwrap();
        let count = ledger::verify(&storage);
        assert!(count > last, "{count} commits are there, number {last} was acknowledged");
        assert!(count <= last + 2, "{count} commits are there, number {last} was the last");
        assert_eq!(storage.check().unwrap(), [""; 0]);
    }
}

#[test]
fn a_process_killed_before_its_first_commit_leaves_a_usable_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("x.db");
    // What is left when it dies between creating the file and writing the tables.
    std::fs::write(&file, b"").unwrap();
    let storage = SqliteStorage::create(&file, ledger::options()).unwrap();
    ledger::append(&storage, 0, Durability::Full).unwrap();
    assert_eq!(ledger::verify(&storage), 1);
}
