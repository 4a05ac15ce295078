//! Attacks over real links on a node that serves: each is refused or bounded, the status names it, and an honest member that
//! follows the same database live does not notice (I4, I5, I7). docs/testing.md lists them.

use crate::attacker::{Attacker, BOTH, Member, World, entries, link, try_link, until};
use crate::drives::row;
use anabranch_core::blob::ChunkHash;
use anabranch_core::codec::Writer;
use anabranch_core::entry::{Entry, Header, Payload, StoreId};
use anabranch_core::frontier::FrontierTip;
use anabranch_core::head::Head;
use anabranch_core::id::{DatabaseId, EntryId, LogId, Position};
use anabranch_core::key::{DeviceKey, Signature};
use anabranch_core::riblt::Symbol;
use anabranch_core::run::Run;
use anabranch_sync::channel::CREDIT;
use anabranch_sync::frame::{Ask, BATCH_BYTES, Code, DATA_BYTES, Frame, Terms};
use anabranch_transport::secure::{StaticKey, connect};
use std::io::Read;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Waits that are short enough for a test.
const QUICK: &[(&str, &str)] = &[
    ("net.close_timeout", "500ms"),
    ("net.handshake_timeout", "1s"),
    ("net.http_header_timeout", "1s"),
    ("net.open_timeout", "1s"),
    ("net.stall_timeout", "1s"),
];

fn stranger() -> DeviceKey {
    DeviceKey::from_seed(&[99; 32])
}

fn socket(world: &World) -> String {
    world.address.trim_start_matches("http://").trim_end_matches('/').to_owned()
}

/// Passes one connection on and writes down what its client says.
async fn tapped(to: String) -> (String, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let said: Arc<Mutex<Vec<u8>>> = Arc::default();
    let notes = Arc::clone(&said);
    tokio::spawn(async move {
        let (client, _) = listener.accept().await.unwrap();
        let server = TcpStream::connect(to).await.unwrap();
        let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
            (client.into_split(), server.into_split());
        tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = from_client.read(&mut buffer).await {
            notes.lock().unwrap().extend_from_slice(&buffer[..read]);
            if to_server.write_all(&buffer[..read]).await.is_err() {
                break;
            }
        }
    });
    (address, said)
}

/// 1: what an honest device said once is of no use to anybody else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_greeting_that_is_replayed_is_refused() {
    let world = World::new(QUICK).await;
    let member = world.member(3).await;
    let id = member.node.id();
    // Its frames, as one would have them who broke the encryption of that link.
    let recorded = {
        let mut honest = Attacker::open(&world, &member.key, None).await;
        honest.send(&Frame::Bye { code: Code::Done, text: String::new() }).await;
        honest.sent.clone()
    };
    // And its bytes, as anybody on the way has them.
    let (address, said) = tapped(socket(&world)).await;
    let address = address.parse().unwrap();
    let wire = member.node.dial(&address).await.unwrap();
    let opening = anabranch_node::Opening {
        replica: Arc::clone(&member.replica),
        direction: anabranch_sync::channel::Direction::BOTH,
        ticket: None,
    };
    let until_settled = anabranch_node::Until::Settled;
    member.node.sync_on(wire, vec![opening], until_settled, &Default::default()).await.unwrap();
    let bytes = said.lock().unwrap().clone();
    assert!(bytes.len() > 500);
    world
        .unnoticed("replayed frames", async || {
            let mut attacker = world.dial(&stranger()).await;
            for frame in &recorded[..3] {
                attacker.raw(frame.clone()).await;
            }
            attacker.refused(Code::Protocol, "not the device it claims to be").await;
            attacker.ended().await;
        })
        .await;
    world.named(None, "failed").await;
    world
        .unnoticed("replayed bytes", async || {
            let mut stream = TcpStream::connect(socket(&world)).await.unwrap();
            stream.write_all(&bytes).await.unwrap();
            // Nothing of it decrypts, so the other side hangs up.
            let mut rest = Vec::new();
            let _ = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest))
                .await
                .expect("it hangs up");
        })
        .await;
    world.named(None, "handshake").await;
    let visited = |v: &anabranch_node::Visitor| v.progress.peer == Some(id);
    assert!(!world.node.visitors().iter().any(visited), "nobody passed for the member");
    world.end().await;
}

/// 1: a clock may be anywhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_greeting_from_the_end_of_time_is_a_greeting() {
    let world = World::new(QUICK).await;
    let member = world.member(3).await;
    for clock in [0, 1 << 63, u64::MAX, u64::MAX >> 1] {
        let mut attacker = world.dial(&member.key).await;
        attacker.say_who(clock).await;
        attacker.ask(0, world.replica.database(), BOTH, None, None).await;
        attacker.hears("it is opened", |f| matches!(f, Frame::Opened { .. })).await;
        until("it is warned of", || {
            let visitors = world.node.visitors();
            let here = |v: &&anabranch_node::Visitor| v.progress.peer == Some(member.node.id());
            visitors.iter().rfind(here).is_some_and(|v| v.progress.clock_ahead.is_some())
        })
        .await;
    }
    world.end().await;
}

