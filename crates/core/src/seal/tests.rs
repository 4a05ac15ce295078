use super::*;
use proptest::prelude::*;

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
