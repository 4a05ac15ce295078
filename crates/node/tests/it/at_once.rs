//! Several peers at once over real links: the engine's part of `sources`.

use crate::drives::row;
use crate::engine::{Served, node, pair, rows, target, ticket, until};
use anabranch_core::author::Draft;
use anabranch_core::ops::{MemberOp, Role, Subject, TicketTerms};
use std::time::{Duration, Instant};

/// The peer that came first has its turn and gets nothing through; another one waits and has the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_gets_nothing_through_is_passed_over() {
    let slow = node(2, &[("net.upload", "4KiB")]);
    let (one, replica, served, copy) = pair(&slow).await;
    let third = node(3, &[("net.claim_timeout", "500ms")]);
    let grant = MemberOp::Grant {
        subject: Subject::Device(third.id()),
        role: Role::Write,
        priority: 0,
        terms: TicketTerms::default(),
    };
    let mut drafts = vec![Draft { members: vec![grant], ..Draft::default() }];
    drafts.extend((0..2_000).map(|n| row(&format!("k{n}"), &format!("{:?}", (n, n * 7, n * n)))));
    replica.commit(drafts).await.unwrap();
    let handle = slow.keep(target(&copy, &served.address));
    until("the slow one has everything", || rows(&copy) == rows(&replica)).await;
    handle.stop().await;
    let slowly = Served::start(&slow, &[&copy], "0").await;
    let name = ticket(&one, &replica, &served.address, Duration::from_secs(60)).await;
    let empty = third.prepare(&name, "notes").unwrap();
    let first = third.keep(target(&empty, &slowly.address));
    until("it was told what is there", || first.standing().progress.lacking > 1_000).await;
    let began = Instant::now();
    let second = third.keep(target(&empty, &served.address));
    until("all came", || rows(&empty) == rows(&replica)).await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    until("the second one brought it", || second.standing().progress.entries_received > 1_000)
        .await;
    assert!(first.standing().progress.entries_received <= 4, "{:?}", first.standing().progress);
    // The slow one need not be waited for to get away.
    drop((first, second));
    served.end().await;
    drop(slowly);
}
