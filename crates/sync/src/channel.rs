//! One database on a session: compare, plan, stream, apply, stay level. Both sides run the same machine; only who opened
//! it differs. A sender never exceeds the credit it was given, so a slow receiver bounds it (I7).

mod claims;
mod compare;
mod event;
mod level;
mod opening;

pub use claims::HOLDS;
pub(crate) use event::Emit;
pub use event::{Direction, Event};
pub(crate) use opening::Asks;

use self::claims::Claims;
use self::compare::Compare;
use crate::forks::Forks;
use crate::frame::{
    ChannelNo, Code, DATA_BYTES, Frame, HASHES, Request, TIPS_PER_FRAME, Terms, TicketProof,
};
use crate::incoming::{Incoming, Next};
use crate::rights::{Person, Reason, Right, Shown};
use crate::trial::Trial;
use crate::wanted::{self, Wanted};
use crate::work::{Answer, Work};
use anabranch_core::admit::Load;
use anabranch_core::blob::ChunkHash;
use anabranch_core::codec::keyed_hash;
use anabranch_core::frontier::{Frontier, FrontierTip};
use anabranch_core::id::{DatabaseId, LogId, Position};
use anabranch_core::outgoing::Outgoing;
use std::collections::VecDeque;

/// Bytes of data that may be under way in one direction of one channel. Part of the protocol.
pub const CREDIT: u32 = 1024 * 1024;
/// Tips of a peer's frontier that are accepted.
pub const FRONTIER_TIPS: usize = 200_000;
/// Bytes that a batch has at least: a run brings a signature, and that does not shrink.
const BATCH_LEAST: usize = 64;
/// Heads of received runs that are noted for the next batch; what is not noted is at worst sent back.
const HELD: usize = 8_192;
/// The one answer to whoever may not know whether a database is served.
pub(crate) const NOT_SERVED: &str =
    "the database is not served here, or this device may not read it";
/// How often two peers that are level but not equal compare anew, while nothing moves, before they give up.
const RECOMPARES: u32 = 8;

#[derive(Debug)]
enum Plan {
    /// The peer's frontier is not known yet.
    None,
    /// Lent to storage work.
    Away,
    Here(Box<Outgoing>),
}

/// What is to come where entries only come.
#[derive(Debug)]
enum Goal {
    /// Nothing more than came.
    None,
    /// All of this.
    Of(Frontier),
    /// It is being looked whether all came.
    Away,
    /// Not all came, however often it was compared.
    Missed,
}

/// One open database.
#[derive(Debug)]
pub struct Channel {
    number: ChannelNo,
    /// The database.
    pub database: DatabaseId,
    binding: [u8; 32],
    opener: bool,
    mine: Direction,
    /// Our possession of a ticket, to show.
    proof: Option<TicketProof>,
    /// Our request to be let in.
    request: Option<Request>,
    /// What shows whose device this one is, until it was sent.
    evidence: Option<Vec<u8>>,
    theirs: Option<Terms>,
    /// What the peer showed.
    pub(crate) credentials: Shown,
    peer_may_read: bool,
    /// The peer's right was revoked, as far as is known here; it may still bring what gives it a new one.
    revoked: bool,
    /// The database changed while the peer might not read: somebody else may have brought what makes it a member.
    rights_stale: bool,
    /// They are being looked up.
    looking: bool,
    digest: [u8; 32],
    their_digest: Option<[u8; 32]>,
    started: bool,
    told_frontier: Told,
    /// Ours is being read.
    reading_frontier: bool,
    /// It is to be read once more, like this: the peer is to be told anew.
    read_again: Option<(Option<Frontier>, bool)>,
    /// What a peer that may not read has shown that it knows.
    shown: Option<Frontier>,
    tips: Vec<FrontierTip>,
    compare: Compare,
    plan: Plan,
    replan: Option<Frontier>,
    /// How what comes is applied.
    load: Load,
    /// What the peer told that it has, where entries only come from it: there are no equal digests to wait for, so it is
    /// checked in the end that all of this came.
    goal: Goal,
    /// Found out while the plan was lent.
    held: Vec<Position>,
    parted: Vec<(LogId, Option<Position>)>,
    forks: Forks,
    claims: Claims,
    dirty: bool,
    /// Bytes that may be sent; a last blob may overdraw it.
    credit: i64,
    unacknowledged: u32,
    incoming: Incoming,
    /// What came from a peer that lost its right and is of no use so far.
    trial: Trial,
    applying: Option<u32>,
    /// A batch is being put together. Not while one is applied: what that brings would go back to where it came from.
    sending: bool,
    applied_last: bool,
    taken: u32,
    level_told: Option<(Option<[u8; 32]>, bool)>,
    /// The peer was told that all is done here, and no data went or came since: it may have left on that word.
    released: bool,
    their_level: bool,
    busy: bool,
    their_busy: bool,
    recompares: u32,
    wanted: Wanted,
    asked: VecDeque<ChunkHash>,
    /// How many of what was asked for are being read.
    reading: usize,
    pub(crate) closed: bool,
    out: Vec<Emit>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Nothing,
    /// It is being read.
    Soon,
    Part,
    Whole,
}

