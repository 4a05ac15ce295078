//! One seed, one outcome: files byte for byte, and counts.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use anabranch_faultdisk::Statistics;

use crate::plan::{Asking, Plan, Progress};
use crate::world::{World, contents};

/// Set for the process that has SQLite to itself.
const ALONE: &str = "ANABRANCH_FAULTDISK_ALONE";

type Outcome = (Vec<BTreeMap<String, Vec<u8>>>, Statistics, Option<usize>);

fn files(world: &World) -> BTreeMap<String, Vec<u8>> {
    fs::read_dir(world.disk.path())
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| !entry.file_name().to_string_lossy().ends_with("-shm"))
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect()
}

/// A life with a power loss in it, seen at three moments.
fn live(seed: u64) -> Outcome {
    let plan = Plan::new(21, 14, Asking::Mixed);
    let world = World::new(seed);
    let mut seen = Vec::new();
    let storage = world.create().unwrap();
    world.disk.crash_at(80);
    let mut progress = Progress::default();
    plan.run(&storage, &mut progress, plan.len()).unwrap_err();
    seen.push(files(&world));
    drop(storage);
    world.disk.recover().unwrap();
    seen.push(files(&world));
    let storage = world.open().unwrap();
    let count = plan.place(&contents(&storage).unwrap(), progress.safe, progress.begun);
    plan.run(&storage, &mut Progress::at(count.unwrap()), plan.len()).unwrap();
    seen.push(files(&world));
    (seen, world.disk.statistics(), count)
}

/// SQLite has one generator of randomness in a process, so this runs in one with a single test.
#[test]
fn one_seed_gives_one_outcome() {
    if std::env::var_os(ALONE).is_none() {
        let arguments = ["--exact", "repeat::one_seed_gives_one_outcome", "--test-threads=1"];
        let mut alone = Command::new(std::env::current_exe().unwrap());
        let output = alone.args(arguments).env(ALONE, "1").output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    let (first, second, other) = (live(1), live(1), live(2));
    assert!(first == second);
    assert!(first.0.iter().all(|files| files.contains_key("x.db-wal")));
    // Another seed, other salts.
    assert!(first.0[0]["x.db-wal"] != other.0[0]["x.db-wal"]);
}
