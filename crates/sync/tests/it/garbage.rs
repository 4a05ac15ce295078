//! Frames and batches that no honest peer sends: each ends the channel or session with a sentence that says why, changes
//! nothing, and the node goes on with others (I4, I5).

use crate::harness::{Node, join, sync};
use crate::rogue::{OPEN, Rogue};
use anabranch_core::codec::Writer;
use anabranch_core::entry::{Entry, StoreId};
use anabranch_core::frontier::Frontier;
use anabranch_core::id::{DatabaseId, EntryId, LogId, Position};
use anabranch_core::key::Signature;
use anabranch_core::ops::Role;
use anabranch_core::outgoing::{Outgoing, Withhold};
use anabranch_core::riblt::Symbol;
use anabranch_core::run::Run;
use anabranch_sync::frame::{Ask, BATCH_BYTES, Code, DATA_BYTES, Frame};
use anabranch_sync::work::Answer;
use proptest::prelude::*;

struct Case {
    host: Node,
    member: Node,
    database: DatabaseId,
}

impl Case {
    fn new() -> Self {
        let mut host = Node::new(1);
        let database = host.create();
        let mut member = join(&mut host, 2, database, Role::Write);
        host.put("kept", "safe");
        (0..3).for_each(|n| _ = member.put(&format!("{n}"), "new"));
        Self { host, member, database }
    }

    fn rogue(&self) -> Rogue<'_> {
        let mut rogue = Rogue::greet(&self.host, self.member.key.clone(), self.database);
        rogue.open(OPEN, None);
        rogue
    }

    /// The run that the member has and the host lacks.
    fn run(&self) -> Run {
        let held = self.host.view(|v| v.frontier().unwrap());
        self.member.view(|v| {
            let mut out = Outgoing::new(v, &held).unwrap();
            std::iter::from_fn(|| out.next(v, Withhold::NOTHING).unwrap()).last().unwrap()
        })
    }

    /// The host ended it as it should, holds what it held, and serves the next.
    fn survived(&self, rogue: &Rogue<'_>, code: Code, says: &str) {
        let [(found, text)] = &rogue.closed[..] else { panic!("{says}: {:?}", rogue.closed) };
        assert_eq!(*found, code, "{text}");
        assert!(text.contains(says), "{text}");
        assert!(self.host.values("0").is_empty());
        let (host, member) = (self.host.copy(), self.member.copy());
        let outcome = sync(&member, &host, self.database);
        assert!(outcome.settled, "{outcome:?}");
        assert_eq!(host.values("0"), ["new"]);
    }
}

fn packed(raw: &[u8]) -> Frame {
    let bytes = zstd::bulk::compress(raw, 1).unwrap();
    Frame::Batch { channel: 0, raw: raw.len() as u32, bytes }
}

fn batch_of(runs: &[Run]) -> Vec<u8> {
    let mut w = Writer::new();
    w.array(runs.len());
    runs.iter().for_each(|run| run.encode(&mut w));
    w.finish()
}

#[test]
fn frames_that_are_none_end_the_session() {
    let case = Case::new();
    for bytes in [&b""[..], b"GET / HTTP/1.1\r\n", &[0xff; 40], &[0x80]] {
        let mut rogue = case.rogue();
        rogue.raw(bytes);
        case.survived(&rogue, Code::Protocol, "the peer sent a bad frame");
        assert!(rogue.session.is_closed());
        rogue.raw(&Frame::Credit { channel: 0, bytes: 1 }.encode());
    }
    // Before anybody said who he is as well.
    let mut rogue = Rogue::link(&case.host, case.member.key.clone(), case.database);
    rogue.raw(b"SSH-2.0");
    case.survived(&rogue, Code::Protocol, "the peer sent a bad frame");
    let mut rogue = Rogue::link(&case.host, case.member.key.clone(), case.database);
    rogue.open(OPEN, None);
    case.survived(&rogue, Code::Protocol, "did not greet");
}

#[test]
fn another_version_says_which() {
    let case = Case::new();
    let mut rogue = Rogue::link(&case.host, case.member.key.clone(), case.database);
    let Frame::Hello { node, clock, features, .. } = rogue.hello() else { panic!() };
    rogue.send(&Frame::Hello { versions: (7, 9), node, clock, features });
    case.survived(&rogue, Code::Version, "protocol versions 7 to 9");
}

