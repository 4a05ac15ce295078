//! The one encoding of everything that is signed, hashed, stored or sent: deterministic CBOR (RFC 8949, section 4.2.1)
//! cut down to unsigned integers, byte strings, text, arrays, `null` and booleans. [`Reader`] refuses every other spelling of the
//! same value, so that one value has one encoding (I2), and never allocates on the word of a length it has read (I4).

use minicbor::data::Type;
use minicbor::decode::Decoder;

/// Why bytes were refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Not the CBOR that was expected there.
    #[error("malformed {what} at byte {at}")]
    Malformed {
        /// What was being read.
        what: &'static str,
        /// Offset in the input.
        at: usize,
    },
    /// Well-formed, but a longer spelling than necessary or out of order.
    #[error("{what} at byte {at} is not in its one canonical form")]
    NotCanonical {
        /// What was being read.
        what: &'static str,
        /// Offset in the input.
        at: usize,
    },
    /// A count or length above the limit for it.
    #[error("{what} is {found}, the limit is {limit}")]
    TooLarge {
        /// What was being read.
        what: &'static str,
        /// The number stated.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// Bytes follow where the input should have ended.
    #[error("{0} bytes too many at the end")]
    Trailing(usize),
    /// A later version of the format.
    #[error("{what} has version {found}, this program reads {supported}; update anabranch")]
    Version {
        /// What was being read.
        what: &'static str,
        /// The version found.
        found: u64,
        /// The version that this program reads.
        supported: u64,
    },
}

/// Reads the canonical encoding from a byte slice, borrowing what it can.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    decoder: Decoder<'a>,
}

/// How deep arrays may be nested in an item that is passed over.
pub const NESTING: usize = 16;

fn head_len(n: u64) -> usize {
    match n {
        0..=23 => 1,
        24..=0xff => 2,
        0x100..=0xffff => 3,
        0x1_0000..=0xffff_ffff => 5,
        _ => 9,
    }
}

impl<'a> Reader<'a> {
    /// A reader at the start of `input`.
    #[must_use]
    pub fn new(input: &'a [u8]) -> Self {
        Self { decoder: Decoder::new(input) }
    }

    /// Offset of the next byte.
    #[must_use]
    pub fn position(&self) -> usize {
        self.decoder.position()
    }

