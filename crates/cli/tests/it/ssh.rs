//! `host:NAME` through a script in the place of ssh.

use crate::world::{Home, joined};
use std::os::unix::fs::PermissionsExt;

/// A script that runs the command it is given in the home of `there`, as ssh would on another machine.
fn connect(here: &Home, there: &Home) {
    let script = here.write(
        "remote.sh",
        &format!(
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
    let peer = &told["replicas"][0]["peers"][0];
    assert_eq!((&peer["sent"]["entries"], &peer["received"]["entries"]), (&1.into(), &1.into()));
    assert_eq!(a.digest("notes"), b.digest("notes"));
    assert_eq!(std::fs::read_to_string(b.dir().join("hosts")).unwrap(), "me@laptop\n");
    let status = b.json(&["status", "notes"]);
    assert_eq!(status["replicas"][0]["addresses"][0]["address"], "me@laptop:notes");
}

#[test]
fn what_goes_wrong_over_there_is_said_here() {
    let (a, b, serving, _) = joined();
    serving.interrupt();
    connect(&b, &a);
    b.run(&["sync", "notes", "laptop:nothing"]).fails(1, "nothing");
    b.ok(&["config", "ssh.remote_program", "no-such-program"]);
    b.run(&["sync", "notes", "laptop:notes"]).fails(1, "is anabranch installed there");
    b.ok(&["config", "ssh.command", "/no/such/ssh"]);
    b.run(&["sync", "notes", "laptop:notes"]).fails(1, "cannot start");
}
