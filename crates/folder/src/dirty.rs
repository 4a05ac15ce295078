//! Which part of a folder has to be looked at.

use crate::hold::Hold;
use crate::path::RelPath;

/// Paths that are known one by one; of more the whole folder is looked at.
const MOST: usize = 4096;

/// What may have changed on the disk since it was last looked at. A path stands for itself and everything below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dirty {
    /// Anything.
    Everything,
    /// These paths, and nothing else. At most 4,096.
    Below(Hold),
}

impl Default for Dirty {
    fn default() -> Self {
        Self::Below(Hold::new())
    }
}

impl Dirty {
    /// Whether nothing has to be looked at.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Below(paths) if paths.is_empty())
    }

    /// Whether `path` has to be looked at. Cost: one look-up for each of its segments.
    #[must_use]
    pub fn covers(&self, path: &RelPath) -> bool {
        match self {
            Self::Everything => true,
            Self::Below(paths) => paths.covers(path),
        }
    }

    /// Adds `path` and everything below it.
    pub fn add(&mut self, path: RelPath) {
        if let Self::Below(paths) = self
            && !paths.covers(&path)
        {
            paths.add(path);
            if paths.len() > MOST {
                *self = Self::Everything;
            }
        }
    }

    /// Adds what `other` says.
    pub fn join(&mut self, other: Self) {
        match other {
            Self::Everything => *self = Self::Everything,
            Self::Below(paths) => paths.into_iter().for_each(|path| self.add(path)),
        }
    }
}

impl FromIterator<RelPath> for Dirty {
    fn from_iter<I: IntoIterator<Item = RelPath>>(paths: I) -> Self {
        let mut dirty = Self::default();
        paths.into_iter().for_each(|path| dirty.add(path));
        dirty
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::new(text).unwrap()
    }

    #[test]
    fn a_path_stands_for_what_is_below_it() {
        let mut dirty: Dirty = ["a", "b/c"].map(path).into_iter().collect();
        for (at, expected) in
            [("a", true), ("a/x/y", true), ("a.txt", false), ("b", false), ("b/c/d", true)]
        {
            assert_eq!(dirty.covers(&path(at)), expected, "{at}");
        }
        dirty.add(path("a/x"));
        assert!(matches!(&dirty, Dirty::Below(paths) if paths.len() == 2));
        dirty.join(Dirty::Everything);
        assert!(dirty.covers(&path("b")));
    }

    #[test]
    fn of_very_many_paths_only_that_is_kept() {
        let mut dirty: Dirty = (0..MOST).map(|n| path(&n.to_string())).collect();
        assert!(!dirty.covers(&path("other")) && !dirty.is_empty());
        dirty.add(path("other"));
        assert_eq!(dirty, Dirty::Everything);
    }
}