impl Channel {
    pub(crate) fn new(
        number: ChannelNo,
        database: DatabaseId,
        binding: [u8; 32],
        opener: bool,
        mine: Direction,
        asks: Asks,
    ) -> Self {
        let Asks { proof, mut request, mut evidence } = asks;
        let (mut credentials, mut asked) = (Shown::default(), None);
        if !opener {
            // It is for whoever was asked.
            asked = request.take();
            let person = asked.as_ref().and_then(|request| request.person);
            let shown = person.zip(evidence.take());
            credentials.person = shown.map(|(person, bytes)| Person::new(person, bytes));
        }
        Self {
            number,
            database,
            binding,
            opener,
            mine,
            proof,
            request,
            evidence,
            theirs: None,
            credentials,
            peer_may_read: false,
            revoked: false,
            rights_stale: false,
            looking: false,
            digest: [0; 32],
            their_digest: None,
            started: false,
            told_frontier: Told::Nothing,
            reading_frontier: false,
            read_again: None,
            shown: None,
            tips: Vec::new(),
            compare: Compare::default(),
            plan: Plan::None,
            replan: None,
            load: Load::AtOnce,
            goal: Goal::None,
            held: Vec::new(),
            parted: Vec::new(),
            forks: Forks::default(),
            claims: Claims::default(),
            dirty: false,
            credit: i64::from(CREDIT),
            unacknowledged: 0,
            incoming: Incoming::default(),
            trial: Trial::default(),
            applying: None,
            sending: false,
            applied_last: false,
            taken: 0,
            level_told: None,
            released: false,
            their_level: false,
            busy: false,
            // Until it says otherwise: equal digests at the opening say nothing of what it works on.
            their_busy: true,
            recompares: 0,
            wanted: Wanted::default(),
            asked: VecDeque::new(),
            reading: 0,
            closed: false,
            out: vec![Emit::Work(Work::Open { request: asked })],
        }
    }

    /// Whether the peer can be told to withhold entries.
    pub(crate) fn set_able(&mut self, able: bool) {
        self.claims.able = able;
    }

    pub(crate) fn is_opener(&self) -> bool {
        self.opener
    }

    pub(crate) fn drain(&mut self) -> Vec<Emit> {
        std::mem::take(&mut self.out)
    }

    fn frame(&mut self, frame: Frame) {
        self.out.push(Emit::Frame(frame));
    }

    fn event(&mut self, event: Event) {
        self.out.push(Emit::Event(event));
    }

    fn work(&mut self, work: Work) {
        self.out.push(Emit::Work(work));
    }

    /// Ends the channel and tells the peer why.
    pub(crate) fn refuse(&mut self, code: Code, text: &str) {
        if self.closed {
            return;
        }
        self.closed = true;
        let (told, words) = match code {
            // What failed inside is for the user here: it may name files.
            Code::Internal => (code, "the other side could not do it"),
            Code::Full => (code, "the disk of the other side is full"),
            // Who has shown no right at all is not told whether the database is here.
            Code::Strangers | Code::TicketUnknown => (Code::NotServed, NOT_SERVED),
            _ => (code, text),
        };
        self.frame(Frame::Refused { channel: self.number, code: told, text: words.to_owned() });
        self.event(Event::Closed { code, text: text.to_owned(), by_peer: false });
    }

