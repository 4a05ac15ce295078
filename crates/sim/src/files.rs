//! What users do to their folders, and which contents they wrote and did away with. Numbers pick among what there is, so
//! that a step makes sense whatever came before it.

use anabranch_folder::fs::{FileSystem, Kind, MemFs};
use anabranch_folder::path::RelPath;
use fastrand::Rng;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::io;

/// Names that are made up; all others are picked.
const NAMES: [&str; 12] =
    ["a", "a.txt", "b", "d", "d/a", "d/b", "d/e", "d/e/a", "d.x", "d/e/f/g", "c.tar.gz", "e"];

/// What a user does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Deed {
    /// Writes a file, new or not.
    Write {
        /// Which name.
        name: u8,
        /// Bytes, at least.
        size: u32,
    },
    /// Writes to a file that is there; it stays the same file.
    Overwrite(u8),
    /// Replaces a file as editors do: by a new one, which is given its name.
    Replace(u8),
    /// Removes what is there, with all that is in it.
    Remove(u8),
    /// Renames to a name made up (even) or taken (odd).
    Rename(u8, u8),
    /// Lets two files swap their names.
    Swap(u8, u8),
    /// Makes a directory.
    MakeDir(u8),
    /// Makes a symbolic link.
    Link(u8),
    /// Sets the mode.
    Chmod(u8),
    /// Sets the time.
    Touch(u8),
}

impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |n: &u8| NAMES[usize::from(*n) % NAMES.len()];
        match self {
            Self::Write { name: n, size } => write!(f, "writes {} of {size} bytes", name(n)),
            Self::Overwrite(n) => write!(f, "overwrites file {n}"),
            Self::Replace(n) => write!(f, "replaces file {n} by a new one"),
            Self::Remove(n) => write!(f, "removes {n}"),
            Self::Rename(n, to) if to % 2 == 0 => write!(f, "renames {n} to {}", name(&(to / 2))),
            Self::Rename(n, to) => write!(f, "renames {n} to the name of {}", to / 2),
            Self::Swap(a, b) => write!(f, "swaps files {a} and {b}"),
            Self::MakeDir(n) => write!(f, "makes directory {}", name(n)),
            Self::Link(n) => write!(f, "makes link {}", name(n)),
            Self::Chmod(n) => write!(f, "changes the mode of {n}"),
            Self::Touch(n) => write!(f, "changes the time of file {n}"),
        }
    }
}

impl Deed {
    /// One of many.
    pub fn choose(random: &mut Rng, large: bool) -> Self {
        let (a, b) = (random.u8(..), random.u8(..));
        match random.u32(..24) {
            0..=4 => {
                let size = if large && random.u32(..4) == 0 { random.u32(..700_000) } else { 0 };
                Self::Write { name: a, size }
            }
            5..=8 => Self::Overwrite(a),
            9..=10 => Self::Replace(a),
            11..=13 => Self::Remove(a),
            14..=17 => Self::Rename(a, b),
            18 => Self::Swap(a, b),
            19..=20 => Self::MakeDir(a),
            21 => Self::Link(a),
            22 => Self::Chmod(a),
            _ => Self::Touch(a),
        }
    }
}

/// The contents of files: all that were ever written, and those of them that no user did away with.
#[derive(Debug, Default)]
pub struct Contents {
    written: BTreeSet<Vec<u8>>,
    alive: BTreeSet<Vec<u8>>,
}

/// The tree as a user sees it.
#[must_use]
pub fn seen(fs: &MemFs) -> Vec<RelPath> {
    fs.tree().into_keys().filter(|path| !path.is_reserved()).collect()
}

/// The path that `n` picks among `paths`.
#[must_use]
pub fn pick(paths: &[RelPath], n: u8) -> Option<&RelPath> {
    paths.get(usize::from(n) % paths.len().max(1))
}

fn made_up(n: u8) -> io::Result<RelPath> {
    RelPath::new(NAMES[usize::from(n) % NAMES.len()]).map_err(io::Error::other)
}

fn is_file(fs: &MemFs, path: &RelPath) -> bool {
    fs.lstat(path).is_ok_and(|stat| stat.kind == Kind::File)
}

/// Whether there are directories down to `path` now.
fn make_parents(fs: &MemFs, path: &RelPath) -> bool {
    let dirs: Vec<RelPath> = path.ancestors().collect();
    dirs.iter().rev().all(|dir| match fs.lstat(dir) {
        Ok(stat) => stat.kind == Kind::Dir,
        Err(_) => fs.make_dir(dir).is_ok(),
    })
}

impl Contents {
    /// Whether somebody wrote this once.
    #[must_use]
    pub fn was_written(&self, content: &[u8]) -> bool {
        self.written.contains(content)
    }

    /// What no user did away with.
    pub fn alive(&self) -> impl Iterator<Item = &[u8]> {
        self.alive.iter().map(Vec::as_slice)
    }

