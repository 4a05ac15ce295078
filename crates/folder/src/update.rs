//! One update of a folder: record what the user did, plan, fetch what is lacking, apply. Repeating it is always safe; a
//! crash anywhere is made good by the next one.

use crate::apply::{Applied, Failed, Failure, apply, clear_temp, missing};
use crate::base::Base;
use crate::content::Content;
use crate::dirty::Dirty;
use crate::error::FolderError;
use crate::fs::{Clock, FileSystem};
use crate::hold::Hold;
use crate::intent;
use crate::kept::Found;
use crate::path::RelPath;
use crate::plan::{Action, Plan, PutOff, SeenCopies, Shape, Targets, plan_actions};
use crate::record::{look_at_all, record};
use crate::scan::{Problem, Progress};
use crate::tables::{
    BaseRows, IndexAt, Stand, There, base_row, in_step, set_base, set_in_step, store,
};
use anabranch_core::blob::ChunkHash;
use anabranch_core::ops::Role;
use anabranch_core::storage::{Durability, StorageError};
use anabranch_core::view::View;
use anabranch_node::Replica;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Bytes of files whose content is gathered before they are written: bounds what is stored twice for a moment. One
/// larger file is gathered alone.
const SLICE_BYTES: u64 = 64 * 1024 * 1024;
/// Actions carried out between two rows of the base.
const SLICE_ACTIONS: usize = 2_000;
/// Blobs asked for at once.
const WANTS: usize = 512;
/// How often paths that changed meanwhile are looked at again.
const ROUNDS: usize = 3;

/// What an update did, path by path where people want to know.
#[derive(Debug, Default)]
pub struct Updated {
    /// Paths whose changes here were committed.
    pub recorded: Vec<RelPath>,
    /// Paths changed here that this device may only read: the changes stay here and are not sent.
    pub refused: Vec<RelPath>,
    /// Paths changed on this disk, each with what was done: `create`, `update`, `rename` or `delete`.
    pub applied: Vec<(&'static str, RelPath)>,
    /// Bytes written to this disk.
    pub bytes_written: u64,
    /// What could not be read.
    pub problems: Vec<Problem>,
    /// What could not be written.
    pub failed: Vec<Failure>,
    /// Paths left alone because a later version of the program wrote them.
    pub unread: Vec<RelPath>,
    /// Paths that wait for something.
    pub put_off: Vec<PutOff>,
    /// What the next update has to look at whatever changes until then.
    pub dirty: Dirty,
    /// Whether it ended before it was done, since something else is to be done first.
    pub broken_off: bool,
}

impl Updated {
    /// Whether something is not as it should be yet.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        self.broken_off
            || !(self.failed.is_empty()
                && self.put_off.is_empty()
                && self.problems.is_empty()
                && self.refused.is_empty()
                && self.unread.is_empty())
    }

    fn merge(&mut self, later: Self) {
        self.recorded.extend(later.recorded);
        self.applied.extend(later.applied);
        self.bytes_written += later.bytes_written;
        // Of what went wrong only the last word counts.
        self.refused = later.refused;
        self.problems = later.problems;
        self.unread = later.unread;
        self.failed = later.failed;
        self.put_off = later.put_off;
        self.dirty = later.dirty;
        self.broken_off = later.broken_off;
    }
}

/// Waits for blobs.
pub trait Fetch {
    /// Asks for them until they are here or cannot be had.
    fn fetch(&mut self, hashes: BTreeSet<ChunkHash>) -> Fetched;
}

/// What came of waiting for blobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fetched {
    /// Some came.
    Some,
    /// None did: what needs them is put off and reported as missing.
    Nothing,
    /// They are on their way, and something else is to be done first: the update ends here, to be repeated.
    Later,
}

/// What an update works with. One at a time may work on a folder.
pub struct Site<'a> {
    /// The folder's replica.
    pub replica: &'a Arc<Replica>,
    /// Its files.
    pub fs: &'a dyn FileSystem,
    /// The clock that its file times come from.
    pub clock: &'a dyn Clock,
    /// Told how far the scan has come.
    pub tell: &'a dyn Fn(&Progress),
    /// Told of each directory (`None`: the root) before it is listed.
    pub entering: &'a dyn Fn(Option<&RelPath>),
}

impl std::fmt::Debug for Site<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Site({:?})", self.replica.database())
    }
}

