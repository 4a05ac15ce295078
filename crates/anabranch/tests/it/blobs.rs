use crate::pair;
use anabranch::{Blobs, Database, Error, Keep, Node, NodeError};
use std::io::{self, Cursor, Read};
use std::ops::ControlFlow;
use std::time::Duration;

/// Bytes that no compression makes smaller and that no other seed begins with.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..len).map(|_| next()).collect()
}

async fn put(blobs: &Blobs, name: &str, content: &[u8]) {
    let media_type = "application/octet-stream";
    let blob = blobs.put(name, media_type, Cursor::new(content.to_vec())).await.unwrap();
    assert_eq!(blob.content.size(), content.len() as u64);
}

async fn all(blobs: &Blobs, name: &str) -> Option<Vec<u8>> {
    blobs.read(name, 0..u64::MAX).await.unwrap()
}

fn names(blobs: &Blobs) -> Vec<String> {
    let mut names = Vec::new();
    blobs
        .each(&mut |blob| {
            names.push(blob.name);
            ControlFlow::Continue(())
        })
        .unwrap();
    names
}

fn collect(db: &Database) -> u64 {
    db.collect_blocking(&mut |_| ()).unwrap().blobs
}

#[tokio::test]
async fn content_of_any_size_is_put_read_and_removed() {
    let db = Node::in_memory().unwrap().create("db").unwrap();
    let blobs = db.blobs("b");
    for (name, len) in [("empty", 0), ("small", 10), ("large", 3_000_000)] {
        let content = noise(len as u64, len);
        put(&blobs, name, &content).await;
        assert_eq!(all(&blobs, name).await, Some(content.clone()), "{name}");
        for range in [0..1, 5..len as u64 + 9, 100_000..100_001, 70_000..900_000, 7..7] {
            let at = |n: u64| (n as usize).min(len);
            let expected = content.get(at(range.start)..at(range.end)).unwrap_or_default();
            let read = blobs.read(name, range.clone()).await.unwrap().unwrap();
            assert!(read == expected, "{name} {range:?}");
        }
    }
    assert_eq!(names(&blobs), ["empty", "large", "small"]);
    let blob = blobs.get("large").unwrap().unwrap();
    assert_eq!(blob.shown.reference().unwrap().media_type, "application/octet-stream");
    assert!(blobs.is_here("large", &blob.shown).unwrap());
    blobs.remove("large").await.unwrap();
    assert_eq!(all(&blobs, "large").await, None);
    assert_eq!(names(&blobs), ["empty", "small"]);
    assert!(collect(&db) > 20);
    assert_eq!(collect(&db), 0);
    assert_eq!(all(&blobs, "small").await, Some(noise(10, 10)));
}

struct Breaks(usize);

impl Read for Breaks {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if self.0 == 0 {
            return Err(io::Error::other("the pipe broke"));
        }
        let count = to.len().min(self.0);
        to[..count].copy_from_slice(&noise(self.0 as u64, count));
        self.0 -= count;
        Ok(count)
    }
}

