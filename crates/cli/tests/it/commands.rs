//! Every command in one home.

use crate::world::Home;
use serde_json::{Value, json};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

/// Ids, times and paths differ from run to run.
fn redacted(home: &Home, text: &str) -> String {
    let text = text.replace(&home.dir().canonicalize().unwrap().display().to_string(), "DIR");
    let mut out = String::new();
    for word in text.split_inclusive(|c: char| c.is_whitespace() || "\"(),".contains(c)) {
        let bare = word.trim_end_matches(|c: char| c.is_whitespace() || "\"(),".contains(c));
        let end = &word[bare.len()..];
        let lower = bare.bytes().all(|b| b.is_ascii_lowercase() || (b'2'..=b'7').contains(&b));
        out.push_str(&match bare {
            b if b.starts_with("node_") => "NODE".into(),
            b if b.starts_with("db_") => "DATABASE".into(),
            b if b.starts_with("entry_") => "ENTRY".into(),
            b if b.starts_with("DIR/home/databases/") => "FILE".into(),
            b if (b.len() == 16 || b.len() == 52) && lower => "DIGEST".into(),
            b if b.len() == 20 && b.ends_with('Z') && b.starts_with("20") => "TIME".into(),
            b => b.to_owned(),
        });
        out.push_str(end);
    }
    out
}

fn with_rows() -> Home {
    let home = Home::new();
    home.ok(&["db", "new", "notes"]);
    home.ok(&["db", "put", "notes", "tasks", "milk", r#"{"text":"buy milk","done":false}"#]);
    home.ok(&[
        "db",
        "put",
        "notes",
        "tasks",
        "rent",
        r#"{"text":"pay rent","due":null,"sum":12.5}"#,
    ]);
    home
}

#[test]
fn a_home_is_made_once_and_is_private() {
    let home = Home::new();
    let made = home.json(&["init"]);
    let id = home.ok(&["id"]);
    assert_eq!(made["device"], id.trim());
    assert_eq!(home.json(&["init"])["device"], id.trim());
    home.ok(&["db", "new", "notes"]);
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&home.state()), 0o700);
    assert_eq!(mode(&home.state().join("key")), 0o600);
    assert_eq!(mode(&home.state().join("node.db")), 0o600);
    assert_eq!(mode(&home.database_file()), 0o600);
    assert_eq!(mode(home.database_file().parent().unwrap()), 0o700);
}

#[test]
fn a_home_can_be_named_on_the_command_line() {
    let home = Home::new();
    let other = home.dir().join("other").display().to_string();
    let there = home.ok(&["id", "--home", &other]);
    assert_ne!(there, home.ok(&["id"]));
    let mut nowhere = home.command(&["id"]);
    let done: crate::world::Done =
        nowhere.env_remove("ANABRANCH_HOME").env_remove("HOME").output().unwrap().into();
    done.fails(2, "name a directory with --home or ANABRANCH_HOME");
}

