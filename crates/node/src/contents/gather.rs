//! Fetching content of eager stores: a walk over what live values name and is not known to be here, a stretch at a time.
//! What a stretch lacks is wanted of connected peers; when they have answered, the walk goes on from the first piece that
//! was lacking, or past what nobody has. Peers are told to wait meanwhile. Memory: one stretch of names (I7).

use super::{Keep, Kept};
use crate::replica::Replica;
use anabranch_core::awaited::{AwaitKey, Awaited, settle};
use anabranch_core::blob::{ChunkHash, NodeError, NodeSpan, Step, WalkError, Walker};
use anabranch_core::storage::{Durability, ReadTx, StorageError, Table};
use anabranch_core::view::View;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Blobs asked for at once.
const WANTS: usize = 512;
/// The same with those that everybody connected was asked for in vain.
const LACKING: usize = 4 * WANTS;
/// Values, nodes and chunks looked at in one stretch.
const LOOKS: usize = 32_768;
/// Places of nodes of one stretch that are not walked twice: a manifest may name one node any number of times.
const SEEN: usize = 65_536;

/// A place in the walk: all before it was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    key: AwaitKey,
    /// Bytes of that value's content.
    offset: u64,
    /// Whether something before that is lacking.
    gap: bool,
}

impl Place {
    fn at(key: AwaitKey) -> Self {
        Self { key, offset: 0, gap: false }
    }
}

/// A place in each store.
type Places = BTreeMap<AwaitKey, Place>;

/// How far the fetching has come.
#[derive(Debug, Default)]
pub(crate) struct Gather(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// A stretch is to be walked.
    due: bool,
    running: bool,
    /// The walk is to begin anew when it is through.
    again: bool,
    /// Where it goes on.
    from: Places,
    /// Where the last stretch ended, and whether there was more.
    reached: Places,
    more: bool,
    /// How many blobs the last stretch lacked.
    lacked: usize,
    /// Everybody connected was asked for all of them in vain, and there was nothing more to look at.
    through: bool,
}

impl State {
    /// If nothing is under way and the walk is to begin anew, it does.
    fn end(&mut self) {
        let idle = !self.due && !self.running && (self.lacked == 0 || self.through);
        if idle && std::mem::take(&mut self.again) {
            self.from.clear();
            self.due = true;
        }
    }
}

impl Gather {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether something is still to be found out or fetched. `wanted`: how many blobs it wants, and how many of them
    /// everybody connected was asked for in vain.
    pub(crate) fn is_busy(&self, (lacking, in_vain): (usize, usize)) -> bool {
        let state = self.state();
        state.due || state.running || (state.lacked > 0 && in_vain < lacking)
    }

    /// There may be more to look at.
    pub(crate) fn look(&self) {
        self.state().due = true;
    }

    /// Somebody may have what was asked for in vain.
    pub(crate) fn look_again(&self) {
        let mut state = self.state();
        state.again = true;
        state.end();
    }

    /// What is wanted came, or was refused.
    pub(crate) fn moved(&self, (lacking, in_vain): (usize, usize)) {
        let mut state = self.state();
        if state.lacked == 0 || state.due || state.running {
            return;
        }
        let came = lacking < state.lacked;
        if came && (lacking == in_vain || (state.more && lacking - in_vain <= WANTS / 2)) {
            state.due = true;
        } else if lacking == in_vain && state.more {
            state.from = std::mem::take(&mut state.reached);
            state.due = true;
        } else if lacking == in_vain {
            // What is in vain now may come yet, and then the walk goes on there.
            state.through = true;
            state.end();
        }
    }
}

/// A stretch that is to be walked; nobody else walks one meanwhile.
#[derive(Debug)]
pub(crate) struct Gathering(Arc<Replica>);

impl Gathering {
    /// Walks it. Blocking.
    pub(crate) fn perform(self) {
        let replica = Arc::clone(&self.0);
        if let Err(e) = replica.gather_stretch() {
            // The next session, or the next entry, is when it is tried again.
            tracing::warn!("what blobs are lacking could not be found out: {e}");
            *replica.gather.state() = State { running: true, ..State::default() };
        }
    }
}

