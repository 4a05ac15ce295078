//! Blobs in a plan: who fetches content only when it is read, and what users do with blobs. Drawn from a source of their
//! own, so that the rest of a plan is what it would be without.

use super::{Act, Entrance, Plan, Step};
use crate::blobs::BlobDeed;
use crate::clock::{SECOND, Time};
use crate::workload::Op;
use anabranch_core::ops::Role;
use fastrand::Rng;

/// Nodes up to which plans have blobs: their content goes everywhere.
const MOST: usize = 10;

/// Half of the plans without folders get blobs.
pub(super) fn add(plan: &mut Plan, span: Time) {
    let mut random = Rng::with_seed(plan.seed ^ 0x626c_6f62_735f_5f5f);
    let folders = plan.nodes.iter().any(|node| node.folder);
    if folders || plan.nodes.len() > MOST || random.bool() {
        return;
    }
    let lazy = random.u32(..4);
    for node in &mut plan.nodes {
        node.lazy = random.u32(..6) < lazy;
    }
    // What is done to blobs takes the place of some of the rest. What rows alone name, a collection would take away.
    let less = random.u32(1..4);
    plan.steps.retain_mut(|step| {
        let Act::Write { group, .. } = &mut step.act else { return true };
        group.retain(|op| !matches!(op, Op::Blob { .. }));
        !group.is_empty() && random.u32(..4) < less
    });
    let may_write = |(number, entrance): (usize, Entrance)| match entrance {
        Entrance::Granted(role) | Entrance::Ticket(role) => (role >= Role::Write).then_some(number),
        Entrance::Stranger => None,
    };
    let entrances = plan.nodes.iter().map(|node| node.entrance);
    let writers: Vec<usize> = entrances.enumerate().filter_map(may_write).collect();
    for _ in 0..random.usize(20..80) {
        let deed = BlobDeed::choose(&mut random);
        let node = match deed.writes() {
            true => writers[random.usize(..writers.len())],
            false => random.usize(..plan.nodes.len()),
        };
        let at = random.u64(SECOND..span);
        // Many puts have a collection beside them.
        if let BlobDeed::Put { takes, .. } = deed
            && random.u32(..3) == 0
        {
            let deed = BlobDeed::Collect { takes: random.u64(..=takes / 8) };
            let at = at + random.u64(..=takes / 2);
            plan.steps.push(Step { at, act: Act::Blob { node, deed } });
        }
        plan.steps.push(Step { at, act: Act::Blob { node, deed } });
    }
    plan.steps.sort_by_key(|step| step.at);
}
