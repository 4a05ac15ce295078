//! Random transactions, and what the database holds after each of them.

use std::collections::BTreeMap;

use anabranch_core::storage::{Durability, Storage, StorageError, Table, WriteTx};
use anabranch_store::SqliteStorage;

/// Everything in a database.
pub(crate) type Contents = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

type Write = (Table, Vec<u8>, Option<Vec<u8>>);

/// Which durability transactions ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asking {
    Full,
    Normal,
    /// Either, at random.
    Mixed,
}

#[derive(Debug, Clone)]
pub(crate) struct Transaction {
    /// A value, or nothing for a key that goes. Now and then there are no writes at all.
    writes: Vec<Write>,
    durability: Durability,
}

/// A run of transactions.
#[derive(Debug)]
pub(crate) struct Plan {
    transactions: Vec<Transaction>,
    /// `states[n]` is what the first `n` transactions leave.
    states: Vec<Contents>,
}

/// How far it got.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Transactions whose commit was begun.
    pub(crate) begun: usize,
    /// Transactions whose commit was acknowledged.
    pub(crate) acknowledged: usize,
    /// As many of them are on stable storage, by the word of the store.
    pub(crate) safe: usize,
}

impl Plan {
    pub(crate) fn new(seed: u64, length: usize, asking: Asking) -> Self {
        let mut dice = Dice(seed);
        let mut states = vec![Contents::new()];
        let mut transactions = Vec::new();
        for n in 0..length {
            let transaction = Transaction::random(&mut dice, n, asking);
            let mut state = states[n].clone();
            for (table, key, value) in &transaction.writes {
                match value {
                    Some(value) => drop(state.insert((*table, key.clone()), value.clone())),
                    None => drop(state.remove(&(*table, key.clone()))),
                }
            }
            states.push(state);
            transactions.push(transaction);
        }
        Self { transactions, states }
    }

    pub(crate) fn len(&self) -> usize {
        self.transactions.len()
    }

    /// Commits the transactions from where `progress` is up to number `to`, or until one fails.
    pub(crate) fn run(
        &self,
        storage: &SqliteStorage,
        progress: &mut Progress,
        to: usize,
    ) -> Result<(), StorageError> {
        while progress.acknowledged < to {
            let transaction = &self.transactions[progress.acknowledged];
            let mut writer = storage.write(transaction.durability)?;
            for write in &transaction.writes {
                perform(&mut *writer, write)?;
            }
            progress.begun = progress.acknowledged + 1;
            writer.commit()?;
            progress.acknowledged += 1;
            if transaction.durability == Durability::Full {
                progress.safe = progress.acknowledged;
            }
        }
        Ok(())
    }

    /// Whether these are the contents after all transactions.
    pub(crate) fn is_whole(&self, contents: &Contents) -> bool {
        self.states[self.len()] == *contents
    }

    /// The greatest number of transactions, from `least` to `most`, that leave exactly these contents.
    pub(crate) fn place(&self, contents: &Contents, least: usize, most: usize) -> Option<usize> {
        (least..=most).rev().find(|n| self.states[*n] == *contents)
    }
}

impl Progress {
    /// Where a database stands in which the first `count` transactions were found safe.
    pub(crate) fn at(count: usize) -> Self {
        Self { begun: count, acknowledged: count, safe: count }
    }
}

impl Transaction {
    fn random(dice: &mut Dice, n: usize, asking: Asking) -> Self {
        let durability = match asking {
            Asking::Mixed if dice.below(2) == 0 => Durability::Full,
            Asking::Full => Durability::Full,
            Asking::Normal | Asking::Mixed => Durability::Normal,
        };
        if n % 5 == 4 {
            return Self { writes: Vec::new(), durability };
        }
        let number = (n as u64).to_be_bytes().to_vec();
        let mut writes = vec![
            (Table::Meta, b"next".to_vec(), Some(number.clone())),
            (Table::Entry, number, Some(dice.value())),
        ];
        for _ in 0..dice.below(4) {
            let table = [Table::Cell, Table::Head, Table::Blob][dice.below(3)];
            let value = (dice.below(4) > 0).then(|| dice.value());
            writes.push((table, vec![dice.below(8) as u8; 1 + dice.below(20)], value));
        }
        Self { writes, durability }
    }
}

fn perform(writer: &mut dyn WriteTx, (table, key, value): &Write) -> Result<(), StorageError> {
    match value {
        Some(value) => writer.put(*table, key, value),
        None => writer.delete(*table, key).map(drop),
    }
}

/// Choices of a test, apart from those of the disk.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % bound as u64) as usize
    }

    /// Mostly short; some need more than a page.
    fn value(&mut self) -> Vec<u8> {
        let length = [10, 100, 1_000, 9_000][self.below(4)] + self.below(90);
        (0..length).map(|_| self.below(256) as u8).collect()
    }
}
