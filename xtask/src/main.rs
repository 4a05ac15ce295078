//! `cargo xtask`: what a developer and the CI run, written once and in Rust, so that both run the same.
//!
//! This file turns arguments into a task. The tasks are in the modules `test`, `ci` and `accept`; nothing here
//! is linked into what users get.

mod accept;
mod ci;
mod error;
mod packages;
mod process;
mod test;
mod workspace;

use std::process::ExitCode;

use error::{Error, Result};
use workspace::Workspace;

const USAGE: &str = "\
usage: cargo xtask <task>

  test              install what the tests need, then run all of them; a skipped test is a failure
  ci [STEP...]      all checks of a change, or only the named ones
  accept [NAME...]  long acceptance programs; without a name, list them
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
        "help" | "-h" | "--help" => {
            print!("{USAGE}");
            Ok(())
        }
        _ => Err(Error::Usage(format!("unknown task: {}\n\n{USAGE}", arguments.join(" ")))),
    }
}
