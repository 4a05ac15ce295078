//! What is declared to be kept in step: the engine's own decision when to try whom next, on virtual time, and the judges of
//! it. That each declared sync is in step in the end is nobody else's doing, since nobody else dials.

use super::sessions::{ConnId, Side};
use super::{Event, World};
use crate::check::{Check, Violation};
use crate::clock::{SECOND, Time};
use crate::plan::{Edge, PLACES};
use anabranch_node::{Attempts, Drive, Ending};
use std::time::Duration;

/// Waits after failures: the first and the longest.
const RETRY: (Time, Time) = (SECOND, 8 * SECOND);

/// Who dials whom.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) every: Option<Time>,
    pub(super) one_way: bool,
    pub(super) conn: Option<ConnId>,
    /// Whether both were in step when the link was looked at last.
    pub(super) in_step: bool,
    /// How the link ended, as the side that dialled found.
    pub(super) ending: Option<Ending>,
    attempts: Attempts,
    declared: bool,
    /// Attempts that were planned: only the last one is made.
    turn: u64,
    /// What the judge knows: failures in a row, when the last attempt ended and how, whether somebody wants one at once.
    failures: u32,
    ended: Option<(Time, Ending)>,
    nudged: bool,
}

fn attempts(to: usize, places: impl Iterator<Item = u8>, every: Option<Time>) -> Attempts {
    let addresses = places.map(|place| address(to, place)).collect();
    let retry = (Duration::from_micros(RETRY.0), Duration::from_micros(RETRY.1));
    Attempts::new(addresses, every.map(Duration::from_micros), retry)
}

fn address(node: usize, place: u8) -> String {
    format!("node {node} at {place}")
}

impl Line {
    /// Whether it is to be carried out.
    pub(super) fn is_declared(&self) -> bool {
        self.declared
    }

    pub(super) fn new(edge: &Edge) -> Self {
        let Edge { from, to, every, one_way, ref places } = *edge;
        let places = if places.is_empty() { &[0][..] } else { places };
        Self {
            from,
            to,
            every,
            one_way,
            conn: None,
            in_step: false,
            ending: None,
            attempts: attempts(to, places.iter().copied(), every),
            declared: true,
            turn: 0,
            failures: 0,
            ended: None,
            nudged: false,
        }
    }

    pub(super) fn declared(&self) -> bool {
        self.declared
    }

    /// Whether nothing is under way on it.
    pub(super) fn idle(&self) -> bool {
        self.conn.is_none()
    }

    /// Whom it links.
    pub(super) fn ends(&self) -> [usize; 2] {
        [self.from, self.to]
    }

    /// From now on both ways and for ever, at the addresses as they are known.
    pub(super) fn stays_connected(&mut self) {
        (self.every, self.one_way) = (None, false);
        let addresses = self.attempts.addresses().to_vec();
        let retry = (Duration::from_micros(RETRY.0), Duration::from_micros(RETRY.1));
        self.attempts = Attempts::new(addresses, None, retry);
        self.failures = 0;
    }
}

