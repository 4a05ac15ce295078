//! Somebody who speaks the protocol by hand over real links: dials, encrypts, greets with a key of its choice, and then
//! sends whatever it likes. [`World`] is what it attacks, and an honest member who should not notice.

use crate::drives::row;
use anabranch_core::codec::{Writer, keyed_hash};
use anabranch_core::id::{DatabaseId, NodeId};
use anabranch_core::key::{Context, DeviceKey, Signature};
use anabranch_core::ops::Role;
use anabranch_core::outgoing::{Outgoing, Withhold};
use anabranch_core::run::Run;
use anabranch_core::ticket::Ticket;
use anabranch_node::config::Settings;
use anabranch_node::{Device, Intent, Node, Offer, Replica, SyncHandle, Target};
use anabranch_sync::frame::{ChannelNo, Code, Frame, PROTOCOL_VERSION, Terms, TicketProof};
use anabranch_transport::http::TlsRoots;
use anabranch_transport::secure::{StaticKey, connect};
use anabranch_transport::{
    Address, Limits, Link, LinkReceiver, LinkSender, TransportConfig, TransportManager,
};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::{MutexGuard, watch};

/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a member says when it opens a database.
pub(crate) const BOTH: Terms = Terms { sends: true, receives: true, you_may_read: true };

/// Latencies below this count as this: two busy cores make anything shorter a matter of luck.
pub(crate) const FLOOR: Duration = Duration::from_millis(25);
/// Commits of which the median is taken.
const COMMITS: usize = 40;

/// Attacks run one at a time, so that they measure themselves and not each other.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Waits until something holds.
pub(crate) async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let came = async {
        while !is() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, came).await.is_ok(), "{what}");
}

/// A link to `address` that nothing was said on yet.
pub(crate) async fn link(address: &str) -> Link {
    try_link(address).await.unwrap()
}

/// The same, if there is a place for it.
pub(crate) async fn try_link(address: &str) -> Option<Link> {
    let limits = Limits { link_queue: 1, ..Limits::default() };
    let config = TransportConfig { limits, ..TransportConfig::new(TlsRoots::new(None).unwrap()) };
    let address: Address = address.parse().unwrap();
    TransportManager::new(config).unwrap().connect(&address).await.ok()
}

/// What came back.
#[derive(Default)]
struct Heard {
    frames: Mutex<Vec<Frame>>,
    over: AtomicBool,
}

/// One link of an attacker.
pub(crate) struct Attacker {
    pub(crate) key: DeviceKey,
    victim: NodeId,
    pub(crate) binding: [u8; 32],
    sender: LinkSender,
    /// Of one who does not read.
    deaf: Option<LinkReceiver>,
    heard: Arc<Heard>,
    /// Every frame it sent, for whoever replays them.
    pub(crate) sent: Vec<Vec<u8>>,
}

impl Attacker {
    /// An encrypted link, before any greeting. Whatever comes is read at once unless it is `deaf`.
    pub(crate) async fn dial(address: &str, victim: NodeId, key: DeviceKey, deaf: bool) -> Self {
        let static_key = StaticKey::generate().unwrap();
        let secure = connect(link(address).await, &static_key, PATIENCE).await.unwrap();
        let (sender, mut receiver) = secure.link.split();
        let heard: Arc<Heard> = Arc::default();
        let deaf = if deaf {
            Some(receiver)
        } else {
            let heard = Arc::clone(&heard);
            tokio::spawn(async move {
                while let Ok(Some(frame)) = receiver.recv().await {
                    heard.frames.lock().unwrap().push(Frame::decode(&frame).unwrap());
                }
                heard.over.store(true, Ordering::SeqCst);
            });
            None
        };
        Self { key, victim, binding: secure.binding, sender, deaf, heard, sent: Vec::new() }
    }

    /// A link on which it has greeted as it should.
    pub(crate) async fn greet(world: &World, key: &DeviceKey) -> Self {
        let mut attacker = world.dial(key).await;
        attacker.say_who(5).await;
        attacker
    }

    /// A link on which it has opened the database as channel 0.
    pub(crate) async fn open(world: &World, key: &DeviceKey, digest: Option<[u8; 32]>) -> Self {
        let mut attacker = Self::greet(world, key).await;
        attacker.ask(0, world.replica.database(), BOTH, digest, None).await;
        attacker.hears("it is opened", |f| matches!(f, Frame::Opened { .. })).await;
        attacker
    }

