//! Bulk loads: where much arrives at once, entries are stored without what they do to cells, and that is made good later in
//! sorted stretches, so that cells go in by the order of their keys instead of each to a page of its own. One row says how
//! far the cells are; until they are at the end nobody reads or writes any ([`StorageError::Building`]), and whoever wants
//! to can bring them there with [`step`]. A crash loses nothing: what was not committed is done again.
//!
//! Operations at different paths do not depend on each other, so each path's operations in the order of arrival give what
//! all of them in the order of arrival would (I2).

use crate::cells::{Op, Origin, carry_out, element};
use crate::counters::{self, decode_counts};
use crate::entry::Timestamp;
use crate::error::corrupt;
use crate::id::{EntryId, LogId, Seq};
use crate::ledger::Ledger;
use crate::lthash::LtHash;
use crate::names::Names;
use crate::ops::{ValueName, decode_cells_of};
use crate::rows::{BranchNo, EntryRow, Row, StoreNo};
use crate::sabotage::{self, Bug};
use crate::storage::{Durability, Order, Storage, StorageError, Table};
use crate::view::View;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{ControlFlow, Range};

/// Bytes of operations that one stretch holds in memory, about, unless told otherwise.
pub const STRETCH_BYTES: usize = 48 * 1024 * 1024;

