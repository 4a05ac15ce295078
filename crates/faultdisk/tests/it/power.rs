//! Power loss and killed processes at every change of the disk: what was acknowledged is there, nothing is there by half.

use std::ops::RangeInclusive;

use anabranch_core::storage::{Durability, Storage as _, Table};
use anabranch_store::{Options, SqliteStorage};

use crate::plan::{Asking, Plan, Progress};
use crate::world::{World, contents, options};

/// After one in so many ends the plan is carried out to its own.
const FINISHING: u64 = 4;

/// How a life ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    PowerLoss,
    Kill,
    /// The power goes when the process has been dead for a while.
    KillThenPowerLoss,
}

/// What happens to whom.
struct Trial {
    plan: Plan,
    end: End,
    lies: bool,
    /// The log is moved beside the commits.
    beside: bool,
    seed: u64,
}

impl Trial {
    fn new(seed: u64, asking: Asking, end: End) -> Self {
        Self { plan: Plan::new(seed, 10, asking), end, lies: false, beside: false, seed }
    }

    /// The end comes at every change of the disk in turn. Returns how many there are, and what went wrong.
    fn run(&self) -> (u64, Vec<String>) {
        let mut failures = Vec::new();
        for change in 1.. {
            match self.end_at(change) {
                None => return (change - 1, failures),
                Some(Ok(())) => {}
                Some(Err(what)) => failures.push(format!("change {change}: {what}")),
            }
        }
        unreachable!("a plan has an end")
    }

    /// The outcome when the end comes at this change; nothing when it is too late for that.
    fn end_at(&self, change: u64) -> Option<Result<(), String>> {
        let mut world = World::new(self.seed * 10_000 + change);
        world.beside = self.beside;
        world.disk.lie(self.lies);
        match self.end {
            End::PowerLoss => world.disk.crash_at(change),
            End::Kill | End::KillThenPowerLoss => world.disk.kill_at(change),
        }
        let mut progress = Progress::default();
        let mut created = false;
        let ended = world.create().and_then(|storage| {
            created = true;
            world.go_on(storage, &self.plan, &mut progress)
        });
        let counts = world.disk.statistics();
        if counts.crashes + counts.kills == 0 {
            ended.unwrap();
            return None;
        }
        if self.end == End::KillThenPowerLoss {
            world.disk.crash();
        }
        world.disk.recover().unwrap();
        world.disk.calm();
        let least = if self.end == End::Kill { progress.acknowledged } else { progress.safe };
        let storage = if created { world.open() } else { world.create().or_else(|_| world.open()) };
        let outcome = match storage {
            Ok(storage) => {
                let finishes = change.is_multiple_of(FINISHING);
                self.go_on(&world, storage, least..=progress.begun, finishes)
            }
            Err(error) => Err(format!("created: {created}: {error}")),
        };
        Some(outcome)
    }

    /// The database is as one of so many transactions left it, is sound, and can be worked on, to the end if asked for.
    fn go_on(
        &self,
        world: &World,
        storage: SqliteStorage,
        range: RangeInclusive<usize>,
        finishes: bool,
    ) -> Result<(), String> {
        let found = contents(&storage).map_err(|error| error.to_string())?;
        let place = self.plan.place(&found, *range.start(), *range.end());
        let count = place.ok_or_else(|| format!("not in a state of {range:?}"))?;
        let findings = storage.check().map_err(|error| error.to_string())?;
        if !findings.is_empty() {
            return Err(findings.join("; "));
        }
        let mut progress = Progress::at(count);
        if !finishes {
            let next = self.plan.len().min(count + 1);
            return self.plan.run(&storage, &mut progress, next).map_err(|e| e.to_string());
        }
        world
            .go_on(storage, &self.plan, &mut progress)
            .and_then(|()| contents(&world.open()?))
            .map_err(|error| error.to_string())
            .and_then(|found| match self.plan.is_whole(&found) {
                true => Ok(()),
                false => Err("not whole at the end".into()),
            })
    }
}

#[track_caller]
fn nothing_goes_wrong(trial: &Trial) {
    let (changes, failures) = trial.run();
    assert_eq!(failures, [""; 0]);
    assert!(changes > 100, "{changes}");
}

#[test]
fn what_was_synced_survives_power_loss() {
    nothing_goes_wrong(&Trial::new(1, Asking::Full, End::PowerLoss));
}

