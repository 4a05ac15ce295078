//! Who may: grants, kept as derived rows, judged for each entry by that entry's own past alone, so that the verdict never
//! changes (I4). Also who may read now, which governs what is sent.

pub(crate) mod standing;
pub(crate) mod stints;

use crate::entry::{Entry, GrantRef, Header, StoreId, StoreKind, Timestamp};
use crate::error::{Error, Refusal, corrupt};
use crate::head::Head;
use crate::id::{EntryId, NodeId, Position, Seq};
use crate::ledger::{Ledger, fresh};
use crate::limits;
use crate::ops::{
    Cut, Decoded, MemberOp, Role, Subject, TicketTerms, decode_members, encode_members, members_of,
    redemption_holds,
};
use crate::past::{self, Sought};
use crate::person;
use crate::rows::{
    BranchNo, GrantNo, GrantRow, RevocationRow, Row, StoreNo, TICKETS, grant_id_key, key32, last4,
    membership_key, subject_key,
};
use crate::sabotage::{self, Bug};
use crate::storage::{ReadTx, StorageError, Table};
use crate::view::View;
use std::collections::BTreeMap;

/// A grant, as shown to people and used by writers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Its name.
    pub id: GrantRef,
    /// Whom it is for.
    pub subject: Subject,
    /// What it allows.
    pub role: Role,
    /// Rank; 0 is the highest.
    pub priority: u32,
    /// How many grants lie between it and the first admin's.
    pub depth: u32,
    /// For tickets.
    pub terms: TicketTerms,
    /// The device that made it.
    pub by: NodeId,
    /// The grant it was made with; its own in genesis.
    pub used: GrantRef,
    /// Whether it counts, and nothing that counts has ended it.
    pub holds: bool,
}

impl Grant {
    /// Whether an admin with this grant may revoke `other`.
    #[must_use]
    pub fn outranks(&self, other: &Self) -> bool {
        let rank = |grant: &Self| (grant.priority, grant.depth, grant.id);
        rank(self) < rank(other)
    }
}

/// A revocation, as shown to people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// Where the entry is that made it.
    pub position: Position,
    /// The grant it ends.
    pub grant: GrantRef,
    /// The device that made it.
    pub by: NodeId,
    /// Whether it counts.
    pub counts: bool,
}

/// Records what an admitted entry grants and revokes.
pub(crate) fn apply(
    ledger: &mut Ledger<'_>,
    entry: &Entry,
    branch: BranchNo,
    store: StoreNo,
    payload: &[u8],
    counts: bool,
) -> Result<(), StorageError> {
    let Decoded { ops, unknown } = decode_members(payload);
    if unknown && counts {
        ledger.store(store)?.needs_newer = true;
    }
    let genesis = entry.header().salt.is_some();
    let used_number = if genesis {
        1
    } else {
        ledger.grant(&entry.header().grant)?.map_or(0, |(number, _)| number)
    };
    let used = if genesis { None } else { Some(ledger.grant_row(used_number)?) };
    for (index, op) in ops.iter().enumerate() {
        let Some(op) = op else { continue };
        let depth = used.as_ref().map_or(0, |u| u.depth.saturating_add(1));
        let (subject, role, priority, terms) = match (op, &used) {
            (MemberOp::Grant { subject, role, priority, terms }, _) => {
                (*subject, *role, *priority, *terms)
            }
            (MemberOp::Redeem { .. }, Some(ticket)) => (
                Subject::Device(entry.header().log.device),
                ticket.role,
                ticket.priority,
                TicketTerms::default(),
            ),
            (MemberOp::Revoke { grant, cut }, Some(_)) => {
                let place = (branch, index as u32);
                revoke(ledger, entry, place, used_number, (grant, cut), counts)?;
                continue;
            }
            (MemberOp::Redeem { .. } | MemberOp::Revoke { .. }, None)
            | (MemberOp::Embed { .. }, _) => continue,
        };
        let row = GrantRow {
            entry: entry.id(),
            index: index as u32,
            branch,
            seq: entry.header().seq,
            generation: entry.header().generation,
            subject,
            role,
            priority,
            depth,
            used: used_number,
            terms,
            counts,
            revocations: 0,
            ended: 0,
        };
        record(ledger, &row)?;
        if counts {
            sum(ledger, true, (&row.entry, row.index), op)?;
        }
    }
    if let Some(GrantRow { subject: Subject::Person(person), .. }) = used {
        let place = (branch, entry.header().seq);
        person::apply(ledger, place, (used_number, person), &ops)?;
    }
    Ok(())
}

