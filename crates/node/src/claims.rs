//! Who brings what. Several peers may have the same entries; each is to come once. While one of them catches this replica
//! up the others are told to withhold everything, and take their turn when it is done, leaves or stalls. Live commits are
//! claimed per device that writes: they come from whoever brought them last, the others are told to offer only, and an
//! offer that nobody makes good in time is taken. A claim is a hint: what is not held stays lacking, whoever claimed it.

use crate::wants::SessionId;
use anabranch_core::id::{NodeId, Position};
use anabranch_core::sabotage::{self, Bug};
use anabranch_sync::channel::HOLDS;
use anabranch_sync::frame::ChannelNo;
use anabranch_sync::work::Authors;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// Devices whose entries are claimed. Those of more come as often as they are sent.
const CLAIMS: usize = HOLDS;
/// After so many time-outs a peer that is still not done lets another one go on, so that none is waited for for ever
/// however little it sends.
const TURN: u32 = 6;

/// Names a channel of this process.
pub(crate) type Source = (SessionId, ChannelNo);

/// How a channel stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stand {
    /// Who is at the other end.
    pub(crate) peer: NodeId,
    /// Whether it can be told to withhold anything.
    pub(crate) able: bool,
    /// Whether it may know what is held here, so that offers can be answered.
    pub(crate) reads: bool,
    /// Whether it has to prove that first, to a replica that could tell: its proof is among what it sends. Once it has not,
    /// it never has.
    pub(crate) proves: bool,
    /// Whether it has nothing more to send, as far as is known.
    pub(crate) fed: bool,
    /// Whether something that it sent is still to be applied.
    pub(crate) taking: bool,
}

impl Stand {
    /// Whether it waits for others.
    fn takes_turns(&self) -> bool {
        self.able && !self.proves
    }
}

/// What a peer is to be told. No devices: everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Order {
    Hold(Vec<NodeId>),
    Resume(Vec<NodeId>),
}

#[derive(Debug)]
struct Peer {
    stand: Stand,
    /// It was told to withhold everything and waits for its turn.
    waits: bool,
    /// Whose entries it was told to withhold.
    held: BTreeSet<NodeId>,
    /// What it offers that is lacking here, and since when.
    offers: BTreeMap<Position, Duration>,
    /// Who wrote that, and since when the oldest of it is lacking.
    lacking: BTreeMap<NodeId, Duration>,
    /// When it last brought something, and since when it has been at it or waits.
    moved: Duration,
    turn: Duration,
    orders: Vec<Order>,
}

impl Peer {
    /// Whether others wait for it, unless it stalls.
    fn is_awaited(&self) -> bool {
        !self.waits && !self.stand.fed && !self.stand.proves
    }
}

#[derive(Debug, Clone, Copy)]
struct Claim {
    by: Source,
    moved: Duration,
}

/// The claims of one replica. All times are those of one clock that never goes back.
#[derive(Debug)]
pub(crate) struct Claims {
    patience: Duration,
    peers: BTreeMap<Source, Peer>,
    /// The devices that wait for their turn, however many channels lead to each.
    queue: VecDeque<NodeId>,
    /// Since when the first of them is the first.
    passed: Duration,
    /// Who brings what a device writes.
    claims: BTreeMap<NodeId, Claim>,
    /// Peers that offer something that is lacking.
    offering: BTreeSet<Source>,
    /// Peers that have orders.
    ordered: BTreeSet<Source>,
    /// Those of them that nobody has rung for.
    unrung: BTreeSet<Source>,
}

impl Claims {
    /// Waits for a claim to be made good for `patience`.
    pub(crate) fn new(patience: Duration) -> Self {
        Self {
            patience,
            peers: BTreeMap::new(),
            queue: VecDeque::new(),
            passed: Duration::ZERO,
            claims: BTreeMap::new(),
            offering: BTreeSet::new(),
            ordered: BTreeSet::new(),
            unrung: BTreeSet::new(),
        }
    }