    pub(crate) fn refused(&mut self, code: Code, text: String) {
        if !self.closed {
            self.closed = true;
            let (code, text) = self.explained(code, text);
            self.event(Event::Closed { code, text, by_peer: true });
        }
    }

    /// A digest as it is told on this session: a stranger learns nothing from it.
    fn blind(&self, digest: [u8; 32]) -> [u8; 32] {
        keyed_hash(&self.binding, &digest)
    }

    fn told_digest(&self) -> Option<[u8; 32]> {
        self.peer_may_read.then(|| self.blind(self.digest))
    }

    fn terms(&self) -> Terms {
        Terms {
            sends: self.mine.send,
            receives: self.mine.receive,
            you_may_read: self.peer_may_read,
        }
    }

    fn sends(&self) -> bool {
        self.mine.send && self.peer_may_read && self.theirs.is_some_and(|t| t.receives)
    }

    fn receives(&self) -> bool {
        self.mine.receive && self.theirs.is_some_and(|t| t.sends && t.you_may_read)
    }

    fn takes_only(&self) -> bool {
        self.receives() && !self.sends()
    }

    fn ask_frontier(&mut self, within: Option<Frontier>) {
        // A peer that has told no digest may hold nothing at all, and when something went wrong all is compared.
        let summed = within.is_none() && self.their_digest.is_some() && self.recompares == 0;
        self.read_frontier(within, summed);
    }

    /// Reads it once at a time: whatever a peer does, no more of that is under way.
    fn read_frontier(&mut self, within: Option<Frontier>, summed: bool) {
        self.told_frontier = Told::Soon;
        if self.reading_frontier {
            let summed = summed && self.read_again.as_ref().is_none_or(|(_, summed)| *summed);
            self.read_again = Some((within, summed));
        } else {
            self.reading_frontier = true;
            self.work(Work::Frontier { within, summed });
        }
    }

    pub(crate) fn receive(&mut self, frame: Frame) {
        if self.closed {
            return;
        }
        match frame {
            Frame::Tips { tips, last, .. } => self.on_tips(tips, last),
            Frame::Symbols { from, tips, digest, symbols, .. } => {
                self.on_symbols(from, tips, digest, symbols);
            }
            Frame::Ask { what, .. } => self.on_ask(what),
            Frame::Named { tips, .. } => self.on_named(tips),
            Frame::Fork { samples, .. } => self.on_fork(samples),
            Frame::ForkPoint { log, held, .. } => {
                // What the peer said of where it stands it said before it knew of our branch, and it will say so anew.
                self.their_level = false;
                for held in self.forks.answered(log, held).into_iter().flatten() {
                    self.parted.push((log, held));
                    self.dirty = true;
                }
            }
            Frame::Batch { raw, bytes, .. } => {
                if self.take(bytes.len()) && self.may_take(bytes.len()) {
                    self.incoming.batch(raw, bytes);
                }
            }
            Frame::Blob { hash, bytes, .. } => {
                if !self.wanted.done(&hash) {
                    self.refuse(Code::Protocol, "a blob came that nobody asked for");
                } else if self.take(bytes.len()) {
                    self.incoming.blob(hash, bytes);
                }
            }
            Frame::Credit { bytes, .. } => self.on_credit(bytes),
            Frame::Level { digest, busy, .. } => {
                // Who tells its digest lets us read, even if it did not when the channel was opened.
                if let Some(theirs) = self.theirs.as_mut().filter(|_| digest.is_some()) {
                    theirs.you_may_read = true;
                }
                // What moves is worth comparing again.
                if digest != self.their_digest {
                    self.recompares = 0;
                }
                self.their_digest = digest;
                self.their_level = true;
                self.compare.release();
                self.claims.lacks = Some(false);
                self.their_busy = busy;
                self.event(Event::Progress);
            }
            Frame::Want { hashes, .. } => {
                if self.asked.len() + self.reading + hashes.len() > wanted::OPEN {
                    return self.refuse(Code::Limit, "too many blobs were asked for at once");
                }
                self.level_told = None;
                self.event(Event::Asked(hashes.clone()));
                self.asked.extend(hashes);
            }
            Frame::NoBlob { hashes, .. } => {
                let hashes = hashes.into_iter().filter(|hash| self.wanted.done(hash)).collect();
                self.event(Event::NoBlobs(hashes));
            }
            Frame::Have { hashes, .. } => self.event(Event::Offered(hashes)),
            Frame::Hold { devices, .. } => self.on_hold(devices),
            Frame::Resume { devices, .. } => self.on_resume(devices),
            Frame::Offer { places, .. } => self.on_offer(places),
            Frame::Held { places, .. } => self.on_held(places),
            _ => self.refuse(Code::Protocol, "a frame came that does not belong to a channel"),
        }
        self.go_on();
    }