#[test]
fn rows_are_put_shown_and_deleted() {
    let home = with_rows();
    assert_eq!(
        home.ok(&["db", "get", "notes", "tasks", "milk"]),
        "{\"done\":false,\"text\":\"buy milk\"}\n"
    );
    assert_eq!(
        home.json(&["db", "get", "notes", "tasks", "rent"]),
        json!({"text":"pay rent","due":null,"sum":12.5})
    );
    insta::assert_snapshot!(home.ok(&["db", "rows", "notes", "tasks"]), @r#"
    milk	{"done":false,"text":"buy milk"}
    rent	{"due":null,"sum":12.5,"text":"pay rent"}
    "#);
    assert_eq!(home.ok(&["db", "rows", "notes", "tasks", "--limit", "1"]).lines().count(), 1);
    assert_eq!(home.ok(&["db", "rows", "notes", "tasks", "--limit", "0"]), "");
    assert_eq!(home.ok(&["db", "rows", "notes", "tasks", "--prefix", "re"]).lines().count(), 1);
    assert_eq!(home.ok(&["db", "rows", "notes", "none"]), "");
    let rows = home.ok(&["db", "rows", "notes", "tasks", "--json"]);
    let first: Value = serde_json::from_str(rows.lines().next().unwrap()).unwrap();
    assert_eq!(first, json!({"key": "milk", "row": {"done": false, "text": "buy milk"}}));

    home.ok(&["db", "rm", "notes", "tasks", "milk"]);
    home.run(&["db", "get", "notes", "tasks", "milk"])
        .fails(1, "there is no row 'milk' in table 'tasks'");
    home.run(&["db", "rm", "notes", "tasks", "milk"]).fails(1, "there is no row 'milk'");
    let fed = home.fed(b"{\"a\": [1, 2]}", &["db", "put", "notes", "tasks", "fed", "-"]);
    assert_eq!(fed.code, 0, "{fed:?}");
    assert_eq!(home.json(&["db", "get", "notes", "tasks", "fed"]), json!({"a": [1, 2]}));
}

#[test]
fn rows_that_do_not_fit_are_refused() {
    let home = with_rows();
    let put = |json: &str| home.run(&["db", "put", "notes", "tasks", "x", json]);
    put("{").fails(2, "the row is no JSON");
    put("[1]").fails(2, "a row must be a JSON object");
    put("{\"n\": 18446744073709551616}").fails(2, "does not fit into 64 bits");
    assert_eq!(put(&format!("{{\"t\": \"{}\"}}", "x".repeat(100_000))).code, 0);
    let large = format!("{{\"t\": \"{}\"}}", "x".repeat(200 * 1024));
    home.fed(large.as_bytes(), &["db", "put", "notes", "tasks", "x", "-"]).fails(1, "");
    let key = "k".repeat(9_000);
    home.run(&["db", "put", "notes", "tasks", &key, "{}"]).fails(1, "make the key shorter");
    assert_eq!(home.ok(&["db", "rows", "notes", "tasks"]).lines().count(), 3);
}

#[test]
fn what_a_database_holds_is_shown() {
    let home = with_rows();
    let info = home.ok(&["db", "info", "notes"]).replace("80.0 KiB", "SIZE");
    let info: Vec<&str> = info.lines().filter(|l| !l.starts_with("size")).collect();
    insta::assert_snapshot!(redacted(&home, &info.join("\n")));
    let info = home.json(&["db", "info", "notes"]);
    assert_eq!(info["entries"], 3);
    assert_eq!(info["role"], "admin");
    assert_eq!(info["digest"], home.digest("notes").trim());
    assert_eq!(info["stores"][1]["live"], 7);
    let id = info["database"].as_str().unwrap();
    assert_eq!(home.json(&["db", "info", id]), info);
    assert_eq!(home.json(&["db", "info", "db:notes"]), info);
}

#[test]
fn logs_and_lists_are_shown() {
    let home = with_rows();
    insta::assert_snapshot!(redacted(&home, &home.ok(&["db", "log", "notes"])));
    assert_eq!(home.ok(&["db", "log", "notes", "--limit", "1", "--json"]).lines().count(), 1);
    insta::assert_snapshot!(redacted(&home, &home.ok(&["status"])));
    assert_eq!(home.json(&["db", "ls"])["databases"][0]["name"], "notes");
    let status = home.json(&["status", "notes"]);
    assert_eq!(status["replicas"][0]["role"], "admin");
    assert_eq!(status["replicas"][0]["joining"], false);
    assert_eq!(home.json(&["peers"]), json!({"peers": []}));
    assert_eq!(home.json(&["db", "conflicts", "notes"]), json!({"conflicts": []}));
    assert_eq!(home.json(&["db", "verify", "notes"])["entries"], 3);
    let beside = std::fs::read_dir(home.state().join("databases")).unwrap();
    let left: Vec<_> = beside.map(|f| f.unwrap().file_name()).collect();
    assert!(left.iter().all(|n| !n.to_string_lossy().starts_with('.')), "{left:?}");
}

#[test]
fn names_are_checked() {
    let home = with_rows();
    home.run(&["db", "new", "notes"]).fails(1, "there is a database 'notes' already");
    home.run(&["db", "new", "a/b"]).fails(1, "cannot name a database");
    home.run(&["db", "info", "other"]).fails(1, "there is no database 'other' here");
    home.run(&["status", "other"]).fails(1, "there is no database 'other' here");
    home.run(&["sync", "other"]).fails(1, "there is no replica 'other' here");
    home.run(&["sync", "notes"]).fails(1, "no address is known to sync notes with");
    std::fs::create_dir(home.dir().join("notes")).unwrap();
    home.run(&["status", "notes"])
        .fails(2, "write ./notes for the path, db:notes for the database");
    home.ok(&["status", "db:notes"]);
}

#[test]
fn wrong_usage_is_told_from_failure() {
    let home = Home::new();
    for (args, text) in [
        (&["frob"][..], "unrecognized subcommand"),
        (&["sync", "--push", "--pull"], "cannot be used with"),
        (&["sync", "http://127.0.0.1:1"], "what is here comes first"),
        (&["db", "resolve", "a", "b", "c", "--take", "0"], "0 is not in 1.."),
        (&["db", "resolve", "a", "b", "c"], "--take"),
        (&["serve", "notes"], "--stdio"),
        (&["serve", "--listen", "example.org:1"], "cannot listen on"),
        (&["ticket", "x", "--expires", "soon"], "a number with a unit"),
        (&["join", "ticket_abc"], "the ticket is damaged"),
        (&["join", "hello"], "this is not a ticket"),
        (&["config", "durability", "full", "--unset"], "cannot be used with"),
    ] {
        home.run(args).fails(2, text);
    }
    home.run(&["join", "@nowhere"]).fails(1, "no ticket could be read from @nowhere");
    let file = home.write("ticket.txt", "x");
    home.run(&["join", &file]).fails(2, &format!("write @{file}"));
}

#[test]
fn errors_are_objects_for_programs() {
    let home = Home::new();
    let done = home.run(&["db", "info", "nothing", "--json"]);
    assert_eq!((done.code, done.out.as_str()), (1, ""));
    let error: Value = serde_json::from_str(&done.err).unwrap();
    assert_eq!(error["exit"], 1);
    assert!(error["error"].as_str().unwrap().contains("there is no database 'nothing' here"));
}

#[test]
fn settings_are_shown_set_and_unset() {
    let home = Home::new();
    assert_eq!(home.ok(&["config", "ticket.expires"]), "7d\n");
    home.ok(&["config", "ticket.expires", "1d"]);
    assert_eq!(home.json(&["config", "ticket.expires"])["value"], "1d");
    assert!(home.ok(&["config"]).contains("1d"));
    home.ok(&["config", "ticket.expires", "--unset"]);
    assert_eq!(home.json(&["config", "ticket.expires"])["value"], "7d");
    home.run(&["config", "ticket.expires", "soon"]).fails(1, "it takes a duration");
    home.run(&["config", "no.such"]).fails(1, "there is no setting 'no.such'");
    let all = home.json(&["config"]);
    for setting in all["settings"].as_array().unwrap() {
        assert_eq!(setting["value"], setting["default"]);
        assert!(!setting["about"].as_str().unwrap().is_empty());
    }
}

#[test]
fn forgetting_asks_first() {
    let home = with_rows();
    home.run(&["db", "forget", "notes"]).fails(2, "give --yes");
    let file = home.database_file();
    home.ok(&["db", "forget", "notes", "--yes"]);
    assert!(!file.exists());
    assert_eq!(home.json(&["db", "ls"]), json!({"databases": []}));
    home.run(&["db", "forget", "notes", "--yes"]).fails(1, "there is no database 'notes' here");
}

#[test]
fn quiet_prints_what_was_asked_for_and_nothing_else() {
    let home = Home::new();
    let made = home.run(&["db", "new", "notes", "-q"]);
    assert_eq!((made.out.as_str(), made.err.as_str()), ("", ""));
    let ticket = home.run(&["ticket", "notes", "-q"]);
    assert!(ticket.out.starts_with("ticket_") && ticket.err.is_empty(), "{ticket:?}");
    let none = home.run(&["db", "conflicts", "notes", "-q"]);
    assert_eq!((none.out.as_str(), none.err.as_str()), ("", ""));
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    let home = Home::new();
    home.ok(&["db", "new", "notes"]);
    let rows: String =
        (0..3_000).map(|i| format!("{{\"k\":{i},\"text\":\"{}\"}}\n", "x".repeat(60))).collect();
    home.fed(rows.as_bytes(), &["db", "import", "notes", "t", "-", "--key", "k"]);
    for args in [["db", "export", "notes", "t"], ["db", "rows", "notes", "t"]] {
        let mut command = home.command(&args);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut first = [0; 10];
        child.stdout.take().unwrap().read_exact(&mut first).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    }
}

#[test]
fn things_are_counted() {
    let home = Home::new();
    home.ok(&["db", "new", "shop"]);
    let counter = |args: &[&str]| home.ok(&[&["db", "counter"], args].concat());
    assert_eq!(counter(&["add", "shop", "visits", "pages/home"]), "1\n");
    assert_eq!(counter(&["add", "shop", "visits", "pages/home", "41"]), "42\n");
    assert_eq!(counter(&["add", "shop", "visits", "apples", "--", "-12"]), "-12\n");
    assert_eq!(counter(&["get", "shop", "visits", "nothing"]), "0\n");
    assert_eq!(counter(&["ls", "shop", "visits"]), "apples\t-12\npages/home\t42\n");
    let got = home.json(&["db", "counter", "get", "shop", "visits", "pages/home"]);
    assert_eq!(got, json!({ "path": ["pages", "home"], "sum": 42 }));
    assert_eq!(counter(&["reset", "shop", "visits", "pages/home"]), "0\n");
    let log = home.ok(&["db", "log", "shop"]);
    assert!(
        log.contains("visits/pages/home reset: -42") && log.contains("visits/apples -12"),
        "{log}"
    );
    let info = home.ok(&["db", "info", "shop"]);
    assert!(info.contains("counter") && info.contains("1 live value"), "{info}");
    home.ok(&["db", "verify", "shop"]);
    home.run(&["db", "counter", "add", "shop", "visits", "a//b"]).fails(2, "is no path");
}

#[test]
fn things_are_kept_in_sets() {
    let home = Home::new();
    home.ok(&["db", "new", "notes"]);
    let set = |args: &[&str]| home.ok(&[&["db", "set"], args].concat());
    set(&["add", "notes", "tags", "\"urgent\""]);
    set(&["add", "notes", "tags", "{\"b\": 1, \"a\": [2]}"]);
    set(&["add", "notes", "tags", "{\"a\": [2], \"b\": 1}"]);
    assert_eq!(set(&["ls", "notes", "tags"]), "\"urgent\"\n{\"a\":[2],\"b\":1}\n");
    assert_eq!(set(&["has", "notes", "tags", "\"urgent\""]), "yes\n");
    set(&["rm", "notes", "tags", "\"urgent\""]);
    assert_eq!(set(&["has", "notes", "tags", "\"urgent\""]), "no\n");
    let log = home.ok(&["db", "log", "notes"]);
    assert!(
        log.contains("tags/\"urgent\" deleted") && log.contains("tags/\"urgent\" added"),
        "{log}"
    );
    home.run(&["db", "set", "add", "notes", "tags", "urgent"]).fails(2, "text stands in quotes");
}

#[test]
fn lists_are_kept_in_documents() {
    let home = Home::new();
    home.ok(&["db", "new", "notes"]);
    let list = |verb: &str, args: &[&str]| {
        home.ok(&[&["db", "list", verb, "notes", "week", "shopping/list"], args].concat())
    };
    list("push", &["\"milk\""]);
    list("push", &["{\"what\": \"eggs\", \"n\": 6}"]);
    list("insert", &["0", "\"bread\""]);
    list("mv", &["2", "0"]);
    list("set", &["1", "\"rye bread\""]);
    assert_eq!(list("ls", &[]), "0\t{\"n\":6,\"what\":\"eggs\"}\n1\t\"rye bread\"\n2\t\"milk\"\n");
    list("rm", &["1"]);
    let left = home.run(&["db", "list", "rm", "notes", "week", "shopping/list", "2"]);
    left.fails(1, "it has 2 elements, counted from 0");
    let log = home.ok(&["db", "log", "notes"]);
    assert!(log.contains("placed"), "{log}");
    home.ok(&["db", "verify", "notes"]);
}
