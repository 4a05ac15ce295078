//! Changes of membership in a plan: who grants and revokes what, and when. Drawn from a source of their own, as folders are.

use super::{Act, Entrance, Plan, RoleName, Step};
use crate::clock::{SECOND, Time};
use crate::workload::Op;
use anabranch_core::ops::Role;
use fastrand::Rng;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a node does to the rights of others, or to its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ruling {
    /// Grants a device a role, one more if it has one.
    Grant {
        /// Whose device.
        whom: usize,
        /// Which role.
        #[serde(with = "RoleName")]
        role: Role,
        /// How far below its own rank.
        below: u8,
    },
    /// Ends a grant that a device has.
    Revoke {
        /// Whose device.
        whom: usize,
        /// Whether nothing of what was written with it counts any more.
        all: bool,
    },
    /// Gives its own grant up.
    Resign,
    /// Lets everybody write.
    Open,
    /// Ends that.
    Close,
}

impl Ruling {
    /// Whose rights it is about, if somebody's in particular.
    #[must_use]
    pub fn whom(&self) -> Option<usize> {
        match self {
            Self::Grant { whom, .. } | Self::Revoke { whom, .. } => Some(*whom),
            Self::Resign | Self::Open | Self::Close => None,
        }
    }
}

impl fmt::Display for Ruling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Grant { whom, role, below } => {
                write!(f, "lets node {whom} {}, {below} below itself", role.name())
            }
            Self::Revoke { whom, all: false } => write!(f, "puts node {whom} out"),
            Self::Revoke { whom, all: true } => {
                write!(f, "puts node {whom} out, and nothing that it wrote counts")
            }
            Self::Resign => write!(f, "gives its right up"),
            Self::Open => write!(f, "lets everybody write"),
            Self::Close => write!(f, "lets everybody write no more"),
        }
    }
}

/// Whether rights change in what `seed` stands for: in every fourth plan. These have no folders and no blobs, of which members
/// alone get the content.
pub(super) fn chosen(seed: u64) -> bool {
    source(seed).u32(..4) == 0
}

/// Whether the database is sealed: in every second plan; and whether only some stores of it are: in every fourth of these.
pub(super) fn sealed(seed: u64) -> (bool, bool) {
    let mut random = Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x7365_616c_6564);
    let sealed = random.bool();
    (sealed, sealed && random.u32(..4) == 0)
}

/// Lets some of those who may read a sealed database only relay it.
pub(super) fn relay(plan: &mut Plan) {
    let mut random = Rng::with_seed(plan.seed ^ 0x7265_6c61_795f_5f5f);
    let mut relays = false;
    for setup in &mut plan.nodes {
        if let Entrance::Granted(role) | Entrance::Ticket(role) = &mut setup.entrance
            && *role == Role::Read
            && !setup.folder
            && random.bool()
        {
            *role = Role::Relay;
            relays = true;
        }
    }
    if relays {
        // What rows alone name, a relay does not fetch, so who is behind it would not get it.
        plan.steps.retain_mut(|step| match &mut step.act {
            Act::Write { group, .. } => {
                group.retain(|op| !matches!(op, Op::Blob { .. }));
                !group.is_empty()
            }
            _ => true,
        });
    }
}

fn source(seed: u64) -> Rng {
    // Mixed, or the first numbers drawn would go with those of other sources.
    Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x6d65_6d62_6572_735f)
}

/// Makes more of the nodes admins, and has them and others change rights, in some plans in quick succession.
pub(super) fn add(plan: &mut Plan, span: Time) {
    let mut random = source(plan.seed);
    random.u32(..4);
    for setup in plan.nodes.iter_mut().skip(1) {
        if let Entrance::Granted(role) | Entrance::Ticket(role) = &mut setup.entrance
            && *role == Role::Write
            && random.bool()
        {
            *role = Role::Admin;
        }
    }
    let strangers = plan.nodes.iter().any(|setup| setup.entrance == Entrance::Stranger);
    let count = plan.nodes.len();
    let often = random.usize(3..24);
    let quick = random.bool();
    let middle = random.u64(SECOND..span);
    for _ in 0..often {
        let node = if random.bool() { 0 } else { random.usize(..count) };
        let whom = random.usize(..count);
        let role =
            *super::choose(&mut random, &[Role::Read, Role::Write, Role::Admin, Role::Admin]);
        let ruling = match random.u32(..20) {
            0..=5 => Ruling::Grant { whom, role, below: random.u8(..2) },
            6..=12 => Ruling::Revoke { whom, all: random.u32(..3) == 0 },
            13 => Ruling::Resign,
            _ if strangers => continue,
            14..=16 => Ruling::Open,
            _ => Ruling::Close,
        };
        // The founder stays: all others are known to it.
        let stranger = |whom: usize| plan.nodes[whom].entrance == Entrance::Stranger;
        if ruling.whom().is_some_and(stranger) {
            continue;
        }
        let own = node == 0 && ruling.whom() == Some(0);
        if own && matches!(ruling, Ruling::Revoke { .. }) || (node, ruling) == (0, Ruling::Resign) {
            continue;
        }
        let spread = if quick { 2 * SECOND } else { span };
        let at = (middle + random.u64(..spread)) % span;
        plan.steps.push(Step { at: at.max(SECOND), act: Act::Rule { node, ruling } });
    }
    plan.steps.sort_by_key(|step| step.at);
}
