//! What somebody between the ends of an encrypted link can do, which is to end it.

use std::time::{Duration, Instant};

use anabranch_transport::secure::{self, HandshakeError, Role, StaticKey};
use anabranch_transport::{Link, LinkError, LinkReceiver, MAX_FRAME, memory};
use bytes::Bytes;

use crate::kinds::{self, PATIENCE};

const CAPACITY: usize = 64;

/// Frames that a man in the middle holds in his hands, one direction at a time.
struct Middle {
    initiator: Link,
    responder: Link,
    near: Link,
    far: Link,
}

impl Middle {
    fn new() -> Middle {
        let (initiator, near) = memory::pair(CAPACITY);
        let (far, responder) = memory::pair(CAPACITY);
        Middle { initiator, responder, near, far }
    }
}

fn key() -> StaticKey {
    StaticKey::generate().unwrap()
}

fn flipped(frame: &Bytes, bit: usize) -> Bytes {
    let mut bytes = frame.to_vec();
    bytes[bit / 8] ^= 1 << (bit % 8);
    bytes.into()
}

/// Runs a handshake through a middle that changes one of its three messages.
async fn handshake_with(tamper: impl Fn(usize, Bytes) -> Bytes) -> [Result<(), HandshakeError>; 2] {
    let Middle { initiator, responder, near, far } = Middle::new();
    let ours =
        tokio::spawn(async move { secure::connect(initiator, &key(), PATIENCE).await.map(drop) });
    let theirs =
        tokio::spawn(async move { secure::accept(responder, &key(), PATIENCE).await.map(drop) });
    let ((mut near_sender, mut near_receiver), (mut far_sender, mut far_receiver)) =
        (near.split(), far.split());
    for message in 0..3 {
        let (receiver, sender) = match message {
            1 => (&mut far_receiver, &mut near_sender),
            _ => (&mut near_receiver, &mut far_sender),
        };
        match receiver.recv().await {
            Ok(Some(frame)) => sender.send(tamper(message, frame)).await.ok(),
            _ => break,
        };
    }
    drop((near_sender, far_sender, near_receiver, far_receiver));
    [ours.await.unwrap(), theirs.await.unwrap()]
}

#[tokio::test]
async fn both_ends_agree_on_the_binding_and_sessions_differ() {
    let (ours, theirs) = kinds::secured(kinds::memory().await).await;
    assert_eq!(ours.binding, theirs.binding);
    assert_eq!((ours.role, theirs.role), (Role::Initiator, Role::Responder));
    assert_eq!(
        (ours.link.peer(), ours.link.trust()),
        ("memory", anabranch_transport::Trust::Trusted)
    );
    let (other, _) = kinds::secured(kinds::memory().await).await;
    assert_ne!(ours.binding, other.binding);
    assert_eq!(format!("{:?}", key()), "StaticKey(…)");
}

#[tokio::test]
async fn a_handshake_with_any_flipped_bit_fails_at_one_end_at_least() {
    let [ours, theirs] = handshake_with(|_, frame| frame).await;
    ours.unwrap();
    theirs.unwrap();
    for (message, length) in [(0, 32), (1, 96), (2, 64)] {
        for byte in 0..length {
            let [ours, theirs] = handshake_with(|number, frame| {
                assert_eq!(frame.len(), [32, 96, 64][number]);
                if number == message { flipped(&frame, byte * 8 + byte % 8) } else { frame }
            })
            .await;
            // The initiator is done when its last message is out; only the responder sees what became of it. The top
            // bit of a public key is ignored by X25519, but not by the hash of the handshake.
            assert!(theirs.is_err(), "message {message}, byte {byte}");
            assert!(message == 2 || ours.is_err(), "message {message}, byte {byte}");
            if let Err(error) = theirs {
                assert!(matches!(
                    error,
                    HandshakeError::Rejected(_) | HandshakeError::Link(LinkError::Truncated)
                ));
            }
        }
    }
}

