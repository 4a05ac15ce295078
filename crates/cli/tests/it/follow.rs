//! Folders that stay in step, change by change, while a process follows them.

use crate::world::{Home, PATIENCE, Running, eventually, manifest};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Waits until both folders hold the same, and something besides if that is asked for.
#[track_caller]
fn become_equal(a: &Path, b: &Path, holds: impl Fn(&Path) -> bool) {
    let begun = Instant::now();
    loop {
        let (mine, theirs) = (manifest(a), manifest(b));
        let equal = matches!((&mine, &theirs), (Ok(mine), Ok(theirs)) if mine == theirs);
        if equal && holds(a) && holds(b) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{mine:#?}\nis not\n{theirs:#?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn has(name: &str, text: &str) -> impl Fn(&Path) -> bool {
    move |root| fs::read_to_string(root.join(name)).is_ok_and(|found| found == text)
}

fn lacks(name: &str) -> impl Fn(&Path) -> bool {
    move |root| fs::symlink_metadata(root.join(name)).is_err()
}

/// What people and their programs do to files, on one side and the other, each before the next.
fn live_through(a: &Path, b: &Path) {
    fs::write(a.join("new"), "1").unwrap();
    become_equal(a, b, has("new", "1"));
    fs::write(b.join("new"), "2").unwrap();
    become_equal(a, b, has("new", "2"));
    // As editors save.
    fs::write(a.join(".new.swp"), "3").unwrap();
    fs::rename(a.join(".new.swp"), a.join("new")).unwrap();
    become_equal(a, b, has("new", "3"));
    // A directory, and what is in it before anybody can have heard of it.
    fs::create_dir_all(b.join("d/e/f")).unwrap();
    fs::write(b.join("d/e/f/deep"), "4").unwrap();
    become_equal(a, b, has("d/e/f/deep", "4"));
    fs::write(a.join("d/e/f/deep"), "5").unwrap();
    become_equal(a, b, has("d/e/f/deep", "5"));
    // It moves, and changes go on to be heard of where it is now.
    fs::rename(a.join("d/e"), a.join("moved")).unwrap();
    become_equal(a, b, has("moved/f/deep", "5"));
    fs::write(a.join("moved/f/deep"), "6").unwrap();
    become_equal(a, b, has("moved/f/deep", "6"));
    fs::write(b.join("moved/f/other"), "7").unwrap();
    become_equal(a, b, has("moved/f/other", "7"));
    // Another one comes in its place.
    fs::create_dir(a.join("d/e")).unwrap();
    fs::write(a.join("d/e/x"), "8").unwrap();
    become_equal(a, b, has("d/e/x", "8"));
    symlink("nowhere", b.join("link")).unwrap();
    become_equal(a, b, |root| fs::read_link(root.join("link")).is_ok());
    fs::remove_dir_all(a.join("d")).unwrap();
    become_equal(a, b, lacks("d"));
    fs::remove_file(b.join("new")).unwrap();
    fs::remove_file(b.join("link")).unwrap();
    fs::rename(b.join("moved"), b.join("last")).unwrap();
    become_equal(a, b, |root| lacks("new")(root) && has("last/f/other", "7")(root));
    fs::remove_dir_all(a.join("last")).unwrap();
    become_equal(a, b, lacks("last"));
}

fn filled(home: &Home, name: &str) -> PathBuf {
    let root = home.dir().join(name);
    fs::create_dir_all(root.join("sub")).unwrap();
    fs::write(root.join("sub/first"), "0").unwrap();
    root
}

/// Two devices; the first shares its folder, and the second has joined it.
fn shared() -> (Home, Home, Running, [PathBuf; 2]) {
    let (one, two) = (Home::new(), Home::new());
    let a = filled(&one, "a");
    let mut sharing = one.start(&["share", "a", "--listen", "0"]);
    let ticket = two.write("ticket", sharing.line());
    two.ok(&["join", &format!("@{ticket}"), "b"]);
    let b = two.dir().join("b");
    (one, two, sharing, [a, b])
}

#[test]
fn two_folders_of_one_machine_stay_in_step() {
    let home = Home::new();
    let (a, b) = (filled(&home, "a"), home.dir().join("b"));
    let mut following = home.start(&["sync", "a", "b", "--follow"]);
    following.note("following a and b");
    become_equal(&a, &b, has("sub/first", "0"));
    live_through(&a, &b);
    let told = loop {
        let line = following.line();
        if line.contains("moved/f/deep") {
            break line;
        }
    };
    assert!(told.starts_with("<- ") || told.starts_with("-> "), "{told}");
    assert_eq!(following.interrupt(), 0);
    assert!(home.ok(&["sync", "a", "b"]).contains("nothing moved"));
}

#[test]
fn folders_of_two_devices_stay_in_step() {
    let (_one, two, _sharing, [a, b]) = shared();
    let following = two.start(&["sync", "b", "--follow"]);
    live_through(&a, &b);
    assert_eq!(following.interrupt(), 0);
    // What happens while nobody looks is found later.
    fs::write(b.join("apart"), "9").unwrap();
    fs::rename(b.join("sub"), b.join("back")).unwrap();
    let following = two.start(&["serve"]);
    become_equal(&a, &b, has("apart", "9"));
    live_through(&b, &a);
    assert_eq!(following.interrupt(), 0);
}

#[test]
fn a_folder_that_becomes_a_replica_later_is_served_as_well() {
    let (one, two) = (Home::new(), Home::new());
    let (a, b) = (filled(&one, "a"), two.dir().join("b"));
    let (serving, address) = one.serve("0");
    one.ok(&["sync", "a", "spare"]);
    let ticket = one.ok(&["ticket", "a", "--address", &address]);
    let begun = Instant::now();
    while two.run(&["join", ticket.trim(), "b"]).code != 0 {
        assert!(begun.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(100));
    }
    let following = two.start(&["sync", "b", "--follow"]);
    live_through(&a, &b);
    // What another process does to it is heard of.
    one.ok(&["sync", "spare", "a"]);
    one.ok(&["folder", "forget", "a", "--yes"]);
    fs::write(a.join("sub/first"), "of its own").unwrap();
    assert_eq!((following.interrupt(), serving.interrupt()), (0, 0));
    assert_eq!(fs::read_to_string(b.join("sub/first")).unwrap(), "0");
}

fn signal(process: &Running, name: &str) {
    let pid = process.id().to_string();
    assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
}

/// More happens at once than the system keeps a note of.
#[test]
fn more_changes_than_the_system_tells_of_all_arrive() {
    let home = Home::new();
    let (a, b) = (filled(&home, "a"), home.dir().join("b"));
    let mut following = home.start(&["sync", "a", "b", "--follow"]);
    following.note("following a and b");
    fs::create_dir(a.join("many")).unwrap();
    become_equal(&a, &b, |root| root.join("many").is_dir());
    let most = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let most: usize = most.trim().parse().unwrap();
    signal(&following, "-STOP");
    // Two names in turn make events that differ from the ones before them.
    for n in 0..most {
        let name = a.join(["many/x", "many/y"][n % 2]);
        fs::write(&name, "").unwrap();
        fs::remove_file(&name).unwrap();
    }
    fs::write(a.join("sub/first"), "last").unwrap();
    signal(&following, "-CONT");
    become_equal(&a, &b, has("sub/first", "last"));
    fs::write(b.join("many/z"), "after").unwrap();
    become_equal(&a, &b, has("many/z", "after"));
    assert_eq!(following.interrupt(), 0);
}

#[test]
fn what_is_not_here_is_not_followed_and_a_peer_that_is_away_is_waited_for() {
    let (one, two) = (Home::new(), Home::new());
    two.run(&["sync", "nothing", "--follow"]).fails(1, "there is no replica 'nothing' here");
    two.run(&["sync", "a", "b", "--follow", "--push"]).fails(2, "cannot be used with");
    let a = filled(&one, "a");
    let (sharing, address) = one.serve("0");
    one.ok(&["sync", "a", "spare"]);
    drop(sharing);
    let port = address.rsplit(':').next().unwrap();
    let (sharing, address) = one.serve(port);
    let ticket = one.ok(&["ticket", "a", "--address", &address]);
    two.ok(&["join", ticket.trim(), "b"]);
    assert_eq!(sharing.interrupt(), 0);
    let mut following = two.start(&["sync", "b", "--follow"]);
    following.note("following 1 replica");
    fs::write(two.dir().join("b/away"), "x").unwrap();
    let (sharing, _) = one.serve(port);
    become_equal(&a, &two.dir().join("b"), has("away", "x"));
    assert_eq!((following.interrupt(), sharing.interrupt()), (0, 0));
}

/// Own changes do not wait for what others send for a long time.
#[test]
fn a_save_goes_out_while_something_large_comes_in() {
    let (_one, two, _sharing, [a, b]) = shared();
    two.ok(&["config", "net.download", "2MiB"]);
    let mut following = two.start(&["sync", "b", "--follow"]);
    following.note("following 1 replica");
    let mut state = 1u64;
    let noise: Vec<u8> = (0..60_000_000u32)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .collect();
    fs::write(a.join("large"), noise).unwrap();
    std::thread::sleep(Duration::from_secs(3));
    fs::write(b.join("small"), "out").unwrap();
    eventually("the small file arrives", || has("small", "out")(&a));
    assert!(!b.join("large").exists(), "it takes half a minute");
    assert_eq!(following.interrupt(), 0);
}
