//! Which grants count and what of their use does. A grant counts if its entry does; an entry counts if the grant it uses
//! counts and every revocation of that which counts leaves the entry. Rank makes that well-founded: whatever a grant's standing
//! depends on ranks higher, so grants are judged from the highest rank down, and a change goes downwards only.
//!
//! A device that gives its own grant up does that with the grant itself, so such revocations are judged by the others alone.

use crate::error::corrupt;
use crate::id::Seq;
use crate::ledger::Ledger;
use crate::limits;
use crate::past::{self, Place, Sought};
use crate::rows::{
    BranchNo, GrantNo, GrantRow, Rank, RevocationNo, RevocationRow, Row, key32, last4,
    membership_key,
};
use crate::sabotage::{self, Bug};
use crate::storage::{Order, ReadTx, StorageError, Table};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

/// How a grant stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Whether the entry that made it counts.
    pub(crate) counts: bool,
    /// The revocations of it that count.
    pub(crate) ended: Vec<Ended>,
}

/// A revocation that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ended {
    by: RevocationNo,
    resigned: bool,
    /// It follows from what a person's device told. Of several such the one counts that leaves most: none of those devices is to
    /// undo what another one left.
    told: bool,
}

impl Standing {
    /// Whether an entry that is made now may use the grant.
    fn holds(&self) -> bool {
        self.counts && self.ended.is_empty()
    }

    /// Whether an entry at that place that uses the grant counts. `resigns`: by it the holder gives the grant up.
    pub(crate) fn leaves(
        &self,
        tx: &dyn ReadTx,
        (branch, seq): Place,
        resigns: bool,
    ) -> Result<bool, StorageError> {
        if !self.counts {
            return Ok(false);
        }
        Ok(self.cut(tx, branch, resigns)? >= seq)
    }

    /// The last place of a branch that what ended the grant leaves, whether it counts or not; but for resignations, if so said.
    fn cut(
        &self,
        tx: &dyn ReadTx,
        branch: BranchNo,
        but_resigned: bool,
    ) -> Result<Seq, StorageError> {
        let (mut least, mut told) = (Seq::MAX, None);
        for end in self.ended.iter().filter(|end| !(but_resigned && end.resigned)) {
            let left = left(tx, end.by, branch)?;
            if end.told {
                told = told.max(Some(left));
            } else {
                least = least.min(left);
            }
        }
        Ok(told.map_or(least, |told| least.min(told)))
    }

    /// As [`Self::last`] for all branches where there is one. Not for a grant that holds.
    pub(crate) fn all_last(
        &self,
        tx: &dyn ReadTx,
    ) -> Result<BTreeMap<BranchNo, Seq>, StorageError> {
        let mut last = BTreeMap::new();
        if !self.counts {
            return Ok(last);
        }
        // What one of them leaves nothing of is not left at all, if it was not told.
        let strict = self.ended.iter().position(|end| !end.told);
        let which = strict.map_or(&self.ended[..], |at| &self.ended[at..=at]);
        for end in which {
            for (branch, _) in all_left(tx, end.by)? {
                last.insert(branch, self.last(tx, branch)?);
            }
        }
        Ok(last)
    }

    /// The places of entries by which the holder gave the grant up.
    pub(crate) fn resignations(&self, tx: &dyn ReadTx) -> Result<Vec<Place>, StorageError> {
        let resigned = self.ended.iter().filter(|end| end.resigned);
        resigned.map(|end| revocation(tx, end.by).map(|r| (r.branch, r.seq))).collect()
    }

    /// The last place of a branch whose entry may use the grant and count; 0: none does.
    pub(crate) fn last(&self, tx: &dyn ReadTx, branch: BranchNo) -> Result<Seq, StorageError> {
        if !self.counts {
            return Ok(0);
        }
        self.cut(tx, branch, false)
    }
}

/// The last place of `branch` that a revocation leaves; 0: it leaves nothing there.
fn left(tx: &dyn ReadTx, number: RevocationNo, branch: BranchNo) -> Result<Seq, StorageError> {
    let bytes = tx.get(Table::Membership, &membership_key::left(number, branch))?;
    let seq = bytes.map(|bytes| bytes.try_into().map(u64::from_be_bytes)).transpose();
    let seq = seq.map(Option::unwrap_or_default).map_err(|_| corrupt("a cut"))?;
    Ok(match seq {
        _ if sabotage::is(Bug::CutIgnored) => Seq::MAX,
        seq if sabotage::is(Bug::CutOffByOne) => seq.saturating_sub(1),
        seq => seq,
    })
}