    /// Whether somebody is to be told something.
    #[cfg(test)]
    fn has_orders(&self) -> bool {
        !self.ordered.is_empty()
    }

    /// Whether somebody is to be told something who was not when this was asked last.
    pub(crate) fn rings(&mut self) -> bool {
        !std::mem::take(&mut self.unrung).is_empty()
    }

    /// What this peer is to be told.
    pub(crate) fn orders(&mut self, source: Source) -> Vec<Order> {
        self.unrung.remove(&source);
        if !self.ordered.remove(&source) {
            return Vec::new();
        }
        self.peers.get_mut(&source).map(|peer| std::mem::take(&mut peer.orders)).unwrap_or_default()
    }

    fn order(&mut self, source: Source, order: Order) {
        if let Some(peer) = self.peers.get_mut(&source).filter(|_| !sabotage::is(Bug::Unclaimed)) {
            peer.orders.push(order);
            if self.ordered.insert(source) {
                self.unrung.insert(source);
            }
        }
    }

    /// A channel on which entries come stands like this now.
    pub(crate) fn stands(&mut self, source: Source, mut stand: Stand, now: Duration) {
        let before = self.peers.get(&source).map(|peer| peer.stand);
        stand.proves &= before.is_none_or(|before| before.proves);
        if before == Some(stand) {
            return;
        }
        let comes = before.is_none_or(|before| !before.takes_turns()) && stand.takes_turns();
        let comes = comes && !stand.fed;
        // Whoever stalls keeps nobody waiting.
        let busy = if comes { self.brings(now) } else { None };
        let peer = self.peers.entry(source).or_insert_with(|| Peer {
            stand,
            waits: false,
            held: BTreeSet::new(),
            offers: BTreeMap::new(),
            lacking: BTreeMap::new(),
            moved: now,
            turn: now,
            orders: Vec::new(),
        });
        peer.stand = stand;
        let starts = before.is_none_or(|before| before.fed) && !stand.fed;
        if starts {
            peer.turn = now;
        }
        if starts || before.is_some_and(|before| before.taking && !stand.taking) {
            peer.moved = now;
        }
        if busy.is_some_and(|busy| busy != source) {
            self.wait(source, now);
        } else if before.is_none_or(|before| before.fed != stand.fed) {
            self.pass_turn(now);
        }
    }

    fn wait(&mut self, source: Source, now: Duration) {
        let Some(peer) = self.peers.get_mut(&source).filter(|peer| !peer.waits) else { return };
        (peer.waits, peer.turn) = (true, now);
        if self.queue.is_empty() {
            self.passed = now;
        }
        if !self.queue.contains(&peer.stand.peer) {
            self.queue.push_back(peer.stand.peer);
        }
        self.order(source, Order::Hold(Vec::new()));
    }

    fn is_stalled(&self, peer: &Peer, now: Duration) -> bool {
        let idle = !peer.stand.taking && now >= peer.moved + self.patience;
        idle || now >= peer.turn + TURN * self.patience
    }

    /// Somebody who is at it.
    fn brings(&self, now: Duration) -> Option<Source> {
        let at_it = |peer: &Peer| peer.is_awaited() && !self.is_stalled(peer, now);
        self.peers.iter().find(|(_, peer)| at_it(peer)).map(|(source, _)| *source)
    }

    /// When the next one goes on, whoever is at it: one device may come on ever new channels.
    fn turn_ends(&self) -> Duration {
        self.passed + TURN * self.patience
    }

    /// Lets the next one go on if nobody is at it.
    fn pass_turn(&mut self, now: Duration) {
        if self.queue.is_empty() || sabotage::is(Bug::ClaimKept) {
            return;
        }
        if now < self.turn_ends() && self.brings(now).is_some() {
            return;
        }
        let stalled = |peer: &Peer| peer.is_awaited() && peer.stand.able;
        let stalled: Vec<Source> = self
            .peers
            .iter()
            .filter(|(_, peer)| stalled(peer))
            .map(|(source, _)| *source)
            .collect();
        stalled.into_iter().for_each(|source| self.wait(source, now));
        let Some(device) = self.queue.pop_front() else { return };
        self.passed = now;
        let first = self.waiting(device).min_by_key(|(_, peer)| peer.turn);
        let first = first.map(|(source, _)| *source);
        if self.waiting(device).nth(1).is_some() {
            self.queue.push_back(device);
        }
        if let Some(source) = first {
            self.resume(source, now);
        }
    }

