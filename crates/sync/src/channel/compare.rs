//! Comparing large frontiers in space that follows the difference: each side sums its own up, the other reads off in which
//! tips the two differ and asks for those it does not know. What comes out is believed only if it has the digest that was
//! told; else, or when too much differs, the frontier itself is asked for.

use super::{Channel, Told};
use crate::frame::{Ask, Code, Frame};
use crate::summed::Summed;
use crate::work::Work;
use anabranch_core::frontier::{Frontier, FrontierTip};
use anabranch_core::riblt::{SYMBOLS, Symbol};
use std::sync::Arc;

/// Symbols that are sent unasked: enough for some 30 differing tips.
const FIRST: usize = 64;
/// How often a peer may ask for more of a frontier that was summed up.
const ASKS: u32 = 8;

/// What is known while frontiers are compared.
#[derive(Debug, Default)]
pub(super) struct Compare {
    mine: Summary,
    /// How often more was asked of it.
    asks: u32,
    /// What the peer told of its own: symbols, how many tips they sum up, the blinded digest.
    theirs: Vec<Symbol>,
    tips: usize,
    digest: [u8; 32],
    stage: Stage,
    /// Counts what the peer told: what is worked out of something older is of no use any more.
    round: u64,
    /// Whether a difference is being worked out: one at a time, however often the peer tells its frontier anew.
    differing: bool,
}

/// What the peer was told of our frontier by summing it up.
#[derive(Debug, Default)]
enum Summary {
    #[default]
    Nothing,
    /// This, of which it may ask more.
    Kept(Mine),
    /// It has found out what it wanted. Of a large frontier that is too much to keep for each peer.
    Enough,
}

/// Our frontier as the peer was told of it.
#[derive(Debug)]
struct Mine {
    summed: Arc<Summed>,
    /// So many symbols.
    told: usize,
}

#[derive(Debug, Default)]
enum Stage {
    /// Nothing is under way.
    #[default]
    Idle,
    /// It is being worked out, or the peer was asked for more.
    UnderWay,
    /// The peer was asked for the tips that only it has; these are those that both have.
    Naming(Frontier),
}

impl Compare {
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.stage, Stage::Idle)
    }

    /// The peer told its frontier itself, or it was found out.
    pub(super) fn end(&mut self) {
        self.stage = Stage::Idle;
        self.round += 1;
    }

    /// The peer has nothing more to send, so it knows where this side stands.
    pub(super) fn release(&mut self) {
        if let Summary::Kept(_) = self.mine {
            self.mine = Summary::Enough;
        }
    }
}

impl Channel {
    /// Ours was summed up.
    pub(super) fn on_summed(&mut self, summed: Arc<Summed>) {
        self.told_frontier = Told::Whole;
        self.compare.mine = Summary::Kept(Mine { summed, told: 0 });
        self.compare.asks = 0;
        self.tell_symbols(FIRST);
    }

    /// Tells the peer the next symbols of our row, up to `end`.
    fn tell_symbols(&mut self, end: usize) {
        let Summary::Kept(mine) = &mut self.compare.mine else { return };
        let Summed { frontier, digest, .. } = &*mine.summed;
        let symbols = mine.summed.row().symbols().get(mine.told..end).unwrap_or_default().to_vec();
        let (from, tips) = (mine.told as u32, frontier.tips().len() as u32);
        let digest = *digest;
        mine.told = end.max(mine.told);
        let digest = self.blind(digest);
        self.frame(Frame::Symbols { channel: self.number, from, tips, digest, symbols });
    }

    pub(super) fn on_symbols(
        &mut self,
        from: u32,
        tips: u32,
        digest: [u8; 32],
        symbols: Vec<Symbol>,
    ) {
        // Nobody who may not read was told a digest, and what such a peer is told follows what it shows.
        if !self.peer_may_read {
            return self.refuse(Code::Protocol, "a frontier was summed up by one who may not read");
        }
        let theirs = &mut self.compare.theirs;
        if from == 0 {
            theirs.clear();
        }
        if theirs.len() != from as usize || theirs.len() + symbols.len() > SYMBOLS {
            return self.refuse(Code::Protocol, "symbols of a frontier came out of order");
        }
        theirs.extend(symbols);
        (self.compare.tips, self.compare.digest) = (tips as usize, digest);
        // The peer compares anew and waits for word of the outcome, even if that is the same as before.
        self.level_told = None;
        if self.told_frontier == Told::Nothing {
            self.ask_frontier(None);
        }
        self.compare.stage = Stage::UnderWay;
        self.compare.round += 1;
        self.differ();
    }

    fn differ(&mut self) {
        if !std::mem::replace(&mut self.compare.differing, true) {
            let (round, theirs) = (self.compare.round, self.compare.theirs.clone());
            self.work(Work::Differ { round, theirs });
        }
    }

    /// In what the two differ: what both have, and what stands for the tips that only the peer has. `tips`: of ours.
    pub(super) fn on_differ(
        &mut self,
        round: u64,
        found: Option<(Frontier, Vec<u64>)>,
        tips: usize,
    ) {
        let channel = self.number;
        self.compare.differing = false;
        if round != self.compare.round {
            // Symbols that came meanwhile are looked at now, unless the frontier itself came after them.
            if !self.compare.is_idle() {
                self.differ();
            }
            return;
        }
        let what = match found {
            Some((common, named)) if named.is_empty() => {
                return self.work(Work::Assemble { round, common, named: Vec::new() });
            }
            Some((common, named)) => {
                self.compare.stage = Stage::Naming(common);
                Ask::Named(named)
            }
            // At least so much differs as the two are long apart.
            None if self.compare.theirs.len() < SYMBOLS
                && self.compare.tips.abs_diff(tips) < SYMBOLS / 2 =>
            {
                Ask::Symbols
            }
            None => Ask::Whole,
        };
        self.frame(Frame::Ask { channel, what });
    }

    pub(super) fn on_named(&mut self, tips: Vec<FrontierTip>) {
        // Else the peer has told something newer meanwhile.
        if let Stage::Naming(_) = self.compare.stage
            && let Stage::Naming(common) =
                std::mem::replace(&mut self.compare.stage, Stage::UnderWay)
        {
            let round = self.compare.round;
            self.work(Work::Assemble { round, common, named: tips });
        }
    }

    /// The peer's frontier, if `digest` is the one it told.
    pub(super) fn on_assembled(&mut self, round: u64, frontier: Frontier, digest: [u8; 32]) {
        if round != self.compare.round {
            return;
        }
        if self.blind(digest) == self.compare.digest {
            self.on_frontier(frontier);
        } else {
            self.frame(Frame::Ask { channel: self.number, what: Ask::Whole });
        }
    }

    pub(super) fn on_ask(&mut self, what: Ask) {
        if matches!(self.compare.mine, Summary::Nothing) || !self.peer_may_read {
            let text = "more was asked of a frontier that was not told";
            return self.refuse(Code::Protocol, text);
        }
        self.compare.asks += 1;
        if self.compare.asks > ASKS {
            return self.refuse(Code::Limit, "a frontier was asked for too often");
        }
        let summed = match &self.compare.mine {
            Summary::Kept(mine) => Arc::clone(&mine.summed),
            _ => return self.tell_whole(),
        };
        match what {
            Ask::Symbols => self.tell_symbols(SYMBOLS),
            Ask::Whole => self.tell_whole(),
            Ask::Named(elements) => self.work(Work::Name { summed, elements }),
        }
    }

    fn tell_whole(&mut self) {
        self.read_frontier(None, false);
    }
}
