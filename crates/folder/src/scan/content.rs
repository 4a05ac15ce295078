//! Naming the content of one file that others may be writing to.

use super::{Progress, ScanWatch};
use crate::base::Seen;
use crate::fs::{Clock, FileSystem, Kind, OpenFile, Stat};
use crate::path::RelPath;
use crate::state::Kept;
use anabranch_core::blob::{Builder, ContentRef, Piece};
use anabranch_core::seal::Key;
use std::io;

/// How often a file is read that changes meanwhile.
const TRIES: usize = 3;
const BUFFER: usize = 256 * 1024;
/// Bytes after which a large file reports progress.
const REPORT_EVERY: u64 = 16 << 20;

/// Why the content of a file has no name.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The file system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It changed whenever it was read, or is no file any more.
    #[error("is being written")]
    Busy,
    /// Who watches failed.
    #[error("what was read cannot be stored")]
    Watch(#[source] io::Error),
}

/// How the database keeps what is read.
#[derive(Debug, Clone, Copy)]
pub enum Keeping<'k> {
    /// As it is.
    Open,
    /// Encrypted, with this key if one is at hand. What it is without that is told to nobody.
    Sealed(Option<&'k Key>),
}

/// What one reading found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hashed {
    /// The content.
    pub content: ContentRef,
    /// How a sealed database keeps it, if a key was at hand and there is anything.
    pub kept: Option<Kept>,
}

/// Reads the file at `path` until it stays the same from beginning to end, at most three times. `watch` is told the
/// pieces as they are kept.
///
/// # Errors
/// [`ReadError`].
pub fn hash_file(
    fs: &dyn FileSystem,
    clock: &dyn Clock,
    path: &RelPath,
    keeping: Keeping<'_>,
    watch: &mut dyn ScanWatch,
    progress: &mut Progress,
) -> Result<(Hashed, Seen), ReadError> {
    for _ in 0..TRIES {
        // The clock first: whatever is written from now on carries this time or a later one.
        let now = clock.now_ns();
        let mut file = fs.open(path)?;
        let before = file.stat()?;
        if before.kind != Kind::File {
            return Err(ReadError::Busy);
        }
        let hashed = read(&mut *file, &before, path, keeping, watch, progress)?;
        if let Some(hashed) = hashed
            && file.stat()? == before
        {
            return Ok((hashed, Seen::new(&before, now)));
        }
    }
    Err(ReadError::Busy)
}

/// One reading; `None` if there were more or fewer bytes than `stat` said.
fn read(
    file: &mut dyn OpenFile,
    stat: &Stat,
    path: &RelPath,
    keeping: Keeping<'_>,
    watch: &mut dyn ScanWatch,
    progress: &mut Progress,
) -> Result<Option<Hashed>, ReadError> {
    let mut builder = Builder::new();
    let key = match keeping {
        Keeping::Open => None,
        Keeping::Sealed(key) => key,
    };
    let mut sealed = key.map(|key| (key, Builder::sealed(key)));
    let is_open = matches!(keeping, Keeping::Open);
    let plain = |piece: Piece<'_>, watch: &mut dyn ScanWatch| match is_open {
        true => tell(piece, path, watch),
        false => Ok(()),
    };
    let mut buffer = vec![0; BUFFER.min(usize::try_from(stat.size).unwrap_or(BUFFER) + 1)];
    let (mut offset, mut reported) = (0, 0);
    loop {
        let n = match file.read_at(offset, &mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            n => n?,
        };
        if n == 0 {
            break;
        }
        offset += n as u64;
        progress.hashed += n as u64;
        if offset > stat.size {
            return Ok(None);
        }
        builder.push(&buffer[..n], |piece| plain(piece, watch))?;
        if let Some((_, sealed)) = &mut sealed {
            sealed.push(&buffer[..n], |piece| tell(piece, path, watch))?;
        }
        if offset - reported >= REPORT_EVERY {
            reported = offset;
            watch.progress(progress);
        }
    }
    if offset != stat.size {
        return Ok(None);
    }
    let content = builder.finish(|piece| plain(piece, watch))?;
    let Some((key, sealed)) = sealed else { return Ok(Some(Hashed { content, kept: None })) };
    let kept = Kept { content: sealed.finish(|piece| tell(piece, path, watch))?, key: key.id() };
    Ok(Some(Hashed { content, kept: (content.size() > 0).then_some(kept) }))
}

fn tell(piece: Piece<'_>, path: &RelPath, watch: &mut dyn ScanWatch) -> Result<(), ReadError> {
    match piece {
        Piece::Chunk { span, .. } => watch.chunk(path, &span),
        Piece::Node { hash, bytes } => watch.node(&hash, bytes),
    }
    .map_err(ReadError::Watch)
}
