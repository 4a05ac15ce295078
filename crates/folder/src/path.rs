//! Paths inside a folder, as every replica names them. What a path may look like is decided here and nowhere else, so
//! that no name from a peer can reach outside the folder or into its state directory (I4).

use std::borrow::Borrow;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The directory at the root of a folder that holds the replica's own state. It is never synced.
pub const STATE_DIR: &[u8] = b".anabranch";
/// Bytes of a path: what Linux takes in one system call.
pub const MAX_PATH: usize = 4095;
/// Bytes of one segment of a path.
pub const MAX_SEGMENT: usize = 255;
/// Bytes of a path that is recorded or received: room is left for the name of a conflict copy in the same directory.
pub const MAX_SHARED_PATH: usize = MAX_PATH - MAX_SEGMENT - 1;

/// A path relative to the root of a folder: segments of any bytes but `/` and NUL, separated by `/`, none of them
/// empty, `.` or `..`. It need not be UTF-8. The root itself is no path; where it is meant, an `Option` is `None`.
///
/// Paths are ordered by their bytes. So a directory comes before what it contains, but `a.txt` comes between `a` and
/// `a/b`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelPath(Box<[u8]>);

/// Why bytes are no path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// Longer than the limit.
    #[error("a path of {found} bytes; the limit is {limit}")]
    TooLong {
        /// Its length.
        found: usize,
        /// The limit: [`MAX_PATH`] or [`MAX_SHARED_PATH`].
        limit: usize,
    },
    /// A segment longer than [`MAX_SEGMENT`].
    #[error("a name of {0} bytes in a path; the limit is {MAX_SEGMENT}")]
    SegmentTooLong(usize),
    /// An empty path or segment, `.`, `..`, or a NUL.
    #[error("a path with an empty name, '.', '..' or NUL in it")]
    BadSegment,
    /// In the state directory.
    #[error("a path in .anabranch, which is never synced")]
    Reserved,
}

impl RelPath {
    /// The path that `bytes` spell.
    ///
    /// # Errors
    /// [`PathError`] when they spell none.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, PathError> {
        let bytes = bytes.into();
        within(bytes.len(), MAX_PATH)?;
        for segment in bytes.split(|byte| *byte == b'/') {
            check_segment(segment)?;
        }
        Ok(Self(bytes.into_boxed_slice()))
    }

    /// The path that `bytes` spell, if it may be recorded in the database: the check for every path from a peer.
    ///
    /// # Errors
    /// As [`Self::new`], and when it lies in [`STATE_DIR`] (in any case, for file systems that do not tell) or is longer
    /// than [`MAX_SHARED_PATH`].
    pub fn shared(bytes: impl Into<Vec<u8>>) -> Result<Self, PathError> {
        let path = Self::new(bytes)?;
        within(path.0.len(), MAX_SHARED_PATH)?;
        if path.is_reserved() { Err(PathError::Reserved) } else { Ok(path) }
    }

    /// The path of a relative path of the operating system.
    ///
    /// # Errors
    /// As [`Self::new`]; an absolute path has an empty first segment.
    pub fn from_os(path: &Path) -> Result<Self, PathError> {
        Self::new(path.as_os_str().as_bytes())
    }

    /// `name` in the directory `parent` (`None`: the root).
    ///
    /// # Errors
    /// As [`Self::new`]; a `name` with `/` in it counts as a bad segment.
    pub fn in_dir(parent: Option<&Self>, name: &[u8]) -> Result<Self, PathError> {
        check_segment(name)?;
        if name.contains(&b'/') {
            return Err(PathError::BadSegment);
        }
        let bytes = match parent {
            None => name.to_vec(),
            Some(parent) => [parent.as_bytes(), b"/", name].concat(),
        };
        within(bytes.len(), MAX_PATH)?;
        Ok(Self(bytes.into_boxed_slice()))
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The same as the operating system writes it.
    #[must_use]
    pub fn as_os(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    /// The last segment.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        self.split().1
    }

    /// The directory that contains it; `None` for the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        self.split().0.map(|parent| Self(parent.into()))
    }

    /// The directories above it, the nearest first, without the root.
    pub fn ancestors(&self) -> impl Iterator<Item = Self> {
        std::iter::successors(self.parent(), Self::parent)
    }

    /// The bytes of the directories above it, from the root down, and its own last.
    pub fn prefixes(&self) -> impl Iterator<Item = &[u8]> {
        let slashes = self.0.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        slashes.map(|(at, _)| at).chain([self.0.len()]).map(|end| &self.0[..end])
    }

    /// Whether it lies inside the directory `dir`, at any depth.
    #[must_use]
    pub fn is_below(&self, dir: &Self) -> bool {
        self.0.strip_prefix(dir.as_bytes()).is_some_and(|rest| rest.first() == Some(&b'/'))
    }

    /// Whether it is [`STATE_DIR`] or in it.
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        let first = self.0.split(|byte| *byte == b'/').next().unwrap_or_default();
        first.eq_ignore_ascii_case(STATE_DIR)
    }

    fn split(&self) -> (Option<&[u8]>, &[u8]) {
        match self.0.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (Some(&self.0[..slash]), &self.0[slash + 1..]),
            None => (None, &self.0),
        }
    }
}