fn position(device: &DeviceKey, epoch: u64, seq: u64) -> Position {
    let log = LogId { device: device.node_id(), epoch };
    Position { log, seq, id: EntryId([epoch as u8; 32]) }
}

fn tip(position: Position, signature: Signature) -> FrontierTip {
    FrontierTip { head: Head { position, signature } }
}

fn tips(tips: Vec<FrontierTip>) -> Frame {
    Frame::Tips { channel: 0, tips, last: true }
}

/// 2: who tells of what it does not have.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lies_about_a_frontier_end_the_session_of_the_liar_at_most() {
    let own = [QUICK, &[("sync.sum_from", "1")]].concat();
    let world = World::new(&own).await;
    let member = world.member(3).await;
    let (id, database) = (Some(member.node.id()), world.replica.database());
    let lies: Vec<FrontierTip> = (0..2_000)
        .map(|n| {
            let place = position(&member.key, n, u64::MAX - n / 2);
            match n % 2 {
                0 => tip(place, Signature([7; 64])),
                _ => tip(place, Head::sign(&member.key, &database, place).signature),
            }
        })
        .collect();
    world
        .unnoticed("tips that nobody holds", async || {
            let mut attacker = Attacker::open(&world, &member.key, None).await;
            attacker.send(&tips(lies.clone())).await;
            // It is planned what is due all the same, and the liar is as level as one may be with it.
            attacker.hears("it gets on", |f| matches!(f, Frame::Level { .. })).await;
        })
        .await;
    world
        .unnoticed("a frontier without end", async || {
            let mut attacker = Attacker::open(&world, &member.key, None).await;
            let part = Frame::Tips { channel: 0, tips: lies.clone(), last: false };
            for _ in 0..101 {
                attacker.send(&part).await;
            }
            attacker.refused(Code::Limit, "too many tips").await;
        })
        .await;
    world.named(id, "limit").await;
    let garbage = |from: u32, n: u8| {
        let bytes: [u8; 20] = std::array::from_fn(|i| n.wrapping_mul(31).wrapping_add(i as u8));
        let symbols = vec![Symbol::from_bytes(&bytes); 64];
        Frame::Symbols { channel: 0, from, tips: 5, digest: [n; 32], symbols }
    };
    world
        .unnoticed("symbols that sum up nothing", async || {
            let mut attacker = Attacker::open(&world, &member.key, Some([1; 32])).await;
            for n in 0..50 {
                attacker.send(&garbage(0, n)).await;
            }
            attacker.hears("it asks", |f| matches!(f, Frame::Ask { .. })).await;
            attacker.send(&garbage(17, 1)).await;
            attacker.refused(Code::Protocol, "out of order").await;
        })
        .await;
    world.named(id, "failed").await;
    world
        .unnoticed("questions without end", async || {
            let mut attacker = Attacker::open(&world, &member.key, Some([1; 32])).await;
            attacker.hears("it is summed up", |f| matches!(f, Frame::Symbols { .. })).await;
            for n in 0..12 {
                let what = if n % 2 == 0 { Ask::Named(vec![n; 2_048]) } else { Ask::Whole };
                attacker.send(&Frame::Ask { channel: 0, what }).await;
            }
            attacker.refused(Code::Limit, "asked for too often").await;
        })
        .await;
    world.end().await;
}

/// What the member has and the world lacks, and the parts of it.
async fn unsent(world: &World, member: &Member) -> (Run, Vec<Entry>) {
    member.write("forged", "not to be seen").await;
    let run = member.lacking(&world.replica).pop().unwrap();
    let entries = run.entries().to_vec();
    (run, entries)
}

fn signatures_of(world: &World, entries: &[Entry]) -> Vec<Signature> {
    let frontier = world.replica.look(|view| view.frontier()).unwrap();
    let of = |p: &Position| frontier.tips().iter().find(|t| t.head.position == *p);
    let parents = entries.iter().flat_map(|e| &e.header().parents);
    parents.map(|p| of(p).map_or(Signature([0; 64]), |t| t.head.signature)).collect()
}

/// 3: only who has a device's key writes in its logs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_heads_end_the_channel() {
    let world = World::new(QUICK).await;
    let member = world.member(3).await;
    let (run, unsent) = unsent(&world, &member).await;
    let (database, place) = (world.replica.database(), unsent.last().unwrap().position());
    let elsewhere = Position { log: LogId { epoch: place.log.epoch ^ 1, ..place.log }, ..place };
    let before = world.entries();
    let forged = [
        Signature([9; 64]),
        Head::sign(&stranger(), &database, place).signature,
        Head::sign(&member.key, &DatabaseId([9; 32]), place).signature,
        Head::sign(&member.key, &database, elsewhere).signature,
    ];
    let mut before_live = before;
    for (n, signature) in forged.into_iter().enumerate() {
        world
            .unnoticed(&format!("forged head {n}"), async || {
                let mut attacker = Attacker::open(&world, &member.key, None).await;
                let parents = signatures_of(&world, &unsent);
                attacker.batch(&[Run::new(database, unsent.clone(), signature, parents)]).await;
                attacker.refused(Code::Protocol, "is not signed by its device").await;
            })
            .await;
        before_live += 80;
        assert_eq!(world.entries(), before_live, "nothing but what was committed here came in");
    }
    // While it is still here: it may stay as long as it likes.
    let mut attacker = Attacker::open(&world, &member.key, None).await;
    let times = || {
        let troubles = world.node.troubles();
        troubles.iter().find(|t| t.device == Some(member.node.id())).map_or(0, |t| t.times)
    };
    let named = times();
    attacker.batch(&[Run::new(database, unsent.clone(), forged[0], vec![])]).await;
    until("it is named at once", || times() > named).await;
    let text = world.named(Some(member.node.id()), "failed").await;
    assert!(!text.is_empty());
    // The honest one is taken.
    let mut attacker = Attacker::open(&world, &member.key, None).await;
    attacker.batch(&[run]).await;
    attacker.hears("it is taken", |f| matches!(f, Frame::Credit { .. })).await;
    world.end().await;
}

