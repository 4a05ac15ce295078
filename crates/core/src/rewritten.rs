//! Entries of a device that do not count, since its right was revoked before it heard of that, and which of them it wrote again
//! after it was let in once more. What was written again is noted in rows of this replica alone, or it would be done twice.

use crate::entry::Entry;
use crate::error::{Error, corrupt};
use crate::id::{LogId, NodeId, Seq};
use crate::ledger::Ledger;
use crate::membership::{standing, stints};
use crate::ops::Subject;
use crate::past::Place;
use crate::rows::{BranchNo, branch_key, split_branch_key, subject_key};
use crate::storage::{Order, ReadTx, StorageError, Table};
use crate::view::{Located, View};
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// Keys of [`Table::Local`]: this, then branch and place of the first of a stretch that was written again → its last.
const REWRITTEN: &[u8] = b"rewritten/";

/// Entries of a branch, from one place to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stretch {
    branch: BranchNo,
    first: Seq,
    last: Seq,
}

/// An entry that does not count and was not written again.
#[derive(Debug, Clone)]
pub struct Uncounted {
    place: Place,
    /// It.
    pub entry: Entry,
}

impl View<'_> {
    /// How many entries that `device` wrote do not count and were not written again. Cost: some look-ups for each grant that it was
    /// given, and for each stretch.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn uncounted_by(&self, device: &NodeId) -> Result<u64, StorageError> {
        let left = self.uncounted_stretches(device)?;
        Ok(left.iter().map(|stretch| stretch.last - stretch.first + 1).sum())
    }

    /// At most `most` of them, in the order in which they were written.
    ///
    /// # Errors
    /// [`StorageError`]; damage is noticed by the hash.
    pub fn uncounted(&self, device: &NodeId, most: usize) -> Result<Vec<Uncounted>, Error> {
        let mut found = Vec::new();
        for Stretch { branch, first, last } in self.uncounted_stretches(device)? {
            for seq in first..=last {
                if found.len() >= most {
                    return Ok(found);
                }
                let entry = self.entry_of(Located { branch, row: self.entry_row(branch, seq)? })?;
                found.push(Uncounted { place: (branch, seq), entry });
            }
        }
        Ok(found)
    }

    /// Where each log of `device` ends. Cost: a step a log.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn ends_of(&self, device: &NodeId) -> Result<BTreeMap<LogId, Seq>, StorageError> {
        let mut ends: BTreeMap<LogId, Seq> = BTreeMap::new();
        self.each_branch(|_, branch| {
            if branch.log.device == *device {
                let end = ends.entry(branch.log).or_default();
                *end = branch.tip.seq.max(*end);
            }
        })?;
        Ok(ends)
    }

    fn uncounted_stretches(&self, device: &NodeId) -> Result<Vec<Stretch>, StorageError> {
        let mut stretches = Vec::new();
        for number in self.grant_numbers(&subject_key(&Subject::Device(*device)))? {
            let row = self.grant(number)?;
            if row.holds() {
                continue;
            }
            let standing = standing::stored(self.tables(), number, &row)?;
            for (branch, from) in stints::of_grant(self.tables(), number)? {
                let tip = self.branch(branch)?.tip.seq;
                let last = stints::end(self.tables(), (branch, from), tip)?;
                let first = from.max(standing.last(self.tables(), branch)?.saturating_add(1));
                let done = rewritten(self.tables(), branch)?;
                let left = without(Stretch { branch, first, last }, &done);
                for stretch in left {
                    stretches.push((self.arrival(branch, stretch.first)?, stretch));
                }
            }
        }
        stretches.sort_unstable_by_key(|(arrival, _)| *arrival);
        Ok(stretches.into_iter().map(|(_, stretch)| stretch).collect())
    }
}

/// What is left of a stretch without those, which ascend.
fn without(stretch: Stretch, done: &[(Seq, Seq)]) -> Vec<Stretch> {
    let Stretch { branch, mut first, last } = stretch;
    let mut left = Vec::new();
    for (from, to) in done {
        if first < *from && first <= last {
            left.push(Stretch { branch, first, last: last.min(from - 1) });
        }
        first = first.max(to.saturating_add(1));
    }
    if first <= last {
        left.push(Stretch { branch, first, last });
    }
    left
}

/// What was written again of a branch, ascending.
fn rewritten(tx: &dyn ReadTx, branch: BranchNo) -> Result<Vec<(Seq, Seq)>, StorageError> {
    let prefix = [REWRITTEN, &branch.to_be_bytes()].concat();
    let (mut found, mut failed) = (Vec::new(), false);
    tx.scan(Table::Local, &prefix, None, Order::Ascending, &mut |key, row| {
        if !key.starts_with(&prefix) {
            return ControlFlow::Break(());
        }
        match (split_branch_key(&key[REWRITTEN.len()..]), row.try_into().map(Seq::from_be_bytes)) {
            (Ok((_, first)), Ok(last)) if first <= last => found.push((first, last)),
            _ => failed = true,
        }
        ControlFlow::Continue(())
    })?;
    if failed { Err(corrupt("what was written again")) } else { Ok(found) }
}

impl Ledger<'_> {
    /// What there is so far, this transaction's entries included.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn so_far(&mut self) -> Result<View<'_>, StorageError> {
        self.flush_branches()?;
        Ok(self.view())
    }

    /// Notes that an entry was written again, or that there is nothing to write.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn note_rewritten(&mut self, uncounted: &Uncounted) -> Result<(), StorageError> {
        let (branch, seq) = uncounted.place;
        let done = rewritten(&*self.tx, branch)?;
        let before = done.iter().find(|(_, last)| last.checked_add(1) == Some(seq));
        let first = before.map_or(seq, |(first, _)| *first);
        let key = [REWRITTEN, &branch_key(branch, first)[..]].concat();
        self.tx.put(Table::Local, &key, &seq.to_be_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_of_a_stretch_is_what_lies_between() {
        let left = |first, last, done: &[(Seq, Seq)]| {
            let stretch = Stretch { branch: 1, first, last };
            without(stretch, done).iter().map(|s| (s.first, s.last)).collect::<Vec<_>>()
        };
        assert_eq!(left(3, 9, &[]), [(3, 9)]);
        assert_eq!(left(3, 9, &[(1, 2), (10, 12)]), [(3, 9)]);
        assert_eq!(left(3, 9, &[(1, 4), (6, 6)]), [(5, 5), (7, 9)]);
        assert_eq!(left(3, 9, &[(3, 9)]), []);
        assert_eq!(left(3, 9, &[(2, 20)]), []);
        assert_eq!(left(5, 4, &[]), []);
    }
}
