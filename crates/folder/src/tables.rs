//! What a folder's replica keeps in the local table of its database file: the base, and which file has which chunk. And
//! how the cells of the folder's store are named and read. Nothing of the local table is ever sent.

use crate::apply::{ChunkIndex, ChunkPlace, SealedChunk};
use crate::base::{Base, Value, ValueId};
use crate::hold::Hold;
use crate::path::RelPath;
use crate::state::State;
use anabranch_core::blob::{ChunkHash, ChunkSpan, ContentRef, MAX_CHUNK, Step, Walker};
use anabranch_core::cells::{Cell, LiveValue};
use anabranch_core::entry::{StoreId, StoreKind};
use anabranch_core::founding::Founding;
use anabranch_core::id::{DatabaseId, LogId, NodeId};
use anabranch_core::ops::ValueName;
use anabranch_core::path::{Path, PathError, Segment};
use anabranch_core::storage::{Durability, Order, ReadTx, Storage, StorageError, Table, WriteTx};
use anabranch_core::view::View;
use anabranch_node::{Device, NodeError, Replica};
use std::collections::VecDeque;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

const BASE: &[u8] = b"base/";
const CHUNK: &[u8] = b"chunk/";
/// Set where the database was founded.
const FOUNDED: &[u8] = b"founded";
/// The [`Stand`] with which the folder was last in step.
const IN_STEP: &[u8] = b"in step";
/// Rows read at once.
const PAGE: usize = 512;
/// Places of one chunk that are tried.
const PLACES: usize = 8;
const AUTHOR_CHARS: usize = 8;

/// The store of a folder's paths.
#[must_use]
pub fn store() -> StoreId {
    StoreId { kind: StoreKind::FOLDER, name: "files".into() }
}

/// The cell of a path.
pub(crate) fn cell_path(path: &RelPath) -> Result<Path, PathError> {
    Path::default().join_bytes(path.as_bytes())
}

/// The name of a value in bytes. The entry's own part comes first: it is what differs.
pub(crate) fn value_id(name: &ValueName) -> ValueId {
    let mut id = Vec::with_capacity(68);
    id.extend_from_slice(&name.id16);
    id.extend_from_slice(&name.index.to_be_bytes());
    id.extend_from_slice(&name.seq.to_be_bytes());
    id.extend_from_slice(&name.log.epoch.to_be_bytes());
    id.extend_from_slice(&name.log.device.0);
    ValueId(id)
}

/// The name that [`value_id`] wrote.
pub(crate) fn value_name(id: &ValueId) -> Option<ValueName> {
    let (id16, rest) = id.0.split_first_chunk::<16>()?;
    let (index, rest) = rest.split_first_chunk::<4>()?;
    let (seq, rest) = rest.split_first_chunk::<8>()?;
    let (epoch, device) = rest.split_first_chunk::<8>()?;
    Some(ValueName {
        log: LogId { device: NodeId(device.try_into().ok()?), epoch: u64::from_be_bytes(*epoch) },
        seq: u64::from_be_bytes(*seq),
        index: u32::from_be_bytes(*index),
        id16: *id16,
    })
}

/// How a device is named in conflict copies: alike on all replicas.
#[must_use]
pub fn author(device: &NodeId) -> String {
    let text = device.to_string();
    text.trim_start_matches(NodeId::PREFIX).chars().take(AUTHOR_CHARS).collect()
}

fn value(live: LiveValue, sealed: bool) -> Option<Value> {
    let state = State::decode(&live.value).ok()?;
    if state.has_pieces() && state.kept().is_some() != sealed {
        return None;
    }
    Some(Value {
        id: value_id(&live.name),
        state,
        author: author(&live.name.log.device),
        at_ms: live.timestamp.0 / 1000,
    })
}

