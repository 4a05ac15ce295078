//! Verifying a whole replica: every entry is sent, as a peer would get it, into empty scratch storage through the same
//! checks that guard the network, and what comes out is compared with what is stored. Indexes are compared with the cells.

use crate::admit::{Load, admit_all};
use crate::blob::ChunkHash;
use crate::error::{Error, corrupt};
use crate::frontier::Frontier;
use crate::ledger::found;
use crate::outgoing::{Outgoing, Withhold};
use crate::seal;
use crate::storage::{Durability, Order, ReadTx, Storage, StorageError, Table};
use crate::view::View;
use std::ops::ControlFlow;

/// What was verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Verified {
    /// Entries whose hash, chain, head, generation and permission hold.
    pub entries: u64,
    /// Of these, entries of our own that were not signed yet and so could not be replayed; their hashes hold.
    pub unsigned: u64,
    /// Chunks and manifest nodes whose hash is their name.
    pub blobs: u64,
}

/// Runs handed over in one scratch transaction.
const BATCH: usize = 64;

/// Replays `tx` into `scratch`, which must be empty, and compares. Calls `progress` with the entries done so far.
/// Memory: a batch of runs; the scratch storage grows as large as the replica.
///
/// # Errors
/// [`Error`] naming the first thing that does not hold.
pub fn verify(
    tx: &dyn ReadTx,
    scratch: &dyn Storage,
    progress: &mut dyn FnMut(u64),
) -> Result<Verified, Error> {
    let view = View::new(tx);
    let database = view.database()?.ok_or_else(|| corrupt("the database id"))?;
    let mut write = scratch.write(Durability::Normal)?;
    found(&mut *write, database)?;
    seal::keys::copy(tx, &mut *write)?;
    write.commit()?;
    let mut out = Outgoing::new(view, &Frontier::default())?;
    let mut done = Verified::default();
    loop {
        let mut runs = Vec::with_capacity(BATCH);
        while runs.len() < BATCH {
            match out.next(view, Withhold::NOTHING)? {
                Some(run) => runs.push(run.verify()?),
                None => break,
            }
        }
        if runs.is_empty() {
            break;
        }
        let mut write = scratch.write(Durability::Normal)?;
        let batch = admit_all(&mut *write, &runs, Load::AtOnce, None)?;
        if let Some((_, log, seq)) = batch.waiting.first() {
            return Err(
                StorageError::Corrupt(format!("log {log} lacks what it needs at {seq}")).into()
            );
        }
        write.commit()?;
        done.entries += batch.entries;
        progress(done.entries);
    }
    compare(view, scratch, &mut done)?;
    view.check_indexes()?;
    done.blobs = check_blobs(tx)?;
    Ok(done)
}

fn compare(view: View<'_>, scratch: &dyn Storage, done: &mut Verified) -> Result<(), Error> {
    let replayed = scratch.read()?;
    let replayed = View::new(&*replayed);
    done.unsigned = view.totals()?.entries.saturating_sub(done.entries);
    if done.unsigned > 0 {
        // Ours and not announced: nothing to compare with, but reading them checks their hashes.
        return view.entries(1, &mut |_, _| Ok(ControlFlow::Continue(())));
    }
    if replayed.frontier_digest()? != view.frontier_digest()? {
        return Err(corrupt("the frontier's digest").into());
    }
    for (stored, folded) in view.stores()?.iter().zip(&replayed.stores()?) {
        if stored != folded {
            let store = &stored.id;
            let text = format!("store {store} does not follow from its entries");
            return Err(StorageError::Corrupt(text).into());
        }
    }
    check_cells(view)
}

/// The sums were compared with the replay's; this compares them with the values themselves.
fn check_cells(view: View<'_>) -> Result<(), Error> {
    for store in view.stores()? {
        if let (Some(found), Some(stored)) = (view.resum(&store.id)?, store.digest)
            && found != stored
        {
            let text = format!("a value in store {} is not what was written", store.id);
            return Err(StorageError::Corrupt(text).into());
        }
    }
    Ok(())
}

fn check_blobs(tx: &dyn ReadTx) -> Result<u64, Error> {
    let (mut count, mut wrong) = (0, None);
    tx.scan(Table::Blob, &[], None, Order::Ascending, &mut |key, value| {
        if ChunkHash::of(value).0 != key {
            wrong = Some(crate::id::to_base32(key));
            return ControlFlow::Break(());
        }
        count += 1;
        ControlFlow::Continue(())
    })?;
    match wrong {
        None => Ok(count),
        Some(name) => {
            Err(StorageError::Corrupt(format!("chunk {name} does not match its hash")).into())
        }
    }
}