    /// Counts data that came; `false` when it was too much.
    fn take(&mut self, bytes: usize) -> bool {
        self.taken = self.taken.saturating_add(bytes as u32);
        if self.taken > CREDIT + DATA_BYTES as u32 {
            self.refuse(Code::Limit, "more data came than was allowed");
        }
        // What comes must be answered with a fresh word on where we stand, and the peer will say anew where it does.
        self.level_told = None;
        self.released = false;
        self.their_level = false;
        self.claims.lacks = Some(true);
        !self.closed
    }

    /// Whether a batch of so many bytes may come at all.
    fn may_take(&mut self, bytes: usize) -> bool {
        if !self.mine.receive {
            self.refuse(Code::Protocol, "entries came that were not asked for");
        } else if bytes < BATCH_LEAST {
            self.refuse(Code::Protocol, "a batch came that is too short to hold a run");
        }
        !self.closed
    }

    fn on_tips(&mut self, tips: Vec<FrontierTip>, last: bool) {
        self.tips.extend(tips);
        if self.tips.len() > FRONTIER_TIPS {
            return self.refuse(Code::Limit, "the frontier has too many tips");
        }
        if !last {
            return;
        }
        // The peer compares anew and waits for word of the outcome, even if that is the same as before.
        self.level_told = None;
        let frontier = Frontier::new(std::mem::take(&mut self.tips));
        if self.told_frontier == Told::Nothing {
            self.shown = (!self.peer_may_read).then(|| frontier.clone());
            self.ask_frontier(self.shown.clone());
        } else if self.told_frontier == Told::Whole
            && !matches!(self.plan, Plan::None)
            && self.sends()
            && !self.receives()
        {
            // It lacks something, perhaps of a branch that came here since: only what it is told shows it that a log forked.
            self.ask_frontier(None);
        }
        self.on_frontier(frontier);
    }

    /// The peer's frontier is known.
    fn on_frontier(&mut self, frontier: Frontier) {
        self.compare.end();
        self.claims.compared();
        if self.takes_only() && !matches!(self.goal, Goal::Away) {
            self.goal = Goal::Of(frontier.clone());
        }
        self.replan = Some(frontier);
    }

    fn on_fork(&mut self, samples: Vec<Position>) {
        match samples.first() {
            Some(first) if samples.iter().all(|p| p.log == first.log) => {
                match self.forks.asked(&first.log) {
                    Some(show) => {
                        // The peer waits for word of what comes of it.
                        self.level_told = None;
                        self.work(Work::Fork { samples, show });
                    }
                    None => {
                        self.refuse(Code::Limit, "too many branches of logs were shown at once")
                    }
                }
            }
            _ => self.refuse(Code::Protocol, "the places along a log are not of one log"),
        }
    }

    fn on_credit(&mut self, bytes: u32) {
        if bytes > self.unacknowledged {
            return self.refuse(Code::Protocol, "credit came for data that was never sent");
        }
        self.unacknowledged -= bytes;
        self.credit += i64::from(bytes);
        // What it said of where it stands it said before it took this.
        self.their_level = false;
        self.event(Event::Progress);
    }

