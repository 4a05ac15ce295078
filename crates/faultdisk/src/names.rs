//! Which names there are, which of them are safe, and the changes since their directories were synced.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::random::Random;

/// A file of a disk, whatever its name; never given twice.
pub(crate) type FileId = u64;

pub(crate) type Table = BTreeMap<PathBuf, FileId>;

#[derive(Debug, Clone)]
enum Change {
    Link(PathBuf, FileId),
    Unlink(PathBuf),
}

impl Change {
    fn path(&self) -> &Path {
        match self {
            Self::Link(path, _) | Self::Unlink(path) => path,
        }
    }

    fn apply(self, table: &mut Table) {
        match self {
            Self::Link(path, file) => drop(table.insert(path, file)),
            Self::Unlink(path) => drop(table.remove(&path)),
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Names {
    now: Table,
    durable: Table,
    unsynced: Vec<Change>,
}

impl Names {
    pub(crate) fn get(&self, path: &Path) -> Option<FileId> {
        self.now.get(path).copied()
    }

    pub(crate) fn now(&self) -> &Table {
        &self.now
    }

    pub(crate) fn durable(&self) -> &Table {
        &self.durable
    }

    /// Every name that is, or was before the changes that are not safe yet; some of them twice.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &Path> {
        let tables = self.now.keys().chain(self.durable.keys()).map(PathBuf::as_path);
        tables.chain(self.unsynced.iter().map(Change::path))
    }

    /// A name that was there before anybody looked: it is safe.
    pub(crate) fn adopt(&mut self, path: &Path, file: FileId) {
        self.forget(path);
        self.now.insert(path.to_owned(), file);
        self.durable.insert(path.to_owned(), file);
    }

    pub(crate) fn link(&mut self, path: &Path, file: FileId) {
        self.now.insert(path.to_owned(), file);
        self.unsynced.push(Change::Link(path.to_owned(), file));
    }

    pub(crate) fn unlink(&mut self, path: &Path) -> Option<FileId> {
        let file = self.now.remove(path)?;
        self.unsynced.push(Change::Unlink(path.to_owned()));
        Some(file)
    }

    /// Somebody else has done something with this name.
    pub(crate) fn forget(&mut self, path: &Path) {
        self.now.remove(path);
        self.durable.remove(path);
        self.unsynced.retain(|change| change.path() != path);
    }

    pub(crate) fn sync(&mut self, directory: &Path) {
        let (synced, unsynced) = std::mem::take(&mut self.unsynced)
            .into_iter()
            .partition(|change| change.path().parent() == Some(directory));
        self.unsynced = unsynced;
        for change in synced {
            change.apply(&mut self.durable);
        }
    }

    /// Whether any name leads, or may lead again, to the file.
    pub(crate) fn holds(&self, file: FileId) -> bool {
        let unsynced =
            |change: &Change| matches!(change, Change::Link(_, linked) if *linked == file);
        self.now.values().chain(self.durable.values()).any(|linked| *linked == file)
            || self.unsynced.iter().any(unsynced)
    }

    /// The names found when the power is back: file systems keep the order of such changes.
    pub(crate) fn after_power_loss(&self, random: &mut Random) -> Table {
        let kept = random.below(self.unsynced.len() + 1);
        let mut table = self.durable.clone();
        for change in self.unsynced.iter().take(kept).cloned() {
            change.apply(&mut table);
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcomes(names: &Names) -> Vec<Vec<(String, FileId)>> {
        let mut found: Vec<Vec<_>> = (0..60)
            .map(|seed| {
                let table = names.after_power_loss(&mut Random::new(seed));
                table.into_iter().map(|(path, file)| (path.display().to_string(), file)).collect()
            })
            .collect();
        found.sort();
        found.dedup();
        found
    }

    #[test]
    fn changes_survive_in_their_order() {
        let mut names = Names::default();
        names.adopt(Path::new("/d/log"), 1);
        assert_eq!(names.unlink(Path::new("/d/log")), Some(1));
        names.link(Path::new("/d/log"), 2);
        let log = |file| vec![("/d/log".to_owned(), file)];
        assert_eq!(outcomes(&names), [vec![], log(1), log(2)]);
        assert!(names.holds(1) && names.holds(2) && !names.holds(3));
    }

    #[test]
    fn syncing_a_directory_leaves_others() {
        let mut names = Names::default();
        names.link(Path::new("/d/a"), 1);
        names.link(Path::new("/e/b"), 2);
        names.sync(Path::new("/d"));
        let (a, b) = (("/d/a".to_owned(), 1), ("/e/b".to_owned(), 2));
        assert_eq!(outcomes(&names), [vec![a.clone()], vec![a, b]]);
    }

    #[test]
    fn a_forgotten_name_leaves_nothing() {
        let mut names = Names::default();
        names.link(Path::new("/d/a"), 1);
        names.forget(Path::new("/d/a"));
        assert_eq!(outcomes(&names), [vec![]]);
        assert_eq!((names.get(Path::new("/d/a")), names.holds(1)), (None, false));
    }
}
