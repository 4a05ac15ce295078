//! Secondary indexes: rows by the values of a field. Each replica has its own, declared where they are needed; peers hear
//! nothing of them, and digests are the same with and without.

use crate::table::row_cells;
use crate::value::Raw;
use crate::{Database, Error, Table};
use anabranch_core::entry::StoreId;
use anabranch_core::index::{IndexInfo, Range};
use anabranch_core::path::{Path, Segment};
use anabranch_core::storage::Order;
use anabranch_node::{NodeError, Replica};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::ops::{Bound, ControlFlow, RangeBounds};
use std::sync::Arc;

impl Database {
    /// Declares an index over `field` of a table on this replica, and builds it over what is there; every later change is
    /// carried into it as it is committed. False when there is one. If the process ends in the middle, the next look-up
    /// goes on.
    ///
    /// Cost: reads the table once; from then on one more row for each value of the field.
    ///
    /// # Errors
    /// [`Error::Node`] when there are too many, or what storage reports.
    pub async fn index(&self, table: &str, field: &str) -> Result<bool, Error> {
        self.change_indexes(table, field, Replica::index).await
    }

    /// Removes an index from this replica. False when there is none.
    ///
    /// # Errors
    /// What storage reports.
    pub async fn unindex(&self, table: &str, field: &str) -> Result<bool, Error> {
        self.change_indexes(table, field, Replica::unindex).await
    }

    /// It may take long, so it is done on a thread for that.
    async fn change_indexes(
        &self,
        table: &str,
        field: &str,
        change: fn(&Replica, &StoreId, &str) -> Result<bool, NodeError>,
    ) -> Result<bool, Error> {
        let (store, field) = (StoreId::table(table), field.to_owned());
        let replica = Arc::clone(self.replica());
        let work = tokio::task::spawn_blocking(move || change(&replica, &store, &field));
        Ok(work.await.map_err(|_| NodeError::Closed)??)
    }

    /// The indexes of this replica, by table and field.
    ///
    /// # Errors
    /// What storage reports.
    pub fn indexes(&self) -> Result<Vec<IndexInfo>, Error> {
        Ok(self.replica().look(|view| view.indexes())?)
    }
}

impl<T: Serialize + DeserializeOwned> Table<T> {
    /// The rows whose `field` is `value`, by key. Of a field with a conflict the value shown counts. Numbers are equal when
    /// they are worth the same, whatever their types.
    ///
    /// Needs [`Database::index`] over the field. Cost: the rows found, all in memory; [`Self::each_by`] has one at a time.
    ///
    /// # Errors
    /// [`Error::Node`] when the field has no index here, [`Error::Value`] when a row is no `T`, or what storage reports.
    pub fn find<V: Serialize + ?Sized>(
        &self,
        field: &str,
        value: &V,
    ) -> Result<Vec<(String, T)>, Error> {
        let value = Raw::new(value)?;
        let mut rows = Vec::new();
        self.search(field, Range::only(value.as_bytes()), Order::Ascending, &mut |key, row| {
            rows.push((key, row));
            ControlFlow::Continue(())
        })?;
        Ok(rows)
    }

    /// Up to `limit` rows whose `field` is in `range`, by its value and then by key.
    ///
    /// # Errors
    /// As [`Self::find`].
    pub fn between<V: Serialize>(
        &self,
        field: &str,
        range: impl RangeBounds<V>,
        limit: usize,
    ) -> Result<Vec<(String, T)>, Error> {
        let mut rows = Vec::new();
        if limit > 0 {
            self.each_by(field, range, Order::Ascending, &mut |key, row| {
                rows.push((key, row));
                if rows.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
        }
        Ok(rows)
    }

    /// Calls `visit` with each row whose `field` is in `range`, in the order of its values and then of keys, or the other
    /// way round, until it breaks. Values sort as null, `false`, `true`, numbers, text, bytes, everything else; long ones
    /// that begin with the same 128 bytes come in any order. One row in memory.
    ///
    /// # Errors
    /// As [`Self::find`].
    pub fn each_by<V: Serialize>(
        &self,
        field: &str,
        range: impl RangeBounds<V>,
        order: Order,
        visit: &mut dyn FnMut(String, T) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let (from, to) = (encoded(range.start_bound())?, encoded(range.end_bound())?);
        let range = Range { from: borrowed(&from), to: borrowed(&to) };
        self.search(field, range, order, visit)
    }

    fn search(
        &self,
        field: &str,
        range: Range<'_>,
        order: Order,
        visit: &mut dyn FnMut(String, T) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        self.db.replica().read_indexed(&self.store, field, |view| {
            let mut failed = None;
            view.find_rows(&self.store, field, range, order, &mut |row| {
                // Rows of a table have text for a key; whatever else a peer writes is none.
                let Some(key) = text_of(&row) else { return ControlFlow::Continue(()) };
                let found = row_cells(view, &self.store, &key).and_then(|row| row.raw().get());
                match found {
                    Ok(row) => visit(key, row),
                    Err(e) => {
                        failed = Some(e);
                        ControlFlow::Break(())
                    }
                }
            })?;
            failed.map_or(Ok(()), Err)
        })
    }
}

fn text_of(row: &Path) -> Option<String> {
    match row.segments().into_iter().next() {
        Some(Segment::Text(key)) => Some(key),
        _ => None,
    }
}

fn encoded<V: Serialize>(bound: Bound<&V>) -> Result<Bound<Raw>, Error> {
    Ok(match bound {
        Bound::Included(value) => Bound::Included(Raw::new(value)?),
        Bound::Excluded(value) => Bound::Excluded(Raw::new(value)?),
        Bound::Unbounded => Bound::Unbounded,
    })
}

fn borrowed(bound: &Bound<Raw>) -> Bound<&[u8]> {
    match bound {
        Bound::Included(value) => Bound::Included(value.as_bytes()),
        Bound::Excluded(value) => Bound::Excluded(value.as_bytes()),
        Bound::Unbounded => Bound::Unbounded,
    }
}
