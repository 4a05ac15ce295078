//! Cells: what a set of entries means. A value is live if no write at its path names it; several live values are a
//! conflict, the highest (timestamp, entry id, index) is shown (I11). Names of values that are not held yet are
//! remembered, so that the outcome never depends on the order of arrival (I2).

use crate::awaited;
use crate::codec::Writer;
use crate::entry::{Entry, StoreId, StoreKind, Timestamp};
use crate::id::{EntryId, LogId};
use crate::index;
use crate::ledger::Ledger;
use crate::lthash::LtHash;
use crate::ops::{ValueName, decode_cells_of};
use crate::past::{self, Sought};
use crate::path::Path;
use crate::rows::{
    BranchNo, CellRow, Place, StoreNo, cell_key, cell_prefix, last4, log_key, split_cell_key,
};
use crate::sabotage::{self, Bug};
use crate::seal;
use crate::storage::{Order, ReadTx, StorageError, Table};
use crate::unsummed::unsummed;
use crate::view::View;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

pub(crate) const STORE_KEY_PREFIX: &[u8] = b"store/";

pub(crate) fn store_key(id: &StoreId) -> Vec<u8> {
    [STORE_KEY_PREFIX, &id.kind.0.to_be_bytes(), id.name.as_bytes()].concat()
}

pub(crate) fn store_number(tx: &dyn ReadTx, id: &StoreId) -> Result<Option<StoreNo>, StorageError> {
    tx.get(Table::Meta, &store_key(id))?.map(|number| last4(&number)).transpose()
}

/// A live value of a cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveValue {
    /// Its name, as a write that replaces it states it.
    pub name: ValueName,
    /// The entry that wrote it.
    pub entry: EntryId,
    /// The author's clock.
    pub timestamp: Timestamp,
    /// The bytes.
    pub value: Vec<u8>,
}

impl LiveValue {
    fn rank(&self) -> (Timestamp, EntryId, u32) {
        (self.timestamp, self.entry, self.name.index)
    }
}

/// A cell and its live values, the winner first. More than one is a conflict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    /// Where it is.
    pub path: Path,
    /// At least one.
    pub values: Vec<LiveValue>,
}

impl Cell {
    /// The value shown.
    #[must_use]
    pub fn winner(&self) -> &LiveValue {
        &self.values[0]
    }
}

/// What one live value adds to its store's digest.
pub(crate) fn element(
    kind: StoreKind,
    path: &[u8],
    entry: &EntryId,
    index: u32,
    value: &[u8],
) -> blake3::Hasher {
    let mut hasher = blake3::Hasher::new_derive_key("anabranch 1 live value");
    hasher.update(&kind.0.to_be_bytes());
    hasher.update(&(path.len() as u32).to_be_bytes());
    hasher.update(path);
    hasher.update(&entry.0);
    hasher.update(&index.to_be_bytes());
    hasher.update(value);
    hasher
}

/// Carries out the operations of one payload.
pub(crate) fn apply(
    ledger: &mut Ledger<'_>,
    entry: &Entry,
    branch: BranchNo,
    store: StoreNo,
    payload: &[u8],
) -> Result<(), StorageError> {
    let header = entry.header();
    let decoded = decode_cells_of(&entry.id(), &header.log, payload);
    if decoded.unknown {
        ledger.store(store)?.needs_newer = true;
    }
    let id = entry.id();
    let arrival = ledger.counters.next_arrival - 1;
    let origin = Origin { entry: &id, log: &header.log, timestamp: header.timestamp, arrival };
    for (index, op) in decoded.ops.into_iter().enumerate() {
        let Some(op) = op else { continue };
        let place = (branch, header.seq, index as u32);
        let op =
            Op { path: op.path.as_bytes(), value: op.value.as_deref(), replaces: &op.replaces };
        if carry_out(ledger, origin, place, store, &op)?
            && let Some(value) = op.value
        {
            let store = ledger.adding(store)?;
            store.sum.add(&element(store.id.kind, op.path, &id, place.2, value));
        }
    }
    Ok(())
}

