//! Plays a plan: one queue of events in virtual time, one thread, no choice that the seed does not make.

mod blobs;
mod folders;
mod indexes;
mod intents;
mod members;
mod rogue;
mod sessions;

use crate::check::{
    Check, Digests, SameState, Violation, judge_all, judge_effect, judge_return, judge_timestamps,
};
use crate::clock::{Clock, MS, SECOND, Surroundings, Time};
use crate::disk::Disk;
use crate::files::Contents;
use crate::folder::Amid;
use crate::network::Network;
use crate::node::{Acknowledged, Node};
use crate::plan::{Act, Edge, Entrance, Fault, FaultKind, Plan, Setup};
use crate::trace::Trace;
use crate::workload::{Memory, Op, named_blobs};
use anabranch_core::author::Draft;
use anabranch_core::blob::ChunkHash;
use anabranch_core::build::Budget;
use anabranch_core::founding::Founding;
use anabranch_core::id::{DatabaseId, Position};
use anabranch_core::key::DeviceKey;
use anabranch_core::ops::{MemberOp, Role, Subject, TicketTerms};
use anabranch_core::seal::Scope;
use anabranch_core::storage::{Storage, StorageError};
use anabranch_core::view::View;
use anabranch_node::{
    Bulk, Committed, Device, Job, NodeError, Replica, ReplicaOptions, RequestLimits,
};
use fastrand::Rng;
use intents::Line;
use sessions::{Conn, ConnId, Side};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How long it may take, in virtual time, until all is quiet once everything has healed.
const HEALING: Time = 300 * SECOND;
/// Events after which it counts as never coming to rest.
const EVENTS: u64 = 2_000_000;
/// When a commit under normal durability is signed.
const UNSIGNED: Time = 20 * MS;

/// What is done when a node comes back.
#[derive(Debug, Clone, Copy)]
enum Return {
    AsItWas,
    Restored { marked: bool },
    Rotten { bits: u32 },
}

#[derive(Debug)]
enum Event {
    Step(usize),
    Relief(usize),
    Heal,
    Dial { line: usize, turn: u64 },
    Frame { conn: ConnId, to: Side, bytes: Vec<u8> },
    Resend { conn: ConnId, to: Side, give_up: Time },
    Ended { conn: ConnId, to: Side },
    HangUp(ConnId),
    Work { conn: ConnId, side: Side, node: usize, job: Box<Job> },
    Look { conn: ConnId, side: Side, at: Time },
    Redeem { conn: ConnId, side: Side },
    Sign { node: usize, generation: u64 },
    Return { node: usize, how: Return },
    Update { node: usize, generation: u64 },
    Blob { node: usize, generation: u64, deed: u64 },
}

/// What one simulation was like.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Nodes, clones included.
    pub nodes: usize,
    /// Transactions acknowledged.
    pub operations: u64,
    /// Transactions that could not be made: the node was down, its disk full, its role too low.
    pub refused: u64,
    /// Faults that happened, by kind.
    pub faults: BTreeMap<FaultKind, u64>,
    /// Entries in the end.
    pub entries: u64,
    /// Frames delivered.
    pub frames: u64,
    /// Entries that came to a node that held them already.
    pub again: u64,
    /// Sessions begun.
    pub sessions: u64,
    /// What users did to their folders.
    pub deeds: u64,
    /// Updates of folders.
    pub updates: u64,
    /// Virtual time.
    pub time: Time,
    /// Events.
    pub events: u64,
}

/// How a simulation ended.
#[derive(Debug)]
pub struct Outcome {
    /// The first thing that must never be, if anything.
    pub violation: Option<Violation>,
    /// What it was like.
    pub stats: Stats,
    /// Equal for equal plans.
    pub trace: [u8; 32],
    /// What happened, line by line, if that was asked for.
    pub story: String,
}

/// Plays `plan` to its end or to the first violation. With `told`, the outcome has a story.
#[must_use]
pub fn simulate(plan: &Plan, told: bool) -> Outcome {
    let mut world = match World::new(plan, told) {
        Ok(world) => world,
        Err(violation) => return outcome_of_nothing(violation),
    };
    let result = world.run();
    world.stats.nodes = world.nodes.len();
    world.stats.time = world.clock.now();
    Outcome {
        violation: result.err(),
        stats: world.stats.clone(),
        trace: world.trace.hash(),
        story: world.trace.story(),
    }
}

