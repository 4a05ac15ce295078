//! Sealed databases: payloads are encrypted to the members, so that a relay stores, checks and forwards what it cannot read.
//! Headers, the membership and the keys' own store stay clear.
//!
//! A database is sealed from its genesis on, whose entry makes the first key, and may say which stores are ([`Scope`]). A key is wrapped to the public key of each reader:
//! devices and open tickets (`seal/keys.rs`). Each key that is in use encrypts all others, by way of one another, so whoever gets that one has
//! them all.
//! A payload is XChaCha20-Poly1305 under one key, its nonce a keyed hash of what is sealed and where, so nothing depends on a random
//! source, and what is written twice looks different each time. Content of blobs is cut and sealed chunk by chunk
//! (`seal/content.rs`); a payload lists in the clear what content it names, so that a relay can keep that.

mod content;
pub(crate) mod keys;
mod ring;
mod scope;

pub(crate) use content::Sealer;
pub use content::{CHUNK_OVERHEAD, ChunkError};
pub use ring::Ring;
pub use scope::Scope;

use crate::blob::{ChunkHash, ContentRef};
use crate::codec::{DecodeError, Reader, Writer};
use crate::entry::StoreId;
use crate::id::{DatabaseId, EntryId, LogId, NodeId};
use crate::key::DeviceKey;
use crate::limits;
use crate::ops::{Decoded, Op, decode_ops};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use std::fmt;

/// BLAKE3-256 of a key: what payloads name it by, and what commits them to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub [u8; 32]);

/// What payloads are sealed with. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Key([u8; 32]);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:?})", self.id())
    }
}

/// A key under another one: the key and a tag.
pub type Wrapped = [u8; 48];

const NONCE: usize = 24;
const TAG: usize = 16;

impl Key {
    /// The key made by `device` where `place` says: nobody but the device can make it, and no two places give the same.
    pub(crate) fn new(device: &DeviceKey, place: &[u8]) -> Self {
        Self(device.derive("anabranch 1 new sealing key", place))
    }

