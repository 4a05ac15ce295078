//! Several peers that have the same: what one brings is not sent by the others, and what one fails to bring is. Real
//! sessions on a clock of the test's own, so that time-outs take no time and what overtakes what is the same each time.

use crate::drives::row;
use anabranch_core::author::Draft;
use anabranch_core::build::Budget;
use anabranch_core::entry::Timestamp;
use anabranch_core::key::DeviceKey;
use anabranch_core::ops::{MemberOp, Role, Subject, TicketTerms};
use anabranch_core::storage::Storage;
use anabranch_node::{
    Act, Bulk, Device, Drive, Environment, Job, NodeError, Opening, Replica, ReplicaOptions, Task,
    Until,
};
use anabranch_store::MemoryStorage;
use anabranch_sync::channel::{CREDIT, Direction};
use anabranch_sync::frame::{DATA_BYTES, Frame};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(10);
const LATENCY: u64 = 1_000;

/// Microseconds, for all nodes of a test.
#[derive(Debug, Default)]
struct Clock(AtomicU64);

impl Clock {
    fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Environment for Clock {
    fn now(&self) -> Timestamp {
        Timestamp(1_790_000_000_000_000 + self.now())
    }

    fn steady(&self) -> Duration {
        Duration::from_micros(self.now())
    }

    fn fill(&self, bytes: &mut [u8]) -> Result<(), NodeError> {
        anabranch_node::System.fill(bytes)
    }
}

#[derive(Debug)]
enum Event {
    Frame(usize, usize, Vec<u8>),
    Work(usize, usize, Box<Job>),
    Look(usize, usize),
}

/// What one side of a link does that no honest one does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// After so many batches nothing leaves it any more.
    Stalls(usize),
    /// It says everything and sends no batch.
    Lies,
}

struct End {
    node: usize,
    drive: Option<Drive>,
    fault: Fault,
    batches: usize,
    /// Bytes that came.
    bytes: usize,
    woken: Option<u64>,
}

struct Mesh {
    clock: Arc<Clock>,
    replicas: Vec<Arc<Replica>>,
    links: Vec<[End; 2]>,
    queue: BTreeMap<(u64, u64), Event>,
    events: u64,
}

fn device(clock: &Arc<Clock>, number: usize) -> Device {
    let key = DeviceKey::from_seed(&[number as u8 + 1; 32]);
    Device::within(key, Arc::clone(clock) as Arc<dyn Environment>)
}

fn options() -> ReplicaOptions {
    let bulk =
        Bulk { from: 1_000, entries: 10_000, stretch: Budget { bytes: 4 << 20, threads: 2 } };
    ReplicaOptions { claim_timeout: PATIENCE, bulk, ..ReplicaOptions::default() }
}

impl Mesh {
    /// `holders` replicas that hold the same entries, one for each of so many commits, and `empty` ones of further members.
    fn new(holders: usize, empty: usize, commits: usize) -> Self {
        let clock = Arc::new(Clock::default());
        let first = Arc::new(MemoryStorage::new());
        let founder = device(&clock, 0);
        let database = Replica::found(&*first, &founder).unwrap();
        let open = |storage: MemoryStorage, number: usize| {
            let storage: Arc<dyn Storage> = Arc::new(storage);
            Replica::open(storage, None, device(&clock, number), options()).unwrap()
        };
        let writer =
            Replica::open(Arc::clone(&first) as Arc<dyn Storage>, None, founder.clone(), options())
                .unwrap();
        let grant = |number| MemberOp::Grant {
            subject: Subject::Device(device(&clock, number).id()),
            role: Role::Write,
            priority: 0,
            terms: TicketTerms::default(),
        };
        let members = (1..holders + empty).map(grant).collect();
        writer.commit_group(&[vec![Draft { members, ..Draft::default() }]]).unwrap();
        let drafts: Vec<Vec<Draft>> =
            (0..commits).map(|n| vec![row(&format!("k{}", n % 1_000), &noise(n))]).collect();
        for group in drafts.chunks(200) {
            writer.commit_group(group).unwrap();
        }
        let mut replicas = vec![writer];
        for number in 1..holders {
            replicas.push(open(first.fork([number as u8; 32]), number));
        }
        for number in holders..holders + empty {
            let storage = MemoryStorage::new();
            Replica::prepare(&storage, database).unwrap();
            replicas.push(open(storage, number));
        }
        Self { clock, replicas, links: Vec::new(), queue: BTreeMap::new(), events: 0 }
    }

