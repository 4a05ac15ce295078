//! The frontier as it is now, with what sums it up: of many peers that ask at a time one has it worked out, and all have the
//! one copy (I7).

use anabranch_core::error::Error;
use anabranch_core::frontier::Frontier;
use anabranch_core::id::DatabaseId;
use anabranch_core::riblt::Row;
use anabranch_core::view::View;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

/// A frontier and what sums it up.
#[derive(Debug)]
pub struct Summed {
    database: DatabaseId,
    /// The tips.
    pub frontier: Frontier,
    /// Their digest.
    pub digest: [u8; 32],
    row: OnceLock<Row>,
}

impl Summed {
    /// The row of the tips, worked out when first asked for.
    pub fn row(&self) -> &Row {
        self.row.get_or_init(|| self.frontier.row(&self.database))
    }
}

/// The one that was needed last, as long as a session needs it.
#[derive(Debug, Default)]
pub struct LastSummed(Mutex<Weak<Summed>>);

impl LastSummed {
    /// That of what is held now.
    pub(crate) fn of(&self, view: View<'_>) -> Result<Arc<Summed>, Error> {
        let digest = view.frontier_digest()?;
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(summed) = last.upgrade().filter(|summed| summed.digest == digest) {
            return Ok(summed);
        }
        let database = view.database()?.ok_or(Error::Empty)?;
        let (frontier, row) = (view.frontier()?, OnceLock::new());
        let summed = Arc::new(Summed { database, frontier, digest, row });
        *last = Arc::downgrade(&summed);
        Ok(summed)
    }
}
