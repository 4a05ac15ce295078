//! People: somebody's devices are the members of a database of their own, and other databases grant to that database. Which
//! devices it has is told there by entries that embed its entries, so that a verdict depends on nothing that is elsewhere.
//!
//! An entry with the grant of a person embeds **evidence**: all entries of the person's database that its author knows. It
//! grants what the evidence shows to its devices, and it ends what was granted with less to devices that have no such right
//! any more, as far as both pieces of evidence together tell.

use crate::author::Author;
use crate::cells;
use crate::codec::{Reader, Writer};
use crate::entry::{Entry, Payload, StoreId, StoreKind};
use crate::error::{Error, Refusal, corrupt};
use crate::frontier::Frontier;
use crate::id::{DatabaseId, EntryId, NodeId, Seq};
use crate::ledger::{Ledger, found};
use crate::limits;
use crate::membership::{self, stints};
use crate::ops::{MemberOp, Role, Subject, TicketTerms, encode_members, members_of};
use crate::outgoing::{Outgoing, Withhold};
use crate::past::Place;
use crate::rows::{GrantNo, GrantRow, PEOPLE, grant_id_key, last4, subject_key};
use crate::run::{Run, VerifiedRun};
use crate::scratch::Scratch;
use crate::storage::{Order, StorageError, Table};
use crate::view::View;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

/// The strongest role of each device that is granted one by name.
pub type Devices = BTreeMap<NodeId, Role>;

/// Entries of a person's database, all that they build on included. They were verified, and each is admissible.
#[derive(Debug, Clone)]
pub struct Evidence {
    person: DatabaseId,
    runs: Vec<VerifiedRun>,
    entries: BTreeSet<EntryId>,
    devices: Devices,
}

impl Evidence {
    /// What a replica of the person's database has to tell.
    ///
    /// Cost: as its entries, which are bounded.
    ///
    /// # Errors
    /// [`Error::NoPerson`] for a database that is used for something else, [`Error::PersonSize`], [`Error::Storage`].
    pub fn of(person: View<'_>) -> Result<Self, Error> {
        let database = person.database()?.ok_or_else(|| corrupt("the database id"))?;
        let mut out = Outgoing::new(person, &Frontier::default())?;
        let (mut runs, mut entries) = (Vec::new(), 0);
        while let Some(run) = out.next(person, Withhold::NOTHING)? {
            entries += run.entries().len();
            if entries > limits::EVIDENCE_ENTRIES {
                return Err(Error::PersonSize { entries, bytes: 0 });
            }
            runs.push(run.verify()?);
        }
        let evidence = Self::new(database, runs)?;
        let bytes = evidence.encode().len();
        if bytes > limits::EVIDENCE_BYTES {
            return Err(Error::PersonSize { entries, bytes });
        }
        Ok(evidence)
    }

    fn new(person: DatabaseId, runs: Vec<VerifiedRun>) -> Result<Self, Error> {
        if runs.iter().flat_map(VerifiedRun::entries).any(|entry| !is_of_members(entry)) {
            return Err(Error::NoPerson);
        }
        let devices = devices_of(&person, &runs)?;
        let entries = runs.iter().flat_map(VerifiedRun::entries).map(Entry::id).collect();
        Ok(Self { person, runs, entries, devices })
    }

    /// Reads evidence about `person`.
    ///
    /// # Errors
    /// [`Error`] for anything malformed, forged, not admissible or over a limit.
    pub fn decode(person: DatabaseId, bytes: &[u8]) -> Result<Self, Error> {
        if bytes.len() > limits::EVIDENCE_BYTES {
            return Err(Error::PersonSize { entries: 0, bytes: bytes.len() });
        }
        let mut r = Reader::new(bytes);
        let (mut runs, mut entries) = (Vec::new(), 0);
        for _ in 0..r.array("evidence", limits::EVIDENCE_ENTRIES)? {
            let run = Run::decode(&mut r, person)?;
            entries += run.entries().len();
            if entries > limits::EVIDENCE_ENTRIES {
                return Err(Error::PersonSize { entries, bytes: bytes.len() });
            }
            runs.push(run.verify()?);
        }
        r.finish()?;
        Self::new(person, runs)
    }