    fn link(&mut self, a: usize, b: usize, fault: Fault) {
        let task = |node: usize, opens: bool| {
            let replica = Arc::clone(&self.replicas[node]);
            let opening =
                Opening { replica: Arc::clone(&replica), direction: Direction::BOTH, ticket: None };
            Task {
                device: replica.device().clone(),
                served: vec![replica],
                openings: if opens { vec![opening] } else { Vec::new() },
                requests: BTreeMap::new(),
                until: Until::Closed,
            }
        };
        let binding = [self.links.len() as u8; 32];
        let end = |node, initiator, fault| End {
            node,
            drive: Some(Drive::new(task(node, initiator), binding, initiator)),
            fault,
            batches: 0,
            bytes: 0,
            woken: None,
        };
        let link = [end(a, true, Fault::None), end(b, false, fault)];
        self.links.push(link);
        let number = self.links.len() - 1;
        self.pump(number, 0);
        self.pump(number, 1);
    }

    /// The process of `node` is gone.
    fn kill(&mut self, node: usize) {
        let gone: Vec<usize> = (0..self.links.len())
            .filter(|l| self.links[*l].iter().any(|e| e.node == node))
            .collect();
        for link in gone {
            self.links[link].iter_mut().for_each(|end| end.drive = None);
        }
        (0..self.replicas.len()).for_each(|node| self.look(node));
    }

    fn after(&mut self, delay: u64, event: Event) {
        self.events += 1;
        self.queue.insert((self.clock.now() + delay, self.events), event);
    }

    fn pump(&mut self, link: usize, side: usize) {
        loop {
            let end = &mut self.links[link][side];
            let Some(act) = end.drive.as_mut().and_then(Drive::poll) else { break };
            match act {
                Act::Send(bytes) => {
                    let batch = matches!(Frame::decode(&bytes), Ok(Frame::Batch { .. }));
                    end.batches += usize::from(batch);
                    let lost = match end.fault {
                        Fault::None => false,
                        Fault::Stalls(after) => end.batches > after,
                        Fault::Lies => batch,
                    };
                    if lost {
                        continue;
                    }
                    self.after(LATENCY, Event::Frame(link, 1 - side, bytes));
                }
                Act::Work(job) => self.after(100, Event::Work(link, side, Box::new(job))),
            }
        }
        let end = &mut self.links[link][side];
        let Some(wait) = end.drive.as_ref().and_then(Drive::wakes_in) else { return };
        let at = self.clock.now() + wait.as_micros() as u64;
        if end.woken.is_none_or(|woken| woken > at || woken <= self.clock.now()) {
            end.woken = Some(at);
            self.after(wait.as_micros() as u64, Event::Look(link, side));
        }
    }

    /// The sessions of a node look whether something changed.
    fn look(&mut self, node: usize) {
        for link in 0..self.links.len() {
            for side in 0..2 {
                if self.links[link][side].node == node
                    && let Some(drive) = &mut self.links[link][side].drive
                {
                    drive.look();
                    self.pump(link, side);
                }
            }
        }
    }

    fn step(&mut self) -> bool {
        let Some(((time, _), event)) = self.queue.pop_first() else { return false };
        self.clock.0.store(time, Ordering::Relaxed);
        let (link, side) = match event {
            Event::Frame(link, side, bytes) => {
                if let Some(drive) = &mut self.links[link][side].drive {
                    drive.receive(&bytes);
                    self.links[link][side].bytes += bytes.len();
                }
                (link, side)
            }
            Event::Work(link, side, job) => {
                let done = job.perform();
                if let Some(drive) = &mut self.links[link][side].drive {
                    drive.answer(done);
                }
                (link, side)
            }
            Event::Look(link, side) => (link, side),
        };
        self.pump(link, side);
        self.look(self.links[link][side].node);
        true
    }

