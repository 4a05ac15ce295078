//! The order of a scan: paths by their bytes, with one open listing for each directory on the way down.

use super::{Problem, ScanWatch, Trouble};
use crate::dirty::Dirty;
use crate::fs::{DirEntry, FileSystem, Kind, Stat, is_absent};
use crate::path::{MAX_SHARED_PATH, RelPath, STATE_DIR};
use std::io;

/// Something on the disk.
pub(super) struct Found {
    pub(super) path: RelPath,
    pub(super) stat: Stat,
}

/// Walks a folder. `listings` holds, for each directory being walked, what is still to come of it, the next one last.
pub(super) struct Walk<'a> {
    fs: &'a dyn FileSystem,
    dirty: &'a Dirty,
    listings: Option<Vec<Vec<Item>>>,
}

/// A directory is listed twice: under its name, where it is told, and under its name with `/`, where its contents belong
/// among its siblings (`a`, `a.txt`, `a/b`).
enum Item {
    Tell { key: Vec<u8>, path: RelPath, stat: io::Result<Stat> },
    Enter { key: Vec<u8>, path: RelPath },
}

impl Item {
    fn key(&self) -> &[u8] {
        match self {
            Self::Tell { key, .. } | Self::Enter { key, .. } => key,
        }
    }
}

impl<'a> Walk<'a> {
    pub(super) fn new(fs: &'a dyn FileSystem, dirty: &'a Dirty) -> Self {
        Self { fs, dirty, listings: None }
    }

    /// The next thing, or what keeps it from being known. An error is the root's. `watch` hears of each directory before it is
    /// listed.
    pub(super) fn step(
        &mut self,
        watch: &mut dyn ScanWatch,
    ) -> io::Result<Option<Result<Found, Problem>>> {
        if self.listings.is_none() {
            self.listings = Some(vec![self.first(watch)?]);
        }
        let listings = self.listings.get_or_insert_default();
        while let Some(listing) = listings.last_mut() {
            match listing.pop() {
                None => {
                    listings.pop();
                }
                Some(Item::Tell { path, stat, .. }) => return Ok(Some(tell(path, stat))),
                Some(Item::Enter { path, .. }) => {
                    watch.entering(Some(&path));
                    match self.fs.read_dir(Some(&path)) {
                        Ok(entries) => listings.push(list(Some(&path), entries)),
                        Err(error) => return Ok(Some(Err(Problem { path, what: error.into() }))),
                    }
                }
            }
        }
        Ok(None)
    }

    /// Where the walk begins: with what is in the root, or with the paths that may have changed.
    fn first(&self, watch: &mut dyn ScanWatch) -> io::Result<Vec<Item>> {
        let Dirty::Below(paths) = self.dirty else {
            watch.entering(None);
            return Ok(list(None, self.fs.read_dir(None)?));
        };
        let mut items = Vec::new();
        for path in paths.outermost().filter(|path| !path.is_reserved()) {
            let stat = self.fs.lstat(path);
            if stat.is_err() && is_absent(self.fs, path) {
                continue;
            }
            push(&mut items, path.as_bytes(), path.clone(), stat);
        }
        items.sort_unstable_by(|a, b| b.key().cmp(a.key()));
        Ok(items)
    }
}

fn tell(path: RelPath, stat: io::Result<Stat>) -> Result<Found, Problem> {
    let what = match stat {
        Err(error) => Trouble::Io(error),
        Ok(_) if path.is_reserved() => Trouble::Reserved,
        Ok(_) if path.as_bytes().len() > MAX_SHARED_PATH => Trouble::PathTooLong,
        Ok(Stat { kind: Kind::Other, .. }) => Trouble::Special,
        Ok(stat) => return Ok(Found { path, stat }),
    };
    Err(Problem { path, what })
}

/// What there is to do for the names in a directory, the first one last.
fn list(dir: Option<&RelPath>, entries: Vec<DirEntry>) -> Vec<Item> {
    let mut items = Vec::with_capacity(entries.len());
    for DirEntry { name, stat } in entries {
        if dir.is_none() && name == STATE_DIR {
            continue;
        }
        // Only a file system with impossible names gets past this: directories are entered while there is room for one more.
        let Ok(path) = RelPath::in_dir(dir, &name) else { continue };
        push(&mut items, &name, path, stat);
    }
    items.sort_unstable_by(|a, b| b.key().cmp(a.key()));
    items
}

fn push(items: &mut Vec<Item>, key: &[u8], path: RelPath, stat: io::Result<Stat>) {
    let syncable = path.as_bytes().len() <= MAX_SHARED_PATH && !path.is_reserved();
    if syncable && matches!(stat, Ok(Stat { kind: Kind::Dir, .. })) {
        items.push(Item::Enter { key: [key, b"/"].concat(), path: path.clone() });
    }
    items.push(Item::Tell { key: key.to_vec(), path, stat });
}
