//! Looking rows up by the values of a field.

use super::{Index, Parts, all, is_over};
use crate::entry::StoreId;
use crate::error::Error;
use crate::path::Path;
use crate::sortkey::{stored, stored_bounds, whole};
use crate::storage::{Order, StorageError, Table};
use crate::view::View;
use std::ops::{Bound, ControlFlow};

/// Between which values to look, each in its encoding.
#[derive(Debug, Clone, Copy)]
pub struct Range<'v> {
    /// The least value.
    pub from: Bound<&'v [u8]>,
    /// The greatest value.
    pub to: Bound<&'v [u8]>,
}

impl<'v> Range<'v> {
    /// One value alone.
    #[must_use]
    pub fn only(value: &'v [u8]) -> Self {
        Self { from: Bound::Included(value), to: Bound::Included(value) }
    }
}

/// A [`Range`] as an index is searched.
struct Search {
    /// Rows of the index: from here on, and before that.
    from: Vec<u8>,
    to: Vec<u8>,
    /// Where bounds are long, rows beyond them lie in between.
    least: Bound<Vec<u8>>,
    most: Bound<Vec<u8>>,
}

impl Search {
    fn new(index: &Index, range: Range<'_>) -> Self {
        let prefix = index.prefix();
        let at = |key: &[u8]| [&prefix[..], key].concat();
        let keys = |bound: Bound<&[u8]>| match bound {
            Bound::Unbounded => None,
            Bound::Included(value) | Bound::Excluded(value) => Some(stored_bounds(value)),
        };
        let whole_of = |bound: Bound<&[u8]>| bound.map(whole);
        // No kind of value has the tag ff, nor does a row that follows one begin with it.
        Self {
            from: keys(range.from).map_or_else(|| prefix.clone(), |(least, _)| at(&least)),
            to: keys(range.to)
                .map_or_else(|| at(&[0xff]), |(_, most)| at(&[&most[..], &[0xff]].concat())),
            least: whole_of(range.from),
            most: whole_of(range.to),
        }
    }

    fn has(&self, value: &[u8]) -> bool {
        let key = whole(value);
        let after = match &self.least {
            Bound::Unbounded => true,
            Bound::Included(least) => key >= *least,
            Bound::Excluded(least) => key > *least,
        };
        after
            && match &self.most {
                Bound::Unbounded => true,
                Bound::Included(most) => key <= *most,
                Bound::Excluded(most) => key < *most,
            }
    }
}

impl View<'_> {
    /// Calls `visit` with the path of each row of the table `store` whose shown value of `field` is in `range`, in the order
    /// of these values and then of rows, until it breaks. Values that begin with the same
    /// [`crate::sortkey::PREFIX_BYTES`] bytes come in any order, the same each time.
    ///
    /// Cost: one step a live value in the range, and one look-up of its cell; one row in memory.
    ///
    /// # Errors
    /// [`Error::NoIndex`], [`StorageError::Building`] while the index or the cells are being built, or what storage
    /// reports.
    pub fn find_rows(
        &self,
        store: &StoreId,
        field: &str,
        range: Range<'_>,
        order: Order,
        visit: &mut dyn FnMut(Path) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        self.require_built()?;
        let found = all(self.tx)?.into_iter().find(|(_, found)| is_over(found, store, field));
        let Some((number, found)) = found else {
            return Err(Error::NoIndex { store: store.clone(), field: field.to_owned() });
        };
        let Some(index) = Index::over(self.tx, number, found)? else { return Ok(()) };
        if !index.is_ready() {
            return Err(StorageError::Building.into());
        }
        let search = Search::new(&index, range);
        if search.from < search.to {
            self.search(&index, &search, order, visit)?;
        }
        Ok(())
    }

    fn search(
        &self,
        index: &Index,
        search: &Search,
        order: Order,
        visit: &mut dyn FnMut(Path) -> ControlFlow<()>,
    ) -> Result<(), StorageError> {
        // A row that comes twice under one value has it from two writers.
        let mut last = Vec::new();
        let mut failed = None;
        self.tx.scan(Table::Index, &search.from, Some(&search.to), order, &mut |key, _| {
            let row = Parts::of(key).and_then(|parts| {
                let before = &key[..index.prefix().len() + parts.value.len() + parts.row.len()];
                if last == before {
                    return Ok(None);
                }
                last = before.to_vec();
                let shown = self.shown(index, parts.row)?;
                let fits = |shown: &Vec<u8>| stored(shown) == parts.value && search.has(shown);
                Ok(shown.filter(fits).map(|_| Path::trusted(parts.row)))
            });
            match row {
                Ok(None) => ControlFlow::Continue(()),
                Ok(Some(row)) => visit(row),
                Err(e) => {
                    failed = Some(e);
                    ControlFlow::Break(())
                }
            }
        })?;
        failed.map_or(Ok(()), Err)
    }

    /// The value shown in the indexed field of a row.
    fn shown(&self, index: &Index, row: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        let path = Path::trusted(&[row, &index.suffix].concat());
        Ok(self.cell_in(index.store, &path)?.into_iter().next().map(|value| value.value))
    }
}
