//! Where a folder differs from its base, without reading any file: most often nowhere.

use super::walk::{Found, Walk};
use super::{Progress, Row, ScanError, ScanWatch, same_kind};
use crate::base::{Base, Seen};
use crate::dirty::Dirty;
use crate::fs::{Clock, FileSystem, Kind};
use crate::sorted::Sorted;

/// What of the folder `fs` does not certainly look as `base` says, whose rows come in the order of their paths. Cost: a row and a stat for each path. Ends early where there is very much.
///
/// # Errors
/// [`ScanError`].
pub fn look<E>(
    fs: &dyn FileSystem,
    clock: &dyn Clock,
    watch: &mut dyn ScanWatch,
    base: impl Iterator<Item = Row<E>>,
) -> Result<Dirty, ScanError<E>> {
    let (mut dirty, mut progress) = (Dirty::default(), Progress::default());
    let mut walk = Walk::new(fs, &Dirty::Everything);
    let mut base = Sorted::new(base);
    while let Some(found) = walk.step(watch).map_err(ScanError::Root)? {
        let Found { path, stat } = match found {
            Ok(found) => found,
            Err(problem) => {
                dirty.add(problem.path);
                continue;
            }
        };
        while let Some(gone) = base.peek().map_err(ScanError::Base)?.filter(|row| **row < path) {
            let gone = gone.clone();
            base.take(&gone).map_err(ScanError::Base)?;
            dirty.add(gone);
        }
        let row = base.take(&path).map_err(ScanError::Base)?;
        if stat.kind == Kind::File {
            progress.files += 1;
            progress.bytes += stat.size;
        }
        watch.progress(&progress);
        let same = |base: Base| {
            base.seen.settled
                && same_kind(&base.state, stat.kind)
                && base.seen.looks_like(&Seen::new(&stat, clock.now_ns()))
        };
        if !row.is_some_and(same) {
            dirty.add(path);
        }
        if dirty == Dirty::Everything {
            return Ok(dirty);
        }
    }
    while let Some(gone) = base.peek().map_err(ScanError::Base)?.cloned() {
        base.take(&gone).map_err(ScanError::Base)?;
        dirty.add(gone);
    }
    Ok(dirty)
}