    /// The key that is these bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> KeyId {
        KeyId(*blake3::hash(&self.0).as_bytes())
    }

    fn purpose(&self, context: &str) -> [u8; 32] {
        blake3::derive_key(context, &self.0)
    }

    /// Seals what is bound to `bound`, on top of the entry `tip` of its log, and hides the exact length of `plain`.
    fn seal(&self, bound: &[u8], tip: &EntryId, plain: &[u8]) -> (XNonce, Vec<u8>) {
        let mut hasher = blake3::Hasher::new_keyed(&self.purpose("anabranch 1 sealing nonce"));
        hasher.update(&(bound.len() as u64).to_be_bytes()).update(bound);
        hasher.update(&tip.0).update(plain);
        let mut nonce = [0; NONCE];
        hasher.finalize_xof().fill(&mut nonce);
        let nonce = XNonce::from(nonce);
        let mut padded = Vec::with_capacity(padded_len(plain.len()) + TAG);
        padded.extend_from_slice(plain);
        padded.push(0x80);
        padded.resize(padded_len(plain.len()), 0);
        let payload = Payload { msg: &padded, aad: bound };
        // It fails for 256 GiB and more only, and then opens as nothing.
        (nonce, self.cipher().encrypt(&nonce, payload).unwrap_or_default())
    }

    fn open(&self, bound: &[u8], nonce: [u8; NONCE], sealed: &[u8]) -> Option<Vec<u8>> {
        let payload = Payload { msg: sealed, aad: bound };
        let mut plain = self.cipher().decrypt(&XNonce::from(nonce), payload).ok()?;
        let end = plain.iter().rposition(|byte| *byte != 0)?;
        (plain.get(end) == Some(&0x80)).then(|| plain.truncate(end))?;
        Some(plain)
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(&self.purpose("anabranch 1 sealed payload").into())
    }

    fn cipher_over_keys(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(&self.purpose("anabranch 1 key under its successor").into())
    }

    /// Seals a payload of the entry after `tip` in its log; zeros before the first. `contents` is what it names, as it is
    /// kept ([`ContentRef::padded`]); everybody can read that.
    #[must_use]
    pub fn seal_payload(
        &self,
        bound: &Bound<'_>,
        tip: &EntryId,
        plain: &[u8],
        contents: &[ContentRef],
    ) -> Vec<u8> {
        let id = self.id();
        let (nonce, text) = self.seal(&bound.bytes(&id), tip, plain);
        let mut w = Writer::onto(Vec::with_capacity(text.len() + 80 + 48 * contents.len()));
        w.array(3 + usize::from(!contents.is_empty()));
        w.bytes(&id.0).bytes(&nonce).bytes(&text);
        if !contents.is_empty() {
            w.array(contents.len());
            for content in contents {
                w.array(3).u64(content.size()).u64(content.depth().into());
                w.bytes(&content.root().0);
            }
        }
        w.finish()
    }

    /// Opens a payload that this key sealed; `None` for any other bytes, and for another place.
    #[must_use]
    pub fn open_payload(&self, bound: &Bound<'_>, payload: &[u8]) -> Option<Vec<u8>> {
        let sealed = Sealed::decode(payload).ok()?;
        self.open(&bound.bytes(&self.id()), sealed.nonce, sealed.text)
    }

    /// This key under `other`, for whoever has that one.
    #[must_use]
    pub fn under(&self, other: &Self) -> Option<Wrapped> {
        wrap(&other.cipher_over_keys(), self)
    }

    /// The key of that name that is under `other`.
    #[must_use]
    pub fn from_under(other: &Self, id: &KeyId, sealed: &Wrapped) -> Option<Self> {
        unwrap(&other.cipher_over_keys(), id, sealed)
    }

    /// This key for `recipient`, wrapped by `author`. `None` for a recipient that no key can be agreed on with.
    #[must_use]
    pub fn wrapped(&self, author: &DeviceKey, recipient: &NodeId) -> Option<Wrapped> {
        let cipher = between(author, recipient, &author.node_id(), recipient)?;
        wrap(&cipher, self)
    }

    /// The key that `author` wrapped for the device or ticket with this secret key.
    #[must_use]
    pub fn unwrapped(
        recipient: &DeviceKey,
        author: &NodeId,
        id: &KeyId,
        sealed: &Wrapped,
    ) -> Option<Self> {
        let cipher = between(recipient, author, author, &recipient.node_id())?;
        unwrap(&cipher, id, sealed)
    }
}

/// What the owner of `own` and `other` have in common, for what `author` tells `recipient`.
fn between(
    own: &DeviceKey,
    other: &NodeId,
    author: &NodeId,
    recipient: &NodeId,
) -> Option<XChaCha20Poly1305> {
    let mut hasher = blake3::Hasher::new_derive_key("anabranch 1 key wrapped for a member");
    hasher.update(&own.agree(other)?).update(&author.0).update(&recipient.0);
    Some(XChaCha20Poly1305::new(&(*hasher.finalize().as_bytes()).into()))
}

/// Of one cipher each key is wrapped in one way, so its name serves as the nonce.
fn nonce_of(id: &KeyId) -> XNonce {
    let mut nonce = [0; NONCE];
    nonce.copy_from_slice(&id.0[..NONCE]);
    XNonce::from(nonce)
}

fn wrap(cipher: &XChaCha20Poly1305, key: &Key) -> Option<Wrapped> {
    let id = key.id();
    let payload = Payload { msg: &key.0, aad: &id.0 };
    cipher.encrypt(&nonce_of(&id), payload).ok()?.try_into().ok()
}

fn unwrap(cipher: &XChaCha20Poly1305, id: &KeyId, sealed: &Wrapped) -> Option<Key> {
    let payload = Payload { msg: &sealed[..], aad: &id.0 };
    let key = cipher.decrypt(&nonce_of(id), payload).ok()?.try_into().ok()?;
    Some(Key::from_bytes(key)).filter(|key| key.id() == *id)
}

