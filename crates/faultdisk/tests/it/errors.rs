//! An I/O error at every operation, reads as well: an error for the caller, and nothing that was acknowledged is lost.

use anabranch_core::storage::StorageError;

use crate::plan::{Asking, Plan, Progress};
use crate::world::{World, contents};

/// What happens when the plan has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    Nothing,
    PowerLoss,
    /// Power loss, on a disk that takes what a failed sync should have written for written.
    Forgetting,
}

/// Carries out the plan, in which one operation fails. Whether it came to that.
fn fails_at(operation: u64, plan: &Plan, after: After) -> bool {
    let world = World::new(operation);
    world.disk.forget(after == After::Forgetting);
    world.disk.fail_io(operation);
    let mut progress = Progress::default();
    let mut created = false;
    let ended = world.create().and_then(|storage| {
        created = true;
        if let Err(error) = plan.run(&storage, &mut progress, plan.len() / 2) {
            // What failed is undone: the storage goes on where it was.
            let (found, count) = (contents(&storage)?, progress.acknowledged);
            assert_eq!(plan.place(&found, count, count), Some(count), "{operation}");
            return Err(error);
        }
        world.go_on(storage, plan, &mut progress)
    });
    if world.disk.statistics().faults == 0 {
        ended.unwrap();
        return false;
    }
    if let Err(error) = ended {
        assert!(matches!(error, StorageError::Io(_)), "{operation}: {error}");
    }
    if after != After::Nothing {
        world.disk.crash();
        world.disk.recover().unwrap();
    }
    let storage = if created { world.open() } else { world.create().or_else(|_| world.open()) };
    let storage = storage.unwrap_or_else(|error| panic!("{operation}: {error}"));
    let found = contents(&storage).unwrap();
    let least = if after == After::Nothing { progress.acknowledged } else { progress.safe };
    let count = plan.place(&found, least, progress.begun);
    assert!(count.is_some(), "{operation}: not in a state from {least} to {}", progress.begun);
    assert_eq!(storage.check().unwrap(), [""; 0], "{operation}");
    world.go_on(storage, plan, &mut Progress::at(count.unwrap())).unwrap();
    assert!(plan.is_whole(&contents(&world.open().unwrap()).unwrap()), "{operation}");
    true
}

#[track_caller]
fn no_error_loses_anything(plan: &Plan, after: After) {
    let failed = (1..).take_while(|operation| fails_at(*operation, plan, after)).count();
    assert!(failed > 100, "{failed}");
}

#[test]
fn an_error_at_any_operation_loses_nothing() {
    no_error_loses_anything(&Plan::new(10, 7, Asking::Mixed), After::Nothing);
}

#[test]
fn power_loss_after_an_error_loses_nothing_that_is_safe() {
    no_error_loses_anything(&Plan::new(11, 5, Asking::Mixed), After::PowerLoss);
}

/// Only where every commit is synced: one that is not may be forgotten, and then those behind it in the log are lost too.
#[test]
fn power_loss_after_a_forgetful_error_loses_nothing_under_full_durability() {
    no_error_loses_anything(&Plan::new(25, 5, Asking::Full), After::Forgetting);
}
