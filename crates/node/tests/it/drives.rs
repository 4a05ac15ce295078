//! Sessions driven by hand, so that what usually happens at once can happen in another order.

use anabranch_core::author::{Draft, Seen, Write};
use anabranch_core::blob::ChunkHash;
use anabranch_core::build::Budget;
use anabranch_core::entry::StoreId;
use anabranch_core::key::DeviceKey;
use anabranch_core::ops::{MemberOp, Role, Subject, TicketTerms};
use anabranch_core::path::Path;
use anabranch_core::storage::{Storage, StorageError};
use anabranch_core::view::View;
use anabranch_node::{
    Act, Bulk, Device, Drive, Job, Opening, Replica, ReplicaOptions, Task, Until,
};
use anabranch_store::MemoryStorage;
use anabranch_sync::channel::Direction;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

struct Pair {
    replicas: [Arc<Replica>; 2],
    drives: [Drive; 2],
}

fn replica(device: &Device, make: impl FnOnce(&dyn Storage)) -> Arc<Replica> {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    make(&*storage);
    Replica::open(storage, None, device.clone(), ReplicaOptions::default()).unwrap()
}

fn path(key: &str) -> Path {
    Path::text([key]).unwrap()
}

pub(crate) fn row(key: &str, value: &str) -> Draft {
    let write = Write {
        store: StoreId::table("t"),
        path: path(key),
        value: Some(value.into()),
        seen: Seen::AtCommit,
        below: false,
        above: false,
    };
    Draft { writes: vec![write], ..Draft::default() }
}

impl Pair {
    /// Two replicas of one database on one device; the first dials.
    fn new() -> Self {
        Self::until(Until::Closed)
    }

    fn until(until: Until) -> Self {
        let device = Device::new(DeviceKey::from_seed(&[1; 32]));
        let one = replica(&device, |storage| _ = Replica::found(storage, &device).unwrap());
        let other = replica(&device, |storage| Replica::prepare(storage, one.database()).unwrap());
        Self::of(one, other, until)
    }

    fn put(&self, side: usize, value: &str) {
        self.replicas[side].commit_group(&[vec![row("k", value)]]).unwrap();
    }

    fn digest(&self, side: usize) -> Option<[u8; 32]> {
        self.replicas[side].read(|view| view.state_digest()).unwrap()
    }

    fn of(one: Arc<Replica>, other: Arc<Replica>, until: Until) -> Self {
        let opening =
            Opening { replica: Arc::clone(&one), direction: Direction::BOTH, ticket: None };
        let task = |openings: Vec<Opening>, served: &Arc<Replica>, until| Task {
            device: served.device().clone(),
            served: vec![Arc::clone(served)],
            openings,
            requests: BTreeMap::new(),
            until,
        };
        let drives = [
            Drive::new(task(vec![opening], &one, until), [7; 32], true),
            Drive::new(task(Vec::new(), &other, Until::Closed), [7; 32], false),
        ];
        Self { replicas: [one, other], drives }
    }

    /// Does at most so many things, one side and the other by turns.
    fn pump_at_most(&mut self, acts: usize) {
        for turn in 0..acts {
            let side = turn % 2;
            self.drives[side].look();
            match self.drives[side].poll() {
                Some(Act::Send(frame)) => self.drives[1 - side].receive(&frame),
                Some(Act::Work(job)) => self.drives[side].answer(job.perform()),
                None => {}
            }
        }
    }

    /// Goes on until nothing moves, or until the second side is to do work that `held` names, which is returned.
    fn pump(&mut self, held: &str) -> Option<Job> {
        loop {
            let mut moved = false;
            for side in 0..2 {
                self.drives[side].look();
                while let Some(act) = self.drives[side].poll() {
                    moved = true;
                    match act {
                        Act::Send(frame) => self.drives[1 - side].receive(&frame),
                        Act::Work(job) if side == 1 && format!("{job:?}").contains(held) => {
                            return Some(job);
                        }
                        Act::Work(job) => self.drives[side].answer(job.perform()),
                    }
                }
            }
            if !moved {
                return None;
            }
        }
    }
}

