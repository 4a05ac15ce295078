//! The users of a folder: they write files by renaming them into place, so that nobody may ever see half of one, and take
//! things away by renaming them out, so that it is known for sure what they did away with. And those who read all the time.

use super::random::Random;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

const DIRECTORIES: [&str; 8] = ["", "d", "d.x", "d/e", "d/e/f", "pictures", "pictures/old", "z"];
const NAMES: [&str; 9] = ["a", "a.txt", "b", "d", "e", "f.txt", "old", "x.tar.gz", "z"];
/// Bytes of a file, and of one in `LARGE_EVERY`.
const SMALL: u64 = 60_000;
const LARGE: u64 = 3_000_000;
const LARGE_EVERY: u64 = 25;

/// Which files users have written anywhere, and not done away with.
#[derive(Default)]
pub(super) struct Contents {
    state: Mutex<Written>,
}

#[derive(Default)]
struct Written {
    count: u64,
    alive: BTreeSet<u64>,
}

impl Contents {
    fn lock(&self) -> MutexGuard<'_, Written> {
        self.state.lock().unwrap()
    }

    /// A file that nobody wrote before: its number, noise, and a last line that fits nothing else.
    fn fresh(&self, random: &mut Random) -> Vec<u8> {
        let mut written = self.lock();
        written.count += 1;
        let id = written.count;
        written.alive.insert(id);
        drop(written);
        let most = if random.below(LARGE_EVERY) == 0 { LARGE } else { SMALL };
        let mut bytes = format!("file {id}\n").into_bytes();
        for _ in 0..random.below(most) / 8 {
            bytes.extend(random.next().to_le_bytes());
        }
        let seal = seal(&bytes);
        bytes.extend_from_slice(format!("\n{seal:016x}\n").as_bytes());
        bytes
    }

    fn forget(&self, id: u64) {
        self.lock().alive.remove(&id);
    }

    /// Notes that what lies on a desk was done away with.
    pub(super) fn forget_all(&self, desk: &Path) {
        numbers(desk).into_iter().for_each(|id| self.forget(id));
    }

    /// The numbers of the files that must be there.
    pub(super) fn alive(&self) -> BTreeSet<u64> {
        self.lock().alive.clone()
    }

    pub(super) fn written(&self) -> u64 {
        self.lock().count
    }
}

/// FNV-1a: of no use against anybody who means it, and shares nothing with what is tested.
fn seal(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

/// The number of a file that is whole.
pub(super) fn number(bytes: &[u8]) -> Option<u64> {
    let (body, last) = bytes.split_at_checked(bytes.len().checked_sub(18)?)?;
    if last != format!("\n{:016x}\n", seal(body)).as_bytes() {
        return None;
    }
    let first = std::str::from_utf8(body.split(|byte| *byte == b'\n').next()?).ok()?;
    first.strip_prefix("file ")?.parse().ok()
}

/// Tells everything at `path` and below, directories after what is in them. What goes meanwhile is left out.
pub(super) fn walk(path: &Path, tell: &mut dyn FnMut(&Path, &fs::Metadata)) {
    let Ok(meta) = fs::symlink_metadata(path) else { return };
    if meta.is_dir() {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| entry.file_name() != ".anabranch") {
            walk(&entry.path(), tell);
        }
    }
    tell(path, &meta);
}

/// A user of the folder `files`, with a place of its own beside it.
pub(super) struct User<'a> {
    pub(super) files: PathBuf,
    pub(super) desk: PathBuf,
    pub(super) contents: &'a Contents,
    pub(super) random: Random,
    thrown: u64,
}

impl<'a> User<'a> {
    pub(super) fn new(
        files: &Path,
        desk: &Path,
        contents: &'a Contents,
        random: &mut Random,
    ) -> Self {
        let (files, desk) = (files.to_owned(), desk.to_owned());
        Self { files, desk, contents, random: random.fork(), thrown: 0 }
    }

    /// Does one thing. What makes no sense at the moment is not done.
    pub(super) fn act(&mut self) {
        // Whatever is in the way, or gone, is somebody else's doing.
        let _ = match self.random.below(20) {
            0..11 => self.write(),
            11..13 => self.take_away(),
            13..16 => self.rename(),
            16..18 => self.change_mode(),
            18 => self.link(),
            _ => fs::create_dir_all(self.fresh_name()),
        };
    }

    fn fresh_name(&mut self) -> PathBuf {
        let directory = self.random.pick(&DIRECTORIES).unwrap();
        self.files.join(directory).join(self.random.pick(&NAMES).unwrap())
    }

