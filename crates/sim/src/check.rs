//! The judges: what must hold while a simulation runs and once everything has healed. They look at what the disks hold and
//! at the brute-force meaning of the entries there, never at what the nodes say of themselves.

mod indexes;

use crate::node::Node;
use crate::workload::named_blobs;
use anabranch_core::author::{Draft, Seen, Step, Tally};
use anabranch_core::blob::ChunkHash;
use anabranch_core::cells::StoreInfo;
use anabranch_core::entry::{Entry, StoreId};
use anabranch_core::error::Error;
use anabranch_core::id::{EntryId, Position};
use anabranch_core::path::Path;
use anabranch_core::storage::{Storage, StorageError, Table};
use anabranch_core::verify::verify;
use anabranch_core::view::View;
use anabranch_reference::{State, fold_with, frontier, judge};
use anabranch_store::MemoryStorage;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::ControlFlow;

/// Entries up to which the rights of each are judged by brute force, which looks at each one's whole past.
const JUDGED: usize = 700;

/// Something that must never be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which check found it.
    pub check: Check,
    /// What it saw.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.check.name(), self.text)
    }
}

/// The checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Check {
    /// Two nodes held the same entries and not the same state (I2).
    SameState,
    /// Nodes that reached each other did not become equal.
    Converged,
    /// What is held is not what the entries mean.
    Reference,
    /// Something is held that nobody had the right to write (I4).
    Admitted,
    /// A write did something else than it says.
    Effect,
    /// What a user was told is kept is gone (I6).
    Acknowledged,
    /// A peer was told of something that a crash took back (I1).
    Announced,
    /// What is stored does not fit together, or is ahead of what it builds on (I3).
    Sound,
    /// More waits in memory than may (I7).
    Bounded,
    /// It never came to rest.
    Livelock,
    /// An honest node ended a session of another for what it did, or failed without a fault.
    Blamed,
    /// A session said that both sides are equal, and they were not.
    Settled,
    /// What several peers had came from several.
    Once,
    /// What is declared to be kept in step is not, or is tried more often than may be.
    Intents,
    /// A device that was copied noticeably or not at all signed two entries at one place (I6).
    Forked,
    /// A timestamp is before one that its author had seen.
    Timestamps,
    /// Somebody who was never let in holds entries.
    Secret,
    /// A blob is missing, or not what its name says.
    Blobs,
    /// Content of a blob is gone, or did not come where it should.
    Contents,
    /// A folder is not what the entries ask for.
    Folders,
    /// Content that no user did away with is gone.
    Lost,
    /// A folder shows what nobody wrote.
    Torn,
    /// An index is not what the cells are.
    Indexes,
    /// The same seed did not give the same trace.
    Replayed,
}

impl Check {
    /// Its name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::SameState => "same entries, same state (I2)",
            Self::Converged => "converged",
            Self::Reference => "state as the reference has it",
            Self::Admitted => "admissible entries only (I4)",
            Self::Effect => "a write does what it says",
            Self::Acknowledged => "no acknowledged write lost (I6)",
            Self::Announced => "durable before announced (I1)",
            Self::Sound => "sound storage (I3)",
            Self::Bounded => "bounded memory (I7)",
            Self::Livelock => "comes to rest",
            Self::Blamed => "no honest node blamed (I5)",
            Self::Settled => "settled means equal",
            Self::Once => "each entry comes once",
            Self::Intents => "declared syncs are carried out, with patience",
            Self::Forked => "one entry a place (I6)",
            Self::Timestamps => "timestamps follow what was seen",
            Self::Secret => "nothing for strangers",
            Self::Blobs => "blobs are there and right",
            Self::Contents => "content is there (I6, I11)",
            Self::Folders => "folders are the tree",
            Self::Lost => "no content lost (I11)",
            Self::Torn => "whole files only",
            Self::Indexes => "an index finds what a scan finds",
            Self::Replayed => "same seed, same trace",
        }
    }

    pub(crate) fn failed(self, text: impl Into<String>) -> Violation {
        Violation { check: self, text: text.into() }
    }
}

/// What two replicas of one set of entries must agree on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digests {
    /// Of the entries.
    pub frontier: [u8; 32],
    /// Of what they mean.
    pub state: Option<[u8; 32]>,
}

