//! Whether something lies in an entry's past (I4). Nearly always the first look tells; else the past is searched downwards,
//! each place once, no lower than what is looked for. What a search found is noted, so that nobody can have the same ground
//! searched again with every entry.

use crate::error::corrupt;
use crate::id::Seq;
use crate::ledger::Ledger;
use crate::rows::{BranchNo, GrantNo, GrantRow, RevocationNo, RevocationRow, membership_key};
use crate::storage::{StorageError, Table};
use std::collections::BTreeMap;

pub(crate) type Place = (BranchNo, Seq);

/// What is looked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sought {
    place: Place,
    generation: u64,
    /// Under what it is noted who sees it, if at all.
    note: Option<Note>,
}

#[derive(Debug, Clone, Copy)]
enum Note {
    Grant(GrantNo),
    Revocation(RevocationNo),
}

impl Sought {
    pub(crate) fn grant(number: GrantNo, row: &GrantRow) -> Self {
        let (place, generation) = ((row.branch, row.seq), row.generation);
        Self { place, generation, note: Some(Note::Grant(number)) }
    }

    pub(crate) fn revocation(number: RevocationNo, row: &RevocationRow) -> Self {
        let (place, generation) = ((row.branch, row.seq), row.generation);
        Self { place, generation, note: Some(Note::Revocation(number)) }
    }

    /// Any entry; nothing is noted.
    pub(crate) fn entry(place: Place, generation: u64) -> Self {
        Self { place, generation, note: None }
    }

    fn key(&self, branch: BranchNo) -> Option<Vec<u8>> {
        Some(match self.note? {
            Note::Grant(number) => membership_key::seen_grant(number, branch),
            Note::Revocation(number) => membership_key::seen(number, branch),
        })
    }
}

/// What is known of who sees it, along a branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    /// Up to here nobody does.
    not: Seq,
    /// From here on everybody does.
    from: Seq,
}

/// A place to look at, and the place that names it as a parent.
struct Step {
    place: Place,
    named_by: Option<Place>,
}

/// Whether what is `sought` is at or below one of `below`.
pub(crate) fn sees(
    ledger: &mut Ledger<'_>,
    below: &[Place],
    sought: Sought,
) -> Result<bool, StorageError> {
    let mut searched: BTreeMap<BranchNo, Seq> = BTreeMap::new();
    let first = |&place: &Place| Step { place, named_by: None };
    let mut open: Vec<Step> = below.iter().map(first).collect();
    while let Some(Step { place, named_by }) = open.pop() {
        if walk(ledger, place, sought, &mut searched, &mut open)? {
            if let Some((branch, seq)) = named_by {
                note(ledger, sought, branch, |known| known.from = known.from.min(seq))?;
            }
            return Ok(true);
        }
    }
    for &(branch, seq) in below {
        note(ledger, sought, branch, |known| known.not = known.not.max(seq))?;
    }
    Ok(false)
}

/// Walks down the line of one log, from branch to base, and opens the parents met on the way. Returns whether what is sought
/// is known to be at or below `top`.
fn walk(
    ledger: &mut Ledger<'_>,
    (mut branch, mut top): Place,
    sought: Sought,
    searched: &mut BTreeMap<BranchNo, Seq>,
    open: &mut Vec<Step>,
) -> Result<bool, StorageError> {
    loop {
        let known = noted(ledger, sought, branch)?;
        if branch == sought.place.0 && sought.place.1 <= top || known.from <= top {
            return Ok(true);
        }
        let base = ledger.branch(branch)?.base;
        let before = searched.insert(branch, top).unwrap_or(0);
        let seen = before.max(known.not);
        let floor = seen.max(base.map_or(0, |(_, seq)| seq));
        for at in (floor + 1..=top).rev() {
            let body = ledger.view().entry_row(branch, at)?.body;
            if body.generation <= sought.generation {
                return Ok(false);
            }
            let named_by = Some((branch, at));
            open.extend(body.parents.iter().map(|p| Step { place: (p.log, p.seq), named_by }));
        }
        // Whatever is further down was looked at when this branch was first.
        searched.insert(branch, top.max(before));
        match base {
            Some(base) if seen == 0 => (branch, top) = base,
            _ => return Ok(false),
        }
    }
}

/// How far each branch in `wanted` lies at or below `below`, as far as any of it does. Searched no lower than `generation`.
///
/// Cost: what was written above that generation, at most once, until all is found.
pub(crate) fn reach(
    ledger: &mut Ledger<'_>,
    below: &[Place],
    wanted: &BTreeMap<BranchNo, Seq>,
    generation: u64,
) -> Result<BTreeMap<BranchNo, Seq>, StorageError> {
    let mut reached: BTreeMap<BranchNo, Seq> = BTreeMap::new();
    let mut open: Vec<Place> = below.to_vec();
    let mut lacking = wanted.len();
    while let Some((branch, top)) = open.pop() {
        let base = ledger.branch(branch)?.base;
        let floor = base.map_or(0, |(_, seq)| seq);
        let before = reached.get(&branch).copied();
        if before.is_some_and(|seq| seq >= top) {
            continue;
        }
        reached.insert(branch, top);
        // A tip cannot be topped, so when all are reached there is nothing left to find.
        if wanted.get(&branch) == Some(&top) {
            lacking -= 1;
            if lacking == 0 {
                break;
            }
        }
        if before.is_none() {
            open.extend(base);
        }
        for at in (before.unwrap_or(0).max(floor) + 1..=top).rev() {
            let body = ledger.view().entry_row(branch, at)?.body;
            open.extend(body.parents.iter().map(|p| (p.log, p.seq)));
            if body.generation <= generation {
                break;
            }
        }
    }
    reached.retain(|branch, _| wanted.contains_key(branch));
    Ok(reached)
}

fn noted(ledger: &Ledger<'_>, sought: Sought, branch: BranchNo) -> Result<Known, StorageError> {
    const NOTHING: Known = Known { not: 0, from: Seq::MAX };
    let Some(key) = sought.key(branch) else { return Ok(NOTHING) };
    let Some(bytes) = ledger.tx.get(Table::Membership, &key)? else { return Ok(NOTHING) };
    let (Some(not), Some(from)) = (bytes.first_chunk(), bytes.last_chunk()) else {
        return Err(corrupt("a note on who sees what"));
    };
    Ok(Known { not: Seq::from_be_bytes(*not), from: Seq::from_be_bytes(*from) })
}

fn note(
    ledger: &mut Ledger<'_>,
    sought: Sought,
    branch: BranchNo,
    change: impl FnOnce(&mut Known),
) -> Result<(), StorageError> {
    let Some(key) = sought.key(branch) else { return Ok(()) };
    let before = noted(ledger, sought, branch)?;
    let mut now = before;
    change(&mut now);
    if now != before {
        let bytes = [now.not.to_be_bytes(), now.from.to_be_bytes()].concat();
        ledger.tx.put(Table::Membership, &key, &bytes)?;
    }
    Ok(())
}
