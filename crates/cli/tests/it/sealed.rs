//! Sealed databases between real processes: two devices that never meet, a relay between them that can read nothing, and a
//! device that is put out.

use crate::world::{Home, eventually};
use std::path::Path;

const PLAIN: &str = "the plain text of a row";

fn id(home: &Home) -> String {
    home.ok(&["id"]).trim().to_owned()
}

fn put(home: &Home, key: &str, text: &str) {
    let row = format!(r#"{{"said": "{text}"}}"#);
    home.ok(&["db", "put", "notes", "talk", key, &row]);
}

fn said(home: &Home, key: &str) -> Option<String> {
    let done = home.run(&["db", "get", "notes", "talk", key]);
    (done.code == 0).then_some(done.out)
}

/// Files below `dir` in which one of the texts occurs.
fn containing(dir: &Path, texts: &[&[u8]]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(containing(&path, texts));
        } else {
            let bytes = std::fs::read(&path).unwrap_or_default();
            let holds = |text: &&[u8]| bytes.windows(text.len()).any(|window| window == *text);
            if texts.iter().any(holds) {
                found.push(path.display().to_string());
            }
        }
    }
    found
}

/// A founder, and a relay that serves what the founder brings it.
fn relayed(terms: &[&str]) -> (Home, Home, crate::world::Running, String) {
    let (a, relay) = (Home::new(), Home::new());
    let made = a.ok(&[&["db", "new", "notes", "--sealed"], terms].concat());
    assert!(made.contains("made sealed database notes"), "{made}");
    put(&a, "first", PLAIN);
    let (mut serving, url) = a.serve("0");
    let ticket = a.ok(&["ticket", "notes", "--address", &url, "--role", "relay"]);
    let file = relay.write("ticket", &ticket);
    let joined = relay.ok(&["join", &format!("@{file}")]);
    assert!(joined.contains("joined notes to relay"), "{joined}");
    serving.kill();
    a.run(&["peers", "rm", "notes", &url]);
    relay.ok(&["peers", "rm", "notes", &url]);
    let (serving, url) = relay.serve("0");
    a.ok(&["sync", "notes", &format!("{url}/notes")]);
    (a, relay, serving, url)
}

