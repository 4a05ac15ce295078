//! Who uses which grant where. Entries of a log use one grant for long stretches, so one row for each stretch tells all. The
//! head below a stretch is kept for ever, since what counts may end there.

use crate::error::corrupt;
use crate::id::Seq;
use crate::ledger::Ledger;
use crate::past::Place;
use crate::rows::{GrantNo, branch_key, key32, membership_key, split_branch_key};
use crate::storage::{Order, ReadTx, StorageError, Table};
use std::ops::ControlFlow;

/// Notes that the entry at that place, the next one of its branch, uses `grant` (0: genesis).
pub(crate) fn note(
    ledger: &mut Ledger<'_>,
    (branch, seq): Place,
    grant: GrantNo,
) -> Result<(), StorageError> {
    let row = ledger.branch(branch)?;
    let first = row.tip.seq == row.base_seq();
    if !first && row.grant == grant {
        return Ok(());
    }
    if !first {
        ledger.pin(branch, seq - 1)?;
    }
    let used = [&membership_key::used(grant)[..], &branch_key(branch, seq)].concat();
    ledger.tx.put(Table::Membership, &used, &[])?;
    ledger.tx.put(Table::Membership, &membership_key::stint(branch, seq), &key32(grant))
}

/// Where stretches that use a grant begin.
pub(crate) fn of_grant(tx: &dyn ReadTx, grant: GrantNo) -> Result<Vec<Place>, StorageError> {
    let prefix = membership_key::used(grant);
    let mut places = Vec::new();
    tx.scan(Table::Membership, &prefix, None, Order::Ascending, &mut |key, _| match key
        .strip_prefix(&prefix[..])
    {
        Some(place) => {
            places.push(split_branch_key(place));
            ControlFlow::Continue(())
        }
        None => ControlFlow::Break(()),
    })?;
    places.into_iter().collect()
}

/// Where the stretch ends that begins at that place; `tip` is the last of its branch.
pub(crate) fn end(tx: &dyn ReadTx, (branch, from): Place, tip: Seq) -> Result<Seq, StorageError> {
    let (from, to) =
        (membership_key::stint(branch, from + 1), membership_key::stint(branch, tip + 1));
    let mut next = None;
    tx.keys(Table::Membership, &from, Some(&to), &mut |key| {
        next = Some(key.to_vec());
        ControlFlow::Break(())
    })?;
    match next {
        None => Ok(tip),
        Some(key) => {
            let place = key.get(1..).ok_or_else(|| corrupt("a key"))?;
            Ok(split_branch_key(place)?.1 - 1)
        }
    }
}
