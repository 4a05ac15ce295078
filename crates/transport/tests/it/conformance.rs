//! What every kind of link promises.

use std::time::Duration;

use anabranch_transport::{Link, LinkError, LinkReceiver, LinkSender, MAX_FRAME};
use bytes::Bytes;
use tokio::time::timeout;

use crate::kinds::{self, PATIENCE};

/// Sizes around every boundary that a layer has: length bytes, WebSocket headers, records, the limit.
const SIZES: [usize; 17] = [
    0,
    1,
    2,
    3,
    125,
    126,
    4096,
    65_517,
    65_518,
    65_519,
    65_535,
    65_536,
    131_036,
    131_037,
    500_000,
    MAX_FRAME - 1,
    MAX_FRAME,
];

/// A frame whose content depends on its place and size.
fn frame(place: usize, size: usize) -> Bytes {
    (0..size).map(|at| (at.wrapping_mul(31) ^ place) as u8).collect()
}

async fn every_size_arrives_in_order((left, right): (Link, Link)) {
    let (mut sender, left_receiver) = left.split();
    let (right_sender, mut receiver) = right.split();
    let sending = tokio::spawn(async move {
        for (place, size) in SIZES.into_iter().enumerate() {
            sender.send(frame(place, size)).await.unwrap();
        }
        sender
    });
    for (place, size) in SIZES.into_iter().enumerate() {
        let got = receiver.recv().await.unwrap().unwrap();
        assert_eq!(got.len(), size);
        assert!(got == frame(place, size), "frame {place} of {size} bytes was changed");
    }
    sending.await.unwrap();
    drop((left_receiver, right_sender));
}

async fn a_big_frame_is_refused_and_does_no_harm((left, right): (Link, Link)) {
    let (mut sender, _left) = left.split();
    let (_right, mut receiver) = right.split();
    let refused = sender.send(vec![0; MAX_FRAME + 1]).await.unwrap_err();
    assert!(
        matches!(refused, LinkError::TooBig { size: 524_289, limit: MAX_FRAME }),
        "{refused:?}"
    );
    sender.send(&b"still here"[..]).await.unwrap();
    assert_eq!(receiver.recv().await.unwrap().unwrap(), "still here");
}

async fn a_close_is_seen_and_the_other_direction_lives_on((left, right): (Link, Link)) {
    let (mut left_sender, mut left_receiver) = left.split();
    let (mut right_sender, mut right_receiver) = right.split();
    left_sender.feed(&b"one"[..]).await.unwrap();
    left_sender.close().await.unwrap();
    left_sender.close().await.unwrap();
    assert!(matches!(left_sender.feed(&b"two"[..]).await, Err(LinkError::Closed)));

    assert_eq!(right_receiver.recv().await.unwrap().unwrap(), "one");
    assert_eq!(right_receiver.recv().await.unwrap(), None);
    assert_eq!(right_receiver.recv().await.unwrap(), None);

    for place in 0..20 {
        let sending = async {
            right_sender.feed(frame(place, 30_000)).await?;
            right_sender.flush().await
        };
        let (sent, got) = tokio::join!(sending, left_receiver.recv());
        sent.unwrap();
        assert_eq!(got.unwrap().unwrap(), frame(place, 30_000));
    }
    right_sender.close().await.unwrap();
    assert_eq!(left_receiver.recv().await.unwrap(), None);
}

async fn dropping_is_not_closing((left, right): (Link, Link)) {
    let (mut sender, mut receiver) = right.split();
    let (mut left_sender, left_receiver) = left.split();
    left_sender.send(&b"last words"[..]).await.unwrap();
    assert_eq!(receiver.recv().await.unwrap().unwrap(), "last words");
    drop((left_sender, left_receiver));
    let end = timeout(PATIENCE, receiver.recv()).await.unwrap();
    assert!(matches!(end, Err(LinkError::Truncated)), "{end:?}");
    assert!(matches!(receiver.recv().await, Err(LinkError::Truncated)));

    let failing = async { while sender.send(vec![0; 1000]).await.is_ok() {} };
    timeout(PATIENCE, failing).await.expect("sending to nobody fails in the end");
    assert!(sender.send(&b""[..]).await.is_err());
}