    /// Content that nobody wrote before. Small ones have one length: only the times tell that they changed.
    fn fresh(&mut self, size: u32) -> Vec<u8> {
        let number = self.written.len();
        let mut text = format!("text {number:08}").into_bytes();
        let mut noise = Rng::with_seed(number as u64);
        text.extend((text.len()..size as usize).map(|_| noise.u8(..)));
        self.written.insert(text.clone());
        self.alive.insert(text.clone());
        text
    }

    /// The user does away with what is at `path` and below.
    fn forget(&mut self, fs: &MemFs, path: &RelPath) {
        for (other, (stat, bytes)) in fs.tree() {
            if stat.kind == Kind::File && (other == *path || other.is_below(path)) {
                self.alive.remove(&bytes);
            }
        }
    }

    fn remove(&mut self, fs: &MemFs, path: &RelPath) -> io::Result<()> {
        self.forget(fs, path);
        for (other, (stat, _)) in fs.tree().into_iter().rev() {
            if other == *path || other.is_below(path) {
                match stat.kind {
                    Kind::Dir => fs.remove_dir(&other)?,
                    _ => fs.remove_file(&other)?,
                }
            }
        }
        Ok(())
    }

    /// A user of `fs` does `deed`, as far as it makes sense there. What users write is on the disk at once: what they lose
    /// with the power is no concern of ours.
    ///
    /// # Errors
    /// None that a folder in memory has for what makes sense.
    pub fn act(&mut self, fs: &MemFs, deed: &Deed) -> io::Result<()> {
        let done = self.carry_out(fs, deed);
        fs.rest();
        done
    }

    fn carry_out(&mut self, fs: &MemFs, deed: &Deed) -> io::Result<()> {
        let all = seen(fs);
        match deed {
            Deed::Write { name, size } => {
                let at = made_up(*name)?;
                if make_parents(fs, &at) && !fs.lstat(&at).is_ok_and(|s| s.kind != Kind::File) {
                    self.forget(fs, &at);
                    fs.write(&at, &self.fresh(*size))?;
                }
            }
            Deed::Overwrite(n) => {
                if let Some(at) = pick(&all, *n).filter(|at| is_file(fs, at)) {
                    self.forget(fs, at);
                    fs.write(at, &self.fresh(0))?;
                }
            }
            Deed::Replace(n) => {
                let at = pick(&all, *n).filter(|at| is_file(fs, at));
                return at.map_or(Ok(()), |at| self.replace(fs, at));
            }
            Deed::Remove(n) => {
                let at = pick(&all, *n);
                return at.map_or(Ok(()), |at| self.remove(fs, at));
            }
            Deed::Rename(n, to) => {
                let to =
                    if to % 2 == 0 { Some(made_up(to / 2)?) } else { pick(&all, to / 2).cloned() };
                if let (Some(from), Some(to)) = (pick(&all, *n), to) {
                    self.rename(fs, from, &to)?;
                }
            }
            Deed::Swap(a, b) => {
                let (Some(a), Some(b)) = (pick(&all, *a), pick(&all, *b)) else { return Ok(()) };
                if is_file(fs, a) && is_file(fs, b) && a != b {
                    fs.exchange(a, b)?;
                }
            }
            Deed::MakeDir(n) => {
                let at = made_up(*n)?;
                if make_parents(fs, &at) && fs.lstat(&at).is_err() {
                    fs.make_dir(&at)?;
                    fs.set_mode(&at, 0o755)?;
                }
            }
            Deed::Link(n) => {
                let at = made_up(*n)?;
                if make_parents(fs, &at) && fs.lstat(&at).is_err() {
                    fs.symlink(&[b'a' + n % 3], &at)?;
                }
            }
            Deed::Chmod(n) => {
                let at = pick(&all, *n).filter(|at| {
                    fs.lstat(at).is_ok_and(|stat| matches!(stat.kind, Kind::File | Kind::Dir))
                });
                if let Some(at) = at {
                    fs.set_mode(at, if n % 2 == 0 { 0o700 } else { 0o755 })?;
                }
            }
            Deed::Touch(n) => {
                if let Some(at) = pick(&all, *n).filter(|at| is_file(fs, at)) {
                    fs.set_mtime(at, i64::from(*n) * 1_000_000_007)?;
                }
            }
        }
        Ok(())
    }

    fn replace(&mut self, fs: &MemFs, at: &RelPath) -> io::Result<()> {
        let temp = RelPath::in_dir(at.parent().as_ref(), b".swp").map_err(io::Error::other)?;
        if fs.lstat(&temp).is_err() {
            fs.write(&temp, &self.fresh(0))?;
            self.forget(fs, at);
            fs.rename(&temp, at, true)?;
        }
        Ok(())
    }

    fn rename(&mut self, fs: &MemFs, from: &RelPath, to: &RelPath) -> io::Result<()> {
        let apart = to != from && !to.is_below(from) && !from.is_below(to);
        if apart && make_parents(fs, to) && fs.lstat(from).is_ok() {
            self.remove(fs, to)?;
            fs.rename(from, to, true)?;
        }
        Ok(())
    }
}
