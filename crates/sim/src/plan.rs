//! What a seed stands for: who there is, who talks to whom, what is written and what breaks, and when. A plan is data, so
//! that steps can be taken out of it and what is left be played again.

mod blobs;
mod folders;
mod indexes;
mod intents;
mod members;

pub use indexes::Tending;
pub use members::Ruling;

use crate::blobs::BlobDeed;
use crate::clock::{DAY, MS, SECOND, Time};
use crate::files::Deed;
use crate::workload::{Op, Workload};
use anabranch_core::ops::Role;
use anabranch_core::storage::Durability;
use fastrand::Rng;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The most nodes of one simulation, clones not counted.
pub const MOST_NODES: usize = 50;

/// Addresses of a node, at one of which it is to be found.
pub const PLACES: u8 = 3;
/// After the last step, when all that others hold is everywhere.
const REST: Time = 60 * SECOND;

/// A kind of fault that can be allowed or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultKind {
    /// Processes die, links break.
    Crash,
    /// The power goes, also in the middle of a transaction.
    Power,
    /// Disks fill up.
    Full,
    /// Networks part, and links lose what they carry.
    Net,
    /// Clocks are off by days and jump.
    Clock,
    /// State directories are restored from older copies and cloned.
    Copy,
    /// Members of the database lie and send garbage.
    Rogue,
    /// Bits of what is stored change.
    Rot,
    /// What happens to folders in the middle of an update: it dies, the user goes on editing, paths cannot be read.
    Files,
}

impl FaultKind {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Crash,
        Self::Power,
        Self::Full,
        Self::Net,
        Self::Clock,
        Self::Copy,
        Self::Rogue,
        Self::Rot,
        Self::Files,
    ];

    /// Its name on the command line and in summaries.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::Power => "power",
            Self::Full => "full",
            Self::Net => "net",
            Self::Clock => "clock",
            Self::Copy => "copy",
            Self::Rogue => "rogue",
            Self::Rot => "rot",
            Self::Files => "files",
        }
    }
}

impl FromStr for FaultKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|kind| kind.name() == text).ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.into_iter().map(Self::name).collect();
            format!("there is no fault '{text}'; there are: {}", names.join(", "))
        })
    }
}

/// Something that goes wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault {
    /// The process dies and is started again after a while.
    Kill {
        /// Whose.
        node: usize,
        /// How long it is away.
        down: Time,
    },
    /// The power goes, at once or at the `fuse`-th operation on the disk from now.
    Power {
        /// Whose.
        node: usize,
        /// Operations until then; 0: now.
        fuse: u64,
        /// How long it is away.
        down: Time,
    },
    /// The disk takes only so many more bytes for a while.
    Full {
        /// Whose.
        node: usize,
        /// Bytes.
        room: u64,
        /// For how long.
        lasts: Time,
    },
    /// The process dies, and an older copy of its state is put back: unnoticed, or as one sees that it is a copy.
    Restore {
        /// Whose.
        node: usize,
        /// Whether the place it is in changes with it.
        marked: bool,
        /// How long it is away.
        down: Time,
    },
    /// The state is copied, and both run: unnoticed, or as one sees that it is a copy.
    Clone {
        /// Whose.
        node: usize,
        /// Whether the copy knows that it is in another place.
        marked: bool,
    },
    /// The wall clock jumps.
    Jump {
        /// Whose.
        node: usize,
        /// Microseconds.
        by: i64,
    },
    /// These nodes and the others do not hear each other for a while.
    Part {
        /// One side.
        side: Vec<usize>,
        /// For how long.
        lasts: Time,
    },
    /// Nothing of `from` reaches `to` for a while.
    Deaf {
        /// Who is not heard.
        from: usize,
        /// Who does not hear.
        to: usize,
        /// For how long.
        lasts: Time,
    },
    /// Links between two nodes deliver what no link may for a while.
    Bad {
        /// One.
        a: usize,
        /// The other.
        b: usize,
        /// For how long.
        lasts: Time,
    },
    /// A link breaks, in the middle of whatever it carries.
    Cut {
        /// Which of [`Plan::edges`].
        edge: usize,
    },
    /// The process dies, and a few bits of what is stored are others when it comes back. In the end its user puts an empty
    /// replica in its place. Never the founder: it may be the only one.
    Rot {
        /// Whose.
        node: usize,
        /// How many.
        bits: u32,
        /// How long it is away.
        down: Time,
    },
    /// A member sends its peers what no honest node sends.
    Rogue {
        /// Who.
        node: usize,
        /// Decides what.
        trick: u64,
    },
    /// An update of the folder does not get far: the process dies, or the power goes.
    Halt {
        /// Whose.
        node: usize,
        /// Before which change to the files, counted from the next update on.
        changes: u32,
        /// Whether the power goes.
        power: bool,
        /// How long it is away.
        down: Time,
    },
    /// The user of a folder acts in the middle of an update.
    Amid {
        /// Whose.
        node: usize,
        /// Before which operation on the files.
        ops: u32,
        /// What they do.
        deed: Deed,
    },
    /// A path of the folder cannot be looked at for a while.
    Unreadable {
        /// Whose.
        node: usize,
        /// Which of those that are there.
        pick: u8,
        /// For how long.
        lasts: Time,
    },
}

