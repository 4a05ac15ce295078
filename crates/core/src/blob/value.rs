//! What a cell of a blob store holds in place of content.

use super::{ChunkHash, ContentRef, InvalidContentRef};
use crate::codec::{DecodeError, Reader, Writer};

/// Bytes of a media type.
pub const MEDIA_TYPE_BYTES: usize = 255;
/// Items of any array that is passed over.
const ITEMS: usize = 16;
const BLOB: u64 = 0;
const FIELDS: usize = 5;

/// The value of a cell of a blob store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobRef {
    /// The content.
    pub content: ContentRef,
    /// What kind of thing it is, such as `image/png`, as its writer says; empty if it does not say. At most
    /// [`MEDIA_TYPE_BYTES`].
    pub media_type: String,
}

/// Why a value of a blob store cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlobRefError {
    /// Written by a later version.
    #[error("the blob was written by a later version; update anabranch to read it")]
    Newer,
    /// Not in the canonical encoding.
    #[error(transparent)]
    Encoding(#[from] DecodeError),
    /// A reference to content that no content has.
    #[error(transparent)]
    Content(#[from] InvalidContentRef),
}

impl BlobRef {
    /// The encoding.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.array(FIELDS).u64(BLOB).u64(self.content.size()).u64(self.content.depth().into());
        w.bytes(&self.content.root().0).text(&self.media_type);
        w.finish()
    }

    /// The reference that `bytes` encode.
    ///
    /// # Errors
    /// [`BlobRefError`] for any bytes but those that [`Self::encode`] makes, with a media type within its limit.
    pub fn decode(bytes: &[u8]) -> Result<Self, BlobRefError> {
        let mut r = Reader::new(bytes);
        let items = r.array("blob", ITEMS)?;
        if r.u64("kind")? != BLOB || items > FIELDS {
            return Err(BlobRefError::Newer);
        }
        if items < FIELDS {
            return Err(DecodeError::Malformed { what: "blob", at: r.position() }.into());
        }
        let content = read_content(&mut r)?;
        let media_type = r.text("media type", MEDIA_TYPE_BYTES)?.to_owned();
        r.finish()?;
        Ok(Self { content, media_type })
    }
}

fn read_content(r: &mut Reader<'_>) -> Result<ContentRef, BlobRefError> {
    let size = r.u64("size")?;
    let depth = r.number("depth", u8::MAX.into())? as u8;
    Ok(ContentRef::new(size, depth, ChunkHash(r.array_of("root")?))?)
}

/// The content that a value of a blob store or a folder names. Both begin alike, and so do values of a later version that
/// have more items, whose content is kept although they cannot be read.
#[must_use]
pub fn content_of(value: &[u8]) -> Option<ContentRef> {
    let mut r = Reader::new(value);
    let items = r.array("blob", ITEMS).ok()?;
    (items >= FIELDS && r.u64("kind").ok()? == BLOB).then(|| read_content(&mut r).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn blob() -> impl Strategy<Value = BlobRef> {
        (1..1_000_000u64, any::<[u8; 32]>(), "[a-z/+.]{0,40}").prop_map(
            |(size, root, media_type)| {
                let depth = u8::from(size > 256 * 1024);
                BlobRef {
                    content: ContentRef::new(size, depth, ChunkHash(root)).unwrap(),
                    media_type,
                }
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(blob in blob()) {
            let bytes = blob.encode();
            prop_assert_eq!(BlobRef::decode(&bytes).unwrap(), blob.clone());
            prop_assert_eq!(content_of(&bytes), Some(blob.content));
        }

        #[test]
        fn there_is_one_spelling(blob in blob(), at: usize, byte: u8, cut: bool) {
            let mut bytes = blob.encode();
            let at = at % bytes.len();
            if cut { bytes.truncate(at) } else { bytes[at] = byte }
            if let Ok(read) = BlobRef::decode(&bytes) {
                prop_assert_eq!(content_of(&bytes), Some(read.content));
                prop_assert_eq!(read.encode(), bytes);
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = content_of(&bytes);
            if let Ok(read) = BlobRef::decode(&bytes) {
                prop_assert_eq!(read.encode(), bytes);
            }
        }
    }

    #[test]
    fn a_later_version_keeps_its_content() {
        let content = ContentRef::new(5, 0, ChunkHash([1; 32])).unwrap();
        let with = |kind, items| {
            let mut w = Writer::new();
            w.array(items).u64(kind).u64(5).u64(0).bytes(&[1; 32]).text("text/plain");
            (5..items).for_each(|_| _ = w.u64(9));
            w.finish()
        };
        let read = |bytes: &[u8]| (BlobRef::decode(bytes).is_ok(), content_of(bytes));
        assert_eq!(read(&with(0, 5)), (true, Some(content)));
        assert_eq!(read(&with(0, 6)), (false, Some(content)));
        assert!(matches!(BlobRef::decode(&with(0, 6)), Err(BlobRefError::Newer)));
        assert_eq!(read(&with(1, 5)), (false, None));
        let mut w = Writer::new();
        w.array(5).u64(0).u64(1 << 40).u64(0).bytes(&[1; 32]).text("");
        assert_eq!(read(&w.finish()), (false, None), "no chunk is that long");
        let long = BlobRef { content, media_type: "x".repeat(MEDIA_TYPE_BYTES + 1) };
        assert!(matches!(BlobRef::decode(&long.encode()), Err(BlobRefError::Encoding(_))));
    }
}
