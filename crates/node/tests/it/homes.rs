use anabranch_node::{Home, Intent, NewDatabase, Node, NodeError, Passphrase};
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Barrier};

fn mode(path: &std::path::Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn secrets_are_readable_by_their_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    let node = Node::open(&home).unwrap();
    node.create("notes").unwrap();
    assert_eq!(mode(&home.join("key")), 0o600);
    assert_eq!(mode(&home.join("node.db")), 0o600);
    assert_eq!(mode(&home), 0o700);
    let file = node.records().unwrap()[0].path.clone();
    assert_eq!(mode(&file), 0o600);
}

#[test]
fn two_processes_starting_at_once_are_one_device() {
    let dir = tempfile::tempdir().unwrap();
    let start = Arc::new(Barrier::new(4));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (start, home) = (Arc::clone(&start), dir.path().join("home"));
            std::thread::spawn(move || {
                start.wait();
                Home::open(&home).map(|home| home.key().node_id()).unwrap()
            })
        })
        .collect();
    let ids: Vec<_> = threads.into_iter().map(|t| t.join().unwrap()).collect();
    assert!(ids.windows(2).all(|w| w[0] == w[1]));
}

#[test]
fn a_damaged_key_is_named_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    drop(Home::open(dir.path()).unwrap());
    let key = dir.path().join("key");
    for damage in ["", "device_key_short\n", "something else"] {
        std::fs::write(&key, damage).unwrap();
        assert!(matches!(Home::open(dir.path()), Err(NodeError::Key(_))), "{damage:?}");
        assert_eq!(std::fs::read_to_string(&key).unwrap(), damage);
    }
}

#[test]
fn names_are_checked_and_unique() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(dir.path()).unwrap();
    node.create("a-1_b.c").unwrap();
    assert!(matches!(node.create("a-1_b.c"), Err(NodeError::NameTaken(_))));
    for bad in ["", "-a", "a/b", "../x", "a b", &"x".repeat(65)] {
        assert!(matches!(node.create(bad), Err(NodeError::BadName(_))), "{bad}");
    }
    assert!(matches!(node.database("nothing"), Err(NodeError::NoDatabase(_))));
}

#[test]
fn settings_that_do_not_go_together_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::open(dir.path()).unwrap();
    assert!(home.configure("net.ping_interval", Some("2m")).is_err(), "longer than idle_timeout");
    home.configure("net.idle_timeout", Some("5m")).unwrap();
    home.configure("net.ping_interval", Some("2m")).unwrap();
    assert!(home.configure("net.idle_timeout", None).is_err());
    assert_eq!(home.configured("net.ping_interval").unwrap().as_deref(), Some("2m"));
}

/// Who changes what is remembered of a replica has often read it a while ago; meanwhile it joined, or a user declared more.
#[test]
fn what_others_changed_meanwhile_stays_changed() {
    let home = tempfile::tempdir().unwrap();
    let node = Node::open(home.path()).unwrap();
    node.create("notes").unwrap();
    let old = node.records().unwrap().remove(0);
    let addresses = || {
        let record = node.records().unwrap().remove(0);
        record.addresses().map(str::to_owned).collect::<Vec<_>>()
    };
    node.declare(&old, Intent::new("http://one")).unwrap();
    node.declare(&old, Intent::new("http://two")).unwrap();
    assert_eq!(addresses(), ["http://two", "http://one"]);
    node.remember_address(&old, "http://one").unwrap();
    assert_eq!(addresses(), ["http://one", "http://two"]);
    assert!(node.withdraw(&old, "http://two").unwrap());
    assert!(!node.withdraw(&old, "http://two").unwrap());
    assert_eq!(addresses(), ["http://one"]);
    // What was forgotten is not remembered again.
    node.home().unwrap().remove_record(&old).unwrap();
    node.declare(&old, Intent::new("http://three")).unwrap();
    assert!(node.records().unwrap().is_empty());
}

fn passphrase(text: &str) -> Passphrase {
    Passphrase::new(text.to_owned().into()).unwrap()
}

fn unlocked(home: &std::path::Path, text: &str) -> Result<Home, NodeError> {
    Home::open_with(home, || Ok(Some(passphrase(text))))
}

