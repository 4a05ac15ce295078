//! Random sequences of operations, compared step by step with an ordered map.

use std::collections::BTreeMap;

use anabranch_core::storage::{Durability, Order, ReadTx, Storage, StorageError, Table, WriteTx};
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any};
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use proptest::{prop_assert_eq, prop_oneof};

use super::{Make, Pair, collect};

const CASES: u32 = 48;

/// How many snapshots are held open at the same time.
const HELD: usize = 3;

const TABLES: [Table; 4] = [Table::Meta, Table::Entry, Table::Cell, Table::Blob];

type Model = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

#[derive(Debug, Clone)]
enum Operation {
    Put(Table, Vec<u8>, Vec<u8>),
    Delete(Table, Vec<u8>),
    Get(Table, Vec<u8>),
    Scan(Table, Vec<u8>, Option<Vec<u8>>, Order),
}

#[derive(Debug, Clone)]
struct Transaction {
    operations: Vec<Operation>,
    durability: Durability,
    commits: bool,
    /// Whether a snapshot is taken after it.
    observed: bool,
}

pub(super) fn any_sequence_matches_the_model(make: Make<'_>) -> Result<(), StorageError> {
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config)
        .run(&vec(transaction(), 1..12), |transactions| run(&*make(), &transactions));
    assert!(outcome.is_ok(), "differs from the model: {outcome:?}");
    Ok(())
}

fn run(storage: &dyn Storage, transactions: &[Transaction]) -> Result<(), TestCaseError> {
    let mut committed = Model::new();
    let mut held: Vec<(Box<dyn ReadTx + '_>, Model)> = Vec::new();
    for transaction in transactions {
        let mut model = committed.clone();
        let mut writer = storage.write(transaction.durability)?;
        for operation in &transaction.operations {
            perform(&mut *writer, &mut model, operation)?;
        }
        if transaction.commits {
            writer.commit()?;
            committed = model;
        } else {
            drop(writer);
        }
        if transaction.observed {
            if held.len() == HELD {
                held.remove(0);
            }
            held.push((storage.read()?, committed.clone()));
        }
        for (reader, model) in &held {
            compare_all(&**reader, model)?;
        }
    }
    compare_all(&*storage.read()?, &committed)
}

fn perform(
    writer: &mut dyn WriteTx,
    model: &mut Model,
    operation: &Operation,
) -> Result<(), TestCaseError> {
    match operation {
        Operation::Put(table, key, value) => {
            writer.put(*table, key, value)?;
            model.insert((*table, key.clone()), value.clone());
        }
        Operation::Delete(table, key) => {
            let expected = model.remove(&(*table, key.clone())).is_some();
            prop_assert_eq!(writer.delete(*table, key)?, expected, "{:?}", operation);
        }
        Operation::Get(table, key) => {
            let expected = model.get(&(*table, key.clone())).cloned();
            prop_assert_eq!(writer.get(*table, key)?, expected, "{:?}", operation);
        }
        Operation::Scan(table, from, to, order) => {
            let found = collect(writer, *table, from, to.as_deref(), *order)?;
            let expected = modelled(model, *table, from, to.as_deref(), *order);
            prop_assert_eq!(found, expected, "{:?}", operation);
        }
    }
    Ok(())
}

fn compare_all(reader: &dyn ReadTx, model: &Model) -> Result<(), TestCaseError> {
    for table in TABLES {
        for order in [Order::Ascending, Order::Descending] {
            let found = collect(reader, table, b"", None, order)?;
            prop_assert_eq!(found, modelled(model, table, b"", None, order), "{:?}", table);
        }
    }
    Ok(())
}

fn modelled(
    model: &Model,
    table: Table,
    from: &[u8],
    to: Option<&[u8]>,
    order: Order,
) -> Vec<Pair> {
    let mut pairs: Vec<Pair> = model
        .iter()
        .filter(|((of, key), _)| *of == table && **key >= *from && to.is_none_or(|to| **key < *to))
        .map(|((_, key), value)| (key.clone(), value.clone()))
        .collect();
    if order == Order::Descending {
        pairs.reverse();
    }
    pairs
}

fn transaction() -> impl Strategy<Value = Transaction> {
    let durability = prop_oneof![Just(Durability::Full), Just(Durability::Normal)];
    (vec(operation(), 0..24), durability, proptest::bool::weighted(0.7), any::<bool>()).prop_map(
        |(operations, durability, commits, observed)| Transaction {
            operations,
            durability,
            commits,
            observed,
        },
    )
}

fn operation() -> impl Strategy<Value = Operation> {
    let order = prop_oneof![Just(Order::Ascending), Just(Order::Descending)];
    prop_oneof![
        4 => (place(), value()).prop_map(|((table, key), value)| Operation::Put(table, key, value)),
        2 => place().prop_map(|(table, key)| Operation::Delete(table, key)),
        1 => place().prop_map(|(table, key)| Operation::Get(table, key)),
        2 => (table(), key(), proptest::option::of(key()), order)
            .prop_map(|(table, from, to, order)| Operation::Scan(table, from, to, order)),
    ]
}

/// A table and a key that it can hold.
fn place() -> impl Strategy<Value = (Table, Vec<u8>)> {
    (table(), key(), 0..12_u64).prop_map(|(table, key, number)| {
        if table.integer_keyed() { (table, number.to_be_bytes().to_vec()) } else { (table, key) }
    })
}

fn table() -> impl Strategy<Value = Table> {
    proptest::sample::select(&TABLES[..])
}

/// Few letters and short, so that keys meet again and are prefixes of each other.
fn key() -> impl Strategy<Value = Vec<u8>> {
    vec(proptest::sample::select(&[0, 1, 0x7F, 0xFF][..]), 0..4)
}

/// Mostly short; some need more than a page.
fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => vec(any::<u8>(), 0..40),
        1 => (any::<u8>(), 3_000..20_000_usize).prop_map(|(byte, length)| vec![byte; length]),
    ]
}
