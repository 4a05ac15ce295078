//! Fuzzing every decoder for a while: libFuzzer on the tool chain that everything else is built with. The compiler's
//! coverage pass is part of LLVM and needs nothing unstable; only the flags have to be given.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::error::{Error, Result};
use crate::packages;
use crate::process;
use crate::workspace::Workspace;

/// How long each target runs, in seconds, if this variable says nothing else.
const SECONDS_VARIABLE: &str = "ANABRANCH_FUZZ_SECONDS";
const SECONDS: &str = "10";

/// Targets that run at once.
const AT_ONCE: usize = 2;

/// What libFuzzer needs compiled into everything that it is to see into: counters at every edge, a table of where they
/// are, and the operands of comparisons.
const COVERAGE: &str = "-Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";

/// Bounds on one input: seconds, and MiB of memory. The fuzzer also bounds its address space.
const BOUNDS: [&str; 2] = ["-timeout=10", "-rss_limit_mb=1024"];

/// Inputs may grow from the start: what starts anew each time would stay with the shortest.
const GROWTH: &str = "-len_control=10";

/// Where things are.
struct Places {
    fuzzer: PathBuf,
    /// Kept inputs: `corpus` and `regressions`.
    kept: PathBuf,
    /// What this machine found: new inputs, so that the next run goes on from there, and those that failed.
    found: PathBuf,
}

/// How a target fared.
struct Run {
    target: String,
    log: String,
    passed: bool,
}

pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    packages::install_missing(packages::FUZZER)?;
    let seconds = std::env::var(SECONDS_VARIABLE).unwrap_or_else(|_| SECONDS.to_owned());
    if seconds.parse::<u32>().is_err() {
        return Err(Error::Usage(format!("{SECONDS_VARIABLE} takes seconds, not {seconds:?}")));
    }
    let places = build(workspace)?;
    let waiting = Mutex::new(targets(&places.kept.join("corpus"))?);
    let runs = Mutex::new(Vec::new());
    println!("{:<10}{:>10}{:>9}{:>10}{:>8}", "target", "runs", "runs/s", "coverage", "corpus");
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(target) = take(&waiting) {
                    let run = fuzz(&places, target, &seconds);
                    if let Ok(run) = &run {
                        println!("{}", summary(run));
                    }
                    runs.lock().unwrap_or_else(PoisonError::into_inner).push(run);
                }
            });
        }
    });
    let runs = runs.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut findings = Vec::new();
    for run in runs {
        let run = run?;
        if !run.passed {
            findings.push(failure(&places, &run));
        }
    }
    if findings.is_empty() {
        return Ok(());
    }
    Err(Error::Findings { check: "targets that an input broke", findings })
}

fn take(waiting: &Mutex<VecDeque<String>>) -> Option<String> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
}

/// Every target has a corpus, which a test sees to.
fn targets(corpus: &Path) -> Result<VecDeque<String>> {
    let failed = |source| Error::File { path: corpus.to_owned(), source };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(corpus).map_err(failed)? {
        names.push(entry.map_err(failed)?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names.into())
}

fn build(workspace: &Workspace) -> Result<Places> {
    let version = process::read(Command::new("rustc").arg("-vV").current_dir(workspace.root()))?;
    let host = host(&version).ok_or_else(|| Error::Findings {
        check: "the name of this system in rustc -vV",
        findings: vec![version.clone()],
    })?;
    let fuzzer = ["-p", "anabranch-fuzz", "--features", "libfuzzer", "--bin", "fuzz"];
    let mut command = workspace.cargo(&["build", "--locked", "--profile", "fuzz"]);
    // With a target named, the flags do not reach build scripts and macros, which have no fuzzer to report to.
    command.args(fuzzer).args(["--target", host]).env("RUSTFLAGS", COVERAGE);
    process::run(&mut command)?;
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| workspace.root().join("target"), |dir| workspace.root().join(dir));
    Ok(Places {
        fuzzer: target.join(host).join("fuzz").join("fuzz"),
        kept: workspace.root().join("fuzz"),
        found: target.join("fuzzing"),
    })
}

fn host(version: &str) -> Option<&str> {
    version.lines().find_map(|line| line.strip_prefix("host: "))
}