async fn a_closer_may_leave_before_its_peer_is_done((left, right): (Link, Link)) {
    let (mut left_sender, left_receiver) = left.split();
    let (mut right_sender, mut right_receiver) = right.split();
    let leaving = tokio::spawn(async move {
        left_sender.send(frame(1, 300_000)).await.unwrap();
        left_sender.close().await.unwrap();
        drop((left_sender, left_receiver));
    });
    // The peer may or may not get rid of its frames, but it must see all of ours and the close.
    let _ = right_sender.send(&b"are you there?"[..]).await;
    assert_eq!(right_receiver.recv().await.unwrap().unwrap(), frame(1, 300_000));
    assert_eq!(right_receiver.recv().await.unwrap(), None);
    leaving.await.unwrap();
}

async fn both_drain_to_leave((left, right): (Link, Link)) {
    async fn leave((mut sender, mut receiver): (LinkSender, LinkReceiver)) {
        sender.feed(frame(0, 100_000)).await.unwrap();
        let (closed, drained) = tokio::join!(sender.close(), receiver.drain(PATIENCE));
        closed.unwrap();
        drained.unwrap();
    }
    tokio::join!(leave(left.split()), leave(right.split()));
}

async fn a_slow_receiver_holds_its_sender_back((left, right): (Link, Link)) {
    let (mut sender, _left) = left.split();
    let (_right, mut receiver) = right.split();
    let mut sent = 0;
    let stalled = async {
        loop {
            sender.feed(frame(sent, MAX_FRAME)).await.unwrap();
            sent += 1;
        }
    };
    // The operating system's buffers take some megabytes.
    timeout(Duration::from_millis(700), stalled).await.expect_err("a sender was never held back");
    assert!((1..80).contains(&sent), "{sent} frames were taken");

    let reading = tokio::spawn(async move {
        let mut frames = Vec::new();
        while let Some(frame) = receiver.recv().await.unwrap() {
            frames.push(frame);
        }
        frames
    });
    sender.close().await.unwrap();
    let frames = reading.await.unwrap();
    assert_eq!(frames.len(), sent, "a cancelled feed takes its frame whole or not at all");
    assert!(frames.iter().enumerate().all(|(place, got)| *got == frame(place, MAX_FRAME)));
}

async fn both_directions_run_at_once((left, right): (Link, Link)) {
    const FRAMES: usize = 60;
    let size = |place: usize| (place * 7919) % 150_000;
    let run = |link: Link| {
        let (mut sender, mut receiver) = link.split();
        let sending = tokio::spawn(async move {
            for place in 0..FRAMES {
                sender.feed(frame(place, size(place))).await.unwrap();
            }
            sender.close().await.unwrap();
            sender
        });
        let receiving = tokio::spawn(async move {
            for place in 0..FRAMES {
                assert!(
                    receiver.recv().await.unwrap().unwrap() == frame(place, size(place)),
                    "frame {place}"
                );
            }
            assert_eq!(receiver.recv().await.unwrap(), None);
        });
        async move {
            receiving.await.unwrap();
            sending.await.unwrap();
        }
    };
    let both = async { tokio::join!(run(left), run(right)) };
    timeout(PATIENCE, both).await.expect("both directions finish");
}

async fn a_cancelled_receive_loses_nothing((left, right): (Link, Link)) {
    let (mut sender, _left) = left.split();
    let (_right, mut receiver) = right.split();
    let sending = tokio::spawn(async move {
        for place in 0..30 {
            sender.send(frame(place, place * 5000)).await.unwrap();
            tokio::task::yield_now().await;
        }
        sender
    });
    let mut place = 0;
    while place < 30 {
        // Polled once, then dropped.
        let got = tokio::select! {
            biased;
            got = receiver.recv() => got.unwrap().unwrap(),
            () = tokio::task::yield_now() => continue,
        };
        assert!(got == frame(place, place * 5000), "frame {place}");
        place += 1;
    }
    sending.await.unwrap();
}

macro_rules! conformance {
    ($($kind:ident),*) => {$(
        mod $kind {
            use super::kinds;

            conformance!(@tests $kind,
                every_size_arrives_in_order, a_big_frame_is_refused_and_does_no_harm,
                a_close_is_seen_and_the_other_direction_lives_on, dropping_is_not_closing,
                a_closer_may_leave_before_its_peer_is_done, both_drain_to_leave,
                a_slow_receiver_holds_its_sender_back, both_directions_run_at_once,
                a_cancelled_receive_loses_nothing);
        }
    )*};
    (@tests $kind:ident, $($test:ident),*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $test() {
            let test = super::$test(kinds::$kind().await);
            super::timeout(3 * super::PATIENCE, test).await.expect("the link does not hang");
        }
    )*};
}

conformance!(memory, duplex, http, secure_memory, secure_duplex, secure_http);
