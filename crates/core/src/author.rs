//! Writing entries of our own: what a writer saw is looked up under the write lock, the entry is chained to the log's
//! tip read under that same lock, and one head is signed for a whole group of commits. Starts a new log when the storage
//! was copied, restored or rolled back (I6).

use crate::blob::{ContentRef, content_of};
use crate::codec::DecodeError;
use crate::counters::{Count, CountOp, encode_counts};
use crate::entry::{Entry, GrantRef, Header, Payload, StoreId, Timestamp};
use crate::error::{Error, corrupt};
use crate::head::{self, Head};
use crate::id::{EntryId, LogId, NodeId, Position, Seq};
use crate::key::{Context, DeviceKey};
use crate::ledger::Ledger;
use crate::limits;
use crate::membership::{self, stints};
use crate::ops::{CellOp, Cut, MemberOp, Role, Subject, ValueName, encode_cells, encode_members};
use crate::path::{Path, PathError};
use crate::rows::{Branch, BranchNo, GrantRow, Own, Tip};
use crate::sabotage::{self, Bug};
use crate::seal::{Bound, Key};
use crate::storage::StorageError;
use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;

/// Who writes, and what this crate may not find out by itself (I8).
#[derive(Debug, Clone, Copy)]
pub struct Author<'k> {
    /// The device's key.
    pub key: &'k DeviceKey,
    /// The wall clock.
    pub wall: Timestamp,
    /// A random number, for the case that a new log is started.
    pub fresh_epoch: u64,
    /// Mark of the storage written to, see [`crate::storage::Storage::instance`].
    pub instance: [u8; 32],
}

/// Which values a write replaces.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Seen {
    /// Those that are live when it is committed: the write did not depend on what was there.
    #[default]
    AtCommit,
    /// Exactly these: what the writer had read before it decided.
    Values(Vec<ValueName>),
}

/// A write to one cell, before its operations are worked out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The store.
    pub store: StoreId,
    /// The cell.
    pub path: Path,
    /// The new value; `None` deletes.
    pub value: Option<Vec<u8>>,
    /// What it replaces there.
    pub seen: Seen,
    /// Whether everything below the path goes as well.
    pub below: bool,
    /// Whether values at the path's ancestors go as well.
    pub above: bool,
}

/// A change of a counter, before its operations are worked out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    /// The store.
    pub store: StoreId,
    /// What is counted.
    pub path: Path,
    /// What is done to it.
    pub step: Step,
}

impl Tally {
    /// `step` on the counter at `path`.
    #[must_use]
    pub fn new(store: StoreId, path: Path, step: Step) -> Self {
        Self { store, path, step }
    }
}

/// What a [`Tally`] does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Adds a number.
    Add(i64),
    /// Takes away the sum there is when it is committed.
    Reset,
    /// Takes away this sum: the one that the writer had read before it decided.
    ResetFrom(i128),
}

/// One transaction's writes, in the order in which they were made: the last one to a cell counts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Draft {
    /// To cells.
    pub writes: Vec<Write>,
    /// To counters.
    pub tallies: Vec<Tally>,
    /// To the membership.
    pub members: Vec<MemberOp>,
}

impl Draft {
    /// Gives the elements of lists that it makes the names that they have since it became `entry`.
    ///
    /// # Errors
    /// [`PathError`] for a draft that could not become an entry.
    pub fn name_elements(&mut self, entry: &Entry) -> Result<(), PathError> {
        self.writes.iter_mut().try_for_each(|write| {
            write.path = write.path.fill(&entry.id())?;
            Ok(())
        })
    }
}

/// A place that an entry of ours builds on.
struct Parent {
    position: Position,
    branch: BranchNo,
    generation: u64,
    timestamp: Timestamp,
}

type Ops = BTreeMap<StoreId, BTreeMap<Path, CellOp>>;

