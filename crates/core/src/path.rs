//! Cell paths: where in its store a value lives. A path is a list of segments; its encoding keeps their order, so that a
//! table's rows and a document's subtrees are ranges of keys.
//!
//! A segment is a tag, its bytes with `00` written `01 01` and `01` written `01 02`, and a closing `00`. Tag `10` is text
//! (UTF-8), tag `11` bytes, tag `12` an element of a list; other tags are for later kinds of segment and are carried unread.
//! Tag `0f` is no segment of a cell: it stands in an operation for an element that the operation's own entry makes, whose id
//! has that entry's in it ([`Path::fill`]). No segment begins with `00`, so a path is followed in a storage key by `00` and sorts before everything below it.

use crate::id::EntryId;
use crate::limits;
use std::fmt;

const NEW: u8 = 0x0f;
const TEXT: u8 = 0x10;
const BYTES: u8 = 0x11;
const ELEMENT: u8 = 0x12;

/// The name of an element of a list: the entry that made it, by the first 16 bytes of its id, and a number that is the
/// entry's own choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ElementId {
    /// Where the id of the entry begins.
    pub entry: [u8; 16],
    /// Which of its elements.
    pub number: u32,
}

impl ElementId {
    /// The element that a segment of a path stands for.
    #[must_use]
    pub fn of(segment: &Segment) -> Option<Self> {
        let Segment::Other(ELEMENT, bytes) = segment else { return None };
        let (entry, number) = bytes.split_first_chunk()?;
        Some(Self { entry: *entry, number: decode_number(number)? })
    }
}

/// A number in its fewest bytes, big-endian, after how many these are: short, and in the order of numbers.
fn encode_number(number: u32) -> Vec<u8> {
    let skip = number.leading_zeros() as usize / 8;
    let bytes = &number.to_be_bytes()[skip..];
    [&[bytes.len() as u8], bytes].concat()
}

fn decode_number(bytes: &[u8]) -> Option<u32> {
    let (&len, bytes) = bytes.split_first()?;
    let shortest = bytes.first() != Some(&0);
    (shortest && bytes.len() == usize::from(len) && len <= 4)
        .then(|| bytes.iter().fold(0, |n, b| n << 8 | u32::from(*b)))
}

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Segment {
    /// A name.
    Text(String),
    /// A name that need not be text.
    Bytes(Vec<u8>),
    /// A kind that this program does not know.
    Other(u8, Vec<u8>),
}

/// An encoded path: at most [`limits::PATH_BYTES`] bytes and [`limits::PATH_SEGMENTS`] segments.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Path(Vec<u8>);

/// A path that is malformed, too long or too deep.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a key path must have 1 to {} parts and at most {} bytes; make the key shorter",
    limits::PATH_SEGMENTS,
    limits::PATH_BYTES
)]
pub struct PathError;

impl Path {
    /// The path with these segments of text.
    ///
    /// # Errors
    /// [`PathError`] when it is too long or too deep.
    pub fn text<S: AsRef<str>>(segments: impl IntoIterator<Item = S>) -> Result<Self, PathError> {
        segments.into_iter().try_fold(Self::default(), |path, s| path.join(s.as_ref()))
    }

    /// The path with one more segment of text.
    ///
    /// # Errors
    /// [`PathError`] when it becomes too long or too deep.
    pub fn join(&self, segment: &str) -> Result<Self, PathError> {
        self.push(TEXT, segment.as_bytes())
    }

    /// The path with one more segment of bytes.
    ///
    /// # Errors
    /// [`PathError`] when it becomes too long or too deep.
    pub fn join_bytes(&self, segment: &[u8]) -> Result<Self, PathError> {
        self.push(BYTES, segment)
    }

    /// The path with one more segment: an element of a list.
    ///
    /// # Errors
    /// [`PathError`] when it becomes too long or too deep.
    pub fn join_element(&self, element: &ElementId) -> Result<Self, PathError> {
        self.push(ELEMENT, &[&element.entry[..], &encode_number(element.number)].concat())
    }

    /// The path with one more segment: the element of this number that the entry makes in which this is written. A cell
    /// never has such a path.
    ///
    /// # Errors
    /// [`PathError`] when it becomes too long or too deep.
    pub fn join_new(&self, number: u32) -> Result<Self, PathError> {
        self.push(NEW, &encode_number(number))
    }

    /// Whether a segment stands for an element that is still to be made.
    #[must_use]
    pub fn has_new(&self) -> bool {
        // Segments end with the only zeros there are.
        let ends =
            self.0.iter().zip(self.0.iter().skip(1)).any(|(&end, &tag)| end == 0 && tag == NEW);
        ends || self.0.first() == Some(&NEW)
    }

