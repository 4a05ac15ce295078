//! Stores of an application's own kind: cells by path, with the merging of cells and nothing on top.

use crate::table::write;
use crate::{Database, Error};
use anabranch_core::author::{Draft, Seen, Write};
use anabranch_core::cells::Cell;
use anabranch_core::entry::{StoreId, StoreKind};
use anabranch_core::ops::ValueName;
use anabranch_core::path::Path;
use std::ops::ControlFlow;

/// A store of cells, each holding bytes under a path. What they mean is for the application to say.
#[derive(Debug, Clone)]
pub struct Cells {
    pub(crate) db: Database,
    pub(crate) store: StoreId,
}

impl Cells {
    pub(crate) fn new(db: Database, kind: u16, name: &str) -> Self {
        Self { db, store: StoreId { kind: StoreKind::user(kind), name: name.to_owned() } }
    }

    /// The store, as [`crate::Written`] names it.
    #[must_use]
    pub fn id(&self) -> &StoreId {
        &self.store
    }

    /// The values of the cell at `path`, the one shown first; more than one is a conflict, none is no cell.
    ///
    /// # Errors
    /// What storage reports.
    pub fn get(&self, path: &Path) -> Result<Option<Cell>, Error> {
        let values =
            self.db.replica().read_store(&self.store, |view| view.cell(&self.store, path))?;
        Ok((!values.is_empty()).then(|| Cell { path: path.clone(), values }))
    }

    /// Calls `visit` with each cell at or below `prefix`, by path, starting after `after`, until it breaks. The empty
    /// prefix is the whole store. One cell in memory.
    ///
    /// # Errors
    /// What storage reports.
    pub fn each(
        &self,
        prefix: &Path,
        after: Option<&Path>,
        visit: &mut dyn FnMut(Cell) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        Ok(self
            .db
            .replica()
            .read_store(&self.store, |view| view.scan_cells(&self.store, prefix, after, visit))?)
    }

    /// Writes `value` to the cell at `path`, or deletes it; replaces whatever is there when it is committed.
    ///
    /// # Errors
    /// What committing reports.
    pub async fn put(&self, path: &Path, value: Option<&[u8]>) -> Result<(), Error> {
        self.commit(write(&self.store, path.clone(), value.map(<[u8]>::to_vec))).await
    }

    /// As [`Self::put`], replacing exactly the values of these names: what the writer had read before it decided. A value
    /// that came meanwhile stays, as a conflict.
    ///
    /// # Errors
    /// What committing reports.
    pub async fn replace(
        &self,
        path: &Path,
        seen: Vec<ValueName>,
        value: Option<&[u8]>,
    ) -> Result<(), Error> {
        let write = write(&self.store, path.clone(), value.map(<[u8]>::to_vec));
        self.commit(Write { seen: Seen::Values(seen), ..write }).await
    }

    async fn commit(&self, write: Write) -> Result<(), Error> {
        self.db.commit(Draft { writes: vec![write], ..Draft::default() }).await
    }
}
