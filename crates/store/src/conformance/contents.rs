//! What tables hold and in which order, in one transaction after the other.

use std::ops::ControlFlow;

use anabranch_core::storage::{Durability, Order, StorageError, Table};

use super::{Make, collect, keys, store};

/// In the order that storage has to have: a key before those it is a prefix of, bytes unsigned.
const ORDERED: [&[u8]; 10] =
    [b"", b"\0", b"\0\0", b"\0\xFF", b"a", b"a\0", b"ab", b"\x7F", b"\x80", b"\xFF\xFF"];

pub(super) fn keys_are_ordered_as_bytes(make: Make<'_>) -> Result<(), StorageError> {
    let storage = make();
    for table in Table::ALL.into_iter().filter(|table| !table.integer_keyed()) {
        let shuffled: Vec<(&[u8], &[u8])> =
            (0..ORDERED.len()).map(|i| (ORDERED[i * 7 % ORDERED.len()], &b"v"[..])).collect();
        store(&*storage, table, &shuffled)?;
        let reader = storage.read()?;
        assert_eq!(keys(&*reader, table)?, ORDERED, "{table:?} ascending");
        let mut descending = collect(&*reader, table, b"", None, Order::Descending)?;
        descending.reverse();
        assert_eq!(
            descending,
            collect(&*reader, table, b"", None, Order::Ascending)?,
            "{table:?} descending"
        );
    }
    Ok(())
}

pub(super) fn scans_respect_their_bounds(make: Make<'_>) -> Result<(), StorageError> {
    let storage = make();
    // Every other key, so that bounds lie on keys, between them and outside.
    let held: Vec<&[u8]> = ORDERED.into_iter().step_by(2).collect();
    let pairs: Vec<(&[u8], &[u8])> = held.iter().map(|key| (*key, *key)).collect();
    store(&*storage, Table::Cell, &pairs)?;
    let reader = storage.read()?;
    for from in ORDERED {
        for to in ORDERED.into_iter().map(Some).chain([None]) {
            let mut expected: Vec<_> = held
                .iter()
                .filter(|key| **key >= from && to.is_none_or(|to| **key < to))
                .map(|key| (key.to_vec(), key.to_vec()))
                .collect();
            let ascending = collect(&*reader, Table::Cell, from, to, Order::Ascending)?;
            assert_eq!(ascending, expected, "{from:?}..{to:?}");
            expected.reverse();
            let descending = collect(&*reader, Table::Cell, from, to, Order::Descending)?;
            assert_eq!(descending, expected, "{from:?}..{to:?} descending");
        }
    }
    Ok(())
}

