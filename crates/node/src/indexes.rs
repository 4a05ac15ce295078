//! Indexes of a replica: declared, built and searched. Whoever searches an index that is being built builds on, as with the
//! cells of a bulk load, so that a process that died in the middle leaves nothing to be done by hand.

use crate::error::NodeError;
use crate::replica::Replica;
use anabranch_core::entry::StoreId;
use anabranch_core::index;
use anabranch_core::storage::{Durability, StorageError};
use anabranch_core::view::View;

impl Replica {
    /// Declares an index over `field` of the table `store` and builds it. False when there is one. It is this replica's
    /// own: peers hear nothing of it. Blocking; writers come in between.
    ///
    /// # Errors
    /// [`NodeError::Core`]; an index that was declared stays and is built by whoever searches it.
    pub fn index(&self, store: &StoreId, field: &str) -> Result<bool, NodeError> {
        let database = self.database().short();
        let _within = tracing::info_span!("index", database, %store, field).entered();
        let mut tx = self.storage().write(Durability::Full)?;
        let new = index::declare(&mut *tx, store, field)?;
        tx.commit()?;
        tracing::debug!(new, "the index is declared");
        index::finish(&**self.storage())?;
        Ok(new)
    }

    /// Removes an index. False when there is none. Blocking.
    ///
    /// # Errors
    /// [`NodeError::Core`]; what is left of an index that was taken back is removed with the next change of indexes.
    pub fn unindex(&self, store: &StoreId, field: &str) -> Result<bool, NodeError> {
        let mut tx = self.storage().write(Durability::Full)?;
        let known = index::withdraw(&mut *tx, store, field)?;
        tx.commit()?;
        index::finish(&**self.storage())?;
        Ok(known)
    }

    /// As [`Self::read_store`], for who searches the index over `field` of `store`: if it is being built, that is finished first.
    /// Blocking.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_indexed<T, E: From<StorageError>>(
        &self,
        store: &StoreId,
        field: &str,
        look: impl FnOnce(View<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        self.require_key(|sealed| sealed.covers(store))?;
        loop {
            {
                let tx = self.storage().read()?;
                let view = View::new(&*tx);
                if view.building()?.is_none() && view.is_indexed(store, field)? {
                    return look(view);
                }
            }
            self.build()?;
            index::finish(&**self.storage())?;
        }
    }
}
