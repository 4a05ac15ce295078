//! Runs one session on one link: hands frames to the state machine, does its storage work on blocking threads, wakes it
//! when a database changes, and says when it is done.

use crate::error::{NodeError, now};
use crate::introduce::Wire;
use crate::replica::Replica;
use crate::signal::Signal;
use crate::wants::SessionId;
use anabranch_core::id::{DatabaseId, NodeId};
use anabranch_core::key::DeviceKey;
use anabranch_core::storage::Durability;
use anabranch_sync::channel::{Channel, Direction, Event};
use anabranch_sync::frame::{ChannelNo, Code};
use anabranch_sync::session::{Config, Output, Session};
use anabranch_sync::work::{Access, Answer, Work};
use anabranch_transport::{LinkError, LinkReceiver, LinkSender};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Greetings whose clocks are further apart than this are worth a warning.
const CLOCKS_APART: i64 = 5 * 60 * 1_000_000;

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
    /// Bytes of entries and blobs sent, as sent.
    pub bytes_sent: u64,
    /// Bytes of entries and blobs received, as received.
    pub bytes_received: u64,
    /// Blobs received.
    pub blobs_received: u64,
    /// Entries are settled; blobs and files may still be worked on.
    pub settled: bool,
}

/// How a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The peer.
    pub peer: NodeId,
    /// What moved.
    pub progress: Progress,
    /// How far the peer's clock is off, if that is worth a warning: microseconds, positive when it is ahead.
    pub clock_ahead: Option<i64>,
}

/// Everything a session needs.
pub struct Task {
    /// This device.
    pub key: DeviceKey,
    /// Databases that the peer may open.
    pub served: Vec<Arc<Replica>>,
    /// Databases to open.
    pub openings: Vec<Opening>,
    /// When to end.
    pub until: Until,
    /// Told of every step, if anybody listens.
    pub progress: watch::Sender<Progress>,
    /// Ends the session in good order when it becomes true.
    pub stop: watch::Receiver<bool>,
}

impl std::fmt::Debug for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Task").field("openings", &self.openings).finish_non_exhaustive()
    }
}

/// How long the last frames may take to leave.
const LEAVING: Duration = Duration::from_secs(5);

static SESSIONS: AtomicU64 = AtomicU64::new(1);

/// Runs a session to its end.
///
/// # Errors
/// [`NodeError::Session`] when either side ended it for a reason, [`NodeError::Link`] when the link broke.
pub async fn run(task: Task, wire: Wire) -> Result<Report, NodeError> {
    let mut replicas: BTreeMap<DatabaseId, Arc<Replica>> =
        task.served.iter().map(|r| (r.database(), Arc::clone(r))).collect();
    for opening in &task.openings {
        replicas.insert(opening.replica.database(), Arc::clone(&opening.replica));
    }
    let session = Session::new(Config {
        key: task.key.clone(),
        binding: wire.binding,
        initiator: wire.initiator,
        clock: now().0,
        served: task.served.iter().map(|r| (r.database(), Direction::BOTH)).collect(),
    });
    let signal = Arc::new(Signal::default());
    for replica in replicas.values() {
        replica.subscribe(&signal);
    }
    let Wire { sender, mut receiver, .. } = wire;
    let (frames, outbox) = mpsc::unbounded_channel();
    let sending = tokio::spawn(send_all(sender, outbox));
    let (done, answers) = mpsc::unbounded_channel();
    let mut runner = Runner {
        id: SESSIONS.fetch_add(1, Ordering::Relaxed),
        task,
        replicas,
        session,
        signal,
        frames,
        done,
        joined: BTreeMap::new(),
        mine: BTreeSet::new(),
        progress: Progress::default(),
        peer: None,
        clock_ahead: 0,
        outcome: None,
        even: false,
    };
    let result = runner.go(&mut receiver, answers).await;
    runner.leave();
    drop(runner);
    // What is queued still leaves, the peer's word or ours that it is over among it; a link that is broken already or a
    // peer that does not listen any more changes nothing about the outcome.
    let leaving = async { tokio::join!(sending, receiver.drain(LEAVING)) };
    let _ = tokio::time::timeout(LEAVING, leaving).await;
    result
}

