//! Putting content in. It is cut and stored as it comes, within a bound of memory, and named by an entry at the end: in
//! one transaction with the last of it, so that no entry names what is not here (I1, I6). Until then a collection leaves
//! alone what was stored; a put that never ends leaves blobs that nothing names, which a collection takes away.
//!
//! In a sealed database it is encrypted as it comes, with the key of that moment. Should there be another one when it is
//! named, since somebody was put out meanwhile, it is encrypted again: what is named after that is not for him.

use super::{OWN, PIN, PUT, WorkId, as_read, collects, lives};
use crate::error::NodeError;
use crate::replica::Replica;
use anabranch_core::author::{Draft, Seen, Write};
use anabranch_core::awaited;
use anabranch_core::blob::{BlobRef, Builder, ChunkHash, ContentRef, Piece, Step, Walker};
use anabranch_core::entry::{Entry, StoreId};
use anabranch_core::ops::ValueName;
use anabranch_core::path::Path;
use anabranch_core::sabotage::{self, Bug};
use anabranch_core::seal::Key;
use anabranch_core::storage::{Durability, StorageError, Table, WriteTx};
use anabranch_core::view::View;
use std::cell::Cell;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Pins taken away in one transaction.
const PINS: usize = 4096;

/// Content on its way in. Dropping it leaves nothing that anybody sees.
#[derive(Debug)]
pub struct Put {
    replica: Arc<Replica>,
    /// What is to name it.
    store: StoreId,
    id: WorkId,
    builder: Builder,
    /// What it is sealed with, in a sealed database.
    key: Option<Key>,
    waiting: Waiting,
    /// Whether something is stored already.
    begun: bool,
    size: u64,
}

#[derive(Debug, Default)]
struct Waiting {
    pieces: Vec<(ChunkHash, Vec<u8>)>,
    bytes: usize,
}

impl Waiting {
    /// Says that they are stored.
    fn tell(&self, replica: &Replica) {
        let hashes: Vec<ChunkHash> = self.pieces.iter().map(|(hash, _)| *hash).collect();
        replica.blobs_arrived(&hashes);
    }

    fn add(&mut self, piece: Piece<'_>) -> Result<(), Infallible> {
        let (hash, bytes) = match piece {
            Piece::Chunk { span, bytes } => (span.hash, bytes),
            Piece::Node { hash, bytes } => (hash, bytes),
        };
        self.bytes += bytes.len();
        self.pieces.push((hash, bytes.to_vec()));
        Ok(())
    }
}

fn row(id: &WorkId) -> Vec<u8> {
    [PUT, id].concat()
}

fn lost() -> StorageError {
    StorageError::Io(
        "nothing was heard of the put for a day and it counts as dead; try again".into(),
    )
}

impl Replica {
    /// Begins to put content in that `store` is to name. Memory: twice [`crate::ReplicaOptions::put_bytes`] and a chunk.
    ///
    /// # Errors
    /// [`NodeError::Random`], [`NodeError::Setting`] in a replica whose blobs are elsewhere, [`NodeError::Core`] before the
    /// database's first entry is here and, where it is sealed, as committing does.
    pub fn put_content(self: &Arc<Self>, store: &StoreId) -> Result<Put, NodeError> {
        self.require_blobs()?;
        let key = self.content_key(store)?;
        let random: [u8; 32] = self.device().random()?;
        let mut id = WorkId::default();
        id.copy_from_slice(&random[..16]);
        Ok(Put {
            replica: Arc::clone(self),
            store: store.clone(),
            id,
            builder: key.as_ref().map_or_else(Builder::new, Builder::sealed),
            key,
            waiting: Waiting::default(),
            begun: false,
            size: 0,
        })
    }
}

