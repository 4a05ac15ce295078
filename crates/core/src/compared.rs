//! What of each branch peers compare and exchange: what counts, and what that builds on. The rest of a branch is held and
//! stays where it is, so that nobody has to fetch what a revoked device goes on writing. What is left out is an end of a
//! branch, since whatever comes after something builds on it.
//!
//! Entries that count make what they build on needed one by one. When entries cease to count, all is looked at again, once a
//! transaction.

use crate::entry::{Entry, StoreId};
use crate::frontier::tip_element;
use crate::id::{LogId, Position, Seq};
use crate::ledger::Ledger;
use crate::lthash::LtHash;
use crate::membership::{standing, stints};
use crate::past::Place;
use crate::rows::{BranchNo, Counters, EntryRow, GrantNo, Outline, StoreNo, Tip};
use crate::storage::{Order, ReadTx, StorageError, Table};
use crate::view::View;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

/// Why a place is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    /// An entry that is needed names it as a parent, or a branch that is needed leaves there.
    Successor,
    /// It counts itself.
    Itself,
    /// A cut lists it.
    Cut,
}

impl Ledger<'_> {
    /// The entry at the tip of `branch` was added and counts: it is needed, and so is what it builds on.
    pub(crate) fn need(
        &mut self,
        entry: &Entry,
        branch: BranchNo,
        parents: &[BranchNo],
    ) -> Result<(), StorageError> {
        let header = entry.header();
        for (parent, &number) in header.parents.iter().zip(parents) {
            self.need_place((number, parent.seq), By::Successor)?;
        }
        let row = self.branch(branch)?;
        let (base, first) = (row.base, row.base_seq() + 1 == header.seq);
        if let Some(base) = base.filter(|_| first) {
            self.need_place(base, By::Successor)?;
        }
        self.need_place((branch, header.seq), By::Itself)
    }

    /// The entry at the tip of `branch` was added and does not count: nobody needs it so far.
    pub(crate) fn need_not(&mut self, branch: BranchNo, prev: Tip) -> Result<(), StorageError> {
        if self.branch(branch)?.cut.is_none() {
            self.cut_at(branch, Some(prev))?;
        }
        Ok(())
    }

    /// A cut that counts or is needed lists that place.
    pub(crate) fn need_listed(&mut self, place: Place) -> Result<(), StorageError> {
        self.need_place(place, By::Cut)
    }

    fn need_place(&mut self, place: Place, by: By) -> Result<(), StorageError> {
        if self.anew.is_some() {
            return Ok(());
        }
        let mut open = vec![(place, by)];
        while let Some(((branch, seq), by)) = open.pop() {
            let row = self.branch(branch)?;
            let (cut, tip, base) = (row.cut, row.tip, row.base);
            let needed = cut.unwrap_or(tip);
            if let Some(cut) = cut.filter(|cut| cut.seq < seq) {
                let first = cut.seq.max(base.map_or(0, |(_, at)| at)) + 1;
                open.extend(self.builds_on((branch, first), seq)?);
                let id = self.view().entry_id(branch, seq)?;
                self.cut_at(branch, (seq < tip.seq).then_some(Tip { seq, id }))?;
                self.set_uncovered(branch, by != By::Successor)?;
            } else if needed.seq == seq {
                match by {
                    By::Successor => self.set_uncovered(branch, false)?,
                    By::Itself if cut.is_none() && tip.seq == seq => {
                        self.set_uncovered(branch, true)?;
                    }
                    By::Itself | By::Cut => {}
                }
            }
        }
        Ok(())
    }

    /// What the entries of a branch from one place to another build on, apart from each other.
    fn builds_on(
        &self,
        (branch, first): Place,
        last: Seq,
    ) -> Result<Vec<(Place, By)>, StorageError> {
        let mut found = Vec::new();
        let row = self.view().branch(branch)?;
        if let Some(base) = row.base.filter(|(_, at)| at + 1 == first) {
            found.push((base, By::Successor));
        }
        for at in first..=last {
            let row = self.view().entry_row(branch, at)?;
            found.extend(row.body.parents.iter().map(|p| ((p.log, p.seq), By::Successor)));
            for number in standing::made_at(&*self.tx, (branch, at))? {
                let left = standing::all_left(&*self.tx, number)?;
                found.extend(left.into_iter().map(|place| (place, By::Cut)));
            }
        }
        Ok(found)
    }

    /// Changes what of a branch is compared.
    fn cut_at(&mut self, branch: BranchNo, cut: Option<Tip>) -> Result<(), StorageError> {
        let log = self.branch(branch)?.log;
        let before = self.told_of(&log)?;
        self.branch(branch)?.cut = cut;
        let after = self.told_of(&log)?;
        for gone in before.difference(&after) {
            self.frontier_mut().remove(&tip_element(gone));
        }
        for new in after.difference(&before) {
            self.frontier_mut().add(&tip_element(new));
        }
        Ok(())
    }

    /// The tips of a log that peers are told of. Cost: some look-ups a branch.
    fn told_of(&mut self, log: &LogId) -> Result<BTreeSet<Position>, StorageError> {
        let mut told = BTreeSet::new();
        for number in self.branches_of(log)? {
            if let Some(tip) = self.branch(number)?.told()
                && !self.is_covered(number, log, tip.seq)?
            {
                told.insert(Position { log: *log, seq: tip.seq, id: tip.id });
            }
        }
        Ok(told)
    }

    /// Entries from `arrival` on ceased to count or began to: [`Self::compare_anew`] is due.
    pub(crate) fn compare_from(&mut self, arrival: u64) {
        self.anew = Some(self.anew.map_or(arrival, |from| from.min(arrival)));
    }

    /// Works out anew what of each branch is needed, if entries ceased to count or began to.
    ///
    /// Cost: every entry that arrived after the first that does not count, and a step a branch.
    pub(crate) fn compare_anew(&mut self) -> Result<(), StorageError> {
        let Some(from) = self.anew.take() else { return Ok(()) };
        let uncounted = Uncounted::of(&*self.tx, &self.counters)?;
        let first = self.first_uncounted(&uncounted)?;
        let from = first.map_or(from, |first| first.min(from));
        // Whatever is looked up below has to be in the tables.
        self.flush_branches()?;
        let members = self.known_number(&StoreId::members())?;
        let mut need = Need { members, ..Need::default() };
        let mut failed = None;
        let tx = &*self.tx;
        tx.scan(Table::Entry, &from.to_be_bytes(), None, Order::Descending, &mut |_, value| {
            match EntryRow::outline(value).and_then(|row| need.look(tx, &uncounted, &row)) {
                Ok(()) => ControlFlow::Continue(()),
                Err(e) => {
                    failed = Some(e);
                    ControlFlow::Break(())
                }
            }
        })?;
        if let Some(e) = failed {
            return Err(e);
        }
        self.set_needed(&need)
    }

    fn set_needed(&mut self, need: &Need) -> Result<(), StorageError> {
        let mut logs = BTreeSet::new();
        for number in 1..=self.counters.branches {
            let row = self.branch(number)?;
            logs.insert(row.log);
            let (base, tip) = (row.base_seq(), row.tip);
            let lowest = need.lowest.get(&number).copied();
            // What arrived before all that was looked at is needed.
            let last = lowest.map_or(tip.seq, |lowest| lowest - 1);
            let last = need.last.get(&number).map_or(last, |seq| last.max(*seq));
            let cut = if last == tip.seq {
                None
            } else if last <= base {
                Some(Tip { seq: base, id: tip.id })
            } else {
                Some(Tip { seq: last, id: self.view().entry_id(number, last)? })
            };
            self.branch(number)?.cut = cut;
            // Who named what before that is not known, so a place may be named once more than it need be.
            let at = |named: &BTreeMap<BranchNo, Seq>| named.get(&number) == Some(&last);
            if last <= base || at(&need.named) {
                self.set_uncovered(number, false)?;
            } else if lowest.is_some() || at(&need.dropped) {
                self.set_uncovered(number, true)?;
            }
        }
        let mut frontier = LtHash::default();
        for log in logs {
            for tip in self.told_of(&log)? {
                frontier.add(&tip_element(&tip));
            }
        }
        *self.frontier_mut() = frontier;
        Ok(())
    }

    /// Arrival number of the first entry that does not count.
    fn first_uncounted(&mut self, uncounted: &Uncounted) -> Result<Option<u64>, StorageError> {
        let mut lowest: Option<u64> = None;
        for (grant, last) in &uncounted.grants {
            for (branch, from) in stints::of_grant(&*self.tx, *grant)? {
                let tip = self.branch(branch)?.tip.seq;
                let end = stints::end(&*self.tx, (branch, from), tip)?;
                let first = last.get(&branch).map_or(from, |last| from.max(last + 1));
                if first <= end {
                    let arrival = self.view().arrival(branch, first)?;
                    lowest = Some(lowest.map_or(arrival, |lowest| lowest.min(arrival)));
                }
            }
        }
        Ok(lowest)
    }
}