    /// As an operation embeds it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.array(self.runs.len());
        self.runs.iter().for_each(|run| run.encode(&mut w));
        w.finish()
    }

    /// The database that it is about.
    #[must_use]
    pub fn person(&self) -> DatabaseId {
        self.person
    }

    /// The devices, and what each may do in the person's database.
    #[must_use]
    pub fn devices(&self) -> &Devices {
        &self.devices
    }

    /// The devices as both pieces of evidence tell together.
    pub(crate) fn devices_with(&self, other: &Self) -> Result<Devices, Error> {
        if other.entries.is_subset(&self.entries) {
            return Ok(self.devices.clone());
        }
        if self.entries.is_subset(&other.entries) {
            return Ok(other.devices.clone());
        }
        devices_of(&self.person, self.runs.iter().chain(&other.runs))
    }

    /// Takes over what `other` has beyond this.
    fn join(&mut self, other: Self) -> Result<(), Error> {
        self.devices = self.devices_with(&other)?;
        for run in other.runs {
            if !self.entries.contains(&run.head().position.id) {
                self.entries.extend(run.entries().iter().map(Entry::id));
                self.runs.push(run);
            }
        }
        Ok(())
    }

    /// The entries by which somebody is put out.
    fn revocations(&self) -> impl Iterator<Item = EntryId> {
        let entries = self.runs.iter().flat_map(VerifiedRun::entries);
        entries.filter(|entry| ops(entry).iter().any(revokes)).map(Entry::id)
    }
}

fn revokes(op: &MemberOp) -> bool {
    matches!(op, MemberOp::Revoke { .. })
}

fn ops(entry: &Entry) -> Vec<MemberOp> {
    let ops = members_of(entry).map(|decoded| decoded.ops).unwrap_or_default();
    ops.into_iter().flatten().collect()
}

/// Whether an entry tells who may, and nothing else. One that embeds would have to be judged by a third database.
fn is_of_members(entry: &Entry) -> bool {
    let embeds = |op: &MemberOp| matches!(op, MemberOp::Embed { .. });
    entry
        .payloads()
        .all(|(store, payload)| store.kind == StoreKind::MEMBERS && payload.bytes().is_some())
        && !ops(entry).iter().any(embeds)
}

/// Admits the runs to an empty replica and asks that.
fn devices_of<'r>(
    person: &DatabaseId,
    runs: impl IntoIterator<Item = &'r VerifiedRun>,
) -> Result<Devices, Error> {
    let mut scratch = Scratch::default();
    found(&mut scratch, *person)?;
    let mut ledger = Ledger::open(&mut scratch)?;
    for run in runs {
        ledger.admit(run)?;
    }
    ledger.finish()?;
    let mut devices = Devices::new();
    for grant in View::new(&scratch).grants()? {
        if let (Subject::Device(device), true) = (grant.subject, grant.holds) {
            let role = devices.entry(device).or_insert(grant.role);
            *role = grant.role.max(*role);
        }
    }
    Ok(devices)
}

/// What an entry embeds.
fn embedded(person: DatabaseId, ops: &[Option<MemberOp>]) -> Option<Evidence> {
    match ops.first() {
        Some(Some(MemberOp::Embed { evidence })) => Evidence::decode(person, evidence).ok(),
        _ => None,
    }
}

/// Judges an entry that uses the grant of a person: it embeds evidence that its author is one of the person's devices, and
/// grants what that shows to such devices, as far as the grant goes.
pub(crate) fn check(entry: &Entry, grant: &GrantRow, person: DatabaseId) -> Result<(), Refusal> {
    let (log, seq) = (entry.header().log, entry.header().seq);
    let refused = || Refusal::Evidence { log, seq };
    let decoded = members_of(entry).map(|decoded| decoded.ops).unwrap_or_default();
    if entry.payloads().count() != 1 {
        return Err(Refusal::Grant { log, seq });
    }
    if !matches!(decoded.first(), Some(Some(MemberOp::Embed { .. }))) {
        return Err(Refusal::Grant { log, seq });
    }
    let evidence = embedded(person, &decoded).ok_or_else(refused)?;
    if !evidence.devices.contains_key(&log.device) {
        return Err(refused());
    }
    for op in decoded.into_iter().skip(1).flatten() {
        let MemberOp::Grant { subject: Subject::Device(device), role, priority, .. } = op else {
            return Err(Refusal::Grant { log, seq });
        };
        let most = evidence.devices.get(&device).map(|&shown| shown.min(grant.role));
        if most.is_none_or(|most| role > most) {
            return Err(refused());
        }
        if priority < grant.priority {
            return Err(Refusal::Priority { log, seq });
        }
        if grant.depth >= limits::DELEGATION_DEPTH {
            return Err(Refusal::Depth { log, seq });
        }
    }
    Ok(())
}

/// An entry with the grant of a person, as it is held.
struct Embedding {
    place: Place,
    entry: EntryId,
    generation: u64,
    evidence: Evidence,
}