impl Fault {
    /// What kind it is.
    #[must_use]
    pub fn kind(&self) -> FaultKind {
        match self {
            Self::Kill { .. } | Self::Cut { .. } => FaultKind::Crash,
            Self::Power { .. } => FaultKind::Power,
            Self::Full { .. } => FaultKind::Full,
            Self::Restore { .. } | Self::Clone { .. } => FaultKind::Copy,
            Self::Jump { .. } => FaultKind::Clock,
            Self::Part { .. } | Self::Deaf { .. } | Self::Bad { .. } => FaultKind::Net,
            Self::Rogue { .. } => FaultKind::Rogue,
            Self::Rot { .. } => FaultKind::Rot,
            Self::Halt { .. } | Self::Amid { .. } | Self::Unreadable { .. } => FaultKind::Files,
        }
    }

    /// The nodes it names.
    #[must_use]
    pub fn nodes(&self) -> Vec<usize> {
        match self {
            Self::Kill { node, .. }
            | Self::Power { node, .. }
            | Self::Full { node, .. }
            | Self::Restore { node, .. }
            | Self::Clone { node, .. }
            | Self::Jump { node, .. }
            | Self::Rot { node, .. }
            | Self::Rogue { node, .. }
            | Self::Halt { node, .. }
            | Self::Amid { node, .. }
            | Self::Unreadable { node, .. } => vec![*node],
            Self::Part { side, .. } => side.clone(),
            Self::Deaf { from, to, .. } => vec![*from, *to],
            Self::Bad { a, b, .. } => vec![*a, *b],
            Self::Cut { .. } => Vec::new(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = |time: &Time| format!("{:.1} s", *time as f64 / SECOND as f64);
        match self {
            Self::Kill { node, down } => write!(f, "node {node} is killed, back in {}", s(down)),
            Self::Power { node, fuse: 0, down } => {
                write!(f, "node {node} loses power, back in {}", s(down))
            }
            Self::Power { node, fuse, down } => {
                write!(
                    f,
                    "node {node} loses power {fuse} disk operations later, back in {}",
                    s(down)
                )
            }
            Self::Full { node, room, lasts } => {
                write!(f, "the disk of node {node} takes {room} more bytes for {}", s(lasts))
            }
            Self::Restore { node, marked, down } => {
                let how = if *marked { "at another place" } else { "unnoticed" };
                write!(f, "node {node} is restored from an older copy, {how}, back in {}", s(down))
            }
            Self::Clone { node, marked } => {
                let how = if *marked { "and knows it" } else { "and does not know it" };
                write!(f, "node {node} is cloned {how}")
            }
            Self::Jump { node, by } => {
                write!(f, "the clock of node {node} jumps by {:.1} s", *by as f64 / SECOND as f64)
            }
            Self::Part { side, lasts } => write!(f, "nodes {side:?} are cut off for {}", s(lasts)),
            Self::Deaf { from, to, lasts } => {
                write!(f, "nothing of node {from} reaches node {to} for {}", s(lasts))
            }
            Self::Bad { a, b, lasts } => {
                write!(f, "links between nodes {a} and {b} are bad for {}", s(lasts))
            }
            Self::Cut { edge } => write!(f, "link {edge} breaks"),
            Self::Rot { node, bits, down } => {
                write!(f, "{bits} bits of node {node} change, back in {}", s(down))
            }
            Self::Rogue { node, trick } => write!(f, "node {node} plays trick {trick}"),
            Self::Halt { node, changes, power, down } => {
                let how = if *power { "loses power" } else { "is killed" };
                let back = s(down);
                write!(f, "node {node} {how} {changes} changes into an update, back in {back}")
            }
            Self::Amid { node, ops, deed } => {
                write!(f, "{ops} operations into an update, the user of node {node} {deed}")
            }
            Self::Unreadable { node, pick, lasts } => {
                write!(f, "path {pick} of node {node} cannot be read for {}", s(lasts))
            }
        }
    }
}

/// What a step does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Act {
    /// Several callers of `node` commit at once.
    Write {
        /// Where.
        node: usize,
        /// What, one for each caller.
        group: Vec<Op>,
    },
    /// The user of a folder does something to it.
    User {
        /// Where.
        node: usize,
        /// What.
        deed: Deed,
    },
    /// Something is done to the indexes of a node.
    Index {
        /// Where.
        node: usize,
        /// What.
        what: Tending,
    },
    /// Somebody's rights are changed.
    Rule {
        /// By whom.
        node: usize,
        /// How.
        ruling: Ruling,
    },
    /// A user withdraws what was declared to be kept in step.
    Withdraw {
        /// Which of [`Plan::edges`].
        edge: usize,
    },
    /// A user declares it, again if it is declared already.
    Declare {
        /// Which of [`Plan::edges`].
        edge: usize,
    },
    /// A node is to be found at another one of its addresses.
    Move {
        /// Who.
        node: usize,
        /// Which one, below [`PLACES`].
        place: u8,
    },
    /// A user does something with blobs.
    Blob {
        /// Where.
        node: usize,
        /// What.
        deed: BlobDeed,
    },
    /// Something goes wrong.
    Fault(Fault),
}

/// Something that happens at a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// When.
    pub at: Time,
    /// What.
    pub act: Act,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>6}.{:03}  ", self.at / SECOND, self.at % SECOND / MS)?;
        match &self.act {
            Act::Write { node, group } => {
                write!(f, "node {node} writes")?;
                group.iter().try_for_each(|op| write!(f, " [{op}]"))
            }
            Act::User { node, deed } => write!(f, "the user of node {node} {deed}"),
            Act::Index { node, what } => write!(f, "node {node} {what}"),
            Act::Rule { node, ruling } => write!(f, "node {node} {ruling}"),
            Act::Withdraw { edge } => write!(f, "link {edge} is withdrawn"),
            Act::Declare { edge } => write!(f, "link {edge} is declared"),
            Act::Move { node, place } => write!(f, "node {node} moves to its address {place}"),
            Act::Blob { node, deed } => write!(f, "the user of node {node} {deed}"),
            Act::Fault(fault) => write!(f, "{fault}"),
        }
    }
}