    /// Goes on until nothing moves any more; returns the seconds that took.
    fn settle(&mut self) -> f64 {
        self.settle_or(|_| false)
    }

    fn settle_or(&mut self, done: impl Fn(&Self) -> bool) -> f64 {
        let begun = self.clock.now();
        let mut steps = 0;
        while !done(self) && self.step() {
            steps += 1;
            assert!(steps < 5_000_000, "it never comes to rest");
        }
        (self.clock.now() - begun) as f64 / 1e6
    }

    fn entries(&self, node: usize) -> u64 {
        self.replicas[node].look(|view| view.totals()).unwrap().entries
    }

    fn frontier(&self, node: usize) -> [u8; 32] {
        self.replicas[node].look(|view| view.frontier_digest()).unwrap()
    }

    fn assert_equal(&self, nodes: impl IntoIterator<Item = usize>) {
        for node in nodes {
            assert_eq!(self.frontier(node), self.frontier(0), "node {node}");
            let state = |node: usize| self.replicas[node].read(|view| view.state_digest()).unwrap();
            assert_eq!(state(node), state(0), "node {node}");
        }
    }

    /// Bytes that came to `node`.
    fn came_to(&self, node: usize) -> usize {
        self.links.iter().flatten().filter(|end| end.node == node).map(|end| end.bytes).sum()
    }

    fn is_settled(&self) -> bool {
        let mut drives = self.links.iter().flatten().filter_map(|end| end.drive.as_ref());
        drives.all(|drive| drive.progress().settled)
    }

    fn again(&self) -> u64 {
        let drives = self.links.iter().flatten().filter_map(|end| end.drive.as_ref());
        drives.map(|drive| drive.progress().entries_again).sum()
    }

    fn received(&self) -> u64 {
        let drives = self.links.iter().flatten().filter_map(|end| end.drive.as_ref());
        drives.map(|drive| drive.progress().entries_received).sum()
    }

    fn write(&mut self, node: usize, value: usize) {
        self.replicas[node].commit_group(&[vec![row("live", &noise(value))]]).unwrap();
        self.look(node);
    }
}

fn noise(seed: usize) -> String {
    let mut state = (seed as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(b'!' + (state >> 33) as u8 % 90)
    };
    (0..40).map(next).collect()
}

const ENTRIES: usize = 10_000;
/// What may be under way when a peer is lost.
const UNDER_WAY: usize = (CREDIT as usize) + DATA_BYTES;

/// Bytes that catching up takes from one peer alone.
fn from_one(entries: usize) -> usize {
    let mut mesh = Mesh::new(1, 1, entries);
    mesh.link(1, 0, Fault::None);
    mesh.settle();
    mesh.assert_equal([1]);
    mesh.came_to(1)
}

#[test]
fn who_catches_up_from_three_at_once_gets_each_entry_once() {
    let entries = 100_000;
    let mut mesh = Mesh::new(3, 2, entries);
    mesh.link(4, 0, Fault::None);
    mesh.settle_or(Mesh::is_settled);
    mesh.assert_equal([4]);
    let one = mesh.came_to(4);
    mesh.kill(4);
    (0..3).for_each(|peer| mesh.link(3, peer, Fault::None));
    let seconds = mesh.settle_or(Mesh::is_settled);
    mesh.assert_equal([3]);
    let bytes = mesh.came_to(3);
    assert_eq!(mesh.again(), 0);
    assert!(bytes as f64 <= 1.1 * one as f64, "{bytes} bytes from three, {one} from one");
    assert!(seconds < 1.0, "{seconds} s");
}

#[test]
fn a_peer_that_stalls_is_passed_over() {
    let one = from_one(ENTRIES);
    for fault in [Fault::Stalls(0), Fault::Stalls(5), Fault::Lies] {
        let mut mesh = Mesh::new(3, 1, ENTRIES);
        mesh.link(3, 0, fault);
        mesh.link(3, 1, Fault::None);
        mesh.link(3, 2, Fault::None);
        let whole = mesh.entries(0);
        let seconds = mesh.settle_or(|mesh| mesh.entries(3) == whole);
        assert_eq!(mesh.entries(3), whole, "{fault:?}");
        assert!(seconds < PATIENCE.as_secs_f64() + 5.0, "{fault:?}: {seconds} s");
        mesh.settle();
        mesh.assert_equal([3]);
        let bytes = mesh.came_to(3);
        assert!(bytes as f64 <= 1.1 * one as f64, "{fault:?}: {bytes} bytes, {one} from one");
    }
}