/// What a look at entries, the last first, found out.
#[derive(Default)]
struct Need {
    /// The lowest place that was looked at, by branch.
    lowest: BTreeMap<BranchNo, Seq>,
    /// The last place that is needed, as far as was looked.
    last: BTreeMap<BranchNo, Seq>,
    /// The last place that a needed entry names as a parent or follows as the first of a branch.
    named: BTreeMap<BranchNo, Seq>,
    /// The last place that an entry names which is not needed.
    dropped: BTreeMap<BranchNo, Seq>,
    bases: BTreeMap<BranchNo, Option<Place>>,
    /// The store in which revocations are made.
    members: Option<StoreNo>,
}

fn raise(map: &mut BTreeMap<BranchNo, Seq>, (branch, seq): Place) {
    let highest = map.entry(branch).or_insert(seq);
    *highest = seq.max(*highest);
}

impl Need {
    fn look(
        &mut self,
        tx: &dyn ReadTx,
        uncounted: &Uncounted,
        row: &Outline,
    ) -> Result<(), StorageError> {
        let place = (row.branch, row.seq);
        self.lowest.insert(row.branch, row.seq);
        let mut named: Vec<Place> = row.parents.clone();
        let base = match self.bases.get(&row.branch) {
            Some(base) => *base,
            None => {
                let base = View::new(tx).branch(row.branch)?.base;
                self.bases.insert(row.branch, base);
                base
            }
        };
        named.extend(base.filter(|(_, at)| at + 1 == row.seq));
        let counts = uncounted.counts(row.grant, place);
        if !counts && self.last.get(&row.branch).is_none_or(|last| *last < row.seq) {
            named.into_iter().for_each(|place| raise(&mut self.dropped, place));
            return Ok(());
        }
        raise(&mut self.last, place);
        for place in named {
            raise(&mut self.last, place);
            raise(&mut self.named, place);
        }
        if self.members.is_some_and(|members| row.stores.contains(&members)) {
            for number in standing::made_at(tx, place)? {
                for place in standing::all_left(tx, number)? {
                    raise(&mut self.last, place);
                }
            }
        }
        Ok(())
    }
}

