//! Updates of a folder in memory with a database in memory, by the code that serves real ones.

use crate::replica::path;
use anabranch_core::author::{Draft, Seen, Write};
use anabranch_core::blob::{ChunkHash, ContentRef};
use anabranch_core::founding::Founding;
use anabranch_core::key::DeviceKey;
use anabranch_core::ops::ValueName;
use anabranch_core::path::Path;
use anabranch_core::storage::Storage;
use anabranch_folder::dirty::Dirty;
use anabranch_folder::fs::{FileSystem, ManualClock, MemFs, Op};
use anabranch_folder::path::RelPath;
use anabranch_folder::state::State;
use anabranch_folder::{Fetch, Fetched, FolderBlobs, Site, Updated, found, store};
use anabranch_node::{Device, Replica, ReplicaOptions};
use anabranch_store::MemoryStorage;
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

/// Nobody else is there.
struct Alone;

impl Fetch for Alone {
    fn fetch(&mut self, _: BTreeSet<ChunkHash>) -> Fetched {
        Fetched::Nothing
    }
}

pub(crate) struct Folder {
    pub(crate) replica: Arc<Replica>,
    pub(crate) fs: MemFs,
    pub(crate) clock: Arc<ManualClock>,
}

impl Folder {
    fn new() -> Self {
        Self::founded(Founding::default())
    }

    pub(crate) fn founded(founding: Founding) -> Self {
        let clock = Arc::new(ManualClock::at(1_785_759_296_123_456_789));
        let fs = MemFs::new(clock.clone());
        let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
        let device = Device::new(DeviceKey::from_seed(&[1; 32]));
        found(&*storage, &device, founding).unwrap();
        let blobs = Arc::new(FolderBlobs::new(Arc::clone(&storage), Arc::new(fs.clone())));
        let options = ReplicaOptions::default();
        let replica = Replica::open(storage, Some(blobs), device, options).unwrap();
        Self { replica, fs, clock }
    }

    pub(crate) fn update(&self) -> Updated {
        self.clock.advance(5_000_000_000);
        let Self { replica, fs, clock } = self;
        let site = Site { replica, fs, clock: &**clock, tell: &|_| (), entering: &|_| () };
        site.update(&Dirty::Everything, &mut Alone).unwrap()
    }

    /// Somebody gives the path another value elsewhere, or none, having seen `seen`.
    fn write_elsewhere(&self, name: &str, text: Option<&str>, seen: Seen) {
        let state = text.map(|text| {
            let hash = ChunkHash::of(text.as_bytes());
            self.replica.blobs().put(&[(hash, text.as_bytes().to_vec())]).unwrap();
            let content = ContentRef::new(text.len() as u64, 0, hash).unwrap();
            State::File { content, kept: None, mode: 0o644, mtime_ns: 7 }
        });
        self.state_elsewhere(name, state.as_ref(), seen);
    }

    /// The same with a state, whether its content is here or not.
    pub(crate) fn state_elsewhere(&self, name: &str, state: Option<&State>, seen: Seen) {
        let value = state.map(State::encode);
        let (store, path) = (store(), cell(name));
        let write = Write { store, path, value, seen, below: false, above: false };
        let draft = Draft { writes: vec![write], ..Draft::default() };
        self.replica.commit_group(&[vec![draft]]).unwrap();
    }

    /// Somebody deletes the path elsewhere.
    fn delete_elsewhere(&self, name: &str) {
        self.write_elsewhere(name, None, Seen::AtCommit);
    }

    /// The values of the path, the winner first.
    fn values(&self, name: &str) -> Vec<ValueName> {
        let values = self.replica.read(|view| view.cell(&store(), &cell(name))).unwrap();
        values.iter().map(|value| value.name).collect()
    }

    /// An update that is killed before the operation on the files that `when` picks.
    fn killed(&self, when: impl Fn(Op, Option<&RelPath>) -> bool + Send + 'static) {
        self.fs.set_hook(move |_, op, at| match when(op, at) {
            true => std::panic::resume_unwind(Box::new("killed")),
            false => Ok(()),
        });
        let update = std::panic::AssertUnwindSafe(|| drop(self.update()));
        std::panic::catch_unwind(update).unwrap_err();
        self.fs.clear_hook();
    }

    fn names(&self) -> Vec<String> {
        let tree = self.fs.tree();
        tree.keys().filter(|path| !path.is_reserved()).map(RelPath::to_string).collect()
    }
}

pub(crate) fn cell(name: &str) -> Path {
    Path::default().join_bytes(name.as_bytes()).unwrap()
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

/// The update that moved a file to the name of its conflict copy was killed. The copy cannot be read for a while, and when the
/// conflict is gone the tree does not name it any more.
#[test]
fn what_was_moved_where_nobody_can_look_was_not_deleted() {
    let folder = Folder::new();
    folder.fs.write(&path("a"), b"mine").unwrap();
    assert_eq!(folder.update().recorded, [path("a")]);
    folder.write_elsewhere("a", Some("theirs"), Seen::Values(Vec::new()));
    folder.killed(|op, at| op == Op::Rename && at != Some(&path("a")));
    let [copy] = &folder.names()[..] else { panic!("{:?}", folder.names()) };
    let copy = path(copy);
    let theirs = folder.values("a")[0];
    folder.write_elsewhere("a", None, Seen::Values(vec![theirs]));
    let unreadable = copy.clone();
    folder.fs.set_hook(move |_, _, at| match at == Some(&unreadable) {
        true => Err(io::ErrorKind::PermissionDenied.into()),
        false => Ok(()),
    });
    let updated = folder.update();
    assert_eq!((&updated.recorded, updated.problems.len()), (&Vec::new(), 1));
    assert_eq!(folder.values("a").len(), 1, "the user did not delete it");
    folder.fs.clear_hook();
    assert_eq!(folder.update().recorded, []);
    assert_eq!(folder.names(), ["a"]);
    assert_eq!(folder.fs.read(&path("a")).unwrap(), b"mine");
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

/// The update that put the winner in the place of what is its conflict copy now was killed. Meanwhile somebody takes the copy's
/// side.
#[test]
fn what_an_update_put_in_the_place_of_something_does_not_outdo_what_came_since() {
    let folder = Folder::new();
    folder.fs.write(&path("a"), b"mine").unwrap();
    assert_eq!(folder.update().recorded, [path("a")]);
    folder.write_elsewhere("a", Some("theirs"), Seen::Values(Vec::new()));
    folder.killed(|op, _| op == Op::SyncDir);
    assert_eq!(folder.fs.read(&path("a")).unwrap(), b"theirs");
    folder.write_elsewhere("a", Some("mine"), Seen::AtCommit);
    assert_eq!(folder.update().recorded, [], "it is not the user's doing");
    assert_eq!(folder.names(), ["a"]);
    assert_eq!(folder.fs.read(&path("a")).unwrap(), b"mine");
}
