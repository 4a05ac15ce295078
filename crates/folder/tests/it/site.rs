//! Updates of a folder in memory with a database in memory, by the code that serves real ones.

use crate::replica::path;
use anabranch_core::author::{Draft, Seen, Write};
use anabranch_core::blob::ChunkHash;
use anabranch_core::key::DeviceKey;
use anabranch_core::path::Path;
use anabranch_core::storage::Storage;
use anabranch_folder::fs::{FileSystem, ManualClock, MemFs, Op};
use anabranch_folder::path::RelPath;
use anabranch_folder::{Fetch, FolderBlobs, Site, Updated, found, store};
use anabranch_node::{Device, Replica, ReplicaOptions};
use anabranch_store::MemoryStorage;
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

/// Nobody else is there.
struct Alone;

impl Fetch for Alone {
    fn fetch(&mut self, _: BTreeSet<ChunkHash>) -> bool {
        false
    }
}

struct Folder {
    replica: Arc<Replica>,
    fs: MemFs,
    clock: Arc<ManualClock>,
}

impl Folder {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::at(1_785_759_296_123_456_789));
        let fs = MemFs::new(clock.clone());
        let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
        let device = Device::new(DeviceKey::from_seed(&[1; 32]));
        found(&*storage, &device).unwrap();
        let blobs = Arc::new(FolderBlobs::new(Arc::clone(&storage), Arc::new(fs.clone())));
        let options = ReplicaOptions::default();
        let replica = Replica::open(storage, Some(blobs), device, options).unwrap();
        Self { replica, fs, clock }
    }

    fn update(&self) -> Updated {
        self.clock.advance(5_000_000_000);
        let Self { replica, fs, clock } = self;
        Site { replica, fs, clock: &**clock, tell: &|_| () }.update(&mut Alone).unwrap()
    }

    /// Somebody deletes the path elsewhere.
    fn delete_elsewhere(&self, name: &str) {
        let cell = Path::default().join_bytes(name.as_bytes()).unwrap();
        let seen = Seen::AtCommit;
        let write =
            Write { store: store(), path: cell, value: None, seen, below: false, above: false };
        let draft = Draft { writes: vec![write], members: Vec::new() };
        self.replica.commit_group(&[vec![draft]]).unwrap();
    }

    fn names(&self) -> Vec<String> {
        let tree = self.fs.tree();
        tree.keys().filter(|path| !path.is_reserved()).map(RelPath::to_string).collect()
    }
}

/// The update that deleted the file did not get to sync its directory. The next one finds it gone, as it should be, and has
/// to see that it stays so before it forgets it.
#[test]
fn what_was_found_done_is_done_when_the_power_comes_back() {
    let folder = Folder::new();
    folder.fs.write(&path("a"), b"text").unwrap();
    folder.fs.keep_journal();
    assert_eq!(folder.update().recorded, [path("a")]);
    folder.delete_elsewhere("a");
    folder.fs.set_hook(|_, op, _| match op {
        Op::SyncDir => Err(io::Error::other("killed")),
        _ => Ok(()),
    });
    folder.update();
    folder.fs.clear_hook();
    assert!(folder.fs.lstat(&path("a")).is_err());
    folder.update();
    folder.fs.lose_power(&mut |_| 0);
    let updated = folder.update();
    assert_eq!(updated.recorded, [], "it is not the user's doing");
    assert!(folder.fs.lstat(&path("a")).is_err());
}

#[test]
fn a_file_in_the_place_of_a_directory_whose_contents_were_deleted_elsewhere_is_recorded() {
    let folder = Folder::new();
    folder.fs.make_dir(&path("d")).unwrap();
    folder.fs.write(&path("d/x"), b"text").unwrap();
    assert_eq!(folder.update().recorded, [path("d"), path("d/x")]);
    folder.delete_elsewhere("d/x");
    folder.fs.remove_file(&path("d/x")).unwrap();
    folder.fs.remove_dir(&path("d")).unwrap();
    folder.fs.write(&path("d"), b"file").unwrap();
    assert_eq!(folder.update().recorded, [path("d")]);
    assert_eq!(folder.names(), ["d"]);
}
