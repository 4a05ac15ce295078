//! What to send: the runs that a peer lacks, in an order in which everything a run builds on goes before it. Cost follows
//! what differs: one look-up a log to start, then one a run.

use crate::entry::Entry;
use crate::error::corrupt;
use crate::frontier::Frontier;
use crate::id::{LogId, NodeId, Position, Seq};
use crate::key::Signature;
use crate::limits;
use crate::names::Names;
use crate::rows::{BranchNo, EntryRow, HeadRow};
use crate::run::Run;
use crate::storage::StorageError;
use crate::view::View;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

/// Whose entries a peer does not want for now, since they come to it from somebody else.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Withhold {
    /// Everybody's.
    pub all: bool,
    /// Those that these devices wrote.
    pub devices: BTreeSet<NodeId>,
}

impl Withhold {
    /// Nobody's: whatever is due goes out.
    pub const NOTHING: &Self = &Self { all: false, devices: BTreeSet::new() };

    fn covers(&self, log: &LogId) -> bool {
        self.all || self.devices.contains(&log.device)
    }
}

/// What one peer is known to hold of this replica's branches: what it told us, and what was sent since.
#[derive(Debug, Clone, Default)]
pub struct Outgoing {
    held: BTreeMap<BranchNo, Seq>,
    /// Branches that may have something to send, by the arrival of their next head.
    due: BinaryHeap<Reverse<(u64, BranchNo)>>,
    /// Those in `due`, where each is once.
    queued: BTreeSet<BranchNo>,
    /// Entries that arrived from here on have not been looked at.
    seen: u64,
    /// Branches with entries that had no head yet when they were looked at, or that nobody needed: signing, and what builds on
    /// them, bring nothing new to look at.
    unsigned: BTreeSet<BranchNo>,
    /// Tips of the peer that are not held here. It is ahead in those logs or has another branch of them; nothing of them
    /// is sent before that is known.
    unknown: BTreeMap<LogId, Vec<Position>>,
    /// Branches of which something is due that is withheld.
    withheld: BTreeSet<BranchNo>,
    /// Those among them of whose tips the peer was not told yet.
    untold: BTreeSet<BranchNo>,
}