/// The work is done, and nobody is left who would pass on that it was.
#[test]
fn entries_that_come_at_the_end_of_a_session_are_told_to_the_others() {
    let mut pair = Pair::new();
    let job = pair.pump("Apply").expect("a batch comes");
    let versions = pair.replicas[1].versions();
    pair.drives[1].link_ended();
    drop(job.perform());
    assert!(versions.has_changed().unwrap());
    assert_eq!(pair.replicas[1].read(|view| view.totals()).unwrap().entries, 1);
}

#[test]
fn a_blob_that_comes_at_the_end_of_a_session_is_told_to_the_others() {
    let mut pair = Pair::new();
    assert!(pair.pump("PutBlobs").is_none());
    let blob = b"a blob".to_vec();
    let hash = ChunkHash::of(&blob);
    pair.replicas[0].blobs().put(&[(hash, blob)]).unwrap();
    pair.replicas[1].want([hash]);
    let job = pair.pump("PutBlobs").expect("a blob comes");
    pair.drives[1].link_ended();
    drop(job.perform());
    assert_eq!(pair.replicas[1].lacking(), (0, 0));
}

/// A folder that asked in vain puts the file off until something happens. Somebody has to tell it that something did.
#[test]
fn who_gave_up_waiting_for_a_blob_hears_when_a_peer_has_it() {
    let mut pair = Pair::new();
    pair.replicas[1].attach_worker();
    assert!(pair.pump("nothing of the kind").is_none());
    let blob = b"a blob".to_vec();
    let hash = ChunkHash::of(&blob);
    pair.replicas[1].want([hash]);
    assert!(pair.pump("nothing of the kind").is_none());
    assert_eq!(pair.replicas[1].lacking(), (1, 1));
    pair.replicas[1].want([]);
    let mut versions = pair.replicas[1].versions();
    versions.mark_unchanged();
    pair.replicas[0].blobs().put(&[(hash, blob)]).unwrap();
    pair.replicas[0].blobs_arrived(&[hash]);
    assert!(pair.pump("nothing of the kind").is_none());
    assert!(versions.has_changed().unwrap());
}

/// Who may not read yet is told that nothing is there, and has to hear when that changes.
#[test]
fn who_proves_its_right_after_it_asked_for_a_blob_gets_it() {
    let [admin, newcomer] = [1, 2].map(|n| Device::new(DeviceKey::from_seed(&[n; 32])));
    let storage = Arc::new(MemoryStorage::new());
    Replica::found(&*storage, &admin).unwrap();
    let open = |storage: MemoryStorage, device: &Device| {
        Replica::open(Arc::new(storage), None, device.clone(), ReplicaOptions::default()).unwrap()
    };
    let blob = b"a blob".to_vec();
    let hash = ChunkHash::of(&blob);
    let behind = open(storage.fork([8; 32]), &admin);
    behind.blobs().put(&[(hash, blob)]).unwrap();
    let ahead = open(storage.fork([9; 32]), &admin);
    let grant = MemberOp::Grant {
        subject: Subject::Device(newcomer.id()),
        role: Role::Read,
        priority: 0,
        terms: TicketTerms::default(),
    };
    ahead.commit_group(&[vec![Draft { members: vec![grant], ..Draft::default() }]]).unwrap();
    // The newcomer has heard of it, the admin's other replica has not.
    let mut between = Pair::of(
        ahead,
        replica(&newcomer, |to| Replica::prepare(to, behind.database()).unwrap()),
        Until::Closed,
    );
    assert!(between.pump("nothing of the kind").is_none());
    let [_, member] = between.replicas;
    drop(between.drives);
    let mut pair = Pair::of(member, behind, Until::Closed);
    pair.replicas[0].attach_worker();
    pair.replicas[0].want([hash]);
    assert!(pair.pump("nothing of the kind").is_none());
    assert_eq!(pair.replicas[0].lacking(), (0, 0));
    assert!(pair.replicas[0].blobs().get(&hash).unwrap().is_some());
}