/// Ends what less evidence granted to devices that have no such right as this entry's and that tell together: what older
/// entries granted, and, where an older one knew more, what this one grants.
///
/// Cost: some checks of evidence for each entry that uses the same grant.
pub(crate) fn apply(
    ledger: &mut Ledger<'_>,
    entry: &Entry,
    place: Place,
    (used, person): (GrantNo, DatabaseId),
    ops: &[Option<MemberOp>],
) -> Result<(), StorageError> {
    let Some(evidence) = embedded(person, ops) else { return Err(corrupt("a person's devices")) };
    let new =
        Embedding { place, entry: entry.id(), generation: entry.header().generation, evidence };
    for other in ledger.places_using(used)?.into_iter().filter(|other| *other != place) {
        let other = held(ledger.view(), person, other)?;
        let devices = new.evidence.devices_with(&other.evidence).map_err(worked_out)?;
        for (by, of) in [(&new, &other), (&other, &new)] {
            for number in granted(ledger, &of.entry)? {
                let row = ledger.grant_row(number)?;
                let Subject::Device(device) = row.subject else { continue };
                if devices.get(&device).is_none_or(|role| *role < row.role) {
                    let made = (by.entry, by.generation, by.place);
                    membership::end_by_evidence(ledger, made, used, number)?;
                }
            }
        }
    }
    Ok(())
}

impl Ledger<'_> {
    /// Tells which devices a person has, if that is not known here: one entry for each grant of the person by which a device
    /// of it gets a right that it lacks, or loses one. Returns how many entries were written.
    ///
    /// Nothing is written by who is none of the devices. Cost: some checks of evidence for each entry that told it before.
    ///
    /// # Errors
    /// [`Error::PersonSize`] when all that is known does not fit into an entry, and as [`Ledger::commit`].
    pub fn embed(&mut self, author: &Author<'_>, evidence: &Evidence) -> Result<u32, Error> {
        let mut written = 0;
        let subject = subject_key(&Subject::Person(evidence.person));
        for used in self.view().grant_numbers(&subject)? {
            let grant = self.grant_row(used)?;
            if !grant.holds() || grant.depth >= limits::DELEGATION_DEPTH {
                continue;
            }
            let (mut all, mut told) = (evidence.clone(), BTreeSet::new());
            for place in self.places_using(used)? {
                let held = held(self.view(), evidence.person, place)?;
                // It goes on counting if it does now, since the grant holds.
                told.extend(held.evidence.entries.iter().copied());
                all.join(held.evidence)?;
            }
            let here = self.passed_on(used)?;
            let due = |role: Role| role.min(grant.role);
            let lost = here.iter().any(|(device, role)| {
                all.devices.get(device).is_none_or(|shown| due(*shown) < *role)
            });
            let mut ops = vec![MemberOp::Embed { evidence: all.encode() }];
            for (device, shown) in &all.devices {
                let role = due(*shown);
                if here.get(device) != Some(&role) {
                    let (subject, priority) = (Subject::Device(*device), grant.priority);
                    let terms = TicketTerms::default();
                    ops.push(MemberOp::Grant { subject, role, priority, terms });
                }
            }
            // Who was put out may have been a device that is not known here.
            let news = ops.len() > 1 || lost || all.revocations().any(|id| !told.contains(&id));
            if !news || !all.devices.contains_key(&author.key.node_id()) {
                continue;
            }
            let (entries, bytes) = (all.entries.len(), all.encode().len());
            if entries > limits::EVIDENCE_ENTRIES || bytes > limits::EVIDENCE_BYTES {
                return Err(Error::PersonSize { entries, bytes });
            }
            let log = self.own_log(author)?;
            self.sign_before(author, &log, &grant)?;
            let payload = Payload::Present(encode_members(&ops));
            let payloads = vec![(StoreId::members(), payload)];
            self.write(author, log, membership::reference(&grant), payloads)?;
            written += 1;
        }
        if written > 0 {
            self.hand_out(author)?;
        }
        Ok(written)
    }

    /// The strongest role of each device among the grants that hold and were made with this one.
    fn passed_on(&mut self, used: GrantNo) -> Result<Devices, StorageError> {
        let mut devices = Devices::new();
        for number in self.view().grant_numbers(&membership::made_with(used))? {
            let row = self.grant_row(number)?;
            if let (Subject::Device(device), true) = (row.subject, row.holds()) {
                let role = devices.entry(device).or_insert(row.role);
                *role = row.role.max(*role);
            }
        }
        Ok(devices)
    }
}

/// What was admitted does not fail, so the rows are not what they were.
fn worked_out(error: Error) -> StorageError {
    match error {
        Error::Storage(error) => error,
        _ => corrupt("a person's devices"),
    }
}

