//! The name of a chunk or a manifest node, and the one check that admits bytes under it (I4).

use std::fmt;

/// The BLAKE3-256 of a chunk's or manifest node's bytes, which is its name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkHash(pub [u8; 32]);

/// Bytes that are not what their name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the bytes of blob {expected:?} hash to {found:?}")]
pub struct WrongHash {
    /// The name they came under.
    pub expected: ChunkHash,
    /// Their name.
    pub found: ChunkHash,
}

impl ChunkHash {
    /// The name of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// The raw bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Accepts `bytes` under this name, or refuses them.
    ///
    /// # Errors
    /// [`WrongHash`] when their BLAKE3 is another.
    pub fn verify(&self, bytes: &[u8]) -> Result<(), WrongHash> {
        let found = Self::of(bytes);
        if found == *self { Ok(()) } else { Err(WrongHash { expected: *self, found }) }
    }
}

/// The first four bytes in hexadecimal: enough to tell blobs apart in a message.
impl fmt::Debug for ChunkHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in &self.0[..4] {
            write!(f, "{byte:02x}")?;
        }
        f.write_str("…")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_plain_blake3() {
        assert_eq!(format!("{:?}", ChunkHash::of(b"")), "af1349b9…");
        assert_eq!(&ChunkHash::of(b"abc").0, blake3::hash(b"abc").as_bytes());
    }

    #[test]
    fn one_flipped_bit_is_refused() {
        let name = ChunkHash::of(b"abc");
        assert_eq!(name.verify(b"abc"), Ok(()));
        let found = ChunkHash::of(b"abb");
        assert_eq!(name.verify(b"abb"), Err(WrongHash { expected: name, found }));
    }
}
