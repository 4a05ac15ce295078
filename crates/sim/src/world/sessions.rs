//! Sessions over virtual links: dialling, frames under way, storage work that takes its time, links that end for one side
//! sooner than for the other.

use super::intents::Line;
use super::{Event, World};
use crate::check::{Check, Violation};
use crate::clock::{MS, SECOND, Time};
use crate::network::{Mishap, Network};
use anabranch_core::id::Position;
use anabranch_core::storage::{Durability, StorageError};
use anabranch_node::{Act, Drive, Ending, Hold, Job, NodeError, Opening, Report, Task, Until};
use anabranch_sync::channel::Direction;
use anabranch_sync::frame::{Code, Frame};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

/// Names a link.
pub(super) type ConnId = u64;
/// An end of a link: 0 dialled, 1 answered.
pub(super) type Side = usize;

/// How long a link lasts on which something was lost or altered, if nobody hangs up before.
const PATIENCE: Time = 20 * SECOND;
/// How long a link lasts that does not get through.
const GIVES_UP: Time = 30 * SECOND;

#[derive(Debug)]
struct End {
    node: usize,
    drive: Option<Drive>,
    /// When the last frame sent from here arrives.
    last: Time,
    /// Frames to here that wait until the other end is heard.
    waiting: Vec<Vec<u8>>,
    /// A ticket was shown and is to be redeemed here, for which the peer waits.
    redeems: Option<Hold>,
    redeeming: bool,
    /// When it looks whether others failed to bring what they were to.
    looks: Option<Time>,
}

impl End {
    fn new(node: usize, drive: Drive) -> Self {
        Self {
            node,
            drive: Some(drive),
            last: 0,
            waiting: Vec::new(),
            redeems: None,
            redeeming: false,
            looks: None,
        }
    }
}

/// What one side of a session held when that began.
#[derive(Debug, Default)]
struct Held {
    /// So many entries, in the order of arrival.
    entries: u64,
    /// Those of them that nobody needed then.
    unneeded: BTreeSet<Position>,
}

/// A link.
#[derive(Debug)]
pub(super) struct Conn {
    line: usize,
    ends: [End; 2],
    /// Whether anything was lost or altered on it.
    spoiled: bool,
    /// What each side held when it began that the other may have and is to get.
    held: [Held; 2],
    until: Until,
}

impl Conn {
    fn nodes(&self) -> [usize; 2] {
        [self.ends[0].node, self.ends[1].node]
    }

    /// Whether it carried what no link may, or stands still because somebody is not heard.
    pub(super) fn may_be_broken(&self, network: &Network) -> bool {
        let [a, b] = self.nodes();
        self.spoiled || !network.hears(a, b) || !network.hears(b, a)
    }
}

