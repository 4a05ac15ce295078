//! Numbered commits that touch several tables each, and the check that a prefix of them, whole, is there.

use std::ops::ControlFlow;

use anabranch_core::storage::{Durability, Order, Storage, StorageError, Table};
use anabranch_store::{Options, SqliteStorage};

/// The number of the next commit.
pub(crate) fn next(storage: &SqliteStorage) -> u64 {
    storage.read().unwrap().get(Table::Meta, b"next").unwrap().map_or(0, |bytes| number(&bytes))
}

/// Commit number `n`: rows in three tables, of a size and at a place that depend on the number alone.
pub(crate) fn append(
    storage: &SqliteStorage,
    n: u64,
    durability: Durability,
) -> Result<(), StorageError> {
    let mut writer = storage.write(durability)?;
    writer.put(Table::Entry, &n.to_be_bytes(), &entry(n))?;
    writer.put(Table::Cell, &cell_key(n), &n.to_be_bytes())?;
    writer.put(Table::Meta, b"next", &(n + 1).to_be_bytes())?;
    writer.commit()
}

/// Checks that exactly the commits below [`next`] are there, whole and in order; returns how many.
pub(crate) fn verify(storage: &SqliteStorage) -> u64 {
    let count = next(storage);
    let reader = storage.read().unwrap();
    let mut expected = 0;
    reader
        .scan(Table::Entry, b"", None, Order::Ascending, &mut |key, value| {
            assert_eq!(number(key), expected);
            assert!(value == entry(expected), "entry {expected}");
            let cell = reader.get(Table::Cell, &cell_key(expected)).unwrap();
            assert_eq!(cell.as_deref(), Some(&expected.to_be_bytes()[..]));
            expected += 1;
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(expected, count);
    let mut cells = 0;
    reader
        .scan(Table::Cell, b"", None, Order::Ascending, &mut |_, _| {
            cells += 1;
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(cells, count);
    count
}

/// Small limits, so that a few hundred commits see several checkpoints.
pub(crate) fn options() -> Options {
    Options { checkpoint_pages: 50, ..Options::default() }
}

fn entry(n: u64) -> Vec<u8> {
    let length = 100 + (n * 977 % 6_000);
    (0..length).map(|i| (i ^ n) as u8).collect()
}

/// Spreads over the table.
fn cell_key(n: u64) -> [u8; 8] {
    n.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes()
}

pub(crate) fn number(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes.try_into().unwrap())
}
