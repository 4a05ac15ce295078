use crate::watched::Watched;
use anabranch_core::author::{Draft, Seen, Write};
use anabranch_core::entry::StoreId;
use anabranch_core::key::DeviceKey;
use anabranch_core::ops::Role;
use anabranch_core::path::Path;
use anabranch_core::storage::{Durability, Storage};
use anabranch_node::{Control, Device, Node, Offer, Opening, Replica, ReplicaOptions, Until};
use anabranch_sync::channel::Direction;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

fn draft(key: &str, value: &[u8]) -> Draft {
    let write = Write {
        store: StoreId::table("t"),
        path: Path::text([key]).unwrap(),
        value: Some(value.to_vec()),
        seen: Seen::AtCommit,
        below: false,
        above: false,
    };
    Draft { writes: vec![write], ..Draft::default() }
}

fn replica(durability: Durability, device: &Device) -> (Arc<Watched>, Arc<Replica>) {
    let storage = Arc::new(Watched::default());
    Replica::found(&*storage, device).unwrap();
    let options = ReplicaOptions { durability, ..ReplicaOptions::default() };
    let shared = Arc::clone(&storage) as Arc<dyn Storage>;
    (storage, Replica::open(shared, None, device.clone(), options).unwrap())
}

fn device(seed: u8) -> Device {
    Device::new(DeviceKey::from_seed(&[seed; 32]))
}

/// I1: under either setting, what peers may be told changes only in fully durable transactions.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_told_that_a_power_loss_could_take() {
    for durability in [Durability::Full, Durability::Normal] {
        let node = Node::in_memory().unwrap();
        let (storage, one) = replica(durability, node.device());
        let (other_storage, other) = {
            let storage = Arc::new(Watched::default());
            Replica::prepare(&*storage, one.database()).unwrap();
            let options = ReplicaOptions { durability, ..ReplicaOptions::default() };
            let shared = Arc::clone(&storage) as Arc<dyn Storage>;
            (storage, Replica::open(shared, None, node.device().clone(), options).unwrap())
        };
        for i in 0..20 {
            one.commit(vec![draft(&format!("k{i}"), b"v")]).await.unwrap();
        }
        // Under normal durability the signature follows by itself.
        let mut versions = one.versions();
        while one.read(|v| v.frontier()).unwrap().positions().next().unwrap().seq < 21 {
            versions.changed().await.unwrap();
        }
        let opening =
            Opening { replica: Arc::clone(&one), direction: Direction::BOTH, ticket: None };
        node.sync_local(opening, Arc::clone(&other), Until::Settled, &Control::default())
            .await
            .unwrap();
        assert_eq!(
            one.read(|v| v.state_digest()).unwrap(),
            other.read(|v| v.state_digest()).unwrap()
        );
        for commit in storage.commits().into_iter().chain(other_storage.commits()) {
            assert!(!commit.told_more || commit.durability == Durability::Full, "{commit:?}");
        }
        let normal = storage.commits().iter().any(|c| c.durability == Durability::Normal);
        assert_eq!(normal, durability == Durability::Normal, "the setting has an effect");
    }
}

async fn comes_to_be_signed(replica: &Arc<Replica>) {
    let signed = async {
        while replica.read(|v| v.unsigned()).unwrap() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), signed).await.unwrap();
}

/// Nobody writes again, and still peers get to hear of it once there is room on the disk.
#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_signed_is_signed_later() {
    let (storage, replica) = replica(Durability::Normal, &device(1));
    storage.full.store(2, Ordering::SeqCst);
    replica.commit(vec![draft("k", b"v")]).await.unwrap();
    comes_to_be_signed(&replica).await;
    assert_eq!(storage.full.load(Ordering::SeqCst), 0);
}

/// Likewise where it was another process that wrote.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_left_unsigned_is_signed_once_that_can_be_done() {
    let node = Node::in_memory().unwrap();
    let (storage, one) = replica(Durability::Normal, node.device());
    one.commit_group(&[vec![draft("k", b"v")]]).unwrap();
    storage.full.store(2, Ordering::SeqCst);
    let options = ReplicaOptions { durability: Durability::Normal, ..ReplicaOptions::default() };
    let again = Arc::clone(&storage) as Arc<dyn Storage>;
    let again = Replica::open(again, None, node.device().clone(), options).unwrap();
    assert_eq!(again.read(|v| v.unsigned()).unwrap(), 1);
    let other = Arc::new(Watched::default());
    Replica::prepare(&*other, one.database()).unwrap();
    let other = Replica::open(other, None, node.device().clone(), options).unwrap();
    let opening = Opening { replica: Arc::clone(&again), direction: Direction::BOTH, ticket: None };
    node.sync_local(opening, other, Until::Settled, &Control::default()).await.unwrap();
    comes_to_be_signed(&again).await;
}

