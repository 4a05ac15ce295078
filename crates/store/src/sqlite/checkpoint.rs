//! Moving the write-ahead log into the file, on a thread beside those who commit. What is committed meanwhile is moved in
//! further passes, each shorter than the one before, and the last rest while nobody writes: only then can the log start anew.
//!
//! Safe at any time and for any number of processes: SQLite syncs the log before it touches the file, and the file before the
//! log is written from its beginning again.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use rusqlite::wal::CheckpointMode;
use rusqlite::{Connection, DEFAULT_NAME};

use super::connection::{self, Writer};
use super::options::Options;
use crate::pool::Pool;

/// Passes beside those who commit. However much they write, the next one has to wait for the last rest.
const PASSES: u32 = 4;
/// A log that is so many times as long as one that is moved holds up who writes on until it was moved.
const BEHIND: u32 = 16;

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
    /// At how many it is moved next.
    due: AtomicU32,
    under_way: Mutex<bool>,
    over: Condvar,
    stopping: AtomicBool,
}

impl Checkpointer {
    pub(super) fn new(path: PathBuf, options: Options, writer: Arc<Pool<Writer>>) -> Self {
        let due = AtomicU32::new(options.checkpoint_pages);
        let shared = Shared {
            path,
            options,
            writer,
            pages: AtomicU32::new(0),
            due,
            under_way: Mutex::new(false),
            over: Condvar::new(),
            stopping: AtomicBool::new(false),
        };
        Self { shared: Arc::new(shared), thread: Mutex::new(None) }
    }

    /// A commit left `pages` in the log. Only called while the writer is lent.
    pub(super) fn committed(&self, pages: u32) {
        let shared = &self.shared;
        if pages < shared.pages.swap(pages, Ordering::Relaxed) {
            // It started anew.
            shared.due.store(shared.options.checkpoint_pages, Ordering::Relaxed);
        }
        if pages < shared.due.load(Ordering::Relaxed)
            || std::mem::replace(&mut *shared.under_way(), true)
        {
            return;
        }
        match self.start() {
            // The one before is over.
            Some(thread) => *self.thread() = Some(thread),
            None => shared.end(shared.open().and_then(|connection| pass(&connection))),
        }
    }

    /// A thread that moves the log, if there may be one.
    fn start(&self) -> Option<JoinHandle<()>> {
        let shared = Arc::clone(&self.shared);
        let thread = thread::Builder::new().name("anabranch-checkpoint".into());
        if shared.options.checkpoint_beside {
            thread.spawn(move || shared.run()).ok()
        } else {
            None
        }
    }

    /// Whether the log has become so long that who wants to write is to wait for its being moved.
    pub(super) fn is_behind(&self) -> bool {
        let bound = self.shared.options.checkpoint_pages.saturating_mul(BEHIND);
        self.shared.pages.load(Ordering::Relaxed) >= bound && *self.shared.under_way()
    }

    /// Waits until it is not behind, for as long as one waits for a lock. A log that somebody reads cannot be moved, and goes
    /// on growing.
    pub(super) fn catch_up(&self) {
        if self.is_behind() {
            let shared = &self.shared;
            let waited = shared.over.wait_timeout_while(
                shared.under_way(),
                shared.options.busy_timeout,
                |under_way| *under_way,
            );
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

/// Pages in the log, and how many of them are in the file.
type Moved = (u32, u32);

impl Shared {
    fn under_way(&self) -> MutexGuard<'_, bool> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        self.end(self.open().and_then(|connection| self.move_log(&connection)));
    }

    fn end(&self, moved: rusqlite::Result<Moved>) {
        // The log starts anew with the next commit, unless it was not all moved or somebody reads from it.
        let pages = moved.map_or_else(|_| self.pages.load(Ordering::Relaxed), |(pages, _)| pages);
        let more = (self.options.checkpoint_pages / 4).max(1);
        self.due.store(
            pages.saturating_add(more).max(self.options.checkpoint_pages),
            Ordering::Relaxed,
        );
        *self.under_way() = false;
        self.over.notify_all();
    }

    fn open(&self) -> rusqlite::Result<Connection> {
        connection::open_checkpointer(&self.path, &self.options)
    }

    fn move_log(&self, connection: &Connection) -> rusqlite::Result<Moved> {
        let mut last = pass(connection)?;
        for _ in 1..PASSES {
            let (pages, moved) = last;
            if moved >= pages || self.stopping.load(Ordering::Relaxed) {
                return Ok(last);
            }
            if pages - moved <= self.options.checkpoint_pages / 16 {
                break;
            }
            last = pass(connection)?;
            if last.1 == moved {
                // Somebody reads what was there before.
                return Ok(last);
            }
        }
        match self.writer.lend(self.options.busy_timeout, || Err(())) {
            Ok(Some(_nobody_writes)) => pass(connection),
            _ => Ok(last),
        }
    }
}

/// Moves what was committed by now and nobody who reads still needs elsewhere.
fn pass(connection: &Connection) -> rusqlite::Result<Moved> {
    let (pages, moved) = connection.wal_checkpoint_v2(DEFAULT_NAME, CheckpointMode::PASSIVE)?;
    let count = |frames: i32| u32::try_from(frames).unwrap_or(0);
    Ok((count(pages), count(moved)))
}
