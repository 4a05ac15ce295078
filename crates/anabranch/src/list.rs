//! Lists in documents. An element has a name of its own, a position cell and the cells of its value, so that moving it and
//! changing it do not collide, and what two devices put at one place stands one after the other.
//!
//! Removing an element takes away what was seen of it. One that another device changes at the same time stays, in its
//! place: whoever changes an element writes its position down again, which a move at the same time outranks. One that is
//! only moved at the same time goes.

use crate::doc;
use crate::position::{POSITION_BYTES, Position, Reason, Step};
use crate::table::write;
use crate::value::Raw;
use crate::{Database, Doc, Error};
use anabranch_core::author::{Draft, Write};
use anabranch_core::cells::Cell;
use anabranch_core::entry::StoreId;
use anabranch_core::path::{ElementId, Path, PathError, Segment};
use anabranch_core::view::View;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::ops::ControlFlow;

/// The elements of an array that was set as one value are numbered from here on, by the entry that wrote it, when they
/// become a list: two devices that do so at the same time make the same elements.
const OF_ARRAY: u32 = 1 << 31;

/// A list at a path of a document, or inside an element of another list. It comes into being with its first element.
///
/// An array that was set as a value ([`Doc::set`]) is a list as well; it is taken apart when it is first changed as one.
#[derive(Debug, Clone)]
pub struct List {
    pub(crate) db: Database,
    pub(crate) store: StoreId,
    pub(crate) base: Path,
}

/// The cell that holds an element's position.
fn position_path(element: &Path) -> Result<Path, PathError> {
    element.join_bytes(&[])
}

/// Whether a cell of a document holds the position of a list's element, and no value.
#[must_use]
pub fn is_position(path: &Path) -> bool {
    matches!(&path.segments()[..], [.., element, Segment::Bytes(none)]
        if none.is_empty() && ElementId::of(element).is_some())
}

/// The position that a cell's values amount to: the winner among those that somebody chose, else what an edit wrote down.
pub(crate) fn position(cell: Option<&Cell>) -> Position {
    let values = cell.map_or(&[][..], |cell| &cell.values);
    let positions = values.iter().filter_map(|v| Position::decode(&v.value));
    // Of equal reasons the first, which is the winner.
    let best = positions.reduce(|best, next| if next.1 > best.1 { next } else { best });
    best.map_or_else(Position::last, |(position, _)| position)
}

#[derive(Debug, Clone)]
struct Item {
    /// Where its cells are.
    path: Path,
    id: ElementId,
    position: Position,
    /// Whether this draft has put it where it is.
    placed: bool,
    /// Of an array that is not taken apart yet.
    value: Option<Raw>,
}

impl Item {
    fn key(&self) -> Vec<Step> {
        self.position.key(self.id)
    }
}

/// A list as it was read, with what a draft has done to it since.
#[derive(Debug)]
pub(crate) struct State {
    store: StoreId,
    base: Path,
    items: Vec<Item>,
}

impl State {
    pub(crate) fn read(view: View<'_>, list: &List) -> Result<Self, Error> {
        let tree = doc::tree(view, &list.store, &list.base)?;
        let mut items = Vec::new();
        for (id, position) in tree.order() {
            let path = list.base.join_element(&id)?;
            items.push(Item { path, id, position, placed: false, value: None });
        }
        if let (true, Some(leaf)) = (items.is_empty(), tree.leaf()) {
            let winner = leaf.winner();
            for (n, value) in Raw(winner.value.clone()).items()?.into_iter().flatten().enumerate() {
                let number = u32::try_from(n).map_or(u32::MAX, |n| OF_ARRAY | n);
                let id = ElementId { entry: winner.name.id16, number };
                let (path, position) = (list.base.join_element(&id)?, Position::spaced(n));
                items.push(Item { path, id, position, placed: true, value: Some(value) });
            }
        }
        Ok(Self { store: list.store.clone(), base: list.base.clone(), items })
    }

    fn at(&self, at: usize) -> Result<&Item, Error> {
        self.items.get(at).ok_or_else(|| self.no_such(at))
    }

    fn no_such(&self, at: usize) -> Error {
        let (what, len) = (format!("list {} has no place {at}", self.base), self.items.len());
        Error::Value { what, why: format!("it has {len} elements, counted from 0") }
    }

