//! A stranger clones the repository and types the first command of the README. Afterwards the two folders it
//! names must be equal, and stay equal when it is typed again.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::readme::{self, FirstCommand};
use crate::error::{Error, Result};
use crate::process;
use crate::workspace::Workspace;

pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let directory =
        TempDir::new().map_err(|source| Error::File { path: std::env::temp_dir(), source })?;
    // One level down, so that `../x` in the README stays inside the temporary directory.
    let checkout = directory.path().join("checkout");
    let commit = process::read(&mut workspace.git(&["rev-parse", "--short", "HEAD"]))?;
    println!("commit {}, without what is not committed", commit.trim());
    process::run(workspace.git(&["clone", "--quiet"]).arg(workspace.root()).arg(&checkout))?;

    let command = read_command(&checkout)?;
    if checkout.join(&command.there).exists() {
        return Err(Error::NotAccepted(format!("{} is a new folder", command.there)));
    }
    for _ in 0..2 {
        process::run(&mut as_a_stranger(&command, &checkout, directory.path()))?;
        compare(&command, &checkout)?;
    }
    Ok(())
}

fn read_command(checkout: &Path) -> Result<FirstCommand> {
    let path = checkout.join("README.md");
    let text = std::fs::read_to_string(&path).map_err(|source| Error::File { path, source })?;
    Ok(readme::first_command(&text)?)
}

/// The command without what the developer's environment would lend it: build products of the checkout we
/// came from, and the developer's own replicas.
fn as_a_stranger(command: &FirstCommand, checkout: &Path, directory: &Path) -> Command {
    let mut words = command.words.iter();
    let mut process = Command::new(words.next().map_or("", String::as_str));
    process.args(words).current_dir(checkout);
    process.env_remove("CARGO_TARGET_DIR").env("ANABRANCH_HOME", directory.join("home"));
    process
}

fn compare(command: &FirstCommand, checkout: &Path) -> Result<()> {
    let mut diff = Command::new("diff");
    diff.args(["-r", "--no-dereference", "-x", ".anabranch", &command.here, &command.there]);
    process::run(diff.current_dir(checkout))
}
