//! The scanner: walks the folder next to the base and tells, path by path, what is here. It reads content only where the
//! stat differs from the base's or cannot be trusted, and it decides nothing: that is the planner's.
//!
//! What cannot be read is reported and shows as [`Here::Hidden`], as does everything below it, so that trouble on the disk
//! never looks like a deletion (I5, I6). Memory is bounded by the widest directory and the depth (I7).

mod content;
mod look;
mod walk;

pub use content::{Hashed, Keeping, ReadError, hash_file};
pub use look::look;

use crate::base::{Base, Seen};
use crate::dirty::Dirty;
use crate::fs::{Clock, FileSystem, Kind, Stat};
use crate::hold::Hold;
use crate::path::RelPath;
use crate::sorted::{InputError, Sorted};
use crate::state::{MODE_BITS, State};
use anabranch_core::blob::{ChunkHash, ChunkSpan};
use anabranch_core::seal::Key;
use std::io;
use walk::{Found, Walk};

/// What is at a path now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Here {
    /// Something that can be synced.
    Present {
        /// What it is.
        state: State,
        /// How it looks.
        seen: Seen,
    },
    /// Nothing, although the base has something.
    Gone,
    /// Not known.
    Hidden,
}

/// One path: what the base says of it and what is here. At least one of the two says something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Local {
    /// The path.
    pub path: RelPath,
    /// Its row of the base.
    pub base: Option<Base>,
    /// What is here.
    pub here: Here,
}

/// Something that the scan could not take in; the rest goes on.
#[derive(Debug)]
pub struct Problem {
    /// Where. What is at this path and below it is hidden.
    pub path: RelPath,
    /// What is the matter.
    pub what: Trouble,
}

/// What is the matter with a path.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Trouble {
    /// The file system refused.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It changed whenever it was read.
    #[error("is being written; it will be taken when it rests")]
    Busy,
    /// A socket, pipe or device.
    #[error("is neither file, directory nor symbolic link")]
    Special,
    /// Longer than any path that can be synced.
    #[error("has too long a path to be synced")]
    PathTooLong,
    /// A spelling of the state directory that some file systems take for the state directory.
    #[error("has a name that is reserved")]
    Reserved,
}

/// How far a scan has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Files met.
    pub files: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Bytes read to name content.
    pub hashed: u64,
}

/// Who wants to know what a scan comes across.
pub trait ScanWatch {
    /// A chunk of the content of `path`. The content may turn out to be in motion: then its chunks are told again.
    ///
    /// # Errors
    /// An error ends the scan.
    fn chunk(&mut self, path: &RelPath, span: &ChunkSpan) -> io::Result<()> {
        let _ = (path, span);
        Ok(())
    }

    /// A manifest node of some content; everything below it has been told.
    ///
    /// # Errors
    /// An error ends the scan.
    fn node(&mut self, hash: &ChunkHash, bytes: &[u8]) -> io::Result<()> {
        let _ = (hash, bytes);
        Ok(())
    }

    /// A directory (`None`: the root) that is going to be listed.
    fn entering(&mut self, dir: Option<&RelPath>) {
        let _ = dir;
    }

    /// Something that could not be taken in.
    fn problem(&mut self, problem: Problem);

    /// Called after each file and now and then during a large one.
    fn progress(&mut self, progress: &Progress) {
        let _ = progress;
    }
}

/// Nobody.
impl ScanWatch for () {
    fn problem(&mut self, _: Problem) {}
}

/// Why a scan ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScanError<E> {
    /// The folder itself cannot be read.
    #[error("the folder cannot be read")]
    Root(#[source] io::Error),
    /// The base cannot be read.
    #[error("the folder's base cannot be read")]
    Base(#[source] InputError<E>),
    /// Who watches the scan failed.
    #[error("what a scan found cannot be stored")]
    Watch(#[source] io::Error),
}

/// A scan in progress: an iterator over [`Local`]s in the order of their paths, the union of what is here and what the base
/// has. It ends with the first error.
pub struct Scan<'a, B> {
    fs: &'a dyn FileSystem,
    clock: &'a dyn Clock,
    watch: &'a mut dyn ScanWatch,
    key: Option<Sealing<'a>>,
    dirty: &'a Dirty,
    base: Sorted<B, Base>,
    walk: Walk<'a>,
    ahead: Option<Found>,
    hidden: Hold,
    progress: Progress,
    over: bool,
}

/// How what is new is encrypted.
struct Sealing<'a> {
    ask: &'a mut dyn FnMut() -> io::Result<Option<Key>>,
    /// The answer.
    key: Option<Option<Key>>,
}

