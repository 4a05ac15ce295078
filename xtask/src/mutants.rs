//! `cargo xtask mutants`: changes to `core` and `sync` that nobody picked, made by cargo-mutants one at a time, and judged
//! by the simulator; what it lets pass is judged by the tests of the two crates. It shows what neither looks at.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Error, Result};
use crate::process;
use crate::random::Random;
use crate::tools::Tool;
use crate::workspace::Workspace;

/// Building it takes about a minute on two cores.
const MUTANTS: Tool = Tool { name: "mutants", version: "27.1.0" };
const PACKAGES: [&str; 4] = ["-p", "anabranch-core", "-p", "anabranch-sync"];
/// How things are shown to people means nothing to a simulation, and the bugs put in on purpose are bugs.
const LEFT_OUT: [&str; 4] = [
    "--exclude-re",
    "impl (fmt::)?(Display|Debug) for",
    "--exclude",
    "crates/core/src/sabotage.rs",
];
/// Where what is not said otherwise goes on: enough for almost everything that simulations find at all.
const SEEDS: &str = "60";
/// Seconds after which a mutant that does not end counts as noticed.
const PATIENCE: &str = "180";

/// What became of a sample.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// Mutants that compile.
    pub(crate) viable: usize,
    /// Those that the simulator noticed.
    pub(crate) by_simulator: usize,
    /// Those that only the crates' own tests noticed.
    pub(crate) by_tests: usize,
    /// The rest.
    pub(crate) survivors: BTreeSet<String>,
}

/// Tries `count` mutants and prints what became of each.
pub(crate) fn run(count: &str) -> Result<()> {
    let count = count
        .parse()
        .map_err(|_| Error::Usage(format!("how many mutants? '{count}' is not a number")))?;
    let workspace = Workspace::find()?;
    let verdict = sample(&workspace, count, true)?;
    for name in &verdict.survivors {
        println!("survived: {name}");
    }
    println!(
        "{} mutants: {} noticed by the simulator, {} by the tests of the crates alone, {} by neither",
        verdict.viable,
        verdict.by_simulator,
        verdict.by_tests,
        verdict.survivors.len()
    );
    Ok(())
}

/// Tries `count` mutants in the simulator and, if `tests`, those it lets pass in the tests of the crates.
pub(crate) fn sample(workspace: &Workspace, count: usize, tests: bool) -> Result<Verdict> {
    let chosen = choose(list(workspace)?, count);
    let simulator = ["--test-package", "anabranch-sim", "--cargo-test-arg=--test=it"];
    let first = judge(workspace, "sim", &chosen, &simulator)?;
    let mut verdict = Verdict {
        viable: first.noticed.len() + first.missed.len(),
        by_simulator: first.noticed.len(),
        by_tests: 0,
        survivors: first.missed,
    };
    if tests && !verdict.survivors.is_empty() {
        let chosen: Vec<String> = verdict.survivors.iter().cloned().collect();
        let crates = ["--test-package", "anabranch-core,anabranch-sync"];
        let second = judge(workspace, "tests", &chosen, &crates)?;
        verdict.by_tests = second.noticed.len();
        verdict.survivors = second.missed;
    }
    Ok(verdict)
}

fn mutants(workspace: &Workspace) -> Result<Command> {
    let mut command = MUTANTS.command(workspace)?;
    command.args(PACKAGES).args(LEFT_OUT);
    Ok(command)
}

fn list(workspace: &Workspace) -> Result<Vec<String>> {
    let listed = process::read(mutants(workspace)?.args(["--list", "--colors", "never"]))?;
    Ok(listed.lines().map(str::to_owned).collect())
}

fn choose(mut all: Vec<String>, count: usize) -> Vec<String> {
    let mut random = Random::from_environment();
    let mut chosen = Vec::new();
    while chosen.len() < count && !all.is_empty() {
        chosen.push(all.swap_remove(random.below(all.len() as u64) as usize));
    }
    chosen
}

struct Judged {
    noticed: BTreeSet<String>,
    missed: BTreeSet<String>,
}

fn judge(workspace: &Workspace, name: &str, chosen: &[String], by: &[&str]) -> Result<Judged> {
    let root = workspace.root().join("target");
    let output = root.join("mutants").join(name);
    std::fs::create_dir_all(&output)
        .map_err(|source| Error::File { path: output.clone(), source })?;
    let mut command = mutants(workspace)?;
    command.args(["--profile", "sim", "--timeout", PATIENCE, "--colors", "never", "--no-times"]);
    command.args(["--output"]).arg(&output).args(by);
    for mutant in chosen {
        command.arg(format!("--re=^{}$", escaped(mutant)));
    }
    // What is built for the simulations serves here as well.
    command.env("CARGO_TARGET_DIR", &root).env("ANABRANCH_SIM_SEED", "0");
    command.env("ANABRANCH_SIM_SEEDS", SEEDS);
    match process::run(&mut command) {
        // Some were missed, or ran into the time limit.
        Err(Error::Failed { status, .. }) if matches!(status.code(), Some(2 | 3)) => {}
        other => other?,
    }
    let of = |file: &str| lines(&output.join("mutants.out").join(file));
    let mut noticed = of("caught.txt")?;
    noticed.extend(of("timeout.txt")?);
    Ok(Judged { noticed, missed: of("missed.txt")? })
}

fn lines(path: &Path) -> Result<BTreeSet<String>> {
    let failed = |source| Error::File { path: PathBuf::from(path), source };
    let text = std::fs::read_to_string(path).map_err(failed)?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// A regular expression for exactly this text.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if r"\.+*?()|[]{}^$#&-~".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_means_the_text_itself() {
        let name = "a.rs:1:2: replace && with || in X<'_>::f";
        assert_eq!(escaped(name), r"a\.rs:1:2: replace \&\& with \|\| in X<'_>::f");
    }

    #[test]
    fn a_sample_has_each_mutant_once() {
        let all: Vec<String> = (0..50).map(|n| n.to_string()).collect();
        let chosen = choose(all.clone(), 20);
        assert_eq!(chosen.iter().collect::<BTreeSet<_>>().len(), 20);
        assert_eq!(choose(all, 90).len(), 50);
    }
}
