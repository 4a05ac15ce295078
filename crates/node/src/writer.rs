//! The thread that commits for one replica. Whatever waits is committed as one group (see [`crate::committer`]). Under
//! normal durability the signature is put off a little while more commits come.

use crate::committer::Committer;
use crate::error::NodeError;
use crate::replica::Replica;
use anabranch_core::author::Draft;
use anabranch_core::entry::Entry;
use anabranch_core::storage::{Durability, StorageError};
use std::sync::mpsc::{Receiver, Sender, channel};
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
    pub(crate) fn start(committer: Committer, replica: Weak<Replica>) -> Self {
        let (jobs, queue) = channel();
        let thread = Thread { committer, replica };
        // Without the thread every commit reports that the database is closed.
        let thread = std::thread::Builder::new()
            .name("anabranch-writer".into())
            .spawn(move || thread.run(&queue));
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

impl Thread {
    fn run(&self, queue: &Receiver<Job>) {
        let normal = self.committer.durability == Durability::Normal;
        // Since when the oldest unsigned commit is.
        let mut unsigned: Option<Instant> = None;
        loop {
            let job = match unsigned {
                None => queue.recv().ok(),
                Some(since) => match queue.recv_timeout(patience(since.elapsed())) {
                    Ok(job) if since.elapsed() < UNSIGNED => Some(job),
                    waiting => {
                        self.sign();
                        unsigned = None;
                        match waiting {
                            Ok(job) => Some(job),
                            Err(_) => queue.recv().ok(),
                        }
                    }
                },
            };
            let Some(first) = job else { return };
            let wrote = self.commit(gather(first, queue));
            if wrote && normal {
                unsigned = unsigned.or_else(|| Some(Instant::now()));
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

    /// What fails here is tried again with the next group, and the entries stay here meanwhile.
    fn sign(&self) {
        match self.committer.sign() {
            Ok(()) => self.announce(),
            Err(e) => tracing::warn!("commits could not be signed for peers yet: {e}"),
        }
    }

    fn announce(&self) {
        if let Some(replica) = self.replica.upgrade() {
            replica.changed();
        }
    }
}

/// How long to wait for another commit when the oldest unsigned one is this old.
fn patience(age: Duration) -> Duration {
    IDLE.min(UNSIGNED.saturating_sub(age))
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