#[tokio::test]
async fn handshake_messages_of_wrong_sizes_are_refused() {
    for size in [0, 1, 31, 33, 95, 97, 1000, 65_535, MAX_FRAME] {
        for message in 0..3 {
            let [_, theirs] =
                handshake_with(
                    |number, frame| {
                        if number == message { vec![1; size].into() } else { frame }
                    },
                )
                .await;
            theirs.expect_err("a handshake that never was");
        }
    }
}

#[tokio::test]
async fn two_initiators_or_a_plain_peer_do_not_get_through() {
    let (left, right) = memory::pair(CAPACITY);
    let (ours, theirs) = (key(), key());
    let (left, right) = tokio::join!(
        secure::connect(left, &ours, PATIENCE),
        secure::connect(right, &theirs, PATIENCE)
    );
    assert!(matches!(left, Err(HandshakeError::Rejected(_) | HandshakeError::Link(_))));
    assert!(matches!(right, Err(HandshakeError::Rejected(_) | HandshakeError::Link(_))));

    let (left, right) = memory::pair(CAPACITY);
    let (mut plain, _receiver) = right.split();
    plain.send(&b"{\"hello\":1}"[..]).await.unwrap();
    let rejected = secure::accept(left, &key(), PATIENCE).await.unwrap_err();
    assert!(matches!(rejected, HandshakeError::Rejected(_)), "{rejected:?}");
}

#[tokio::test]
async fn a_silent_peer_runs_into_the_time_limit() {
    let (left, _right) = memory::pair(CAPACITY);
    let started = Instant::now();
    let after = Duration::from_millis(50);
    let error = secure::accept(left, &key(), after).await.unwrap_err();
    assert!(matches!(error, HandshakeError::Timeout { after: Duration { .. } }));
    assert!(error.to_string().contains("50ms"), "{error}");
    assert!(started.elapsed() < PATIENCE);
}

/// What the responder makes of records that the initiator sent and the middle changed. Sent are five frames, two of
/// them of two records, and the close: eight records.
async fn records_with(
    tamper: impl FnOnce(Vec<Bytes>) -> Vec<Bytes>,
) -> (Vec<Bytes>, Result<(), LinkError>) {
    let Middle { initiator, responder, near, far } = Middle::new();
    let ours = tokio::spawn(async move { secure::connect(initiator, &key(), PATIENCE).await });
    let theirs = tokio::spawn(async move { secure::accept(responder, &key(), PATIENCE).await });
    let ((mut near_sender, mut near_receiver), (mut far_sender, mut far_receiver)) =
        (near.split(), far.split());
    far_sender.send(near_receiver.recv().await.unwrap().unwrap()).await.unwrap();
    near_sender.send(far_receiver.recv().await.unwrap().unwrap()).await.unwrap();
    far_sender.send(near_receiver.recv().await.unwrap().unwrap()).await.unwrap();

    let (mut sender, _ours) = ours.await.unwrap().unwrap().link.split();
    for frame in sent_frames() {
        sender.feed(frame).await.unwrap();
    }
    sender.close().await.unwrap();
    let mut records = Vec::new();
    while let Some(record) = near_receiver.recv().await.unwrap() {
        records.push(record);
    }
    assert_eq!(records.len(), RECORDS);
    for record in tamper(records) {
        far_sender.send(record).await.unwrap();
    }
    // The link below ends in good order, as an attacker would have it.
    far_sender.close().await.unwrap();
    received(theirs.await.unwrap().unwrap().link.split().1).await
}

const RECORDS: usize = 8;

fn sent_frames() -> [Bytes; 5] {
    let text = Bytes::from_static;
    [text(b"first"), vec![2; 70_000].into(), text(b""), vec![4; 70_000].into(), text(b"fifth")]
}

async fn received(mut receiver: LinkReceiver) -> (Vec<Bytes>, Result<(), LinkError>) {
    let mut frames = Vec::new();
    loop {
        match receiver.recv().await {
            Ok(Some(frame)) => frames.push(frame),
            Ok(None) => return (frames, Ok(())),
            Err(error) => return (frames, Err(error)),
        }
    }
}

