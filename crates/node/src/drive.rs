//! What a node does on one session: it opens databases, says which storage work is to be done, passes on what its replicas
//! want and have, and finds out when it is done. It waits for nothing and owns no link: whoever drives it hands in frames
//! and answers and does what [`Drive::poll`] says, on an async runtime ([`crate::run`]) or in a simulator (I8).

use crate::claims::{Order, Stand};
use crate::contents::Gathering;
use crate::device::Device;
use crate::error::NodeError;
use crate::replica::{Building, Replica};
use crate::signal::Signal;
use crate::wants::SessionId;
use anabranch_core::id::{DatabaseId, NodeId};
use anabranch_core::key::DeviceKey;
use anabranch_core::sabotage::{self, Bug};
use anabranch_core::storage::Durability;
use anabranch_sync::channel::{Channel, Direction, Event};
use anabranch_sync::frame::{ChannelNo, Code, Request};
use anabranch_sync::rights::Shown;
use anabranch_sync::session::{Config, Credentials, Output, Session};
use anabranch_sync::work::{Access, Answer, Work};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;

/// Greetings whose clocks are further apart than this are worth a warning.
const CLOCKS_APART: u64 = 5 * 60 * 1_000_000;

/// A database to open on a session.
#[derive(Debug, Clone)]
pub struct Opening {
    /// The replica here.
    pub replica: Arc<Replica>,
    /// Which ways entries go.
    pub direction: Direction,
    /// A ticket to show.
    pub ticket: Option<DeviceKey>,
}

/// When a session that this side started ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// When every opened database is settled on both sides.
    Settled,
    /// When either side goes away.
    Closed,
}

/// What moved on a session so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Entries that were due to the peer when the comparison was done.
    pub due: u64,
    /// Entries that were lacking here when the comparison was done.
    pub lacking: u64,
    /// Entries sent.
    pub entries_sent: u64,
    /// New entries received.
    pub entries_received: u64,
    /// Entries received that were here already: somebody else had brought them.
    pub entries_again: u64,
    /// Bytes of entries and blobs sent, as sent.
    pub bytes_sent: u64,
    /// Bytes of entries and blobs received, as received.
    pub bytes_received: u64,
    /// Blobs received.
    pub blobs_received: u64,
    /// The peer may read every open database as far as is known here, so it is told of everything.
    pub told: bool,
    /// Entries are settled; blobs and files may still be worked on.
    pub settled: bool,
    /// The peer, once it has proved who it is.
    pub peer: Option<NodeId>,
    /// How far the peer's clock is off, if that is worth a warning: microseconds, positive when it is ahead.
    pub clock_ahead: Option<i64>,
}

/// How a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The peer.
    pub peer: NodeId,
    /// What moved.
    pub progress: Progress,
    /// What failed here with a database that the peer had opened. The peer is not told more than that something did.
    pub failed: Option<String>,
    /// Why work on a database that the peer had opened was ended early, if it was.
    pub refused: Option<Refusal>,
}

/// Why work on a database was ended early.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub code: Code,
    /// For people.
    pub text: String,
    /// Whether it was the peer who ended it.
    pub by_peer: bool,
}

/// How this device asks to be let in.
#[derive(Debug)]
pub struct Asks {
    /// What it says.
    pub request: Request,
    /// What shows whose device it is, if it says that.
    pub evidence: Option<Vec<u8>>,
}

/// What a session is about.
#[derive(Debug)]
pub struct Task {
    /// This device.
    pub device: Device,
    /// Databases that the peer may open.
    pub served: Vec<Arc<Replica>>,
    /// Databases to open.
    pub openings: Vec<Opening>,
    /// By which to ask to be let in to some of them.
    pub requests: BTreeMap<DatabaseId, Asks>,
    /// When to end.
    pub until: Until,
}

/// What is to be done for a session.
#[derive(Debug)]
pub enum Act {
    /// Send this frame. How many there are is bounded by the credit of the open channels and by what the peer asks.
    Send(Vec<u8>),
    /// Do this on a thread that may block, and hand the answer to [`Drive::answer`].
    Work(Job),
}

/// Storage work of one session.
#[derive(Debug)]
pub struct Job(Doing);

#[derive(Debug)]
enum Doing {
    /// What the session asks for.
    Session(Asked),
    /// Cells of entries that were loaded in bulk.
    Build(Building),
    /// Finding out what content is lacking.
    Gather(Gathering),
}

#[derive(Debug)]
struct Asked {
    channel: ChannelNo,
    replica: Arc<Replica>,
    peer: NodeId,
    shown: Shown,
    work: Work,
}

