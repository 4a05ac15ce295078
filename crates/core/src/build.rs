//! Bulk loads: where much arrives at once, entries are stored without what they do to cells, and that is made good later in
//! sorted stretches, so that cells go in by the order of their keys instead of each to a page of its own. One row says how
//! far the cells are; until they are at the end nobody reads or writes any ([`StorageError::Building`]), and whoever wants
//! to can bring them there with [`step`]. A crash loses nothing: what was not committed is done again.
//!
//! Operations at different paths do not depend on each other, so each path's operations in the order of arrival give what
//! all of them in the order of arrival would (I2).

pub(crate) mod again;
mod gather;

use self::gather::{Gathered, Part, Scope, gather};
use crate::cells::{Op, Origin, carry_out, element};
use crate::counters;
use crate::error::corrupt;
use crate::ledger::Ledger;
use crate::sabotage::{self, Bug};
use crate::storage::{Durability, Storage, StorageError};
use crate::view::View;

/// What one stretch may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Bytes of operations that it holds in memory, about.
    pub bytes: usize,
    /// Threads that decode and sum up, besides the caller's; with one or none it does that itself. Which entries are in a
    /// stretch depends on their pace if there are several; what comes of it all does not.
    pub threads: usize,
}

impl Default for Budget {
    /// 48 MiB, and two threads if there are two processors: reading does not keep more of them busy.
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self { bytes: 48 * 1024 * 1024, threads: processors.min(2) }
    }
}

/// Carries out a stretch of what entries stored without their cells do; says how many entries are left. `None`: nothing was
/// to be done. Blocking.
///
/// Cost: each entry is read once, its operations are sorted, and each page of cells is touched once a stretch.
///
/// # Errors
/// [`StorageError`]; then nothing was changed.
pub fn step(storage: &dyn Storage, budget: Budget) -> Result<Option<u64>, StorageError> {
    let stretch = {
        let tx = storage.read()?;
        let view = View::new(&*tx);
        match view.built()? {
            None => return Ok(None),
            Some(built) => {
                let counters = view.counters()?;
                let scope = Scope::new(view, &counters, None)?;
                let (parts, entries) = gather(view, built + 1, budget, &scope)?;
                let revocations = counters.revocations;
                let keys = scope.ring.ids().count();
                Stretch { first: built + 1, entries, revocations, keys, parts }
            }
        }
    };
    // Cells follow from entries, so a loss of power may take them back.
    let mut tx = storage.write(Durability::Normal)?;
    let mut ledger = Ledger::open(&mut *tx)?;
    // A revocation that came meanwhile may have changed what counts, a key what can be opened; then the stretch is read again.
    let same = ledger.counters.revocations == stretch.revocations
        && ledger.ring()?.ids().count() == stretch.keys;
    if ledger.built() == Some(stretch.first - 1) && same {
        let last = stretch.first - 1 + stretch.entries;
        stretch.carry_out(&mut ledger)?;
        ledger.built_up_to(if sabotage::is(Bug::BuiltTooFar) { u64::MAX - 1 } else { last })?;
    }
    let left = ledger.built().map_or(0, |built| ledger.counters.next_arrival - 1 - built);
    ledger.finish()?;
    tx.commit()?;
    Ok(Some(left))
}

/// Carries out all that is left. Blocking; memory as [`step`].
///
/// # Errors
/// [`StorageError`].
pub fn finish(storage: &dyn Storage, budget: Budget) -> Result<(), StorageError> {
    while step(storage, budget)?.is_some() {}
    Ok(())
}

/// Operations of entries that arrived one after the other.
struct Stretch {
    /// Arrival number of the first entry.
    first: u64,
    entries: u64,
    /// How many revocations there were when it was read.
    revocations: u32,
    /// And how many keys to open entries with.
    keys: usize,
    parts: Vec<Part>,
}

impl Stretch {
    fn carry_out(self, ledger: &mut Ledger<'_>) -> Result<(), StorageError> {
        for (store, sum) in self.parts.iter().flat_map(|part| &part.added) {
            ledger.store(*store)?.sum.merge(sum);
        }
        let mut ops = InOrder::of(&self.parts);
        let mut ahead = Vec::with_capacity(AHEAD);
        loop {
            ahead.clear();
            ahead.extend(ops.by_ref().take(AHEAD));
            if ahead.is_empty() {
                break;
            }
            touch(&ahead);
            for (part, op) in &ahead {
                perform(ledger, part, op)?;
            }
        }
        for ((store, path), delta) in self.parts.iter().flat_map(|part| &part.sums) {
            counters::add(ledger, *store, path, *delta)?;
        }
        for store in self.parts.iter().flat_map(|part| &part.newer) {
            ledger.store(*store)?.needs_newer = true;
        }
        Ok(())
    }
}

fn perform(ledger: &mut Ledger<'_>, part: &Part, op: &Gathered) -> Result<(), StorageError> {
    let source = part.source(op).ok_or_else(|| corrupt("an entry"))?;
    let (log, index) = (part.log(source)?, op.ordinal.1);
    let origin =
        Origin { entry: &source.id, log, timestamp: source.timestamp, arrival: source.arrival };
    let done = Op { path: part.path(op), value: part.value(op), replaces: part.replaces(op) };
    let place = (source.branch, source.seq, index);
    let live = carry_out(ledger, origin, place, op.store, &done)?;
    if let (false, Some(value)) = (live, done.value) {
        // Summed up above, and somebody had replaced it before it came.
        let store = ledger.store(op.store)?;
        store.sum.remove(&element(store.id.kind, done.path, &source.id, index, value));
    }
    Ok(())
}

/// The operations of all parts in the order in which they are to be carried out.
struct InOrder<'p> {
    /// What is left of each.
    parts: Vec<(&'p Part, &'p [Gathered])>,
}

impl<'p> InOrder<'p> {
    fn of(parts: &'p [Part]) -> Self {
        Self { parts: parts.iter().map(|part| (part, &*part.ops)).collect() }
    }
}

impl<'p> Iterator for InOrder<'p> {
    type Item = (&'p Part, &'p Gathered);

    fn next(&mut self) -> Option<Self::Item> {
        let heads = self.parts.iter_mut().filter(|(_, ops)| !ops.is_empty());
        let (part, ops) = heads.min_by(|(a, of_a), (b, of_b)| a.order(&of_a[0], b, &of_b[0]))?;
        let (first, rest) = ops.split_first()?;
        *ops = rest;
        Some((part, first))
    }
}

/// Operations whose bytes are fetched from memory together.
const AHEAD: usize = 64;

/// Reads a byte of all that these operations need. In the order of keys each lies somewhere else, and the processor waits for
/// many such places at once where it would else wait for one after the other.
fn touch(ops: &[(&Part, &Gathered)]) {
    let touched = ops.iter().fold(0, |touched, (part, op)| {
        let entry = part.source(op).map_or(0, |source| source.id.0[0]);
        touched ^ entry ^ part.path(op).first().unwrap_or(&0)
    });
    std::hint::black_box(touched);
}
