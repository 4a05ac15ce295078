//! Keys that sort as values do: what an index over a field is ordered by. A value is any bytes (peers write them); those that
//! are one scalar in CBOR sort as null, booleans, numbers by what they are worth, text, bytes, and everything else comes
//! last, by its encoding.
//!
//! A key is a tag and what its kind needs, so that no key is the beginning of another: of a number the nearest `f64`, made to
//! sort as bytes, and how far the number is from it; of text, bytes and the rest what they consist of, escaped as in
//! [`crate::path`] and ended by `00`.

use minicbor::data::Type;
use minicbor::decode::Decoder;

/// Bytes of a text, of bytes or of anything else that a stored key begins with; longer ones are told apart by a hash.
pub const PREFIX_BYTES: usize = 128;
/// The most that [`stored`] comes to: each byte escaped, a tag, the mark of a longer one, and its hash.
pub const STORED_BYTES: usize = 2 * PREFIX_BYTES + 1 + LONGER.len() + HASH;

const NULL: u8 = 0x01;
const FALSE: u8 = 0x02;
const TRUE: u8 = 0x03;
const NUMBER: u8 = 0x04;
const NOT_A_NUMBER: u8 = 0x05;
const TEXT: u8 = 0x06;
const BYTES: u8 = 0x07;
const OTHER: u8 = 0x08;

/// Follows the beginning of what is longer: after the `00` of what ends there, before any other byte.
const LONGER: [u8; 2] = [1, 0];
const HASH: usize = 16;
/// Of the `f64` and of the difference.
const NUMBER_BYTES: usize = 10;

/// The key under which an index keeps a value: as [`whole`], but of long values only the beginning and a hash. At most
/// [`STORED_BYTES`]; equal for two values exactly when they are equal, in the order of values as far as their first
/// [`PREFIX_BYTES`] differ.
#[must_use]
pub fn stored(value: &[u8]) -> Vec<u8> {
    Scalar::of(value).key(Some(PREFIX_BYTES))
}

/// A key that sorts as the value does, as long as the value.
#[must_use]
pub fn whole(value: &[u8]) -> Vec<u8> {
    Scalar::of(value).key(None)
}

/// The least and the greatest that [`stored`] gives for values that begin as this one: the same key twice unless it is long.
pub(crate) fn stored_bounds(value: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let key = stored(value);
    let (mut least, mut most) = (key.clone(), key);
    if is_long(&least) {
        let hash = least.len() - HASH;
        least[hash..].fill(0);
        most[hash..].fill(0xff);
    }
    (least, most)
}

/// Whether a stored key stands for the beginning of its value alone.
fn is_long(stored: &[u8]) -> bool {
    let (tag, rest) = stored.split_at(stored.len().min(1));
    matches!(tag, [TEXT | BYTES | OTHER]) && end_of(rest).is_some_and(|(_, long)| long)
}

/// Takes a stored key off the beginning of `bytes`.
pub(crate) fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let len = match tag {
        NULL | FALSE | TRUE | NOT_A_NUMBER => 0,
        NUMBER => NUMBER_BYTES,
        TEXT | BYTES | OTHER => end_of(rest)?.0,
        _ => return None,
    };
    bytes.split_at_checked(1 + len)
}

/// Where escaped bytes end, and whether they are the beginning of longer ones.
fn end_of(escaped: &[u8]) -> Option<(usize, bool)> {
    let mut at = 0;
    loop {
        match (*escaped.get(at)?, escaped.get(at + 1)) {
            (0, _) => return Some((at + 1, false)),
            (1, Some(0)) => {
                let end = at + LONGER.len() + HASH;
                return (end <= escaped.len()).then_some((end, true));
            }
            (1, Some(1 | 2)) => at += 2,
            (1, _) => return None,
            _ => at += 1,
        }
    }
}

enum Scalar<'v> {
    Null,
    Bool(bool),
    /// The nearest `f64`, and what is missing to the number itself.
    Number(f64, i16),
    NotANumber,
    Text(Vec<u8>),
    Bytes(Vec<u8>),
    Other(&'v [u8]),
}

impl<'v> Scalar<'v> {
    fn of(value: &'v [u8]) -> Self {
        let mut decoder = Decoder::new(value);
        match Self::read(&mut decoder) {
            Some(scalar) if decoder.position() == value.len() => scalar,
            _ => Self::Other(value),
        }
    }

