//! Secondary indexes over fields of tables. Each replica has its own: they are declared in its file, are not synced and
//! have no part in any digest. An index has one row for each live value of its field, also for those that lost a conflict, so
//! that a change of the winner changes nothing here; look-ups give the rows whose winner fits.
//!
//! Whatever changes a cell changes its row of the index in the same transaction (`added`, `removed`); without an index
//! that is one look-up a transaction. An index over a table that holds much is built by [`step`] in the order of cells; up
//! to where it has come changes are carried into it, beyond that the building will find them, so that writers never wait
//! and a crash takes nothing back but the last stretch.

use crate::cells::store_number;
use crate::codec::{DecodeError, Reader, Writer};
use crate::entry::{StoreId, StoreKind};
use crate::error::{Error, corrupt};
use crate::ledger::Ledger;
use crate::path::Path;
use crate::rows::{
    CellRow, Place, Row, StoreNo, cell_prefix, key32, last4, put_place, split_cell_key, split_place,
};
use crate::sabotage::{self, Bug};
use crate::sortkey::{split, stored};
use crate::storage::{Durability, Order, ReadTx, Storage, StorageError, Table, WriteTx};
use crate::view::View;
use std::ops::ControlFlow;

mod check;
mod find;

pub use find::Range;

/// The most indexes of one database.
pub const MOST_INDEXES: usize = 64;
/// Bytes of cells that one stretch of building reads, about: writers wait that long.
pub const STRETCH_BYTES: usize = 8 * 1024 * 1024;

/// What rows of [`Table::Index`] begin with: one that declares an index, or one that belongs to it.
const DECLARED: u8 = 0;
const VALUE: u8 = 1;

/// How far an index is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum State {
    /// It has every live value.
    Ready,
    /// It has those of the cells up to this key.
    Building(Vec<u8>),
    /// It is being removed.
    Going,
}

/// The row that declares an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Declared {
    pub(crate) store: StoreId,
    pub(crate) field: String,
    pub(crate) state: State,
}

impl Row for Declared {
    const TABLE: Table = Table::Index;
    const WHAT: &'static str = "an index";

    fn encode(&self, w: &mut Writer) {
        w.array(4);
        self.store.encode(w);
        w.text(&self.field);
        let (state, at) = match &self.state {
            State::Ready => (0, &[][..]),
            State::Building(at) => (1, &at[..]),
            State::Going => (2, &[][..]),
        };
        w.u64(state).bytes(at);
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        const AT: usize = crate::limits::PATH_BYTES + 64;
        r.tuple("an index", 4)?;
        let store = StoreId::decode(r)?;
        let field = r.text("a field", crate::limits::PATH_BYTES)?.to_owned();
        let state = r.number("the state of an index", 2)?;
        let at = r.bytes("where an index is", AT)?.to_vec();
        let state = match state {
            0 => State::Ready,
            1 => State::Building(at),
            _ => State::Going,
        };
        Ok(Self { store, field, state })
    }
}

/// An index over a store that exists.
#[derive(Debug, Clone)]
pub(crate) struct Index {
    number: u32,
    store: StoreNo,
    declared: Declared,
    /// How the paths of its cells end.
    suffix: Vec<u8>,
}

impl Index {
    /// `None` while nothing was written to its table.
    fn over(
        tx: &dyn ReadTx,
        number: u32,
        declared: Declared,
    ) -> Result<Option<Self>, StorageError> {
        let field = Path::text([&declared.field]);
        let suffix = field.map_err(|_| corrupt("the field of an index"))?.as_bytes().to_vec();
        let store = store_number(tx, &declared.store)?;
        Ok(store.map(|store| Self { number, store, declared, suffix }))
    }

