//! Reading what the entries of a stretch do. One thread reads the table, others decode what it read and sum it up, each into
//! a part of its own that it puts in order.

use super::Budget;
use super::again::Again;
use crate::cells::element;
use crate::compared::Uncounted;
use crate::counters::decode_counts;
use crate::entry::{StoreId, StoreKind, Timestamp};
use crate::error::corrupt;
use crate::id::{EntryId, LogId, Seq};
use crate::lthash::LtHash;
use crate::names::Names;
use crate::ops::{ValueName, decode_cells, decode_cells_of, decode_members};
use crate::rows::{BranchNo, Counters, EntryRow, Row, StoreNo};
use crate::sabotage::{self, Bug};
use crate::seal::{self, Ring};
use crate::storage::{Order, StorageError, Table};
use crate::view::View;
use std::cmp::Ordering;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{ControlFlow, Range};
use std::sync::atomic::{self, AtomicUsize};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;

/// Bytes of rows that a thread is handed at once.
const BATCH_BYTES: usize = 64 * 1024;
/// Offsets have 32 bits.
const MOST_BYTES: usize = 1 << 30;

/// Operations in order of store, path and arrival.
#[derive(Default)]
pub(super) struct Part {
    pub(super) entries: Vec<Source>,
    pub(super) ops: Vec<Gathered>,
    /// Paths and values.
    pub(super) bytes: Vec<u8>,
    /// What the values add to the digests of their stores.
    pub(super) added: BTreeMap<StoreNo, LtHash>,
    pub(super) logs: BTreeMap<BranchNo, LogId>,
    pub(super) replaced: Vec<ValueName>,
    /// By store and path: what is added to the sum there.
    pub(super) sums: BTreeMap<(StoreNo, Vec<u8>), i128>,
    /// What these take in memory, about.
    sums_bytes: usize,
    /// Stores with operations that this program does not know.
    pub(super) newer: BTreeSet<StoreNo>,
    /// What was wrong with an entry.
    failed: Option<StorageError>,
}

pub(super) struct Source {
    pub(super) arrival: u64,
    pub(super) id: EntryId,
    pub(super) branch: BranchNo,
    pub(super) seq: Seq,
    pub(super) timestamp: Timestamp,
}

pub(super) struct Gathered {
    pub(super) store: StoreNo,
    /// Where the path begins, as a number that sorts alike: most comparisons end here.
    prefix: u64,
    /// Which entry of the part, and which of its operations.
    pub(super) ordinal: (u32, u32),
    path: Range<u32>,
    value: Option<Range<u32>>,
    replaced: Range<u32>,
}

/// Entries as they are stored, and the logs that they are of.
struct Batch {
    /// Arrival number of the first entry.
    first: u64,
    rows: Vec<u8>,
    /// Where each row ends.
    ends: Vec<u32>,
    logs: BTreeMap<BranchNo, LogId>,
}

/// What of entries is gathered.
pub(super) struct Scope {
    /// Entries that do nothing.
    pub(super) uncounted: Uncounted,
    /// If only some of what they do is: which, and of entries up to which number.
    pub(super) again: Option<(Again, u64)>,
    /// What payloads are opened with.
    pub(super) ring: Ring,
    /// All stores.
    pub(super) stores: BTreeMap<StoreNo, StoreId>,
}

impl Scope {
    pub(super) fn new(
        view: View<'_>,
        counters: &Counters,
        again: Option<(Again, u64)>,
    ) -> Result<Self, StorageError> {
        let store = |number| Ok((number, view.store_row(number)?.id));
        Ok(Self {
            uncounted: Uncounted::of(view.tx, counters)?,
            again,
            ring: view.ring()?,
            stores: (1..=counters.stores).map(store).collect::<Result<_, StorageError>>()?,
        })
    }

    fn store(&self, store: StoreNo) -> Result<&StoreId, StorageError> {
        self.stores.get(&store).ok_or_else(|| corrupt("a store"))
    }
}

