//! Taking away what nothing names any more. A collection marks what live values name in one snapshot and takes away what
//! that snapshot has beyond it, in stretches of the order of names, so that memory is bounded however much there is (I7).
//!
//! What comes later is in no such stretch. What was there, unnamed, and is named meanwhile is protected by a row in the
//! table: a put pins what it stores, and a value that became live since is on the list of awaited content, from which
//! nobody takes it while a collection is under way. Both are looked up in the transaction that takes away.

use super::put::is_pinned;
use super::{COLLECT, DEAD, Keep, Kept, OWN, PIN, PUT, WorkId, as_read, lives};
use crate::error::NodeError;
use crate::replica::Replica;
use anabranch_core::awaited::{AwaitKey, await_again};
use anabranch_core::blob::{ChunkHash, ContentRef, NodeSpan, Step, Walker, content_of};
use anabranch_core::entry::StoreId;
use anabranch_core::path::Path;
use anabranch_core::sabotage::{self, Bug};
use anabranch_core::storage::{Durability, Order, ReadTx, StorageError, Table, WriteTx};
use anabranch_core::view::View;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

/// Names marked in one pass: about 32 MiB.
pub const MARKS: usize = 512 * 1024;
/// Blobs taken away in one transaction.
const TAKEN: usize = 4096;
/// Rows of dead puts taken away in one transaction.
const ROWS: usize = 4096;

/// The name of a blob.
type Name = [u8; 32];

/// Names, and where those begin that were not looked at; `None`: all were.
type Stretch<T> = (T, Option<Name>);

/// What a collection took away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Collected {
    /// Chunks and manifest nodes.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Whose content is taken away although live values name it.
#[derive(Debug, Clone)]
struct Evicted {
    store: StoreId,
    /// `None`: all of it.
    path: Option<Path>,
}

impl Evicted {
    fn covers(&self, store: &StoreId, path: &Path) -> bool {
        self.store == *store && self.path.as_ref().is_none_or(|evicted| evicted == path)
    }
}

/// A collection under way.
#[derive(Debug)]
pub struct Collection {
    replica: Arc<Replica>,
    id: WorkId,
    evicted: Option<Evicted>,
    marks: usize,
    /// Where the next stretch begins; `None`: there is none.
    from: Option<Name>,
    /// Where the one that was found last does.
    began: Name,
    unnamed: Vec<Name>,
    done: Collected,
}

impl Replica {
    /// Begins to take away what no live value names, conflicting ones included, and no put under way is about to. Marks
    /// `marks` names at once. Blocking.
    ///
    /// # Errors
    /// [`NodeError::Setting`] while another collection is under way, or in a replica whose blobs are elsewhere;
    /// [`NodeError::Core`].
    pub fn collect(self: &Arc<Self>, marks: usize) -> Result<Collection, NodeError> {
        self.begin_collection(marks, None)
    }

    /// Begins to take away content of the lazy store `name` that this device did not put in itself: all of it, or that
    /// of `path`. What other stores name stays.
    ///
    /// # Errors
    /// As [`Self::collect`]; [`NodeError::Setting`] also when the store is not lazy.
    pub fn evict(
        self: &Arc<Self>,
        name: &str,
        path: Option<&Path>,
        marks: usize,
    ) -> Result<Collection, NodeError> {
        if self.keep(Some(name))? == Keep::Eager {
            return Err(NodeError::Setting(format!(
                "this device keeps all content of '{name}' and would fetch it again; make the store lazy first ('anabranch db blob keep DB {name} lazy')"
            )));
        }
        let store = StoreId::blobs(name);
        let evicted = Evicted { store: store.clone(), path: path.cloned() };
        let collection = self.begin_collection(marks, Some(evicted))?;
        collection.await_again(&store, path)?;
        Ok(collection)
    }

    fn begin_collection(
        self: &Arc<Self>,
        marks: usize,
        evicted: Option<Evicted>,
    ) -> Result<Collection, NodeError> {
        self.require_blobs()?;
        if self.look(|view| view.is_closed())? {
            return Err(NodeError::Setting(
                "this device cannot open all of the sealed database, so it cannot tell which content is still named; take content away on devices that can read it".into(),
            ));
        }
        let random: [u8; 32] = self.device().random()?;
        let mut id = WorkId::default();
        id.copy_from_slice(&random[..16]);
        let now = self.device().now().0;
        let mut tx = self.storage().write(Durability::Normal)?;
        if super::collects(&mut *tx, now)? {
            return Err(NodeError::Setting(
                "another collection is under way in this database; try again when it is done (one that was killed counts as dead after a day)".into(),
            ));
        }
        tx.put(Table::Local, COLLECT, &[&id[..], &now.to_be_bytes()].concat())?;
        tx.commit()?;
        let (marks, from) = (marks.max(1), Some([0; 32]));
        let replica = Arc::clone(self);
        let done = Collected::default();
        let began = [0; 32];
        Ok(Collection { replica, id, evicted, marks, from, began, unnamed: Vec::new(), done })
    }
}

