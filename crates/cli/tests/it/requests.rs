//! Asking to be let in, between real processes: who asks, who decides, what is said meanwhile.

use crate::world::{Home, Running, eventually};
use serde_json::Value;

/// A home that serves `notes`, with a row in it, and the address that names it.
fn admin() -> (Home, Running, String) {
    let a = Home::new();
    let made = a.json(&["db", "new", "notes"]);
    a.ok(&["db", "put", "notes", "t", "first", "{}"]);
    let (serving, address) = a.serve("0");
    let url = format!("{address}/{}", made["database"].as_str().unwrap());
    (a, serving, url)
}

fn id(home: &Home) -> String {
    home.ok(&["id"]).trim().to_owned()
}

#[test]
fn who_asks_is_told_how_it_goes_on_and_is_let_in_once_it_is_approved() {
    let (a, _serving, url) = admin();
    let b = Home::new();
    let me = id(&b);
    let asked =
        b.ok(&["join", &url, "--name", "notes", "--ask", "I am\u{1b}[31m\u{202e} Ana's laptop"]);
    assert!(asked.contains("an admin has to approve it there"), "{asked}");
    assert!(asked.contains("'anabranch serve' goes on by itself"), "{asked}");
    assert_eq!(b.json(&["status"])["replicas"][0]["joining"], true);
    assert!(b.ok(&["status"]).contains("not let in yet"));
    b.run(&["sync", "notes"]).fails(1, "an admin of the database has to approve it");
    assert_eq!(b.json(&["join", &url, "--name", "notes", "--ask", "again"])["waiting"], true);

    let listed = a.json(&["requests", "ls"]);
    let asking = listed["requests"].as_array().unwrap();
    assert_eq!(asking.len(), 1, "a new one replaces the old one: {listed}");
    assert_eq!(
        (asking[0]["device"].as_str(), &asking[0]["message"]),
        (Some(&*me), &"again".into())
    );
    assert_eq!(
        (asking[0]["role"].as_str(), asking[0]["rejected"].as_bool()),
        (Some("write"), Some(false))
    );
    b.ok(&["join", &url, "--name", "notes", "--ask", "I am\u{1b}[31m\u{202e} Ana's laptop"]);
    let shown = a.ok(&["requests", "ls", "notes"]);
    assert!(
        shown.contains(&me) && shown.contains(r"I am\u{1b}[31m\u{202e} Ana's laptop"),
        "{shown:?}"
    );
    assert!(a.ok(&["status"]).contains("1 device asks to be let in"));
    assert_eq!(a.json(&["status"])["replicas"][0]["requests"], 1);

    let approved = a.json(&["requests", "approve", "notes", &me, "--role", "read"]);
    assert_eq!(approved["role"], "read");
    a.run(&["requests", "approve", "notes", &me]).fails(1, "does not ask to be let in");
    let joined = b.json(&["join", &url, "--ask", "again"]);
    assert_eq!((joined["role"].as_str(), joined["name"].as_str()), (Some("read"), Some("notes")));
    assert_eq!(a.digest("notes"), b.digest("notes"));
    assert_eq!(b.json(&["status"])["replicas"][0]["joining"], false);
    assert!(a.run(&["requests", "ls"]).err.contains("no device asks"));
    b.ok(&["sync", "notes"]);
}

#[test]
fn who_waits_and_who_serves_go_on_by_themselves() {
    let (a, _serving, url) = admin();
    let (b, c) = (Home::new(), Home::new());
    b.ok(&["config", "net.retry_max", "200ms"]);
    b.ok(&["config", "net.retry_min", "50ms"]);
    c.ok(&["config", "net.retry_max", "200ms"]);
    c.ok(&["config", "net.retry_min", "50ms"]);
    let (at_b, at_c) = (id(&b), id(&c));
    let mut waiting = b.start(&["join", &url, "--name", "notes", "--ask", "b", "--wait", "--json"]);
    waiting.note("waiting for an admin's approval");
    c.ok(&["join", &url, "--name", "notes", "--ask", "c"]);
    let mut serving = c.start(&["serve"]);
    serving.note("waiting for approval");
    let why = || c.json(&["status"])["replicas"][0]["addresses"][0]["why"].clone();
    eventually("it says why it waits", || why()["code"] == "waiting-for-approval");
    assert!(why()["text"].as_str().unwrap().contains("anabranch requests approve"));
    a.ok(&["requests", "approve", "notes", &at_b]);
    a.ok(&["requests", "approve", "notes", &at_c]);
    let joined: Value = serde_json::from_str(&waiting.line()).unwrap();
    assert_eq!(joined["role"], "write");
    assert_eq!(waiting.wait(), 0);
    serving.note("in step with");
    eventually("it asks no more", || c.json(&["status"])["replicas"][0]["joining"] == false);
    c.ok(&["db", "put", "notes", "t", "second", "{}"]);
    eventually("what it writes arrives", || a.digest("notes") == c.digest("notes"));
}