/// What entries from `first` on do, of about `budget.bytes`; and how many entries that are.
pub(super) fn gather(
    view: View<'_>,
    first: u64,
    budget: Budget,
    wanted: &Scope,
) -> Result<(Vec<Part>, u64), StorageError> {
    let most = budget.bytes.min(MOST_BYTES);
    let left = usize::try_from(view.next_arrival()?.saturating_sub(first)).unwrap_or(usize::MAX);
    // Of what is done again nobody knows how much it is.
    let left = if wanted.again.is_some() { 0 } else { left };
    let batch = BATCH_BYTES.min(most / 8);
    let size = AtomicUsize::new(0);
    let small = || size.load(atomic::Ordering::Relaxed) < most;
    thread::scope(|scope| {
        let (hand, handed) = mpsc::sync_channel(budget.threads);
        // Once no worker is left nothing can be handed to any.
        let handed = Arc::new(Mutex::new(handed));
        let workers: Vec<_> = (0..budget.threads)
            .filter(|_| budget.threads > 1)
            .map_while(|_| {
                let (handed, size) = (Arc::clone(&handed), &size);
                thread::Builder::new()
                    .name("anabranch-build".into())
                    .spawn_scoped(scope, move || {
                        // Made here: a thread's memory is given back when it ends.
                        work(&handed, Part::with_room(left, most), wanted, size)
                    })
                    .ok()
            })
            .collect();
        drop(handed);
        if workers.is_empty() {
            let mut part = Part::with_room(left, most);
            let read = read(view, first, batch, |batch| {
                part.take(batch, wanted, &size);
                small()
            })?;
            part.finish()?;
            return Ok((vec![part], read));
        }
        let read = read(view, first, batch, |batch| hand.send(batch).is_ok() && small());
        drop(hand);
        let parts = workers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        let parts: thread::Result<Result<Vec<Part>, StorageError>> = parts;
        Ok((parts.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?, read?))
    })
}

/// Gathers what is handed over until there is no more.
fn work(
    handed: &Mutex<mpsc::Receiver<Batch>>,
    mut part: Part,
    scope: &Scope,
    size: &AtomicUsize,
) -> Result<Part, StorageError> {
    // Waiting for the lock is waiting for a batch.
    let next = || handed.lock().unwrap_or_else(PoisonError::into_inner).recv();
    while let Ok(batch) = next() {
        part.take(batch, scope, size);
    }
    part.finish()?;
    Ok(part)
}

