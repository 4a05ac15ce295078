//! [`State`]: what a path is, the value that the cell of a path holds.
//!
//! # Encoding
//!
//! The canonical encoding of [`anabranch_core::codec`], one array whose first item is the kind:
//!
//! | kind | array |
//! | --- | --- |
//! | file | `[0, size, depth, root (32 bytes), mode, mtime]` |
//! | file of a sealed database | `[0, size, depth, root, mode, mtime, plain depth, plain root, key id (32 bytes)]` |
//! | directory | `[1, mode]` |
//! | symbolic link | `[2, target (1 to 4095 bytes)]` |
//!
//! `size`, `depth` and `root` are the parts of a [`ContentRef`]: in a sealed database of what is kept, and behind the time those of
//! the file as it is, so that the same file is known under another key. `mode` is at most `0o777`; `mtime` is nanoseconds since
//! 1970, signed, folded into an unsigned integer as `(n << 1) ^ (n >> 63)`. Another kind, or more items than these, is
//! from a later version: such a value is kept and passed on, and its path is left alone here.

use crate::path::MAX_PATH;
use anabranch_core::blob::{ChunkHash, ContentRef, InvalidContentRef};
use anabranch_core::codec::{DecodeError, Reader, Writer};
use anabranch_core::seal::KeyId;

/// The bits of a mode that are synced: set-user-id, set-group-id and sticky never leave the machine.
pub const MODE_BITS: u32 = 0o777;
/// The mode of a directory that exists only because something in it does.
pub const IMPLIED_DIR_MODE: u32 = 0o755;

const ITEMS: usize = 64;
/// Items of a file, and of one in a sealed database.
const FILE: usize = 6;
const SEALED: usize = 9;

/// What a path is.
#[derive(Debug, Clone, Eq)]
pub enum State {
    /// A regular file.
    File {
        /// What is in it.
        content: ContentRef,
        /// How a sealed database keeps that. Whatever it is, the file is the same.
        kept: Option<Kept>,
        /// Permission bits, within [`MODE_BITS`].
        mode: u32,
        /// When it was last changed, in nanoseconds since 1970.
        mtime_ns: i64,
    },
    /// A directory.
    Dir {
        /// Permission bits, within [`MODE_BITS`].
        mode: u32,
    },
    /// A symbolic link.
    Symlink {
        /// Where it points: any bytes but NUL, never looked at.
        target: Vec<u8>,
    },
}

/// Content as a sealed database keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// Its size without padding, and the tree over what is encrypted.
    pub content: ContentRef,
    /// What with.
    pub key: KeyId,
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::File { content, mode, mtime_ns, kept: _ },
                Self::File { content: content2, mode: mode2, mtime_ns: mtime_ns2, kept: _ },
            ) => (content, mode, mtime_ns) == (content2, mode2, mtime_ns2),
            (Self::Dir { mode }, Self::Dir { mode: other }) => mode == other,
            (Self::Symlink { target }, Self::Symlink { target: other }) => target == other,
            _ => false,
        }
    }
}

