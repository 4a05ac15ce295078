//! The `anabranch` command. It reads the command line, prints what came of it, and leaves the work to the crates below:
//! nothing here knows how entries, sessions or files work.

mod args;
mod commands;
mod context;
mod failure;
mod hosting;
mod introduce;
mod output;
mod place;
mod progress;
mod replicas;
mod report;
mod signals;
mod units;

use args::{Arguments, Command};
use clap::Parser;
use context::Context;
use failure::{Failure, Kind};
use output::Output;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    log_to_stderr(&arguments);
    let output = Output { json: arguments.json, quiet: arguments.quiet };
    match run(arguments, output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if failure.kind != Kind::Unheard {
                output.fail(&failure);
            }
            ExitCode::from(failure.exit_code())
        }
    }
}

fn run(arguments: Arguments, output: Output) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let context = Context::new(arguments.home, output);
    let result = runtime.block_on(commands::run(&context, arguments.command));
    // What still runs on blocking threads is safe to lose at any point and must not hold up the end.
    runtime.shutdown_background();
    result
}

/// `ANABRANCH_LOG` takes the directives of tracing-subscriber's `EnvFilter` and wins over `-v`.
fn log_to_stderr(arguments: &Arguments) {
    let level = match arguments.verbose {
        // What simulated nodes complain of is what is done to them.
        0 if matches!(arguments.command, Command::Sim(_)) => "error",
        0 => "warn",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_env("ANABRANCH_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}