    /// Greets, as one whose clock stands there.
    pub(crate) async fn say_who(&mut self, clock: u64) {
        let versions = (PROTOCOL_VERSION, PROTOCOL_VERSION);
        let node = self.key.node_id();
        self.send(&Frame::Hello { versions, node, clock, features: 0 }).await;
        let auth = self.auth();
        self.send(&Frame::Auth(auth)).await;
    }

    fn auth(&self) -> Signature {
        let mut w = Writer::new();
        w.array(4).bytes(&self.binding).bool(true);
        w.bytes(&self.key.node_id().0).bytes(&self.victim.0);
        self.key.sign(Context::Greeting, &w.finish())
    }

    /// Asks for `database` to be opened.
    pub(crate) async fn ask(
        &mut self,
        channel: ChannelNo,
        database: DatabaseId,
        terms: Terms,
        digest: Option<[u8; 32]>,
        ticket: Option<&DeviceKey>,
    ) {
        let name = keyed_hash(&self.binding, &database.0);
        let ticket = ticket.map(|key| {
            let mut w = Writer::new();
            w.array(3).bytes(&self.binding).bytes(&database.0).bytes(&self.key.node_id().0);
            let signature = key.sign(Context::TicketProof, &w.finish());
            TicketProof { key: key.node_id(), signature }
        });
        self.send(&Frame::Open {
            channel,
            name,
            terms,
            digest,
            ticket,
            request: None,
            evidence: None,
        })
        .await;
    }

    /// Sends a frame; whether it was taken.
    pub(crate) async fn send(&mut self, frame: &Frame) -> bool {
        self.raw(frame.encode()).await
    }

    /// Sends these bytes as a frame; whether they were taken.
    pub(crate) async fn raw(&mut self, bytes: Vec<u8>) -> bool {
        if self.sent.len() < 16 {
            self.sent.push(bytes.clone());
        }
        matches!(tokio::time::timeout(PATIENCE, self.sender.send(bytes)).await, Ok(Ok(())))
    }

    /// Sends a frame if it is taken soon: `None` when it is not, `Some(false)` when the link is broken.
    pub(crate) async fn push(&mut self, frame: &Frame, soon: Duration) -> Option<bool> {
        let sent = tokio::time::timeout(soon, self.sender.feed(frame.encode())).await.ok()?;
        Some(sent.is_ok())
    }

    pub(crate) async fn batch(&mut self, runs: &[Run]) -> bool {
        let mut w = Writer::new();
        w.array(runs.len());
        runs.iter().for_each(|run| run.encode(&mut w));
        let raw = w.finish();
        let bytes = zstd::bulk::compress(&raw, 1).unwrap();
        self.send(&Frame::Batch { channel: 0, raw: raw.len() as u32, bytes }).await
    }

    /// Everything heard so far.
    pub(crate) fn heard(&self) -> Vec<Frame> {
        self.heard.frames.lock().unwrap().clone()
    }

    /// Waits for such a frame.
    pub(crate) async fn hears(&self, what: &str, is: impl Fn(&Frame) -> bool) {
        let mut seen = 0;
        until(what, || {
            let frames = self.heard.frames.lock().unwrap();
            let found = frames[seen..].iter().any(&is);
            seen = frames.len();
            found
        })
        .await;
    }

    /// Waits until it is told that its channel, or the session, is over for this reason.
    pub(crate) async fn refused(&self, code: Code, says: &str) {
        let is = |frame: &Frame| match frame {
            Frame::Refused { code: found, text, .. } | Frame::Bye { code: found, text } => {
                *found == code && text.contains(says)
            }
            _ => false,
        };
        self.hears(&format!("refused with {code:?}: {says}; {:?}", self.heard().last()), is).await;
    }

    /// Waits until the other side has ended the link.
    pub(crate) async fn ended(&mut self) {
        match self.deaf.as_mut() {
            // Who is deaf still notices that the line is dead.
            Some(receiver) => {
                let over = receiver.drain(PATIENCE);
                let _ = over.await;
            }
            None => until("the link is over", || self.heard.over.load(Ordering::SeqCst)).await,
        }
    }
}