/// I1: where so much is written that a signature is due before its time, that one is synced as well.
#[test]
fn what_is_signed_before_its_time_is_synced() {
    let (storage, replica) = replica(Durability::Normal, &device(1));
    let small = |n: u32| draft(&format!("k{n}"), b"v");
    replica.commit_group(&[(0..600).map(small).collect()]).unwrap();
    for n in 0..600 {
        replica.commit_blocking(vec![small(n)]).unwrap();
    }
    let large = vec![7; 15_000];
    for n in 0..40 {
        replica.commit_blocking(vec![draft(&format!("k{n}"), &large)]).unwrap();
    }
    assert_eq!(replica.read(|v| v.totals()).unwrap().entries, 1_241);
    assert!(storage.commits().iter().any(|commit| commit.told_more));
    for commit in storage.commits() {
        assert!(!commit.told_more || commit.durability == Durability::Full, "{commit:?}");
    }
}

/// Who is given a ticket may present it at once, also where signatures are put off.
#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_is_known_to_whoever_reads_when_it_is_handed_out() {
    let node = Node::in_memory().unwrap();
    let (_storage, replica) = replica(Durability::Normal, node.device());
    let offer = Offer {
        role: Role::Write,
        addresses: Vec::new(),
        limit: None,
        expires: None,
        folder: false,
        name: String::new(),
    };
    for _ in 0..20 {
        node.ticket(&replica, &offer).await.unwrap();
        assert_eq!(replica.read(|v| v.unsigned()).unwrap(), 0);
    }
}

/// A thread that commits is not handed over to another, unless it would be held up: by a sync, by much to write, or by whoever
/// was first.
#[test]
fn a_small_commit_goes_past_the_writing_thread() {
    let here = std::thread::current().id();
    let cases = [
        (Durability::Normal, 40, true),
        (Durability::Normal, 100_000, false),
        (Durability::Full, 40, false),
    ];
    for (durability, size, past) in cases {
        let (storage, replica) = replica(durability, &device(1));
        let before = storage.commits().len();
        replica.commit_blocking(vec![draft("k", &vec![1; size])]).unwrap();
        let commit = storage.commits()[before];
        assert_eq!((commit.durability, commit.here == here), (durability, past), "{size} bytes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_writers_share_transactions() {
    let (storage, replica) = replica(Durability::Full, &device(1));
    let before = storage.commits().len();
    let mut writers = tokio::task::JoinSet::new();
    for i in 0..200 {
        let replica = Arc::clone(&replica);
        writers.spawn(async move { replica.commit(vec![draft(&format!("{i}"), b"v")]).await });
    }
    while let Some(result) = writers.join_next().await {
        assert!(result.unwrap().unwrap()[0].is_some());
    }
    assert!(storage.commits().len() - before < 100, "{}", storage.commits().len() - before);
    assert_eq!(replica.read(|v| v.totals()).unwrap().entries, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_writers_bad_draft_does_not_fail_another() {
    let (_, replica) = replica(Durability::Full, &device(1));
    let large = vec![0; 300_000];
    let (bad, good) = tokio::join!(
        replica.commit(vec![draft("large", &large)]),
        replica.commit(vec![draft("small", b"v")])
    );
    assert!(bad.unwrap_err().to_string().contains("limit"));
    assert!(good.unwrap()[0].is_some());
    assert_eq!(replica.read(|v| v.totals()).unwrap().entries, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_wait_while_somebody_holds_a_replica() {
    let node = Node::in_memory().unwrap();
    let (_, one) = replica(Durability::Full, node.device());
    let storage = Arc::new(Watched::default());
    Replica::prepare(&*storage, one.database()).unwrap();
    let shared = Arc::clone(&storage) as Arc<dyn Storage>;
    let other =
        Replica::open(shared, None, node.device().clone(), ReplicaOptions::default()).unwrap();
    let hold = other.hold();
    let opening = Opening { replica: Arc::clone(&one), direction: Direction::BOTH, ticket: None };
    let (syncing, there) = (Arc::clone(&node), Arc::clone(&other));
    let mut sync = tokio::spawn(async move {
        syncing.sync_local(opening, there, Until::Settled, &Control::default()).await
    });
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut sync).await.is_err());
    drop(hold);
    tokio::time::timeout(Duration::from_secs(10), sync).await.unwrap().unwrap().unwrap();
}
