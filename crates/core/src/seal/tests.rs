use super::*;
use crate::blob::{Builder, ChunkSpan, MAX_CHUNK, NodeSpan, Piece, Step, Walker};
use crate::entry::{Entry, GrantRef, Header, Payload as StorePayload, Timestamp};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

fn key(n: u8) -> Key {
    Key::new(&DeviceKey::from_seed(&[n; 32]), b"here")
}

fn table() -> StoreId {
    StoreId::table("t")
}

fn log(n: u8) -> LogId {
    LogId { device: NodeId([n; 32]), epoch: u64::from(n) }
}

fn ring(keys: &[Key]) -> Ring {
    let mut ring = Ring::default();
    ring.found(DatabaseId([7; 32]));
    keys.iter().for_each(|key| drop(ring.insert(key.clone())));
    ring
}

fn sealed(key: &Key, plain: &[u8]) -> Vec<u8> {
    let bound = Bound { database: DatabaseId([7; 32]), log: &log(1), store: &table() };
    key.seal_payload(&bound, &EntryId([2; 32]), plain, &[])
}

proptest! {
    #[test]
    fn what_is_sealed_is_opened(plain: Vec<u8>) {
        let bytes = sealed(&key(1), &plain);
        // The frame is the key's id, the nonce, and their heads.
        prop_assert!(bytes.len() <= padded_len(plain.len()) + TAG + 66);
        let ring = ring(&[key(1)]);
        prop_assert_eq!(&*ring.open(&log(1), &table(), &bytes).unwrap(), &plain[..]);
    }

    #[test]
    fn a_flipped_bit_leaves_nothing(plain: Vec<u8>, at: usize, bit in 0_u8..8) {
        let mut bytes = sealed(&key(1), &plain);
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        if let Ok(opened) = ring(&[key(1)]).open(&log(1), &table(), &bytes) {
            prop_assert_eq!(&*opened, &[0u8; 0][..]);
        }
    }

    #[test]
    fn arbitrary_payloads_never_panic(bytes: Vec<u8>) {
        let _ = ring(&[key(1)]).open(&log(1), &table(), &bytes);
        let _ = decode_keys(&bytes);
    }

    #[test]
    fn key_ops_round_trip(ids in proptest::collection::vec(any::<([u8; 32], [u8; 24])>(), 0..6)) {
        let pairs: Vec<_> = ids.iter().map(|(id, half)| {
            let mut sealed = [0; 48];
            sealed[..24].copy_from_slice(half);
            (*id, sealed)
        }).collect();
        let ops = vec![
            KeyOp::New { id: KeyId([3; 32]) },
            KeyOp::Only { stores: vec!["a".into(), "b".into()] },
            KeyOp::Under {
                id: KeyId([1; 32]),
                others: pairs.iter().map(|(id, sealed)| (KeyId(*id), *sealed)).collect(),
            },
            KeyOp::Wrap {
                id: KeyId([2; 32]),
                to: pairs.iter().map(|(id, sealed)| (NodeId(*id), *sealed)).collect(),
            },
        ];
        let decoded = decode_keys(&encode_keys(&ops));
        prop_assert!(!decoded.unknown);
        prop_assert_eq!(decoded.ops.into_iter().collect::<Option<Vec<_>>>().unwrap(), ops);
    }

    #[test]
    fn padding_is_little_and_tells_little(len in 0..200_000_usize) {
        let padded = padded_len(len);
        prop_assert!(padded > len && (padded - 1) * 100 <= (len.max(63) * 112));
        prop_assert_eq!(padded_len(padded - 1), padded);
    }
}

#[test]
fn the_same_looks_different_each_time() {
    let bound = Bound { database: DatabaseId([7; 32]), log: &log(1), store: &table() };
    let after = |tip: u8| key(1).seal_payload(&bound, &EntryId([tip; 32]), b"text", &[]);
    assert_eq!(after(1), after(1));
    let (one, other) = (after(1), after(2));
    assert!(!one.windows(16).any(|window| other[40..].windows(16).any(|w| w == window)));
}

#[test]
fn it_is_bound_to_log_store_and_database() {
    let bytes = sealed(&key(1), b"text");
    let ring = ring(&[key(1)]);
    assert!(ring.open(&log(2), &table(), &bytes).unwrap().is_empty());
    for other in [StoreId::doc("t"), StoreId::table("u")] {
        assert!(ring.open(&log(1), &other, &bytes).unwrap().is_empty());
    }
    let mut other = ring.clone();
    other.found(DatabaseId([8; 32]));
    assert!(other.open(&log(1), &table(), &bytes).unwrap().is_empty());
    assert_eq!(&*ring.open(&log(1), &table(), &bytes).unwrap(), b"text");
}

