//! Runs one session on one link: hands frames to the drive, does its storage work on blocking threads, wakes it when a
//! database changes, and waits until what it said has left. Who came by itself is only waited for and only kept frames for
//! within bounds (I7).

use crate::drive::{Act, Done, Drive, Progress, Refusal, Report, Task, Until};
use crate::error::NodeError;
use crate::introduce::Wire;
use crate::pace::Pace;
use anabranch_sync::frame::Code;
use anabranch_transport::{LinkError, LinkReceiver, LinkSender};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tracing::field::{Empty, display};
use tracing::{Instrument, Span};

/// How long the last frames may take to leave.
const LEAVING: Duration = Duration::from_secs(5);

/// Who started a link goes on reading whatever waits to be sent, or the two would wait for each other. That ends when so
/// many times what may wait does.
const BEYOND: usize = 16;

/// What the sessions of a node may take.
#[derive(Debug)]
pub(crate) struct Bounds {
    /// How fast they may send together.
    pub(crate) up: Pace,
    /// How fast they may receive together.
    pub(crate) down: Pace,
    /// How long a peer that came may take until it has opened a database that it may read.
    pub(crate) opening: Duration,
    /// How long a peer that came may take nothing of what is sent to it.
    pub(crate) stall: Duration,
    /// Bytes that may wait to be sent before nothing more is read from the peer.
    pub(crate) queue: usize,
}

/// Who hears of a session while it lasts.
pub(crate) struct Hears<'h> {
    /// Told of every step.
    pub(crate) progress: watch::Sender<Progress>,
    /// Told when work on a database is ended early.
    pub(crate) refusal: &'h (dyn Fn(&Refusal) + Sync),
}

/// Runs a session to its end; it ends in good order when `stop` becomes true.
///
/// # Errors
/// [`NodeError::Session`] when either side ended it for a reason, [`NodeError::Link`] when the link broke.
pub(crate) async fn run(
    task: Task,
    wire: Wire,
    hears: Hears<'_>,
    stop: watch::Receiver<bool>,
    bounds: &Arc<Bounds>,
) -> Result<Report, NodeError> {
    // Who and what it is about is known later; ids are public, what was shown to be let in is never among the fields.
    let span = tracing::info_span!(
        "session",
        initiator = wire.initiator,
        peer = Empty,
        database = Empty,
        sent = Empty,
        received = Empty,
    );
    let noted = async {
        let result = run_within(task, wire, hears, stop, bounds).await;
        match &result {
            Ok(_) => tracing::debug!("the session is over"),
            Err(e) => tracing::debug!("the session failed: {e}"),
        }
        result
    };
    noted.instrument(span).await
}

async fn run_within(
    task: Task,
    wire: Wire,
    hears: Hears<'_>,
    stop: watch::Receiver<bool>,
    bounds: &Arc<Bounds>,
) -> Result<Report, NodeError> {
    let Wire { sender, mut receiver, binding, initiator } = wire;
    let (frames, outbox) = mpsc::unbounded_channel();
    let opened = task.openings.iter().map(|opening| &opening.replica);
    task.served.iter().chain(opened).for_each(|replica| replica.sign_left());
    let serves = !initiator && task.until == Until::Closed;
    let waiting = Arc::new(Waiting::default());
    let patience = serves.then_some(bounds.stall);
    let sending = send_all(sender, outbox, Arc::clone(&waiting), Arc::clone(bounds), patience);
    let sending = tokio::spawn(sending);
    let drive = Drive::new(task, binding, initiator);
    let outbox = Outbox { frames, waiting: Arc::clone(&waiting), initiator };
    let runner = Runner { drive, outbox, hears, serves, bounds: Arc::clone(bounds) };
    let result = runner.go(&mut receiver, stop).await;
    // What is queued still leaves, the peer's word or ours that it is over among it; a link that is broken already or a
    // peer that does not listen any more changes nothing about the outcome.
    let leaving = async { tokio::join!(sending, receiver.drain(LEAVING)) };
    let _ = timeout(LEAVING, leaving).await;
    match result {
        Err(NodeError::Link(_)) if waiting.stalled.load(Ordering::SeqCst) => {
            let within = bounds.stall;
            let text = format!(
                "the peer took nothing of what was sent to it for {within:?} (net.stall_timeout)"
            );
            Err(NodeError::Session { code: Code::Limit, text, by_peer: false })
        }
        result => result,
    }
}

/// Counts bytes that wait to be sent.
#[derive(Debug, Default)]
struct Waiting {
    bytes: AtomicUsize,
    /// Nothing is sent any more.
    over: AtomicBool,
    /// Because the peer took nothing for too long: one that only sends is heard, and would be waited for for ever.
    stalled: AtomicBool,
    fewer: Notify,
}

impl Waiting {
    /// Waits until the link takes something, for as long as one may.
    async fn taken(
        &self,
        patience: Option<Duration>,
        sent: impl Future<Output = Result<(), LinkError>>,
    ) -> Result<(), LinkError> {
        let Some(patience) = patience else { return sent.await };
        timeout(patience, sent).await.unwrap_or_else(|_| {
            self.stalled.store(true, Ordering::SeqCst);
            Err(LinkError::Closed)
        })
    }
}

/// Says that nothing is sent any more, however that came about.
struct Over(Arc<Waiting>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::SeqCst);
        self.0.fewer.notify_one();
    }
}

