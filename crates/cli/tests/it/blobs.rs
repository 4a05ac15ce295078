//! `db blob` and `db gc`, between two devices as real processes.

use crate::world::{Home, joined};
use std::fs;

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..len).map(|_| next()).collect()
}

fn file(home: &Home, name: &str, content: &[u8]) -> String {
    let path = home.dir().join(name);
    fs::write(&path, content).unwrap();
    path.display().to_string()
}

fn got(home: &Home, name: &str) -> Vec<u8> {
    home.ok(&["db", "blob", "get", "notes", "b", name, "out"]);
    fs::read(home.dir().join("out")).unwrap()
}

#[test]
fn content_goes_from_device_to_device() {
    let (a, b, _serving, _) = joined();
    let content = noise(1, 3_000_000);
    let path = file(&a, "in", &content);
    a.ok(&["db", "blob", "put", "notes", "b", "large", &path, "--type", "video/mp4"]);
    let piped = a.fed(b"piped\n", &["db", "blob", "put", "notes", "b", "small", "-"]);
    assert_eq!(piped.code, 0, "{piped:?}");
    b.ok(&["sync", "notes"]);
    assert_eq!(b.ok(&["db", "blob", "get", "notes", "b", "small"]), "piped\n");
    assert_eq!(b.ok(&["db", "blob", "get", "notes", "b", "small", "--range", "1-3"]), "ipe");
    assert!(got(&b, "large") == content);
    let list = b.ok(&["db", "blob", "ls", "notes", "b", "--json"]);
    let rows: Vec<serde_json::Value> =
        list.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let large = &rows[0];
    assert_eq!(large["name"], "large");
    assert_eq!((&large["size"], &large["here"]), (&3_000_000.into(), &true.into()));
    assert_eq!((&large["type"], &large["versions"]), (&"video/mp4".into(), &1.into()));
    let log = b.json(&["db", "log", "notes", "--limit", "1"]);
    assert_eq!(log["writes"][0]["value"]["size"], 6, "{log}");
    b.ok(&["db", "verify", "notes"]);

    b.ok(&["db", "blob", "rm", "notes", "b", "large"]);
    let freed = b.json(&["db", "gc", "notes"]);
    assert!(freed["bytes"].as_u64() > Some(3_000_000), "{freed}");
    b.run(&["db", "blob", "get", "notes", "b", "large"]).fails(1, "db blob ls notes b");
    a.ok(&["db", "verify", "notes"]);
}

#[test]
fn a_lazy_store_fetches_what_is_read() {
    let (a, b, serving, _) = joined();
    let content = noise(2, 4_000_000);
    let path = file(&a, "in", &content);
    b.ok(&["db", "blob", "keep", "notes", "b", "lazy"]);
    assert_eq!(b.ok(&["db", "blob", "keep", "notes", "b"]), "lazy\n");
    a.ok(&["db", "blob", "put", "notes", "b", "x", &path]);
    b.ok(&["sync", "notes"]);
    assert!(b.ok(&["db", "blob", "ls", "notes", "b"]).contains("not here"));
    b.ok(&["db", "blob", "get", "notes", "b", "x", "part", "--range", "2000000-2000099"]);
    assert!(fs::read(b.dir().join("part")).unwrap() == content[2_000_000..2_000_100]);
    assert!(fs::metadata(b.database_file()).unwrap().len() < 2_000_000);
    b.ok(&["db", "blob", "fetch", "notes", "b", "x"]);
    drop(serving);
    assert!(got(&b, "x") == content);
    let freed = b.json(&["db", "blob", "evict", "notes", "b", "x"]);
    assert!(freed["bytes"].as_u64() > Some(4_000_000), "{freed}");
    let gone = b.run(&["db", "blob", "get", "notes", "b", "x", "again", "--wait", "1"]);
    gone.fails(1, "no peer is connected");
    assert!(!b.dir().join("again").exists(), "all of it or nothing");
    assert!(got(&a, "x") == content);
}

#[test]
fn a_lazy_device_joins_without_content() {
    let (a, _, _serving, address) = joined();
    let path = file(&a, "in", &noise(3, 2_000_000));
    a.ok(&["db", "blob", "put", "notes", "b", "x", &path]);
    let c = Home::new();
    let ticket = a.ok(&["ticket", "notes", "--address", &address]);
    c.ok(&["join", ticket.trim(), "--lazy"]);
    assert_eq!(c.ok(&["db", "blob", "keep", "notes", "b"]), "lazy\n");
    assert!(fs::metadata(c.database_file()).unwrap().len() < 1_000_000);
    assert!(got(&c, "x") == noise(3, 2_000_000));
}

#[test]
fn wrong_usage_is_told() {
    let a = Home::new();
    a.ok(&["db", "new", "notes"]);
    let blob = |args: &[&str]| a.run(&[&["db", "blob"], args].concat());
    blob(&["get", "notes", "b", "x"]).fails(1, "no blob 'x'");
    blob(&["rm", "notes", "b", "x"]).fails(1, "no blob 'x'");
    blob(&["put", "notes", "b", "x", "/nowhere"]).fails(1, "cannot be read");
    blob(&["put", "notes", "b", "x", "."]).fails(2, "is a directory");
    blob(&["evict", "notes", "b"]).fails(1, "anabranch db blob keep");
    blob(&["keep", "notes", "b", "never"]).fails(2, "eager, lazy");
    a.fed(b"x", &["db", "blob", "put", "notes", "b", "x", "-"]);
    blob(&["get", "notes", "b", "x", "--json"]).fails(2, "name a file");
    blob(&["get", "notes", "b", "x", "--range", "5-1"]).fails(2, "is no range");
    blob(&["get", "notes", "b", "x", "--version", "2"]).fails(1, "no number 2");
    blob(&["resolve", "notes", "b", "x", "--take", "1"]).fails(1, "no conflict");
    blob(&["get", "notes", "b", "x", "/nowhere/x"]).fails(1, "cannot be written");
}