impl Outgoing {
    /// Starts from the peer's frontier: everything here that it does not cover is due.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn new(view: View<'_>, peer: &Frontier) -> Result<Self, StorageError> {
        let mut out = Self { seen: view.next_arrival()?, ..Self::default() };
        for position in peer.positions() {
            if !out.note_held(view, position)? {
                out.unknown.entry(position.log).or_default().push(*position);
            }
        }
        let mut branches = Vec::new();
        view.each_branch(|number, branch| {
            if branch.unsigned.0 > 0 || branch.cut.is_some() {
                out.unsigned.insert(number);
            }
            if branch.head.is_some() && !out.waits(&branch.log) {
                branches.push(number);
            }
        })?;
        for number in branches {
            out.queue_rest(view, number)?;
        }
        Ok(out)
    }

    /// A peer whose frontier equals ours: nothing is due until more arrives.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn level(view: View<'_>) -> Result<Self, StorageError> {
        let mut out = Self { seen: view.next_arrival()?, ..Self::default() };
        view.each_branch(|number, branch| {
            if branch.unsigned.0 > 0 || branch.cut.is_some() {
                out.unsigned.insert(number);
            }
            out.held.insert(number, branch.told().map_or(0, |head| head.seq));
        })?;
        Ok(out)
    }

    fn waits(&self, log: &LogId) -> bool {
        self.unknown.contains_key(log)
    }

    /// The peer and we hold different branches of `log`, which part after `common` (`None`: at its start).
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn forked(
        &mut self,
        view: View<'_>,
        log: &LogId,
        common: Option<&Position>,
    ) -> Result<(), StorageError> {
        self.unknown.remove(log);
        if let Some(position) = common {
            self.note_held(view, position)?;
        }
        self.queue_log(view, log)
    }

    /// The peer holds `position` and so everything below it in its log. Returns whether it is held here.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn note_held(&mut self, view: View<'_>, position: &Position) -> Result<bool, StorageError> {
        let Some(mut number) = view.find(position)? else {
            return Ok(false);
        };
        let mut seq = position.seq;
        loop {
            let held = self.held.entry(number).or_insert(0);
            if *held >= seq {
                return Ok(true);
            }
            *held = seq;
            let all = || {
                Ok::<_, StorageError>(
                    seq >= view.branch(number)?.needed().seq
                        || view.next_head(number, seq)?.is_none(),
                )
            };
            if self.withheld.contains(&number) && all()? {
                self.withheld.remove(&number);
                self.untold.remove(&number);
            }
            match view.branch(number)?.base {
                Some(base) => (number, seq) = base,
                None => return Ok(true),
            }
        }
    }

    /// Looks for what arrived or was signed since the last look. Cost: a few look-ups for each stretch of a log that
    /// arrived.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn refresh(&mut self, view: View<'_>) -> Result<(), StorageError> {
        let next = view.next_arrival()?;
        let mut touched = std::mem::take(&mut self.unsigned);
        for number in self.withheld.clone() {
            // Nobody brings what nobody needs any more.
            let branch = view.branch(number)?;
            let held = self.held.get(&number).copied().unwrap_or(0).max(branch.base_seq());
            if branch.cut.is_some() && held >= branch.needed().seq {
                self.withheld.remove(&number);
                self.untold.remove(&number);
                touched.insert(number);
            }
        }
        while self.seen < next {
            let (branch, seq) = view.place_of(self.seen)?;
            touched.insert(branch);
            self.seen += stretch(view, self.seen, next, (branch, seq))?;
        }
        for number in touched {
            let branch = view.branch(number)?;
            if branch.unsigned.0 > 0 || branch.cut.is_some() {
                self.unsigned.insert(number);
            }
            if let Some(list) = self.unknown.remove(&branch.log) {
                self.look_again(view, &branch.log, list)?;
            } else {
                self.queue_rest(view, number)?;
            }
        }
        Ok(())
    }

    /// Tips of the peer that were not held here may have arrived from somebody else.
    fn look_again(
        &mut self,
        view: View<'_>,
        log: &LogId,
        tips: Vec<Position>,
    ) -> Result<(), StorageError> {
        let mut unknown = Vec::new();
        for position in tips {
            if !self.note_held(view, &position)? {
                unknown.push(position);
            }
        }
        if unknown.is_empty() {
            return self.queue_log(view, log);
        }
        self.unknown.insert(*log, unknown);
        Ok(())
    }

    fn queue_log(&mut self, view: View<'_>, log: &LogId) -> Result<(), StorageError> {
        view.branches_of(log)?.into_iter().try_for_each(|number| self.queue_rest(view, number))
    }

    fn queue_rest(&mut self, view: View<'_>, number: BranchNo) -> Result<(), StorageError> {
        let mut base = view.branch(number)?.base;
        while let Some((below, seq)) = base {
            let branch = view.branch(below)?;
            if branch.head.is_none_or(|head| head.seq < seq) {
                // It left a tail of ours that is not signed yet, so that cannot be sent first.
                self.unsigned.insert(number);
                return Ok(());
            }
            base = branch.base;
        }
        let base = view.branch(number)?.base_seq();
        let held = self.held.get(&number).copied().unwrap_or(0).max(base);
        self.queue(view, number, held)
    }

    /// What is above a cut may be needed some time, and nothing that arrives tells of that.
    fn look_again_later(&mut self, number: BranchNo, cut: bool) {
        if cut {
            self.unsigned.insert(number);
        }
    }

    fn queue(&mut self, view: View<'_>, number: BranchNo, after: Seq) -> Result<(), StorageError> {
        let branch = view.branch(number)?;
        self.look_again_later(number, branch.cut.is_some());
        if after < branch.needed().seq
            && let Some((_, head)) = view.next_head(number, after)?
            && self.queued.insert(number)
        {
            self.due.push(Reverse((head.arrival, number)));
        }
        Ok(())
    }

    /// Whether nothing is due.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.due.is_empty()
    }

    /// The next run that the peer lacks; `None` when it has everything that is not withheld. What is returned counts as
    /// sent. What is withheld stays so until the peer holds it or tells its frontier anew.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn next(
        &mut self,
        view: View<'_>,
        withhold: &Withhold,
    ) -> Result<Option<Run>, StorageError> {
        while let Some(Reverse((arrival, number))) = self.due.pop() {
            self.queued.remove(&number);
            let branch = view.branch(number)?;
            let held = self.held.get(&number).copied().unwrap_or(0).max(branch.base_seq());
            if held >= branch.needed().seq {
                self.look_again_later(number, branch.cut.is_some());
                continue;
            }
            // Heads come and go between two looks (never a pinned one), so look again.
            let Some((seq, head)) = view.next_head(number, held)? else {
                continue;
            };
            // Nor does what follows something withheld go out before it.
            if self.withheld.contains(&number) || withhold.covers(&branch.log) {
                self.withheld.insert(number);
                self.untold.insert(number);
                continue;
            }
            if head.arrival > arrival {
                // The run became longer and may build on what comes before its new end.
                self.queue(view, number, held)?;
                continue;
            }
            let run = view.run(number, held, seq, &head)?;
            self.held.insert(number, seq);
            self.queue(view, number, seq)?;
            return Ok(Some(run));
        }
        Ok(None)
    }

    /// Whether something is withheld that the peer lacks, as far as is known.
    #[must_use]
    pub fn withholds(&self) -> bool {
        !self.withheld.is_empty()
    }

    /// Tips of what is withheld, for the peer to be told of: at most `limit`, each once. Cost: one look-up each.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn offers(&mut self, view: View<'_>, limit: usize) -> Result<Vec<Position>, StorageError> {
        let mut offers = Vec::new();
        while offers.len() < limit
            && let Some(number) = self.untold.pop_first()
        {
            let branch = view.branch(number)?;
            offers.extend(branch.told().map(|head| Position {
                log: branch.log,
                seq: head.seq,
                id: head.id,
            }));
        }
        Ok(offers)
    }

    /// Whether the peer is still to be told of something that is withheld.
    #[must_use]
    pub fn has_offers(&self) -> bool {
        !self.untold.is_empty()
    }

    /// How many entries are due, by the tips. Cost: one look-up a branch.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn count(&self, view: View<'_>) -> Result<u64, StorageError> {
        let mut sum = 0;
        view.each_branch(|number, branch| {
            if self.waits(&branch.log) {
                return;
            }
            let held = self.held.get(&number).copied().unwrap_or(0).max(branch.base_seq());
            sum += branch.told().map_or(0, |head| head.seq).saturating_sub(held);
        })?;
        Ok(sum)
    }
}