impl Drop for Gathering {
    fn drop(&mut self) {
        {
            let mut state = self.0.gather.state();
            state.running = false;
            state.end();
        }
        self.0.gather_moved();
        self.0.ring();
    }
}

/// What a stretch found.
#[derive(Debug, Default)]
struct Found {
    lacking: BTreeSet<ChunkHash>,
    /// How many of them may be had.
    askable: usize,
    whole: Vec<AwaitKey>,
    /// The first place of each store where something is lacking, or where the stretch ended.
    from: Places,
    reached: Places,
    looks: usize,
    more: bool,
}

impl Found {
    fn is_full(&self) -> bool {
        self.askable >= WANTS || self.lacking.len() >= LACKING || self.looks >= LOOKS
    }

    fn lack(&mut self, place: Place, store: &AwaitKey, hash: ChunkHash, in_vain: bool) {
        if self.lacking.insert(hash) && !in_vain {
            self.askable += 1;
        }
        self.lack_below(place, store);
    }

    /// Something is lacking there that was found to be lacking elsewhere.
    fn lack_below(&mut self, place: Place, store: &AwaitKey) {
        self.from.entry(store.clone()).or_insert(place);
    }
}

/// The nodes a stretch came through.
#[derive(Debug, Default)]
struct Trail {
    /// Places walked from end to end, and whether all below is here, as far as anybody can have it. What somebody names
    /// where it does not belong says nothing about the places where it does.
    seen: BTreeMap<NodeSpan, bool>,
    /// Those the walk is in now, and whether nothing was lacking below so far. At most one a level.
    open: Vec<(NodeSpan, bool)>,
    /// Where the walk of the present value began.
    start: u64,
}

impl Trail {
    fn begin(&mut self, start: u64) {
        self.open.clear();
        self.start = start;
    }

    /// The walk comes to a node. If it was walked already, whether all below it is here.
    fn enter(&mut self, place: &NodeSpan) -> Option<bool> {
        self.reach(place.offset);
        let whole = self.seen.get(&place.anywhere()).copied();
        if whole.is_none() {
            self.open.push((*place, true));
        }
        whole
    }

    /// The walk is through with all that ends before `offset`.
    fn reach(&mut self, offset: u64) {
        let past =
            |(place, _): &mut (NodeSpan, bool)| place.offset.saturating_add(place.len) <= offset;
        while let Some((place, whole)) = self.open.pop_if(past) {
            // Of one that the walk began in the middle of, the rest may have been lacking.
            if place.offset >= self.start && self.seen.len() < SEEN {
                self.seen.insert(place.anywhere(), whole);
            }
        }
    }

    /// Something is lacking at `offset`.
    fn lack(&mut self, offset: u64) {
        self.reach(offset);
        self.open.iter_mut().for_each(|(_, whole)| *whole = false);
    }
}

/// What a step of a walk finds lacking.
enum Lack {
    Nothing,
    Blob(ChunkHash),
    /// Something below a node walked already.
    Below,
}

impl Replica {
    /// Whether a stretch is to be walked now; nobody else does while the result lives.
    pub(crate) fn start_gathering(self: &Arc<Self>) -> Option<Gathering> {
        let mut state = self.gather.state();
        // What is not built yet is looked at when it is.
        if !state.due || state.running || self.unbuilt() > 0 {
            return None;
        }
        (state.due, state.running) = (false, true);
        Some(Gathering(Arc::clone(self)))
    }

    fn gather_stretch(&self) -> Result<(), StorageError> {
        let in_vain = self.gather_in_vain();
        let from = self.gather.state().from.clone();
        let found = {
            let tx = self.storage().read()?;
            if View::new(&*tx).building()?.is_some() {
                return Ok(());
            }
            walk(&*tx, &from, &in_vain)?
        };
        if !found.whole.is_empty() {
            let mut tx = self.storage().write(Durability::Normal)?;
            // Until a collection is done, this is how it knows what it may not take away.
            if !super::collects(&mut *tx, self.device().now().0)? {
                found.whole.iter().try_for_each(|key| settle(&mut *tx, key))?;
                tx.commit()?;
            }
        }
        let mut state = self.gather.state();
        state.from.extend(found.from);
        state.lacked = found.lacking.len();
        (state.more, state.through) = (found.more, false);
        if state.lacked == 0 {
            state.due |= found.more;
        } else {
            let mut reached = state.from.clone();
            reached.extend(found.reached);
            state.reached = reached;
        }
        drop(state);
        self.gather_wants(found.lacking);
        Ok(())
    }
}

