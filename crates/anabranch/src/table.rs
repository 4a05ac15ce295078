//! Tables: rows by key, one cell a column, so that two devices may change different columns of one row without a
//! conflict. A presence cell tells that a row was inserted.

use crate::value::{NULL, Raw};
use crate::{Bulk, Database, Error};
use anabranch_core::author::{Draft, Seen, Write};
use anabranch_core::cells::Cell;
use anabranch_core::entry::StoreId;
use anabranch_core::path::{Path, Segment};
use anabranch_core::view::View;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::ops::ControlFlow;

/// A table whose rows are `T`: a struct, or a map with text keys.
pub struct Table<T> {
    pub(crate) db: Database,
    pub(crate) store: StoreId,
    row: PhantomData<fn() -> T>,
}

impl<T> Clone for Table<T> {
    fn clone(&self) -> Self {
        Self { db: self.db.clone(), store: self.store.clone(), row: PhantomData }
    }
}

impl<T> std::fmt::Debug for Table<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Table({})", self.store.name)
    }
}

/// The cells of one row: those of its columns, and whether it was inserted and not deleted since.
#[derive(Debug, Clone, Default)]
pub(crate) struct RowCells {
    pub(crate) present: Option<Cell>,
    pub(crate) columns: BTreeMap<String, Cell>,
}

impl RowCells {
    fn add(&mut self, cell: Cell) {
        match cell.path.segments().get(1) {
            None => self.present = Some(cell),
            Some(Segment::Text(column)) => _ = self.columns.insert(column.clone(), cell),
            Some(_) => {}
        }
    }

    fn is_empty(&self) -> bool {
        self.present.is_none() && self.columns.is_empty()
    }

    pub(crate) fn raw(&self) -> Raw {
        Raw::map(self.columns.iter().map(|(k, cell)| (k.as_str(), &cell.winner().value[..])))
    }
}

pub(crate) fn row_path(key: &str) -> Result<Path, Error> {
    Ok(Path::default().join(key)?)
}

pub(crate) fn row_cells(view: View<'_>, store: &StoreId, key: &str) -> Result<RowCells, Error> {
    let mut row = RowCells::default();
    view.scan_cells(store, &row_path(key)?, None, &mut |cell| {
        row.add(cell);
        ControlFlow::Continue(())
    })?;
    Ok(row)
}

/// The writes by which row `key` becomes `row`, replacing what is live when they are committed.
pub(crate) fn put_writes(
    view: View<'_>,
    store: &StoreId,
    key: &str,
    row: &Raw,
) -> Result<Vec<Write>, Error> {
    let old = row_cells(view, store, key)?;
    Ok(row_writes(store, key, row, &old)?.into_iter().map(|(write, _)| write).collect())
}

/// The writes by which row `key` becomes `row`: presence if it is not there, and the columns that differ; with each the
/// cell that `old` has there.
pub(crate) fn row_writes<'c>(
    store: &StoreId,
    key: &str,
    row: &Raw,
    old: &'c RowCells,
) -> Result<Vec<(Write, Option<&'c Cell>)>, Error> {
    let fields = row.fields()?.ok_or_else(|| Error::Value {
        what: format!("row '{key}' cannot be stored"),
        why: "a row must be a struct or a map".into(),
    })?;
    let path = row_path(key)?;
    let mut writes = Vec::new();
    if old.present.is_none() {
        writes.push((write(store, path.clone(), Some(NULL.to_vec())), None));
    }
    for (column, value) in &fields {
        let cell = old.columns.get(column);
        let same =
            cell.is_some_and(|c| c.values.len() == 1 && c.winner().value == value.as_bytes());
        if !same {
            let value = Some(value.as_bytes().to_vec());
            writes.push((write(store, path.join(column)?, value), cell));
        }
    }
    for (column, cell) in old.columns.iter().filter(|(c, _)| !fields.contains_key(*c)) {
        writes.push((write(store, path.join(column)?, None), Some(cell)));
    }
    Ok(writes)
}

pub(crate) fn write(store: &StoreId, path: Path, value: Option<Vec<u8>>) -> Write {
    Write { store: store.clone(), path, value, seen: Seen::AtCommit, below: false, above: false }
}

pub(crate) fn delete_write(store: &StoreId, key: &str) -> Result<Write, Error> {
    Ok(Write { below: true, ..write(store, row_path(key)?, None) })
}