    /// The row that a cell with this path belongs to, if it is in the indexed field.
    fn row_of<'p>(&self, path: &'p [u8]) -> Option<&'p [u8]> {
        let row = path.strip_suffix(&self.suffix[..])?;
        // One segment, of which the only zero is the end.
        (row.iter().position(|&b| b == 0)? + 1 == row.len()).then_some(row)
    }

    /// Whether a change to the cell at this key is carried into it.
    fn follows(&self, cell: &[u8]) -> bool {
        match &self.declared.state {
            State::Ready => true,
            State::Building(at) => cell <= &at[..],
            State::Going => false,
        }
    }

    fn is_ready(&self) -> bool {
        self.declared.state == State::Ready
    }

    fn prefix(&self) -> Vec<u8> {
        prefix(VALUE, self.number)
    }

    /// Its row for a value.
    fn key(&self, value: &[u8], row: &[u8], place: Place) -> Vec<u8> {
        let mut key = self.prefix();
        key.extend_from_slice(&stored(value));
        key.extend_from_slice(row);
        put_place(&mut key, place);
        key
    }

    fn put(&self, tx: &mut dyn WriteTx, state: State) -> Result<(), StorageError> {
        Declared { state, ..self.declared.clone() }.put(tx, &prefix(DECLARED, self.number))
    }
}

/// A key of one of its rows, taken apart.
struct Parts<'k> {
    number: u32,
    /// As [`stored`] has it.
    value: &'k [u8],
    row: &'k [u8],
    place: Place,
}

impl<'k> Parts<'k> {
    fn of(key: &'k [u8]) -> Result<Self, StorageError> {
        let bad = || corrupt("a row of an index");
        let (number, rest) = key.get(1..).and_then(<[u8]>::split_first_chunk).ok_or_else(bad)?;
        let (value, rest) = split(rest).ok_or_else(bad)?;
        let (row, place) = split_place(rest)?;
        Ok(Self { number: u32::from_be_bytes(*number), value, row, place })
    }
}

fn prefix(kind: u8, number: u32) -> Vec<u8> {
    [&[kind][..], &key32(number)].concat()
}

/// Every index, with its number.
fn all(tx: &dyn ReadTx) -> Result<Vec<(u32, Declared)>, StorageError> {
    let mut found = Vec::new();
    tx.scan(Table::Index, &[DECLARED], Some(&[VALUE]), Order::Ascending, &mut |key, row| {
        // Only what is where it would be written can be changed or removed.
        let number = last4(key).ok().filter(|number| key == prefix(DECLARED, *number));
        found.push((number.ok_or_else(|| corrupt("an index")), Declared::from_bytes(row)));
        ControlFlow::Continue(())
    })?;
    found.into_iter().map(|(number, row)| Ok((number?, row?))).collect()
}

/// The indexes over stores that exist.
pub(crate) fn declared(tx: &dyn ReadTx) -> Result<Vec<Index>, StorageError> {
    let mut indexes = Vec::new();
    for (number, declared) in all(tx)? {
        indexes.extend(Index::over(tx, number, declared)?);
    }
    Ok(indexes)
}

/// Takes every value out of every index.
pub(crate) fn forget_values(tx: &mut dyn WriteTx) -> Result<(), StorageError> {
    let mut keys = Vec::new();
    tx.scan(Table::Index, &[VALUE], None, Order::Ascending, &mut |key, _| {
        match key.first() {
            Some(&VALUE) => keys.push(key.to_vec()),
            _ => return ControlFlow::Break(()),
        }
        ControlFlow::Continue(())
    })?;
    keys.iter().try_for_each(|key| tx.delete(Table::Index, key).map(drop))
}

/// A value came to be live in the cell at key `cell`.
pub(crate) fn added(
    ledger: &mut Ledger<'_>,
    store: StoreNo,
    cell: &[u8],
    path: &[u8],
    place: Place,
    value: &[u8],
) -> Result<(), StorageError> {
    if ledger.built().is_some() && sabotage::is(Bug::IndexForgotten) {
        return Ok(());
    }
    for index in ledger.indexes()?.iter().filter(|index| index.store == store) {
        if let Some(row) = index.row_of(path).filter(|_| index.follows(cell)) {
            ledger.tx.put(Table::Index, &index.key(value, row, place), &[])?;
        }
    }
    Ok(())
}

