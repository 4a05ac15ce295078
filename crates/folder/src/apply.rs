//! The applier: carries out a plan on the disk. Content is verified against its name before it gets one of the user's; it
//! is synced before it replaces anything; and whatever changed since the scan is left alone (I4, I6). An action that fails
//! is reported, stops no other, and leaves nothing behind (I5).
//!
//! The caller stores [`Applied::base`] afterwards. A crash at any point before that is made good by the next scan and plan,
//! which recognise what was done already.

mod content;
mod local;
mod look;
mod names;
mod steps;
mod temp;

pub use content::{ContentSource, Missing, missing};
pub use local::{ChunkIndex, ChunkPlace, LocalChunks, SealedChunk};
pub use steps::Applier;
pub use temp::clear_temp;

use crate::base::Base;
use crate::fs::{Clock, FileSystem};
use crate::path::RelPath;
use crate::plan::Action;
use anabranch_core::blob::{NodeError, WrongHash};
use std::io;

/// What an apply did.
#[derive(Debug, Default)]
pub struct Applied {
    /// New rows of the base, or their removal, in the order in which they came about: of several for one path the last
    /// holds. All of it is on the disk.
    pub base: Vec<(RelPath, Option<Base>)>,
    /// What could not be done.
    pub failed: Vec<Failure>,
    /// Actions carried out.
    pub done: u64,
    /// Bytes written.
    pub bytes: u64,
}

/// An action that could not be carried out.
#[derive(Debug)]
pub struct Failure {
    /// The path that is not as it should be.
    pub path: RelPath,
    /// Why.
    pub why: Failed,
}

/// Why an action could not be carried out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failed {
    /// Something else is there than the plan saw; the next run looks again.
    #[error("changed while it was being synced")]
    ChangedMeanwhile,
    /// A directory to be removed still has something in it that is not synced.
    #[error("is not empty, and what is in it is not synced")]
    NotEmpty,
    /// Chunks or manifest nodes are not here yet.
    #[error("its content is not here yet")]
    Missing,
    /// A chunk that is not what its name says.
    #[error("its content is damaged")]
    Chunk(#[from] WrongHash),
    /// A manifest that is none.
    #[error("its content has a malformed manifest")]
    Manifest(#[from] NodeError),
    /// Another action had to come first and failed.
    #[error("waits for another path")]
    Blocked,
    /// The file system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Carries out all `actions` of a plan at once: see [`Applier`].
///
/// # Errors
/// Only if the directory for temporary files cannot be made; all else is in [`Applied::failed`].
pub fn apply(
    fs: &dyn FileSystem,
    clock: &dyn Clock,
    actions: &[Action],
    source: &mut dyn ContentSource,
    progress: &mut dyn FnMut(u64, u64),
) -> io::Result<Applied> {
    let mut applier = Applier::new(fs, clock)?;
    let mut applied = applier.apply(actions, source, progress);
    let Applied { base, failed, .. } = applier.finish();
    applied.base.extend(base);
    applied.failed.extend(failed);
    Ok(applied)
}
