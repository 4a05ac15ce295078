//! What is declared to be kept in step with whom: once, and carried out for ever.

use crate::error::NodeError;
use anabranch_core::codec::{DecodeError, Reader, Writer};
use anabranch_sync::channel::Direction;
use std::time::Duration;

/// Who goes first when many want to catch up at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Priority {
    /// Before all others.
    High,
    /// As most are.
    #[default]
    Normal,
    /// After all others.
    Low,
}

impl Priority {
    const ALL: [Self; 3] = [Self::High, Self::Normal, Self::Low];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
        }
    }
}

/// A replica is to be kept in step with whoever answers at an address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Intent {
    /// Where.
    pub address: String,
    /// Which ways entries go.
    pub direction: Direction,
    /// How often; `None`: the link stays open, and what either side commits reaches the other at once.
    pub every: Option<Duration>,
    /// Who goes first.
    pub priority: Priority,
}

const ADDRESS_BYTES: usize = 4096;

impl Intent {
    /// Both ways, at once.
    pub fn new(address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            direction: Direction::BOTH,
            every: None,
            priority: Priority::Normal,
        }
    }

    /// Checks what a user asks for.
    ///
    /// # Errors
    /// [`NodeError::Setting`] for an interval below a second or a direction that is none.
    pub fn check(&self) -> Result<(), NodeError> {
        if self.every.is_some_and(|every| every < Duration::from_secs(1)) {
            let text = "syncing more often than once a second costs more than staying connected; \
                        leave the interval out";
            return Err(NodeError::Setting(text.into()));
        }
        if !(self.direction.send || self.direction.receive) {
            return Err(NodeError::Setting("nothing would be synced in neither direction".into()));
        }
        Ok(())
    }

    pub(crate) fn encode(&self, w: &mut Writer) {
        let millis = self.every.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX));
        let number = Priority::ALL.iter().position(|p| *p == self.priority).unwrap_or(1);
        w.array(5).text(&self.address).bool(self.direction.send).bool(self.direction.receive);
        w.u64(millis).u64(number as u64);
    }

    pub(crate) fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        r.tuple("intent", 5)?;
        let address = r.text("address", ADDRESS_BYTES)?.to_owned();
        let direction = Direction { send: r.bool("send")?, receive: r.bool("receive")? };
        let every = Some(r.u64("interval")?).filter(|ms| *ms > 0).map(Duration::from_millis);
        let at = r.position();
        let number = usize::try_from(r.u64("priority")?).ok();
        let priority = number.and_then(|n| Priority::ALL.get(n).copied());
        let priority = priority.ok_or(DecodeError::Malformed { what: "priority", at })?;
        Ok(Self { address, direction, every, priority })
    }
}
