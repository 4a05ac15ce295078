//! Counters: numbers that devices add to. What each adds is kept apart from what others add, so that nothing is lost and
//! nothing conflicts; the sum is what is shown.

use crate::{Database, Error};
use anabranch_core::author::{Draft, Step, Tally};
use anabranch_core::entry::StoreId;
use anabranch_core::path::{Path, Segment};
use std::ops::ControlFlow;

/// A store of counters, each at a path.
#[derive(Debug, Clone)]
pub struct Counter {
    pub(crate) db: Database,
    pub(crate) store: StoreId,
}

pub(crate) fn tally(store: &StoreId, path: &[&str], step: Step) -> Result<Tally, Error> {
    Ok(Tally::new(store.clone(), Path::text(path)?, step))
}

impl Counter {
    pub(crate) fn new(db: Database, name: &str) -> Self {
        Self { db, store: StoreId::counter(name) }
    }

    /// Adds to what is at `path`; a negative number takes away.
    ///
    /// # Errors
    /// What committing reports.
    pub async fn add(&self, path: &[&str], delta: i64) -> Result<(), Error> {
        self.commit(tally(&self.store, path, Step::Add(delta))?).await
    }

    /// Brings what is at `path` to 0. What others add without having seen this stays; if another device resets it at the
    /// same time, what both saw is taken away twice.
    ///
    /// # Errors
    /// What committing reports.
    pub async fn reset(&self, path: &[&str]) -> Result<(), Error> {
        self.commit(tally(&self.store, path, Step::Reset)?).await
    }

    /// As [`Self::reset`] for who has read `seen` and decided on that: what was added meanwhile, here as well, stays.
    ///
    /// # Errors
    /// What committing reports.
    pub async fn reset_from(&self, path: &[&str], seen: i128) -> Result<(), Error> {
        self.commit(tally(&self.store, path, Step::ResetFrom(seen))?).await
    }

    async fn commit(&self, tally: Tally) -> Result<(), Error> {
        self.db.commit(Draft { tallies: vec![tally], ..Draft::default() }).await
    }

    /// The sum at `path`; 0 where nobody has counted. Sums go round at 2¹²⁷, which honest writers never reach.
    ///
    /// # Errors
    /// What storage reports.
    pub fn get(&self, path: &[&str]) -> Result<i128, Error> {
        let path = Path::text(path)?;
        Ok(self.db.replica().read_store(&self.store, |view| view.sum(&self.store, &path))?)
    }

    /// Calls `visit` with each path at or below `prefix` whose sum is not 0, by path, until it breaks. The empty prefix is
    /// the whole store.
    ///
    /// # Errors
    /// What storage reports.
    pub fn each(
        &self,
        prefix: &[&str],
        visit: &mut dyn FnMut(Vec<String>, i128) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let prefix = Path::text(prefix)?;
        self.db.replica().read_store(&self.store, |view| {
            view.scan_sums(&self.store, &prefix, None, &mut |path, sum| {
                let segments = path.segments().into_iter().map(|segment| match segment {
                    Segment::Text(text) => Some(text),
                    _ => None,
                });
                match segments.collect::<Option<Vec<_>>>() {
                    Some(path) => visit(path, sum),
                    None => ControlFlow::Continue(()),
                }
            })
        })?;
        Ok(())
    }
}