impl Job {
    /// Does it, and lets everybody know what that changed: the session may be gone by now. Blocking; memory is bounded by
    /// the size of a batch.
    #[must_use]
    pub fn perform(self) -> Done {
        match self.0 {
            Doing::Session(asked) => asked.perform(),
            Doing::Build(building) => {
                building.perform();
                Done(None)
            }
            Doing::Gather(gathering) => {
                gathering.perform();
                Done(None)
            }
        }
    }

    /// Whose turn it has to wait for. Nothing for what is done once at a time anyway.
    pub(crate) fn turns(&self) -> Option<Arc<Semaphore>> {
        match &self.0 {
            Doing::Session(asked) => Some(Arc::clone(&asked.replica.turns)),
            Doing::Build(_) | Doing::Gather(_) => None,
        }
    }
}

impl Asked {
    fn perform(self) -> Done {
        let Self { channel, replica, peer, shown, work } = self;
        let _within = tracing::debug_span!(
            "work",
            name = work.name(),
            database = %replica.database().short(),
            peer = %peer.short(),
        )
        .entered();
        let access = Access {
            storage: &**replica.storage(),
            blobs: &**replica.blobs(),
            requests: &*replica,
            pending: &replica.pending,
            summed: &replica.summed,
            // Received runs bring their heads, and what has a head is told to others (I1).
            durability: Durability::Full,
            sum_from: replica.sum_from,
            bulk_from: replica.bulk.from,
            peer,
            shown,
            reader: Some(replica.device().key()),
            now: replica.device().now(),
        };
        let answer = access.perform(work);
        match &answer {
            _ if sabotage::is(Bug::WorkUntold) => {}
            Answer::Applied { entries: entries @ 1.., changes, authors, .. } => {
                tracing::debug!(entries, "a batch was applied");
                replica.loaded();
                if changes.recounted {
                    replica.gather_recounted();
                }
                if changes.members {
                    replica.hand_out(authors.new.contains(&peer));
                }
                replica.changed();
                if changes.members {
                    replica.members_changed();
                }
            }
            Answer::Stored { hashes } => replica.blobs_arrived(hashes),
            _ => {}
        }
        Done(Some((channel, answer)))
    }
}

/// Storage work that was done.
#[derive(Debug)]
pub struct Done(Option<(ChannelNo, Answer)>);

static SESSIONS: AtomicU64 = AtomicU64::new(1);

/// One side of a session.
pub struct Drive {
    id: SessionId,
    until: Until,
    openings: Vec<Opening>,
    requests: BTreeMap<DatabaseId, Asks>,
    replicas: BTreeMap<DatabaseId, Arc<Replica>>,
    session: Session,
    signal: Arc<Signal>,
    acts: VecDeque<Act>,
    /// Open channels and their databases.
    joined: BTreeMap<ChannelNo, DatabaseId>,
    /// Channels that this side opened.
    mine: BTreeSet<ChannelNo>,
    progress: Progress,
    failed: Option<String>,
    refused: Option<Refusal>,
    /// A refusal that was not told yet.
    news: Option<Refusal>,
    outcome: Option<Result<(), NodeError>>,
    /// Whether the peer would leave nothing undone if it left now: each side may find out first that all is done.
    even: bool,
}

impl std::fmt::Debug for Drive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Drive")
            .field("id", &self.id)
            .field("peer", &self.progress.peer)
            .finish_non_exhaustive()
    }
}

impl Drive {
    /// Starts a session on a link. `binding` names the link, known to both ends and nobody else; `initiator`: whether this
    /// side started it.
    #[must_use]
    pub fn new(task: Task, binding: [u8; 32], initiator: bool) -> Self {
        let mut replicas: BTreeMap<DatabaseId, Arc<Replica>> =
            task.served.iter().map(|r| (r.database(), Arc::clone(r))).collect();
        for opening in &task.openings {
            replicas.insert(opening.replica.database(), Arc::clone(&opening.replica));
        }
        let session = Session::new(Config {
            key: task.device.key().clone(),
            binding,
            initiator,
            clock: task.device.now().0,
            served: task.served.iter().map(|r| (r.database(), Direction::BOTH)).collect(),
        });
        let signal = Arc::new(Signal::default());
        for replica in replicas.values() {
            replica.subscribe(&signal);
        }
        let mut drive = Self {
            id: SESSIONS.fetch_add(1, Ordering::Relaxed),
            until: task.until,
            openings: task.openings,
            requests: task.requests,
            replicas,
            session,
            signal,
            acts: VecDeque::new(),
            joined: BTreeMap::new(),
            mine: BTreeSet::new(),
            progress: Progress::default(),
            failed: None,
            refused: None,
            news: None,
            outcome: None,
            even: false,
        };
        drive.go_on();
        drive
    }

