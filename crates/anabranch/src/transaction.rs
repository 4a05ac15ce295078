//! Transactions: several writes, to any stores of one database, that become one entry. Cells a transaction read before it
//! wrote them are replaced exactly as it saw them, so that a change made meanwhile is never overwritten unseen (I11).

use crate::counter::tally;
use crate::list::{List, State};
use crate::set::{add_write, remove_write};
use crate::table::{RowCells, delete_write, put_writes, row_cells, write};
use crate::value::Raw;
use crate::{Cells, Counter, Database, Doc, Error, Set, Table, doc};
use anabranch_core::author::{Draft, Seen, Step, Tally, Write};
use anabranch_core::entry::StoreId;
use anabranch_core::ops::ValueName;
use anabranch_core::path::Path;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// Writes that are committed together or not at all. Dropping it commits nothing.
#[derive(Debug)]
pub struct Transaction {
    db: Database,
    writes: Vec<Write>,
    tallies: Vec<Tally>,
    /// Lists as this transaction leaves them.
    lists: BTreeMap<(StoreId, Path), State>,
    /// How many elements it makes.
    elements: u32,
    /// Of each row that was read: the values seen in its cells.
    seen: BTreeMap<(StoreId, Path), Vec<ValueName>>,
    /// Rows read, so that cells absent then are known to have been seen absent.
    rows: Vec<(StoreId, Path)>,
}

impl Transaction {
    pub(crate) fn new(db: Database) -> Self {
        Self {
            db,
            writes: Vec::new(),
            tallies: Vec::new(),
            lists: BTreeMap::new(),
            elements: 0,
            seen: BTreeMap::new(),
            rows: Vec::new(),
        }
    }

    /// The row under `key` as it is now. A later write to it in this transaction replaces exactly what this saw: if
    /// somebody changes it meanwhile, both values stay, as a conflict.
    ///
    /// # Errors
    /// As [`Table::get`].
    pub fn get<T: Serialize + DeserializeOwned>(
        &mut self,
        table: &Table<T>,
        key: &str,
    ) -> Result<Option<T>, Error> {
        let row = self
            .db
            .replica()
            .read_store(&table.store, |view| row_cells(view, &table.store, key))?;
        self.rows.push((table.store.clone(), crate::table::row_path(key)?));
        let RowCells { present, columns } = &row;
        for cell in present.iter().chain(columns.values()) {
            let names = cell.values.iter().map(|v| v.name).collect();
            self.seen.insert((table.store.clone(), cell.path.clone()), names);
        }
        table.get(key)
    }

    /// Inserts or replaces the row under `key`.
    ///
    /// # Errors
    /// As [`Table::put`].
    pub fn put<T: Serialize + DeserializeOwned>(
        &mut self,
        table: &Table<T>,
        key: &str,
        row: &T,
    ) -> Result<&mut Self, Error> {
        let raw = Raw::new(row)?;
        let writes = self
            .db
            .replica()
            .read_store(&table.store, |view| put_writes(view, &table.store, key, &raw))?;
        self.add(writes);
        Ok(self)
    }

    /// Deletes the row under `key`.
    ///
    /// # Errors
    /// [`Error::Node`] when the key does not fit.
    pub fn delete<T>(&mut self, table: &Table<T>, key: &str) -> Result<&mut Self, Error> {
        self.add(vec![delete_write(&table.store, key)?]);
        Ok(self)
    }

    /// Sets what is at `path` of a document.
    ///
    /// # Errors
    /// As [`Doc::set`].
    pub fn set<T: Serialize + ?Sized>(
        &mut self,
        doc: &Doc,
        path: &[&str],
        value: &T,
    ) -> Result<&mut Self, Error> {
        self.add(doc::set_writes(&doc.store, path, &Raw::new(value)?)?);
        Ok(self)
    }

    /// Deletes what is at `path` of a document.
    ///
    /// # Errors
    /// [`Error::Node`] when the path does not fit.
    pub fn unset(&mut self, doc: &Doc, path: &[&str]) -> Result<&mut Self, Error> {
        self.add(vec![doc::delete_write(&doc.store, &Path::text(path)?, true)]);
        Ok(self)
    }

    /// Adds to what is at `path` of a counter.
    ///
    /// # Errors
    /// [`Error::Node`] when the path does not fit.
    pub fn count(
        &mut self,
        counter: &Counter,
        path: &[&str],
        delta: i64,
    ) -> Result<&mut Self, Error> {
        self.tallies.push(tally(&counter.store, path, Step::Add(delta))?);
        Ok(self)
    }

