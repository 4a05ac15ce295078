//! Documents: nested maps, one cell a leaf, so that two devices may change different leaves without a conflict.

use crate::position::Position;
use crate::value::{EMPTY_MAP, Raw};
use crate::{Database, Error, list};
use anabranch_core::author::{Draft, Seen, Write};
use anabranch_core::cells::Cell;
use anabranch_core::entry::StoreId;
use anabranch_core::path::{ElementId, Path, Segment};
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
    writes.extend(leaf_writes(store, &base, value)?);
    Ok(writes)
}

/// The writes that put the leaves of `value` below `base`, taking away what is at the paths above them.
pub(crate) fn leaf_writes(store: &StoreId, base: &Path, value: &Raw) -> Result<Vec<Write>, Error> {
    let mut writes = Vec::new();
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

/// What is at a path and below it, in cells.
#[derive(Default)]
pub(crate) struct Tree {
    leaf: Option<Cell>,
    below: BTreeMap<String, Tree>,
    elements: BTreeMap<ElementId, Tree>,
    /// Of an element of a list.
    position: Option<Cell>,
}

impl Tree {
    fn add(&mut self, segments: &[Segment], cell: Cell) {
        match segments.split_first() {
            None => self.leaf = Some(cell),
            Some((Segment::Text(key), rest)) => {
                self.below.entry(key.clone()).or_default().add(rest, cell);
            }
            Some((Segment::Bytes(none), [])) if none.is_empty() => self.position = Some(cell),
            Some((segment, rest)) => {
                if let Some(id) = ElementId::of(segment) {
                    self.elements.entry(id).or_default().add(rest, cell);
                }
            }
        }
    }

    pub(crate) fn leaf(&self) -> Option<&Cell> {
        self.leaf.as_ref()
    }

    /// Whether anything is there to be shown. What has a position alone is no element.
    fn is_there(&self) -> bool {
        self.leaf.is_some()
            || self.below.values().any(Self::is_there)
            || self.elements.values().any(Self::is_there)
    }

    /// The elements of the list that is there, in order.
    pub(crate) fn order(&self) -> Vec<(ElementId, Position)> {
        let there = self.elements.iter().filter(|(_, tree)| tree.is_there());
        let mut list: Vec<_> =
            there.map(|(id, tree)| (*id, list::position(tree.position.as_ref()))).collect();
        list.sort_by_cached_key(|(id, position)| position.key(*id));
        list
    }

    /// The elements of the list or array that is there.
    pub(crate) fn items(&self) -> Result<Option<Vec<Raw>>, Error> {
        let order = self.order();
        if order.is_empty() {
            let leaf = self.leaf.as_ref().map(|cell| Raw(cell.winner().value.clone()).items());
            return Ok(leaf.transpose()?.flatten());
        }
        let trees = order.iter().filter_map(|(id, _)| self.elements.get(id));
        Ok(Some(trees.filter_map(Self::raw).collect()))
    }

    /// A leaf, a map and a list at one place are a conflict; the map is shown, then the list, unless the leaf only marks an
    /// empty map.
    fn raw(&self) -> Option<Raw> {
        let below: Vec<(&str, Raw)> =
            self.below.iter().filter_map(|(k, tree)| Some((k.as_str(), tree.raw()?))).collect();
        if !below.is_empty() {
            return Some(Raw::map(below.iter().map(|(k, raw)| (*k, raw.as_bytes()))));
        }
        let order = self.order();
        if order.is_empty() {
            return self.leaf.as_ref().map(|cell| Raw(cell.winner().value.clone()));
        }
        let trees = order.iter().filter_map(|(id, _)| self.elements.get(id));
        Some(Raw::array(&trees.filter_map(Self::raw).collect::<Vec<_>>()))
    }
}

pub(crate) fn tree(view: View<'_>, store: &StoreId, base: &Path) -> Result<Tree, Error> {
    let (mut tree, depth) = (Tree::default(), base.len());
    view.scan_cells(store, base, None, &mut |cell| {
        let segments = cell.path.segments();
        tree.add(segments.get(depth..).unwrap_or_default(), cell);
        ControlFlow::Continue(())
    })?;
    Ok(tree)
}

pub(crate) fn read(view: View<'_>, store: &StoreId, path: &[&str]) -> Result<Option<Raw>, Error> {
    Ok(tree(view, store, &Path::text(path)?)?.raw())
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
        let raw =
            self.db.replica().read_store(&self.store, |view| read(view, &self.store, path))?;
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
        let raw =
            self.db.replica().read_store(&self.store, |view| read(view, &self.store, path))?;
        Ok(raw.is_some_and(|raw| raw.as_bytes() == EMPTY_MAP))
    }
}