#[test]
fn who_is_rejected_is_told_so_until_that_is_forgotten() {
    let (a, _serving, url) = admin();
    let b = Home::new();
    let me = id(&b);
    let join = ["join", &url, "--name", "notes", "--ask", "b", "--role", "admin"];
    b.ok(&join);
    a.run(&["requests", "approve", "notes", &me]).fails(1, "asks to become an admin");
    a.ok(&["requests", "reject", "notes", &me]);
    b.run(&join).fails(1, "rejected the request");
    b.run(&[&join[..], &["--wait"]].concat()).fails(1, "ask an admin for a ticket");
    let shown = a.ok(&["requests", "ls"]);
    assert!(shown.contains("rejected, just now"), "{shown}");
    a.ok(&["requests", "forget", "notes", &me]);
    assert_eq!(b.json(&join)["waiting"], true);
}

#[test]
fn a_policy_lets_in_whom_it_names_and_is_shown_and_removed() {
    let (a, _serving, url) = admin();
    let (b, c, d) = (Home::new(), Home::new(), Home::new());
    let join = |home: &Home| home.run(&["join", &url, "--name", "notes", "--ask", "me"]);
    assert_eq!(a.json(&["requests", "policy", "notes"])["policy"], Value::Null);
    a.run(&["requests", "policy", "notes", "--expires", "1d"]).fails(2, "a policy is for somebody");
    let set = ["requests", "policy", "notes", "--device", &id(&b), "--role", "write"];
    let policy = a.json(&[&set[..], &["--anyone", "1", "--expires", "1d"]].concat());
    assert_eq!(policy["policy"]["devices"], serde_json::json!([id(&b)]));
    assert!(policy["policy"]["until"].is_string());
    for home in [&b, &c] {
        let done = join(home);
        assert!(done.code == 0 && done.out.contains("joined notes to write"), "{done:?}");
        assert_eq!(a.digest("notes"), home.digest("notes"));
    }
    assert!(join(&d).out.contains("an admin has to approve it"), "its place is taken");
    let shown = a.ok(&["requests", "policy", "notes"]);
    assert!(shown.contains(&id(&b)) && !shown.contains("whoever they are"), "{shown}");
    assert!(a.ok(&["requests", "policy", "notes", "--remove"]).contains("wait for an admin"));
    // Whoever was let in is no admin.
    b.run(&["requests", "policy", "notes", "--anyone", "1"]).fails(1, "no admin of the database");
}

#[test]
fn a_folder_is_asked_for_by_its_place() {
    let a = Home::new();
    std::fs::create_dir(a.dir().join("photos")).unwrap();
    std::fs::write(a.dir().join("photos/beach.jpg"), b"sand").unwrap();
    let mut share = a.start(&["share", "photos", "--listen", "0", "--json"]);
    let shared: Value = serde_json::from_str(&share.line()).unwrap();
    let url = format!(
        "{}/{}",
        shared["addresses"][0].as_str().unwrap(),
        shared["database"].as_str().unwrap()
    );
    let b = Home::new();
    assert_eq!(b.json(&["join", &url, "pictures", "--ask", "b"])["waiting"], true);
    assert!(!b.dir().join("pictures/beach.jpg").exists());
    a.ok(&["requests", "approve", "photos", &id(&b)]);
    b.ok(&["sync", "pictures"]);
    assert_eq!(std::fs::read(b.dir().join("pictures/beach.jpg")).unwrap(), b"sand");
    assert_eq!(b.json(&["status"])["replicas"][0]["joining"], false);
    std::fs::write(b.dir().join("pictures/hill.jpg"), b"grass").unwrap();
    b.ok(&["sync", "pictures"]);
    eventually("what it adds arrives", || a.dir().join("photos/hill.jpg").exists());
}

#[test]
fn what_makes_no_sense_is_explained() {
    let (_a, _serving, url) = admin();
    let b = Home::new();
    let root = url.rsplit_once('/').unwrap().0;
    b.run(&["join", &url]).fails(2, "ask with --ask");
    b.run(&["join", root, "--name", "n", "--ask", "b"]).fails(2, "does not say which database");
    b.run(&["join", &format!("{root}/notes"), "--name", "n", "--ask", "b"])
        .fails(2, "'anabranch db info' there prints the id");
    b.run(&["join", "host:notes", "--name", "n", "--ask", "b"]).fails(2, "nobody has to ask");
    b.run(&["join", &url, "--name", "n", "--ask", &"x".repeat(513)]).fails(2, "at most 512 bytes");
    b.run(&["join", &url, "--ask", "b"]).fails(2, "give one with --name");
    b.run(&["join", &url, "--name", "n", "--wait"]).fails(2, "--ask");
    b.run(&["requests", "reject", "n", "somebody"]).fails(2, "node_");
    assert!(!b.state().join("databases").exists(), "nothing was made");
    // Of a database that is not there it hears what any stranger hears.
    let other = format!("{root}/db_{}", "a".repeat(52));
    b.run(&["join", &other, "--name", "n", "--ask", "b"]).fails(1, "no requests are taken");
}
