//! Real directories with real databases, kept in step over links in memory.

#![allow(clippy::unwrap_used, clippy::panic)]

use anabranch_core::ops::Role;
use anabranch_core::ticket::Ticket;
use anabranch_folder::{Folder, With};
use anabranch_node::{Control, Node, Offer, Progress};
use anabranch_sync::channel::Direction;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::watch;

/// Syncs both ways, as the command does: look, exchange, apply.
async fn sync(node: &Arc<Node>, here: &Arc<Folder>, there: &Arc<Folder>) -> Progress {
    let with = With::Local(Arc::clone(there));
    here.sync(node, with, Direction::BOTH, &Control::default()).await.unwrap().report.progress
}

fn tree(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_path_buf()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.ends_with(".anabranch") {
                continue;
            }
            let name = path.strip_prefix(root).unwrap().display().to_string();
            let meta = fs::symlink_metadata(&path).unwrap();
            if meta.is_dir() {
                found.insert(name, "dir".into());
                open.push(path);
            } else if meta.is_symlink() {
                found.insert(name, format!("-> {}", fs::read_link(&path).unwrap().display()));
            } else {
                let bytes = fs::read(&path).unwrap();
                found.insert(name, String::from_utf8_lossy(&bytes).into_owned());
            }
        }
    }
    found
}

struct Pair {
    _dir: tempfile::TempDir,
    node: Arc<Node>,
    here: Arc<Folder>,
    there: Arc<Folder>,
}

