//! A folder at work: it is brought up to date whenever something arrives, and if it is watched, whenever something changes
//! on the disk.

use crate::dirty::Dirty;
use crate::error::FolderError;
use crate::folder::Folder;
use crate::path::RelPath;
use crate::update::{Fetch, Fetched, Updated};
use crate::watch::Watcher;
use anabranch_core::blob::ChunkHash;
use anabranch_core::storage::StorageError;
use anabranch_node::{NodeError, Notice};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

/// How often an update that waits for content looks whether it is to stop.
const STOP_CHECK: Duration = Duration::from_millis(200);
/// How long what arrives is waited for, and an update waits for content, before changes of one's own go first.
const HEAR_OUT: Duration = Duration::from_secs(1);
/// A change is looked at when nothing more has changed for so long, so that what an editor does to save is one change.
const QUIET: Duration = Duration::from_millis(20);
/// Where something changes all the time, it is looked at after so long.
const BURST: Duration = Duration::from_millis(200);
/// After an update there is rest for so many times as long as it took: a busy tree takes a fifth of one core at most.
const REST: u32 = 4;
const LONGEST_REST: Duration = Duration::from_secs(60);
/// What went wrong is tried again after so long, then after twice as long, and so on.
const RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(60);
/// How often all of a watched folder is looked at: some changes are told by no system (a file that is mapped into memory).
const RESCAN: Duration = Duration::from_secs(600);
/// How often where it cannot be watched.
const BLIND_RESCAN: Duration = Duration::from_secs(30);
/// Looking at all takes this part of the time at most.
const RESCAN_SHARE: u32 = 100;

/// Told what each update did.
pub type Tell = Arc<dyn Fn(&Result<Updated, FolderError>) + Send + Sync>;

/// What the next update looks at.
#[derive(Default)]
pub(crate) struct Look {
    watcher: OnceLock<Watcher>,
    warned: AtomicBool,
    dirty: Mutex<Option<Dirty>>,
    /// How long updates waited for peers, in milliseconds.
    waited: AtomicU64,
}

impl Look {
    pub(crate) fn enter(&self, dir: Option<&RelPath>) {
        if let Some(watcher) = self.watcher.get() {
            watcher.enter(dir);
        }
    }

    /// Unless it is watched: everything.
    pub(crate) fn take(&self) -> Dirty {
        let Some(watcher) = self.watcher.get() else { return Dirty::Everything };
        let mut dirty = self.dirty.lock().unwrap_or_else(PoisonError::into_inner);
        // Nothing is known before the first look.
        let mut dirty = dirty.replace(Dirty::default()).unwrap_or(Dirty::Everything);
        dirty.join(watcher.take());
        dirty
    }

    /// Whether something changed since the last update began.
    fn stirs(&self) -> bool {
        self.watcher.get().is_some_and(Watcher::stirs)
    }

    /// What was told is kept for an update that cannot be made now, and wakes nobody any more.
    fn put_off(&self) {
        self.again(self.take());
    }

    /// The next update looks at this as well.
    pub(crate) fn again(&self, more: Dirty) {
        let mut dirty = self.dirty.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(dirty) = &mut *dirty {
            dirty.join(more);
        }
    }
}

/// A folder at work in the background.
#[derive(Debug)]
pub struct Work {
    /// Of a folder that is watched: what another process commits to its database counts as well.
    _notice: Option<Notice>,
    stop: watch::Sender<bool>,
    task: JoinHandle<Result<(), FolderError>>,
}

impl Work {
    /// Ends the work in good order.
    ///
    /// # Errors
    /// What the work failed with.
    pub async fn end(self) -> Result<(), FolderError> {
        self.stop.send_replace(true);
        self.task.await.map_err(|_| NodeError::Closed)?
    }
}

impl Folder {
    /// Brings the folder up to date with its own database, then goes on to do so in the background with whatever arrives.
    ///
    /// # Errors
    /// What the first update failed with.
    pub async fn start(self: &Arc<Self>) -> Result<Work, FolderError> {
        self.begin(None).await
    }

    /// As [`Self::start`], and with whatever changes on the disk. `tell` hears of every update. Where the system cannot watch
    /// the folder, all of it is looked at twice a minute, and the log says why.
    ///
    /// # Errors
    /// What the first update failed with.
    pub async fn watch(self: &Arc<Self>, tell: Tell) -> Result<Work, FolderError> {
        match Watcher::new(Arc::clone(self.disk())) {
            Ok(watcher) => _ = self.look.watcher.set(watcher),
            Err(error) => self.warn(&error),
        }
        self.begin(Some(tell)).await
    }

    /// Whether not all changes are told. The first time, the log says why.
    fn is_blind(&self) -> bool {
        let Some(watcher) = self.look.watcher.get() else { return true };
        let blind = watcher.blind();
        if let Some(error) = &blind
            && !self.look.warned.swap(true, Ordering::Relaxed)
        {
            self.warn(error);
        }
        blind.is_some()
    }

