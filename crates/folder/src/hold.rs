//! Paths that must be left alone in this run, because what is there is not known.

use crate::path::RelPath;
use std::collections::BTreeSet;

/// A set of paths, each standing for itself and everything below it. What could not be read must not look deleted, nor be
/// replaced or removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hold(BTreeSet<RelPath>);

impl Hold {
    /// Holds nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Holds `path`, and what is below it.
    pub fn add(&mut self, path: RelPath) {
        self.0.insert(path);
    }

    /// Whether `path` is to be left alone.
    #[must_use]
    pub fn covers(&self, path: &RelPath) -> bool {
        !self.0.is_empty()
            && (self.0.contains(path) || path.ancestors().any(|dir| self.0.contains(&dir)))
    }

    /// The paths held, without what is below them.
    pub fn paths(&self) -> impl Iterator<Item = &RelPath> {
        self.0.iter()
    }
}

impl FromIterator<RelPath> for Hold {
    fn from_iter<I: IntoIterator<Item = RelPath>>(paths: I) -> Self {
        Self(paths.into_iter().collect())
    }
}