/// A frame that claims to hold more than there is.
fn claims(kind: u64, head: &[u8]) -> Vec<u8> {
    let mut w = Writer::new();
    w.array(4).u64(kind).u64(0);
    let mut bytes = w.finish();
    bytes.extend_from_slice(head);
    bytes
}

/// 4: lengths are checked before anything is set aside for them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn giant_lengths_end_the_session() {
    let world = World::new(QUICK).await;
    let member = world.member(3).await;
    let huge = [0xff; 8];
    let frames: Vec<Vec<u8>> = vec![
        [&[0x9b], &huge[..]].concat(),
        claims(5, &[&[0x9b], &huge[..]].concat()),
        claims(8, &[&[0x1a, 0, 6, 0, 0, 0x5b], &huge[..]].concat()),
        claims(12, &[&[0x5b], &huge[..]].concat()),
        claims(8, &[&[0x1b], &huge[..]].concat()),
        claims(11, &[0x9a, 0xff, 0xff, 0xff, 0xff]),
        vec![0x86; anabranch_transport::MAX_FRAME],
        vec![0; anabranch_transport::MAX_FRAME],
        Frame::Batch { channel: 0, raw: 5, bytes: vec![1; DATA_BYTES + 1] }.encode(),
        Frame::Batch { channel: 0, raw: BATCH_BYTES as u32 + 1, bytes: vec![1; 100] }.encode(),
    ];
    let turn = AtomicU64::new(0);
    world
        .unnoticed("giant lengths in frames", async || {
            for greets in [false, true] {
                let mut attacker = world.dial(&member.key).await;
                if greets {
                    attacker.say_who(5).await;
                }
                let n = turn.fetch_add(1, Ordering::SeqCst) as usize / 2 % frames.len();
                attacker.raw(frames[n].clone()).await;
                attacker.refused(Code::Protocol, "the peer sent a bad frame").await;
                attacker.ended().await;
            }
        })
        .await;
    assert!(turn.load(Ordering::SeqCst) >= frames.len() as u64, "every one was tried");
    world.named(Some(member.node.id()), "failed").await;
    // Below the session: a message of the WebSocket that says how long it is going to be.
    let mut answers = Vec::new();
    for length in [(anabranch_transport::MAX_FRAME + 1) as u64, 1 << 62] {
        let mut stream = upgraded(&world).await;
        let mut head = vec![0x82, 0xff];
        head.extend_from_slice(&length.to_be_bytes());
        head.extend_from_slice(&[1, 2, 3, 4]);
        stream.write_all(&head).await.unwrap();
        let mut rest = Vec::new();
        let end = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest));
        answers.push(end.await.expect("it hangs up"));
    }
    let text = world.named(None, "handshake").await;
    assert!(text.contains("is above the limit"), "{text}");
    // And records of one frame that never ends.
    let text = endless_records(&world).await;
    assert!(text.contains("is above the limit"), "{text}");
    world.end().await;
}

/// A connection whose WebSocket is there and that nothing was said on.
async fn upgraded(world: &World) -> TcpStream {
    let mut stream = TcpStream::connect(socket(world)).await.unwrap();
    let request = format!(
        "GET /anabranch/v1 HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        socket(world)
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = vec![0; 1024];
    let read = stream.read(&mut answer).await.unwrap();
    assert!(answer[..read].starts_with(b"HTTP/1.1 101"), "{:?}", &answer[..read]);
    stream
}

/// Encrypts by hand, so that it can send records of its own making. Says what the status says of it.
async fn endless_records(world: &World) -> String {
    let (mut sender, mut receiver) = link(&world.address).await.split();
    let builder = snow::Builder::new("Noise_XX_25519_ChaChaPoly_BLAKE2s".parse().unwrap());
    let key = [5; 32];
    let builder = builder.local_private_key(&key).unwrap().prologue(b"anabranch/1").unwrap();
    let mut noise = builder.build_initiator().unwrap();
    let (mut message, mut payload) = ([0; 200], [0; 200]);
    let length = noise.write_message(&[], &mut message).unwrap();
    sender.send(message[..length].to_vec()).await.unwrap();
    let answer = receiver.recv().await.unwrap().unwrap();
    noise.read_message(&answer, &mut payload).unwrap();
    let length = noise.write_message(&[], &mut message).unwrap();
    sender.send(message[..length].to_vec()).await.unwrap();
    let noise = noise.into_stateless_transport_mode().unwrap();
    let (more, mut record) = ([1; 65_519], vec![0; 65_535]);
    let began = Instant::now();
    for number in 0.. {
        noise.write_message(number, &more, &mut record).unwrap();
        if sender.send(record.clone()).await.is_err() {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(10), "it hangs up in the middle of it");
    }
    world.named(None, "offline").await
}

/// The resident memory of this process at its highest, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// 5: what unpacks to more than it says, and more than is allowed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bomb_is_refused_before_it_goes_off() {
    let world = World::new(QUICK).await;
    let member = world.member(3).await;
    // A gigabyte of zeros in some ten kilobytes.
    let zeros = std::io::repeat(0).take(1 << 30);
    let bomb = zstd::stream::encode_all(zeros, 19).unwrap();
    assert!(bomb.len() < DATA_BYTES, "{}", bomb.len());
    let before = peak();
    world
        .unnoticed("bombs", async || {
            for raw in [1, 1_000, BATCH_BYTES as u32] {
                let mut attacker = Attacker::open(&world, &member.key, None).await;
                attacker.send(&Frame::Batch { channel: 0, raw, bytes: bomb.clone() }).await;
                attacker.refused(Code::Protocol, "compressed batch").await;
            }
        })
        .await;
    // Tests beside this one take memory too, but no gigabyte.
    let grown = peak().saturating_sub(before);
    assert!(grown < 512 << 20, "{grown} bytes");
    world.named(Some(member.node.id()), "failed").await;
    world.end().await;
}