/// A value of the cell at key `cell` is no longer live.
pub(crate) fn removed(
    ledger: &mut Ledger<'_>,
    store: StoreNo,
    cell: &[u8],
    path: &[u8],
    place: Place,
    value: &[u8],
) -> Result<(), StorageError> {
    if sabotage::is(Bug::IndexKept) {
        return Ok(());
    }
    for index in ledger.indexes()?.iter().filter(|index| index.store == store) {
        if let Some(row) = index.row_of(path).filter(|_| index.follows(cell)) {
            ledger.tx.delete(Table::Index, &index.key(value, row, place))?;
        }
    }
    Ok(())
}

/// Declares an index over `field` of the table `store`. False when there is one. Over a table that holds something it is
/// to be built: [`finish`].
///
/// # Errors
/// [`Error::NoFields`] for another kind of store, [`Error::Path`] for a field that no cell can have,
/// [`Error::TooManyIndexes`], or what storage reports.
pub fn declare(tx: &mut dyn WriteTx, store: &StoreId, field: &str) -> Result<bool, Error> {
    if store.kind != StoreKind::TABLE {
        return Err(Error::NoFields(store.clone()));
    }
    Path::text([field])?;
    let known = all(tx)?;
    if known.iter().any(|(_, index)| is_over(index, store, field)) {
        return Ok(false);
    }
    if known.len() >= MOST_INDEXES {
        return Err(Error::TooManyIndexes);
    }
    let number = known.last().map_or(0, |(number, _)| *number) + 1;
    let state = match store_number(tx, store)? {
        None => State::Ready,
        Some(_) => State::Building(Vec::new()),
    };
    let declared = Declared { store: store.clone(), field: field.to_owned(), state };
    declared.put(tx, &prefix(DECLARED, number))?;
    Ok(true)
}

/// Takes an index back. False when there is none. Its rows are removed by [`finish`].
///
/// # Errors
/// [`StorageError`].
pub fn withdraw(tx: &mut dyn WriteTx, store: &StoreId, field: &str) -> Result<bool, StorageError> {
    let found = all(tx)?.into_iter().find(|(_, index)| is_over(index, store, field));
    let Some((number, declared)) = found else { return Ok(false) };
    Declared { state: State::Going, ..declared }.put(tx, &prefix(DECLARED, number))?;
    Ok(true)
}

fn is_over(index: &Declared, store: &StoreId, field: &str) -> bool {
    index.state != State::Going && index.store == *store && index.field == field
}

/// Builds a stretch of an index that is not complete, or removes one of an index that was taken back; `budget`: bytes of
/// what is read for it, about. False: nothing was to be done. Blocking.
///
/// Cost: each cell of the table is read once; rows go into the index in the order of their keys.
///
/// # Errors
/// [`StorageError`]; then nothing was changed.
pub fn step(storage: &dyn Storage, budget: usize) -> Result<bool, StorageError> {
    if all(&*storage.read()?)?.iter().all(|(_, index)| index.state == State::Ready) {
        return Ok(false);
    }
    // An index follows from cells, so a loss of power may take it back.
    let mut tx = storage.write(Durability::Normal)?;
    let waiting = all(&*tx)?.into_iter().find(|(_, index)| index.state != State::Ready);
    let Some((number, declared)) = waiting else { return Ok(false) };
    match (&declared.state, Index::over(&*tx, number, declared.clone())?) {
        (State::Going, _) => remove(&mut *tx, number, budget)?,
        (State::Building(at), Some(index)) => build(&mut *tx, &index, at, budget)?,
        _ => return Err(corrupt("an index over a table that is not there")),
    }
    tx.commit()?;
    Ok(true)
}