#[test]
fn data_beyond_a_frame_is_not_a_frame() {
    let case = Case::new();
    let mut rogue = case.rogue();
    rogue.raw(&Frame::Batch { channel: 0, raw: 5, bytes: vec![1; DATA_BYTES + 1] }.encode());
    case.survived(&rogue, Code::Protocol, "the limit is");
    let mut rogue = case.rogue();
    let raw = BATCH_BYTES as u32 + 1;
    rogue.raw(&Frame::Batch { channel: 0, raw, bytes: vec![1; 100] }.encode());
    case.survived(&rogue, Code::Protocol, "the limit is");
}

#[test]
fn a_batch_that_does_not_unpack() {
    let case = Case::new();
    let good = batch_of(&[case.run()]);
    let Frame::Batch { raw, bytes, .. } = packed(&good) else { panic!() };
    for frame in [
        Frame::Batch { channel: 0, raw: 100, bytes: vec![7; 100] },
        Frame::Batch { channel: 0, raw, bytes: bytes[..bytes.len() / 2].to_vec() },
        Frame::Batch { channel: 0, raw: raw - 1, bytes: bytes.clone() },
        Frame::Batch { channel: 0, raw: raw + 1, bytes: bytes.clone() },
    ] {
        let mut rogue = case.rogue();
        rogue.send(&frame);
        case.survived(&rogue, Code::Protocol, "compressed batch");
    }
}

#[test]
fn a_bomb_does_not_go_off() {
    let case = Case::new();
    // 64 MiB of zeros in some kilobytes, stated as little and as much as is allowed.
    let bytes = zstd::bulk::compress(&vec![0; 64 << 20], 19).unwrap();
    assert!(bytes.len() < DATA_BYTES);
    for raw in [1, 1_000, BATCH_BYTES as u32] {
        let mut rogue = case.rogue();
        rogue.send(&Frame::Batch { channel: 0, raw, bytes: bytes.clone() });
        case.survived(&rogue, Code::Protocol, "compressed batch");
    }
}

