//! `cargo xtask test`: every test of the workspace, with what they need installed first.
//!
//! A test that is not run proves nothing, so an ignored one fails the task.

use crate::error::{Error, Result};
use crate::packages;
use crate::process;
use crate::workspace::Workspace;

pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    packages::install_missing(packages::TESTS)?;
    if workspace.has_cargo("nextest") {
        run_with_nextest(workspace)
    } else {
        run_with_cargo(workspace)
    }
}

/// nextest runs each test in a process of its own, and does not know documentation tests.
fn run_with_nextest(workspace: &Workspace) -> Result<()> {
    let mut list = workspace.cargo(&["nextest", "list", "--workspace", "--locked"]);
    let ignored =
        process::read(list.args(["--run-ignored", "only", "--message-format", "oneline"]))?;
    refuse_ignored(ignored.lines().map(str::to_owned).collect())?;
    process::run(&mut workspace.cargo(&[
        "nextest",
        "run",
        "--workspace",
        "--locked",
        "--no-fail-fast",
    ]))?;
    run_counting(workspace, &["test", "--workspace", "--locked", "--doc"])
}

fn run_with_cargo(workspace: &Workspace) -> Result<()> {
    println!("cargo-nextest is not installed; using `cargo test`, which is slower.");
    run_counting(workspace, &["test", "--workspace", "--locked", "--no-fail-fast"])
}

fn run_counting(workspace: &Workspace, arguments: &[&str]) -> Result<()> {
    let output = process::tee(&mut workspace.cargo(arguments))?;
    refuse_ignored(ignored_tests(&output))
}

fn refuse_ignored(ignored: Vec<String>) -> Result<()> {
    if ignored.is_empty() { Ok(()) } else { Err(Error::IgnoredTests(ignored.join(", "))) }
}

/// The ignored tests in the output of `cargo test`; also those that only its counts show.
fn ignored_tests(output: &str) -> Vec<String> {
    let named: Vec<String> = output.lines().filter_map(ignored_name).collect();
    let counted: usize = output.lines().filter_map(ignored_count).sum();
    if named.is_empty() && counted > 0 { vec![format!("{counted} without a name")] } else { named }
}

/// Of `test NAME ... ignored`, or `test NAME ... ignored, REASON`, the name.
fn ignored_name(line: &str) -> Option<String> {
    let (name, outcome) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
    outcome.starts_with("ignored").then(|| name.to_owned())
}

/// Of `test result: ok. 3 passed; 0 failed; 1 ignored; …`, the number before "ignored".
fn ignored_count(line: &str) -> Option<usize> {
    let fields = line.strip_prefix("test result:")?;
    let count = fields.split(';').find_map(|field| field.trim().strip_suffix(" ignored"))?;
    count.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_tests_are_seen_by_name() {
        let output = "\
running 3 tests
test ids::round_trip ... ok
test src/lib.rs - Node (line 12) ... ignored
test slow ... ignored, takes an hour
test result: ok. 1 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.00s
";
        assert_eq!(ignored_tests(output), ["src/lib.rs - Node (line 12)", "slow"]);
        assert!(refuse_ignored(ignored_tests(output)).is_err());
    }

    #[test]
    fn ignored_tests_are_seen_by_count() {
        let output = "test result: ok. 1 passed; 0 failed; 2 ignored; 0 measured\n\
                      test result: ok. 1 passed; 0 failed; 1 ignored; 0 measured\n";
        assert_eq!(ignored_tests(output), ["3 without a name"]);
    }

    #[test]
    fn a_test_about_ignoring_is_not_ignored() {
        let output = "test rules::a_path_is_ignored ... ok\n\
                      test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured\n";
        assert_eq!(ignored_tests(output), Vec::<String>::new());
        assert!(refuse_ignored(ignored_tests(output)).is_ok());
    }
}