    /// The path of a cell that `entry` writes: elements that it makes get its id.
    ///
    /// # Errors
    /// [`PathError`] when it becomes too long.
    pub fn fill(&self, entry: &EntryId) -> Result<Self, PathError> {
        if !self.has_new() {
            return Ok(self.clone());
        }
        let mut rest = &self.0[..];
        let mut path = Self::default();
        while let Some(((tag, bytes), next)) = split_segment(rest, NEW) {
            path = match tag {
                NEW => path.push(ELEMENT, &[&entry.first16()[..], &bytes].concat())?,
                _ => path.push(tag, &bytes)?,
            };
            rest = next;
        }
        Ok(path)
    }

    fn push(&self, tag: u8, bytes: &[u8]) -> Result<Self, PathError> {
        let mut out = Vec::with_capacity(self.0.len() + bytes.len() + 2);
        out.extend_from_slice(&self.0);
        out.push(tag);
        for &b in bytes {
            match b {
                0 => out.extend_from_slice(&[1, 1]),
                1 => out.extend_from_slice(&[1, 2]),
                b => out.push(b),
            }
        }
        out.push(0);
        if out.len() > limits::PATH_BYTES || self.len() >= limits::PATH_SEGMENTS {
            return Err(PathError);
        }
        Ok(Self(out))
    }

    /// Checks bytes that claim to be an encoded path of at least one segment.
    ///
    /// # Errors
    /// [`PathError`] for anything that no list of segments encodes to.
    pub fn from_encoded(bytes: &[u8]) -> Result<Self, PathError> {
        Self::checked(bytes, TEXT)
    }

    /// As [`Self::from_encoded`], of a path with at least one element that is still to be made.
    ///
    /// # Errors
    /// [`PathError`] also when there is none.
    pub fn from_encoded_new(bytes: &[u8]) -> Result<Self, PathError> {
        Self::checked(bytes, NEW).and_then(|path| path.has_new().then_some(path).ok_or(PathError))
    }

    fn checked(bytes: &[u8], least: u8) -> Result<Self, PathError> {
        if bytes.is_empty() || bytes.len() > limits::PATH_BYTES {
            return Err(PathError);
        }
        let mut rest = bytes;
        let mut depth = 0;
        while !rest.is_empty() {
            let (segment, next) = split_segment(rest, least).ok_or(PathError)?;
            let sensible = match segment {
                (TEXT, bytes) => String::from_utf8(bytes).is_ok(),
                (NEW, bytes) => decode_number(&bytes).is_some(),
                _ => true,
            };
            if !sensible {
                return Err(PathError);
            }
            depth += 1;
            rest = next;
        }
        if depth > limits::PATH_SEGMENTS {
            return Err(PathError);
        }
        Ok(Self(bytes.to_vec()))
    }

    /// A path read from our own storage, where only checked ones are written.
    pub(crate) fn trusted(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    /// The encoding.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// How many segments it has.
    #[must_use]
    pub fn len(&self) -> usize {
        // Inside a segment `00` is escaped, so every zero closes one.
        self.0.iter().filter(|&&b| b == 0).count()
    }

    /// Whether it has none: the root, which holds no value.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `self` is `other` or an ancestor of it.
    #[must_use]
    pub fn is_prefix_of(&self, other: &Self) -> bool {
        other.0.starts_with(&self.0)
    }

    /// The segments.
    #[must_use]
    pub fn segments(&self) -> Vec<Segment> {
        let mut rest = &self.0[..];
        let mut out = Vec::new();
        while let Some(((tag, bytes), next)) = split_segment(rest, NEW) {
            out.push(match (tag, String::from_utf8(bytes)) {
                (TEXT, Ok(text)) => Segment::Text(text),
                (BYTES, bytes) => {
                    Segment::Bytes(bytes.map_or_else(|e| e.into_bytes(), String::into_bytes))
                }
                (tag, bytes) => {
                    Segment::Other(tag, bytes.map_or_else(|e| e.into_bytes(), String::into_bytes))
                }
            });
            rest = next;
        }
        out
    }

    /// The ancestors from the first segment down, without itself.
    pub fn ancestors(&self) -> impl Iterator<Item = Self> + '_ {
        let ends = self.0.iter().enumerate().filter(|&(i, &b)| b == 0 && i + 1 < self.0.len());
        ends.map(|(i, _)| Self(self.0[..=i].to_vec()))
    }
}

/// A segment's tag and its bytes.
type Tagged = (u8, Vec<u8>);

/// Takes the first segment off, if its tag is `least` or above: its tag, its unescaped bytes, and what follows.
fn split_segment(bytes: &[u8], least: u8) -> Option<(Tagged, &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    if tag < least {
        return None;
    }
    let end = rest.iter().position(|&b| b == 0)?;
    let mut out = Vec::with_capacity(end);
    let mut raw = rest[..end].iter();
    while let Some(&b) = raw.next() {
        out.push(match b {
            1 => match raw.next()? {
                1 => 0,
                2 => 1,
                _ => return None,
            },
            b => b,
        });
    }
    Some(((tag, out), &rest[end + 1..]))
}

