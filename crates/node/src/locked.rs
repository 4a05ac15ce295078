//! A device's key under a passphrase: how it is locked, and the text in which it stands in a file. What a file states of the
//! work that unlocking takes is bounded before any of it is done.

use crate::error::NodeError;
use anabranch_core::codec::{DecodeError, Reader, Writer};
use anabranch_core::id::{NodeId, from_base32, to_base32};
use anabranch_core::key::DeviceKey;
use argon2::{Algorithm, Argon2, Block, Params, Version};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use std::fmt;
use std::str::FromStr;
use zeroize::Zeroizing;

const PREFIX: &str = "locked_key_";
const VERSION: u64 = 1;
/// Bytes of a text that is read in search of a key.
pub(crate) const KEY_BYTES: u64 = 4_096;
/// KiB of memory that unlocking may take.
const MEMORY: std::ops::RangeInclusive<u32> = 8..=1024 * 1024;
/// Times that it may go over that memory.
const PASSES: std::ops::RangeInclusive<u32> = 1..=16;
/// Bytes of a passphrase.
pub const PASSPHRASE_BYTES: usize = 1_024;

/// What a person remembers. Wiped from memory when dropped and never printed.
#[derive(Clone)]
pub struct Passphrase(Zeroizing<String>);

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase")
    }
}

impl Passphrase {
    /// This text, without the end of its line.
    ///
    /// # Errors
    /// [`NodeError::Setting`] for none, more than one line, or more than [`PASSPHRASE_BYTES`].
    pub fn new(text: Zeroizing<String>) -> Result<Self, NodeError> {
        let line = text.strip_suffix('\n').unwrap_or(&text);
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.is_empty() || line.len() > PASSPHRASE_BYTES || line.contains(['\n', '\r', '\0']) {
            let text = format!("a passphrase is one line of 1 to {PASSPHRASE_BYTES} bytes");
            return Err(NodeError::Setting(text));
        }
        Ok(Self(Zeroizing::new(line.to_owned())))
    }
}

impl PartialEq for Passphrase {
    /// For a passphrase that was typed twice; not for guesses.
    fn eq(&self, other: &Self) -> bool {
        *self.0 == *other.0
    }
}

/// What unlocking takes (Argon2id with one lane): enough that guessing is slow, little enough for small devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// KiB of memory.
    pub memory: u32,
    /// Times it goes over that.
    pub passes: u32,
}

impl Default for Cost {
    /// What RFC 9106 recommends where memory is scarce.
    fn default() -> Self {
        Self { memory: 64 * 1024, passes: 3 }
    }
}

/// A device's key that only its passphrase unlocks.
#[derive(Clone, PartialEq, Eq)]
pub struct LockedKey {
    cost: Cost,
    salt: [u8; 16],
    nonce: [u8; 24],
    device: NodeId,
    /// The seed, and 16 bytes that prove that nothing was changed.
    sealed: [u8; 48],
}

impl fmt::Debug for LockedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LockedKey({:?}, {:?})", self.device, self.cost)
    }
}

impl LockedKey {
    /// Locks `key`. `random`: 40 bytes, new each time.
    ///
    /// # Errors
    /// [`NodeError::Setting`] for a cost beyond the bounds.
    pub fn lock(
        key: &DeviceKey,
        passphrase: &Passphrase,
        cost: Cost,
        random: [u8; 40],
    ) -> Result<Self, NodeError> {
        let (mut salt, mut nonce) = ([0; 16], [0; 24]);
        salt.copy_from_slice(&random[..16]);
        nonce.copy_from_slice(&random[16..]);
        let mut locked = Self { cost, salt, nonce, device: key.node_id(), sealed: [0; 48] };
        let seed = Zeroizing::new(key.seed());
        let payload = Payload { msg: &seed[..], aad: &locked.open_part(8) };
        let sealed = locked.cipher(passphrase)?.encrypt(&XNonce::from(nonce), payload);
        let sealed = sealed.ok().and_then(|bytes| bytes.try_into().ok());
        locked.sealed = sealed.ok_or_else(|| refused("the key could not be locked"))?;
        Ok(locked)
    }

