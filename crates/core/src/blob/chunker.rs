//! Cutting a stream of bytes into content-defined chunks. The rule is part of the format (I2): the golden test below
//! fails when a cut point moves.
//!
//! In full: let `gear[b]` be the first eight bytes (big-endian) of the MD5 of 64 bytes `b`. From the start of a chunk, pass
//! over [`MIN_CHUNK`] bytes, then for each byte set `h = (h << 1) + gear[byte]` in 64 bits, beginning with `h = 0`. The
//! chunk ends before the first byte with `h & mask == 0`, where `mask` is `0xd90707537000` for bytes before
//! [`AVERAGE_CHUNK`] and `0xd90313530000` from there on; or at [`MAX_CHUNK`] bytes; or with the content. When the content
//! ends at an odd distance from the start of the chunk, its last byte is no such place.

use fastcdc::v2020::{Normalization, cut, cut_gear, select_masks};

/// No chunk is shorter, except the last of its content.
pub const MIN_CHUNK: usize = 16 * 1024;
/// The size around which cut points are sought.
pub const AVERAGE_CHUNK: usize = 64 * 1024;
/// No chunk is longer.
pub const MAX_CHUNK: usize = 256 * 1024;

/// Room for the chunk being sought and as much again, so that what is left over is moved at most once for each
/// [`MAX_CHUNK`] bytes.
const BUFFER: usize = 2 * MAX_CHUNK;

/// Cuts a stream into chunks. Holds at most twice [`MAX_CHUNK`] bytes (I7); where a chunk ends does not depend on how the
/// stream was handed over.
#[derive(Debug)]
pub struct Chunker {
    buffer: Vec<u8>,
    start: usize,
    mask_short: u64,
    mask_long: u64,
    gear: Option<Box<Gear>>,
}

/// What stands for each byte where cut points are sought, in place of the table that everybody knows.
pub(crate) struct Gear {
    table: [u64; 256],
    shifted: [u64; 256],
}

impl Gear {
    pub(crate) fn new(table: [u64; 256]) -> Self {
        Self { table, shifted: table.map(|value| value << 1) }
    }
}

impl std::fmt::Debug for Gear {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // It is as good as a key.
        f.write_str("Gear")
    }
}

impl Default for Chunker {
    fn default() -> Self {
        Self::new()
    }
}

impl Chunker {
    /// A chunker at the start of some content.
    #[must_use]
    pub fn new() -> Self {
        let (mask_short, mask_long) = select_masks(AVERAGE_CHUNK, Normalization::Level2);
        Self { buffer: Vec::new(), start: 0, mask_short, mask_long, gear: None }
    }

    /// A chunker whose cut points tell nobody what is cut who does not know `gear`.
    pub(crate) fn keyed(gear: Gear) -> Self {
        Self { gear: Some(Box::new(gear)), ..Self::new() }
    }

    /// Bytes taken and not handed on yet.
    pub(super) fn waiting(&self) -> usize {
        self.buffer.len() - self.start
    }

    /// Takes the next bytes of the content and hands `sink` each chunk that is complete with them.
    ///
    /// # Errors
    /// What `sink` returned; the chunker is then of no further use.
    pub fn push<E>(
        &mut self,
        mut data: &[u8],
        mut sink: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        while !data.is_empty() {
            let (now, later) = data.split_at(data.len().min(BUFFER - self.buffer.len()));
            self.buffer.extend_from_slice(now);
            data = later;
            // A cut point is certain only with a whole maximal chunk in sight.
            while self.buffer.len() - self.start >= MAX_CHUNK {
                self.emit(&mut sink)?;
            }
            if self.buffer.len() == BUFFER {
                self.buffer.drain(..self.start);
                self.start = 0;
            }
        }
        Ok(())
    }

    /// Ends the content: hands `sink` the chunks that are left, none if there were no bytes at all.
    ///
    /// # Errors
    /// What `sink` returned.
    pub fn finish<E>(mut self, mut sink: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        while self.start < self.buffer.len() {
            self.emit(&mut sink)?;
        }
        Ok(())
    }

