//! Doing with a storage whatever a node does with one, to see that damage comes out as an error and never as anything
//! else: no panic, no loop without end, no memory beyond bounds, and no entry that nobody signed.

use crate::world::{NOW, keys, world, write};
use anabranch_core::entry::Timestamp;
use anabranch_core::error::Error;
use anabranch_core::frontier::Frontier;
use anabranch_core::index::{self, Range};
use anabranch_core::ledger::Ledger;
use anabranch_core::outgoing::{Outgoing, Withhold};
use anabranch_core::path::Path;
use anabranch_core::storage::{Durability, Order, Storage};
use anabranch_core::verify::verify;
use anabranch_core::view::View;
use anabranch_store::MemoryStorage;
use std::ops::{Bound, ControlFlow};

/// More of anything than the small database has: what lists more than this goes round in circles.
const MANY: usize = 10_000;

/// Reads everything, verifies, and writes.
pub(crate) fn examine(storage: &dyn Storage) {
    let _ = read(storage);
    check_verified(storage);
    // Writing goes on after an error, as a node would; nothing is committed by half.
    let keys = keys();
    let _ = write(storage, &keys.host, 33, &[("d", b"new"), ("shared", b"new")], vec![]);
    let _ = write(storage, &keys.member, 22, &[("d", b"newer")], vec![]);
    let _ = redeem(storage);
    let _ = admit(storage);
    let mut stretches = 0;
    while index::step(storage, 100).is_ok_and(|more| more) {
        stretches += 1;
        assert!(stretches < MANY, "indexes are built without end");
    }
    let _ = read(storage);
}

fn read(storage: &dyn Storage) -> Result<(), Error> {
    let tx = storage.read()?;
    let view = View::new(&*tx);
    // Each by itself: one error must not keep the others from being tried.
    let _ = view.totals();
    let _ = view.own_log();
    let _ = view.unsigned();
    let _ = view.grants();
    let _ = view.state_digest();
    let _ = view.frontier_digest();
    let keys = keys();
    for key in [&keys.host, &keys.member, &keys.stranger] {
        let _ = view.role_of(&key.node_id());
    }
    let (ticket, device) = (keys.ticket.node_id(), keys.stranger.node_id());
    let _ = view.ticket_state(&ticket, &device, Timestamp(NOW));
    let _ = cells(view);
    let _ = view.check_indexes();
    let _ = indexed(view);
    let _ = entries(view);
    let _ = view.newest(100);
    let _ = outgoing(view, &Frontier::default());
    let whole = View::new(&*world().storage.read()?).frontier()?;
    outgoing(view, &whole)
}

fn cells(view: View<'_>) -> Result<(), Error> {
    let root = Path::text(Vec::<&str>::new())?;
    for store in view.stores()? {
        let mut seen = 0;
        view.scan_cells(&store.id, &root, None, &mut |cell| {
            seen += 1;
            assert!(seen < MANY, "cells without end");
            let _ = (cell.winner().value.len(), cell.path.to_string(), cell.path.segments());
            ControlFlow::Continue(())
        })?;
        let _ = view.cell(&store.id, &Path::text(["row", "shared"])?)?;
    }
    Ok(())
}

fn indexed(view: View<'_>) -> Result<(), Error> {
    for index in view.indexes()? {
        let all = Range { from: Bound::Unbounded, to: Bound::Unbounded };
        let mut seen = 0;
        let _ = view.find_rows(&index.store, &index.field, all, Order::Descending, &mut |row| {
            seen += 1;
            assert!(seen < MANY, "rows without end");
            let _ = row.segments();
            ControlFlow::Continue(())
        });
    }
    Ok(())
}

fn entries(view: View<'_>) -> Result<(), Error> {
    let mut seen = 0;
    view.entries(0, &mut |_, _| {
        seen += 1;
        assert!(seen < MANY, "entries without end");
        Ok(ControlFlow::Continue(()))
    })
}

fn outgoing(view: View<'_>, peer: &Frontier) -> Result<(), Error> {
    let frontier = view.frontier()?;
    let _ = view.frontier_within(peer);
    let _ = view.lacking(peer);
    for tip in view.forks(peer)?.iter().chain(frontier.positions()) {
        assert!(view.samples(tip)?.len() < MANY, "samples without end");
        let _ = view.tips_of(&tip.log)?;
        let _ = view.entry(tip)?;
    }
    let mut out = Outgoing::new(view, peer)?;
    let _ = out.count(view);
    let mut runs = 0;
    while out.next(view, Withhold::NOTHING)?.is_some() {
        runs += 1;
        assert!(runs < MANY, "runs without end");
    }
    Ok(())
}

/// What is verified is what was signed: nobody here can sign anything else.
fn check_verified(storage: &dyn Storage) {
    let Ok(tx) = storage.read() else { return };
    let scratch = MemoryStorage::new();
    if verify(&*tx, &scratch, &mut |_| {}).is_err() {
        return;
    }
    let (Ok(held), Ok(original)) = (scratch.read(), world().storage.read()) else { return };
    let (held, original) = (View::new(&*held), View::new(&*original));
    let Ok(frontier) = held.frontier() else { return };
    for position in frontier.positions() {
        assert!(original.holds(position).is_ok_and(|held| held), "verified, and never written");
    }
}

fn redeem(storage: &dyn Storage) -> Result<(), Error> {
    let keys = keys();
    let author = anabranch_core::author::Author {
        key: &keys.stranger,
        wall: Timestamp(NOW),
        fresh_epoch: 44,
        instance: [44; 32],
    };
    let mut tx = storage.write(Durability::Normal)?;
    let mut ledger = Ledger::open(&mut *tx)?;
    ledger.redeem(&author, &keys.ticket)?;
    ledger.seal(&author)?;
    ledger.finish()?;
    Ok(tx.commit()?)
}

/// News arrive from a member.
fn admit(storage: &dyn Storage) -> Result<(), Error> {
    let runs: Result<Vec<_>, _> = world().news.iter().cloned().map(|run| run.verify()).collect();
    let mut tx = storage.write(Durability::Normal)?;
    anabranch_core::admit::admit_all(&mut *tx, &runs?, anabranch_core::admit::Load::AtOnce, None)?;
    Ok(tx.commit()?)
}