    /// The key.
    ///
    /// # Errors
    /// [`NodeError::Passphrase`] when this is not its passphrase, or something was changed.
    pub fn unlock(&self, passphrase: &Passphrase) -> Result<DeviceKey, NodeError> {
        let payload = Payload { msg: &self.sealed, aad: &self.open_part(8) };
        let opened = self.cipher(passphrase)?.decrypt(&XNonce::from(self.nonce), payload);
        let opened = Zeroizing::new(opened.map_err(|_| NodeError::Passphrase)?);
        let seed = <&[u8; 32]>::try_from(&opened[..]).map_err(|_| NodeError::Passphrase)?;
        let key = DeviceKey::from_seed(seed);
        if key.node_id() == self.device { Ok(key) } else { Err(NodeError::Passphrase) }
    }

    /// Whose key it is.
    #[must_use]
    pub fn device(&self) -> NodeId {
        self.device
    }

    /// What unlocking takes.
    #[must_use]
    pub fn cost(&self) -> Cost {
        self.cost
    }

    fn cipher(&self, passphrase: &Passphrase) -> Result<XChaCha20Poly1305, NodeError> {
        let Cost { memory, passes } = self.cost;
        if !MEMORY.contains(&memory) || !PASSES.contains(&passes) {
            return Err(refused("unlocking the key would take too much"));
        }
        let params = Params::new(memory, passes, 1, Some(32)).map_err(refused)?;
        let mut memory = Zeroizing::new(Vec::new());
        memory.try_reserve_exact(params.block_count()).map_err(refused)?;
        memory.resize(params.block_count(), Block::default());
        let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let (mut key, words) = (Zeroizing::new([0; 32]), passphrase.0.as_bytes());
        argon
            .hash_password_into_with_memory(words, &self.salt, &mut key[..], &mut memory[..])
            .map_err(refused)?;
        Ok(XChaCha20Poly1305::new((&*key).into()))
    }

    /// The beginning of the encoding, which is readable and may not be changed.
    fn open_part(&self, fields: usize) -> Vec<u8> {
        let mut w = Writer::new();
        w.array(fields).u64(VERSION).u64(u64::from(self.cost.memory));
        w.u64(u64::from(self.cost.passes)).u64(1);
        w.bytes(&self.salt).bytes(&self.nonce).bytes(&self.device.0);
        w.finish()
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(bytes);
        r.tuple("locked key", 8)?;
        let within = |value: u32, range: std::ops::RangeInclusive<u32>, at| {
            let what = "locked key";
            if range.contains(&value) {
                Ok(value)
            } else {
                Err(DecodeError::Malformed { what, at })
            }
        };
        within(r.u32("version")?, 1..=1, 1)?;
        let memory = within(r.u32("memory")?, MEMORY, 2)?;
        let passes = within(r.u32("passes")?, PASSES, 2)?;
        within(r.u32("lanes")?, 1..=1, 2)?;
        let (salt, nonce) = (r.array_of("salt")?, r.array_of("nonce")?);
        let device = NodeId(r.array_of("device")?);
        let sealed = r.array_of("sealed key")?;
        r.finish()?;
        Ok(Self { cost: Cost { memory, passes }, salt, nonce, device, sealed })
    }
}

fn refused(why: impl fmt::Display) -> NodeError {
    NodeError::Setting(why.to_string())
}

impl fmt::Display for LockedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut w = Writer::new();
        w.raw(&self.open_part(8)).bytes(&self.sealed);
        write!(f, "{PREFIX}{}", to_base32(&w.finish()))
    }
}

impl FromStr for LockedKey {
    type Err = NodeError;

