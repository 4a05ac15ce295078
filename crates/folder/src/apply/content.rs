//! Where content comes from: the caller's staging area, other files of the folder, peers. Whatever it is, nothing is
//! believed that does not hash to its name (I4).

use super::Failed;
use crate::fs::NewFile;
use crate::path::RelPath;
use crate::plan::Action;
use anabranch_core::blob::{ChunkHash, ChunkSpan, ContentRef, NodeSpan, Step, WalkError, Walker};
use std::cell::RefCell;
use std::collections::HashSet;
use std::io;

/// Hands over chunks and manifest nodes by name.
pub trait ContentSource {
    /// The bytes of a manifest node; `None` if it is not here.
    ///
    /// # Errors
    /// What went wrong reading it.
    fn node(&mut self, hash: &ChunkHash) -> io::Result<Option<Vec<u8>>>;

    /// The bytes of a chunk; `None` if it is not here. `span.offset` counts for nothing.
    ///
    /// # Errors
    /// What went wrong reading it.
    fn chunk(&mut self, span: &ChunkSpan) -> io::Result<Option<Vec<u8>>>;

    /// Whether a chunk is here.
    ///
    /// # Errors
    /// What went wrong looking for it.
    fn has_chunk(&mut self, span: &ChunkSpan) -> io::Result<bool> {
        Ok(self.chunk(span)?.is_some())
    }

    /// A file of the folder that has another name now.
    fn moved(&mut self, from: &RelPath, to: &RelPath) {
        let _ = (from, to);
    }
}

/// What has to be fetched before actions can be carried out. Each blob is listed once.
#[derive(Debug, Default)]
pub struct Missing {
    /// Manifest nodes. What is below them shows when they are here.
    pub nodes: Vec<NodeSpan>,
    /// Chunks.
    pub chunks: Vec<ChunkSpan>,
    /// Files whose manifest is none: nothing can be done for them.
    pub refused: Vec<RelPath>,
    /// Whether there is more than the limit allowed to list.
    pub more: bool,
}

/// What `source` lacks for `actions`, at most about `limit` blobs of it.
///
/// # Errors
/// What `source` failed with.
pub fn missing(
    actions: &[Action],
    source: &mut dyn ContentSource,
    limit: usize,
) -> io::Result<Missing> {
    let mut missing = Missing::default();
    let mut known = HashSet::new();
    let source = RefCell::new(source);
    for action in actions {
        let Action::WriteFile { goal, .. } = action else { continue };
        let Some(content) = goal.state.content() else { continue };
        for step in Walker::new(content, |place| source.borrow_mut().node(&place.hash)) {
            match step {
                Ok(Step::Missing(node)) if known.insert(node.hash) => missing.nodes.push(node),
                Ok(Step::Chunk(span)) if known.insert(span.hash) => {
                    if !source.borrow_mut().has_chunk(&span)? {
                        missing.chunks.push(span);
                    }
                }
                Ok(_) => {}
                Err(WalkError::Lookup(error)) => return Err(error),
                Err(_) => {
                    missing.refused.push(goal.path.clone());
                    break;
                }
            }
            if missing.nodes.len() + missing.chunks.len() >= limit {
                missing.more = true;
                return Ok(missing);
            }
        }
    }
    Ok(missing)
}

/// Writes `content` to `file`, chunk by chunk. Returns the bytes written.
pub(super) fn fill(
    file: &mut dyn NewFile,
    content: &ContentRef,
    source: &mut dyn ContentSource,
) -> Result<u64, Failed> {
    let source = RefCell::new(source);
    for step in Walker::new(content, |place| source.borrow_mut().node(&place.hash)) {
        let span = match step {
            Ok(Step::Chunk(span)) => span,
            Ok(Step::Missing(_)) => return Err(Failed::Missing),
            Err(WalkError::Lookup(error)) => return Err(error.into()),
            Err(WalkError::Node { source, .. }) => return Err(source.into()),
            Err(_) => return Err(Failed::Missing),
        };
        let bytes = source.borrow_mut().chunk(&span)?.ok_or(Failed::Missing)?;
        span.hash.verify(&bytes)?;
        if bytes.len() as u64 != span.len {
            return Err(anabranch_core::blob::NodeError::Sum(span.len).into());
        }
        file.write_all(&bytes)?;
    }
    Ok(content.size())
}