/// The entry that an operation belongs to.
#[derive(Clone, Copy)]
pub(crate) struct Origin<'e> {
    pub(crate) entry: &'e EntryId,
    pub(crate) log: &'e LogId,
    pub(crate) timestamp: Timestamp,
    /// Its arrival number: what came later was not held when it came.
    pub(crate) arrival: u64,
}

/// A [`crate::ops::CellOp`], borrowed.
pub(crate) struct Op<'o> {
    pub(crate) path: &'o [u8],
    pub(crate) value: Option<&'o [u8]>,
    pub(crate) replaces: &'o [ValueName],
}

/// Carries out one operation; whether its value is live now, and then it is for the caller to add its [`element`] to the
/// store's digest. Operations at different paths do not depend on each other.
pub(crate) fn carry_out(
    ledger: &mut Ledger<'_>,
    origin: Origin<'_>,
    place: Place,
    store: StoreNo,
    op: &Op<'_>,
) -> Result<bool, StorageError> {
    let mut through = Through::default();
    for name in op.replaces.iter().filter(|_| !sabotage::is(Bug::ReplacedKept)) {
        replace(ledger, origin.arrival, store, op.path, name, &mut through)?;
    }
    through.follow(ledger, (place.0, place.1), store, op.path)?;
    match op.value {
        Some(value) => add(ledger, origin, place, store, op.path, value),
        None => Ok(false),
    }
}

fn add(
    ledger: &mut Ledger<'_>,
    origin: Origin<'_>,
    place: Place,
    store: StoreNo,
    path: &[u8],
    value: &[u8],
) -> Result<bool, StorageError> {
    let (_, seq, index) = place;
    if ledger.counters.names > 0 {
        let name = ValueName { log: *origin.log, seq, index, id16: origin.entry.first16() };
        if ledger.tx.delete(Table::Name, &name_key(store, path, &name))? {
            ledger.counters.names -= 1;
            ledger.sum_up();
            return Ok(false);
        }
    }
    let row = CellRow::encode(origin.timestamp, origin.entry, value);
    let key = cell_key(store, path, place);
    ledger.tx.put(Table::Cell, &key, &row)?;
    index::added(ledger, store, &key, path, place, value)?;
    let number = store;
    let store = ledger.adding(number)?;
    store.live += 1;
    if store.id.kind.names_content() {
        awaited::note(ledger, number, origin.arrival, index, &key)?;
    }
    Ok(true)
}

fn replace(
    ledger: &mut Ledger<'_>,
    arrival: u64,
    store: StoreNo,
    path: &[u8],
    name: &ValueName,
    through: &mut Through,
) -> Result<(), StorageError> {
    for branch in ledger.branches_of(&name.log)? {
        if !ledger.branch(branch)?.owns(name.seq) {
            continue;
        }
        let place = (branch, name.seq, name.index);
        let key = cell_key(store, path, place);
        if let Some(row) = ledger.tx.get(Table::Cell, &key)? {
            let row = CellRow::decode(&row)?;
            if row.entry.first16() == name.id16 {
                return remove(ledger, store, path, place, &row);
            }
        } else if ledger.view().entry_id(branch, name.seq)?.first16() == name.id16
            && (ledger.view().arrival(branch, name.seq)? < arrival
                || sabotage::is(Bug::ReplacedAsOfNow))
        {
            // Held, and not live: replaced before, or never written here, or it does not count.
            if ledger.counters.revocations > 0 {
                through.note(ledger, place)?;
            }
            return Ok(());
        }
    }
    let key = name_key(store, path, name);
    if sabotage::is(Bug::NameForgotten) {
        return Ok(());
    }
    if ledger.tx.get(Table::Name, &key)?.is_none() {
        ledger.tx.put(Table::Name, &key, &[])?;
        ledger.counters.names += 1;
    }
    Ok(())
}

/// Values that do not count and were named as replaced. Whoever replaced one of them saw it in the place of what its own writer
/// replaced, so that goes as well, or it would be back.
#[derive(Default)]
struct Through {
    open: Vec<Place>,
    seen: BTreeSet<Place>,
    /// Whether places are in the writer's past.
    past: BTreeMap<past::Place, bool>,
}