/// 6: what was not asked for, or goes on for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_without_end_are_cut_off() {
    let world = World::new(QUICK).await;
    let member = world.member(3).await;
    let id = Some(member.node.id());
    let blob = vec![7; 1_000];
    let one_shot = [
        (Frame::Blob { channel: 0, hash: ChunkHash::of(&blob), bytes: blob }, "nobody asked for"),
        (Frame::Credit { channel: 0, bytes: u32::MAX }, "never sent"),
        (Frame::Batch { channel: 0, raw: 5, bytes: vec![1; 10] }, "too short to hold a run"),
    ];
    world
        .unnoticed("data that was not asked for", async || {
            for (frame, says) in &one_shot {
                let mut attacker = Attacker::open(&world, &member.key, None).await;
                attacker.send(frame).await;
                attacker.refused(Code::Protocol, says).await;
            }
        })
        .await;
    world.named(id, "failed").await;
    world
        .unnoticed("data beyond credit", async || {
            let mut attacker = Attacker::open(&world, &member.key, None).await;
            let mut sent = 0;
            let noise = Frame::Batch { channel: 0, raw: 1_000, bytes: vec![1; DATA_BYTES] };
            while attacker.push(&noise, Duration::from_secs(5)).await == Some(true) {
                sent += DATA_BYTES;
                let over = |f: &Frame| matches!(f, Frame::Refused { .. });
                if attacker.heard().iter().any(over) || sent > 64 * CREDIT as usize {
                    break;
                }
            }
            assert!(sent < 64 * CREDIT as usize, "{sent} bytes and nobody minds");
        })
        .await;
    world
        .unnoticed("more wants than are allowed", async || {
            let mut attacker = Attacker::open(&world, &member.key, None).await;
            let hashes: Vec<_> = (0..1_024u32).map(|n| ChunkHash::of(&n.to_be_bytes())).collect();
            for _ in 0..64 {
                attacker.send(&Frame::Want { channel: 0, hashes: hashes.clone() }).await;
            }
            let told = |f: &Frame| matches!(f, Frame::Refused { .. } | Frame::NoBlob { .. });
            attacker.hears("it is told", told).await;
        })
        .await;
    // Words without end cost the two sides the same and take no memory; the status says who is here.
    let mut attacker = Attacker::open(&world, &member.key, None).await;
    let mut said = 0;
    let calm = world.latency().await;
    let done = AtomicBool::new(false);
    let flood = async {
        let hashes = vec![ChunkHash([3; 32]); 8];
        while !done.load(Ordering::SeqCst) {
            for frame in [
                Frame::Level { channel: 0, digest: Some([said as u8; 32]), busy: said % 2 == 0 },
                Frame::Have { channel: 0, hashes: hashes.clone() },
                Frame::NoBlob { channel: 0, hashes: hashes.clone() },
                Frame::Credit { channel: 0, bytes: 0 },
                Frame::Credit { channel: 77, bytes: 5 },
            ] {
                assert!(attacker.send(&frame).await);
                said += 1;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let measured = async {
        let median = world.latency().await;
        done.store(true, Ordering::SeqCst);
        median
    };
    let ((), under) = tokio::join!(flood, measured);
    world.compare("words without end", said, calm, under);
    assert!(world.node.visitors().iter().any(|v| v.progress.peer == id));
    world.end().await;
}

/// 7: asks for everything, again and again, and reads nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_read_is_not_read_from_either_and_is_given_up() {
    let own = [QUICK, &[("net.send_queue", "256KiB")]].concat();
    let world = World::new(&own).await;
    let member = world.member(3).await;
    let id = member.node.id();
    for n in 0..40 {
        let noise: String = (0..60_000).map(|i| char::from(b'!' + (i * n % 89) as u8)).collect();
        world.replica.commit(vec![row(&format!("big{n}"), &noise)]).await.unwrap();
    }
    until("it is there", || entries(&world.copy) == world.entries()).await;
    let calm = world.latency().await;
    let began = Instant::now();
    let taken = AtomicU64::new(0);
    let deaf = async {
        let (address, victim) = (&world.address, world.node.id());
        let mut attacker = Attacker::dial(address, victim, member.key.clone(), true).await;
        attacker.say_who(5).await;
        // Who only takes and tells anew where it stands is told the frontier each time.
        let pull = Terms { sends: false, ..BOTH };
        attacker.ask(0, world.replica.database(), pull, None, None).await;
        let asks = [
            tips(Vec::new()),
            Frame::Open {
                channel: 2,
                name: [1; 32],
                terms: BOTH,
                digest: None,
                ticket: None,
                request: None,
                evidence: None,
            },
        ];
        // Frames are made up faster than anybody could answer them.
        for frame in asks.iter().cycle() {
            match attacker.push(frame, Duration::from_secs(1)).await {
                Some(true) => _ = taken.fetch_add(frame.encode().len() as u64, Ordering::SeqCst),
                Some(false) => break,
                None if began.elapsed() > Duration::from_secs(15) => panic!("nobody gives it up"),
                None => {}
            }
            // So that it is about what is kept for it, and not about who is faster.
            assert!(taken.load(Ordering::SeqCst) < 64 << 20, "everything is taken");
        }
    };
    let ((), under) = tokio::join!(deaf, world.latency());
    println!("taken from one who reads nothing: {taken:?} bytes, {:?}", began.elapsed());
    world.compare("one who does not read", 1, calm, under);
    let text = world.named(Some(id), "limit").await;
    assert!(text.contains("net.stall_timeout"), "{text}");
    world.end().await;
}

/// 7: a byte now and then, at every stage at which a link can be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_writes_a_byte_now_and_then_is_given_up() {
    let world = World::new(QUICK).await;
    let drip = async |mut stream: TcpStream, bytes: &[u8]| {
        let began = Instant::now();
        for byte in bytes.iter().cycle() {
            let mut answer = [0; 512];
            let read = stream.read(&mut answer);
            match tokio::time::timeout(Duration::from_millis(50), read).await {
                Ok(Ok(0) | Err(_)) => return,
                _ if stream.write_all(&[*byte]).await.is_err() => return,
                _ => assert!(began.elapsed() < Duration::from_secs(10), "it may drip for ever"),
            }
        }
    };
    world
        .unnoticed("bytes now and then", async || {
            let header = async {
                let stream = TcpStream::connect(socket(&world)).await.unwrap();
                drip(stream, b"GET /anabranch/v1 HTTP/1.1\r\nX: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")
                    .await;
            };
            // One message of 200,000 bytes that never gets there.
            let before_the_handshake = async {
                let mut stream = upgraded(&world).await;
                stream
                    .write_all(&[0x82, 0xff, 0, 0, 0, 0, 0, 3, 13, 64, 1, 2, 3, 4])
                    .await
                    .unwrap();
                drip(stream, &[7]).await;
            };
            // Encrypted, and not a word.
            let before_the_greeting = async {
                let mut silent = world.dial(&stranger()).await;
                silent.ended().await;
            };
            // Who it is, and nothing else.
            let before_the_opening = async {
                let mut idle = Attacker::greet(&world, &stranger()).await;
                idle.refused(Code::Limit, "net.open_timeout").await;
                idle.ended().await;
            };
            let all = async {
                tokio::join!(header, before_the_handshake, before_the_greeting, before_the_opening);
            };
            let ended = tokio::time::timeout(Duration::from_secs(10), all).await;
            assert!(ended.is_ok(), "they may stay for ever: {:?}", world.node.visitors());
        })
        .await;
    world.named(None, "handshake").await;
    world.named(None, "limit").await;
    world.named(Some(stranger().node_id()), "limit").await;
    world.end().await;
}