    /// The bytes from `start` (an earlier [`Self::position`]) up to here.
    #[must_use]
    pub fn since(&self, start: usize) -> &'a [u8] {
        self.decoder.input().get(start..self.position()).unwrap_or_default()
    }

    fn read<T>(
        &mut self,
        what: &'static str,
        read: impl FnOnce(&mut Decoder<'a>) -> Result<T, minicbor::decode::Error>,
        len: impl FnOnce(&T) -> usize,
    ) -> Result<T, DecodeError> {
        let at = self.position();
        let value = read(&mut self.decoder).map_err(|_| DecodeError::Malformed { what, at })?;
        if self.position() - at == len(&value) {
            Ok(value)
        } else {
            Err(DecodeError::NotCanonical { what, at })
        }
    }

    /// An unsigned integer.
    ///
    /// # Errors
    /// [`DecodeError`] when something else or a longer spelling stands there.
    pub fn u64(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        self.read(what, Decoder::u64, |n| head_len(*n))
    }

    /// An unsigned integer of at most `limit`.
    ///
    /// # Errors
    /// As [`Self::u64`], and [`DecodeError::TooLarge`].
    pub fn number(&mut self, what: &'static str, limit: u64) -> Result<u64, DecodeError> {
        let found = self.u64(what)?;
        if found > limit {
            return Err(DecodeError::TooLarge { what, found, limit });
        }
        Ok(found)
    }

    /// An unsigned integer below 2³².
    ///
    /// # Errors
    /// As [`Self::number`].
    pub fn u32(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        let found = self.u64(what)?;
        u32::try_from(found).map_err(|_| DecodeError::TooLarge {
            what,
            found,
            limit: u64::from(u32::MAX),
        })
    }

    /// A byte string of at most `limit` bytes.
    ///
    /// # Errors
    /// As [`Self::number`].
    pub fn bytes(&mut self, what: &'static str, limit: usize) -> Result<&'a [u8], DecodeError> {
        let bytes = self.read(what, Decoder::bytes, |b| head_len(b.len() as u64) + b.len())?;
        within(what, bytes.len(), limit)?;
        Ok(bytes)
    }

    /// A byte string of exactly `N` bytes.
    ///
    /// # Errors
    /// As [`Self::number`].
    pub fn array_of<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], DecodeError> {
        let at = self.position();
        self.bytes(what, N)?.try_into().map_err(|_| DecodeError::Malformed { what, at })
    }

    /// Text of at most `limit` bytes.
    ///
    /// # Errors
    /// As [`Self::number`].
    pub fn text(&mut self, what: &'static str, limit: usize) -> Result<&'a str, DecodeError> {
        let text = self.read(what, Decoder::str, |s| head_len(s.len() as u64) + s.len())?;
        within(what, text.len(), limit)?;
        Ok(text)
    }

    /// The head of an array of at most `limit` items; returns how many follow.
    ///
    /// # Errors
    /// As [`Self::number`].
    pub fn array(&mut self, what: &'static str, limit: usize) -> Result<usize, DecodeError> {
        let at = self.position();
        let n = self
            .read(what, Decoder::array, |n| n.map_or(0, head_len))?
            .ok_or(DecodeError::NotCanonical { what, at })?;
        if n > limit as u64 {
            return Err(DecodeError::TooLarge { what, found: n, limit: limit as u64 });
        }
        usize::try_from(n).map_err(|_| DecodeError::Malformed { what, at })
    }

    /// The head of an array of exactly `n` items.
    ///
    /// # Errors
    /// As [`Self::array`].
    pub fn tuple(&mut self, what: &'static str, n: usize) -> Result<(), DecodeError> {
        let at = self.position();
        if self.array(what, n)? == n { Ok(()) } else { Err(DecodeError::Malformed { what, at }) }
    }

    /// `true` or `false`.
    ///
    /// # Errors
    /// [`DecodeError`] when something else stands there.
    pub fn bool(&mut self, what: &'static str) -> Result<bool, DecodeError> {
        self.read(what, Decoder::bool, |_| 1)
    }

    /// Whether the next item is a byte string.
    #[must_use]
    pub fn at_bytes(&self) -> bool {
        matches!(self.decoder.datatype(), Ok(Type::Bytes))
    }

    /// Passes over `null` if it stands here; returns whether it did.
    pub fn null(&mut self) -> bool {
        let here = matches!(self.decoder.datatype(), Ok(Type::Null));
        if here {
            self.decoder.set_position(self.position() + 1);
        }
        here
    }

    /// Passes over one item of any kind that this encoding has. What counts as an item decides which operations of a
    /// payload have an effect (I2), so it is decided here and not left to a library.
    ///
    /// # Errors
    /// [`DecodeError`] when no whole item is there, or one that is not canonical, or arrays nested deeper than
    /// [`NESTING`].
    pub fn skip(&mut self, what: &'static str) -> Result<(), DecodeError> {
        self.skip_within(what, NESTING)
    }

    fn skip_within(&mut self, what: &'static str, depth: usize) -> Result<(), DecodeError> {
        let at = self.position();
        match self.decoder.datatype() {
            Ok(Type::U8 | Type::U16 | Type::U32 | Type::U64) => self.u64(what).map(drop),
            Ok(Type::Bytes) => self.bytes(what, usize::MAX).map(drop),
            Ok(Type::String) => self.text(what, usize::MAX).map(drop),
            Ok(Type::Bool) => self.bool(what).map(drop),
            Ok(Type::Null) => Ok(_ = self.null()),
            Ok(Type::Array) if depth > 0 => {
                let items = self.array(what, usize::MAX)?;
                (0..items).try_for_each(|_| self.skip_within(what, depth - 1))
            }
            _ => Err(DecodeError::Malformed { what, at }),
        }
    }

    /// What has not been read yet.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.decoder.input().get(self.position()..).unwrap_or_default()
    }

    /// Ends reading.
    ///
    /// # Errors
    /// [`DecodeError::Trailing`] when something is left.
    pub fn finish(self) -> Result<(), DecodeError> {
        match self.rest().len() {
            0 => Ok(()),
            n => Err(DecodeError::Trailing(n)),
        }
    }
}