/// The path and values of a cell; `None` for a name that no folder may have. A path with a value that cannot be read (a
/// later version wrote it, or a liar) goes to `unread`: what is there is not known, so it must be left alone.
pub(crate) fn values(cell: Cell, sealed: bool, unread: &mut Hold) -> Option<(RelPath, Vec<Value>)> {
    let segments = cell.path.segments();
    let [Segment::Bytes(bytes)] = &segments[..] else { return None };
    let path = RelPath::shared(bytes.clone()).ok()?;
    let live = cell.values.len();
    let values: Vec<Value> =
        cell.values.into_iter().filter_map(|live| value(live, sealed)).collect();
    if values.len() < live {
        unread.add(path.clone());
    }
    Some((path, values))
}

/// The live values of every path, in order: a page at a time.
pub(crate) struct There<'t> {
    view: View<'t>,
    after: Option<Path>,
    page: VecDeque<(RelPath, Vec<Value>)>,
    over: bool,
    unread: Hold,
}

impl<'t> There<'t> {
    pub(crate) fn new(view: View<'t>) -> Self {
        Self { view, after: None, page: VecDeque::new(), over: false, unread: Hold::new() }
    }

    /// Paths passed so far whose values cannot all be read.
    pub(crate) fn unread(self) -> Hold {
        self.unread
    }

    fn fill(&mut self) -> Result<(), StorageError> {
        let mut read = 0;
        let (page, last, unread) = (&mut self.page, &mut self.after, &mut self.unread);
        let (after, sealed) = (last.clone(), self.view.sealed()?.covers(&store()));
        self.view.scan_cells(&store(), &Path::default(), after.as_ref(), &mut |cell| {
            *last = Some(cell.path.clone());
            page.extend(values(cell, sealed, unread));
            read += 1;
            if read < PAGE { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        self.over = read < PAGE;
        Ok(())
    }
}

impl Iterator for There<'_> {
    type Item = Result<(RelPath, Vec<Value>), StorageError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.page.is_empty() && !self.over {
            if let Err(e) = self.fill() {
                self.over = true;
                return Some(Err(e));
            }
        }
        self.page.pop_front().map(Ok)
    }
}

fn base_key(path: &RelPath) -> Vec<u8> {
    [BASE, path.as_bytes()].concat()
}

pub(crate) fn base_row(tx: &dyn ReadTx, path: &RelPath) -> Result<Option<Base>, StorageError> {
    tx.get(Table::Local, &base_key(path))?.map(|bytes| decode_base(&bytes)).transpose()
}

fn decode_base(bytes: &[u8]) -> Result<Base, StorageError> {
    Base::decode(bytes).map_err(|e| StorageError::Corrupt(format!("the folder's base: {e}")))
}

/// The rows of the base in the order of their paths: a page at a time.
pub(crate) struct BaseRows<'t> {
    tx: &'t dyn ReadTx,
    from: Vec<u8>,
    page: VecDeque<(RelPath, Base)>,
    over: bool,
}

impl<'t> BaseRows<'t> {
    pub(crate) fn new(tx: &'t dyn ReadTx) -> Self {
        Self { tx, from: BASE.to_vec(), page: VecDeque::new(), over: false }
    }

