//! Carrying out again what entries do at some paths, as if nothing had been done there yet.

use super::gather::{Scope, gather};
use super::{Budget, Stretch};
use crate::cells;
use crate::ledger::Ledger;
use crate::rows::StoreNo;
use crate::storage::StorageError;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

/// What is to be done again.
#[derive(Debug)]
pub(crate) struct Again {
    paths: BTreeMap<StoreNo, HashSet<Vec<u8>>>,
    /// Stores of which it is to be found out whether something in them is of a later kind.
    pub(super) newer: BTreeSet<StoreNo>,
}

/// In which of `parts` a path is dealt with.
pub(crate) fn part_of(path: &[u8], parts: u64) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(path) % parts
}

impl Again {
    pub(crate) fn of(newer: BTreeSet<StoreNo>) -> Self {
        Self { paths: BTreeMap::new(), newer }
    }

    pub(crate) fn add(&mut self, store: StoreNo, path: &[u8]) {
        let paths = self.paths.entry(store).or_default();
        if !paths.contains(path) {
            paths.insert(path.to_vec());
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.paths.is_empty() && self.newer.is_empty()
    }

    pub(super) fn concerns(&self, store: StoreNo) -> bool {
        self.writes_to(store) || self.newer.contains(&store)
    }

    pub(super) fn writes_to(&self, store: StoreNo) -> bool {
        self.paths.contains_key(&store)
    }

    pub(super) fn has(&self, store: StoreNo, path: &[u8]) -> bool {
        self.paths.get(&store).is_some_and(|paths| paths.contains(path))
    }

    /// Does it, with the entries that arrived up to number `built`.
    pub(crate) fn carry_out(self, ledger: &mut Ledger<'_>, built: u64) -> Result<(), StorageError> {
        for (store, paths) in &self.paths {
            for path in paths {
                cells::clear(ledger, *store, path)?;
            }
        }
        // What was kept back has to be in the tables, which is where entries are read from.
        ledger.flush_branches()?;
        let end = ledger.counters.next_arrival - 1;
        let scope = Scope::new(ledger.view(), &ledger.counters, Some((self, built)))?;
        let mut first = 1;
        while first <= end {
            let (parts, entries) = gather(ledger.view(), first, Budget::default(), &scope)?;
            if entries == 0 {
                break;
            }
            Stretch { first, entries, revocations: 0, keys: 0, parts }.carry_out(ledger)?;
            first += entries;
        }
        Ok(())
    }
}