/// Why bytes are no [`State`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// Written by a later version.
    #[error("needs a newer version of anabranch (kind {kind}, {items} items)")]
    Newer {
        /// The kind.
        kind: u64,
        /// How many items it has.
        items: usize,
    },
    /// Not in the canonical encoding.
    #[error(transparent)]
    Encoding(#[from] DecodeError),
    /// A reference to content that no content has.
    #[error(transparent)]
    Content(#[from] InvalidContentRef),
    /// A link that points at nothing, or at a name with NUL in it.
    #[error("a symbolic link with an impossible target")]
    Target,
}

impl State {
    /// Whether two states agree in kind and content; mode and times do not count.
    #[must_use]
    pub fn same_content(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::File { content: a, .. }, Self::File { content: b, .. }) => a == b,
            (Self::Dir { .. }, Self::Dir { .. }) => true,
            (Self::Symlink { target: a }, Self::Symlink { target: b }) => a == b,
            _ => false,
        }
    }

    /// Whether it is a directory.
    #[must_use]
    pub fn is_dir(&self) -> bool {
        matches!(self, Self::Dir { .. })
    }

    /// The content, if it is a file.
    #[must_use]
    pub fn content(&self) -> Option<&ContentRef> {
        match self {
            Self::File { content, .. } => Some(content),
            _ => None,
        }
    }

    /// How a sealed database keeps the content, if it is a file of one.
    #[must_use]
    pub fn kept(&self) -> Option<&Kept> {
        match self {
            Self::File { kept, .. } => kept.as_ref(),
            _ => None,
        }
    }

    /// Whether there is anything of it to be kept elsewhere.
    #[must_use]
    pub fn has_pieces(&self) -> bool {
        self.content().is_some_and(|content| content.size() > 0)
    }

    /// The same, kept like this if it is a file.
    #[must_use]
    pub(crate) fn kept_as(mut self, how: Option<Kept>) -> Self {
        if let Self::File { kept, .. } = &mut self {
            *kept = how;
        }
        self
    }

    /// The tree of the pieces that are kept and exchanged, if it is a file.
    #[must_use]
    pub fn pieces(&self) -> Option<ContentRef> {
        match self {
            Self::File { kept: Some(kept), .. } => Some(kept.content.padded()),
            _ => self.content().copied(),
        }
    }

    /// The encoding.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        self.write(&mut w);
        w.finish()
    }

    /// The state that `bytes` encode.
    ///
    /// # Errors
    /// [`StateError`] for any bytes but those that [`Self::encode`] makes.
    pub fn decode(bytes: &[u8]) -> Result<Self, StateError> {
        let mut r = Reader::new(bytes);
        let state = Self::read(&mut r)?;
        r.finish()?;
        Ok(state)
    }

    pub(crate) fn write(&self, w: &mut Writer) {
        match self {
            Self::File { content, kept, mode, mtime_ns } => {
                let named = kept.map_or(*content, |kept| kept.content);
                w.array(if kept.is_some() { SEALED } else { FILE }).u64(0);
                w.u64(named.size()).u64(named.depth().into());
                w.bytes(named.root().as_bytes()).u64(u64::from(mode & MODE_BITS));
                w.u64(fold(*mtime_ns));
                if let Some(kept) = kept {
                    w.u64(content.depth().into()).bytes(content.root().as_bytes());
                    w.bytes(&kept.key.0);
                }
            }
            Self::Dir { mode } => {
                w.array(2).u64(1).u64(u64::from(mode & MODE_BITS));
            }
            Self::Symlink { target } => {
                w.array(2).u64(2).bytes(target);
            }
        }
    }

    pub(crate) fn read(r: &mut Reader<'_>) -> Result<Self, StateError> {
        let items = r.array("file state", ITEMS)?;
        let kind = r.u64("kind")?;
        let known = match kind {
            0 if items > FILE => SEALED,
            0 => FILE,
            1 | 2 => 2,
            _ => return Err(StateError::Newer { kind, items }),
        };
        if items > known {
            return Err(StateError::Newer { kind, items });
        }
        if items < known {
            return Err(DecodeError::Malformed { what: "file state", at: r.position() }.into());
        }
        match kind {
            0 => Self::read_file(r, items == SEALED),
            1 => Ok(Self::Dir { mode: read_mode(r)? }),
            _ => Self::read_symlink(r),
        }
    }

    fn read_file(r: &mut Reader<'_>, sealed: bool) -> Result<Self, StateError> {
        let size = r.u64("size")?;
        let named = read_content(r, size)?;
        let (mode, mtime_ns) = (read_mode(r)?, unfold(r.u64("mtime")?));
        if !sealed {
            return Ok(Self::File { content: named, kept: None, mode, mtime_ns });
        }
        let content = read_content(r, size)?;
        let kept = Some(Kept { content: named, key: KeyId(r.array_of("key id")?) });
        Ok(Self::File { content, kept, mode, mtime_ns })
    }

    fn read_symlink(r: &mut Reader<'_>) -> Result<Self, StateError> {
        let target = r.bytes("target", MAX_PATH)?;
        if target.is_empty() || target.contains(&0) {
            return Err(StateError::Target);
        }
        Ok(Self::Symlink { target: target.to_vec() })
    }
}

fn read_content(r: &mut Reader<'_>, size: u64) -> Result<ContentRef, StateError> {
    let depth = r.number("depth", u8::MAX.into())? as u8;
    Ok(ContentRef::new(size, depth, ChunkHash(r.array_of("root")?))?)
}

fn read_mode(r: &mut Reader<'_>) -> Result<u32, DecodeError> {
    Ok(r.number("mode", MODE_BITS.into())? as u32)
}

/// Signed to unsigned, so that times around 1970 stay short.
pub(crate) fn fold(n: i64) -> u64 {
    ((n << 1) ^ (n >> 63)) as u64
}

