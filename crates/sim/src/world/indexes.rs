//! Indexes of the nodes: declared, built by halves, taken back.

use super::World;
use crate::check::Violation;
use crate::plan::Tending;
use crate::workload::{column, table};
use anabranch_core::error::Error;
use anabranch_core::index;
use anabranch_core::storage::{Durability, Storage};

impl World<'_> {
    pub(super) fn tend(&mut self, node: usize, what: &Tending) -> Result<(), Violation> {
        let Some(replica) = self.nodes[node].replica.clone() else {
            self.stats.refused += 1;
            return Ok(());
        };
        let done = carry_out(&**replica.storage(), what);
        let line = format!("{what}: {done:?}");
        self.note("index", node, line.as_bytes(), || line.clone());
        self.settle_node(node)
    }
}

/// Whether there was something to be done. A disk that fails has its reasons.
fn carry_out(storage: &dyn Storage, what: &Tending) -> Result<bool, Error> {
    match *what {
        Tending::Build { budget } => Ok(index::step(storage, budget as usize)?),
        Tending::Declare { table: t, column: c } => {
            let mut tx = storage.write(Durability::Full)?;
            let new = index::declare(&mut *tx, &table(t), &column(c))?;
            tx.commit()?;
            Ok(new)
        }
        Tending::Withdraw { table: t, column: c } => {
            let mut tx = storage.write(Durability::Full)?;
            let known = index::withdraw(&mut *tx, &table(t), &column(c))?;
            tx.commit()?;
            Ok(known)
        }
    }
}