fn fuzz(places: &Places, target: String, seconds: &str) -> Result<Run> {
    let corpus = places.found.join("corpus").join(&target);
    std::fs::create_dir_all(&corpus)
        .map_err(|source| Error::File { path: corpus.clone(), source })?;
    let mut command = Command::new(&places.fuzzer);
    command.env("ANABRANCH_FUZZ_TARGET", &target).env("RUST_BACKTRACE", "1");
    command.args(BOUNDS).args([
        GROWTH,
        "-print_final_stats=1",
        &format!("-max_total_time={seconds}"),
    ]);
    command.arg(format!("-artifact_prefix={}/{target}-", places.found.display()));
    // The first directory also takes what is found; the others are only read.
    command.arg(corpus);
    for set in ["corpus", "regressions"] {
        let kept = places.kept.join(set).join(&target);
        if kept.is_dir() {
            command.arg(kept);
        }
    }
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| Error::Start { command: process::line(&command), source })?;
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    Ok(Run { target, log, passed: output.status.success() })
}

/// The line of the table.
fn summary(run: &Run) -> String {
    let last = run.log.lines().rfind(|line| line.contains("cov: ")).unwrap_or_default();
    let word = |name: &str| after(last, name).unwrap_or("?");
    let stat = |name: &str| after(&run.log, name).unwrap_or("?");
    let corpus = word("corp:").split('/').next().unwrap_or("?");
    format!(
        "{:<10}{:>10}{:>9}{:>10}{:>8}{}",
        run.target,
        stat("stat::number_of_executed_units:"),
        stat("stat::average_exec_per_sec:"),
        word("cov:"),
        corpus,
        if run.passed { "" } else { "  FAILED" }
    )
}

/// The word after `name`.
fn after<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    text.split_once(name)?.1.split_whitespace().next()
}

/// What broke a target, and how to see it again.
fn failure(places: &Places, run: &Run) -> String {
    let said: Vec<&str> = run
        .log
        .lines()
        .skip_while(|line| !line.contains("panicked at") && !line.contains("ERROR:"))
        .take(4)
        .collect();
    let input = after(&run.log, "Test unit written to ").unwrap_or("(no input was written)");
    format!(
        "{}: {}\n  input:  {input}\n  replay: ANABRANCH_FUZZ_TARGET={} {} {input}\n  then keep it in fuzz/regressions/{}",
        run.target,
        said.join("\n    "),
        run.target,
        places.fuzzer.display(),
        run.target,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
INFO: Seed: 1
#2\tINITED cov: 12 ft: 13 corp: 1/1b exec/s: 0 rss: 30Mb
#19820\tREDUCE cov: 574 ft: 833 corp: 179/8261b lim: 287 exec/s: 0 rss: 31Mb L: 14/287
thread '<unnamed>' (9) panicked at fuzz/src/x.rs:12:9:
a frame has one spelling
Test unit written to /t/fuzzing/frame-crash-40
###### Recommended dictionary. ######
stat::number_of_executed_units: 19821
stat::average_exec_per_sec:     9910
";

    fn run(passed: bool) -> Run {
        Run { target: "frame".into(), log: LOG.into(), passed }
    }

    #[test]
    fn a_run_is_summed_up_in_a_line() {
        let words: Vec<String> =
            summary(&run(true)).split_whitespace().map(str::to_owned).collect();
        assert_eq!(words, ["frame", "19821", "9910", "574", "179"]);
        assert!(summary(&run(false)).ends_with("FAILED"));
    }

    #[test]
    fn a_failure_says_how_to_see_it_again() {
        let places =
            Places { fuzzer: "/t/fuzz".into(), kept: "fuzz".into(), found: "/t/fuzzing".into() };
        let text = failure(&places, &run(false));
        assert!(text.contains("a frame has one spelling"), "{text}");
        let replay = "ANABRANCH_FUZZ_TARGET=frame /t/fuzz /t/fuzzing/frame-crash-40";
        assert!(text.contains(replay), "{text}");
    }

    #[test]
    fn the_host_is_read() {
        assert_eq!(host("rustc 1.95.0\nhost: x86_64-linux\nrelease: 1"), Some("x86_64-linux"));
        assert_eq!(host("rustc 1.95.0"), None);
    }
}