#[test]
fn another_key_is_asked_for_and_does_not_open() {
    let bytes = sealed(&key(1), b"text");
    assert_eq!(ring(&[key(2)]).open(&log(1), &table(), &bytes), Err(key(1).id()));
    assert!(!bytes.windows(4).any(|window| window == b"text"));
}

#[test]
fn a_wrapped_key_is_for_one_reader_from_one_author() {
    let [author, reader, other] = [1, 2, 3].map(|n| DeviceKey::from_seed(&[n; 32]));
    let key = key(9);
    let wrapped = key.wrapped(&author, &reader.node_id()).unwrap();
    let open = |who: &DeviceKey, from: &DeviceKey| {
        Key::unwrapped(who, &from.node_id(), &key.id(), &wrapped)
    };
    assert_eq!(open(&reader, &author), Some(key.clone()));
    assert_eq!(open(&other, &author), None);
    assert_eq!(open(&reader, &other), None);
    // The author himself has no use for it, and may not take it for one that the reader wrapped.
    assert_eq!(open(&author, &reader), None);
}

#[test]
fn nobody_agrees_with_a_weak_key() {
    let mut neutral = [0; 32];
    neutral[0] = 1;
    let device = DeviceKey::from_seed(&[1; 32]);
    assert_eq!(device.agree(&NodeId(neutral)), None);
}

#[test]
fn a_key_opens_the_one_before_it() {
    let under = key(1).under(&key(2)).unwrap();
    assert_eq!(Key::from_under(&key(2), &key(1).id(), &under), Some(key(1)));
    assert_eq!(Key::from_under(&key(3), &key(1).id(), &under), None);
}

#[test]
fn keys_are_not_printed() {
    let printed = format!("{:?}", key(1));
    let bytes = key(1).0.map(|byte| format!("{byte:02x}")).concat();
    assert!(!printed.contains(&bytes[..8]) && !printed.contains(&format!("{:?}", key(1).0)));
}

/// Content as it is built with a key, or without.
struct Built {
    content: ContentRef,
    chunks: Vec<(ChunkSpan, Vec<u8>)>,
    nodes: BTreeMap<ChunkHash, Vec<u8>>,
}

fn built(key: Option<&Key>, content: &[u8], part: usize) -> Built {
    let mut builder = key.map_or_else(Builder::new, Builder::sealed);
    let (mut chunks, mut nodes) = (Vec::new(), BTreeMap::new());
    let mut sink = |piece: Piece<'_>| {
        match piece {
            Piece::Chunk { span, bytes } => chunks.push((span, bytes.to_vec())),
            Piece::Node { hash, bytes } => _ = nodes.insert(hash, bytes.to_vec()),
        }
        Ok::<_, Infallible>(())
    };
    for part in content.chunks(part.max(1)) {
        builder.push(part, &mut sink).unwrap();
    }
    let content = builder.finish(&mut sink).unwrap();
    Built { content, chunks, nodes }
}

impl Built {
    fn names(&self) -> BTreeSet<ChunkHash> {
        self.chunks.iter().map(|(span, _)| span.hash).collect()
    }

    fn lens(&self) -> Vec<u64> {
        self.chunks.iter().map(|(span, _)| span.len).collect()
    }

    /// What a reader makes of the tree.
    fn opened(&self, ring: &Ring) -> Vec<u8> {
        let lookup = |place: &NodeSpan| Ok::<_, Infallible>(self.nodes.get(&place.hash).cloned());
        let mut plain = Vec::new();
        for step in Walker::new(&self.content.padded(), lookup) {
            let Step::Chunk(span) = step.unwrap() else { panic!("a node is missing") };
            let (_, bytes) = self.chunks.iter().find(|(other, _)| other.hash == span.hash).unwrap();
            let chunk = ring.open_chunk(&table(), bytes).unwrap();
            assert_eq!((plain.len() as u64, chunk.len() as u64), (span.offset, span.len));
            plain.extend_from_slice(&chunk);
        }
        assert_eq!(plain.len() as u64, self.content.padded().size());
        plain.truncate(self.content.size() as usize);
        plain
    }
}

