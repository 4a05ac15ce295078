//! Moving the write-ahead log into the file, on a thread beside those who commit. What is committed meanwhile is moved in
//! further passes, each shorter than the one before, and the last rest while nobody writes: only then can the log start anew.
//! SQLite would leave all syncing of the file to that rest, so each pass has it synced: pages at random places take long.
//!
//! Safe at any time and for any number of processes: SQLite syncs the log before it touches the file, and the file before the
//! log is written from its beginning again.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rusqlite::wal::CheckpointMode;
use rusqlite::{Connection, DEFAULT_NAME};

use super::connection::{self, Writer};
use super::options::Options;
use crate::pool::Pool;

/// Passes beside those who commit, at the most. Each takes syncs, in which they write more; however much that is, the last rest
/// is not beside them.
const PASSES: u32 = 8;
/// A log that is so many times as long as one that is moved holds up who writes on until it was moved.
const BEHIND: u32 = 8;
/// Pages of the log that are not worth a sync of their own: one takes as long as writing about so many.
const AHEAD_OF: u32 = 64;
/// How long the last rest waits for the writer, and who writes on for a log that is too long.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the last rest keeps the writer waiting for other processes that write, and for who still reads the log.
const OTHERS: Duration = Duration::from_millis(100);

/// Who sees to it that the log does not grow.
pub(super) struct Checkpointer {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    path: PathBuf,
    options: Options,
    writer: Arc<Pool<Writer>>,
    /// Pages in the log after the last own commit.
    pages: AtomicU32,
    /// How many of them are synced or being synced.
    synced: AtomicU32,
    /// At how many it is moved next.
    due: AtomicU32,
    under_way: Mutex<bool>,
    over: Condvar,
    stopping: AtomicBool,
}

impl Checkpointer {
    pub(super) fn new(path: PathBuf, options: Options, writer: Arc<Pool<Writer>>) -> Self {
        let shared = Shared {
            due: AtomicU32::new(options.checkpoint_pages),
            path,
            options,
            writer,
            pages: AtomicU32::new(0),
            synced: AtomicU32::new(0),
            under_way: Mutex::new(false),
            over: Condvar::new(),
            stopping: AtomicBool::new(false),
        };
        Self { shared: Arc::new(shared), thread: Mutex::new(None) }
    }

    /// A commit left `pages` in the log, and if it is `synced`, all of them are. Only called while the writer is lent.
    pub(super) fn committed(&self, pages: u32, synced: bool) {
        let shared = &self.shared;
        if pages < shared.pages.swap(pages, Ordering::Relaxed) {
            // It started anew.
            shared.due.store(shared.options.checkpoint_pages, Ordering::Relaxed);
            shared.synced.store(0, Ordering::Relaxed);
        }
        if synced {
            shared.synced.store(pages, Ordering::Relaxed);
        }
        if pages < shared.due.load(Ordering::Relaxed)
            || std::mem::replace(&mut *shared.under_way(), true)
        {
            return;
        }
        match self.start() {
            // The one before is over.
            Some(thread) => *self.thread() = Some(thread),
            None => shared.run(Shared::move_some),
        }
    }

    /// Whether so much of the log is not synced that doing it beside those who commit saves them time. It counts as synced then.
    pub(super) fn begin_sync(&self) -> bool {
        let pages = self.shared.pages.load(Ordering::Relaxed);
        let synced = self.shared.synced.load(Ordering::Relaxed);
        let much = pages.saturating_sub(synced) >= AHEAD_OF;
        if much {
            self.shared.synced.store(pages, Ordering::Relaxed);
        }
        much
    }

    /// A thread that moves the log, if there may be one.
    fn start(&self) -> Option<JoinHandle<()>> {
        let shared = Arc::clone(&self.shared);
        let thread = thread::Builder::new().name("anabranch-checkpoint".into());
        if !shared.options.checkpoint_beside {
            return None;
        }
        thread.spawn(move || shared.run(Shared::move_all)).ok()
    }

