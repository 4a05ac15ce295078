//! Licences, banned crates and sources of everything in `Cargo.lock`, by cargo-deny and `deny.toml`.

use crate::error::Result;
use crate::process;
use crate::tools::Tool;
use crate::workspace::Workspace;

/// Building it takes about two minutes on two cores.
const DENY: Tool = Tool { name: "deny", version: "0.20.2" };

/// Advisories are left out: they need a database from the network, and would fail changes that did nothing.
const CHECK: [&str; 5] = ["--offline", "check", "bans", "licenses", "sources"];

pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    // Of every system, since `deny.toml` covers them all; this build has fetched only its own.
    process::run(&mut workspace.cargo(&["fetch", "--locked"]))?;
    process::run(DENY.command(workspace)?.args(CHECK))
}
