//! The first half of an update: what the user did since the last one is committed to the database, in entries of bounded
//! size, each together with the rows of the base that follow from it (I6: neither is ever there without the other).

use crate::base::Base;
use crate::dirty::Dirty;
use crate::error::FolderError;
use crate::fs::{Clock, FileSystem, sync_all_names, sync_names};
use crate::hold::Hold;
use crate::intent::{self, Left};
use crate::kept::Found;
use crate::nodes::Nodes;
use crate::path::RelPath;
use crate::plan::{Change, LocalStep, Record, SeenCopies, Shape, Targets, plan_records};
use crate::scan::{Problem, Progress, Scan, ScanWatch, look};
use crate::tables::{
    BaseRows, There, base_row, cell_path, set_base, set_in_step, store, value_id, value_name,
};
use crate::update::Site;
use anabranch_core::author::{Draft, Seen, Write};
use anabranch_core::blob::ChunkHash;
use anabranch_core::entry::Entry;
use anabranch_core::ops::{Role, ValueName, decode_cells};
use anabranch_core::path::Path;
use anabranch_core::sabotage::{self, Bug};
use anabranch_core::seal::Key;
use anabranch_core::storage::{ReadTx, StorageError, WriteTx};
use anabranch_core::view::View;
use anabranch_node::Replica;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// Bytes of operations in one entry, about.
const ENTRY_BYTES: usize = 96 * 1024;
/// Operations in one entry.
const ENTRY_OPS: usize = 512;
/// How often what the user did is read again for another key.
const KEYS: usize = 5;

/// What recording did.
#[derive(Debug, Default)]
pub(crate) struct Recorded {
    /// Paths committed.
    pub(crate) paths: Vec<RelPath>,
    /// Paths changed here that this device may not commit.
    pub(crate) refused: Vec<RelPath>,
    /// Paths that could not be looked at.
    pub(crate) problems: Vec<Problem>,
    pub(crate) hidden: Hold,
}

/// What of the folder differs from its base.
pub(crate) fn look_at_all(site: &Site<'_>) -> Result<Dirty, FolderError> {
    let storage = &**site.replica.storage();
    let nodes = Nodes::new(storage);
    let mut watcher = Watcher { nodes: &nodes, problems: Vec::new(), site };
    let tx = storage.read()?;
    let rows = BaseRows::new(&*tx).map(|row| row.map_err(FolderError::from));
    let mut rows = rows.peekable();
    if rows.peek().is_none() {
        return Ok(Dirty::Everything);
    }
    Ok(look(site.fs, site.clock, &mut watcher, rows)?)
}

/// Gathers what a scan comes across.
struct Watcher<'a> {
    nodes: &'a Nodes<'a>,
    problems: Vec<Problem>,
    site: &'a Site<'a>,
}

impl ScanWatch for Watcher<'_> {
    fn node(&mut self, hash: &ChunkHash, bytes: &[u8]) -> io::Result<()> {
        self.nodes.keep(hash, bytes)
    }

    fn entering(&mut self, dir: Option<&RelPath>) {
        (self.site.entering)(dir);
    }

    fn problem(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    fn progress(&mut self, progress: &Progress) {
        (self.site.tell)(progress);
    }
}

/// Takes in what an interrupted update did, looks at what is dirty of the folder and commits what changed.
pub(crate) fn record(site: &Site<'_>, dirty: &Dirty) -> Result<Recorded, FolderError> {
    // Most updates name nothing new, and whoever only hears of others' changes makes no key.
    let mut key = None;
    for _ in 0..KEYS {
        if let Some(recorded) = record_with_key(site, dirty, key)? {
            return Ok(recorded);
        }
        key = site.replica.content_key(&store())?;
    }
    let what = "the key of the sealed database is renewed all the time; try again";
    Err(FolderError::Input(what.into()))
}