/// Carries out a stretch of what entries stored without their cells do, of about `budget` bytes; says how many entries are
/// left. `None`: nothing was to be done. Blocking.
///
/// Cost: each entry is read once, its operations are sorted, and each page of cells is touched once a stretch.
///
/// # Errors
/// [`StorageError`]; then nothing was changed.
pub fn step(storage: &dyn Storage, budget: usize) -> Result<Option<u64>, StorageError> {
    let stretch = {
        let tx = storage.read()?;
        let view = View::new(&*tx);
        match view.built()? {
            None => return Ok(None),
            Some(built) => Stretch::gather(view, built + 1, budget)?,
        }
    };
    // Cells follow from entries, so a loss of power may take them back.
    let mut tx = storage.write(Durability::Normal)?;
    let mut ledger = Ledger::open(&mut *tx)?;
    if ledger.built() == Some(stretch.first - 1) {
        let last = stretch.first - 1 + stretch.entries.len() as u64;
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
pub fn finish(storage: &dyn Storage, budget: usize) -> Result<(), StorageError> {
    while step(storage, budget)?.is_some() {}
    Ok(())
}

/// Operations of entries that arrived one after the other.
struct Stretch {
    /// Arrival number of the first entry.
    first: u64,
    entries: Vec<Source>,
    ops: Vec<Gathered>,
    /// Paths and values.
    bytes: Vec<u8>,
    /// What the values add to the digests of their stores.
    added: BTreeMap<StoreNo, LtHash>,
    logs: BTreeMap<BranchNo, LogId>,
    replaced: Vec<ValueName>,
    /// By store and path: what is added to the sum there.
    sums: BTreeMap<(StoreNo, Vec<u8>), i128>,
    /// What these take in memory, about.
    sums_bytes: usize,
    /// Stores with operations that this program does not know.
    newer: BTreeSet<StoreNo>,
}

struct Source {
    id: EntryId,
    branch: BranchNo,
    seq: Seq,
    timestamp: Timestamp,
}

struct Gathered {
    store: StoreNo,
    /// Where the path begins, as a number that sorts alike: most comparisons end here.
    prefix: u64,
    /// Which entry of the stretch, and which of its operations.
    ordinal: (u32, u32),
    path: Range<u32>,
    value: Option<Range<u32>>,
    replaced: Range<u32>,
}

impl Stretch {
    /// Reads the operations of the stretch and puts them in order: all that can be done while others write.
    fn gather(view: View<'_>, first: u64, budget: usize) -> Result<Self, StorageError> {
        // Room for all of it from the start, since what grows is copied and takes twice as much meanwhile.
        const LEAST: usize = size_of::<Source>() + size_of::<Gathered>() + 16;
        let left = view.next_arrival()?.saturating_sub(first);
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(budget / LEAST);
        let mut stretch = Self {
            first,
            entries: Vec::with_capacity(most),
            ops: Vec::with_capacity(most),
            bytes: Vec::with_capacity((most * LEAST).min(budget / 2)),
            added: BTreeMap::new(),
            logs: BTreeMap::new(),
            replaced: Vec::new(),
            sums: BTreeMap::new(),
            sums_bytes: 0,
            newer: BTreeSet::new(),
        };
        let mut names = Names::new(view)?;
        // Offsets have 32 bits.
        let budget = budget.min(1 << 30);
        let mut failed = None;
        let from = first.to_be_bytes();
        view.tx.scan(Table::Entry, &from, None, Order::Ascending, &mut |_, row| {
            match EntryRow::from_bytes(row).and_then(|row| stretch.add(&mut names, row)) {
                Err(e) => failed = Some(e),
                Ok(()) if stretch.size() < budget => return ControlFlow::Continue(()),
                Ok(()) => {}
            }
            ControlFlow::Break(())
        })?;
        if let Some(e) = failed {
            return Err(e);
        }
        stretch.sort();
        Ok(stretch)
    }

    fn sort(&mut self) {
        let Self { ops, bytes, .. } = self;
        let path = |op: &Gathered| &bytes[op.path.start as usize..op.path.end as usize];
        ops.sort_unstable_by(|a, b| {
            let by_prefix = (a.store, a.prefix).cmp(&(b.store, b.prefix));
            by_prefix.then_with(|| path(a).cmp(path(b))).then_with(|| {
                match sabotage::is(Bug::StretchUnordered) {
                    true => b.ordinal.cmp(&a.ordinal),
                    false => a.ordinal.cmp(&b.ordinal),
                }
            })
        });
    }

    fn size(&self) -> usize {
        self.bytes.len()
            + self.entries.len() * size_of::<Source>()
            + self.ops.len() * size_of::<Gathered>()
            + self.replaced.len() * size_of::<ValueName>()
            + self.sums_bytes
    }

    fn add(&mut self, names: &mut Names<'_>, row: EntryRow) -> Result<(), StorageError> {
        let EntryRow { id, branch, seq, body } = row;
        let log = names.log(branch)?;
        self.logs.entry(branch).or_insert(log);
        let number = self.entries.len() as u32;
        self.entries.push(Source { id, branch, seq, timestamp: body.timestamp });
        for (store, payload) in &body.payloads {
            let Some(payload) = payload.bytes() else { continue };
            let kind = names.store(*store)?.kind;
            if kind.has_sums() {
                self.count(*store, payload);
            }
            if !kind.has_cells() {
                continue;
            }
            let decoded = decode_cells_of(&id, &log, payload);
            if decoded.unknown {
                self.newer.insert(*store);
            }
            for (index, op) in decoded.ops.into_iter().enumerate() {
                let Some(op) = op else { continue };
                if let Some(value) = &op.value {
                    let element = element(kind, op.path.as_bytes(), &id, index as u32, value);
                    self.added.entry(*store).or_default().add(&element);
                }
                let path = self.keep(op.path.as_bytes());
                let value = op.value.map(|value| self.keep(&value));
                let from = self.replaced.len() as u32;
                self.replaced.extend(op.replaces);
                self.ops.push(Gathered {
                    store: *store,
                    prefix: prefix(op.path.as_bytes()),
                    ordinal: (number, index as u32),
                    path,
                    value,
                    replaced: from..self.replaced.len() as u32,
                });
            }
        }
        Ok(())
    }

    fn count(&mut self, store: StoreNo, payload: &[u8]) {
        let decoded = decode_counts(payload);
        if decoded.unknown {
            self.newer.insert(store);
        }
        for op in decoded.ops.into_iter().flatten() {
            let path = op.path.as_bytes().to_vec();
            let bytes = path.len() + size_of::<((StoreNo, Vec<u8>), i128)>();
            let sum = self.sums.entry((store, path)).or_insert_with(|| {
                self.sums_bytes += bytes;
                0
            });
            *sum = sum.wrapping_add(op.count.delta());
        }
    }

    fn keep(&mut self, bytes: &[u8]) -> Range<u32> {
        let from = self.bytes.len() as u32;
        self.bytes.extend_from_slice(bytes);
        from..self.bytes.len() as u32
    }

    fn carry_out(self, ledger: &mut Ledger<'_>) -> Result<(), StorageError> {
        let Self { first, entries, ops, bytes, added, logs, replaced, sums, newer, .. } = self;
        let slice = |range: &Range<u32>| &bytes[range.start as usize..range.end as usize];
        for (store, sum) in added {
            ledger.store(store)?.sum.merge(&sum);
        }
        for (at, op) in ops.iter().enumerate() {
            if at % AHEAD == 0 {
                touch(&ops[at..ops.len().min(at + AHEAD)], &entries, &bytes);
            }
            let (number, index) = op.ordinal;
            let source = entries.get(number as usize).ok_or_else(|| corrupt("an entry"))?;
            let origin = Origin {
                entry: &source.id,
                log: logs.get(&source.branch).ok_or_else(|| corrupt("a log"))?,
                timestamp: source.timestamp,
                arrival: first + u64::from(number),
            };
            let replaces = &replaced[op.replaced.start as usize..op.replaced.end as usize];
            let done = Op { path: slice(&op.path), value: op.value.as_ref().map(slice), replaces };
            let place = (source.branch, source.seq, index);
            let live = carry_out(ledger, origin, place, op.store, &done)?;
            if let (false, Some(value)) = (live, done.value) {
                // Summed up above, and somebody had replaced it before it came.
                let store = ledger.store(op.store)?;
                store.sum.remove(&element(store.id.kind, done.path, &source.id, index, value));
            }
        }
        for ((store, path), delta) in sums {
            counters::add(ledger, store, &path, delta)?;
        }
        for store in newer {
            ledger.store(store)?.needs_newer = true;
        }
        Ok(())
    }
}

/// Operations whose bytes are fetched from memory together.
const AHEAD: usize = 64;

/// Reads a byte of all that these operations need. In the order of keys each lies somewhere else, and the processor waits for
/// many such places at once where it would else wait for one after the other.
fn touch(ops: &[Gathered], entries: &[Source], bytes: &[u8]) {
    let touched = ops.iter().fold(0, |touched, op| {
        let entry = entries.get(op.ordinal.0 as usize).map_or(0, |entry| entry.id.0[0]);
        touched ^ entry ^ bytes.get(op.path.start as usize).unwrap_or(&0)
    });
    std::hint::black_box(touched);
}

fn prefix(path: &[u8]) -> u64 {
    let mut first = [0; 8];
    let len = path.len().min(8);
    first[..len].copy_from_slice(&path[..len]);
    u64::from_be_bytes(first)
}
