//! The keys that a replica can open payloads with.

use super::content::{self, ChunkError};
use super::{Bound, Key, KeyId, Scope, Sealed};
use crate::entry::StoreId;
use crate::error::corrupt;
use crate::id::{DatabaseId, LogId};
use crate::storage::{Order, ReadTx, StorageError, Table};
use crate::view::View;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// What rows of [`Table::Local`] begin with that hold a key in the clear: whoever has the file has what it opens as well.
pub(super) const HELD: &[u8] = b"seal/key/";

/// Opens payloads. By default of a database that is not sealed: there they are what they are.
#[derive(Debug, Clone, Default)]
pub struct Ring {
    /// `None`: nothing is sealed.
    sealed: Option<DatabaseId>,
    scope: Scope,
    keys: BTreeMap<KeyId, Key>,
}

impl Ring {
    /// Reads the keys. Cost: a look-up where the database is not sealed, else a row a key.
    pub(crate) fn load(tx: &dyn ReadTx) -> Result<Self, StorageError> {
        let scope = View::new(tx).sealed()?;
        if scope == Scope::Nothing {
            return Ok(Self::default());
        }
        let database = View::new(tx).database()?.ok_or_else(|| corrupt("the database id"))?;
        let mut ring = Self { sealed: Some(database), scope, keys: BTreeMap::new() };
        let mut damaged = false;
        tx.scan(Table::Local, HELD, None, Order::Ascending, &mut |key, row| {
            let Some(id) = key.strip_prefix(HELD) else { return ControlFlow::Break(()) };
            match (id.try_into(), row.try_into().map(Key::from_bytes)) {
                (Ok(id), Ok(key)) if key.id() == KeyId(id) => {
                    ring.keys.insert(KeyId(id), key);
                }
                _ => damaged = true,
            }
            ControlFlow::Continue(())
        })?;
        if damaged { Err(corrupt("a key of the sealed database")) } else { Ok(ring) }
    }

    /// Whether any of the database is sealed.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        self.sealed.is_some()
    }

    /// Whether payloads of this store are sealed.
    #[must_use]
    pub fn seals(&self, store: &StoreId) -> bool {
        self.scope.covers(store)
    }

    /// The key of that name, if it is held.
    #[must_use]
    pub fn key(&self, id: &KeyId) -> Option<&Key> {
        self.keys.get(id)
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = &KeyId> {
        self.keys.keys()
    }

    /// Adds a key; returns the row to be kept of it.
    pub(super) fn insert(&mut self, key: Key) -> (Vec<u8>, [u8; 32]) {
        let (row, bytes) = ([HELD, &key.id().0].concat(), key.0);
        self.keys.insert(key.id(), key);
        (row, bytes)
    }

    #[cfg(test)]
    pub(super) fn found(&mut self, database: DatabaseId) {
        self.found_with(database, Scope::Everything);
    }

    #[cfg(test)]
    pub(super) fn found_with(&mut self, database: DatabaseId, scope: Scope) {
        (self.sealed, self.scope) = (Some(database), scope);
    }

    /// The operations in a payload of an entry of `log`. What is no sealed payload, or not sealed for this place, holds none.
    ///
    /// # Errors
    /// The key that is needed and not held.
    pub fn open<'p>(
        &self,
        log: &LogId,
        store: &StoreId,
        payload: &'p [u8],
    ) -> Result<Cow<'p, [u8]>, KeyId> {
        let Some(database) = self.sealed.filter(|_| self.seals(store)) else {
            return Ok(Cow::Borrowed(payload));
        };
        let Ok(sealed) = Sealed::decode(payload) else { return Ok(Cow::Borrowed(&[])) };
        let key = self.keys.get(&sealed.key).ok_or(sealed.key)?;
        let bound = Bound { database, log, store };
        Ok(Cow::Owned(key.open_payload(&bound, payload).unwrap_or_default()))
    }

    /// The content in a chunk that `store` names, given the bytes that are kept of it and that have its name.
    ///
    /// # Errors
    /// [`ChunkError`]; never of a store that is not sealed.
    pub fn open_chunk<'c>(
        &self,
        store: &StoreId,
        chunk: &'c [u8],
    ) -> Result<Cow<'c, [u8]>, ChunkError> {
        if !self.seals(store) {
            return Ok(Cow::Borrowed(chunk));
        }
        let id = content::key_of(chunk).ok_or(ChunkError::Damaged)?;
        let key = self.keys.get(&id).ok_or(ChunkError::NoKey(id))?;
        content::open(key, chunk).map(Cow::Owned).ok_or(ChunkError::Damaged)
    }
}
