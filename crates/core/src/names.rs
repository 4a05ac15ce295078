//! What the numbers in stored entries stand for: logs, grants and stores, each looked up once for all entries that are put
//! together in a row. None of them ever changes.

use crate::entry::{GrantRef, StoreId};
use crate::error::corrupt;
use crate::id::{DatabaseId, LogId};
use crate::rows::{BranchNo, GrantNo, StoreNo};
use crate::storage::StorageError;
use crate::view::View;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry::{Occupied, Vacant};

/// The names met so far. At most one for each number that the entries use.
pub(crate) struct Names<'t> {
    view: View<'t>,
    pub(crate) database: DatabaseId,
    logs: BTreeMap<BranchNo, LogId>,
    grants: BTreeMap<GrantNo, GrantRef>,
    stores: BTreeMap<StoreNo, StoreId>,
}

impl<'t> Names<'t> {
    pub(crate) fn new(view: View<'t>) -> Result<Self, StorageError> {
        Ok(Self {
            view,
            database: view.database()?.ok_or_else(|| corrupt("the database id"))?,
            logs: BTreeMap::new(),
            grants: BTreeMap::new(),
            stores: BTreeMap::new(),
        })
    }

    pub(crate) fn log(&mut self, number: BranchNo) -> Result<LogId, StorageError> {
        match self.logs.entry(number) {
            Occupied(known) => Ok(*known.get()),
            Vacant(new) => Ok(*new.insert(self.view.branch(number)?.log)),
        }
    }

    pub(crate) fn grant(&mut self, number: GrantNo) -> Result<GrantRef, StorageError> {
        match self.grants.entry(number) {
            Occupied(known) => Ok(*known.get()),
            Vacant(new) => {
                let grant = self.view.grant(number)?;
                Ok(*new.insert(GrantRef { entry: grant.entry, index: grant.index }))
            }
        }
    }

    pub(crate) fn store(&mut self, number: StoreNo) -> Result<&StoreId, StorageError> {
        match self.stores.entry(number) {
            Occupied(known) => Ok(known.into_mut()),
            Vacant(new) => Ok(new.insert(self.view.store_row(number)?.id)),
        }
    }
}
