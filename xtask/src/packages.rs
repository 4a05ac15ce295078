//! What the tests need beyond Rust: the stock programs that they compare us with.
//!
//! This is the one list of them. A test may rely on everything in it and must fail, not skip, without it.

use std::process::Command;

use crate::error::{Error, Result};
use crate::process;

/// A program that tests start, and the Debian package that brings it.
struct Needed {
    program: &'static str,
    package: &'static str,
}

const NEEDED: &[Needed] = &[
    Needed { program: "rsync", package: "rsync" },
    Needed { program: "sqlite3", package: "sqlite3" },
];

/// Installs what is missing. When nothing is, the network is not touched.
pub(crate) fn install_missing() -> Result<()> {
    let missing: Vec<&Needed> =
        NEEDED.iter().filter(|needed| process::find(needed.program).is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().map(|needed| needed.package).collect();
    if process::find("apt-get").is_none() {
        return Err(Error::MissingPrograms { programs: packages.join(", ") });
    }
    println!("The tests need {}: installing.", packages.join(", "));
    process::run(apt_get()?.args(["update", "--quiet"]))?;
    process::run(
        apt_get()?.args(["install", "--yes", "--quiet", "--no-install-recommends"]).args(&packages),
    )
}

/// `apt-get` with the rights it needs, as far as we can get them.
fn apt_get() -> Result<Command> {
    // Through `env`, because sudo clears the environment.
    let words = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"];
    let needs_sudo = !is_root()? && process::find("sudo").is_some();
    let mut command = Command::new(if needs_sudo { "sudo" } else { words[0] });
    command.args(if needs_sudo { &words[..] } else { &words[1..] });
    Ok(command)
}

fn is_root() -> Result<bool> {
    Ok(process::read(Command::new("id").arg("-u"))?.trim() == "0")
}