    fn fill(&mut self) -> Result<(), StorageError> {
        let mut rows = Vec::new();
        self.tx.scan(Table::Local, &self.from, None, Order::Ascending, &mut |key, value| {
            let Some(path) = key.strip_prefix(BASE) else { return ControlFlow::Break(()) };
            rows.push((path.to_vec(), value.to_vec()));
            if rows.len() < PAGE { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        self.over = rows.len() < PAGE;
        if let Some((path, _)) = rows.last() {
            self.from = [BASE, path, &[0]].concat();
        }
        for (path, value) in rows {
            let path = RelPath::new(path)
                .map_err(|e| StorageError::Corrupt(format!("the folder's base: {e}")))?;
            self.page.push_back((path, decode_base(&value)?));
        }
        Ok(())
    }
}

impl Iterator for BaseRows<'_> {
    type Item = Result<(RelPath, Base), StorageError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.page.is_empty() && !self.over {
            if let Err(e) = self.fill() {
                self.over = true;
                return Some(Err(e));
            }
        }
        self.page.pop_front().map(Ok)
    }
}

/// Founds a database, and remembers that it was here.
///
/// # Errors
/// What the replica reports.
pub fn found(
    storage: &dyn Storage,
    device: &Device,
    founding: Founding,
) -> Result<DatabaseId, NodeError> {
    let database = Replica::found_with(storage, device, founding)?;
    let mut tx = storage.write(Durability::Full)?;
    tx.put(Table::Local, FOUNDED, &[])?;
    tx.commit()?;
    Ok(database)
}

/// Whether nothing was ever brought in step here, nor was the database founded here.
///
/// # Errors
/// What storage reports.
pub fn is_new(replica: &Replica) -> Result<bool, StorageError> {
    replica.read_tables(|tx| {
        let base = BaseRows::new(tx).next().transpose()?;
        Ok(base.is_none() && tx.get(Table::Local, FOUNDED)?.is_none())
    })
}

/// A state of the database, to tell whether anything changed: how many entries came, and what they amount to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stand([u8; 40]);

impl Stand {
    /// That of now; `None` where operations of a later version keep it from being known.
    pub(crate) fn of(view: View<'_>) -> Result<Option<Self>, StorageError> {
        let Some(digest) = view.state_digest()? else { return Ok(None) };
        let mut bytes = [0; 40];
        bytes[..8].copy_from_slice(&view.next_arrival()?.to_be_bytes());
        bytes[8..].copy_from_slice(&digest);
        Ok(Some(Self(bytes)))
    }
}

/// The state with which the folder was last wholly in step.
pub(crate) fn in_step(tx: &dyn ReadTx) -> Result<Option<Stand>, StorageError> {
    let row = tx.get(Table::Local, IN_STEP)?;
    Ok(row.and_then(|bytes| bytes.try_into().ok()).map(Stand))
}

/// Remembers that state, or that the folder is not in step, to be said with whatever changes the base.
pub(crate) fn set_in_step(tx: &mut dyn WriteTx, stand: Option<Stand>) -> Result<(), StorageError> {
    match stand {
        Some(Stand(bytes)) => tx.put(Table::Local, IN_STEP, &bytes),
        None => tx.delete(Table::Local, IN_STEP).map(|_| ()),
    }
}

fn chunk_key(hash: &ChunkHash, offset: u64, path: &RelPath) -> Vec<u8> {
    [CHUNK, &hash.0, &offset.to_be_bytes(), path.as_bytes()].concat()
}

/// Remembers that the file at `path` has a chunk.
pub(crate) fn put_chunk(
    tx: &mut dyn WriteTx,
    path: &RelPath,
    span: &ChunkSpan,
) -> Result<(), StorageError> {
    let key = chunk_key(&span.hash, span.offset, path);
    tx.put(Table::Local, &key, &span.len.to_be_bytes())
}

/// The pieces of some content, as far as its manifest is here.
pub(crate) fn spans(tx: &dyn ReadTx, content: &ContentRef) -> Result<Vec<ChunkSpan>, StorageError> {
    let walk = Walker::new(content, |place| tx.get(Table::Blob, &place.hash.0));
    let mut spans = Vec::new();
    for step in walk {
        match step {
            Ok(Step::Chunk(span)) => spans.push(span),
            Ok(Step::Missing(_)) => {}
            Err(anabranch_core::blob::WalkError::Lookup(e)) => return Err(e),
            // A manifest that is none has no chunks.
            Err(_) => break,
        }
    }
    Ok(spans)
}

/// Sets or removes a row of the base and keeps the index of chunks with it. Chunks that were only waiting to become part
/// of this file are dropped: the file has them now.
pub(crate) fn set_base(
    tx: &mut dyn WriteTx,
    path: &RelPath,
    base: Option<&Base>,
) -> Result<(), StorageError> {
    let old = base_row(&*tx, path)?;
    let sealed = View::new(&*tx).sealed()?.covers(&store());
    // What a sealed database does not keep, nobody asks for.
    let content =
        |base: &Base| base.state.pieces().filter(|_| !sealed || base.state.kept().is_some());
    let (was, is) = (old.as_ref().and_then(content), base.and_then(content));
    if was != is {
        if let Some(was) = was {
            for span in spans(&*tx, &was)? {
                tx.delete(Table::Local, &chunk_key(&span.hash, span.offset, path))?;
            }
        }
        if let Some(is) = is {
            for span in spans(&*tx, &is)? {
                put_chunk(tx, path, &span)?;
                tx.delete(Table::Blob, &span.hash.0)?;
            }
        }
    }
    match base {
        Some(base) => tx.put(Table::Local, &base_key(path), &base.encode()),
        None => tx.delete(Table::Local, &base_key(path)).map(|_| ()),
    }
}

/// Looks chunks up in the index.
pub(crate) struct Index(pub(crate) Arc<dyn Storage>);

impl Index {
    /// Places and lengths of a chunk.
    pub(crate) fn find(&self, hash: &ChunkHash) -> Result<Vec<(ChunkPlace, u64)>, StorageError> {
        IndexAt(&*self.0.read()?).find(hash)
    }
}

/// The same as of one moment.
pub(crate) struct IndexAt<'t>(pub(crate) &'t dyn ReadTx);

