//! A folder as a replica: its database lies in its `.anabranch` directory, its files are the database's files.

use crate::base::Source;
use crate::content::FolderBlobs;
use crate::error::FolderError;
use crate::fs::{FileSystem, RealFs, SystemClock};
use crate::path::RelPath;
use crate::scan::Progress;
use crate::tables::{self, BaseRows, There, cell_path, store};
use crate::update::{Fetch, Site, Updated};
use anabranch_core::author::{Draft, Seen, Write};
use anabranch_core::blob::ChunkHash;
use anabranch_core::cells::LiveValue;
use anabranch_core::founding::Founding;
use anabranch_core::id::DatabaseId;
use anabranch_core::ops::Role;
use anabranch_core::storage::Storage;
use anabranch_core::ticket::Ticket;
use anabranch_node::{Intent, Node, Record, Replica};
use anabranch_store::SqliteStorage;
use anabranch_sync::work::Blobs;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

const DATABASE: &str = "replica.db";
const LOCK: &str = "lock";
/// How often an update that waits for content looks whether it is to stop.
const STOP_CHECK: Duration = Duration::from_millis(200);

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
    stopping: AtomicBool,
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

    pub(crate) fn disk(&self) -> &RealFs {
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

    /// Brings database and folder in line with each other. Content that is lacking is asked of connected peers. Blocking.
    ///
    /// # Errors
    /// [`FolderError`]; trouble with single paths is in the result.
    pub fn update(&self) -> Result<(), FolderError> {
        let lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        rustix::fs::flock(&*lock, rustix::fs::FlockOperation::LockExclusive)
            .map_err(|e| root_error(&self.root, e.into()))?;
        let tell = |progress: &Progress| _ = self.progress.send_replace(*progress);
        let site = Site { replica: &self.replica, fs: &*self.fs, clock: &SystemClock, tell: &tell };
        let result = site.update(&mut FromPeers { folder: self });
        let unlocked = rustix::fs::flock(&*lock, rustix::fs::FlockOperation::Unlock);
        drop(lock);
        self.done.lock().unwrap_or_else(PoisonError::into_inner).add(result?);
        unlocked.map_err(|e| root_error(&self.root, e.into()))
    }

    /// What updates did since this was last called.
    #[must_use]
    pub fn take_done(&self) -> Updated {
        std::mem::take(&mut self.done.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Updates whenever something arrives or a peer connects from now on, until `stop` becomes true. Peers wait for it
    /// from the moment of this call, not only once the result is polled.
    pub(crate) fn work(
        self: Arc<Self>,
        mut stop: watch::Receiver<bool>,
    ) -> impl Future<Output = Result<(), FolderError>> + Send {
        let mut versions = self.replica.versions();
        let mut unsettled = self.replica.unsettled();
        self.replica.attach_worker();
        self.stopping.store(false, Ordering::SeqCst);
        async move {
            let (watched, mut ends) = (Arc::clone(&self), stop.clone());
            // An update that waits for content is told as well.
            let stopper = tokio::spawn(async move {
                if ends.wait_for(|stop| *stop).await.is_ok() {
                    watched.stopping.store(true, Ordering::SeqCst);
                }
            });
            let result = self.follow(&mut versions, &mut unsettled, &mut stop).await;
            stopper.abort();
            self.replica.detach_worker();
            result
        }
    }

    async fn follow(
        self: &Arc<Self>,
        versions: &mut watch::Receiver<u64>,
        unsettled: &mut watch::Receiver<BTreeSet<u64>>,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<(), FolderError> {
        let mut last = Ok(());
        loop {
            tokio::select! {
                changed = versions.changed() => if changed.is_err() { return last },
                _ = stop.wait_for(|stop| *stop) => return last,
            }
            // Entries that are under way come first: half a tree is not worth looking at.
            tokio::select! {
                _ = unsettled.wait_for(BTreeSet::is_empty) => {}
                _ = stop.wait_for(|stop| *stop) => return last,
            }
            // A failure may pass (a full disk, say), so the next change is tried again; the last word counts.
            last = self.settle(versions).await;
            if let Err(e) = &last {
                tracing::warn!(folder = %self.root.display(), "bringing the folder up to date failed: {e}");
                self.replica.worked(*versions.borrow());
            }
        }
    }

    /// Updates until nothing has changed since the last update began.
    async fn settle(
        self: &Arc<Self>,
        versions: &mut watch::Receiver<u64>,
    ) -> Result<(), FolderError> {
        let version = *versions.borrow_and_update();
        let device = self.replica.device().id();
        if self.replica.look(|view| view.role_of(&device))?.is_none() {
            // Not let in yet: what is here is looked at when it can be recorded.
            return Ok(());
        }
        let folder = Arc::clone(self);
        tokio::task::spawn_blocking(move || folder.update())
            .await
            .map_err(|_| FolderError::Node(anabranch_node::NodeError::Closed))??;
        self.replica.worked(version);
        Ok(())
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

/// Asks the connected peers for blobs and waits.
struct FromPeers<'a> {
    folder: &'a Folder,
}

impl Fetch for FromPeers<'_> {
    fn fetch(&mut self, hashes: BTreeSet<ChunkHash>) -> bool {
        let replica = self.folder.replica();
        let asked = hashes.len();
        replica.want(hashes);
        while !self.folder.stopping.load(Ordering::SeqCst) {
            let seen = replica.blobs_moved();
            let (lacking, unobtainable) = replica.lacking();
            if lacking == unobtainable {
                return lacking < asked;
            }
            replica.wait_for_blobs(seen, STOP_CHECK);
        }
        false
    }
}
