//! Plans as files: those in which something was found once, and that files say what plans say.

use anabranch_sim::file::{PlanError, read, write};
use anabranch_sim::plan::{Act, Fault, Options, Plan, Step};
use anabranch_sim::world::simulate;
use std::fs;

const FOUND: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/plans");

/// Each failed before what it found was mended; docs/testing.md says what that was.
#[test]
fn what_was_found_stays_mended() {
    let mut count = 0;
    for file in fs::read_dir(FOUND).unwrap() {
        let path = file.unwrap().path();
        let plan = read(&fs::read_to_string(&path).unwrap()).unwrap();
        let outcome = simulate(&plan, false);
        assert_eq!(outcome.violation, None, "{}", path.display());
        count += 1;
    }
    assert!(count > 0);
}

#[test]
fn a_plan_comes_back_from_its_file() {
    for seed in 0..200 {
        let plan = Plan::generate(seed, &Options::default());
        assert_eq!(read(&write(&plan).unwrap()).unwrap(), plan);
    }
}

fn refusal(edit: impl FnOnce(&mut Plan)) -> String {
    let mut plan = Plan::generate(7, &Options::default());
    edit(&mut plan);
    match read(&write(&plan).unwrap()) {
        Err(PlanError::Impossible(text)) => text,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_plan_that_cannot_be_played_is_refused() {
    assert!(refusal(|plan| plan.edges[0].to = 99).contains("node 99"));
    assert!(refusal(|plan| plan.edges[0].to = plan.edges[0].from).contains("itself"));
    assert!(refusal(|plan| plan.nodes.truncate(1)).contains("1 nodes"));
    assert!(refusal(|plan| plan.steps.reverse()).contains("order"));
    let cut = |plan: &mut Plan| {
        let act = Act::Fault(Fault::Cut { edge: plan.edges.len() });
        plan.steps.insert(0, Step { at: 0, act });
    };
    assert!(refusal(cut).contains("there is none"));
    assert!(matches!(read("{}"), Err(PlanError::Json(_))));
    assert!(matches!(read("not a plan"), Err(PlanError::Json(_))));
}
