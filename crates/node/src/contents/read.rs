//! Reading content, whole or in part: every node and chunk on the way is checked against its name, and only those that the
//! range touches are looked at. What is not here is asked of connected peers and waited for. Chunks of a sealed database are
//! opened here; what is kept and exchanged is encrypted.

use crate::error::NodeError;
use crate::replica::Replica;
use crate::wants::ClaimId;
use anabranch_core::blob::{ChunkHash, ChunkSpan, ContentRef, Step, WalkError, Walker};
use anabranch_core::entry::StoreId;
use anabranch_core::seal::{ChunkError, Ring};
use anabranch_core::storage::StorageError;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a read waits for what is not here, if nothing else is said.
pub const READ_WAIT: Duration = Duration::from_secs(10);
/// Blobs asked for ahead of what is read.
const AHEAD: usize = 32;
/// Bytes looked at before those found are handed over.
const STRETCH: usize = 1024 * 1024;

/// Content of a replica, to be read.
#[derive(Debug)]
pub struct BlobReader {
    replica: Arc<Replica>,
    /// What names it.
    store: StoreId,
    content: ContentRef,
    claim: ClaimId,
    wait: Duration,
}

/// What lies at the beginning of a range.
struct Stretch {
    bytes: Vec<u8>,
    /// The first of what follows and is not here comes first.
    lacking: Vec<ChunkHash>,
}

impl Replica {
    /// A reader of `content`, which `store` names; it waits `wait` long for each part that is not here.
    #[must_use]
    pub fn reader(
        self: &Arc<Self>,
        store: &StoreId,
        content: ContentRef,
        wait: Duration,
    ) -> BlobReader {
        let (replica, store) = (Arc::clone(self), store.clone());
        BlobReader { store, content, claim: self.new_claim(), wait, replica }
    }
}

impl BlobReader {
    /// The content.
    #[must_use]
    pub fn content(&self) -> &ContentRef {
        &self.content
    }

    /// Hands `sink` the bytes of `range`, or those of it that there are, in order. Blocking; memory: about 2 MiB.
    ///
    /// # Errors
    /// [`NodeError::NoContent`] when a part is not here and did not come in time, [`NodeError::Core`] for content that is
    /// damaged or was never what its writer said, [`NodeError::Sink`] for what `sink` returned.
    pub fn read(
        &self,
        range: Range<u64>,
        sink: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), NodeError> {
        let (mut at, end) = (range.start, range.end.min(self.content.size()));
        // None for who waits longer than clocks can tell.
        let new_deadline = || Instant::now().checked_add(self.wait);
        let mut deadline = new_deadline();
        while at < end {
            let moved = self.replica.blobs_moved();
            let stretch = self.stretch(at..end)?;
            if !stretch.bytes.is_empty() {
                at += stretch.bytes.len() as u64;
                sink(&stretch.bytes).map_err(NodeError::Sink)?;
                deadline = new_deadline();
            }
            if let Some(first) = stretch.lacking.first() {
                self.replica.want_as(self.claim, stretch.lacking.clone());
                if stretch.bytes.is_empty() {
                    self.wait_for(*first, moved, deadline)?;
                    deadline = new_deadline();
                }
            }
        }
        Ok(())
    }