/// How many sockets come at once.
fn sockets() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    const OTHERS: u64 = 500;
    let wanted = std::env::var("ANABRANCH_ATTACKS_SOCKETS").ok();
    let wanted = wanted.and_then(|text| text.parse().ok()).unwrap_or(2_000_u64);
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|now| now < wanted + OTHERS) {
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    }
    let enough = limit.maximum.is_none_or(|most| most >= wanted + OTHERS);
    assert!(enough, "{wanted} sockets need more descriptors: raise the hard limit (ulimit -Hn)");
    wanted as usize
}

/// Where the crowd comes to; set in the process that plays it.
const CROWD: &str = "ANABRANCH_ATTACKS_CROWD";

/// What it says once every one has come.
const ALL: &str = "all have come";

/// Very many that connect, most of which never become sessions. They go when nothing more can be read from standard input.
async fn crowd(to: SocketAddr) {
    let over = Arc::new(AtomicBool::new(false));
    let mut crowd = tokio::task::JoinSet::new();
    let (came, all) = (Arc::new(AtomicUsize::new(0)), sockets());
    for n in 0..all {
        let (over, came) = (Arc::clone(&over), Arc::clone(&came));
        crowd.spawn(async move {
            let mut first = true;
            while !over.load(Ordering::SeqCst) {
                match n % 4 {
                    0 => holds(to, b"").await,
                    2 => holds(to, b"GET /anabranch/v1 HTT").await,
                    _ => encrypts(&format!("http://{to}")).await,
                }
                if std::mem::take(&mut first) && came.fetch_add(1, Ordering::SeqCst) + 1 == all {
                    println!("{ALL}");
                }
                // Not all at the same moment, or this would be about two cores that encrypt for both sides.
                tokio::time::sleep(Duration::from_millis(2_000 + n as u64 % 40 * 100)).await;
            }
        });
    }
    let mut end = Vec::new();
    let _ = tokio::io::stdin().read_to_end(&mut end).await;
    over.store(true, Ordering::SeqCst);
    while crowd.join_next().await.is_some() {}
}

