//! The background engine: what it does without being asked, and what it says when it cannot.

use crate::drives::{self, row};
use crate::watched::Watched;
use anabranch_core::entry::Timestamp;
use anabranch_core::id::DatabaseId;
use anabranch_core::key::DeviceKey;
use anabranch_core::ops::Role;
use anabranch_core::storage::Storage;
use anabranch_core::ticket::Ticket;
use anabranch_node::config::Settings;
use anabranch_node::{
    Device, Environment, Fate, Intent, Kept, Node, NodeError, Offer, Record, Replica,
    ReplicaOptions, Replicas, Standing, State, SyncHandle, System, Target, Why,
};
use anabranch_sync::frame::{Code, Frame};
use anabranch_transport::Address;
use std::net::TcpListener;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;

/// Settings with short waits, and these.
fn settings(own: &[(&str, &str)]) -> Settings {
    Settings::load(|key| {
        let quick = [("net.retry_min", "20ms"), ("net.retry_max", "100ms")];
        let found = own.iter().chain(&quick).find(|(name, _)| *name == key);
        found.map(|(_, value)| (*value).to_owned())
    })
    .unwrap()
}

pub(crate) fn node(seed: u8, own: &[(&str, &str)]) -> Arc<Node> {
    let device = Device::new(DeviceKey::from_seed(&[seed; 32]));
    Node::in_memory_as(device, settings(own)).unwrap()
}

/// Serves replicas until dropped.
pub(crate) struct Served {
    pub(crate) address: String,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Served {
    pub(crate) async fn start(node: &Arc<Node>, replicas: &[&Arc<Replica>], listen: &str) -> Self {
        let listener = node.listen(listen.parse().unwrap()).await.unwrap();
        let address = Address::of_listener(listener.local_addr()).to_string();
        let (stop, stopped) = watch::channel(false);
        let replicas = replicas.iter().map(|replica| Arc::clone(replica)).collect();
        let node = Arc::clone(node);
        let task = tokio::spawn(async move { node.serve(listener, replicas, stopped).await });
        Self { address, stop, task }
    }

    pub(crate) async fn end(self) {
        self.stop.send_replace(true);
        self.task.await.unwrap();
    }
}

pub(crate) async fn ticket(
    node: &Node,
    replica: &Replica,
    address: &str,
    expires: Duration,
) -> Ticket {
    let offer = Offer {
        role: Role::Write,
        addresses: vec![address.to_owned()],
        limit: None,
        expires: Some(expires),
        folder: false,
        name: String::new(),
    };
    node.ticket(replica, &offer).await.unwrap()
}

const HOUR: Duration = Duration::from_secs(3600);

/// A node that founded a database and serves it, and another one that joined it.
pub(crate) async fn pair(other: &Arc<Node>) -> (Arc<Node>, Arc<Replica>, Served, Arc<Replica>) {
    let one = node(1, &[]);
    let replica = one.create("notes").unwrap();
    let served = Served::start(&one, &[&replica], "0").await;
    let ticket = ticket(&one, &replica, &served.address, HOUR).await;
    let copy = other.prepare(&ticket, "notes").unwrap();
    other.join(&copy, &ticket, &Default::default()).await.unwrap();
    (one, replica, served, copy)
}

pub(crate) fn target(replica: &Arc<Replica>, address: &str) -> Target {
    Target::new(Arc::clone(replica), "notes", &Intent::new(address))
}

/// Waits until it has a reason with this code, and returns the sentence.
pub(crate) async fn reason(handle: &mut SyncHandle, code: &str) -> String {
    let said = async {
        loop {
            let standing = handle.standing();
            if let Some(why) = standing.reasons().iter().find(|why| why.code() == code) {
                return why.to_string();
            }
            let _ = tokio::time::timeout(Duration::from_millis(50), handle.changed()).await;
        }
    };
    match tokio::time::timeout(Duration::from_secs(20), said).await {
        Ok(text) => text,
        Err(_) => panic!("no '{code}': {:?}", handle.standing()),
    }
}

pub(crate) async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let came = async {
        while !is() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(20), came).await.is_ok(), "{what}");
}

