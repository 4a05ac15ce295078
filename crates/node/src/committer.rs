//! Commits drafts of this device to one replica: a group is one transaction, one signature, one sync of the disk. Under
//! normal durability the signature follows in a transaction of its own that is fully durable, so that nothing is announced
//! before it is safe (I1).

use crate::device::Device;
use crate::error::NodeError;
use anabranch_core::author::{Author, Draft};
use anabranch_core::build;
use anabranch_core::entry::Entry;
use anabranch_core::error::Error;
use anabranch_core::id::DatabaseId;
use anabranch_core::ledger::{Ledger, Memory};
use anabranch_core::sabotage::{self, Bug};
use anabranch_core::storage::{Durability, Storage, StorageError, WriteTx};
use std::sync::{Arc, Mutex, PoisonError};

/// What came of one caller's drafts.
pub type Committed = Result<Vec<Option<Entry>>, Error>;

/// Where commits go and how safe they are.
#[derive(Clone)]
pub(crate) struct Committer {
    /// Which database it is, for the log.
    pub(crate) database: DatabaseId,
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) device: Device,
    pub(crate) durability: Durability,
    /// What building a stretch of cells may take.
    pub(crate) stretch: build::Budget,
    pub(crate) memory: LastKnown,
}

/// What the last transaction of a replica knew of its tables. Which one was last is told by the storage, not by who comes
/// here last.
#[derive(Clone, Default)]
pub(crate) struct LastKnown(Arc<Mutex<Option<Memory>>>);

impl LastKnown {
    fn take(&self) -> Option<Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn put(&self, memory: Option<Memory>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = memory;
    }
}

impl Committer {
    /// Commits what each of several callers drafted. Peers may be told at once under full durability, else after
    /// [`Self::sign`]. The outer error undoes the whole group; an inner one concerns one caller alone, and then the drafts
    /// of his before the one that failed are written.
    ///
    /// # Errors
    /// [`NodeError::Core`] of the storage.
    pub(crate) fn commit(&self, group: &[Vec<Draft>]) -> Result<Vec<Committed>, NodeError> {
        let database = self.database;
        let callers = group.len();
        let _within =
            tracing::debug_span!("commit", database = %database.short(), callers).entered();
        let sealed = self.durability == Durability::Full;
        self.write(self.durability, sealed, |ledger, author| {
            group.iter().map(|drafts| commit_all(ledger, author, drafts)).collect()
        })
    }

    /// As [`Self::commit`] for one caller under normal durability, if nothing has to be waited for: no other writer, no
    /// signature, which is synced, nothing to be built.
    ///
    /// # Errors
    /// As [`Self::commit`].
    pub(crate) fn commit_at_once(&self, drafts: &[Draft]) -> Result<Option<Committed>, NodeError> {
        let Some(tx) = self.storage.try_write()? else { return Ok(None) };
        let act = |ledger: &mut Ledger<'_>, author: &Author<'_>| commit_all(ledger, author, drafts);
        match self.write_in(tx, false, false, act) {
            Err(NodeError::Core(Error::Storage(StorageError::Building))) => Ok(None),
            committed => committed,
        }
    }

    /// Signs what normal durability left unsigned. Peers may be told after it.
    ///
    /// # Errors
    /// [`NodeError::Core`]; the entries stay here meanwhile.
    pub(crate) fn sign(&self) -> Result<(), NodeError> {
        let _within = tracing::debug_span!("sign", database = %self.database.short()).entered();
        if sabotage::is(Bug::ToldUnsynced) {
            return self.write(Durability::Normal, true, |_, _| Ok(()));
        }
        self.sealed(|_, _| Ok(()))
    }

    /// Runs `act` as the author of entries, in one fully durable transaction that also signs what was written.
    ///
    /// # Errors
    /// Whatever `act` returns or the storage reports; then nothing was written.
    pub(crate) fn sealed<T>(
        &self,
        act: impl Fn(&mut Ledger<'_>, &Author<'_>) -> Result<T, Error>,
    ) -> Result<T, NodeError> {
        self.write(Durability::Full, true, act)
    }

    fn write<T>(
        &self,
        durability: Durability,
        sealed: bool,
        act: impl Fn(&mut Ledger<'_>, &Author<'_>) -> Result<T, Error>,
    ) -> Result<T, NodeError> {
        self.when_built(|| {
            let told = sealed || durability == Durability::Full;
            match self.write_in(self.storage.write(durability)?, sealed, told, &act)? {
                Some(result) => Ok(result),
                // Much was written since the last signature, so another one was due in between.
                None => {
                    let tx = self.storage.write(Durability::Full)?;
                    let written = self.write_in(tx, true, true, &act)?;
                    written.ok_or_else(|| StorageError::Corrupt("a head".into()).into())
                }
            }
        })
    }

    /// `told`: whether the transaction may change what peers are told. One that may not and would is undone (I1): `None`.
    fn write_in<T>(
        &self,
        mut tx: Box<dyn WriteTx + '_>,
        sealed: bool,
        told: bool,
        act: impl Fn(&mut Ledger<'_>, &Author<'_>) -> Result<T, Error>,
    ) -> Result<Option<T>, NodeError> {
        let author = self.device.author(&*self.storage)?;
        let mut ledger = Ledger::resume(&mut *tx, self.memory.take())?;
        let result = act(&mut ledger, &author)?;
        if sealed {
            ledger.seal(&author)?;
        }
        let (changes, memory) = ledger.finish_and_keep(sealed)?;
        if changes.frontier && !told && !sabotage::is(Bug::ToldUnsynced) {
            return Ok(None);
        }
        tx.commit()?;
        self.memory.put(memory);
        Ok(Some(result))
    }

    /// Builds what a bulk load left to be built, as far as it has come.
    pub(crate) fn build(&self) -> Result<(), StorageError> {
        let _within = tracing::info_span!("build", database = %self.database.short()).entered();
        build::finish(&*self.storage, self.stretch)
    }

    /// Does what needs the cells; where they are still to be built, that is done first.
    pub(crate) fn when_built<T>(
        &self,
        act: impl Fn() -> Result<T, NodeError>,
    ) -> Result<T, NodeError> {
        loop {
            match act() {
                Err(NodeError::Core(Error::Storage(StorageError::Building))) => self.build()?,
                result => return result,
            }
        }
    }
}

/// An error of the storage undoes the group, any other one wrote nothing: size and permission are checked first.
fn commit_all(
    ledger: &mut Ledger<'_>,
    author: &Author<'_>,
    drafts: &[Draft],
) -> Result<Committed, Error> {
    let mut entries = Vec::with_capacity(drafts.len());
    for draft in drafts {
        match ledger.commit(author, draft) {
            Ok(entry) => entries.push(entry),
            // Nothing was written; others may not need a key.
            Err(e @ Error::Storage(StorageError::NoKey)) => return Ok(Err(e)),
            Err(Error::Storage(e)) => return Err(e.into()),
            Err(e) => return Ok(Err(e)),
        }
    }
    Ok(Ok(entries))
}