/// `None` if a sealed database was given another
/// key meanwhile: what was read since the last entry is still to be committed, and under that one.
fn record_with_key(
    site: &Site<'_>,
    dirty: &Dirty,
    key: Option<Key>,
) -> Result<Option<Recorded>, FolderError> {
    let Site { replica, fs, clock, .. } = *site;
    let storage = &**replica.storage();
    let Left { done, problems: unseen, hold } = intent::recover(storage, fs, clock)?;
    let noted: Vec<RelPath> = done.keys().cloned().collect();
    // What was interrupted may have begun anywhere.
    let dirty = if noted.is_empty() && hold.is_empty() { dirty } else { &Dirty::Everything };
    if dirty.is_empty() {
        return Ok(Some(Recorded::default()));
    }
    let role = replica.look(|view| view.role_of(&replica.device().id()))?;
    let may_write = role >= Some(Role::Write);
    let sealed = replica.look(|view| view.sealed().map(|sealed| sealed.covers(&store())))?;
    let mut find_key = || match key.clone() {
        // Whoever may not write has nothing to encrypt.
        None if may_write => replica.likely_content_key(&store()).map_err(io::Error::other),
        key => Ok(key),
    };
    let tx = storage.read()?;
    let view = View::new(&*tx);
    let copies = SeenCopies::gather(BaseRows::new(&*tx))?;
    let there = || There::new(view).map(|row| row.map_err(FolderError::from));
    let targets = Targets::new(Shape::gather(there())?, there());
    let nodes = Nodes::new(storage);
    let mut watcher = Watcher { nodes: &nodes, problems: Vec::new(), site };
    let mut batch = Batch { may_write, sealed, ..Batch::new(replica, (fs, clock), &nodes) };
    let mut scan = Scan::new(fs, clock, &mut watcher, BaseRows::new(&*tx));
    scan = scan.only(dirty).hiding(hold);
    if sealed {
        scan = scan.sealing(&mut find_key);
    }
    let rows = scan.by_ref().map(|row| row.map_err(FolderError::from));
    let mut records = plan_records(rows, targets, &copies).knowing(done);
    for step in &mut records {
        batch.add(step?)?;
        if batch.outdated {
            return Ok(None);
        }
    }
    let undecided = records.undecided();
    let hidden = scan.hidden().clone();
    for step in undecided.decide(&hidden) {
        batch.add(step)?;
    }
    batch.commit()?;
    if batch.outdated {
        return Ok(None);
    }
    intent::settled(storage, &noted)?;
    let Batch { paths, refused, .. } = batch;
    let mut problems = watcher.problems;
    let told: BTreeSet<RelPath> = problems.iter().map(|problem| problem.path.clone()).collect();
    problems.extend(unseen.into_iter().filter(|problem| !told.contains(&problem.path)));
    Ok(Some(Recorded { paths, refused, problems, hidden }))
}

struct Batch<'a> {
    replica: &'a Replica,
    fs: &'a dyn FileSystem,
    clock: &'a dyn Clock,
    nodes: &'a Nodes<'a>,
    steps: Vec<LocalStep>,
    bytes: usize,
    may_write: bool,
    /// Whether the database is.
    sealed: bool,
    /// Whether something was to be named that is not encrypted with the key of now.
    outdated: bool,
    paths: Vec<RelPath>,
    refused: Vec<RelPath>,
}

fn path_of(step: &LocalStep) -> &RelPath {
    match step {
        LocalStep::Record(record) => &record.path,
        LocalStep::Adopt { path, .. } | LocalStep::Forget { path } => path,
    }
}

impl<'a> Batch<'a> {
    fn new(
        replica: &'a Replica,
        (fs, clock): (&'a dyn FileSystem, &'a dyn Clock),
        nodes: &'a Nodes<'a>,
    ) -> Self {
        Self {
            replica,
            fs,
            clock,
            nodes,
            steps: Vec::new(),
            bytes: 0,
            may_write: true,
            sealed: false,
            outdated: false,
            paths: Vec::new(),
            refused: Vec::new(),
        }
    }