impl World<'_> {
    pub(super) fn dial(&mut self, number: usize, turn: u64) -> Result<(), Violation> {
        let Line { from, to, every, one_way, .. } = self.edges[number];
        // Strangers try for ever, and nobody waits for them.
        if !self.is_due(number, turn) || (self.healed && self.nodes[from].stranger) {
            return Ok(());
        }
        if self.is_in_vain(number) {
            return Ok(());
        }
        self.judge_patience(number)?;
        let heard = self.network.hears(from, to) && self.network.hears(to, from);
        let reached = heard && self.finds(number);
        let (here, there) = (self.nodes[from].replica.clone(), self.nodes[to].replica.clone());
        let (Some(here), Some(there), true) = (here, there, reached) else {
            self.redial(number, Ending::Lost { in_step: false, answered: false });
            return Ok(());
        };
        let binding = self.random_bytes();
        let until = if every.is_some() { Until::Settled } else { Until::Closed };
        let ticket = self.tickets.get(&from).filter(|_| self.nodes[from].joining).cloned();
        let redeems = ticket.is_some().then(|| here.hold());
        let direction = match one_way && ticket.is_none() {
            true => *self.choose(&[Direction::BOTH, Direction::PUSH, Direction::PULL]),
            false => Direction::BOTH,
        };
        let opening = Opening { replica: Arc::clone(&here), direction, ticket };
        let dialling = Task {
            device: self.nodes[from].device.clone(),
            served: vec![here],
            openings: vec![opening],
            requests: BTreeMap::new(),
            until,
        };
        let answering = Task {
            device: self.nodes[to].device.clone(),
            served: vec![there],
            openings: Vec::new(),
            requests: BTreeMap::new(),
            until: Until::Closed,
        };
        let conn = Conn {
            line: number,
            ends: [
                End::new(from, Drive::new(dialling, binding, true)),
                End::new(to, Drive::new(answering, binding, false)),
            ],
            spoiled: false,
            held: [
                if direction.send { self.due(from, to) } else { Held::default() },
                if direction.receive { self.due(to, from) } else { Held::default() },
            ],
            until,
        };
        let mut conn = conn;
        conn.ends[0].redeems = redeems;
        self.stats.sessions += 1;
        let id = self.stats.sessions;
        self.note("dial", from, &(to as u64).to_le_bytes(), || format!("dials node {to}"));
        self.conns.insert(id, conn);
        (self.edges[number].conn, self.edges[number].in_step) = (Some(id), false);
        self.pump(id, 0)?;
        self.pump(id, 1)
    }

    fn choose<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.random.usize(..from.len())]
    }

    /// What `from` holds now, if `to` can show that it may have it.
    fn due(&self, from: usize, to: usize) -> Held {
        let reader = self.nodes[to].device.id();
        let looks = [&self.nodes[from].replica, &self.nodes[to].replica];
        let [Some(ours), Some(theirs)] = looks else { return Held::default() };
        let member = theirs.look(|view| view.role_of(&reader)).ok().flatten().is_some();
        // What was revoked cannot be shown, nor what may have been.
        let shown = ours
            .look(|view| Ok::<_, StorageError>((view.totals()?, view.role_of(&reader)?.is_some())));
        let Ok((totals, known)) = shown else { return Held::default() };
        if !member || !known && totals.revocations > 0 {
            return Held::default();
        }
        let mut unneeded = BTreeSet::new();
        let read = ours.read(|view| {
            if totals.revocations == 0 {
                return Ok(());
            }
            view.entries(1, &mut |_, entry| {
                let position = entry.position();
                if !view.is_needed(&position)? {
                    unneeded.insert(position);
                }
                Ok(ControlFlow::Continue(()))
            })
        });
        // What cannot be read now is no promise.
        read.map_or_else(|_| Held::default(), |()| Held { entries: totals.entries, unneeded })
    }

    /// It ends before all is done, in good order.
    pub(super) fn stops_early(&mut self, id: ConnId) {
        self.conns.get_mut(&id).into_iter().for_each(|conn| conn.until = Until::Closed);
    }

    pub(super) fn line_of(&self, id: ConnId) -> Option<usize> {
        self.conns.get(&id).map(|conn| conn.line)
    }

    pub(super) fn drive(&mut self, id: ConnId, side: Side) -> Option<&mut Drive> {
        self.conns.get_mut(&id)?.ends[side].drive.as_mut()
    }

    /// Does what a side has to do, and ends it when it is done.
    pub(super) fn pump(&mut self, id: ConnId, side: Side) -> Result<(), Violation> {
        while let Some(act) = self.drive(id, side).and_then(Drive::poll) {
            match act {
                Act::Send(frame) => self.send(id, side, frame),
                Act::Work(job) => {
                    let delay = 50 + self.random.u64(..3 * MS);
                    let Some(node) = self.conns.get(&id).map(|conn| conn.ends[side].node) else {
                        continue;
                    };
                    self.after(delay, Event::Work { conn: id, side, node, job: Box::new(job) });
                }
            }
        }
        self.begin_redeeming(id, side);
        self.note_step(id, side);
        self.plan_look(id, side);
        match self.drive(id, side).and_then(Drive::outcome) {
            Some(outcome) => self.over(id, side, outcome),
            None => Ok(()),
        }
    }

    /// Sees to it that a side looks again when it has to.
    fn plan_look(&mut self, id: ConnId, side: Side) {
        let now = self.clock.now();
        let Some(end) = self.conns.get_mut(&id).map(|conn| &mut conn.ends[side]) else { return };
        let Some(wait) = end.drive.as_ref().and_then(Drive::wakes_in) else { return };
        let at = now + u64::try_from(wait.as_micros()).unwrap_or(Time::MAX);
        if end.looks.is_none_or(|looks| looks > at) {
            end.looks = Some(at);
            self.at(at, Event::Look { conn: id, side, at });
        }
    }

    pub(super) fn look(&mut self, id: ConnId, side: Side, at: Time) -> Result<(), Violation> {
        let Some(conn) = self.conns.get_mut(&id) else { return Ok(()) };
        let end = &mut conn.ends[side];
        let node = end.node;
        if end.looks != Some(at) {
            return Ok(());
        }
        end.looks = None;
        if let Some(drive) = &mut end.drive {
            drive.look();
            self.pump(id, side)?;
        }
        self.wake(node)
    }

    fn send(&mut self, id: ConnId, side: Side, mut bytes: Vec<u8>) {
        let delay = self.network.delay(&mut self.random);
        let now = self.clock.now();
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let [a, b] = conn.nodes();
        let mut arrives = (now + delay).max(conn.ends[side].last + 1);
        conn.ends[side].last = arrives;
        let mishap = self.network.mishap(&mut self.random, a, b);
        let first = mishap != Mishap::None && !std::mem::replace(&mut conn.spoiled, true);
        match mishap {
            Mishap::None => {}
            Mishap::Lost => arrives = Time::MAX,
            Mishap::Doubled => {
                self.at(arrives, Event::Frame { conn: id, to: 1 - side, bytes: bytes.clone() });
            }
            Mishap::Early => arrives = arrives.saturating_sub(5 * MS),
            Mishap::Short => bytes.truncate(self.random.usize(..=bytes.len())),
            Mishap::Altered => {
                let (at, bit) = (self.random.usize(..bytes.len().max(1)), self.random.u32(..8));
                bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << bit);
            }
        }
        if first {
            self.after(PATIENCE, Event::HangUp(id));
        }
        if mishap != Mishap::Lost {
            self.at(arrives, Event::Frame { conn: id, to: 1 - side, bytes });
        }
    }

    pub(super) fn deliver(
        &mut self,
        id: ConnId,
        to: Side,
        bytes: Vec<u8>,
    ) -> Result<(), Violation> {
        let Some(conn) = self.conns.get_mut(&id) else { return Ok(()) };
        let (from, node) = (conn.ends[1 - to].node, conn.ends[to].node);
        let waiting = &mut conn.ends[to].waiting;
        if !self.network.hears(from, node) || !waiting.is_empty() {
            waiting.push(bytes);
            if waiting.len() == 1 {
                let give_up = self.clock.now() + GIVES_UP;
                self.after(SECOND, Event::Resend { conn: id, to, give_up });
            }
            return Ok(());
        }
        self.arrive(id, to, &bytes)
    }

    /// What was not heard is sent again until it gets through or somebody gives up.
    pub(super) fn resend(&mut self, id: ConnId, to: Side, give_up: Time) -> Result<(), Violation> {
        let Some(conn) = self.conns.get_mut(&id) else { return Ok(()) };
        let (from, node) = (conn.ends[1 - to].node, conn.ends[to].node);
        if self.network.hears(from, node) {
            let waiting = std::mem::take(&mut conn.ends[to].waiting);
            return waiting.iter().try_for_each(|bytes| self.arrive(id, to, bytes));
        }
        if self.clock.now() >= give_up {
            return self.cut(id);
        }
        self.after(SECOND, Event::Resend { conn: id, to, give_up });
        Ok(())
    }

    fn arrive(&mut self, id: ConnId, to: Side, bytes: &[u8]) -> Result<(), Violation> {
        let Some(conn) = self.conns.get(&id) else { return Ok(()) };
        let (from, node) = (conn.ends[1 - to].node, conn.ends[to].node);
        self.stats.frames += 1;
        let digest = blake3::hash(bytes);
        self.note("frame", node, digest.as_bytes(), || {
            format!("gets {} from node {from}", describe(bytes))
        });
        self.hand_over(id, to, bytes)
    }

    /// Gives a side a frame as if it had come over the link.
    pub(super) fn hand_over(
        &mut self,
        id: ConnId,
        to: Side,
        bytes: &[u8],
    ) -> Result<(), Violation> {
        let Some(drive) = self.drive(id, to) else { return Ok(()) };
        drive.receive(bytes);
        self.pump(id, to)?;
        self.wake_end(id, to)
    }

    /// Does storage work, which nobody calls off when its session ends meanwhile. Of a process that is gone the disk knows
    /// nothing any more.
    pub(super) fn work(
        &mut self,
        id: ConnId,
        side: Side,
        node: usize,
        job: Job,
    ) -> Result<(), Violation> {
        let done = job.perform();
        if !self.nodes[node].disk.is_dead()
            && let Some(drive) = self.drive(id, side)
        {
            let before = drive.progress().entries_again;
            drive.answer(done);
            let again = drive.progress().entries_again - before;
            self.nodes[node].again += again;
            self.stats.again += again;
            self.pump(id, side)?;
        }
        self.settle_node(node)
    }

    /// Whoever came with a ticket redeems it when the database is there.
    fn begin_redeeming(&mut self, id: ConnId, side: Side) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let end = &mut conn.ends[side];
        let Some(progress) = end.drive.as_ref().map(Drive::progress) else { return };
        if progress.settled && progress.told && end.redeems.is_none() && side == 0 {
            // Somebody knows now that it is a member.
            self.nodes[end.node].joining = false;
        }
        if progress.settled && end.redeems.is_some() && !end.redeeming {
            end.redeeming = true;
            self.after(MS, Event::Redeem { conn: id, side });
        }
    }

    pub(super) fn redeem(&mut self, id: ConnId, side: Side) -> Result<(), Violation> {
        let Some(conn) = self.conns.get_mut(&id) else { return Ok(()) };
        let hold = conn.ends[side].redeems.take();
        let node = conn.ends[side].node;
        let (Some(replica), Some(ticket)) =
            (self.nodes[node].replica.clone(), self.tickets.get(&node).cloned())
        else {
            return Ok(());
        };
        if replica.redeem(&ticket).is_err() {
            // It is tried again on the next link.
            drop(hold);
            self.cut(id)?;
        } else {
            drop(hold);
            self.note("joined", node, &[], || "redeemed its ticket".into());
            self.dial_others(node);
        }
        self.settle_node(node)
    }

    /// Who has just been let in tries everybody it knows, some of whom have not heard of it yet.
    fn dial_others(&mut self, node: usize) {
        for line in 0..self.edges.len() {
            if self.edges[line].from == node && self.edges[line].conn.is_none() {
                let after = self.random.u64(..=4 * self.network.latency);
                self.try_soon(line, after);
            }
        }
    }

    /// Lets the sessions of `node` look whether something changed there.
    pub(super) fn wake(&mut self, node: usize) -> Result<(), Violation> {
        self.notice_folder(node);
        for (id, side) in self.sides_of(node) {
            if let Some(drive) = self.drive(id, side) {
                drive.look();
                self.pump(id, side)?;
            }
        }
        Ok(())
    }

    fn wake_end(&mut self, id: ConnId, side: Side) -> Result<(), Violation> {
        let node = self.conns.get(&id).map(|conn| conn.ends[side].node);
        node.map_or(Ok(()), |node| self.wake(node))
    }

    /// The links of a node, and its side of each.
    pub(super) fn sides_of(&self, node: usize) -> Vec<(ConnId, Side)> {
        let side = |conn: &Conn| conn.nodes().into_iter().position(|n| n == node);
        self.conns.iter().filter_map(|(id, conn)| Some((*id, side(conn)?))).collect()
    }

    fn over(
        &mut self,
        id: ConnId,
        side: Side,
        outcome: Result<Report, NodeError>,
    ) -> Result<(), Violation> {
        let now = self.clock.now();
        let Some(conn) = self.conns.get_mut(&id) else { return Ok(()) };
        conn.ends[side].drive = None;
        let (node, other) = (conn.ends[side].node, conn.ends[1 - side].node);
        let arrives = conn.ends[side].last.max(now) + 1;
        let (until, spoiled, line) = (conn.until, conn.spoiled, conn.line);
        self.at(arrives, Event::Ended { conn: id, to: 1 - side });
        match outcome {
            Ok(_) => {
                self.note("synced", node, &[], || format!("is done with node {other}"));
                if side == 0 && until == Until::Settled {
                    self.edges[line].ending = Some(Ending::Synced);
                    return self.judge_settled(id);
                }
                Ok(())
            }
            Err(e) => {
                if side == 0 {
                    let answered = matches!(e, NodeError::Session { .. });
                    let in_step = self.edges[line].in_step;
                    self.edges[line].ending = Some(Ending::Lost { in_step, answered });
                }
                self.note("failed", node, &[], || format!("with node {other}: {e}"));
                if side == 0 && matches!(e, NodeError::Session { code: Code::Strangers, .. }) {
                    self.follow_advice(node);
                }
                let rotten = self.nodes[node].rotten || self.nodes[other].rotten;
                judge_failure(node, other, spoiled || rotten, &e)
            }
        }
    }

    /// Two who were let in while their networks were apart cannot come to know each other without a third one, and are told
    /// so. The founder is known to everybody.
    fn follow_advice(&mut self, node: usize) {
        let known = |line: &Line| line.from == node && line.to == 0;
        if !self.healed || node == 0 || self.nodes[node].stranger || self.edges.iter().any(known) {
            return;
        }
        self.add_line(node, 0, SECOND);
    }

    /// What either side held when it began is on the side now to which it was to go.
    fn judge_settled(&self, id: ConnId) -> Result<(), Violation> {
        let Some(conn) = self.conns.get(&id).filter(|conn| !conn.spoiled) else { return Ok(()) };
        let [a, b] = conn.nodes();
        if self.nodes[a].rotten || self.nodes[b].rotten {
            return Ok(());
        }
        for (from, to, held) in [(a, b, &conn.held[0]), (b, a, &conn.held[1])] {
            // What is not signed yet is told to nobody.
            let told = self.nodes[from].options.durability == Durability::Full;
            if let Some(position) = self.first_lacking(from, to, held).filter(|_| told) {
                let text = format!(
                    "nodes {a} and {b} said that all is done, and node {to} lacks {position:?}"
                );
                return Err(Check::Settled.failed(text));
            }
        }
        Ok(())
    }

    /// The first of what was `held` at `from` that `to` does not hold.
    fn first_lacking(&self, from: usize, to: usize, held: &Held) -> Option<Position> {
        let (from, to) = (self.nodes[from].replica.as_ref()?, self.nodes[to].replica.as_ref()?);
        let (mut lacking, mut left) = (None, held.entries);
        let read = from.read(|ours| {
            to.read(|theirs| {
                ours.entries(1, &mut |_, entry| {
                    if left == 0 || lacking.is_some() {
                        return Ok(ControlFlow::Break(()));
                    }
                    left -= 1;
                    let position = entry.position();
                    // What does not count goes nowhere, and what came to count meanwhile may be on its way.
                    let needed = ours.is_needed(&position)? && !held.unneeded.contains(&position);
                    if needed && !theirs.holds(&position)? {
                        lacking = Some(position);
                    }
                    Ok(ControlFlow::Continue(()))
                })
            })
        });
        read.ok().and(lacking)
    }

    pub(super) fn link_ended(&mut self, id: ConnId, to: Side) -> Result<(), Violation> {
        if let Some(drive) = self.drive(id, to) {
            drive.link_ended();
            self.pump(id, to)?;
        }
        let Some(conn) = self.conns.get_mut(&id) else { return Ok(()) };
        conn.ends[to].drive = None;
        self.wake_end(id, to)?;
        let Some(conn) = self.conns.get_mut(&id) else { return Ok(()) };
        if conn.ends.iter().all(|end| end.drive.is_none())
            && let Some(conn) = self.conns.remove(&id)
        {
            self.edges[conn.line].conn = None;
            self.lost(conn.line);
        }
        Ok(())
    }

    /// The link breaks: what is under way is lost.
    pub(super) fn cut(&mut self, id: ConnId) -> Result<(), Violation> {
        let Some(conn) = self.conns.remove(&id) else { return Ok(()) };
        let ([a, b], line) = (conn.nodes(), conn.line);
        self.note("cut", a, &[], || format!("loses the link to node {b}"));
        drop(conn);
        self.edges[line].conn = None;
        self.lost(line);
        self.wake(a)?;
        self.wake(b)
    }

    pub(super) fn cut_line(&mut self, line: usize) -> Result<(), Violation> {
        let conn = self.edges.get(line).and_then(|line| line.conn);
        conn.map_or(Ok(()), |conn| self.cut(conn))
    }

    /// The process of `node` is gone: its ends are, too, and the others hear of it sooner or later.
    pub(super) fn drop_sessions(&mut self, node: usize) {
        for (id, side) in self.sides_of(node) {
            if let Some(conn) = self.conns.get_mut(&id) {
                conn.ends[side].drive = None;
            }
            let notices = self.random.u64(..2 * SECOND);
            self.after(notices, Event::Ended { conn: id, to: 1 - side });
        }
    }

    /// Something went over this link that no honest node sends.
    pub(super) fn spoil(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(&id)
            && !std::mem::replace(&mut conn.spoiled, true)
        {
            self.after(PATIENCE, Event::HangUp(id));
        }
    }
}