#[test]
fn a_key_is_locked_changed_and_left_open_again() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::open(dir.path()).unwrap();
    let (id, file) = (home.key().node_id(), dir.path().join("key"));
    let seed = std::fs::read_to_string(&file).unwrap()["device_key_".len()..].trim().to_owned();
    for text in ["first", "second"] {
        home.lock_key(Some(&passphrase(text))).unwrap();
        assert_eq!(mode(&file), 0o600);
        let written = std::fs::read_to_string(&file).unwrap();
        assert!(written.starts_with("locked_key_") && !written.contains(&seed), "{written}");
        assert!(matches!(Home::open(dir.path()), Err(NodeError::Locked(_))));
        assert!(matches!(unlocked(dir.path(), "wrong"), Err(NodeError::Passphrase)));
        assert_eq!(unlocked(dir.path(), text).unwrap().key().node_id(), id);
    }
    assert!(matches!(unlocked(dir.path(), "first"), Err(NodeError::Passphrase)));
    home.lock_key(None).unwrap();
    let asked = || panic!("nobody is asked for the passphrase of a key that is not locked");
    assert_eq!(Home::open_with(dir.path(), asked).unwrap().key().node_id(), id);
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|f| f.unwrap().path()).collect();
    assert!(!left.iter().any(|f| f.to_string_lossy().contains("new-")), "{left:?}");
}

#[test]
fn a_key_is_carried_to_another_home_and_replaces_none() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let home = Home::open(here.path()).unwrap();
    let file = here.path().join("exported");
    home.export_key(&file, &passphrase("travel")).unwrap();
    assert_eq!(mode(&file), 0o600);
    let again = home.export_key(&file, &passphrase("travel"));
    assert!(matches!(again, Err(NodeError::KeyTaken(_))));
    let to = there.path().join("home");
    let import = |text: &str| Home::import_key(&to, &file, || Ok(Some(passphrase(text))));
    assert!(matches!(import("wrong"), Err(NodeError::Passphrase)));
    assert!(!to.exists(), "nothing was made");
    assert_eq!(import("travel").unwrap(), home.key().node_id());
    assert_eq!(mode(&to.join("key")), 0o600);
    assert_eq!(unlocked(&to, "travel").unwrap().key().node_id(), home.key().node_id());
    assert!(matches!(import("travel"), Err(NodeError::KeyTaken(_))));
    let locked = Home::import_key(there.path(), &file, || Ok(None));
    assert!(matches!(locked, Err(NodeError::Locked(_))));
    // What is not locked does not travel.
    let plain = Home::import_key(there.path(), &here.path().join("key"), || panic!("asked"));
    assert!(matches!(plain, Err(NodeError::Key(_))));
    assert!(!there.path().join("key").exists());
}

/// What was committed and not signed yet belongs to a log that only this device can sign.
#[tokio::test]
async fn recovering_leaves_the_own_log_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    drop(Home::open(&home).unwrap());
    let node = Node::open(&home).unwrap();
    let file = dir.path().join("recovery.key");
    let replica = node
        .create_with("notes", NewDatabase { recovery: Some(&file), ..NewDatabase::default() })
        .unwrap();
    let storage = std::sync::Arc::clone(replica.storage());
    let options = anabranch_node::ReplicaOptions {
        durability: anabranch_core::storage::Durability::Normal,
        ..anabranch_node::ReplicaOptions::default()
    };
    let device = replica.device().clone();
    drop(replica);
    let replica = anabranch_node::Replica::open(storage, None, device, options).unwrap();
    let (log, write) = (
        replica.look(|view| view.own_log()).unwrap(),
        anabranch_core::author::Write {
            store: anabranch_core::entry::StoreId::table("t"),
            path: anabranch_core::path::Path::text(["a", "b"]).unwrap(),
            value: Some(vec![1]),
            seen: anabranch_core::author::Seen::AtCommit,
            below: false,
            above: false,
        },
    );
    let draft = anabranch_core::author::Draft { writes: vec![write], ..Default::default() };
    replica.commit_group(&[vec![draft.clone()]]).unwrap();
    assert_eq!(replica.look(|view| view.unsigned()).unwrap(), 1);
    replica.recover(&file).unwrap();
    let tips = replica.look(|view| view.frontier()).unwrap();
    let own = log.unwrap();
    assert!(tips.positions().any(|tip| tip.log == own && tip.seq == 2), "it is told");
    let mut again = draft;
    again.writes[0].value = Some(vec![2]);
    replica.commit_group(&[vec![again]]).unwrap();
    assert_eq!(replica.look(|view| view.own_log()).unwrap(), Some(own), "and goes on");
    assert_eq!(replica.look(|view| view.unsigned()).unwrap(), 1);
}
