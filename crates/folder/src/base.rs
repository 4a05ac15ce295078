//! The base: what this replica and the database last agreed on, path by path, and how that looked on this disk. It is
//! local, is never sent, and one row of it says all that the planner knows about a path's past.
//!
//! # Encoding
//!
//! `[1, state, source, seen]` in the canonical encoding of [`anabranch_core::codec`], with `source` =
//! `[[value id…]]` or `[[value id…], path]` and `seen` = `[mode, inode, size, mtime, ctime, settled]`.

use crate::fs::{Kind, Stat};
use crate::path::{PathError, RelPath};
use crate::state::{State, StateError, fold, unfold};
use anabranch_core::codec::{DecodeError, Reader, Writer};

const VERSION: u64 = 1;
const MAX_VALUE_ID: usize = 4096;
const MAX_VALUES: usize = 1 << 20;

/// Names one value of a cell. Opaque here: whatever the database uses, in bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ValueId(pub Vec<u8>);

/// One live value of a path's cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    /// Its name.
    pub id: ValueId,
    /// What the path is, if this value wins.
    pub state: State,
    /// Who wrote it, for people.
    pub author: String,
    /// When they say they did, in milliseconds since 1970, UTC.
    pub at_ms: u64,
}

/// Which values of which cell put something on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Values of the cell of the path itself. None, for a directory: it is there because something in it is.
    Path {
        /// All live values that agree in kind and content.
        values: Vec<ValueId>,
    },
    /// Values that lost at another path: this is the conflict copy of what they say.
    Copy {
        /// The path they are values of.
        of: RelPath,
        /// All live values that agree in kind and content.
        values: Vec<ValueId>,
    },
}

/// How something looked on the disk when its content was known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Permission bits.
    pub mode: u32,
    /// The inode number; 0 for a directory, of which only the mode matters.
    pub inode: u64,
    /// Bytes; 0 for a directory.
    pub size: u64,
    /// Modification time in nanoseconds since 1970; 0 for a directory.
    pub mtime_ns: i64,
    /// Change time in nanoseconds since 1970; 0 for a directory.
    pub ctime_ns: i64,
    /// Whether a later change is certain to show in the other fields. It is not when the modification time was too close
    /// to the moment of looking: two writes may then carry one time.
    pub settled: bool,
}

/// One row of the base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    /// What was agreed.
    pub state: State,
    /// Where it came from.
    pub source: Source,
    /// How it looked here.
    pub seen: Seen,
}