async fn send_all(
    mut sender: LinkSender,
    mut outbox: mpsc::UnboundedReceiver<Vec<u8>>,
    waiting: Arc<Waiting>,
    bounds: Arc<Bounds>,
    patience: Option<Duration>,
) -> Result<(), LinkError> {
    let over = Over(waiting);
    while let Some(frame) = outbox.recv().await {
        let mut next = Some(frame);
        while let Some(frame) = next {
            let bytes = frame.len();
            bounds.up.pass(bytes).await;
            over.0.taken(patience, sender.feed(frame)).await?;
            over.0.bytes.fetch_sub(bytes, Ordering::SeqCst);
            over.0.fewer.notify_one();
            next = outbox.try_recv().ok();
        }
        over.0.taken(patience, sender.flush()).await?;
    }
    sender.close().await
}

/// Where frames wait until the link takes them. What a session says by itself is bounded by credit; what it answers is
/// bounded by not reading more questions.
struct Outbox {
    frames: mpsc::UnboundedSender<Vec<u8>>,
    waiting: Arc<Waiting>,
    initiator: bool,
}

impl Outbox {
    fn put(&self, frame: Vec<u8>) {
        self.waiting.bytes.fetch_add(frame.len(), Ordering::SeqCst);
        // A failed link shows at the receiving half.
        let _ = self.frames.send(frame);
    }

    fn holds(&self, bytes: usize) -> bool {
        let over = self.waiting.over.load(Ordering::SeqCst);
        !over && self.waiting.bytes.load(Ordering::SeqCst) > bytes
    }
}

struct Runner<'h> {
    drive: Drive,
    outbox: Outbox,
    hears: Hears<'h>,
    /// Whether the peer came by itself, and is to open something.
    serves: bool,
    bounds: Arc<Bounds>,
}

impl Runner<'_> {
    async fn go(
        mut self,
        receiver: &mut LinkReceiver,
        mut stop: watch::Receiver<bool>,
    ) -> Result<Report, NodeError> {
        let signal = self.drive.signal();
        let (done, mut answers) = mpsc::unbounded_channel();
        let waiting = Arc::clone(&self.outbox.waiting);
        let deadline = sleep(self.bounds.opening);
        tokio::pin!(deadline);
        let (mut idle, mut received) = (true, 0);
        loop {
            self.act(&done);
            self.tell();
            if let Some(outcome) = self.drive.outcome() {
                return outcome;
            }
            let full = self.outbox.holds(self.bounds.queue);
            if full && self.outbox.initiator && self.outbox.holds(BEYOND * self.bounds.queue) {
                return Err(NodeError::Session {
                    code: Code::Limit,
                    text: "the peer asks for more than it takes; raise net.send_queue if it is only slow".into(),
                    by_peer: false,
                });
            }
            let (was_idle, was_received) = (idle, received);
            idle = self.is_idle();
            received = self.drive.progress().entries_received;
            // What proves a right may come after much else.
            if idle && (!was_idle || received != was_received) {
                deadline.as_mut().reset(Instant::now() + self.bounds.opening);
            }
            let wakes = self.drive.wakes_in();
            tokio::select! {
                frame = receiver.recv(), if !full || self.outbox.initiator => match frame? {
                    Some(frame) => {
                        // While this waits nothing more is read, and the sender waits in turn.
                        self.bounds.down.pass(frame.len()).await;
                        self.drive.receive(&frame);
                    }
                    None => self.drive.link_ended(),
                },
                () = waiting.fewer.notified(), if full => {}
                Some(answer) = answers.recv() => self.drive.answer(answer),
                databases = signal.wait() => self.drive.changed(&databases),
                () = sleep(wakes.unwrap_or_default()), if wakes.is_some() => self.drive.look(),
                () = &mut deadline, if idle => self.too_late(),
                () = stopped(&mut stop) => self.drive.stop(),
            }
        }
    }

    /// Whether a peer that came by itself has a place here and makes no use of it.
    fn is_idle(&self) -> bool {
        self.serves && !self.drive.is_attended()
    }

    fn too_late(&mut self) {
        let within = self.bounds.opening;
        let text = format!(
            "the peer opened no database that it may read within {within:?} (net.open_timeout)"
        );
        self.drive.give_up(&text);
    }

    fn act(&mut self, done: &mpsc::UnboundedSender<Done>) {
        while let Some(act) = self.drive.poll() {
            match act {
                Act::Send(frame) => self.outbox.put(frame),
                Act::Work(job) => {
                    let (turns, done) = (job.turns(), done.clone());
                    let session = Span::current();
                    // A session that ended meanwhile does not need the answer.
                    let work = move |turn| {
                        tokio::task::spawn_blocking(move || {
                            _ = done.send(session.in_scope(|| job.perform()));
                            drop(turn);
                        })
                    };
                    match turns.map(|turns| (Arc::clone(&turns).try_acquire_owned(), turns)) {
                        None => drop(work(None)),
                        Some((Ok(turn), _)) => drop(work(Some(turn))),
                        // The semaphore is never closed.
                        Some((Err(_), turns)) => drop(tokio::spawn(async move {
                            work(turns.acquire_owned().await.ok());
                        })),
                    }
                }
            }
        }
    }

    /// Puts what moved into the session's span.
    fn note(&self, now: &Progress) {
        let told = self.hears.progress.borrow();
        if *told == *now {
            return;
        }
        let span = Span::current();
        if let Some(peer) = now.peer.filter(|_| told.peer.is_none()) {
            span.record("peer", display(peer.short()));
        }
        span.record("sent", now.entries_sent);
        span.record("received", now.entries_received);
    }

    fn tell(&mut self) {
        let now = self.drive.progress();
        self.note(&now);
        self.hears.progress.send_if_modified(|told| {
            let news = *told != now;
            *told = now;
            news
        });
        if let Some(refusal) = self.drive.take_refusal() {
            (self.hears.refusal)(&refusal);
        }
    }
}

/// Waits until the session is told to stop; for ever when nobody can tell it any more.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}
