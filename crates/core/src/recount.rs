//! What late revocations do to the state: what entries did that cease to count is undone, what entries do that count again is
//! done, so that the state is what it would be had the revocation been there from the start (I2).
//!
//! Sums are added and taken away. What a cell becomes is told by all operations at its path, which only entries have, so the
//! paths that such entries wrote to are carried out again from all entries. That costs a look at every entry, whatever the
//! number of paths; the usual revocation comes after all that it leaves and changes nothing.

use crate::awaited;
use crate::blob::ContentRef;
use crate::build::again::{self, Again};
use crate::counters;
use crate::entry::{StoreId, StoreKind};
use crate::error::corrupt;
use crate::id::Seq;
use crate::ledger::Ledger;
use crate::membership::standing::Standing;
use crate::membership::stints;
use crate::names::Names;
use crate::ops::{decode_cells_of, decode_members};
use crate::past::Place;
use crate::rows::{BranchNo, StoreNo, membership_key};
use crate::sabotage::{self, Bug};
use crate::seal::{self, KeyId};
use crate::storage::{StorageError, Table};
use crate::view::View;
use std::collections::{BTreeMap, BTreeSet};

/// Entries of a branch that count now and did not before, or the reverse.
#[derive(Debug, Clone, Copy)]
struct Flip {
    branch: BranchNo,
    first: Seq,
    last: Seq,
    counts: bool,
}

/// Entries that are read at once.
const STRETCH: u64 = 256;
/// Bytes of paths that are carried out again in one look at all entries.
const PATHS: usize = 32 * 1024 * 1024;

