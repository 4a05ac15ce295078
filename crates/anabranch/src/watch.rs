//! Watching a database: every entry that is added, whoever wrote it, exactly once and in an order in which nothing comes
//! before what it builds on.

use crate::value::Raw;
use crate::{Database, Error};
use anabranch_core::counters::{Count, decode_counts};
use anabranch_core::entry::{Entry, StoreId, Timestamp};
use anabranch_core::id::{EntryId, NodeId};
use anabranch_core::ops::decode_cells_of;
use anabranch_core::path::Path;
use anabranch_core::storage::StorageError;
use anabranch_core::view::View;
use std::collections::VecDeque;
use std::ops::ControlFlow;

/// Entries read ahead.
const BATCH: usize = 256;

/// One transaction, as it was added here.
#[derive(Debug, Clone)]
pub struct Change {
    /// The entry.
    pub entry: EntryId,
    /// The device that wrote it.
    pub device: NodeId,
    /// Whether it was this one.
    pub local: bool,
    /// The writer's clock.
    pub timestamp: Timestamp,
    /// What it wrote, in its order.
    pub writes: Vec<Written>,
    /// Whether it counts: not if its author's right had been revoked. Then its writes do nothing.
    pub counts: bool,
    /// Whether entries from before ceased to count with it, or began to: then other values may have changed as well, and
    /// whoever shows any reads them again.
    pub recounted: bool,
    /// Whether it wrote something that is sealed with a key that is not here: then not all of its writes are shown.
    pub closed: bool,
}

/// One write of a transaction.
#[derive(Debug, Clone)]
pub struct Written {
    /// The store.
    pub store: StoreId,
    /// The cell or counter.
    pub path: Path,
    /// What was done to it. What is there now is for the store to say.
    pub effect: Effect,
}

/// What a write did.
#[derive(Debug, Clone)]
pub enum Effect {
    /// Wrote a value.
    Put(Raw),
    /// Deleted what its writer saw.
    Delete,
    /// Added to a counter.
    Add(i64),
    /// Reset a counter, by adding minus the sum that its writer saw.
    Reset(i128),
}

/// A stream of changes. Nothing is lost when it is slow: it reads on where it was.
#[derive(Debug)]
pub struct Watch {
    db: Database,
    versions: tokio::sync::watch::Receiver<u64>,
    next: u64,
    ready: VecDeque<Change>,
}

impl Watch {
    pub(crate) fn new(db: Database) -> Result<Self, Error> {
        // Subscribed before the place is read, so that nothing falls between.
        let versions = db.replica().versions();
        let next = db.replica().look(|view| view.next_arrival())?;
        Ok(Self { db, versions, next, ready: VecDeque::new() })
    }

    /// The next change; waits for one. Dropping the future loses nothing.
    ///
    /// # Errors
    /// What storage reports.
    pub async fn next(&mut self) -> Result<Change, Error> {
        loop {
            if let Some(change) = self.ready.pop_front() {
                return Ok(change);
            }
            self.versions.mark_unchanged();
            self.read()?;
            if self.ready.is_empty() && self.versions.changed().await.is_err() {
                return Err(anabranch_node::NodeError::Closed.into());
            }
        }
    }

    fn read(&mut self) -> Result<(), Error> {
        let device = self.db.replica().device().id();
        let (ready, next) = (&mut self.ready, &mut self.next);
        self.db.replica().look(|view| {
            view.entries(*next, &mut |arrival, entry| {
                ready.push_back(change(view, arrival, &entry, device)?);
                *next = arrival + 1;
                Ok(if ready.len() < BATCH {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                })
            })
        })?;
        Ok(())
    }
}

pub(crate) fn change(
    view: View<'_>,
    arrival: u64,
    entry: &Entry,
    device: NodeId,
) -> Result<Change, StorageError> {
    let header = entry.header();
    let ring = view.ring()?;
    let (mut writes, mut closed) = (Vec::new(), false);
    for (store, payload) in entry.payloads() {
        let Some(bytes) = payload.bytes() else { continue };
        let Ok(bytes) = ring.open(&header.log, store, bytes) else {
            closed = true;
            continue;
        };
        let mut note = |path, effect| writes.push(Written { store: store.clone(), path, effect });
        if store.kind.has_cells() {
            for op in decode_cells_of(&entry.id(), &header.log, &bytes).ops.into_iter().flatten() {
                note(op.path, op.value.map_or(Effect::Delete, |value| Effect::Put(Raw(value))));
            }
        } else if store.kind.has_sums() {
            for op in decode_counts(&bytes).ops.into_iter().flatten() {
                note(
                    op.path,
                    match op.count {
                        Count::Add(delta) => Effect::Add(delta),
                        Count::Reset(delta) => Effect::Reset(delta),
                    },
                );
            }
        }
    }
    Ok(Change {
        counts: view.counts(arrival, entry)?,
        recounted: view.recounted(arrival)?,
        entry: entry.id(),
        device: header.log.device,
        local: header.log.device == device,
        timestamp: header.timestamp,
        writes,
        closed,
    })
}
