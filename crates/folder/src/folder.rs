//! A folder as a replica: its database lies in its `.anabranch` directory, its files are the database's files.

use crate::base::Source;
use crate::content::FolderBlobs;
use crate::dirty::Dirty;
use crate::error::FolderError;
use crate::fs::{FileSystem, RealFs, SystemClock};
use crate::live::{FromPeers, Look};
use crate::path::RelPath;
use crate::scan::Progress;
use crate::tables::{self, BaseRows, There, cell_path, store};
use crate::update::{Site, Updated};
use anabranch_core::author::{Draft, Seen, Write};
use anabranch_core::cells::LiveValue;
use anabranch_core::founding::Founding;
use anabranch_core::id::DatabaseId;
use anabranch_core::ops::Role;
use anabranch_core::storage::Storage;
use anabranch_core::ticket::Ticket;
use anabranch_node::{Intent, Node, Record, Replica};
use anabranch_store::SqliteStorage;
use anabranch_sync::work::Blobs;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

const DATABASE: &str = "replica.db";
const LOCK: &str = "lock";

/// A folder that is a replica.
pub struct Folder {
    root: PathBuf,
    replica: Arc<Replica>,
    fs: Arc<RealFs>,
    file: Arc<SqliteStorage>,
    /// One update at a time in this process; others are kept out by a lock on a file.
    lock: Mutex<fs::File>,
    progress: watch::Sender<Progress>,
    /// What updates did since it was last taken.
    done: Mutex<Updated>,
    pub(crate) stopping: AtomicBool,
    pub(crate) look: Look,
}

impl std::fmt::Debug for Folder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Folder({})", self.root.display())
    }
}

/// A path with several live values that differ.
#[derive(Debug, Clone)]
pub struct Conflict {
    /// The path.
    pub path: RelPath,
    /// Its values, the one shown first.
    pub values: Vec<LiveValue>,
}

fn state_dir(root: &Path) -> PathBuf {
    root.join(".anabranch")
}

fn root_error(path: &Path, source: std::io::Error) -> FolderError {
    FolderError::Root { path: path.to_owned(), source }
}

fn other_database(path: &Path, found: DatabaseId, wanted: DatabaseId) -> FolderError {
    FolderError::OtherDatabase {
        path: path.to_owned(),
        found: found.short(),
        wanted: wanted.short(),
    }
}

impl Folder {
    /// Whether the folder at `root` is a replica.
    #[must_use]
    pub fn is_adopted(root: &Path) -> bool {
        state_dir(root).join(DATABASE).exists()
    }

    /// Makes the folder at `root` the first replica of a new database. It is created if it is not there.
    ///
    /// # Errors
    /// [`FolderError`] when it cannot be, or is a replica already.
    pub fn adopt(node: &Node, root: &Path) -> Result<Arc<Self>, FolderError> {
        Self::adopt_with(node, root, Founding::default())
    }

    /// As [`Self::adopt`], sealed or with a key for recovery.
    ///
    /// # Errors
    /// As [`Self::adopt`].
    pub fn adopt_with(
        node: &Node,
        root: &Path,
        founding: Founding,
    ) -> Result<Arc<Self>, FolderError> {
        let found = |storage: &dyn Storage| Ok(tables::found(storage, node.device(), founding)?);
        Self::set_up(node, root, &[], None, found)
    }

    /// Makes the folder at `root` an empty replica of `database`, to be filled by a peer. It is created if it is not
    /// there; one that is a replica of `database` already is opened.
    ///
    /// # Errors
    /// [`FolderError::OtherDatabase`] when it is a replica of something else.
    pub fn prepare(
        node: &Node,
        root: &Path,
        database: DatabaseId,
        ticket: Option<&Ticket>,
    ) -> Result<Arc<Self>, FolderError> {
        if Self::is_adopted(root) {
            let folder = Self::open(node, root)?;
            let found = folder.replica.database();
            if found != database {
                return Err(other_database(root, found, database));
            }
            if let Some(ticket) = ticket {
                folder.remember(node, ticket)?;
            }
            return Ok(folder);
        }
        let addresses = ticket.map(|t| t.addresses.clone()).unwrap_or_default();
        let seed = ticket.map(|t| t.key.seed());
        Self::set_up(node, root, &addresses, seed, |storage| {
            Replica::prepare(storage, database)?;
            Ok(database)
        })
    }

