//! Noticing what other processes commit to a database file, at once and without polling: the write-ahead log beside the
//! file is watched, and a change there is looked up in the file.

use crate::error::NodeError;
use crate::replica::Replica;
use anabranch_store::SqliteStorage;
use notify::{RecursiveMode, Watcher};
use std::sync::{Arc, Weak};

/// Keeps noticing as long as it lives.
pub(crate) struct Notice {
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
    pub(crate) fn start(
        replica: &Arc<Replica>,
        storage: Arc<SqliteStorage>,
    ) -> Result<Self, NodeError> {
        let dir = storage.path().parent().map(std::path::Path::to_path_buf).unwrap_or_default();
        let wal = storage.wal_path().to_path_buf();
        let replica: Weak<Replica> = Arc::downgrade(replica);
        let failed = |e: notify::Error| NodeError::file(&dir, std::io::Error::other(e));
        let mut seen = storage.commits_by_others()?;
        let mut watcher =
            notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
                // An error may mean lost events, so look then as well.
                if event.as_ref().is_ok_and(|e| e.kind.is_access() || !e.paths.contains(&wal)) {
                    return;
                }
                let Some(replica) = replica.upgrade() else { return };
                match storage.commits_by_others() {
                    Ok(count) if count == seen => {}
                    Ok(count) => {
                        seen = count;
                        replica.changed();
                    }
                    Err(e) => tracing::warn!("looking for other processes' commits failed: {e}"),
                }
            })
            .map_err(failed)?;
        watcher.watch(&dir, RecursiveMode::NonRecursive).map_err(failed)?;
        Ok(Self { _watcher: watcher })
    }
}
