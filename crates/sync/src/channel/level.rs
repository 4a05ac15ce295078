//! Whether the two sides hold the same, as far as each can tell from what the other said last: what a session that ends
//! by itself waits for.

use super::{Channel, Emit, Event, Goal, Plan, RECOMPARES, Told};
use crate::frame::{Code, Frame};
use crate::work::Work;
use anabranch_core::frontier::Frontier;

impl Channel {
    /// Whether nothing more is to be sent or applied, as far as is known here.
    pub(super) fn is_level(&self) -> bool {
        let compared = match self.plan {
            Plan::Here(_) => !(self.dirty || self.claims.withholds) || !self.sends(),
            Plan::None | Plan::Away => false,
        };
        let asked = self.peer_may_read && !self.forks.is_settled();
        let parted = !asked && !self.forks.is_answering();
        let told = self.told_frontier != Told::Soon && self.compare.is_idle();
        compared && parted && told && !self.looking && self.replan.is_none() && self.is_idle()
    }

    fn is_idle(&self) -> bool {
        self.applying.is_none()
            && self.incoming.is_empty()
            && self.asked.is_empty()
            && self.reading == 0
    }

    pub(super) fn tell_level(&mut self) {
        // A peer that only sends leaves on this word, and has no digest to compare.
        let looks = self.takes_only() && !matches!(self.goal, Goal::None);
        let word = (self.told_digest(), self.busy || looks || !self.wanted.is_empty());
        if self.closed || !self.is_level() || self.level_told == Some(word) {
            return;
        }
        self.level_told = Some(word);
        self.released |= !word.1;
        self.frame(Frame::Level { channel: self.number, digest: word.0, busy: word.1 });
        self.event(Event::Progress);
    }

    fn agree(&self) -> bool {
        self.their_level && self.unacknowledged == 0 && self.is_level()
    }

    fn is_equal(&self) -> bool {
        self.their_digest == Some(self.blind(self.digest))
    }

    /// Both have said all they have to say and still differ: something was dropped on the way, so compare anew.
    pub(super) fn recompare(&mut self) {
        let both_ways = self.sends() && self.receives();
        if both_ways && self.agree() && self.is_equal() {
            self.recompares = 0;
        }
        if both_ways && self.agree() && !self.is_equal() && self.recompares < RECOMPARES {
            self.recompares += 1;
            self.their_level = false;
            self.level_told = None;
            self.ask_frontier(None);
        }
    }

    /// Both have said all they have to say, and entries only come: look whether all came.
    pub(super) fn check_goal(&mut self) {
        if self.agree()
            && let Goal::Of(_) = self.goal
            && let Goal::Of(peer) = std::mem::replace(&mut self.goal, Goal::Away)
        {
            self.out.push(Emit::Work(Work::Lacking { peer }));
        }
    }

    /// What did not come was dropped on the way, or the peer had not heard yet where this side stands.
    pub(super) fn on_lacking(&mut self, peer: Frontier, lacking: u64) {
        // Where both hold the same, what it told before and took back since, as what is cut is, counts no more.
        if lacking == 0 || self.is_equal() {
            self.goal = Goal::None;
            return self.event(Event::Progress);
        }
        if self.recompares >= RECOMPARES {
            self.goal = Goal::Missed;
            // Whoever opened it finds out by itself and says so in its own words.
            if !self.opener {
                self.refuse(Code::Protocol, "not all came that was told of");
            }
            return;
        }
        self.goal = Goal::Of(peer.clone());
        self.recompares += 1;
        self.their_level = false;
        // The peer plans anew with what it is told, and then has to be shown our branches anew.
        self.replan = Some(peer);
        self.ask_frontier(self.shown.clone());
    }

    /// Whether there is nothing to wait for that the peer has told and that did not come.
    fn is_complete(&self) -> bool {
        match self.takes_only() {
            true => matches!(self.goal, Goal::None),
            false => !(self.sends() && self.receives()) || self.is_equal(),
        }
    }

    /// Whether both sides hold what they should: nothing to send, nothing to apply, nothing being worked on, and equal
    /// digests wherever entries go both ways. Where they only come, all that the peer told it has.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.agree()
            && self.is_complete()
            && !self.busy
            && !self.their_busy
            && self.wanted.is_empty()
    }

    /// Whether a peer that leaves now does so on this side's word that all is done. Meanwhile this side may be looking up
    /// whether there is something new to send, or have begun to work on what it received.
    #[must_use]
    pub fn is_even(&self) -> bool {
        let equal = !(self.sends() && self.receives()) || self.is_equal();
        let agreed = self.released && self.their_level && self.unacknowledged == 0;
        agreed && equal && self.is_idle() && !self.their_busy && self.wanted.is_empty()
    }

    /// Whether entries go to the peer, who may read as far as is known here.
    #[must_use]
    pub fn peer_reads(&self) -> bool {
        self.sends()
    }

    /// Whether the peer has shown that it may read.
    #[must_use]
    pub fn peer_may_read(&self) -> bool {
        self.peer_may_read
    }

    /// Whether the peer still has to show that it may read, to a replica that holds something by which to tell.
    #[must_use]
    pub fn peer_proves(&self) -> bool {
        !self.peer_may_read && self.digest != Frontier::default().digest()
    }

    /// Whether entries have settled, whatever is still being done with them.
    #[must_use]
    pub fn entries_settled(&self) -> bool {
        self.agree() && self.is_complete()
    }

    /// Whether it gave up comparing: both sides are level and differ.
    #[must_use]
    pub fn differs(&self) -> bool {
        self.agree() && !self.is_settled() && self.recompares >= RECOMPARES && !self.is_equal()
    }
}