impl Sealing<'_> {
    fn key(&mut self) -> io::Result<Option<&Key>> {
        if self.key.is_none() {
            self.key = Some((self.ask)()?);
        }
        Ok(self.key.as_ref().and_then(Option::as_ref))
    }
}

/// A row of the base, with its path.
pub type Row<E> = Result<(RelPath, Base), E>;

impl<'a, E, B: Iterator<Item = Row<E>>> Scan<'a, B> {
    /// Scans the folder `fs`. `base` yields the rows of the base in the order of their paths.
    pub fn new(
        fs: &'a dyn FileSystem,
        clock: &'a dyn Clock,
        watch: &'a mut dyn ScanWatch,
        base: B,
    ) -> Self {
        let dirty = &Dirty::Everything;
        Self {
            fs,
            clock,
            watch,
            key: None,
            dirty,
            base: Sorted::new(base),
            walk: Walk::new(fs, dirty),
            ahead: None,
            hidden: Hold::new(),
            progress: Progress::default(),
            over: false,
        }
    }

    /// Looks only at what is `dirty`, and takes the rest to be as the base says.
    #[must_use]
    pub fn only(mut self, dirty: &'a Dirty) -> Self {
        self.dirty = dirty;
        self.walk = Walk::new(self.fs, dirty);
        self
    }

    /// Takes `hold` for hidden, whatever is there.
    #[must_use]
    pub fn hiding(mut self, hold: Hold) -> Self {
        self.hidden = hold;
        self
    }

    /// Has what is new encrypted as it is read, with the key that `key` finds out when the first file is.
    #[must_use]
    pub fn sealing(mut self, key: &'a mut dyn FnMut() -> io::Result<Option<Key>>) -> Self {
        self.key = Some(Sealing { ask: key, key: None });
        self
    }

    /// What could not be read so far, for [`crate::plan::plan_actions`].
    #[must_use]
    pub fn hidden(&self) -> &Hold {
        &self.hidden
    }

