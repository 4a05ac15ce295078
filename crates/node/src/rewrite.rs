//! Writing again what this device wrote without a right to it: its right had been revoked, it had not heard, and was let in once
//! more. Entries past a cut never come to count by that; what they did is done anew, by new ones.

use crate::error::NodeError;
use crate::replica::Replica;
use anabranch_core::author::{Draft, Seen, Step, Tally, Write};
use anabranch_core::blob::{self, Walker, content_of};
use anabranch_core::counters::{Count, decode_counts};
use anabranch_core::entry::{Entry, StoreId, StoreKind};
use anabranch_core::id::{LogId, NodeId, Seq};
use anabranch_core::ops::{CellOp, ValueName, decode_cells_of};
use anabranch_core::storage::{StorageError, Table};
use anabranch_core::view::View;
use std::cell::Cell;
use std::collections::BTreeMap;

/// Entries that are written again in one transaction.
const BATCH: usize = 64;

/// Bytes of writes in one of them, unless one takes more; and of one beside path and value, about.
const PART: usize = 96 * 1024;
const ABOUT: usize = 200;

/// What was written again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rewritten {
    /// Entries of which something was.
    pub entries: u64,
    /// Entries of which something was not: changes of the membership, files of a folder, content that is gone, what a later
    /// version wrote.
    pub left: u64,
}

/// Where each log of this device ended before: what is there beyond that was written again.
type Before = BTreeMap<LogId, Seq>;

impl Replica {
    /// Writes again what entries of this device did that do not count and that were not written again before, in their order. A
    /// value replaces those that the first one replaced, as far as they are still there: where others wrote meanwhile, there
    /// is a conflict. Blocking. `progress` is told what was done so far.
    ///
    /// What is written again stays, should the first entries ever count after all; numbers are then counted twice.
    ///
    /// # Errors
    /// [`NodeError::Core`], without a right to write among others; what was done so far stays done.
    pub fn rewrite(&self, progress: &mut dyn FnMut(Rewritten)) -> Result<Rewritten, NodeError> {
        let device = self.device().id();
        let before: Before = self.look(|view| view.ends_of(&device))?;
        let mut done = Rewritten::default();
        loop {
            let batch = Cell::new((Rewritten::default(), false));
            self.as_author(|ledger, author| {
                let next = ledger.so_far()?.uncounted(&device, BATCH)?;
                let (mut now, more) = (Rewritten::default(), next.len() == BATCH);
                for next in next {
                    let view = ledger.so_far()?;
                    let (draft, whole) = draft_of(view, &next.entry, &device, &before)?;
                    let mut written = false;
                    for part in parts(draft) {
                        written |= ledger.commit(author, &part)?.is_some();
                    }
                    now.entries += u64::from(written);
                    now.left += u64::from(!whole);
                    ledger.note_rewritten(&next)?;
                }
                batch.set((now, more));
                Ok(())
            })?;
            let (now, more) = batch.get();
            done.entries += now.entries;
            done.left += now.left;
            self.changed();
            if !more {
                return Ok(done);
            }
            progress(done);
        }
    }
}

/// The draft in parts that fit an entry: paths in it may be longer than they were, since elements that an entry makes have names by now.
fn parts(draft: Draft) -> Vec<Draft> {
    let Draft { writes, tallies, members } = draft;
    let mut parts = vec![Draft { tallies, members, ..Draft::default() }];
    let mut bytes = 0;
    for write in writes {
        let size = write.path.as_bytes().len() + write.value.as_ref().map_or(0, Vec::len) + ABOUT;
        if bytes > 0 && bytes + size > PART {
            parts.push(Draft::default());
            bytes = 0;
        }
        bytes += size;
        if let Some(part) = parts.last_mut() {
            part.writes.push(write);
        }
    }
    parts
}

