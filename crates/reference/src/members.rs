//! Who may, by brute force: which entries count, and what follows from that for the frontier.

use crate::{below, past};
use anabranch_core::codec::Reader;
use anabranch_core::entry::{Entry, GrantRef, StoreKind};
use anabranch_core::id::{DatabaseId, EntryId, NodeId};
use anabranch_core::limits::{DELEGATION_DEPTH, EVIDENCE_ENTRIES};
use anabranch_core::ops::{Cut, MemberOp, Role, Subject, members_of, redemption_holds};
use anabranch_core::run::Run;
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
    /// What a person's devices embed does not show that they may.
    Evidence,
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
        MemberOp::Revoke { .. } | MemberOp::Embed { .. } => None,
    }
}

/// The person whose grant an entry uses.
fn person(entries: &Entries<'_>, entry: &Entry) -> Option<DatabaseId> {
    match grant(entries, &entry.header().grant)?.subject {
        Subject::Person(person) if entry.header().salt.is_none() => Some(person),
        _ => None,
    }
}

/// The entries of a person's database that an entry embeds, if they hold.
fn embedded(person: &DatabaseId, entry: &Entry) -> Option<BTreeMap<EntryId, Entry>> {
    let Some(Some(MemberOp::Embed { evidence })) = ops(entry).into_iter().next() else {
        return None;
    };
    let mut r = Reader::new(&evidence);
    let mut held: BTreeMap<EntryId, Entry> = BTreeMap::new();
    for _ in 0..r.array("evidence", EVIDENCE_ENTRIES).ok()? {
        let run = Run::decode(&mut r, *person).ok()?.verify().ok()?;
        if !run.parent_heads().all(|head| head.verify(person)) {
            return None;
        }
        for entry in run.entries() {
            let there = |id: &EntryId| held.contains_key(id);
            if !below(entry).iter().all(there) {
                return None;
            }
            held.insert(entry.id(), entry.clone());
        }
    }
    r.finish().ok()?;
    let all: Entries<'_> = held.iter().map(|(id, entry)| (*id, entry)).collect();
    let embeds = |op: &Option<MemberOp>| matches!(op, Some(MemberOp::Embed { .. }));
    let good = |entry: &Entry| {
        let first = entry.id() == person.genesis();
        let alone = entry.payloads().all(|(store, _)| store.kind == StoreKind::MEMBERS);
        let listed = ops(entry).into_iter().flatten().all(|op| match op {
            MemberOp::Revoke { cut: Cut::Tips(tips), .. } if !first => {
                tips.iter().all(|tip| held.contains_key(&tip.position.id))
            }
            _ => true,
        });
        alone && listed && !ops(entry).iter().any(embeds) && judge(&all, person, entry).is_ok()
    };
    (held.values().all(good) && held.len() <= EVIDENCE_ENTRIES).then_some(held)
}

/// The devices that entries of a person's database show, and what each may do there.
fn devices<'e>(entries: impl IntoIterator<Item = &'e Entry>) -> BTreeMap<NodeId, Role> {
    let entries: Entries<'_> = entries.into_iter().map(|e| (e.id(), e)).collect();
    let mut devices: BTreeMap<NodeId, Role> = BTreeMap::new();
    for name in counted(&entries).1 {
        if let Some(Given { subject: Subject::Device(device), role, .. }) = grant(&entries, &name) {
            let most = devices.entry(device).or_insert(role);
            *most = role.max(*most);
        }
    }
    devices
}

/// The grants that entries with the grant of a person end by what they embed.
fn ended_by_evidence(all: &Entries<'_>, some: &Entries<'_>) -> Vec<(GrantRef, EntryId)> {
    let mut list = Vec::new();
    for &by in some.values() {
        let Some(mine) = person(all, by).and_then(|p| embedded(&p, by)) else { continue };
        for &of in some.values() {
            if by.id() == of.id() || by.header().grant != of.header().grant {
                continue;
            }
            let theirs = person(all, of).and_then(|p| embedded(&p, of)).unwrap_or_default();
            let together = devices(mine.values().chain(theirs.values()));
            // Who tells is one that may write at home, as far as that is known here.
            if together.get(&by.header().log.device).is_none_or(|role| *role < Role::Write) {
                continue;
            }
            for (index, op) in ops(of).into_iter().enumerate() {
                if let Some(MemberOp::Grant { subject: Subject::Device(device), role, .. }) = op
                    && together.get(&device).is_none_or(|shown| *shown < role)
                {
                    list.push((GrantRef { entry: of.id(), index: index as u32 }, by.id()));
                }
            }
        }
    }
    list
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
    /// By what the entry embeds.
    told: bool,
    kept: BTreeSet<EntryId>,
}