/// What a frame is, in a few words.
fn describe(bytes: &[u8]) -> String {
    let size = bytes.len();
    match Frame::decode(bytes) {
        Ok(Frame::Want { hashes, .. }) => format!("a want of blobs {hashes:?}"),
        Ok(Frame::NoBlob { hashes, .. }) => format!("word that blobs {hashes:?} are lacking"),
        Ok(Frame::Have { hashes, .. }) => format!("word that blobs {hashes:?} have come"),
        Ok(Frame::Level { digest, busy, .. }) => {
            let reads = digest.map_or("no digest", |_| "a digest");
            format!("level with {reads}{}", if busy { ", busy" } else { "" })
        }
        Ok(Frame::Tips { tips, .. }) => format!("{} tips", tips.len()),
        Ok(Frame::Batch { .. }) => format!("a batch of {size} bytes"),
        Ok(Frame::Blob { hash, .. }) => format!("blob {hash:?} ({size} bytes)"),
        Ok(Frame::Credit { .. }) => "credit".into(),
        Ok(frame) => {
            let debug = format!("{frame:?}");
            let name = debug.split([' ', '(', '{']).next().unwrap_or_default();
            format!("{} ({size} bytes)", name.to_lowercase())
        }
        Err(e) => format!("{size} bytes that are no frame: {e}"),
    }
}

/// Honest nodes over good links end sessions for few reasons.
fn judge_failure(
    node: usize,
    other: usize,
    spoiled: bool,
    error: &NodeError,
) -> Result<(), Violation> {
    let text = format!("node {node} ended a session with node {other}: {error}");
    match error {
        _ if spoiled => Ok(()),
        NodeError::Differs => Err(Check::Converged.failed(text)),
        NodeError::Session { code: Code::Protocol | Code::Version | Code::Limit, .. } => {
            Err(Check::Blamed.failed(text))
        }
        _ => Ok(()),
    }
}