fn noise(seed: &str, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(seed.as_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn sealed_content_is_read_again_and_does_not_depend_on_how_it_came(
        seed in "[a-z]{3}", len in prop_oneof![0..2_000_usize, 0..1_200_000_usize], part in 1..700_000_usize
    ) {
        let plain = noise(&seed, len);
        let [one, other] = [len.max(1), part].map(|part| built(Some(&key(1)), &plain, part));
        prop_assert_eq!(one.content, other.content);
        prop_assert_eq!(one.opened(&ring(&[key(1)])), plain);
        prop_assert_eq!(one.content.size(), len as u64);
        let kept = one.content.padded();
        prop_assert_eq!(kept.padded(), kept);
        prop_assert!(ContentRef::new(kept.size(), kept.depth(), kept.root()).is_ok());
        let again = ContentRef::new(len as u64, kept.depth(), kept.root());
        prop_assert_eq!(again.unwrap(), one.content, "its value is read again");
        prop_assert!(one.chunks.iter().all(|(span, bytes)| bytes.len() as u64 == span.len + CHUNK_OVERHEAD as u64));
    }

    #[test]
    fn a_changed_chunk_opens_as_nothing(len in 1..300_usize, at: usize, bit in 0_u8..8) {
        let mut bytes = Sealer::new(&key(1)).seal(&noise("chunk", len));
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        prop_assert!(ring(&[key(1)]).open_chunk(&table(), &bytes).is_err());
    }

    #[test]
    fn arbitrary_chunks_are_refused(bytes: Vec<u8>) {
        prop_assert!(ring(&[key(1)]).open_chunk(&table(), &bytes).is_err());
        prop_assert_eq!(&*Ring::default().open_chunk(&table(), &bytes).unwrap(), &bytes[..]);
        let named = [&key(1).id().0[..], &bytes].concat();
        prop_assert!(ring(&[key(1)]).open_chunk(&table(), &named).is_err());
    }
}

#[test]
fn sealed_content_has_nothing_of_the_plain_one() {
    let plain = noise("secret", 3 << 20);
    let [open, one, other] =
        [None, Some(key(1)), Some(key(2))].map(|k| built(k.as_ref(), &plain, 1 << 20));
    for (a, b) in [(&open, &one), (&open, &other), (&one, &other)] {
        assert!(a.names().is_disjoint(&b.names()));
        // Nor are they of the same lengths, but for those that say nothing.
        let (a, b) = (a.lens(), b.lens());
        let same = a.iter().filter(|len| **len < MAX_CHUNK as u64 && b.contains(len)).count();
        assert!(same <= 1, "{a:?} {b:?}");
    }
    assert_eq!(one.content.padded().size(), padded(3 << 20));
    let occurs = |text: &[u8]| {
        one.chunks.iter().any(|(_, bytes)| bytes.windows(text.len()).any(|window| window == text))
    };
    assert!(!occurs(&plain[..16]) && !occurs(&plain[2_000_000..2_000_016]));
}

#[test]
fn a_later_version_shares_most_chunks() {
    let before = noise("stable", 4 << 20);
    let mut after = before.clone();
    after.splice(2_000_000..2_000_000, *b"a few bytes more");
    let [before, after] = [before, after].map(|plain| built(Some(&key(1)), &plain, 1 << 20));
    let shared = before.names().intersection(&after.names()).count();
    assert!(shared + 4 >= after.chunks.len(), "{shared} of {}", after.chunks.len());
}

/// What follows the content looks like the content, also where it is several chunks, and differs from content to content.
#[test]
fn padding_is_no_landmark() {
    let len = (8 << 20) + 1;
    let [one, other] =
        ["one", "other"].map(|seed| built(Some(&key(1)), &noise(seed, len), 1 << 20));
    assert!(one.content.padded().size() - len as u64 > 250_000);
    assert_eq!(one.names().len(), one.chunks.len());
    assert!(one.names().is_disjoint(&other.names()));
}

#[test]
fn a_chunk_says_which_key_it_needs() {
    let chunk = Sealer::new(&key(1)).seal(b"text");
    assert_eq!(ring(&[key(2)]).open_chunk(&table(), &chunk), Err(ChunkError::NoKey(key(1).id())));
    assert_eq!(&*ring(&[key(2), key(1)]).open_chunk(&table(), &chunk).unwrap(), b"text");
}

#[test]
fn a_payload_lists_what_it_names() {
    let bound = Bound { database: DatabaseId([7; 32]), log: &log(1), store: &table() };
    let content = |size, n| ContentRef::new(size, 0, ChunkHash([n; 32])).unwrap().padded();
    let named = [content(5, 1), content(20_000, 2)];
    let with = |named: &[ContentRef]| key(1).seal_payload(&bound, &EntryId([2; 32]), b"x", named);
    let (bytes, bare) = (with(&named), with(&[]));
    assert_eq!(contents(&bytes), named);
    assert_eq!(&*ring(&[key(1)]).open(&log(1), &table(), &bytes).unwrap(), b"x");
    assert!(contents(&bare).is_empty());
    // One spelling: no empty list, nothing that is not padded, nothing of no size.
    let ring = ring(&[]);
    let tampered = |list: &[u8]| [&[0x84], &bare[1..], list].concat();
    let is_none =
        |bytes: &[u8]| ring.open(&log(1), &table(), bytes).is_ok_and(|ops| ops.is_empty());
    assert!(!is_none(&bare) && !is_none(&bytes));
    assert!(is_none(&tampered(&[0x80])));
    for (size, root) in [(vec![0x18, 65], [1; 32]), (vec![0], ContentRef::empty().root().0)] {
        let item = [&[0x81, 0x83][..], &size, &[0, 0x58, 32], &root].concat();
        assert!(is_none(&tampered(&item)), "{size:?}");
        assert!(contents(&tampered(&item)).is_empty());
    }
    let short = [&[0x82], &bare[1..]].concat();
    assert!(is_none(&short));
}

fn genesis(ops: Option<Vec<u8>>) -> Entry {
    let header = Header {
        database: None,
        log: log(1),
        seq: 1,
        prev: None,
        parents: Vec::new(),
        generation: 1,
        timestamp: Timestamp(1),
        grant: GrantRef::OWN,
        payloads: Vec::new(),
        salt: Some([1; 16]),
    };
    let payload = |ops| (StoreId::keys(), StorePayload::Present(ops));
    Entry::new(header, ops.map(payload).into_iter().collect()).unwrap()
}

#[test]
fn a_first_entry_says_what_is_sealed_and_what_is_no_list_seals_everything() {
    let only =
        |stores: &[&str]| KeyOp::Only { stores: stores.iter().map(|s| (*s).into()).collect() };
    let said = |ops: &[KeyOp]| Scope::of(&genesis(Some(encode_keys(ops))));
    let new = KeyOp::New { id: KeyId([3; 32]) };
    assert_eq!(Scope::of(&genesis(None)), Scope::Nothing);
    assert_eq!(said(std::slice::from_ref(&new)), Scope::Everything);
    let some = Scope::Stores(vec!["a".into(), "b".into()]);
    assert_eq!(said(&[new.clone(), only(&["a", "b"]), only(&["c"])]), some);
    let many: Vec<String> = (0..65).map(|n| format!("{n:03}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let long = "x".repeat(limits::STORE_NAME_BYTES + 1);
    for odd in [&[][..], &[""], &["b", "a"], &["a", "a"], &many, &[&long]] {
        assert_eq!(said(&[new.clone(), only(odd)]), Scope::Everything, "{odd:?}");
    }
    for scope in [Scope::Everything, some, Scope::Stores(vec!["z".into()])] {
        assert_eq!(Scope::from_row(&scope.row().unwrap()).unwrap(), scope);
    }
    assert_eq!(Scope::Nothing.row(), None);
    assert!(Scope::from_row(&[0x80]).is_err() && Scope::from_row(&[0]).is_err());
}

#[test]
fn what_is_not_on_the_list_is_as_it_is() {
    let mut ring = ring(&[key(1)]);
    ring.found_with(DatabaseId([7; 32]), Scope::Stores(vec!["t".into()]));
    let bytes = sealed(&key(1), b"text");
    assert_eq!(&*ring.open(&log(1), &table(), &bytes).unwrap(), b"text");
    // One name seals stores of all kinds, but for the two that everybody has to read.
    assert!(ring.seals(&StoreId::doc("t")) && !ring.seals(&StoreId::table("u")));
    assert!(!ring.seals(&StoreId::members()) && !ring.seals(&StoreId::keys()));
    assert_eq!(&*ring.open(&log(1), &StoreId::table("u"), b"clear").unwrap(), b"clear");
    assert!(ring.open(&log(1), &table(), b"clear").unwrap().is_empty());
}