    /// Something that is there; seldom a directory.
    fn something(&mut self) -> Option<PathBuf> {
        let directories = self.random.below(6) == 0;
        let mut all = Vec::new();
        walk(&self.files, &mut |path, meta| {
            if (directories || !meta.is_dir()) && path != self.files {
                all.push(path.to_owned());
            }
        });
        self.random.pick(&all).cloned()
    }

    /// Puts a new file at a name, or in the place of a file.
    fn write(&mut self) -> io::Result<()> {
        let target = match self.random.below(2) {
            0 => self.something().unwrap_or_else(|| self.files.join("a")),
            _ => self.fresh_name(),
        };
        if target.is_dir() {
            return Ok(());
        }
        let draft = self.desk.join("draft");
        if draft.symlink_metadata().is_ok() {
            // It found no place the last time.
            self.throw_away(&draft)?;
        }
        fs::write(&draft, self.contents.fresh(&mut self.random))?;
        let mode = if self.random.below(4) == 0 { 0o600 } else { 0o644 };
        fs::set_permissions(&draft, fs::Permissions::from_mode(mode))?;
        place(&draft, &target)?;
        if draft.symlink_metadata().is_ok() {
            self.throw_away(&draft)?;
        }
        Ok(())
    }

    /// Whatever is replaced or taken away stays on the desk: a program may still be putting something into a directory
    /// that was taken away.
    fn throw_away(&mut self, path: &Path) -> io::Result<()> {
        self.thrown += 1;
        fs::rename(path, self.desk.join(format!("thrown away {}", self.thrown)))
    }

    fn take_away(&mut self) -> io::Result<()> {
        let Some(path) = self.something() else { return Ok(()) };
        self.throw_away(&path)
    }

    fn rename(&mut self) -> io::Result<()> {
        let Some(from) = self.something() else { return Ok(()) };
        let to = self.fresh_name();
        fs::create_dir_all(to.parent().unwrap())?;
        Ok(renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)?)
    }

    fn change_mode(&mut self) -> io::Result<()> {
        let Some(path) =
            self.something().filter(|path| path.symlink_metadata().is_ok_and(|m| m.is_file()))
        else {
            return Ok(());
        };
        let mode = if self.random.below(2) == 0 { 0o755 } else { 0o640 };
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
    }

    fn link(&mut self) -> io::Result<()> {
        let name = self.fresh_name();
        fs::create_dir_all(name.parent().unwrap())?;
        symlink(format!("to {}", self.random.below(5)), name)
    }
}

/// Gives `draft` the name `target`. A file that has it comes back as `draft`.
fn place(draft: &Path, target: &Path) -> io::Result<()> {
    fs::create_dir_all(target.parent().unwrap())?;
    match renameat_with(CWD, draft, CWD, target, RenameFlags::NOREPLACE) {
        Err(rustix::io::Errno::EXIST) => {
            Ok(renameat_with(CWD, draft, CWD, target, RenameFlags::EXCHANGE)?)
        }
        placed => Ok(placed?),
    }
}

/// Reads every file once. Returns how many, and those of which only a part was there.
pub(super) fn read_all(files: &Path) -> (u64, Vec<String>) {
    let (mut read, mut torn) = (0, Vec::new());
    walk(files, &mut |path, meta| {
        if meta.is_file()
            && let Ok(bytes) = fs::read(path)
        {
            read += 1;
            if number(&bytes).is_none() {
                torn.push(format!("{} with {} bytes", path.display(), bytes.len()));
            }
        }
    });
    (read, torn)
}

/// Everything in a folder, as it must be on every device: kind, mode, time and content.
pub(super) fn tree(files: &Path) -> BTreeMap<PathBuf, String> {
    let mut tree = BTreeMap::new();
    walk(files, &mut |path, meta| {
        let what = match () {
            () if meta.is_dir() => format!("directory {:o}", meta.mode()),
            () if meta.is_file() => {
                let id = number(&fs::read(path).unwrap());
                format!("file {id:?} {:o} {}.{:09}", meta.mode(), meta.mtime(), meta.mtime_nsec())
            }
            () => format!("link {}", fs::read_link(path).unwrap().display()),
        };
        tree.insert(path.strip_prefix(files).unwrap().to_owned(), what);
    });
    tree.remove(Path::new(""));
    tree
}

/// The numbers of the files in a folder.
pub(super) fn numbers(files: &Path) -> BTreeSet<u64> {
    let mut found = BTreeSet::new();
    walk(files, &mut |path, meta| {
        if meta.is_file() {
            found.extend(number(&fs::read(path).unwrap()));
        }
    });
    found
}
