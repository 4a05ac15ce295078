//! Documents: nested maps, one cell a leaf, so that two devices may change different leaves without a conflict.

use crate::value::{EMPTY_MAP, Raw};
use crate::{Database, Error};
use anabranch_core::author::{Draft, Seen, Write};
use anabranch_core::cells::Cell;
use anabranch_core::entry::StoreId;
use anabranch_core::path::{Path, Segment};
use anabranch_core::view::View;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// A document.
#[derive(Debug, Clone)]
pub struct Doc {
    pub(crate) db: Database,
    pub(crate) store: StoreId,
}

/// The writes by which what is at `path` becomes `value`; maps become cells of their own.
pub(crate) fn set_writes(store: &StoreId, path: &[&str], value: &Raw) -> Result<Vec<Write>, Error> {
    let base = Path::text(path)?;
    let mut writes = Vec::new();
    if !base.is_empty() {
        writes.push(delete_write(store, &base, true));
    }
    for (leaf, value) in value.leaves()? {
        let path = leaf.iter().try_fold(base.clone(), |path, key| path.join(key))?;
        if path.is_empty() {
            return Err(Error::Value {
                what: "the document cannot be replaced".into(),
                why: "the whole of a document must be a map that is not empty".into(),
            });
        }
        let value = Some(value.as_bytes().to_vec());
        writes.push(Write { value, above: true, ..delete_write(store, &path, false) });
    }
    Ok(writes)
}

pub(crate) fn delete_write(store: &StoreId, path: &Path, below: bool) -> Write {
    Write {
        store: store.clone(),
        path: path.clone(),
        value: None,
        seen: Seen::AtCommit,
        below,
        above: false,
    }
}

#[derive(Default)]
struct Tree {
    leaf: Option<Cell>,
    below: BTreeMap<String, Tree>,
}

impl Tree {
    fn add(&mut self, segments: &[Segment], cell: Cell) {
        match segments.split_first() {
            None => self.leaf = Some(cell),
            Some((Segment::Text(key), rest)) => {
                self.below.entry(key.clone()).or_default().add(rest, cell);
            }
            Some(_) => {}
        }
    }

    /// A leaf and a map at one place are a conflict; the map is shown, unless the leaf only marks an empty one.
    fn raw(&self) -> Option<Raw> {
        if self.below.is_empty() {
            return self.leaf.as_ref().map(|cell| Raw(cell.winner().value.clone()));
        }
        let below: Vec<(&str, Raw)> =
            self.below.iter().filter_map(|(k, tree)| Some((k.as_str(), tree.raw()?))).collect();
        Some(Raw::map(below.iter().map(|(k, raw)| (*k, raw.as_bytes()))))
    }
}

pub(crate) fn read(view: View<'_>, store: &StoreId, path: &[&str]) -> Result<Option<Raw>, Error> {
    let base = Path::text(path)?;
    let mut tree = Tree::default();
    view.scan_cells(store, &base, None, &mut |cell| {
        let segments = cell.path.segments();
        tree.add(segments.get(path.len()..).unwrap_or_default(), cell);
        ControlFlow::Continue(())
    })?;
    Ok(tree.raw())
}

impl Doc {
    pub(crate) fn new(db: Database, name: &str) -> Self {
        Self { db, store: StoreId::doc(name) }
    }

    /// Sets what is at `path`, replacing everything that was there and below. A map or struct becomes one cell a leaf.
    ///
    /// # Errors
    /// [`Error::Value`], or what committing reports.
    pub async fn set<T: Serialize + ?Sized>(&self, path: &[&str], value: &T) -> Result<(), Error> {
        let writes = set_writes(&self.store, path, &Raw::new(value)?)?;
        self.db.commit(Draft { writes, ..Draft::default() }).await
    }

    /// What is at `path`; the empty path is the whole document. Memory: what is returned.
    ///
    /// # Errors
    /// [`Error::Value`] when it is no `T`, or what storage reports.
    pub fn get<T: DeserializeOwned>(&self, path: &[&str]) -> Result<Option<T>, Error> {
        let raw = self.db.replica().read(|view| read(view, &self.store, path))?;
        raw.map(|raw| raw.get()).transpose()
    }

    /// Deletes what is at `path` and below.
    ///
    /// # Errors
    /// What committing reports.
    pub async fn delete(&self, path: &[&str]) -> Result<(), Error> {
        let path = Path::text(path)?;
        let writes = vec![delete_write(&self.store, &path, true)];
        self.db.commit(Draft { writes, ..Draft::default() }).await
    }

    /// Whether `path` is there and is an empty map.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn is_empty_map(&self, path: &[&str]) -> Result<bool, Error> {
        let raw = self.db.replica().read(|view| read(view, &self.store, path))?;
        Ok(raw.is_some_and(|raw| raw.as_bytes() == EMPTY_MAP))
    }
}
