//! Appending entries: the one place where entries, logs, heads, cells and grants are written, so that they always change
//! together (I2, I3). It believes what it is given: [`crate::admit`] checks what comes from peers, [`crate::author`] makes
//! what comes from here.

use crate::awaited;
use crate::body::{Body, BodyParent};
use crate::cells;
use crate::counters;
use crate::entry::{Entry, Header, StoreId, StoreKind};
use crate::error::corrupt;
use crate::frontier::tip_element;
use crate::head::Head;
use crate::id::{DatabaseId, LogId, Position, Seq};
use crate::index::{self, Index};
use crate::key::{DeviceKey, Signature};
use crate::known::Known;
use crate::limits;
use crate::lthash::LtHash;
use crate::membership::standing::Standing;
use crate::membership::{self, stints};
use crate::rows::{
    Branch, BranchNo, Counters, EntryRow, GrantNo, HeadRow, META_BUILT, META_COUNTERS,
    META_DATABASE, META_FRONTIER, Row, StoreNo, StoreRow, Tip, branch_key, key32, log_key,
};
use crate::sabotage::{self, Bug};
use crate::seal::{self, Ring};
use crate::storage::{ReadTx, StorageError, Table, WriteTx};
use crate::unsummed::{self, unsummed};
use crate::view::View;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// One write transaction on a replica. What changes often is kept here and written once by [`Self::finish`].
pub struct Ledger<'t> {
    pub(crate) tx: &'t mut dyn WriteTx,
    pub(crate) database: DatabaseId,
    pub(crate) counters: Counters,
    /// As the table has them, if it has been looked up.
    stored_counters: Option<Counters>,
    frontier: LtHash,
    branches: BTreeMap<BranchNo, Kept<Branch>>,
    by_log: BTreeMap<LogId, Vec<BranchNo>>,
    stores: BTreeMap<StoreNo, Kept<StoreRow>>,
    store_numbers: BTreeMap<StoreId, StoreNo>,
    pub(crate) known: Known,
    changed: Changes,
    /// Arrival number of the last entry whose cells are there; `None`: all are.
    built: Option<u64>,
    /// Whether cells of new entries are left for later.
    bulk: bool,
    /// Whether all that was done to stores was to add values, which entries tell as well.
    adds_only: bool,
    /// What is indexed; looked up by the first change of a cell.
    indexes: Option<Arc<[Index]>>,
    /// How grants stood whose standing changed with the entry at hand.
    judged: BTreeMap<GrantNo, Standing>,
    /// What payloads are opened with; looked up by the first that is.
    pub(crate) ring: Option<Arc<Ring>>,
    /// Whether content is kept elsewhere; looked up by the first value that names some.
    pub(crate) elsewhere: Option<bool>,
    /// Whose keys are opened as they arrive.
    pub(crate) reader: Option<DeviceKey>,
    /// Arrival number from which on entries ceased to count or began to, if what peers compare was not worked out since.
    pub(crate) anew: Option<u64>,
}

/// A row as it is now, and as the table has it.
struct Kept<T> {
    now: T,
    stored: Option<T>,
}

impl<T: Clone + PartialEq + Row> Kept<T> {
    fn new(now: T) -> Self {
        Self { now, stored: None }
    }

    fn read(now: T) -> Self {
        Self { stored: Some(now.clone()), now }
    }

    fn flush(&mut self, tx: &mut dyn WriteTx, key: &[u8]) -> Result<(), StorageError> {
        if self.stored.as_ref() != Some(&self.now) {
            self.now.put(tx, key)?;
            self.stored = Some(self.now.clone());
        }
        Ok(())
    }
}