    /// A frame came.
    pub fn receive(&mut self, frame: &[u8]) {
        self.session.receive(frame);
        self.go_on();
    }

    /// Work was done.
    pub fn answer(&mut self, done: Done) {
        if let Some((channel, answer)) = done.0 {
            // Whether there is content to be fetched for it is to be known before the peer hears that it was applied.
            if let Answer::Applied { .. } = answer
                && let Some(replica) =
                    self.joined.get(&channel).and_then(|database| self.replicas.get(database))
            {
                self.session.set_busy(channel, replica.is_busy());
            }
            self.session.answer(channel, answer);
        }
        self.go_on();
    }

    /// The peer closed the link, with or without a word before.
    pub fn link_ended(&mut self) {
        if self.outcome.is_none() {
            self.outcome = Some(self.ended());
        }
    }

    /// Ends the session in good order.
    pub fn stop(&mut self) {
        self.finish(Ok(()));
    }

    /// Ends the session because a limit is reached; `text` says which.
    pub(crate) fn give_up(&mut self, text: &str) {
        self.session.close(Code::Limit, text);
        self.go_on();
    }

    /// Whether work on a database was ended early since this was asked last.
    pub(crate) fn take_refusal(&mut self) -> Option<Refusal> {
        self.news.take()
    }

    /// Whether there is a database open that the peer may read, as far as is known here.
    pub(crate) fn is_attended(&self) -> bool {
        let readable = |number| self.session.channel(number).is_some_and(Channel::peer_may_read);
        self.joined.keys().any(|number| readable(*number))
    }

    /// What is to be done next, if anything.
    pub fn poll(&mut self) -> Option<Act> {
        self.acts.pop_front()
    }

    /// What moved so far.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// How it ended, once it did and after everything to be done was taken from [`Self::poll`].
    pub fn outcome(&mut self) -> Option<Result<Report, NodeError>> {
        if !self.acts.is_empty() {
            return None;
        }
        Some(self.outcome.take()?.and_then(|()| {
            let peer = self.progress.peer.ok_or(NodeError::Closed)?;
            let (failed, refused) = (self.failed.take(), self.refused.take());
            Ok(Report { peer, progress: self.progress, failed, refused })
        }))
    }

    /// Looks which databases changed here since the last time.
    pub fn look(&mut self) {
        let databases = self.signal.take();
        self.changed(&databases);
        self.take_over();
        self.go_on();
    }

    /// Asks for what others were asked for and do not answer.
    fn take_over(&mut self) {
        let joined: Vec<(ChannelNo, DatabaseId)> =
            self.joined.iter().map(|(number, database)| (*number, *database)).collect();
        for (number, database) in joined {
            if let Some(replica) = self.replicas.get(&database).map(Arc::clone)
                && replica.wants_wake(self.id).is_some_and(|wait| wait.is_zero())
            {
                self.attend(number, &replica);
            }
        }
    }

    /// What rings when a database changes.
    pub(crate) fn signal(&self) -> Arc<Signal> {
        Arc::clone(&self.signal)
    }

    /// These databases changed here.
    pub(crate) fn changed(&mut self, databases: &BTreeSet<DatabaseId>) {
        if !databases.is_empty() {
            self.rung(databases);
            self.go_on();
        }
    }

    fn go_on(&mut self) {
        self.drain();
        if self.claim() {
            self.drain();
        }
        self.check_settled();
    }

    /// Says how the channels stand on which entries come, and tells peers what to withhold. Whether it told any.
    fn claim(&mut self) -> bool {
        let Some(peer) = self.session.peer() else { return false };
        let mut told = false;
        let joined: Vec<(ChannelNo, DatabaseId)> =
            self.joined.iter().map(|(number, database)| (*number, *database)).collect();
        for (number, database) in joined {
            let Some(channel) = self.session.channel(number).filter(|channel| channel.takes())
            else {
                continue;
            };
            let Some(replica) = self.replicas.get(&database) else { continue };
            let stand = Stand {
                peer,
                able: channel.can_hold(),
                reads: channel.peer_may_read(),
                proves: channel.peer_proves(),
                fed: channel.is_fed(),
                taking: channel.is_taking(),
            };
            for order in replica.source_stands((self.id, number), stand) {
                told = true;
                match order {
                    Order::Hold(devices) => self.session.hold(number, &devices),
                    Order::Resume(devices) => self.session.resume(number, &devices),
                }
            }
        }
        told
    }

