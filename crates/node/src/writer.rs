//! The thread that commits for one replica. Whatever waits is committed as one group (see [`crate::committer`]). Under
//! normal durability the signature is put off a little while more commits come, and a small commit goes past the thread, on
//! that of its caller, where nothing has to be waited for.

use crate::committer::Committer;
use crate::error::NodeError;
use crate::replica::Replica;
use anabranch_core::author::Draft;
use anabranch_core::entry::Entry;
use anabranch_core::limits;
use anabranch_core::storage::{Durability, StorageError};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::{JoinHandle, current};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Drafts of one group at the most.
const GROUP: usize = 1_024;
/// How long signing may be put off under normal durability while more commits come.
const UNSIGNED: Duration = Duration::from_millis(20);
/// Drafts after which signing is not put off any further. One signature is for so many entries at the most, so there would be
/// one soon in the middle of a commit; from here on the disk is given time for what it has to sync.
const UNSIGNED_DRAFTS: u64 = limits::RUN_ENTRIES as u64 / 2;
/// How long to wait for another commit before signing: longer than a writer that waits for each commit takes to send the
/// next, since signing syncs the disk; shorter than a person or a peer notices.
const IDLE: Duration = Duration::from_micros(500);
/// How long to wait before signing is tried again after it failed (a full disk, say): at first, and at the most.
const AGAIN: Duration = Duration::from_millis(200);
/// Bytes of values that are committed past the thread at the most; each write counts as some more.
const PASSING_BYTES: usize = 16 * 1024;
const PASSING_EACH: usize = 256;
const AGAIN_AT_MOST: Duration = Duration::from_secs(10);

pub(crate) type Reply = Result<Vec<Option<Entry>>, NodeError>;

/// Drafts from one caller.
struct Job {
    drafts: Vec<Draft>,
    reply: oneshot::Sender<Reply>,
}

/// What the thread hears of.
enum Message {
    Commit(Job),
    /// Something was committed past the thread, and is not signed yet.
    Unsigned,
}

/// The way to the thread. Dropping this waits for its end: what waits is committed and signed then, and the storage is
/// closed in good order even if the process ends right after.
pub(crate) struct Writer {
    committer: Committer,
    queue: Mutex<Option<Sender<Message>>>,
    passing: Arc<Passing>,
    thread: Option<JoinHandle<()>>,
}

/// Commits under normal durability that go past the thread while it has nothing to do: a commit takes less than two threads
/// need to hear of each other.
#[derive(Default)]
struct Passing {
    /// Jobs that the thread has been sent and has not answered, or that it is signing: then commits queue up.
    queued: AtomicU64,
    /// Counts the drafts that were committed, past the thread and by it.
    committed: AtomicU64,
    /// Whether the thread was told since it last signed.
    told: AtomicBool,
}

impl Writer {
    /// `unsigned`: whether an earlier process or attempt left commits that are not signed yet.
    pub(crate) fn start(committer: Committer, replica: Weak<Replica>, unsigned: bool) -> Self {
        let (sender, queue) = channel();
        let passing = Arc::<Passing>::default();
        let thread =
            Thread { committer: committer.clone(), replica, passing: Arc::clone(&passing) };
        // Without the thread every commit reports that the database is closed.
        let thread = std::thread::Builder::new()
            .name("anabranch-writer".into())
            .spawn(move || thread.run(&queue, unsigned));
        Self { committer, queue: Mutex::new(Some(sender)), passing, thread: thread.ok() }
    }

    /// Commits at once, or else has the thread do it and answer.
    pub(crate) fn commit(&self, drafts: Vec<Draft>) -> Result<Commit, NodeError> {
        if self.may_pass(&drafts) {
            match self.committer.commit_at_once(&drafts) {
                Ok(None) => {}
                Ok(Some(committed)) => {
                    self.passing.committed.fetch_add(drafts.len() as u64, Ordering::AcqRel);
                    if !self.passing.told.swap(true, Ordering::AcqRel)
                        && self.send(Message::Unsigned).is_err()
                    {
                        // What is done is done. Without the thread nothing else passes, and is told so.
                        self.passing.queued.fetch_add(1, Ordering::AcqRel);
                    }
                    return Ok(Commit::Done(committed.map_err(NodeError::from)));
                }
                Err(error) => return Err(error),
            }
        }
        let (reply, answer) = oneshot::channel();
        self.passing.queued.fetch_add(1, Ordering::AcqRel);
        self.send(Message::Commit(Job { drafts, reply }))?;
        Ok(Commit::Queued(answer))
    }

    /// What is written in one go without holding anybody up.
    fn may_pass(&self, drafts: &[Draft]) -> bool {
        let size = |draft: &Draft| {
            let values = draft.writes.iter().filter_map(|w| w.value.as_ref());
            values.map(Vec::len).sum::<usize>()
                + PASSING_EACH * (draft.writes.len() + draft.tallies.len() + draft.members.len())
        };
        self.thread.is_some()
            && self.committer.durability == Durability::Normal
            && self.passing.queued.load(Ordering::Acquire) == 0
            && drafts.iter().map(size).sum::<usize>() <= PASSING_BYTES
            && drafts.iter().all(|draft| draft.writes.iter().all(|write| !write.below))
    }

    fn send(&self, message: Message) -> Result<(), NodeError> {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = queue.as_ref().ok_or(NodeError::Closed)?;
        queue.send(message).map_err(|_| NodeError::Closed)
    }
}

/// A commit that is done, or on its way.
pub(crate) enum Commit {
    Done(Reply),
    Queued(oneshot::Receiver<Reply>),
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.queue.lock().unwrap_or_else(PoisonError::into_inner).take());
        // The thread itself may hold the last handle for a moment, and cannot wait for itself.
        if let Some(thread) = self.thread.take().filter(|t| t.thread().id() != current().id()) {
            let _ = thread.join();
        }
    }
}