/// How a role is written in a plan.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Role")]
enum RoleName {
    Relay,
    Read,
    Write,
    Admin,
}

/// How a durability is written in a plan.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Durability")]
enum DurabilityName {
    Full,
    Normal,
}

/// How a node comes into the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entrance {
    /// The first node grants its device a role.
    Granted(#[serde(with = "RoleName")] Role),
    /// It redeems a ticket.
    Ticket(#[serde(with = "RoleName")] Role),
    /// It knows the database's name and nothing else.
    Stranger,
}

/// One node as it begins. The first one founds the database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setup {
    /// How far its clock is ahead.
    pub skew: i64,
    /// How safe its commits are.
    #[serde(with = "DurabilityName")]
    pub durability: Durability,
    /// How it comes in.
    pub entrance: Entrance,
    /// Bytes of early runs it keeps.
    pub pending: usize,
    /// From how many entries on it loads in bulk; 0: as many as usual.
    #[serde(default)]
    pub bulk: u64,
    /// When it dials for the first time.
    #[serde(default)]
    pub arrives: Time,
    /// Whether it holds a folder, too.
    #[serde(default)]
    pub folder: bool,
    /// Whether content of blobs comes to it when it is read.
    #[serde(default)]
    pub lazy: bool,
}

/// Who talks to whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edge {
    /// Who dials.
    pub from: usize,
    /// Who answers.
    pub to: usize,
    /// How long after a sync the next one begins; `None`: they stay connected.
    pub every: Option<Time>,
    /// Whether many syncs only push or only pull.
    #[serde(default)]
    pub one_way: bool,
    /// At which of its addresses who answers is tried, in this order; none: at the first.
    #[serde(default)]
    pub places: Vec<u8>,
}