pub(crate) fn unfold(n: u64) -> i64 {
    (n >> 1) as i64 ^ -((n & 1) as i64)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn content() -> impl Strategy<Value = ContentRef> {
        (1..1_000_000u64, any::<[u8; 32]>()).prop_map(|(size, root)| {
            let depth = u8::from(size > 256 * 1024);
            ContentRef::new(size, depth, ChunkHash(root)).unwrap()
        })
    }

    pub(crate) fn state() -> impl Strategy<Value = State> {
        prop_oneof![
            (content(), any::<Option<([u8; 32], [u8; 32])>>(), 0..=MODE_BITS, any::<i64>())
                .prop_map(|(content, kept, mode, mtime_ns)| {
                    let kept = kept.map(|(root, key)| Kept {
                        content: ContentRef::new(content.size(), content.depth(), ChunkHash(root))
                            .unwrap(),
                        key: KeyId(key),
                    });
                    State::File { content, kept, mode, mtime_ns }
                }),
            (0..=MODE_BITS).prop_map(|mode| State::Dir { mode }),
            proptest::collection::vec(1..=255u8, 1..50)
                .prop_map(|target| State::Symlink { target }),
        ]
    }

    #[test]
    fn golden_bytes() {
        let empty =
            State::File { content: ContentRef::empty(), kept: None, mode: 0o644, mtime_ns: -1 };
        let mut expected = vec![0x86, 0, 0, 0, 0x58, 32];
        expected.extend(ContentRef::empty().root().0);
        expected.extend([0x19, 0x01, 0xa4, 1]);
        assert_eq!(empty.encode(), expected);
        assert_eq!(State::Dir { mode: 0o755 }.encode(), [0x82, 1, 0x19, 0x01, 0xed]);
        assert_eq!(State::Symlink { target: b"x".to_vec() }.encode(), [0x82, 2, 0x41, b'x']);
    }

    #[test]
    fn what_a_later_version_wrote_is_told_from_garbage() {
        assert_eq!(State::decode(&[0x82, 3, 0]), Err(StateError::Newer { kind: 3, items: 2 }));
        assert_eq!(State::decode(&[0x83, 1, 0, 0]), Err(StateError::Newer { kind: 1, items: 3 }));
        assert!(matches!(State::decode(&[0x81, 1]), Err(StateError::Encoding(_))));
        assert!(
            matches!(State::decode(&[0x82, 1, 0, 0]), Err(StateError::Encoding(_))),
            "trailing"
        );
        assert!(matches!(State::decode(&[]), Err(StateError::Encoding(_))));
    }

    #[test]
    fn impossible_values_are_refused() {
        let refused = |bytes: &[u8]| State::decode(bytes).unwrap_err();
        assert!(
            matches!(refused(&[0x82, 1, 0x19, 0x02, 0x00]), StateError::Encoding(_)),
            "mode 0o1000"
        );
        assert_eq!(refused(&[0x82, 2, 0x40]), StateError::Target);
        assert_eq!(refused(&[0x82, 2, 0x42, b'a', 0]), StateError::Target);
        let mut file = vec![0x86, 0, 1, 1, 0x58, 32];
        file.extend([0; 32]);
        file.extend([0, 0]);
        assert!(matches!(refused(&file), StateError::Content(_)), "one byte at depth 1");
    }

    #[test]
    fn mode_and_time_are_not_content() {
        let content = ContentRef::empty();
        let file = |mode, mtime_ns| State::File { content, kept: None, mode, mtime_ns };
        assert!(file(0o644, 1).same_content(&file(0o755, 2)));
        assert!(!file(0o644, 1).same_content(&State::Dir { mode: 0o644 }));
    }

    proptest! {
        #[test]
        fn states_round_trip(state in state()) {
            let read = State::decode(&state.encode()).unwrap();
            prop_assert_eq!(read.kept(), state.kept());
            prop_assert_eq!(read, state);
        }

        #[test]
        fn arbitrary_bytes_are_refused_or_canonical(bytes: Vec<u8>) {
            if let Ok(state) = State::decode(&bytes) {
                prop_assert_eq!(state.encode(), bytes);
            }
        }

        #[test]
        fn nearly_right_bytes_are_refused_or_canonical(state in state(), at in 0..60usize, byte: u8) {
            let mut bytes = state.encode();
            if let Some(changed) = bytes.get_mut(at) {
                *changed = byte;
            }
            if let Ok(state) = State::decode(&bytes) {
                prop_assert_eq!(state.encode(), bytes);
            }
        }

        #[test]
        fn times_fold(n: i64) {
            prop_assert_eq!(unfold(fold(n)), n);
        }
    }
}
