//! `report`: how fast a replica is filled over loopback HTTP and how fast it commits, next to what SQLite alone needs for
//! the same rows in the same run.
//!
//! Here is what one types; [`bootstrap`], [`commits`] and [`find`] measure, [`raw`] is SQLite alone, [`report`] puts it together.

mod bootstrap;
mod commits;
mod data;
mod find;
mod follow;
mod growth;
mod members;
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
    #[arg(long, default_value_t = 5, global = true)]
    runs: usize,
    /// 20,000 entries and short commit measurements: to see that everything works.
    #[arg(long)]
    quick: bool,
    /// Only the bootstrap with random keys: no commits, no SQLite.
    #[arg(long)]
    bootstrap_only: bool,
    /// Print one JSON object instead of a table.
    #[arg(long, global = true)]
    json: bool,
    /// Where to put databases; needs about 1 KiB for each entry.
    #[arg(long, value_name = "DIR", global = true)]
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
    },
    /// Measures commits at NORMAL with few and with many entries held, next to SQLite alone.
    Growth {
        /// Entries held.
        #[arg(long, value_delimiter = ',', default_value = "10,10000,1000000")]
        held: Vec<u64>,
        /// Commits of each measurement.
        #[arg(long, default_value_t = 5_000)]
        count: u64,
        /// In which order their keys come; both when not given.
        #[arg(long)]
        keys: Option<data::Keys>,
    },
    /// Measures what it costs to stay in step: nothing new, a little new, live, many peers.
    Follow {
        /// Entries of the database that two keep in step.
        #[arg(long, default_value_t = 1_000_000)]
        entries: u64,
        /// Nodes that follow one.
        #[arg(long, default_value_t = 100)]
        peers: usize,
        /// Sessions that they have together; each takes a few file descriptors.
        #[arg(long, default_value_t = 2_000)]
        sessions: usize,
    },
    /// Looks rows up by an indexed field.
    Find {
        /// Rows of the table.
        #[arg(long, default_value_t = 1_000_000)]
        rows: u64,
    },
    /// Measures commits and admission beside many members and revocations, and a revocation that comes late.
    Members {
        /// Devices that are members.
        #[arg(long, default_value_t = 10_000)]
        members: u32,
        /// Of these, whose grants are revoked.
        #[arg(long, default_value_t = 1_000)]
        revocations: u32,
        /// Entries of the database in which a revocation comes late.
        #[arg(long, default_value_t = 1_000_000)]
        entries: u64,
        /// Of these, how many cease to count.
        #[arg(long, default_value_t = 10_000)]
        late: u64,
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
    let dir = args.dir.unwrap_or_else(std::env::temp_dir);
    let done = match args.part {
        None => report::run(&report::Plan {
            entries: if args.quick { 20_000 } else { args.entries },
            runs: args.runs.max(1),
            commits: (!args.bootstrap_only).then(|| commits::Counts::new(args.quick)),
            json: args.json,
            dir,
        }),
        Some(Part::Stages { entries, keys }) => stages::run(&dir, entries, keys),
        Some(Part::Growth { held, count, keys }) => {
            let keys = keys.map_or(data::Keys::BOTH.to_vec(), |keys| vec![keys]);
            growth::run(&dir, &held, count, args.runs.max(1), &keys, args.json)
        }
        Some(Part::Follow { entries, peers, sessions }) => {
            let (runs, json) = (args.runs.max(1), args.json);
            follow::run(&dir, &follow::Plan { entries, runs, peers: peers.max(1), sessions, json })
        }
        Some(Part::Members { members, revocations, entries, late }) => {
            let (runs, json) = (args.runs.max(1), args.json);
            members::run(&dir, &members::Plan { members, revocations, entries, late, runs, json })
        }
        Some(Part::Find { rows }) => find::run(&dir, rows, args.runs.max(1)),
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