fn within(what: &'static str, found: usize, limit: usize) -> Result<(), DecodeError> {
    if found > limit {
        return Err(DecodeError::TooLarge { what, found: found as u64, limit: limit as u64 });
    }
    Ok(())
}

/// Writes the canonical encoding: each head in its shortest form (RFC 8949, section 4.2.1). Infallible: it only grows a vector.
#[derive(Debug)]
pub struct Writer {
    out: Vec<u8>,
}

impl Default for Writer {
    fn default() -> Self {
        Self::new()
    }
}

impl Writer {
    /// Most of what is written is a little shorter, and what grows is copied.
    const ROOM: usize = 192;

    /// An empty writer.
    #[must_use]
    pub fn new() -> Self {
        Self::onto(Vec::with_capacity(Self::ROOM))
    }

    /// A writer that appends to `out`.
    #[must_use]
    pub fn onto(out: Vec<u8>) -> Self {
        Self { out }
    }

    #[inline]
    fn head(&mut self, major: u8, n: u64) {
        let major = major << 5;
        if n < 24 {
            self.out.push(major | n as u8);
        } else if let Ok(n) = u8::try_from(n) {
            self.out.extend_from_slice(&[major | 24, n]);
        } else if let Ok(n) = u16::try_from(n) {
            let [a, b] = n.to_be_bytes();
            self.out.extend_from_slice(&[major | 25, a, b]);
        } else if let Ok(n) = u32::try_from(n) {
            let [a, b, c, d] = n.to_be_bytes();
            self.out.extend_from_slice(&[major | 26, a, b, c, d]);
        } else {
            let [a, b, c, d, e, f, g, h] = n.to_be_bytes();
            self.out.extend_from_slice(&[major | 27, a, b, c, d, e, f, g, h]);
        }
    }

    /// An unsigned integer.
    pub fn u64(&mut self, n: u64) -> &mut Self {
        self.head(0, n);
        self
    }

    /// A byte string.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.head(2, bytes.len() as u64);
        self.raw(bytes)
    }

    /// Text.
    pub fn text(&mut self, text: &str) -> &mut Self {
        self.head(3, text.len() as u64);
        self.raw(text.as_bytes())
    }

    /// The head of an array of `n` items.
    pub fn array(&mut self, n: usize) -> &mut Self {
        self.head(4, n as u64);
        self
    }

    /// `true` or `false`.
    pub fn bool(&mut self, value: bool) -> &mut Self {
        self.head(7, 20 + u64::from(value));
        self
    }

    /// `null`.
    pub fn null(&mut self) -> &mut Self {
        self.head(7, 22);
        self
    }

    /// Bytes that are already encoded.
    pub fn raw(&mut self, encoded: &[u8]) -> &mut Self {
        self.out.extend_from_slice(encoded);
        self
    }

    /// How many bytes were written.
    #[must_use]
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// Whether nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    /// The bytes.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.out
    }
}

/// BLAKE3 of `input` under `key`: how names and digests are blinded on a session.
#[must_use]
pub fn keyed_hash(key: &[u8; 32], input: &[u8]) -> [u8; 32] {
    *blake3::keyed_hash(key, input).as_bytes()
}