impl Digests {
    /// Of what is stored.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn of(view: View<'_>) -> Result<Self, StorageError> {
        Ok(Self { frontier: view.frontier_digest()?, state: view.state_digest()? })
    }
}

/// Remembers which state went with which entries.
#[derive(Debug, Default)]
pub struct SameState(BTreeMap<[u8; 32], [u8; 32]>);

impl SameState {
    /// Whether this is what others had for the same entries.
    ///
    /// # Errors
    /// [`Check::SameState`].
    pub fn note(&mut self, node: usize, digests: &Digests) -> Result<(), Violation> {
        // Without a key there is none.
        let Some(state) = digests.state else { return Ok(()) };
        let known = *self.0.entry(digests.frontier).or_insert(state);
        if known == state {
            return Ok(());
        }
        Err(Check::SameState.failed(format!("node {node} has another state than others had")))
    }
}

/// Every entry stored, in the order of arrival.
fn entries(view: View<'_>) -> Result<Vec<Entry>, Error> {
    let mut list = Vec::new();
    view.entries(1, &mut |_, entry| {
        list.push(entry);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(list)
}

/// The state as it is stored.
fn stored(view: View<'_>) -> Result<State, Error> {
    let mut state = State::default();
    for info in view.stores()? {
        if info.digest.is_none() && !info.closed {
            state.unknown.insert(info.id.clone());
        }
        view.scan_cells(&info.id, &Path::default(), None, &mut |cell| {
            state.cells.insert((info.id.clone(), cell.path), cell.values);
            ControlFlow::Continue(())
        })?;
        view.scan_sums(&info.id, &Path::default(), None, &mut |path, sum| {
            state.sums.insert((info.id.clone(), path), sum);
            ControlFlow::Continue(())
        })?;
    }
    Ok(state)
}

fn broken(node: usize) -> impl Fn(Error) -> Violation {
    move |e| Check::Sound.failed(format!("node {node} cannot be read: {e}"))
}

/// Judges one node on its own: storage, state, rights. `forbidden`: entries that must not be there.
///
/// # Errors
/// The first [`Violation`].
pub fn judge_node(number: usize, node: &Node, forbidden: &[Position]) -> Result<(), Violation> {
    let content = node.content().map_err(|e| broken(number)(e.into()))?;
    let tx = content.read().map_err(|e| broken(number)(e.into()))?;
    let view = View::new(&*tx);
    let list = entries(view).map_err(broken(number))?;
    let ring = view.ring().map_err(|e| broken(number)(e.into()))?;
    let (held, meant) = (stored(view).map_err(broken(number))?, fold_with(&list, &ring));
    if held != meant {
        let text = format!("node {number} holds another state: {}", difference(&held, &meant));
        return Err(Check::Reference.failed(text));
    }
    let unsigned = view.unsigned().map_err(|e| broken(number)(e.into()))?;
    if unsigned == 0 {
        let told = view.frontier().map_err(|e| broken(number)(e.into()))?;
        if !told.positions().eq(&frontier(&list)) {
            let text = format!("node {number} tells another frontier than it has");
            return Err(Check::Reference.failed(text));
        }
    }
    for position in forbidden {
        if view.holds(position).map_err(|e| broken(number)(e.into()))? {
            let text = format!("node {number} holds an entry that nobody may write: {position:?}");
            return Err(Check::Admitted.failed(text));
        }
    }
    judge_rights(number, view, &list)?;
    indexes::judge(number, node)
}

/// Where what is stored first differs from what the entries mean.
fn difference(held: &State, meant: &State) -> String {
    let paths: BTreeSet<_> = held.cells.keys().chain(meant.cells.keys()).collect();
    for cell in paths {
        let names = |state: &State| {
            let values = state.cells.get(cell).map_or(&[][..], Vec::as_slice);
            values.iter().map(|value| (value.name, value.timestamp)).collect::<Vec<_>>()
        };
        if held.cells.get(cell) != meant.cells.get(cell) {
            return format!("{cell:?} is {:?} and should be {:?}", names(held), names(meant));
        }
    }
    if held.sums != meant.sums {
        return format!("sums are {:?} and should be {:?}", held.sums, meant.sums);
    }
    format!("stores that need a newer program are {:?} and {:?}", held.unknown, meant.unknown)
}

/// The stores in which two nodes differ.
fn differing(a: &Node, b: &Node) -> Result<Vec<StoreId>, StorageError> {
    let (a, b) = (a.look(|view| view.stores())?, b.look(|view| view.stores())?);
    let common = |store: &&StoreInfo| a.contains(store) && b.contains(store);
    let names = a.iter().chain(&b).filter(|store| !common(store)).map(|store| store.id.clone());
    Ok(BTreeSet::from_iter(names).into_iter().collect())
}

/// Replays everything into an empty storage and compares.
fn judge_storage(number: usize, node: &Node) -> Result<(), Violation> {
    let content = node.content().map_err(|e| broken(number)(e.into()))?;
    let scratch = MemoryStorage::new();
    let tx = content.read().map_err(|e| broken(number)(e.into()))?;
    verify(&*tx, &scratch, &mut |_| ()).map_err(broken(number))?;
    Ok(())
}

fn judge_rights(number: usize, view: View<'_>, list: &[Entry]) -> Result<(), Violation> {
    let database = view.database().map_err(|e| broken(number)(e.into()))?;
    let Some(database) = database.filter(|_| list.len() <= JUDGED) else { return Ok(()) };
    let mut below: BTreeMap<EntryId, &Entry> = BTreeMap::new();
    for entry in list {
        let known = anabranch_reference::below(entry);
        if let Some(gap) = known.iter().find(|id| !below.contains_key(*id)) {
            let text = format!("node {number} holds an entry without {gap:?}, on which it builds");
            return Err(Check::Sound.failed(text));
        }
        below.insert(entry.id(), entry);
        if let Err(fault) = judge(&below, &database, entry) {
            let text = format!("node {number} holds {:?}: {fault:?}", entry.position());
            return Err(Check::Admitted.failed(text));
        }
    }
    Ok(())
}

/// Judges all nodes against each other once everything has healed.
///
/// # Errors
/// The first [`Violation`].
pub fn judge_all(
    nodes: &[Node],
    outside: &BTreeSet<usize>,
    forbidden: &[Position],
) -> Result<Digests, Violation> {
    let mut first: Option<Digests> = None;
    let inside = |(number, node): &(usize, &Node)| !node.stranger && !outside.contains(number);
    let members = || nodes.iter().enumerate().filter(inside);
    for (number, node) in nodes.iter().enumerate().filter(|(_, node)| node.stranger) {
        let held = node.look(|view| view.totals()).map_err(|e| broken(number)(e.into()))?;
        if held.entries > 0 {
            let text =
                format!("node {number} holds {} entries, and nobody let it in", held.entries);
            return Err(Check::Secret.failed(text));
        }
    }
    for (number, node) in members() {
        let unsigned = node.look(|view| view.unsigned()).map_err(|e| broken(number)(e.into()))?;
        if unsigned > 0 {
            let text = format!("node {number} told nobody of {unsigned} entries of its own");
            return Err(Check::Converged.failed(text));
        }
        let digests = node.look(Digests::of).map_err(|e| broken(number)(e.into()))?;
        let expected = *first.get_or_insert(digests);
        if digests.frontier != expected.frontier {
            return Err(Check::Converged.failed(format!("nodes 0 and {number} hold other entries")));
        }
    }
    if first.is_some_and(|first| first.state.is_none()) {
        return Err(Check::SameState.failed("the founder cannot read the state"));
    }
    for (number, node) in members() {
        judge_node(number, node, forbidden)?;
        let digests = node.look(Digests::of).map_err(|e| broken(number)(e.into()))?;
        // What is relayed is read by nobody on the way.
        let state = first.and_then(|first| first.state).filter(|_| !node.relay);
        if state != digests.state {
            let stores = differing(&nodes[0], node).map_err(|e| broken(number)(e.into()))?;
            let text = format!("nodes 0 and {number} differ in {stores:?}");
            return Err(Check::SameState.failed(text));
        }
    }
    // Of equal ones, since each signature is checked anew.
    members().next_back().map_or(Ok(()), |(number, node)| judge_storage(number, node))?;
    for number in outside {
        judge_node(*number, &nodes[*number], forbidden)?;
    }
    judge_logs(nodes)?;
    judge_blobs(nodes, outside)?;
    let counting = counting(nodes)?;
    for (author, node) in nodes.iter().enumerate() {
        for write in &node.acknowledged {
            if counting.as_ref().is_some_and(|counting| !counting.contains(&write.position.id)) {
                continue;
            }
            for (holder, other) in members() {
                let held = other.look(|view| view.holds(&write.position));
                if !held.map_err(|e| broken(holder)(e.into()))? {
                    let text = format!(
                        "what node {author} acknowledged is not on node {holder}: {:?}",
                        write.position
                    );
                    return Err(Check::Acknowledged.failed(text));
                }
            }
        }
    }
    first.ok_or_else(|| Check::Converged.failed("there are no nodes"))
}

/// The entries that count of all that anybody holds; `None`: nobody's right was revoked, so all do.
fn counting(nodes: &[Node]) -> Result<Option<BTreeSet<EntryId>>, Violation> {
    let mut all: BTreeMap<EntryId, Entry> = BTreeMap::new();
    let mut revoked = false;
    for (number, node) in nodes.iter().enumerate() {
        let content = node.content().map_err(|e| broken(number)(e.into()))?;
        let tx = content.read().map_err(|e| broken(number)(e.into()))?;
        let view = View::new(&*tx);
        revoked |= view.totals().map_err(|e| broken(number)(e.into()))?.revocations > 0;
        all.extend(entries(view).map_err(broken(number))?.into_iter().map(|e| (e.id(), e)));
    }
    let by_id = all.iter().map(|(id, entry)| (*id, entry)).collect();
    Ok(revoked.then(|| anabranch_reference::counted(&by_id).0))
}

/// A device writes each place of a log once, unless its state was copied and it had no way to see that.
fn judge_logs(nodes: &[Node]) -> Result<(), Violation> {
    let Some(node) = nodes.first() else { return Ok(()) };
    let tips = node.look(|view| Ok(view.frontier()?.positions().copied().collect::<Vec<_>>()));
    let tips = tips.map_err(|e| broken(0)(e.into()))?;
    for pair in tips.windows(2).filter(|pair| pair[0].log == pair[1].log) {
        let honest = |node: &&Node| node.device.id() == pair[0].log.device && node.unnoticed;
        if !nodes.iter().any(|node| honest(&node)) {
            let text = format!("{:?} and {:?} are of one log", pair[0], pair[1]);
            return Err(Check::Forked.failed(text));
        }
    }
    Ok(())
}

/// Every blob that somebody has is everywhere, and none is lost unless older states were put back.
fn judge_blobs(nodes: &[Node], outside: &BTreeSet<usize>) -> Result<(), Violation> {
    let restored = nodes.iter().any(|node| node.copied);
    let has = |node: &Node, hash: &ChunkHash| {
        let content = node.disk.content();
        let blob = content.read().ok()?.get(Table::Blob, &hash.0).ok()??;
        Some(ChunkHash::of(&blob) == *hash)
    };
    let Some(first) = nodes.first() else { return Ok(()) };
    for hash in first.look(named_blobs).map_err(|e| broken(0)(e.into()))? {
        let inside = |(number, node): &(usize, &Node)| !node.stranger && !outside.contains(number);
        let members = nodes.iter().enumerate().filter(inside);
        let found: Vec<Option<bool>> = members.map(|(_, node)| has(node, &hash)).collect();
        if found.contains(&Some(false)) {
            return Err(Check::Blobs.failed(format!("something else is stored as {hash:?}")));
        }
        let nowhere = found.iter().all(Option::is_none);
        // Who wrote it may have been put out before anybody could ask for it.
        let outside = outside.iter().any(|number| has(&nodes[*number], &hash).is_some());
        if found.contains(&None) && !(nowhere && (restored || outside)) {
            return Err(Check::Blobs.failed(format!("{hash:?} is not everywhere: {found:?}")));
        }
    }
    Ok(())
}

/// Where all clocks are right, an entry's timestamp is later than those of everything it builds on.
///
/// # Errors
/// [`Check::Timestamps`].
pub fn judge_timestamps(node: &Node) -> Result<(), Violation> {
    let content = node.disk.content();
    let tx = content.read().map_err(|e| broken(0)(e.into()))?;
    let list = entries(View::new(&*tx)).map_err(broken(0))?;
    let by_id: BTreeMap<EntryId, &Entry> = list.iter().map(|entry| (entry.id(), entry)).collect();
    for entry in &list {
        for below in anabranch_reference::below(entry) {
            let before = by_id.get(&below).map(|below| below.header().timestamp);
            if before.is_some_and(|before| before >= entry.header().timestamp) {
                let text = format!("{:?} is not later than {below:?}", entry.position());
                return Err(Check::Timestamps.failed(text));
            }
        }
    }
    Ok(())
}

/// Judges what one transaction did, right after it and before anybody else wrote: what it set is all that its cells hold,
/// and what it was to clear is empty.
///
/// # Errors
/// [`Check::Effect`].
pub fn judge_effect(number: usize, view: View<'_>, draft: &Draft) -> Result<(), Violation> {
    judge_resets(number, view, &draft.tallies)?;
    let last: BTreeMap<_, _> =
        draft.writes.iter().map(|write| ((&write.store, &write.path), write)).collect();
    for ((store, path), write) in &last {
        let mut cleared = Vec::new();
        let look = |path: &Path| view.cell(store, path).map_err(|e| broken(number)(e.into()));
        let held: Vec<Vec<u8>> = look(path)?.into_iter().map(|value| value.value).collect();
        let as_set = held.iter().eq(write.value.iter());
        if write.seen == Seen::AtCommit && !as_set {
            cleared.push((*path).clone());
        }
        for above in path.ancestors().filter(|_| write.above) {
            if !last.contains_key(&(store, &above)) && !look(&above)?.is_empty() {
                cleared.push(above);
            }
        }
        if write.below {
            let found = view.scan_cells(store, path, None, &mut |cell| {
                if !last.contains_key(&(store, &cell.path)) {
                    cleared.push(cell.path);
                }
                ControlFlow::Continue(())
            });
            found.map_err(|e| broken(number)(e.into()))?;
        }
        if let Some(cell) = cleared.first() {
            let text = format!("node {number} wrote {write:?}, and {cell:?} holds something else");
            return Err(Check::Effect.failed(text));
        }
    }
    Ok(())
}

/// A counter that was reset is at what was added after that.
fn judge_resets(number: usize, view: View<'_>, tallies: &[Tally]) -> Result<(), Violation> {
    let mut since: BTreeMap<_, Option<i128>> = BTreeMap::new();
    for tally in tallies {
        let sum = since.entry((&tally.store, &tally.path)).or_default();
        *sum = match tally.step {
            Step::Add(delta) => sum.map(|sum| sum.wrapping_add(delta.into())),
            Step::Reset => Some(0),
            Step::ResetFrom(_) => None,
        };
    }
    for ((store, path), sum) in since {
        let held = view.sum(store, path).map_err(|e| broken(number)(e.into()))?;
        if sum.is_some_and(|sum| sum != held) {
            let text = format!("node {number} reset {path:?}, and it is {held}");
            return Err(Check::Effect.failed(text));
        }
    }
    Ok(())
}

/// Judges a node that has just come back: what it told users and peers before is still there.
///
/// # Errors
/// [`Check::Acknowledged`], [`Check::Announced`].
pub fn judge_return(nodes: &[Node], number: usize) -> Result<(), Violation> {
    let node = &nodes[number];
    let failed = |e: StorageError| broken(number)(e.into());
    let content = node.disk.content();
    if !node.rotten {
        indexes::agree(number, &content)?;
    }
    let tx = content.read().map_err(failed)?;
    let view = View::new(&*tx);
    for write in &node.acknowledged {
        if !node.copied && write.safe && !view.holds(&write.position).map_err(failed)? {
            let text = format!("node {number} came back without {:?}", write.position);
            return Err(Check::Acknowledged.failed(text));
        }
    }
    if node.copied {
        return Ok(());
    }
    let witness = |(other, peer): &(usize, &Node)| *other != number && !peer.rotten;
    for (other, peer) in nodes.iter().enumerate().filter(witness) {
        let told = peer.look(|view| {
            let mine = view.frontier()?;
            Ok(mine.positions().filter(|p| p.log.device == node.device.id()).copied().collect())
        });
        let told: Vec<Position> = told.map_err(failed)?;
        for position in told {
            if !view.holds(&position).map_err(failed)? {
                let text = format!(
                    "node {number} came back without {position:?}, of which it had told node {other}"
                );
                return Err(Check::Announced.failed(text));
            }
        }
    }
    Ok(())
}
