//! The meaning of a set of entries, by brute force: slow, small and obviously right. It shares with the product only the
//! decoding of a single payload.

use anabranch_core::cells::LiveValue;
use anabranch_core::counters::{Count, decode_counts};
use anabranch_core::entry::{Entry, StoreId, StoreKind};
use anabranch_core::id::{EntryId, Position};
use anabranch_core::ops::{CellOp, ValueName, decode_cells, members_of};
use anabranch_core::path::Path;
use anabranch_core::seal::{Ring, decode_keys};
use std::collections::{BTreeMap, BTreeSet};

mod members;

pub use members::{Fault, counted, judge, needed, role};

/// Live values by cell, the winner first, sums of counters, and the stores that need a newer program.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    /// The values of each cell that has any, the winner first.
    pub cells: BTreeMap<(StoreId, Path), Vec<LiveValue>>,
    /// Sums of counters that are not 0.
    pub sums: BTreeMap<(StoreId, Path), i128>,
    /// Stores with operations that this program does not know.
    pub unknown: BTreeSet<StoreId>,
}

/// What `entries`, in any order, amount to: every value that a counted entry wrote, less every value that a counted write to
/// the same cell replaces.
pub fn fold<'e>(entries: impl IntoIterator<Item = &'e Entry>) -> State {
    fold_with(entries, &Ring::default())
}

/// As [`fold`], to whoever has the keys of `ring`: what is sealed with another one has no effect.
pub fn fold_with<'e>(entries: impl IntoIterator<Item = &'e Entry>, ring: &Ring) -> State {
    let entries: BTreeMap<EntryId, &Entry> = entries.into_iter().map(|e| (e.id(), e)).collect();
    let counted = counted(&entries).0;
    let mut state = State::default();
    let mut replaced: BTreeSet<(StoreId, Path, ValueName)> = BTreeSet::new();
    for &entry in entries.values().filter(|e| counted.contains(&e.id())) {
        let header = entry.header();
        for (store, payload) in entry.payloads() {
            let Ok(bytes) = ring.open(&header.log, store, payload.bytes().unwrap_or_default())
            else {
                continue;
            };
            if store.kind == StoreKind::COUNTER {
                count(&mut state, store, &bytes);
                continue;
            }
            if store.kind == StoreKind::KEYS && ring.is_sealed() {
                if decode_keys(&bytes).unknown {
                    state.unknown.insert(store.clone());
                }
                continue;
            }
            if !store.kind.has_cells() {
                let members = store.kind == StoreKind::MEMBERS;
                if !members || members_of(entry).is_some_and(|decoded| decoded.unknown) {
                    state.unknown.insert(store.clone());
                }
                continue;
            }
            let decoded = decode_cells(&header.log, &bytes);
            if decoded.unknown {
                state.unknown.insert(store.clone());
            }
        }
        for (store, path, index, op) in writes(entry, ring) {
            for name in through((&entries, ring), &counted, entry, &store, &path, &op.replaces) {
                replaced.insert((store.clone(), path.clone(), name));
            }
            let Some(value) = op.value else { continue };
            let id16 = entry.id().first16();
            state.cells.entry((store, path)).or_default().push(LiveValue {
                name: ValueName { log: header.log, seq: header.seq, index, id16 },
                entry: entry.id(),
                timestamp: header.timestamp,
                value,
            });
        }
    }
    for ((store, path), values) in &mut state.cells {
        values.retain(|v| !replaced.contains(&(store.clone(), path.clone(), v.name)));
        values.sort_by_key(|v| std::cmp::Reverse((v.timestamp, v.entry, v.name.index)));
    }
    state.cells.retain(|_, values| !values.is_empty());
    state.sums.retain(|_, sum| *sum != 0);
    state
}

/// The operations of an entry on cells: where, under which index, what.
fn writes(entry: &Entry, ring: &Ring) -> Vec<(StoreId, Path, u32, CellOp)> {
    let mut list = Vec::new();
    for (store, payload) in entry.payloads().filter(|(store, _)| store.kind.has_cells()) {
        let (log, bytes) = (&entry.header().log, payload.bytes().unwrap_or_default());
        let Ok(bytes) = ring.open(log, store, bytes) else { continue };
        let decoded = decode_cells(log, &bytes);
        for (index, op) in decoded.ops.into_iter().enumerate() {
            let Some(op) = op else { continue };
            let Ok(path) = op.path.fill(&entry.id()) else { continue };
            list.push((store.clone(), path, index as u32, op));
        }
    }
    list
}

/// What a write of `writer` replaces by these names: the values themselves and, through writes that do not count, what those
/// replaced, as far as all of it is in the writer's past.
fn through(
    (entries, ring): (&BTreeMap<EntryId, &Entry>, &Ring),
    counted: &BTreeSet<EntryId>,
    writer: &Entry,
    store: &StoreId,
    path: &Path,
    names: &[ValueName],
) -> BTreeSet<ValueName> {
    let mut found: BTreeSet<ValueName> = names.iter().copied().collect();
    let mut open: Vec<ValueName> = names.to_vec();
    let named = |name: &ValueName| {
        entries.values().find(|e| {
            let (log, seq) = (e.header().log, e.header().seq);
            (log, seq, e.id().first16()) == (name.log, name.seq, name.id16)
        })
    };
    let past = std::cell::OnceCell::new();
    let in_past =
        |e: &Entry| past.get_or_init(|| self::past(entries, below(writer))).contains_key(&e.id());
    while let Some(name) = open.pop() {
        let Some(&entry) = named(&name) else { continue };
        if counted.contains(&entry.id()) || !in_past(entry) {
            continue;
        }
        for (at_store, at_path, index, op) in writes(entry, ring) {
            if (&at_store, &at_path, index) != (store, path, name.index) {
                continue;
            }
            for next in op.replaces {
                if named(&next).is_some_and(|e| in_past(e)) && found.insert(next) {
                    open.push(next);
                }
            }
        }
    }
    found
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

/// What peers compare: the places that nothing follows in its log, of what is needed.
pub fn frontier<'e>(entries: impl IntoIterator<Item = &'e Entry>) -> Vec<Position> {
    let entries: BTreeMap<EntryId, &Entry> = entries.into_iter().map(|e| (e.id(), e)).collect();
    let needed = needed(&entries);
    let followed: BTreeSet<EntryId> = needed.values().filter_map(|e| e.header().prev).collect();
    let mut tips: Vec<Position> =
        needed.values().filter(|e| !followed.contains(&e.id())).map(|e| e.position()).collect();
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
