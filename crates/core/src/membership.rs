//! Who may: grants, kept as derived rows, judged for each entry by that entry's own past alone, so that the verdict never
//! changes (I4). Also who may read now, which governs what is sent.

use crate::entry::{Entry, GrantRef, Header, StoreKind, Timestamp};
use crate::error::{Error, Refusal};
use crate::id::{NodeId, Seq};
use crate::ledger::Ledger;
use crate::ops::{
    Decoded, MemberOp, Role, Subject, TicketTerms, decode_members, encode_members, members_of,
    redemption_holds,
};
use crate::past;
use crate::rows::{
    BranchNo, GrantNo, GrantRow, Row, StoreNo, grant_id_key, key32, last4, subject_key,
};
use crate::sabotage::{self, Bug};
use crate::storage::{Order, ReadTx, StorageError, Table};
use crate::view::View;
use std::ops::ControlFlow;

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
}

/// Records the grants that an admitted entry makes.
pub(crate) fn apply(
    ledger: &mut Ledger<'_>,
    entry: &Entry,
    branch: BranchNo,
    store: StoreNo,
    payload: &[u8],
) -> Result<(), StorageError> {
    let Decoded { ops, unknown } = decode_members(payload);
    if unknown {
        ledger.store(store)?.needs_newer = true;
    }
    let genesis = entry.header().salt.is_some();
    let used_number = if genesis {
        1
    } else {
        ledger.grant(&entry.header().grant)?.map_or(0, |(number, _)| number)
    };
    let used = if genesis { None } else { Some(ledger.view().grant(used_number)?) };
    for (index, op) in ops.into_iter().enumerate() {
        let Some(op) = op else { continue };
        let depth = used.as_ref().map_or(0, |u| u.depth.saturating_add(1));
        let (subject, role, priority, terms) = match (&op, &used) {
            (MemberOp::Grant { subject, role, priority, terms }, _) => {
                (*subject, *role, *priority, *terms)
            }
            (MemberOp::Redeem { .. }, Some(ticket)) => (
                Subject::Device(entry.header().log.device),
                ticket.role,
                ticket.priority,
                TicketTerms::default(),
            ),
            (MemberOp::Redeem { .. }, None) => continue,
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
        };
        record(ledger, &row)?;
        sum(ledger, store, &row, &op)?;
    }
    Ok(())
}

fn record(ledger: &mut Ledger<'_>, row: &GrantRow) -> Result<(), StorageError> {
    ledger.forget_strongest();
    ledger.counters.grants += 1;
    let number = key32(ledger.counters.grants);
    row.put(ledger.tx, &number)?;
    ledger.tx.put(Table::GrantById, &grant_id_key(&row.entry, row.index), &number)?;
    let by_subject = [&subject_key(&row.subject)[..], &number].concat();
    ledger.tx.put(Table::GrantBySubject, &by_subject, &[])?;
    let used_ticket = [&[3][..], &key32(row.used), &number].concat();
    ledger.tx.put(Table::GrantBySubject, &used_ticket, &[])
}

fn sum(
    ledger: &mut Ledger<'_>,
    store: StoreNo,
    row: &GrantRow,
    op: &MemberOp,
) -> Result<(), StorageError> {
    let mut hasher = blake3::Hasher::new_derive_key("anabranch 1 grant");
    hasher.update(&row.entry.0);
    hasher.update(&row.index.to_be_bytes());
    hasher.update(&encode_members(std::slice::from_ref(op)));
    let store = ledger.store(store)?;
    store.sum.add(&hasher);
    store.live += 1;
    Ok(())
}

pub(crate) fn number_of(
    tx: &dyn ReadTx,
    grant: &GrantRef,
) -> Result<Option<GrantNo>, StorageError> {
    tx.get(Table::GrantById, &grant_id_key(&grant.entry, grant.index))?
        .map(|number| last4(&number))
        .transpose()
}

/// What an entry needs its grant to allow.
fn needed_role(entry: &Entry) -> Role {
    let members = entry.payloads().any(|(store, _)| store.kind == StoreKind::MEMBERS);
    if members { Role::Admin } else { Role::Write }
}

/// Judges a genesis entry: it must name its own device as the first admin, with the highest rank.
pub(crate) fn check_genesis(entry: &Entry) -> Result<(), Refusal> {
    let first = members_of(entry).and_then(|decoded| decoded.ops.into_iter().next().flatten());
    match first {
        Some(MemberOp::Grant {
            subject: Subject::Device(device),
            role: Role::Admin,
            priority: 0,
            ..
        }) if device == entry.header().log.device => Ok(()),
        _ => Err(Refusal::Genesis),
    }
}

/// Judges an entry by its own past. `below` are the places it builds on directly, `prev_grant` the grant that the entry
/// before it in its log used: what that one could use, this one can.
pub(crate) fn check(
    ledger: &mut Ledger<'_>,
    entry: &Entry,
    below: &[(BranchNo, Seq)],
    prev_grant: Option<GrantRef>,
) -> Result<(), Error> {
    let header = entry.header();
    let (log, seq) = (header.log, header.seq);
    let (number, grant) = ledger.grant(&header.grant)?.ok_or(Refusal::Grant { log, seq })?;
    if sabotage::is(Bug::GrantUnchecked) {
        return Ok(());
    }
    // First what needs no search, so that nobody can have one made with a grant that is of no use to him.
    check_use(entry, &grant)?;
    if prev_grant != Some(header.grant) && !past::sees(ledger, below, number, &grant)? {
        return Err(Refusal::Grant { log, seq }.into());
    }
    Ok(())
}