    pub(crate) fn answer(&mut self, answer: Answer) {
        if self.closed {
            return;
        }
        match answer {
            Answer::Open { digest, right } if self.started => {
                self.looking = false;
                self.digest = digest;
                self.revoked = right == Err(Reason::Revoked);
                self.on_right(right);
            }
            Answer::Open { digest, right } => self.on_open(digest, right),
            Answer::Frontier { frontier, whole } => {
                self.reading_frontier = false;
                let again = self.read_again.take();
                self.tell_frontier(&frontier, whole);
                if !whole && self.peer_may_read {
                    self.ask_frontier(None);
                } else if let Some((within, summed)) = again {
                    self.read_frontier(within, summed);
                }
            }
            Answer::Summed(summed) => {
                self.reading_frontier = false;
                self.on_summed(summed);
                if let Some((within, summed)) = self.read_again.take() {
                    self.read_frontier(within, summed);
                }
            }
            Answer::Differ { round, found, tips } => self.on_differ(round, found, tips),
            Answer::Named { tips } => self.frame(Frame::Named { channel: self.number, tips }),
            Answer::Assembled { round, frontier, digest } => {
                self.on_assembled(round, frontier, digest);
            }
            Answer::Moved => {
                // Something was committed since the digests were compared, so they say nothing.
                self.plan = Plan::None;
                self.their_level = false;
                self.ask_frontier(None);
            }
            Answer::Plan { out, due, lacking, forks, load } => {
                self.plan = Plan::Here(out);
                self.claims.withholds = false;
                self.claims.lacks = Some(lacking > 0);
                self.load = load;
                self.dirty = true;
                self.event(Event::Planned { due, lacking });
                self.forks.plan(forks);
            }
            Answer::Lacking { peer, lacking } => self.on_lacking(peer, lacking),
            Answer::Next { out, batch, offers, digest, right } => {
                self.on_next(out, batch, offers, digest, right);
            }
            Answer::Judged { held, lacking } => self.on_judged(held, lacking),
            Answer::Fork { log, held, ours } => {
                self.forks.answer(&log, ours);
                self.frame(Frame::ForkPoint { channel: self.number, log, held });
            }
            Answer::Checked { number, batch } => self.incoming.checked(number, batch),
            Answer::Applied { entries, changes, authors, heads, digest, right, waiting, trial } => {
                self.trial = trial;
                self.note_held(heads);
                self.digest = digest;
                self.on_right(right);
                let bytes = self.acknowledge();
                self.event(Event::Applied { entries, bytes, changes, authors });
                if entries > 0 {
                    self.claims.brought();
                    self.recompares = 0;
                }
                // What it waits for may be what the peer was told to withhold.
                let shown = self.peer_may_read || self.shown.is_some();
                let lost = waiting && shown && self.incoming.is_empty() && !self.claims.is_told();
                if lost && self.recompares < RECOMPARES {
                    self.recompares += 1;
                    self.ask_frontier(self.shown.clone());
                }
            }
            Answer::Blobs { found, missing, later } => self.on_blobs(found, missing, later),
            Answer::Stored { hashes } => {
                let bytes = self.acknowledge();
                self.event(Event::Blobs { count: hashes.len() as u64, bytes });
            }
            Answer::Failed { code, text } => return self.refuse(code, &text),
        }
        self.go_on();
    }

    fn on_next(
        &mut self,
        out: Box<Outgoing>,
        batch: Option<(u32, Vec<u8>, u64)>,
        offers: Vec<Position>,
        digest: [u8; 32],
        right: Right,
    ) {
        self.claims.withholds = out.withholds();
        let more = out.has_offers() && !self.claims.withhold.all;
        self.plan = Plan::Here(out);
        self.sending = false;
        self.dirty |= more;
        self.digest = digest;
        if let Err(reason) = right {
            let (code, text) = reason.loss();
            return self.refuse(code, text);
        }
        if !offers.is_empty() {
            self.level_told = None;
            self.frame(Frame::Offer { channel: self.number, places: offers });
        }
        let Some((raw, bytes, entries)) = batch else { return };
        self.dirty = true;
        let len = bytes.len() as u32;
        self.spend(len);
        self.frame(Frame::Batch { channel: self.number, raw, bytes });
        self.event(Event::Sent { entries, bytes: u64::from(len) });
    }