/// A node that serves a database, and an honest member who follows it live.
pub(crate) struct World {
    _alone: MutexGuard<'static, ()>,
    pub(crate) node: Arc<Node>,
    pub(crate) replica: Arc<Replica>,
    pub(crate) address: String,
    _stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
    pub(crate) honest: Arc<Node>,
    pub(crate) copy: Arc<Replica>,
    handle: SyncHandle,
}

/// A member whose key the attacker has, and its replica.
pub(crate) struct Member {
    pub(crate) node: Arc<Node>,
    pub(crate) key: DeviceKey,
    pub(crate) replica: Arc<Replica>,
}

fn node(seed: u8, own: &[(&str, &str)]) -> Arc<Node> {
    let settings = Settings::load(|key| {
        let quick = [("net.retry_min", "20ms"), ("net.retry_max", "100ms")];
        let found = own.iter().chain(&quick).find(|(name, _)| *name == key);
        found.map(|(_, value)| (*value).to_owned())
    });
    let device = Device::new(DeviceKey::from_seed(&[seed; 32]));
    Node::in_memory_as(device, settings.unwrap()).unwrap()
}

impl World {
    pub(crate) async fn new(own: &[(&str, &str)]) -> Self {
        let alone = ALONE.lock().await;
        let node_here = node(1, own);
        let replica = node_here.create("notes").unwrap();
        let listener = node_here.listen("0".parse().unwrap()).await.unwrap();
        let address = Address::of_listener(listener.local_addr()).to_string();
        let (stop, stopped) = watch::channel(false);
        let (server, served) = (Arc::clone(&node_here), vec![Arc::clone(&replica)]);
        let task = tokio::spawn(async move { server.serve(listener, served, stopped).await });
        let honest = node(2, &[]);
        let copy = join(&node_here, &replica, &address, &honest).await;
        let target = Target::new(Arc::clone(&copy), "notes", &Intent::new(&address));
        let mut handle = honest.keep(target);
        handle.in_step().await.unwrap();
        let (node, _alone, _stop) = (node_here, alone, stop);
        Self { _alone, node, replica, address, _stop, task, honest, copy, handle }
    }

    /// A member whose key is stolen.
    pub(crate) async fn member(&self, seed: u8) -> Member {
        let key = DeviceKey::from_seed(&[seed; 32]);
        let node = node(seed, &[]);
        let replica = join(&self.node, &self.replica, &self.address, &node).await;
        Member { node, key, replica }
    }