/// Everything a seed decides before anything runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Decides what is left to chance while it runs.
    pub seed: u64,
    /// The nodes.
    pub nodes: Vec<Setup>,
    /// Their links.
    pub edges: Vec<Edge>,
    /// Time under way.
    pub latency: Time,
    /// Of a thousand packets, how many are lost.
    pub loss: u32,
    /// What happens, in order of time.
    pub steps: Vec<Step>,
    /// Who joins when nothing is written any more, and from several at once.
    #[serde(default)]
    pub newcomer: Option<usize>,
    /// Whether the database is sealed.
    #[serde(default)]
    pub sealed: bool,
    /// Whether of a sealed one some stores are not.
    #[serde(default)]
    pub partly: bool,
}

/// What plans may contain.
#[derive(Debug, Clone)]
pub struct Options {
    /// The most nodes, between 2 and [`MOST_NODES`].
    pub nodes: usize,
    /// Faults that happen.
    pub faults: Vec<FaultKind>,
}

impl Default for Options {
    fn default() -> Self {
        Self { nodes: 20, faults: FaultKind::ALL.to_vec() }
    }
}

impl Plan {
    /// What `seed` stands for.
    #[must_use]
    pub fn generate(seed: u64, options: &Options) -> Self {
        let mut random = Rng::with_seed(seed);
        let count = count(&mut random, options.nodes);
        let span = random.u64(20..120) * SECOND;
        let nodes: Vec<Setup> = (0..count).map(|n| setup(&mut random, n, span, options)).collect();
        let edges = edges(&mut random, &nodes);
        let net = options.faults.contains(&FaultKind::Net);
        let latency = *choose(&mut random, &[200, 2 * MS, 20 * MS, 200 * MS]);
        let loss = if net { *choose(&mut random, &[0, 0, 5, 50]) } else { 0 };
        let mut steps = writes(&mut random, count, span);
        steps.extend(faults(&mut random, count, edges.len(), span, &options.faults));
        steps.sort_by_key(|step| step.at);
        let (newcomer, sealed, partly) = (None, false, false);
        let mut plan = Self { seed, nodes, edges, latency, loss, steps, newcomer, sealed, partly };
        let rules = members::chosen(seed);
        if rules {
            members::add(&mut plan, span);
        } else {
            folders::add(&mut plan, span, &options.faults);
        }
        indexes::add(&mut plan, span);
        if !rules {
            several_sources(&mut random, &mut plan, options);
        }
        intents::add(&mut plan, span);
        if !rules {
            blobs::add(&mut plan, span);
        }
        (plan.sealed, plan.partly) = members::sealed(seed);
        if plan.sealed && !rules {
            members::relay(&mut plan);
        }
        plan
    }

    /// Whether rights change in it.
    pub(crate) fn rules(&self) -> bool {
        self.steps.iter().any(|step| matches!(step.act, Act::Rule { .. }))
    }

    /// Operations that are asked for.
    #[must_use]
    pub fn operations(&self) -> usize {
        let of = |step: &Step| match &step.act {
            Act::Write { group, .. } => group.len(),
            Act::User { .. } | Act::Blob { .. } => 1,
            _ => 0,
        };
        self.steps.iter().map(of).sum()
    }