fn record(ledger: &mut Ledger<'_>, row: &GrantRow) -> Result<(), StorageError> {
    ledger.forget_strongest();
    ledger.counters.grants += 1;
    let number = key32(ledger.counters.grants);
    fresh(&*ledger.tx, Table::Grant, &number)?;
    row.put(ledger.tx, &number)?;
    ledger.tx.put(Table::GrantById, &grant_id_key(&row.entry, row.index), &number)?;
    let by_subject = [&subject_key(&row.subject)[..], &number].concat();
    ledger.tx.put(Table::GrantBySubject, &by_subject, &[])?;
    ledger.tx.put(Table::GrantBySubject, &[&made_with(row.used)[..], &number].concat(), &[])
}

/// Grants made with a grant are listed under this in [`Table::GrantBySubject`], each with its number.
pub(crate) fn made_with(grant: GrantNo) -> Vec<u8> {
    [&[3][..], &key32(grant)].concat()
}

/// Records that an entry ends a grant, and judges that again.
fn revoke(
    ledger: &mut Ledger<'_>,
    entry: &Entry,
    (branch, index): (BranchNo, u32),
    used: GrantNo,
    (grant, cut): (&GrantRef, &Cut),
    needed: bool,
) -> Result<(), StorageError> {
    let (target, row) = ledger.grant(grant)?.ok_or_else(|| corrupt("a grant"))?;
    let Header { seq, generation, .. } = *entry.header();
    let left = match cut {
        Cut::Past => left_by_past(ledger, (branch, seq), target, row.generation)?,
        Cut::Tips(tips) => left_by_tips(ledger, tips)?,
    };
    let entry = entry.id();
    let counts = false;
    end(
        ledger,
        RevocationRow { entry, index, branch, seq, generation, used, target, counts },
        &left,
    )?;
    if needed {
        left.into_iter().try_for_each(|place| ledger.need_listed(place))?;
    }
    Ok(())
}

/// Records that a grant is ended by what an entry embeds.
pub(crate) fn end_by_evidence(
    ledger: &mut Ledger<'_>,
    (entry, generation, place): (EntryId, u64, past::Place),
    used: GrantNo,
    target: GrantNo,
) -> Result<(), StorageError> {
    let floor = ledger.grant_row(target)?.generation;
    let left = left_by_past(ledger, place, target, floor)?;
    let (branch, seq) = place;
    let (index, counts) = (RevocationRow::TOLD, false);
    let revocation = RevocationRow { entry, index, branch, seq, generation, used, target, counts };
    end(ledger, revocation, &left)
}

/// Records a revocation that leaves so much, and judges the grant again.
fn end(
    ledger: &mut Ledger<'_>,
    revocation: RevocationRow,
    left: &BTreeMap<BranchNo, Seq>,
) -> Result<(), StorageError> {
    let RevocationRow { branch, seq, used, target, .. } = revocation;
    ledger.counters.revocations += 1;
    let number = ledger.counters.revocations;
    let key = membership_key::revocation(number);
    fresh(&*ledger.tx, Table::Membership, &key)?;
    revocation.put(ledger.tx, &key)?;
    let lists = [
        membership_key::against(target),
        membership_key::made_with(used),
        membership_key::made_at(branch, seq),
    ];
    for list in lists {
        ledger.tx.put(Table::Membership, &[&list[..], &key32(number)].concat(), &[])?;
    }
    let mut row = ledger.grant_row(target)?;
    row.revocations += 1;
    ledger.put_grant(target, row)?;
    for (&branch, &seq) in left {
        let key = membership_key::left(number, branch);
        ledger.tx.put(Table::Membership, &key, &seq.to_be_bytes())?;
    }
    ledger.judge_again(target)
}