/// What a payload is bound to: nobody without the key can pass it off as another's, nor as of another store.
#[derive(Debug, Clone, Copy)]
pub struct Bound<'l> {
    /// The database.
    pub database: DatabaseId,
    /// The log of the entry.
    pub log: &'l LogId,
    /// The store.
    pub store: &'l StoreId,
}

impl Bound<'_> {
    fn bytes(&self, id: &KeyId) -> Vec<u8> {
        let mut w = Writer::new();
        w.array(5).bytes(&self.database.0).bytes(&id.0).bytes(&self.log.device.0);
        w.u64(self.log.epoch);
        self.store.encode(&mut w);
        w.finish()
    }
}

/// A payload as it is stored and sent.
struct Sealed<'p> {
    key: KeyId,
    nonce: [u8; NONCE],
    text: &'p [u8],
    /// What it names, whoever can read it. Left out where it names nothing.
    contents: Vec<ContentRef>,
}

impl<'p> Sealed<'p> {
    fn decode(payload: &'p [u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(payload);
        let items = r.array("sealed payload", 4)?;
        let malformed = |at| DecodeError::Malformed { what: "sealed payload", at };
        if items < 3 {
            return Err(malformed(r.position()));
        }
        let mut sealed = Self {
            key: KeyId(r.array_of("key id")?),
            nonce: r.array_of("nonce")?,
            text: r.bytes("sealed bytes", limits::ENTRY_BYTES)?,
            contents: Vec::new(),
        };
        if items > 3 {
            let (at, count) = (r.position(), r.array("contents", limits::ENTRY_BYTES / CONTENT)?);
            if count == 0 {
                return Err(malformed(at));
            }
            for _ in 0..count {
                sealed.contents.push(content(&mut r)?);
            }
        }
        r.finish()?;
        Ok(sealed)
    }
}

/// Bytes of a content on the list, at least.
const CONTENT: usize = 37;

fn content(r: &mut Reader<'_>) -> Result<ContentRef, DecodeError> {
    let at = r.position();
    r.tuple("content", 3)?;
    let size = r.u64("size")?;
    let depth = r.number("depth", u8::MAX.into())? as u8;
    let content = ContentRef::new(size, depth, ChunkHash(r.array_of("root")?));
    let content = content.ok().filter(|content| size > 0 && content.padded() == *content);
    content.ok_or(DecodeError::Malformed { what: "content", at })
}

/// What a sealed payload names, as it is kept; nothing if it is none.
#[must_use]
pub fn contents(payload: &[u8]) -> Vec<ContentRef> {
    Sealed::decode(payload).map(|sealed| sealed.contents).unwrap_or_default()
}

/// The length that `len` bytes are padded to: at least 64, and above that by the Padmé rule, which adds less than 12 % and less
/// than 3 % to what is large (Nikitin et al., "Reducing Metadata Leakage from Encrypted Files", 2019).
pub(crate) fn padded(len: u64) -> u64 {
    const LEAST: u64 = 64;
    let len = len.max(LEAST);
    let exponent = len.ilog2();
    let mantissa = exponent.ilog2() + 1;
    let step = 1_u64 << exponent.saturating_sub(mantissa);
    len.checked_next_multiple_of(step).unwrap_or(u64::MAX)
}

/// The length of what `len` bytes are before they are encrypted: with the mark that ends them.
fn padded_len(len: usize) -> usize {
    padded(len as u64 + 1) as usize
}

