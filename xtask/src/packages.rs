//! What is needed beyond Rust: by the tests the stock programs that they compare us with, by the fuzzer its compiler.
//!
//! This is the one list of them. A test may rely on everything in it and must fail, not skip, without it.

use std::process::Command;

use crate::error::{Error, Result};
use crate::process;

/// A program that is started, and the Debian package that brings it.
pub(crate) struct Needed {
    program: &'static str,
    package: &'static str,
}

/// What the tests start.
pub(crate) const TESTS: &[Needed] = &[
    Needed { program: "rsync", package: "rsync" },
    Needed { program: "sqlite3", package: "sqlite3" },
    Needed { program: "python3", package: "python3" },
];

/// What libFuzzer is compiled with.
pub(crate) const FUZZER: &[Needed] = &[Needed { program: "c++", package: "g++" }];

/// Installs what is missing of `needed`. When nothing is, the network is not touched.
pub(crate) fn install_missing(needed: &[Needed]) -> Result<()> {
    let missing: Vec<&Needed> =
        needed.iter().filter(|needed| process::find(needed.program).is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().map(|needed| needed.package).collect();
    if process::find("apt-get").is_none() {
        return Err(Error::MissingPrograms { programs: packages.join(", ") });
    }
    println!("Needed and missing: {}. Installing.", packages.join(", "));
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
