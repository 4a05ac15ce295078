//! Plans as files (JSON), so that what a seed found stays found when seeds come to stand for other plans.

use crate::plan::{Act, Fault, MOST_NODES, Plan};
use std::collections::BTreeSet;

/// Why a text is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// It is not what [`write()`] makes.
    #[error("this is not a plan as 'anabranch sim --save' writes it: {0}")]
    Json(#[from] serde_json::Error),
    /// It cannot be played.
    #[error("this plan cannot be played: {0}")]
    Impossible(String),
}

/// The plan as a text, a step a line.
///
/// # Errors
/// None that a plan in memory can cause.
pub fn write(plan: &Plan) -> Result<String, PlanError> {
    let Plan { seed, nodes, edges, latency, loss, steps, newcomer, sealed, partly } = plan;
    let mut text = format!("{{\"seed\": {seed}, \"latency\": {latency}, \"loss\": {loss},");
    if *sealed {
        text.push_str(" \"sealed\": true,");
    }
    if *partly {
        text.push_str(" \"partly\": true,");
    }
    if let Some(newcomer) = newcomer {
        text.push_str(&format!(" \"newcomer\": {newcomer},"));
    }
    text.push('\n');
    text.push_str(&format!("\"nodes\": {},\n", lines(nodes)?));
    text.push_str(&format!("\"edges\": {},\n", lines(edges)?));
    text.push_str(&format!("\"steps\": {}}}\n", lines(steps)?));
    Ok(text)
}

fn lines<T: serde::Serialize>(items: &[T]) -> Result<String, PlanError> {
    let lines: Vec<String> = items.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
    Ok(format!("[\n{}\n]", lines.join(",\n")))
}

/// The plan that a text is.
///
/// # Errors
/// [`PlanError`]; a plan that is returned can be played.
pub fn read(text: &str) -> Result<Plan, PlanError> {
    let plan: Plan = serde_json::from_str(text)?;
    check(&plan).map_err(PlanError::Impossible)?;
    Ok(plan)
}

fn check(plan: &Plan) -> Result<(), String> {
    let count = plan.nodes.len();
    if !(2..=MOST_NODES).contains(&count) {
        return Err(format!("it has {count} nodes, and 2 to {MOST_NODES} can be"));
    }
    if plan.steps.windows(2).any(|pair| pair[0].at > pair[1].at) {
        return Err("its steps are not in the order of time".into());
    }
    let mut named: BTreeSet<usize> = plan.newcomer.into_iter().collect();
    for edge in &plan.edges {
        if edge.from == edge.to {
            return Err(format!("node {} has a link to itself", edge.from));
        }
        named.extend([edge.from, edge.to]);
    }
    for step in &plan.steps {
        match &step.act {
            Act::Write { node, .. }
            | Act::User { node, .. }
            | Act::Index { node, .. }
            | Act::Blob { node, .. } => _ = named.insert(*node),
            Act::Rule { node, ruling } => {
                named.insert(*node);
                named.extend(ruling.whom());
            }
            Act::Fault(Fault::Cut { edge }) if *edge >= plan.edges.len() => {
                return Err(format!("link {edge} breaks, and there is none"));
            }
            Act::Withdraw { edge } | Act::Declare { edge } if *edge >= plan.edges.len() => {
                return Err(format!("link {edge} is declared or withdrawn, and there is none"));
            }
            Act::Withdraw { .. } | Act::Declare { .. } => {}
            Act::Move { node, .. } => _ = named.insert(*node),
            Act::Fault(fault) => named.extend(fault.nodes()),
        }
    }
    match named.last() {
        Some(last) if *last >= count => Err(format!("it names node {last}, and there is none")),
        _ => Ok(()),
    }
}
