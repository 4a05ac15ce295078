//! Heads: a device's signature over one place of its log. Through `prev` a head vouches for everything below it, as a
//! signed tree head does, so that one signature serves a whole group of commits.

use crate::codec::Writer;
use crate::id::{DatabaseId, Position};
use crate::key::{Context, DeviceKey, Signature, verify};

/// A signed place in a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// What is vouched for.
    pub position: Position,
    /// By the log's device, over [`message`].
    pub signature: Signature,
}

/// The bytes that a head's signature covers: database, log, sequence, id.
#[must_use]
pub fn message(database: &DatabaseId, position: &Position) -> Vec<u8> {
    let mut w = Writer::new();
    w.array(5).bytes(&database.0).bytes(&position.log.device.0).u64(position.log.epoch);
    w.u64(position.seq).bytes(&position.id.0);
    w.finish()
}

impl Head {
    /// Signs `position`. The key must be that of the log's device; otherwise nobody will accept the head.
    #[must_use]
    pub fn sign(key: &DeviceKey, database: &DatabaseId, position: Position) -> Self {
        Self { position, signature: key.sign(Context::Head, &message(database, &position)) }
    }

    /// Whether the log's device signed it.
    #[must_use]
    pub fn verify(&self, database: &DatabaseId) -> bool {
        verify(
            &self.position.log.device,
            Context::Head,
            &message(database, &self.position),
            &self.signature,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{EntryId, LogId};

    #[test]
    fn a_head_covers_everything_it_states() {
        let key = DeviceKey::from_seed(&[5; 32]);
        let database = DatabaseId([9; 32]);
        let log = LogId { device: key.node_id(), epoch: 3 };
        let head = Head::sign(&key, &database, Position { log, seq: 4, id: EntryId([1; 32]) });
        assert!(head.verify(&database));
        assert!(!head.verify(&DatabaseId([8; 32])));
        for change in [
            |p: &mut Position| p.seq = 5,
            |p: &mut Position| p.log.epoch = 4,
            |p: &mut Position| p.id.0[0] ^= 1,
        ] {
            let mut forged = head;
            change(&mut forged.position);
            assert!(!forged.verify(&database));
        }
    }
}
