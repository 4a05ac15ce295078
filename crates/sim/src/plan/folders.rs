//! Folders in a plan: who holds one, what their users do, and what breaks there. Drawn from a source of their own, so that
//! the rest of a plan is what it would be without.

use super::{Act, Entrance, Fault, FaultKind, Plan, Step};
use crate::clock::{MS, SECOND, Time};
use crate::files::Deed;
use anabranch_core::ops::Role;
use fastrand::Rng;

/// Nodes up to which plans have folders: each looks at its files whenever something arrives.
const MOST: usize = 10;

/// One plan of three gets folders on all its nodes: content comes from folders, so it has to be reached through them.
pub(super) fn add(plan: &mut Plan, span: Time, allowed: &[FaultKind]) {
    let mut random = Rng::with_seed(plan.seed ^ 0x666f_6c64_6572_735f);
    if random.u32(..3) != 0 || plan.nodes.len() > MOST {
        return;
    }
    for node in &mut plan.nodes {
        node.folder = node.entrance != Entrance::Stranger;
    }
    // What is done to files takes the place of some of the rest.
    let less = random.u32(..4);
    plan.steps.retain(|step| match &step.act {
        Act::Write { .. } => random.u32(..4) < less,
        // A folder with a database that is damaged is not looked at.
        Act::Fault(fault) => fault.kind() != FaultKind::Rot,
        Act::User { .. } | Act::Blob { .. } => true,
    });
    // Who may only read keeps changes to themselves.
    let may_write = |(number, entrance): (usize, Entrance)| match entrance {
        Entrance::Granted(role) | Entrance::Ticket(role) => (role >= Role::Write).then_some(number),
        Entrance::Stranger => None,
    };
    let entrances = plan.nodes.iter().map(|node| node.entrance);
    let writers: Vec<usize> = entrances.enumerate().filter_map(may_write).collect();
    let all = plan.nodes.len();
    let writer = |random: &mut Rng| writers[random.usize(..writers.len())];
    let large = random.u32(..6) == 0;
    for _ in 0..random.usize(30..120) {
        let node = writer(&mut random);
        let mut at = random.u64(..span);
        // Mostly several at once, some of which an update falls between.
        for _ in 0..random.usize(1..5) {
            let deed = Deed::choose(&mut random, large);
            plan.steps.push(Step { at, act: Act::User { node, deed } });
            at += random.u64(..400 * MS);
        }
    }
    if allowed.contains(&FaultKind::Files) {
        for _ in 0..random.usize(4..24) {
            let node = random.usize(..all);
            let down = random.u64(100 * MS..10 * SECOND);
            let fault = match random.u32(..8) {
                0..=3 => {
                    let (changes, power) = (random.u32(..14), random.bool());
                    Fault::Halt { node, changes, power, down }
                }
                4..=6 => {
                    let (node, deed) = (writer(&mut random), Deed::choose(&mut random, large));
                    Fault::Amid { node, ops: random.u32(..60), deed }
                }
                _ => Fault::Unreadable { node, pick: random.u8(..), lasts: down },
            };
            plan.steps.push(Step { at: random.u64(SECOND..span), act: Act::Fault(fault) });
        }
    }
    plan.steps.sort_by_key(|step| step.at);
}
