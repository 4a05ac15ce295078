//! A doorbell for sessions: names of databases that changed, gathered until somebody looks. Ringing never blocks and
//! never loses a name (a lost one would be a commit that no peer hears of).

use anabranch_core::id::DatabaseId;
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use tokio::sync::Notify;

/// What one session waits on.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    changed: Mutex<BTreeSet<DatabaseId>>,
    notify: Notify,
}

impl Signal {
    pub(crate) fn ring(&self, database: DatabaseId) {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner).insert(database);
        self.notify.notify_one();
    }

    /// Takes every name rung since the last time.
    pub(crate) fn take(&self) -> BTreeSet<DatabaseId> {
        std::mem::take(&mut *self.changed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits for a ring and takes every name. Dropping the future loses nothing.
    pub(crate) async fn wait(&self) -> BTreeSet<DatabaseId> {
        loop {
            let names = self.take();
            if !names.is_empty() {
                return names;
            }
            self.notify.notified().await;
        }
    }
}