    fn set_up(
        node: &Node,
        root: &Path,
        addresses: &[String],
        ticket: Option<[u8; 32]>,
        make: impl FnOnce(&dyn Storage) -> Result<DatabaseId, FolderError>,
    ) -> Result<Arc<Self>, FolderError> {
        let dir = state_dir(root);
        fs::create_dir_all(root).map_err(|e| root_error(root, e))?;
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .map_err(|e| root_error(&dir, e))?;
        // Made under another name, so that a crash leaves no replica of nothing.
        let (fresh, file) = (dir.join("replica.new"), dir.join(DATABASE));
        for suffix in ["", "-wal", "-shm"] {
            let _ = fs::remove_file(dir.join(format!("replica.new{suffix}")));
        }
        let storage = SqliteStorage::create(&fresh, node.settings().store.clone())?;
        make(&storage)?;
        drop(storage);
        fs::rename(&fresh, &file).map_err(|e| root_error(&file, e))?;
        fs::File::open(&dir).and_then(|d| d.sync_all()).map_err(|e| root_error(&dir, e))?;
        let folder = Self::open(node, root)?;
        folder.register(node, addresses, ticket)?;
        Ok(folder)
    }

    /// Opens the folder at `root`, which is a replica.
    ///
    /// # Errors
    /// [`FolderError::NotAdopted`], or what its database reports.
    pub fn open(node: &Node, root: &Path) -> Result<Arc<Self>, FolderError> {
        let root = fs::canonicalize(root).map_err(|e| root_error(root, e))?;
        if !Self::is_adopted(&root) {
            return Err(FolderError::NotAdopted(root));
        }
        let folder = Self::at(node, &root, &state_dir(&root))?;
        if node.records()?.iter().all(|r| !r.folder || r.path != folder.root) {
            folder.register(node, &[], None)?;
        }
        Ok(folder)
    }

    /// The folder at `root` with its database in `dir`.
    fn at(node: &Node, root: &Path, dir: &Path) -> Result<Arc<Self>, FolderError> {
        let disk = Arc::new(RealFs::open_root(root).map_err(|e| root_error(root, e))?);
        let file =
            Arc::new(SqliteStorage::open(dir.join(DATABASE), node.settings().store.clone())?);
        let storage = Arc::clone(&file) as Arc<dyn Storage>;
        let files = Arc::clone(&disk) as Arc<dyn FileSystem>;
        let blobs: Arc<dyn Blobs> = Arc::new(FolderBlobs::new(Arc::clone(&storage), files));
        let replica =
            Replica::open(storage, Some(blobs), node.device().clone(), node.settings().replica)?;
        node.adopt(&replica);
        let lock = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(dir.join(LOCK))
            .map_err(|e| root_error(dir, e))?;
        Ok(Arc::new(Self {
            root: root.to_owned(),
            replica,
            fs: disk,
            file,
            lock: Mutex::new(lock),
            progress: watch::Sender::new(Progress::default()),
            done: Mutex::default(),
            stopping: AtomicBool::new(false),
            look: Look::default(),
        }))
    }

    /// The folder at `root`, with a copy of its database in `dir`: whatever is done with it does not reach the folder.
    /// One that is no replica yet becomes one of `database` (or of a new one) in the copy alone; one that is not there
    /// counts as empty.
    pub(crate) fn copied(
        node: &Node,
        root: &Path,
        dir: &Path,
        database: Option<DatabaseId>,
    ) -> Result<Arc<Self>, FolderError> {
        let empty = dir.join("empty");
        fs::create_dir_all(&empty).map_err(|e| root_error(&empty, e))?;
        let options = || node.settings().store.clone();
        let file = dir.join(DATABASE);
        if Self::is_adopted(root) {
            SqliteStorage::open(state_dir(root).join(DATABASE), options())?.backup_to(&file)?;
        } else {
            let storage = SqliteStorage::create(&file, options())?;
            match database {
                Some(database) => Replica::prepare(&storage, database)?,
                None => _ = tables::found(&storage, node.device(), Founding::default())?,
            }
        }
        let folder = Self::at(node, if root.exists() { root } else { &empty }, dir)?;
        match database {
            Some(wanted) if folder.replica.database() != wanted => {
                Err(other_database(root, folder.replica.database(), wanted))
            }
            _ => Ok(folder),
        }
    }

    pub(crate) fn disk(&self) -> &Arc<RealFs> {
        &self.fs
    }

    fn register(
        &self,
        node: &Node,
        addresses: &[String],
        ticket: Option<[u8; 32]>,
    ) -> Result<(), FolderError> {
        let Some(home) = node.home() else { return Ok(()) };
        let name = self.root.file_name().map_or_else(String::new, |n| n.to_string_lossy().into());
        home.put_record(&Record {
            database: self.replica.database(),
            name,
            folder: true,
            path: self.root.clone(),
            intents: addresses.iter().map(Intent::new).collect(),
            ticket,
            request: None,
        })?;
        Ok(())
    }

    /// Remembers where `ticket` leads, and the ticket itself if it is still needed, where nothing is remembered: whoever
    /// set this replica up may have died before that.
    fn remember(&self, node: &Node, ticket: &Ticket) -> Result<(), FolderError> {
        let mut records = node.records()?.into_iter();
        if records.any(|r| r.folder && r.path == self.root && !r.intents.is_empty()) {
            return Ok(());
        }
        let device = node.id();
        let member = self.replica.look(|view| view.role_of(&device))? >= Some(Role::Read);
        self.register(node, &ticket.addresses, (!member).then(|| ticket.key.seed()))
    }

