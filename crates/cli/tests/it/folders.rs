//! Folders as a user meets them: two on one machine, by ticket, and through a script in the place of ssh.

use crate::ssh::connect;
use crate::world::{Home, Running, tree};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

fn fill(root: &Path) {
    fs::create_dir_all(root.join("sub/deep")).unwrap();
    for (name, text) in [("a.txt", "alpha"), ("sub/b.txt", "beta"), ("sub/deep/c", "")] {
        fs::write(root.join(name), text).unwrap();
    }
}

fn here_with_files() -> Home {
    let home = Home::new();
    fill(&home.dir().join("here"));
    home
}

/// A home that shares `here`, and one that joined it as `there`.
fn shared(role: &str) -> (Home, Home, Running) {
    let (a, b) = (here_with_files(), Home::new());
    let mut sharing = a.start(&["share", "here", "--listen", "0", "--role", role]);
    let ticket = b.write("ticket", sharing.line());
    b.ok(&["join", &format!("@{ticket}"), "there"]);
    (a, b, sharing)
}

#[test]
fn two_folders_become_equal_and_then_nothing_moves() {
    let home = here_with_files();
    let told = home.ok(&["sync", "here", "there"]);
    assert!(told.contains("paths sent") && told.contains("0 conflicts"), "{told}");
    assert_eq!(tree(&home.dir().join("here")), tree(&home.dir().join("there")));
    let again = home.json(&["sync", "here", "there"]);
    assert_eq!((&again["entries_sent"], &again["bytes_written"]), (&0.into(), &0.into()));
    assert!(home.ok(&["sync", "here", "there"]).contains("nothing moved"));
    let log = home.ok(&["folder", "log", "there"]);
    assert!(log.contains("sub/b.txt"), "{log}");
    let digest = |dir| home.ok(&["folder", "digest", dir]);
    assert_eq!(digest("here"), digest("there"));
    assert!(home.ok(&["folder", "verify", "there"]).contains("is sound"));
    let state = home.dir().join("here/.anabranch");
    assert_eq!(fs::metadata(&state).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn a_dry_run_says_what_would_move_and_touches_nothing() {
    let home = here_with_files();
    let told = home.json(&["sync", "here", "there", "--dry-run"]);
    assert_eq!(told["would_send"].as_array().unwrap().len(), 5, "{told}");
    assert!(!home.dir().join("there").exists());
    assert!(!home.dir().join("here/.anabranch").exists());
    home.ok(&["sync", "here", "there"]);
    fs::write(home.dir().join("there/new"), "x").unwrap();
    fs::remove_file(home.dir().join("here/a.txt")).unwrap();
    let told = home.json(&["sync", "here", "there", "--dry-run"]);
    let paths = |list: &Value| -> Vec<String> {
        list.as_array().unwrap().iter().map(|p| p["path"].as_str().unwrap().into()).collect()
    };
    assert_eq!(paths(&told["would_send"]), ["a.txt"]);
    assert_eq!(paths(&told["would_receive"]), ["new"]);
    assert!(!home.dir().join("here/new").exists());
    assert!(home.dir().join("there/a.txt").exists());
}

#[test]
fn push_and_pull_go_one_way() {
    let home = here_with_files();
    home.ok(&["sync", "here", "there"]);
    fs::write(home.dir().join("here/mine"), "1").unwrap();
    fs::write(home.dir().join("there/theirs"), "2").unwrap();
    home.ok(&["sync", "here", "there", "--push"]);
    assert!(home.dir().join("there/mine").exists());
    assert!(!home.dir().join("here/theirs").exists());
    home.ok(&["sync", "here", "there", "--pull"]);
    assert!(home.dir().join("here/theirs").exists());
}

#[test]
fn a_ticket_brings_a_folder_to_another_device_and_conflicts_are_settled() {
    let (a, b, sharing) = shared("write");
    let (here, there) = (a.dir().join("here"), b.dir().join("there"));
    assert_eq!(tree(&here), tree(&there));
    fs::write(here.join("a.txt"), "one").unwrap();
    fs::write(there.join("a.txt"), "two").unwrap();
    fs::write(here.join("sub/b.txt"), "edited").unwrap();
    fs::remove_file(there.join("sub/b.txt")).unwrap();
    let told = b.json(&["sync", "there"]);
    assert_eq!(told["conflicts"], serde_json::json!(["a.txt"]));
    assert_eq!(tree(&here), tree(&there));
    let files = tree(&here);
    let versions: Vec<&[u8]> =
        files.iter().filter(|(k, _)| k.starts_with("a")).map(|(_, v)| &v[..]).collect();
    assert_eq!(versions.len(), 2);
    assert!(versions.contains(&&b"one"[..]) && versions.contains(&&b"two"[..]));
    assert_eq!(files["sub/b.txt"], b"edited", "the edit survives");
    let listed = b.json(&["folder", "conflicts", "there"]);
    assert_eq!(listed["conflicts"][0]["versions"].as_array().unwrap().len(), 2);
    b.ok(&["folder", "resolve", "there", "a.txt", "--take", "2"]);
    b.ok(&["sync", "there"]);
    assert_eq!(tree(&here), tree(&there));
    assert_eq!(tree(&here).keys().filter(|k| k.starts_with("a")).count(), 1);
    b.run(&["folder", "resolve", "there", "a.txt", "--take", "1"]).fails(1, "has no conflict");
    assert_eq!(sharing.interrupt(), 0);
}

#[test]
fn a_reader_is_told_that_its_changes_stay() {
    let (a, b, _sharing) = shared("read");
    fs::write(b.dir().join("there/a.txt"), "mine").unwrap();
    b.run(&["sync", "there"]).fails(3, "may only read");
    assert_eq!(tree(&a.dir().join("here"))["a.txt"], b"alpha");
    assert_eq!(tree(&b.dir().join("there"))["a.txt"], b"mine");
}

#[test]
fn joining_again_goes_on_and_a_path_is_asked_for() {
    let (a, b, _sharing) = shared("write");
    let ticket = format!("@{}", b.dir().join("ticket").display());
    b.run(&["join", &ticket]).fails(2, "needs a place");
    b.ok(&["join", &ticket, "there"]);
    assert_eq!(tree(&a.dir().join("here")), tree(&b.dir().join("there")));
    b.run(&["join", &ticket, "--name", "x"]).fails(2, "is here already, at");
}

#[test]
fn through_a_pipe_either_side_may_be_new() {
    let (a, b) = (here_with_files(), Home::new());
    connect(&a, &b);
    let far = b.dir().join("far");
    let address = format!("laptop:{}", far.display());
    a.ok(&["sync", "here", &address]);
    assert_eq!(tree(&a.dir().join("here")), tree(&far));
    fs::write(far.join("from there"), "x").unwrap();
    a.ok(&["sync", "here"]);
    assert_eq!(tree(&a.dir().join("here")), tree(&far));
    assert!(a.ok(&["sync", "here", &address]).contains("nothing moved"));
    // Back to a third place here.
    a.ok(&["sync", "back", &address]);
    assert_eq!(tree(&a.dir().join("back")), tree(&far));
    let (c, d) = (Home::new(), Home::new());
    connect(&c, &d);
    let nothing = format!("laptop:{}", d.dir().join("nothing").display());
    c.run(&["sync", "nowhere", &nothing]).fails(1, "neither side is there");
}

#[test]
fn what_cannot_be_synced_is_refused_in_words() {
    let home = here_with_files();
    home.run(&["sync", "here", "here/sub"]).fails(2, "one lies in the other");
    home.run(&["sync", "here", "./here"]).fails(2, "one lies in the other");
    home.run(&["sync", "no", "where"]).fails(1, "nothing to sync");
    home.run(&["sync", "here"]).fails(1, "is not a replica yet");
    home.run(&["sync", "here/a.txt", "there"]).fails(2, "is not a folder");
    home.run(&["sync", "here", "http://127.0.0.1:9"]).fails(1, "is not a replica");
    home.run(&["folder", "log", "here"]).fails(1, "is not a replica yet");
    fill(&home.dir().join("other"));
    home.ok(&["sync", "here", "there"]);
    home.ok(&["sync", "other", "another"]);
    home.run(&["sync", "here", "other"]).fails(1, "another database");
    assert_eq!(tree(&home.dir().join("here")).len(), 3);
    home.run(&["folder", "forget", "there"]).fails(2, "--yes");
    home.ok(&["folder", "forget", "there", "--yes"]);
    assert!(!home.dir().join("there/.anabranch").exists());
    assert_eq!(tree(&home.dir().join("there")).len(), 3, "the files stay");
}

#[test]
fn two_folders_with_files_merge() {
    let home = here_with_files();
    let there = home.dir().join("there");
    fill(&there);
    fs::write(there.join("a.txt"), "different").unwrap();
    fs::write(there.join("only there"), "x").unwrap();
    home.ok(&["sync", "here", "there"]);
    let files = tree(&home.dir().join("here"));
    assert_eq!(files, tree(&there));
    assert_eq!(files.len(), 5, "{:?}", files.keys());
    let log = home.json(&["folder", "conflicts", "here"]);
    assert_eq!(log["conflicts"].as_array().unwrap().len(), 1);
}
