//! Content of a sealed database: where it is cut, how its length is hidden, and how its chunks are encrypted. All of it
//! follows from the key and the content, so a version of a file shares its chunks with the one before; what two chunks
//! with the same bytes have in common shows, to that end.
//!
//! A chunk as it is kept: the id of the key (32 bytes), a nonce (24), and the chunk under XChaCha20-Poly1305 with the id as
//! associated data. The nonce is a keyed hash of the chunk. Cut points are those of a Gear table drawn from the key, since the
//! lengths of chunks would else tell which known file they are of. Padding is drawn from the key and the last chunk that is cut
//! however the content goes on, or the size of what is too little for that: so it looks like nothing else, and stays as it
//! was where only what lies further ahead was edited.

use super::{Key, KeyId, NONCE, TAG};
use crate::blob::Gear;
#[cfg(doc)]
use crate::blob::MAX_CHUNK;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};

/// Bytes by which a chunk is longer as it is kept than its content.
pub const CHUNK_OVERHEAD: usize = 32 + NONCE + TAG;

/// Why a chunk cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChunkError {
    /// This device has not been handed the key.
    #[error("it is sealed with a key that this device does not have")]
    NoKey(KeyId),
    /// It was not sealed with the key that it names.
    #[error("it was not sealed with the key that it names")]
    Damaged,
}

/// Seals the chunks of one content.
pub(crate) struct Sealer {
    key: Key,
    id: KeyId,
    cipher: XChaCha20Poly1305,
    nonces: [u8; 32],
    /// The nonce of the chunk before.
    last: Option<[u8; NONCE]>,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.key.fmt(f)
    }
}

fn cipher(key: &Key) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(&key.purpose("anabranch 1 sealed chunk").into())
}

impl Sealer {
    pub(crate) fn new(key: &Key) -> Self {
        let nonces = key.purpose("anabranch 1 nonce of a sealed chunk");
        let (id, cipher) = (key.id(), cipher(key));
        Self { key: key.clone(), id, cipher, nonces, last: None }
    }

    /// What cut points are sought with.
    pub(crate) fn gear(&self) -> Gear {
        let mut bytes = [0; 256 * 8];
        let table = self.key.purpose("anabranch 1 cut points of sealed content");
        blake3::Hasher::new_keyed(&table).finalize_xof().fill(&mut bytes);
        let mut table = [0; 256];
        for (value, bytes) in table.iter_mut().zip(bytes.as_chunks().0) {
            *value = u64::from_be_bytes(*bytes);
        }
        Gear::new(table)
    }

    /// What follows content of `size` bytes of which all chunks were sealed that are certain.
    pub(crate) fn padding(&self, size: u64) -> blake3::OutputReader {
        let padding = self.key.purpose("anabranch 1 padding of sealed content");
        let mut hasher = blake3::Hasher::new_keyed(&padding);
        match self.last {
            Some(last) => hasher.update(&last),
            None => hasher.update(&size.to_be_bytes()),
        };
        hasher.finalize_xof()
    }

    fn nonce(&self, plain: &[u8]) -> [u8; NONCE] {
        let mut nonce = [0; NONCE];
        nonce.copy_from_slice(&blake3::keyed_hash(&self.nonces, plain).as_bytes()[..NONCE]);
        nonce
    }

    /// A chunk as it is kept.
    pub(crate) fn seal(&mut self, plain: &[u8]) -> Vec<u8> {
        let nonce = self.nonce(plain);
        self.last = Some(nonce);
        let payload = Payload { msg: plain, aad: &self.id.0 };
        // It fails for 256 GiB and more only, and then opens as nothing.
        let text = self.cipher.encrypt(&XNonce::from(nonce), payload).unwrap_or_default();
        [&self.id.0[..], &nonce, &text].concat()
    }
}

impl Key {
    /// A chunk of content as it is kept, given its bytes and, if it goes on behind the content, the padding.
    #[must_use]
    pub fn seal_chunk(&self, plain: &[u8]) -> Vec<u8> {
        Sealer::new(self).seal(plain)
    }

    /// Fills `padding` with what follows content of `size` bytes, from `skip` bytes behind its end on. `certain` is the last chunk
    /// that begins [`MAX_CHUNK`] bytes or more before the end, if one does.
    pub fn pad(&self, size: u64, certain: Option<&[u8]>, skip: u64, padding: &mut [u8]) {
        let mut sealer = Sealer::new(self);
        sealer.last = certain.map(|plain| sealer.nonce(plain));
        let mut reader = sealer.padding(size);
        reader.set_position(skip);
        reader.fill(padding);
    }
}

/// The key that a chunk says it is sealed with.
pub(super) fn key_of(chunk: &[u8]) -> Option<KeyId> {
    chunk.first_chunk().filter(|_| chunk.len() > CHUNK_OVERHEAD).map(|id| KeyId(*id))
}

/// The content of a chunk that `key` sealed.
pub(super) fn open(key: &Key, chunk: &[u8]) -> Option<Vec<u8>> {
    let (id, rest) = chunk.split_first_chunk::<32>()?;
    let (nonce, text) = rest.split_first_chunk::<NONCE>()?;
    let payload = Payload { msg: text, aad: id };
    cipher(key).decrypt(&XNonce::from(*nonce), payload).ok()
}
