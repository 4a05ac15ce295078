//! Cargo subcommands that not everybody has: built below `target`, so that nobody's installation changes.

use std::process::Command;

use crate::error::Result;
use crate::process;
use crate::workspace::Workspace;

/// A cargo subcommand, and the version that is built where there is none.
pub(crate) struct Tool {
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
}

impl Tool {
    /// A command that runs it at the root, as `cargo NAME` or as our own copy.
    pub(crate) fn command(&self, workspace: &Workspace) -> Result<Command> {
        if workspace.has_cargo(self.name) {
            return Ok(workspace.cargo(&[self.name]));
        }
        let root = workspace.root().join("target").join("tools");
        let package = format!("cargo-{}", self.name);
        let program = root.join("bin").join(&package);
        if !program.exists() {
            let mut install = workspace.cargo(&["install", "--locked", &package, "--version"]);
            process::run(install.arg(self.version).arg("--root").arg(root))?;
        }
        let mut command = Command::new(program);
        // As cargo would call it: with the subcommand's name first.
        command.current_dir(workspace.root()).arg(self.name);
        Ok(command)
    }
}