/// What a revocation at `place` has in its past of the logs that use the grant, and its own log up to itself.
fn left_by_past(
    ledger: &mut Ledger<'_>,
    place: past::Place,
    target: GrantNo,
    floor: u64,
) -> Result<BTreeMap<BranchNo, Seq>, StorageError> {
    let mut wanted = BTreeMap::new();
    for (branch, _) in stints::of_grant(&*ledger.tx, target)? {
        wanted.insert(branch, ledger.branch(branch)?.tip.seq);
    }
    if wanted.is_empty() {
        return Ok(wanted);
    }
    past::reach(ledger, &[place], &wanted, floor)
}

fn left_by_tips(
    ledger: &mut Ledger<'_>,
    tips: &[Head],
) -> Result<BTreeMap<BranchNo, Seq>, StorageError> {
    let mut left: BTreeMap<BranchNo, Seq> = BTreeMap::new();
    for tip in tips {
        let found = ledger.find(&tip.position)?.ok_or_else(|| corrupt("a cut"))?;
        let mut next = Some((found, tip.position.seq));
        while let Some((branch, seq)) = next {
            let highest = left.entry(branch).or_insert(seq);
            *highest = seq.max(*highest);
            next = ledger.branch(branch)?.base;
        }
    }
    Ok(left)
}

/// Adds what an entry granted or revoked to the digest of the members, or takes it away.
fn sum(
    ledger: &mut Ledger<'_>,
    add: bool,
    (entry, index): (&EntryId, u32),
    op: &MemberOp,
) -> Result<(), StorageError> {
    let mut hasher = blake3::Hasher::new_derive_key("anabranch 1 grant");
    hasher.update(&entry.0);
    hasher.update(&index.to_be_bytes());
    hasher.update(&encode_members(std::slice::from_ref(op)));
    let store = ledger.store_number(&StoreId::members())?;
    let store = ledger.store(store)?;
    if add {
        store.sum.add(&hasher);
        store.live += 1;
    } else {
        store.sum.remove(&hasher);
        store.live = store.live.saturating_sub(1);
    }
    Ok(())
}

/// A grant counts now, or does not any more.
fn sum_grant(ledger: &mut Ledger<'_>, row: &GrantRow) -> Result<(), StorageError> {
    sum_again(ledger, row.counts, (row.branch, row.seq), row.index)
}

/// A revocation counts now, or does not any more.
fn sum_revocation(ledger: &mut Ledger<'_>, row: &RevocationRow) -> Result<(), StorageError> {
    // What is told ends grants depending on what others told, so it is no part of the sum.
    if row.is_told() {
        return Ok(());
    }
    sum_again(ledger, row.counts, (row.branch, row.seq), row.index)
}

fn sum_again(
    ledger: &mut Ledger<'_>,
    add: bool,
    (branch, seq): past::Place,
    index: u32,
) -> Result<(), StorageError> {
    let members = ledger.store_number(&StoreId::members())?;
    let row = ledger.view().entry_row(branch, seq)?;
    let payload = row.body.payloads.iter().find(|(store, _)| *store == members);
    let ops =
        payload.and_then(|(_, payload)| payload.bytes()).map(|bytes| decode_members(bytes).ops);
    match ops.and_then(|ops| ops.into_iter().nth(index as usize).flatten()) {
        Some(op) => sum(ledger, add, (&row.id, index), &op),
        None => Err(corrupt("a grant")),
    }
}

