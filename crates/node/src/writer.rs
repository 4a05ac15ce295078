//! The thread that commits for one replica. Whatever waits is committed as one group (see [`crate::committer`]). Under
//! normal durability the signature is put off a little while more commits come.

use crate::committer::Committer;
use crate::error::NodeError;
use crate::replica::Replica;
use anabranch_core::author::Draft;
use anabranch_core::entry::Entry;
use anabranch_core::storage::{Durability, StorageError};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, PoisonError, Weak};
use std::thread::{JoinHandle, current};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Drafts of one group at the most.
const GROUP: usize = 1_024;
/// How long signing may be put off under normal durability while more commits come.
const UNSIGNED: Duration = Duration::from_millis(20);
/// How long to wait for another commit before signing: longer than a writer that waits for each commit takes to send the
/// next, since signing syncs the disk; shorter than a person or a peer notices.
const IDLE: Duration = Duration::from_micros(500);
/// How long to wait before signing is tried again after it failed (a full disk, say): at first, and at the most.
const AGAIN: Duration = Duration::from_millis(200);
const AGAIN_AT_MOST: Duration = Duration::from_secs(10);

type Reply = Result<Vec<Option<Entry>>, NodeError>;

/// Drafts from one caller.
pub(crate) struct Job {
    pub(crate) drafts: Vec<Draft>,
    pub(crate) reply: oneshot::Sender<Reply>,
}

/// The way to the thread. Dropping this waits for its end: what waits is committed and signed then, and the storage is
/// closed in good order even if the process ends right after.
pub(crate) struct Writer {
    jobs: Mutex<Option<Sender<Job>>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// `unsigned`: whether an earlier process or attempt left commits that are not signed yet.
    pub(crate) fn start(committer: Committer, replica: Weak<Replica>, unsigned: bool) -> Self {
        let (jobs, queue) = channel();
        let thread = Thread { committer, replica };
        // Without the thread every commit reports that the database is closed.
        let thread = std::thread::Builder::new()
            .name("anabranch-writer".into())
            .spawn(move || thread.run(&queue, unsigned));
        Self { jobs: Mutex::new(Some(jobs)), thread: thread.ok() }
    }

    pub(crate) fn send(&self, job: Job) -> Result<(), NodeError> {
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let jobs = jobs.as_ref().ok_or(NodeError::Closed)?;
        jobs.send(job).map_err(|_| NodeError::Closed)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.jobs.lock().unwrap_or_else(PoisonError::into_inner).take());
        // The thread itself may hold the last handle for a moment, and cannot wait for itself.
        if let Some(thread) = self.thread.take().filter(|t| t.thread().id() != current().id()) {
            let _ = thread.join();
        }
    }
}

struct Thread {
    committer: Committer,
    replica: Weak<Replica>,
}

/// When what is committed and not signed yet is to be signed.
struct Unsigned {
    /// Since when there has been something, or since when the last attempt failed.
    since: Instant,
    /// After how long it is due even if more commits come.
    due: Duration,
    /// How long to wait for another commit before that.
    idle: Duration,
}

impl Unsigned {
    fn now() -> Self {
        Self { since: Instant::now(), due: UNSIGNED, idle: IDLE }
    }

    /// After an attempt that failed: later each time.
    fn again(&self) -> Self {
        let pause = if self.idle == IDLE { AGAIN } else { (self.due * 2).min(AGAIN_AT_MOST) };
        Self { since: Instant::now(), due: pause, idle: pause }
    }

    /// How long to wait for another commit.
    fn patience(&self) -> Duration {
        self.idle.min(self.due.saturating_sub(self.since.elapsed()))
    }

    fn is_due(&self) -> bool {
        self.since.elapsed() >= self.due
    }
}

impl Thread {
    fn run(&self, queue: &Receiver<Job>, unsigned: bool) {
        let normal = self.committer.durability == Durability::Normal;
        let mut unsigned = unsigned.then(Unsigned::now);
        loop {
            let job = match &unsigned {
                None => queue.recv().ok(),
                Some(waits) => match queue.recv_timeout(waits.patience()) {
                    Ok(job) if !waits.is_due() => Some(job),
                    waiting => {
                        unsigned = if self.sign() { None } else { Some(waits.again()) };
                        match waiting {
                            Ok(job) => Some(job),
                            Err(RecvTimeoutError::Timeout) => continue,
                            Err(RecvTimeoutError::Disconnected) => None,
                        }
                    }
                },
            };
            let Some(first) = job else { return };
            let wrote = self.commit(gather(first, queue));
            if wrote && normal {
                unsigned = unsigned.or_else(|| Some(Unsigned::now()));
            }
        }
    }

    fn commit(&self, group: Vec<Job>) -> bool {
        let (drafts, replies): (Vec<_>, Vec<_>) =
            group.into_iter().map(|job| (job.drafts, job.reply)).unzip();
        match self.committer.commit(&drafts) {
            Ok(results) => {
                if self.committer.durability == Durability::Full {
                    self.announce();
                }
                for (reply, result) in replies.into_iter().zip(results) {
                    // A caller that went away does not need to know.
                    let _ = reply.send(result.map_err(NodeError::from));
                }
                true
            }
            Err(e) => {
                let text = e.to_string();
                let mut first = Some(e);
                for reply in replies {
                    let error =
                        first.take().unwrap_or_else(|| StorageError::Io(text.clone()).into());
                    let _ = reply.send(Err(error));
                }
                false
            }
        }
    }

    /// Whether it could be done; the entries stay here meanwhile.
    fn sign(&self) -> bool {
        match self.committer.sign() {
            Ok(()) => self.announce(),
            Err(e) => {
                tracing::warn!("commits could not be signed for peers yet: {e}");
                return false;
            }
        }
        true
    }

    fn announce(&self) {
        if let Some(replica) = self.replica.upgrade() {
            replica.changed();
        }
    }
}

fn gather(first: Job, queue: &Receiver<Job>) -> Vec<Job> {
    let mut drafts = first.drafts.len();
    let mut group = vec![first];
    while drafts < GROUP {
        let Ok(job) = queue.try_recv() else { break };
        drafts += job.drafts.len();
        group.push(job);
    }
    group
}