    /// How long it may take until [`Self::look`] is called, even if nothing rings.
    #[must_use]
    pub fn wakes_in(&self) -> Option<Duration> {
        let wakes = |(number, database): (&ChannelNo, &DatabaseId)| {
            let replica = self.replicas.get(database)?;
            let wakes = [replica.source_wakes((self.id, *number)), replica.wants_wake(self.id)];
            wakes.into_iter().flatten().min()
        };
        self.joined.iter().filter_map(wakes).min()
    }

    /// The peer closed the link without a word.
    fn ended(&self) -> Result<(), NodeError> {
        match self.until {
            Until::Closed => Ok(()),
            Until::Settled => Err(NodeError::Session {
                code: Code::Done,
                text: "the peer ended the connection before everything was exchanged; run the command again, it goes on where it stopped".into(),
                by_peer: true,
            }),
        }
    }

    fn finish(&mut self, outcome: Result<(), NodeError>) {
        if self.outcome.is_none() {
            self.session.close(Code::Done, "");
            while let Some(output) = self.session.poll() {
                if let Output::Send(frame) = output {
                    self.acts.push_back(Act::Send(frame));
                }
            }
            self.outcome = Some(outcome);
        }
    }

    fn drain(&mut self) {
        while let Some(output) = self.session.poll() {
            match output {
                Output::Send(frame) => self.acts.push_back(Act::Send(frame)),
                Output::Work(channel, work) => self.start(channel, work),
                Output::Greeted { peer, clock_ahead } => {
                    self.progress.peer = Some(peer);
                    let apart = Some(clock_ahead).filter(|us| us.unsigned_abs() > CLOCKS_APART);
                    self.progress.clock_ahead = apart;
                    self.open_all();
                }
                Output::Event(channel, event) => self.on_event(channel, event),
                Output::Closed { code, text, by_peer } => {
                    self.outcome = Some(match code {
                        Code::Done if by_peer && (self.even || self.until == Until::Closed) => {
                            Ok(())
                        }
                        Code::Done if by_peer => self.ended(),
                        code => Err(NodeError::Session { code, text, by_peer }),
                    });
                }
            }
        }
    }

    fn open_all(&mut self) {
        for opening in std::mem::take(&mut self.openings) {
            let database = opening.replica.database();
            let asks = self.requests.remove(&database);
            let (request, evidence) =
                asks.map_or((None, None), |asks| (Some(asks.request), asks.evidence));
            let credentials = Credentials { ticket: opening.ticket.as_ref(), request, evidence };
            let channel = self.session.open(database, opening.direction, credentials);
            self.mine.insert(channel);
        }
    }

    fn start(&mut self, channel: ChannelNo, work: Work) {
        let replica =
            self.session.channel(channel).and_then(|open| self.replicas.get(&open.database));
        let (Some(replica), Some(peer)) = (replica, self.session.peer()) else { return };
        let (replica, shown) = (Arc::clone(replica), self.session.shown_on(channel));
        let asked = Asked { channel, replica, peer, shown, work };
        self.acts.push_back(Act::Work(Job(Doing::Session(asked))));
    }

    fn on_event(&mut self, channel: ChannelNo, event: Event) {
        // A channel that is refused at its opening belongs to no replica any more, and whoever opened it waits for this.
        let event = match event {
            Event::Closed { code, text, by_peer } => {
                return self.on_closed(channel, code, text, by_peer);
            }
            event => event,
        };
        let database = self.session.channel(channel).map(|c| c.database);
        let replica = database
            .or_else(|| self.joined.get(&channel).copied())
            .and_then(|database| self.replicas.get(&database))
            .map(Arc::clone);
        let Some(replica) = replica else { return };
        match event {
            Event::Opened { .. } => {
                self.joined.insert(channel, replica.database());
                let database = replica.database().short();
                tracing::Span::current().record("database", tracing::field::display(&database));
                tracing::debug!(database, "a database is open");
                replica.session_joined(self.id);
                self.attend(channel, &replica);
            }
            Event::Planned { due, lacking } => {
                self.progress.due += due;
                // That much the peer says, and it may say anything.
                self.progress.lacking = self.progress.lacking.saturating_add(lacking);
            }
            Event::Sent { entries, bytes } => {
                self.progress.entries_sent += entries;
                self.progress.bytes_sent += bytes;
            }
            Event::Applied { entries, bytes, authors, .. } => {
                replica.source_brought((self.id, channel), &authors);
                self.progress.entries_again += authors.doubles;
                self.progress.entries_received += entries;
                self.progress.bytes_received += bytes;
                self.attend(channel, &replica);
            }
            Event::Blobs { count, bytes } => {
                replica.blob_brought(self.id);
                self.progress.blobs_received += count;
                self.progress.bytes_received += bytes;
                self.attend(channel, &replica);
            }
            Event::NoBlobs(hashes) => {
                replica.blobs_refused(self.id, &hashes);
                self.attend(channel, &replica);
            }
            Event::Readable => {
                replica.blobs_readable(self.id);
                self.attend(channel, &replica);
            }
            Event::Asked(hashes) => replica.blobs_asked(self.id, &hashes),
            Event::Offered(hashes) => {
                replica.blobs_offered(self.id, &hashes);
                self.attend(channel, &replica);
            }
            Event::BlobSent { hash, bytes } => {
                replica.blob_sent(self.id, &hash);
                self.progress.bytes_sent += bytes;
            }
            Event::Withheld { places, more } => {
                replica.source_offers((self.id, channel), &places, more);
            }
            Event::Progress | Event::Closed { .. } => {}
        }
    }