    /// Inserts an element that gets `number` in its entry.
    pub(crate) fn insert(
        &mut self,
        at: usize,
        value: &Raw,
        number: u32,
    ) -> Result<Vec<Write>, Error> {
        if at > self.items.len() {
            return Err(self.no_such(at));
        }
        let mut writes = self.take_apart()?;
        let path = self.base.join_new(number)?;
        // Its id is not known yet; among what this draft makes numbers decide.
        let id = ElementId { entry: [0xff; 16], number };
        let position = Position::last();
        self.items.insert(at, Item { path: path.clone(), id, position, placed: true, value: None });
        writes.extend(doc::leaf_writes(&self.store, &path, value)?);
        writes.extend(self.place(at)?);
        Ok(writes)
    }

    pub(crate) fn push(&mut self, value: &Raw, number: u32) -> Result<Vec<Write>, Error> {
        self.insert(self.items.len(), value, number)
    }

    /// Moves the element at `from` so that it is at `to` afterwards.
    pub(crate) fn move_to(&mut self, from: usize, to: usize) -> Result<Vec<Write>, Error> {
        self.at(from)?;
        self.at(to)?;
        if from == to {
            return Ok(Vec::new());
        }
        let mut writes = self.take_apart()?;
        let mut item = self.items.remove(from);
        item.placed = true;
        self.items.insert(to, item);
        writes.extend(self.place(to)?);
        Ok(writes)
    }

    pub(crate) fn remove(&mut self, at: usize) -> Result<Vec<Write>, Error> {
        self.at(at)?;
        let mut writes = self.take_apart()?;
        let item = self.items.remove(at);
        writes.push(doc::delete_write(&self.store, &item.path, true));
        Ok(writes)
    }

    /// Sets what is at `path` of the element at `at`.
    pub(crate) fn set(
        &mut self,
        at: usize,
        path: &[&str],
        value: &Raw,
    ) -> Result<Vec<Write>, Error> {
        self.at(at)?;
        let mut writes = self.take_apart()?;
        let item = self.at(at)?;
        let path = path.iter().try_fold(item.path.clone(), |path, key| path.join(key))?;
        writes.push(doc::delete_write(&self.store, &path, true));
        writes.extend(doc::leaf_writes(&self.store, &path, value)?);
        let reason = if item.placed { Reason::Placed } else { Reason::Edited };
        writes.push(self.position_write(item, reason)?);
        Ok(writes)
    }

    /// Finds the element at `at` a position between its neighbours.
    fn place(&mut self, at: usize) -> Result<Vec<Write>, Error> {
        let left = at.checked_sub(1).and_then(|left| self.items.get(left)).map(Item::key);
        let right = self.items.get(at + 1).map(Item::key);
        let position = Position::between(left.as_deref(), right.as_deref());
        if position.encode(Reason::Edited).len() <= POSITION_BYTES {
            self.items[at].position = position;
            return Ok(vec![self.position_write(&self.items[at], Reason::Placed)?]);
        }
        for (n, item) in self.items.iter_mut().enumerate() {
            (item.position, item.placed) = (Position::spaced(n), true);
        }
        self.items.iter().map(|item| self.position_write(item, Reason::Placed)).collect()
    }

    fn position_write(&self, item: &Item, reason: Reason) -> Result<Write, Error> {
        let value = Some(item.position.encode(reason));
        let path = position_path(&item.path)?;
        Ok(Write { above: false, ..write(&self.store, path, value) })
    }

    /// Makes elements of an array that was one value. The value itself goes with the first write below it.
    fn take_apart(&mut self) -> Result<Vec<Write>, Error> {
        let mut writes = Vec::new();
        let mut items = std::mem::take(&mut self.items);
        for item in &mut items {
            if let Some(value) = item.value.take() {
                writes.extend(doc::leaf_writes(&self.store, &item.path, &value)?);
                writes.push(self.position_write(item, Reason::Placed)?);
            }
        }
        self.items = items;
        Ok(writes)
    }
}

impl List {
    /// A list at `path` of the element `id`.
    ///
    /// # Errors
    /// [`Error::Node`] when the path does not fit.
    pub fn inside(&self, id: &ElementId, path: &[&str]) -> Result<Self, Error> {
        let base = self.base.join_element(id)?;
        let base = path.iter().try_fold(base, |base, key| base.join(key))?;
        Ok(Self { base, ..self.clone() })
    }

    /// Puts an element at the end. Cost of this and all that follow: the list is read.
    ///
    /// # Errors
    /// [`Error::Value`], or what committing reports.
    pub async fn push<T: Serialize + ?Sized>(&self, value: &T) -> Result<(), Error> {
        let value = Raw::new(value)?;
        self.change(|state| state.push(&value, 0)).await
    }

