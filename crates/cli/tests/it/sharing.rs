//! Two homes and more: tickets, joining, syncing, live changes, conflicts, what is refused.

use crate::world::{Home, eventually, joined};
use serde_json::Value;

#[test]
fn a_share_is_joined_and_changes_arrive_live() {
    let (a, b) = (Home::new(), Home::new());
    a.ok(&["db", "new", "notes"]);
    a.ok(&["db", "put", "notes", "tasks", "first", r#"{"n":1}"#]);
    let mut share = a.start(&["share", "notes", "--listen", "0"]);
    let ticket = share.line();
    share.note("treat it like a password");
    share.note("which only this machine can reach");
    let file = b.write("ticket", &ticket);
    let joined = b.json(&["join", &format!("@{file}")]);
    assert_eq!((joined["name"].as_str(), joined["role"].as_str()), (Some("notes"), Some("write")));
    assert_eq!(a.digest("notes"), b.digest("notes"));

    let mut watch = a.start(&["db", "watch", "notes", "--json"]);
    watch.note("watching");
    let following = b.start(&["serve"]);
    b.ok(&["db", "put", "notes", "tasks", "live", r#"{"n":2}"#]);
    let change: Value = serde_json::from_str(&watch.line()).unwrap();
    assert_eq!(change["local"], false);
    assert_eq!(change["writes"][0]["path"], serde_json::json!(["live"]));
    assert_eq!(change["device"].as_str().unwrap(), b.ok(&["id"]).trim());
    a.ok(&["db", "put", "notes", "tasks", "back", r#"{"n":3}"#]);
    let change: Value = serde_json::from_str(&watch.line()).unwrap();
    assert_eq!(change["local"], true);
    eventually("the change reaches b", || a.digest("notes") == b.digest("notes"));

    assert_eq!(watch.interrupt(), 0);
    assert_eq!(following.interrupt(), 0);
    assert_eq!(share.interrupt(), 0);
}

#[test]
fn four_processes_put_while_another_serves() {
    let (a, b, serving, _) = joined();
    let mut following = b.start(&["serve"]);
    following.note("in step with");
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let a = &a;
            scope.spawn(move || {
                for n in 0..4 {
                    a.ok(&["db", "put", "notes", "t", &format!("{writer}-{n}"), r#"{"x":1}"#]);
                }
            });
        }
    });
    assert_eq!(a.ok(&["db", "rows", "notes", "t"]).lines().count(), 16);
    eventually("all are pushed live", || b.ok(&["db", "rows", "notes", "t"]).lines().count() == 16);
    assert_eq!(a.digest("notes"), b.digest("notes"));
    assert_eq!(serving.interrupt(), 0);
    following.note("not in step with");
    assert_eq!(following.interrupt(), 0);
}

#[test]
fn a_peer_that_comes_back_is_found_again() {
    let (a, b, serving, address) = joined();
    b.ok(&["config", "net.retry_max", "200ms"]);
    b.ok(&["config", "net.retry_min", "50ms"]);
    let mut following = b.start(&["serve"]);
    following.note("in step with");
    serving.interrupt();
    following.note("not in step with");
    a.ok(&["db", "put", "notes", "t", "x", "{}"]);
    let (_again, _) = a.serve(address.trim_start_matches("http://"));
    following.note("in step with");
    eventually("what was missed arrives", || a.digest("notes") == b.digest("notes"));
}

#[test]
fn concurrent_edits_are_conflicts_until_one_side_resolves_them() {
    let (a, b, _serving, address) = joined();
    a.ok(&["db", "put", "notes", "t", "row", r#"{"v":0,"w":0}"#]);
    let c = Home::new();
    let ticket = a.ok(&["ticket", "notes", "--address", &address]);
    assert_eq!(c.fed(ticket.as_bytes(), &["join", "-", "--name", "copy"]).code, 0);
    b.ok(&["sync", "notes"]);
    a.ok(&["db", "put", "notes", "t", "row", r#"{"v":1,"w":0}"#]);
    b.ok(&["db", "put", "notes", "t", "row", r#"{"v":2,"w":0}"#]);
    c.ok(&["db", "rm", "copy", "t", "row"]);

    let told = b.ok(&["sync", "notes"]);
    assert!(told.contains("1 conflict: see 'anabranch db conflicts notes'"), "{told}");
    assert_eq!(c.json(&["sync", "copy"])["conflicts"], 2);
    b.ok(&["sync"]);
    let listed = a.json(&["db", "conflicts", "notes"]);
    assert_eq!(listed, b.json(&["db", "conflicts", "notes"]));
    assert_eq!(listed, c.json(&["db", "conflicts", "copy"]));
    let conflicts = listed["conflicts"].as_array().unwrap();
    assert_eq!(conflicts[0]["versions"][1]["deleted"], true, "{listed}");
    assert_eq!(conflicts[1]["path"], serde_json::json!(["row", "v"]));
    assert_eq!(conflicts[1]["versions"].as_array().unwrap().len(), 2);
    let text = a.ok(&["db", "conflicts", "notes"]);
    assert!(text.contains("table t row v") && text.contains("deleted"), "{text}");

    let take = |n: &str| c.run(&["db", "resolve", "copy", "t", "row", "--take", n]);
    take("3").fails(1, "has 2 versions, there is no number 3");
    assert_eq!(c.json(&["db", "resolve", "copy", "t", "row", "--take", "1"])["settled"], 2);
    c.ok(&["sync"]);
    b.ok(&["sync"]);
    for (home, name) in [(&a, "notes"), (&b, "notes"), (&c, "copy")] {
        assert_eq!(home.json(&["db", "conflicts", name])["conflicts"], serde_json::json!([]));
        assert_eq!(home.digest(name), a.digest("notes"));
        home.ok(&["db", "verify", name]);
    }
    take("1").fails(1, "has no conflict");
}

#[test]
fn a_dry_run_says_what_would_move_and_moves_nothing() {
    let (a, b, _serving, address) = joined();
    a.ok(&["db", "put", "notes", "t", "from-a", "{}"]);
    for n in 0..3 {
        b.ok(&["db", "put", "notes", "t", &format!("from-b{n}"), "{}"]);
    }
    let (before_a, before_b) = (a.digest("notes"), b.digest("notes"));
    let would = b.ok(&["sync", "notes", &address, "--dry-run"]);
    assert!(would.contains("would send 3 entries, receive 1 entry"), "{would}");
    let would = b.json(&["sync", "--dry-run"]);
    assert_eq!(
        (&would["entries_would_send"], &would["entries_would_receive"]),
        (&3.into(), &1.into())
    );
    assert_eq!((before_a, before_b), (a.digest("notes"), b.digest("notes")));

    let pushed = b.json(&["sync", "notes", "--push"]);
    assert_eq!((&pushed["entries_sent"], &pushed["entries_received"]), (&3.into(), &0.into()));
    let pulled = b.json(&["sync", "notes", "--pull"]);
    assert_eq!(pulled["entries_received"], 1);
    assert_eq!(a.digest("notes"), b.digest("notes"));
    let again = b.ok(&["sync"]);
    assert!(again.contains("nothing moved"), "{again}");
}

#[test]
fn one_peer_of_two_that_fails_is_partly_done() {
    let (a, b, serving, address) = joined();
    let nobody = "http://127.0.0.1:1";
    b.run(&["sync", "notes", nobody]).fails(1, "Connection refused");
    assert!(!b.ok(&["status", "notes"]).contains(nobody), "remembered only if it worked");

    let c = Home::new();
    let ticket = a.ok(&["ticket", "notes", "--address", &address]);
    c.ok(&["join", ticket.trim()]);
    let (serving_c, at_c) = c.serve("0");
    b.ok(&["sync", "notes"]);
    b.ok(&["sync", "notes", &at_c]);
    assert_eq!(b.ok(&["sync", "notes", "--json"]).lines().count(), 2);
    serving_c.interrupt();
    let done = b.run(&["sync"]);
    done.fails(3, "1 of 2 syncs failed");
    assert!(done.err.contains(&format!("because: notes with {at_c}: ")), "{done:?}");
    assert!(done.out.contains("nothing moved"), "{done:?}");
    serving.interrupt();
    b.run(&["sync", "notes"]).fails(1, "2 of 2 syncs failed");
}

#[test]
fn a_ticket_that_ends_is_refused_with_the_reason() {
    let (a, b, _serving, address) = joined();
    let (c, d) = (Home::new(), Home::new());
    let ticket = |args: &[&str]| {
        let all = [&["ticket", "notes", "--address", &address], args].concat();
        a.ok(&all).trim().to_owned()
    };
    let once = ticket(&["--once"]);
    c.ok(&["join", &once]);
    c.ok(&["join", &once]);
    d.run(&["join", &once]).fails(1, "was used by as many devices as it allows");
    assert_eq!(d.json(&["status"])["replicas"][0]["joining"], true);
    assert!(d.ok(&["status"]).contains("joining is not finished"));
    let expired = ticket(&["--expires", "1ms"]);
    d.run(&["join", &expired]).fails(1, "the ticket's time is over");
    // The admin's device closed both, and who came in stays.
    let tickets = |all: &[&str]| {
        let members = a.json(&[&["members", "notes", "ls"], all].concat());
        let list = members["members"].as_array().unwrap().iter();
        list.filter(|member| member["kind"] == "ticket").map(|m| m["holds"] == true).collect()
    };
    eventually("they are closed", || {
        let (open, ever): (Vec<bool>, Vec<bool>) = (tickets(&[]), tickets(&["--all"]));
        (open.len(), ever.len()) == (1, 3)
    });
    c.ok(&["db", "put", "notes", "t", "of-c", "{}"]);
    c.ok(&["sync", "notes"]);
    assert_eq!(a.digest("notes"), c.digest("notes"));
    d.run(&["join", &once]).fails(1, "was used by as many devices as it allows");
    d.ok(&["join", &ticket(&["--role", "read"])]);
    assert_eq!(d.json(&["status"])["replicas"][0]["role"], "read");
    d.run(&["db", "put", "notes", "t", "x", "{}"]).fails(1, "may not write here");
    b.run(&["ticket", "notes"]).fails(1, "ask an admin");
    let admin = ticket(&["--role", "admin"]);
    b.ok(&["sync", "notes", &admin]);
    b.ok(&["ticket", "notes"]);
}

#[test]
fn tickets_and_addresses_of_other_databases_are_refused() {
    let (a, b, _serving, address) = joined();
    let made = a.json(&["db", "new", "other"]);
    let id = made["database"].as_str().unwrap();
    let other = a.ok(&["ticket", "other", "--address", &address]);
    b.run(&["sync", "notes", other.trim()]).fails(2, "another database than notes");
    b.run(&["sync", "notes", &format!("{address}/{id}")]).fails(2, "another database than notes");
    b.ok(&["sync", "notes", &format!("{address}/notes")]);
    b.run(&["join", other.trim(), "--name", "notes"]).fails(1, "choose a name with --name");
    b.run(&["join", other.trim(), "some/path"]).fails(2, "use --name");
    b.ok(&["sync", "another", other.trim()]);
    assert_eq!(a.digest("other"), b.digest("another"));
    b.run(&["join", other.trim(), "--name", "third"]).fails(2, "here already, as another");
    b.run(&["sync", "notes", "db:another"]).fails(2, "different databases");
    b.run(&["sync", "notes", "nowhere"]).fails(2, "neither an address nor a ticket");
    a.ok(&["db", "new", "notes2"]);
    b.run(&["sync", "notes2", &address]).fails(1, "there is no replica 'notes2' here");
}

#[test]
fn a_member_that_is_no_longer_served_is_told() {
    let (a, b, serving, address) = joined();
    serving.interrupt();
    let share = {
        a.ok(&["db", "new", "only-this"]);
        let listen = address.trim_start_matches("http://");
        let mut share = a.start(&["share", "only-this", "--listen", listen]);
        share.line();
        share
    };
    b.run(&["sync", "notes"]).fails(1, "not served here");
    drop(share);
}

#[test]
fn a_new_database_is_served_without_a_restart() {
    let (a, b, _serving, address) = joined();
    a.ok(&["db", "new", "later"]);
    let ticket = a.ok(&["ticket", "later", "--address", &address]);
    b.ok(&["join", ticket.trim()]);
    assert_eq!(a.digest("later"), b.digest("later"));
}

#[test]
fn secrets_stay_out_of_logs() {
    let (a, b) = (Home::new(), Home::new());
    a.ok(&["db", "new", "notes"]);
    let (_serving, address) = a.serve("0");
    let ticket = a.run(&["ticket", "notes", "--address", &address, "-vvv"]);
    assert!(!ticket.err.contains("ticket_"), "{}", ticket.err);
    let joined = b.run(&["join", ticket.out.trim(), "-vvv"]);
    assert_eq!(joined.code, 0, "{joined:?}");
    let secret = &ticket.out.trim()["ticket_".len()..];
    assert!(!joined.err.contains(&secret[60..100]), "{}", joined.err);
}

#[test]
fn a_port_in_use_says_what_to_do() {
    let (a, _b, _serving, address) = joined();
    let listen = address.trim_start_matches("http://");
    a.run(&["serve", "--listen", listen]).fails(1, "another program has this port");
}

#[test]
fn what_is_declared_is_carried_out_and_shown() {
    let (a, b, serving, address) = joined();
    b.run(&["peers", "add", "notes", "nowhere"]).fails(1, "write http://host:port");
    b.run(&["peers", "add", "notes", &address, "--every", "10ms"])
        .fails(1, "leave the interval out");
    b.run(&["peers", "add", "other", &address]).fails(1, "no database 'other'");
    b.ok(&["peers", "add", "notes", &address, "--pull", "--priority", "high"]);
    let shown = b.ok(&["status"]);
    assert!(shown.contains("pull only, high priority, in step"), "{shown}");
    let mut following = b.start(&["serve"]);
    following.note("in step with");
    b.ok(&["db", "put", "notes", "t", "mine", "{}"]);
    a.ok(&["db", "put", "notes", "t", "theirs", "{}"]);
    eventually("what is theirs is pulled", || {
        b.ok(&["db", "rows", "notes", "t"]).lines().count() == 2
    });
    assert_eq!(a.ok(&["db", "rows", "notes", "t"]).lines().count(), 1, "nothing is pushed");
    let status = || b.json(&["status", "notes"])["replicas"][0]["addresses"][0].clone();
    let standing = status();
    assert_eq!((&standing["send"], &standing["receive"]), (&false.into(), &true.into()));
    assert_eq!(standing["device"].as_str().unwrap(), a.ok(&["id"]).trim());
    assert_eq!((&standing["why"], &standing["every_seconds"]), (&Value::Null, &Value::Null));
    assert_eq!(serving.interrupt(), 0);
    eventually("it says why it waits", || status()["why"]["code"] == "offline");
    let text = status()["why"]["text"].as_str().unwrap().to_owned();
    assert!(text.contains("tried again by itself"), "{text}");
    b.ok(&["peers", "rm", "notes", &address]);
    b.run(&["peers", "rm", "notes", &address]).fails(1, "is not kept in step with");
    assert_eq!(b.json(&["status"])["replicas"][0]["addresses"], serde_json::json!([]));
    assert_eq!(following.interrupt(), 0);
}
