//! A digest of a set that is cheap to keep up to date and does not depend on order: LtHash with 1,024 16-bit lanes
//! (Bellare and Micciancio, "A New Paradigm for Collision-Free Hashing", 1997; parameters as in Lewi et al., "Securing
//! Update Propagation with Homomorphic Hashing", 2019). Each element is stretched to 2,048 bytes by BLAKE3 and added
//! lane by lane; removing subtracts. Unlike XOR or plain sums of hashes, finding two sets with one digest is hard.

use std::fmt;

const LANES: usize = 1024;

/// The sum over a set. Two equal sets have equal sums, whatever came and went on the way.
#[derive(Clone, PartialEq, Eq)]
pub struct LtHash(Box<[u16; LANES]>);

impl Default for LtHash {
    fn default() -> Self {
        Self(Box::new([0; LANES]))
    }
}

impl fmt::Debug for LtHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LtHash({})", blake3::Hash::from(self.digest()).to_hex())
    }
}

impl LtHash {
    /// Bytes of the whole state.
    pub const STATE_BYTES: usize = 2 * LANES;

    /// Adds the element that was fed to `element`.
    pub fn add(&mut self, element: &blake3::Hasher) {
        self.combine(element, u16::wrapping_add);
    }

    /// Takes an element out again.
    pub fn remove(&mut self, element: &blake3::Hasher) {
        self.combine(element, u16::wrapping_sub);
    }

    fn combine(&mut self, element: &blake3::Hasher, op: impl Fn(u16, u16) -> u16) {
        let mut stretched = [0u8; Self::STATE_BYTES];
        element.finalize_xof().fill(&mut stretched);
        for (lane, pair) in self.0.iter_mut().zip(stretched.chunks_exact(2)) {
            *lane = op(*lane, u16::from_le_bytes([pair[0], pair[1]]));
        }
    }

    /// Adds everything that `other` is the sum of.
    pub fn merge(&mut self, other: &Self) {
        for (lane, more) in self.0.iter_mut().zip(other.0.iter()) {
            *lane = lane.wrapping_add(*more);
        }
    }

    /// BLAKE3 of the state.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        *blake3::hash(&self.to_bytes()).as_bytes()
    }

    /// The state, lanes little-endian.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; Self::STATE_BYTES];
        for (pair, lane) in bytes.chunks_exact_mut(2).zip(self.0.iter()) {
            pair.copy_from_slice(&lane.to_le_bytes());
        }
        bytes
    }

    /// The state that [`Self::to_bytes`] gave; `None` for any other length.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != Self::STATE_BYTES {
            return None;
        }
        let mut hash = Self::default();
        for (lane, pair) in hash.0.iter_mut().zip(bytes.chunks_exact(2)) {
            *lane = u16::from_le_bytes([pair[0], pair[1]]);
        }
        Some(hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn element(bytes: &[u8]) -> blake3::Hasher {
        let mut hasher = blake3::Hasher::new();
        hasher.update(bytes);
        hasher
    }

    #[test]
    fn an_element_counted_twice_shows() {
        let (mut once, mut twice) = (LtHash::default(), LtHash::default());
        once.add(&element(b"a"));
        twice.add(&element(b"a"));
        twice.add(&element(b"a"));
        assert_ne!(once.digest(), twice.digest());
    }

    proptest! {
        #[test]
        fn order_and_detours_do_not_matter(elements: Vec<Vec<u8>>, gone: Vec<Vec<u8>>) {
            let (mut there, mut back) = (LtHash::default(), LtHash::default());
            for e in &elements { there.add(&element(e)); }
            for g in &gone { back.add(&element(g)); }
            for e in elements.iter().rev() { back.add(&element(e)); }
            for g in &gone { back.remove(&element(g)); }
            prop_assert_eq!(&there, &back);
            let (mut left, mut right) = (LtHash::default(), LtHash::default());
            for (n, e) in elements.iter().enumerate() {
                if n % 2 == 0 { left.add(&element(e)) } else { right.add(&element(e)) }
            }
            left.merge(&right);
            prop_assert_eq!(&there, &left);
            prop_assert_eq!(LtHash::from_bytes(&there.to_bytes()), Some(there));
        }
    }
}
