//! The ceiling on locked packages. Dependencies come in one at a time and nobody sees the sum; here it is a
//! number in a diff.

use std::process::Stdio;

use crate::error::{Error, Result};
use crate::process;
use crate::workspace::Workspace;

/// The most packages that `Cargo.lock` may hold, ours and those of other systems included. Raise it in the
/// commit that needs it, which says what the new ones are for.
const MAX_PACKAGES: usize = 256;

pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let packages = count(&workspace.text("Cargo.lock")?);
    println!("Cargo.lock: {packages} packages of at most {MAX_PACKAGES}");
    refuse_above(packages, MAX_PACKAGES)?;
    in_step_with_manifests(workspace)
}

fn refuse_above(packages: usize, most: usize) -> Result<()> {
    if packages <= most {
        return Ok(());
    }
    let finding = format!(
        "Cargo.lock holds {packages} packages and the ceiling is {most}; drop some, or raise MAX_PACKAGES \
         in xtask and say what for"
    );
    Err(Error::Findings { check: "packages over the ceiling", findings: vec![finding] })
}

/// Every later step says `--locked`; said here first, so that the reason is plain.
fn in_step_with_manifests(workspace: &Workspace) -> Result<()> {
    let arguments = ["metadata", "--locked", "--format-version", "1", "--no-deps"];
    process::run(workspace.cargo(&arguments).stdout(Stdio::null()))
}

fn count(lock: &str) -> usize {
    lock.lines().filter(|line| line.trim_end() == "[[package]]").count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_counted() {
        let lock =
            "version = 4\n\n[[package]]\nname = \"a\"\n\n[[package]]\nname = \"[[package]]\"\n";
        assert_eq!(count(lock), 2);
    }

    #[test]
    fn the_ceiling_itself_is_allowed() {
        assert!(refuse_above(5, 5).is_ok());
        assert!(matches!(refuse_above(6, 5), Err(Error::Findings { .. })));
    }
}
