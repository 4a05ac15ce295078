//! Programs in other languages: what docs/api.md shows, run as it stands there.

use crate::world::{Running, eventually, joined};
use serde_json::Value;
use std::process::{Command, Stdio};

/// The Python program of docs/api.md.
fn example() -> &'static str {
    let doc = include_str!("../../../../docs/api.md");
    doc.split("```python\n").nth(1).unwrap().split("```").next().unwrap()
}

#[test]
fn a_python_program_puts_watches_and_syncs() {
    let (a, b, serving, address) = joined();
    let mut node = b.start(&["serve", "--api", "0", "--json"]);
    let said: Value = serde_json::from_str(&node.line()).unwrap();
    let api = said["api"].as_str().unwrap().to_owned();
    assert!(example().lines().count() <= 45, "short enough to be read");
    let script = b.write("tasks.py", example());
    let mut python = Command::new("python3");
    python.args([&script, &api, "notes", &address]).current_dir(b.dir());
    python.env("ANABRANCH_HOME", b.state()).stdin(Stdio::null());
    let mut python = Running::of(python);
    assert_eq!(python.line().trim(), format!("synced {address}"));
    assert_eq!(python.line(), "watching");
    let row = a.ok(&["db", "get", "notes", "tasks", "milk"]);
    assert!(row.contains("buy milk"), "{row}");
    a.ok(&["db", "put", "notes", "tasks", "eggs", r#"{"text":"six"}"#]);
    let lines = [python.line(), python.line()];
    assert!(lines.iter().any(|line| line == "afar ['eggs', 'text'] six"), "{lines:?}");
    drop(python);
    let status = b.json(&["status", "notes"]);
    let declared = &status["replicas"][0]["addresses"][0];
    assert_eq!((&declared["address"], &declared["in_step"].is_null()), (&address.into(), &false));
    assert_eq!(node.interrupt(), 0);
    assert_eq!(serving.interrupt(), 0);
}

#[test]
fn status_shows_what_the_serving_process_does_now() {
    let (_a, b, serving, address) = joined();
    let mut node = b.start(&["serve", "--api"]);
    node.note("in step with");
    let second = b.run(&["serve", "--api"]);
    second.fails(1, "another process serves the API of this home");
    let standing = || b.json(&["status"])["replicas"][0]["addresses"][0]["standing"].clone();
    assert_eq!(standing()["state"], "in-step");
    assert!(b.ok(&["status"]).contains(&format!("{address}  in-step, in step")));
    assert_eq!(serving.interrupt(), 0);
    eventually("it waits", || standing()["reasons"][0]["code"] == "offline");
    let shown = b.ok(&["status"]);
    assert!(shown.contains("tried again by itself"), "{shown}");
    b.run(&["serve", "--api", "0.0.0.0:0"]).fails(1, "on this machine");
    assert_eq!(node.interrupt(), 0);
    assert_eq!(standing(), Value::Null, "nobody serves any more");
}
