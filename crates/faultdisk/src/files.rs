//! The files of a disk: names and contents together, and how they are matched with the real files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::content::Content;
use crate::error::DiskError;
use crate::names::{FileId, Names};
use crate::random::Random;
use crate::tree;

/// What tells a real file from another one of the same name: device and inode. Nothing where there is no file.
type Mark = Option<(u64, u64)>;

#[derive(Debug)]
struct File {
    /// Nothing while the file is closed and synced: the real file has it.
    content: Option<Content>,
    mark: Mark,
    handles: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Files {
    names: Names,
    files: BTreeMap<FileId, File>,
    last: FileId,
}

impl Files {
    /// The real file at `path` has been opened; `existed` before that.
    pub(crate) fn open(&mut self, path: &Path, existed: bool) -> Result<FileId, DiskError> {
        let id = match self.id(path) {
            Some(id) => id,
            None if existed => self.adopt(path),
            None => self.create(path),
        };
        self.load(path, id)?;
        if let Some(file) = self.files.get_mut(&id) {
            file.handles += 1;
        }
        Ok(id)
    }

    pub(crate) fn close(&mut self, id: FileId) {
        if let Some(file) = self.files.get_mut(&id) {
            file.handles -= 1;
        }
        self.tidy();
    }

    /// A file that is made now and not safe before its directory is synced.
    pub(crate) fn create(&mut self, path: &Path) -> FileId {
        let id = self.add(path, Some(Content::default()));
        self.names.link(path, id);
        id
    }

    /// The real file at `path` is about to be removed; returns its length.
    pub(crate) fn unlink(&mut self, path: &Path) -> Result<u64, DiskError> {
        let id = match self.id(path) {
            Some(id) => id,
            None if mark(path).is_some() => self.adopt(path),
            None => return Ok(0),
        };
        self.load(path, id)?;
        self.names.unlink(path);
        Ok(self.content(id).map_or(0, |content| content.length()))
    }

    pub(crate) fn content(&mut self, id: FileId) -> Option<&mut Content> {
        self.files.get_mut(&id)?.content.as_mut()
    }

    pub(crate) fn change(&mut self, id: FileId, change: impl FnOnce(&mut Content)) {
        if let Some(content) = self.content(id) {
            change(content);
        }
    }

    /// The file that is known by this name, unless the real one is another by now.
    pub(crate) fn id(&self, path: &Path) -> Option<FileId> {
        self.names.get(path).filter(|id| self.is(*id, mark(path)))
    }

    pub(crate) fn sync_names(&mut self, directory: &Path) {
        self.names.sync(directory);
        self.tidy();
    }

    pub(crate) fn unsynced_bytes(&self) -> u64 {
        self.contents().map(Content::unsynced_bytes).sum()
    }

    /// The bits that flip are those on the disk.
    pub(crate) fn flip(&mut self, path: &Path, offset: usize, mask: u8) {
        let content = self.id(path).and_then(|id| self.content(id));
        if let Some(byte) = content.and_then(|content| content.durable_mut().get_mut(offset)) {
            *byte ^= mask;
        }
    }

    /// What is safe, where that is not what the real file holds; nothing for a file that is not safe at all.
    pub(crate) fn durable(&self) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
        let unsafe_names = self.names.now().keys().map(|path| (path.clone(), None));
        let mut found: BTreeMap<_, _> = unsafe_names.collect();
        for (path, id) in self.names.durable() {
            match self.files.get(id).and_then(|file| file.content.as_ref()) {
                Some(content) => drop(found.insert(path.clone(), Some(content.durable().to_vec()))),
                None => drop(found.remove(path)),
            }
        }
        found
    }

    /// Turns the real files into what a power loss leaves, and starts over with them.
    pub(crate) fn lose_power(&mut self, random: &mut Random) -> Result<(), DiskError> {
        self.forget_strangers();
        let survivors = self.names.after_power_loss(random);
        let paths: BTreeSet<&Path> =
            self.names.paths().chain(survivors.keys().map(PathBuf::as_path)).collect();
        for path in paths {
            match survivors.get(path).map(|id| self.files.get(id).and_then(|f| f.content.as_ref()))
            {
                Some(Some(content)) => tree::put(path, &content.after_power_loss(random))?,
                Some(None) => {}
                None => tree::remove(path)?,
            }
            tree::remove_index(path)?;
        }
        self.forget_all();
        Ok(())
    }

    /// From now on the real files are what is safe.
    pub(crate) fn forget_all(&mut self) {
        *self = Self { last: self.last, ..Self::default() };
    }

    /// What other programs did to the directory stays as they left it.
    fn forget_strangers(&mut self) {
        let is_ours = |path: &Path| match self.names.get(path) {
            Some(id) => self.is(id, mark(path)),
            None => mark(path).is_none(),
        };
        let strangers: Vec<PathBuf> =
            self.names.paths().filter(|path| !is_ours(path)).map(Path::to_owned).collect();
        strangers.iter().for_each(|path| self.names.forget(path));
    }

    fn is(&self, id: FileId, mark: Mark) -> bool {
        self.files.get(&id).is_some_and(|file| file.mark == mark)
    }

    /// A file that was there before anybody looked, or that somebody else has put there.
    fn adopt(&mut self, path: &Path) -> FileId {
        let id = self.add(path, None);
        self.names.adopt(path, id);
        id
    }

    fn add(&mut self, path: &Path, content: Option<Content>) -> FileId {
        self.last += 1;
        self.files.insert(self.last, File { content, mark: mark(path), handles: 0 });
        self.last
    }

    fn load(&mut self, path: &Path, id: FileId) -> Result<(), DiskError> {
        match self.files.get_mut(&id) {
            Some(file) if file.content.is_none() => {
                file.content = Some(Content::synced(tree::read(path)?));
            }
            _ => {}
        }
        Ok(())
    }

    /// Drops what the real files have as well, and what no name leads to.
    fn tidy(&mut self) {
        let Self { names, files, .. } = self;
        files.retain(|id, file| file.handles > 0 || names.holds(*id));
        for path_and_id in names.now() {
            match files.get_mut(path_and_id.1) {
                Some(file) if file.is_at_rest() => file.content = None,
                _ => {}
            }
        }
    }

    fn contents(&self) -> impl Iterator<Item = &Content> {
        self.files.values().filter_map(|file| file.content.as_ref())
    }
}

impl File {
    fn is_at_rest(&self) -> bool {
        self.handles == 0 && self.content.as_ref().is_some_and(Content::is_synced)
    }
}

fn mark(path: &Path) -> Mark {
    fs::symlink_metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}