impl Through {
    fn note(&mut self, ledger: &mut Ledger<'_>, place: Place) -> Result<(), StorageError> {
        let (branch, seq, _) = place;
        let grant = ledger.view().entry_row(branch, seq)?.body.grant;
        if !ledger.counts(grant, (branch, seq), false)? && self.seen.insert(place) {
            self.open.push(place);
        }
        Ok(())
    }

    /// Replaces what the noted values replaced, as far as all of it is in the past of the writer, whose place is given: what
    /// it cannot have seen stays.
    fn follow(
        mut self,
        ledger: &mut Ledger<'_>,
        writer: past::Place,
        store: StoreNo,
        path: &[u8],
    ) -> Result<(), StorageError> {
        if sabotage::is(Bug::NotPassedThrough) {
            return Ok(());
        }
        while let Some((branch, seq, index)) = self.open.pop() {
            let row = ledger.view().entry_row(branch, seq)?;
            let log = ledger.branch(branch)?.log;
            let payload = row.body.payloads.iter().find(|(number, _)| *number == store);
            let (ring, id) = (ledger.ring()?, ledger.adding(store)?.id.clone());
            let ops = payload
                .and_then(|(_, payload)| payload.bytes())
                .and_then(|bytes| ring.open(&log, &id, bytes).ok())
                .map(|bytes| decode_cells_of(&row.id, &log, &bytes).ops);
            let op = ops.and_then(|ops| ops.into_iter().nth(index as usize).flatten());
            // First what needs no search: names may be of anything.
            let Some(op) = op.filter(|op| op.path.as_bytes() == path) else { continue };
            if !self.is_past(ledger, writer, (branch, seq), row.body.generation)? {
                continue;
            }
            for name in op.replaces {
                let Some((branch, generation)) = held(ledger, &name)? else { continue };
                if self.is_past(ledger, writer, (branch, name.seq), generation)? {
                    replace(ledger, u64::MAX, store, path, &name, &mut self)?;
                }
            }
        }
        Ok(())
    }

    fn is_past(
        &mut self,
        ledger: &mut Ledger<'_>,
        writer: past::Place,
        place: past::Place,
        generation: u64,
    ) -> Result<bool, StorageError> {
        if let Some(known) = self.past.get(&place) {
            return Ok(*known);
        }
        let sought = Sought::entry(place, generation);
        let found = place != writer && past::sees(ledger, &[writer], sought)?;
        self.past.insert(place, found);
        Ok(found)
    }
}

/// The branch and the generation of the entry that wrote a value, if it is held.
fn held(
    ledger: &mut Ledger<'_>,
    name: &ValueName,
) -> Result<Option<(BranchNo, u64)>, StorageError> {
    for branch in ledger.branches_of(&name.log)? {
        if !ledger.branch(branch)?.owns(name.seq) {
            continue;
        }
        let row = ledger.view().entry_row(branch, name.seq)?;
        if row.id.first16() == name.id16 {
            return Ok(Some((branch, row.body.generation)));
        }
    }
    Ok(None)
}

/// Takes away everything at a path, as if nothing had ever been written there.
pub(crate) fn clear(
    ledger: &mut Ledger<'_>,
    store: StoreNo,
    path: &[u8],
) -> Result<(), StorageError> {
    let from = [&cell_prefix(store, path)[..], &[0]].concat();
    let to = [&cell_prefix(store, path)[..], &[1]].concat();
    let mut rows = Vec::new();
    ledger.tx.scan(Table::Cell, &from, Some(&to), Order::Ascending, &mut |key, row| {
        rows.push((key.to_vec(), CellRow::decode(row)));
        ControlFlow::Continue(())
    })?;
    for (key, row) in rows {
        let place = split_cell_key(&key)?.1;
        remove(ledger, store, path, place, &row?)?;
    }
    let mut names = Vec::new();
    ledger.tx.keys(Table::Name, &from, Some(&to), &mut |key| {
        names.push(key.to_vec());
        ControlFlow::Continue(())
    })?;
    for key in names {
        ledger.tx.delete(Table::Name, &key)?;
        ledger.counters.names -= 1;
    }
    Ok(())
}