impl Ledger<'_> {
    /// Brings the state in line with how grants stand since the last entry was added.
    ///
    /// Cost: nothing if no grant stands differently; a look-up for each log that used one that does; and if entries ceased
    /// to count or began to, a look at every entry. Memory: 32 MiB of paths.
    pub(crate) fn recount(&mut self) -> Result<(), StorageError> {
        let flips = self.flips()?;
        let Some(first) = self.first_of(&flips)? else { return Ok(()) };
        self.compare_from(first);
        if sabotage::is(Bug::NotRecounted) {
            return Ok(());
        }
        self.note_recount();
        let arrival = self.counters.next_arrival - 1;
        self.tx.put(Table::Membership, &membership_key::recounted(arrival), &[])?;
        let built = self.built().unwrap_or(u64::MAX);
        // What is looked up below has to be in the tables.
        self.flush_branches()?;
        let stores = self.kinds()?;
        let mut paths = 0;
        let mut newer: BTreeMap<StoreNo, bool> = BTreeMap::new();
        self.each_op(&flips, &stores, built, &mut |ledger, flip, op| {
            match op {
                Done::Count { store, path, delta } => {
                    let delta = if flip.counts { delta } else { delta.wrapping_neg() };
                    counters::add(ledger, store, path, delta)?;
                }
                Done::Write { path, .. } => paths += path.len() + 64,
                Done::Closed { key, place, contents } => {
                    ledger.note_closed(&key, flip.counts)?;
                    awaited::note_closed(ledger, place, &key, &contents, flip.counts)?;
                }
                Done::Unknown(store) => {
                    *newer.entry(store).or_default() |= flip.counts;
                }
            }
            Ok(())
        })?;
        for (store, counts) in &newer {
            // What else says so is found out below.
            self.store(*store)?.needs_newer = *counts;
        }
        newer.retain(|_, counts| !*counts);
        let parts = (paths / PATHS) as u64 + 1;
        for part in 0..parts {
            let mut again = Again::of(newer.keys().copied().collect());
            self.each_op(&flips, &stores, built, &mut |_, _, op| {
                if let Done::Write { store, path } = op
                    && again::part_of(path, parts) == part
                {
                    again.add(store, path);
                }
                Ok(())
            })?;
            newer.clear();
            if !again.is_empty() {
                again.carry_out(self, built)?;
            }
        }
        Ok(())
    }

    /// The stretches of entries whose grants stand differently so that they do.
    fn flips(&mut self) -> Result<Vec<Flip>, StorageError> {
        let mut flips = Vec::new();
        for (grant, before) in self.take_judged() {
            let now = self.standing(grant)?;
            self.compare_resigned(&before, &now)?;
            for (branch, from) in stints::of_grant(&*self.tx, grant)? {
                let tip = self.branch(branch)?.tip.seq;
                let end = stints::end(&*self.tx, (branch, from), tip)?;
                let (was, is) = (before.last(&*self.tx, branch)?, now.last(&*self.tx, branch)?);
                let (first, last) = (from.max(was.min(is).saturating_add(1)), end.min(was.max(is)));
                if first <= last {
                    flips.push(Flip { branch, first, last, counts: is > was });
                }
            }
        }
        Ok(flips)
    }

    /// Entries by which a holder gave a grant up touch no value, but they may cease to count or begin to.
    fn compare_resigned(&mut self, before: &Standing, now: &Standing) -> Result<(), StorageError> {
        let (before, now) = (before.resignations(&*self.tx)?, now.resignations(&*self.tx)?);
        let before: BTreeSet<Place> = before.into_iter().collect();
        let now: BTreeSet<Place> = now.into_iter().collect();
        for &(branch, seq) in before.symmetric_difference(&now) {
            let arrival = self.view().arrival(branch, seq)?;
            // That of the entry at hand is known already.
            if arrival + 1 < self.counters.next_arrival {
                self.compare_from(arrival);
            }
        }
        Ok(())
    }

    /// The lowest number under which one of the entries arrived.
    fn first_of(&self, flips: &[Flip]) -> Result<Option<u64>, StorageError> {
        let arrivals = flips.iter().map(|flip| self.view().arrival(flip.branch, flip.first));
        Ok(arrivals.collect::<Result<Vec<_>, _>>()?.into_iter().min())
    }

    fn kinds(&self) -> Result<Vec<StoreId>, StorageError> {
        let row = |number| Ok(View::store_row(&self.view(), number)?.id);
        (1..=self.counters.stores).map(row).collect()
    }

    /// Calls `visit` with what the entries do whose cells are there.
    fn each_op(
        &mut self,
        flips: &[Flip],
        stores: &[StoreId],
        built: u64,
        visit: &mut dyn FnMut(&mut Self, &Flip, Done<'_>) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        let ring = self.ring()?;
        for flip in flips {
            let mut first = flip.first;
            while first <= flip.last {
                let last = flip.last.min(first + STRETCH - 1);
                let log = Names::new(self.view())?.log(flip.branch)?;
                let rows = self.view().entry_rows(flip.branch, first, last)?;
                for row in rows {
                    let there =
                        built == u64::MAX || self.view().arrival(flip.branch, row.seq)? <= built;
                    for (store, payload) in &row.body.payloads {
                        let id = (*store as usize).checked_sub(1).and_then(|at| stores.get(at));
                        let id = id.ok_or_else(|| corrupt("an entry"))?;
                        let Some(payload) = payload.bytes() else { continue };
                        let kind = id.kind;
                        let payload = match ring.open(&log, id, payload) {
                            Ok(payload) => payload,
                            Err(key) => {
                                let place = (*store, self.view().arrival(flip.branch, row.seq)?);
                                let contents = seal::contents(payload);
                                visit(self, flip, Done::Closed { key, place, contents })?;
                                continue;
                            }
                        };
                        let unknown = if kind == StoreKind::MEMBERS {
                            decode_members(&payload).unknown
                        } else if kind == StoreKind::KEYS {
                            // The keys themselves are used whatever counts.
                            seal::needs_newer(ring.is_sealed(), &payload)
                        } else if kind.has_sums() {
                            let (deltas, unknown) = counters::deltas(&payload);
                            for (path, delta) in deltas.iter().filter(|_| there) {
                                let (store, path, delta) = (*store, path.as_bytes(), *delta);
                                visit(self, flip, Done::Count { store, path, delta })?;
                            }
                            unknown && there
                        } else if kind.has_cells() {
                            let decoded = decode_cells_of(&row.id, &log, &payload);
                            for op in decoded.ops.iter().flatten().filter(|_| there) {
                                let path = op.path.as_bytes();
                                visit(self, flip, Done::Write { store: *store, path })?;
                            }
                            decoded.unknown && there
                        } else {
                            true
                        };
                        if unknown {
                            visit(self, flip, Done::Unknown(*store))?;
                        }
                    }
                }
                first = last + 1;
            }
        }
        Ok(())
    }
}

/// What an entry does to a store.
enum Done<'o> {
    Count {
        store: StoreNo,
        path: &'o [u8],
        delta: i128,
    },
    Write {
        store: StoreNo,
        path: &'o [u8],
    },
    /// Something that this program does not know.
    Unknown(StoreNo),
    /// Something that is sealed with a key that is not here, and what it names all the same.
    Closed {
        key: KeyId,
        place: (StoreNo, u64),
        contents: Vec<ContentRef>,
    },
}