/// An operation of the store of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyOp {
    /// Makes a key.
    New {
        /// Which.
        id: KeyId,
    },
    /// Gives whoever has a key others that were in use before it or beside it.
    Under {
        /// Which.
        id: KeyId,
        /// Those, each under this one. At most [`limits::KEYS_UNDER`].
        others: Vec<(KeyId, Wrapped)>,
    },
    /// Hands a key to readers: to each, under what its public key and the author's have in common.
    Wrap {
        /// Which.
        id: KeyId,
        /// At most [`limits::KEY_WRAPS`].
        to: Vec<(NodeId, Wrapped)>,
    },
    /// In the genesis entry: only these stores are sealed. Anywhere else it has no effect.
    Only {
        /// Their names, ascending; from 1 to [`limits::SEALED_STORES`].
        stores: Vec<String>,
    },
}

const NEW: u64 = 0;
const WRAP: u64 = 1;
const UNDER: u64 = 2;
const ONLY: u64 = 3;

/// Encodes the payload of the store of keys.
#[must_use]
pub fn encode_keys(ops: &[KeyOp]) -> Vec<u8> {
    let mut w = Writer::new();
    w.array(ops.len());
    for op in ops {
        match op {
            KeyOp::New { id } => {
                w.array(2).u64(NEW).bytes(&id.0);
            }
            KeyOp::Under { id, others } => {
                w.array(3).u64(UNDER).bytes(&id.0).array(others.len());
                for (id, sealed) in others {
                    w.array(2).bytes(&id.0).bytes(sealed);
                }
            }
            KeyOp::Wrap { id, to } => {
                w.array(3).u64(WRAP).bytes(&id.0).array(to.len());
                for (recipient, sealed) in to {
                    w.array(2).bytes(&recipient.0).bytes(sealed);
                }
            }
            KeyOp::Only { stores } => {
                w.array(2).u64(ONLY);
                scope::put_names(&mut w, stores);
            }
        }
    }
    w.finish()
}

/// Reads the payload of the store of keys. Total, as all payloads are.
#[must_use]
pub fn decode_keys(payload: &[u8]) -> Decoded<KeyOp> {
    let mut r = Reader::new(payload);
    (|| {
        let decoded = decode_ops(&mut r, limits::KEY_OPS, decode_key_op)?;
        r.finish()?;
        Ok::<_, DecodeError>(decoded)
    })()
    .unwrap_or_default()
}

/// Whether the payload of a store of keys holds something that this program does not know.
pub(crate) fn needs_newer(sealed: bool, payload: &[u8]) -> bool {
    // In any other database it means nothing yet.
    !sealed || decode_keys(payload).unknown
}

fn decode_key_op(r: &mut Reader<'_>, kind: u64, fields: usize) -> Result<Op<KeyOp>, DecodeError> {
    match (kind, fields) {
        (NEW, 2) => Ok(Op::Known(KeyOp::New { id: KeyId(r.array_of("key id")?) })),
        (UNDER, 3) => {
            let id = KeyId(r.array_of("key id")?);
            let others = (0..r.array("other keys", limits::KEYS_UNDER)?)
                .map(|_| pair(r).map(|(id, sealed)| (KeyId(id), sealed)))
                .collect::<Result<_, _>>()?;
            Ok(Op::Known(KeyOp::Under { id, others }))
        }
        (WRAP, 3) => {
            let id = KeyId(r.array_of("key id")?);
            let to = (0..r.array("readers", limits::KEY_WRAPS)?)
                .map(|_| pair(r).map(|(reader, sealed)| (NodeId(reader), sealed)))
                .collect::<Result<_, _>>()?;
            Ok(Op::Known(KeyOp::Wrap { id, to }))
        }
        (ONLY, 2) => Ok(Op::Known(KeyOp::Only { stores: scope::take_names(r)? })),
        (NEW | WRAP | UNDER | ONLY, _) => Ok(Op::Senseless),
        _ => Ok(Op::Unknown),
    }
}

fn pair(r: &mut Reader<'_>) -> Result<([u8; 32], Wrapped), DecodeError> {
    r.tuple("wrapped key", 2)?;
    Ok((r.array_of("whose")?, r.array_of("wrapped key")?))
}

#[cfg(test)]
mod tests;