pub(crate) fn rows(replica: &Replica) -> u64 {
    replica.look(|view| view.totals()).unwrap().entries
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_either_side_commits_reaches_the_other_and_a_lost_peer_is_found_again() {
    let other = node(2, &[]);
    let (one, replica, served, copy) = pair(&other).await;
    let mut handle = other.keep(target(&copy, &served.address));
    let standing = handle.in_step().await.unwrap();
    assert_eq!(standing.device, Some(one.id()));
    assert!(standing.reasons().is_empty() && standing.last_success.is_some());
    assert_eq!(one.visitors()[0].progress.peer, Some(other.id()));
    replica.commit(vec![row("a", "1")]).await.unwrap();
    copy.commit(vec![row("b", "2")]).await.unwrap();
    until("both have both", || rows(&replica) == rows(&copy) && rows(&copy) == 5).await;
    // It was there a moment ago.
    let address = served.address.clone();
    served.end().await;
    let text = reason(&mut handle, "offline").await;
    assert!(text.contains("offline") && text.contains("tried again by itself"), "{text}");
    until("it says where it was looked for", || {
        handle.standing().reasons().iter().any(|why| why.to_string().contains(&address))
    })
    .await;
    copy.commit(vec![row("c", "3")]).await.unwrap();
    let port = address.rsplit(':').next().unwrap().to_owned();
    let served = Served::start(&one, &[&replica], &port).await;
    until("it came back by itself", || rows(&replica) == 6).await;
    handle.stop().await;
    served.end().await;
    assert!(other.standings().is_empty());
}

#[tokio::test]
async fn an_address_at_which_nobody_ever_was_is_named() {
    let other = node(2, &[]);
    let replica = other.create("notes").unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut handle = other.keep(target(&replica, &format!("http://{free}")));
    let text = reason(&mut handle, "no-address").await;
    assert!(text.starts_with("no address works") && text.contains(&free.to_string()), "{text}");
    assert!(text.contains("anabranch peers add"), "{text}");
    let mut none = target(&replica, "x");
    none.addresses.clear();
    let text = reason(&mut other.keep(none), "no-address").await;
    assert!(text.contains("none is known"), "{text}");
}

#[tokio::test]
async fn addresses_are_tried_in_the_order_of_what_worked() {
    let other = node(2, &[]);
    let (_one, _replica, served, copy) = pair(&other).await;
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut target = target(&copy, &format!("http://{free}"));
    target.addresses.push(served.address.clone());
    let mut handle = other.keep(target);
    let standing = handle.in_step().await.unwrap();
    assert_eq!(standing.addresses[0], served.address);
}

#[tokio::test]
async fn a_stranger_is_told_to_ask_for_a_ticket() {
    let one = node(1, &[]);
    let replica = one.create("notes").unwrap();
    let served = Served::start(&one, &[&replica], "0").await;
    let other = node(2, &[]);
    let mut ticket = ticket(&one, &replica, &served.address, HOUR).await;
    let copy = other.prepare(&ticket, "notes").unwrap();
    let mut handle = other.keep(target(&copy, &served.address));
    let text = reason(&mut handle, "not-a-member").await;
    assert!(text.contains("ask one of its admins for a ticket"), "{text}");
    assert_eq!(rows(&copy), 0);
    // Who serves sees who it was, and that it was refused.
    until("the stranger is named", || {
        one.troubles().iter().any(|t| t.device == Some(other.id()) && t.code == "not-a-member")
    })
    .await;
    assert!(
        one.troubles_counted().iter().any(|(code, times)| *code == "not-a-member" && *times > 0)
    );
    // Of a database that is not served it hears the same.
    ticket.database = DatabaseId([9; 32]);
    let third = other.prepare(&ticket, "third").unwrap();
    let mut handle = other.keep(target(&third, &served.address));
    assert_eq!(reason(&mut handle, "not-a-member").await, text);
}

#[tokio::test]
async fn a_ticket_that_is_not_good_any_more_is_named() {
    let one = node(1, &[]);
    let replica = one.create("notes").unwrap();
    let served = Served::start(&one, &[&replica], "0").await;
    let other = node(2, &[]);
    let ticket = ticket(&one, &replica, &served.address, Duration::ZERO).await;
    let copy = other.prepare(&ticket, "notes").unwrap();
    let mut joining = target(&copy, &served.address);
    joining.ticket = Some(ticket.key.seed());
    let text = reason(&mut other.keep(joining), "ticket").await;
    assert!(text.contains("the ticket's time is over; ask for a new one"), "{text}");
}

/// A clock that is off.
struct Skewed(i64);

impl Environment for Skewed {
    fn now(&self) -> Timestamp {
        Timestamp(System.now().0.saturating_add_signed(self.0))
    }

    fn steady(&self) -> Duration {
        System.steady()
    }

    fn fill(&self, bytes: &mut [u8]) -> Result<(), NodeError> {
        System.fill(bytes)
    }
}

#[tokio::test]
async fn clocks_that_are_apart_are_a_warning_and_no_obstacle() {
    let three_hours = 3 * 3600 * 1_000_000;
    let behind = Arc::new(Skewed(-three_hours));
    let device = Device::within(DeviceKey::from_seed(&[2; 32]), behind);
    let other = Node::in_memory_as(device, settings(&[])).unwrap();
    let (_one, _replica, served, copy) = pair(&other).await;
    let mut handle = other.keep(target(&copy, &served.address));
    handle.in_step().await.unwrap();
    let text = reason(&mut handle, "clocks-apart").await;
    assert!(text.starts_with("the peer's clock is 180 minutes ahead of this one"), "{text}");
    assert!(text.contains("set the one that is wrong"), "{text}");
    assert_eq!(handle.standing().state, State::InStep);
    // Whichever side greeted first.
    for moment in [-900_000, 900_000] {
        let text = Why::ClocksApart(moment - three_hours).to_string();
        assert!(text.starts_with("the peer's clock is 180 minutes behind this one"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_named_on_both_sides_and_goes_on_when_there_is_room() {
    let one = node(1, &[]);
    let replica = one.create("notes").unwrap();
    let served = Served::start(&one, &[&replica], "0").await;
    let other = node(2, &[]);
    let ticket = ticket(&one, &replica, &served.address, HOUR).await;
    let storage = Arc::new(Watched::default());
    Replica::prepare(&*storage, replica.database()).unwrap();
    let shared = Arc::clone(&storage) as Arc<dyn Storage>;
    let options = ReplicaOptions::default();
    let copy = Replica::open(shared, None, other.device().clone(), options).unwrap();
    other.join(&copy, &ticket, &Default::default()).await.unwrap();
    let mut handle = other.keep(target(&copy, &served.address));
    handle.in_step().await.unwrap();
    storage.full.store(u32::MAX, Ordering::SeqCst);
    replica.commit(vec![row("a", "1")]).await.unwrap();
    let text = reason(&mut handle, "disk-full").await;
    assert!(text.starts_with("the disk of this device is full; free some space"), "{text}");
    until("the peer says so too", || one.troubles().iter().any(|t| t.code == "disk-full")).await;
    storage.full.store(0, Ordering::SeqCst);
    until("it goes on by itself", || rows(&copy) == rows(&replica)).await;
    // The other way round.
    let served_too = Served::start(&other, &[&copy], "0").await;
    handle.stop().await;
    let mut handle = one.keep(target(&replica, &served_too.address));
    handle.in_step().await.unwrap();
    storage.full.store(u32::MAX, Ordering::SeqCst);
    replica.commit(vec![row("b", "2")]).await.unwrap();
    let text = reason(&mut handle, "disk-full").await;
    assert!(text.starts_with("the disk of the peer is full"), "{text}");
    storage.full.store(0, Ordering::SeqCst);
    until("it goes on by itself", || rows(&copy) == rows(&replica)).await;
}

#[tokio::test]
async fn a_peer_of_another_version_is_named() {
    let later = node(1, &[]);
    let listener = later.listen("0".parse().unwrap()).await.unwrap();
    let address = Address::of_listener(listener.local_addr()).to_string();
    let peer = Arc::clone(&later);
    tokio::spawn(async move {
        let mut listener = listener;
        while let Some(link) = listener.accept().await {
            let Ok(mut wire) = peer.secure(link, false).await else { continue };
            let hello = Frame::Hello { versions: (2, 3), node: peer.id(), clock: 0, features: 0 };
            let _ = wire.say(hello.encode()).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    let other = node(2, &[]);
    let replica = other.create("notes").unwrap();
    let text = reason(&mut other.keep(target(&replica, &address)), "version").await;
    assert!(text.contains("versions 2 to 3, the other 1; update the program"), "{text}");
}

#[tokio::test]
async fn cells_that_are_still_to_be_built_are_a_reason_to_wait() {
    let loading = drives::cut_off_bulk_load();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let other = node(2, &[]);
    let mut handle = other.keep(target(&loading, &format!("http://{free}")));
    let text = reason(&mut handle, "building").await;
    assert!(text.contains("entries that arrived are being put in place"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_that_are_reached_are_named_here_and_there() {
    // Here: one at a time, and the one that is in its turn does not get on.
    let other = node(2, &[("sync.catching_up", "1")]);
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let replica = other.create("first").unwrap();
    let first = other.keep(target(&replica, &format!("http://{}", silent.local_addr().unwrap())));
    until("it is under way", || first.standing().state == State::Connecting).await;
    let (one, served_one, served, copy) = pair(&other).await;
    let mut second = other.keep(target(&copy, &served.address));
    let text = reason(&mut second, "limit").await;
    assert!(text.contains("sync.catching_up") && text.contains("by itself"), "{text}");
    // A slow one keeps others waiting for a while only.
    let began = std::time::Instant::now();
    second.in_step().await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(15));
    drop((first, second, served, one, served_one));
    // There: one connection at once.
    let small = node(3, &[("net.http_max_connections", "1")]);
    let busy = small.create("busy").unwrap();
    let served = Served::start(&small, &[&busy], "0").await;
    let own = ticket(&small, &busy, &served.address, HOUR).await;
    let third = node(4, &[]);
    let copy = third.prepare(&own, "busy").unwrap();
    third.join(&copy, &own, &Default::default()).await.unwrap();
    let mut inside = third.keep(target(&copy, &served.address));
    inside.in_step().await.unwrap();
    let mut outside = third.keep(target(&copy, &served.address));
    let text = reason(&mut outside, "limit").await;
    assert!(text.contains("as many connections as it allows"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interval_is_kept_and_what_is_wanted_at_once_is_done_at_once() {
    let other = node(2, &[]);
    let (_one, replica, served, copy) = pair(&other).await;
    let mut intent = Intent::new(&served.address);
    intent.every = Some(HOUR);
    let mut handle = other.keep(Target::new(Arc::clone(&copy), "notes", &intent));
    handle.in_step().await.unwrap();
    until("it rests", || matches!(handle.standing().state, State::Resting { .. })).await;
    replica.commit(vec![row("a", "1")]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(rows(&copy) < rows(&replica), "nobody is connected");
    handle.try_now();
    until("it was looked at again", || rows(&copy) == rows(&replica)).await;
}

/// Reaching the peer is told to others who wait for it, and must not be taken for news by who reached it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_refused_waits_before_it_tries_again() {
    let one = node(1, &[]);
    let replica = one.create("notes").unwrap();
    let served = Served::start(&one, &[&replica], "0").await;
    let other = node(2, &[("net.retry_min", "1h"), ("net.retry_max", "1h")]);
    let ticket = ticket(&one, &replica, &served.address, Duration::ZERO).await;
    let copy = other.prepare(&ticket, "notes").unwrap();
    let mut joining = target(&copy, &served.address);
    joining.ticket = Some(ticket.key.seed());
    let mut handle = other.keep(joining);
    reason(&mut handle, "ticket").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let times: Vec<u64> = one.troubles().iter().map(|trouble| trouble.times).collect();
    assert_eq!(times, [1], "it came once: {:?}", one.troubles());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_shows_up_is_tried_at_once() {
    let patient = [("net.retry_min", "1h"), ("net.retry_max", "1h")];
    let other = node(2, &patient);
    let (one, replica, served, copy) = pair(&other).await;
    let mut handle = other.keep(target(&copy, &served.address));
    handle.in_step().await.unwrap();
    let port = served.address.rsplit(':').next().unwrap().to_owned();
    served.end().await;
    reason(&mut handle, "offline").await;
    let _served = Served::start(&one, &[&replica], &port).await;
    // It comes by itself for something else.
    let back = Served::start(&other, &[&copy], "0").await;
    let _theirs = one.keep(target(&replica, &back.address));
    handle.in_step().await.unwrap();
}

struct InHome(Arc<Node>);

impl Replicas for InHome {
    fn records(&self) -> Vec<Record> {
        self.0.records().unwrap()
    }

    fn open(&self, record: &Record) -> Option<Arc<Replica>> {
        self.0.open_record(record).ok()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_declared_is_carried_out_after_a_restart_and_what_came_of_it_is_written_down() {
    let one = node(1, &[]);
    let replica = one.create("notes").unwrap();
    let served = Served::start(&one, &[&replica], "0").await;
    let ticket = ticket(&one, &replica, &served.address, HOUR).await;
    let home = tempfile::tempdir().unwrap();
    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    {
        let other = Node::open(home.path()).unwrap();
        other.prepare(&ticket, "notes").unwrap();
    }
    // It joins, since nothing else was done with the ticket yet.
    let other = Node::open(home.path()).unwrap();
    let hears = Arc::clone(&heard);
    let tell = Arc::new(move |standing: &Standing, kept: &Kept| {
        if matches!(kept, Kept::InStep) {
            hears.lock().unwrap().push(standing.name.clone());
        }
    });
    let (stop, stopped) = watch::channel(false);
    let working = Arc::clone(&other);
    let work = tokio::spawn(async move {
        working.carry_out(&InHome(Arc::clone(&working)), stopped, tell).await;
    });
    until("it joined", || {
        let role = replica.look(|view| view.role_of(&other.id())).unwrap();
        role == Some(Role::Write)
    })
    .await;
    until("it says so", || heard.lock().unwrap().iter().any(|name| name == "notes")).await;
    let record = other.records().unwrap().remove(0);
    let fate = || other.home().unwrap().fate(record.database, &served.address).unwrap().unwrap();
    until("it is written down", || fate().success.is_some()).await;
    assert!(
        matches!(fate(), Fate { device: Some(device), failure: None, .. } if device == one.id())
    );
    // An intent that makes no sense is refused; one that is taken back is not carried out any more.
    let mut often = Intent::new(&served.address);
    often.every = Some(Duration::from_millis(1));
    assert!(matches!(other.declare(&record, often), Err(NodeError::Setting(_))));
    assert!(other.withdraw(&record, &served.address).unwrap());
    assert!(!other.withdraw(&other.records().unwrap()[0], &served.address).unwrap());
    until("nothing is kept any more", || other.standings().is_empty()).await;
    stop.send_replace(true);
    work.await.unwrap();
}

#[test]
fn every_reason_says_what_to_do() {
    let text = |why: Why| why.to_string();
    assert!(text(Why::ClocksApart(-600_000_000)).contains("10 minutes behind this one"));
    assert!(text(Why::Version("update it".into())).contains("update"));
    let damaged =
        NodeError::Core(anabranch_core::storage::StorageError::Corrupt("x".into()).into());
    assert!(text(Why::of(&damaged, true)).contains("restore the file from a copy"));
    let refused = |code| {
        let why = Why::of(&NodeError::Session { code, text: String::new(), by_peer: true }, true);
        (why.code(), text(why))
    };
    for (code, word, what_to_do) in [
        (Code::Waiting, "waiting-for-approval", "anabranch requests approve"),
        (Code::Rejected, "rejected", "ask one for a ticket"),
        (Code::NotAdmin, "not-an-admin", "ask at the address of one that is"),
        (Code::Revoked, "revoked", "ask one of its admins for a new ticket"),
    ] {
        let (said, sentence) = refused(code);
        assert_eq!(said, word);
        assert!(sentence.contains(what_to_do), "{sentence}");
    }
}