struct Thread {
    committer: Committer,
    replica: Weak<Replica>,
    passing: Arc<Passing>,
}

/// When what is committed and not signed yet is to be signed.
struct Unsigned {
    /// Since when there has been something, or since when the last attempt failed.
    since: Instant,
    /// [`Passing::committed`] as of the last signature.
    committed: u64,
    /// After how long it is due even if more commits come.
    due: Duration,
    /// How long to wait for another commit before that.
    idle: Duration,
}

impl Unsigned {
    fn now(committed: u64) -> Self {
        Self { since: Instant::now(), committed, due: UNSIGNED, idle: IDLE }
    }

    /// After an attempt that failed: later each time, however much there is.
    fn again(&self) -> Self {
        let pause = if self.failed() { (self.due * 2).min(AGAIN_AT_MOST) } else { AGAIN };
        Self { since: Instant::now(), due: pause, idle: pause, ..*self }
    }

    fn failed(&self) -> bool {
        self.idle != IDLE
    }

    /// How long to wait for another commit.
    fn patience(&self) -> Duration {
        self.idle.min(self.due.saturating_sub(self.since.elapsed()))
    }

    fn is_due(&self, committed: u64) -> bool {
        let much = committed - self.committed >= UNSIGNED_DRAFTS;
        much && !self.failed() || self.since.elapsed() >= self.due
    }
}

impl Thread {
    fn run(&self, queue: &Receiver<Message>, unsigned: bool) {
        let normal = self.committer.durability == Durability::Normal;
        let committed = || self.passing.committed.load(Ordering::Acquire);
        // As of the last signature, before which nothing else was committed.
        let mut signed = committed();
        let mut unsigned = unsigned.then(|| Unsigned::now(signed));
        loop {
            let before = committed();
            let message = match &unsigned {
                None => queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(waits) => queue.recv_timeout(waits.patience()),
            };
            if let Some(waits) = &unsigned {
                let now = committed();
                let idle = matches!(message, Err(RecvTimeoutError::Timeout)) && now == before;
                let closed = matches!(message, Err(RecvTimeoutError::Disconnected));
                if idle || closed || waits.is_due(now) {
                    self.committer.storage.sync_ahead();
                    signed = committed();
                    unsigned = if self.sign() { None } else { Some(waits.again()) };
                }
            }
            match message {
                Ok(Message::Commit(first)) => {
                    let (group, told) = gather(first, queue);
                    let wrote = self.commit(group);
                    if (wrote && normal) || told {
                        unsigned = unsigned.or_else(|| Some(Unsigned::now(signed)));
                    }
                }
                Ok(Message::Unsigned) => {
                    unsigned = unsigned.or_else(|| Some(Unsigned::now(signed)));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn commit(&self, group: Vec<Job>) -> bool {
        let (drafts, replies): (Vec<_>, Vec<_>) =
            group.into_iter().map(|job| (job.drafts, job.reply)).unzip();
        let committed = self.committer.commit(&drafts);
        self.passing.queued.fetch_sub(drafts.len() as u64, Ordering::AcqRel);
        match committed {
            Ok(results) => {
                let count: usize = drafts.iter().map(Vec::len).sum();
                self.passing.committed.fetch_add(count as u64, Ordering::AcqRel);
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
        // Whoever commits meanwhile waits in the queue, and not for the sync. What goes past from here on is told anew.
        self.passing.queued.fetch_add(1, Ordering::AcqRel);
        self.passing.told.store(false, Ordering::Release);
        let signed = self.committer.sign();
        self.passing.queued.fetch_sub(1, Ordering::AcqRel);
        match signed {
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

/// What waits, as one group, and whether something else is unsigned that was committed past the thread.
fn gather(first: Job, queue: &Receiver<Message>) -> (Vec<Job>, bool) {
    let mut drafts = first.drafts.len();
    let (mut group, mut unsigned) = (vec![first], false);
    while drafts < GROUP {
        match queue.try_recv() {
            Ok(Message::Commit(job)) => {
                drafts += job.drafts.len();
                group.push(job);
            }
            Ok(Message::Unsigned) => unsigned = true,
            Err(_) => break,
        }
    }
    (group, unsigned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signing_is_due_after_a_while_or_when_there_is_much_unless_it_has_just_failed() {
        let waits = Unsigned { since: Instant::now(), due: Duration::MAX, ..Unsigned::now(1_000) };
        assert!(!waits.is_due(1_000) && !waits.is_due(1_000 + UNSIGNED_DRAFTS - 1));
        assert!(waits.is_due(1_000 + UNSIGNED_DRAFTS));
        assert!(Unsigned { due: Duration::ZERO, ..waits }.is_due(1_000));
        // A full disk, say: not with each commit again.
        let failed = waits.again();
        assert!(!failed.is_due(1_000_000));
        assert!(Unsigned { due: Duration::ZERO, ..failed }.is_due(1_000));
    }

    /// The group may fail, and what it stands beside in the queue is to be signed all the same.
    #[test]
    fn word_of_what_is_unsigned_is_not_lost_in_a_group() {
        let job = || Job { drafts: Vec::new(), reply: oneshot::channel().0 };
        let (sender, queue) = channel();
        for message in [Message::Commit(job()), Message::Unsigned, Message::Commit(job())] {
            sender.send(message).unwrap();
        }
        let (group, unsigned) = gather(job(), &queue);
        assert!(group.len() == 3 && unsigned);
        let (group, unsigned) = gather(job(), &queue);
        assert!(group.len() == 1 && !unsigned);
    }
}