fn outcome_of_nothing(violation: Violation) -> Outcome {
    let (stats, story) = (Stats::default(), String::new());
    Outcome { violation: Some(violation), stats, trace: [0; 32], story }
}

struct World<'p> {
    plan: &'p Plan,
    clock: Arc<Clock>,
    random: Rng,
    network: Network,
    queue: BTreeMap<(Time, u64), Event>,
    events: u64,
    nodes: Vec<Node>,
    database: DatabaseId,
    tickets: BTreeMap<usize, DeviceKey>,
    conns: BTreeMap<ConnId, Conn>,
    /// The connection of each edge, and those of clones after the plan's.
    edges: Vec<Line>,
    /// At which of their addresses nodes are, if not at the first.
    places: BTreeMap<usize, u8>,
    healed: bool,
    /// Those who had a right and have none any more, once everything has healed.
    outside: BTreeSet<usize>,
    /// How often lines to and from them were tried since.
    tries: BTreeMap<usize, u32>,
    same: SameState,
    forbidden: Vec<Position>,
    contents: Arc<Mutex<Contents>>,
    /// How often all folders were looked at in the end.
    rounds: u32,
    trace: Trace,
    stats: Stats,
}

fn setup_failed(e: impl std::fmt::Display) -> Violation {
    Check::Blamed.failed(format!("the nodes could not be set up: {e}"))
}