    /// The channels to `device` that wait.
    fn waiting(&self, device: NodeId) -> impl Iterator<Item = (&Source, &Peer)> {
        self.peers.iter().filter(move |(_, peer)| peer.waits && peer.stand.peer == device)
    }

    /// It is the turn of `source`.
    fn resume(&mut self, source: Source, now: Duration) {
        let Some(peer) = self.peers.get_mut(&source) else { return };
        (peer.waits, peer.stand.fed) = (false, false);
        (peer.moved, peer.turn) = (now, now);
        self.want_all(source);
    }

    /// Everything is wanted from `source`.
    fn want_all(&mut self, source: Source) {
        let Some(peer) = self.peers.get_mut(&source) else { return };
        peer.held.clear();
        peer.offers.clear();
        peer.lacking.clear();
        self.offering.remove(&source);
        self.order(source, Order::Resume(Vec::new()));
    }

    /// A channel ended: what was claimed by it is wanted from the others.
    pub(crate) fn leave(&mut self, source: Source, now: Duration) {
        let Some(peer) = self.peers.remove(&source) else { return };
        let device = peer.stand.peer;
        if self.waiting(device).next().is_none() {
            self.queue.retain(|other| *other != device);
        }
        self.ordered.remove(&source);
        self.unrung.remove(&source);
        self.offering.remove(&source);
        if sabotage::is(Bug::ClaimKept) {
            return;
        }
        let free: BTreeSet<NodeId> =
            self.claims.extract_if(.., |_, claim| claim.by == source).map(|(d, _)| d).collect();
        let others: Vec<Source> = self.peers.keys().copied().collect();
        for other in others.into_iter().filter(|_| !free.is_empty()) {
            self.want(other, &free);
        }
        self.pass_turn(now);
    }

    /// What these devices wrote is wanted from `source`, if it was told to withhold that.
    fn want(&mut self, source: Source, devices: &BTreeSet<NodeId>) {
        let Some(peer) = self.peers.get_mut(&source) else { return };
        let devices: Vec<NodeId> = peer.held.intersection(devices).copied().collect();
        for device in &devices {
            peer.held.remove(device);
            peer.lacking.remove(device);
        }
        peer.offers.retain(|place, _| !devices.contains(&place.log.device));
        if !devices.is_empty() {
            self.order(source, Order::Resume(devices));
        }
    }

    /// What came over `source` was new or came already.
    pub(crate) fn brought(&mut self, source: Source, authors: &Authors, now: Duration) {
        let Some(peer) = self.peers.get_mut(&source) else { return };
        if !authors.new.is_empty() {
            peer.moved = now;
        }
        let (waits, from) = (peer.waits, peer.stand.peer);
        for device in &authors.new {
            let room = self.claims.len() < CLAIMS;
            match self.claims.get_mut(device) {
                Some(claim) if claim.by == source => claim.moved = now,
                // What it sent before it heard that it is not to.
                _ if waits || peer.held.contains(device) => {}
                Some(claim) => *claim = Claim { by: source, moved: now },
                None if room => {
                    self.claims.insert(*device, Claim { by: source, moved: now });
                }
                None => {}
            }
        }
        let mut twice = Vec::new();
        for device in &authors.again {
            let Some(claim) = self.claims.get_mut(device) else { continue };
            if claim.by == source {
                continue;
            }
            // Nothing is faster than who writes it.
            if *device == from && !waits {
                let other = std::mem::replace(&mut claim.by, source);
                claim.moved = now;
                self.hold(other, &[*device]);
            } else {
                twice.push(*device);
            }
        }
        self.hold(source, &twice);
    }