    fn warn(&self, error: &io::Error) {
        let is = |errno: Errno| error.raw_os_error() == Some(errno.raw_os_error());
        let hint = match () {
            () if is(Errno::NOSPC) => "; raise fs.inotify.max_user_watches",
            () if is(Errno::MFILE) => "; raise fs.inotify.max_user_instances",
            () => "",
        };
        let (folder, every) = (self.root().display(), BLIND_RESCAN.as_secs());
        tracing::warn!(%folder, "cannot be watched, so it is looked at every {every} s: {error}{hint}");
    }

    async fn begin(self: &Arc<Self>, tell: Option<Tell>) -> Result<Work, FolderError> {
        let begun = Instant::now();
        if !self.is_new()? {
            self.update_apart().await?;
        }
        let notice = match &tell {
            Some(_) => Some(Notice::start(self.replica(), Arc::clone(self.file()))?),
            None => None,
        };
        let (stop, stopped) = watch::channel(false);
        let live = tell.map(|tell| {
            tell(&Ok(self.take_done()));
            let pace = Pace { blind: self.is_blind(), ..Pace::new(begun.elapsed()) };
            Live { tell, pace }
        });
        let task = tokio::spawn(Arc::clone(self).work(stopped, live));
        Ok(Work { _notice: notice, stop, task })
    }

    async fn update_apart(self: &Arc<Self>) -> Result<(), FolderError> {
        let folder = Arc::clone(self);
        tokio::task::spawn_blocking(move || folder.update()).await.map_err(|_| NodeError::Closed)?
    }

    /// Updates whenever something arrives or a peer connects from now on, until `stop` becomes true. Peers wait for it
    /// from the moment of this call, not only once the result is polled.
    fn work(
        self: Arc<Self>,
        stop: watch::Receiver<bool>,
        live: Option<Live>,
    ) -> impl Future<Output = Result<(), FolderError>> + Send {
        let versions = self.replica().versions();
        let unsettled = self.replica().unsettled();
        self.replica().attach_worker();
        self.stopping.store(false, Ordering::SeqCst);
        async move {
            let (watched, mut ends) = (Arc::clone(&self), stop.clone());
            // An update that waits for content is told as well.
            let stopper = tokio::spawn(async move {
                if ends.wait_for(|stop| *stop).await.is_ok() {
                    watched.stopping.store(true, Ordering::SeqCst);
                }
            });
            let worker = Worker { folder: &self, versions, unsettled, stop, live };
            let result = worker.run().await;
            stopper.abort();
            self.replica().detach_worker();
            result
        }
    }
}

/// When a watched folder is looked at.
#[derive(Debug)]
struct Pace {
    /// How long an update of what changed took last, and when it ended.
    took: Duration,
    ended: Instant,
    retry: Duration,
    /// When something is tried again.
    again: Option<Instant>,
    /// When all was looked at, and how long that took.
    all: (Instant, Duration),
    /// Not all changes are told.
    blind: bool,
}

impl Pace {
    fn new(took: Duration) -> Self {
        let now = Instant::now();
        let (all, retry) = ((now, took), RETRY);
        Self { took: Duration::ZERO, ended: now, retry, again: None, all, blind: false }
    }

    /// When the next change may be looked at.
    fn rested(&self) -> Instant {
        self.ended + (self.took * REST).min(LONGEST_REST)
    }

    /// When all is looked at.
    fn rescan(&self) -> Instant {
        let (ended, took) = self.all;
        let every = if self.blind { BLIND_RESCAN } else { RESCAN };
        ended + every.max(took * RESCAN_SHARE)
    }

    fn next(&self) -> Instant {
        self.again.map_or(self.rescan(), |again| again.min(self.rescan()))
    }

    /// An update has ended that `waited` for peers so long.
    fn updated(&mut self, begun: Instant, waited: Duration, went_well: bool) {
        let now = Instant::now();
        let took = (now - begun).saturating_sub(waited);
        if self.rescan() <= begun {
            self.all = (now, took);
        } else {
            (self.took, self.ended) = (took, now);
        }
        self.again = (!went_well).then(|| now + self.retry.max(took * REST));
        self.retry = if went_well { RETRY } else { (self.retry * 2).min(LONGEST_RETRY) };
    }
}

struct Worker<'a> {
    folder: &'a Arc<Folder>,
    versions: watch::Receiver<u64>,
    unsettled: watch::Receiver<BTreeSet<u64>>,
    stop: watch::Receiver<bool>,
    /// Of a folder that is watched.
    live: Option<Live>,
}

struct Live {
    tell: Tell,
    pace: Pace,
}

/// Why an update begins.
enum Cue {
    /// Something arrived, or somebody connected.
    Peers,
    /// Something changed on the disk, or is due.
    Disk,
    Stop,
}