    fn add(&mut self, step: LocalStep) -> Result<(), FolderError> {
        if let (LocalStep::Record(record), false) = (&step, self.may_write) {
            // The base keeps saying what was agreed, so the change shows again next time and is never overwritten.
            self.refused.push(record.path.clone());
            return Ok(());
        }
        let full = self.bytes >= ENTRY_BYTES || self.steps.len() >= ENTRY_OPS;
        // The steps of one path belong together.
        let new_path = self.steps.last().is_none_or(|last| path_of(last) != path_of(&step));
        if full && new_path {
            self.commit()?;
        }
        if let LocalStep::Record(record) = &step {
            self.bytes += record.path.as_bytes().len() + 100 + 60 * record.replaces.len();
        }
        self.steps.push(step);
        Ok(())
    }

    /// What is found to be as it should be may be the work of an update that was interrupted before it could sync it. If the
    /// base said so and the power went, what was there before would come back as the user's doing.
    fn sync(&self, steps: &[LocalStep]) -> Result<(), FolderError> {
        let tx = self.replica.storage().read()?;
        let mut dirs = BTreeSet::new();
        for step in steps {
            let differs = match step {
                LocalStep::Adopt { path, base } => {
                    base_row(&*tx, path)?.is_none_or(|old| !old.state.same_content(&base.state))
                }
                LocalStep::Forget { .. } => true,
                LocalStep::Record(_) => false,
            };
            if differs {
                dirs.insert(path_of(step).parent());
            }
        }
        drop(tx);
        match sync_all_names(self.fs, dirs).pop() {
            Some((_, error)) => Err(unsynced(&error)),
            None => Ok(()),
        }
    }

    /// How what is adopted is kept in a sealed database.
    fn work_out(&self, steps: &mut [LocalStep]) -> Result<Found<'a>, FolderError> {
        let storage = &**self.replica.storage();
        let mut found = Found::new(storage);
        if !self.sealed {
            return Ok(found);
        }
        let tx = storage.read()?;
        for step in steps {
            let LocalStep::Adopt { path, base } = step else { continue };
            let before = base_row(&*tx, path)?.and_then(|before| before.state.kept().copied());
            let (known, places) = (before.as_slice(), (self.fs, self.clock));
            *base = found.worked_out(View::new(&*tx), places, path, base.clone(), known)?;
        }
        Ok(found)
    }

    fn commit(&mut self) -> Result<(), FolderError> {
        let mut steps = std::mem::take(&mut self.steps);
        self.bytes = 0;
        if steps.is_empty() || self.outdated {
            return Ok(());
        }
        self.sync(&steps)?;
        let found = self.work_out(&mut steps)?;
        let draft = Draft { writes: writes(&steps)?, ..Draft::default() };
        let nodes = self.nodes;
        let outdated = Cell::new(false);
        let committed = self.replica.commit_with_local(&draft, |tx, entry| {
            if self.sealed && entry.is_some() && !are_kept(&*tx, &steps)? {
                outdated.set(true);
                return Err(StorageError::Io("the key was renewed; try again".into()));
            }
            set_in_step(tx, None)?;
            nodes.store(tx)?;
            found.nodes.store(tx)?;
            let ids = entry.map(|entry| op_indices(&*tx, entry)).transpose()?.unwrap_or_default();
            steps.iter().try_for_each(|step| follow(tx, step, entry, &ids))
        });
        if outdated.get() {
            self.outdated = true;
            return Ok(());
        }
        committed?;
        // Others may have asked in vain.
        self.replica.blobs_arrived(&found.names);
        let records = steps.into_iter().filter_map(|step| match step {
            LocalStep::Record(record) => Some(record.path),
            _ => None,
        });
        self.paths.extend(records);
        self.paths.dedup();
        Ok(())
    }
}

