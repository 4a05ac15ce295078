//! Rights that are granted and revoked, between real processes: by pull, push and a live link, and through a third device.

use crate::world::{Home, eventually, joined};
use serde_json::Value;

fn id(home: &Home) -> String {
    home.ok(&["id"]).trim().to_owned()
}

fn row(home: &Home, key: &str) -> bool {
    home.run(&["db", "get", "notes", "t", key]).code == 0
}

/// Another home in which `notes` was joined with a ticket of `a`.
fn join(a: &Home, url: &str, role: &str) -> Home {
    let home = Home::new();
    let ticket = a.ok(&["ticket", "notes", "--address", url, "--role", role]);
    let file = home.write("ticket", &ticket);
    home.ok(&["join", &format!("@{file}")]);
    home
}

#[test]
fn who_is_put_out_gets_nothing_more_and_brings_nothing_that_counts() {
    let (a, b, _serving, url) = joined();
    let c = join(&a, &url, "write");
    b.ok(&["db", "put", "notes", "t", "before", "{}"]);
    b.ok(&["sync", "notes"]);
    let mut following = b.start(&["serve"]);
    following.note("in step with");

    let done = a.run(&["members", "notes", "revoke", &id(&b)]);
    assert_eq!(done.code, 0, "{}", done.err);
    assert!(done.out.contains("what it wrote so far stays"), "{}", done.out);
    assert!(done.out.contains("1 ticket of it closed"), "{}", done.out);
    a.ok(&["db", "put", "notes", "t", "after", "{}"]);
    // The live link ends, and says why.
    eventually("b is told", || {
        let why = b.json(&["status"])["replicas"][0]["addresses"][0]["why"].clone();
        why["code"] == "revoked"
    });
    following.kill();
    b.run(&["sync", "notes", &url]).fails(1, "revoked");
    b.run(&["sync", "notes", &url, "--pull"]).fails(1, "");
    assert!(!row(&b, "after") && row(&b, "before"));

    // What it writes now reaches nobody: neither the admin nor, by a third device that has not heard, anybody else.
    b.ok(&["db", "put", "notes", "t", "late", "{}"]);
    b.run(&["sync", "notes", &url, "--push"]).fails(1, "");
    c.ok(&["peers", "rm", "notes", &url]);
    let (mut at_c, there) = c.serve("0");
    b.ok(&["sync", "notes", &there]);
    assert!(row(&c, "late"), "it has not heard of the revocation");
    at_c.kill();
    c.ok(&["sync", "notes", &url]);
    assert!(!row(&c, "late") && row(&c, "after") && row(&c, "before"));
    assert!(!row(&a, "late"));
    assert_eq!(a.digest("notes"), c.digest("notes"));
    let log = c.ok(&["db", "log", "notes"]);
    assert!(log.contains("does not count"), "{log}");
    assert!(log.contains("changes what counts"), "{log}");

    // Let in again it goes on, in a new log, and what it wrote meanwhile stays out.
    a.ok(&["members", "notes", "grant", &id(&b), "write"]);
    b.ok(&["sync", "notes", &url]);
    let status = b.ok(&["status"]);
    assert!(status.contains("1 entry of this device do"), "{status}");
    b.ok(&["db", "put", "notes", "t", "again", "{}"]);
    b.ok(&["sync", "notes", &url]);
    assert!(row(&a, "again") && !row(&a, "late") && !row(&b, "late"));
    assert_eq!(a.digest("notes"), b.digest("notes"));
}

