//! The storm of kills that the tests of the command run for a few seconds, for long and with the released binary: the
//! program is `crates/cli/tests/it/storm.rs`.

use crate::accept::device::PROGRAM;
use crate::error::Result;
use crate::process;
use crate::workspace::Workspace;

const KILLS: &str = "ANABRANCH_KILLS";
/// How many processes are killed, if the environment says nothing else.
const MANY: &str = "200";

pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let test = ["test", "--release", "--locked", "--package", "anabranch-cli", "--test", "it"];
    let mut command = workspace.cargo(&test);
    command.args(["--", "--nocapture", "storm::"]);
    if std::env::var_os(KILLS).is_none() {
        command.env(KILLS, MANY);
    }
    if let Some(program) = std::env::var_os(PROGRAM) {
        command.env(PROGRAM, workspace.root().join(program));
    }
    process::run(&mut command)
}
