//! The meaning of a set of entries, by brute force: slow, small and obviously right. It shares with the product only the
//! decoding of a single payload.

use anabranch_core::cells::LiveValue;
use anabranch_core::counters::{Count, decode_counts};
use anabranch_core::entry::{Entry, GrantRef, StoreId, StoreKind};
use anabranch_core::id::{DatabaseId, EntryId, Position};
use anabranch_core::ops::{
    MemberOp, Role, Subject, ValueName, decode_cells, members_of, redemption_holds,
};
use anabranch_core::path::Path;
use std::collections::{BTreeMap, BTreeSet};

/// Live values by cell, the winner first, sums of counters, and the stores that need a newer program.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    /// The values of each cell that has any, the winner first.
    pub cells: BTreeMap<(StoreId, Path), Vec<LiveValue>>,
    /// Sums of counters that are not 0.
    pub sums: BTreeMap<(StoreId, Path), i128>,
    /// Every store written to.
    pub stores: BTreeSet<StoreId>,
    /// Stores with operations that this program does not know.
    pub unknown: BTreeSet<StoreId>,
}

/// What `entries`, in any order, amount to: every value written, less every value named by a write to the same cell.
pub fn fold<'e>(entries: impl IntoIterator<Item = &'e Entry>) -> State {
    let mut state = State::default();
    let mut named: BTreeSet<(StoreId, Path, ValueName)> = BTreeSet::new();
    for entry in entries {
        let header = entry.header();
        for (store, payload) in entry.payloads() {
            state.stores.insert(store.clone());
            if store.kind == StoreKind::COUNTER {
                count(&mut state, store, payload.bytes().unwrap_or_default());
                continue;
            }
            if !store.kind.has_cells() {
                if store.kind != StoreKind::MEMBERS {
                    state.unknown.insert(store.clone());
                }
                continue;
            }
            let decoded = decode_cells(&header.log, payload.bytes().unwrap_or_default());
            if decoded.unknown {
                state.unknown.insert(store.clone());
            }
            for (index, op) in decoded.ops.into_iter().enumerate() {
                let Some(op) = op else { continue };
                let Ok(path) = op.path.fill(&entry.id()) else { continue };
                let cell = (store.clone(), path);
                named.extend(op.replaces.iter().map(|n| (cell.0.clone(), cell.1.clone(), *n)));
                let Some(value) = op.value else { continue };
                let (index, id16) = (index as u32, entry.id().first16());
                state.cells.entry(cell).or_default().push(LiveValue {
                    name: ValueName { log: header.log, seq: header.seq, index, id16 },
                    entry: entry.id(),
                    timestamp: header.timestamp,
                    value,
                });
            }
        }
    }
    for ((store, path), values) in &mut state.cells {
        values.retain(|v| !named.contains(&(store.clone(), path.clone(), v.name)));
        values.sort_by_key(|v| std::cmp::Reverse((v.timestamp, v.entry, v.name.index)));
    }
    state.cells.retain(|_, values| !values.is_empty());
    state.sums.retain(|_, sum| *sum != 0);
    state
}

fn count(state: &mut State, store: &StoreId, payload: &[u8]) {
    let decoded = decode_counts(payload);
    if decoded.unknown {
        state.unknown.insert(store.clone());
    }
    for op in decoded.ops.into_iter().flatten() {
        let sum = state.sums.entry((store.clone(), op.path)).or_default();
        *sum = sum.wrapping_add(match op.count {
            Count::Add(delta) => delta.into(),
            Count::Reset(delta) => delta,
        });
    }
}

/// The places that nothing in `entries` follows in its log.
pub fn frontier<'e>(entries: impl IntoIterator<Item = &'e Entry> + Clone) -> Vec<Position> {
    let followed: BTreeSet<EntryId> =
        entries.clone().into_iter().filter_map(|e| e.header().prev).collect();
    let mut tips: Vec<Position> =
        entries.into_iter().filter(|e| !followed.contains(&e.id())).map(Entry::position).collect();
    tips.sort();
    tips
}

/// Everything at or below `from`.
pub fn past<'e>(
    entries: &BTreeMap<EntryId, &'e Entry>,
    from: impl IntoIterator<Item = EntryId>,
) -> BTreeMap<EntryId, &'e Entry> {
    let (mut open, mut found) = (Vec::from_iter(from), BTreeMap::new());
    while let Some(id) = open.pop() {
        if let Some(&entry) = entries.get(&id)
            && found.insert(id, entry).is_none()
        {
            open.extend(below(entry));
        }
    }
    found
}

/// What `entry` builds on directly.
pub fn below(entry: &Entry) -> Vec<EntryId> {
    let header = entry.header();
    header.prev.into_iter().chain(header.parents.iter().map(|p| p.id)).collect()
}

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
}

/// Judges `entry` by its own past alone, all of which is in `entries`.
///
/// # Errors
/// The first [`Fault`] found.
pub fn judge(
    entries: &BTreeMap<EntryId, &Entry>,
    database: &DatabaseId,
    entry: &Entry,
) -> Result<(), Fault> {
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
    let (subject, role, priority) = grant(entries, &header.grant).ok_or(Fault::Grant)?;
    judge_use(entry, subject, role, priority)?;
    if past.contains_key(&header.grant.entry) { Ok(()) } else { Err(Fault::Grant) }
}

/// Whether a grant lets its user do this, wherever it was made.
fn judge_use(entry: &Entry, subject: Subject, role: Role, priority: u32) -> Result<(), Fault> {
    let header = entry.header();
    let ops: Vec<MemberOp> =
        members_of(entry).map(|d| d.ops).unwrap_or_default().into_iter().flatten().collect();
    match subject {
        Subject::Ticket(key) => {
            let alone = entry.payloads().count() == 1
                && members_of(entry).is_some_and(|d| d.ops.len() == 1);
            return match ops[..] {
                [MemberOp::Redeem { signature }]
                    if alone && redemption_holds(entry, &key, &signature) =>
                {
                    Ok(())
                }
                _ => Err(Fault::Grant),
            };
        }
        Subject::Device(device) if device != header.log.device => return Err(Fault::Grant),
        Subject::Device(_) | Subject::Anyone => {}
    }
    let members = entry.payloads().any(|(store, _)| store.kind == StoreKind::MEMBERS);
    if role < if members { Role::Admin } else { Role::Write } {
        return Err(Fault::NotPermitted);
    }
    for op in ops {
        match op {
            MemberOp::Grant { priority: p, .. } if p < priority => return Err(Fault::Priority),
            MemberOp::Grant { .. } => {}
            MemberOp::Redeem { .. } => return Err(Fault::Grant),
        }
    }
    Ok(())
}

/// Subject, role and rank of a grant.
fn grant(entries: &BTreeMap<EntryId, &Entry>, grant: &GrantRef) -> Option<(Subject, Role, u32)> {
    let entry = entries.get(&grant.entry)?;
    match members_of(entry)?.ops.into_iter().nth(grant.index as usize)?? {
        MemberOp::Grant { subject, role, priority, .. } => Some((subject, role, priority)),
        MemberOp::Redeem { .. } => {
            let (_, role, priority) = self::grant(entries, &entry.header().grant)?;
            Some((Subject::Device(entry.header().log.device), role, priority))
        }
    }
}