#[test]
fn who_may_what_is_listed_and_explained() {
    let (a, b, _serving, url) = joined();
    let (me, other) = (id(&a), id(&b));
    let list = a.json(&["members", "notes"]);
    let members = list["members"].as_array().unwrap().clone();
    let of = |who: &str| members.iter().find(|m| m["who"] == who).cloned().unwrap();
    assert_eq!((of(&me)["role"].as_str(), of(&me)["depth"].as_u64()), (Some("admin"), Some(0)));
    assert_eq!(
        (of(&other)["role"].as_str(), of(&other)["depth"].as_u64()),
        (Some("write"), Some(2))
    );
    assert!(a.ok(&["members", "notes"]).contains("(this device)"));
    let why = b.json(&["members", "notes", "why", &other]);
    let chain = why["grants"][0].as_array().unwrap();
    let kinds: Vec<&str> = chain.iter().map(|m| m["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["device", "ticket", "device"]);
    assert_eq!(chain[2]["who"], *me);

    // A role is lowered, and taken back for everybody.
    a.ok(&["members", "notes", "grant", &other, "read"]);
    assert_eq!(a.json(&["members", "notes", "grant", &other, "read"])["changed"], false);
    b.ok(&["sync", "notes"]);
    b.run(&["db", "put", "notes", "t", "x", "{}"]).fails(1, "may not write");
    a.ok(&["members", "notes", "grant", "anyone", "write"]);
    b.ok(&["sync", "notes"]);
    b.ok(&["db", "put", "notes", "t", "x", "{}"]);
    b.ok(&["sync", "notes"]);
    a.ok(&["members", "notes", "revoke", "anyone", "--all"]);
    assert!(!row(&a, "x"));
    b.ok(&["sync", "notes"]);
    assert_eq!(a.digest("notes"), b.digest("notes"));
    b.run(&["db", "put", "notes", "t", "y", "{}"]).fails(1, "may not write");

    // Whoever may not is refused: a reader who grants, an admin who acts on a higher one, the last admin who leaves.
    b.run(&["members", "notes", "grant", &other, "admin"]).fails(1, "may not let others in");
    a.run(&["members", "notes", "revoke", &me]).fails(1, "without an admin");
    let c = join(&a, &url, "admin");
    c.run(&["members", "notes", "revoke", &me]).fails(1, "ranks no lower");
    a.run(&["members", "notes", "revoke", "node_aaaa"]).fails(2, "");
    a.run(&["members", "notes", "why", &id(&Home::new())]).fails(1, "has no right");
    let all: Value = a.json(&["members", "notes", "ls", "--all"]);
    let ended = all["members"].as_array().unwrap().iter().filter(|m| m["holds"] == false).count();
    assert_eq!(ended, 3, "its grant, the ticket by which it could have it again, and everybody's");
}

#[test]
fn a_ticket_is_closed_and_a_device_leaves() {
    let (a, b, _serving, url) = joined();
    let late = Home::new();
    let ticket = a.ok(&["ticket", "notes", "--address", &url]);
    let file = late.write("ticket", &ticket);
    a.ok(&["members", "notes", "revoke", &format!("@{file}")]);
    late.run(&["join", &format!("@{file}")]).fails(1, "revoked");
    // By its own word, and the others hear of it.
    b.ok(&["db", "put", "notes", "t", "kept", "{}"]);
    b.ok(&["members", "notes", "revoke", &id(&b)]);
    b.run(&["db", "put", "notes", "t", "no", "{}"]).fails(1, "may not write");
    b.run(&["sync", "notes"]);
    let gone = |home: &Home| {
        let list = home.json(&["members", "notes"]);
        list["members"].as_array().unwrap().iter().all(|m| m["who"] != *id(&b))
    };
    eventually("a hears of it", || gone(&a));
    assert!(row(&a, "kept"));
}

/// As docs/security.md says it is done.
#[test]
fn a_lost_admin_is_replaced_with_the_recovery_key() {
    let a = Home::new();
    let file = a.dir().join("notes.key");
    let file = file.to_str().unwrap();
    a.ok(&["db", "new", "notes", "--recovery", file]);
    a.run(&["db", "new", "other", "--recovery", file]).fails(1, "a key is never replaced");
    a.ok(&["db", "put", "notes", "t", "kept", "{}"]);
    let (mut serving, url) = a.serve("0");
    let b = join(&a, &url, "read");
    serving.kill();
    // What is left of the first device is a thief's.
    b.ok(&["members", "notes", "recover", file]);
    b.ok(&["members", "notes", "revoke", &id(&a)]);
    b.ok(&["db", "put", "notes", "t", "mine", "{}"]);
    let (_at_b, there) = b.serve("0");
    let c = join(&b, &there, "write");
    assert!(row(&c, "kept") && row(&c, "mine"));
    c.ok(&["db", "put", "notes", "t", "new", "{}"]);
    c.ok(&["sync", "notes"]);
    a.ok(&["db", "put", "notes", "t", "stolen", "{}"]);
    a.run(&["sync", "notes", &there]).fails(1, "revoked");
    assert!(!row(&a, "mine") && !row(&b, "stolen") && row(&b, "new"));
    assert_eq!(b.digest("notes"), c.digest("notes"));
    // Another key has no right; one that is made later ranks below.
    let other = c.dir().join("other.key");
    c.run(&["members", "notes", "recovery", other.to_str().unwrap()])
        .fails(1, "may not let others in");
    assert!(!other.exists());
    c.run(&["members", "notes", "recover", "no-such-file"]).fails(1, "no-such-file");
    b.ok(&["members", "notes", "recovery", other.to_str().unwrap()]);
    c.ok(&["sync", "notes"]);
    c.ok(&["members", "notes", "recover", other.to_str().unwrap()]);
    c.run(&["members", "notes", "revoke", &id(&b)]).fails(1, "ranks no lower");
}

#[test]
fn two_histories_of_a_log_are_shown_and_proven() {
    let (a, b, _serving, url) = joined();
    a.run(&["members", "notes", "proof", &id(&b), "x"]).fails(1, "one history");
    // The file is put back as it was, at its place: the device cannot see that.
    let file = b.database_file();
    let before = std::fs::read(&file).unwrap();
    b.ok(&["db", "put", "notes", "t", "one", "{}"]);
    b.ok(&["sync", "notes", &url]);
    std::fs::write(&file, before).unwrap();
    b.ok(&["db", "put", "notes", "t", "two", "{}"]);
    b.ok(&["sync", "notes", &url]);
    assert!(row(&a, "one") && row(&a, "two") && row(&b, "one"));
    assert!(a.ok(&["members", "notes"]).contains("two histories"));
    let list = a.json(&["members", "notes"]);
    let forked = list["members"].as_array().unwrap().iter().filter(|m| m["equivocated"] == true);
    assert_eq!(forked.map(|m| m["who"].as_str().unwrap()).collect::<Vec<_>>(), [id(&b)]);
    let proof = a.dir().join("proof");
    let proof = proof.to_str().unwrap();
    a.ok(&["members", "notes", "proof", &id(&b), proof]);
    a.run(&["members", "notes", "proof", &id(&b), proof]).fails(1, "could not be written");
    // Whoever gets it needs nothing else.
    let stranger = Home::new();
    let found = stranger.json(&["verify-proof", proof]);
    assert_eq!(found["device"], *id(&b));
    assert!(stranger.ok(&["verify-proof", proof]).contains("signed two entries for place"));
    let mut bent = std::fs::read(proof).unwrap();
    let last = bent.len() - 1;
    bent[last] ^= 1;
    std::fs::write(proof, bent).unwrap();
    stranger.run(&["verify-proof", proof]).fails(1, "this ");
    let file = stranger.write("text", "nothing");
    stranger.run(&["verify-proof", &file]).fails(1, "this is no proof");
}

#[test]
fn nobody_takes_back_what_was_taken_by_a_ticket_or_a_policy() {
    let (a, _b, _serving, url) = joined();
    let c = Home::new();
    let ticket = a.ok(&["ticket", "notes", "--address", &url]);
    let file = format!("@{}", c.write("ticket", &ticket));
    c.ok(&["join", &file]);
    a.ok(&["members", "notes", "grant", &id(&c), "read"]);
    c.ok(&["sync", "notes"]);
    c.run(&["join", &file]);
    c.run(&["sync", "notes"]);
    assert_eq!(c.json(&["status"])["replicas"][0]["role"], "read");
    c.run(&["db", "put", "notes", "t", "x", "{}"]).fails(1, "may not write");

    // A policy lets in who was never put out, and nobody again who was.
    let d = Home::new();
    let database = a.json(&["db", "info", "notes"])["database"].as_str().unwrap().to_owned();
    let there = format!("{url}/{database}");
    let ask = ["join", &there, "--name", "notes", "--ask", "d"];
    a.ok(&["requests", "policy", "notes", "--anyone", "5", "--role", "write"]);
    d.ok(&ask);
    assert_eq!(d.json(&["status"])["replicas"][0]["role"], "write");
    a.ok(&["members", "notes", "revoke", &id(&d)]);
    let again = Home::new();
    std::fs::create_dir_all(again.state()).unwrap();
    std::fs::copy(d.state().join("key"), again.state().join("key")).unwrap();
    assert_eq!(id(&again), id(&d));
    assert_eq!(again.json(&ask)["waiting"], true);
    assert_eq!(a.json(&["requests", "ls"])["requests"].as_array().unwrap().len(), 1);
}

/// What a device wrote after it was put out, without having heard, it writes again once it is let in once more: what others wrote
/// meanwhile is not lost by that.
#[test]
fn what_was_written_past_a_cut_is_written_again() {
    let (a, b, _serving, url) = joined();
    let put = |home: &Home, key: &str, value: &str| {
        home.ok(&["db", "put", "notes", "t", key, value]);
    };
    let got = |home: &Home, key: &str| {
        let done = home.run(&["db", "get", "notes", "t", key]);
        (done.code == 0).then(|| done.out.trim().to_owned())
    };
    let count =
        |home: &Home| home.ok(&["db", "counter", "get", "notes", "visits", "x"]).trim().to_owned();
    for key in ["mine", "theirs", "gone"] {
        put(&b, key, r#"{"n":0}"#);
    }
    b.ok(&["db", "counter", "add", "notes", "visits", "x", "5"]);
    b.ok(&["sync", "notes", &url]);
    a.ok(&["members", "notes", "revoke", &id(&b)]);

    // Twice the same key: the second replaces the first, also when both are written again.
    put(&b, "mine", r#"{"n":1}"#);
    put(&b, "mine", r#"{"n":2}"#);
    put(&b, "theirs", r#"{"n":1}"#);
    put(&b, "new", r#"{"n":1}"#);
    b.ok(&["db", "rm", "notes", "t", "gone"]);
    b.ok(&["db", "counter", "add", "notes", "visits", "x", "2"]);
    let picture = b.write("picture", vec![7; 300_000]);
    b.ok(&["db", "blob", "put", "notes", "b", "picture", &picture]);
    b.run(&["members", "notes", "rewrite"]);
    put(&a, "theirs", r#"{"n":7}"#);

    // Let in again, it has its own again, and says so.
    a.ok(&["members", "notes", "grant", &id(&b), "write"]);
    b.ok(&["sync", "notes", &url]);
    assert_eq!((got(&b, "mine").as_deref(), got(&b, "new")), (Some(r#"{"n":0}"#), None));
    assert_eq!(b.json(&["status"])["replicas"][0]["uncounted"], 7);
    assert!(b.run(&["status"]).out.contains("members notes rewrite"));
    let done = b.json(&["members", "notes", "rewrite"]);
    assert_eq!((&done["entries"], &done["left"]), (&7.into(), &0.into()), "{done}");
    assert_eq!(b.json(&["status"])["replicas"][0]["uncounted"], 0);
    let again = b.json(&["members", "notes", "rewrite"]);
    assert_eq!(again["entries"], 0, "once");
    b.ok(&["sync", "notes", &url]);
    for home in [&a, &b] {
        assert_eq!(got(home, "mine").as_deref(), Some(r#"{"n":2}"#));
        assert_eq!(got(home, "new").as_deref(), Some(r#"{"n":1}"#));
        assert_eq!((got(home, "gone"), count(home).as_str()), (None, "7"));
        let conflicts = home.ok(&["db", "conflicts", "notes"]);
        assert!(conflicts.contains("theirs") && !conflicts.contains("mine"), "{conflicts}");
        home.ok(&["db", "blob", "get", "notes", "b", "picture", "out"]);
        assert_eq!(std::fs::read(home.dir().join("out")).unwrap(), vec![7; 300_000]);
    }
    assert_eq!(a.digest("notes"), b.digest("notes"));
}

/// A device that begins a new log with every write, as one does that is put back from a copy again and again, is named until it
/// is put out.
#[test]
fn a_device_with_very_many_logs_is_named() {
    let (a, b, _serving, url) = joined();
    let file = b.json(&["status"])["replicas"][0]["path"].as_str().unwrap().to_owned();
    let crowds = |home: &Home| home.json(&["status"])["replicas"][0]["crowds"].clone();
    for n in 0..64 {
        let copy = format!("{file}.copy");
        std::fs::copy(&file, &copy).unwrap();
        std::fs::rename(&copy, &file).unwrap();
        b.ok(&["db", "put", "notes", "t", "k", &format!(r#"{{"n":{n}}}"#)]);
    }
    b.ok(&["sync", "notes", &url]);
    let logs = serde_json::json!([{ "device": id(&b), "logs": 65 }]);
    assert_eq!((crowds(&a), crowds(&b)), (logs.clone(), logs));
    let told = a.ok(&["status"]);
    assert!(told.contains(&format!("{} has 65 logs", id(&b))), "{told}");
    let value = a.ok(&["db", "get", "notes", "t", "k"]);
    assert_eq!(value.trim(), r#"{"n":63}"#, "all of them count");
    let members = a.json(&["members", "notes", "ls"])["members"].clone();
    let its = members.as_array().unwrap().iter().find(|member| member["who"] == id(&b)).unwrap();
    assert_eq!((&its["logs"], &its["entries"]), (&65.into(), &65.into()), "{its}");
    assert!(a.ok(&["members", "notes", "ls"]).contains("65 entries in 65 logs"));
    // What everybody may do, it may still.
    a.ok(&["members", "notes", "grant", "anyone", "relay"]);
    a.ok(&["members", "notes", "revoke", &id(&b)]);
    assert_eq!(crowds(&a), serde_json::json!([]));
}