/// Reads entries in the order of arrival until `take` wants no more; says how many `take` got.
fn read(
    view: View<'_>,
    first: u64,
    bytes: usize,
    mut take: impl FnMut(Batch) -> bool,
) -> Result<u64, StorageError> {
    let mut names = Names::new(view)?;
    let mut batch = Batch::starting(first);
    let mut failed = None;
    view.tx.scan(Table::Entry, &first.to_be_bytes(), None, Order::Ascending, &mut |_, row| {
        if let Err(e) = batch.add(&mut names, row) {
            failed = Some(e);
            return ControlFlow::Break(());
        }
        if batch.rows.len() < bytes {
            return ControlFlow::Continue(());
        }
        let next = Batch::starting(batch.end());
        match take(std::mem::replace(&mut batch, next)) {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    })?;
    if let Some(e) = failed {
        return Err(e);
    }
    let end = batch.end();
    if !batch.ends.is_empty() {
        take(batch);
    }
    Ok(end - first)
}

impl Batch {
    fn starting(first: u64) -> Self {
        Self { first, rows: Vec::new(), ends: Vec::new(), logs: BTreeMap::new() }
    }

    fn end(&self) -> u64 {
        self.first + self.ends.len() as u64
    }

    /// Little is done here, since one thread reads for all.
    fn add(&mut self, names: &mut Names<'_>, row: &[u8]) -> Result<(), StorageError> {
        let (branch, _) = EntryRow::place_of(row)?;
        if let Entry::Vacant(new) = self.logs.entry(branch) {
            new.insert(names.log(branch)?);
        }
        self.rows.extend_from_slice(row);
        self.ends.push(u32::try_from(self.rows.len()).map_err(|_| corrupt("an entry"))?);
        Ok(())
    }

    /// Each entry with its arrival number.
    fn entries(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let rows = starts.zip(&self.ends).map(|(from, to)| &self.rows[from as usize..*to as usize]);
        (self.first..).zip(rows)
    }
}

impl Part {
    /// With room for all of `entries` as far as `bytes` allow, since what grows is copied and takes twice as much meanwhile.
    /// What is not used takes no memory.
    fn with_room(entries: usize, bytes: usize) -> Self {
        const LEAST: usize = size_of::<Source>() + size_of::<Gathered>() + 16;
        let most = entries.min(bytes / LEAST);
        Self {
            entries: Vec::with_capacity(most),
            ops: Vec::with_capacity(most),
            bytes: Vec::with_capacity((most * LEAST).min(bytes / 2)),
            ..Self::default()
        }
    }

    fn size(&self) -> usize {
        self.bytes.len()
            + self.entries.len() * size_of::<Source>()
            + self.ops.len() * size_of::<Gathered>()
            + self.replaced.len() * size_of::<ValueName>()
            // Here and among the stores that the ledger keeps.
            + self.added.len() * 3 * LtHash::STATE_BYTES
            + self.sums_bytes
    }

    fn take(&mut self, batch: Batch, scope: &Scope, size: &AtomicUsize) {
        if self.failed.is_some() {
            return;
        }
        let before = self.size();
        for (arrival, row) in batch.entries() {
            if let Err(e) = self.take_row(&batch.logs, scope, arrival, row) {
                self.failed = Some(e);
                break;
            }
        }
        self.logs.extend(batch.logs);
        size.fetch_add(self.size() - before, atomic::Ordering::Relaxed);
    }

    fn take_row(
        &mut self,
        logs: &BTreeMap<BranchNo, LogId>,
        scope: &Scope,
        arrival: u64,
        row: &[u8],
    ) -> Result<(), StorageError> {
        if let Some((again, _)) = &scope.again
            && !EntryRow::outline(row)?.stores.iter().any(|store| again.concerns(*store))
        {
            return Ok(());
        }
        let mut row = EntryRow::from_bytes(row)?;
        if !scope.uncounted.counts(row.body.grant, (row.branch, row.seq)) {
            return Ok(());
        }
        let log = logs.get(&row.branch).ok_or_else(|| corrupt("a log"))?;
        let Some((again, built)) = &scope.again else {
            return self.add(log, scope, arrival, row, |_, _| true);
        };
        self.look_for_newer(log, scope, &row, again)?;
        row.body.payloads.retain(|(store, _)| arrival <= *built && again.writes_to(*store));
        if row.body.payloads.is_empty() {
            return Ok(());
        }
        self.add(log, scope, arrival, row, |store, path| again.has(store, path))
    }

    /// Notes the stores of which that is to be found out and in which the entry does something of a later kind.
    fn look_for_newer(
        &mut self,
        log: &LogId,
        scope: &Scope,
        row: &EntryRow<'_>,
        again: &Again,
    ) -> Result<(), StorageError> {
        for (store, payload) in &row.body.payloads {
            let (true, Some(payload)) = (again.newer.contains(store), payload.bytes()) else {
                continue;
            };
            let id = scope.store(*store)?;
            let Ok(payload) = scope.ring.open(log, id, payload) else { continue };
            let unknown = match id.kind {
                StoreKind::MEMBERS => decode_members(&payload).unknown,
                StoreKind::KEYS => seal::needs_newer(scope.ring.is_sealed(), &payload),
                kind if kind.has_sums() => decode_counts(&payload).unknown,
                kind => !kind.has_cells() || decode_cells(log, &payload).unknown,
            };
            if unknown {
                self.newer.insert(*store);
            }
        }
        Ok(())
    }

    fn add(
        &mut self,
        log: &LogId,
        scope: &Scope,
        arrival: u64,
        row: EntryRow<'static>,
        wanted: impl Fn(StoreNo, &[u8]) -> bool,
    ) -> Result<(), StorageError> {
        let EntryRow { id, branch, seq, body } = row;
        let number = self.entries.len() as u32;
        self.entries.push(Source { arrival, id, branch, seq, timestamp: body.timestamp });
        for (store, payload) in &body.payloads {
            let Some(payload) = payload.bytes() else { continue };
            let store_id = scope.store(*store)?;
            let kind = store_id.kind;
            let known = kind.has_cells() || kind.has_sums();
            if !known && !scope.ring.seals(store_id) {
                continue;
            }
            let Ok(payload) = scope.ring.open(log, store_id, payload) else { continue };
            if !known {
                // Where it could not be opened when it came, that was not noted then.
                self.newer.insert(*store);
                continue;
            }
            if kind.has_sums() {
                self.count(*store, &payload);
                continue;
            }
            let decoded = decode_cells_of(&id, log, &payload);
            if decoded.unknown {
                self.newer.insert(*store);
            }
            for (index, op) in decoded.ops.into_iter().enumerate() {
                let Some(op) = op.filter(|op| wanted(*store, op.path.as_bytes())) else { continue };
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

    /// Puts it in order, if nothing was wrong. Batches came in the order of arrival, so within a part entries are in that
    /// order.
    fn finish(&mut self) -> Result<(), StorageError> {
        if let Some(e) = self.failed.take() {
            return Err(e);
        }
        let mut ops = std::mem::take(&mut self.ops);
        ops.sort_unstable_by(|a, b| {
            self.by_path(a, self, b).then_with(|| match sabotage::is(Bug::StretchUnordered) {
                true => b.ordinal.cmp(&a.ordinal),
                false => a.ordinal.cmp(&b.ordinal),
            })
        });
        self.ops = ops;
        Ok(())
    }

    fn by_path(&self, op: &Gathered, other: &Self, others: &Gathered) -> Ordering {
        let by_prefix = (op.store, op.prefix).cmp(&(others.store, others.prefix));
        by_prefix.then_with(|| self.path(op).cmp(other.path(others)))
    }

    /// How an operation of this part and one of another part are to be carried out one after the other.
    pub(super) fn order(&self, op: &Gathered, other: &Self, others: &Gathered) -> Ordering {
        let arrival = |part: &Self, op: &Gathered| part.source(op).map(|source| source.arrival);
        self.by_path(op, other, others).then_with(|| arrival(self, op).cmp(&arrival(other, others)))
    }

    pub(super) fn source(&self, op: &Gathered) -> Option<&Source> {
        self.entries.get(op.ordinal.0 as usize)
    }

    pub(super) fn path(&self, op: &Gathered) -> &[u8] {
        &self.bytes[op.path.start as usize..op.path.end as usize]
    }

    pub(super) fn value(&self, op: &Gathered) -> Option<&[u8]> {
        op.value.as_ref().map(|range| &self.bytes[range.start as usize..range.end as usize])
    }

    pub(super) fn replaces(&self, op: &Gathered) -> &[ValueName] {
        &self.replaced[op.replaced.start as usize..op.replaced.end as usize]
    }

    pub(super) fn log(&self, source: &Source) -> Result<&LogId, StorageError> {
        self.logs.get(&source.branch).ok_or_else(|| corrupt("a log"))
    }
}

fn prefix(path: &[u8]) -> u64 {
    let mut first = [0; 8];
    let len = path.len().min(8);
    first[..len].copy_from_slice(&path[..len]);
    u64::from_be_bytes(first)
}