/// What a transaction had looked up and written, for the one after it: it saves that one the look-ups, if nobody else has
/// committed in between. Its size is bounded; see [`Ledger::finish_and_keep`].
pub struct Memory {
    /// The state of the storage in which it holds.
    state: u64,
    database: DatabaseId,
    counters: Counters,
    frontier: LtHash,
    branches: BTreeMap<BranchNo, Kept<Branch>>,
    by_log: BTreeMap<LogId, Vec<BranchNo>>,
    stores: BTreeMap<StoreNo, Kept<StoreRow>>,
    store_numbers: BTreeMap<StoreId, StoreNo>,
    known: Known,
    indexes: Option<Arc<[Index]>>,
    ring: Option<Arc<Ring>>,
    built: Option<u64>,
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memory").field("state", &self.state).finish_non_exhaustive()
    }
}

impl Memory {
    /// Branches, grants and logs that are kept from one transaction to the next.
    const ROWS: usize = 1_024;
    /// Stores that are; each takes some 4 KiB.
    const STORES: usize = 32;

    fn fits(&self) -> bool {
        let rows = self.branches.len().max(self.by_log.len()).max(self.known.rows());
        rows <= Self::ROWS && self.stores.len().max(self.store_numbers.len()) <= Self::STORES
    }
}

/// What one transaction changed, for those who watch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    /// Entries added.
    pub entries: u64,
    /// Stores touched.
    pub stores: BTreeSet<StoreId>,
    /// Whether grants were added.
    pub members: bool,
    /// Whether a peer would be told something new.
    pub frontier: bool,
    /// Whether entries that were there before ceased to count or began to: values changed that no new entry tells of.
    pub recounted: bool,
}

impl Changes {
    /// Adds what another transaction changed.
    pub fn merge(&mut self, other: Self) {
        self.entries += other.entries;
        self.stores.extend(other.stores);
        self.members |= other.members;
        self.frontier |= other.frontier;
        self.recounted |= other.recounted;
    }
}

/// Marks empty storage as a replica of `database`, holding nothing yet.
///
/// # Errors
/// [`StorageError::Foreign`] when it already is a replica of another one.
pub fn found(tx: &mut dyn WriteTx, database: DatabaseId) -> Result<(), StorageError> {
    match View::new(as_read(tx)).database()? {
        None => tx.put(Table::Meta, META_DATABASE, &database.0),
        Some(found) if found == database => Ok(()),
        Some(found) => {
            Err(StorageError::Corrupt(format!("it is a replica of {found:?}, not of {database:?}")))
        }
    }
}

/// A number that is given out names nothing yet: a damaged count overwrites nothing.
pub(crate) fn fresh(tx: &dyn ReadTx, table: Table, key: &[u8]) -> Result<(), StorageError> {
    if tx.has(table, key)? { Err(corrupt("how much there is")) } else { Ok(()) }
}

pub(crate) fn as_read(tx: &mut dyn WriteTx) -> &dyn ReadTx {
    tx
}

impl<'t> Ledger<'t> {
    /// Opens the replica inside `tx`.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] when it was never [`found`]ed, or whatever the storage reports.
    pub fn open(tx: &'t mut dyn WriteTx) -> Result<Self, StorageError> {
        let view = View::new(as_read(tx));
        let database = view.database()?.ok_or_else(|| corrupt("the database id"))?;
        let (counters, frontier) = (view.counters()?, view.frontier_sum()?);
        fresh(as_read(tx), Table::Entry, &counters.next_arrival.to_be_bytes())?;
        let view = View::new(as_read(tx));
        let built = view.built()?;
        let behind = unsummed(view, &counters)?;
        let mut ledger = Self {
            tx,
            database,
            stored_counters: Some(counters.clone()),
            counters,
            frontier,
            branches: BTreeMap::new(),
            by_log: BTreeMap::new(),
            stores: BTreeMap::new(),
            store_numbers: BTreeMap::new(),
            known: Known::default(),
            changed: Changes::default(),
            built,
            bulk: false,
            indexes: None,
            ring: None,
            elsewhere: None,
            reader: None,
            adds_only: true,
            judged: BTreeMap::new(),
            anew: None,
        };
        for (store, added) in behind {
            let store = ledger.store(store)?;
            store.sum.merge(&added.sum);
            store.live += added.live;
        }
        Ok(ledger)
    }

