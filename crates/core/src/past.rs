//! Whether a grant lies in an entry's past (I4). Nearly always the first look tells; else the past is searched downwards,
//! each place once, no lower than the grant's generation. What a search found is noted, so that nobody can have the same
//! ground searched again with every entry.

use crate::id::Seq;
use crate::ledger::Ledger;
use crate::rows::{BranchNo, GrantNo, GrantRow, key32};
use crate::storage::{StorageError, Table};
use std::collections::BTreeMap;

type Place = (BranchNo, Seq);

/// A place to look at, and the place that names it as a parent.
struct Step {
    place: Place,
    named_by: Option<Place>,
}

/// Whether the entry that made `grant` is at or below one of `below`.
pub(crate) fn sees(
    ledger: &mut Ledger<'_>,
    below: &[Place],
    number: GrantNo,
    grant: &GrantRow,
) -> Result<bool, StorageError> {
    let mut searched: BTreeMap<BranchNo, Seq> = BTreeMap::new();
    let first = |&place: &Place| Step { place, named_by: None };
    let mut open: Vec<Step> = below.iter().map(first).collect();
    while let Some(Step { place, named_by }) = open.pop() {
        if walk(ledger, place, number, grant, &mut searched, &mut open)? {
            if let Some(place) = named_by {
                note(ledger, number, place)?;
            }
            return Ok(true);
        }
    }
    Ok(false)
}

/// Walks down the line of one log, from branch to base, and opens the parents met on the way. Returns whether the grant
/// is known to be at or below `top`.
fn walk(
    ledger: &mut Ledger<'_>,
    (mut branch, mut top): Place,
    number: GrantNo,
    grant: &GrantRow,
    searched: &mut BTreeMap<BranchNo, Seq>,
    open: &mut Vec<Step>,
) -> Result<bool, StorageError> {
    loop {
        if branch == grant.branch && grant.seq <= top
            || noted(ledger, number, branch)?.is_some_and(|seq| seq <= top)
        {
            return Ok(true);
        }
        let base = ledger.branch(branch)?.base;
        let seen = searched.insert(branch, top).unwrap_or(0);
        let floor = seen.max(base.map_or(0, |(_, seq)| seq));
        for at in (floor + 1..=top).rev() {
            let body = ledger.view().entry_row(branch, at)?.body;
            if body.generation <= grant.generation {
                return Ok(false);
            }
            let named_by = Some((branch, at));
            open.extend(body.parents.iter().map(|p| Step { place: (p.log, p.seq), named_by }));
        }
        // Whatever is further down was looked at when this branch was first.
        searched.insert(branch, top.max(seen));
        match base {
            Some(base) if seen == 0 => (branch, top) = base,
            _ => return Ok(false),
        }
    }
}

/// Under the listings by subject, whose keys begin with lower numbers: grant, branch → the first place known to see it.
fn key(number: GrantNo, branch: BranchNo) -> Vec<u8> {
    [&[4][..], &key32(number), &key32(branch)].concat()
}

fn noted(
    ledger: &Ledger<'_>,
    number: GrantNo,
    branch: BranchNo,
) -> Result<Option<Seq>, StorageError> {
    let bytes = ledger.tx.get(Table::GrantBySubject, &key(number, branch))?;
    let seq = bytes.map(|bytes| bytes.try_into().map(u64::from_be_bytes));
    seq.transpose().map_err(|_| crate::error::corrupt("a note on a grant"))
}

fn note(
    ledger: &mut Ledger<'_>,
    number: GrantNo,
    (branch, seq): Place,
) -> Result<(), StorageError> {
    if noted(ledger, number, branch)?.is_none_or(|known| seq < known) {
        ledger.tx.put(Table::GrantBySubject, &key(number, branch), &seq.to_be_bytes())?;
    }
    Ok(())
}