async fn send_all(
    mut sender: LinkSender,
    mut outbox: mpsc::UnboundedReceiver<Vec<u8>>,
) -> Result<(), LinkError> {
    while let Some(frame) = outbox.recv().await {
        sender.feed(frame).await?;
        while let Ok(frame) = outbox.try_recv() {
            sender.feed(frame).await?;
        }
        sender.flush().await?;
    }
    sender.close().await
}

struct Runner {
    id: SessionId,
    task: Task,
    replicas: BTreeMap<DatabaseId, Arc<Replica>>,
    session: Session,
    signal: Arc<Signal>,
    /// Bounded by the credit of the open channels and by what the peer asks.
    frames: mpsc::UnboundedSender<Vec<u8>>,
    done: mpsc::UnboundedSender<(ChannelNo, Answer)>,
    /// Open channels and their databases.
    joined: BTreeMap<ChannelNo, DatabaseId>,
    /// Channels that this side opened.
    mine: BTreeSet<ChannelNo>,
    progress: Progress,
    peer: Option<NodeId>,
    clock_ahead: i64,
    outcome: Option<Result<(), NodeError>>,
    /// Whether the peer would leave nothing undone if it left now: each side may find out first that all is done.
    even: bool,
}

impl Runner {
    async fn go(
        &mut self,
        receiver: &mut LinkReceiver,
        mut answers: mpsc::UnboundedReceiver<(ChannelNo, Answer)>,
    ) -> Result<Report, NodeError> {
        let mut stop = self.task.stop.clone();
        loop {
            self.drain();
            self.check_settled();
            if let Some(outcome) = self.outcome.take() {
                outcome?;
                let Some(peer) = self.peer else { return Err(NodeError::Closed) };
                let apart = Some(self.clock_ahead).filter(|us| us.abs() > CLOCKS_APART);
                return Ok(Report { peer, progress: self.progress, clock_ahead: apart });
            }
            tokio::select! {
                frame = receiver.recv() => match frame? {
                    Some(frame) => self.session.receive(&frame),
                    None => self.outcome = Some(self.ended()),
                },
                Some((channel, answer)) = answers.recv() => self.session.answer(channel, answer),
                databases = self.signal.wait() => self.rung(&databases),
                () = stopped(&mut stop) => self.finish(Ok(())),
            }
        }
    }

    /// The peer closed the link without a word.
    fn ended(&self) -> Result<(), NodeError> {
        match self.task.until {
            Until::Closed => Ok(()),
            Until::Settled => Err(NodeError::Session {
                code: Code::Done,
                text: "the peer ended the connection before everything was exchanged; run the command again, it goes on where it stopped".into(),
            }),
        }
    }

    fn finish(&mut self, outcome: Result<(), NodeError>) {
        if self.outcome.is_none() {
            self.session.close(Code::Done, "");
            while let Some(output) = self.session.poll() {
                if let Output::Send(frame) = output {
                    let _ = self.frames.send(frame);
                }
            }
            self.outcome = Some(outcome);
            self.task.progress.send_replace(self.progress);
        }
    }

    fn drain(&mut self) {
        while let Some(output) = self.session.poll() {
            match output {
                // A failed link shows at the receiving half.
                Output::Send(frame) => _ = self.frames.send(frame),
                Output::Work(channel, work) => self.start(channel, work),
                Output::Greeted { peer, clock_ahead } => {
                    self.peer = Some(peer);
                    self.clock_ahead = clock_ahead;
                    self.open_all();
                }
                Output::Event(channel, event) => self.on_event(channel, event),
                Output::Closed { code, text, by_peer } => {
                    self.outcome = Some(match code {
                        Code::Done
                            if by_peer && (self.even || self.task.until == Until::Closed) =>
                        {
                            Ok(())
                        }
                        Code::Done if by_peer => self.ended(),
                        code => Err(NodeError::Session { code, text }),
                    });
                }
            }
        }
    }

    fn open_all(&mut self) {
        for opening in std::mem::take(&mut self.task.openings) {
            let database = opening.replica.database();
            let channel = self.session.open(database, opening.direction, opening.ticket.as_ref());
            self.mine.insert(channel);
        }
    }