    fn on_closed(&mut self, channel: ChannelNo, code: Code, text: String, by_peer: bool) {
        if let Some(database) = self.joined.remove(&channel)
            && let Some(replica) = self.replicas.get(&database)
        {
            replica.source_left((self.id, channel));
            replica.session_left(self.id);
        }
        let awaited = self.until == Until::Settled && self.mine.is_empty();
        if self.mine.remove(&channel) || awaited {
            let outcome = Err(NodeError::Session { code, text, by_peer });
            self.finish(outcome);
            return;
        }
        if matches!(code, Code::Internal | Code::Full) && !by_peer {
            tracing::warn!("a database could not be brought in step with a peer: {text}");
            self.failed = Some(text.clone());
        } else {
            tracing::info!(?code, "a peer's session on a database ended: {text}");
        }
        if code != Code::Done {
            let refusal = Refusal { code, text, by_peer };
            self.news = Some(refusal.clone());
            self.refused = Some(refusal);
        }
    }

    fn rung(&mut self, databases: &BTreeSet<DatabaseId>) {
        for database in databases {
            self.session.committed(*database);
            let channels: Vec<ChannelNo> = self.session.channels_of(*database).collect();
            if let Some(replica) = self.replicas.get(database).map(Arc::clone) {
                for channel in channels {
                    self.attend(channel, &replica);
                }
            }
        }
    }

    /// Passes on what the replica wants of this session.
    fn attend(&mut self, channel: ChannelNo, replica: &Replica) {
        if self.joined.contains_key(&channel) {
            let wants = replica.wants_of(self.id);
            if !wants.is_empty() {
                self.session.want(channel, &wants);
            }
            let offers = replica.offers_to(self.id);
            if !offers.is_empty() {
                self.session.have(channel, &offers);
            }
            self.session.set_busy(channel, replica.is_busy());
        }
    }

    fn check_settled(&mut self) {
        for (number, database) in &self.joined {
            let settled = self.session.channel(*number).is_none_or(Channel::entries_settled);
            if let Some(replica) = self.replicas.get(database) {
                replica.set_settled(self.id, settled);
                if let Some(building) = replica.start_building() {
                    self.acts.push_back(Act::Work(Job(Doing::Build(building))));
                }
                if let Some(gathering) = replica.start_gathering() {
                    self.acts.push_back(Act::Work(Job(Doing::Gather(gathering))));
                }
            }
        }
        if self.outcome.is_some() {
            return;
        }
        self.even = self.each_open(Channel::is_even);
        self.progress.told = self.each_open(Channel::peer_reads);
        self.progress.settled = self.each_open(Channel::entries_settled);
        if self.until == Until::Closed {
            return;
        }
        if self.each_open(Channel::is_settled) {
            self.finish(Ok(()));
        } else if !self.each_open(|channel| !channel.differs()) && !self.joined.is_empty() {
            self.finish(Err(NodeError::Differs));
        }
    }

    /// Whether there are open channels, every one this side asked for among them, and this holds of each.
    fn each_open(&self, is: impl Fn(&Channel) -> bool) -> bool {
        !self.joined.is_empty()
            && self.mine.iter().all(|number| self.joined.contains_key(number))
            && self.joined.keys().all(|number| self.session.channel(*number).is_some_and(&is))
    }
}

impl Drop for Drive {
    fn drop(&mut self) {
        for (channel, database) in std::mem::take(&mut self.joined) {
            if let Some(replica) = self.replicas.get(&database) {
                replica.source_left((self.id, channel));
                replica.session_left(self.id);
            }
        }
    }
}
