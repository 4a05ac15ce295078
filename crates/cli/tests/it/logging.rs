//! What `serve` logs: objects a line if that is asked for, sessions with who and what they were about, and nothing that lets
//! anybody in.

use crate::world::{Home, Running, eventually};
use serde_json::Value;

/// A process of `serve`, and the address it says.
pub(crate) fn serve(home: &Home, more: &[&str], env: &[(&str, &str)]) -> (Running, String) {
    let args = [&["serve", "--listen", "0", "--json"], more].concat();
    let mut command = home.command(&args);
    command.envs(env.iter().copied());
    let mut running = Running::of(command);
    let said: Value = serde_json::from_str(&running.line()).unwrap();
    let address = said["address"].as_str().unwrap().to_owned();
    (running, address)
}

fn sessions(lines: &[String]) -> Vec<Value> {
    let objects = lines.iter().map(|line| serde_json::from_str::<Value>(line));
    let objects: Vec<Value> = objects.map(|object| object.expect("an object a line")).collect();
    let spans = objects.iter().flat_map(|o| o["spans"].as_array().cloned().unwrap_or_default());
    spans.filter(|span| span["name"] == "session").collect()
}

#[test]
fn a_log_for_programs_tells_of_sessions_and_of_no_secret() {
    let (a, b) = (Home::new(), Home::new());
    a.ok(&["db", "new", "notes"]);
    a.ok(&["db", "put", "notes", "t", "x", r#"{"v":"not for the log"}"#]);
    let (serving, address) = serve(&a, &["--log-format", "json", "-vv"], &[]);
    let ticket = a.ok(&["ticket", "notes", "--address", &address]);
    b.ok(&["join", ticket.trim()]);
    let over = || sessions(&serving.complaints()).iter().any(|s| s["received"].as_u64() > Some(0));
    eventually("the session is in the log", over);
    let lines = serving.complaints();
    let (device, database) = (b.ok(&["id"]), a.json(&["db", "info", "notes"]));
    let session = sessions(&lines).pop().unwrap();
    let short = |of: &Value| of.as_str().map(str::to_owned).unwrap();
    assert!(device.starts_with(&short(&session["peer"])), "{session}");
    let database = database["database"].as_str().unwrap();
    assert!(database.starts_with(&short(&session["database"])), "{session}");
    let applied = lines.iter().any(|line| line.contains("a batch was applied"));
    assert!(applied, "{lines:#?}");
    let text = lines.join("\n");
    assert!(!text.contains(ticket.trim()) && !text.contains("not for the log"), "{text}");
    assert!(!text.contains("ticket_"), "{text}");
    assert_eq!(serving.interrupt(), 0);
}

#[test]
fn notes_and_errors_are_lines_of_that_log() {
    let a = Home::new();
    a.ok(&["db", "new", "notes"]);
    let done = a.run(&["serve", "--listen", "1.2.3.4:1", "--log-format", "json"]);
    assert_eq!(done.code, 1, "{done:?}");
    let lines: Vec<&str> = done.err.lines().collect();
    let object: Value = serde_json::from_str(lines[0]).unwrap();
    assert_eq!((lines.len(), &object["level"]), (1, &Value::from("ERROR")), "{done:?}");
    assert!(object["fields"]["message"].as_str().unwrap().contains("1.2.3.4"), "{done:?}");
    a.run(&["serve", "--log-format", "xml"]).fails(2, "text, json");
}
