//! What a write transaction has looked up and needs again for the next entry, or the next transaction
//! ([`crate::ledger::Memory`]): grants, who writes with which, where our
//! own log stands, which tips nothing builds on. It only saves look-ups: every answer is what the tables would give, since
//! nobody else writes meanwhile and each write here goes through this module (I2).

use crate::entry::GrantRef;
use crate::id::NodeId;
use crate::ledger::{Ledger, as_read};
use crate::membership;
use crate::ops::Role;
use crate::rows::{BranchNo, GrantNo, GrantRow, META_OWN, Own, Row, key32};
use crate::storage::{StorageError, Table};
use std::collections::{BTreeMap, BTreeSet};

/// At most one item for each entry, grant and log that the transaction touches.
#[derive(Default)]
pub(crate) struct Known {
    /// What grants are called here: that never changes.
    names: BTreeMap<GrantRef, GrantNo>,
    /// Changed through [`Ledger::put_grant`] alone.
    grants: BTreeMap<GrantNo, GrantRow>,
    /// A device and the best grant it has, until another grant is made.
    strongest: Option<(NodeId, Option<GrantRow>)>,
    /// Our own log's record, and whether the table has an older one.
    own: Option<Option<Own>>,
    own_changed: bool,
    /// Whether a branch is in the table of uncovered ones, as far as was written here.
    written: BTreeMap<BranchNo, bool>,
    /// All of that table.
    uncovered: Option<BTreeSet<BranchNo>>,
}

impl Known {
    /// How many rows it holds, of the kind of which it holds most.
    pub(crate) fn rows(&self) -> usize {
        let uncovered = self.uncovered.as_ref().map_or(0, BTreeSet::len);
        self.grants.len().max(self.written.len()).max(uncovered)
    }
}

impl Ledger<'_> {
    /// The grant of that name and its number, if it is held.
    pub(crate) fn grant(
        &mut self,
        name: &GrantRef,
    ) -> Result<Option<(GrantNo, GrantRow)>, StorageError> {
        let number = match self.known.names.get(name) {
            Some(&number) => number,
            None => {
                let Some(number) = membership::number_of(as_read(self.tx), name)? else {
                    return Ok(None);
                };
                self.known.names.insert(*name, number);
                number
            }
        };
        Ok(Some((number, self.grant_row(number)?)))
    }

    /// The grant of that number.
    pub(crate) fn grant_row(&mut self, number: GrantNo) -> Result<GrantRow, StorageError> {
        if let Some(row) = self.known.grants.get(&number) {
            return Ok(row.clone());
        }
        let row = self.view().grant(number)?;
        self.known.grants.insert(number, row.clone());
        Ok(row)
    }

    /// A grant stands differently now.
    pub(crate) fn put_grant(&mut self, number: GrantNo, row: GrantRow) -> Result<(), StorageError> {
        row.put(self.tx, &key32(number))?;
        self.known.grants.insert(number, row);
        self.forget_strongest();
        Ok(())
    }

    /// The grant that `device` writes with.
    pub(crate) fn writing_grant(
        &mut self,
        device: &NodeId,
        needed: Role,
    ) -> Result<Option<GrantRow>, StorageError> {
        let grant = match &self.known.strongest {
            Some((known, grant)) if known == device => grant.clone(),
            _ => {
                let grant = self.view().strongest(device)?;
                self.known.strongest = Some((*device, grant.clone()));
                grant
            }
        };
        Ok(grant.filter(|g| g.role >= needed))
    }

    /// A grant was made or stands differently.
    pub(crate) fn forget_strongest(&mut self) {
        self.known.strongest = None;
    }

    /// What this replica knows of the log it writes.
    pub(crate) fn own(&mut self) -> Result<Option<Own>, StorageError> {
        if let Some(own) = &self.known.own {
            return Ok(own.clone());
        }
        let own = self.view().own()?;
        self.known.own = Some(own.clone());
        Ok(own)
    }

    /// Changes it; the table follows with [`Ledger::flush`].
    pub(crate) fn set_own(&mut self, own: Own) {
        self.known.own = Some(Some(own));
        self.known.own_changed = true;
    }

    pub(crate) fn flush_own(&mut self) -> Result<(), StorageError> {
        if let Some(Some(own)) = self.known.own.as_ref().filter(|_| self.known.own_changed) {
            own.put(self.tx, META_OWN)?;
            self.known.own_changed = false;
        }
        Ok(())
    }

    /// Notes whether something builds on the tip of `branch`.
    pub(crate) fn set_uncovered(
        &mut self,
        branch: BranchNo,
        uncovered: bool,
    ) -> Result<(), StorageError> {
        if self.known.written.insert(branch, uncovered) == Some(uncovered) {
            return Ok(());
        }
        if uncovered {
            self.tx.put(Table::Uncovered, &key32(branch), &[])?;
        } else {
            self.tx.delete(Table::Uncovered, &key32(branch))?;
        }
        if let Some(all) = &mut self.known.uncovered {
            if uncovered {
                all.insert(branch);
            } else {
                all.remove(&branch);
            }
        }
        Ok(())
    }

    /// Branches whose tip nothing builds on, ascending.
    pub(crate) fn uncovered(&mut self) -> Result<Vec<BranchNo>, StorageError> {
        if let Some(all) = &self.known.uncovered {
            return Ok(all.iter().copied().collect());
        }
        let all = self.view().uncovered()?;
        self.known.uncovered = Some(all.iter().copied().collect());
        Ok(all)
    }
}