    /// Puts an element at place `at`, counted from 0; what is there and behind it makes way.
    ///
    /// # Errors
    /// [`Error::Value`] also when the list is shorter, or what committing reports.
    pub async fn insert<T: Serialize + ?Sized>(&self, at: usize, value: &T) -> Result<(), Error> {
        let value = Raw::new(value)?;
        self.change(|state| state.insert(at, &value, 0)).await
    }

    /// Moves the element at `from` so that it is at `to` afterwards. Of two moves of one element at the same time the one
    /// with the later timestamp counts.
    ///
    /// # Errors
    /// As [`Self::insert`].
    pub async fn move_to(&self, from: usize, to: usize) -> Result<(), Error> {
        self.change(|state| state.move_to(from, to)).await
    }

    /// Removes the element at `at`. One that another device changes at the same time stays.
    ///
    /// # Errors
    /// As [`Self::insert`].
    pub async fn remove(&self, at: usize) -> Result<(), Error> {
        self.change(|state| state.remove(at)).await
    }

    /// Replaces the element at `at`.
    ///
    /// # Errors
    /// As [`Self::insert`].
    pub async fn set<T: Serialize + ?Sized>(&self, at: usize, value: &T) -> Result<(), Error> {
        self.set_in(at, &[], value).await
    }

    /// Sets what is at `path` inside the element at `at`, which is a map.
    ///
    /// # Errors
    /// As [`Self::insert`].
    pub async fn set_in<T: Serialize + ?Sized>(
        &self,
        at: usize,
        path: &[&str],
        value: &T,
    ) -> Result<(), Error> {
        let value = Raw::new(value)?;
        self.change(|state| state.set(at, path, &value)).await
    }

    async fn change(
        &self,
        change: impl FnOnce(&mut State) -> Result<Vec<Write>, Error>,
    ) -> Result<(), Error> {
        let mut state =
            self.db.replica().read_store(&self.store, |view| State::read(view, self))?;
        let writes = change(&mut state)?;
        self.db.commit(Draft { writes, ..Draft::default() }).await
    }

    /// How many elements there are.
    ///
    /// # Errors
    /// What storage reports.
    pub fn len(&self) -> Result<usize, Error> {
        Ok(self.ids()?.len())
    }

    /// Whether there are none.
    ///
    /// # Errors
    /// What storage reports.
    pub fn is_empty(&self) -> Result<bool, Error> {
        Ok(self.len()? == 0)
    }

    /// The names of the elements, in order. They stay when elements are moved or changed.
    ///
    /// # Errors
    /// What storage reports.
    pub fn ids(&self) -> Result<Vec<ElementId>, Error> {
        let state = self.db.replica().read_store(&self.store, |view| State::read(view, self))?;
        Ok(state.items.into_iter().map(|item| item.id).collect())
    }

    /// The element at `at`.
    ///
    /// # Errors
    /// [`Error::Value`] when it is no `T`, or what storage reports.
    pub fn get<T: DeserializeOwned>(&self, at: usize) -> Result<Option<T>, Error> {
        self.raws()?.get(at).map(Raw::get).transpose()
    }

    /// All elements, in order.
    ///
    /// # Errors
    /// [`Error::Value`] when one is no `T`, or what storage reports.
    pub fn items<T: DeserializeOwned>(&self) -> Result<Vec<T>, Error> {
        self.raws()?.iter().map(Raw::get).collect()
    }

    /// Calls `visit` with each element and its name, in order, until it breaks.
    ///
    /// # Errors
    /// As [`Self::items`].
    pub fn each<T: DeserializeOwned>(
        &self,
        visit: &mut dyn FnMut(ElementId, T) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        for (id, raw) in self.ids()?.into_iter().zip(self.raws()?) {
            if visit(id, raw.get()?).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn raws(&self) -> Result<Vec<Raw>, Error> {
        let tree = self
            .db
            .replica()
            .read_store(&self.store, |view| doc::tree(view, &self.store, &self.base))?;
        Ok(tree.items()?.unwrap_or_default())
    }
}

impl Doc {
    /// The list at `path`.
    ///
    /// # Errors
    /// [`Error::Node`] when the path is empty or does not fit.
    pub fn list(&self, path: &[&str]) -> Result<List, Error> {
        let base = Path::text(path)?;
        if base.is_empty() {
            return Err(PathError.into());
        }
        Ok(List { db: self.db.clone(), store: self.store.clone(), base })
    }
}
