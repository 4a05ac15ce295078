//! `host:NAME` through a script in the place of ssh.

use crate::world::{Home, eventually, joined};
use std::os::unix::fs::PermissionsExt;

/// A script that runs the command it is given in the home of `there`, as ssh would on another machine.
pub(crate) fn connect(here: &Home, there: &Home) {
    let script = here.write(
        "remote.sh",
        format!(
            "#!/bin/sh\necho \"$1\" >> hosts\nshift\nANABRANCH_HOME='{}' exec sh -c \"$*\"\n",
            there.state().display()
        ),
    );
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&script, mode).unwrap();
    here.ok(&["config", "ssh.command", &script]);
    here.ok(&["config", "ssh.remote_program", env!("CARGO_BIN_EXE_anabranch")]);
}

#[test]
fn members_sync_over_a_pipe() {
    let (a, b, serving, _) = joined();
    serving.interrupt();
    connect(&b, &a);
    a.ok(&["db", "put", "notes", "t", "a", "{}"]);
    b.ok(&["db", "put", "notes", "t", "b", "{}"]);
    let told = b.json(&["sync", "notes", "me@laptop:notes"]);
    assert_eq!((&told["entries_sent"], &told["entries_received"]), (&1.into(), &1.into()));
    assert_eq!(a.digest("notes"), b.digest("notes"));
    assert_eq!(std::fs::read_to_string(b.dir().join("hosts")).unwrap(), "me@laptop\n");
    let status = b.json(&["status", "notes"]);
    assert_eq!(status["replicas"][0]["addresses"][0]["address"], "me@laptop:notes");
}

#[test]
fn a_comparison_over_a_pipe_moves_nothing() {
    let (a, b, serving, _) = joined();
    serving.interrupt();
    connect(&b, &a);
    a.ok(&["db", "put", "notes", "t", "a", "{}"]);
    let would = b.json(&["sync", "notes", "laptop:notes", "--dry-run"]);
    assert_eq!(would["entries_would_receive"], 1);
    assert_ne!(a.digest("notes"), b.digest("notes"));
}

#[test]
fn an_address_over_a_pipe_is_followed() {
    let (a, b, serving, _) = joined();
    serving.interrupt();
    connect(&b, &a);
    b.ok(&["sync", "notes", "laptop:notes"]);
    let mut following = b.start(&["serve"]);
    following.note("in step with laptop:notes");
    b.ok(&["db", "put", "notes", "t", "b", "{}"]);
    eventually("it is pushed", || a.digest("notes") == b.digest("notes"));
    assert_eq!(following.interrupt(), 0);
}

#[test]
fn an_admin_brings_a_database_to_another_machine() {
    let (a, c) = (Home::new(), Home::new());
    connect(&a, &c);
    a.ok(&["db", "new", "notes"]);
    a.ok(&["db", "put", "notes", "t", "a", "{}"]);
    a.ok(&["sync", "notes", "laptop:copy"]);
    assert_eq!(a.digest("notes"), c.digest("copy"));
    let (d, e) = (Home::new(), Home::new());
    connect(&d, &a);
    d.ok(&["sync", "mine", "laptop:notes"]);
    assert_eq!(d.digest("mine"), a.digest("notes"));
    connect(&e, &d);
    e.run(&["sync", "mine", "laptop:mine"]).fails(1, "ask an admin");
}

#[test]
fn what_goes_wrong_over_there_is_said_here() {
    let (a, b, serving, _) = joined();
    serving.interrupt();
    connect(&b, &a);
    b.run(&["sync", "notes", "laptop:nothing"]).fails(1, "ask an admin");
    b.run(&["sync", "other", "laptop:nothing"]).fails(1, "neither side is there yet");
    b.ok(&["config", "ssh.remote_program", "no-such-program"]);
    b.run(&["sync", "notes", "laptop:notes"]).fails(1, "is anabranch installed there");
    b.ok(&["config", "ssh.command", "/no/such/ssh"]);
    b.run(&["sync", "notes", "laptop:notes"]).fails(1, "cannot start");
}