    fn read(decoder: &mut Decoder<'v>) -> Option<Self> {
        Some(match decoder.datatype().ok()? {
            Type::Null => {
                decoder.null().ok()?;
                Self::Null
            }
            Type::Bool => Self::Bool(decoder.bool().ok()?),
            Type::F32 => Self::float(decoder.f32().ok()?.into()),
            Type::F64 => Self::float(decoder.f64().ok()?),
            Type::U8 | Type::U16 | Type::U32 | Type::U64 => {
                Self::integer(decoder.u64().ok()?.into())
            }
            Type::I8 | Type::I16 | Type::I32 | Type::I64 | Type::Int => {
                Self::integer(decoder.int().ok()?.into())
            }
            Type::String | Type::StringIndef => {
                let parts: Result<Vec<&str>, _> = decoder.str_iter().ok()?.collect();
                Self::Text(parts.ok()?.concat().into_bytes())
            }
            Type::Bytes | Type::BytesIndef => {
                let parts: Result<Vec<&[u8]>, _> = decoder.bytes_iter().ok()?.collect();
                Self::Bytes(parts.ok()?.concat())
            }
            _ => return None,
        })
    }

    fn float(number: f64) -> Self {
        // There are two zeros, and they are equal.
        if number.is_nan() { Self::NotANumber } else { Self::Number(number + 0.0, 0) }
    }

    /// Within 2⁶⁴ the nearest `f64` is at most 1,024 away.
    fn integer(number: i128) -> Self {
        let nearest = number as f64;
        Self::Number(nearest, (number - nearest as i128) as i16)
    }

    fn key(self, limit: Option<usize>) -> Vec<u8> {
        match self {
            Self::Null => vec![NULL],
            Self::Bool(false) => vec![FALSE],
            Self::Bool(true) => vec![TRUE],
            Self::NotANumber => vec![NOT_A_NUMBER],
            Self::Number(nearest, rest) => {
                let bits = nearest.to_bits();
                let sorted = if nearest.is_sign_negative() { !bits } else { bits | 1 << 63 };
                let rest = rest.cast_unsigned() ^ 1 << 15;
                [&[NUMBER][..], &sorted.to_be_bytes(), &rest.to_be_bytes()].concat()
            }
            Self::Text(text) => escaped(TEXT, &text, limit),
            Self::Bytes(bytes) => escaped(BYTES, &bytes, limit),
            Self::Other(bytes) => escaped(OTHER, bytes, limit),
        }
    }
}