    fn emit<E>(&mut self, sink: &mut impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        let rest = &self.buffer[self.start..];
        let (min, average, max) = (MIN_CHUNK, AVERAGE_CHUNK, MAX_CHUNK);
        let (short, long) = (self.mask_short, self.mask_long);
        let (short2, long2) = (short << 1, long << 1);
        let (_, len) = match &self.gear {
            None => cut(rest, min, average, max, short, long, short2, long2),
            Some(gear) => {
                let (gear, gear2) = (&gear.table, &gear.shifted);
                cut_gear(rest, min, average, max, short, long, short2, long2, gear, gear2)
            }
        };
        sink(&rest[..len])?;
        self.start += len;
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::convert::Infallible;

    /// Bytes that look random and are the same everywhere: the output of BLAKE3 keyed by nothing but `seed`.
    pub(crate) fn noise(seed: &str, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().update(seed.as_bytes()).finalize_xof().fill(&mut bytes);
        bytes
    }

    fn chunks(content: &[u8], piece: usize) -> Vec<usize> {
        let mut lens = Vec::new();
        let mut sink = |chunk: &[u8]| {
            lens.push(chunk.len());
            Ok::<_, Infallible>(())
        };
        let mut chunker = Chunker::new();
        for part in content.chunks(piece.max(1)) {
            chunker.push(part, &mut sink).unwrap();
            assert!(chunker.buffer.len() <= BUFFER);
        }
        chunker.finish(&mut sink).unwrap();
        lens
    }

    /// The same cut points for ever: if this fails, the format changed.
    #[test]
    fn golden_cut_points() {
        let lens = chunks(&noise("anabranch cut points", 1 << 20), 65_537);
        assert_eq!(lens, GOLDEN);
        assert_eq!(lens.iter().sum::<usize>(), 1 << 20);
    }

    const GOLDEN: &[usize] = &[
        71_011, 69_209, 102_564, 40_598, 83_069, 72_772, 81_769, 56_033, 95_292, 43_201, 67_631,
        78_436, 77_340, 73_408, 36_243,
    ];

    /// The rule as the module comment states it, one byte at a time.
    fn by_the_rule(mut content: &[u8]) -> Vec<usize> {
        let (gear, _) = fastcdc::v2020::get_gear_with_seed(0);
        assert_eq!((gear[0], gear[255]), (0x3b5d_3c7d_207e_37dc, 0xaabd_2b2a_4515_04e1));
        let mut lens = Vec::new();
        while !content.is_empty() {
            let end = content.len().min(MAX_CHUNK);
            let mut h = 0u64;
            let len = (MIN_CHUNK..end - end % 2)
                .find(|at| {
                    h = (h << 1).wrapping_add(gear[usize::from(content[*at])]);
                    let mask =
                        if *at < AVERAGE_CHUNK { 0xd907_0753_7000 } else { 0xd903_1353_0000 };
                    h & mask == 0
                })
                .unwrap_or(end);
            lens.push(len);
            content = &content[len..];
        }
        lens
    }

    #[test]
    fn bytes_without_any_cut_point_are_cut_at_the_maximum() {
        let lens = chunks(&vec![0; 3 * MAX_CHUNK + 5], 1 << 20);
        assert_eq!(lens, [MAX_CHUNK, MAX_CHUNK, MAX_CHUNK, 5]);
    }

    #[test]
    fn little_content_is_one_chunk_and_none_is_none() {
        assert_eq!(chunks(&[7], 1), [1]);
        assert_eq!(chunks(&noise("x", MIN_CHUNK), 100), [MIN_CHUNK]);
        assert!(chunks(&[], 1).is_empty());
    }

    #[test]
    fn an_insertion_moves_only_the_cut_points_around_it() {
        let before = noise("stable", 4 << 20);
        let mut after = before.clone();
        after.splice(2_000_000..2_000_000, *b"a few bytes more");
        let ends = |lens: &[usize], shift: usize| -> Vec<usize> {
            let mut at = 0;
            lens.iter()
                .map(|len| {
                    at += len;
                    if at > 2_000_000 { at - shift } else { at }
                })
                .collect()
        };
        let (old, new) = (ends(&chunks(&before, 1 << 20), 0), ends(&chunks(&after, 1 << 20), 16));
        let kept = new.iter().filter(|end| old.contains(end)).count();
        assert!(kept + 4 >= new.len(), "{} of {} cut points kept", kept, new.len());
    }

    #[test]
    fn an_error_of_the_sink_is_passed_on() {
        let mut chunker = Chunker::new();
        assert_eq!(chunker.push(&[0; MAX_CHUNK], |_| Err("full")), Err("full"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn how_it_is_handed_over_does_not_matter(
            seed in "[a-z]{3}", len in 0..900_000usize, piece in 1..700_000usize
        ) {
            let content = noise(&seed, len);
            let lens = chunks(&content, piece);
            prop_assert_eq!(&lens, &by_the_rule(&content));
            prop_assert!(lens.iter().all(|len| *len <= MAX_CHUNK));
            prop_assert!(lens.iter().rev().skip(1).all(|len| *len >= MIN_CHUNK));
        }
    }
}
