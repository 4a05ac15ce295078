//! The thread that commits for one replica. Whatever waits is committed as one group: one transaction, one signature, one
//! sync of the disk. Under normal durability the signature follows in a transaction of its own that is fully durable, so
//! that nothing is announced before it is safe (I1).

use crate::error::{NodeError, now, random};
use crate::replica::Replica;
use anabranch_core::author::{Author, Draft};
use anabranch_core::entry::Entry;
use anabranch_core::error::Error;
use anabranch_core::key::DeviceKey;
use anabranch_core::ledger::Ledger;
use anabranch_core::storage::{Durability, Storage, StorageError};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
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

/// What came of one caller's drafts.
type JobResult = Result<Vec<Option<Entry>>, Error>;
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
    pub(crate) fn start(
        storage: Arc<dyn Storage>,
        key: DeviceKey,
        durability: Durability,
        replica: Weak<Replica>,
    ) -> Self {
        let (jobs, queue) = channel();
        let thread = Thread { storage, key, durability, replica };
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
    storage: Arc<dyn Storage>,
    key: DeviceKey,
    durability: Durability,
    replica: Weak<Replica>,
}

impl Thread {
    fn run(&self, queue: &Receiver<Job>) {
        // Commits of an earlier process may have been left unsigned by its end.
        let mut unsigned = (self.durability == Durability::Normal).then(Instant::now);
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
            let group = gather(first, queue);
            let wrote = self.commit(group);
            if wrote && self.durability == Durability::Normal {
                unsigned = unsigned.or_else(|| Some(Instant::now()));
            }
        }
    }

    fn author(&self) -> Result<Author<'_>, NodeError> {
        Ok(Author {
            key: &self.key,
            wall: now(),
            fresh_epoch: u64::from_le_bytes(random()?),
            instance: self.storage.instance(),
        })
    }

    fn commit(&self, group: Vec<Job>) -> bool {
        let (drafts, replies): (Vec<_>, Vec<_>) =
            group.into_iter().map(|job| (job.drafts, job.reply)).unzip();
        match self.try_commit(&drafts) {
            Ok(results) => {
                if self.durability == Durability::Full {
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

    /// The outer error undoes the whole group; an inner one concerns one caller, of whose drafts none was written.
    fn try_commit(&self, jobs: &[Vec<Draft>]) -> Result<Vec<JobResult>, NodeError> {
        let author = self.author()?;
        let mut tx = self.storage.write(self.durability)?;
        let mut ledger = Ledger::open(&mut *tx)?;
        let mut results = Vec::with_capacity(jobs.len());
        for drafts in jobs {
            let mut entries = Vec::with_capacity(drafts.len());
            let mut failed = None;
            for draft in drafts {
                match ledger.commit(&author, draft) {
                    Ok(entry) => entries.push(entry),
                    Err(Error::Storage(e)) => return Err(e.into()),
                    // Nothing was written for it: its size and permission are checked first.
                    Err(e) => {
                        failed = Some(e);
                        break;
                    }
                }
            }
            results.push(failed.map_or(Ok(entries), Err));
        }
        if self.durability == Durability::Full {
            ledger.seal(&author)?;
        }
        ledger.finish()?;
        tx.commit()?;
        Ok(results)
    }

    /// Signs what normal durability left unsigned. What fails here is tried again with the next group, and the entries
    /// stay here meanwhile.
    fn sign(&self) {
        let signed = self.author().and_then(|author| {
            let mut tx = self.storage.write(Durability::Full)?;
            let mut ledger = Ledger::open(&mut *tx)?;
            ledger.seal(&author)?;
            ledger.finish()?;
            Ok(tx.commit()?)
        });
        match signed {
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