    /// How far it has come.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.progress
    }

    fn step(&mut self) -> Result<Option<Local>, ScanError<E>> {
        loop {
            self.look_ahead()?;
            let row = self.base.peek().map_err(ScanError::Base)?.cloned();
            match (&self.ahead, row) {
                (None, None) => return Ok(None),
                (Some(found), Some(row)) if row < found.path => return self.only_base(row),
                (None, Some(row)) => return self.only_base(row),
                (Some(_), _) => {
                    if let Some(local) = self.found()? {
                        return Ok(Some(local));
                    }
                }
            }
        }
    }

    /// Makes sure that the next thing on the disk, if any, is in `ahead`.
    fn look_ahead(&mut self) -> Result<(), ScanError<E>> {
        while self.ahead.is_none() {
            match self.walk.step(self.watch).map_err(ScanError::Root)? {
                None => return Ok(()),
                Some(Ok(found)) => self.ahead = Some(found),
                Some(Err(problem)) => self.hide(problem),
            }
        }
        Ok(())
    }

    fn hide(&mut self, problem: Problem) {
        self.hidden.add(problem.path.clone());
        self.watch.problem(problem);
    }

    /// A row of the base that nothing on the disk corresponds to.
    fn only_base(&mut self, path: RelPath) -> Result<Option<Local>, ScanError<E>> {
        let base = self.base.take(&path).map_err(ScanError::Base)?;
        let here = match &base {
            _ if self.hidden.covers(&path) => Here::Hidden,
            Some(base) if !self.dirty.covers(&path) => {
                Here::Present { state: base.state.clone(), seen: base.seen }
            }
            _ => Here::Gone,
        };
        Ok(Some(Local { path, base, here }))
    }

    /// What is on the disk next, with its row of the base if there is one.
    fn found(&mut self) -> Result<Option<Local>, ScanError<E>> {
        let Some(Found { path, stat }) = self.ahead.take() else { return Ok(None) };
        let base = self.base.take(&path).map_err(ScanError::Base)?;
        if stat.kind == Kind::File {
            self.progress.files += 1;
            self.progress.bytes += stat.size;
        }
        let here = match self.hidden.covers(&path) {
            true => Here::Hidden,
            false => self.here(&path, &stat, base.as_ref())?,
        };
        self.watch.progress(&self.progress);
        let unknown = here == Here::Hidden && base.is_none();
        Ok(if unknown { None } else { Some(Local { path, base, here }) })
    }

    fn here(
        &mut self,
        path: &RelPath,
        stat: &Stat,
        base: Option<&Base>,
    ) -> Result<Here, ScanError<E>> {
        let what = match self.look(path, stat, base) {
            Ok((state, seen)) => return Ok(Here::Present { state, seen }),
            Err(ReadError::Watch(error)) => return Err(ScanError::Watch(error)),
            Err(ReadError::Io(error)) => Trouble::Io(error),
            Err(ReadError::Busy) => Trouble::Busy,
        };
        self.hide(Problem { path: path.clone(), what });
        Ok(Here::Hidden)
    }

    /// What is at `path`: by the base if it looks as it did then, otherwise by reading it.
    fn look(
        &mut self,
        path: &RelPath,
        stat: &Stat,
        base: Option<&Base>,
    ) -> Result<(State, Seen), ReadError> {
        let seen = Seen::new(stat, self.clock.now_ns());
        if let Some(base) = base
            && same_kind(&base.state, stat.kind)
            && base.seen.settled
            && base.seen.looks_like(&seen)
        {
            return Ok((base.state.clone(), base.seen));
        }
        match stat.kind {
            Kind::Dir => Ok((State::Dir { mode: mode_of(stat.kind, &seen, base) }, seen)),
            Kind::Symlink => Ok((State::Symlink { target: self.fs.read_link(path)? }, seen)),
            _ => self.read(path, base),
        }
    }

    fn read(&mut self, path: &RelPath, base: Option<&Base>) -> Result<(State, Seen), ReadError> {
        let keeping = match &mut self.key {
            None => Keeping::Open,
            Some(sealing) => Keeping::Sealed(sealing.key().map_err(ReadError::Watch)?),
        };
        let (hashed, seen) =
            hash_file(self.fs, self.clock, path, keeping, self.watch, &mut self.progress)?;
        let Hashed { content, mut kept } = hashed;
        // What is the same goes on being kept as it is, under whatever key.
        if let Some(State::File { content: then, kept: before @ Some(_), .. }) =
            base.map(|base| &base.state)
            && *then == content
        {
            kept = *before;
        }
        let mtime_ns = match base.map(|base| (&base.state, base.seen.mtime_ns)) {
            Some((State::File { content: then, mtime_ns, .. }, looked))
                if looked == seen.mtime_ns && *then == content =>
            {
                *mtime_ns
            }
            _ => seen.mtime_ns,
        };
        Ok((State::File { content, kept, mode: mode_of(Kind::File, &seen, base), mtime_ns }, seen))
    }
}

/// The mode to record. A file system that does not keep modes (or not all of them) shows another than was asked for; as
/// long as it shows the same one for the same kind of thing, nobody changed anything. The same holds for times.
fn mode_of(kind: Kind, seen: &Seen, base: Option<&Base>) -> u32 {
    let base = base.filter(|base| same_kind(&base.state, kind) && base.seen.mode == seen.mode);
    match base.map(|base| &base.state) {
        Some(State::File { mode, .. } | State::Dir { mode }) => *mode,
        _ => seen.mode & MODE_BITS,
    }
}

fn same_kind(state: &State, kind: Kind) -> bool {
    match state {
        State::File { .. } => kind == Kind::File,
        State::Dir { .. } => kind == Kind::Dir,
        State::Symlink { .. } => kind == Kind::Symlink,
    }
}

impl<E, B: Iterator<Item = Row<E>>> Iterator for Scan<'_, B> {
    type Item = Result<Local, ScanError<E>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let step = self.step().transpose();
        self.over = !matches!(step, Some(Ok(_)));
        step
    }
}