/// How many entries from `arrival` on, all before `end`, go on in the branch whose `place` that one has. Places and
/// arrivals both only grow, so where they grew by the same, everything between did too.
fn stretch(
    view: View<'_>,
    arrival: u64,
    end: u64,
    place: (BranchNo, Seq),
) -> Result<u64, StorageError> {
    let goes_on = |by: u64| Ok(view.place_of(arrival + by)? == (place.0, place.1 + by));
    let (mut last, mut beyond, mut step) = (0, end - arrival, 1);
    while last + step < beyond && goes_on(last + step)? {
        last += step;
        step *= 2;
    }
    beyond = beyond.min(last + step);
    while beyond - last > 1 {
        let middle = last.midpoint(beyond);
        if goes_on(middle)? {
            last = middle;
        } else {
            beyond = middle;
        }
    }
    Ok(last + 1)
}

impl View<'_> {
    /// The run of `branch` above `after` up to the kept head at `seq`.
    pub(crate) fn run(
        &self,
        branch: BranchNo,
        after: Seq,
        seq: Seq,
        head: &HeadRow,
    ) -> Result<Run, StorageError> {
        if seq.saturating_sub(after) > limits::RUN_ENTRIES as u64 {
            return Err(corrupt("a head"));
        }
        let mut names = Names::new(*self)?;
        let row = self.branch(branch)?;
        let mut prev = match after {
            0 => None,
            after => Some(self.entry_id(self.owner(branch, after)?, after)?),
        };
        let rows = self.entry_rows(branch, after + 1, seq)?;
        let mut entries: Vec<Entry> = Vec::with_capacity(rows.len());
        let mut signatures = Vec::new();
        for stored in rows {
            for parent in &stored.body.parents {
                signatures.push(self.signature(parent.log, parent.seq)?);
            }
            let EntryRow { body, id, seq, .. } = stored;
            let entry = self.rebuild(&mut names, body, id, row.log, seq, prev)?;
            prev = Some(entry.id());
            entries.push(entry);
        }
        Ok(Run::new(names.database, entries, head.signature, signatures))
    }

    fn signature(&self, branch: BranchNo, seq: Seq) -> Result<Signature, StorageError> {
        Ok(self.head(branch, seq)?.ok_or_else(|| corrupt("a parent's head"))?.signature)
    }

    /// What peers who may not read yet are told: of each log in `shown`, which they proved to know, as much as they
    /// proved.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn frontier_within(&self, shown: &Frontier) -> Result<Frontier, StorageError> {
        let mut tips = Vec::new();
        for tip in shown.tips() {
            let position = &tip.head.position;
            if self.find(position)?.is_some() {
                tips.push(*tip);
                continue;
            }
            for number in self.branches_of(&position.log)? {
                let branch = self.branch(number)?;
                if let Some(head) = branch.head.filter(|head| head.seq < position.seq) {
                    let row = self.head(number, head.seq)?.ok_or_else(|| corrupt("a head"))?;
                    let position = Position { log: branch.log, seq: head.seq, id: head.id };
                    let head = crate::head::Head { position, signature: row.signature };
                    tips.push(crate::frontier::FrontierTip { head });
                }
            }
        }
        Ok(Frontier::new(tips))
    }

    /// How many entries a peer with this frontier has that are not held here, by the tips. Of a log that forked, its longest
    /// branch counts, and at least one entry. Cost: one look-up a tip.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn lacking(&self, peer: &Frontier) -> Result<u64, StorageError> {
        let mut lacking: BTreeMap<LogId, u64> = BTreeMap::new();
        for theirs in peer.positions() {
            if self.find(theirs)?.is_some() {
                continue;
            }
            let mut held = 0;
            for number in self.branches_of(&theirs.log)? {
                held = held.max(self.branch(number)?.tip.seq);
            }
            let count = lacking.entry(theirs.log).or_insert(0);
            *count = theirs.seq.saturating_sub(held).max(1).max(*count);
        }
        // What a peer tells of a log may be anything.
        Ok(lacking.values().fold(0, |sum, count| sum.saturating_add(*count)))
    }

    /// Ids of a log's line at its tip and at 1, 2, 4, 8, … places below it, down to place 1: with these a peer that holds
    /// another branch finds where the two part.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn samples(&self, tip: &Position) -> Result<Vec<Position>, StorageError> {
        let Some(number) = self.find(tip)? else {
            return Ok(Vec::new());
        };
        let mut samples = vec![*tip];
        let mut back = 1;
        while back < tip.seq {
            let seq = tip.seq - back;
            let owner = self.owner(number, seq)?;
            samples.push(Position { log: tip.log, seq, id: self.entry_id(owner, seq)? });
            back = back.saturating_mul(2);
        }
        Ok(samples)
    }

    /// The signed tips of a log's branches here.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn tips_of(&self, log: &LogId) -> Result<Vec<Position>, StorageError> {
        let mut tips = Vec::new();
        for number in self.branches_of(log)? {
            let head = self.branch(number)?.head;
            tips.extend(head.map(|head| Position { log: *log, seq: head.seq, id: head.id }));
        }
        Ok(tips)
    }

    /// Tips here in logs of which the peer has a tip that is not held here although the place is: the logs are forked.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn forks(&self, peer: &Frontier) -> Result<Vec<Position>, StorageError> {
        let mut forks = Vec::new();
        for theirs in peer.positions() {
            if self.find(theirs)?.is_some() {
                continue;
            }
            for number in self.branches_of(&theirs.log)? {
                let branch = self.branch(number)?;
                if let Some(head) = branch.head.filter(|head| head.seq >= theirs.seq) {
                    forks.push(Position { log: theirs.log, seq: head.seq, id: head.id });
                }
            }
        }
        Ok(forks)
    }
}
