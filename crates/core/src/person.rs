//! People: somebody's devices are the members of a database of their own, and other databases grant to that database. Which
//! devices it has is told there by entries that embed its entries, so that a verdict depends on nothing that is elsewhere.
//!
//! An entry with the grant of a person embeds **evidence**: all entries of the person's database that its author knows. It
//! grants what the evidence shows to its devices, and it ends what was granted with less to devices that have no such right
//! any more, as far as both pieces of evidence together tell.

use crate::author::Author;
use crate::cells;
use crate::codec::{DecodeError, Reader, Writer};
use crate::entry::{Entry, Payload, StoreId, StoreKind};
use crate::error::{Error, Refusal, corrupt};
use crate::frontier::Frontier;
use crate::id::{DatabaseId, EntryId, NodeId};
use crate::ledger::{Ledger, found};
use crate::limits;
use crate::membership;
use crate::ops::{MemberOp, Role, Subject, TicketTerms, encode_members, members_of};
use crate::outgoing::{Outgoing, Withhold};
use crate::past::Place;
use crate::rows::{
    GrantNo, GrantRow, PEOPLE, branch_key, grant_id_key, last4, membership_key, split_branch_key,
    subject_key,
};
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
        // As a rule its number of entries says so, before any is read.
        let entries = usize::try_from(person.totals()?.entries).unwrap_or(usize::MAX);
        if entries > 4 * limits::EVIDENCE_ENTRIES {
            return Err(Error::PersonSize { entries, bytes: 0 });
        }
        let evidence = Self::all_of(person)?;
        evidence.check_size()?;
        Ok(evidence)
    }

    fn new(person: DatabaseId, runs: Vec<VerifiedRun>) -> Result<Self, Error> {
        if runs.iter().flat_map(VerifiedRun::entries).any(|entry| !is_of_members(entry)) {
            return Err(Error::NoPerson);
        }
        // Where a head is known already, admission does not look at a stated one. Here each is to be right for everybody.
        for head in runs.iter().flat_map(VerifiedRun::parent_heads) {
            if !head.verify(&person) {
                return Err(Refusal::ParentNotHead(head.position).into());
            }
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

    fn known(&self) -> Known {
        Known { devices: self.devices.clone(), entries: self.entries.clone() }
    }

    /// Takes over what `other` has beyond this. What is there twice is written once.
    fn join(&mut self, other: Self) -> Result<(), Error> {
        if other.entries.is_subset(&self.entries) {
            return Ok(());
        }
        let mut scratch = Scratch::default();
        admit(&self.person, self.runs.iter().chain(&other.runs), &mut scratch)?;
        *self = Self::all_of(View::new(&scratch))?;
        Ok(())
    }

    /// Everything that a replica of the person's database holds.
    fn all_of(person: View<'_>) -> Result<Self, Error> {
        let database = person.database()?.ok_or_else(|| corrupt("the database id"))?;
        let mut out = Outgoing::new(person, &Frontier::default())?;
        let mut runs = Vec::new();
        while let Some(run) = out.next(person, Withhold::NOTHING)? {
            runs.push(run.verify()?);
        }
        Self::new(database, runs)
    }

    /// Whether others could take it in.
    fn check_size(&self) -> Result<(), Error> {
        let (entries, bytes) = (self.entries.len(), self.encode().len());
        if entries > limits::EVIDENCE_ENTRIES || bytes > limits::EVIDENCE_BYTES {
            return Err(Error::PersonSize { entries, bytes });
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

/// Admits the runs to an empty replica.
fn admit<'r>(
    person: &DatabaseId,
    runs: impl IntoIterator<Item = &'r VerifiedRun>,
    scratch: &mut Scratch,
) -> Result<(), Error> {
    found(scratch, *person)?;
    let mut ledger = Ledger::open(scratch)?;
    for run in runs {
        ledger.admit(run)?;
    }
    ledger.finish()?;
    Ok(())
}

fn devices_of<'r>(
    person: &DatabaseId,
    runs: impl IntoIterator<Item = &'r VerifiedRun>,
) -> Result<Devices, Error> {
    let mut scratch = Scratch::default();
    admit(person, runs, &mut scratch)?;
    let mut devices = Devices::new();
    for grant in View::new(&scratch).grants()? {
        if let (Subject::Device(device), true) = (grant.subject, grant.holds) {
            let role = devices.entry(device).or_insert(grant.role);
            *role = grant.role.max(*role);
        }
    }
    Ok(devices)
}

/// What is kept of evidence that was embedded, so that it need not be verified again to be compared.
#[derive(Debug)]
struct Known {
    devices: Devices,
    entries: BTreeSet<EntryId>,
}

impl Known {
    fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.array(2).array(self.devices.len());
        for (device, role) in &self.devices {
            w.array(2).bytes(&device.0).u64(role.number());
        }
        w.array(self.entries.len());
        self.entries.iter().for_each(|entry| _ = w.bytes(&entry.0));
        w.finish()
    }

    fn decode(bytes: &[u8]) -> Result<Self, StorageError> {
        let read = || {
            let mut r = Reader::new(bytes);
            r.tuple("evidence", 2)?;
            let (mut devices, mut entries) = (Devices::new(), BTreeSet::new());
            for _ in 0..r.array("devices", limits::EVIDENCE_BYTES)? {
                r.tuple("device", 2)?;
                let device = NodeId(r.array_of("device")?);
                let role = Role::from_number(r.u64("role")?);
                devices.extend(role.map(|role| (device, role)));
            }
            for _ in 0..r.array("entries", limits::EVIDENCE_ENTRIES)? {
                entries.insert(EntryId(r.array_of("entry")?));
            }
            r.finish()?;
            Ok::<_, DecodeError>(Self { devices, entries })
        };
        read().map_err(|_| corrupt("a person's devices"))
    }

    /// The devices as both pieces of evidence tell together; the runs of both are asked for if need be.
    fn with(
        &self,
        other: &Self,
        person: &DatabaseId,
        both: impl FnOnce() -> Result<[Vec<VerifiedRun>; 2], StorageError>,
    ) -> Result<Devices, StorageError> {
        if other.entries.is_subset(&self.entries) {
            return Ok(self.devices.clone());
        }
        if self.entries.is_subset(&other.entries) {
            return Ok(other.devices.clone());
        }
        let [ours, theirs] = both()?;
        // In one order for everybody, whoever came first.
        let (first, second) =
            if self.entries < other.entries { (ours, theirs) } else { (theirs, ours) };
        match devices_of(person, first.iter().chain(&second)) {
            Ok(devices) => Ok(devices),
            Err(Error::Storage(error)) => Err(error),
            // What does not go together shows nobody.
            Err(_) => Ok(Devices::new()),
        }
    }
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
    let mut granted = BTreeSet::new();
    for op in decoded.into_iter().skip(1).flatten() {
        let MemberOp::Grant { subject: Subject::Device(device), role, priority, .. } = op else {
            return Err(Refusal::Grant { log, seq });
        };
        let most = evidence.devices.get(&device).map(|&shown| shown.min(grant.role));
        if most.is_none_or(|most| role > most) || !granted.insert(device) {
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

/// Ends what less evidence granted to devices that have no such right as this entry's and that tell together: what older
/// entries granted, and, where an older one knew more, what this one grants. Only what a device tells that may write to the
/// person's database ends anything.
///
/// Cost: a comparison for each different piece of evidence that was embedded with the same grant, and a check of signatures for
/// those of which neither holds the other.
pub(crate) fn apply(
    ledger: &mut Ledger<'_>,
    place: Place,
    (used, person): (GrantNo, DatabaseId),
    ops: &[Option<MemberOp>],
) -> Result<(), StorageError> {
    let damaged = || corrupt("a person's devices");
    let Some(Some(MemberOp::Embed { evidence: bytes })) = ops.first() else {
        return Err(damaged());
    };
    let new = Evidence::decode(person, bytes).map_err(|_| damaged())?;
    let (hash, known) = (*blake3::hash(bytes).as_bytes(), new.known());
    let others = told_with(ledger.view(), used)?;
    if others.iter().all(|(other, _)| *other != hash) {
        let key = [&membership_key::evidence(used)[..], &hash].concat();
        ledger.tx.put(Table::Membership, &key, &known.encode())?;
    }
    let at = branch_key(place.0, place.1);
    let key = [&membership_key::told_at(used, &hash)[..], &at].concat();
    ledger.tx.put(Table::Membership, &key, &[])?;
    for (other, theirs) in others.into_iter().filter(|(other, _)| *other != hash) {
        let places = told_at(ledger.view(), used, &other)?;
        let first = *places.first().ok_or_else(damaged)?;
        let devices = known.with(&theirs, &person, || {
            Ok([new.runs.clone(), held(ledger.view(), person, first)?.runs])
        })?;
        for other in places {
            end_between(ledger, used, (place, other), &devices)?;
            end_between(ledger, used, (other, place), &devices)?;
        }
    }
    Ok(())
}

/// Whether what a device tells ends anything.
fn may_end(devices: &Devices, device: &NodeId) -> bool {
    devices.get(device).is_some_and(|role| *role >= Role::Write)
}

/// What the entry at the first place ends of what the one at the second granted.
fn end_between(
    ledger: &mut Ledger<'_>,
    used: GrantNo,
    (by, of): (Place, Place),
    devices: &Devices,
) -> Result<(), StorageError> {
    if !may_end(devices, &ledger.branch(by.0)?.log.device) {
        return Ok(());
    }
    let of = ledger.view().entry_id(of.0, of.1)?;
    for number in granted(ledger, &of)? {
        let row = ledger.grant_row(number)?;
        let Subject::Device(device) = row.subject else { continue };
        if devices.get(&device).is_none_or(|role| *role < row.role) {
            let by_row = ledger.view().entry_row(by.0, by.1)?;
            let made = (by_row.id, by_row.body.generation, by);
            membership::end_by_evidence(ledger, made, used, number)?;
        }
    }
    Ok(())
}

/// The different pieces of evidence that were embedded with a grant, by their hash.
fn told_with(view: View<'_>, used: GrantNo) -> Result<Vec<([u8; 32], Known)>, StorageError> {
    let prefix = membership_key::evidence(used);
    let mut rows = Vec::new();
    view.tx.scan(Table::Membership, &prefix, None, Order::Ascending, &mut |key, value| {
        let Some(hash) = key.strip_prefix(&prefix[..]).and_then(|hash| hash.try_into().ok()) else {
            return ControlFlow::Break(());
        };
        rows.push(Known::decode(value).map(|known| (hash, known)));
        ControlFlow::Continue(())
    })?;
    rows.into_iter().collect()
}

/// Where a piece of evidence was embedded.
fn told_at(view: View<'_>, used: GrantNo, evidence: &[u8; 32]) -> Result<Vec<Place>, StorageError> {
    let prefix = membership_key::told_at(used, evidence);
    let mut places = Vec::new();
    view.tx.keys(Table::Membership, &prefix, None, &mut |key| {
        let Some(place) = key.strip_prefix(&prefix[..]) else { return ControlFlow::Break(()) };
        places.push(split_branch_key(place));
        ControlFlow::Continue(())
    })?;
    places.into_iter().collect()
}

impl Ledger<'_> {
    /// Tells which devices a person has, if that is not known here: one entry for each grant of the person by which a device
    /// of it gets a right that it lacks, or loses one. Returns how many entries were written.
    ///
    /// Nothing is written by who is none of the devices. Cost: a look at each different piece of evidence that was told before, and a
    /// check of those that tell more.
    ///
    /// # Errors
    /// [`Error::PersonSize`] when all that is known does not fit into an entry, and as [`Ledger::commit`].
    pub fn embed(&mut self, author: &Author<'_>, evidence: &Evidence) -> Result<u32, Error> {
        let (mut written, mut failed) = (0, None);
        let numbers = self.view().grant_numbers(&subject_key(&Subject::Person(evidence.person)))?;
        for used in &numbers {
            match self.embed_with(author, evidence, *used, &numbers) {
                Ok(true) => written += 1,
                Ok(false) => {}
                Err(error @ Error::Storage(_)) => return Err(error),
                // Another grant of the same person may well be told.
                Err(error) => failed = Some(error),
            }
        }
        if written > 0 {
            self.hand_out(author)?;
        }
        match failed {
            Some(error) if written == 0 => Err(error),
            _ => Ok(written),
        }
    }

    fn embed_with(
        &mut self,
        author: &Author<'_>,
        own: &Evidence,
        used: GrantNo,
        numbers: &[GrantNo],
    ) -> Result<bool, Error> {
        let grant = self.grant_row(used)?;
        if !grant.holds() || grant.depth >= limits::DELEGATION_DEPTH {
            return Ok(false);
        }
        // All that was told, with whichever grant.
        let (mut all, mut said, mut told) = (own.clone(), Vec::new(), Vec::new());
        for number in numbers {
            for (hash, known) in told_with(self.view(), *number)? {
                let places = told_at(self.view(), *number, &hash)?;
                if !known.entries.is_subset(&all.entries) {
                    let first = *places.first().ok_or_else(|| corrupt("a person's devices"))?;
                    all.join(held(self.view(), own.person, first)?)?;
                }
                if *number != used {
                    continue;
                }
                // It goes on counting if it does now, since the grant holds.
                let mut ends = false;
                for (branch, _) in places {
                    ends |= may_end(&known.devices, &self.branch(branch)?.log.device);
                }
                if ends {
                    told.push(known.entries.clone());
                }
                said.push(known.entries);
            }
        }
        // What somebody made too large by what he told is told in parts: any two are held against each other anyway.
        if all.check_size().is_err() {
            all = own.clone();
        }
        let (here, barred) = self.passed_on(used)?;
        let due = |role: Role| role.min(grant.role);
        let lost = here
            .iter()
            .any(|(device, role)| all.devices.get(device).is_none_or(|shown| due(*shown) < *role));
        let mut ops = vec![MemberOp::Embed { evidence: all.encode() }];
        for (device, shown) in &all.devices {
            let role = due(*shown);
            if here.get(device) != Some(&role) && !barred.contains(device) {
                let (subject, priority) = (Subject::Device(*device), grant.priority);
                let terms = TicketTerms::default();
                ops.push(MemberOp::Grant { subject, role, priority, terms });
            }
        }
        ops.truncate(limits::GRANT_OPS);
        // Who was put out may have been a device that is not known here.
        let heard = |id: &EntryId| told.iter().any(|entries| entries.contains(id));
        let unheard = lost || all.revocations().any(|id| !heard(&id));
        let device = author.key.node_id();
        // Said once more, what was said changes nothing, or it would be said for ever.
        let grants = ops.len() > 1 && !said.contains(&all.entries);
        let ends = unheard && may_end(&all.devices, &device) && !told.contains(&all.entries);
        if !(grants || ends) || !all.devices.contains_key(&device) {
            return Ok(false);
        }
        all.check_size()?;
        let log = self.own_log(author)?;
        self.sign_before(author, &log, &grant)?;
        let payloads = vec![(StoreId::members(), Payload::Present(encode_members(&ops)))];
        // At once: an entry that only gathers tips may not use the grant of a person.
        self.chain(author, log, membership::reference(&grant), payloads)?;
        Ok(true)
    }

    /// The strongest role of each device among the grants that hold and were made with this one, and the devices that were put out
    /// by hand or left.
    fn passed_on(&mut self, used: GrantNo) -> Result<(Devices, BTreeSet<NodeId>), StorageError> {
        let (mut devices, mut barred) = (Devices::new(), BTreeSet::new());
        for number in self.view().grant_numbers(&membership::made_with(used))? {
            let row = self.grant_row(number)?;
            let Subject::Device(device) = row.subject else { continue };
            if row.holds() {
                let role = devices.entry(device).or_insert(row.role);
                *role = row.role.max(*role);
            } else if row.counts && self.is_revoked_by_hand(number)? {
                barred.insert(device);
            }
        }
        Ok((devices, barred))
    }
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
    /// Cost: some look-ups if there is no such grant, else a comparison for each different piece of evidence that was told before, and
    /// a check of those of which neither holds the other.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub fn role_by(
        &self,
        device: &NodeId,
        evidence: &Evidence,
    ) -> Result<Option<Role>, StorageError> {
        let mut strongest = None;
        let subject = subject_key(&Subject::Person(evidence.person));
        let (numbers, shown) = (self.grant_numbers(&subject)?, evidence.known());
        for number in &numbers {
            let grant = self.grant(*number)?;
            if grant.holds() {
                let role = evidence.devices.get(device).map(|role| grant.role.min(*role));
                strongest = strongest.max(role);
            }
        }
        // What was told with any grant to that person, also one that was ended, is known here.
        for number in numbers {
            if strongest.is_none() {
                break;
            }
            for (hash, known) in told_with(*self, number)? {
                let together = shown.with(&known, &evidence.person, || {
                    let places = told_at(*self, number, &hash)?;
                    let first = *places.first().ok_or_else(|| corrupt("a person's devices"))?;
                    Ok([evidence.runs.clone(), held(*self, evidence.person, first)?.runs])
                })?;
                strongest = strongest.min(together.get(device).copied());
            }
        }
        Ok(strongest)
    }
}

/// What the entry at that place embeds.
fn held(view: View<'_>, person: DatabaseId, place: Place) -> Result<Evidence, StorageError> {
    let members = cells::store_number(view.tx, &StoreId::members())?;
    let row = view.entry_row(place.0, place.1)?;
    let payload = row.body.payloads.iter().find(|(store, _)| Some(*store) == members);
    let ops = payload.and_then(|(_, payload)| payload.bytes()).map(crate::ops::decode_members);
    let evidence = embedded(person, &ops.map(|decoded| decoded.ops).unwrap_or_default());
    evidence.ok_or_else(|| corrupt("a person's devices"))
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
