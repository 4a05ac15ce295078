//! The home: the rows of `node.db` and the key's file.

use crate::input::Input;
use crate::targets::file::scratch;
use anabranch_core::id::{DatabaseId, to_base32};
use anabranch_core::storage::{Durability, Order, Storage, StorageError, Table};
use anabranch_node::{Cost, Home, LockedKey, Passphrase};
use anabranch_store::{Options, SqliteStorage};
use std::fs;
use std::ops::ControlFlow;
use std::sync::{Mutex, OnceLock, PoisonError};

/// Rows that one input puts in at most.
const ROWS: usize = 16;

/// The row of how database 5 stands with `x`, if nothing is put after it.
const FATE: &[u8] = b"fate/\x05\x05\x05\x05\x05\x05\x05\x05\x05\x05\x05\x05\x05\x05\x05\x05\x05\x05\x05\x05\x05\x05\x05\x05\x05\x05\x05\x05\x05\x05\x05\x05x";

/// A home that stays open, and the same file opened once more, to write what the home would not.
struct Opened {
    home: Home,
    rows: SqliteStorage,
}

/// A byte that says which: rows, or the text of the key's file.
pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    if input.byte() % 4 == 3 { key(input.rest()) } else { rows(input) }
}

fn rows(mut input: Input<'_>) {
    let opened = opened().lock().unwrap_or_else(PoisonError::into_inner);
    let Opened { home, rows } = &*opened;
    let put = replace(rows, &mut input);
    assert!(put.is_ok(), "rows can be written: {put:?}");
    if let Ok(records) = home.records() {
        assert!(records.len() <= ROWS);
        for record in &records {
            assert!(home.put_record(record).is_ok());
        }
        for record in &records {
            let found = home.records().unwrap_or_default();
            assert!(found.contains(record) || twin(&records, record), "a record comes back");
        }
    }
    let database = DatabaseId([5; 32]);
    if let Ok(Some(fate)) = home.fate(database, "x") {
        assert!(home.put_fate(database, "x", &fate).is_ok());
        assert_eq!(home.fate(database, "x").ok().flatten(), Some(fate), "it comes back");
    }
    let peers = home.peers();
    assert!(peers.is_ok_and(|peers| peers.len() <= ROWS), "a bad peer is passed over");
    let _ = home.settings();
    let _ = home.configure("store.readers", Some("4"));
}

/// Whether another record has the same place, so that one replaces the other.
fn twin(records: &[anabranch_node::Record], record: &anabranch_node::Record) -> bool {
    let same = |other: &&anabranch_node::Record| {
        other.folder == record.folder
            && if record.folder {
                other.path == record.path
            } else {
                other.database == record.database
            }
    };
    records.iter().filter(same).count() > 1
}

fn replace(rows: &SqliteStorage, input: &mut Input<'_>) -> Result<(), StorageError> {
    let mut keys = Vec::new();
    let mut tx = rows.write(Durability::Normal)?;
    tx.scan(Table::Local, &[], None, Order::Ascending, &mut |key, _| {
        keys.push(key.to_vec());
        ControlFlow::Continue(())
    })?;
    for key in keys {
        tx.delete(Table::Local, &key)?;
    }
    for _ in 0..ROWS {
        if input.is_empty() {
            break;
        }
        let prefix: &[u8] = match input.byte() % 6 {
            0 => b"replica/db/",
            1 => b"replica/folder/",
            2 => b"config/",
            3 => b"peer/",
            4 => FATE,
            _ => b"",
        };
        tx.put(Table::Local, &[prefix, input.part()].concat(), input.part())?;
    }
    tx.commit()
}

fn key(text: &[u8]) {
    locked(text);
    let dir = scratch().join("keyed");
    // Made once: only the key differs.
    if Home::open(&dir).is_err() {
        let _ = fs::remove_file(dir.join("key"));
    }
    assert!(fs::write(dir.join("key"), text).is_ok());
    if let Ok(home) = Home::open(&dir) {
        let written = format!("device_key_{}", to_base32(&home.key().seed()));
        let text = String::from_utf8_lossy(text).trim().to_ascii_lowercase();
        assert_eq!(text, written, "a key has one spelling");
    }
}

/// A locked key is tried where that takes little; what it states is bounded anyway.
fn locked(text: &[u8]) {
    let text = String::from_utf8_lossy(text);
    let Ok(locked) = text.parse::<LockedKey>() else { return };
    let Cost { memory, passes } = locked.cost();
    assert!(memory <= 1024 * 1024 && passes <= 16, "{locked:?}");
    let written = locked.to_string();
    assert_eq!(text.trim().to_ascii_lowercase(), written, "a key has one spelling");
    if memory <= 64
        && let Ok(passphrase) = Passphrase::new("correct horse".to_owned().into())
        && let Ok(key) = locked.unlock(&passphrase)
    {
        assert_eq!(key.node_id(), locked.device());
    }
}

fn opened() -> &'static Mutex<Opened> {
    static OPENED: OnceLock<Mutex<Opened>> = OnceLock::new();
    OPENED.get_or_init(|| {
        let dir = scratch().join("home");
        let home = Home::open(&dir).expect("a home can be made in a new directory");
        let rows = SqliteStorage::open(dir.join("node.db"), Options::default());
        Mutex::new(Opened { home, rows: rows.expect("it was just made") })
    })
}
