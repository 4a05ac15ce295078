//! The keys of a sealed database in a replica: which one content is sealed with, who is handed them, and when.

use crate::error::NodeError;
use crate::replica::Replica;
use anabranch_core::entry::StoreId;
use anabranch_core::error::Error;
use anabranch_core::key::DeviceKey;
use anabranch_core::ledger::Ledger;
use anabranch_core::ops::Role;
use anabranch_core::seal::{Key, Scope};
use anabranch_core::storage::{Durability, StorageError};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};

/// What a replica knows of its being sealed.
#[derive(Debug, Default)]
pub(crate) struct Sealing {
    /// What of the database is, once that is known.
    sealed: OnceLock<Scope>,
    /// Whether keys are to be handed out when all cells are built: 2 if this device let somebody in.
    hand_out_due: AtomicU8,
}

impl Replica {
    /// Whether any of the database is sealed. Cost: nothing once it holds an entry.
    ///
    /// # Errors
    /// Whatever the storage reports.
    pub fn is_sealed(&self) -> Result<bool, StorageError> {
        Ok(self.sealed()?.is_some_and(|sealed| *sealed != Scope::Nothing))
    }

    /// What of the database is sealed; `None` before its first entry is here. Cost: as [`Self::is_sealed`].
    ///
    /// # Errors
    /// Whatever the storage reports.
    pub fn sealed(&self) -> Result<Option<&Scope>, StorageError> {
        if let Some(known) = self.sealing.sealed.get() {
            return Ok(Some(known));
        }
        let (sealed, holds) =
            self.look(|view| Ok::<_, StorageError>((view.sealed()?, view.totals()?.entries > 0)))?;
        // Its first entry says so, and that never changes.
        Ok(holds.then(|| self.sealing.sealed.get_or_init(|| sealed)))
    }

    /// Uses the keys of a sealed database that were handed to `reader`, a key that is not this device's own. Blocking.
    pub(crate) fn unlock(&self, reader: &DeviceKey) -> Result<(), NodeError> {
        self.as_author(|ledger, _| Ok(ledger.unlock(reader)?))?;
        self.loaded();
        self.gather_recounted();
        Ok(())
    }

    /// What content that `store` names now would be sealed with: `None` where that is not sealed, and where a new key would be made first.
    /// Nothing is written. Blocking; cost: after a change of the membership a step a grant.
    ///
    /// # Errors
    /// What the storage reports.
    pub fn likely_content_key(&self, store: &StoreId) -> Result<Option<Key>, NodeError> {
        if !self.sealed()?.is_some_and(|sealed| sealed.covers(store)) {
            return Ok(None);
        }
        let known = self.look(|view| match view.sealing_key()? {
            Some(id) => view.key(&id),
            None => Ok(None),
        })?;
        if known.is_some() {
            return Ok(known);
        }
        let author = self.device().author(&**self.storage())?;
        let mut tx = self.storage().write(Durability::Normal)?;
        let found = Ledger::open(&mut *tx)?.likely_content_key(&author);
        // What it would hand out is not handed out by whoever writes nothing.
        drop(tx);
        Ok(found?)
    }

    /// What content that is put in now, to be named by `store`, is sealed with, if that is. Blocking.
    ///
    /// # Errors
    /// What committing reports: it may be a new key. Also before the database's first entry is here, which says whether it is
    /// sealed.
    pub fn content_key(&self, store: &StoreId) -> Result<Option<Key>, NodeError> {
        if !self.sealed()?.ok_or(Error::Empty)?.covers(store) {
            return Ok(None);
        }
        let key = self.as_author(|ledger, author| ledger.content_key(author))?;
        self.changed();
        Ok(key)
    }

    /// The membership changed: whoever may read a sealed database gets its key. Every admin sees to that, and a writer only if it
    /// let the new member in itself (`own`): else each of a thousand would hand out the same. Blocking.
    pub(crate) fn hand_out(&self, own: bool) {
        if self.unbuilt() > 0 {
            // In the middle of a bulk load who may read is not known yet.
            self.sealing.hand_out_due.fetch_max(1 + u8::from(own), Ordering::SeqCst);
            return;
        }
        let device = self.device().id();
        let due = self.look(|view| {
            let role = if view.is_sealed()? { view.role_of(&device)? } else { None };
            Ok::<_, StorageError>(role == Some(Role::Admin) || (own && role == Some(Role::Write)))
        });
        let done = due.map_err(NodeError::from).and_then(|due| match due {
            true => self.as_author(|ledger, author| ledger.hand_out(author)),
            false => Ok(()),
        });
        if let Err(e) = done {
            // Whoever writes next does it.
            tracing::warn!("the key of the sealed database could not be handed on yet: {e}");
        }
    }

    /// Hands keys out if that had to wait for cells.
    pub(crate) fn hand_out_if_due(&self) {
        match self.sealing.hand_out_due.swap(0, Ordering::SeqCst) {
            0 => {}
            due => self.hand_out(due > 1),
        }
    }
}
