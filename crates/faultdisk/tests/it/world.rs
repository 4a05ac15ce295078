//! A disk in a directory of its own, and a database on it.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anabranch_core::storage::{Order, Storage, StorageError, Table};
use anabranch_faultdisk::Disk;
use anabranch_store::{Options, SqliteStorage, Vfs};
use tempfile::TempDir;

use crate::plan::{Contents, Plan, Progress};

pub(crate) struct World {
    pub(crate) disk: Disk,
    /// Whether the log is moved by a thread beside: then no two lives are the same.
    pub(crate) beside: bool,
    _directory: TempDir,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let directory = scratch();
        Self {
            disk: Disk::new(directory.path(), seed).unwrap(),
            beside: false,
            _directory: directory,
        }
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.disk.path().join("x.db")
    }

    fn options(&self) -> Options {
        Options { checkpoint_beside: self.beside, ..options() }
    }

    pub(crate) fn create(&self) -> Result<SqliteStorage, StorageError> {
        SqliteStorage::create(self.file(), self.options())
    }

    pub(crate) fn open(&self) -> Result<SqliteStorage, StorageError> {
        SqliteStorage::open(self.file(), self.options())
    }

    /// A database from which the plan is carried out in two sittings, to the end or until something fails.
    pub(crate) fn live(&self, plan: &Plan, progress: &mut Progress) -> Result<(), StorageError> {
        let storage = self.create()?;
        self.go_on(storage, plan, progress)
    }

    /// As [`World::live`], with a database that is there.
    pub(crate) fn go_on(
        &self,
        storage: SqliteStorage,
        plan: &Plan,
        progress: &mut Progress,
    ) -> Result<(), StorageError> {
        plan.run(&storage, progress, plan.len() / 2)?;
        drop(storage);
        let storage = self.open()?;
        plan.run(&storage, progress, plan.len())
    }
}

/// A directory in memory, where there is such a thing.
pub(crate) fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        tempfile::tempdir_in(memory).unwrap()
    } else {
        tempfile::tempdir().unwrap()
    }
}

/// Small limits, so that a few commits see checkpoints, and a log that is cut and starts anew.
pub(crate) fn options() -> Options {
    Options {
        checkpoint_pages: 12,
        checkpoint_beside: false,
        wal_keep: 60_000,
        vfs: Some(Vfs { name: anabranch_faultdisk::NAME, sync: anabranch_faultdisk::sync }),
        ..Options::default()
    }
}

pub(crate) fn contents(storage: &SqliteStorage) -> Result<Contents, StorageError> {
    let mut contents = Contents::new();
    let reader = storage.read()?;
    for table in Table::ALL {
        reader.scan(table, b"", None, Order::Ascending, &mut |key, value| {
            contents.insert((table, key.to_vec()), value.to_vec());
            ControlFlow::Continue(())
        })?;
    }
    Ok(contents)
}