/// Whatever happened on the way: what did arrive is what was sent, up to some point, and then comes this error.
#[track_caller]
fn assert_cut(
    (frames, end): (Vec<Bytes>, Result<(), LinkError>),
    expected: usize,
    truncated: bool,
) {
    assert_eq!(frames.len(), expected);
    assert_eq!(frames[..], sent_frames()[..expected]);
    match end {
        Err(LinkError::Truncated) if truncated => {}
        Err(LinkError::Tampered { .. }) if !truncated => {}
        other => panic!("{other:?}"),
    }
}

/// How many whole frames come before record `at`.
fn frames_before(at: usize) -> usize {
    [0, 1, 1, 2, 3, 3, 4, 5][at]
}

#[tokio::test]
async fn untouched_records_arrive_and_end_in_good_order() {
    let (frames, end) = records_with(|records| records).await;
    end.unwrap();
    assert_eq!(frames, sent_frames());
}

#[tokio::test]
async fn a_flipped_bit_anywhere_is_noticed() {
    for at in 0..RECORDS {
        for place in 0..24 {
            let outcome = records_with(|mut records| {
                let bits = records[at].len() * 8;
                records[at] = flipped(&records[at], (bits - 1) * place / 23);
                records
            })
            .await;
            assert_cut(outcome, frames_before(at), false);
        }
    }
}

#[tokio::test]
async fn dropped_repeated_and_moved_records_are_noticed() {
    for at in 0..RECORDS {
        let dropped = records_with(|mut records| {
            records.remove(at);
            records
        });
        // Nothing follows the close, so there its absence is all there is to see.
        assert_cut(dropped.await, frames_before(at), at == RECORDS - 1);

        let cut = records_with(|records| records[..at].to_vec());
        assert_cut(cut.await, frames_before(at), true);
    }
    for at in 0..RECORDS - 1 {
        let repeated = records_with(|mut records| {
            records.insert(at, records[at].clone());
            records
        });
        assert_cut(repeated.await, frames_before(at + 1), false);

        let swapped = records_with(|mut records| {
            records.swap(at, at + 1);
            records
        });
        assert_cut(swapped.await, frames_before(at), false);
    }
}

#[tokio::test]
async fn malformed_records_are_noticed() {
    for garbage in [vec![], vec![0; 15], vec![0; 16], vec![7; 65_535]] {
        let outcome = records_with(|mut records| {
            records.insert(1, garbage.into());
            records
        });
        assert_cut(outcome.await, 1, false);
    }
    let (frames, end) = records_with(|mut records| {
        records.insert(1, vec![7; 65_536].into());
        records
    })
    .await;
    assert_eq!(frames.len(), 1);
    assert!(matches!(end, Err(LinkError::TooBig { size: 65_536, limit: 65_535 })), "{end:?}");
}

#[tokio::test]
async fn a_record_reflected_to_its_sender_is_noticed() {
    let (ours, theirs) = memory::pair(CAPACITY);
    let (near, far) = memory::pair(CAPACITY);
    let reflector = tokio::spawn(async move {
        let ((mut to_ours, mut from_ours), (mut to_far, mut from_far)) =
            (theirs.split(), near.split());
        to_far.send(from_ours.recv().await.unwrap().unwrap()).await.unwrap();
        to_ours.send(from_far.recv().await.unwrap().unwrap()).await.unwrap();
        to_far.send(from_ours.recv().await.unwrap().unwrap()).await.unwrap();
        to_ours.send(from_ours.recv().await.unwrap().unwrap()).await.unwrap();
    });
    let (our_key, their_key) = (key(), key());
    let (connected, accepted) = tokio::join!(
        secure::connect(ours, &our_key, PATIENCE),
        secure::accept(far, &their_key, PATIENCE)
    );
    let (mut sender, mut receiver) = connected.unwrap().link.split();
    sender.send(&b"echo"[..]).await.unwrap();
    reflector.await.unwrap();
    assert!(matches!(receiver.recv().await, Err(LinkError::Tampered { record: 0 })));
    drop(accepted);
}
