//! Data that came and is not applied yet, in the order in which it came. Batches are checked ahead, several at a time, since
//! that needs no storage; they are applied one after the other.

use crate::frame::DATA_BYTES;
use crate::work::{Batch, Work};
use anabranch_core::blob::ChunkHash;
use anabranch_core::id::DatabaseId;
use std::collections::VecDeque;

/// Batches that are checked or being checked before it is their turn: what is unpacked takes more memory.
const AHEAD: usize = 4;

/// What came and waits.
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    queue: VecDeque<Item>,
    /// Number of the batch that came last.
    last: u64,
    /// Batches in the queue that are unpacked or being unpacked.
    ahead: usize,
}

#[derive(Debug)]
struct Item {
    /// Bytes as they came.
    cost: u32,
    data: Data,
}

#[derive(Debug)]
enum Data {
    Packed {
        raw: u32,
        bytes: Vec<u8>,
    },
    /// Lent to be checked.
    Away(u64),
    Checked(Result<Batch, String>),
    Blob {
        hash: ChunkHash,
        bytes: Vec<u8>,
    },
}

/// What is to be applied next.
pub(crate) enum Next {
    Batch(Batch),
    /// A batch that is no good, and why.
    Bad(String),
    /// All that came one after the other, up to [`DATA_BYTES`] and one more.
    Blobs(Vec<(ChunkHash, Vec<u8>)>),
}

impl Incoming {
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(crate) fn batch(&mut self, raw: u32, bytes: Vec<u8>) {
        self.queue.push_back(Item { cost: bytes.len() as u32, data: Data::Packed { raw, bytes } });
    }

    pub(crate) fn blob(&mut self, hash: ChunkHash, bytes: Vec<u8>) {
        self.queue.push_back(Item { cost: bytes.len() as u32, data: Data::Blob { hash, bytes } });
    }

    /// The next batch to be checked, if there is room for it.
    pub(crate) fn check(&mut self, database: DatabaseId) -> Option<Work> {
        if self.ahead >= AHEAD {
            return None;
        }
        let packed = |item: &&mut Item| matches!(item.data, Data::Packed { .. });
        let item = self.queue.iter_mut().find(packed)?;
        self.last += 1;
        match std::mem::replace(&mut item.data, Data::Away(self.last)) {
            Data::Packed { raw, bytes } => {
                self.ahead += 1;
                Some(Work::Check { number: self.last, database, raw, bytes })
            }
            _ => None,
        }
    }

    pub(crate) fn checked(&mut self, number: u64, outcome: Result<Batch, String>) {
        let away = |item: &&mut Item| matches!(item.data, Data::Away(n) if n == number);
        if let Some(item) = self.queue.iter_mut().find(away) {
            item.data = Data::Checked(outcome);
        }
    }

    fn another_blob(&mut self) -> Option<(u32, ChunkHash, Vec<u8>)> {
        let is_blob = |item: &mut Item| matches!(item.data, Data::Blob { .. });
        match self.queue.pop_front_if(is_blob)? {
            Item { cost, data: Data::Blob { hash, bytes } } => Some((cost, hash, bytes)),
            _ => None,
        }
    }

    /// What came first, with its cost, if it is ready.
    pub(crate) fn next(&mut self) -> Option<(u32, Next)> {
        let ready = |item: &Item| matches!(item.data, Data::Checked(_) | Data::Blob { .. });
        let Item { cost, data } = self.queue.pop_front_if(|item| ready(item))?;
        Some(match data {
            Data::Blob { hash, bytes } => {
                let (mut cost, mut blobs) = (cost, vec![(hash, bytes)]);
                while cost < DATA_BYTES as u32
                    && let Some((more, hash, bytes)) = self.another_blob()
                {
                    cost += more;
                    blobs.push((hash, bytes));
                }
                (cost, Next::Blobs(blobs))
            }
            Data::Checked(outcome) => {
                self.ahead -= 1;
                (cost, outcome.map_or_else(Next::Bad, Next::Batch))
            }
            Data::Packed { .. } | Data::Away(_) => return None,
        })
    }
}