    /// The same, of one that tries until it gets in.
    pub(crate) async fn patient_member(&self, seed: u8) -> Member {
        let key = DeviceKey::from_seed(&[seed; 32]);
        let node = node(seed, &[]);
        let ticket = ticket(&self.node, &self.replica, &self.address).await;
        let replica = node.prepare(&ticket, "notes").unwrap();
        while node.join(&replica, &ticket, &Default::default()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Member { node, key, replica }
    }

    pub(crate) async fn dial(&self, key: &DeviceKey) -> Attacker {
        Attacker::dial(&self.address, self.node.id(), key.clone(), false).await
    }

    pub(crate) fn entries(&self) -> u64 {
        entries(&self.replica)
    }

    /// Waits until the status names what `device` did, with this code.
    pub(crate) async fn named(&self, device: Option<NodeId>, code: &str) -> String {
        let find = || {
            let troubles = self.node.troubles();
            troubles.into_iter().find(|t| t.device == device && t.code == code).map(|t| t.text)
        };
        let what = || format!("'{code}' of {device:?} is named: {:?}", self.node.troubles());
        let found = async {
            loop {
                match find() {
                    Some(text) => return text,
                    None => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        };
        match tokio::time::timeout(PATIENCE, found).await {
            Ok(text) => text,
            Err(_) => panic!("{}", what()),
        }
    }

    /// How long it takes until what is committed here is at the honest member: the median.
    pub(crate) async fn latency(&self) -> Duration {
        let mut took = Vec::with_capacity(COMMITS);
        let mut versions = self.copy.versions();
        for n in 0..COMMITS {
            let began = Instant::now();
            let value = format!("{n}");
            let committed = self.replica.commit(vec![row("live", &value)]).await.unwrap();
            let position = committed[0].as_ref().unwrap().position();
            let arrived = async {
                while !self.copy.look(|view| view.holds(&position)).unwrap() {
                    versions.changed().await.unwrap();
                }
            };
            let arrived = tokio::time::timeout(PATIENCE, arrived).await;
            assert!(arrived.is_ok(), "a commit did not arrive: {:?}", self.handle.standing());
            took.push(began.elapsed());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        took.sort_unstable();
        took[COMMITS / 2]
    }

    /// Repeats an attack while the honest member's latency is measured, which must not double. Below a floor of some
    /// milliseconds nothing is compared, since tests run beside others; the true ratio is printed.
    pub(crate) async fn unnoticed<F: Future<Output = ()>>(
        &self,
        name: &str,
        mut attack: impl FnMut() -> F,
    ) {
        let calm = self.latency().await;
        let done = AtomicBool::new(false);
        let attacks = async {
            let mut times = 0;
            while times == 0 || !done.load(Ordering::SeqCst) {
                attack().await;
                times += 1;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            times
        };
        let measured = async {
            let median = self.latency().await;
            done.store(true, Ordering::SeqCst);
            median
        };
        let (times, under) = tokio::join!(attacks, measured);
        self.compare(name, times, calm, under);
    }

    /// Fails when commits take more than twice as long under attack.
    pub(crate) fn compare(&self, name: &str, times: usize, calm: Duration, under: Duration) {
        let ratio = under.as_secs_f64() / calm.as_secs_f64();
        println!("{name}: {times} times, {calm:?} -> {under:?}, ratio {ratio:.2}");
        let strict = std::env::var("ANABRANCH_ATTACKS_STRICT").is_ok();
        let floor = if strict { Duration::from_millis(2) } else { FLOOR };
        assert!(under <= calm.max(floor) * 2, "{name}: {calm:?} became {under:?}");
    }

    /// The honest member has everything, never lost its connection, and the database is what it was.
    pub(crate) async fn end(self) {
        until("both have everything", || entries(&self.copy) == entries(&self.replica)).await;
        assert!(self.handle.standing().last_error.is_none(), "{:?}", self.handle.standing());
        let honest = self.honest.id();
        let visitors = self.node.visitors();
        assert!(visitors.iter().any(|v| v.progress.peer == Some(honest)), "{visitors:?}");
        let troubles = self.node.troubles();
        assert!(troubles.iter().all(|t| t.device != Some(honest)), "{troubles:?}");
        self.copy.commit(vec![row("end", "the other way")]).await.unwrap();
        until("it goes the other way", || entries(&self.copy) == entries(&self.replica)).await;
        self.handle.stop().await;
        // Attackers that are still here would have it wait until they take their leave.
        self.task.abort();
    }
}

pub(crate) fn entries(replica: &Replica) -> u64 {
    replica.look(|view| view.totals()).unwrap().entries
}

async fn ticket(admin: &Node, replica: &Replica, address: &str) -> Ticket {
    let offer = Offer {
        role: Role::Write,
        addresses: vec![address.to_owned()],
        limit: None,
        expires: None,
        folder: false,
        name: String::new(),
    };
    admin.ticket(replica, &offer).await.unwrap()
}

async fn join(
    admin: &Arc<Node>,
    replica: &Arc<Replica>,
    address: &str,
    node: &Arc<Node>,
) -> Arc<Replica> {
    let ticket = ticket(admin, replica, address).await;
    let copy = node.prepare(&ticket, "notes").unwrap();
    node.join(&copy, &ticket, &Default::default()).await.unwrap();
    copy
}

impl Member {
    /// Writes something that stays here until [`Self::lacking`] hands it out.
    pub(crate) async fn write(&self, key: &str, value: &str) {
        self.replica.commit(vec![row(key, value)]).await.unwrap();
    }

    /// The runs that are here and not there.
    pub(crate) fn lacking(&self, there: &Replica) -> Vec<Run> {
        let held = there.look(|view| view.frontier()).unwrap();
        let runs = self.replica.look(|view| {
            let mut out = Outgoing::new(view, &held)?;
            let mut runs = Vec::new();
            while let Some(run) = out.next(view, Withhold::NOTHING)? {
                runs.push(run);
            }
            Ok::<_, anabranch_core::storage::StorageError>(runs)
        });
        runs.unwrap()
    }
}