impl Collection {
    /// Finds the next stretch of what nothing names. False when there is none.
    ///
    /// # Errors
    /// [`NodeError::Core`].
    pub fn mark(&mut self) -> Result<bool, NodeError> {
        let Some(from) = self.from else { return Ok(false) };
        self.began = from;
        let replica = Arc::clone(&self.replica);
        let (unnamed, next) = replica.read_built(|tx| {
            let (marked, to) = self.marked(tx, from)?;
            unnamed(tx, &marked, from, to, self.marks)
        })?;
        (self.unnamed, self.from) = (unnamed, next);
        Ok(true)
    }

    /// Takes away some of the stretch that was found. False when nothing of it is left.
    ///
    /// # Errors
    /// [`NodeError::Core`]; [`NodeError::Setting`] when it was held up for so long that another took its place.
    pub fn sweep(&mut self) -> Result<bool, NodeError> {
        if self.unnamed.is_empty() {
            return Ok(false);
        }
        let rest = self.unnamed.len().saturating_sub(TAKEN);
        let mut taken: BTreeSet<Name> = self.unnamed.drain(rest..).collect();
        let now = self.replica.device().now().0;
        let mut tx = self.replica.storage().write(Durability::Normal)?;
        self.still_collects(&mut *tx, now)?;
        if View::new(as_read(&mut *tx)).building()?.is_some() {
            // What is named meanwhile is not on the list of awaited content before its cells are built.
            self.unnamed.clear();
            self.from = Some(self.began);
            return Ok(false);
        }
        self.spare_awaited(as_read(&mut *tx), &mut taken)?;
        let mut done = Collected::default();
        for hash in taken {
            let pinned = is_pinned(&mut *tx, &ChunkHash(hash), now)?;
            if pinned && !sabotage::is(Bug::PinIgnored) {
                continue;
            }
            let bytes = tx.get(Table::Blob, &hash)?.map_or(0, |bytes| bytes.len() as u64);
            if tx.delete(Table::Blob, &hash)? {
                done.blobs += 1;
                done.bytes += bytes;
            }
        }
        tx.commit()?;
        self.done.blobs += done.blobs;
        self.done.bytes += done.bytes;
        Ok(!self.unnamed.is_empty())
    }

    /// Does all of it. Blocking.
    ///
    /// # Errors
    /// As [`Self::mark`] and [`Self::sweep`].
    pub fn run(mut self, progress: &mut dyn FnMut(Collected)) -> Result<Collected, NodeError> {
        while self.mark()? {
            while self.sweep()? {
                progress(self.done);
            }
        }
        self.end()
    }

    /// Takes away what puts left that were killed or given up, forgets what was put in here and is gone, and is done.
    ///
    /// # Errors
    /// [`NodeError::Core`].
    pub fn end(self) -> Result<Collected, NodeError> {
        self.forget_dead()?;
        Ok(self.done)
    }

