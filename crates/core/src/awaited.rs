//! Live values of blob stores and folders whose content is not known to be here. The list is kept where cells are, so that what is to
//! be fetched costs what arrived and never a look at all values. It says nothing about the state and is told to nobody.
//!
//! A value is on it from the moment it is live until somebody has looked at its whole content ([`settle`]) or it is
//! replaced. What is on the list may be here all the same.
//!
//! Where payloads of a sealed database cannot be opened, what they name in the clear is on the list in place of values. Nobody
//! can tell there what was replaced.

use crate::blob::{ChunkHash, ContentRef, content_of};
use crate::cells::LiveValue;
use crate::entry::StoreId;
use crate::error::corrupt;
use crate::ledger::Ledger;
use crate::ops::ValueName;
use crate::path::Path;
use crate::rows::{CellRow, META_ELSEWHERE, Place, StoreNo, cell_key, split_cell_key};
use crate::sabotage::{self, Bug};
use crate::seal::{KeyId, Ring};
use crate::storage::{Order, StorageError, Table, WriteTx};
use crate::view::View;
use std::ops::ControlFlow;

pub(crate) const AWAITED: &[u8] = b"await/";

/// Where a value is on the list: by store, then in the order of arrival.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct AwaitKey(Vec<u8>);

impl Default for AwaitKey {
    /// Before all of them.
    fn default() -> Self {
        Self(AWAITED.to_vec())
    }
}

impl AwaitKey {
    fn of(store: StoreNo, arrival: u64, index: u32) -> Self {
        let mut key = AWAITED.to_vec();
        key.extend(store.to_be_bytes());
        key.extend(arrival.to_be_bytes());
        key.extend(index.to_be_bytes());
        Self(key)
    }

    /// Right after this one.
    #[must_use]
    pub fn next(mut self) -> Self {
        self.0.push(0);
        self
    }

    /// After all of this one's store.
    #[must_use]
    pub fn after_store(&self) -> Self {
        let store = self.store().saturating_add(1);
        Self([AWAITED, &store.to_be_bytes()].concat())
    }

    /// Before all of this one's store.
    #[must_use]
    pub fn store_start(&self) -> Self {
        Self([AWAITED, &self.store().to_be_bytes()].concat())
    }

    fn store(&self) -> StoreNo {
        let number = self.0.get(AWAITED.len()..).and_then(|rest| rest.first_chunk::<4>());
        number.map_or(0, |number| StoreNo::from_be_bytes(*number))
    }
}

/// Content that is not known to be here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Awaited {
    /// Where it is on the list.
    pub key: AwaitKey,
    /// The store that names it.
    pub store: StoreId,
    /// It, as it is kept ([`View::kept`]); `None` for a value that names none.
    pub content: Option<ContentRef>,
    /// The cell and the value that names it; `None` where it is named by what cannot be opened.
    pub value: Option<(Path, LiveValue)>,
}

/// Added to a content's place in the list of a payload, so that it is no operation's.
const LISTED: u32 = 1 << 31;

/// What rows begin with that name content instead of a value's cell: no store has that number.
const CLOSED: StoreNo = 0;

/// The key that is lacking, and the content.
fn closed_row(sealed_with: &KeyId, content: &ContentRef) -> Vec<u8> {
    let mut row = CLOSED.to_be_bytes().to_vec();
    row.extend(sealed_with.0);
    row.extend(content.size().to_be_bytes());
    row.push(content.depth());
    row.extend(content.root().0);
    row
}

fn read_closed(row: &[u8]) -> Option<Result<(KeyId, ContentRef), StorageError>> {
    let rest = row.strip_prefix(&CLOSED.to_be_bytes())?;
    let read = || {
        let (key, rest) = rest.split_first_chunk()?;
        let (size, rest) = rest.split_first_chunk()?;
        let (depth, root) = rest.split_first()?;
        let root = ChunkHash(root.try_into().ok()?);
        Some((KeyId(*key), ContentRef::new(u64::from_be_bytes(*size), *depth, root).ok()?))
    };
    Some(read().ok_or_else(|| corrupt("content that is awaited")))
}