#[test]
fn what_a_peer_is_asked_for_and_never_answers_comes_from_another() {
    const PATIENCE: Duration = Duration::from_millis(300);
    let device = Device::new(DeviceKey::from_seed(&[1; 32]));
    let storage = Arc::new(MemoryStorage::new());
    Replica::found(&*storage, &device).unwrap();
    let open = |id: u8| {
        let options = ReplicaOptions { claim_timeout: PATIENCE, ..ReplicaOptions::default() };
        Replica::open(Arc::new(storage.fork([id; 32])), None, device.clone(), options).unwrap()
    };
    let lacking = open(5);
    let blob = b"a blob".to_vec();
    let hash = ChunkHash::of(&blob);
    let mut pairs = [6, 7].map(|id| Pair::of(open(id), Arc::clone(&lacking), Until::Closed));
    for pair in &mut pairs {
        pair.replicas[0].blobs().put(&[(hash, blob.clone())]).unwrap();
        assert!(pair.pump("nothing of the kind").is_none());
    }
    lacking.want([hash]);
    let [mute, other] = &mut pairs;
    mute.drives[1].look();
    while mute.drives[1].poll().is_some() {}
    assert!(other.pump("nothing of the kind").is_none());
    assert_eq!(lacking.lacking(), (1, 0), "one at a time");
    assert!(other.drives[1].wakes_in().is_some_and(|wait| wait <= PATIENCE));
    std::thread::sleep(PATIENCE);
    assert!(other.pump("nothing of the kind").is_none());
    assert_eq!(lacking.lacking(), (0, 0));
    assert_eq!(other.drives[1].wakes_in(), None);
}

/// A peer may be stopped at any moment, in good order. Then the other side must not say that all is done.
#[test]
fn whoever_is_left_early_does_not_think_that_all_is_done() {
    let mut done = 0;
    for acts in 0..60 {
        let mut pair = Pair::until(Until::Settled);
        pair.put(0, "here");
        // What one side writes meanwhile is under way when the other goes.
        pair.pump_at_most(acts / 2);
        pair.put(acts % 2, "meanwhile");
        pair.pump_at_most(acts - acts / 2);
        pair.drives[1].stop();
        while let Some(act) = pair.drives[1].poll() {
            if let Act::Send(frame) = act {
                pair.drives[0].receive(&frame);
            }
        }
        pair.drives[0].link_ended();
        while pair.drives[0].poll().is_some() {}
        if let Some(Ok(_)) = pair.drives[0].outcome() {
            assert_eq!(pair.digest(0), pair.digest(1), "after {acts}");
            done += 1;
        }
    }
    assert!(done > 0, "it is done at last");
}

/// Rows that take several batches, and a replica that is to load them in bulk.
fn bulk() -> Pair {
    let device = Device::new(DeviceKey::from_seed(&[1; 32]));
    let one = replica(&device, |storage| _ = Replica::found(storage, &device).unwrap());
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    Replica::prepare(&*storage, one.database()).unwrap();
    let bulk = Bulk { from: 10, entries: 200, stretch: Budget { bytes: 20_000, threads: 1 } };
    let options = ReplicaOptions { bulk, ..ReplicaOptions::default() };
    let other = Replica::open(storage, None, device, options).unwrap();
    let pair = Pair::of(one, other, Until::Closed);
    let mut noise = 1u64;
    for n in 0..600 {
        let value = std::iter::repeat_with(|| {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            char::from(b'!' + (noise >> 33) as u8 % 90)
        });
        let value: String = value.take(1_000).collect();
        pair.replicas[0].commit_group(&[vec![row(&format!("k{}", n % 500), &value)]]).unwrap();
    }
    pair
}

