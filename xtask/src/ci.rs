//! `cargo xtask ci`: all checks of a change, the cheap ones first, stopping at the first that fails.

mod alone;
mod deny;
mod fuzz;
mod lockfile;
mod mutants;
mod sim;

use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::process;
use crate::test;
use crate::workspace::Workspace;

/// One check, and how to ask for it alone.
struct Step {
    name: &'static str,
    run: fn(&Workspace) -> Result<()>,
}

const STEPS: &[Step] = &[
    Step { name: "alone", run: alone::check },
    Step { name: "lockfile", run: lockfile::check },
    Step { name: "fmt", run: fmt },
    Step { name: "clippy", run: clippy },
    Step { name: "doc", run: doc },
    Step { name: "test", run: test::run },
    Step { name: "sim", run: sim::run },
    Step { name: "fuzz", run: fuzz::run },
    Step { name: "mutants", run: mutants::run },
    Step { name: "deny", run: deny::check },
];

/// Runs the named steps, or all.
pub(crate) fn run(names: &[String]) -> Result<()> {
    let steps = select(names)?;
    let workspace = Workspace::find()?;
    let mut times = Vec::new();
    for step in steps {
        println!("\n== {}", step.name);
        let start = Instant::now();
        (step.run)(&workspace)?;
        times.push((step.name, start.elapsed()));
    }
    report(&times);
    Ok(())
}

/// The steps with these names, in the order of the list.
fn select(names: &[String]) -> Result<Vec<&'static Step>> {
    if let Some(unknown) = names.iter().find(|name| STEPS.iter().all(|step| step.name != **name)) {
        let known: Vec<&str> = STEPS.iter().map(|step| step.name).collect();
        return Err(Error::Usage(format!("no step {unknown}; there are: {}", known.join(", "))));
    }
    Ok(STEPS
        .iter()
        .filter(|step| names.is_empty() || names.iter().any(|name| name == step.name))
        .collect())
}

fn report(times: &[(&str, Duration)]) {
    println!("\nAll checks passed:");
    for (name, time) in times {
        println!("  {name:<10}{:>7.1} s", time.as_secs_f64());
    }
}

fn fmt(workspace: &Workspace) -> Result<()> {
    process::run(&mut workspace.cargo(&["fmt", "--all", "--check"]))
}

fn clippy(workspace: &Workspace) -> Result<()> {
    let arguments = ["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
    process::run(&mut workspace.cargo(&arguments))?;
    // What is off by default, with the program alone.
    let features = ["-p", "anabranch-cli", "--features", "otlp"];
    let arguments = [&["clippy"][..], &features, &arguments[2..]].concat();
    process::run(&mut workspace.cargo(&arguments))
}

fn doc(workspace: &Workspace) -> Result<()> {
    let mut command = workspace.cargo(&["doc", "--workspace", "--no-deps", "--locked"]);
    process::run(command.env("RUSTDOCFLAGS", "-D warnings"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(of: &[&str]) -> Vec<String> {
        of.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn without_names_all_steps_run() {
        assert_eq!(select(&[]).unwrap().len(), STEPS.len());
    }

    #[test]
    fn named_steps_run_in_the_order_of_the_list() {
        let chosen = select(&names(&["deny", "fmt"])).unwrap();
        assert_eq!(chosen.iter().map(|step| step.name).collect::<Vec<_>>(), ["fmt", "deny"]);
    }

    #[test]
    fn an_unknown_step_is_refused_with_the_known_ones() {
        let Err(Error::Usage(text)) = select(&names(&["fmt", "fnt"])) else {
            panic!("an unknown step was accepted");
        };
        assert!(text.contains("no step fnt") && text.contains("clippy"), "{text}");
    }
}
