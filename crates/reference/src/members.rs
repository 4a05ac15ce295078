//! Who may, by brute force: which entries count, and what follows from that for the frontier.

use crate::{below, past};
use anabranch_core::entry::{Entry, GrantRef, StoreKind};
use anabranch_core::id::{DatabaseId, EntryId};
use anabranch_core::limits::DELEGATION_DEPTH;
use anabranch_core::ops::{Cut, MemberOp, Role, Subject, members_of, redemption_holds};
use std::collections::{BTreeMap, BTreeSet};

type Entries<'e> = BTreeMap<EntryId, &'e Entry>;
/// Smaller is higher.
type Rank = (u32, u32, GrantRef);

/// Why an entry is not admissible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A parent is in the entry's own log.
    OwnParent,
    /// The generation is not one more than the highest below.
    Generation,
    /// The grant is not there, not in the past, or somebody else's.
    Grant,
    /// The role does not suffice.
    NotPermitted,
    /// A new grant has a higher priority than the one used.
    Priority,
    /// A new grant is too far from the first one.
    Depth,
    /// What is revoked is not there, or not in the past.
    Target,
    /// What is revoked ranks too high.
    Rank,
    /// The grant does not count any more, as far as the entry's past tells.
    Revoked,
}

/// A grant and what its entry says of it.
#[derive(Debug, Clone, Copy)]
struct Given {
    subject: Subject,
    role: Role,
    priority: u32,
    depth: u32,
}

/// Subject, role and rank of a grant.
fn grant(entries: &Entries<'_>, grant: &GrantRef) -> Option<Given> {
    let entry = *entries.get(&grant.entry)?;
    let above = || self::grant(entries, &entry.header().grant);
    let genesis = entry.header().salt.is_some();
    match members_of(entry)?.ops.into_iter().nth(grant.index as usize)?? {
        MemberOp::Grant { subject, role, priority, .. } => {
            let depth = if genesis { 0 } else { above()?.depth + 1 };
            Some(Given { subject, role, priority, depth })
        }
        MemberOp::Redeem { .. } => {
            let ticket = above()?;
            let subject = Subject::Device(entry.header().log.device);
            Some(Given { subject, depth: ticket.depth + 1, ..ticket })
        }
        MemberOp::Revoke { .. } => None,
    }
}

fn rank(entries: &Entries<'_>, of: GrantRef) -> Option<Rank> {
    let given = grant(entries, &of)?;
    Some((given.priority, given.depth, of))
}

fn ops(entry: &Entry) -> Vec<Option<MemberOp>> {
    members_of(entry).map(|decoded| decoded.ops).unwrap_or_default()
}

/// What a revocation by `entry` leaves.
fn kept(entries: &Entries<'_>, entry: &Entry, cut: &Cut) -> BTreeSet<EntryId> {
    match cut {
        Cut::Past => past(entries, [entry.id()]).into_keys().collect(),
        Cut::Tips(tips) => tips
            .iter()
            .flat_map(|tip| {
                let mut line = Vec::new();
                let mut next = Some(tip.position.id);
                while let Some(entry) = next.and_then(|id| entries.get(&id)) {
                    line.push(entry.id());
                    next = entry.header().prev;
                }
                line
            })
            .collect(),
    }
}

/// What ended a grant, as far as it counts.
struct Ended {
    by_holder: bool,
    kept: BTreeSet<EntryId>,
}

/// Whether a device gives its own grant up by `entry`, which then does nothing else.
fn resigns(entry: &Entry) -> bool {
    matches!(&ops(entry)[..], [Some(MemberOp::Revoke { grant, .. })] if *grant == entry.header().grant)
}

/// The entries that count, and the grants that still hold: count and were not revoked.
pub fn counted(entries: &Entries<'_>) -> (BTreeSet<EntryId>, BTreeSet<GrantRef>) {
    counted_in(entries, entries)
}

/// As [`counted`] if only `some` of `all` were there.
fn counted_in(all: &Entries<'_>, some: &Entries<'_>) -> (BTreeSet<EntryId>, BTreeSet<GrantRef>) {
    let genesis = |e: &Entry| e.header().salt.is_some();
    let mut grants: Vec<(Rank, &Entry)> = Vec::new();
    let mut revocations: BTreeMap<GrantRef, Vec<(&Entry, Cut)>> = BTreeMap::new();
    for &entry in some.values() {
        for (index, op) in ops(entry).into_iter().enumerate() {
            let this = GrantRef { entry: entry.id(), index: index as u32 };
            match op {
                Some(MemberOp::Revoke { grant, cut }) if !genesis(entry) => {
                    revocations.entry(grant).or_default().push((entry, cut));
                }
                _ => grants.extend(rank(all, this).map(|rank| (rank, entry))),
            }
        }
    }
    // From the highest rank down: what a grant depends on ranks higher.
    grants.sort_by_key(|(rank, _)| *rank);
    let mut ended: BTreeMap<GrantRef, Vec<Ended>> = BTreeMap::new();
    let mut good: BTreeSet<GrantRef> = BTreeSet::new();
    let counts = |e: &Entry, good: &BTreeSet<GrantRef>, ended: &BTreeMap<GrantRef, Vec<Ended>>| {
        genesis(e)
            || good.contains(&e.header().grant)
                && ended
                    .get(&e.header().grant)
                    .into_iter()
                    .flatten()
                    .all(|end| end.by_holder && resigns(e) || end.kept.contains(&e.id()))
    };
    for ((.., this), made_by) in &grants {
        if counts(made_by, &good, &ended) {
            good.insert(*this);
        }
        let aimed = revocations.get(this).into_iter().flatten();
        let (own, others): (Vec<_>, Vec<_>) = aimed.partition(|(e, _)| e.header().grant == *this);
        for (entry, cut) in others.into_iter().chain(own) {
            if counts(entry, &good, &ended) {
                let by_holder = entry.header().grant == *this;
                let kept = kept(all, entry, cut);
                ended.entry(*this).or_default().push(Ended { by_holder, kept });
            }
        }
    }
    let counting = some.values().filter(|e| counts(e, &good, &ended)).map(|e| e.id()).collect();
    good.retain(|grant| !ended.contains_key(grant));
    (counting, good)
}