    /// Whether the log has become so long that who wants to write is to wait for its being moved.
    pub(super) fn is_behind(&self) -> bool {
        let bound = self.shared.options.checkpoint_pages.saturating_mul(BEHIND);
        self.shared.pages.load(Ordering::Relaxed) >= bound && *self.shared.under_way()
    }

    /// Waits until it is not behind. A log that somebody reads cannot be moved, and goes on growing.
    pub(super) fn catch_up(&self) {
        if self.is_behind() {
            let shared = &self.shared;
            let waited =
                shared
                    .over
                    .wait_timeout_while(shared.under_way(), PATIENCE, |under_way| *under_way);
            drop(waited.unwrap_or_else(PoisonError::into_inner));
        }
    }

    fn thread(&self) -> MutexGuard<'_, Option<JoinHandle<()>>> {
        self.thread.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Checkpointer {
    /// Waits for the pass that is under way.
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread().take() {
            // What went wrong there changes nothing about what is committed.
            let _ = thread.join();
        }
    }
}

/// Says that it is over, however that came about.
struct Over<'s>(&'s Shared);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        *self.0.under_way() = false;
        self.0.over.notify_all();
    }
}

impl Shared {
    fn under_way(&self) -> MutexGuard<'_, bool> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, act: impl FnOnce(&Self, &Connection) -> rusqlite::Result<()>) {
        let _over = Over(self);
        let moved = connection::open_checkpointer(&self.path, &self.options)
            .and_then(|connection| act(self, &connection));
        if moved.is_err() {
            // Nothing is lost; it is tried again when there is more.
            self.again_soon(self.pages.load(Ordering::Relaxed));
        }
    }

    /// What was not moved of `pages` is tried again when so many have come to them.
    fn again_at(&self, pages: u32, more: u32) {
        let due = pages.saturating_add(more.max(1)).max(self.options.checkpoint_pages);
        self.due.store(due, Ordering::Relaxed);
    }

    fn again_soon(&self, pages: u32) {
        self.again_at(pages, self.options.checkpoint_pages / 4);
    }

    /// One pass, by whoever has the writer.
    fn move_some(&self, connection: &Connection) -> rusqlite::Result<()> {
        let (pages, _) = pass(connection, CheckpointMode::PASSIVE)?;
        self.again_soon(pages);
        Ok(())
    }

    fn move_all(&self, connection: &Connection) -> rusqlite::Result<()> {
        let (mut last, mut left_before) = (0, u32::MAX);
        for _ in 0..PASSES {
            let (pages, moved) = pass(connection, CheckpointMode::PASSIVE)?;
            anabranch_sqlite_sync::sync(connection)?;
            // A pass knows nothing of what was committed since it began.
            let pages = pages.max(self.pages.load(Ordering::Relaxed));
            let left = pages.saturating_sub(moved);
            let few = left <= self.options.checkpoint_pages / 16;
            // Somebody reads what was there before.
            let held_up = !few && moved == last;
            if held_up || self.stopping.load(Ordering::Relaxed) {
                self.again_soon(pages);
                return Ok(());
            }
            // Another one would not leave much less.
            let as_many = left > left_before / 4 * 3;
            if few || as_many {
                break;
            }
            (last, left_before) = (moved, left);
        }
        self.move_rest(connection)
    }

    /// Moves all there is while nobody writes, and has the log start anew.
    fn move_rest(&self, connection: &Connection) -> rusqlite::Result<()> {
        // Held to the end: nobody commits before it is noted when the log is to be moved next.
        let Ok(Some(_nobody_writes)) = self.writer.lend(PATIENCE, || Err(())) else {
            self.again_soon(self.pages.load(Ordering::Relaxed));
            return Ok(());
        };
        connection.busy_timeout(OTHERS)?;
        match pass(connection, CheckpointMode::RESTART) {
            Ok(_) => {
                self.pages.store(0, Ordering::Relaxed);
                self.synced.store(0, Ordering::Relaxed);
                self.due.store(self.options.checkpoint_pages, Ordering::Relaxed);
            }
            // Somebody reads for long. What is waited here is waited seldom.
            Err(_) => {
                let pages = self.pages.load(Ordering::Relaxed);
                self.again_at(pages, pages);
            }
        }
        Ok(())
    }
}

