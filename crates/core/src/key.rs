//! Device keys and every signature made with one. Each kind of statement is signed under a context string of its own, so
//! that a signature made for one purpose never serves another.

use crate::id::NodeId;
use ed25519_dalek::{Signature as DalekSignature, Signer, SigningKey, VerifyingKey};
use std::fmt;

/// What a signature is for. The text is part of what is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Context {
    /// The head of a log.
    Head,
    /// The two ends of a session prove who they are.
    Greeting,
    /// A ticket's key admits a device.
    Redemption,
    /// Possession of a ticket, shown to a serving node.
    TicketProof,
}

impl Context {
    fn text(self) -> &'static [u8] {
        match self {
            Self::Head => b"anabranch 1 head\0",
            Self::Greeting => b"anabranch 1 greeting\0",
            Self::Redemption => b"anabranch 1 redemption\0",
            Self::TicketProof => b"anabranch 1 ticket proof\0",
        }
    }
}

/// 64 bytes of Ed25519 signature.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature(pub [u8; 64]);

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature({:02x}{:02x}…)", self.0[0], self.0[1])
    }
}

/// An Ed25519 key pair: a device's, or a ticket's. Its secret half is wiped from memory when dropped and never printed.
#[derive(Clone)]
pub struct DeviceKey(SigningKey);

impl fmt::Debug for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceKey({:?})", self.node_id())
    }
}

impl DeviceKey {
    /// The key whose secret seed is `seed`: 32 bytes from a cryptographic random source.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// The secret seed, for keeping it in a private file or a ticket.
    #[must_use]
    pub fn seed(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// The public half.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        NodeId(self.0.verifying_key().to_bytes())
    }

    /// Whether [`Self::agree`] gives anything for `other`.
    pub(crate) fn can_agree(other: &NodeId) -> bool {
        VerifyingKey::from_bytes(&other.0).is_ok_and(|key| !key.is_weak())
    }

    /// What this key and the owner of `other` have in common and nobody else can work out: X25519 (RFC 7748) between the two keys
    /// in Montgomery form. `None` for what is no key of full order. That one pair may serve signatures and this is shown by Thormarker,
    /// "On using the same key pair for Ed25519 and an X25519 based KEM" (2021).
    #[must_use]
    pub(crate) fn agree(&self, other: &NodeId) -> Option<[u8; 32]> {
        let other = VerifyingKey::from_bytes(&other.0).ok().filter(|key| !key.is_weak())?;
        let shared = other.to_montgomery().mul_clamped(self.0.to_scalar_bytes()).to_bytes();
        (shared != [0; 32]).then_some(shared)
    }

    /// A secret of the device for one purpose and one place.
    pub(crate) fn derive(&self, context: &str, place: &[u8]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key(context);
        hasher.update(&self.0.to_bytes()).update(place);
        *hasher.finalize().as_bytes()
    }

    /// Signs `message` for the purpose `context`.
    #[must_use]
    pub fn sign(&self, context: Context, message: &[u8]) -> Signature {
        Signature(self.0.sign(&with_context(context, message)).to_bytes())
    }
}

fn with_context(context: Context, message: &[u8]) -> Vec<u8> {
    [context.text(), message].concat()
}

/// Whether `signature` over `message` for the purpose `context` was made by `signer`.
///
/// The one rule of verification everywhere: RFC 8032 with canonical `s` and `R`, and small-order keys and `R` refused
/// (`verify_strict`), so that every implementation and every batch size agrees.
#[must_use]
pub fn verify(signer: &NodeId, context: Context, message: &[u8], signature: &Signature) -> bool {
    VerifyingKey::from_bytes(&signer.0).is_ok_and(|key| {
        key.verify_strict(
            &with_context(context, message),
            &DalekSignature::from_bytes(&signature.0),
        )
        .is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_serves_one_purpose_one_message_one_key() {
        let key = DeviceKey::from_seed(&[1; 32]);
        let other = DeviceKey::from_seed(&[2; 32]);
        let signature = key.sign(Context::Head, b"message");
        assert!(verify(&key.node_id(), Context::Head, b"message", &signature));
        assert!(!verify(&key.node_id(), Context::Greeting, b"message", &signature));
        assert!(!verify(&key.node_id(), Context::Head, b"massage", &signature));
        assert!(!verify(&other.node_id(), Context::Head, b"message", &signature));
    }

    #[test]
    fn small_order_keys_are_refused() {
        // The neutral element as key and as R, with s = 0, satisfies the bare equation for every message.
        let mut neutral = [0; 32];
        neutral[0] = 1;
        let mut signature = [0; 64];
        signature[0] = 1;
        assert!(!verify(&NodeId(neutral), Context::Head, b"anything", &Signature(signature)));
    }

    #[test]
    fn a_larger_spelling_of_s_is_refused() {
        let key = DeviceKey::from_seed(&[3; 32]);
        let mut signature = key.sign(Context::Head, b"m");
        // Adds the group order (little-endian) to s.
        let order: [u8; 32] = [
            0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9,
            0xde, 0x14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
        ];
        let mut carry = 0u16;
        for (s, o) in signature.0[32..].iter_mut().zip(order) {
            let sum = u16::from(*s) + u16::from(o) + carry;
            *s = sum as u8;
            carry = sum >> 8;
        }
        assert!(!verify(&key.node_id(), Context::Head, b"m", &signature));
    }

    #[test]
    fn secrets_are_not_printed() {
        let key = DeviceKey::from_seed(&[0xab; 32]);
        assert!(!format!("{key:?}").to_lowercase().contains("abab"));
    }
}