/// What a payload names that cannot be opened without this key counts, or no longer does.
pub(crate) fn note_closed(
    ledger: &mut Ledger<'_>,
    (store, arrival): (StoreNo, u64),
    sealed_with: &KeyId,
    contents: &[ContentRef],
    counts: bool,
) -> Result<(), StorageError> {
    if contents.is_empty() || ledger.is_elsewhere()? {
        return Ok(());
    }
    for (index, content) in (LISTED..).zip(contents) {
        let key = AwaitKey::of(store, arrival, index).0;
        if counts && !sabotage::is(Bug::ClosedNotAwaited) {
            ledger.tx.put(Table::Local, &key, &closed_row(sealed_with, content))?;
        } else {
            ledger.tx.delete(Table::Local, &key)?;
        }
    }
    Ok(())
}

/// Forgets what values name, and what can be opened now.
pub(crate) fn forget_opened(tx: &mut dyn WriteTx, ring: &Ring) -> Result<(), StorageError> {
    const AT_ONCE: usize = 4_096;
    let mut at = AWAITED.to_vec();
    loop {
        let (mut opened, mut looked, mut failed) = (Vec::new(), 0, None);
        let from = std::mem::take(&mut at);
        tx.scan(Table::Local, &from, None, Order::Ascending, &mut |key, row| {
            if !key.starts_with(AWAITED) || looked >= AT_ONCE {
                return ControlFlow::Break(());
            }
            looked += 1;
            match read_closed(row) {
                Some(Ok((sealed_with, _))) if ring.key(&sealed_with).is_none() => {}
                Some(Err(e)) => failed = Some(e),
                _ => opened.push(key.to_vec()),
            }
            at = [key, &[0]].concat();
            ControlFlow::Continue(())
        })?;
        failed.map_or(Ok(()), Err)?;
        for key in opened {
            tx.delete(Table::Local, &key)?;
        }
        if looked < AT_ONCE {
            return Ok(());
        }
    }
}

/// Has this replica fetch nothing that values name: they are in the files of a folder.
///
/// # Errors
/// [`StorageError`].
pub fn keep_elsewhere(tx: &mut dyn WriteTx) -> Result<(), StorageError> {
    tx.put(Table::Meta, META_ELSEWHERE, &[])
}

impl Ledger<'_> {
    fn is_elsewhere(&mut self) -> Result<bool, StorageError> {
        if let Some(known) = self.elsewhere {
            return Ok(known);
        }
        let elsewhere = self.tx.has(Table::Meta, META_ELSEWHERE)?;
        Ok(*self.elsewhere.insert(elsewhere))
    }
}

/// A value became live.
pub(crate) fn note(
    ledger: &mut Ledger<'_>,
    store: StoreNo,
    arrival: u64,
    index: u32,
    cell: &[u8],
) -> Result<(), StorageError> {
    if ledger.is_elsewhere()? {
        return Ok(());
    }
    ledger.tx.put(Table::Local, &AwaitKey::of(store, arrival, index).0, cell)
}

/// A value was replaced.
pub(crate) fn forget(
    ledger: &mut Ledger<'_>,
    store: StoreNo,
    (branch, seq, index): Place,
) -> Result<(), StorageError> {
    if ledger.is_elsewhere()? {
        return Ok(());
    }
    let arrival = ledger.view().arrival(branch, seq)?;
    ledger.tx.delete(Table::Local, &AwaitKey::of(store, arrival, index).0).map(drop)
}

/// All of a value's content is here.
///
/// # Errors
/// [`StorageError`].
pub fn settle(tx: &mut dyn WriteTx, key: &AwaitKey) -> Result<(), StorageError> {
    tx.delete(Table::Local, &key.0).map(drop)
}

/// As [`settle`], for the live value of this name.
///
/// # Errors
/// [`StorageError`].
pub fn settle_value(
    tx: &mut dyn WriteTx,
    store: &StoreId,
    path: &Path,
    name: &ValueName,
) -> Result<(), StorageError> {
    match View::new(crate::ledger::as_read(tx)).await_key(store, path, name)? {
        Some((key, _)) => settle(tx, &key),
        None => Ok(()),
    }
}