fn remove(
    ledger: &mut Ledger<'_>,
    number: StoreNo,
    path: &[u8],
    place: Place,
    row: &CellRow,
) -> Result<(), StorageError> {
    let key = cell_key(number, path, place);
    ledger.tx.delete(Table::Cell, &key)?;
    index::removed(ledger, number, &key, path, place, &row.value)?;
    if sabotage::is(Bug::DigestNotReduced) {
        return Ok(());
    }
    let store = ledger.store(number)?;
    let kind = store.id.kind;
    store.sum.remove(&element(kind, path, &row.entry, place.2, &row.value));
    store.live = store.live.saturating_sub(1);
    if kind.names_content() {
        awaited::forget(ledger, number, place)?;
    }
    Ok(())
}

fn name_key(store: StoreNo, path: &[u8], name: &ValueName) -> Vec<u8> {
    let mut key = cell_prefix(store, path);
    key.push(0);
    key.extend_from_slice(&log_key(&name.log));
    key.extend_from_slice(&name.seq.to_be_bytes());
    key.extend_from_slice(&name.index.to_be_bytes());
    key.extend_from_slice(&name.id16);
    key
}

/// A store as `db info` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreInfo {
    /// Kind and name.
    pub id: StoreId,
    /// Live values in it; of counters those that are not 0.
    pub live: u64,
    /// Digest of what is live; `None` when it needs a newer program, or a key.
    pub digest: Option<[u8; 32]>,
    /// Whether something in it may be sealed with a key that this device does not have.
    pub closed: bool,
}