#[tokio::test]
async fn a_put_that_fails_leaves_nothing() {
    let db = Node::in_memory().unwrap().create("db").unwrap();
    let blobs = db.blobs("b");
    put(&blobs, "name", b"before").await;
    let failed = blobs.put("name", "", Breaks(4_000_000)).await;
    assert!(
        matches!(&failed, Err(Error::Value { why, .. }) if why.contains("broke")),
        "{failed:?}"
    );
    assert_eq!(all(&blobs, "name").await.unwrap(), b"before");
    assert!(collect(&db) > 30, "what it stored is taken away");
    let failed = blobs.put("name", &"x".repeat(256), Cursor::new(b"")).await;
    assert!(matches!(failed, Err(Error::Value { .. })), "{failed:?}");
    assert_eq!(all(&blobs, "name").await.unwrap(), b"before");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_eager_replica_has_all_content_when_a_sync_is_done() {
    let (a, b, serving) = pair().await;
    let (here, there) = (a.blobs("b"), b.blobs("b"));
    let contents: Vec<Vec<u8>> = (0..6).map(|n| noise(n, n as usize * 700_000)).collect();
    for (n, content) in contents.iter().enumerate() {
        put(&here, &n.to_string(), content).await;
    }
    put(&there, "back", &noise(77, 2_000_000)).await;
    b.sync_with(&serving.address()).await.unwrap();
    drop(serving);
    for (n, content) in contents.iter().enumerate() {
        let blob = there.get(&n.to_string()).unwrap().unwrap();
        assert!(there.is_here(&blob.name, &blob.shown).unwrap());
        assert!(
            all(&there.clone().waiting(Duration::ZERO), &blob.name).await.as_ref() == Some(content)
        );
    }
    let back = all(&here.waiting(Duration::ZERO), "back").await;
    assert!(back == Some(noise(77, 2_000_000)), "peers wait for what the other side fetches");
    assert_eq!(a.digest().unwrap(), b.digest().unwrap());
    assert_eq!((collect(&a), collect(&b)), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lazy_replica_fetches_what_is_read_and_gives_it_away_again() {
    let (a, b, serving) = pair().await;
    let (here, there) = (a.blobs("b"), b.blobs("b").waiting(Duration::from_secs(20)));
    there.set_keep(Keep::Lazy).unwrap();
    let content = noise(1, 8_000_000);
    put(&here, "video", &content).await;
    let empty = b.replica().storage().size().unwrap();
    b.sync_with(&serving.address()).await.unwrap();
    let blob = there.get("video").unwrap().unwrap();
    assert!(!there.is_here("video", &blob.shown).unwrap());
    let size = b.replica().storage().size().unwrap();
    assert!(size < empty + 10_000, "only the entry came");
    let apart = there.clone().waiting(Duration::from_millis(20)).read("video", 0..10).await;
    let refused = matches!(&apart, Err(Error::Node(NodeError::NoContent { connected: 0, .. })));
    assert!(refused, "{apart:?}");

    let address = serving.address();
    let follower = b.clone();
    let following =
        tokio::spawn(
            async move { follower.follow(&address, &anabranch::Control::default()).await },
        );
    let part = there.read("video", 5_000_000..5_000_100).await.unwrap().unwrap();
    assert!(part == content[5_000_000..5_000_100]);
    let size = b.replica().storage().size().unwrap();
    assert!(size < empty + 1_000_000, "only what the range touches was fetched");
    assert!(all(&there, "video").await == Some(content.clone()));
    assert!(b.replica().storage().size().unwrap() > 8_000_000);

    let gone = there.evict_blocking(Some("video")).unwrap();
    assert!(gone.bytes > 8_000_000, "{gone:?}");
    assert!(all(&there, "video").await == Some(content.clone()), "and is fetched again");
    let eager = here.evict_blocking(None);
    assert!(matches!(eager, Err(Error::Node(NodeError::Setting(_)))), "{eager:?}");
    here.set_keep(Keep::Lazy).unwrap();
    assert_eq!(
        here.evict_blocking(None).unwrap().blobs,
        0,
        "its own stays: nobody else may have it"
    );

    there.evict_blocking(None).unwrap();
    there.set_keep(Keep::Eager).unwrap();
    let blob = there.get("video").unwrap().unwrap();
    for _ in 0..500 {
        if there.is_here("video", &blob.shown).unwrap() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    following.abort();
    assert!(all(&there.waiting(Duration::ZERO), "video").await == Some(content));
}

#[tokio::test(flavor = "multi_thread")]
async fn both_versions_of_a_conflict_stay_until_one_is_chosen() {
    let (a, b, serving) = pair().await;
    let (here, there) = (a.blobs("b"), b.blobs("b"));
    let (one, other) = (noise(1, 300_000), noise(2, 300_000));
    put(&here, "same", &one).await;
    put(&there, "same", &one).await;
    put(&here, "x", &one).await;
    put(&there, "x", &other).await;
    b.sync_with(&serving.address()).await.unwrap();
    assert_eq!(a.conflicts().unwrap().len(), 1, "twice the same is none");
    assert_eq!((collect(&a), collect(&b)), (0, 0));
    let blob = there.get("x").unwrap().unwrap();
    let mut found = Vec::new();
    for version in blob.versions() {
        let mut bytes = Vec::new();
        let sink = &mut |part: &[u8]| {
            bytes.extend_from_slice(part);
            Ok(())
        };
        there.reader(version).unwrap().read(0..u64::MAX, sink).unwrap();
        found.push(bytes);
    }
    assert!(found == [one.clone(), other.clone()] || found == [other.clone(), one]);
    assert!(matches!(there.resolve("x", 3).await, Err(Error::Resolve(_))));
    there.resolve("x", 2).await.unwrap();
    assert!(all(&there, "x").await.as_ref() == Some(&found[1]));
    assert!(matches!(there.resolve("x", 1).await, Err(Error::Resolve(_))));
    b.sync_with(&serving.address()).await.unwrap();
    assert!(a.conflicts().unwrap().is_empty());
    let dropped = collect(&a);
    assert_eq!((dropped > 0, collect(&b)), (found[0] == other, dropped));
}