/// Walks a stretch.
fn walk(
    tx: &dyn ReadTx,
    from: &Places,
    in_vain: &BTreeSet<ChunkHash>,
) -> Result<Found, StorageError> {
    let (view, kept) = (View::new(tx), Kept::read(tx)?);
    let trail = RefCell::new(Trail::default());
    let (mut found, mut at) = (Found::default(), AwaitKey::default());
    while let Some(row) = view.awaited(&at)? {
        let store = row.key.store_start();
        if kept.of(&row.store.name) == Keep::Lazy {
            at = row.key.after_store();
            continue;
        }
        let mut start = Place::at(row.key.clone());
        if let Some(place) = from.get(&store) {
            if row.key < place.key {
                at = place.key.clone();
                continue;
            }
            if row.key == place.key {
                start = place.clone();
            }
        }
        found.looks += 1;
        let stopped = walk_value(tx, &row, &start, in_vain, &trail, &mut found)?;
        at = row.key.next();
        let more = stopped.is_some();
        found.reached.insert(store, stopped.unwrap_or_else(|| Place::at(at.clone())));
        if found.is_full() {
            found.more = more || view.awaited(&at)?.is_some();
            break;
        }
    }
    for (store, place) in &found.reached {
        found.from.entry(store.clone()).or_insert_with(|| place.clone());
    }
    Ok(found)
}

/// Walks one value's content from `start` on; returns where it stopped if that is not the end.
fn walk_value(
    tx: &dyn ReadTx,
    row: &Awaited,
    start: &Place,
    in_vain: &BTreeSet<ChunkHash>,
    trail: &RefCell<Trail>,
    found: &mut Found,
) -> Result<Option<Place>, StorageError> {
    let Some(content) = row.content else {
        // Whatever it is, there is nothing to fetch for it.
        found.whole.push(row.key.clone());
        return Ok(None);
    };
    let (store, passed) = (row.key.store_start(), Cell::new(None));
    trail.borrow_mut().begin(start.offset);
    let walker = Walker::within(&content, start.offset..u64::MAX, |place| {
        passed.set(trail.borrow_mut().enter(place));
        if passed.get().is_some() { Ok(None) } else { tx.get(Table::Blob, &place.hash.0) }
    });
    let mut gap = start.gap;
    for step in walker {
        found.looks += 1;
        let (lack, offset) = match step {
            Ok(Step::Missing(node)) => match passed.take() {
                None => (Lack::Blob(node.hash), node.offset),
                Some(false) => (Lack::Below, node.offset),
                Some(true) => (Lack::Nothing, node.offset),
            },
            Ok(Step::Chunk(span)) => (lacks(tx, span.hash)?, span.offset),
            Err(WalkError::Node { place, source: NodeError::WrongHash(_) }) => {
                (Lack::Blob(place.hash), place.offset)
            }
            Err(WalkError::Lookup(e)) => return Err(e),
            // Its writer lied about what it is: nobody has anything else.
            Err(_) => continue,
        };
        if found.is_full() {
            return Ok(Some(Place { key: row.key.clone(), offset, gap }));
        }
        let place = || Place { key: row.key.clone(), offset, gap };
        match lack {
            Lack::Nothing => continue,
            Lack::Blob(hash) => found.lack(place(), &store, hash, in_vain.contains(&hash)),
            Lack::Below => found.lack_below(place(), &store),
        }
        gap = true;
        trail.borrow_mut().lack(offset);
    }
    trail.borrow_mut().reach(u64::MAX);
    if !gap {
        found.whole.push(row.key.clone());
    }
    Ok(None)
}

fn lacks(tx: &dyn ReadTx, hash: ChunkHash) -> Result<Lack, StorageError> {
    Ok(if tx.has(Table::Blob, &hash.0)? { Lack::Nothing } else { Lack::Blob(hash) })
}