/// What peers exchange: what counts, and what that builds on.
pub fn needed<'e>(entries: &Entries<'e>) -> Entries<'e> {
    let mut open: Vec<EntryId> = counted(entries).0.into_iter().collect();
    let mut found = BTreeMap::new();
    while let Some(id) = open.pop() {
        if let Some(&entry) = entries.get(&id)
            && found.insert(id, entry).is_none()
        {
            open.extend(below(entry));
            for op in ops(entry).into_iter().flatten() {
                if let MemberOp::Revoke { cut: Cut::Tips(tips), .. } = op {
                    open.extend(tips.iter().map(|tip| tip.position.id));
                }
            }
        }
    }
    found
}

/// What `device` may do, as things stand.
pub fn role(entries: &Entries<'_>, device: &anabranch_core::id::NodeId) -> Option<Role> {
    let good = counted(entries).1;
    let given = good.iter().filter_map(|name| grant(entries, name));
    given
        .filter(|g| g.subject == Subject::Device(*device) || g.subject == Subject::Anyone)
        .map(|g| g.role)
        .max()
}

/// Judges `entry` by its own past alone, all of which is in `entries`.
///
/// # Errors
/// The first [`Fault`] found.
pub fn judge(entries: &Entries<'_>, database: &DatabaseId, entry: &Entry) -> Result<(), Fault> {
    let header = entry.header();
    if header.parents.iter().any(|p| p.log == header.log) {
        return Err(Fault::OwnParent);
    }
    let past = past(entries, below(entry));
    let known = below(entry);
    let highest = known.iter().filter_map(|id| past.get(id)).map(|e| e.header().generation).max();
    if header.generation != 1 + highest.unwrap_or(0) {
        return Err(Fault::Generation);
    }
    if entry.id() == database.genesis() {
        return Ok(());
    }
    let used = grant(entries, &header.grant).ok_or(Fault::Grant)?;
    judge_use(entries, entry, used)?;
    if !past.contains_key(&header.grant.entry) {
        return Err(Fault::Grant);
    }
    for op in ops(entry).into_iter().flatten() {
        if let MemberOp::Revoke { grant, .. } = op
            && !past.contains_key(&grant.entry)
        {
            return Err(Fault::Target);
        }
    }
    // A cut may name what is not in the past, so what leads down to what is told by all that is held.
    let holds = counted_in(entries, &past).1.contains(&header.grant);
    if holds { Ok(()) } else { Err(Fault::Revoked) }
}

/// Whether a grant lets its user do this, wherever it was made.
fn judge_use(entries: &Entries<'_>, entry: &Entry, used: Given) -> Result<(), Fault> {
    let header = entry.header();
    let decoded = ops(entry);
    match used.subject {
        Subject::Ticket(key) => {
            let alone = entry.payloads().count() == 1;
            return match &decoded[..] {
                [Some(MemberOp::Redeem { signature })]
                    if alone && redemption_holds(entry, &key, signature) =>
                {
                    if used.depth >= DELEGATION_DEPTH { Err(Fault::Depth) } else { Ok(()) }
                }
                _ => Err(Fault::Grant),
            };
        }
        Subject::Device(device) if device != header.log.device => return Err(Fault::Grant),
        Subject::Device(_) | Subject::Anyone => {}
    }
    if let (Subject::Device(_), [Some(MemberOp::Revoke { grant, cut: Cut::Past })], 1) =
        (used.subject, &decoded[..], entry.payloads().count())
        && *grant == header.grant
    {
        return Ok(());
    }
    let members = entry.payloads().any(|(store, _)| store.kind == StoreKind::MEMBERS);
    if used.role < if members { Role::Admin } else { Role::Write } {
        return Err(Fault::NotPermitted);
    }
    for op in decoded.into_iter().flatten() {
        match op {
            MemberOp::Grant { priority: p, .. } if p < used.priority => {
                return Err(Fault::Priority);
            }
            MemberOp::Grant { .. } if used.depth >= DELEGATION_DEPTH => return Err(Fault::Depth),
            MemberOp::Grant { .. } => {}
            MemberOp::Redeem { .. } => return Err(Fault::Grant),
            MemberOp::Revoke { grant, .. } => {
                let target = rank(entries, grant).ok_or(Fault::Target)?;
                if (used.priority, used.depth, header.grant) >= target {
                    return Err(Fault::Rank);
                }
            }
        }
    }
    Ok(())
}