/// What an entry did, to be done anew, and whether that is all.
fn draft_of(
    view: View<'_>,
    entry: &Entry,
    device: &NodeId,
    before: &Before,
) -> Result<(Draft, bool), StorageError> {
    let (mut draft, mut whole, ring) = (Draft::default(), true, view.ring()?);
    let log = &entry.header().log;
    for (store, payload) in entry.payloads().filter(|(store, _)| store.kind != StoreKind::KEYS) {
        let opened = payload.bytes().map(|bytes| ring.open(log, store, bytes));
        let Some(Ok(bytes)) = opened else {
            whole = false;
            continue;
        };
        if store.kind.has_sums() {
            let decoded = decode_counts(&bytes);
            whole &= !decoded.unknown;
            draft.tallies.extend(decoded.ops.into_iter().flatten().map(|op| {
                let step = match op.count {
                    Count::Add(delta) => Step::Add(delta),
                    Count::Reset(delta) => Step::ResetFrom(delta.wrapping_neg()),
                };
                Tally::new(store.clone(), op.path, step)
            }));
        } else if store.kind.has_cells() && store.kind != StoreKind::FOLDER {
            let decoded = decode_cells_of(&entry.id(), log, &bytes);
            whole &= !decoded.unknown;
            for op in decoded.ops.into_iter().flatten() {
                if is_here(view, store, &op)? {
                    draft.writes.push(write_of(view, store, op, device, before)?);
                } else {
                    whole = false;
                }
            }
        } else {
            whole = false;
        }
    }
    Ok((draft, whole))
}

/// The values that it replaces are those that the first one did, and what was written again at its path before.
fn write_of(
    view: View<'_>,
    store: &StoreId,
    op: CellOp,
    device: &NodeId,
    before: &Before,
) -> Result<Write, StorageError> {
    let is_ours = |name: &ValueName| {
        name.log.device == *device && name.seq > before.get(&name.log).copied().unwrap_or(0)
    };
    let names = view.cell(store, &op.path)?.into_iter().map(|value| value.name);
    let seen = names.filter(|name| op.replaces.contains(name) || is_ours(name)).collect();
    Ok(Write {
        store: store.clone(),
        path: op.path,
        value: op.value,
        seen: Seen::Values(seen),
        below: false,
        above: false,
    })
}

/// Whether the content that a blob's value names is here, all of it: nobody names what is not stored.
fn is_here(view: View<'_>, store: &StoreId, op: &CellOp) -> Result<bool, StorageError> {
    let content = op.value.as_deref().filter(|_| store.kind == StoreKind::BLOBS);
    let Some(content) = content.and_then(content_of) else { return Ok(true) };
    let tx = view.tables();
    let walker =
        Walker::new(&view.kept(store, content)?, |place| tx.get(Table::Blob, &place.hash.0));
    for step in walker {
        match step {
            Ok(blob::Step::Chunk(span)) if tx.has(Table::Blob, &span.hash.0)? => {}
            Err(blob::WalkError::Lookup(e)) => return Err(e),
            _ => return Ok(false),
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use anabranch_core::path::Path;

    #[test]
    fn all_of_a_draft_is_in_its_parts_in_order() {
        let write = |n: usize, len: usize| Write {
            store: StoreId::table("t"),
            path: Path::text([n.to_string().as_str()]).unwrap(),
            value: Some(vec![0; len]),
            seen: Seen::AtCommit,
            below: false,
            above: false,
        };
        // One of them takes more than a part by itself.
        let writes: Vec<Write> =
            (0..400).map(|n| write(n, if n == 7 { 2 * PART } else { 1_000 })).collect();
        let tally = Tally::new(StoreId::counter("c"), Path::text(["x"]).unwrap(), Step::Add(1));
        let draft = Draft { writes: writes.clone(), tallies: vec![tally], ..Draft::default() };
        let parts = parts(draft);
        assert!(parts.len() > 4);
        assert!(parts.iter().all(|part| part.writes.len() == 1 || part.writes.len() < 100));
        assert_eq!(parts.iter().map(|part| part.tallies.len()).sum::<usize>(), 1);
        let again: Vec<Write> = parts.into_iter().flat_map(|part| part.writes).collect();
        assert_eq!(again, writes);
    }
}
