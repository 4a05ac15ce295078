//! A database that has reached the size that its node allows.

use crate::harness::{Node, join, noise, sync};
use anabranch_core::ops::Role;
use anabranch_core::storage::Storage;
use anabranch_sync::frame::Code;

#[test]
fn no_more_is_taken_than_may_and_it_goes_on_once_more_may() {
    let mut host = Node::new(1);
    let database = host.create();
    let mut member = join(&mut host, 2, database, Role::Write);
    (0..100).for_each(|n| _ = member.put(&format!("{n}"), &noise(n, 10_000)));
    host.full_at = 300_000;
    for _ in 0..3 {
        let outcome = sync(&member, &host, database);
        let [(side, code, text), ..] = &outcome.closed[..] else { panic!("{outcome:?}") };
        assert_eq!(*code, Code::Limit, "by {side}: {text}");
        assert!(text.contains("store.max_size"), "{text}");
    }
    // At most what one batch brings beyond it.
    let size = host.storage.size().unwrap();
    assert!((300_000..1_000_000).contains(&size), "{size} bytes");
    assert_eq!(host.values("0").len(), 1);
    // It still gives what it has, writes, and lets others in.
    host.put("own", "v");
    let other = join(&mut host, 3, database, Role::Read);
    assert_eq!(other.digest(), host.digest());
    host.full_at = 0;
    assert!(sync(&member, &host, database).settled);
    assert_eq!(host.digest(), member.digest());
    assert_eq!(host.values("99").len(), 1);
}
