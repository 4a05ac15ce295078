//! Folders of sealed databases: pieces are served out of files that are not encrypted, under the key that everybody else has
//! them by.

use crate::replica::path;
use crate::site::{Folder, cell};
use anabranch_core::author::{Draft, Seen};
use anabranch_core::blob::ChunkSpan;
use anabranch_core::blob::{
    Builder, ChunkHash, ContentRef, MAX_CHUNK, MIN_CHUNK, Piece, Step, Walker,
};
use anabranch_core::founding::Founding;
use anabranch_core::key::DeviceKey;
use anabranch_core::ops::{Cut, MemberOp, Role, Subject, TicketTerms};
use anabranch_core::seal::{CHUNK_OVERHEAD, Key, KeyId, Ring, Scope};
use anabranch_core::storage::Table;
use anabranch_folder::fs::{FileSystem, Op};
use anabranch_folder::path::RelPath;
use anabranch_folder::scan::{Keeping, Problem, Progress, ScanWatch, hash_file};
use anabranch_folder::state::{Kept, State};
use anabranch_folder::store;
use anabranch_node::Replica;
use proptest::prelude::*;
use std::convert::Infallible;
use std::ops::ControlFlow;
use std::sync::Arc;

fn reader() -> Subject {
    Subject::Device(DeviceKey::from_seed(&[9; 32]).node_id())
}

fn rule(replica: &Replica, members: Vec<MemberOp>) {
    let done = replica.commit_group(&[vec![Draft { members, ..Draft::default() }]]).unwrap();
    done.into_iter().for_each(|done| drop(done.unwrap()));
}

/// Puts the reader out, so that another key is needed.
fn put_out(replica: &Replica) {
    let grants = replica.look(|view| view.grants()).unwrap();
    let held = grants.iter().find(|grant| grant.subject == reader() && grant.holds).unwrap();
    rule(replica, vec![MemberOp::Revoke { grant: held.id, cut: Cut::Past }]);
}

/// A folder of a sealed database, and somebody who may read it.
fn sealed_folder() -> Folder {
    let folder = Folder::founded(Founding { sealed: Scope::Everything, recovery: None });
    let (role, terms) = (Role::Read, TicketTerms::default());
    rule(&folder.replica, vec![MemberOp::Grant { subject: reader(), role, priority: 0, terms }]);
    folder
}

impl Folder {
    fn state(&self, name: &str) -> State {
        let values = self.replica.read(|view| view.cell(&store(), &cell(name))).unwrap();
        State::decode(&values.first().unwrap().value).unwrap()
    }

    fn key(&self, name: &str) -> KeyId {
        self.state(name).kept().unwrap().key
    }

    fn ring(&self) -> Ring {
        self.replica.look(|view| view.ring()).unwrap()
    }

    fn stored(&self) -> usize {
        let (mut count, tx) = (0, self.replica.storage().read().unwrap());
        tx.keys(Table::Blob, &[], None, &mut |_| {
            count += 1;
            ControlFlow::Continue(())
        })
        .unwrap();
        count
    }