fn node(setup: &Setup, number: usize, seed: u64, clock: &Arc<Clock>) -> Node {
    let mut random = Rng::with_seed(seed ^ (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut bytes = [0; 32];
    random.fill(&mut bytes);
    let key = DeviceKey::from_seed(&bytes);
    random.fill(&mut bytes);
    let surroundings = Arc::new(Surroundings::new(Arc::clone(clock), setup.skew, random.u64(..)));
    let environment = Arc::clone(&surroundings) as Arc<dyn anabranch_node::Environment>;
    Node {
        device: Device::within(key, environment),
        folder: folders::folder_of(setup, number, seed, &surroundings),
        surroundings,
        disk: Disk::new(bytes),
        options: ReplicaOptions {
            durability: setup.durability,
            pending_bytes: setup.pending,
            sum_from: if setup.bulk == 0 { 100 } else { setup.bulk as usize },
            claim_timeout: Duration::from_secs(3),
            bulk: match setup.bulk {
                0 => Bulk::default(),
                from => {
                    Bulk { from, entries: 2 * from, stretch: Budget { bytes: 4_000, threads: 1 } }
                }
            },
            // So few that most content is put in with several transactions.
            put_bytes: 40_000,
            requests: RequestLimits::default(),
        },
        replica: None,
        generation: 0,
        acknowledged: Vec::new(),
        joining: matches!(setup.entrance, Entrance::Ticket(_)),
        copied: false,
        unnoticed: false,
        rotten: false,
        stranger: setup.entrance == Entrance::Stranger,
        relay: matches!(
            setup.entrance,
            Entrance::Granted(Role::Relay) | Entrance::Ticket(Role::Relay)
        ),
        looked: 0,
        again: 0,
        doing: BTreeMap::new(),
        deeds: 0,
        signing: false,
        memory: Memory::default(),
    }
}

impl<'p> World<'p> {
    fn new(plan: &'p Plan, told: bool) -> Result<Self, Violation> {
        let clock = Arc::new(Clock::default());
        let setups = plan.nodes.iter().enumerate();
        let mut nodes: Vec<Node> =
            setups.map(|(number, setup)| node(setup, number, plan.seed, &clock)).collect();
        let (database, tickets) = found(plan, &mut nodes).map_err(setup_failed)?;
        let mut world = Self {
            clock,
            random: Rng::with_seed(plan.seed.wrapping_mul(0x2545_f491_4f6c_dd1d)),
            network: Network::new(plan.latency, plan.loss),
            queue: BTreeMap::new(),
            events: 0,
            nodes,
            database,
            tickets,
            conns: BTreeMap::new(),
            edges: plan.edges.iter().map(Line::new).collect(),
            places: BTreeMap::new(),
            healed: false,
            outside: BTreeSet::new(),
            tries: BTreeMap::new(),
            same: SameState::default(),
            forbidden: Vec::new(),
            contents: Arc::default(),
            rounds: 0,
            trace: Trace::new(told),
            stats: Stats::default(),
            plan,
        };
        for edge in 0..world.edges.len() {
            let after = world.random.u64(..SECOND);
            let Edge { from, to, .. } = &plan.edges[edge];
            let arrived = plan.nodes[*from].arrives.max(plan.nodes[*to].arrives);
            world.plan_dial(edge, arrived + after);
        }
        for (number, step) in plan.steps.iter().enumerate() {
            world.at(step.at, Event::Step(number));
        }
        let end = plan.steps.last().map_or(0, |step| step.at) + 30 * SECOND;
        world.at(end, Event::Heal);
        Ok(world)
    }

    fn at(&mut self, time: Time, event: Event) {
        self.events += 1;
        self.queue.insert((time.max(self.clock.now()), self.events), event);
    }

    fn after(&mut self, delay: Time, event: Event) {
        self.at(self.clock.now() + delay, event);
    }

    fn note(&mut self, kind: &str, node: usize, detail: &[u8], line: impl FnOnce() -> String) {
        self.trace.note(self.clock.now(), kind, node, detail, line);
    }

    fn run(&mut self) -> Result<(), Violation> {
        let mut limit = Time::MAX;
        loop {
            let Some(((time, _), event)) = self.queue.pop_first() else {
                // Before the folders are looked at once more, which wakes the sessions.
                self.judge_intents()?;
                if self.look_again()? {
                    continue;
                }
                break;
            };
            self.stats.events += 1;
            if self.stats.events > EVENTS || time > limit {
                let text = format!(
                    "after {} events something still goes on: {event:?}",
                    self.stats.events
                );
                return Err(Check::Livelock.failed(text.chars().take(400).collect::<String>()));
            }
            self.clock.set(time);
            self.take(event)?;
            if self.healed && limit == Time::MAX {
                limit = time + HEALING;
            }
        }
        self.judge_outsiders()?;
        let digests = judge_all(&self.nodes, &self.outside, &self.forbidden)?;
        self.judge_sealed()?;
        self.judge_contents()?;
        self.judge_trees()?;
        self.judge_newcomer()?;
        let apart = [FaultKind::Clock, FaultKind::Rot];
        if self.plan.faults().all(|fault| !apart.contains(&fault.kind()))
            && self.plan.nodes.iter().all(|node| node.skew.unsigned_abs() < SECOND)
        {
            judge_timestamps(&self.nodes[0])?;
        }
        self.note("equal", 0, &digests.frontier, || "all nodes are equal".into());
        let totals = self.nodes[0].look(|view| view.totals()).map_err(setup_failed)?;
        self.stats.entries = totals.entries;
        Ok(())
    }

    /// Who joins a network at rest, and from several at once, gets each entry once.
    fn judge_newcomer(&self) -> Result<(), Violation> {
        let calm = self.plan.loss == 0 && self.plan.faults().next().is_none();
        let Some(number) = self.plan.newcomer.filter(|_| calm) else { return Ok(()) };
        let Some(node) = self.nodes.get(number) else { return Ok(()) };
        let entries = node.look(|view| view.totals()).map_err(setup_failed)?.entries;
        if node.again <= entries / 10 {
            return Ok(());
        }
        let text = format!("of {entries} entries node {number} got {} once more", node.again);
        Err(Check::Once.failed(text))
    }

    fn take(&mut self, event: Event) -> Result<(), Violation> {
        match event {
            Event::Step(number) => self.step(number),
            Event::Relief(number) => self.relieve(number),
            Event::Heal => self.heal(),
            Event::Dial { line, turn } => self.dial(line, turn),
            Event::Frame { conn, to, bytes } => self.deliver(conn, to, bytes),
            Event::Resend { conn, to, give_up } => self.resend(conn, to, give_up),
            Event::Ended { conn, to } => self.link_ended(conn, to),
            Event::HangUp(conn) => self.cut(conn),
            Event::Work { conn, side, node, job } => self.work(conn, side, node, *job),
            Event::Look { conn, side, at } => self.look(conn, side, at),
            Event::Redeem { conn, side } => self.redeem(conn, side),
            Event::Sign { node, generation } => self.sign(node, generation),
            Event::Return { node, how } => self.come_back(node, how),
            Event::Update { node, generation } => self.try_update(node, generation),
            Event::Blob { node, generation, deed } => self.go_on_blob(node, generation, deed),
        }
    }

    fn step(&mut self, number: usize) -> Result<(), Violation> {
        let step = &self.plan.steps[number];
        match &step.act {
            Act::Write { node, group } => self.write(*node, group, number as u64),
            Act::User { node, deed } => {
                self.stats.deeds += 1;
                self.act(*node, deed)
            }
            Act::Index { node, what } => self.tend(*node, what),
            Act::Rule { node, ruling } => self.rule(*node, ruling),
            Act::Withdraw { edge } => self.withdraw(*edge),
            Act::Declare { edge } => self.declare(*edge),
            Act::Move { node, place } => self.change_place(*node, *place),
            Act::Blob { node, deed } => {
                self.stats.deeds += 1;
                self.begin_blob(*node, deed)
            }
            Act::Fault(fault) => {
                let line = fault.to_string();
                self.note("fault", 0, line.as_bytes(), || line.clone());
                *self.stats.faults.entry(fault.kind()).or_default() += 1;
                self.fault(fault, number)
            }
        }
    }

    fn write(&mut self, node: usize, group: &[Op], mark: u64) -> Result<(), Violation> {
        let Some(replica) = self.nodes[node].replica.clone() else {
            self.stats.refused += group.len() as u64;
            return Ok(());
        };
        for (op, mark) in group.iter().zip((mark << 8)..) {
            // A disk that does not take the blob is not given the row.
            if let Some(blob) = op.blob(mark) {
                let hash = ChunkHash::of(&blob);
                if replica.blobs().put(&[(hash, blob)]).is_err() {
                    self.stats.refused += group.len() as u64;
                    return self.settle_node(node);
                }
                replica.blobs_arrived(&[hash]);
            }
        }
        let mut memory = std::mem::take(&mut self.nodes[node].memory);
        let drafts: Result<Vec<Vec<Draft>>, _> = replica.read(|view| {
            let marks = (mark << 8)..;
            let numbered = group.iter().zip(marks);
            numbered.map(|(op, mark)| Ok(vec![op.draft(view, &mut memory, mark)?])).collect()
        });
        self.nodes[node].memory = memory;
        let drafts = drafts.map_err(|e: anabranch_core::error::Error| NodeError::from(e));
        let alone = drafts.as_ref().ok().and_then(|drafts| match &drafts[..] {
            [alone] => alone.first().cloned(),
            _ => None,
        });
        match drafts.and_then(|drafts| replica.commit_group(&drafts)) {
            Ok(committed) => {
                let written = committed.first().and_then(|result| result.as_ref().ok());
                let wrote = written.filter(|_| !self.nodes[node].rotten);
                if let (Some(mut draft), Some(entries)) = (alone, wrote) {
                    if let Some(Some(entry)) = entries.first() {
                        draft.name_elements(entry).map_err(setup_failed)?;
                    }
                    let content = self.nodes[node].disk.content();
                    let tx = content.read().map_err(|e| setup_failed(NodeError::from(e)))?;
                    judge_effect(node, View::new(&*tx), &draft)?;
                }
                self.acknowledge(node, committed)?;
            }
            Err(e) => {
                self.note("refused", node, &[], || e.to_string());
                self.stats.refused += group.len() as u64;
            }
        }
        self.settle_node(node)
    }

    fn acknowledge(&mut self, node: usize, committed: Vec<Committed>) -> Result<(), Violation> {
        use anabranch_core::error::{Error, Refusal};
        let full = self.nodes[node].is_full();
        for result in committed {
            match result {
                Ok(entries) => {
                    let positions = entries.iter().flatten().map(|entry| entry.position());
                    let positions: Vec<Position> = positions.collect();
                    self.stats.operations += 1;
                    for position in positions {
                        self.note("wrote", node, &position.id.0, || format!("{position:?}"));
                        let write = Acknowledged { position, safe: full };
                        self.nodes[node].acknowledged.push(write);
                    }
                }
                Err(
                    Error::NotPermitted { .. }
                    | Error::Storage(StorageError::NoKey)
                    | Error::SealedToAll
                    | Error::LastAdmin
                    | Error::Refused(Refusal::Priority { .. } | Refusal::Rank { .. }),
                ) => self.stats.refused += 1,
                Err(_) if self.nodes[node].rotten => self.stats.refused += 1,
                Err(e) => {
                    let text = format!("node {node} could not commit: {e}");
                    return Err(Check::Blamed.failed(text));
                }
            }
        }
        if !full && !self.nodes[node].signing {
            self.nodes[node].signing = true;
            let generation = self.nodes[node].generation;
            self.after(UNSIGNED, Event::Sign { node, generation });
        }
        Ok(())
    }

    fn sign(&mut self, node: usize, generation: u64) -> Result<(), Violation> {
        let site = &mut self.nodes[node];
        let Some(replica) = site.replica.clone().filter(|_| site.generation == generation) else {
            return Ok(());
        };
        match replica.sign() {
            Ok(()) => {
                site.signing = false;
                site.mark_safe();
            }
            // Its disk is full or gone; in the first case it is tried again.
            Err(_) => self.after(SECOND, Event::Sign { node, generation }),
        }
        self.settle_node(node)
    }

    /// After anything that may have changed what `node` holds: its disk may have died meanwhile, its sessions want to know,
    /// and what it holds must be what others hold who hold as much.
    fn settle_node(&mut self, node: usize) -> Result<(), Violation> {
        if self.nodes[node].disk.is_dead() && self.nodes[node].replica.is_some() {
            self.lose_power(node);
            let down = self.random.u64(SECOND..5 * SECOND);
            return self.go_down(node, down, Return::AsItWas);
        }
        self.wake(node)?;
        let Some(replica) = &self.nodes[node].replica else { return Ok(()) };
        if replica.pending_bytes() > self.nodes[node].options.pending_bytes {
            return Err(Check::Bounded.failed(format!("too much waits on node {node}")));
        }
        self.want_blobs(node);
        if node == 0 {
            self.note_outsiders()?;
        }
        // What is not signed yet is in the state and not in the frontier.
        let digests = self.nodes[node].look(|view| match view.unsigned()? {
            0 => Digests::of(view).map(Some),
            _ => Ok(None),
        });
        match digests {
            Ok(Some(_)) if self.nodes[node].rotten => Ok(()),
            Ok(Some(digests)) => self.same.note(node, &digests),
            Ok(None) | Err(_) => Ok(()),
        }
    }

    /// Asks for the blobs that rows name and that are not there.
    fn want_blobs(&mut self, node: usize) {
        let site = &mut self.nodes[node];
        let Some(replica) = &site.replica else { return };
        let held = replica.look(|view| view.next_arrival()).unwrap_or(site.looked);
        if held == site.looked {
            return;
        }
        // What cannot be read now is looked at when something happens again.
        let Ok(named) = replica.read(named_blobs) else { return };
        site.looked = held;
        let asked = site.folder.iter().flat_map(|folder| &folder.wants).copied();
        let lacking = named
            .into_iter()
            .chain(asked)
            .filter(|hash| matches!(replica.blobs().get(hash), Ok(None)));
        replica.want(lacking.collect::<Vec<_>>());
    }

    fn fault(&mut self, fault: &Fault, number: usize) -> Result<(), Violation> {
        match fault {
            Fault::Kill { node, down } => {
                self.nodes[*node].disk.kill();
                self.go_down(*node, *down, Return::AsItWas)
            }
            Fault::Power { node, fuse: 0, down } => {
                self.lose_power(*node);
                self.go_down(*node, *down, Return::AsItWas)
            }
            Fault::Power { node, fuse, .. } => {
                self.nodes[*node].disk.light_fuse(*fuse);
                Ok(())
            }
            Fault::Full { node, room, lasts } => {
                self.nodes[*node].disk.limit(Some(*room));
                self.fill_folder(*node, true);
                self.after(*lasts, Event::Relief(number));
                Ok(())
            }
            Fault::Restore { node, marked, down } => {
                self.nodes[*node].disk.kill();
                self.go_down(*node, *down, Return::Restored { marked: *marked })
            }
            Fault::Rot { node, bits, down } => {
                self.nodes[*node].disk.kill();
                self.go_down(*node, *down, Return::Rotten { bits: *bits })
            }
            Fault::Clone { node, marked } => self.clone_node(*node, *marked),
            Fault::Jump { node, by } => {
                self.nodes[*node].surroundings.jump(*by);
                Ok(())
            }
            Fault::Part { lasts, .. } | Fault::Deaf { lasts, .. } | Fault::Bad { lasts, .. } => {
                self.spoil_network(fault, true);
                self.after(*lasts, Event::Relief(number));
                Ok(())
            }
            Fault::Cut { edge } => self.cut_line(*edge),
            Fault::Rogue { node, trick } => self.play_trick(*node, *trick),
            Fault::Halt { node, changes, power, down } => {
                self.arrange(*node, Amid::Halt { changes: *changes, power: *power, down: *down });
                Ok(())
            }
            Fault::Amid { node, ops, deed } => {
                self.arrange(*node, Amid::User { ops: *ops, deed: deed.clone() });
                Ok(())
            }
            Fault::Unreadable { node, pick, lasts } => {
                self.hide_path(*node, *pick);
                self.after(*lasts, Event::Relief(number));
                Ok(())
            }
        }
    }

    /// The network gets worse by this fault, or better by its end.
    fn spoil_network(&mut self, fault: &Fault, worse: bool) {
        let pairs: Vec<(usize, usize)> = match fault {
            Fault::Part { side, .. } => {
                let outside = |n: &usize| !side.contains(n);
                let others: Vec<usize> = (0..self.nodes.len()).filter(outside).collect();
                let pairs = side.iter().flat_map(|a| others.iter().map(move |b| (*a, *b)));
                pairs.flat_map(|(a, b)| [(a, b), (b, a)]).collect()
            }
            Fault::Deaf { from, to, .. } => vec![(*from, *to)],
            Fault::Bad { a, b, .. } => vec![(*a, *b)],
            _ => Vec::new(),
        };
        for (a, b) in pairs {
            match (worse, fault) {
                (false, _) => self.network.mend(a, b),
                (true, Fault::Bad { .. }) => self.network.spoil(a, b),
                (true, _) => self.network.deafen(a, b),
            }
        }
    }

    fn relieve(&mut self, number: usize) -> Result<(), Violation> {
        let Act::Fault(fault) = &self.plan.steps[number].act else { return Ok(()) };
        match fault {
            Fault::Full { node, .. } => {
                self.nodes[*node].disk.limit(None);
                self.fill_folder(*node, false);
            }
            Fault::Unreadable { node, .. } => self.show_paths(*node),
            fault => self.spoil_network(fault, false),
        }
        Ok(())
    }

    /// Everything works again from now on.
    fn heal(&mut self) -> Result<(), Violation> {
        self.healed = true;
        self.note("heal", 0, &[], || "everything works again".into());
        let bad: Vec<ConnId> = self
            .conns
            .iter()
            .filter(|(_, c)| c.may_be_broken(&self.network))
            .map(|(id, _)| *id)
            .collect();
        self.network.heal();
        for node in &self.nodes {
            node.disk.limit(None);
            if node.replica.is_some() {
                node.disk.light_fuse(u64::MAX);
            }
        }
        for node in 0..self.nodes.len() {
            if self.nodes[node].rotten {
                self.replace_disk(node)?;
            }
        }
        for line in &mut self.edges {
            line.stays_connected();
        }
        self.heal_folders();
        self.heal_members();
        self.note_outsiders()?;
        // What could not be read before is looked at again, even if nothing else happens any more.
        for node in 0..self.nodes.len() {
            self.want_blobs(node);
            self.wake(node)?;
        }
        bad.into_iter().try_for_each(|conn| self.cut(conn))
    }

    fn go_down(&mut self, node: usize, down: Time, how: Return) -> Result<(), Violation> {
        let site = &mut self.nodes[node];
        // Whatever was under way is over, and its disk does not hear of that.
        site.doing.clear();
        if site.replica.take().is_none() {
            // It is down already and comes back when it would have.
            return Ok(());
        }
        self.note("down", node, &[], || "is down".into());
        self.drop_sessions(node);
        self.after(down, Event::Return { node, how });
        Ok(())
    }

    fn come_back(&mut self, number: usize, how: Return) -> Result<(), Violation> {
        if self.nodes[number].replica.is_some() {
            // Its disk was replaced meanwhile.
            return Ok(());
        }
        if let Return::Restored { marked } = how {
            let instance = marked.then(|| self.random_bytes());
            if self.nodes[number].disk.restore(&mut self.random, instance) {
                self.nodes[number].copied = true;
                // What its sessions said before, which may still be under way, holds no longer.
                self.sides_of(number).into_iter().for_each(|(id, _)| self.spoil(id));
                self.nodes[number].unnoticed |= !marked;
                self.forget_gone()?;
                // Its ticket is in the copy, if it was not known then that it had been redeemed.
                self.nodes[number].joining = self.tickets.contains_key(&number);
            }
        }
        if let Return::Rotten { bits } = how {
            for _ in 0..bits {
                self.nodes[number].disk.flip_bit(&mut self.random).map_err(setup_failed)?;
            }
            self.nodes[number].rotten = true;
        }
        self.note("up", number, &[], || format!("is back, {how:?}"));
        if self.nodes[number].rotten {
            return self.start_rotten(number);
        }
        judge_return(&self.nodes, number)?;
        let node = &mut self.nodes[number];
        let held = node.acknowledged.clone();
        let mut kept = Vec::with_capacity(held.len());
        for write in held {
            let there = node.look(|view| view.holds(&write.position)).map_err(setup_failed)?;
            if write.safe || there {
                kept.push(write);
            }
        }
        node.acknowledged = kept;
        let started = node.start();
        if let Err(e) = &started {
            if node.disk.is_dead() {
                // The power went once more.
                self.lose_power(number);
                self.after(SECOND, Event::Return { node: number, how: Return::AsItWas });
                return Ok(());
            }
            let text = format!("node {number} does not start: {e}");
            return Err(Check::Sound.failed(text));
        }
        if let Ok(false) = started {
            node.signing = true;
            let generation = node.generation;
            self.after(SECOND, Event::Sign { node: number, generation });
        }
        self.settle_node(number)
    }

    /// It may start or not; what it does then must harm nobody else (I5).
    fn start_rotten(&mut self, number: usize) -> Result<(), Violation> {
        if self.nodes[number].start().is_err() {
            self.note("lost", number, &[], || "does not start any more".into());
            return Ok(());
        }
        self.settle_node(number)
    }

    /// A user found out that bits have changed, and begins anew with nothing.
    fn replace_disk(&mut self, number: usize) -> Result<(), Violation> {
        self.nodes[number].disk.kill();
        self.nodes[number].doing.clear();
        self.nodes[number].replica = None;
        self.drop_sessions(number);
        // What its sessions said before holds no longer.
        self.sides_of(number).into_iter().for_each(|(id, _)| self.spoil(id));
        self.forget_gone()?;
        let instance = self.random_bytes();
        let node = &mut self.nodes[number];
        node.disk = Disk::new(instance);
        Replica::prepare(&*node.disk.open(), self.database).map_err(setup_failed)?;
        node.start().map_err(setup_failed)?;
        // Whatever it wrote meanwhile, its log may have been another than it thought.
        (node.rotten, node.copied, node.unnoticed) = (false, true, true);
        node.joining = self.tickets.contains_key(&number);
        self.note("replaced", number, &[], || "begins anew with nothing".into());
        self.settle_node(number)
    }

    /// An older copy was put back, or a damaged one thrown away: what was nowhere else is gone, and nobody can help it.
    fn forget_gone(&mut self) -> Result<(), Violation> {
        let sound = self.nodes.iter().filter(|node| !node.rotten);
        let contents: Vec<_> = sound.map(|node| node.disk.content()).collect();
        for node in &mut self.nodes {
            node.acknowledged.retain(|write| {
                contents.iter().any(|content| {
                    use anabranch_core::storage::Storage;
                    let Ok(tx) = content.read() else { return false };
                    let view = anabranch_core::view::View::new(&*tx);
                    view.holds(&write.position).unwrap_or(false)
                })
            });
        }
        Ok(())
    }

    fn clone_node(&mut self, original: usize, marked: bool) -> Result<(), Violation> {
        let number = self.nodes.len();
        let setup = &self.plan.nodes[original.min(self.plan.nodes.len() - 1)];
        let mut copy = node(setup, number, self.plan.seed, &self.clock);
        let instance =
            if marked { self.random_bytes() } else { self.nodes[original].disk.instance() };
        let environment = Arc::clone(&copy.surroundings) as Arc<dyn anabranch_node::Environment>;
        let source = &mut self.nodes[original];
        copy.device = Device::within(source.device.key().clone(), environment);
        copy.disk = source.disk.copy(instance);
        copy.options = source.options;
        copy.folder = source.folder.as_ref().map(|folder| folder.copy(&copy.surroundings));
        copy.joining = source.joining;
        (copy.stranger, copy.relay) = (source.stranger, source.relay);
        copy.rotten = source.rotten;
        copy.copied = true;
        source.copied = true;
        source.unnoticed |= !marked;
        copy.unnoticed = source.unnoticed;
        if let Some(ticket) = self.tickets.get(&original).cloned() {
            self.tickets.insert(number, ticket);
        }
        let rotten = copy.rotten;
        self.nodes.push(copy);
        if rotten {
            self.start_rotten(number)?;
        } else if !self.nodes[number].start().map_err(setup_failed)? {
            self.nodes[number].signing = true;
            self.after(SECOND, Event::Sign { node: number, generation: 1 });
        }
        // It talks to somebody else, so that both grow for a while before anybody sees both.
        let known = |n: &usize| *n != original && !self.nodes[*n].stranger;
        let others: Vec<usize> = (0..number).filter(known).collect();
        for _ in 0..2.min(others.len()) {
            let to = others[self.random.usize(..others.len())];
            let after = self.random.u64(..5 * SECOND);
            self.add_line(number, to, after);
        }
        Ok(())
    }

    fn random_bytes(&mut self) -> [u8; 32] {
        let mut bytes = [0; 32];
        self.random.fill(&mut bytes);
        bytes
    }
}

/// The first node founds the database and lets the others in.
fn found(
    plan: &Plan,
    nodes: &mut [Node],
) -> Result<(DatabaseId, BTreeMap<usize, DeviceKey>), NodeError> {
    let storage = nodes[0].disk.open();
    // Only there is the founder's folder looked at before it hears of anybody.
    // Of each kind of store there is one that is not sealed, but for those that hold content.
    let some = ["after", "b", "d", "files", "t0"].map(str::to_owned).to_vec();
    let sealed = match (plan.sealed, plan.partly) {
        (false, _) => Scope::Nothing,
        (true, false) => Scope::Everything,
        (true, true) => Scope::Stores(some),
    };
    let founding = Founding { sealed, recovery: None };
    let database = match nodes[0].folder {
        Some(_) => anabranch_folder::found(&*storage, &nodes[0].device, founding)?,
        None => Replica::found_with(&*storage, &nodes[0].device, founding)?,
    };
    drop(storage);
    nodes[0].start()?;
    let mut tickets = BTreeMap::new();
    let mut members = Vec::new();
    for (number, setup) in plan.nodes.iter().enumerate().skip(1) {
        let node = &nodes[number];
        Replica::prepare(&*node.disk.open(), database)?;
        let (subject, role) = match setup.entrance {
            Entrance::Granted(role) => (Subject::Device(node.device.id()), role),
            Entrance::Ticket(role) => {
                let ticket = DeviceKey::from_seed(&node.device.random()?);
                let subject = Subject::Ticket(ticket.node_id());
                tickets.insert(number, ticket);
                (subject, role)
            }
            Entrance::Stranger => {
                nodes[number].start()?;
                continue;
            }
        };
        members.push(MemberOp::Grant { subject, role, priority: 0, terms: TicketTerms::default() });
        nodes[number].start()?;
    }
    if let Some(replica) = &nodes[0].replica {
        replica.commit_group(&[vec![Draft { members, ..Draft::default() }]])?;
        replica.sign()?;
    }
    for (node, _) in nodes.iter().zip(&plan.nodes).filter(|(_, setup)| setup.lazy) {
        if let Some(replica) = &node.replica {
            replica.set_keep(None, anabranch_node::Keep::Lazy)?;
        }
    }
    // Who was let in by nothing that anybody holds stays out for ever.
    nodes[0].disk.forget_history();
    Ok((database, tickets))
}