impl Put {
    /// Takes the next bytes. Blocking.
    ///
    /// # Errors
    /// [`NodeError::Core`] when they cannot be stored; the put is then of no further use.
    pub fn write(&mut self, data: &[u8]) -> Result<(), NodeError> {
        // In parts, so that what waits stays bounded however much comes at once.
        let most = self.replica.put_bytes.max(1);
        for part in data.chunks(most) {
            let waiting = &mut self.waiting;
            self.builder.push(part, |piece| waiting.add(piece)).unwrap_or_else(|e| match e {});
            self.size += part.len() as u64;
            if self.waiting.bytes >= most {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Stores what waits, and with it that a collection is to leave it alone.
    fn flush(&mut self) -> Result<(), StorageError> {
        let now = self.replica.device().now().0.to_be_bytes();
        let mut tx = self.replica.storage().write(Durability::Normal)?;
        if self.begun && !tx.has(Table::Local, &row(&self.id))? {
            return Err(lost());
        }
        tx.put(Table::Local, &row(&self.id), &now)?;
        for (hash, bytes) in &self.waiting.pieces {
            tx.put(Table::Blob, &hash.0, bytes)?;
            tx.put(Table::Local, &[PIN, &hash.0, &self.id].concat(), &[])?;
        }
        tx.commit()?;
        self.begun = true;
        let waiting = std::mem::take(&mut self.waiting);
        waiting.tell(&self.replica);
        Ok(())
    }

    /// Ends the content and commits an entry that gives it the name `path` in its store, in place of the values `seen`.
    /// Durable when it returns. Blocking.
    ///
    /// # Errors
    /// [`NodeError::Core`]; then nothing was committed.
    pub fn finish(
        mut self,
        path: &Path,
        seen: Seen,
        media_type: &str,
    ) -> Result<(Option<Entry>, BlobRef), NodeError> {
        let waiting = &mut self.waiting;
        let builder = std::mem::take(&mut self.builder);
        let content =
            builder.finish(|piece| waiting.add(piece)).unwrap_or_else(|e: Infallible| match e {});
        let blob = BlobRef { content, media_type: media_type.to_owned() };
        let value = Some(blob.encode());
        let write = Write {
            store: self.store.clone(),
            path: path.clone(),
            value,
            seen: seen.clone(),
            below: false,
            above: false,
        };
        let draft = Draft { writes: vec![write], ..Draft::default() };
        let outdated = Cell::new(false);
        let committed = self.replica.commit_with_local(&draft, |tx, entry| {
            let Some(entry) = entry else { return self.store_last(tx, &content) };
            let sealed = self.key.as_ref().map(Key::id);
            if sealed.is_some() && View::new(as_read(tx)).sealing_key()? != sealed {
                outdated.set(true);
                return Err(StorageError::Io("the key was renewed; try again".into()));
            }
            self.store_last(tx, &content)?;
            self.settle(tx, entry, &draft.writes[0])
        });
        if outdated.get() {
            return self.sealed_again(content)?.finish(path, seen, media_type);
        }
        let entry = committed?;
        self.waiting.tell(&self.replica);
        if self.begun {
            self.begun = false;
            // It is committed whatever becomes of the pins; a collection takes them, since the put is over.
            if let Err(e) = self.unpin(&content) {
                tracing::debug!("pins of a put that is over could not be taken away: {e}");
            }
        }
        Ok((entry, blob))
    }

    /// The same content under the key of now.
    fn sealed_again(mut self, content: ContentRef) -> Result<Self, NodeError> {
        self.flush()?;
        let mut again = self.replica.put_content(&self.store)?;
        let mut failed = None;
        let reader = self.replica.reader(&self.store, content, Duration::ZERO);
        let read = reader.read(0..u64::MAX, &mut |part| {
            again.write(part).map_err(|e| {
                failed = Some(e);
                io::ErrorKind::Other.into()
            })
        });
        failed.map_or(Ok(()), Err)?;
        read?;
        Ok(again)
    }

    /// What has not been stored yet goes with the entry.
    fn store_last(&self, tx: &mut dyn WriteTx, content: &ContentRef) -> Result<(), StorageError> {
        // Not heard of for a day, and then a collection took away what it had stored.
        if self.begun && !tx.delete(Table::Local, &row(&self.id))? {
            return Err(lost());
        }
        if content.size() > 0 {
            tx.put(Table::Local, &[OWN, &content.root().0].concat(), &[])?;
        }
        if sabotage::is(Bug::ContentUnflushed) {
            return Ok(());
        }
        for (hash, bytes) in &self.waiting.pieces {
            tx.put(Table::Blob, &hash.0, bytes)?;
        }
        Ok(())
    }

    fn settle(
        &self,
        tx: &mut dyn WriteTx,
        entry: &Entry,
        write: &Write,
    ) -> Result<(), StorageError> {
        // A collection that began before this knows what it may not take away by this row alone.
        if collects(tx, self.replica.device().now().0)? {
            return Ok(());
        }
        let name = ValueName::of(&entry.position(), 0);
        awaited::settle_value(tx, &write.store, &write.path, &name)
    }

    /// Takes the pins away; the entry protects the content from now on.
    fn unpin(&self, content: &ContentRef) -> Result<(), StorageError> {
        let storage = self.replica.storage();
        let mut pins: Vec<ChunkHash> = Vec::new();
        let clear = |pins: &mut Vec<ChunkHash>| {
            let mut tx = storage.write(Durability::Normal)?;
            for hash in pins.drain(..) {
                tx.delete(Table::Local, &[PIN, &hash.0, &self.id].concat())?;
            }
            tx.commit()
        };
        let nodes = std::cell::RefCell::new(Vec::new());
        let walker = Walker::new(&self.kept(content), |place| {
            nodes.borrow_mut().push(place.hash);
            storage.read()?.get(Table::Blob, &place.hash.0)
        });
        // What cannot be walked is left to a collection, which knows that the put is over.
        for step in walker.map_while(Result::ok) {
            if let Step::Chunk(span) = step {
                pins.push(span.hash);
            }
            pins.append(&mut nodes.borrow_mut());
            if pins.len() >= PINS {
                clear(&mut pins)?;
            }
        }
        clear(&mut pins)
    }

    fn kept(&self, content: &ContentRef) -> ContentRef {
        if self.key.is_some() { content.padded() } else { *content }
    }

    /// Bytes taken so far.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }
}

impl Drop for Put {
    fn drop(&mut self) {
        if self.begun {
            // Without this row a collection takes everything else; if that fails, it does so in a day.
            let gone = self.replica.storage().write(Durability::Normal).and_then(|mut tx| {
                tx.delete(Table::Local, &row(&self.id))?;
                tx.commit()
            });
            if let Err(e) = gone {
                tracing::debug!("a put that was given up could not be forgotten: {e}");
            }
        }
    }
}

/// Whether a put that is under way is about to name this blob. One that is taken for dead is forgotten, so that it fails if
/// it is not.
pub(super) fn is_pinned(
    tx: &mut dyn WriteTx,
    hash: &ChunkHash,
    now: u64,
) -> Result<bool, StorageError> {
    let prefix = [PIN, &hash.0].concat();
    let mut puts = Vec::new();
    tx.keys(Table::Local, &prefix, None, &mut |key| {
        use std::ops::ControlFlow;
        let Some(id) = key.strip_prefix(&prefix[..]) else { return ControlFlow::Break(()) };
        puts.push([PUT, id].concat());
        ControlFlow::Continue(())
    })?;
    for put in puts {
        match tx.get(Table::Local, &put)? {
            Some(heard) if lives(now, &heard) => return Ok(true),
            Some(_) => _ = tx.delete(Table::Local, &put)?,
            None => {}
        }
    }
    Ok(false)
}
