//! `cargo xtask accept`: programs that try the product as its users would. They take too long for every
//! change, so they are started by name.
//!
//! A new one is a file in this directory and a line in [`PROGRAMS`].

mod clean_checkout;
mod databases;
mod device;
mod dpkg;
mod folders;
mod kill;
mod kill_storm;
mod million;
mod proxy;

pub(crate) mod readme;
mod tree;

use std::time::Instant;

use crate::error::{Error, Result};
use crate::workspace::Workspace;

/// One acceptance program.
struct Program {
    name: &'static str,
    /// What it shows when it passes, in one line.
    about: &'static str,
    run: fn(&Workspace) -> Result<()>,
}

const PROGRAMS: &[Program] = &[
    Program {
        name: "clean-checkout",
        about: "the first command of the README does the main job in a fresh clone",
        run: clean_checkout::run,
    },
    Program {
        name: "folders",
        about: "folders become equal, keep every edit, and send little",
        run: folders::run,
    },
    Program {
        name: "databases",
        about: "100,000 rows on three devices: bootstrap, conflicts, live push",
        run: databases::run,
    },
    Program {
        name: "kill",
        about: "a bootstrap goes on after kill -9 of either side at random bytes",
        run: kill::run,
    },
    Program {
        name: "kill-storm",
        about: "200 kills and many cuts lose no acknowledged write and show nobody half a file",
        run: kill_storm::run,
    },
    Program {
        name: "million",
        about: "a million entries over loopback HTTP, below 150 MB on both sides",
        run: million::run,
    },
];

/// Runs the named programs one after the other; without a name, lists them.
pub(crate) fn run(names: &[String]) -> Result<()> {
    if names.is_empty() {
        print!("{}", listing());
        return Ok(());
    }
    let programs: Vec<&Program> = names.iter().map(|name| find(name)).collect::<Result<_>>()?;
    let workspace = Workspace::find()?;
    for program in programs {
        println!("== {}: {}", program.name, program.about);
        let start = Instant::now();
        (program.run)(&workspace)?;
        println!("== {} accepted in {:.1} s", program.name, start.elapsed().as_secs_f64());
    }
    Ok(())
}

fn find(name: &str) -> Result<&'static Program> {
    let found = PROGRAMS.iter().find(|program| program.name == name);
    found.ok_or_else(|| {
        Error::Usage(format!("no acceptance program {name}; there are:\n{}", listing()))
    })
}

fn listing() -> String {
    PROGRAMS.iter().map(|program| format!("  {:<18}{}\n", program.name, program.about)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_program_is_refused_with_the_known_ones() {
        assert!(find("clean-checkout").is_ok());
        let Err(Error::Usage(text)) = find("clean-chekout") else {
            panic!("an unknown program was accepted");
        };
        assert!(
            text.contains("no acceptance program clean-chekout")
                && text.contains("  clean-checkout"),
            "{text}"
        );
    }
}