    fn from_str(text: &str) -> Result<Self, NodeError> {
        let bytes = text.trim().strip_prefix(PREFIX).and_then(from_base32);
        let read = bytes.and_then(|bytes| Self::decode(&bytes).ok());
        read.ok_or_else(|| refused("it holds no locked key, or one that this program cannot read"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const QUICK: Cost = Cost { memory: 8, passes: 1 };

    fn passphrase(text: &str) -> Passphrase {
        Passphrase::new(Zeroizing::new(text.to_owned())).unwrap()
    }

    fn locked() -> LockedKey {
        let key = DeviceKey::from_seed(&[7; 32]);
        LockedKey::lock(&key, &passphrase("correct horse"), QUICK, [9; 40]).unwrap()
    }

    #[test]
    fn its_passphrase_unlocks_it_and_no_other() {
        let locked = locked();
        let again: LockedKey = locked.to_string().parse().unwrap();
        assert_eq!(again, locked);
        let key = again.unlock(&passphrase("correct horse\r\n")).unwrap();
        assert_eq!((key.seed(), key.node_id()), ([7; 32], locked.device()));
        for wrong in ["correct hors", "Correct horse", "correct horse "] {
            assert!(matches!(locked.unlock(&passphrase(wrong)), Err(NodeError::Passphrase)));
        }
        assert!(!format!("{locked:?}{:?}", passphrase("correct horse")).contains("horse"));
    }

    #[test]
    fn whatever_was_changed_is_noticed() {
        let locked = locked();
        let changed = [
            LockedKey { cost: Cost { memory: 9, ..QUICK }, ..locked.clone() },
            LockedKey { cost: Cost { passes: 2, ..QUICK }, ..locked.clone() },
            LockedKey { salt: [0; 16], ..locked.clone() },
            LockedKey { nonce: [0; 24], ..locked.clone() },
            LockedKey { device: NodeId([1; 32]), ..locked.clone() },
            LockedKey { sealed: [0; 48], ..locked },
        ];
        for other in changed {
            let unlocked = other.unlock(&passphrase("correct horse"));
            assert!(matches!(unlocked, Err(NodeError::Passphrase)), "{other:?}");
        }
    }

    #[test]
    fn work_without_end_is_refused_before_it_begins() {
        for cost in [
            Cost { memory: u32::MAX, passes: 1 },
            Cost { memory: 1024 * 1024 + 1, passes: 1 },
            Cost { memory: 8, passes: 17 },
            Cost { memory: 7, passes: 1 },
            Cost { memory: 8, passes: 0 },
        ] {
            let stated = LockedKey { cost, ..locked() };
            assert!(stated.to_string().parse::<LockedKey>().is_err(), "{cost:?}");
            assert!(stated.unlock(&passphrase("x")).is_err(), "{cost:?}");
        }
    }

    #[test]
    fn a_passphrase_is_a_line() {
        let long = "x".repeat(PASSPHRASE_BYTES + 1);
        for text in ["", "\n", "a\nb", "a\0", &long] {
            assert!(Passphrase::new(Zeroizing::new(text.to_owned())).is_err(), "{text:?}");
        }
    }

    /// The bytes may not change from one version to the next. Other implementations of the two algorithms unlock it as well.
    #[test]
    fn a_file_of_this_version_stays_readable() {
        let text = locked().to_string();
        assert_eq!(text, KEPT);
        assert!(KEPT.parse::<LockedKey>().unwrap().unlock(&passphrase("correct horse")).is_ok());
    }

    const KEPT: &str = "locked_key_raaqqaibkaeqscijbeeqscijbeeqscijbeevqgajbeeqscijbeeqscijbeeqscijbeeqscijbeeqswba5jfgyy7ctrjavpxvkb5rglwf7gkuo5vox27hxescd3vgsfcg2iwfqmgmslu6rzdecqte35lm7gcmmkn7kk662afqhf66uaqnc7ckkpbwx6vqg5tsoz7bgk737dqvj2uggg2a";

    proptest! {
        #[test]
        fn what_is_read_is_written_the_same(text in "(locked_key_)?[a-z2-7]{0,260}") {
            if let Ok(locked) = text.parse::<LockedKey>() {
                prop_assert_eq!(locked.to_string(), text);
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            if let Ok(locked) = LockedKey::decode(&bytes) {
                prop_assert!(MEMORY.contains(&locked.cost.memory));
            }
        }
    }
}