    /// Where it is.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Its replica.
    #[must_use]
    pub fn replica(&self) -> &Arc<Replica> {
        &self.replica
    }

    /// Its database file.
    #[must_use]
    pub fn file(&self) -> &Arc<SqliteStorage> {
        &self.file
    }

    /// How far scans have come.
    #[must_use]
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Whether nothing was ever brought in step here: then it must hear from its peers before it looks at its own files,
    /// so that what both have is not taken for two different things.
    ///
    /// # Errors
    /// What storage reports.
    pub fn is_new(&self) -> Result<bool, FolderError> {
        Ok(tables::is_new(&self.replica)?)
    }

    /// Brings database and folder in line with each other: looks at all of the folder, or if it is being watched at what
    /// changed. Content that is lacking is asked of connected peers. Blocking.
    ///
    /// # Errors
    /// [`FolderError`]; trouble with single paths is in the result.
    pub fn update(&self) -> Result<(), FolderError> {
        let lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        rustix::fs::flock(&*lock, rustix::fs::FlockOperation::LockExclusive)
            .map_err(|e| root_error(&self.root, e.into()))?;
        let result = self.update_locked();
        let unlocked = rustix::fs::flock(&*lock, rustix::fs::FlockOperation::Unlock);
        drop(lock);
        self.done.lock().unwrap_or_else(PoisonError::into_inner).add(result?);
        unlocked.map_err(|e| root_error(&self.root, e.into()))
    }

    fn update_locked(&self) -> Result<Updated, FolderError> {
        let dirty = self.look.take();
        let tell = |progress: &Progress| _ = self.progress.send_replace(*progress);
        let entering = |dir: Option<&RelPath>| self.look.enter(dir);
        let (replica, fs, clock) = (&self.replica, &*self.fs, &SystemClock);
        let site = Site { replica, fs, clock, tell: &tell, entering: &entering };
        let result = site.update(&dirty, &mut FromPeers { folder: self });
        self.look.again(match &result {
            Ok(updated) => updated.dirty.clone(),
            Err(_) => Dirty::Everything,
        });
        result
    }

    /// What updates did since this was last called.
    #[must_use]
    pub fn take_done(&self) -> Updated {
        std::mem::take(&mut self.done.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Every path whose values differ.
    ///
    /// # Errors
    /// What storage reports.
    pub fn conflicts(&self) -> Result<Vec<Conflict>, FolderError> {
        self.replica.read_store(&store(), |view| {
            let mut found = Vec::new();
            for row in There::new(view) {
                let (path, values) = row?;
                let differ = values.iter().any(|v| !v.state.same_content(&values[0].state));
                if differ {
                    let values = view.cell(&store(), &cell_path(&path)?)?;
                    found.push(Conflict { path, values });
                }
            }
            Ok(found)
        })
    }

    /// Settles the conflict at `path` by its value number `take`, counted from 1 as [`Self::conflicts`] lists them. The
    /// folders follow with their next update.
    ///
    /// # Errors
    /// [`FolderError::Resolve`] when there is no conflict or no such value.
    pub async fn resolve(&self, path: &RelPath, take: usize) -> Result<(), FolderError> {
        let cell = cell_path(path)?;
        let values = self.replica.read_store(&store(), |view| view.cell(&store(), &cell))?;
        if values.len() < 2 {
            return Err(FolderError::Resolve(format!("{path} has no conflict")));
        }
        let Some(chosen) = take.checked_sub(1).and_then(|n| values.get(n)) else {
            return Err(FolderError::Resolve(format!(
                "{path} has {} versions, there is no number {take}",
                values.len()
            )));
        };
        let seen = Seen::Values(values.iter().map(|v| v.name).collect());
        let value = Some(chosen.value.clone());
        let write = Write { store: store(), path: cell, value, seen, below: false, above: false };
        self.replica.commit(vec![Draft { writes: vec![write], ..Draft::default() }]).await?;
        Ok(())
    }

    /// Files, directories and links that are in step here, and the bytes of the files.
    ///
    /// # Errors
    /// What storage reports.
    pub fn counts(&self) -> Result<(u64, u64), FolderError> {
        self.replica.read_tables(|tx| {
            let (mut paths, mut bytes) = (0, 0);
            for row in BaseRows::new(tx) {
                let (_, base) = row?;
                if matches!(base.source, Source::Path { .. }) {
                    paths += 1;
                    bytes += base.state.content().map_or(0, |c| c.size());
                }
            }
            Ok((paths, bytes))
        })
    }
}

impl Updated {
    fn add(&mut self, later: Self) {
        let before = std::mem::take(self);
        *self = later;
        self.recorded.splice(0..0, before.recorded);
        self.applied.splice(0..0, before.applied);
        self.bytes_written += before.bytes_written;
    }
}