/// Which entries do not count, for whoever looks at many.
#[derive(Debug, Default)]
pub(crate) struct Uncounted {
    /// Grants of whose use not all counts; by branch the last place that does, where there is one.
    grants: BTreeMap<GrantNo, BTreeMap<BranchNo, Seq>>,
    /// Entries by which holders gave grants up; they count whatever other such entries say.
    resigned: BTreeSet<Place>,
}

impl Uncounted {
    /// Cost: a step a grant, if there is any revocation. Memory: as what revocations leave.
    pub(crate) fn of(tx: &dyn ReadTx, counters: &Counters) -> Result<Self, StorageError> {
        let mut uncounted = Self::default();
        if counters.revocations == 0 {
            return Ok(uncounted);
        }
        for number in 1..=counters.grants {
            let row = View::new(tx).grant(number)?;
            if row.holds() {
                continue;
            }
            let standing = standing::stored(tx, number, &row)?;
            uncounted.grants.insert(number, standing.all_last(tx)?);
            uncounted.resigned.extend(standing.resignations(tx)?);
        }
        Ok(uncounted)
    }

    /// Whether the entry at that place counts, which uses the grant of that number (0: genesis).
    pub(crate) fn counts(&self, grant: GrantNo, place: Place) -> bool {
        match self.grants.get(&grant) {
            None => true,
            Some(last) => {
                last.get(&place.0).is_some_and(|last| place.1 <= *last)
                    || self.resigned.contains(&place)
            }
        }
    }
}