#[test]
fn a_batch_that_holds_no_runs() {
    let case = Case::new();
    let noise: Vec<u8> =
        (0..3_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let good = batch_of(&[case.run()]);
    for raw in [noise, good[..good.len() - 3].to_vec(), [&good[..], &[0]].concat()] {
        let mut rogue = case.rogue();
        rogue.send(&packed(&raw));
        let [(Code::Protocol, text)] = &rogue.closed[..] else { panic!("{:?}", rogue.closed) };
        case.survived(&rogue, Code::Protocol, text);
    }
}

#[test]
fn a_run_with_a_flipped_byte() {
    let case = Case::new();
    let good = batch_of(&[case.run()]);
    let before = (case.host.frontier(), case.host.digest());
    for at in (1..good.len()).step_by(7) {
        let mut wrong = good.clone();
        wrong[at] ^= 1;
        let mut rogue = case.rogue();
        rogue.send(&packed(&wrong));
        // Some bits are not the entries': a parent's head that is known here is not looked at again.
        if !rogue.closed.is_empty() {
            assert!(matches!(&rogue.closed[..], [(Code::Protocol, _)]), "{:?}", rogue.closed);
            assert_eq!((case.host.frontier(), case.host.digest()), before, "byte {at}");
        } else {
            let host = Case::new();
            let mut rogue = host.rogue();
            rogue.send(&packed(&wrong));
            assert_eq!(host.host.values("0"), ["new"], "byte {at}");
            return;
        }
    }
}

#[test]
fn a_forged_head_is_named() {
    let case = Case::new();
    let run = case.run();
    let forged = Run::new(case.database, run.entries().to_vec(), Signature([9; 64]), vec![]);
    let parents: usize = run.entries().iter().map(|e| e.header().parents.len()).sum();
    let forged = if parents == 0 {
        forged
    } else {
        let heads = vec![Signature([9; 64]); parents];
        Run::new(case.database, run.entries().to_vec(), Signature([9; 64]), heads)
    };
    let mut rogue = case.rogue();
    rogue.batch(&[forged]);
    case.survived(&rogue, Code::Protocol, "is not signed by its device");
}

#[test]
fn an_entry_whose_generation_lies_is_named() {
    let case = Case::new();
    let tip = case.member.view(|v| v.own_log().unwrap().unwrap());
    let frontier = case.member.view(|v| v.frontier().unwrap());
    let last = *frontier.positions().find(|p| p.log == tip).unwrap();
    let last = case.member.view(|v| v.entry(&last).unwrap().unwrap());
    let mut header = last.header().clone();
    header.generation += 5;
    let liar = Entry::new(header, last.payloads().map(|(s, p)| (s.clone(), p.clone())).collect());
    let liar = liar.unwrap();
    let head = anabranch_core::head::Head::sign(&case.member.key, &case.database, liar.position());
    let mut entries = case.run().entries().to_vec();
    entries.pop();
    entries.push(liar);
    let parents: usize = entries.iter().map(|e| e.header().parents.len()).sum();
    let signatures = entries.iter().flat_map(|e| &e.header().parents).map(|p| {
        let tips = case.host.view(|v| v.frontier().unwrap());
        tips.tips()
            .iter()
            .find(|t| t.head.position == *p)
            .map_or(Signature([0; 64]), |t| t.head.signature)
    });
    let signatures: Vec<_> = signatures.collect();
    assert_eq!(signatures.len(), parents);
    let mut rogue = case.rogue();
    rogue.batch(&[Run::new(case.database, entries, head.signature, signatures)]);
    case.survived(&rogue, Code::Protocol, "states generation");
}

#[test]
fn a_good_run_does_not_save_a_bad_one_in_the_same_batch() {
    let case = Case::new();
    let run = case.run();
    let forged = Run::new(case.database, run.entries().to_vec(), Signature([9; 64]), vec![]);
    let mut rogue = case.rogue();
    rogue.batch(&[run, forged]);
    let [(Code::Protocol, text)] = &rogue.closed[..] else { panic!("{:?}", rogue.closed) };
    case.survived(&rogue, Code::Protocol, text);
}

#[test]
fn places_of_several_logs_are_not_a_branch() {
    let case = Case::new();
    let place = |epoch| {
        let log = LogId { device: case.member.key.node_id(), epoch };
        Position { log, seq: 1, id: EntryId([1; 32]) }
    };
    for samples in [vec![], vec![place(1), place(2)]] {
        let mut rogue = case.rogue();
        rogue.send(&Frame::Fork { channel: 0, samples });
        case.survived(&rogue, Code::Protocol, "not of one log");
    }
}

#[test]
fn a_channel_belongs_to_who_opened_it() {
    let case = Case::new();
    let mut rogue = Rogue::greet(&case.host, case.member.key.clone(), case.database);
    rogue.open_as(1, OPEN, None);
    case.survived(&rogue, Code::Protocol, "not its own");
    let mut rogue = case.rogue();
    rogue.open(OPEN, None);
    case.survived(&rogue, Code::Protocol, "not its own");
    let mut rogue = case.rogue();
    rogue.send(&Frame::Opened { channel: 0, terms: OPEN, digest: None, ticket: None });
    case.survived(&rogue, Code::Protocol, "opened twice");
    let mut rogue = case.rogue();
    rogue.send(&rogue.hello());
    case.survived(&rogue, Code::Protocol, "greeted twice");
    // Frames for a channel that is not there go nowhere.
    let mut rogue = case.rogue();
    rogue.send(&Frame::Credit { channel: 8, bytes: 5 });
    rogue.send(&Frame::Opened { channel: 8, terms: OPEN, digest: None, ticket: None });
    assert_eq!(rogue.closed, []);
}

#[test]
fn what_failed_inside_is_not_told_to_the_peer() {
    let case = Case::new();
    let mut rogue = case.rogue();
    rogue.hold = true;
    let text = "storage failed: /srv/alice/secret.db is not readable".to_owned();
    rogue.session.answer(0, Answer::Failed { code: Code::Internal, text: text.clone() });
    rogue.pump();
    assert_eq!(rogue.closed, [(Code::Internal, text)], "but to the user");
    let Some(Frame::Refused { code, text, .. }) = rogue.got.last() else { panic!() };
    assert_eq!(*code, Code::Internal);
    assert!(!text.contains("alice"), "{text}");
}

#[test]
fn a_frontier_without_end_is_refused() {
    let case = Case::new();
    let tip = case.member.view(|v| v.frontier().unwrap().tips()[0]);
    let mut rogue = case.rogue();
    let tips = vec![tip; 2_000];
    for _ in 0..101 {
        rogue.send(&Frame::Tips { channel: 0, tips: tips.clone(), last: false });
    }
    case.survived(&rogue, Code::Limit, "too many tips");
}

fn arb_frame() -> impl Strategy<Value = Frame> {
    let channel = prop_oneof![4 => Just(0u32), 1 => 0u32..4];
    let position = (0u64..3, 0u64..5, any::<u8>()).prop_map(|(epoch, seq, id)| Position {
        log: LogId { device: Node::new(1).key.node_id(), epoch: 1000 + epoch },
        seq,
        id: EntryId([id; 32]),
    });
    let hash = any::<u8>().prop_map(|n| anabranch_core::blob::ChunkHash([n; 32]));
    let bytes = prop::collection::vec(any::<u8>(), 0..200);
    (channel, position, hash, bytes, 0..17, any::<u32>(), any::<bool>()).prop_map(
        |(channel, position, hash, bytes, kind, n, flag)| match kind {
            0 => Frame::Open {
                channel,
                name: [1; 32],
                terms: OPEN,
                digest: None,
                ticket: None,
                request: None,
                evidence: None,
            },
            1 => Frame::Opened { channel, terms: OPEN, digest: None, ticket: None },
            2 => Frame::Tips { channel, tips: vec![], last: flag },
            3 => Frame::Fork { channel, samples: vec![position; 3] },
            4 => Frame::ForkPoint { channel, log: position.log, held: flag.then_some(position) },
            5 => Frame::Batch { channel, raw: n % 1_000, bytes },
            6 => Frame::Credit { channel, bytes: n % 5 },
            7 => Frame::Level { channel, digest: Some([n as u8; 32]), busy: flag },
            8 => Frame::Want { channel, hashes: vec![hash; 3] },
            9 => Frame::Blob { channel, hash, bytes },
            10 => Frame::NoBlob { channel, hashes: vec![hash] },
            11 => Frame::Have { channel, hashes: vec![hash] },
            12 => {
                let symbols = vec![Symbol::default(); n as usize % 70];
                Frame::Symbols { channel, from: n % 3 * 32, tips: n, digest: [1; 32], symbols }
            }
            13 => Frame::Ask { channel, what: if flag { Ask::Symbols } else { Ask::Whole } },
            14 => Frame::Ask { channel, what: Ask::Named(vec![u64::from(n); 3]) },
            15 => Frame::Named { channel, tips: vec![] },
            _ => Frame::Refused { channel, code: Code::Done, text: String::new() },
        },
    )
}

proptest! {
    #![proptest_config(crate::cases(64))]

    #[test]
    fn any_frames_in_any_order_harm_nobody(
        frames in prop::collection::vec(arb_frame(), 1..30),
        releases in prop::collection::vec(any::<bool>(), 30),
    ) {
        let case = Case::new();
        let before = (case.host.frontier(), case.host.digest());
        let mut rogue = case.rogue();
        rogue.hold = true;
        for (frame, release) in frames.iter().zip(&releases) {
            rogue.send(frame);
            if *release {
                rogue.release();
            }
        }
        while rogue.release() {}
        prop_assert_eq!((case.host.frontier(), case.host.digest()), before);
        for (code, text) in &rogue.closed {
            // Once its channel is over it may ask for a database that is not here under the same number.
            let expected = matches!(code, Code::Protocol | Code::Limit | Code::NotServed);
            prop_assert!(expected, "{code:?} {text}");
        }
        let frontier = Frontier::default();
        prop_assert!(case.host.view(|v| Outgoing::new(v, &frontier).is_ok()));
        prop_assert!(case.host.view(|v| v.stores().unwrap()).iter().any(|s| s.id == StoreId::table("t")));
    }
}