impl View<'_> {
    /// The live values of the cell at `path`, the winner first. Cost: one look-up.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn cell(&self, store: &StoreId, path: &Path) -> Result<Vec<LiveValue>, StorageError> {
        self.require_built()?;
        match store_number(self.tx, store)?.filter(|_| store.kind.has_cells()) {
            Some(number) => self.cell_in(number, path),
            None => Ok(Vec::new()),
        }
    }

    /// As [`Self::cell`], in the store of this number.
    pub(crate) fn cell_in(
        &self,
        store: StoreNo,
        path: &Path,
    ) -> Result<Vec<LiveValue>, StorageError> {
        let mut values = Vec::new();
        self.scan_cells_in(store, path, None, &mut |cell| {
            if cell.path == *path {
                values = cell.values;
            }
            ControlFlow::Break(())
        })?;
        Ok(values)
    }

    /// Calls `visit` with each cell at or below `prefix`, ascending by path, starting after `after` if given, until it
    /// breaks. The empty prefix is the whole store. Cost: one step a live value; one cell in memory.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn scan_cells(
        &self,
        store: &StoreId,
        prefix: &Path,
        after: Option<&Path>,
        visit: &mut dyn FnMut(Cell) -> ControlFlow<()>,
    ) -> Result<(), StorageError> {
        self.require_built()?;
        match store_number(self.tx, store)?.filter(|_| store.kind.has_cells()) {
            Some(number) => self.scan_cells_in(number, prefix, after, visit),
            None => Ok(()),
        }
    }

    fn scan_cells_in(
        &self,
        number: StoreNo,
        prefix: &Path,
        after: Option<&Path>,
        visit: &mut dyn FnMut(Cell) -> ControlFlow<()>,
    ) -> Result<(), StorageError> {
        let start = cell_prefix(number, prefix.as_bytes());
        let from = match after {
            // `01` follows the `00` that ends this path in a key and precedes nothing else.
            Some(path) => [&cell_prefix(number, path.as_bytes())[..], &[1]].concat(),
            None => start.clone(),
        };
        let mut logs = Logs { view: *self, known: BTreeMap::new() };
        let mut open: Option<Cell> = None;
        let mut stopped = false;
        let mut failed = None;
        self.tx.scan(Table::Cell, &from, None, Order::Ascending, &mut |key, row| {
            if !key.starts_with(&start) {
                return ControlFlow::Break(());
            }
            match logs.value(key, row) {
                Err(e) => {
                    failed = Some(e);
                    ControlFlow::Break(())
                }
                Ok((path, value)) => {
                    if let Some(cell) = &mut open
                        && cell.path.as_bytes() == path
                    {
                        cell.values.push(value);
                        return ControlFlow::Continue(());
                    }
                    let next = Cell { path: Path::trusted(path), values: vec![value] };
                    let flow = open
                        .replace(next)
                        .map_or(ControlFlow::Continue(()), |cell| visit(ranked(cell)));
                    stopped = flow.is_break();
                    flow
                }
            }
        })?;
        if let Some(e) = failed {
            return Err(e);
        }
        if let (Some(cell), false) = (open, stopped) {
            let _ = visit(ranked(cell));
        }
        Ok(())
    }

    /// The digest of a store of cells or sums, summed up again from what is live; `None` for other kinds of store.
    ///
    /// # Errors
    /// [`StorageError`].
    pub(crate) fn resum(&self, store: &StoreId) -> Result<Option<[u8; 32]>, StorageError> {
        if store.kind.has_sums() {
            return self.resum_counts(store).map(Some);
        }
        if !store.kind.has_cells() {
            return Ok(None);
        }
        let mut sum = LtHash::default();
        self.scan_cells(store, &Path::default(), None, &mut |cell| {
            for v in &cell.values {
                let (path, index) = (cell.path.as_bytes(), v.name.index);
                sum.add(&element(store.kind, path, &v.entry, index, &v.value));
            }
            ControlFlow::Continue(())
        })?;
        Ok(Some(sum.digest()))
    }

    /// Every store, with its number of live values and its digest.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn stores(&self) -> Result<Vec<StoreInfo>, StorageError> {
        self.require_built()?;
        let counters = self.counters()?;
        let mut unsummed = unsummed(*self, &counters)?;
        let closed = if self.is_closed()? { self.sealed()? } else { seal::Scope::Nothing };
        let mut list = (1..=counters.stores)
            .map(|number| {
                let mut row = self.store_row(number)?;
                if let Some(added) = unsummed.remove(&number) {
                    row.sum.merge(&added.sum);
                    row.live += added.live;
                }
                let closed = closed.covers(&row.id);
                Ok(StoreInfo {
                    closed,
                    digest: (!row.needs_newer && !closed).then(|| row.sum.digest()),
                    id: row.id,
                    live: row.live,
                })
            })
            .collect::<Result<Vec<_>, StorageError>>()?;
        list.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(list)
    }

    /// The digest of the whole state: equal exactly when the states are. `None` while a store needs a newer program or a key.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn state_digest(&self) -> Result<Option<[u8; 32]>, StorageError> {
        let mut stores = self.stores()?;
        // What was never written to, by entries that count, is no different from what was emptied.
        stores.retain(|store| store.live > 0 || store.digest.is_none());
        let mut w = Writer::new();
        w.array(stores.len());
        for store in &stores {
            let Some(digest) = store.digest else {
                return Ok(None);
            };
            w.array(2);
            store.id.encode(&mut w);
            w.bytes(&digest);
        }
        Ok(Some(blake3::derive_key("anabranch 1 state digest", &w.finish())))
    }
}

fn ranked(mut cell: Cell) -> Cell {
    if !sabotage::is(Bug::TieByArrival) {
        cell.values.sort_by_key(|value| std::cmp::Reverse(value.rank()));
    }
    cell
}

/// Logs by branch number, looked up once a scan.
struct Logs<'t> {
    view: View<'t>,
    known: BTreeMap<BranchNo, LogId>,
}

impl Logs<'_> {
    fn value<'k>(
        &mut self,
        key: &'k [u8],
        row: &[u8],
    ) -> Result<(&'k [u8], LiveValue), StorageError> {
        let (path, (branch, seq, index)) = split_cell_key(key)?;
        let row = CellRow::decode(row)?;
        let log = match self.known.get(&branch) {
            Some(log) => *log,
            None => {
                let log = self.view.branch(branch)?.log;
                self.known.insert(branch, log);
                log
            }
        };
        let name = ValueName { log, seq, index, id16: row.entry.first16() };
        let value =
            LiveValue { name, entry: row.entry, timestamp: row.timestamp, value: row.value };
        Ok((path, value))
    }
}