/// The last places of all branches of which a revocation leaves something.
pub(crate) fn all_left(tx: &dyn ReadTx, number: RevocationNo) -> Result<Vec<Place>, StorageError> {
    let prefix = membership_key::left(number, 0);
    let prefix = &prefix[..prefix.len() - 4];
    let mut places = Vec::new();
    tx.scan(Table::Membership, prefix, None, Order::Ascending, &mut |key, value| {
        if !key.starts_with(prefix) {
            return ControlFlow::Break(());
        }
        let seq = value.try_into().map(u64::from_be_bytes).map_err(|_| corrupt("a cut"));
        places.push(last4(key).and_then(|branch| Ok((branch, seq?))));
        ControlFlow::Continue(())
    })?;
    places.into_iter().collect()
}

/// The revocations that the entry at that place made.
pub(crate) fn made_at(tx: &dyn ReadTx, place: Place) -> Result<Vec<RevocationNo>, StorageError> {
    listed(tx, Table::Membership, &membership_key::made_at(place.0, place.1))
}

pub(crate) fn revocation(
    tx: &dyn ReadTx,
    number: RevocationNo,
) -> Result<RevocationRow, StorageError> {
    RevocationRow::get(tx, &membership_key::revocation(number))?
        .ok_or_else(|| corrupt("a revocation"))
}

/// The numbers that end the keys of a table that begin with `prefix`.
pub(crate) fn listed(
    tx: &dyn ReadTx,
    table: Table,
    prefix: &[u8],
) -> Result<Vec<u32>, StorageError> {
    let mut numbers = Vec::new();
    tx.scan(table, prefix, None, Order::Ascending, &mut |key, _| {
        if !key.starts_with(prefix) {
            return ControlFlow::Break(());
        }
        numbers.push(last4(key));
        ControlFlow::Continue(())
    })?;
    numbers.into_iter().collect()
}

/// The revocations that name a grant.
pub(crate) fn against(
    tx: &dyn ReadTx,
    grant: GrantNo,
) -> Result<Vec<(RevocationNo, RevocationRow)>, StorageError> {
    let numbers = listed(tx, Table::Membership, &membership_key::against(grant))?;
    numbers.into_iter().map(|number| Ok((number, revocation(tx, number)?))).collect()
}

/// How a grant stands as its row says.
pub(crate) fn stored(
    tx: &dyn ReadTx,
    number: GrantNo,
    row: &GrantRow,
) -> Result<Standing, StorageError> {
    let mut ended = Vec::new();
    if row.ended > 0 {
        let counting = against(tx, number)?.into_iter().filter(|(_, row)| row.counts);
        ended.extend(counting.map(|(by, row)| Ended {
            by,
            resigned: row.resigns(),
            told: row.is_told(),
        }));
    }
    Ok(Standing { counts: row.counts, ended })
}

/// Judges a grant by how those that rank higher stand.
fn judge(
    tx: &dyn ReadTx,
    row: &GrantRow,
    revocations: &[(RevocationNo, RevocationRow)],
    mut above: impl FnMut(GrantNo) -> Result<Standing, StorageError>,
) -> Result<Standing, StorageError> {
    let counts = row.depth == 0 || above(row.used)?.leaves(tx, (row.branch, row.seq), false)?;
    let mut standing = Standing { counts, ended: Vec::new() };
    for (by, r) in revocations.iter().filter(|(_, r)| !r.resigns()) {
        if above(r.used)?.leaves(tx, (r.branch, r.seq), false)? {
            standing.ended.push(Ended { by: *by, resigned: false, told: r.is_told() });
        }
    }
    let others = standing.clone();
    for (by, r) in revocations.iter().filter(|(_, r)| r.resigns()) {
        if others.leaves(tx, (r.branch, r.seq), true)? {
            standing.ended.push(Ended { by: *by, resigned: true, told: false });
        }
    }
    standing.ended.sort_by_key(|end| end.by);
    Ok(standing)
}

