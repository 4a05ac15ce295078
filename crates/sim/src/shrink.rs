//! Takes steps, links and nodes' peculiarities out of a plan for as long as it still fails the same check, so that what is
//! left is a story that people can follow.

use crate::check::Check;
use crate::plan::{Act, Plan};
use crate::world::simulate;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

/// A smaller plan that fails the same check. Gives up looking for a still smaller one after `limit`.
#[must_use]
pub fn shrink(plan: &Plan, check: Check, limit: Duration) -> Plan {
    let begin = Instant::now();
    let fails = |plan: &Plan| {
        let violation = simulate(plan, false).violation;
        violation.is_some_and(|violation| violation.check == check)
    };
    let mut best = plan.clone();
    let mut chunk = best.steps.len().div_ceil(2).max(1);
    while begin.elapsed() < limit {
        let before = best.steps.len();
        let mut at = 0;
        while at < best.steps.len() && begin.elapsed() < limit {
            let mut less = best.clone();
            less.steps.drain(at..(at + chunk).min(best.steps.len()));
            if fails(&less) {
                best = less;
            } else {
                at += chunk;
            }
        }
        if chunk > 1 {
            chunk = chunk.div_ceil(2).min(best.steps.len().max(1));
            continue;
        }
        if best.steps.len() == before {
            break;
        }
    }
    for number in 0..best.steps.len() {
        let mut less = best.clone();
        if let Act::Write { group, .. } = &mut less.steps[number].act
            && group.len() > 1
        {
            group.truncate(1);
            if begin.elapsed() < limit && fails(&less) {
                best = less;
            }
        }
    }
    best
}

/// The plan as people read it.
#[must_use]
pub fn story(plan: &Plan) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    for (number, node) in plan.nodes.iter().enumerate() {
        let skew = node.skew as f64 / 1e6;
        let _ = writeln!(
            text,
            "node {number}: {:?}, {:?}, clock {skew:+.1} s, keeps {} bytes of early runs{}{}",
            node.entrance,
            node.durability,
            node.pending,
            match node.bulk {
                0 => String::new(),
                from => format!(", loads {from} entries in bulk"),
            },
            match node.arrives {
                0 => String::new(),
                at => format!(", dials from {:.1} s on", at as f64 / 1e6),
            }
        );
    }
    for (number, edge) in plan.edges.iter().enumerate() {
        let how = match edge.every {
            Some(every) if edge.one_way => {
                format!("every {:.1} s, often to push or to pull only", every as f64 / 1e6)
            }
            Some(every) => format!("every {:.1} s", every as f64 / 1e6),
            None => "and stays connected".into(),
        };
        let _ = writeln!(text, "link {number}: node {} dials node {} {how}", edge.from, edge.to);
    }
    for step in &plan.steps {
        let _ = writeln!(text, "{step}");
    }
    text
}