impl World<'_> {
    pub(super) fn plan_dial(&mut self, line: usize, after: Time) {
        self.edges[line].turn += 1;
        let turn = self.edges[line].turn;
        self.after(after, Event::Dial { line, turn });
    }

    /// Somebody is to be reached who was not before, wherever it is.
    pub(super) fn add_line(&mut self, from: usize, to: usize, after: Time) {
        let places = (0..PLACES).collect();
        self.edges.push(Line::new(&Edge { from, to, every: None, one_way: false, places }));
        self.plan_dial(self.edges.len() - 1, after);
    }

    /// Whether the attempt that was planned then is still to be made.
    pub(super) fn is_due(&self, line: usize, turn: u64) -> bool {
        let line = &self.edges[line];
        line.turn == turn && line.conn.is_none() && line.declared
    }

    /// Whether one of the addresses is where the peer is.
    pub(super) fn finds(&mut self, line: usize) -> bool {
        let to = self.edges[line].to;
        let there = address(to, self.places.get(&to).copied().unwrap_or(0));
        let found = self.edges[line].attempts.addresses().contains(&there);
        if found && self.nodes[to].replica.is_some() {
            self.edges[line].attempts.answered(&there);
        }
        found
    }

    /// The link is gone.
    pub(super) fn lost(&mut self, line: usize) {
        let in_step = self.edges[line].in_step;
        let ending = self.edges[line].ending.take();
        self.redial(line, ending.unwrap_or(Ending::Lost { in_step, answered: false }));
    }

    pub(super) fn redial(&mut self, line: usize, ending: Ending) {
        let (spread, now) = (self.random.u8(..), self.clock.now());
        let kept = &mut self.edges[line];
        let wait = kept.attempts.ended(ending, spread);
        kept.failures = match ending {
            Ending::Synced => 0,
            Ending::Lost { in_step: true, .. } => 1,
            Ending::Lost { .. } => kept.failures.saturating_add(1),
        };
        kept.ended = Some((now, ending));
        self.plan_dial(line, u64::try_from(wait.as_micros()).unwrap_or(Time::MAX / 2));
    }

    /// Somebody wants it to be tried.
    pub(super) fn try_soon(&mut self, line: usize, after: Time) {
        let kept = &mut self.edges[line];
        kept.attempts.nudged();
        (kept.failures, kept.nudged) = (0, true);
        self.plan_dial(line, after);
    }

    pub(super) fn note_step(&mut self, id: ConnId, side: Side) {
        let settled = self.drive(id, side).map(|drive| drive.progress().settled);
        if let (0, Some(settled), Some(line)) = (side, settled, self.line_of(id)) {
            self.edges[line].in_step = settled;
        }
    }

    pub(super) fn withdraw(&mut self, line: usize) -> Result<(), Violation> {
        let from = self.edges[line].from;
        self.note("withdrawn", from, &[], || format!("link {line} is withdrawn"));
        self.edges[line].declared = false;
        let Some(id) = self.edges[line].conn else { return Ok(()) };
        self.stops_early(id);
        self.drive(id, 0).into_iter().for_each(Drive::stop);
        self.pump(id, 0)
    }

    pub(super) fn declare(&mut self, line: usize) -> Result<(), Violation> {
        let kept = &mut self.edges[line];
        if std::mem::replace(&mut kept.declared, true) {
            return Ok(());
        }
        let from = kept.from;
        self.note("declared", from, &[], || format!("link {line} is declared"));
        self.try_soon(line, 0);
        Ok(())
    }

    /// Its links break: whoever is at the other end finds it at another of its addresses.
    pub(super) fn change_place(&mut self, node: usize, place: u8) -> Result<(), Violation> {
        self.note("moved", node, &[place], || format!("is at its address {place} now"));
        self.places.insert(node, place);
        let links: Vec<ConnId> = self.sides_of(node).into_iter().map(|(id, _)| id).collect();
        links.into_iter().try_for_each(|id| self.cut(id))
    }

    /// After the n-th failure in a row at least half of the first wait doubled n - 1 times passes, unless somebody asks.
    pub(super) fn judge_patience(&mut self, number: usize) -> Result<(), Violation> {
        let now = self.clock.now();
        let line = &mut self.edges[number];
        let nudged = std::mem::take(&mut line.nudged);
        let Some((ended, ending)) = line.ended.filter(|_| !nudged) else { return Ok(()) };
        let whole = match (ending, line.every) {
            (Ending::Synced, Some(every)) => every,
            _ => (RETRY.0 << line.failures.saturating_sub(1).min(20)).min(RETRY.1),
        };
        if now >= ended + whole / 2 {
            return Ok(());
        }
        let text = format!(
            "after {} failures link {number} is tried again within {} µs",
            line.failures,
            now - ended
        );
        Err(Check::Intents.failed(text))
    }

    /// Each declared sync whose peers both run is in step.
    pub(super) fn judge_intents(&mut self) -> Result<(), Violation> {
        for number in 0..self.edges.len() {
            let Line { from, to, declared, conn, .. } = self.edges[number];
            let runs = |node: usize| self.nodes[node].replica.is_some();
            let outside = self.outside.contains(&from) || self.outside.contains(&to);
            if !declared || outside || !runs(from) || !runs(to) || self.nodes[from].stranger {
                continue;
            }
            let settled = |world: &mut Self, side| {
                let drive = conn.and_then(|id| world.drive(id, side));
                drive.is_some_and(|drive| drive.progress().settled)
            };
            if !(settled(self, 0) && settled(self, 1)) {
                let text = format!("nodes {from} and {to} are to be in step by link {number}");
                return Err(Check::Intents.failed(text));
            }
        }
        Ok(())
    }
}
