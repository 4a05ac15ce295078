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
        !self.0.is_empty() && path.prefixes().any(|dir| self.0.contains(dir))
    }

    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many paths are held, what is below them not counted.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Those of the paths held that no other one covers, in order.
    pub fn outermost(&self) -> impl Iterator<Item = &RelPath> {
        let inside = |path: &RelPath| path.ancestors().any(|dir| self.0.contains(&dir));
        self.0.iter().filter(move |path| !inside(path))
    }

    /// The paths held, in order, without what is below them.
    pub fn paths(&self) -> impl Iterator<Item = &RelPath> {
        self.0.iter()
    }
}

impl FromIterator<RelPath> for Hold {
    fn from_iter<I: IntoIterator<Item = RelPath>>(paths: I) -> Self {
        Self(paths.into_iter().collect())
    }
}

impl IntoIterator for Hold {
    type Item = RelPath;
    type IntoIter = std::collections::btree_set::IntoIter<RelPath>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
