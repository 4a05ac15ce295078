//! A database whose rows are not what was written: as a file looks whose pages are sound and whose contents are not, or
//! that another program wrote to.

use crate::examine::examine;
use crate::input::Input;
use crate::world::{Row, rows, world};
use anabranch_core::storage::{Durability, Storage, StorageError, Table};
use std::sync::OnceLock;

/// Changes that one input makes at most: more of them only take longer.
const CHANGES: usize = 32;

/// Changes, each a byte that says which, the number of a row, and what the change takes.
pub(crate) fn run(data: &[u8]) {
    let storage = world().storage.fork([11; 32]);
    let mut input = Input::new(data);
    let changed = damage(&storage, &mut input);
    assert!(changed.is_ok(), "storage in memory takes every row");
    examine(&storage);
}

fn damage(storage: &dyn Storage, input: &mut Input<'_>) -> Result<(), StorageError> {
    let mut tx = storage.write(Durability::Normal)?;
    for _ in 0..CHANGES {
        if input.is_empty() {
            break;
        }
        let kind = input.byte();
        let number = usize::from(input.byte());
        let (table, key, value) = &original()[number % original().len()];
        match kind % 5 {
            0 => tx.put(*table, key, input.part())?,
            1 => {
                let mut value = value.clone();
                let at = input.short() % (value.len() + 1);
                let patch = input.part();
                let end = (at + patch.len()).min(value.len());
                value.splice(at..end, patch.iter().copied());
                tx.put(*table, key, &value)?;
            }
            2 => _ = tx.delete(*table, key)?,
            3 => tx.put(*table, &key_for(*table, input.part()), value)?,
            _ => {
                let table = Table::ALL[number % Table::ALL.len()];
                let key = key_for(table, input.part());
                tx.put(table, &key, input.part())?;
            }
        }
    }
    tx.commit()
}

/// A key that the table can have.
fn key_for(table: Table, bytes: &[u8]) -> Vec<u8> {
    if table.integer_keyed() {
        (u64::from_be_bytes(Input::new(bytes).array()) >> 1).to_be_bytes().to_vec()
    } else {
        bytes.to_vec()
    }
}

fn original() -> &'static [Row] {
    static ROWS: OnceLock<Vec<Row>> = OnceLock::new();
    ROWS.get_or_init(|| rows(&world().storage).unwrap_or_default())
}