/// Whether all content that is named anew is encrypted with the key that its entry is.
fn are_kept(tx: &dyn ReadTx, steps: &[LocalStep]) -> Result<bool, StorageError> {
    let key = View::new(tx).sealing_key()?;
    for step in steps {
        let LocalStep::Record(Record { path, change: Change::Put { state, .. }, .. }) = step else {
            continue;
        };
        let is_of_now = state.kept().is_some_and(|kept| Some(kept.key) == key);
        if !state.has_pieces() || is_of_now {
            continue;
        }
        // What was there already is named as it was.
        let base = base_row(tx, path)?;
        let before = base.as_ref().and_then(|base| base.state.kept());
        if before.is_none() || before != state.kept() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Brings the names in a directory to the disk.
///
/// # Errors
/// [`FolderError::Input`].
pub(crate) fn sync_dir(fs: &dyn FileSystem, dir: Option<&RelPath>) -> Result<(), FolderError> {
    sync_names(fs, dir).map_err(|e| unsynced(&e))
}

fn unsynced(error: &io::Error) -> FolderError {
    FolderError::Input(format!("a directory cannot be synced: {error}"))
}

/// One write a path: of several records for one path, the values replaced are joined.
fn writes(steps: &[LocalStep]) -> Result<Vec<Write>, FolderError> {
    let mut cells: BTreeMap<&RelPath, (Option<Vec<u8>>, Vec<_>)> = BTreeMap::new();
    for step in steps {
        let LocalStep::Record(Record { path, change, replaces }) = step else { continue };
        let cell = cells.entry(path).or_default();
        if let Change::Put { state, .. } = change {
            cell.0 = Some(state.encode());
        }
        cell.1.extend(replaces.iter().filter_map(value_name));
    }
    cells
        .into_iter()
        .map(|(path, (value, names))| {
            let path = cell_path(path)?;
            let seen = match sabotage::is(Bug::UnseenReplaced) {
                true => Seen::AtCommit,
                false => Seen::Values(names),
            };
            Ok(Write { store: store(), path, value, seen, below: false, above: false })
        })
        .collect()
}

/// Which operation of an entry went to which cell.
fn op_indices(tx: &dyn ReadTx, entry: &Entry) -> Result<BTreeMap<Path, u32>, StorageError> {
    let (log, store) = (&entry.header().log, store());
    let payload = entry.payloads().find(|(id, _)| **id == store);
    let bytes = payload.and_then(|(_, payload)| payload.bytes()).unwrap_or_default();
    let ring = View::new(tx).ring()?;
    // Sealed here, so the key is here.
    let bytes = ring.open(log, &store, bytes).unwrap_or_default();
    let numbered = decode_cells(log, &bytes).ops.into_iter().enumerate();
    Ok(numbered.filter_map(|(index, op)| Some((op?.path, index as u32))).collect())
}

/// Brings the base in line with one step that was just committed.
fn follow(
    tx: &mut dyn WriteTx,
    step: &LocalStep,
    entry: Option<&Entry>,
    indices: &BTreeMap<Path, u32>,
) -> Result<(), StorageError> {
    match step {
        LocalStep::Adopt { path, base } => set_base(tx, path, Some(base)),
        LocalStep::Forget { path } => set_base(tx, path, None),
        LocalStep::Record(Record { path, change, .. }) => match change {
            Change::DropValues { copy } => set_base(tx, copy, None),
            Change::Delete => set_base(tx, path, None),
            Change::Put { .. } => {
                let base = new_base(path, change, entry, indices);
                match base {
                    Some(base) => set_base(tx, path, Some(&base)),
                    None => Err(StorageError::Corrupt("a path was not recorded".into())),
                }
            }
        },
    }
}

fn new_base(
    path: &RelPath,
    change: &Change,
    entry: Option<&Entry>,
    indices: &BTreeMap<Path, u32>,
) -> Option<Base> {
    let cell = cell_path(path).ok()?;
    let index = indices.get(&cell)?;
    change.base(value_id(&ValueName::of(&entry?.position(), *index)))
}