    /// Whether nothing is left to be found or taken away.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.from.is_none() && self.unnamed.is_empty()
    }

    /// What was taken away so far.
    #[must_use]
    pub fn done(&self) -> Collected {
        self.done
    }

    fn still_collects(&self, tx: &mut dyn WriteTx, now: u64) -> Result<(), NodeError> {
        let row = tx.get(Table::Local, COLLECT)?.unwrap_or_default();
        if row.get(..16) != Some(&self.id[..]) {
            return Err(NodeError::Setting(
                "the collection was held up for more than a day and counts as dead; start it again"
                    .into(),
            ));
        }
        Ok(tx.put(Table::Local, COLLECT, &[&self.id[..], &now.to_be_bytes()].concat())?)
    }

    /// The least names from `from` on that are named by live values, and before which all of them are known.
    fn marked(&self, tx: &dyn ReadTx, from: Name) -> Result<Stretch<BTreeSet<Name>>, StorageError> {
        let (view, kept) = (View::new(tx), Kept::read(tx)?);
        let marks = RefCell::new(Marks { set: BTreeSet::new(), from, to: None, most: self.marks });
        let seen = Seen::default();
        for store in view.stores()?.into_iter().map(|info| info.id) {
            if !store.kind.names_content() {
                continue;
            }
            let mut failed = None;
            view.scan_cells(&store, &Path::default(), None, &mut |cell| {
                let shown = if sabotage::is(Bug::ConflictCollected) { 1 } else { usize::MAX };
                for value in cell.values.iter().take(shown) {
                    let marked =
                        self.spares(view, &kept, &store, &cell.path, value).and_then(|spares| {
                            match content_of(&value.value).filter(|_| spares) {
                                Some(content) => {
                                    let content = view.kept(&store, content)?;
                                    mark(tx, &content, &seen, &mut |hash| {
                                        marks.borrow_mut().add(hash)
                                    })
                                }
                                None => Ok(()),
                            }
                        });
                    if let Err(e) = marked {
                        failed = Some(e);
                        return ControlFlow::Break(());
                    }
                }
                ControlFlow::Continue(())
            })?;
            if let Some(e) = failed {
                return Err(e);
            }
        }
        let Marks { set, to, .. } = marks.into_inner();
        Ok((set, to))
    }

    /// Whether the content of this live value stays.
    fn spares(
        &self,
        view: View<'_>,
        kept: &Kept,
        store: &StoreId,
        path: &Path,
        value: &anabranch_core::cells::LiveValue,
    ) -> Result<bool, StorageError> {
        let own = value.name.log.device == self.replica.device().id()
            || is_own(view.tables(), &value.value)?;
        match &self.evicted {
            Some(evicted)
                if !own && evicted.covers(store, path) && kept.of(&store.name) == Keep::Lazy =>
            {
                Ok(!view.is_awaited(store, path, &value.name)?)
            }
            _ => Ok(true),
        }
    }

    /// What values name that are on the list of awaited content is not taken away: some of them are new.
    fn spare_awaited(
        &self,
        tx: &dyn ReadTx,
        taken: &mut BTreeSet<Name>,
    ) -> Result<(), StorageError> {
        let (view, kept, seen) = (View::new(tx), Kept::read(tx)?, Seen::default());
        let mut at = AwaitKey::default();
        while let Some(row) = view.awaited(&at)? {
            let spares = match &row.value {
                Some((path, value)) => self.spares(view, &kept, &row.store, path, value)?,
                None => true,
            };
            if let Some(content) = row.content.filter(|_| spares) {
                mark(tx, &content, &seen, &mut |hash| _ = taken.remove(&hash.0))?;
            }
            at = row.key.next();
        }
        Ok(())
    }

    fn await_again(&self, store: &StoreId, path: Option<&Path>) -> Result<(), NodeError> {
        let own = self.replica.device().id();
        let mut after: Option<Path> = None;
        loop {
            let (mut values, mut last) = (Vec::new(), None);
            self.replica.read_store(store, |view| {
                let prefix = path.cloned().unwrap_or_default();
                view.scan_cells(store, &prefix, after.as_ref(), &mut |cell| {
                    let strange = cell.values.iter().filter(|v| v.name.log.device != own);
                    values.extend(strange.map(|v| (cell.path.clone(), v.name, v.value.clone())));
                    last = Some(cell.path);
                    match values.len() < ROWS {
                        true => ControlFlow::Continue(()),
                        false => ControlFlow::Break(()),
                    }
                })
            })?;
            if values.is_empty() {
                return Ok(());
            }
            after = last;
            let mut tx = self.replica.storage().write(Durability::Normal)?;
            for (path, name, value) in &values {
                if !is_own(as_read(&mut *tx), value)? {
                    await_again(&mut *tx, store, path, name)?;
                }
            }
            tx.commit()?;
        }
    }

    fn forget_dead(&self) -> Result<(), NodeError> {
        let now = self.replica.device().now().0;
        let storage = self.replica.storage();
        let mut tx = storage.write(Durability::Normal)?;
        let mut dead = Vec::new();
        tx.scan(Table::Local, PUT, None, Order::Ascending, &mut |key, heard| {
            if !key.starts_with(PUT) || dead.len() >= ROWS {
                return ControlFlow::Break(());
            }
            if !lives(now, heard) {
                dead.push(key.to_vec());
            }
            ControlFlow::Continue(())
        })?;
        for key in dead {
            tx.delete(Table::Local, &key)?;
        }
        tx.commit()?;
        self.forget(PIN, |tx, row| {
            let put = [PUT, &row[row.len().saturating_sub(16)..]].concat();
            Ok(!tx.has(Table::Local, &put)?)
        })?;
        // What is named is here still, and so is what a put under way is about to name.
        self.forget(OWN, |tx, row| Ok(!tx.has(Table::Blob, &row[OWN.len()..])?))
    }

    /// Takes away the rows that begin with `prefix` and are of no use any more.
    fn forget(
        &self,
        prefix: &[u8],
        is_dead: impl Fn(&dyn ReadTx, &[u8]) -> Result<bool, StorageError>,
    ) -> Result<(), NodeError> {
        let storage = self.replica.storage();
        let mut at = prefix.to_vec();
        loop {
            let rows = rows(&*storage.read()?, prefix, &at)?;
            let Some(last) = rows.last() else { return Ok(()) };
            at = [&last[..], &[0]].concat();
            let mut tx = storage.write(Durability::Normal)?;
            for row in &rows {
                if is_dead(as_read(&mut *tx), row)? {
                    tx.delete(Table::Local, row)?;
                }
            }
            tx.commit()?;
        }
    }
}

