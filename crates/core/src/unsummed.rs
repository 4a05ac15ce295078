//! Digests of stores that are a little behind. A digest takes a page of its own in the file, so a commit whose signature is
//! put off does not write it, if all that it did was to add values: then the entries say what is lacking. The counters say
//! up to which entry digests are summed up; whoever reads them adds the rest, and the next transaction that does anything
//! else writes them.

use crate::cells::element;
use crate::lthash::LtHash;
use crate::names::Names;
use crate::ops::decode_cells_of;
use crate::rows::{Counters, EntryRow, Row, StoreNo};
use crate::sabotage::{self, Bug};
use crate::seal::Ring;
use crate::storage::{Order, StorageError, Table};
use crate::view::View;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// Entries that may be lacking in the digests: a reader decodes so many.
pub(crate) const MOST: u64 = 256;

/// What entries add to a store.
#[derive(Default)]
pub(crate) struct Added {
    pub(crate) sum: LtHash,
    /// Live values.
    pub(crate) live: u64,
}

/// What is lacking in the rows of stores, by store. Cost: at most [`MOST`] entries are read.
pub(crate) fn unsummed(
    view: View<'_>,
    counters: &Counters,
) -> Result<BTreeMap<StoreNo, Added>, StorageError> {
    let mut added = BTreeMap::new();
    if counters.unsummed() == 0 || sabotage::is(Bug::SumsForgotten) {
        return Ok(added);
    }
    let mut names = Names::new(view)?;
    let ring = view.ring()?;
    let mut failed = None;
    let from = (counters.summed + 1).to_be_bytes();
    view.tx.scan(Table::Entry, &from, None, Order::Ascending, &mut |_, row| {
        match EntryRow::from_bytes(row).and_then(|row| add(&mut added, &mut names, &ring, &row)) {
            Ok(()) => ControlFlow::Continue(()),
            Err(e) => {
                failed = Some(e);
                ControlFlow::Break(())
            }
        }
    })?;
    failed.map_or(Ok(added), Err)
}

fn add(
    added: &mut BTreeMap<StoreNo, Added>,
    names: &mut Names<'_>,
    ring: &Ring,
    row: &EntryRow<'_>,
) -> Result<(), StorageError> {
    let log = names.log(row.branch)?;
    for (store, payload) in &row.body.payloads {
        let id = names.store(*store)?;
        let kind = id.kind;
        let Some(payload) = payload.bytes().filter(|_| kind.has_cells()) else { continue };
        let Ok(payload) = ring.open(&log, id, payload) else { continue };
        for (index, op) in decode_cells_of(&row.id, &log, &payload).ops.iter().enumerate() {
            let Some((op, value)) = op.as_ref().and_then(|op| Some((op, op.value.as_ref()?)))
            else {
                continue;
            };
            let added = added.entry(*store).or_default();
            added.sum.add(&element(kind, op.path.as_bytes(), &row.id, index as u32, value));
            added.live += 1;
        }
    }
    Ok(())
}