/// As [`check`] for an entry made here, whose grant was looked up among those in its past.
pub(crate) fn check_right(ledger: &mut Ledger<'_>, entry: &Entry) -> Result<(), Error> {
    let Header { log, seq, grant, .. } = *entry.header();
    let (_, grant) = ledger.grant(&grant)?.ok_or(Refusal::Grant { log, seq })?;
    Ok(check_use(entry, &grant)?)
}

fn check_use(entry: &Entry, grant: &GrantRow) -> Result<(), Refusal> {
    let Header { log, seq, .. } = *entry.header();
    match grant.subject {
        Subject::Ticket(key) => check_redemption(entry, &key),
        Subject::Device(device) if device != log.device => Err(Refusal::Grant { log, seq }),
        Subject::Device(_) | Subject::Anyone => check_ops(entry, grant),
    }
}

/// A ticket's grant serves one purpose: an entry that is nothing but a redemption with the ticket's signature.
fn check_redemption(entry: &Entry, key: &NodeId) -> Result<(), Refusal> {
    let header = entry.header();
    let ops = members_of(entry).map(|decoded| decoded.ops).unwrap_or_default();
    let alone = entry.payloads().count() == 1 && ops.len() == 1;
    match ops.first() {
        Some(Some(MemberOp::Redeem { signature }))
            if alone && redemption_holds(entry, key, signature) =>
        {
            Ok(())
        }
        _ => Err(Refusal::Grant { log: header.log, seq: header.seq }),
    }
}

fn check_ops(entry: &Entry, grant: &GrantRow) -> Result<(), Refusal> {
    let (log, seq) = (entry.header().log, entry.header().seq);
    let role = needed_role(entry);
    if grant.role < role {
        return Err(Refusal::NotPermitted { log, seq, role });
    }
    for op in members_of(entry).map(|decoded| decoded.ops).unwrap_or_default().into_iter().flatten()
    {
        match op {
            MemberOp::Grant { priority, .. } if priority < grant.priority => {
                return Err(Refusal::Priority { log, seq });
            }
            MemberOp::Grant { .. } => {}
            // Redeeming is what a ticket's grant is for, and nothing else.
            MemberOp::Redeem { .. } => return Err(Refusal::Grant { log, seq }),
        }
    }
    Ok(())
}

impl View<'_> {
    fn grants_of(&self, subject: &Subject) -> Result<Vec<GrantRow>, StorageError> {
        self.grants_listed(&subject_key(subject))
    }

    fn grants_listed(&self, prefix: &[u8]) -> Result<Vec<GrantRow>, StorageError> {
        let mut numbers = Vec::new();
        self.tx.scan(Table::GrantBySubject, prefix, None, Order::Ascending, &mut |key, _| {
            if !key.starts_with(prefix) {
                return ControlFlow::Break(());
            }
            numbers.push(last4(key));
            ControlFlow::Continue(())
        })?;
        numbers.into_iter().map(|n| self.grant(n?)).collect()
    }

    pub(crate) fn strongest(&self, device: &NodeId) -> Result<Option<GrantRow>, StorageError> {
        let mut grants = self.grants_of(&Subject::Device(*device))?;
        grants.extend(self.grants_of(&Subject::Anyone)?);
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

    /// The grant of the ticket with this public key.
    pub(crate) fn ticket_grant(&self, key: &NodeId) -> Result<Option<GrantRow>, StorageError> {
        Ok(self.grants_of(&Subject::Ticket(*key))?.into_iter().next())
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
        let number = number_of(self.tx, &GrantRef { entry: ticket.entry, index: ticket.index })?;
        let redeemed = self.grants_listed(&[&[3][..], &key32(number.unwrap_or(0))].concat())?;
        let mut devices: Vec<NodeId> = redeemed
            .into_iter()
            .filter_map(|g| match g.subject {
                Subject::Device(device) => Some(device),
                _ => None,
            })
            .collect();
        devices.sort_unstable();
        devices.dedup();
        if devices.contains(device) {
            return Ok(TicketState::Redeemed);
        }
        if ticket.terms.expires.is_some_and(|end| now >= end) {
            return Ok(TicketState::Expired);
        }
        if ticket.terms.limit.is_some_and(|limit| devices.len() >= limit as usize) {
            return Ok(TicketState::Spent);
        }
        Ok(TicketState::Open)
    }

    /// Every grant, in the order of arrival.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn grants(&self) -> Result<Vec<Grant>, StorageError> {
        (1..=self.counters()?.grants)
            .map(|n| {
                let row = self.grant(n)?;
                let by = self.branch(row.branch)?.log.device;
                Ok(Grant {
                    id: GrantRef { entry: row.entry, index: row.index },
                    subject: row.subject,
                    role: row.role,
                    priority: row.priority,
                    depth: row.depth,
                    terms: row.terms,
                    by,
                })
            })
            .collect()
    }
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
