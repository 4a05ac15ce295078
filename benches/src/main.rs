//! `report`: how fast a replica is filled over loopback HTTP and how fast it commits, next to what SQLite alone needs for
//! the same rows in the same run.
//!
//! Here is what one types; [`bootstrap`], [`commits`] and [`find`] measure, [`raw`] is SQLite alone, [`report`] puts it together.

mod bootstrap;
mod commits;
mod data;
mod find;
mod peak;
mod raw;
mod report;
mod spread;
mod stages;

use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

type Error = Box<dyn std::error::Error + Send + Sync>;
type Result<T> = std::result::Result<T, Error>;

/// Measures bootstrap and commits next to SQLite alone.
#[derive(Parser)]
struct Args {
    /// Entries of the database that is bootstrapped, one cell each.
    #[arg(long, default_value_t = 1_000_000)]
    entries: u64,
    /// Runs of each measurement, alternating; the median counts.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// 20,000 entries and short commit measurements: to see that everything works.
    #[arg(long)]
    quick: bool,
    /// Only the bootstrap with random keys: no commits, no SQLite.
    #[arg(long)]
    bootstrap_only: bool,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// Where to put databases; needs about 1 KiB for each entry.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    #[command(subcommand)]
    part: Option<Part>,
}

/// Parts of the report; those that are hidden are processes of their own, so that each side's memory is counted alone.
#[derive(Subcommand)]
enum Part {
    /// Measures each stage of a bootstrap alone.
    Stages {
        /// Entries, one cell each.
        #[arg(long, default_value_t = 200_000)]
        entries: u64,
        /// In which order their keys come.
        #[arg(long, default_value = "random")]
        keys: data::Keys,
        /// Where to put databases.
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Looks rows up by an indexed field.
    Find {
        /// Rows of the table.
        #[arg(long, default_value_t = 1_000_000)]
        rows: u64,
        /// Runs, alternating with SQLite alone; the median counts.
        #[arg(long, default_value_t = 5)]
        runs: usize,
        /// Where to put databases.
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Makes the database to be served.
    #[command(hide = true)]
    Fill { home: PathBuf, entries: u64, keys: data::Keys },
    /// Serves it until standard input ends.
    #[command(hide = true)]
    Serve { home: PathBuf },
    /// Joins it.
    #[command(hide = true)]
    Join { home: PathBuf, ticket: String },
}

fn main() -> ExitCode {
    let args = Args::parse();
    let done = match args.part {
        None => report::run(&report::Plan {
            entries: if args.quick { 20_000 } else { args.entries },
            runs: args.runs.max(1),
            commits: (!args.bootstrap_only).then(|| commits::Counts::new(args.quick)),
            json: args.json,
            dir: args.dir.unwrap_or_else(std::env::temp_dir),
        }),
        Some(Part::Stages { entries, keys, dir }) => {
            stages::run(&dir.unwrap_or_else(std::env::temp_dir), entries, keys)
        }
        Some(Part::Find { rows, runs, dir }) => {
            find::run(&dir.unwrap_or_else(std::env::temp_dir), rows, runs.max(1))
        }
        Some(Part::Fill { home, entries, keys }) => bootstrap::fill(&home, entries, keys),
        Some(Part::Serve { home }) => bootstrap::serve(&home),
        Some(Part::Join { home, ticket }) => bootstrap::join(&home, &ticket),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("report: {e}");
            ExitCode::FAILURE
        }
    }
}