impl Ledger<'_> {
    /// Where entries use a grant.
    fn places_using(&mut self, used: GrantNo) -> Result<Vec<Place>, StorageError> {
        let stints = stints::of_grant(&*self.tx, used)?;
        let tips = stints.iter().map(|(branch, _)| Ok(self.branch(*branch)?.tip.seq));
        let tips = tips.collect::<Result<Vec<_>, StorageError>>()?;
        places(self.view(), stints, tips)
    }
}

/// The places of stretches that begin where the `stints` do, in branches that go on up to the `tips`.
fn places(view: View<'_>, stints: Vec<Place>, tips: Vec<Seq>) -> Result<Vec<Place>, StorageError> {
    let mut places = Vec::new();
    for ((branch, from), tip) in stints.into_iter().zip(tips) {
        let end = stints::end(view.tx, (branch, from), tip)?;
        places.extend((from..=end).map(|seq| (branch, seq)));
    }
    Ok(places)
}

impl View<'_> {
    /// The people to whom something is granted that holds. Cost: a look-up where there are none, else a step a grant to people.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn people(&self) -> Result<BTreeSet<DatabaseId>, StorageError> {
        let mut listed = Vec::new();
        let prefix = &PEOPLE[..];
        self.tx.keys(Table::GrantBySubject, prefix, None, &mut |key| {
            let person = key.strip_prefix(prefix).and_then(|key| key.first_chunk::<32>());
            listed.extend(person.map(|person| DatabaseId(*person)));
            if person.is_some() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        let mut people = BTreeSet::new();
        for person in listed {
            if self.knows_person(&person)? {
                people.insert(person);
            }
        }
        Ok(people)
    }

    /// Whether anything is granted to this person.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn knows_person(&self, person: &DatabaseId) -> Result<bool, StorageError> {
        let numbers = self.grant_numbers(&subject_key(&Subject::Person(*person)))?;
        for number in numbers {
            if self.grant(number)?.holds() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What the device may do that shows this evidence, were it to embed that: the strongest of the grants to the person that
    /// hold, as far as the evidence goes together with what was embedded before.
    ///
    /// Cost: some look-ups if there is no such grant, else some checks of evidence for each entry that uses one.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub fn role_by(
        &self,
        device: &NodeId,
        evidence: &Evidence,
    ) -> Result<Option<Role>, StorageError> {
        let mut strongest = None;
        let subject = Subject::Person(evidence.person);
        for used in self.grant_numbers(&subject_key(&subject))? {
            let grant = self.grant(used)?;
            let mut shown = evidence.devices.get(device).map(|role| grant.role.min(*role));
            if !grant.holds() || shown <= strongest {
                continue;
            }
            let stints = stints::of_grant(self.tx, used)?;
            let tips = stints.iter().map(|(branch, _)| Ok(self.branch(*branch)?.tip.seq));
            let tips = tips.collect::<Result<Vec<_>, StorageError>>()?;
            for place in places(*self, stints, tips)? {
                let held = held(*self, evidence.person, place)?;
                let together = evidence.devices_with(&held.evidence).map_err(worked_out)?;
                shown = shown.min(together.get(device).copied());
            }
            strongest = strongest.max(shown);
        }
        Ok(strongest)
    }
}

fn held(view: View<'_>, person: DatabaseId, place: Place) -> Result<Embedding, StorageError> {
    let members = cells::store_number(view.tx, &StoreId::members())?;
    let row = view.entry_row(place.0, place.1)?;
    let payload = row.body.payloads.iter().find(|(store, _)| Some(*store) == members);
    let ops = payload.and_then(|(_, payload)| payload.bytes()).map(crate::ops::decode_members);
    let evidence = embedded(person, &ops.map(|decoded| decoded.ops).unwrap_or_default());
    Ok(Embedding {
        place,
        entry: row.id,
        generation: row.body.generation,
        evidence: evidence.ok_or_else(|| corrupt("a person's devices"))?,
    })
}

/// The grants that an entry made.
fn granted(ledger: &Ledger<'_>, entry: &EntryId) -> Result<Vec<GrantNo>, StorageError> {
    let mut numbers = Vec::new();
    let from = grant_id_key(entry, 0);
    ledger.tx.scan(Table::GrantById, &from, None, Order::Ascending, &mut |key, number| {
        if !key.starts_with(&entry.0) {
            return ControlFlow::Break(());
        }
        numbers.push(last4(number));
        ControlFlow::Continue(())
    })?;
    numbers.into_iter().collect()
}
