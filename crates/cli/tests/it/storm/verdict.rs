//! What must hold when the storm is over: everything comes to rest, on all devices alike, with all that was acknowledged.

use super::crew::{Device, Way};
use super::desk::{Contents, numbers, read_all, tree};
use crate::world::{Done, Home, PATIENCE};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Joins what has not joined, and syncs until nothing moves.
pub(super) fn settle(devices: &[Device], tickets: &[String; 2]) {
    let (hub, others) = devices.split_first().unwrap();
    let Way::Serving(port) = &hub.way else { panic!("the first device serves") };
    let (serving, _) = hub.home.serve(port);
    for Device { home, .. } in others {
        insist(home, &["join", &tickets[0]]);
        insist(home, &["join", &tickets[1], "files"]);
    }
    let start = Instant::now();
    let (mut quiet, mut last) = (0, Vec::new());
    while quiet < 2 {
        assert!(start.elapsed() < PATIENCE, "it does not come to rest: {last:#?}");
        last.clear();
        let synced = others.iter().flat_map(|device| ["notes", "files"].map(|name| (device, name)));
        last.extend(synced.map(|(device, name)| insist(&device.home, &["sync", name, "--json"])));
        quiet = if last.iter().any(moved) { 0 } else { quiet + 1 };
    }
    assert_eq!(serving.interrupt(), 0);
}

/// Repeats a command as long as cuts that are still to come end it. It may be done in part: what is lacking can be with
/// a device whose turn comes later.
fn insist(home: &Home, args: &[&str]) -> Done {
    let start = Instant::now();
    loop {
        let done = home.run(args);
        if [0, 3].contains(&done.code) {
            return done;
        }
        let may_pass = done.err.contains("run the command again");
        assert!(may_pass && start.elapsed() < PATIENCE, "{args:?} {done:?}");
    }
}

/// Whether a sync moved anything, or left something to be moved.
fn moved(sync: &Done) -> bool {
    let said: Value = serde_json::from_str(sync.out.lines().next().unwrap()).unwrap();
    let written = said.get("bytes_written").unwrap_or(&Value::Null);
    let counts = [&said["entries_sent"], &said["entries_received"], written];
    sync.code != 0 || counts.iter().any(|count| count.as_u64().unwrap_or(0) > 0)
}

/// Judges; what was looked at, in words.
pub(super) fn judge(devices: &[Device], contents: &Contents) -> String {
    let mut acknowledged = BTreeMap::new();
    let (mut reads, mut torn) = (0, Vec::new());
    for device in devices {
        contents.forget_all(&device.desk());
        acknowledged.extend(device.acknowledged.lock().unwrap().clone());
        reads += device.reads.load(Ordering::Relaxed);
        torn.extend(device.torn.lock().unwrap().clone());
        torn.extend(read_all(&device.files()).1);
    }
    assert!(torn.is_empty(), "files were seen that are not whole: {torn:#?}");
    let alive = contents.alive();
    let (first, others) = devices.split_first().unwrap();
    let files = tree(&first.files());
    for device in devices {
        has_all_rows(device, &acknowledged);
        let kept = numbers(&device.files());
        let lost: BTreeSet<&u64> = alive.difference(&kept).collect();
        assert!(lost.is_empty(), "{} has lost files {lost:?}", device.name);
        device.home.ok(&["db", "verify", "notes"]);
        device.home.ok(&["folder", "verify", "files"]);
        nothing_is_left_over(device);
    }
    for device in others {
        for command in [["db", "digest", "notes"], ["folder", "digest", "files"]] {
            assert_eq!(first.home.ok(&command), device.home.ok(&command), "{command:?}");
        }
        similar(&files, &tree(&device.files()), device.name);
    }
    format!(
        "{} acknowledged rows and {} of {} files are on all {} devices, {} paths in each; \
         {reads} files were read meanwhile, none of them torn",
        acknowledged.len(),
        alive.len(),
        contents.written(),
        devices.len(),
        files.len(),
    )
}

fn has_all_rows(device: &Device, acknowledged: &BTreeMap<String, u64>) {
    let lines = device.home.ok(&["db", "rows", "notes", "rows", "--json"]);
    let rows: BTreeMap<String, u64> = lines
        .lines()
        .map(|line| {
            let object: Value = serde_json::from_str(line).unwrap();
            let value = object["row"]["value"].as_u64().unwrap();
            (object["key"].as_str().unwrap().to_owned(), value)
        })
        .collect();
    for (key, value) in acknowledged {
        let found = rows.get(key);
        // Of a row that everybody writes, another value may have come later.
        let same = found == Some(value) || (key.starts_with("shared") && found.is_some());
        assert!(same, "{} lost row {key} with {value}: {found:?}", device.name);
    }
}

fn similar<P: Ord + std::fmt::Debug>(a: &BTreeMap<P, String>, b: &BTreeMap<P, String>, name: &str) {
    let differs = |(path, what): &(&P, &String)| b.get(path) != Some(what);
    let here: Vec<_> = a.iter().filter(differs).collect();
    let differs = |(path, what): &(&P, &String)| a.get(path) != Some(what);
    let there: Vec<_> = b.iter().filter(differs).collect();
    assert!(here.is_empty() && there.is_empty(), "{name}: {here:#?} against {there:#?}");
}

/// No temporary file stays behind: not beside a folder's database, not beside the others, not in the home.
fn nothing_is_left_over(device: &Device) {
    let names = |dir: &Path| -> BTreeSet<String> {
        let entries = fs::read_dir(dir).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    let database = |name: &str| [".db", ".db-wal", ".db-shm"].iter().any(|end| name.ends_with(end));
    let state = device.files().join(".anabranch");
    let mut left = names(&state);
    left.retain(|name| !database(name) && name != "lock" && name != "tmp");
    assert!(left.is_empty(), "{}: beside a folder's database {left:?}", device.name);
    assert_eq!(names(&state.join("tmp")), BTreeSet::new(), "{}", device.name);
    let mut databases = names(&device.home.state().join("databases"));
    databases.retain(|name| !name.ends_with("-wal") && !name.ends_with("-shm"));
    assert_eq!(databases.len(), 1, "{}: {databases:?}", device.name);
    let mut home = names(&device.home.state());
    home.retain(|name| {
        !database(name) && !["databases", "key", "config.toml"].contains(&&name[..])
    });
    assert!(home.is_empty(), "{}: in the home {home:?}", device.name);
}
