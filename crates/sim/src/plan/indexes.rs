//! Indexes in a plan: who declares which, builds how much of it and takes it back, and when. Drawn from a source of their
//! own, as folders are.

use super::{Act, Plan, Step};
use crate::clock::{SECOND, Time};
use fastrand::Rng;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What is done to the indexes of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tending {
    /// One over a field of a table is declared; nothing of it is built yet.
    Declare {
        /// Which table.
        table: u8,
        /// Which of its columns.
        column: u8,
    },
    /// One is taken back.
    Withdraw {
        /// Which table.
        table: u8,
        /// Which of its columns.
        column: u8,
    },
    /// A stretch is built, or removed, of what is not done.
    Build {
        /// Bytes, about.
        budget: u32,
    },
}

impl fmt::Display for Tending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Declare { table, column } => {
                write!(f, "declares an index over t{table}/{column}")
            }
            Self::Withdraw { table, column } => {
                write!(f, "removes the index over t{table}/{column}")
            }
            Self::Build { budget } => write!(f, "builds {budget} bytes of an index"),
        }
    }
}

/// Every other plan has indexes, early and late ones.
pub(super) fn add(plan: &mut Plan, span: Time) {
    let mut random = Rng::with_seed(plan.seed ^ 0x696e_6465_7865_735f);
    if random.bool() {
        return;
    }
    for _ in 0..random.usize(2..12) {
        let node = random.usize(..plan.nodes.len());
        let (table, column) = (random.u8(..2), random.u8(..2));
        let mut at = if random.bool() { random.u64(..SECOND) } else { random.u64(..span) };
        let mut tend = |at, what| plan.steps.push(Step { at, act: Act::Index { node, what } });
        tend(at, Tending::Declare { table, column });
        for _ in 0..random.usize(..4) {
            at += random.u64(..5 * SECOND);
            tend(at, Tending::Build { budget: random.u32(1..4_000) });
        }
        if random.u32(..4) == 0 {
            tend(at + random.u64(..20 * SECOND), Tending::Withdraw { table, column });
        }
    }
    plan.steps.sort_by_key(|step| step.at);
}
