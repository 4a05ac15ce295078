//! What is written down of how a replica stands with a peer.

use super::standing::Standing;
use super::why::Why;
use anabranch_core::codec::{DecodeError, Reader, Writer};
use anabranch_core::id::NodeId;

/// What is written down of how a replica stands with a peer, for other processes and the next start.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fate {
    /// The peer, once it was reached.
    pub device: Option<NodeId>,
    /// When the two were in step last: microseconds since 1970.
    pub success: Option<u64>,
    /// What failed since, and when: a word for programs, and a sentence.
    pub failure: Option<(u64, String, String)>,
}

impl Fate {
    pub(super) fn of(standing: &Standing) -> Self {
        let mut fate =
            Self { device: standing.device, success: standing.last_success, failure: None };
        if let Some((at, why)) = standing.failure() {
            fate.failed(*at, why);
        }
        fate
    }

    pub(crate) fn failed(&mut self, at: u64, why: &Why) {
        self.failure = Some((at, why.code().to_owned(), why.to_string()));
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.array(5).bytes(self.device.as_ref().map_or(&[][..], |d| &d.0));
        let (at, code, text) = self.failure.clone().unwrap_or_default();
        w.u64(self.success.unwrap_or(0)).u64(at).text(&code).text(&text);
        w.finish()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(bytes);
        r.tuple("standing", 5)?;
        let at = r.position();
        let device = match r.bytes("device", 32)? {
            [] => None,
            id => Some(NodeId(
                id.try_into().map_err(|_| DecodeError::Malformed { what: "device", at })?,
            )),
        };
        let success = Some(r.u64("success")?).filter(|at| *at > 0);
        let failed = r.u64("failure")?;
        let code = r.text("reason", 64)?.to_owned();
        let text = r.text("sentence", 1 << 20)?.to_owned();
        r.finish()?;
        Ok(Self { device, success, failure: (failed > 0).then_some((failed, code, text)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fates_come_back() {
        let device = Some(NodeId([7; 32]));
        let failure = Some((5, "offline".to_owned(), "the peer is offline".to_owned()));
        for fate in [Fate::default(), Fate { device, success: Some(9), failure }] {
            assert_eq!(Fate::decode(&fate.encode()), Ok(fate));
        }
        assert!(Fate::decode(&[0x85, 0x41, 1, 0, 0, 0x60, 0x60]).is_err());
    }
}