fn escaped(tag: u8, bytes: &[u8], limit: Option<usize>) -> Vec<u8> {
    let kept = limit.map_or(bytes, |limit| &bytes[..bytes.len().min(limit)]);
    let mut key = Vec::with_capacity(kept.len() + 2);
    key.push(tag);
    for &byte in kept {
        match byte {
            0 => key.extend_from_slice(&[1, 1]),
            1 => key.extend_from_slice(&[1, 2]),
            byte => key.push(byte),
        }
    }
    if kept.len() == bytes.len() {
        key.push(0);
    } else {
        key.extend_from_slice(&LONGER);
        key.extend_from_slice(&blake3::hash(bytes).as_bytes()[..HASH]);
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use minicbor::encode::Encoder;
    use proptest::prelude::*;
    use std::cmp::Ordering;

    #[derive(Debug, Clone, PartialEq)]
    enum Value {
        Null,
        Bool(bool),
        Int(i64),
        Large(u64),
        Float(f64),
        Text(String),
        Bytes(Vec<u8>),
    }

    impl Value {
        fn encode(&self) -> Vec<u8> {
            let mut out = Vec::new();
            let mut encoder = Encoder::new(&mut out);
            match self {
                Self::Null => encoder.null(),
                Self::Bool(b) => encoder.bool(*b),
                Self::Int(n) => encoder.i64(*n),
                Self::Large(n) => encoder.u64(*n),
                Self::Float(n) => encoder.f64(*n),
                Self::Text(text) => encoder.str(text),
                Self::Bytes(bytes) => encoder.bytes(bytes),
            }
            .unwrap();
            out
        }

        fn kind(&self) -> u8 {
            match self {
                Self::Null => 0,
                Self::Bool(_) => 1,
                Self::Int(_) | Self::Large(_) | Self::Float(_) => 2,
                Self::Text(_) => 3,
                Self::Bytes(_) => 4,
            }
        }

        fn compare(&self, other: &Self) -> Ordering {
            let integer = |value: &Self| match value {
                Self::Int(n) => Some(i128::from(*n)),
                Self::Large(n) => Some(i128::from(*n)),
                _ => None,
            };
            match (self, other) {
                (Self::Bool(a), Self::Bool(b)) => a.cmp(b),
                (Self::Text(a), Self::Text(b)) => a.as_bytes().cmp(b.as_bytes()),
                (Self::Bytes(a), Self::Bytes(b)) => a.cmp(b),
                (Self::Float(a), Self::Float(b)) => a.partial_cmp(b).unwrap(),
                (a, Self::Float(b)) if integer(a).is_some() => beside(integer(a).unwrap(), *b),
                (Self::Float(a), b) if integer(b).is_some() => {
                    beside(integer(b).unwrap(), *a).reverse()
                }
                (a, b) => a.kind().cmp(&b.kind()).then(integer(a).cmp(&integer(b))),
            }
        }
    }

    /// Exact: a float below 2⁶⁵ has a whole part that fits, and a fraction that decides if those are equal.
    fn beside(integer: i128, float: f64) -> Ordering {
        if float.abs() > 4e19 {
            return 0.0.partial_cmp(&float).unwrap();
        }
        let whole = integer.cmp(&(float.floor() as i128));
        whole.then(if float.fract() == 0.0 { Ordering::Equal } else { Ordering::Less })
    }

    fn arb_value() -> impl Strategy<Value = Value> {
        let near = prop_oneof![Just(0i64), Just(1 << 53), Just(i64::MAX), Just(i64::MIN)];
        prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::Int),
            (near.clone(), -3i64..4).prop_map(|(n, by)| Value::Int(n.saturating_add(by))),
            (near, -3i64..4).prop_map(|(n, by)| Value::Float(n as f64 + by as f64)),
            (-3i64..4).prop_map(|n| Value::Float(n as f64 / 2.0)),
            any::<u64>().prop_map(Value::Large),
            any::<f64>().prop_filter("sorts", |n| !n.is_nan()).prop_map(Value::Float),
            "[a\u{0}\u{1}b]{0,3}".prop_map(Value::Text),
            (Just("a".repeat(PREFIX_BYTES - 1)), "[a\u{0}b]{0,4}")
                .prop_map(|(a, b)| Value::Text(a + &b)),
            proptest::collection::vec(0u8..4, 0..4).prop_map(Value::Bytes),
        ]
    }

    proptest! {
        #[test]
        fn keys_sort_as_values_do(a in arb_value(), b in arb_value()) {
            prop_assert_eq!(whole(&a.encode()).cmp(&whole(&b.encode())), a.compare(&b));
        }

        #[test]
        fn stored_keys_tell_values_apart_and_keep_their_order(a in arb_value(), b in arb_value()) {
            let (x, y) = (a.encode(), b.encode());
            prop_assert_eq!(stored(&x) == stored(&y), a.compare(&b).is_eq());
            let (least, most) = stored_bounds(&y);
            if a.compare(&b).is_ge() {
                prop_assert!(stored(&x) >= least);
            }
            if a.compare(&b).is_le() {
                prop_assert!(stored(&x) <= most);
            }
        }

        #[test]
        fn any_bytes_have_a_key_that_can_be_taken_off(value: Vec<u8>, rest: Vec<u8>) {
            for value in [value.clone(), vec![7; PREFIX_BYTES + 1], [value, vec![0; 300]].concat()] {
                let key = stored(&value);
                prop_assert!(key.len() <= STORED_BYTES);
                let bytes = [&key[..], &rest].concat();
                prop_assert_eq!(split(&bytes), Some((&key[..], &rest[..])));
            }
            let _ = split(&rest);
        }
    }

    #[test]
    fn what_is_no_number_has_its_place() {
        let encoded = |n: f64| Value::Float(n).encode();
        assert_eq!(stored(&encoded(f64::NAN)), stored(&encoded(-f64::NAN)));
        assert!(whole(&encoded(f64::INFINITY)) < whole(&encoded(f64::NAN)));
        assert_eq!(stored(&encoded(0.0)), stored(&encoded(-0.0)));
        assert_eq!(stored(&encoded(1.0)), stored(&Value::Int(1).encode()));
        // Two items are no number, nor is half a one.
        assert_eq!(stored(&[1, 1])[0], OTHER);
        assert_eq!(stored(&[0x1b, 1])[0], OTHER);
        // 1.5 in 32 bits, and a text in two pieces.
        assert_eq!(stored(&[0xfa, 0x3f, 0xc0, 0, 0]), stored(&encoded(1.5)));
        assert_eq!(
            stored(&[0x7f, 0x61, b'a', 0x61, b'b', 0xff]),
            stored(&Value::Text("ab".into()).encode())
        );
    }
}