#[test]
fn when_a_peer_is_killed_another_goes_on_at_once() {
    let mut mesh = Mesh::new(3, 1, ENTRIES);
    (0..3).for_each(|peer| mesh.link(3, peer, Fault::None));
    mesh.settle_or(|mesh| mesh.entries(3) > ENTRIES as u64 / 3);
    mesh.kill(0);
    let seconds = mesh.settle_or(Mesh::is_settled);
    mesh.assert_equal([3]);
    let (bytes, one) = (mesh.came_to(3), from_one(ENTRIES));
    assert!(bytes <= one + one / 10 + UNDER_WAY, "{bytes} bytes, {one} from one");
    assert_eq!(mesh.again(), 0);
    assert!(seconds < 1.0, "{seconds} s");
}

fn full_mesh(nodes: usize) -> Mesh {
    let mut mesh = Mesh::new(nodes, 0, 10);
    for a in 0..nodes {
        for b in a + 1..nodes {
            mesh.link(a, b, Fault::None);
        }
    }
    mesh.settle();
    mesh
}

#[test]
fn a_live_commit_comes_to_each_of_a_full_mesh_about_once() {
    let mut mesh = full_mesh(5);
    let mut slowest = 0.0_f64;
    for round in 0..50 {
        for node in 0..5 {
            let before = mesh.entries(0);
            mesh.write(node, round * 5 + node);
            let there = |mesh: &Mesh| (0..5).all(|node| mesh.entries(node) > before);
            slowest = slowest.max(mesh.settle_or(there));
            mesh.settle();
        }
    }
    mesh.assert_equal(1..5);
    let (received, again) = (mesh.received(), mesh.again());
    assert_eq!(received, 250 * 4);
    assert!(again <= 5 * 4 * 3, "{again} of {received} came twice");
    // Nothing waits for a word first: one hop, and the storage work at both ends.
    assert!(slowest <= 0.003, "{slowest} s");
}

#[test]
fn who_is_lost_from_a_mesh_takes_nothing_along() {
    let mut mesh = full_mesh(5);
    for round in 0..10 {
        (0..5).for_each(|node| mesh.write(node, round * 5 + node));
        mesh.settle();
    }
    // The first and the second hear of each other by the others from now on.
    mesh.links[0].iter_mut().for_each(|end| end.drive = None);
    (0..2).for_each(|node| mesh.look(node));
    mesh.settle();
    let before = mesh.entries(1);
    mesh.write(0, 1_000);
    let seconds = mesh.settle_or(|mesh| mesh.entries(1) > before);
    assert!(seconds < 0.02, "{seconds} s");
    mesh.settle();
    mesh.assert_equal(1..5);
}

/// An offer that is not made good by whoever claims such entries is taken.
#[test]
fn a_live_commit_whose_bringer_stalls_comes_from_another() {
    let mut mesh = full_mesh(3);
    for round in 0..10 {
        (0..3).for_each(|node| mesh.write(node, round * 3 + node));
        mesh.settle();
    }
    // What the first sends to the second gets lost from now on, and nobody notices.
    mesh.links[0][0].fault = Fault::Stalls(0);
    mesh.links[0][0].batches = 1;
    let before = mesh.entries(1);
    mesh.write(0, 1_000);
    let seconds = mesh.settle_or(|mesh| mesh.entries(1) > before);
    assert!(mesh.entries(1) > before, "it came");
    assert!(seconds < PATIENCE.as_secs_f64() + 1.0, "{seconds} s");
    let next = mesh.entries(1);
    mesh.write(0, 1_001);
    let seconds = mesh.settle_or(|mesh| mesh.entries(1) > next);
    assert!(seconds < 0.02, "{seconds} s: the other one goes on bringing them");
}