/// Whether what ended a grant leaves an entry: all that was said, and one of those that were told.
fn left(ended: &[Ended], entry: &Entry) -> bool {
    let keeps = |end: &Ended| end.kept.contains(&entry.id());
    let (told, said): (Vec<&Ended>, Vec<&Ended>) = ended.iter().partition(|end| end.told);
    said.iter().all(|end| end.by_holder && resigns(entry) || keeps(end))
        && (told.is_empty() || told.iter().any(|end| keeps(end)))
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
    let mut revocations: BTreeMap<GrantRef, Vec<(&Entry, Option<Cut>)>> = BTreeMap::new();
    for &entry in some.values() {
        for (index, op) in ops(entry).into_iter().enumerate() {
            let this = GrantRef { entry: entry.id(), index: index as u32 };
            match op {
                Some(MemberOp::Revoke { grant, cut }) if !genesis(entry) => {
                    revocations.entry(grant).or_default().push((entry, Some(cut)));
                }
                _ => grants.extend(rank(all, this).map(|rank| (rank, entry))),
            }
        }
    }
    for (grant, by) in ended_by_evidence(all, some) {
        revocations.entry(grant).or_default().push((some[&by], None));
    }
    // From the highest rank down: what a grant depends on ranks higher.
    grants.sort_by_key(|(rank, _)| *rank);
    let mut ended: BTreeMap<GrantRef, Vec<Ended>> = BTreeMap::new();
    let mut good: BTreeSet<GrantRef> = BTreeSet::new();
    let counts = |e: &Entry, good: &BTreeSet<GrantRef>, ended: &BTreeMap<GrantRef, Vec<Ended>>| {
        genesis(e)
            || good.contains(&e.header().grant)
                && ended.get(&e.header().grant).is_none_or(|ended| left(ended, e))
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
                let kept = kept(all, entry, cut.as_ref().unwrap_or(&Cut::Past));
                let told = cut.is_none();
                ended.entry(*this).or_default().push(Ended { by_holder, told, kept });
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

/// Whether one of a person's devices may grant this to others of them.
fn judge_embedded(entry: &Entry, person: &DatabaseId, used: Given) -> Result<(), Fault> {
    let decoded = ops(entry);
    let embeds = matches!(decoded.first(), Some(Some(MemberOp::Embed { .. })));
    if entry.payloads().count() != 1 || !embeds {
        return Err(Fault::Grant);
    }
    let shown = embedded(person, entry).ok_or(Fault::Evidence)?;
    let shown = devices(shown.values());
    if !shown.contains_key(&entry.header().log.device) {
        return Err(Fault::Evidence);
    }
    let mut granted = BTreeSet::new();
    for op in decoded.into_iter().skip(1).flatten() {
        let MemberOp::Grant { subject: Subject::Device(device), role, priority, .. } = op else {
            return Err(Fault::Grant);
        };
        let twice = !granted.insert(device);
        if twice || role > used.role || shown.get(&device).is_none_or(|shown| role > *shown) {
            return Err(Fault::Evidence);
        }
        if priority < used.priority {
            return Err(Fault::Priority);
        }
        if used.depth >= DELEGATION_DEPTH {
            return Err(Fault::Depth);
        }
    }
    Ok(())
}

/// What `device` may do, as things stand.
pub fn role(entries: &Entries<'_>, device: &NodeId) -> Option<Role> {
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
        Subject::Person(person) => return judge_embedded(entry, &person, used),
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
            MemberOp::Redeem { .. } | MemberOp::Embed { .. } => return Err(Fault::Grant),
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
