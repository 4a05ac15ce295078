//! A few changes that nobody picked, other ones each time, which the simulator has to notice. Not all of them: some change
//! nothing that matters, and some only what a simulation never does. `cargo xtask mutants` tries more.

use crate::error::{Error, Result};
use crate::mutants;
use crate::workspace::Workspace;

/// How many are tried, if `ANABRANCH_MUTANTS` says nothing else.
const SAMPLE: usize = 6;

pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let given = std::env::var("ANABRANCH_MUTANTS").ok().and_then(|text| text.parse().ok());
    let verdict = mutants::sample(workspace, given.unwrap_or(SAMPLE), false)?;
    for name in &verdict.survivors {
        println!("not noticed by the simulator: {name}");
    }
    println!("{} of {} noticed", verdict.by_simulator, verdict.viable);
    if verdict.by_simulator * 4 < verdict.viable {
        let text = format!("of {} mutants it noticed {}", verdict.viable, verdict.by_simulator);
        return Err(Error::NotAccepted(format!("the simulator notices what is changed: {text}")));
    }
    Ok(())
}