/// Does all that is left of it. Blocking; writers come between two stretches.
///
/// # Errors
/// [`StorageError`].
pub fn finish(storage: &dyn Storage) -> Result<(), StorageError> {
    while step(storage, STRETCH_BYTES)? {}
    Ok(())
}

fn build(
    tx: &mut dyn WriteTx,
    index: &Index,
    at: &[u8],
    budget: usize,
) -> Result<(), StorageError> {
    let start = cell_prefix(index.store, &[]);
    // The first key after `at`, which is empty before the first stretch.
    let from = start.clone().max([at, &[0]].concat());
    let (mut keys, mut read, mut last, mut failed) = (Vec::new(), 0, None, None);
    tx.scan(Table::Cell, &from, None, Order::Ascending, &mut |key, row| {
        if !key.starts_with(&start) {
            return ControlFlow::Break(());
        }
        match index.row_for(key, row) {
            Ok(found) => keys.extend(found),
            Err(e) => {
                failed = Some(e);
                return ControlFlow::Break(());
            }
        }
        read += key.len() + row.len();
        if read < budget {
            return ControlFlow::Continue(());
        }
        last = Some(key.to_vec());
        ControlFlow::Break(())
    })?;
    if let Some(e) = failed {
        return Err(e);
    }
    keys.sort_unstable();
    for key in &keys {
        tx.put(Table::Index, key, &[])?;
    }
    index.put(tx, last.map_or(State::Ready, State::Building))
}

impl Index {
    /// The row that it has for a cell, if that is in its field.
    fn row_for(&self, cell: &[u8], value: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        let (path, place) = split_cell_key(cell)?;
        let Some(row) = self.row_of(path) else { return Ok(None) };
        let value = CellRow::decode(value)?.value;
        Ok(Some(self.key(&value, row, place)))
    }
}

fn remove(tx: &mut dyn WriteTx, number: u32, budget: usize) -> Result<(), StorageError> {
    let rows = prefix(VALUE, number);
    let (mut keys, mut read, mut more) = (Vec::new(), 0, false);
    tx.scan(Table::Index, &rows, None, Order::Ascending, &mut |key, _| {
        if !key.starts_with(&rows) {
            return ControlFlow::Break(());
        }
        if read >= budget {
            more = true;
            return ControlFlow::Break(());
        }
        read += key.len();
        keys.push(key.to_vec());
        ControlFlow::Continue(())
    })?;
    for key in &keys {
        tx.delete(Table::Index, key)?;
    }
    if !more {
        tx.delete(Table::Index, &prefix(DECLARED, number))?;
    }
    Ok(())
}

/// An index, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexInfo {
    /// The table.
    pub store: StoreId,
    /// The field.
    pub field: String,
    /// Whether it can be used; if not, it is being built.
    pub ready: bool,
}

impl View<'_> {
    /// The indexes of this replica, by table and field. Those that are being removed are none.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn indexes(&self) -> Result<Vec<IndexInfo>, StorageError> {
        let known = all(self.tx)?.into_iter().filter(|(_, index)| index.state != State::Going);
        let mut list: Vec<IndexInfo> = known
            .map(|(_, Declared { store, field, state })| IndexInfo {
                store,
                field,
                ready: state == State::Ready,
            })
            .collect();
        list.sort_by(|a, b| (&a.store, &a.field).cmp(&(&b.store, &b.field)));
        Ok(list)
    }

    /// Whether the index over `field` of `store` needs no building; so does none.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn is_indexed(&self, store: &StoreId, field: &str) -> Result<bool, StorageError> {
        let known = all(self.tx)?;
        let found = known.iter().find(|(_, index)| is_over(index, store, field));
        Ok(found.is_none_or(|(_, index)| index.state == State::Ready))
    }

    /// Whether an index is still to be built or to be removed: [`step`].
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn indexing(&self) -> Result<bool, StorageError> {
        Ok(all(self.tx)?.iter().any(|(_, index)| index.state != State::Ready))
    }
}