pub(crate) fn number_of(
    tx: &dyn ReadTx,
    grant: &GrantRef,
) -> Result<Option<GrantNo>, StorageError> {
    tx.get(Table::GrantById, &grant_id_key(&grant.entry, grant.index))?
        .map(|number| last4(&number))
        .transpose()
}

/// Judges a genesis entry: it must name its own device as the first admin.
pub(crate) fn check_genesis(entry: &Entry) -> Result<(), Refusal> {
    let first = members_of(entry).and_then(|decoded| decoded.ops.into_iter().next().flatten());
    match first {
        Some(MemberOp::Grant { subject: Subject::Device(device), role: Role::Admin, .. })
            if device == entry.header().log.device =>
        {
            Ok(())
        }
        _ => Err(Refusal::Genesis),
    }
}

/// What is known of the entry before the one that is judged.
#[derive(Default)]
pub(crate) struct Before {
    /// The grant it used: what it could use, the next one can.
    pub(crate) grant: Option<GrantRef>,
    /// Whether it changed who may do what.
    pub(crate) members: bool,
}

/// Judges an entry by its own past. `below` are the places it builds on directly.
pub(crate) fn check(
    ledger: &mut Ledger<'_>,
    entry: &Entry,
    below: &[past::Place],
    before: &Before,
) -> Result<(), Error> {
    let header = entry.header();
    let (log, seq) = (header.log, header.seq);
    let (number, grant) = ledger.grant(&header.grant)?.ok_or(Refusal::Grant { log, seq })?;
    if sabotage::is(Bug::GrantUnchecked) {
        return Ok(());
    }
    // First what needs no search, so that nobody can have one made with a grant that is of no use to him.
    check_use(ledger, entry, &grant)?;
    let goes_on = before.grant == Some(header.grant);
    if !goes_on && !past::sees(ledger, below, Sought::grant(number, &grant))? {
        return Err(Refusal::Grant { log, seq }.into());
    }
    for target in revoked_by(entry) {
        let (number, row) = ledger.grant(&target)?.ok_or(Refusal::Target { log, seq })?;
        if !past::sees(ledger, below, Sought::grant(number, &row))? {
            return Err(Refusal::Target { log, seq }.into());
        }
    }
    let learnt = before.members || !header.parents.is_empty();
    if (learnt || !goes_on) && !ledger.holds_below(below, number)? {
        return Err(Refusal::Revoked { log, seq }.into());
    }
    Ok(())
}

/// As [`check`] for an entry made here, whose grant was looked up among those in its past.
pub(crate) fn check_right(
    ledger: &mut Ledger<'_>,
    entry: &Entry,
    below: &[past::Place],
) -> Result<(), Error> {
    let Header { log, seq, grant, .. } = *entry.header();
    let (number, grant) = ledger.grant(&grant)?.ok_or(Refusal::Grant { log, seq })?;
    check_use(ledger, entry, &grant)?;
    if ledger.holds_below(below, number)? {
        Ok(())
    } else {
        Err(Refusal::Revoked { log, seq }.into())
    }
}

/// The grants that an entry revokes.
fn revoked_by(entry: &Entry) -> Vec<GrantRef> {
    let ops = members_of(entry).map(|decoded| decoded.ops).unwrap_or_default();
    let revoked = |op| match op {
        MemberOp::Revoke { grant, .. } => Some(grant),
        _ => None,
    };
    ops.into_iter().flatten().filter_map(revoked).collect()
}

/// The places that cuts of an entry list.
pub(crate) fn listed_by(entry: &Entry) -> Vec<Head> {
    // Genesis revokes nothing: no grant is below it.
    let ops = members_of(entry).filter(|_| entry.header().salt.is_none());
    let listed = |op| match op {
        MemberOp::Revoke { cut: Cut::Tips(tips), .. } => Some(tips),
        _ => None,
    };
    ops.map(|decoded| decoded.ops)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(listed)
        .flatten()
        .collect()
}