    /// What a peer gets that asks for all pieces of what a path is; and how many manifest nodes there are among them.
    fn served(&self, name: &str) -> (Vec<u8>, usize) {
        let (state, ring, blobs) = (self.state(name), self.ring(), self.replica.blobs());
        let (mut plain, nodes) = (Vec::new(), std::cell::Cell::new(0));
        let lookup = |place: &anabranch_core::blob::NodeSpan| {
            nodes.set(nodes.get() + 1);
            blobs.get(&place.hash)
        };
        for step in Walker::new(&state.pieces().unwrap(), lookup) {
            let Step::Chunk(span) = step.unwrap() else { panic!("a node is missing") };
            let bytes = blobs.get(&span.hash).unwrap().unwrap_or_else(|| panic!("{span:?}"));
            span.hash.verify(&bytes).unwrap();
            plain.extend_from_slice(&ring.open_chunk(&store(), &bytes).unwrap());
        }
        plain.truncate(state.content().unwrap().size() as usize);
        (plain, nodes.get())
    }
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_be_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn plain(content: &[u8]) -> ContentRef {
    let (mut builder, pass) = (Builder::new(), |_: Piece<'_>| Ok::<_, Infallible>(()));
    builder.push(content, pass).unwrap();
    builder.finish(pass).unwrap()
}

/// How `key` keeps content, and the pieces.
fn sealed(key: &Key, content: &[u8]) -> (Kept, Vec<(ChunkHash, Vec<u8>)>) {
    let (mut builder, mut pieces) = (Builder::sealed(key), Vec::new());
    let mut keep = |piece: Piece<'_>| {
        let (Piece::Chunk { bytes, .. } | Piece::Node { bytes, .. }) = piece;
        pieces.push((ChunkHash::of(bytes), bytes.to_vec()));
        Ok::<_, Infallible>(())
    };
    builder.push(content, &mut keep).unwrap();
    let content = builder.finish(&mut keep).unwrap();
    (Kept { content, key: key.id() }, pieces)
}

fn file(content: ContentRef, kept: Kept) -> State {
    State::File { content, kept: Some(kept), mode: 0o644, mtime_ns: 7 }
}

fn arb_size() -> impl Strategy<Value = usize> {
    let near = |size: usize| size.saturating_sub(2)..size + 3;
    prop_oneof![
        1..200_usize,
        near(MIN_CHUNK),
        near(MAX_CHUNK),
        near(2 * MAX_CHUNK),
        1..700_000_usize,
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// The end of a file is served with its padding, and none of it is stored a second time.
    #[test]
    fn every_piece_of_a_file_is_served_from_it(seed: u64, len in arb_size()) {
        let (folder, content) = (sealed_folder(), noise(seed, len));
        folder.fs.write(&path("a"), &content).unwrap();
        prop_assert_eq!(folder.update().recorded, [path("a")]);
        let (served, nodes) = folder.served("a");
        prop_assert_eq!(served, content);
        prop_assert_eq!(folder.stored(), nodes);
    }
}

#[test]
fn an_empty_file_has_no_pieces() {
    let folder = sealed_folder();
    folder.fs.write(&path("a"), b"").unwrap();
    folder.update();
    assert_eq!((folder.state("a").kept(), folder.served("a").0), (None, Vec::new()));
}

#[test]
fn another_key_changes_nothing_but_what_is_new() {
    let folder = sealed_folder();
    for (n, name) in (0..).zip(["a", "b", "c"]) {
        folder.fs.write(&path(name), &noise(n, 300_000)).unwrap();
    }
    folder.update();
    let before = folder.key("a");
    put_out(&folder.replica);
    // One is written to, one only looks as if it had been, one moves.
    folder.fs.write(&path("a"), &noise(7, 300_000)).unwrap();
    folder.fs.write(&path("b"), &noise(1, 300_000)).unwrap();
    folder.fs.rename(&path("c"), &path("d"), false).unwrap();
    folder.update();
    assert_ne!(folder.key("a"), before);
    assert_eq!(folder.key("b"), before);
    for (name, n) in [("a", 7), ("b", 1), ("d", 2)] {
        assert!(folder.served(name).0 == noise(n, 300_000), "{name}");
    }
}

#[test]
fn what_was_read_before_somebody_was_put_out_is_not_for_him() {
    let folder = sealed_folder();
    folder.fs.write(&path("old"), b"known").unwrap();
    folder.update();
    let known = folder.key("old");
    folder.fs.write(&path("new"), &noise(1, 100_000)).unwrap();
    let (replica, new) = (Arc::clone(&folder.replica), path("new"));
    let once = std::sync::Once::new();
    folder.fs.set_hook(move |_, op, at| {
        if op == Op::Open && at == Some(&new) {
            once.call_once(|| put_out(&replica));
        }
        Ok(())
    });
    assert_eq!(folder.update().recorded, [path("new")]);
    folder.fs.clear_hook();
    assert_ne!(folder.key("new"), known);
    assert!(folder.served("new").0 == noise(1, 100_000));
}

/// The same file was there before both met, and the other side has it under a key from before.
#[test]
fn a_file_that_others_have_under_another_key_is_served_under_that_one() {
    let folder = sealed_folder();
    folder.fs.write(&path("first"), b"text").unwrap();
    folder.update();
    let old = folder.key("first");
    let key = folder.ring().key(&old).unwrap().clone();
    put_out(&folder.replica);
    let content = noise(5, 900_000);
    let (kept, _) = sealed(&key, &content);
    let State::File { content: plain, kept, mut mode, mut mtime_ns } = file(plain(&content), kept)
    else {
        panic!("a file")
    };
    // Once with another time than the file has, once with the same.
    for (n, name) in (0..).zip(["a", "b"]) {
        folder.fs.write(&path(name), &content).unwrap();
        if n == 1 {
            let stat = folder.fs.lstat(&path(name)).unwrap();
            (mode, mtime_ns) = (stat.mode, stat.mtime_ns);
        }
        let state = State::File { content: plain, kept, mode, mtime_ns };
        folder.state_elsewhere(name, Some(&state), Seen::AtCommit);
        let updated = folder.update();
        assert_eq!((updated.recorded, updated.bytes_written), (Vec::new(), 0), "it is the same");
        assert_eq!(folder.key(name), old);
        assert!(folder.served(name).0 == content);
        folder.fs.remove_file(&path(name)).unwrap();
        folder.update();
    }
}

/// A chunk that begins just as far from the end as the longest chunk is long.
#[test]
fn the_chunk_that_padding_depends_on_is_the_last_certain_one() {
    let folder = sealed_folder();
    folder.fs.write(&path("first"), b"text").unwrap();
    folder.update();
    let key = folder.ring().key(&folder.key("first")).unwrap().clone();
    let content = noise(3, 3 * MAX_CHUNK);
    let first = sealed(&key, &content).1[0].1.len() - CHUNK_OVERHEAD;
    let content = &content[..first + MAX_CHUNK];
    folder.fs.write(&path("a"), content).unwrap();
    folder.update();
    assert!(folder.served("a").0 == content);
}

#[test]
fn what_is_here_under_another_name_is_not_fetched() {
    let folder = sealed_folder();
    for (n, len) in [(1, 10), (2, 50_000), (3, 800_000)] {
        let (name, copy) = (format!("{n}"), format!("copy {n}"));
        folder.fs.write(&path(&name), &noise(n, len)).unwrap();
        folder.update();
        folder.state_elsewhere(&copy, Some(&folder.state(&name)), Seen::AtCommit);
        folder.update();
        assert!(folder.fs.read(&path(&copy)).unwrap() == noise(n, len), "{copy}");
        assert!(folder.served(&copy).0 == noise(n, len), "{copy}");
    }
}

/// Of a file that is here already nothing is written, so nobody would notice.
#[test]
fn a_lie_about_how_others_keep_a_file_is_not_taken_over() {
    let folder = sealed_folder();
    let [content, other] = [noise(1, 50_000), noise(2, 900_000)];
    folder.fs.write(&path("a"), &content).unwrap();
    folder.fs.write(&path("b"), &other).unwrap();
    folder.update();
    let (truth, node) = (folder.state("a"), folder.state("b").pieces().unwrap().root());
    let State::File { content: plain, kept: Some(kept), mode, mtime_ns } = truth else {
        panic!("a file")
    };
    let lie = ContentRef::new(plain.size(), 0, node).unwrap();
    let lie = Kept { content: lie, key: kept.key };
    folder.state_elsewhere(
        "a",
        Some(&State::File { content: plain, kept: Some(lie), mode, mtime_ns }),
        Seen::AtCommit,
    );
    folder.update();
    assert!(folder.served("b").0 == other, "its manifest is here");
    // Nor does an honest user name it.
    folder.fs.set_mode(&path("a"), 0o600).unwrap();
    assert_eq!(folder.update().recorded, [path("a")]);
    assert_ne!(folder.state("a").kept().unwrap().content, lie.content);
    assert!(folder.served("a").0 == content);
}

#[test]
fn a_file_that_is_not_kept_encrypted_is_left_alone() {
    let folder = sealed_folder();
    let text = b"in the clear";
    let state = State::File { content: plain(text), kept: None, mode: 0o644, mtime_ns: 7 };
    folder.replica.blobs().put(&[(ChunkHash::of(text), text.to_vec())]).unwrap();
    folder.state_elsewhere("a", Some(&state), Seen::AtCommit);
    let updated = folder.update();
    assert_eq!(updated.unread, [path("a")]);
    assert!(folder.fs.lstat(&path("a")).is_err());
}

/// Whoever may not write has no use for a key, and tells peers nothing of files that are not shared.
#[test]
fn pieces_in_the_clear_are_told_to_nobody() {
    struct Told(usize);
    impl ScanWatch for Told {
        fn chunk(&mut self, _: &RelPath, _: &ChunkSpan) -> std::io::Result<()> {
            self.0 += 1;
            Ok(())
        }
        fn node(&mut self, _: &ChunkHash, _: &[u8]) -> std::io::Result<()> {
            self.0 += 1;
            Ok(())
        }
        fn problem(&mut self, _: Problem) {}
    }
    let folder = sealed_folder();
    folder.fs.write(&path("a"), &noise(1, 900_000)).unwrap();
    let told = |keeping| {
        let (mut told, mut progress) = (Told(0), Progress::default());
        let (fs, clock) = (&folder.fs, &*folder.clock);
        let (hashed, _) =
            hash_file(fs, clock, &path("a"), keeping, &mut told, &mut progress).unwrap();
        assert_eq!(hashed.content, plain(&noise(1, 900_000)));
        (told.0 > 0, hashed.kept.is_some())
    };
    let key = Key::from_bytes([1; 32]);
    assert_eq!(told(Keeping::Open), (true, false));
    assert_eq!(told(Keeping::Sealed(None)), (false, false));
    assert_eq!(told(Keeping::Sealed(Some(&key))), (true, true));
}

#[test]
fn a_lie_about_what_is_encrypted_is_not_believed() {
    let folder = sealed_folder();
    folder.fs.write(&path("first"), b"text").unwrap();
    folder.update();
    let key = folder.ring().key(&folder.key("first")).unwrap().clone();
    let (kept, pieces) = sealed(&key, b"one thing");
    folder.replica.blobs().put(&pieces).unwrap();
    folder.state_elsewhere("a", Some(&file(plain(b"something"), kept)), Seen::AtCommit);
    let updated = folder.update();
    assert_eq!(updated.failed.len(), 1);
    assert!(updated.failed[0].why.to_string().contains("damaged"));
    assert!(folder.fs.lstat(&path("a")).is_err());
    // The truth is taken.
    folder.replica.blobs().put(&pieces).unwrap();
    folder.state_elsewhere("a", Some(&file(plain(b"one thing"), kept)), Seen::AtCommit);
    folder.update();
    assert_eq!(folder.fs.read(&path("a")).unwrap(), b"one thing");
}
