//! Keys of the tables that are keyed by integer: between eight big-endian bytes and the number they stand for.
//!
//! Both back ends go through here, so that they agree on what a key of such a table is and what a bound of a scan means.

use anabranch_core::storage::StorageError;

const WIDTH: usize = 8;

/// The number that `key` stands for; nothing when it is not eight bytes long or its number is 2⁶³ or more.
pub(crate) fn number(key: &[u8]) -> Option<i64> {
    let bytes: [u8; WIDTH] = key.try_into().ok()?;
    i64::try_from(u64::from_be_bytes(bytes)).ok()
}

/// The number to store under, or the error for a key that such a table cannot hold.
pub(crate) fn number_to_store(key: &[u8]) -> Result<i64, StorageError> {
    number(key).ok_or_else(|| {
        StorageError::Io(format!(
            "a key of {} bytes cannot be stored in a table whose keys are numbers below 2^63",
            key.len()
        ))
    })
}

/// The key that stands for `number`; nothing when it is negative, which only a damaged file holds.
pub(crate) fn key(number: i64) -> Option<[u8; WIDTH]> {
    u64::try_from(number).ok().map(u64::to_be_bytes)
}

/// The smallest number whose key is not below `bound` as bytes; nothing when every key is.
pub(crate) fn first_at_or_after(bound: &[u8]) -> Option<i64> {
    let mut bytes = [0; WIDTH];
    let taken = bound.len().min(WIDTH);
    bytes[..taken].copy_from_slice(&bound[..taken]);
    let number = i64::try_from(u64::from_be_bytes(bytes)).ok()?;
    if bound.len() > WIDTH { number.checked_add(1) } else { Some(number) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_numbers_are_each_others_inverse() {
        for n in [0, 1, 255, 256, i64::MAX - 1, i64::MAX] {
            assert_eq!(number(&key(n).unwrap()), Some(n));
        }
        assert_eq!(key(-1), None);
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for bad in [&b""[..], &[0; 7], &[0; 9], &[0x80, 0, 0, 0, 0, 0, 0, 0]] {
            assert_eq!(number(bad), None);
            assert!(matches!(number_to_store(bad), Err(StorageError::Io(_))));
        }
    }

    #[test]
    fn a_bound_means_the_same_as_number_and_as_bytes() {
        let numbers = [0, 1, 2, 255, 256, 1 << 32, i64::MAX - 1, i64::MAX];
        let bounds: [&[u8]; 10] = [
            b"",
            &[0],
            &[0; 8],
            &[0; 9],
            &[0, 0, 0, 0, 0, 0, 1],
            &[0, 0, 0, 0, 0, 0, 0, 1, 0],
            &[0x7F],
            &[0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF],
            &[0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0],
            &[0x80],
        ];
        for bound in bounds {
            for n in numbers {
                let by_number = first_at_or_after(bound).is_some_and(|first| n >= first);
                assert_eq!(by_number, key(n).unwrap()[..] >= *bound, "{bound:?} {n}");
            }
        }
    }
}
