//! Where a folder's content comes from: the manifest nodes and fetched chunks in its database file, and the files
//! themselves, which are never stored a second time.

use crate::apply::{ContentSource, LocalChunks};
use crate::fs::FileSystem;
use crate::path::RelPath;
use crate::tables::{Index, IndexAt, store};
use anabranch_core::blob::{ChunkHash, ChunkSpan};
use anabranch_core::seal::Ring;
use anabranch_core::storage::{Durability, ReadTx, Storage, StorageError, Table};
use anabranch_core::view::View;
use anabranch_sync::work::Blobs;
use std::borrow::Cow;
use std::io;
use std::sync::Arc;

/// Serves peers, and takes in what they send.
pub struct FolderBlobs {
    storage: Arc<dyn Storage>,
    index: Index,
    fs: Arc<dyn FileSystem>,
}

impl std::fmt::Debug for FolderBlobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FolderBlobs")
    }
}

impl FolderBlobs {
    /// What the folder `fs` and its database have.
    #[must_use]
    pub fn new(storage: Arc<dyn Storage>, fs: Arc<dyn FileSystem>) -> Self {
        Self { index: Index(Arc::clone(&storage)), storage, fs }
    }

    fn read_file(&self, path: &RelPath, offset: u64, len: u64) -> io::Result<Vec<u8>> {
        let mut file = self.fs.open(path)?;
        let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
        let mut at = 0;
        while at < bytes.len() {
            match file.read_at(offset + at as u64, &mut bytes[at..])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => at += n,
            }
        }
        Ok(bytes)
    }
}

impl Blobs for FolderBlobs {
    fn get(&self, hash: &ChunkHash) -> Result<Option<Vec<u8>>, StorageError> {
        if let Some(bytes) = self.storage.read()?.get(Table::Blob, &hash.0)? {
            return Ok(Some(bytes));
        }
        for (place, len) in self.index.find(hash)? {
            // A file that changed since does not have it any more; the name tells.
            let read = |offset, len| self.read_file(&place.path, offset, len);
            if let Ok(bytes) = place.kept(len, read)
                && hash.verify(&bytes).is_ok()
            {
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }

    fn put(&self, blobs: &[(ChunkHash, Vec<u8>)]) -> Result<(), StorageError> {
        // What is lost to a power failure is fetched again.
        let mut tx = self.storage.write(Durability::Normal)?;
        for (hash, bytes) in blobs {
            tx.put(Table::Blob, &hash.0, bytes)?;
        }
        tx.commit()
    }
}

/// Hands content to the applier, as of one moment.
pub(crate) struct Content<'a> {
    tx: &'a dyn ReadTx,
    local: LocalChunks<'a>,
    ring: Ring,
}

impl<'a> Content<'a> {
    pub(crate) fn new(
        fs: &'a dyn FileSystem,
        index: &'a IndexAt<'a>,
    ) -> Result<Self, StorageError> {
        let ring = View::new(index.0).ring()?;
        Ok(Self { tx: index.0, local: LocalChunks::new(fs, index), ring })
    }

    fn blob(&self, hash: &ChunkHash) -> io::Result<Option<Vec<u8>>> {
        self.tx.get(Table::Blob, &hash.0).map_err(io::Error::other)
    }
}

impl ContentSource for Content<'_> {
    fn node(&mut self, hash: &ChunkHash) -> io::Result<Option<Vec<u8>>> {
        self.blob(hash)
    }

    fn chunk(&mut self, span: &ChunkSpan) -> io::Result<Option<Vec<u8>>> {
        match self.blob(&span.hash)? {
            Some(bytes) => Ok(Some(bytes)),
            None => self.local.chunk(span),
        }
    }

    fn open<'c>(&self, chunk: &'c [u8]) -> io::Result<Cow<'c, [u8]>> {
        self.ring.open_chunk(&store(), chunk).map_err(io::Error::other)
    }

    fn moved(&mut self, from: &RelPath, to: &RelPath) {
        self.local.moved(from, to);
    }
}