/// Why bytes are no row of the base.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BaseError {
    /// Not in the canonical encoding.
    #[error(transparent)]
    Encoding(#[from] DecodeError),
    /// The state is none.
    #[error(transparent)]
    State(#[from] StateError),
    /// The path is none.
    #[error(transparent)]
    Path(#[from] PathError),
}

/// A time of a file system that keeps whole seconds (or even ones, as FAT) may hide a change this long.
const COARSE_NS: i64 = 2_000_000_000;
/// A time of a finer one may hide a change for a tick of the kernel's clock, with a margin.
const FINE_NS: i64 = 100_000_000;

impl Seen {
    /// How something with this `stat` looks at `now_ns`.
    #[must_use]
    pub fn new(stat: &Stat, now_ns: i64) -> Self {
        if stat.kind == Kind::Dir {
            return Self {
                mode: stat.mode,
                inode: 0,
                size: 0,
                mtime_ns: 0,
                ctime_ns: 0,
                settled: true,
            };
        }
        let fine = stat.mtime_ns % 1_000_000_000 != 0;
        let window = if fine { FINE_NS } else { COARSE_NS };
        Self {
            mode: stat.mode,
            inode: stat.inode,
            size: stat.size,
            mtime_ns: stat.mtime_ns,
            ctime_ns: stat.ctime_ns,
            settled: stat.mtime_ns.saturating_add(window) < now_ns,
        }
    }

    /// Whether it looks the same, settled or not.
    #[must_use]
    pub fn looks_like(&self, other: &Self) -> bool {
        Self { settled: true, ..*self } == Self { settled: true, ..*other }
    }
}

impl Source {
    /// The values.
    #[must_use]
    pub fn values(&self) -> &[ValueId] {
        match self {
            Self::Path { values } | Self::Copy { values, .. } => values,
        }
    }

    /// Whether it is the conflict copy of something.
    #[must_use]
    pub fn is_copy(&self) -> bool {
        matches!(self, Self::Copy { .. })
    }
}

impl Base {
    /// The same, without how a sealed database keeps it.
    #[must_use]
    pub(crate) fn without_kept(&self) -> Self {
        Self { state: self.state.clone().kept_as(None), ..self.clone() }
    }

    /// The encoding.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.array(4).u64(VERSION);
        self.state.write(&mut w);
        let of = match &self.source {
            Source::Path { .. } => None,
            Source::Copy { of, .. } => Some(of),
        };
        w.array(1 + usize::from(of.is_some())).array(self.source.values().len());
        for ValueId(id) in self.source.values() {
            w.bytes(id);
        }
        if let Some(of) = of {
            w.bytes(of.as_bytes());
        }
        let Seen { mode, inode, size, mtime_ns, ctime_ns, settled } = self.seen;
        w.array(6).u64(mode.into()).u64(inode).u64(size);
        w.u64(fold(mtime_ns)).u64(fold(ctime_ns)).bool(settled);
        w.finish()
    }

    /// The row that `bytes` encode.
    ///
    /// # Errors
    /// [`BaseError`] for any bytes but those that [`Self::encode`] makes.
    pub fn decode(bytes: &[u8]) -> Result<Self, BaseError> {
        let mut r = Reader::new(bytes);
        r.tuple("base row", 4)?;
        match r.u64("version")? {
            VERSION => {}
            found => {
                let what = "base row";
                return Err(DecodeError::Version { what, found, supported: VERSION }.into());
            }
        }
        let state = State::read(&mut r)?;
        let source = read_source(&mut r)?;
        let seen = read_seen(&mut r)?;
        r.finish()?;
        Ok(Self { state, source, seen })
    }
}

fn read_source(r: &mut Reader<'_>) -> Result<Source, BaseError> {
    let parts = r.array("source", 2)?;
    let mut values = Vec::new();
    for _ in 0..r.array("values", MAX_VALUES)? {
        values.push(ValueId(r.bytes("value id", MAX_VALUE_ID)?.to_vec()));
    }
    match parts {
        1 => Ok(Source::Path { values }),
        2 => Ok(Source::Copy { of: RelPath::new(r.bytes("path", usize::MAX)?)?, values }),
        _ => Err(DecodeError::Malformed { what: "source", at: r.position() }.into()),
    }
}

fn read_seen(r: &mut Reader<'_>) -> Result<Seen, DecodeError> {
    r.tuple("seen", 6)?;
    Ok(Seen {
        mode: r.u32("mode")?,
        inode: r.u64("inode")?,
        size: r.u64("size")?,
        mtime_ns: unfold(r.u64("mtime")?),
        ctime_ns: unfold(r.u64("ctime")?),
        settled: r.bool("settled")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::tests::state;
    use proptest::prelude::*;

    fn base() -> impl Strategy<Value = Base> {
        let values = proptest::collection::vec(any::<Vec<u8>>().prop_map(ValueId), 0..4);
        (state(), values, "[a-z]{0,3}", any::<[i64; 4]>(), any::<(u32, bool)>()).prop_map(
            |(state, values, of, [inode, size, mtime_ns, ctime_ns], (mode, settled))| {
                let source = match RelPath::new(of) {
                    Ok(of) => Source::Copy { of, values },
                    Err(_) => Source::Path { values },
                };
                let (inode, size) = (inode as u64, size as u64);
                let seen = Seen { mode, inode, size, mtime_ns, ctime_ns, settled };
                Base { state, source, seen }
            },
        )
    }

    fn stat(mtime_ns: i64) -> Stat {
        Stat { kind: Kind::File, mode: 0o644, inode: 1, size: 5, mtime_ns, ctime_ns: mtime_ns }
    }

    #[test]
    fn a_time_too_near_is_not_trusted() {
        let second = 1_000_000_000;
        assert!(!Seen::new(&stat(50 * second), 50 * second).settled);
        assert!(!Seen::new(&stat(50 * second), 52 * second).settled, "whole seconds: FAT has two");
        assert!(Seen::new(&stat(50 * second), 53 * second).settled);
        assert!(!Seen::new(&stat(50 * second + 1), 50 * second + 1).settled);
        assert!(Seen::new(&stat(50 * second + 1), 51 * second).settled);
        assert!(!Seen::new(&stat(99 * second), 50 * second).settled, "in the future");
        assert!(!Seen::new(&stat(i64::MAX), i64::MAX).settled);
    }

    #[test]
    fn of_a_directory_only_the_mode_counts() {
        let (a, b) = (stat(1), stat(2));
        let [a, b] = [a, b].map(|stat| Seen::new(&Stat { kind: Kind::Dir, ..stat }, 0));
        assert_eq!(a, b);
    }

    #[test]
    fn another_version_is_refused() {
        let row = [0x84, 2, 0x82, 1, 0, 0x81, 0x80];
        assert!(matches!(
            Base::decode(&row),
            Err(BaseError::Encoding(DecodeError::Version { found: 2, .. }))
        ));
    }

    proptest! {
        #[test]
        fn rows_round_trip(base in base()) {
            prop_assert_eq!(Base::decode(&base.encode()).unwrap(), base);
        }

        #[test]
        fn nearly_right_bytes_are_refused_or_canonical(base in base(), at in 0..99usize, byte: u8) {
            let mut bytes = base.encode();
            if let Some(changed) = bytes.get_mut(at) {
                *changed = byte;
            }
            if let Ok(base) = Base::decode(&bytes) {
                prop_assert_eq!(base.encode(), bytes);
            }
        }
    }
}
