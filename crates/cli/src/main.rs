//! The `anabranch` command. It reads the command line, prints what came of it, and leaves the work to the crates below:
//! nothing here knows how entries, sessions or files work.

mod args;
mod commands;
mod context;
mod failure;
mod hosting;
mod introduce;
mod log;
#[cfg(feature = "otlp")]
mod otlp;
mod output;
mod passphrase;
mod place;
mod progress;
mod replicas;
mod report;
mod signals;
mod units;

use args::{Arguments, LogFormat};
use clap::Parser;
use context::Context;
use failure::{Failure, Kind};
use log::Log;
use output::Output;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let logs = log::format(&arguments) == LogFormat::Json;
    let output = Output { json: arguments.json, quiet: arguments.quiet, logs };
    // The log ends after the command, so that what is said last is sent as well.
    match Log::start(&arguments).and_then(|_log| run(arguments, output)) {
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
    let context = Context::new(arguments.home, arguments.passphrase, output);
    let result = runtime.block_on(commands::run(&context, arguments.command));
    // What still runs on blocking threads is safe to lose at any point and must not hold up the end.
    runtime.shutdown_background();
    result
}
