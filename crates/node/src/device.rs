//! Who acts: a device's key, and the clock and random source it acts with. They are handed in, so that a simulator can run
//! a node under a clock and a source of its own (I8).

use crate::error::NodeError;
use anabranch_core::author::Author;
use anabranch_core::entry::Timestamp;
use anabranch_core::id::NodeId;
use anabranch_core::key::DeviceKey;
use anabranch_core::sabotage::{self, Bug};
use anabranch_core::storage::Storage;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

/// The clock and the random source of a device.
pub trait Environment: Send + Sync {
    /// The wall clock in microseconds since 1970. It may jump either way.
    fn now(&self) -> Timestamp;

    /// A clock that never goes back, from any beginning.
    fn steady(&self) -> Duration;

    /// Fills `bytes` with random ones.
    ///
    /// # Errors
    /// [`NodeError::Random`].
    fn fill(&self, bytes: &mut [u8]) -> Result<(), NodeError>;
}

/// What the operating system has.
#[derive(Debug, Clone, Copy, Default)]
pub struct System;

impl Environment for System {
    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let micros = since.map_or(0, |d| d.as_micros());
        Timestamp(u64::try_from(micros).unwrap_or(u64::MAX))
    }

    fn steady(&self) -> Duration {
        static BEGINNING: LazyLock<Instant> = LazyLock::new(Instant::now);
        BEGINNING.elapsed()
    }

    fn fill(&self, bytes: &mut [u8]) -> Result<(), NodeError> {
        getrandom::fill(bytes).map_err(|e| NodeError::Random(e.to_string()))
    }
}

/// A device: its key, its clock, its random source. Cheap to share.
#[derive(Clone)]
pub struct Device {
    key: DeviceKey,
    environment: Arc<dyn Environment>,
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Device({:?})", self.id())
    }
}

impl Device {
    /// The device with this key, in the system's environment.
    #[must_use]
    pub fn new(key: DeviceKey) -> Self {
        Self::within(key, Arc::new(System))
    }

    /// The device with this key, in `environment`.
    #[must_use]
    pub fn within(key: DeviceKey, environment: Arc<dyn Environment>) -> Self {
        Self { key, environment }
    }

    /// Its key.
    #[must_use]
    pub fn key(&self) -> &DeviceKey {
        &self.key
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.key.node_id()
    }

    /// Its wall clock.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        if sabotage::is(Bug::ClockRead) { System.now() } else { self.environment.now() }
    }

    /// A clock of its that never goes back.
    pub(crate) fn steady(&self) -> Duration {
        self.environment.steady()
    }

    /// `N` random bytes.
    ///
    /// # Errors
    /// [`NodeError::Random`].
    pub fn random<const N: usize>(&self) -> Result<[u8; N], NodeError> {
        let mut bytes = [0; N];
        self.environment.fill(&mut bytes)?;
        Ok(bytes)
    }

    /// This device as the author of what is written to `storage` now.
    ///
    /// # Errors
    /// [`NodeError::Random`].
    pub(crate) fn author(&self, storage: &dyn Storage) -> Result<Author<'_>, NodeError> {
        Ok(Author {
            key: &self.key,
            wall: self.now(),
            fresh_epoch: u64::from_le_bytes(self.random()?),
            instance: storage.instance(),
        })
    }
}

/// `N` random bytes of the system's, for what is no device's doing.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], NodeError> {
    let mut bytes = [0; N];
    System.fill(&mut bytes)?;
    Ok(bytes)
}
