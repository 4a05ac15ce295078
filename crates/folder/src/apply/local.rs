//! Chunks that some file of this folder already has.

use crate::fs::{FileSystem, OpenFile};
use crate::path::RelPath;
use anabranch_core::blob::{ChunkHash, ChunkSpan};
use anabranch_core::seal::Key;
use std::collections::HashMap;
use std::io;

/// Where a chunk was when it was last read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkPlace {
    /// The file.
    pub path: RelPath,
    /// Bytes before it.
    pub offset: u64,
    /// How it becomes what is kept and exchanged, in a sealed database.
    pub sealed: Option<SealedChunk>,
}

/// How a sealed database keeps a chunk of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedChunk {
    /// With this key.
    pub key: Key,
    /// Bytes of the file; what lies behind them is padding.
    pub size: u64,
    /// Where the chunk is, and how long, that padding depends on ([`Key::pad`]).
    pub certain: Option<(u64, u64)>,
}

impl ChunkPlace {
    /// The chunk as it is kept, of `len` bytes of content and padding, given what reads the file at an offset.
    pub(crate) fn kept(
        &self,
        len: u64,
        mut read: impl FnMut(u64, u64) -> io::Result<Vec<u8>>,
    ) -> io::Result<Vec<u8>> {
        let Some(SealedChunk { key, size, certain }) = &self.sealed else {
            return read(self.offset, len);
        };
        let there = size.saturating_sub(self.offset).min(len);
        let mut plain = if there > 0 { read(self.offset, there)? } else { Vec::new() };
        if there < len {
            let certain = certain.map(|(offset, len)| read(offset, len)).transpose()?;
            let skip = (self.offset + there).saturating_sub(*size);
            plain.resize(usize::try_from(len).map_err(io::Error::other)?, 0);
            key.pad(*size, certain.as_deref(), skip, &mut plain[there as usize..]);
        }
        Ok(key.seal_chunk(&plain))
    }
}

/// Knows which files had which chunks. It need not be up to date: what is read is verified.
pub trait ChunkIndex {
    /// Places where the chunk may be.
    ///
    /// # Errors
    /// What went wrong looking it up.
    fn places(&self, hash: &ChunkHash) -> io::Result<Vec<ChunkPlace>>;
}

/// Reads chunks out of the files of a folder.
pub struct LocalChunks<'a> {
    fs: &'a dyn FileSystem,
    index: &'a dyn ChunkIndex,
    moved: HashMap<RelPath, RelPath>,
    /// The file read last: neighbouring chunks mostly come from one file.
    open: Option<(RelPath, Box<dyn OpenFile + 'a>)>,
}

impl<'a> LocalChunks<'a> {
    /// Chunks of the folder `fs`, found through `index`.
    #[must_use]
    pub fn new(fs: &'a dyn FileSystem, index: &'a dyn ChunkIndex) -> Self {
        Self { fs, index, moved: HashMap::new(), open: None }
    }

    /// The bytes of a chunk as it is kept, if some file still has it. A file that cannot be read does not have it.
    ///
    /// # Errors
    /// What the index failed with.
    pub fn chunk(&mut self, span: &ChunkSpan) -> io::Result<Option<Vec<u8>>> {
        for place in self.index.places(&span.hash)? {
            let read = place.kept(span.len, |offset, len| self.read(&place.path, offset, len));
            if let Ok(bytes) = read
                && span.hash.verify(&bytes).is_ok()
            {
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }

    /// Remembers that a file has another name now.
    pub fn moved(&mut self, from: &RelPath, to: &RelPath) {
        self.moved.insert(from.clone(), to.clone());
    }

    fn read(&mut self, path: &RelPath, offset: u64, len: u64) -> io::Result<Vec<u8>> {
        let path = self.moved.get(path).unwrap_or(path);
        let file = match &mut self.open {
            Some((open, file)) if open == path => file,
            open => &mut open.insert((path.clone(), self.fs.open(path)?)).1,
        };
        let len = usize::try_from(len).map_err(io::Error::other)?;
        let mut bytes = vec![0; len];
        let mut at = 0;
        while at < len {
            match file.read_at(offset + at as u64, &mut bytes[at..])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => at += n,
            }
        }
        Ok(bytes)
    }
}