impl Ledger<'_> {
    /// Adds `draft` as one entry to this replica's log. `None` when it comes to nothing, such as deleting what is not there.
    ///
    /// The entry is not told to peers before [`Self::seal`]. Cost: the writes, plus a few look-ups.
    ///
    /// # Errors
    /// [`Error::NotPermitted`] without a grant for it, [`Error::Decode`] when it exceeds the size of an entry,
    /// [`Error::Refused`] when it grants more than the device may, [`Error::NoCells`], [`Error::NoSums`] and
    /// [`Error::Path`] for a place that holds no values or counts nothing.
    pub fn commit(&mut self, author: &Author<'_>, draft: &Draft) -> Result<Option<Entry>, Error> {
        check_draft(draft)?;
        if self.built().is_some() && !sabotage::is(Bug::NeverBuilt) {
            return Err(StorageError::Building.into());
        }
        let ops = self.resolve(&draft.writes)?;
        let counts = self.count(&draft.tallies)?;
        let ring = self.ring()?;
        let mut stores = draft.writes.iter().map(|write| &write.store);
        let mut counters = draft.tallies.iter().map(|tally| &tally.store);
        let sealed =
            stores.any(|store| ring.seals(store)) || counters.any(|store| ring.seals(store));
        // What is there to be deleted cannot be seen either.
        if sealed && ring.ids().next().is_none() {
            return Err(StorageError::NoKey.into());
        }
        let idle = ops.values().all(BTreeMap::is_empty) && counts.values().all(Vec::is_empty);
        if idle && draft.members.is_empty() {
            return Ok(None);
        }
        self.check_sealed(draft)?;
        // Before anything else is looked up, since it may write entries of its own.
        let key = if sealed && !idle { self.tend(author, true)? } else { None };
        let device = author.key.node_id();
        let needed = if draft.members.is_empty() { Role::Write } else { Role::Admin };
        let grant = match self.resigned(&device, draft)? {
            Some(grant) => grant,
            None => {
                let grant = self.writing_grant(&device, needed)?;
                grant.ok_or_else(|| not_permitted(&device, needed))?
            }
        };
        self.keep_an_admin(&draft.members)?;
        let log = self.own_log(author)?;
        self.sign_before(author, &log, &grant)?;
        let key = match key {
            Some(key) => Some((key, self.tip_of(&log)?)),
            None => None,
        };
        // A map, since payloads are in the order of their stores.
        let mut payloads = BTreeMap::new();
        for (store, ops) in ops.into_iter().filter(|(_, ops)| !ops.is_empty()) {
            let ops: Vec<CellOp> = ops.into_values().collect();
            let key = key.as_ref().filter(|_| ring.seals(&store));
            let contents = if key.is_some() { contents_of(&store, &ops) } else { Vec::new() };
            let payload = self.sealed(key, &log, &store, encode_cells(&log, &ops), &contents);
            payloads.insert(store, payload);
        }
        for (store, ops) in counts.into_iter().filter(|(_, ops)| !ops.is_empty()) {
            let key = key.as_ref().filter(|_| ring.seals(&store));
            let payload = self.sealed(key, &log, &store, encode_counts(&ops), &[]);
            payloads.insert(store, payload);
        }
        if !draft.members.is_empty() {
            let bytes = encode_members(&self.cut_as_of_now(&grant, &draft.members)?);
            payloads.insert(StoreId::members(), Payload::Present(bytes));
        }
        let payloads = payloads.into_iter().collect();
        let entry = self.write(author, log, membership::reference(&grant), payloads)?;
        if !draft.members.is_empty() {
            self.tend_if_possible(author, true)?;
        }
        Ok(Some(entry))
    }

    /// What of a payload is stored and sent.
    fn sealed(
        &self,
        key: Option<&(Key, EntryId)>,
        log: &LogId,
        store: &StoreId,
        plain: Vec<u8>,
        contents: &[ContentRef],
    ) -> Payload {
        let bound = Bound { database: self.database, log, store };
        Payload::Present(match key {
            Some((key, tip)) => key.seal_payload(&bound, tip, &plain, contents),
            None => plain,
        })
    }

    /// The last entry of a log of ours; zeros before the first.
    pub(crate) fn tip_of(&mut self, log: &LogId) -> Result<EntryId, StorageError> {
        match self.branches_of(log)?.first() {
            Some(&branch) => Ok(self.branch(branch)?.tip.id),
            None => Ok(EntryId([0; 32])),
        }
    }

    /// What a sealed database cannot give.
    fn check_sealed(&mut self, draft: &Draft) -> Result<(), Error> {
        let to_all = |op: &MemberOp| match op {
            MemberOp::Grant { subject: Subject::Anyone, role, .. } => *role >= Role::Read,
            _ => false,
        };
        if draft.members.iter().any(to_all) && self.ring()?.is_sealed() {
            return Err(Error::SealedToAll);
        }
        Ok(())
    }

    /// As [`Self::commit`] with another key than the device's, in a new log of that key, and signed. The replica goes on with its
    /// own log afterwards, of which everything has to be signed.
    ///
    /// # Errors
    /// As [`Self::commit`].
    pub fn commit_apart(&mut self, author: &Author<'_>, draft: &Draft) -> Result<(), Error> {
        let before = self.own()?;
        self.commit(author, draft)?;
        self.seal(author)?;
        // Where nothing was written before, the next entry finds another device's log and begins its own.
        before.into_iter().for_each(|own| self.set_own(own));
        Ok(())
    }

    /// The device's own grant, if the draft is to give that up and nothing else.
    fn resigned(
        &mut self,
        device: &NodeId,
        draft: &Draft,
    ) -> Result<Option<GrantRow>, StorageError> {
        let Draft { writes, tallies, members } = draft;
        let [MemberOp::Revoke { grant, cut: Cut::Past }] = &members[..] else { return Ok(None) };
        let alone = writes.is_empty() && tallies.is_empty();
        let own = self.grant(grant)?.map(|(_, row)| row);
        Ok(own.filter(|row| alone && row.holds() && row.subject == Subject::Device(*device)))
    }

    /// Refuses to revoke the last right to let others in. Cost: a step a grant, where such a right is revoked alone.
    fn keep_an_admin(&mut self, ops: &[MemberOp]) -> Result<(), Error> {
        let mut revoked = Vec::new();
        for op in ops {
            match op {
                MemberOp::Revoke { grant, .. } => revoked.push(*grant),
                MemberOp::Grant { subject: Subject::Device(_), role: Role::Admin, .. } => {
                    return Ok(());
                }
                _ => {}
            }
        }
        let admin = |row: &GrantRow| {
            row.role == Role::Admin && matches!(row.subject, Subject::Device(_)) && row.holds()
        };
        // What a person was granted may end by what happens elsewhere.
        let lasts = |ledger: &mut Self, row: &GrantRow| {
            let used = if row.depth == 0 { None } else { Some(ledger.grant_row(row.used)?) };
            Ok::<_, StorageError>(!used.is_some_and(|u| matches!(u.subject, Subject::Person(_))))
        };
        let mut taken = false;
        for grant in &revoked {
            taken |= self.grant(grant)?.is_some_and(|(_, row)| admin(&row));
        }
        if !taken {
            return Ok(());
        }
        for number in 1..=self.counters.grants {
            let row = self.view().grant(number)?;
            let stays = admin(&row) && !revoked.contains(&membership::reference(&row));
            if stays && lasts(self, &row)? {
                return Ok(());
            }
        }
        Err(Error::LastAdmin)
    }

    /// A run uses one grant, so what was written with another one is signed first.
    pub(crate) fn sign_before(
        &mut self,
        author: &Author<'_>,
        log: &LogId,
        grant: &GrantRow,
    ) -> Result<(), StorageError> {
        let number = self.grant(&membership::reference(grant))?.map(|(number, _)| number);
        if let [branch] = self.branches_of(log)?[..]
            && Some(self.branch(branch)?.grant) != number
        {
            self.sign_tip(author.key, branch)?;
        }
        Ok(())
    }

    /// Lists what there is of the use of a revoked grant, where that is little: whoever gets the list need not search the past.
    fn cut_as_of_now(
        &mut self,
        used: &GrantRow,
        ops: &[MemberOp],
    ) -> Result<Vec<MemberOp>, StorageError> {
        let own = membership::reference(used);
        let mut cut = Vec::with_capacity(ops.len());
        for op in ops {
            cut.push(match op {
                MemberOp::Revoke { grant, cut: Cut::Past } if *grant != own => {
                    let tips = self.tips_using(grant)?.map_or(Cut::Past, Cut::Tips);
                    MemberOp::Revoke { grant: *grant, cut: tips }
                }
                op => op.clone(),
            });
        }
        Ok(cut)
    }

    /// Of each log that used a grant, the last place that did and counts; `None` where these are many or one is not signed.
    fn tips_using(&mut self, grant: &GrantRef) -> Result<Option<Vec<Head>>, StorageError> {
        const MANY: usize = 64;
        let Some((number, _)) = self.grant(grant)? else { return Ok(None) };
        let stints = stints::of_grant(&*self.tx, number)?;
        if stints.len() > MANY {
            return Ok(None);
        }
        let standing = self.standing(number)?;
        let mut last: BTreeMap<BranchNo, Seq> = BTreeMap::new();
        for (branch, from) in stints {
            let row = self.branch(branch)?.clone();
            // Our own entries of this moment are not signed; they are in the past of what is about to be written.
            let signed = row.head.map_or(0, |head| head.seq);
            let end = stints::end(&*self.tx, (branch, from), row.tip.seq)?;
            let end = end.min(standing.last(&*self.tx, branch)?).min(signed);
            if end >= from {
                last.insert(branch, end);
            }
        }
        let mut tips = Vec::with_capacity(last.len());
        for (branch, seq) in last {
            let log = self.branch(branch)?.log;
            let Some(head) = self.view().head(branch, seq)? else { return Ok(None) };
            let position = Position { log, seq, id: self.view().entry_id(branch, seq)? };
            tips.push(Head { position, signature: head.signature });
        }
        Ok(Some(tips))
    }

    /// Redeems the ticket with this secret key for the author's device. `None` when the device may do as much already. Keys of a
    /// sealed database that the ticket was handed are used from now on.
    ///
    /// # Errors
    /// [`Error::UnknownTicket`] when its grant is not held.
    pub fn redeem(
        &mut self,
        author: &Author<'_>,
        ticket: &DeviceKey,
    ) -> Result<Option<Entry>, Error> {
        let grant = self.view().ticket_grant(&ticket.node_id())?.ok_or(Error::UnknownTicket)?;
        self.unlock(ticket)?;
        if self.view().role_of(&author.key.node_id())? >= Some(grant.role) {
            return Ok(None);
        }
        let log = self.own_log(author)?;
        self.sign_before(author, &log, &grant)?;
        let reference = membership::reference(&grant);
        let op = MemberOp::redeem(ticket, &self.database(), &reference, &log);
        let payload = Payload::Present(encode_members(&[op]));
        // At once: an entry that only gathers tips may not use the grant of a ticket.
        let entry = self.chain(author, log, reference, vec![(StoreId::members(), payload)])?;
        self.hand_out(author)?;
        Ok(Some(entry))
    }

    /// Signs the tip of this replica's log, so that peers may be told of it.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn seal(&mut self, author: &Author<'_>) -> Result<(), StorageError> {
        let Some(own) = self.own()?.filter(|_| !sabotage::is(Bug::NeverSigned)) else {
            return Ok(());
        };
        for branch in self.branches_of(&own.log)? {
            if self.branch(branch)?.tip.id == own.id {
                self.sign_tip(author.key, branch)?;
            }
        }
        Ok(())
    }

    fn sign_tip(&mut self, key: &DeviceKey, branch: BranchNo) -> Result<(), StorageError> {
        let row = self.branch(branch)?.clone();
        if row.unsigned.0 == 0 || row.log.device != key.node_id() {
            return Ok(());
        }
        let position = Position { log: row.log, seq: row.tip.seq, id: row.tip.id };
        let message = head::message(&self.database, &position);
        self.keep_head(branch, row.tip, key.sign(Context::Head, &message))
    }

    /// The log to write to: the one written last, unless this storage is not the one it was written on or somebody else
    /// wrote to it; then a new one.
    pub(crate) fn own_log(&mut self, author: &Author<'_>) -> Result<LogId, StorageError> {
        let device = author.key.node_id();
        if let Some(own) = self.own()? {
            let branches = self.branches_of(&own.log)?;
            let untouched = match branches[..] {
                [] => own.seq == 0,
                [branch] => {
                    let row = self.branch(branch)?;
                    let tip = row.tip;
                    // What lies past a cut is nobody's concern as long as nothing builds on it.
                    row.cut.is_none() && (tip.seq, tip.id) == (own.seq, own.id)
                }
                _ => false,
            };
            if sabotage::is(Bug::SequenceReused) && !branches.is_empty() {
                return Ok(own.log);
            }
            if untouched && own.log.device == device && own.instance == author.instance {
                return Ok(own.log);
            }
            for branch in branches {
                self.sign_tip(author.key, branch)?;
            }
        }
        let log = LogId { device, epoch: author.fresh_epoch };
        self.set_own(Own { log, seq: 0, id: EntryId([0; 32]), instance: author.instance });
        Ok(log)
    }

    pub(crate) fn write(
        &mut self,
        author: &Author<'_>,
        log: LogId,
        grant: GrantRef,
        payloads: Vec<(StoreId, Payload)>,
    ) -> Result<Entry, Error> {
        // More open tips than one entry may name, or than there is room for beside what is written, are gathered by
        // entries that do nothing else.
        while crowded(self.open_tips(&log, &grant)?.len(), &payloads) {
            self.chain(author, log, grant, Vec::new())?;
        }
        self.chain(author, log, grant, payloads)
    }

    /// Tips of other logs that nothing builds on yet and whose heads are signed.
    fn open_tips(&mut self, log: &LogId, grant: &GrantRef) -> Result<Vec<Parent>, StorageError> {
        self.compare_anew()?;
        let (mut open, mut unsigned) = (Vec::new(), false);
        for number in self.uncovered()? {
            let branch = self.branch(number)?.clone();
            let Branch { tip, generation, timestamp, .. } = branch;
            if branch.log == *log {
                continue;
            }
            if branch.cut.is_some() {
                open.extend(self.told_tip(number, &branch)?);
            } else if branch.head == Some(tip) {
                let position = Position { log: branch.log, seq: tip.seq, id: tip.id };
                open.push(Parent { position, branch: number, generation, timestamp });
            } else {
                unsigned = true;
            }
        }
        if unsigned && self.branches_of(log)?.is_empty() {
            // Another device's storage, with entries that only that one could sign. They hide what they build on.
            let ground = self.head_over(grant)?;
            let ground = ground.filter(|g| open.iter().all(|p| p.position != g.position));
            open.splice(0..0, ground);
        }
        Ok(open)
    }

    /// The last place of a branch that peers compare.
    fn told_tip(
        &mut self,
        number: BranchNo,
        branch: &Branch,
    ) -> Result<Option<Parent>, StorageError> {
        let Some(Tip { seq, id }) = branch.told() else { return Ok(None) };
        let body = self.view().entry_row(number, seq)?.body;
        let position = Position { log: branch.log, seq, id };
        let (generation, timestamp) = (body.generation, body.timestamp);
        Ok(Some(Parent { position, branch: number, generation, timestamp }))
    }

    /// The first signed place from which `grant` can be seen.
    fn head_over(&mut self, grant: &GrantRef) -> Result<Option<Parent>, StorageError> {
        let (_, grant) = self.grant(grant)?.ok_or_else(|| corrupt("a grant"))?;
        let Some((seq, _)) = self.view().next_head(grant.branch, grant.seq - 1)? else {
            return Ok(None);
        };
        let row = self.view().entry_row(grant.branch, seq)?;
        let log = self.branch(grant.branch)?.log;
        Ok(Some(Parent {
            position: Position { log, seq, id: row.id },
            branch: grant.branch,
            generation: row.body.generation,
            timestamp: row.body.timestamp,
        }))
    }

    pub(crate) fn chain(
        &mut self,
        author: &Author<'_>,
        log: LogId,
        grant: GrantRef,
        payloads: Vec<(StoreId, Payload)>,
    ) -> Result<Entry, Error> {
        let own = self.branches_of(&log)?.first().copied();
        let tip = own.map(|number| self.branch(number).cloned()).transpose()?;
        let mut parents = self.open_tips(&log, &grant)?;
        if parents.len() > limits::PARENTS {
            // Whichever are left out, the grant is to be seen.
            let ground = self.head_over(&grant)?.filter(|ground| ground.position.log != log);
            let ground = ground.filter(|g| parents.iter().all(|p| p.position != g.position));
            parents.splice(0..0, ground);
        }
        parents.truncate(limits::PARENTS);
        parents.sort_unstable_by_key(|p| p.position);
        let below = tip.iter().map(|b| (b.generation, b.timestamp));
        let below = below.chain(parents.iter().map(|p| (p.generation, p.timestamp)));
        let (generation, latest) = below
            .fold((0, None), |(g, t): (u64, Option<Timestamp>), b| (g.max(b.0), t.max(Some(b.1))));
        let header = Header {
            database: Some(self.database),
            log,
            seq: tip.as_ref().map_or(1, |b| b.tip.seq + 1),
            prev: tip.as_ref().map(|b| b.tip.id),
            parents: parents.iter().map(|p| p.position).collect(),
            generation: generation + 1,
            timestamp: Timestamp::claim(author.wall, latest),
            grant,
            payloads: Vec::new(),
            salt: None,
        };
        let entry = Entry::new(header, payloads)?;
        // What peers would refuse must not get into the log: everything after it would be refused as well.
        let mut places: Vec<_> = parents.iter().map(|p| (p.branch, p.position.seq)).collect();
        places.extend(own.zip(tip.as_ref()).map(|(number, branch)| (number, branch.tip.seq)));
        membership::check_right(self, &entry, &places)?;
        let number = self.room(author, own, &log, &entry)?;
        for Parent { position, branch, .. } in &parents {
            let stated = Head { position: *position, signature: crate::key::Signature([0; 64]) };
            if !self.pin_head(*branch, &stated)? {
                return Err(corrupt("a head").into());
            }
        }
        let branches: Vec<BranchNo> = parents.iter().map(|p| p.branch).collect();
        self.append(&entry, number, &branches)?;
        let (seq, id, instance) = (entry.header().seq, entry.id(), author.instance);
        self.set_own(Own { log, seq, id, instance });
        Ok(entry)
    }

    /// The branch of our log, with its tip signed first if `entry` would make the unsigned run exceed the limits.
    fn room(
        &mut self,
        author: &Author<'_>,
        own: Option<BranchNo>,
        log: &LogId,
        entry: &Entry,
    ) -> Result<BranchNo, StorageError> {
        let Some(number) = own else {
            return self.branch_after(log, None)?.ok_or_else(|| corrupt("a log"));
        };
        let (count, bytes) = self.branch(number)?.unsigned;
        if count as usize + 1 > limits::RUN_ENTRIES
            || bytes as usize + entry.run_bytes() > limits::RUN_BYTES
        {
            self.sign_tip(author.key, number)?;
        }
        Ok(number)
    }

    /// Works out the operations: one a cell, naming what it replaces.
    fn resolve(&self, writes: &[Write]) -> Result<Ops, Error> {
        let mut ops = Ops::new();
        for write in writes {
            let store = ops.entry(write.store.clone()).or_default();
            if write.below {
                store.retain(|path, op| {
                    let under = write.path.is_prefix_of(path);
                    if under {
                        op.value = None;
                    }
                    !under || !op.replaces.is_empty()
                });
                self.clear_below(store, write)?;
            }
            if write.above {
                for path in write.path.ancestors() {
                    // What this draft itself put there goes as well.
                    store.remove(&path);
                    let replaces = self.live_names(&write.store, &path)?;
                    if !replaces.is_empty() {
                        store.insert(path.clone(), CellOp { path, value: None, replaces });
                    }
                }
            }
            let replaces = match &write.seen {
                // What this very entry makes, nobody has seen.
                _ if write.path.has_new() => Vec::new(),
                Seen::AtCommit => self.live_names(&write.store, &write.path)?,
                Seen::Values(names) => sorted(names.clone()),
            };
            if write.value.is_none() && replaces.is_empty() {
                store.remove(&write.path);
                continue;
            }
            let path = write.path.clone();
            store.insert(path.clone(), CellOp { path, value: write.value.clone(), replaces });
        }
        Ok(ops)
    }

    /// Works out the operations on counters: of each path at most one reset, then what was added after it.
    fn count(&self, tallies: &[Tally]) -> Result<BTreeMap<StoreId, Vec<CountOp>>, Error> {
        let mut paths: BTreeMap<(&StoreId, &Path), (i128, Vec<i64>)> = BTreeMap::new();
        for Tally { store, path, step } in tallies {
            let (reset, adds) = paths.entry((store, path)).or_default();
            let seen = match *step {
                Step::Add(delta) => {
                    match adds.last_mut().map(|sum| (sum.checked_add(delta), sum)) {
                        Some((Some(sum), last)) => *last = sum,
                        _ => adds.push(delta),
                    }
                    continue;
                }
                Step::Reset => match self.known_number(store)? {
                    Some(number) => self.view().sum_in(number, path)?,
                    None => 0,
                },
                Step::ResetFrom(seen) => seen,
            };
            (*reset, *adds) = (seen.wrapping_neg(), Vec::new());
        }
        let mut ops: BTreeMap<StoreId, Vec<CountOp>> = BTreeMap::new();
        for ((store, path), (reset, adds)) in paths {
            let reset = (reset != 0).then_some(Count::Reset(reset));
            let adds = adds.into_iter().filter(|delta| *delta != 0).map(Count::Add);
            let counts = reset.into_iter().chain(adds);
            let list = ops.entry(store.clone()).or_default();
            list.extend(counts.map(|count| CountOp { path: path.clone(), count }));
        }
        Ok(ops)
    }

    fn clear_below(&self, store: &mut BTreeMap<Path, CellOp>, write: &Write) -> Result<(), Error> {
        // At least so many bytes each, so that no more is read than an entry could name.
        const NAME: usize = 20;
        let mut bytes = 0;
        self.view().scan_cells(&write.store, &write.path, None, &mut |cell| {
            if cell.path != write.path {
                let replaces = sorted(cell.values.iter().map(|v| v.name).collect());
                let path = cell.path;
                bytes += path.as_bytes().len() + NAME * replaces.len();
                store.insert(path.clone(), CellOp { path, value: None, replaces });
            }
            if bytes > limits::ENTRY_BYTES {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        let (found, limit) = (bytes as u64, limits::ENTRY_BYTES as u64);
        if found > limit {
            let what = "an entry's size";
            return Err(DecodeError::TooLarge { what, found, limit }.into());
        }
        Ok(())
    }

    fn live_names(&self, store: &StoreId, path: &Path) -> Result<Vec<ValueName>, StorageError> {
        let values = match self.known_number(store)? {
            Some(number) => self.view().cell_in(number, path)?,
            None => Vec::new(),
        };
        Ok(sorted(values.iter().map(|v| v.name).collect()))
    }
}

/// Whether an entry has no room for so many parents, although it has for the payloads alone (by upper bounds).
fn crowded(parents: usize, payloads: &[(StoreId, Payload)]) -> bool {
    const HEADER: usize = 256;
    const SUMMARY: usize = 64;
    const PARENT: usize = 96;
    let alone = payloads.iter().fold(HEADER, |sum, (store, payload)| {
        sum + SUMMARY + store.name.len() + payload.bytes().map_or(0, <[u8]>::len)
    });
    parents > limits::PARENTS
        || (parents > 0
            && alone <= limits::ENTRY_BYTES
            && alone + parents * PARENT > limits::ENTRY_BYTES)
}

/// What would be written and then have no effect, or make the store unreadable, is refused instead.
fn check_draft(draft: &Draft) -> Result<(), Error> {
    for write in &draft.writes {
        if !write.store.kind.has_cells() {
            return Err(Error::NoCells(write.store.clone()));
        }
        if write.value.is_some() && write.path.is_empty() {
            return Err(PathError.into());
        }
        // With the id that takes most room, since the entry's is not known yet.
        write.path.fill(&EntryId([0; 32]))?;
    }
    for Tally { store, path, .. } in &draft.tallies {
        if !store.kind.has_sums() {
            return Err(Error::NoSums(store.clone()));
        }
        if path.is_empty() {
            return Err(PathError.into());
        }
    }
    let (found, limit) = (draft.members.len() as u64, limits::GRANT_OPS as u64);
    if found > limit {
        return Err(DecodeError::TooLarge { what: "the number of grants", found, limit }.into());
    }
    Ok(())
}

fn sorted(mut names: Vec<ValueName>) -> Vec<ValueName> {
    names.sort_unstable();
    names.dedup();
    names
}

fn not_permitted(device: &NodeId, role: Role) -> Error {
    let role = match role {
        Role::Admin => "let others in",
        Role::Write | Role::Read | Role::Relay => role.name(),
    };
    Error::NotPermitted { device: device.short(), role }
}

/// The content that operations of a store name, as a sealed database keeps it, each once.
fn contents_of(store: &StoreId, ops: &[CellOp]) -> Vec<ContentRef> {
    if !store.kind.names_content() {
        return Vec::new();
    }
    let named = ops.iter().filter_map(|op| content_of(op.value.as_deref()?));
    let named: HashSet<ContentRef> = named.map(|content| content.padded()).collect();
    let mut named: Vec<_> = named.into_iter().filter(|content| content.size() > 0).collect();
    named.sort_unstable_by_key(|content| (content.root(), content.size(), content.depth()));
    named
}
