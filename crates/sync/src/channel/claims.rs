//! What comes from somebody else is not wanted from this peer, or would come twice. The side that receives says whose
//! entries to withhold; the side that sends offers their tips instead and is told when they are held. Whoever runs the
//! session decides what comes from whom: here it is only said and kept.

use super::{Channel, Event, HELD};
use crate::frame::{Code, Frame, OFFERS};
use crate::work::Work;
use anabranch_core::id::{NodeId, Position};
use anabranch_core::outgoing::Withhold;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Devices whose entries one peer may ask to have withheld.
pub const HOLDS: usize = 1_024;
/// Places that a peer offered and that are remembered until they are held; beyond, everything is compared anew.
const OFFERED: usize = 1_024;
/// How often more than that may be offered while nothing new comes.
const OVERFLOWS: u32 = 8;

#[derive(Debug, Default)]
pub(super) struct Claims {
    /// Whether the peer can be told to withhold anything.
    pub(super) able: bool,
    /// What the peer does not want.
    pub(super) withhold: Arc<Withhold>,
    /// What of that ends with its next frontier.
    ending: Withhold,
    /// Whether something is due and withheld.
    pub(super) withholds: bool,
    /// Whether the peer has anything that is lacking here; not known before both are compared.
    pub(super) lacks: Option<bool>,
    /// What the peer was told to withhold.
    told: Withhold,
    /// Offers are answers to such words.
    ever: bool,
    /// What the peer offered and was not held when that was looked up last.
    offered: BTreeSet<Position>,
    /// More was offered than is remembered: no offer counts until all is compared anew.
    full: bool,
    /// How often that was so since something new came.
    overflows: u32,
    /// What the peer said that it holds of what it was offered, for the next batch.
    pub(super) heard: Vec<Position>,
    /// What was offered is being looked up.
    judging: bool,
    /// It is to be looked up.
    stale: bool,
}

impl Claims {
    /// Whether the peer withholds something, so that what builds on it may come first.
    pub(super) fn is_told(&self) -> bool {
        self.told.all || !self.told.devices.is_empty()
    }

    /// Whether offers count. Else all is compared anew before the peer is to send again, and nothing need be remembered.
    fn minds_offers(&self) -> bool {
        !self.full && !self.told.all && !self.told.devices.is_empty()
    }

    /// The database changed: some of what was offered may have come, even of what is just being looked up.
    pub(super) fn changed(&mut self) {
        self.stale |= self.judging || !self.offered.is_empty();
    }

    /// The peer brought something new.
    pub(super) fn brought(&mut self) {
        self.overflows = 0;
    }

    /// The peer told its frontier.
    pub(super) fn compared(&mut self) {
        let ending = std::mem::take(&mut self.ending);
        if ending != Withhold::default() {
            let withhold = Arc::make_mut(&mut self.withhold);
            withhold.all &= !ending.all;
            withhold.devices.retain(|device| !ending.devices.contains(device));
        }
    }
}

impl Channel {
    /// Whether the peer can be told to withhold what comes from elsewhere.
    #[must_use]
    pub fn can_hold(&self) -> bool {
        self.claims.able && self.receives()
    }

    /// Whether this side takes entries from the peer, as far as is known.
    #[must_use]
    pub fn takes(&self) -> bool {
        self.receives()
    }

    /// Whether the peer has said that it has nothing more to send, and all that came is applied.
    #[must_use]
    pub fn is_fed(&self) -> bool {
        (self.their_level || self.claims.lacks == Some(false)) && !self.is_taking()
    }

    /// Whether something that came is still to be applied.
    #[must_use]
    pub fn is_taking(&self) -> bool {
        !self.incoming.is_empty() || self.applying.is_some()
    }

    /// Tells the peer to withhold what these devices wrote, or everything if none is named.
    pub(crate) fn hold(&mut self, devices: &[NodeId]) {
        if self.closed || !self.claims.able {
            return;
        }
        self.claims.ever = true;
        self.claims.told.all |= devices.is_empty();
        self.claims.told.devices.extend(devices);
        for devices in parts(devices) {
            self.frame(Frame::Hold { channel: self.number, devices });
        }
    }