/// Pages in the log as a pass found it, and how many of them are in the file now.
fn pass(connection: &Connection, mode: CheckpointMode) -> rusqlite::Result<(u32, u32)> {
    let (pages, moved) = connection.wal_checkpoint_v2(DEFAULT_NAME, mode)?;
    let count = |frames: i32| u32::try_from(frames).unwrap_or(0);
    Ok((count(pages), count(moved)))
}

#[cfg(test)]
mod tests {
    use anabranch_core::storage::{Durability, Storage, Table};

    use super::*;
    use crate::sqlite::SqliteStorage;

    const PAGES: u32 = 1_000;

    /// A storage with a few commits in its log, which is far from being due.
    fn committed() -> (tempfile::TempDir, SqliteStorage) {
        let directory = tempfile::tempdir().unwrap();
        let options = Options { checkpoint_pages: PAGES, ..Options::default() };
        let storage = SqliteStorage::create(directory.path().join("x.db"), options).unwrap();
        (0..20).for_each(|n| put(&storage, n));
        (directory, storage)
    }

    fn put(storage: &SqliteStorage, n: u32) {
        let mut tx = storage.write(Durability::Normal).unwrap();
        tx.put(Table::Cell, &n.to_be_bytes(), &[7; 1_000]).unwrap();
        tx.commit().unwrap();
    }

    fn shared(storage: &SqliteStorage) -> &Shared {
        &storage.checkpointer.as_ref().unwrap().shared
    }

    fn pages(storage: &SqliteStorage) -> u32 {
        shared(storage).pages.load(Ordering::Relaxed)
    }

    fn due(storage: &SqliteStorage) -> u32 {
        shared(storage).due.load(Ordering::Relaxed)
    }

    #[test]
    fn what_is_committed_during_a_pass_is_not_left() {
        let (_directory, storage) = committed();
        let shared = shared(&storage);
        // As if they had come since.
        shared.pages.fetch_add(PAGES / 20, Ordering::Relaxed);
        shared.run(Shared::move_all);
        assert_eq!((pages(&storage), due(&storage)), (0, PAGES));
        put(&storage, 99);
        assert!(pages(&storage) < 10, "it started anew: {}", pages(&storage));
    }

    #[test]
    fn who_reads_for_long_keeps_it_and_holds_up_commits_seldom() {
        let (_directory, storage) = committed();
        let reader = storage.read().unwrap();
        reader.get(Table::Cell, b"k").unwrap();
        let before = pages(&storage);
        shared(&storage).run(Shared::move_all);
        assert_eq!(pages(&storage), before);
        assert!(due(&storage) >= PAGES.max(2 * before), "{}", due(&storage));
        put(&storage, 99);
        assert!(pages(&storage) > before);
        drop(reader);
        shared(&storage).run(Shared::move_all);
        assert_eq!((pages(&storage), due(&storage)), (0, PAGES));
    }

    #[test]
    fn another_process_that_writes_is_waited_for_and_not_in_the_way() {
        let (_directory, storage) = committed();
        let other = SqliteStorage::open(storage.path(), Options::default()).unwrap();
        let held = other.write(Durability::Normal).unwrap();
        shared(&storage).run(Shared::move_all);
        assert!(pages(&storage) > 0, "it may commit more");
        drop(held);
        shared(&storage).run(Shared::move_all);
        assert_eq!(pages(&storage), 0);
    }

    #[test]
    fn it_is_over_however_it_ends() {
        let (_directory, storage) = committed();
        let shared = shared(&storage);
        *shared.under_way() = true;
        std::thread::scope(|scope| {
            let panics = scope.spawn(|| shared.run(|_, _| panic!("on purpose")));
            assert!(panics.join().is_err());
        });
        assert!(!*shared.under_way());
    }
}
