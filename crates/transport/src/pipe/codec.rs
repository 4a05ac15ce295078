//! The framing of byte streams, as pure functions.
//!
//! A direction begins with the 12 bytes `anabranch/1\n`, so that a shell's chatter is recognised for what it is.
//! Then come frames: the length as 4 bytes, big-endian, and that many bytes. The length `0xffffffff` is the close;
//! the stream ending without it was cut off. A length above [`MAX_FRAME`] is refused before anything is allocated.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::error::printable;
use crate::{LinkError, MAX_FRAME};

pub(super) const PREAMBLE: &[u8] = b"anabranch/1\n";

const LENGTH: usize = size_of::<u32>();
const END: u32 = u32::MAX;

/// How much of a stranger's text goes into an error.
const SEEN: usize = 160;

/// Appends one frame, which is at most [`MAX_FRAME`] bytes.
pub(super) fn encode(frame: &[u8], out: &mut BytesMut) {
    debug_assert!(frame.len() <= MAX_FRAME, "LinkSender checks sizes");
    out.reserve(LENGTH + frame.len());
    out.put_u32(frame.len() as u32);
    out.put_slice(frame);
}

/// Appends the close.
pub(super) fn encode_end(out: &mut BytesMut) {
    out.put_u32(END);
}

/// What the bytes held so far give.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decoded {
    /// The next frame.
    Frame(Bytes),
    /// The peer's close.
    End,
    /// Nothing yet: at least this many bytes are missing.
    Missing(usize),
}

/// Takes frames out of a stream of bytes.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    buffer: BytesMut,
    greeted: bool,
}

impl Decoder {
    /// Where to put bytes as they come.
    pub(super) fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Takes the next frame, if it is complete.
    pub(super) fn next(&mut self) -> Result<Decoded, LinkError> {
        if !self.greeted {
            let missing = self.take_preamble()?;
            if missing > 0 {
                return Ok(Decoded::Missing(missing));
            }
        }
        let Some(header) = self.buffer.first_chunk::<LENGTH>() else {
            return Ok(Decoded::Missing(LENGTH - self.buffer.len()));
        };
        let length = match u32::from_be_bytes(*header) {
            END => return Ok(Decoded::End),
            length => length as usize,
        };
        if length > MAX_FRAME {
            return Err(LinkError::TooBig { size: length as u64, limit: MAX_FRAME });
        }
        let held = self.buffer.len() - LENGTH;
        if held < length {
            return Ok(Decoded::Missing(length - held));
        }
        self.buffer.advance(LENGTH);
        Ok(Decoded::Frame(self.buffer.split_to(length).freeze()))
    }

    /// Checks the preamble as far as it has come. Gives how many of its bytes are missing.
    fn take_preamble(&mut self) -> Result<usize, LinkError> {
        let come = self.buffer.len().min(PREAMBLE.len());
        if self.buffer[..come] != PREAMBLE[..come] {
            return Err(LinkError::NotAnabranch { seen: printable(&self.buffer, SEEN) });
        }
        if come == PREAMBLE.len() {
            self.buffer.advance(come);
            self.greeted = true;
        }
        Ok(PREAMBLE.len() - come)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Everything the decoder gives for bytes that come in these pieces.
    fn decode<'a>(
        pieces: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<(Vec<Bytes>, bool), LinkError> {
        let mut decoder = Decoder::default();
        let mut frames = Vec::new();
        for piece in pieces {
            decoder.buffer().extend_from_slice(piece);
            loop {
                match decoder.next()? {
                    Decoded::Frame(frame) => frames.push(frame),
                    Decoded::End => return Ok((frames, true)),
                    Decoded::Missing(missing) => {
                        assert!(missing > 0 && missing <= MAX_FRAME);
                        break;
                    }
                }
            }
        }
        Ok((frames, false))
    }

    #[test]
    fn the_format_is_what_the_comment_says() {
        let mut out = BytesMut::from(PREAMBLE);
        encode(b"hi", &mut out);
        encode(b"", &mut out);
        encode_end(&mut out);
        assert_eq!(&out[..], b"anabranch/1\n\0\0\0\x02hi\0\0\0\0\xff\xff\xff\xff");
    }

    #[test]
    fn a_length_above_the_limit_is_refused_at_once() {
        let stream = [PREAMBLE, &(MAX_FRAME as u32 + 1).to_be_bytes()].concat();
        assert!(matches!(decode([&stream[..]]), Err(LinkError::TooBig { size: 524_289, .. })));
    }

    #[test]
    fn a_chatty_shell_is_quoted() {
        let error = decode([&b"Welcome to\x1b[0m example.org!\n"[..]]).unwrap_err();
        assert!(error.to_string().contains("\"Welcome to[0m example.org!\""), "{error}");
    }

    proptest! {
        #[test]
        fn frames_survive_any_cutting(
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..20),
            cuts in prop::collection::vec(1_usize..64, 1..200),
        ) {
            let mut out = BytesMut::from(PREAMBLE);
            for frame in &frames {
                encode(frame, &mut out);
            }
            encode_end(&mut out);
            let mut pieces = Vec::new();
            let mut rest = &out[..];
            for cut in cuts.iter().cycle() {
                let (piece, left) = rest.split_at((*cut).min(rest.len()));
                pieces.push(piece);
                rest = left;
                if rest.is_empty() {
                    break;
                }
            }
            let (decoded, ended) = decode(pieces).unwrap();
            prop_assert!(ended);
            prop_assert_eq!(decoded, frames);
        }

        #[test]
        fn arbitrary_bytes_give_frames_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..2000), greeted: bool) {
            let preamble: &[u8] = if greeted { PREAMBLE } else { b"" };
            if let Ok((frames, _)) = decode([preamble, &bytes]) {
                let carried: usize = frames.iter().map(Bytes::len).sum();
                prop_assert!(carried <= bytes.len());
            }
        }
    }
}