impl Pair {
    fn write(folder: &Folder, name: &str, content: impl AsRef<[u8]>) {
        let path = folder.root().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn new(fill: impl FnOnce(&Path, &Path)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        fs::create_dir(&a).unwrap();
        fs::create_dir(&b).unwrap();
        fill(&a, &b);
        let node = Node::open(dir.path().join("home")).unwrap();
        let here = Folder::adopt(&node, &a).unwrap();
        let there = Folder::prepare(&node, &b, here.replica().database(), None).unwrap();
        Self { _dir: dir, node, here, there }
    }

    async fn sync(&self) -> Progress {
        sync(&self.node, &self.here, &self.there).await
    }

    fn trees(&self) -> (BTreeMap<String, String>, BTreeMap<String, String>) {
        (tree(self.here.root()), tree(self.there.root()))
    }
}

fn noise(len: usize, seed: u32) -> Vec<u8> {
    let mut state = seed;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_folder_becomes_equal_and_stays_so() {
    let pair = Pair::new(|a, _| {
        fs::create_dir_all(a.join("deep/er")).unwrap();
        fs::create_dir(a.join("empty")).unwrap();
        fs::write(a.join("deep/er/file"), "text").unwrap();
        fs::write(a.join("nothing"), "").unwrap();
        fs::write(a.join("large"), noise(3_000_000, 1)).unwrap();
        std::os::unix::fs::symlink("nowhere", a.join("link")).unwrap();
    });
    pair.sync().await;
    let (a, b) = pair.trees();
    assert_eq!(a, b);
    assert_eq!(a.len(), 7);
    let again = pair.sync().await;
    assert_eq!((again.entries_sent, again.entries_received, again.bytes_sent), (0, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_folders_merge_and_nothing_is_lost() {
    let pair = Pair::new(|a, b| {
        fs::write(a.join("same"), "equal").unwrap();
        fs::write(b.join("same"), "equal").unwrap();
        fs::write(a.join("differs"), "from a").unwrap();
        fs::write(b.join("differs"), "from b").unwrap();
        fs::write(a.join("only a"), "a").unwrap();
        fs::write(b.join("only b"), "b").unwrap();
    });
    pair.sync().await;
    let (a, b) = pair.trees();
    assert_eq!(a, b);
    assert_eq!(a.len(), 5, "{a:?}");
    let mut contents: Vec<&str> = a.values().map(String::as_str).collect();
    contents.sort_unstable();
    assert_eq!(contents, ["a", "b", "equal", "from a", "from b"]);
    assert_eq!(pair.here.conflicts().unwrap().len(), 1);
    assert_eq!(pair.there.conflicts().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_meet_edits_and_deletions() {
    let pair = Pair::new(|a, _| {
        fs::write(a.join("both.txt"), "base").unwrap();
        fs::write(a.join("edited"), "base").unwrap();
        fs::write(a.join("gone"), "base").unwrap();
    });
    pair.sync().await;
    Pair::write(&pair.here, "both.txt", "edited here");
    Pair::write(&pair.there, "both.txt", "edited there");
    Pair::write(&pair.here, "edited", "survives");
    fs::remove_file(pair.there.root().join("edited")).unwrap();
    fs::remove_file(pair.here.root().join("gone")).unwrap();
    pair.sync().await;
    let (a, b) = pair.trees();
    assert_eq!(a, b);
    assert_eq!(a["edited"], "survives");
    assert!(!a.contains_key("gone"));
    let both: Vec<&String> =
        a.iter().filter(|(k, _)| k.starts_with("both")).map(|(_, v)| v).collect();
    assert_eq!(both.len(), 2);
    assert!(a.keys().any(|k| k.starts_with("both (conflict ") && k.ends_with(").txt")), "{a:?}");
    // Settled on one side, the copy goes on both.
    let path = anabranch_folder::path::RelPath::new("both.txt").unwrap();
    pair.here.resolve(&path, 2).await.unwrap();
    pair.sync().await;
    let (a, b) = pair.trees();
    assert_eq!(a, b);
    assert_eq!(a.keys().filter(|k| k.starts_with("both")).count(), 1, "{a:?}");
    assert!(pair.there.conflicts().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_file_is_not_sent_again() {
    let pair = Pair::new(|a, _| fs::write(a.join("large"), noise(20_000_000, 7)).unwrap());
    pair.sync().await;
    fs::rename(pair.here.root().join("large"), pair.here.root().join("other name")).unwrap();
    let progress = pair.sync().await;
    let (a, b) = pair.trees();
    assert!(a == b && b.contains_key("other name") && !b.contains_key("large"));
    assert!(progress.bytes_sent < 10_000, "{progress:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copied_folder_writes_a_log_of_its_own() {
    let pair = Pair::new(|a, _| fs::write(a.join("file"), "1").unwrap());
    pair.sync().await;
    let copy = pair.here.root().with_file_name("copy");
    let status = std::process::Command::new("cp")
        .arg("-a")
        .arg(pair.here.root())
        .arg(&copy)
        .status()
        .unwrap();
    assert!(status.success());
    let copied = Folder::open(&pair.node, &copy).unwrap();
    let log = |f: &Folder| f.replica().read(|v| v.own_log()).unwrap();
    Pair::write(&copied, "in the copy", "x");
    Pair::write(&pair.here, "in the original", "y");
    let updating = Arc::clone(&copied);
    tokio::task::spawn_blocking(move || updating.update()).await.unwrap().unwrap();
    assert_ne!(log(&copied), log(&pair.here));
    sync(&pair.node, &copied, &pair.here).await;
    assert_eq!(tree(&copy), tree(pair.here.root()));
    assert!(tree(&copy).contains_key("in the original"));
}

/// A node of its own that joins the folder `host` serves, by a ticket of `role`.
async fn join(
    dir: &Path,
    host: &Arc<Folder>,
    node: &Arc<Node>,
    role: Role,
) -> (Arc<Node>, Arc<Folder>, Ticket) {
    let listener = node.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = anabranch_transport::Address::of_listener(listener.local_addr()).to_string();
    let offer = Offer {
        role,
        addresses: vec![address],
        limit: Some(1),
        expires: None,
        folder: true,
        name: "shared".into(),
    };
    let ticket = node.ticket(host.replica(), &offer).await.unwrap();
    let (serving, served) = (Arc::clone(node), Arc::clone(host.replica()));
    let (_stop, stopped) = watch::channel(false);
    tokio::spawn(async move { serving.serve(listener, vec![served], stopped).await });
    std::mem::forget(_stop);
    let other = Node::open(dir.join(format!("home of {}", role.name()))).unwrap();
    let root = dir.join(format!("joined as {}", role.name()));
    let folder = Folder::prepare(&other, &root, ticket.database, Some(&ticket)).unwrap();
    let with = With::Ticket(Box::new(ticket.clone()));
    folder.sync(&other, with, Direction::BOTH, &Control::default()).await.unwrap();
    (other, folder, ticket)
}

#[tokio::test(flavor = "multi_thread")]
async fn another_device_joins_by_ticket_and_both_ways_work() {
    let pair = Pair::new(|a, _| fs::write(a.join("file"), noise(500_000, 3)).unwrap());
    let work = pair.here.start().await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (node, joined, ticket) = join(dir.path(), &pair.here, &pair.node, Role::Write).await;
    assert_eq!(tree(joined.root()), tree(pair.here.root()));
    Pair::write(&joined, "from the joiner", "x");
    Pair::write(&pair.here, "from the host", "y");
    let with = With::Addresses(ticket.addresses.clone());
    joined.sync(&node, with, Direction::BOTH, &Control::default()).await.unwrap();
    assert_eq!(tree(joined.root()), tree(pair.here.root()));
    assert_eq!(tree(joined.root()).len(), 3);
    work.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_receives_and_keeps_its_own_changes_to_itself() {
    let pair = Pair::new(|a, _| fs::write(a.join("file"), "1").unwrap());
    let work = pair.here.start().await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (node, joined, ticket) = join(dir.path(), &pair.here, &pair.node, Role::Read).await;
    Pair::write(&joined, "file", "changed by the reader");
    Pair::write(&pair.here, "another", "2");
    let with = With::Addresses(ticket.addresses.clone());
    let outcome = joined.sync(&node, with, Direction::BOTH, &Control::default()).await.unwrap();
    assert_eq!(outcome.here.refused.len(), 1);
    let refused = &outcome.here.refused[0];
    assert!(outcome.here.dirty.covers(refused), "it is looked at again");
    assert_eq!(tree(joined.root())["file"], "changed by the reader");
    assert_eq!(tree(joined.root())["another"], "2");
    assert_eq!(tree(pair.here.root())["file"], "1");
    work.end().await.unwrap();
}

/// What a later version writes is not understood here, which is no reason to take a file for deleted.
#[tokio::test(flavor = "multi_thread")]
async fn a_value_of_a_later_version_leaves_the_file_alone() {
    let pair = Pair::new(|a, _| {
        fs::write(a.join("kept"), "old").unwrap();
        fs::write(a.join("other"), "1").unwrap();
    });
    pair.sync().await;
    let cell = anabranch_core::path::Path::default().join_bytes(b"kept").unwrap();
    let write = anabranch_core::author::Write {
        store: anabranch_folder::store(),
        path: cell,
        value: Some(vec![0x82, 0x18, 0x63, 0x00]),
        seen: anabranch_core::author::Seen::AtCommit,
        below: false,
        above: false,
    };
    let draft = anabranch_core::author::Draft { writes: vec![write], ..Default::default() };
    pair.here.replica().commit(vec![draft]).await.unwrap();
    Pair::write(&pair.here, "other", "2");
    let with = With::Local(Arc::clone(&pair.there));
    let outcome =
        pair.here.sync(&pair.node, with, Direction::BOTH, &Control::default()).await.unwrap();
    let (a, b) = pair.trees();
    assert_eq!(a, b);
    assert_eq!((a["kept"].as_str(), a["other"].as_str()), ("old", "2"));
    assert_eq!(outcome.here.unread.len(), 1);
}

#[test]
fn a_join_that_died_before_the_folder_was_remembered_can_be_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let (other, node) = (
        Node::open(dir.path().join("other")).unwrap(),
        Node::open(dir.path().join("home")).unwrap(),
    );
    let there = Folder::adopt(&other, &dir.path().join("there")).unwrap();
    let ticket = Ticket {
        addresses: vec!["http://127.0.0.1:1".into()],
        database: there.replica().database(),
        key: anabranch_core::key::DeviceKey::from_seed(&[7; 32]),
        folder: true,
        name: "x".into(),
    };
    let root = dir.path().join("here");
    drop(Folder::prepare(&node, &root, ticket.database, Some(&ticket)).unwrap());
    // The program dies between the database of the folder and what the home remembers of it.
    let remembered = node.records().unwrap().remove(0);
    node.forget(&remembered).unwrap();
    drop(Folder::prepare(&node, &root, ticket.database, Some(&ticket)).unwrap());
    let again = node.records().unwrap().remove(0);
    assert_eq!((again.intents, again.ticket), (remembered.intents, remembered.ticket));
}