#[test]
fn what_was_not_synced_is_lost_from_the_end() {
    nothing_goes_wrong(&Trial::new(2, Asking::Normal, End::PowerLoss));
}

#[test]
fn a_synced_commit_takes_those_before_it_along() {
    nothing_goes_wrong(&Trial::new(3, Asking::Mixed, End::PowerLoss));
}

#[test]
fn a_killed_process_loses_nothing() {
    nothing_goes_wrong(&Trial::new(5, Asking::Normal, End::Kill));
}

#[test]
fn what_was_synced_survives_power_loss_after_a_kill() {
    nothing_goes_wrong(&Trial::new(6, Asking::Mixed, End::KillThenPowerLoss));
}

#[test]
fn a_disk_that_lies_loses_commits() {
    let trial = Trial { lies: true, ..Trial::new(1, Asking::Full, End::PowerLoss) };
    let (changes, failures) = trial.run();
    assert!(failures.len() as u64 > changes / 4, "{} of {changes}", failures.len());
    assert!(failures.iter().any(|what| what.contains("not in a state")), "{failures:?}");
}

/// Without a power loss it makes no difference.
#[test]
fn a_killed_process_loses_nothing_on_a_disk_that_lies() {
    nothing_goes_wrong(&Trial { lies: true, ..Trial::new(7, Asking::Full, End::Kill) });
}

/// Whatever a thread beside has moved of the log by then, and however far it is in that.
#[test]
fn a_log_that_is_moved_beside_the_commits_loses_nothing() {
    for (seed, asking, end) in [
        (8, Asking::Full, End::PowerLoss),
        (9, Asking::Normal, End::PowerLoss),
        (10, Asking::Mixed, End::PowerLoss),
        (11, Asking::Normal, End::Kill),
        (12, Asking::Mixed, End::KillThenPowerLoss),
    ] {
        nothing_goes_wrong(&Trial { beside: true, ..Trial::new(seed, asking, end) });
    }
}

/// What SQLite does not sync, the store does itself, and the name of the log has to be safe as well.
#[test]
fn a_synced_commit_without_changes_takes_those_before_it_along() {
    let normal = Plan::new(22, 4, Asking::Normal);
    for seed in 0..50 {
        let world = World::new(seed);
        drop(world.create().unwrap());
        let storage = world.open().unwrap();
        normal.run(&storage, &mut Progress::default(), 3).unwrap();
        storage.write(Durability::Full).unwrap().commit().unwrap();
        world.disk.crash();
        drop(storage);
        world.disk.recover().unwrap();
        let found = contents(&world.open().unwrap()).unwrap();
        assert_eq!(normal.place(&found, 0, 3), Some(3), "{seed}");
    }
}

/// Promised is nothing, but the next commit that is to be durable then finds its log on the disk.
#[test]
fn what_is_synced_ahead_is_on_the_disk_and_little_is_not_worth_it() {
    let world = World::new(5);
    let storage = SqliteStorage::create(
        world.disk.path().join("db"),
        Options { checkpoint_pages: 1_000, ..options() },
    )
    .unwrap();
    let put = |key: u32, durability| {
        let mut tx = storage.write(durability).unwrap();
        tx.put(Table::Cell, &key.to_be_bytes(), &[7; 4_000]).unwrap();
        tx.commit().unwrap();
    };
    let unsynced = || world.disk.statistics().bytes_unsynced;
    let syncs = || world.disk.statistics().syncs;
    put(0, Durability::Full);
    assert_eq!(unsynced(), 0);
    for key in 1..=10 {
        put(key, Durability::Normal);
    }
    let before = syncs();
    storage.sync_ahead();
    assert!(unsynced() > 10 * 4_000 && syncs() == before, "ten pages are written with what comes");
    for key in 11..=100 {
        put(key, Durability::Normal);
    }
    storage.sync_ahead();
    assert_eq!((unsynced(), syncs()), (0, before + 1));
    storage.sync_ahead();
    assert_eq!(syncs(), before + 1, "it is there already");
    world.disk.crash();
    drop(storage);
    world.disk.recover().unwrap();
    let storage = SqliteStorage::open(world.disk.path().join("db"), options()).unwrap();
    assert_eq!(contents(&storage).unwrap().len(), 101);
}