    /// As [`Self::open`], with what an earlier transaction on the same storage left, if that is still so.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn resume(tx: &'t mut dyn WriteTx, memory: Option<Memory>) -> Result<Self, StorageError> {
        let state = tx.state();
        let fresh = |m: &Memory| state == Some(m.state) || sabotage::is(Bug::StaleMemory);
        let Some(memory) = memory.filter(fresh) else {
            return Self::open(tx);
        };
        Ok(Self {
            tx,
            database: memory.database,
            stored_counters: Some(memory.counters.clone()),
            counters: memory.counters,
            frontier: memory.frontier,
            branches: memory.branches,
            by_log: memory.by_log,
            stores: memory.stores,
            store_numbers: memory.store_numbers,
            known: memory.known,
            indexes: memory.indexes,
            ring: memory.ring,
            elsewhere: None,
            reader: None,
            changed: Changes::default(),
            built: memory.built,
            bulk: false,
            adds_only: true,
            judged: BTreeMap::new(),
            anew: None,
        })
    }

    /// Much is to come: cells of entries are left to [`crate::build`] from now on.
    pub(crate) fn load_in_bulk(&mut self) {
        self.bulk = true;
    }

    /// The indexes over stores that exist. Cost: one look-up in a transaction that changes cells.
    pub(crate) fn indexes(&mut self) -> Result<Arc<[Index]>, StorageError> {
        if let Some(known) = &self.indexes {
            return Ok(Arc::clone(known));
        }
        let found: Arc<[Index]> = index::declared(&*self.tx)?.into();
        Ok(Arc::clone(self.indexes.insert(found)))
    }

    pub(crate) fn built(&self) -> Option<u64> {
        self.built
    }

    pub(crate) fn set_built(&mut self, built: Option<u64>) {
        self.built = built;
    }

    /// Notes that the cells of all entries up to `arrival` are there.
    pub(crate) fn built_up_to(&mut self, arrival: u64) -> Result<(), StorageError> {
        if arrival + 1 >= self.counters.next_arrival {
            self.built = None;
            self.tx.delete(Table::Meta, META_BUILT)?;
        } else {
            self.built = Some(arrival);
            self.tx.put(Table::Meta, META_BUILT, &arrival.to_be_bytes())?;
        }
        Ok(())
    }

    /// Writes what was kept back and says what changed. Must precede the transaction's commit.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn finish(mut self) -> Result<Changes, StorageError> {
        self.compare_anew()?;
        self.flush()?;
        Ok(self.changed)
    }

    /// As [`Self::finish`], and hands out what the next transaction may [resume](Self::resume) with once this one is
    /// committed. Nothing when it would be too large (1,024 branches, 32 stores) or the storage cannot tell its states apart.
    /// `signs`: no other transaction is to follow soon that signs what this one wrote, so it writes all there is to write.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn finish_and_keep(
        mut self,
        signs: bool,
    ) -> Result<(Changes, Option<Memory>), StorageError> {
        self.compare_anew()?;
        let few = self.counters.unsummed() <= unsummed::MOST;
        if signs || !self.adds_only || self.built.is_some() || !few {
            self.flush()?;
        } else {
            self.flush_but_sums()?;
        }
        let memory = self.tx.state().map(|state| Memory {
            state: state + 1,
            database: self.database,
            counters: self.counters,
            frontier: self.frontier,
            branches: self.branches,
            by_log: self.by_log,
            stores: self.stores,
            store_numbers: self.store_numbers,
            known: self.known,
            indexes: self.indexes,
            ring: self.ring,
            built: self.built,
        });
        Ok((self.changed, memory.filter(Memory::fits)))
    }

    /// Writes what was kept back, so that a [`View`] of the transaction sees it.
    pub(crate) fn flush(&mut self) -> Result<(), StorageError> {
        for (number, store) in &mut self.stores {
            store.flush(self.tx, &key32(*number))?;
        }
        self.counters.summed = self.counters.next_arrival - 1;
        self.flush_but_sums()
    }

    /// Writes branches, so that a [`View`] of the transaction sees them.
    pub(crate) fn flush_branches(&mut self) -> Result<(), StorageError> {
        for (number, branch) in &mut self.branches {
            branch.flush(self.tx, &key32(*number))?;
        }
        for (number, store) in &mut self.stores {
            if store.stored.is_none() {
                store.flush(self.tx, &key32(*number))?;
            }
        }
        Ok(())
    }

    fn flush_but_sums(&mut self) -> Result<(), StorageError> {
        for (number, branch) in &mut self.branches {
            branch.flush(self.tx, &key32(*number))?;
        }
        self.flush_own()?;
        if self.stored_counters.as_ref() != Some(&self.counters) {
            self.counters.put(self.tx, META_COUNTERS)?;
            self.stored_counters = Some(self.counters.clone());
        }
        if self.changed.frontier {
            self.tx.put(Table::Meta, META_FRONTIER, &self.frontier.to_bytes())?;
        }
        Ok(())
    }

    /// The database.
    #[must_use]
    pub fn database(&self) -> DatabaseId {
        self.database
    }

    pub(crate) fn view(&self) -> View<'_> {
        View::new(&*self.tx)
    }

    pub(crate) fn frontier_mut(&mut self) -> &mut LtHash {
        self.changed.frontier = true;
        &mut self.frontier
    }

    /// A grant stands differently than before the entry at hand.
    pub(crate) fn judged(&mut self, grant: GrantNo, before: Standing) {
        self.judged.entry(grant).or_insert(before);
    }

    pub(crate) fn take_judged(&mut self) -> BTreeMap<GrantNo, Standing> {
        std::mem::take(&mut self.judged)
    }

    /// What entries did that were there before is undone or done again.
    pub(crate) fn note_recount(&mut self) {
        self.changed.recounted = true;
    }

    pub(crate) fn branch(&mut self, number: BranchNo) -> Result<&mut Branch, StorageError> {
        if !self.branches.contains_key(&number) {
            let branch = self.view().branch(number)?;
            self.branches.insert(number, Kept::read(branch));
        }
        let kept = self.branches.get_mut(&number).ok_or_else(|| corrupt("a branch"))?;
        Ok(&mut kept.now)
    }

    pub(crate) fn branches_of(&mut self, log: &LogId) -> Result<Vec<BranchNo>, StorageError> {
        if let Some(known) = self.by_log.get(log) {
            return Ok(known.clone());
        }
        let found = self.view().branches_of(log)?;
        self.by_log.insert(*log, found.clone());
        Ok(found)
    }

    /// As [`View::find`], with what this transaction added.
    pub(crate) fn find(&mut self, position: &Position) -> Result<Option<BranchNo>, StorageError> {
        for number in self.branches_of(&position.log)? {
            let branch = self.branch(number)?;
            if !branch.owns(position.seq) {
                continue;
            }
            let id = if branch.tip.seq == position.seq {
                branch.tip.id
            } else {
                self.view().entry_id(number, position.seq)?
            };
            if id == position.id || sabotage::is(Bug::ForkIgnored) {
                return Ok(Some(number));
            }
        }
        Ok(None)
    }

    /// The branch that an entry after `prev` extends: the one whose tip `prev` is, or a new one that forks off there.
    pub(crate) fn branch_after(
        &mut self,
        log: &LogId,
        prev: Option<&Position>,
    ) -> Result<Option<BranchNo>, StorageError> {
        let base = match prev {
            None => None,
            Some(position) => match self.find(position)? {
                None => return Ok(None),
                Some(number) if self.branch(number)?.tip.seq == position.seq => {
                    return Ok(Some(number));
                }
                Some(number) => Some((number, position.seq)),
            },
        };
        if let Some((below, seq)) = base {
            // Runs are sent in the order of their heads' arrival; the one that brings the base must stay before us.
            if let Some((at, mut head)) = self.view().next_head(below, seq - 1)? {
                head.pinned = true;
                head.put(self.tx, &branch_key(below, at))?;
            }
        }
        self.counters.branches += 1;
        let number = self.counters.branches;
        fresh(&*self.tx, Table::Branch, &key32(number))?;
        let mut key = log_key(log).to_vec();
        key.extend_from_slice(&key32(number));
        self.tx.put(Table::BranchByLog, &key, &[])?;
        self.by_log.entry(*log).or_default().push(number);
        let tip = Tip {
            seq: base.map_or(0, |(_, seq)| seq),
            id: prev.map_or(crate::id::EntryId([0; 32]), |p| p.id),
        };
        let branch = Branch {
            log: *log,
            base,
            tip,
            generation: 0,
            timestamp: crate::entry::Timestamp(0),
            head: None,
            unsigned: (0, 0),
            grant: 0,
            cut: None,
        };
        // At once, since a view of this transaction looks up the log of every value it reads.
        let mut branch = Kept::new(branch);
        branch.flush(self.tx, &key32(number))?;
        self.branches.insert(number, branch);
        Ok(Some(number))
    }

    pub(crate) fn store_number(&mut self, id: &StoreId) -> Result<StoreNo, StorageError> {
        let number = match self.known_number(id)? {
            Some(number) => number,
            None => {
                self.counters.stores += 1;
                let number = self.counters.stores;
                fresh(&*self.tx, Table::Store, &key32(number))?;
                self.tx.put(Table::Meta, &cells::store_key(id), &key32(number))?;
                // One of them may have waited for this store.
                self.indexes = None;
                let row = StoreRow {
                    id: id.clone(),
                    sum: LtHash::default(),
                    live: 0,
                    needs_newer: false,
                };
                self.stores.insert(number, Kept::new(row));
                self.sum_up();
                number
            }
        };
        if !self.store_numbers.contains_key(id) {
            self.store_numbers.insert(id.clone(), number);
        }
        Ok(number)
    }

    /// The number of a store that something was written to.
    pub(crate) fn known_number(&self, id: &StoreId) -> Result<Option<StoreNo>, StorageError> {
        match self.store_numbers.get(id) {
            Some(&number) => Ok(Some(number)),
            None => cells::store_number(&*self.tx, id),
        }
    }

    /// A store, to change something else about it than that a value of the entry at hand is added.
    pub(crate) fn store(&mut self, number: StoreNo) -> Result<&mut StoreRow, StorageError> {
        self.sum_up();
        self.adding(number)
    }

    /// Something is done to a store that its entries alone do not tell.
    pub(crate) fn sum_up(&mut self) {
        self.adds_only = false;
    }

    /// A store, to add a value of the entry at hand.
    pub(crate) fn adding(&mut self, number: StoreNo) -> Result<&mut StoreRow, StorageError> {
        if !self.stores.contains_key(&number) {
            let row = self.view().store_row(number)?;
            self.stores.insert(number, Kept::read(row));
        }
        let kept = self.stores.get_mut(&number).ok_or_else(|| corrupt("a store"))?;
        Ok(&mut kept.now)
    }

    /// Adds `entry`, which builds on the tip of `branch`, and everything that follows from it. `parents` are the
    /// branches that own the entry's parents.
    pub(crate) fn append(
        &mut self,
        entry: &Entry,
        branch: BranchNo,
        parents: &[BranchNo],
    ) -> Result<(), StorageError> {
        let header = entry.header();
        let arrival = self.counters.next_arrival;
        if self.counters.last != (branch, header.seq - 1) {
            self.tx.put(Table::Segment, &branch_key(branch, header.seq), &arrival.to_be_bytes())?;
        }
        if self.bulk && self.built.is_none() {
            self.built = Some(arrival - 1);
            self.tx.put(Table::Meta, META_BUILT, &(arrival - 1).to_be_bytes())?;
        }
        self.counters.next_arrival += 1;
        self.counters.last = (branch, header.seq);
        let grant = self.used(header)?;
        stints::note(self, (branch, header.seq), grant)?;
        let prev = self.branch(branch)?.tip;
        self.put_row(entry, branch, grant, parents, arrival)?;
        self.advance(entry, branch, grant)?;
        self.changed.entries += 1;
        let place = (branch, header.seq);
        let counts = self.counters.revocations == 0
            || self.counts(grant, place, membership::resigns(entry))?;
        if counts || sabotage::is(Bug::UncountedCompared) {
            self.need(entry, branch, parents)?;
        } else {
            self.need_not(branch, prev)?;
            self.sum_up();
        }
        self.carry_out(entry, branch, counts)?;
        self.recount()
    }

    /// Does to the stores what an entry says.
    fn carry_out(
        &mut self,
        entry: &Entry,
        branch: BranchNo,
        counts: bool,
    ) -> Result<(), StorageError> {
        self.note_sealed(entry)?;
        for (store, payload) in entry.payloads() {
            let number = self.store_number(store)?;
            if !self.changed.stores.contains(store) {
                self.changed.stores.insert(store.clone());
            }
            let Some(bytes) = payload.bytes() else {
                continue;
            };
            if store.kind == StoreKind::MEMBERS {
                self.changed.members = true;
                membership::apply(self, entry, branch, number, bytes, counts)?;
                continue;
            }
            if store.kind == StoreKind::KEYS {
                self.changed.members = true;
                let sealed = self.ring()?.is_sealed();
                if sealed {
                    seal::keys::apply(self, entry, branch, bytes)?;
                }
                if counts && seal::needs_newer(sealed, bytes) {
                    self.store(number)?.needs_newer = true;
                }
                continue;
            }
            let ring = self.ring()?;
            let bytes = match ring.open(&entry.header().log, store, bytes) {
                Ok(bytes) => bytes,
                Err(key) => {
                    if counts {
                        self.note_closed(&key, true)?;
                        let place = (number, self.counters.next_arrival - 1);
                        let contents = seal::contents(bytes);
                        awaited::note_closed(self, place, &key, &contents, true)?;
                    }
                    continue;
                }
            };
            if !counts {
                // It is held, and should it ever count, [`crate::recount`] does what it says.
            } else if store.kind.has_cells() {
                if self.built.is_none() {
                    cells::apply(self, entry, branch, number, &bytes)?;
                }
            } else if store.kind.has_sums() {
                if self.built.is_none() {
                    counters::apply(self, number, &bytes)?;
                }
            } else {
                self.store(number)?.needs_newer = true;
            }
        }
        Ok(())
    }

    /// The number of the grant that an entry uses; 0 for genesis.
    fn used(&mut self, header: &Header) -> Result<GrantNo, StorageError> {
        match header.salt {
            Some(_) => Ok(0),
            None => Ok(self.grant(&header.grant)?.ok_or_else(|| corrupt("a grant"))?.0),
        }
    }

    fn put_row(
        &mut self,
        entry: &Entry,
        branch: BranchNo,
        grant: GrantNo,
        parents: &[BranchNo],
        arrival: u64,
    ) -> Result<(), StorageError> {
        let header = entry.header();
        let payloads = entry
            .payloads()
            .map(|(store, payload)| Ok((self.store_number(store)?, Cow::Borrowed(payload))))
            .collect::<Result<Vec<_>, StorageError>>()?;
        let parents = header
            .parents
            .iter()
            .zip(parents)
            .map(|(p, &log)| BodyParent { log, seq: p.seq, id: p.id, signature: None })
            .collect();
        let body = Body {
            generation: header.generation,
            timestamp: header.timestamp,
            grant,
            parents,
            payloads,
            salt: header.salt,
        };
        EntryRow { id: entry.id(), branch, seq: header.seq, body }
            .put(self.tx, &arrival.to_be_bytes())
    }

    fn advance(
        &mut self,
        entry: &Entry,
        branch: BranchNo,
        grant: GrantNo,
    ) -> Result<(), StorageError> {
        let header = entry.header();
        let (count, bytes) = (1, entry.run_bytes() as u32);
        let row = self.branch(branch)?;
        row.tip = Tip { seq: header.seq, id: entry.id() };
        row.generation = header.generation;
        row.timestamp = header.timestamp;
        row.grant = grant;
        row.unsigned = (row.unsigned.0 + count, row.unsigned.1.saturating_add(bytes));
        Ok(())
    }

    /// Keeps the head over `at`, in `branch` above its last one, and drops that if no run then exceeds the limits (nothing
    /// below a head is lost with it, and pinned ones stay).
    pub(crate) fn keep_head(
        &mut self,
        branch: BranchNo,
        at: Tip,
        signature: Signature,
    ) -> Result<(), StorageError> {
        let row = self.branch(branch)?.clone();
        // Usually 0. Of what then stays unsigned the bytes are not known, so all count on both sides.
        let above = u32::try_from(row.tip.seq - at.seq).unwrap_or(u32::MAX);
        let mut span = (row.unsigned.0.saturating_sub(above), row.unsigned.1);
        if let Some(last) = row.head
            && let Some(head) = self.view().head(branch, last.seq)?
        {
            let joined = (span.0 + head.span.0, span.1.saturating_add(head.span.1));
            if !head.pinned
                && joined.0 <= limits::RUN_ENTRIES as u32
                && joined.1 <= limits::RUN_BYTES as u32
            {
                self.tx.delete(Table::Head, &branch_key(branch, last.seq))?;
                span = joined;
            }
        }
        let arrival = self.arrival_of_tip(branch, at.seq)?;
        let pinned = self.forks_off(branch, &row, at.seq)?;
        HeadRow { signature, arrival, pinned, span }.put(self.tx, &branch_key(branch, at.seq))?;
        if row.cut.is_some() {
            // What is compared of the branch ends below.
            let kept = self.branch(branch)?;
            kept.head = Some(at);
            kept.unsigned = if above == 0 { (0, 0) } else { (above, row.unsigned.1) };
            return Ok(());
        }
        match row.head {
            Some(last) => self.leave_frontier(branch, &row.log, last)?,
            None => self.cover_bases(branch, &row.log)?,
        }
        if !self.is_covered(branch, &row.log, at.seq)? {
            self.frontier.add(&tip_element(&Position { log: row.log, seq: at.seq, id: at.id }));
        }
        let kept = self.branch(branch)?;
        kept.head = Some(at);
        kept.unsigned = if above == 0 { (0, 0) } else { (above, row.unsigned.1) };
        self.changed.frontier = true;
        Ok(())
    }

    /// A branch gets its first head: what it goes on from is told with that.
    fn cover_bases(&mut self, branch: BranchNo, log: &LogId) -> Result<(), StorageError> {
        for (below, at) in self.bases(branch)? {
            if let Some(head) = self.branch(below)?.told().filter(|head| head.seq <= at) {
                self.leave_frontier(below, log, head)?;
            }
        }
        Ok(())
    }

    fn leave_frontier(
        &mut self,
        branch: BranchNo,
        log: &LogId,
        head: Tip,
    ) -> Result<(), StorageError> {
        if !self.is_covered(branch, log, head.seq)? {
            self.frontier.remove(&tip_element(&Position { log: *log, seq: head.seq, id: head.id }));
        }
        Ok(())
    }

    /// Whether a branch that has a head left `branch` at `seq` or above: then `seq` is no tip, although what comes after
    /// it here is not signed. Cost: one look-up a branch of the log.
    pub(crate) fn is_covered(
        &mut self,
        branch: BranchNo,
        log: &LogId,
        seq: Seq,
    ) -> Result<bool, StorageError> {
        for other in self.branches_of(log)? {
            if self.branch(other)?.told().is_some()
                && self.bases(other)?.iter().any(|(below, at)| *below == branch && *at >= seq)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What `branch` goes on from and where, down to the first branch that has a head.
    fn bases(&mut self, branch: BranchNo) -> Result<Vec<(BranchNo, Seq)>, StorageError> {
        let mut bases = Vec::new();
        let mut next = self.branch(branch)?.base;
        while let Some((below, at)) = next {
            bases.push((below, at));
            let below = self.branch(below)?;
            next = below.base.filter(|_| below.told().is_none());
        }
        Ok(bases)
    }

    /// Makes sure that the head at the tip of `branch` is kept for ever.
    pub(crate) fn pin(&mut self, branch: BranchNo, seq: Seq) -> Result<(), StorageError> {
        let key = branch_key(branch, seq);
        let mut head = HeadRow::get(self.tx, &key)?.ok_or_else(|| corrupt("a head"))?;
        if !head.pinned {
            head.pinned = true;
            head.put(self.tx, &key)?;
        }
        Ok(())
    }

    /// Whether another branch left `branch` between its last head and `seq`: at that time there was no head to pin.
    fn forks_off(
        &mut self,
        branch: BranchNo,
        row: &Branch,
        seq: Seq,
    ) -> Result<bool, StorageError> {
        let last = row.head.map_or(0, |head| head.seq);
        for other in self.branches_of(&row.log)? {
            let base = self.branch(other)?.base;
            if base.is_some_and(|(below, at)| below == branch && last < at && at <= seq) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn arrival_of_tip(&self, branch: BranchNo, seq: Seq) -> Result<u64, StorageError> {
        if self.counters.last == (branch, seq) {
            Ok(self.counters.next_arrival - 1)
        } else {
            self.view().arrival(branch, seq)
        }
    }

    /// Makes sure that the head over a parent is kept for ever, splitting the run above it if it was dropped here.
    /// `false` when the entry was never a head as far as is known and `stated` does not prove it either.
    pub(crate) fn pin_head(
        &mut self,
        branch: BranchNo,
        stated: &Head,
    ) -> Result<bool, StorageError> {
        let seq = stated.position.seq;
        let key = branch_key(branch, seq);
        if let Some(mut head) = HeadRow::get(self.tx, &key)? {
            if !head.pinned {
                head.pinned = true;
                head.put(self.tx, &key)?;
            }
            return Ok(true);
        }
        if !stated.verify(&self.database) {
            return Ok(false);
        }
        if self.branch(branch)?.head.is_none_or(|last| last.seq < seq) {
            // In the unsigned tail of a log of ours, of which a copy of this replica signed as much.
            self.keep_head(branch, Tip { seq, id: stated.position.id }, stated.signature)?;
            return self.pin_head(branch, stated);
        }
        let arrival = self.view().arrival(branch, seq)?;
        let before = self.view().previous_head(branch, seq)?.map_or(0, |(at, _)| at);
        let base = self.branch(branch)?.base_seq();
        let span = u32::try_from(seq - before.max(base)).unwrap_or(u32::MAX);
        let mut bytes = limits::RUN_BYTES as u32;
        if let Some((at, mut above)) = self.view().next_head(branch, seq)? {
            above.span.0 = u32::try_from(at - seq).unwrap_or(u32::MAX);
            bytes = above.span.1;
            above.put(self.tx, &branch_key(branch, at))?;
        }
        HeadRow { signature: stated.signature, arrival, pinned: true, span: (span, bytes) }
            .put(self.tx, &key)?;
        Ok(true)
    }
}
