//! Noticing what other processes commit to a database file, at once and without polling: the write-ahead log beside the
//! file is watched, and a change there is looked up in the file. The log is written before the commit can be seen, and
//! what makes it visible touches no file that can be watched; so each change is looked up a few more times.

use crate::error::NodeError;
use crate::replica::Replica;
use anabranch_store::SqliteStorage;
use notify::{RecursiveMode, Watcher};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// When to look after the last change of the log. A commit becomes visible once the log is on disk, which takes longer
/// the slower the disk is.
const LOOKS: [Duration; 6] = [
    Duration::ZERO,
    Duration::from_millis(2),
    Duration::from_millis(10),
    Duration::from_millis(50),
    Duration::from_millis(250),
    Duration::from_millis(1_000),
];

/// Notices what other processes commit to a replica's file as long as it lives.
pub struct Notice {
    _watcher: notify::RecommendedWatcher,
}

impl std::fmt::Debug for Notice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Notice")
    }
}

impl Notice {
    /// Starts watching the file behind `replica`.
    ///
    /// # Errors
    /// [`NodeError::File`] when the system cannot watch it.
    pub fn start(replica: &Arc<Replica>, storage: Arc<SqliteStorage>) -> Result<Self, NodeError> {
        let dir = storage.path().parent().map(std::path::Path::to_path_buf).unwrap_or_default();
        let wal = storage.wal_path().to_path_buf();
        let replica: Weak<Replica> = Arc::downgrade(replica);
        let failed = |e: notify::Error| NodeError::file(&dir, std::io::Error::other(e));
        let seen = storage.commits_by_others()?;
        let (changes, changed) = channel();
        std::thread::spawn(move || follow(&changed, &replica, &storage, seen));
        let mut watcher =
            notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
                // An error may mean lost events, so look then as well.
                if event.as_ref().is_ok_and(|e| e.kind.is_access() || !e.paths.contains(&wal)) {
                    return;
                }
                // A follower that is gone has nobody to tell.
                let _ = changes.send(());
            })
            .map_err(failed)?;
        watcher.watch(&dir, RecursiveMode::NonRecursive).map_err(failed)?;
        Ok(Self { _watcher: watcher })
    }
}

/// Looks after each change of the log, until the watcher or the replica is gone.
fn follow(
    changed: &Receiver<()>,
    replica: &Weak<Replica>,
    storage: &SqliteStorage,
    mut seen: Option<u64>,
) {
    if let Some(replica) = replica.upgrade() {
        // What a process could not tell before it ended.
        replica.members_changed();
    }
    let mut looks = LOOKS.iter();
    // The last look was in vain.
    let mut untold = false;
    loop {
        let again = if untold { LOOKS.last() } else { None };
        let next = match looks.next().or(again) {
            Some(wait) => changed.recv_timeout(*wait),
            None => changed.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match next {
            Ok(()) => {
                while changed.try_recv().is_ok() {}
                looks = LOOKS.iter();
                // The first look is now: a log that is written all the time must not put it off.
                looks.next();
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let Some(replica) = replica.upgrade() else { return };
        match storage.commits_by_others() {
            Ok(count) => {
                untold = count.is_none();
                if count.is_some() && count != seen {
                    seen = count;
                    replica.changed_elsewhere();
                }
            }
            Err(e) => tracing::warn!("looking for other processes' commits failed: {e}"),
        }
    }
}