pub(super) fn a_visitor_ends_a_scan(make: Make<'_>) -> Result<(), StorageError> {
    let storage = make();
    let pairs: Vec<(&[u8], &[u8])> = ORDERED.into_iter().map(|key| (key, key)).collect();
    store(&*storage, Table::Head, &pairs)?;
    let reader = storage.read()?;
    for (order, last) in [(Order::Ascending, ORDERED[2]), (Order::Descending, ORDERED[7])] {
        let mut visited = Vec::new();
        reader.scan(Table::Head, b"", None, order, &mut |key, _| {
            visited.push(key.to_vec());
            if visited.len() == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        assert_eq!(visited.len(), 3);
        assert_eq!(visited[2], last, "{order:?}");
    }
    Ok(())
}

pub(super) fn keys_and_values_may_be_empty(make: Make<'_>) -> Result<(), StorageError> {
    let storage = make();
    assert_eq!(storage.read()?.get(Table::Meta, b"")?, None);
    store(&*storage, Table::Meta, &[(b"", b""), (b"k", b"")])?;
    let reader = storage.read()?;
    assert_eq!(reader.get(Table::Meta, b"")?, Some(Vec::new()));
    assert_eq!(reader.get(Table::Meta, b"k")?, Some(Vec::new()));
    assert_eq!(reader.get(Table::Meta, b"l")?, None);
    Ok(())
}

pub(super) fn large_values_come_back_whole(make: Make<'_>) -> Result<(), StorageError> {
    let storage = make();
    for (table, key) in [(Table::Blob, &[7; 32][..]), (Table::Entry, &[0; 8]), (Table::Cell, b"k")]
    {
        for length in [4_000, 65_536, 256 << 10] {
            let value: Vec<u8> = (0..length).map(|i: u32| (i % 251) as u8).collect();
            store(&*storage, table, &[(key, &value)])?;
            let reader = storage.read()?;
            assert!(reader.get(table, key)?.as_ref() == Some(&value), "{table:?} {length}");
            let pairs = collect(&*reader, table, b"", None, Order::Ascending)?;
            assert!(pairs == [(key.to_vec(), value)], "{table:?} {length} scanned");
        }
    }
    Ok(())
}

pub(super) fn put_replaces(make: Make<'_>) -> Result<(), StorageError> {
    let storage = make();
    for table in Table::ALL {
        let key = &[0, 0, 0, 0, 0, 0, 0, 1];
        for value in [&b"first"[..], b"a longer second", b"", &[9; 9_000]] {
            store(&*storage, table, &[(key, value)])?;
            let reader = storage.read()?;
            assert_eq!(reader.get(table, key)?.as_deref(), Some(value), "{table:?}");
            assert_eq!(keys(&*reader, table)?, [key], "{table:?}");
        }
    }
    Ok(())
}

pub(super) fn delete_says_whether_it_was_there(make: Make<'_>) -> Result<(), StorageError> {
    let storage = make();
    for table in Table::ALL {
        let (here, absent) = ([0, 0, 0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 0, 0, 0, 2]);
        store(&*storage, table, &[(&here, b"v")])?;
        let mut writer = storage.write(Durability::Full)?;
        assert!(!writer.delete(table, &absent)?, "{table:?}");
        assert!(writer.delete(table, &here)?, "{table:?}");
        assert!(!writer.delete(table, &here)?, "{table:?}");
        writer.commit()?;
        assert_eq!(storage.read()?.get(table, &here)?, None, "{table:?}");
    }
    Ok(())
}

pub(super) fn tables_are_separate(make: Make<'_>) -> Result<(), StorageError> {
    let storage = make();
    let key = [0; 8];
    for table in Table::ALL {
        store(&*storage, table, &[(&key, table.name().as_bytes())])?;
    }
    let reader = storage.read()?;
    for table in Table::ALL {
        assert_eq!(reader.get(table, &key)?.as_deref(), Some(table.name().as_bytes()));
        assert_eq!(keys(&*reader, table)?.len(), 1, "{table:?}");
    }
    Ok(())
}

pub(super) fn number_keys_are_ordered_as_numbers(make: Make<'_>) -> Result<(), StorageError> {
    let storage = make();
    let numbers = [0, 1, 255, 256, 65_536, 1 << 40, (1 << 63) - 1_u64];
    let ordered = numbers.map(u64::to_be_bytes);
    let mut writer = storage.write(Durability::Normal)?;
    for key in ordered.iter().rev() {
        writer.put(Table::Entry, key, key)?;
    }
    writer.commit()?;
    let reader = storage.read()?;
    assert_eq!(keys(&*reader, Table::Entry)?, ordered);
    for key in ordered {
        assert_eq!(reader.get(Table::Entry, &key)?.as_deref(), Some(&key[..]));
    }
    let newest = collect(&*reader, Table::Entry, b"", None, Order::Descending)?;
    assert_eq!(newest[0].0, ordered[ordered.len() - 1]);
    Ok(())
}

pub(super) fn number_tables_refuse_other_keys(make: Make<'_>) -> Result<(), StorageError> {
    let storage = make();
    let bad: [&[u8]; 4] = [b"", &[0; 7], &[0; 9], &[0x80, 0, 0, 0, 0, 0, 0, 0]];
    let mut writer = storage.write(Durability::Normal)?;
    for key in bad {
        assert!(writer.put(Table::Entry, key, b"v").is_err(), "{key:?}");
        assert_eq!(writer.get(Table::Entry, key)?, None, "{key:?}");
        assert!(!writer.delete(Table::Entry, key)?, "{key:?}");
    }
    // Refused before anything was tried, so the transaction is as good as before.
    writer.put(Table::Entry, &[0; 8], b"v")?;
    writer.commit()?;
    assert_eq!(keys(&*storage.read()?, Table::Entry)?, [[0; 8]]);
    Ok(())
}

pub(super) fn number_tables_take_any_bound(make: Make<'_>) -> Result<(), StorageError> {
    let storage = make();
    let held = [0, 1, 256, 1 << 56, (1 << 63) - 1_u64].map(u64::to_be_bytes);
    let pairs: Vec<(&[u8], &[u8])> = held.iter().map(|key| (&key[..], &b"v"[..])).collect();
    store(&*storage, Table::Entry, &pairs)?;
    let reader = storage.read()?;
    let longest = [held[4].as_slice(), b"\0"].concat();
    let bounds: [&[u8]; 9] =
        [b"", &[0], &[0; 8], &[0; 9], &held[2], &[1], &held[4], &longest, &[0xFF; 8]];
    for from in bounds {
        for to in bounds.into_iter().map(Some).chain([None]) {
            for order in [Order::Ascending, Order::Descending] {
                let mut expected: Vec<_> = held
                    .iter()
                    .filter(|key| &key[..] >= from && to.is_none_or(|to| &key[..] < to))
                    .map(|key| (key.to_vec(), b"v".to_vec()))
                    .collect();
                if order == Order::Descending {
                    expected.reverse();
                }
                let found = collect(&*reader, Table::Entry, from, to, order)?;
                assert_eq!(found, expected, "{from:?}..{to:?} {order:?}");
            }
        }
    }
    Ok(())
}

pub(super) fn size_grows_with_what_is_stored(make: Make<'_>) -> Result<(), StorageError> {
    let storage = make();
    let empty = storage.size()?;
    store(&*storage, Table::Blob, &[(&[1; 32], &[5; 256 << 10])])?;
    assert!(storage.size()? >= empty + (200 << 10));
    Ok(())
}