/// Whether an entry does nothing but give the grant up that it uses.
pub(crate) fn resigns(entry: &Entry) -> bool {
    let ops = members_of(entry).map(|decoded| decoded.ops).unwrap_or_default();
    let own = entry.header().grant;
    entry.payloads().count() == 1
        && matches!(&ops[..], [Some(MemberOp::Revoke { grant, cut: Cut::Past })] if *grant == own)
}

fn check_use(ledger: &mut Ledger<'_>, entry: &Entry, grant: &GrantRow) -> Result<(), Error> {
    let Header { log, seq, .. } = *entry.header();
    match grant.subject {
        Subject::Ticket(key) => Ok(check_redemption(entry, grant, &key)?),
        Subject::Person(person) => Ok(person::check(entry, grant, person)?),
        Subject::Device(device) if device != log.device => Err(Refusal::Grant { log, seq }.into()),
        Subject::Device(_) if resigns(entry) => Ok(()),
        Subject::Device(_) | Subject::Anyone => check_ops(ledger, entry, grant),
    }
}

/// A ticket's grant serves one purpose: an entry that is nothing but a redemption with the ticket's signature.
fn check_redemption(entry: &Entry, grant: &GrantRow, key: &NodeId) -> Result<(), Refusal> {
    let Header { log, seq, .. } = *entry.header();
    let ops = members_of(entry).map(|decoded| decoded.ops).unwrap_or_default();
    let alone = entry.payloads().count() == 1 && ops.len() == 1;
    match ops.first() {
        Some(Some(MemberOp::Redeem { signature }))
            if alone && redemption_holds(entry, key, signature) =>
        {
            check_depth(entry, grant)
        }
        _ => Err(Refusal::Grant { log, seq }),
    }
}

/// Whether a grant may be handed on.
fn check_depth(entry: &Entry, grant: &GrantRow) -> Result<(), Refusal> {
    let Header { log, seq, .. } = *entry.header();
    if grant.depth < limits::DELEGATION_DEPTH { Ok(()) } else { Err(Refusal::Depth { log, seq }) }
}

fn check_ops(ledger: &mut Ledger<'_>, entry: &Entry, grant: &GrantRow) -> Result<(), Error> {
    let Header { log, seq, .. } = *entry.header();
    let members = entry.payloads().any(|(store, _)| store.kind == StoreKind::MEMBERS);
    let role = if members { Role::Admin } else { Role::Write };
    if grant.role < role {
        return Err(Refusal::NotPermitted { log, seq, role }.into());
    }
    for op in members_of(entry).map(|decoded| decoded.ops).unwrap_or_default().into_iter().flatten()
    {
        match op {
            MemberOp::Grant { priority, .. } if priority < grant.priority => {
                return Err(Refusal::Priority { log, seq }.into());
            }
            MemberOp::Grant { .. } => check_depth(entry, grant)?,
            // That is what the grants of tickets and people are for, and nothing else.
            MemberOp::Redeem { .. } | MemberOp::Embed { .. } => {
                return Err(Refusal::Grant { log, seq }.into());
            }
            MemberOp::Revoke { grant: target, .. } => {
                let (_, target) = ledger.grant(&target)?.ok_or(Refusal::Target { log, seq })?;
                if grant.rank() >= target.rank() && !sabotage::is(Bug::RankIgnored) {
                    return Err(Refusal::Rank { log, seq }.into());
                }
            }
        }
    }
    Ok(())
}