impl Site<'_> {
    /// Brings the database in line with the folder, as far as that is `dirty`, and the folder with the database.
    ///
    /// # Errors
    /// [`FolderError`]; trouble with single paths is in the result.
    pub fn update(&self, dirty: &Dirty, fetch: &mut dyn Fetch) -> Result<Updated, FolderError> {
        clear_temp(self.fs).map_err(|e| FolderError::Input(e.to_string()))?;
        let mut total = Updated::default();
        let mut dirty = dirty.clone();
        for _ in 0..ROUNDS {
            let round = loop {
                self.replica.build()?;
                match self.round(&dirty, fetch) {
                    // A bulk load began meanwhile.
                    Err(_) if self.replica.look(|view| view.building())?.is_some() => {}
                    round => break round?,
                }
            };
            let moved = !round.applied.is_empty() && !round.broken_off;
            let again = round.failed.iter().any(|f| {
                matches!(f.why, Failed::ChangedMeanwhile | Failed::Blocked | Failed::Missing)
            }) || !round.put_off.iter().all(|p| p.hidden);
            dirty.join(round.dirty.clone());
            total.merge(round);
            if !(again && moved) {
                break;
            }
        }
        Ok(total)
    }

    fn round(&self, dirty: &Dirty, fetch: &mut dyn Fetch) -> Result<Updated, FolderError> {
        let own = self.replica.device().id();
        let (keyless, role) = self.replica.look(|view| {
            let keyless = view.sealed()?.covers(&store()) && view.is_keyless()?;
            Ok::<_, StorageError>((keyless, view.role_of(&own)?))
        })?;
        match role {
            // Nothing would seem to be in the tree.
            Some(Role::Relay) if keyless => return Err(StorageError::NoKey.into()),
            // The key is on its way.
            _ if keyless => return Ok(Updated { dirty: dirty.clone(), ..Updated::default() }),
            _ => {}
        }
        let looked;
        let dirty = match dirty {
            Dirty::Everything => {
                looked = look_at_all(self)?;
                &looked
            }
            Dirty::Below(_) => dirty,
        };
        let recorded = record(self, dirty)?;
        let mut left = Dirty::default();
        if !(recorded.problems.is_empty() && recorded.refused.is_empty()) {
            // What was not decided depends on what could not be seen.
            left = dirty.clone();
            recorded.problems.iter().for_each(|problem| left.add(problem.path.clone()));
        }
        let mut updated = Updated {
            dirty: left,
            recorded: recorded.paths,
            refused: recorded.refused,
            problems: recorded.problems,
            ..Updated::default()
        };
        let stand = self.replica.read_store(&store(), Stand::of)?;
        if stand.is_some() && stand == self.replica.read_tables(in_step)? {
            return Ok(updated);
        }
        let (plan, unread) = plan(self.replica, &recorded.hidden)?;
        updated.unread = unread.paths().cloned().collect();
        updated.put_off = plan.put_off;
        let mut rest = &plan.actions[..];
        while !rest.is_empty() {
            let (slice, after) = rest.split_at(slice_len(rest));
            rest = after;
            if self.gather(slice, fetch)? == Fetched::Later {
                updated.broken_off = true;
                return Ok(updated);
            }
            let applied = self.apply(slice)?;
            updated.bytes_written += applied.bytes;
            let failed: BTreeSet<&RelPath> = applied.failed.iter().map(|f| &f.path).collect();
            let done = slice.iter().filter_map(describe).filter(|(_, path)| !failed.contains(path));
            updated.applied.extend(done);
            if applied.failed.iter().any(|f| matches!(f.why, Failed::ChangedMeanwhile)) {
                updated.dirty = Dirty::Everything;
            }
            updated.failed.extend(applied.failed);
        }
        self.replica.want([]);
        if !updated.is_partial() && stand.is_some() {
            let mut tx = self.replica.storage().write(Durability::Normal)?;
            set_in_step(&mut *tx, stand)?;
            tx.commit()?;
        }
        Ok(updated)
    }

    /// Fetches what `actions` lack, manifests level by level, until all is here or nothing more comes.
    fn gather(&self, actions: &[Action], fetch: &mut dyn Fetch) -> Result<Fetched, FolderError> {
        let mut rest = actions;
        loop {
            let tx = self.replica.storage().read()?;
            let index = IndexAt(&*tx);
            let mut content = Content::new(self.fs, &index)?;
            let lacking =
                missing(rest, &mut content, WANTS).map_err(|e| StorageError::Io(e.to_string()))?;
            drop(content);
            drop(tx);
            rest = &rest[lacking.complete..];
            let hashes: BTreeSet<ChunkHash> = lacking
                .nodes
                .iter()
                .map(|n| n.hash)
                .chain(lacking.chunks.iter().map(|c| c.hash))
                .collect();
            if hashes.is_empty() {
                return Ok(Fetched::Some);
            }
            match fetch.fetch(hashes) {
                Fetched::Some => {}
                fetched => return Ok(fetched),
            }
        }
    }

    fn apply(&self, actions: &[Action]) -> Result<Applied, FolderError> {
        let storage = self.replica.storage();
        intent::note(&**storage, actions)?;
        let before = storage.read()?;
        let index = IndexAt(&*before);
        let mut content = Content::new(self.fs, &index)?;
        let mut applied = apply(self.fs, self.clock, actions, &mut content, &mut |_, _| ())
            .map_err(|e| FolderError::Input(format!("no temporary files can be made: {e}")))?;
        drop(content);
        drop(before);
        let (rows, found) = self.rows(actions, std::mem::take(&mut applied.base))?;
        let Found { nodes, names } = found;
        let mut tx = storage.write(Durability::Full)?;
        set_in_step(&mut *tx, None)?;
        nodes.store(&mut *tx)?;
        for (path, base) in &rows {
            set_base(&mut *tx, path, base.as_ref())?;
        }
        intent::clear(&mut *tx, actions)?;
        tx.commit()?;
        // Others may have asked in vain.
        self.replica.blobs_arrived(&names);
        Ok(applied)
    }
}

