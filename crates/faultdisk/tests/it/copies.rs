//! Older copies put back, and copies on other disks.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use anabranch_core::storage::Storage;
use anabranch_faultdisk::{Disk, DiskError};
use anabranch_store::SqliteStorage;

use crate::plan::{Asking, Plan, Progress};
use crate::world::{World, contents, options, scratch};

#[test]
fn an_older_copy_is_the_same_place_at_an_earlier_time() {
    let plan = Plan::new(14, 10, Asking::Full);
    let world = World::new(14);
    let mut progress = Progress::default();
    let storage = world.create().unwrap();
    plan.run(&storage, &mut progress, 4).unwrap();
    let mark = storage.instance();
    assert!(matches!(world.disk.snapshot(), Err(DiskError::Open(_))));
    drop(storage);
    let older = world.disk.snapshot().unwrap();

    let storage = world.open().unwrap();
    plan.run(&storage, &mut progress, 9).unwrap();
    world.disk.kill();
    drop(storage);
    assert!(world.disk.snapshot().unwrap() != older);
    world.disk.restore(&older).unwrap();
    assert!(world.disk.snapshot().unwrap() == older);

    let storage = world.open().unwrap();
    assert_eq!(plan.place(&contents(&storage).unwrap(), 0, 4), Some(4));
    assert_eq!(storage.instance(), mark);
    plan.run(&storage, &mut Progress::at(4), 10).unwrap();
    assert!(plan.is_whole(&contents(&storage).unwrap()));
}

#[test]
fn a_clone_is_another_place_with_what_is_safe() {
    let plan = Plan::new(15, 12, Asking::Full);
    let rest = Plan::new(15, 12, Asking::Normal);
    let world = World::new(15);
    let mut progress = Progress::default();
    let storage = world.create().unwrap();
    plan.run(&storage, &mut progress, 3).unwrap();
    rest.run(&storage, &mut progress, 5).unwrap();
    let elsewhere = scratch();
    world.disk.clone_to(elsewhere.path()).unwrap();
    assert!(world.disk.statistics().bytes_unsynced > 0);

    let other = Disk::new(elsewhere.path(), 16).unwrap();
    let copy = SqliteStorage::open(other.path().join("x.db"), options()).unwrap();
    assert_eq!(plan.place(&contents(&copy).unwrap(), 0, 12), Some(3));
    assert_ne!(copy.instance(), storage.instance());
    // They have nothing to do with each other.
    other.crash();
    plan.run(&storage, &mut progress, 12).unwrap();
    assert!(contents(&copy).is_err());
    assert!(plan.is_whole(&contents(&storage).unwrap()));
}

#[test]
fn a_recovered_disk_has_the_same_file_and_no_index() {
    let plan = Plan::new(17, 8, Asking::Full);
    let world = World::new(17);
    let storage = world.create().unwrap();
    plan.run(&storage, &mut Progress::default(), 8).unwrap();
    let (mark, inode) = (storage.instance(), fs::metadata(world.file()).unwrap().ino());
    let index = world.disk.path().join("x.db-shm");
    assert!(index.exists());
    world.disk.crash();
    assert!(world.disk.is_off());
    assert!(matches!(world.disk.recover(), Err(DiskError::Open(_))));
    drop(storage);
    assert!(world.open().is_err());
    world.disk.recover().unwrap();
    assert!(!world.disk.is_off() && !index.exists());
    let storage = world.open().unwrap();
    assert_eq!((storage.instance(), fs::metadata(world.file()).unwrap().ino()), (mark, inode));
}

#[test]
fn a_backup_survives_power_loss() {
    let plan = Plan::new(18, 8, Asking::Normal);
    let world = World::new(18);
    let storage = world.create().unwrap();
    plan.run(&storage, &mut Progress::default(), 8).unwrap();
    let target = world.disk.path().join("backup.db");
    storage.backup_to(&target).unwrap();
    world.disk.crash();
    drop(storage);
    world.disk.recover().unwrap();
    let backup = SqliteStorage::open(&target, options()).unwrap();
    assert!(plan.is_whole(&contents(&backup).unwrap()));
}

#[test]
fn a_directory_is_one_disk_only() {
    let world = World::new(19);
    for path in [world.disk.path(), &world.disk.path().join("within")] {
        assert!(matches!(Disk::new(path, 1), Err(DiskError::Overlaps(_))));
    }
}

/// Else a test could pass because the fault passes it by. Vetting, writing and reading each have a connection of their own.
#[test]
fn every_connection_is_one_of_the_disk() {
    let world = World::new(20);
    let reads_of = |operations: &dyn Fn()| {
        let before = world.disk.statistics().reads;
        operations();
        world.disk.statistics().reads - before
    };
    let foreign = world.disk.path().join("notes.txt");
    fs::write(&foreign, [b'x'; 5_000]).unwrap();
    assert!(reads_of(&|| drop(SqliteStorage::open(&foreign, options()).unwrap_err())) > 0);

    let storage = world.create().unwrap();
    assert!(reads_of(&|| drop(contents(&storage).unwrap())) > 0);
    let written = world.disk.statistics().bytes_written;
    Plan::new(20, 1, Asking::Full).run(&storage, &mut Progress::default(), 1).unwrap();
    assert!(world.disk.statistics().bytes_written > written);
}

#[test]
fn threads_may_share_a_disk() {
    let plan = Plan::new(23, 60, Asking::Normal);
    let world = World::new(23);
    let storage = world.create().unwrap();
    std::thread::scope(|scope| {
        let look =
            || (0..40).all(|_| plan.place(&contents(&storage).unwrap(), 0, plan.len()).is_some());
        let readers = [0; 3].map(|_| scope.spawn(look));
        plan.run(&storage, &mut Progress::default(), plan.len()).unwrap();
        assert!(readers.into_iter().all(|reader| reader.join().unwrap()));
    });
    assert!(plan.is_whole(&contents(&storage).unwrap()));
}