    /// Brings what is at `path` of a counter to 0, whatever it is when this is committed.
    ///
    /// # Errors
    /// [`Error::Node`] when the path does not fit.
    pub fn reset(&mut self, counter: &Counter, path: &[&str]) -> Result<&mut Self, Error> {
        self.tallies.push(tally(&counter.store, path, Step::Reset)?);
        Ok(self)
    }

    /// Puts an element at the end of a list. Lists are as they were when this transaction first changed them, with what it
    /// did to them; it should not set the document at or above a list as well.
    ///
    /// # Errors
    /// As [`List::push`].
    pub fn push<T: Serialize + ?Sized>(
        &mut self,
        list: &List,
        value: &T,
    ) -> Result<&mut Self, Error> {
        let (value, number) = (Raw::new(value)?, self.element());
        self.change(list, |state| state.push(&value, number))
    }

    /// Puts an element at place `at` of a list.
    ///
    /// # Errors
    /// As [`List::insert`].
    pub fn insert<T: Serialize + ?Sized>(
        &mut self,
        list: &List,
        at: usize,
        value: &T,
    ) -> Result<&mut Self, Error> {
        let (value, number) = (Raw::new(value)?, self.element());
        self.change(list, |state| state.insert(at, &value, number))
    }

    /// Replaces the element at `at` of a list.
    ///
    /// # Errors
    /// As [`List::insert`].
    pub fn replace<T: Serialize + ?Sized>(
        &mut self,
        list: &List,
        at: usize,
        value: &T,
    ) -> Result<&mut Self, Error> {
        let value = Raw::new(value)?;
        self.change(list, |state| state.set(at, &[], &value))
    }

    /// Moves the element at `from` of a list so that it is at `to` afterwards.
    ///
    /// # Errors
    /// As [`List::insert`].
    pub fn move_to(&mut self, list: &List, from: usize, to: usize) -> Result<&mut Self, Error> {
        self.change(list, |state| state.move_to(from, to))
    }

    /// Removes the element at `at` of a list.
    ///
    /// # Errors
    /// As [`List::insert`].
    pub fn remove(&mut self, list: &List, at: usize) -> Result<&mut Self, Error> {
        self.change(list, |state| state.remove(at))
    }

    fn element(&mut self) -> u32 {
        self.elements += 1;
        self.elements - 1
    }

    fn change(
        &mut self,
        list: &List,
        change: impl FnOnce(&mut State) -> Result<Vec<Write>, Error>,
    ) -> Result<&mut Self, Error> {
        let state = match self.lists.entry((list.store.clone(), list.base.clone())) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new
                .insert(self.db.replica().read_store(&list.store, |view| State::read(view, list))?),
        };
        let writes = change(state)?;
        self.writes.extend(writes);
        Ok(self)
    }

    /// Adds an element to a set.
    ///
    /// # Errors
    /// As [`Set::add`].
    pub fn include<T: Serialize>(&mut self, set: &Set<T>, element: &T) -> Result<&mut Self, Error> {
        self.writes.push(add_write(set, element)?);
        Ok(self)
    }

    /// Removes an element from a set.
    ///
    /// # Errors
    /// As [`Set::add`].
    pub fn exclude<T: Serialize>(&mut self, set: &Set<T>, element: &T) -> Result<&mut Self, Error> {
        self.writes.push(remove_write(set, element)?);
        Ok(self)
    }

    /// Writes to a cell of a store of the application's own kind, or deletes it.
    pub fn put_cell(&mut self, cells: &Cells, path: &Path, value: Option<&[u8]>) -> &mut Self {
        self.writes.push(write(&cells.store, path.clone(), value.map(<[u8]>::to_vec)));
        self
    }

    fn add(&mut self, writes: Vec<Write>) {
        for mut write in writes {
            let row = write.path.ancestors().next().unwrap_or_else(|| write.path.clone());
            let cell = (write.store.clone(), write.path.clone());
            if let Some(names) = self.seen.get(&cell) {
                write.seen = Seen::Values(names.clone());
            } else if self.rows.contains(&(write.store.clone(), row)) {
                write.seen = Seen::Values(Vec::new());
            }
            self.writes.push(write);
        }
    }

    /// Commits everything as one entry. Durable when it returns.
    ///
    /// # Errors
    /// [`Error::Node`] when it is larger than an entry may be, or this device may not write.
    pub async fn commit(self) -> Result<(), Error> {
        self.db
            .commit(Draft { writes: self.writes, tallies: self.tallies, ..Draft::default() })
            .await
    }
}
