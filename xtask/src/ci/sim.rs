//! Simulations that are worth optimising for: a slice of seeds, and each bug put in on purpose, which the simulator
//! must find.

use crate::error::Result;
use crate::process;
use crate::workspace::Workspace;

/// Seeds, if `ANABRANCH_SIM_SEEDS` says nothing else.
const SEEDS: &str = "150";

pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let nextest = workspace.has_cargo("nextest");
    let runner: &[&str] = if nextest {
        &["nextest", "run", "--cargo-profile", "sim"]
    } else {
        &["test", "--profile", "sim"]
    };
    let mut command = workspace.cargo(runner);
    command.args(["--locked", "-p", "anabranch-sim", "--features", "sabotage", "--no-fail-fast"]);
    if nextest {
        command.args(["--success-output", "final"]);
    }
    if std::env::var_os("ANABRANCH_SIM_SEEDS").is_none() {
        command.env("ANABRANCH_SIM_SEEDS", SEEDS);
    }
    process::run(&mut command)
}
