//! This test binary as a process of its own, to be killed, limited or run beside the test.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use crate::{crash, full, processes};

const ROLE: &str = "ANABRANCH_STORE_TEST_ROLE";
const FILE: &str = "ANABRANCH_STORE_TEST_FILE";

/// Before each line that a child says to its parent, to tell it from what the test harness prints.
const MARK: &str = "child: ";

/// The arguments that make this binary play a role.
pub(crate) fn arguments() -> [&'static str; 3] {
    ["--exact", "child::role", "--nocapture"]
}

/// Sets `command`, which in the end starts this binary with [`arguments`], up to play `role` on `file`.
pub(crate) fn start(
    mut command: Command,
    role: &str,
    file: &Path,
) -> (Child, BufReader<ChildStdout>) {
    command.env(ROLE, role).env(FILE, file).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let said = BufReader::new(child.stdout.take().unwrap());
    (child, said)
}

/// This binary, playing `role` on `file`.
pub(crate) fn start_role(role: &str, file: &Path) -> (Child, BufReader<ChildStdout>) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(arguments());
    start(command, role, file)
}

/// What the child says next; nothing when it has ended.
pub(crate) fn hear(said: &mut BufReader<ChildStdout>) -> Option<String> {
    let mut line = String::new();
    loop {
        line.clear();
        if said.read_line(&mut line).unwrap() == 0 {
            return None;
        }
        // The harness prints the name of the test without ending the line.
        if let Some((_, said)) = line.trim_end().split_once(MARK) {
            return Some(said.to_owned());
        }
    }
}

pub(crate) fn say(what: impl std::fmt::Display) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{MARK}{what}").unwrap();
    out.flush().unwrap();
}

/// Waits until the parent closes the pipe or writes a line.
pub(crate) fn wait_for_parent() {
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

/// Does nothing unless a parent set the role.
#[test]
fn role() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let file = PathBuf::from(std::env::var_os(FILE).unwrap());
    match role.as_str() {
        "append" => crash::append_until_killed(&file),
        "count" => processes::count(&file),
        "hold" => processes::hold_the_write_lock(&file),
        "fill a small disk" => full::fill_a_small_disk(&file),
        "fill to the limit" => full::fill_to_the_limit(&file),
        other => panic!("no role {other}"),
    }
}