/// This test once more, as the crowd: in a process of its own, and behind everything else, since who attacks has cores of his own.
fn start_crowd(to: &SocketAddr) -> tokio::process::Child {
    let this = std::env::current_exe().unwrap();
    let mut command = tokio::process::Command::new("nice");
    let test = "attacks::very_many_connections_keep_nobody_out_for_long";
    command.args(["-n", "19"]).arg(this).args(["--exact", test]).env(CROWD, to.to_string());
    command.arg("--nocapture").stdin(Stdio::piped()).stdout(Stdio::piped());
    command.kill_on_drop(true).spawn().unwrap()
}

/// Connects, says this much, and stays until it is hung up on; some are never even accepted.
async fn holds(to: SocketAddr, says: &[u8]) {
    let held = async {
        let Ok(mut stream) = TcpStream::connect(to).await else { return };
        let _ = stream.write_all(says).await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    };
    let _ = tokio::time::timeout(Duration::from_secs(5), held).await;
}

/// Encrypts a link if there is a place for it, and says nothing more.
async fn encrypts(address: &str) {
    let held = async {
        let Some(link) = try_link(address).await else { return };
        let key = StaticKey::generate().unwrap();
        if let Ok(secure) = connect(link, &key, Duration::from_secs(5)).await {
            let (_sender, mut receiver) = secure.link.split();
            while let Ok(Some(_)) = receiver.recv().await {}
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(5), held).await;
}

/// 8: more connections than there is room for, most of which never become sessions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn very_many_connections_keep_nobody_out_for_long() {
    if let Ok(to) = std::env::var(CROWD) {
        return crowd(to.parse().unwrap()).await;
    }
    let own = [QUICK, &[("net.http_max_connections", "300")]].concat();
    let world = World::new(&own).await;
    let calm = world.latency().await;
    let mut crowd = start_crowd(&socket(&world).parse().unwrap());
    let full = |t: &anabranch_node::Trouble| t.text.contains("net.http_max_connections");
    let turned = || world.node.troubles().iter().find(|t| full(t)).map_or(0, |t| t.times);
    let mut says = tokio::io::BufReader::new(crowd.stdout.take().unwrap()).lines();
    let come = async { while says.next_line().await.unwrap().is_some_and(|line| line != ALL) {} };
    tokio::time::timeout(Duration::from_secs(60), come).await.expect("all have come");
    assert!(turned() > 300, "it is named that there is no place");
    let under = world.latency().await;
    let visitors = world.node.visitors().len();
    assert!(visitors <= 300, "{visitors}");
    println!("{visitors} visitors, {} turned away", turned());
    // Once no more come, somebody new gets in when the first are given up.
    drop(crowd.stdin.take());
    let began = Instant::now();
    let late = tokio::time::timeout(Duration::from_secs(20), world.patient_member(3)).await;
    let late = late.expect("somebody new gets in");
    println!("somebody new got in after {:?}", began.elapsed());
    until("it has everything", || entries(&late.replica) == world.entries()).await;
    world.compare("very many connections", sockets(), calm, under);
    assert!(crowd.wait().await.unwrap().success());
    until("all are gone", || world.node.visitors().len() <= 2).await;
    world.end().await;
}

/// An entry of `member` in a log of its own, on top of what it has written last.
fn crafted(member: &Member, epoch: u64, seq: u64, prev: Option<EntryId>, value: &str) -> Entry {
    let last = member.replica.look(|view| {
        let log = view.own_log()?.unwrap();
        let frontier = view.frontier()?;
        let place = *frontier.positions().find(|p| p.log == log).unwrap();
        view.entry(&place)
    });
    let last = last.unwrap().unwrap();
    let log = LogId { device: member.key.node_id(), epoch };
    let op = anabranch_core::ops::CellOp {
        path: anabranch_core::path::Path::text([format!("crafted{epoch}")]).unwrap(),
        value: Some(value.into()),
        replaces: Vec::new(),
    };
    let header = Header {
        database: Some(member.replica.database()),
        log,
        seq,
        prev,
        parents: if seq == 1 { vec![last.position()] } else { Vec::new() },
        generation: last.header().generation + seq,
        timestamp: last.header().timestamp,
        grant: last.header().grant,
        payloads: Vec::new(),
        salt: None,
    };
    let cells = anabranch_core::ops::encode_cells(&log, &[op]);
    Entry::new(header, vec![(StoreId::table("t"), Payload::Present(cells))]).unwrap()
}