    fn spend(&mut self, bytes: u32) {
        self.credit -= i64::from(bytes);
        self.unacknowledged += bytes;
        self.level_told = None;
        self.released = false;
        self.their_level = false;
    }

    /// What was applied is durable, so as much more may come.
    fn acknowledge(&mut self) -> u64 {
        let Some(bytes) = self.applying.take() else { return 0 };
        self.applied_last = true;
        self.taken = self.taken.saturating_sub(bytes);
        self.frame(Frame::Credit { channel: self.number, bytes });
        u64::from(bytes)
    }

    fn note_held(&mut self, heads: Vec<Position>) {
        if !self.sends() {
            return;
        }
        self.held.extend(heads);
        self.held.truncate(HELD);
        self.dirty |= self.held.len() == HELD;
    }

    /// What came may have made the peer a member, whom we may now tell more.
    fn on_right(&mut self, right: Right) {
        if let Err(reason) = right
            && self.peer_may_read
        {
            let (code, text) = reason.loss();
            return self.refuse(code, text);
        }
        let news = right.is_ok() && !self.peer_may_read;
        self.peer_may_read = right.is_ok();
        if news {
            self.event(Event::Readable);
        }
        self.shown = self.shown.take().filter(|_| !self.peer_may_read);
        if news && self.told_frontier == Told::Part {
            // What it said so far it said as one who was told nothing.
            self.their_level = false;
            self.level_told = None;
            self.dirty = true;
            self.ask_frontier(None);
        }
    }

    fn tell_frontier(&mut self, frontier: &Frontier, whole: bool) {
        self.told_frontier = if whole { Told::Whole } else { Told::Part };
        let channel = self.number;
        let mut parts = frontier.tips().chunks(TIPS_PER_FRAME).peekable();
        if parts.peek().is_none() {
            self.frame(Frame::Tips { channel, tips: Vec::new(), last: true });
        }
        while let Some(part) = parts.next() {
            let last = parts.peek().is_none();
            self.frame(Frame::Tips { channel, tips: part.to_vec(), last });
        }
    }

    fn on_blobs(
        &mut self,
        found: Vec<(ChunkHash, Vec<u8>)>,
        missing: Vec<ChunkHash>,
        later: Vec<ChunkHash>,
    ) {
        self.reading = 0;
        for hash in later.into_iter().rev() {
            self.asked.push_front(hash);
        }
        for (hash, bytes) in found {
            let len = bytes.len() as u32;
            self.spend(len);
            self.frame(Frame::Blob { channel: self.number, hash, bytes });
            self.event(Event::BlobSent { hash, bytes: u64::from(len) });
        }
        for part in missing.chunks(HASHES) {
            self.frame(Frame::NoBlob { channel: self.number, hashes: part.to_vec() });
        }
    }

    /// The database changed here.
    pub(crate) fn committed(&mut self) {
        self.dirty = true;
        // Where something is sent, the right is looked up with that.
        self.rights_stale = !self.peer_may_read || !self.sends();
        self.claims.changed();
        self.go_on();
    }

    /// Whether this side still works on what it received; the peer is told.
    pub(crate) fn set_busy(&mut self, busy: bool) {
        self.busy = busy;
        self.go_on();
    }

    /// Tells the peer that blobs have come for which it asked in vain.
    pub(crate) fn have(&mut self, hashes: &[ChunkHash]) {
        if !self.closed && self.peer_may_read {
            for part in hashes.chunks(crate::frame::HASHES) {
                self.frame(Frame::Have { channel: self.number, hashes: part.to_vec() });
            }
        }
    }