    /// The faults.
    pub fn faults(&self) -> impl Iterator<Item = &Fault> {
        self.steps.iter().filter_map(|step| match &step.act {
            Act::Fault(fault) => Some(fault),
            _ => None,
        })
    }
}

fn choose<'a, T>(random: &mut Rng, from: &'a [T]) -> &'a T {
    &from[random.usize(..from.len())]
}

/// Few nodes mostly: they find most of what there is to find, sooner.
fn count(random: &mut Rng, most: usize) -> usize {
    let most = most.clamp(2, MOST_NODES);
    let limit = match random.u32(..10) {
        0..=5 => 5,
        6..=8 => 10,
        _ => most,
    };
    random.usize(2..=most.min(limit))
}

fn setup(random: &mut Rng, node: usize, span: Time, options: &Options) -> Setup {
    let skewed = options.faults.contains(&FaultKind::Clock) && random.u32(..3) == 0;
    let days = (5 * DAY).cast_signed();
    let role = match random.u32(..8) {
        0 => Role::Read,
        1 => Role::Admin,
        _ => Role::Write,
    };
    let entrance = match random.u32(..3) {
        _ if node == 0 => Entrance::Granted(Role::Admin),
        _ if node > 2 && random.u32(..20) == 0 => Entrance::Stranger,
        0 => Entrance::Ticket(role),
        _ => Entrance::Granted(role),
    };
    let late = matches!(entrance, Entrance::Ticket(_)) && random.bool();
    Setup {
        skew: if skewed { random.i64(-days..days) } else { random.i64(-50_000..50_000) },
        durability: if random.u32(..3) == 0 { Durability::Normal } else { Durability::Full },
        entrance,
        pending: *choose(random, &[4 * 1024 * 1024, 64 * 1024, 2 * 1024]),
        bulk: *choose(random, &[0, 2, 10, 30]),
        arrives: if late { random.u64(..span) } else { 0 },
        folder: false,
        lazy: false,
    }
}

/// A tree, so that everybody is reached, as a line, a star or at random, and some links more.
fn edges(random: &mut Rng, nodes: &[Setup]) -> Vec<Edge> {
    let count = nodes.len();
    let shape = random.u32(..4);
    let live = random.u32(..4);
    let one_way = *choose(random, &[0, 0, 1, 4]);
    let mut edges = Vec::new();
    let mut add = |random: &mut Rng, a: usize, b: usize, joins: bool| {
        let every = (random.u32(..4) < live).then(|| random.u64(1..15) * SECOND);
        let one_way = every.is_some() && random.u32(..4) < one_way;
        let (from, to) = if joins || random.bool() { (a, b) } else { (b, a) };
        edges.push(Edge { from, to, every, one_way, places: Vec::new() });
    };
    for node in 1..count {
        let mut other = match shape {
            0 => node - 1,
            1 => 0,
            _ => random.usize(..node),
        };
        if nodes[other].entrance == Entrance::Stranger {
            other = 0;
        }
        // Who has a ticket shows it to whom it dials.
        add(random, node, other, !matches!(nodes[node].entrance, Entrance::Granted(_)));
    }
    let more = if shape == 3 { count * 2 } else { random.usize(..=count / 3) };
    for _ in 0..more.min(60) {
        let (a, b) = (random.usize(..count), random.usize(..count));
        if a != b && nodes[b].entrance != Entrance::Stranger {
            add(random, a, b, nodes[a].entrance == Entrance::Stranger);
        }
    }
    edges
}

/// Somebody who holds nothing comes and connects with several at once: to a network at rest, or while things break.
fn several_sources(random: &mut Rng, plan: &mut Plan, options: &Options) {
    let number = plan.nodes.len();
    if number < 3 || number >= options.nodes || random.u32(..4) > 0 {
        return;
    }
    let last = plan.steps.last().map_or(0, |step| step.at);
    let mut newcomer = setup(random, 0, last, options);
    newcomer.entrance = Entrance::Granted(Role::Write);
    if random.bool() {
        plan.steps.retain(|step| !matches!(step.act, Act::Fault(_)));
        newcomer.arrives = last + REST;
    } else {
        newcomer.arrives = random.u64(last / 2..=last + 8 * SECOND);
    }
    plan.nodes.push(newcomer);
    let known = |n: &usize| plan.nodes[*n].entrance != Entrance::Stranger;
    let mut others: Vec<usize> = (0..number).filter(known).collect();
    random.shuffle(&mut others);
    others.truncate(random.usize(2..5));
    let edge =
        |to: usize| Edge { from: number, to, every: None, one_way: false, places: Vec::new() };
    plan.edges.extend(others.into_iter().map(edge));
    plan.newcomer = Some(number);
}

