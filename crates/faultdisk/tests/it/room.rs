//! A disk without room: an error that says so, nothing lost, and on it goes when there is room.

use anabranch_core::storage::{Durability, Storage, StorageError, Table};
use anabranch_store::SqliteStorage;

use crate::plan::{Asking, Plan, Progress};
use crate::world::{World, contents};

/// Bytes between one amount of room and the next that is tried. Commits grow the files by several times that.
const STRIDE: u64 = 1_511;

/// Carries out the plan with so much room; whether that was enough.
fn is_enough(room: u64, plan: &Plan) -> bool {
    let world = World::new(room);
    world.disk.full(room);
    let mut progress = Progress::default();
    let mut failures = 0;
    let mut storage = match world.create() {
        Ok(storage) => storage,
        Err(error) => {
            assert!(matches!(error, StorageError::Full), "{room}: {error}");
            assert_eq!(world.disk.statistics().faults, 1, "{room}");
            world.disk.not_full();
            world.create().or_else(|_| world.open()).unwrap()
        }
    };
    while progress.acknowledged < plan.len() {
        let half = progress.acknowledged / (plan.len() / 2) + 1;
        match plan.run(&storage, &mut progress, half * plan.len() / 2) {
            Ok(()) => {
                drop(storage);
                storage = world.open().unwrap_or_else(|error| {
                    assert!(matches!(error, StorageError::Full), "{room}: {error}");
                    world.disk.not_full();
                    world.open().unwrap()
                });
            }
            Err(error) => {
                assert!(matches!(error, StorageError::Full), "{room}: {error}");
                failures += 1;
                // The second time, as it is after somebody has made room.
                if failures == 2 {
                    world.disk.not_full();
                }
                assert!(failures <= 2, "{room}: still full");
            }
        }
        let found = contents(&storage).unwrap_or_else(|error| {
            // The first read of all needs room for the index of the log.
            assert!(matches!(error, StorageError::Full), "{room}: {error}");
            world.disk.not_full();
            contents(&storage).unwrap()
        });
        let count = progress.acknowledged;
        assert_eq!(plan.place(&found, count, count), Some(count), "{room}");
    }
    assert_eq!(storage.check().unwrap(), [""; 0]);
    world.disk.statistics().faults == 0
}

#[test]
fn a_disk_that_is_full_at_any_point_loses_nothing() {
    let plan = Plan::new(8, 12, Asking::Mixed);
    let mut room = 0;
    while !is_enough(room, &plan) {
        room += STRIDE;
    }
    assert!(room > 100_000, "{room}");
}

/// Closing removes the log and its index.
#[test]
fn room_that_files_give_up_can_be_used_again() {
    let world = World::new(9);
    let put = |storage: &SqliteStorage| {
        let mut writer = storage.write(Durability::Full)?;
        writer.put(Table::Meta, b"key", &[world.disk.statistics().writes as u8; 100])?;
        writer.commit()
    };
    // One row, so that the database itself does not grow.
    let storage = world.create().unwrap();
    put(&storage).unwrap();
    drop(storage);
    let storage = world.open().unwrap();
    (0..3).for_each(|_| put(&storage).unwrap());
    world.disk.full(0);
    assert!(matches!(put(&storage), Err(StorageError::Full)));
    drop(storage);
    let storage = world.open().unwrap();
    (0..3).for_each(|_| put(&storage).unwrap());
    assert!(matches!(put(&storage), Err(StorageError::Full)));
}