    /// Asks the peer for blobs.
    pub(crate) fn want(&mut self, hashes: &[ChunkHash]) {
        self.wanted.add(hashes);
        self.go_on();
    }

    /// Starts whatever can be started now.
    fn go_on(&mut self) {
        if self.closed || !self.started {
            return;
        }
        if self.their_level && self.incoming.is_empty() && self.applying.is_none() {
            // What comes from now on comes as it is written.
            self.load = Load::AtOnce;
        }
        self.look_again();
        self.dismiss();
        self.plan_next();
        self.ask_next();
        self.judge_next();
        self.check_next();
        // By turns, so that neither direction waits for the other to end.
        if self.applied_last {
            self.send_next();
            self.apply_next();
        } else {
            self.apply_next();
            self.send_next();
        }
        self.tell_level();
        self.recompare();
        self.check_goal();
    }

    fn check_next(&mut self) {
        while let Some(work) = self.incoming.check(self.database) {
            self.work(work);
        }
    }

    fn apply_next(&mut self) {
        if self.applying.is_some() || self.sending {
            return;
        }
        let Some((cost, next)) = self.incoming.next() else { return };
        let work = match next {
            Next::Batch(batch) => {
                Work::Apply { batch, trial: std::mem::take(&mut self.trial), load: self.load }
            }
            Next::Blobs(blobs) => Work::PutBlobs { blobs },
            Next::Bad(text) => return self.refuse(Code::Protocol, &text),
        };
        self.applying = Some(cost);
        self.work(work);
    }

    fn look_again(&mut self) {
        if !self.looking && std::mem::take(&mut self.rights_stale) {
            self.looking = true;
            self.work(Work::Open { request: None });
        }
    }

    /// Who lost its right and has brought all it had without getting a new one is told so.
    fn dismiss(&mut self) {
        let brought = self.their_level && self.incoming.is_empty() && self.applying.is_none();
        let revoked = self.revoked || !self.trial.is_empty();
        if revoked && !self.peer_may_read && brought && !self.looking {
            let (code, text) = Reason::Revoked.loss();
            self.refuse(code, text);
        }
    }

    fn plan_next(&mut self) {
        if matches!(self.plan, Plan::Away) {
            return;
        }
        if let Some(peer) = self.replan.take() {
            self.plan = Plan::Away;
            self.work(Work::Plan { peer });
        }
    }

    /// Asks for blobs, and where branches of forked logs part.
    fn ask_next(&mut self) {
        while let Some(hashes) = self.wanted.next() {
            self.frame(Frame::Want { channel: self.number, hashes });
        }
        while self.peer_may_read
            && let Some(samples) = self.forks.next()
        {
            self.frame(Frame::Fork { channel: self.number, samples });
        }
    }

    fn send_next(&mut self) {
        let room = self.credit >= DATA_BYTES as i64;
        // Not while a batch is being put together: both would spend the same credit.
        let away = matches!(self.plan, Plan::Away);
        if room && !away && self.reading == 0 && !self.asked.is_empty() {
            self.reading = self.asked.len().min(HASHES);
            let hashes = self.asked.drain(..self.reading).collect();
            self.work(Work::ReadBlobs { hashes });
            return;
        }
        if !self.sends() || !self.dirty || !room || self.reading > 0 || self.applying.is_some() {
            return;
        }
        if let Plan::Here(_) = self.plan
            && let Plan::Here(out) = std::mem::replace(&mut self.plan, Plan::Away)
        {
            self.dirty = false;
            self.sending = true;
            self.applied_last = false;
            let (mut held, forks) =
                (std::mem::take(&mut self.held), std::mem::take(&mut self.parted));
            held.append(&mut self.claims.heard);
            let withhold = std::sync::Arc::clone(&self.claims.withhold);
            let budget = self.credit.max(0) as usize;
            self.work(Work::Next { out, held, forks, budget, withhold });
        }
    }
}

/// How a database is named on a session: only who knows it recognises it.
pub(crate) fn blinded_name(binding: &[u8; 32], database: &DatabaseId) -> [u8; 32] {
    keyed_hash(binding, &database.0)
}