    /// Asks connected peers for what of `range` comes first and is not here. Whether that is nothing.
    ///
    /// # Errors
    /// [`NodeError::Core`].
    pub fn ask(&self, range: Range<u64>) -> Result<bool, NodeError> {
        let (mut at, end) = (range.start, range.end.min(self.content.size()));
        while at < end {
            let stretch = self.stretch(at..end)?;
            at += stretch.bytes.len() as u64;
            if !stretch.lacking.is_empty() {
                self.replica.want_as(self.claim, stretch.lacking);
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What lies at the beginning of `range`, up to the first piece that is not here, and what follows is lacking.
    fn stretch(&self, range: Range<u64>) -> Result<Stretch, NodeError> {
        let blobs = self.replica.blobs();
        let (ring, content) = self.replica.look(|view| {
            Ok::<_, StorageError>((view.ring()?, view.kept(&self.store, self.content)?))
        })?;
        let mut stretch = Stretch { bytes: Vec::new(), lacking: Vec::new() };
        let (mut asked, mut looked) = (BTreeSet::new(), 0);
        for step in Walker::within(&content, range.clone(), |place| blobs.get(&place.hash)) {
            let lacking = match step {
                Ok(Step::Missing(node)) => Some(node.hash),
                Ok(Step::Chunk(span)) => {
                    looked += span.len as usize;
                    let bytes = if stretch.lacking.is_empty() {
                        blobs.get(&span.hash)?
                    } else {
                        self.replica.has_blob(&span.hash)?.then(Vec::new)
                    };
                    match bytes {
                        None => Some(span.hash),
                        Some(bytes) if stretch.lacking.is_empty() => {
                            let bytes = self.open(&ring, &span, &bytes)?;
                            stretch.add(&span, &bytes, &range)?;
                            None
                        }
                        Some(_) => None,
                    }
                }
                Err(WalkError::Lookup(e)) => return Err(e.into()),
                Err(e) => return Err(damaged(&e)),
            };
            if let Some(hash) = lacking.filter(|hash| asked.insert(*hash)) {
                stretch.lacking.push(hash);
            }
            if stretch.lacking.len() >= AHEAD || looked >= STRETCH {
                break;
            }
        }
        Ok(stretch)
    }

    /// The bytes of a chunk.
    fn open<'c>(
        &self,
        ring: &Ring,
        span: &ChunkSpan,
        bytes: &'c [u8],
    ) -> Result<Cow<'c, [u8]>, NodeError> {
        span.hash.verify(bytes).map_err(|e| damaged(&e))?;
        ring.open_chunk(&self.store, bytes).map_err(|e| match e {
            ChunkError::NoKey(_) => StorageError::NoKey.into(),
            e => damaged(&e),
        })
    }

    fn wait_for(
        &self,
        hash: ChunkHash,
        mut moved: u64,
        deadline: Option<Instant>,
    ) -> Result<(), NodeError> {
        while self.replica.blobs().get(&hash)?.is_none() {
            let left =
                deadline.map_or(READ_WAIT, |at| at.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return Err(NodeError::NoContent {
                    connected: self.replica.connected(),
                    waited: self.wait,
                });
            }
            self.replica.wait_for_blobs(moved, left);
            moved = self.replica.blobs_moved();
        }
        Ok(())
    }
}

impl Drop for BlobReader {
    fn drop(&mut self) {
        self.replica.want_as(self.claim, []);
    }
}

impl Stretch {
    /// Adds what of a chunk lies in `range`.
    fn add(&mut self, span: &ChunkSpan, bytes: &[u8], range: &Range<u64>) -> Result<(), NodeError> {
        let from = range.start.saturating_sub(span.offset) as usize;
        let to = (range.end.min(span.offset + span.len) - span.offset) as usize;
        let part = bytes
            .get(from..to)
            .filter(|_| bytes.len() as u64 == span.len)
            .ok_or_else(|| damaged(&"a chunk is not as long as its manifest says"))?;
        self.bytes.extend_from_slice(part);
        Ok(())
    }
}

fn damaged(what: &dyn std::fmt::Display) -> NodeError {
    StorageError::Corrupt(format!("content of a blob: {what}")).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A name stands for its bytes, but a hostile manifest may say anything of their number.
    #[test]
    fn of_a_chunk_of_another_length_than_its_manifest_says_nothing_is_read() {
        let span = ChunkSpan { hash: ChunkHash([0; 32]), offset: 100, len: 10 };
        let read = |length: usize, range: Range<u64>| {
            let mut stretch = Stretch { bytes: Vec::new(), lacking: Vec::new() };
            let bytes: Vec<u8> = (0..length as u8).collect();
            stretch.add(&span, &bytes, &range).map(|()| stretch.bytes)
        };
        assert_eq!(read(10, 0..200).unwrap(), (0..10).collect::<Vec<u8>>());
        assert_eq!(read(10, 103..105).unwrap(), [3, 4]);
        for length in [0, 9, 11, 200] {
            for range in [0..200, 100..101, 103..105, 109..110] {
                let error = read(length, range.clone()).unwrap_err().to_string();
                assert!(error.contains("not as long"), "{length} {range:?}: {error}");
            }
        }
    }
}