/// A replica that was opened anew after a bulk load was cut off.
pub(crate) fn cut_off_bulk_load() -> Arc<Replica> {
    let mut pair = bulk();
    for _ in 0..2 {
        let job = pair.pump("Apply").expect("a batch comes");
        pair.drives[1].answer(job.perform());
    }
    let device = pair.replicas[1].device().clone();
    let storage = Arc::clone(pair.replicas[1].storage());
    drop(pair);
    Replica::open(storage, None, device, ReplicaOptions::default()).unwrap()
}

fn live(view: View<'_>) -> Result<u64, StorageError> {
    Ok(view.stores()?.iter().filter(|s| s.id == StoreId::table("t")).map(|s| s.live).sum())
}

#[test]
fn who_reads_or_writes_during_a_bulk_load_waits_for_what_has_come() {
    let mut pair = bulk();
    let mut job = pair.pump("Apply").expect("a batch comes");
    let loading = Arc::clone(&pair.replicas[1]);
    let mut seen = 0;
    for batch in 0.. {
        pair.drives[1].answer(job.perform());
        if batch == 1 {
            let ahead = loading.look(|view| view.building()).unwrap();
            assert!(ahead.is_some_and(|left| left > 0), "{ahead:?}");
            assert!(matches!(loading.look(live), Err(StorageError::Building)));
            seen = loading.read(live).unwrap();
            assert!(seen > 100, "{seen} rows of what came");
            assert_eq!(loading.look(|view| view.building()).unwrap(), None);
        }
        if batch == 2 {
            assert!(loading.look(|view| view.building()).unwrap().is_some());
            pair.put(1, "written meanwhile");
            assert_eq!(loading.look(live).unwrap(), loading.read(live).unwrap());
            assert!(loading.read(live).unwrap() > seen);
        }
        match pair.pump("Apply") {
            Some(next) => job = next,
            None => break,
        }
    }
    assert_eq!(loading.read(live).unwrap(), 501);
    assert_eq!(pair.digest(0), pair.digest(1));
    pair.put(0, "live");
    let job = pair.pump("Apply").expect("a batch comes");
    pair.drives[1].answer(job.perform());
    assert_eq!(loading.look(|view| view.building()).unwrap(), None, "one entry is no bulk load");
}

#[test]
fn a_bulk_load_is_built_without_anybody_asking() {
    let mut pair = bulk();
    let job = pair.pump("Apply").expect("a batch comes");
    pair.drives[1].answer(job.perform());
    assert!(pair.replicas[1].look(|view| view.building()).unwrap().is_some());
    assert!(pair.pump("nothing of the kind").is_none());
    assert_eq!(pair.replicas[1].look(|view| view.building()).unwrap(), None);
    assert_eq!(pair.replicas[1].look(live).unwrap(), 500);
}

#[test]
fn a_bulk_load_that_was_cut_off_is_made_good_by_whoever_comes() {
    for writes in [false, true] {
        let again = cut_off_bulk_load();
        assert!(again.look(|view| view.building()).unwrap().is_some());
        if writes {
            let committed = again.commit_group(&[vec![row("k0", "new")]]).unwrap();
            assert!(committed[0].is_ok());
            let values = again.look(|view| view.cell(&StoreId::table("t"), &path("k0"))).unwrap();
            assert_eq!(values.len(), 1, "it replaced what was there");
        } else {
            assert!(again.read(live).unwrap() > 100);
        }
    }
}

/// So that those above test what they say.
#[test]
fn a_session_driven_by_hand_is_a_session() {
    let mut pair = Pair::new();
    pair.put(0, "v");
    assert!(pair.pump("nothing of the kind").is_none());
    assert_eq!(pair.digest(0), pair.digest(1));
}