    /// Takes that back for these, or for all if none is named, and tells the peer anew what is held here.
    pub(crate) fn resume(&mut self, devices: &[NodeId]) {
        if self.closed || !self.claims.able {
            return;
        }
        if devices.is_empty() {
            self.claims.told = Withhold::default();
            self.claims.full = false;
        }
        self.claims.told.devices.retain(|device| !devices.contains(device));
        // What stays withheld is offered anew.
        self.claims.offered.clear();
        self.claims.lacks = None;
        for devices in parts(devices) {
            self.frame(Frame::Resume { channel: self.number, devices });
        }
        self.their_level = false;
        self.level_told = None;
        // One that may not read is told after it has shown what it knows.
        if self.peer_may_read || self.shown.is_some() {
            self.ask_frontier(self.shown.clone());
        }
        self.go_on();
    }

    pub(super) fn on_hold(&mut self, devices: Vec<NodeId>) {
        let withhold = Arc::make_mut(&mut self.claims.withhold);
        withhold.all |= devices.is_empty();
        self.claims.ending.all &= !devices.is_empty();
        for device in devices {
            self.claims.ending.devices.remove(&device);
            withhold.devices.insert(device);
        }
        // What was taken back counts no more, and still ends only with the next frontier.
        let (all, ending) = (withhold.devices.len(), self.claims.ending.devices.len());
        if all - ending.min(all) > HOLDS || all > 2 * HOLDS {
            self.refuse(Code::Limit, "the entries of too many devices were to be withheld");
        }
    }

    pub(super) fn on_resume(&mut self, devices: Vec<NodeId>) {
        if devices.is_empty() {
            self.claims.ending = (*self.claims.withhold).clone();
        }
        let withheld = |device: &NodeId| self.claims.withhold.devices.contains(device);
        self.claims.ending.devices.extend(devices.into_iter().filter(withheld));
        // The peer compares anew and waits for word of the outcome.
        self.level_told = None;
        self.their_level = false;
    }

    pub(super) fn on_offer(&mut self, places: Vec<Position>) {
        if !self.claims.ever {
            return self.refuse(Code::Protocol, "entries were offered that were to be sent");
        }
        // What it withholds it still has to send, or to hear that it is held.
        self.their_level = false;
        if self.claims.minds_offers() {
            self.claims.offered.extend(places);
            self.claims.stale = true;
            self.bound_offers();
        }
    }

    fn bound_offers(&mut self) {
        if self.claims.offered.len() <= OFFERED {
            return;
        }
        self.claims.offered.clear();
        self.claims.full = true;
        self.claims.overflows += 1;
        if self.claims.overflows > OVERFLOWS {
            return self.refuse(Code::Limit, "more was offered than came, over and over");
        }
        self.event(Event::Withheld { places: BTreeSet::new(), more: true });
    }

    pub(super) fn on_held(&mut self, places: Vec<Position>) {
        self.claims.heard.extend(places);
        self.claims.heard.truncate(HELD);
        self.dirty = true;
    }

    pub(super) fn judge_next(&mut self) {
        if self.claims.stale && !self.claims.judging {
            self.claims.stale = false;
            self.claims.judging = true;
            let places = std::mem::take(&mut self.claims.offered).into_iter().collect();
            self.work(Work::Judge { places });
        }
    }

    pub(super) fn on_judged(&mut self, held: Vec<Position>, lacking: Vec<Position>) {
        self.claims.judging = false;
        let lacking = if self.claims.minds_offers() { lacking } else { Vec::new() };
        let places = lacking.iter().copied().collect();
        self.claims.offered.extend(lacking);
        self.bound_offers();
        if self.closed {
            return;
        }
        if !self.claims.full {
            self.event(Event::Withheld { places, more: false });
        }
        for places in held.chunks(OFFERS) {
            self.frame(Frame::Held { channel: self.number, places: places.to_vec() });
        }
        self.note_held(held);
    }
}

/// What one frame each may name.
fn parts(devices: &[NodeId]) -> Vec<Vec<NodeId>> {
    match devices {
        [] => vec![Vec::new()],
        devices => devices.chunks(OFFERS).map(<[NodeId]>::to_vec).collect(),
    }
}