impl View<'_> {
    fn grants_of(&self, subject: &Subject) -> Result<Vec<GrantRow>, StorageError> {
        self.grants_listed(&subject_key(subject))
    }

    fn grants_listed(&self, prefix: &[u8]) -> Result<Vec<GrantRow>, StorageError> {
        self.grant_numbers(prefix)?.into_iter().map(|number| self.grant(number)).collect()
    }

    pub(crate) fn grant_numbers(&self, prefix: &[u8]) -> Result<Vec<GrantNo>, StorageError> {
        standing::listed(self.tx, Table::GrantBySubject, prefix)
    }

    pub(crate) fn strongest(&self, device: &NodeId) -> Result<Option<GrantRow>, StorageError> {
        let mut grants = self.grants_of(&Subject::Device(*device))?;
        grants.extend(self.grants_of(&Subject::Anyone)?);
        grants.retain(|grant| {
            let outlives = grant.subject == Subject::Anyone && sabotage::is(Bug::WildcardOutlives);
            grant.holds() || outlives || sabotage::is(Bug::RevokedStillReads)
        });
        // Highest role, then highest rank: low priority number, small depth, low id.
        Ok(grants
            .into_iter()
            .min_by_key(|g| (std::cmp::Reverse(g.role), g.priority, g.depth, g.entry, g.index)))
    }

    /// What `device` may do, if anything.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn role_of(&self, device: &NodeId) -> Result<Option<Role>, StorageError> {
        Ok(self.strongest(device)?.map(|g| g.role))
    }

    /// Whether anything was ever granted to `device` by name.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn was_member(&self, device: &NodeId) -> Result<bool, StorageError> {
        Ok(!self.grants_of(&Subject::Device(*device))?.is_empty())
    }

    /// Whether a grant to `device` by name holds.
    pub(crate) fn is_named(&self, device: &NodeId) -> Result<bool, StorageError> {
        Ok(self.grants_of(&Subject::Device(*device))?.iter().any(GrantRow::holds))
    }

    /// The grant of the ticket with this public key.
    pub(crate) fn ticket_grant(&self, key: &NodeId) -> Result<Option<GrantRow>, StorageError> {
        let mut grants = self.grants_of(&Subject::Ticket(*key))?;
        // One that holds, if there is one.
        grants.sort_by_key(|grant| !grant.holds());
        Ok(grants.into_iter().next())
    }

    /// Whether a ticket may (still) be used by `device` at `now`: what a serving node asks before it sends anything.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn ticket_state(
        &self,
        key: &NodeId,
        device: &NodeId,
        now: Timestamp,
    ) -> Result<TicketState, StorageError> {
        let Some(ticket) = self.ticket_grant(key)? else {
            return Ok(TicketState::Unknown);
        };
        let devices = self.redeemed(&ticket)?;
        match devices.get(device) {
            Some(true) if ticket.holds() => return Ok(TicketState::Redeemed),
            // It was let in by this ticket and put out again.
            Some(_) => return Ok(TicketState::Revoked),
            None => {}
        }
        // One that was closed for that reason says so.
        if let Some(over) = over(&ticket, devices.len(), now) {
            return Ok(over);
        }
        Ok(if ticket.holds() { TicketState::Open } else { TicketState::Revoked })
    }

    /// The devices that redeemed a ticket, and whether what they got by it holds.
    fn redeemed(&self, ticket: &GrantRow) -> Result<BTreeMap<NodeId, bool>, StorageError> {
        let number = number_of(self.tx, &reference(ticket))?;
        let mut devices: BTreeMap<NodeId, bool> = BTreeMap::new();
        for grant in self.grants_listed(&made_with(number.unwrap_or(0)))? {
            if let Subject::Device(device) = grant.subject {
                *devices.entry(device).or_default() |= grant.holds();
            }
        }
        Ok(devices)
    }

    /// The grants of tickets that hold although nobody is to come in by them any more: as many devices as they allow have, or their
    /// time is over. Cost: a step a ticket there ever was, and a step a device that redeemed one with a limit.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn tickets_over(&self, now: Timestamp) -> Result<Vec<Grant>, StorageError> {
        let mut grants = Vec::new();
        for row in self.grants_listed(&TICKETS)? {
            if !row.holds() || row.terms == TicketTerms::default() {
                continue;
            }
            let devices = match row.terms.limit {
                Some(_) => self.redeemed(&row)?.len(),
                None => 0,
            };
            if over(&row, devices, now).is_some() {
                grants.push(self.grant_shown(&row)?);
            }
        }
        Ok(grants)
    }

    /// How many grants and revocations there are: it grows with every change of the membership.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn membership_changes(&self) -> Result<u64, StorageError> {
        let counters = self.counters()?;
        Ok(u64::from(counters.grants) + u64::from(counters.revocations))
    }

    /// Every grant, in the order of arrival.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn grants(&self) -> Result<Vec<Grant>, StorageError> {
        (1..=self.counters()?.grants).map(|n| self.grant_shown(&self.grant(n)?)).collect()
    }

    /// The grant that `device` uses, if one holds.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn grant_of(&self, device: &NodeId) -> Result<Option<Grant>, StorageError> {
        self.strongest(device)?.map(|row| self.grant_shown(&row)).transpose()
    }

    fn grant_shown(&self, row: &GrantRow) -> Result<Grant, StorageError> {
        let used = if row.depth == 0 { reference(row) } else { reference(&self.grant(row.used)?) };
        Ok(Grant {
            id: reference(row),
            subject: row.subject,
            role: row.role,
            priority: row.priority,
            depth: row.depth,
            terms: row.terms,
            by: self.branch(row.branch)?.log.device,
            used,
            holds: row.holds(),
        })
    }

    /// Whether the entry that arrived under this number counts. Cost: some look-ups, if anything was ever revoked.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn counts(&self, arrival: u64, entry: &Entry) -> Result<bool, StorageError> {
        if entry.header().salt.is_some() || self.counters()?.revocations == 0 {
            return Ok(true);
        }
        let number =
            number_of(self.tx, &entry.header().grant)?.ok_or_else(|| corrupt("a grant"))?;
        let row = self.grant(number)?;
        if row.holds() {
            return Ok(true);
        }
        let place = self.place_of(arrival)?;
        standing::stored(self.tx, number, &row)?.leaves(self.tx, place, resigns(entry))
    }

    /// Whether entries that were there before ceased to count, or began to, with the one that arrived under this number.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn recounted(&self, arrival: u64) -> Result<bool, StorageError> {
        self.tx.has(Table::Membership, &membership_key::recounted(arrival))
    }

    /// Every revocation, in the order of arrival.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn revocations(&self) -> Result<Vec<Revocation>, StorageError> {
        (1..=self.counters()?.revocations)
            .map(|number| {
                let row = standing::revocation(self.tx, number)?;
                let log = self.branch(row.branch)?.log;
                Ok(Revocation {
                    position: Position { log, seq: row.seq, id: row.entry },
                    grant: reference(&self.grant(row.target)?),
                    by: log.device,
                    counts: row.counts,
                })
            })
            .collect()
    }
}

/// Why a ticket that so many devices have redeemed lets no more in.
fn over(ticket: &GrantRow, devices: usize, now: Timestamp) -> Option<TicketState> {
    if ticket.terms.expires.is_some_and(|end| now >= end) {
        return Some(TicketState::Expired);
    }
    let spent = ticket.terms.limit.is_some_and(|limit| devices >= limit as usize);
    spent.then_some(TicketState::Spent)
}

/// What a ticket is worth when it is presented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TicketState {
    /// It admits the device.
    Open,
    /// The device redeemed it before, so it still serves that device.
    Redeemed,
    /// Its time is over.
    Expired,
    /// As many devices as it allows have redeemed it.
    Spent,
    /// An admin closed it, or put the device out again that it had let in.
    Revoked,
    /// No grant for it is known here.
    Unknown,
}

impl TicketState {
    /// Whether entries may be sent on its strength.
    #[must_use]
    pub fn admits(self) -> bool {
        matches!(self, Self::Open | Self::Redeemed)
    }
}

/// Where the grant a writer uses stands, for the author of entries.
pub(crate) fn reference(row: &GrantRow) -> GrantRef {
    GrantRef { entry: row.entry, index: row.index }
}