/// Rows of the base, to be set or taken away.
type Rows = Vec<(RelPath, Option<Base>)>;

impl Site<'_> {
    /// The rows of the base that follow from what was done. Of files that are where they should be without having been written, what
    /// a sealed database says is kept of them is worked out, unless this device knew: others will ask for just these pieces, and
    /// whoever wrote that may lie. The manifest nodes come with them.
    fn rows<'s>(
        &'s self,
        actions: &[Action],
        applied: Rows,
    ) -> Result<(Rows, Found<'s>), FolderError> {
        let storage = &**self.replica.storage();
        let mut found = Found::new(storage);
        let tx = storage.read()?;
        let view = View::new(&*tx);
        if !view.sealed()?.covers(&store()) {
            return Ok((applied, found));
        }
        let written = actions.iter().filter_map(|action| match action {
            Action::WriteFile { goal, .. } => Some(&goal.path),
            _ => None,
        });
        let written: BTreeSet<&RelPath> = written.collect();
        let mut known = Vec::new();
        for (path, _) in &applied {
            known.extend(base_row(&*tx, path)?.and_then(|base| base.state.kept().copied()));
        }
        let mut rows = Rows::with_capacity(applied.len());
        for (path, base) in applied {
            let base = match base {
                Some(base) if !written.contains(&path) => {
                    Some(found.worked_out(view, (self.fs, self.clock), &path, base, &known)?)
                }
                base => base,
            };
            rows.push((path, base));
        }
        Ok((rows, found))
    }
}

/// What would be done to the disk, which is as the base says; and the paths that are left alone because what is known of
/// them cannot be read here.
pub(crate) fn plan(replica: &Replica, hidden: &Hold) -> Result<(Plan, Hold), FolderError> {
    let tx = replica.storage().read()?;
    let view = View::new(&*tx);
    let copies = SeenCopies::gather(BaseRows::new(&*tx))?;
    let mut there = There::new(view);
    let shape = Shape::gather(there.by_ref())?;
    let unread = there.unread();
    let mut hold = hidden.clone();
    unread.paths().for_each(|path| hold.add(path.clone()));
    let targets = Targets::new(shape, There::new(view));
    Ok((plan_actions(BaseRows::new(&*tx), targets, &copies, &hold)?, unread))
}

fn slice_len(actions: &[Action]) -> usize {
    let mut bytes = 0u64;
    let mut len = 0;
    for action in actions.iter().take(SLICE_ACTIONS) {
        if let Action::WriteFile { goal, .. } = action {
            bytes = bytes.saturating_add(goal.state.content().map_or(0, |c| c.size()));
        }
        if len > 0 && bytes > SLICE_BYTES {
            break;
        }
        len += 1;
    }
    len
}

/// What an action does, in a word, and to what; `None` for what nobody sees.
pub(crate) fn describe(action: &Action) -> Option<(&'static str, RelPath)> {
    Some(match action {
        Action::MakeDir { goal }
        | Action::WriteFile { goal, over: None, .. }
        | Action::Symlink { goal, over: None } => ("create", goal.path.clone()),
        Action::WriteFile { goal, .. }
        | Action::Symlink { goal, .. }
        | Action::SetMeta { goal, .. } => ("update", goal.path.clone()),
        Action::Rename { goal, .. } | Action::Unpark { goal, .. } => ("rename", goal.path.clone()),
        Action::RemoveFile { was } => ("delete", was.path.clone()),
        Action::RemoveDir { path } => ("delete", path.clone()),
        Action::Park { .. } | Action::Adopt { .. } => return None,
    })
}