fn signed(member: &Member, entries: Vec<Entry>) -> Run {
    let database = member.replica.database();
    let place = entries.last().unwrap().position();
    let heads = entries.iter().flat_map(|e| &e.header().parents);
    let parents = heads.map(|p| Head::sign(&member.key, &database, *p).signature).collect();
    Run::new(database, entries, Head::sign(&member.key, &database, place).signature, parents)
}

/// 9: a member may write as much as it likes, and others still get a word in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_floods_is_taken_as_fast_as_it_goes() {
    let world = World::new(QUICK).await;
    let member = world.member(3).await;
    member.write("first", "a place to build on").await;
    let mut attacker = Attacker::open(&world, &member.key, None).await;
    attacker.batch(&member.lacking(&world.replica)).await;
    attacker.hears("it is taken", |f| matches!(f, Frame::Credit { .. })).await;
    let credits = |attacker: &Attacker| {
        attacker.heard().iter().filter(|f| matches!(f, Frame::Credit { .. })).count()
    };
    let (calm, before) = (world.latency().await, world.entries());
    let done = AtomicBool::new(false);
    let flood = async {
        let mut batches = 0;
        while !done.load(Ordering::SeqCst) {
            // New logs, each of which forks at its second place.
            let runs: Vec<Run> = (0..8)
                .flat_map(|n| {
                    let epoch = 1_000 + batches * 8 + n;
                    let root = crafted(&member, epoch, 1, None, "root");
                    let branch = |m: u32| {
                        let next = crafted(&member, epoch, 2, Some(root.id()), &format!("{m}"));
                        signed(&member, vec![root.clone(), next])
                    };
                    [branch(1), branch(2), branch(3)]
                })
                .collect();
            let acknowledged = credits(&attacker);
            assert!(attacker.batch(&runs).await);
            until("it is taken", || {
                assert!(
                    !attacker.heard().iter().any(|f| matches!(f, Frame::Refused { .. })),
                    "{:?}",
                    attacker.heard().last()
                );
                credits(&attacker) > acknowledged
            })
            .await;
            batches += 1;
        }
        batches
    };
    let measured = async {
        let median = world.latency().await;
        done.store(true, Ordering::SeqCst);
        median
    };
    let (batches, under) = tokio::join!(flood, measured);
    let entries = world.entries() - before - 40;
    assert_eq!(entries, batches * 8 * 4, "every log and every branch is taken once");
    println!("{entries} entries of {} branches", batches * 8 * 3);
    world.compare("logs and forks without end", batches as usize, calm, under);
    // And as an honest program would, as fast as it can.
    let calm = world.latency().await;
    let (writer, noise) = (Arc::clone(&member.replica), "x".repeat(2_000));
    let target = anabranch_node::Target::new(
        Arc::clone(&member.replica),
        "notes",
        &anabranch_node::Intent::new(&world.address),
    );
    let handle = member.node.keep(target);
    let done = Arc::new(AtomicBool::new(false));
    let stop = Arc::clone(&done);
    let writes = tokio::spawn(async move {
        let mut n = 0;
        while !stop.load(Ordering::SeqCst) {
            let drafts = (0..20).map(|i| row(&format!("{}", (n + i) % 500), &noise)).collect();
            writer.commit(drafts).await.unwrap();
            n += 20;
        }
        n
    });
    let under = world.latency().await;
    done.store(true, Ordering::SeqCst);
    let written = writes.await.unwrap();
    println!("{written} entries written meanwhile");
    world.compare("a member that writes without end", written, calm, under);
    let id = member.node.id();
    assert!(world.node.visitors().iter().any(|v| v.progress.peer == Some(id)));
    handle.stop().await;
    world.end().await;
}

