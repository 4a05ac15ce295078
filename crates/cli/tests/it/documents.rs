//! What `--json` prints is what docs/cli-json.md says: every field of every document stands there.

use crate::world::{Home, joined};
use serde_json::Value;
use std::collections::BTreeSet;

const DOCUMENTED: &str = include_str!("../../../../docs/cli-json.md");

/// The names of fields that stand in the documentation, in code quotes.
fn documented() -> BTreeSet<String> {
    let code = DOCUMENTED.split('`').skip(1).step_by(2);
    let word = |c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '$');
    code.flat_map(|text| text.split(word)).map(str::to_owned).collect()
}

fn fields(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Array(list) => list.iter().for_each(|v| fields(v, found)),
        Value::Object(object) => {
            for (key, value) in object {
                found.insert(key.clone());
                // A row is the user's own.
                if key != "row" && key != "value" {
                    fields(value, found);
                }
            }
        }
        _ => {}
    }
}

fn check(home: &Home, args: &[&str]) -> Vec<Value> {
    let out = home.ok(&[args, &["--json"]].concat());
    let documents: Vec<Value> = out.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert!(!documents.is_empty(), "{args:?} printed nothing");
    let (known, mut found) = (documented(), BTreeSet::new());
    documents.iter().for_each(|d| fields(d, &mut found));
    let unknown: Vec<_> = found.difference(&known).collect();
    assert!(
        unknown.is_empty(),
        "{args:?} prints {unknown:?}, which docs/cli-json.md does not name"
    );
    documents
}

#[test]
fn every_field_is_documented() {
    let (a, b, _serving, address) = joined();
    a.ok(&["db", "put", "notes", "t", "x", r#"{"v":1}"#]);
    check(&a, &["db", "index", "add", "notes", "t", "v"]);
    check(&a, &["db", "index", "ls", "notes"]);
    check(&a, &["db", "find", "notes", "t", "v", "1"]);
    check(&a, &["db", "index", "rm", "notes", "t", "v"]);
    check(&a, &["db", "counter", "add", "notes", "c", "n", "3"]);
    check(&a, &["db", "counter", "get", "notes", "c", "n"]);
    check(&a, &["db", "counter", "ls", "notes", "c"]);
    check(&a, &["db", "set", "add", "notes", "s", "[1]"]);
    check(&a, &["db", "set", "has", "notes", "s", "[1]"]);
    check(&a, &["db", "set", "ls", "notes", "s"]);
    check(&a, &["db", "set", "rm", "notes", "s", "[1]"]);
    check(&a, &["db", "list", "push", "notes", "d", "l", "1"]);
    check(&a, &["db", "list", "ls", "notes", "d", "l"]);
    let input = a.write("content", "some content");
    check(&a, &["db", "blob", "put", "notes", "b", "x", &input]);
    check(&a, &["db", "blob", "get", "notes", "b", "x", "out"]);
    check(&a, &["db", "blob", "ls", "notes", "b"]);
    check(&a, &["db", "blob", "fetch", "notes", "b"]);
    check(&a, &["db", "blob", "keep", "notes", "b", "lazy"]);
    check(&a, &["db", "blob", "evict", "notes", "b"]);
    check(&a, &["db", "log", "notes", "--limit", "1"]);
    check(&a, &["db", "blob", "rm", "notes", "b", "x"]);
    check(&a, &["db", "gc", "notes"]);
    check(&a, &["db", "counter", "reset", "notes", "c", "n"]);
    b.ok(&["db", "put", "notes", "t", "x", r#"{"v":2}"#]);
    for args in [
        &["id"][..],
        &["init"],
        &["config"],
        &["config", "durability"],
        &["completions", "bash"],
        &["sync", "notes", "--dry-run"],
        &["sync"],
        &["peers"],
        &["peers", "add", "notes", "host:notes", "--every", "1h"],
        &["peers", "rm", "notes", "host:notes"],
        &["status"],
        &["db", "ls"],
        &["db", "info", "notes"],
        &["db", "rows", "notes", "t"],
        &["db", "put", "notes", "t", "y", "{}"],
        &["db", "rm", "notes", "t", "y"],
        &["db", "log", "notes"],
        &["db", "conflicts", "notes"],
        &["db", "resolve", "notes", "t", "x", "--take", "1"],
        &["db", "digest", "notes"],
        &["db", "verify", "notes"],
        &["db", "new", "other"],
        &["db", "forget", "other", "--yes"],
    ] {
        let documents = check(&b, args);
        let many = ["log", "rows"].iter().any(|many| args.contains(many));
        assert!(many || documents.len() == 1, "{args:?} prints one document");
    }
    let ticket = check(&a, &["ticket", "notes", "--address", &address]).remove(0);
    let c = Home::new();
    check(&c, &["join", ticket["ticket"].as_str().unwrap()]);
    let rows = c.write("rows.jsonl", "{\"k\":1}\n");
    check(&c, &["db", "import", "notes", "t", &rows, "--key", "k"]);
}

#[test]
fn folders_print_what_is_documented() {
    let home = Home::new();
    std::fs::create_dir(home.dir().join("here")).unwrap();
    home.write("here/file", "text");
    for args in [
        &["sync", "here", "there", "--dry-run"][..],
        &["sync", "here", "there"],
        &["status"],
        &["folder", "log", "here"],
        &["folder", "conflicts", "here"],
        &["folder", "digest", "here"],
        &["folder", "verify", "here"],
        &["folder", "forget", "there", "--yes"],
    ] {
        check(&home, args);
    }
}