fn writes(random: &mut Rng, count: usize, span: Time) -> Vec<Step> {
    let load = Workload::choose(random);
    let total = random.usize(210..540);
    let mut steps = Vec::new();
    let mut number = 0;
    while number < total {
        let node = random.usize(..count);
        let at = random.u64(SECOND..span);
        let burst = if random.u32(..20) == 0 { random.usize(5..30) } else { 1 };
        for n in 0..burst {
            let callers = if random.u32(..8) == 0 { random.usize(2..5) } else { 1 };
            let group: Vec<Op> = (0..callers).map(|_| load.op(random)).collect();
            number += group.len();
            steps.push(Step { at: at + n as u64 * 3 * MS, act: Act::Write { node, group } });
        }
    }
    steps
}

fn faults(
    random: &mut Rng,
    count: usize,
    edges: usize,
    span: Time,
    allowed: &[FaultKind],
) -> Vec<Step> {
    // Those of folders come with the folders.
    let allowed: Vec<FaultKind> =
        allowed.iter().copied().filter(|kind| *kind != FaultKind::Files).collect();
    if allowed.is_empty() {
        return Vec::new();
    }
    let total = random.usize(10..50);
    // Some simulations have many faults of few kinds.
    let some = 1 + random.usize(..allowed.len());
    let mut kinds = allowed.clone();
    random.shuffle(&mut kinds);
    kinds.truncate(some.max(allowed.len().min(2)));
    let mut copies = 0;
    (0..total)
        .map(|_| {
            let kind = *choose(random, &kinds);
            let mut fault = fault(random, kind, count, edges);
            if matches!(fault, Fault::Clone { .. }) {
                copies += 1;
                if copies > 3 {
                    fault = Fault::Cut { edge: random.usize(..edges) };
                }
            }
            Step { at: random.u64(SECOND..span), act: Act::Fault(fault) }
        })
        .collect()
}

fn fault(random: &mut Rng, kind: FaultKind, count: usize, edges: usize) -> Fault {
    let node = random.usize(..count);
    let down = random.u64(100 * MS..10 * SECOND);
    let lasts = random.u64(SECOND..20 * SECOND);
    match kind {
        FaultKind::Crash if random.bool() => Fault::Kill { node, down },
        FaultKind::Crash => Fault::Cut { edge: random.usize(..edges) },
        FaultKind::Power => {
            let fuse = if random.bool() { 0 } else { random.u64(1..60) };
            Fault::Power { node, fuse, down }
        }
        FaultKind::Full => Fault::Full { node, room: random.u64(..20_000), lasts },
        FaultKind::Net => match random.u32(..4) {
            0 => {
                let side: Vec<usize> = (0..count).filter(|_| random.bool()).collect();
                Fault::Part { side, lasts }
            }
            1 => Fault::Deaf { from: node, to: (node + random.usize(1..count)) % count, lasts },
            2 => Fault::Bad { a: node, b: (node + random.usize(1..count)) % count, lasts },
            _ => Fault::Cut { edge: random.usize(..edges) },
        },
        FaultKind::Clock => {
            let days = (2 * DAY).cast_signed();
            Fault::Jump { node, by: random.i64(-days..days) }
        }
        FaultKind::Copy if random.u32(..3) == 0 => Fault::Clone { node, marked: random.bool() },
        FaultKind::Copy => Fault::Restore { node, marked: random.bool(), down },
        FaultKind::Rot => Fault::Rot { node: random.usize(1..count), bits: random.u32(1..4), down },
        FaultKind::Rogue | FaultKind::Files => Fault::Rogue { node, trick: random.u64(..) },
    }
}