/// Appends `n` in base-128, least significant group first: the form of small numbers inside storage keys and rows,
/// where nothing is signed.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push((n as u8) | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Reads what [`put_varint`] wrote and advances `input`; `None` when it is cut off or longer than 64 bits.
pub(crate) fn take_varint(input: &mut &[u8]) -> Option<u64> {
    let mut n = 0u64;
    for (i, &byte) in input.iter().enumerate().take(10) {
        n |= u64::from(byte & 0x7f).checked_shl(7 * i as u32)?;
        if byte & 0x80 == 0 {
            *input = &input[i + 1..];
            return (i < 9 || byte <= 1).then_some(n);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_varint_beyond_64_bits_is_refused() {
        let mut most = Vec::new();
        put_varint(&mut most, u64::MAX);
        assert_eq!(take_varint(&mut &most[..]), Some(u64::MAX));
        *most.last_mut().unwrap() += 1;
        assert_eq!(take_varint(&mut &most[..]), None);
    }

    #[test]
    fn longer_spellings_are_refused() {
        for (bytes, value) in [(&[0x18, 5][..], 5), (&[0x19, 0, 200], 200)] {
            assert!(
                matches!(Reader::new(bytes).u64("n"), Err(DecodeError::NotCanonical { .. })),
                "{value}"
            );
        }
        assert!(Reader::new(&[0x58, 1, 7]).bytes("b", 9).is_err());
        assert!(Reader::new(&[0x5f, 0x41, 7, 0xff]).bytes("b", 9).is_err(), "indefinite bytes");
        assert!(Reader::new(&[0x9f, 0xff]).array("a", 9).is_err(), "indefinite array");
        assert!(Reader::new(&[0x98, 1]).array("a", 9).is_err());
    }

    #[test]
    fn only_items_of_this_encoding_are_passed_over() {
        for good in [&[0x00][..], &[0x82, 0x41, 7, 0xf6], &[0x61, b'a'], &[0xf5], &[0x80]] {
            let mut r = Reader::new(good);
            assert!(r.skip("item").is_ok() && r.rest().is_empty(), "{good:?}");
        }
        let bad: [&[u8]; 12] = [
            &[],
            &[0xff],
            &[0x82, 0xff, 0],
            &[0x9f, 0xff],
            &[0x5f, 0xff],
            &[0x18, 1],
            &[0x20],
            &[0xa0],
            &[0xc1, 0],
            &[0xf7],
            &[0xfb, 0, 0, 0, 0, 0, 0, 0, 0],
            &[0x61, 0xff],
        ];
        for bad in bad {
            assert!(Reader::new(bad).skip("item").is_err(), "{bad:?}");
        }
        let nested = |depth| [&vec![0x81; depth][..], &[0]].concat();
        assert!(Reader::new(&nested(NESTING)).skip("item").is_ok());
        assert!(Reader::new(&nested(NESTING + 1)).skip("item").is_err());
        assert!(Reader::new(&vec![0x81; 1 << 20]).skip("item").is_err(), "no deep recursion");
    }

    #[test]
    fn a_stated_length_allocates_nothing() {
        let huge = [0x5b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
        assert!(Reader::new(&huge).bytes("b", usize::MAX).is_err());
        let many = [0x9b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
        assert!(matches!(Reader::new(&many).array("a", 10), Err(DecodeError::TooLarge { .. })));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(n: u64, b: Vec<u8>, s: String, flag: bool) {
            let mut w = Writer::new();
            w.array(4).u64(n).bytes(&b).text(&s).bool(flag);
            let bytes = w.finish();
            let mut r = Reader::new(&bytes);
            r.tuple("t", 4).unwrap();
            prop_assert_eq!(r.u64("n").unwrap(), n);
            prop_assert_eq!(r.bytes("b", b.len()).unwrap(), &b[..]);
            prop_assert_eq!(r.text("s", s.len()).unwrap(), &s);
            prop_assert_eq!(r.bool("f").unwrap(), flag);
            r.finish().unwrap();
        }

        #[test]
        fn varints_round_trip(n: u64, tail: Vec<u8>) {
            let mut out = Vec::new();
            put_varint(&mut out, n);
            out.extend_from_slice(&tail);
            let mut input = &out[..];
            prop_assert_eq!(take_varint(&mut input), Some(n));
            prop_assert_eq!(input, &tail[..]);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let mut r = Reader::new(&bytes);
            while !r.rest().is_empty() {
                let before = r.position();
                let _ = r.clone().u64("n");
                let _ = r.clone().bytes("b", 100);
                let _ = r.clone().text("s", 100);
                if r.skip("x").is_err() || r.position() == before { break; }
            }
            let _ = take_varint(&mut &bytes[..]);
        }
    }
}