    fn hold(&mut self, source: Source, devices: &[NodeId]) {
        let Some(peer) = self.peers.get_mut(&source) else { return };
        if peer.waits || !peer.stand.able || !peer.stand.reads {
            return;
        }
        let room = HOLDS.saturating_sub(peer.held.len());
        let fresh = devices.iter().copied().filter(|device| !peer.held.contains(device));
        let fresh: Vec<NodeId> = fresh.take(room).collect();
        peer.held.extend(&fresh);
        if !fresh.is_empty() {
            self.order(source, Order::Hold(fresh));
        }
    }

    /// All that `source` offers and that is lacking here.
    pub(crate) fn offered(&mut self, source: Source, places: &BTreeSet<Position>, now: Duration) {
        let Some(peer) = self.peers.get_mut(&source) else { return };
        let before = std::mem::take(&mut peer.offers);
        peer.lacking.clear();
        for place in places {
            let since = before.get(place).copied().unwrap_or(now);
            peer.offers.insert(*place, since);
            let oldest = peer.lacking.entry(place.log.device).or_insert(since);
            *oldest = since.min(*oldest);
        }
        if peer.lacking.is_empty() {
            self.offering.remove(&source);
        } else {
            self.offering.insert(source);
        }
        self.check(now);
    }

    /// More is offered by `source` than can be remembered.
    pub(crate) fn overflowed(&mut self, source: Source, now: Duration) {
        // That brings nothing, so its turn goes on as it is.
        if self.peers.get(&source).is_some_and(|peer| !peer.waits) {
            self.want_all(source);
        }
        self.check(now);
    }

    /// When an offer is taken: not while whoever claims such entries brings some, unless it brings others for ever.
    fn due(&self, source: Source, device: &NodeId, since: Duration) -> Option<Duration> {
        let claim = self.claims.get(device).filter(|claim| claim.by != source)?;
        Some((since.max(claim.moved) + self.patience).min(since + TURN * self.patience))
    }

    /// Takes what was claimed and did not come in time.
    pub(crate) fn check(&mut self, now: Duration) {
        if sabotage::is(Bug::ClaimKept) {
            return;
        }
        let mut late: Vec<(Source, NodeId)> = Vec::new();
        for source in &self.offering {
            let Some(peer) = self.peers.get(source) else { continue };
            let is_late = |(device, since): &(&NodeId, &Duration)| {
                self.due(*source, device, **since).is_none_or(|due| now >= due)
            };
            late.extend(peer.lacking.iter().filter(is_late).map(|(device, _)| (*source, *device)));
        }
        for (source, device) in late {
            // One at a time: the others offer it still, and take their turn if this does not help either.
            let due = self.peers.get(&source).and_then(|peer| peer.lacking.get(&device)).copied();
            let Some(since) = due else { continue };
            if self.due(source, &device, since).is_some_and(|due| now < due) {
                continue;
            }
            if let Some(claim) = self.claims.get_mut(&device) {
                *claim = Claim { by: source, moved: now };
            }
            self.want(source, &BTreeSet::from([device]));
        }
        self.pass_turn(now);
    }

    /// When [`Self::check`] is due for the sake of `source`.
    pub(crate) fn wakes(&self, source: Source, now: Duration) -> Option<Duration> {
        let peer = self.peers.get(&source).filter(|_| !sabotage::is(Bug::ClaimKept))?;
        let offers = peer.lacking.iter().filter_map(|(d, since)| self.due(source, d, *since)).min();
        let at_it = self.peers.values().filter(|other| other.is_awaited());
        let stalls = at_it.map(|other| {
            let idle = if other.stand.taking { now } else { other.moved } + self.patience;
            idle.min(other.turn + TURN * self.patience)
        });
        let ends = self.turn_ends();
        let turn = peer.waits.then(|| stalls.max().map_or(ends, |stalls| stalls.min(ends)));
        offers.into_iter().chain(turn).min()
    }
}

#[cfg(test)]
mod tests;
