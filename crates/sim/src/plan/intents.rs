//! What is declared to be kept in step, in a plan: users withdraw it and declare it anew, and who is to be kept in step with
//! moves from one of its addresses to another. Drawn from a source of its own.

use super::{Act, PLACES, Plan, Step};
use crate::clock::{SECOND, Time};
use fastrand::Rng;

/// One plan of three.
pub(super) fn add(plan: &mut Plan, span: Time) {
    let mut random = Rng::with_seed(plan.seed ^ 0x696e_7465_6e74_735f);
    if random.u32(..3) != 0 {
        return;
    }
    for edge in &mut plan.edges {
        edge.places = (0..PLACES).collect();
        random.shuffle(&mut edge.places);
    }
    for _ in 0..random.usize(3..20) {
        let (node, place) = (random.usize(..plan.nodes.len()), random.u8(..PLACES));
        let at = random.u64(SECOND..span);
        plan.steps.push(Step { at, act: Act::Move { node, place } });
    }
    // The first links reach everybody; of the others some are done without.
    let needed = plan.nodes.len() - 1 - usize::from(plan.newcomer.is_some());
    let others = plan.edges.len()
        - plan
            .newcomer
            .map_or(0, |number| plan.edges.iter().filter(|edge| edge.from == number).count());
    for _ in 0..random.usize(1..8) {
        let edge = random.usize(..others);
        let at = random.u64(SECOND..span);
        plan.steps.push(Step { at, act: Act::Withdraw { edge } });
        if edge < needed || random.u32(..3) > 0 {
            let at = random.u64(at..span);
            plan.steps.push(Step { at, act: Act::Declare { edge } });
        }
    }
    plan.steps.sort_by_key(|step| step.at);
}
