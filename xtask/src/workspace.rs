//! Where the checkout is, and the two programs that know about it: cargo and git.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Error, Result};
use crate::process;

/// The checkout that the current directory is in.
pub(crate) struct Workspace {
    root: PathBuf,
}

impl Workspace {
    /// Asks cargo, so that a binary built in one checkout never works on another.
    pub(crate) fn find() -> Result<Self> {
        let manifest = process::read(cargo().args([
            "locate-project",
            "--workspace",
            "--message-format",
            "plain",
        ]))?;
        let manifest = Path::new(manifest.trim_end());
        let root = manifest.parent().unwrap_or(manifest).to_path_buf();
        Ok(Self { root })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// A cargo command that runs at the root. The caller adds `--locked` where cargo takes it.
    pub(crate) fn cargo(&self, arguments: &[&str]) -> Command {
        let mut command = cargo();
        command.current_dir(&self.root).args(arguments);
        command
    }

    /// Whether `cargo NAME` is installed.
    pub(crate) fn has_cargo(&self, name: &str) -> bool {
        self.cargo(&[name, "--version"]).output().is_ok_and(|output| output.status.success())
    }

    /// A git command that runs at the root. It works also where the checkout belongs to another user, as it
    /// does in many containers.
    pub(crate) fn git(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("git");
        command.current_dir(&self.root).args(["-c", "safe.directory=*"]).args(arguments);
        command
    }

    /// The files under version control, relative to the root.
    pub(crate) fn tracked(&self) -> Result<Vec<PathBuf>> {
        let listed = process::read(&mut self.git(&["ls-files", "-z"]))?;
        Ok(listed.split_terminator('\0').map(PathBuf::from).collect())
    }

    /// The text of a file, given by its path from the root.
    pub(crate) fn text(&self, path: &str) -> Result<String> {
        let path = self.root.join(path);
        std::fs::read_to_string(&path).map_err(|source| Error::File { path, source })
    }
}

fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_where_the_lock_file_is() {
        let workspace = Workspace::find().unwrap();
        assert!(workspace.text("Cargo.lock").unwrap().contains("name = \"xtask\""));
        assert!(matches!(workspace.text("no-such-file"), Err(Error::File { .. })));
    }
}