impl Worker<'_> {
    async fn run(mut self) -> Result<(), FolderError> {
        let mut last = Ok(());
        loop {
            match self.cue().await {
                Cue::Stop => return last,
                Cue::Disk => {}
                Cue::Peers => {
                    // Entries that are under way come first: half a tree is not worth looking at. Where it is watched nobody
                    // waits for ever, though: a session has not settled while a peer is being sent a large file.
                    let Self { folder, unsettled, stop, live, .. } = &mut self;
                    tokio::select! {
                        _ = unsettled.wait_for(BTreeSet::is_empty) => {}
                        () = disk(folder, live.as_ref()) => {}
                        () = long_enough(live.as_ref()) => {}
                        _ = stop.wait_for(|stop| *stop) => return last,
                    }
                }
            }
            // A failure may pass (a full disk, say), so the next change is tried again; the last word counts.
            last = self.settle().await;
            if let Err(e) = &last {
                let folder = self.folder.root().display();
                tracing::warn!(%folder, "bringing the folder up to date failed: {e}");
                self.folder.replica().worked(*self.versions.borrow());
            }
        }
    }

    async fn cue(&mut self) -> Cue {
        let Self { folder, versions, stop, live, .. } = self;
        tokio::select! {
            changed = versions.changed() => if changed.is_err() { Cue::Stop } else { Cue::Peers },
            _ = stop.wait_for(|stop| *stop) => Cue::Stop,
            () = disk(folder, live.as_ref()) => Cue::Disk,
        }
    }

    /// Updates until nothing has changed since the last update began.
    async fn settle(&mut self) -> Result<(), FolderError> {
        let replica = self.folder.replica();
        let version = *self.versions.borrow_and_update();
        let device = replica.device().id();
        let begun = Instant::now();
        let mut updated = match replica.look(|view| view.role_of(&device)) {
            Ok(Some(_)) => self.folder.update_apart().await,
            // Not let in yet, or no more: what is here is looked at when it can be recorded.
            Ok(None) => {
                self.folder.look.put_off();
                if let Some(live) = &mut self.live {
                    live.pace.updated(begun, Duration::ZERO, true);
                }
                return Ok(());
            }
            Err(e) => {
                self.folder.look.put_off();
                Err(StorageError::into(e))
            }
        };
        if let Some(live) = &mut self.live {
            let done = updated.map(|()| self.folder.take_done());
            let waited = self.folder.look.waited.swap(0, Ordering::Relaxed);
            live.pace.updated(
                begun,
                Duration::from_millis(waited),
                done.as_ref().is_ok_and(|done| !done.is_partial()),
            );
            live.pace.blind = self.folder.is_blind();
            let broken_off = done.as_ref().is_ok_and(|done| done.broken_off);
            (live.tell)(&done);
            updated = done.map(drop);
            if broken_off {
                // Peers go on waiting.
                self.versions.mark_changed();
                return updated;
            }
        }
        updated?;
        replica.worked(version);
        Ok(())
    }
}

/// Waits until something has changed on the disk of a folder that is watched, or is due.
async fn disk(folder: &Folder, live: Option<&Live>) {
    match live {
        Some(live) => folder.stirs(&live.pace).await,
        None => std::future::pending().await,
    }
}

/// Waits as long as a folder that is watched does for entries that are under way.
async fn long_enough(live: Option<&Live>) {
    match live {
        Some(live) => tokio::time::sleep(HEAR_OUT.max(live.pace.took * REST)).await,
        None => std::future::pending().await,
    }
}

impl Folder {
    /// Waits until something has changed on the disk and is worth looking at, or is due.
    async fn stirs(&self, pace: &Pace) {
        let changed = async {
            match self.look.watcher.get() {
                Some(watcher) => quiet(watcher, pace.rested()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = changed => {}
            () = sleep_until(pace.next()) => {
                if pace.rescan() <= Instant::now() {
                    self.look.again(Dirty::Everything);
                }
            }
        }
    }
}

/// Waits for a change, and until it is worth looking at.
async fn quiet(watcher: &Watcher, rested: Instant) {
    watcher.changed().await;
    sleep_until(rested).await;
    let end = Instant::now() + BURST;
    while Instant::now() < end && timeout(QUIET, watcher.told()).await.is_ok() {}
}

/// Asks the connected peers for blobs and waits.
pub(crate) struct FromPeers<'a> {
    pub(crate) folder: &'a Folder,
}

impl Fetch for FromPeers<'_> {
    fn fetch(&mut self, hashes: BTreeSet<ChunkHash>) -> Fetched {
        let replica = self.folder.replica();
        let (asked, begun) = (hashes.len(), Instant::now());
        replica.want(hashes);
        let fetched = self.wait(asked, begun);
        let waited = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.folder.look.waited.fetch_add(waited, Ordering::Relaxed);
        fetched
    }
}

impl FromPeers<'_> {
    /// Waits for `asked` blobs since `begun`.
    fn wait(&self, asked: usize, begun: Instant) -> Fetched {
        let replica = self.folder.replica();
        while !self.folder.stopping.load(Ordering::SeqCst) {
            let seen = replica.blobs_moved();
            let (lacking, unobtainable) = replica.lacking();
            if lacking == unobtainable {
                return if lacking < asked { Fetched::Some } else { Fetched::Nothing };
            }
            // What comes meanwhile is kept, so nothing is lost by looking at one's own files first.
            if begun.elapsed() > HEAR_OUT && self.folder.look.stirs() {
                return Fetched::Later;
            }
            replica.wait_for_blobs(seen, STOP_CHECK);
        }
        Fetched::Nothing
    }
}