#[test]
fn two_devices_that_never_meet_share_what_the_relay_between_them_cannot_read() {
    let (a, relay, _serving, url) = relayed(&[]);
    let there = format!("{url}/notes");
    let ticket = a.ok(&["ticket", "notes", "--address", &url]);
    a.ok(&["sync", "notes", &there]);

    // The founder is offline. A stranger to the relay joins by it, and reads what came before its ticket.
    let b = Home::new();
    let file = b.write("ticket", &ticket);
    b.ok(&["join", &format!("@{file}")]);
    assert!(said(&b, "first").unwrap().contains(PLAIN));
    put(&b, "second", "and an answer to it");
    b.ok(&["sync", "notes"]);
    a.ok(&["sync", "notes", &there]);
    assert!(said(&a, "second").unwrap().contains("an answer"));
    assert_eq!(a.digest("notes"), b.digest("notes"));

    // Neither text nor key nor hash of what was written is anywhere in the relay's home; of a member's it is.
    let row = format!(r#"{{"said": "{PLAIN}"}}"#);
    let hashes = [blake3::hash(PLAIN.as_bytes()), blake3::hash(row.as_bytes())];
    let hex = hashes.map(|hash| hash.to_hex().to_string());
    let mut texts: Vec<&[u8]> = vec![PLAIN.as_bytes(), b"second", b"an answer"];
    texts.extend(hashes.iter().map(|hash| &hash.as_bytes()[..]));
    texts.extend(hex.iter().map(|hash| hash.as_bytes()));
    assert_eq!(containing(relay.dir(), &texts), [""; 0]);
    assert!(!containing(b.dir(), &[PLAIN.as_bytes()]).is_empty());

    // It says so, and shows no empty tables.
    assert_eq!(relay.json(&["db", "info", "notes"])["opened"], false);
    assert!(relay.ok(&["db", "info", "notes"]).contains("this device relays what it cannot read"));
    relay.run(&["db", "rows", "notes", "talk"]).fails(1, "the database is sealed");
    relay.run(&["db", "export", "notes", "talk"]).fails(1, "the database is sealed");
    relay.run(&["db", "digest", "notes"]).fails(1, "is sealed with a key that is not here");
    let log = relay.ok(&["db", "log", "notes"]);
    assert!(log.contains("sealed with a key that is not here") && log.contains("members"), "{log}");
    relay.run(&["db", "put", "notes", "talk", "x", "{}"]).fails(1, "");
    assert!(relay.ok(&["db", "verify", "notes"]).contains("notes is sound"));
    assert!(b.ok(&["db", "verify", "notes"]).contains("notes is sound"));
    assert_eq!(b.json(&["db", "info", "notes"])["sealed"], true);
}

#[test]
fn who_is_put_out_of_a_sealed_database_reads_nothing_new() {
    let (a, relay, _serving, url) = relayed(&[]);
    let there = format!("{url}/notes");
    let join = |name: &str, role: &str| {
        let home = Home::new();
        let ticket = a.ok(&["ticket", "notes", "--address", &url, "--role", role]);
        a.ok(&["sync", "notes", &there]);
        let file = home.write("ticket", &ticket);
        home.ok(&["join", &format!("@{file}")]);
        a.ok(&["sync", "notes", &there]);
        assert!(said(&home, "first").is_some(), "{name}");
        home
    };
    let (b, c) = (join("b", "write"), join("c", "read"));
    a.ok(&["members", "notes", "revoke", &id(&c)]);
    a.ok(&["sync", "notes", &there]);
    b.ok(&["sync", "notes"]);
    put(&b, "after", "nothing for c");
    b.ok(&["sync", "notes"]);
    a.ok(&["sync", "notes", &there]);
    assert!(said(&a, "after").unwrap().contains("nothing for c"));
    assert_eq!(a.digest("notes"), b.digest("notes"));
    c.run(&["sync", "notes"]).fails(1, "revoked");

    // With the relay's files instead of its own, its key opens nothing of what came after.
    let lost = std::fs::read(relay.database_file()).unwrap();
    for more in ["-wal", "-shm"] {
        let file = |home: &Home| format!("{}{more}", home.database_file().display());
        std::fs::remove_file(file(&c)).unwrap_or(());
        _ = std::fs::copy(file(&relay), file(&c));
    }
    std::fs::write(c.database_file(), lost).unwrap();
    c.run(&["db", "get", "notes", "talk", "after"]).fails(1, "");
    assert_eq!(containing(c.dir(), &[b"nothing for c"]), [""; 0]);
}

#[test]
fn who_asks_to_be_let_in_gets_the_key_as_well() {
    let a = Home::new();
    a.ok(&["db", "new", "notes", "--sealed"]);
    put(&a, "first", PLAIN);
    let (_serving, url) = a.serve("0");
    let database = a.json(&["db", "info", "notes"])["database"].as_str().unwrap().to_owned();
    let b = Home::new();
    let ask = ["join", &format!("{url}/{database}"), "--name", "notes", "--ask", "b"];
    assert_eq!(b.json(&ask)["waiting"], true);
    a.ok(&["requests", "approve", "notes", &id(&b)]);
    b.ok(&ask);
    assert!(said(&b, "first").unwrap().contains(PLAIN));
    // Everyone may relay it; that everyone reads it, it cannot have.
    a.run(&["members", "notes", "grant", "anyone", "read"]).fails(1, "one by one");
    a.ok(&["members", "notes", "grant", "anyone", "relay"]);
    // That keeps nobody from asking to read.
    let c = Home::new();
    let ask = ["join", &format!("{url}/{database}"), "--name", "notes", "--ask", "c"];
    c.json(&ask);
    assert_eq!(a.json(&["requests", "ls"])["requests"].as_array().unwrap().len(), 1);
    a.ok(&["requests", "approve", "notes", &id(&c)]);
    c.ok(&["sync", "notes"]);
    assert!(said(&c, "first").unwrap().contains(PLAIN));
    a.run(&["db", "blob", "put", "notes", "files", "x", &a.write("x", "x")]).fails(1, "sealed");
}

#[test]
fn a_reader_gets_a_later_key_from_an_admin_that_comes_online() {
    let (a, _relay, _serving, url) = relayed(&[]);
    let there = format!("{url}/notes");
    let ticket = a.ok(&["ticket", "notes", "--address", &url, "--role", "read", "--once"]);
    a.ok(&["sync", "notes", &there]);
    let b = Home::new();
    let file = b.write("ticket", &ticket);
    b.ok(&["join", &format!("@{file}")]);
    // The admin does not know of b yet, and makes a key that b is not handed.
    let other = id(&Home::new());
    a.ok(&["members", "notes", "grant", &other, "read"]);
    a.ok(&["members", "notes", "revoke", &other]);
    put(&a, "second", "under another key");
    a.ok(&["sync", "notes", &there]);
    b.run(&["sync", "notes"]);
    eventually("a hands it on", || {
        a.run(&["sync", "notes", &there]);
        b.run(&["sync", "notes"]);
        said(&b, "second").is_some()
    });
    assert_eq!(a.digest("notes"), b.digest("notes"));
}

#[test]
fn the_recovery_key_opens_a_sealed_database() {
    let file = tempfile::tempdir().unwrap();
    let key = file.path().join("notes.key");
    let (a, relay, _serving, _url) = relayed(&["--recovery", key.to_str().unwrap()]);
    drop(a);
    relay.ok(&["members", "notes", "recover", key.to_str().unwrap()]);
    assert!(said(&relay, "first").unwrap().contains(PLAIN));
    put(&relay, "second", "by what was the relay");
    assert_eq!(relay.json(&["db", "info", "notes"])["opened"], true);
}