impl<T: Serialize + DeserializeOwned> Table<T> {
    pub(crate) fn new(db: Database, name: &str) -> Self {
        Self { db, store: StoreId::table(name), row: PhantomData }
    }

    /// Inserts or replaces the row under `key`. Only columns that differ are written.
    ///
    /// # Errors
    /// [`Error::Value`] when `row` is neither a struct nor a map, or what committing reports.
    pub async fn put(&self, key: &str, row: &T) -> Result<(), Error> {
        let raw = Raw::new(row)?;
        let writes = self
            .db
            .replica()
            .read_store(&self.store, |view| put_writes(view, &self.store, key, &raw))?;
        self.db.commit(Draft { writes, ..Draft::default() }).await
    }

    /// Starts putting many rows, several to an entry.
    #[must_use]
    pub fn bulk(&self) -> Bulk<T> {
        Bulk::new(self.clone())
    }

    /// The row under `key`.
    ///
    /// # Errors
    /// [`Error::Value`] when it is no `T`, or what storage reports.
    pub fn get(&self, key: &str) -> Result<Option<T>, Error> {
        let row =
            self.db.replica().read_store(&self.store, |view| row_cells(view, &self.store, key))?;
        if row.is_empty() { Ok(None) } else { row.raw().get().map(Some) }
    }

    /// Deletes the row under `key`. An edit that another device made without seeing this survives.
    ///
    /// # Errors
    /// What committing reports.
    pub async fn delete(&self, key: &str) -> Result<(), Error> {
        let writes = vec![delete_write(&self.store, key)?];
        self.db.commit(Draft { writes, ..Draft::default() }).await
    }

    /// Up to `limit` rows whose key begins with `prefix`, by key, starting after `after`. Cost: the rows passed over and
    /// returned.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn rows(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, T)>, Error> {
        let mut rows = Vec::new();
        self.each(prefix, after, &mut |key, row| {
            rows.push((key, row));
            if rows.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        Ok(rows)
    }

    /// Calls `visit` with each row whose key begins with `prefix`, by key, starting after `after`, until it breaks. One
    /// row in memory.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn each(
        &self,
        prefix: &str,
        after: Option<&str>,
        visit: &mut dyn FnMut(String, T) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        self.db.replica().read_store(&self.store, |view| {
            each_row(view, &self.store, prefix, after, &mut |key, row| {
                Ok(visit(key, row.raw().get()?))
            })
        })
    }
}

/// Calls `visit` with the cells of each row whose key begins with `prefix`.
pub(crate) fn each_row(
    view: View<'_>,
    store: &StoreId,
    prefix: &str,
    after: Option<&str>,
    visit: &mut dyn FnMut(String, RowCells) -> Result<ControlFlow<()>, Error>,
) -> Result<(), Error> {
    let mut open: Option<(String, RowCells)> = None;
    let mut result = Ok(());
    let mut stopped = false;
    // Keys before these cannot begin with the prefix, nor can they come after `after`.
    let from = after.filter(|after| *after >= prefix).unwrap_or(prefix);
    let start = if from.is_empty() { None } else { Some(below_key(from)?) };
    view.scan_cells(store, &Path::default(), start.as_ref(), &mut |cell| {
        let Some(Segment::Text(key)) = cell.path.segments().into_iter().next() else {
            return ControlFlow::Continue(());
        };
        if !key.starts_with(prefix) {
            return if key.as_str() > prefix {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            };
        }
        if after.is_some_and(|after| key.as_str() <= after) {
            return ControlFlow::Continue(());
        }
        if let Some((open_key, row)) = &mut open
            && *open_key == key
        {
            row.add(cell);
            return ControlFlow::Continue(());
        }
        let mut row = RowCells::default();
        row.add(cell);
        match open.replace((key, row)).map(|(key, row)| visit(key, row)) {
            None | Some(Ok(ControlFlow::Continue(()))) => ControlFlow::Continue(()),
            Some(flow) => {
                stopped = true;
                result = flow.map(|_| ());
                ControlFlow::Break(())
            }
        }
    })?;
    if let (Some((key, row)), false) = (open, stopped) {
        let _ = visit(key, row)?;
    }
    result
}

/// A path right before those of row `key`.
fn below_key(key: &str) -> Result<Path, Error> {
    // The row's own presence cell would be passed over if its path were given; one byte less sorts before it.
    let mut shorter = key.to_owned();
    shorter.pop();
    if shorter.is_empty() { row_path("\0") } else { row_path(&shorter) }
}