/// Whether this value names content that was put in here, whoever wrote the value.
fn is_own(tx: &dyn ReadTx, value: &[u8]) -> Result<bool, StorageError> {
    let Some(content) = content_of(value) else { return Ok(false) };
    tx.has(Table::Local, &[OWN, &content.root().0].concat())
}

/// The next rows that begin with `prefix`.
fn rows(tx: &dyn ReadTx, prefix: &[u8], from: &[u8]) -> Result<Vec<Vec<u8>>, StorageError> {
    let mut rows = Vec::new();
    tx.keys(Table::Local, from, None, &mut |key| {
        if !key.starts_with(prefix) || rows.len() >= ROWS {
            return ControlFlow::Break(());
        }
        rows.push(key.to_vec());
        ControlFlow::Continue(())
    })?;
    Ok(rows)
}

impl Drop for Collection {
    fn drop(&mut self) {
        let ended = self.replica.storage().write(Durability::Normal).and_then(|mut tx| {
            let row = tx.get(Table::Local, COLLECT)?.unwrap_or_default();
            if row.get(..16) == Some(&self.id[..]) {
                tx.delete(Table::Local, COLLECT)?;
                tx.commit()?;
            }
            Ok(())
        });
        if let Err(e) = ended {
            let hours = DEAD / 3_600_000_000;
            tracing::warn!("a collection could not be ended, others wait {hours} hours: {e}");
        }
        // What was fetched meanwhile is on the list still.
        self.replica.gather_anew();
    }
}

/// The least names that are marked, as many as there is room for.
struct Marks {
    set: BTreeSet<Name>,
    from: Name,
    /// Names from here on are not known.
    to: Option<Name>,
    most: usize,
}

impl Marks {
    fn add(&mut self, hash: ChunkHash) {
        if hash.0 < self.from || self.to.is_some_and(|to| hash.0 >= to) {
            return;
        }
        self.set.insert(hash.0);
        if self.set.len() > self.most {
            self.to = self.set.pop_last();
        }
    }
}

/// Places of nodes walked already, as many as there is room for: a manifest may name one node any number of times. A node
/// that somebody names where it does not belong is still to be walked where it does.
#[derive(Default)]
struct Seen(RefCell<BTreeSet<NodeSpan>>);

impl Seen {
    const MOST: usize = 65_536;

    fn is_new(&self, place: &NodeSpan) -> bool {
        let (mut seen, place) = (self.0.borrow_mut(), place.anywhere());
        if seen.len() < Self::MOST { seen.insert(place) } else { !seen.contains(&place) }
    }
}

/// Calls `named` with each node and chunk of `content`, as far as its nodes are here.
fn mark(
    tx: &dyn ReadTx,
    content: &ContentRef,
    seen: &Seen,
    named: &mut dyn FnMut(ChunkHash),
) -> Result<(), StorageError> {
    let named = RefCell::new(named);
    let walker = Walker::new(content, |place| {
        (*named.borrow_mut())(place.hash);
        if seen.is_new(place) { tx.get(Table::Blob, &place.hash.0) } else { Ok(None) }
    });
    for step in walker {
        match step {
            Ok(Step::Chunk(span)) => (*named.borrow_mut())(span.hash),
            Err(anabranch_core::blob::WalkError::Lookup(e)) => return Err(e),
            // A node that is not here, or not what belongs there, names nothing.
            Ok(Step::Missing(_)) | Err(_) => {}
        }
    }
    Ok(())
}

/// Blobs from `from` to `to` that are not `marked`, at most `most`, and where to go on.
fn unnamed(
    tx: &dyn ReadTx,
    marked: &BTreeSet<Name>,
    from: Name,
    to: Option<Name>,
    most: usize,
) -> Result<Stretch<Vec<Name>>, StorageError> {
    let (mut found, mut next) = (Vec::new(), to);
    let mut strange = false;
    tx.keys(Table::Blob, &from, to.as_ref().map(|to| &to[..]), &mut |key| {
        let Ok(hash) = <Name>::try_from(key) else {
            strange = true;
            return ControlFlow::Break(());
        };
        if !marked.contains(&hash) {
            if found.len() >= most {
                next = Some(hash);
                return ControlFlow::Break(());
            }
            found.push(hash);
        }
        ControlFlow::Continue(())
    })?;
    if strange {
        return Err(StorageError::Corrupt("a blob has no name".into()));
    }
    Ok((found, next))
}
