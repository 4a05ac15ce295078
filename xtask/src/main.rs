//! `cargo xtask`: what a developer and the CI run, written once and in Rust, so that both run the same.
//!
//! This file turns arguments into a task. The tasks are in the modules `test`, `ci`, `accept` and `mutants`; nothing here
//! is linked into what users get.

mod accept;
mod ci;
mod error;
mod mutants;
mod packages;
mod process;
mod random;
mod test;
mod tools;
mod workspace;

use std::process::ExitCode;

use error::{Error, Result};
use workspace::Workspace;

const USAGE: &str = "\
usage: cargo xtask <task>

  test              install what the tests need, then run all of them; a skipped test is a failure
  ci [STEP...]      all checks of a change, or only the named ones
  accept [NAME...]  long acceptance programs; without a name, list them
  mutants [N]       N changes to core and sync that nobody picked (40); what notices them
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error @ Error::Usage(_)) => {
            eprintln!("xtask: {error}");
            ExitCode::from(2)
        }
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(arguments: &[String]) -> Result<()> {
    let Some((task, rest)) = arguments.split_first() else {
        return Err(Error::Usage(USAGE.to_owned()));
    };
    match task.as_str() {
        "test" if rest.is_empty() => test::run(&Workspace::find()?),
        "ci" => ci::run(rest),
        "accept" => accept::run(rest),
        "mutants" if rest.len() <= 1 => mutants::run(rest.first().map_or("40", String::as_str)),
        "help" | "-h" | "--help" => {
            print!("{USAGE}");
            Ok(())
        }
        _ => Err(Error::Usage(format!("unknown task: {}\n\n{USAGE}", arguments.join(" ")))),
    }
}
