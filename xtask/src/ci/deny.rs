//! Licences, banned crates and sources of everything in `Cargo.lock`, by cargo-deny and `deny.toml`.

use std::path::PathBuf;
use std::process::Command;

use crate::error::Result;
use crate::process;
use crate::workspace::Workspace;

/// The version installed where there is none: building it takes about two minutes on two cores.
const VERSION: &str = "0.20.2";

/// Advisories are left out: they need a database from the network, and would fail changes that did nothing.
const CHECK: [&str; 5] = ["--offline", "check", "bans", "licenses", "sources"];

pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    // Of every system, since `deny.toml` covers them all; this build has fetched only its own.
    process::run(&mut workspace.cargo(&["fetch", "--locked"]))?;
    if workspace.has_cargo("deny") {
        return process::run(workspace.cargo(&["deny"]).args(CHECK));
    }
    let program = installed(workspace)?;
    process::run(Command::new(program).current_dir(workspace.root()).args(CHECK))
}

/// Our own copy of cargo-deny, below `target`, so that nobody's installation changes.
fn installed(workspace: &Workspace) -> Result<PathBuf> {
    let root = workspace.root().join("target").join("tools");
    let program = root.join("bin").join("cargo-deny");
    if !program.exists() {
        let mut install =
            workspace.cargo(&["install", "--locked", "cargo-deny", "--version", VERSION]);
        process::run(install.arg("--root").arg(root))?;
    }
    Ok(program)
}