/// Sets of paths are asked for prefixes of one.
impl Borrow<[u8]> for RelPath {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

fn within(found: usize, limit: usize) -> Result<(), PathError> {
    if found > limit { Err(PathError::TooLong { found, limit }) } else { Ok(()) }
}

fn check_segment(segment: &[u8]) -> Result<(), PathError> {
    if segment.len() > MAX_SEGMENT {
        return Err(PathError::SegmentTooLong(segment.len()));
    }
    if matches!(segment, b"" | b"." | b"..") || segment.contains(&0) {
        return Err(PathError::BadSegment);
    }
    Ok(())
}

/// For people: invalid UTF-8 is replaced, and characters that would move the cursor or turn text around are escaped.
impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in String::from_utf8_lossy(&self.0).chars() {
            let deceives = matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
            if c.is_control() || deceives {
                write!(f, "{}", c.escape_default())?;
            } else {
                write!(f, "{c}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(text: &str) -> RelPath {
        RelPath::new(text).unwrap()
    }

    #[test]
    fn what_could_leave_the_folder_is_no_path() {
        for bad in ["", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "./a", "a/.", "a\0b"] {
            assert_eq!(RelPath::new(bad), Err(PathError::BadSegment), "{bad:?}");
        }
        for good in ["a", "...", "a/..b", ".a", " ", "a\nb", "a\\b", "C:"] {
            assert!(RelPath::new(good).is_ok(), "{good:?}");
        }
        assert!(RelPath::from_os(Path::new("/etc/passwd")).is_err());
        assert!(RelPath::in_dir(None, b"a/b").is_err());
    }

    #[test]
    fn a_peer_cannot_name_the_state_directory() {
        for bad in [".anabranch", ".anabranch/tmp/x", ".AnaBranch/x"] {
            assert_eq!(RelPath::shared(bad), Err(PathError::Reserved), "{bad}");
        }
        for good in [".anabranch2", "a/.anabranch", "a/.anabranch/x"] {
            assert!(RelPath::shared(good).is_ok(), "{good}");
        }
        assert!(RelPath::new(".anabranch/tmp").is_ok(), "we can");
    }

    #[test]
    fn lengths_are_bounded() {
        assert!(RelPath::new("a".repeat(255)).is_ok());
        assert_eq!(RelPath::new("a".repeat(256)), Err(PathError::SegmentTooLong(256)));
        let long = "a/".repeat(2047) + "a";
        assert!(RelPath::new(long.as_str()).is_ok());
        assert!(matches!(RelPath::new(long.clone() + "/b"), Err(PathError::TooLong { .. })));
        assert!(matches!(RelPath::shared(long), Err(PathError::TooLong { limit: 3839, .. })));
    }

    #[test]
    fn directories_come_before_their_contents() {
        let mut sorted = ["a/b", "a", "a.txt", "b", "a/b/c"].map(path);
        sorted.sort();
        assert_eq!(sorted, ["a", "a.txt", "a/b", "a/b/c", "b"].map(path));
    }

    #[test]
    fn parts() {
        let p = path("a/b/c.txt");
        assert_eq!(p.name(), b"c.txt");
        assert_eq!(p.ancestors().collect::<Vec<_>>(), [path("a/b"), path("a")]);
        assert!(p.is_below(&path("a")) && !path("ab/c").is_below(&path("a")));
        assert!(!path("a").is_below(&path("a")));
        assert_eq!(path("a").parent(), None);
        assert_eq!(p.prefixes().collect::<Vec<_>>(), [&b"a"[..], b"a/b", b"a/b/c.txt"]);
    }

    #[test]
    fn what_is_shown_cannot_deceive_a_terminal() {
        let shown = RelPath::new(&b"a\x1b[2J\xff\xe2\x80\xaex"[..]).unwrap().to_string();
        assert_eq!(shown, "a\\u{1b}[2J\u{fffd}\\u{202e}x");
    }

    proptest! {
        #[test]
        fn a_path_is_its_segments(bytes: Vec<u8>) {
            if let Ok(path) = RelPath::new(bytes.clone()) {
                prop_assert_eq!(path.as_bytes(), &bytes[..]);
                let again = RelPath::in_dir(path.parent().as_ref(), path.name());
                prop_assert_eq!(again, Ok(path.clone()));
                prop_assert_eq!(RelPath::from_os(path.as_os()), Ok(path));
            }
        }
    }
}
