//! What happened, as one hash and, when it is asked for, as lines that people read. Two runs of one plan must agree on
//! both: nothing in it may depend on addresses, threads, time or the order of a hash table.

use crate::clock::{SECOND, Time};
use std::fmt::Write as _;

/// The record of one simulation.
#[derive(Debug)]
pub struct Trace {
    hasher: blake3::Hasher,
    story: Option<String>,
}

impl Trace {
    /// An empty one; with `told`, lines are kept.
    #[must_use]
    pub fn new(told: bool) -> Self {
        Self { hasher: blake3::Hasher::new(), story: told.then(String::new) }
    }

    /// Something happened to `node`. `line` is worked out only when somebody reads it.
    pub fn note(
        &mut self,
        now: Time,
        kind: &str,
        node: usize,
        detail: &[u8],
        line: impl FnOnce() -> String,
    ) {
        self.hasher.update(&now.to_le_bytes());
        self.hasher.update(kind.as_bytes());
        self.hasher.update(&(node as u64).to_le_bytes());
        self.hasher.update(&(detail.len() as u64).to_le_bytes());
        self.hasher.update(detail);
        if let Some(story) = &mut self.story {
            let (seconds, rest) = (now / SECOND, now % SECOND / 1_000);
            // Writing to a string cannot fail.
            let _ = writeln!(story, "{seconds:>6}.{rest:03}  node {node:<3} {kind:<10} {}", line());
        }
    }

    /// The hash of everything so far.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        self.hasher.finalize().into()
    }

    /// The lines, if they were kept.
    #[must_use]
    pub fn story(&mut self) -> String {
        self.story.take().unwrap_or_default()
    }
}
