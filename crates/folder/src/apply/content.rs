//! Where content comes from: the caller's staging area, other files of the folder, peers. Whatever it is, nothing is
//! believed that does not hash to its name (I4).

use super::Failed;
use crate::fs::NewFile;
use crate::path::RelPath;
use crate::plan::Action;
use crate::state::State;
use anabranch_core::blob::{
    Builder, ChunkHash, ChunkSpan, NodeSpan, Piece, Step, WalkError, Walker, WrongHash,
};
use std::borrow::Cow;
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

    /// What is in a chunk, given the bytes that have its name.
    ///
    /// # Errors
    /// What is the matter with it.
    fn open<'c>(&self, chunk: &'c [u8]) -> io::Result<Cow<'c, [u8]>> {
        Ok(Cow::Borrowed(chunk))
    }

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
    /// How many of the actions, from the first, lack nothing.
    pub complete: usize,
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
    for (number, action) in actions.iter().enumerate() {
        if missing.nodes.is_empty() && missing.chunks.is_empty() {
            missing.complete = number;
        }
        let Action::WriteFile { goal, .. } = action else { continue };
        let Some(content) = goal.state.pieces() else { continue };
        for step in Walker::new(&content, |place| source.borrow_mut().node(&place.hash)) {
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
                return Ok(missing);
            }
        }
    }
    if missing.nodes.is_empty() && missing.chunks.is_empty() {
        missing.complete = actions.len();
    }
    Ok(missing)
}

/// Writes the content of `state` to `file`, chunk by chunk. Returns the bytes written.
pub(super) fn fill(
    file: &mut dyn NewFile,
    state: &State,
    source: &mut dyn ContentSource,
) -> Result<u64, Failed> {
    let (Some(content), Some(pieces)) = (state.content(), state.pieces()) else { return Ok(0) };
    // What is encrypted is named by that, and its writer may lie about what it is.
    let mut check = state.kept().map(|_| Builder::new());
    let (mut left, pass) = (content.size(), |_: Piece<'_>| Ok::<_, Failed>(()));
    let source = RefCell::new(source);
    for step in Walker::new(&pieces, |place| source.borrow_mut().node(&place.hash)) {
        let span = match step {
            Ok(Step::Chunk(span)) => span,
            Ok(Step::Missing(_)) => return Err(Failed::Missing),
            Err(WalkError::Lookup(error)) => return Err(error.into()),
            Err(WalkError::Node { source, .. }) => return Err(source.into()),
            Err(_) => return Err(Failed::Missing),
        };
        let bytes = source.borrow_mut().chunk(&span)?.ok_or(Failed::Missing)?;
        span.hash.verify(&bytes)?;
        let source = source.borrow();
        let bytes = source.open(&bytes)?;
        if bytes.len() as u64 != span.len {
            return Err(anabranch_core::blob::NodeError::Sum(span.len).into());
        }
        // The rest is padding.
        let bytes = &bytes[..left.min(span.len) as usize];
        left -= bytes.len() as u64;
        check.as_mut().map_or(Ok(()), |check| check.push(bytes, pass))?;
        file.write_all(bytes)?;
    }
    if let Some(check) = check {
        let (found, expected) = (check.finish(pass)?.root(), content.root());
        if found != expected {
            return Err(WrongHash { expected, found }.into());
        }
    }
    Ok(content.size())
}