impl IndexAt<'_> {
    fn find(&self, hash: &ChunkHash) -> Result<Vec<(ChunkPlace, u64)>, StorageError> {
        let prefix = [CHUNK, &hash.0[..]].concat();
        let mut found = Vec::new();
        let tx = self.0;
        tx.scan(Table::Local, &prefix, None, Order::Ascending, &mut |key, value| {
            let Some(rest) = key.strip_prefix(&prefix[..]) else { return ControlFlow::Break(()) };
            if let Some((offset, path)) = rest.split_first_chunk::<8>()
                && let (Ok(path), Ok(len)) = (RelPath::new(path), <[u8; 8]>::try_from(value))
            {
                let offset = u64::from_be_bytes(*offset);
                found.push((ChunkPlace { path, offset, sealed: None }, u64::from_be_bytes(len)));
            }
            if found.len() < PLACES { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        let view = View::new(tx);
        if found.is_empty() || !view.sealed()?.covers(&store()) {
            return Ok(found);
        }
        let mut sealed = Vec::new();
        for (place, len) in found {
            if let Some(chunk) = sealed_chunk(view, &place, len)? {
                sealed.push((ChunkPlace { sealed: Some(chunk), ..place }, len));
            }
        }
        Ok(sealed)
    }
}

/// How the bytes at a place become the piece that is named: with the key that the file there is kept with, and padding behind its
/// end.
fn sealed_chunk(
    view: View<'_>,
    place: &ChunkPlace,
    len: u64,
) -> Result<Option<SealedChunk>, StorageError> {
    let tx = view.tables();
    let base = base_row(tx, &place.path)?;
    let Some(kept) = base.as_ref().and_then(|base| base.state.kept()) else { return Ok(None) };
    let Some(key) = view.key(&kept.key)? else { return Ok(None) };
    let (size, longest) = (kept.content.size(), MAX_CHUNK as u64);
    let mut certain = None;
    if place.offset.saturating_add(len) > size {
        let tail = size.saturating_sub(2 * longest)..size;
        let walk = Walker::within(&kept.content.padded(), tail, |place| {
            tx.get(Table::Blob, &place.hash.0)
        });
        for step in walk.map_while(Result::ok) {
            if let Step::Chunk(span) = step
                && span.offset.saturating_add(longest) <= size
            {
                certain = Some((span.offset, span.len));
            }
        }
    }
    Ok(Some(SealedChunk { key, size, certain }))
}

impl ChunkIndex for IndexAt<'_> {
    fn places(&self, hash: &ChunkHash) -> io::Result<Vec<ChunkPlace>> {
        let found = self.find(hash).map_err(io::Error::other)?;
        Ok(found.into_iter().map(|(place, _)| place).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_names_come_back() {
        let log = LogId { device: NodeId([7; 32]), epoch: 1 << 60 };
        let name = ValueName { log, seq: 3, index: 4, id16: [9; 16] };
        assert_eq!(value_name(&value_id(&name)), Some(name));
        assert_eq!(value_name(&ValueId(vec![1, 2])), None);
    }
}