impl Ledger<'_> {
    /// Whether somebody ended a grant by an operation of his own, and that counts.
    pub(crate) fn is_revoked_by_hand(&mut self, number: GrantNo) -> Result<bool, StorageError> {
        Ok(self.standing(number)?.ended.iter().any(|end| !end.told))
    }

    /// How a grant stands now.
    pub(crate) fn standing(&mut self, number: GrantNo) -> Result<Standing, StorageError> {
        let row = self.grant_row(number)?;
        stored(&*self.tx, number, &row)
    }

    /// Whether an entry at that place that uses the grant of that number (0: genesis) counts.
    pub(crate) fn counts(
        &mut self,
        grant: GrantNo,
        place: Place,
        resigns: bool,
    ) -> Result<bool, StorageError> {
        if grant == 0 || self.counters.revocations == 0 {
            return Ok(true);
        }
        let row = self.grant_row(grant)?;
        if row.holds() {
            return Ok(true);
        }
        if sabotage::is(Bug::RegrantRevives) {
            let device = self.branch(place.0)?.log.device;
            if self.view().strongest(&device)?.is_some() {
                return Ok(true);
            }
        }
        stored(&*self.tx, grant, &row)?.leaves(&*self.tx, place, resigns)
    }

    /// Whether the grant may be used by an entry on top of `below`, as far as the past of that tells.
    ///
    /// Cost: a look-up a grant up to the first one, if nobody revoked any of these; else some for each revocation that
    /// bears on it.
    pub(crate) fn holds_below(
        &mut self,
        below: &[Place],
        number: GrantNo,
    ) -> Result<bool, StorageError> {
        if self.counters.revocations == 0 || !self.is_contested(number)? {
            return Ok(true);
        }
        if sabotage::is(Bug::RightsAsOfNow) {
            return Ok(self.grant_row(number)?.holds());
        }
        let mut grants: BTreeMap<Rank, GrantNo> = BTreeMap::new();
        let mut revocations: BTreeMap<GrantNo, Vec<(RevocationNo, RevocationRow)>> =
            BTreeMap::new();
        let mut open = vec![number];
        while let Some(number) = open.pop() {
            let row = self.grant_row(number)?;
            if grants.insert(row.rank(), number).is_some() {
                continue;
            }
            if row.depth > 0 {
                open.push(row.used);
            }
            if row.revocations == 0 {
                continue;
            }
            for (by, r) in against(&*self.tx, number)? {
                if past::sees(self, below, Sought::revocation(by, &r))? {
                    open.push(r.used);
                    revocations.entry(number).or_default().push((by, r));
                }
            }
        }
        let mut standings: BTreeMap<GrantNo, Standing> = BTreeMap::new();
        for number in grants.into_values() {
            let row = self.grant_row(number)?;
            let known = |number| standings.get(&number).cloned().ok_or_else(|| corrupt("a rank"));
            let revocations = revocations.get(&number).map_or(&[][..], Vec::as_slice);
            let standing = judge(&*self.tx, &row, revocations, known)?;
            standings.insert(number, standing);
        }
        Ok(standings.get(&number).is_some_and(Standing::holds))
    }

    /// Whether anybody revoked the grant or one that it comes from.
    fn is_contested(&mut self, mut number: GrantNo) -> Result<bool, StorageError> {
        // No deeper than grants can be: damaged rows must not lead round in a circle.
        for _ in 0..=limits::DELEGATION_DEPTH {
            let row = self.grant_row(number)?;
            if row.revocations > 0 {
                return Ok(true);
            }
            if row.depth == 0 {
                return Ok(false);
            }
            number = row.used;
        }
        Err(corrupt("a grant"))
    }

    /// A revocation of `target` was recorded: judges that again and whatever depends on it. What stood differently before is
    /// noted for [`crate::recount`].
    ///
    /// Cost: some look-ups for each grant that was made with one whose standing changes.
    pub(crate) fn judge_again(&mut self, target: GrantNo) -> Result<(), StorageError> {
        let mut open: BTreeSet<(Rank, GrantNo)> = BTreeSet::new();
        open.insert((self.grant_row(target)?.rank(), target));
        while let Some((_, number)) = open.pop_first() {
            let mut row = self.grant_row(number)?;
            let revocations = against(&*self.tx, number)?;
            let before = stored(&*self.tx, number, &row)?;
            let tx = &*self.tx;
            let now = judge(tx, &row, &revocations, |number| {
                let row = GrantRow::get(tx, &key32(number))?.ok_or_else(|| corrupt("a grant"))?;
                stored(tx, number, &row)
            })?;
            for (by, mut r) in revocations {
                let counts = now.ended.iter().any(|end| end.by == by);
                if counts != r.counts {
                    r.counts = counts;
                    r.put(self.tx, &membership_key::revocation(by))?;
                    super::sum_revocation(self, &r)?;
                }
            }
            if now == before {
                continue;
            }
            if now.counts != before.counts {
                row.counts = now.counts;
                super::sum_grant(self, &row)?;
            }
            row.ended = now.ended.len() as u32;
            self.put_grant(number, row)?;
            self.judged(number, before);
            let made = super::made_with(number);
            for made in listed(&*self.tx, Table::GrantBySubject, &made)? {
                if made != number && !sabotage::is(Bug::GrantOutlivesItsOwn) {
                    open.insert((self.grant_row(made)?.rank(), made));
                }
            }
            for by in listed(&*self.tx, Table::Membership, &membership_key::made_with(number))? {
                let target = revocation(&*self.tx, by)?.target;
                if target != number {
                    open.insert((self.grant_row(target)?.rank(), target));
                }
            }
        }
        Ok(())
    }
}