/// The content of a live value is not to count as being here any more.
///
/// # Errors
/// [`StorageError`].
pub fn await_again(
    tx: &mut dyn WriteTx,
    store: &StoreId,
    path: &Path,
    name: &ValueName,
) -> Result<(), StorageError> {
    let found = View::new(crate::ledger::as_read(tx)).await_key(store, path, name)?;
    let Some((key, cell)) = found else { return Ok(()) };
    tx.put(Table::Local, &key.0, &cell)
}

impl View<'_> {
    /// The first value on the list at or after `from` whose content is not known to be here; those that name no content
    /// are on it as well.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn awaited(&self, from: &AwaitKey) -> Result<Option<Awaited>, StorageError> {
        let mut found = None;
        self.tx.scan(Table::Local, &from.0, None, Order::Ascending, &mut |key, cell| {
            if key.starts_with(AWAITED) {
                found = Some((AwaitKey(key.to_vec()), cell.to_vec()));
            }
            ControlFlow::Break(())
        })?;
        found.map(|(key, cell)| self.awaited_at(key, &cell)).transpose()
    }

    /// Whether content that values name is kept elsewhere ([`keep_elsewhere`]).
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn keeps_elsewhere(&self) -> Result<bool, StorageError> {
        self.tx.has(Table::Meta, META_ELSEWHERE)
    }

    /// Whether anything is on the list.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn awaits(&self) -> Result<bool, StorageError> {
        let mut found = false;
        self.tx.keys(Table::Local, AWAITED, None, &mut |key| {
            found = key.starts_with(AWAITED);
            ControlFlow::Break(())
        })?;
        Ok(found)
    }

    /// Content that a value of `store` names, as it is kept: with padding if that is sealed.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn kept(&self, store: &StoreId, content: ContentRef) -> Result<ContentRef, StorageError> {
        Ok(if self.sealed()?.covers(store) { content.padded() } else { content })
    }

    fn awaited_at(&self, key: AwaitKey, cell: &[u8]) -> Result<Awaited, StorageError> {
        let store = self.store_row(key.store())?.id;
        if let Some(closed) = read_closed(cell) {
            return Ok(Awaited { key, store, content: Some(closed?.1), value: None });
        }
        let row = self.tx.get(Table::Cell, cell)?.ok_or_else(|| corrupt("an awaited value"))?;
        let (path, (branch, seq, index)) = split_cell_key(cell)?;
        let row = CellRow::decode(&row)?;
        let log = self.branch(branch)?.log;
        let name = ValueName { log, seq, index, id16: row.entry.first16() };
        let value =
            LiveValue { name, entry: row.entry, timestamp: row.timestamp, value: row.value };
        let content =
            content_of(&value.value).map(|content| self.kept(&store, content)).transpose()?;
        Ok(Awaited { key, store, content, value: Some((Path::trusted(path), value)) })
    }

    /// Whether this live value is on the list.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn is_awaited(
        &self,
        store: &StoreId,
        path: &Path,
        name: &ValueName,
    ) -> Result<bool, StorageError> {
        match self.await_key(store, path, name)? {
            Some((key, _)) => self.tx.has(Table::Local, &key.0),
            None => Ok(false),
        }
    }

    /// Where the live value of this name would be on the list, and the key of its cell's row.
    fn await_key(
        &self,
        store: &StoreId,
        path: &Path,
        name: &ValueName,
    ) -> Result<Option<(AwaitKey, Vec<u8>)>, StorageError> {
        let number = crate::cells::store_number(self.tx, store)?;
        let Some(number) = number.filter(|_| store.kind.names_content()) else {
            return Ok(None);
        };
        for branch in self.branches_of(&name.log)? {
            if !self.branch(branch)?.owns(name.seq) {
                continue;
            }
            let cell = cell_key(number, path.as_bytes(), (branch, name.seq, name.index));
            let Some(row) = self.tx.get(Table::Cell, &cell)? else { continue };
            if CellRow::decode(&row)?.entry.first16() == name.id16 {
                let arrival = self.arrival(branch, name.seq)?;
                return Ok(Some((AwaitKey::of(number, arrival, name.index), cell)));
            }
        }
        Ok(None)
    }
}