impl fmt::Display for Path {
    /// Segments joined by `/`; what is not text is shown in hex.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, segment) in self.segments().iter().enumerate() {
            if i > 0 {
                f.write_str("/")?;
            }
            match segment {
                Segment::Text(text) => f.write_str(text)?,
                Segment::Bytes(bytes) | Segment::Other(_, bytes) => {
                    bytes.iter().try_for_each(|b| write!(f, "{b:02x}"))?;
                }
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Path({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(segments: &[Vec<u8>]) -> Path {
        segments.iter().fold(Path::default(), |p, s| p.join_bytes(s).unwrap())
    }

    /// Short enough to be a path, and of few different bytes, so that one is often the start of the other.
    fn arb_segments() -> impl Strategy<Value = Vec<Vec<u8>>> {
        use proptest::collection::vec;
        vec(vec(prop_oneof![0u8..4, 14u8..19, any::<u8>()], 0..5), 0..5)
    }

    #[test]
    fn too_long_and_too_deep_are_refused() {
        assert!(Path::default().join(&"x".repeat(limits::PATH_BYTES)).is_err());
        assert!(Path::text(vec!["a"; limits::PATH_SEGMENTS]).is_ok());
        assert!(Path::text(vec!["a"; limits::PATH_SEGMENTS + 1]).is_err());
        assert!(Path::from_encoded(b"").is_err(), "the root holds no value");
    }

    proptest! {
        #[test]
        fn order_is_that_of_the_segments(a in arb_segments(), b in arb_segments()) {
            prop_assert_eq!(path(&a).cmp(&path(&b)), a.cmp(&b));
        }

        #[test]
        fn segments_come_back(list in proptest::collection::vec(".*", 1..6)) {
            let path = Path::text(&list).unwrap();
            prop_assert_eq!(Path::from_encoded(path.as_bytes()).unwrap(), path.clone());
            prop_assert_eq!(path.len(), list.len());
            let texts: Vec<_> = list.into_iter().map(Segment::Text).collect();
            prop_assert_eq!(path.segments(), texts);
        }

        #[test]
        fn elements_come_back_and_get_the_id_of_their_entry(
            entry: [u8; 16], rest: [u8; 16], number: u32, inner: u32
        ) {
            let id = EntryId([entry, rest].concat().try_into().unwrap());
            let base = Path::text(["list"]).unwrap();
            let new = base.join_new(number).unwrap().join("x").unwrap().join_new(inner).unwrap();
            prop_assert!(new.has_new() && !base.has_new());
            prop_assert!(Path::from_encoded(new.as_bytes()).is_err());
            prop_assert_eq!(&Path::from_encoded_new(new.as_bytes()).unwrap(), &new);
            let path = new.fill(&id).unwrap();
            prop_assert!(!path.has_new() && Path::from_encoded_new(path.as_bytes()).is_err());
            prop_assert_eq!(&Path::from_encoded(path.as_bytes()).unwrap(), &path);
            let segments = path.segments();
            prop_assert_eq!(ElementId::of(&segments[1]), Some(ElementId { entry, number }));
            prop_assert_eq!(ElementId::of(&segments[3]), Some(ElementId { entry, number: inner }));
            let made = base.join_element(&ElementId { entry, number }).unwrap();
            prop_assert!(made.is_prefix_of(&path));
        }

        #[test]
        fn numbers_keep_their_order(a: u32, b in prop_oneof![any::<u32>(), 0u32..300]) {
            prop_assert_eq!(encode_number(a).cmp(&encode_number(b)), a.cmp(&b));
        }

        #[test]
        fn each_path_with_something_new_has_one_encoding(bytes: Vec<u8>, number: u32) {
            let new = Path::default().join_new(number).unwrap();
            if let Ok(path) = Path::from_encoded_new(&[new.as_bytes(), &bytes].concat()) {
                prop_assert!(path.fill(&EntryId([1; 32])).is_ok_and(|path| !path.has_new()));
            }
        }

        #[test]
        fn each_path_has_one_encoding(bytes: Vec<u8>) {
            if let Ok(path) = Path::from_encoded(&bytes) {
                let again = path.segments().iter().fold(Path::default(), |p, s| match s {
                    Segment::Text(t) => p.join(t).unwrap(),
                    Segment::Bytes(b) => p.join_bytes(b).unwrap(),
                    Segment::Other(tag, b) => p.push(*tag, b).unwrap(),
                });
                prop_assert_eq!(again.as_bytes(), &bytes[..]);
            }
        }
    }
}