    fn start(&self, channel: ChannelNo, work: Work) {
        let replica = self
            .session
            .channel(channel)
            .and_then(|open| self.replicas.get(&open.database))
            .map(Arc::clone);
        let (Some(replica), Some(peer)) = (replica, self.session.peer()) else { return };
        let ticket = self.session.ticket_of(channel);
        let done = self.done.clone();
        tokio::task::spawn_blocking(move || {
            let access = Access {
                storage: &**replica.storage(),
                blobs: &**replica.blobs(),
                pending: &replica.pending,
                // Received runs bring their heads, and what has a head is told to others (I1).
                durability: Durability::Full,
                peer,
                ticket,
                now: now(),
            };
            // A session that ended meanwhile does not need the answer.
            let _ = done.send((channel, access.perform(work)));
        });
    }

    fn on_event(&mut self, channel: ChannelNo, event: Event) {
        // A channel that is refused at its opening belongs to no replica any more, and whoever opened it waits for this.
        let event = match event {
            Event::Closed { code, text, .. } => {
                self.on_closed(channel, code, text);
                self.task.progress.send_replace(self.progress);
                return;
            }
            event => event,
        };
        if let Event::Closed { code, text, .. } = event {
            // The channel is gone already, and one that was refused never opened.
            self.on_closed(channel, code, text);
            self.task.progress.send_replace(self.progress);
            return;
        }
        let database = self.session.channel(channel).map(|c| c.database);
        let replica = database
            .or_else(|| self.joined.get(&channel).copied())
            .and_then(|database| self.replicas.get(&database))
            .map(Arc::clone);
        let Some(replica) = replica else { return };
        match event {
            Event::Opened { .. } => {
                self.joined.insert(channel, replica.database());
                replica.session_joined(self.id);
                self.attend(channel, &replica);
            }
            Event::Planned { due, lacking } => {
                self.progress.due += due;
                self.progress.lacking += lacking;
            }
            Event::Sent { entries, bytes } => {
                self.progress.entries_sent += entries;
                self.progress.bytes_sent += bytes;
            }
            Event::Applied { entries, bytes, .. } => {
                self.progress.entries_received += entries;
                self.progress.bytes_received += bytes;
                if entries > 0 {
                    replica.changed();
                }
                self.attend(channel, &replica);
            }
            Event::Blob { hash, bytes } => {
                self.progress.blobs_received += 1;
                self.progress.bytes_received += bytes;
                replica.blob_arrived(&hash);
                self.attend(channel, &replica);
            }
            Event::NoBlobs(hashes) => {
                replica.blobs_refused(self.id, &hashes);
                self.attend(channel, &replica);
            }
            Event::BlobSent { bytes } => self.progress.bytes_sent += bytes,
            Event::Progress | Event::Closed { .. } => {}
        }
        self.task.progress.send_replace(self.progress);
    }

    fn on_closed(&mut self, channel: ChannelNo, code: Code, text: String) {
        if let Some(database) = self.joined.remove(&channel)
            && let Some(replica) = self.replicas.get(&database)
        {
            replica.session_left(self.id);
        }
        let awaited = self.task.until == Until::Settled && self.mine.is_empty();
        if self.mine.remove(&channel) || awaited {
            let outcome = Err(NodeError::Session { code, text });
            self.finish(outcome);
        } else {
            tracing::info!(?code, "a peer's session on a database ended: {text}");
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
            self.session.set_busy(channel, replica.is_busy());
        }
    }

    fn check_settled(&mut self) {
        for (number, database) in &self.joined {
            let settled = self.session.channel(*number).is_none_or(Channel::entries_settled);
            if let Some(replica) = self.replicas.get(database) {
                replica.set_settled(self.id, settled);
            }
        }
        if self.outcome.is_some() {
            return;
        }
        self.even = self.each_open(Channel::is_even);
        let settled = self.each_open(Channel::entries_settled);
        if settled != self.progress.settled {
            self.progress.settled = settled;
            self.task.progress.send_replace(self.progress);
        }
        if self.task.until == Until::Closed {
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

    fn leave(&mut self) {
        for (_, database) in std::mem::take(&mut self.joined) {
            if let Some(replica) = self.replicas.get(&database) {
                replica.session_left(self.id);
            }
        }
    }
}

/// Waits until the session is told to stop; for ever when nobody can tell it any more.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}