/// 10: who knows nothing but the id of a database.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_gets_nothing_and_does_not_learn_what_is_here() {
    let world = World::new(QUICK).await;
    let key = stranger();
    let ticket = DeviceKey::from_seed(&[98; 32]);
    let (here, nowhere) = (world.replica.database(), DatabaseId([9; 32]));
    let is_answer = |f: &Frame| matches!(f, Frame::Refused { .. } | Frame::Opened { .. });
    world
        .unnoticed("a stranger asks", async || {
            let mut attacker = Attacker::greet(&world, &key).await;
            attacker.hears("who is there", |f| matches!(f, Frame::Auth(_))).await;
            let mut channel = 0;
            for (sends, receives) in [(true, true), (true, false), (false, true), (false, false)] {
                let terms = Terms { sends, receives, you_may_read: false };
                for digest in [None, Some([1; 32])] {
                    for ticket in [None, Some(&ticket)] {
                        let mut answers = Vec::new();
                        for database in [here, nowhere] {
                            let before = attacker.heard().len().max(2);
                            attacker.ask(channel, database, terms, digest, ticket).await;
                            until("there is an answer", || {
                                attacker.heard()[before..].iter().any(is_answer)
                            })
                            .await;
                            let heard = attacker.heard()[before..].to_vec();
                            let [Frame::Refused { channel: of, code, text }] = &heard[..] else {
                                panic!("{heard:?}");
                            };
                            assert_eq!(*of, channel);
                            answers.push((*code, text.clone()));
                            channel += 2;
                        }
                        assert_eq!(answers[0], answers[1], "what is here looks like what is not");
                        assert_eq!(answers[0].0, Code::NotServed);
                    }
                }
            }
        })
        .await;
    world.named(Some(key.node_id()), "not-a-member").await;
    // One who claims to know this device as a member may bring what proves its own right. It learns that somebody listens
    // to it, and gets nothing.
    let live = async || {
        let mut attacker = Attacker::greet(&world, &key).await;
        attacker.ask(0, here, BOTH, Some([1; 32]), None).await;
        attacker.hears("it is opened", is_answer).await;
        let place = position(&key, 1, 5);
        let own = tip(place, Head::sign(&key, &here, place).signature);
        let known = world.replica.look(|view| view.frontier()).unwrap();
        let stolen = known.positions().map(|p| tip(*p, Signature([3; 64])));
        attacker.send(&tips(stolen.chain([own]).collect())).await;
        let hashes = vec![ChunkHash([1; 32])];
        attacker.send(&Frame::Want { channel: 0, hashes }).await;
        attacker.send(&Frame::Level { channel: 0, digest: Some([2; 32]), busy: false }).await;
        world.replica.commit(vec![row("live", "not for strangers")]).await.unwrap();
        attacker.ended().await;
        attacker.heard()
    };
    for frame in live().await {
        match frame {
            Frame::Opened { digest, terms, .. } => {
                assert_eq!((digest, terms.you_may_read), (None, false));
            }
            Frame::Level { digest, .. } => assert_eq!(digest, None),
            Frame::Tips { tips, .. } => assert!(tips.is_empty(), "{tips:?}"),
            Frame::Hello { .. } | Frame::Auth(_) | Frame::NoBlob { .. } => {}
            Frame::Bye { .. } | Frame::Refused { .. } => {}
            frame => panic!("a stranger is told {frame:?}"),
        }
    }
    world.named(Some(key.node_id()), "limit").await;
    // Over plain HTTP nothing is told either.
    for path in ["/", "/health", "/anabranch/v1", "/anabranch/v1/notes", "/metrics"] {
        let mut stream = TcpStream::connect(socket(&world)).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(!answer.contains("notes") && !answer.contains(&here.to_string()), "{answer}");
    }
    world.end().await;
}

/// 11: entries that build on what nobody has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_that_hang_in_the_air_block_nobody() {
    const ROOM: usize = 512 * 1024;
    let own = [QUICK, &[("sync.pending_bytes", "512KiB")]].concat();
    let world = World::new(&own).await;
    let member = world.member(3).await;
    member.write("first", "a place to build on").await;
    let mut honest = Attacker::open(&world, &member.key, None).await;
    honest.batch(&member.lacking(&world.replica)).await;
    honest.hears("it is taken", |f| matches!(f, Frame::Credit { .. })).await;
    drop(honest);
    let epoch = AtomicU64::new(1_000);
    let noise: String = (0..60_000u32).map(|n| char::from(b'!' + (n * n % 89) as u8)).collect();
    let before = world.entries();
    world
        .unnoticed("entries in the air", async || {
            let mut attacker = Attacker::open(&world, &member.key, None).await;
            for _ in 0..4 {
                let runs: Vec<Run> = (0..4)
                    .map(|_| {
                        let n = epoch.fetch_add(1, Ordering::SeqCst);
                        let below = Some(EntryId([n as u8; 32]));
                        signed(&member, vec![crafted(&member, n, 2, below, &noise)])
                    })
                    .collect();
                let batches = || {
                    attacker.heard().iter().filter(|f| matches!(f, Frame::Credit { .. })).count()
                };
                let taken = batches();
                assert!(attacker.batch(&runs).await);
                until("it is set aside", || {
                    let frames = attacker.heard();
                    let refused = frames.iter().any(|f| matches!(f, Frame::Refused { .. }));
                    frames.iter().filter(|f| matches!(f, Frame::Credit { .. })).count() > taken
                        || refused
                })
                .await;
                let waiting = world.replica.pending_bytes();
                assert!(waiting <= ROOM, "{waiting} bytes wait");
            }
        })
        .await;
    assert!(world.replica.pending_bytes() > ROOM / 2, "they do wait");
    assert_eq!(world.entries() - before, 80, "and none was taken");
    assert!(world.replica.look(|view| view.frontier()).unwrap().tips().len() < 10);
    // A head of nobody's, or the same place again and again, gets nowhere either.
    let mut attacker = Attacker::open(&world, &member.key, None).await;
    let entry = crafted(&member, 7, 2, Some(EntryId([7; 32])), "unsigned");
    let run = Run::new(world.replica.database(), vec![entry], Signature([0; 64]), Vec::new());
    attacker.batch(&[run]).await;
    attacker.refused(Code::Protocol, "is not signed by its device").await;
    world.named(Some(member.node.id()), "failed").await;
    // The member itself goes on as if nothing had been.
    member.write("second", "taken").await;
    let mut again = Attacker::open(&world, &member.key, None).await;
    let held = world.entries();
    again.batch(&member.lacking(&world.replica)).await;
    until("it is taken", || world.entries() > held).await;
    world.end().await;
}
