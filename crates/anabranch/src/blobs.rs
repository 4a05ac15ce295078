//! Blobs: content of any size under a name. An entry says where the content is; the content itself is in pieces that are
//! named by their hash, and comes with the entry or, in a lazy store, when it is read.

use crate::table::write;
use crate::{Database, Error};
use anabranch_core::author::{Draft, Seen, Write};
use anabranch_core::blob::{BlobRef, MEDIA_TYPE_BYTES};
use anabranch_core::cells::{Cell, LiveValue};
use anabranch_core::entry::{StoreId, Timestamp};
use anabranch_core::id::NodeId;
use anabranch_core::path::{Path, Segment};
use anabranch_node::{BlobReader, Collected, Keep, MARKS, NodeError, READ_WAIT};
use std::io::{self, Read};
use std::ops::{ControlFlow, Range};
use std::time::Duration;

/// Bytes read at once from where content comes from.
const PART: usize = 256 * 1024;

/// A store of blobs.
#[derive(Debug, Clone)]
pub struct Blobs {
    pub(crate) db: Database,
    pub(crate) store: StoreId,
    wait: Duration,
}

/// A blob: what there is under a name. Without its content.
#[derive(Debug, Clone)]
pub struct Blob {
    /// The name.
    pub name: String,
    /// The version shown.
    pub shown: BlobVersion,
    /// Versions that others put in at the same time, if there are any: a conflict.
    pub others: Vec<BlobVersion>,
}

/// One version of a blob.
#[derive(Debug, Clone)]
pub struct BlobVersion {
    /// The device that put it in.
    pub device: NodeId,
    /// Its clock.
    pub timestamp: Timestamp,
    /// Where the content is, or why that cannot be read.
    pub content: Result<BlobRef, String>,
    value: LiveValue,
}

impl BlobVersion {
    fn new(value: LiveValue) -> Self {
        Self {
            device: value.name.log.device,
            timestamp: value.timestamp,
            content: BlobRef::decode(&value.value).map_err(|e| e.to_string()),
            value,
        }
    }

    /// The reference.
    ///
    /// # Errors
    /// [`Error::Value`] when it was written by a later version or is none.
    pub fn reference(&self) -> Result<&BlobRef, Error> {
        self.content.as_ref().map_err(|why| Error::Value {
            what: "the blob cannot be read".into(),
            why: why.clone(),
        })
    }
}

impl Blob {
    fn of(cell: Cell) -> Option<Self> {
        let name = match &cell.path.segments()[..] {
            [Segment::Text(name)] => name.clone(),
            // Another program's, or a later one's.
            _ => return None,
        };
        let mut versions = cell.values.into_iter().map(BlobVersion::new);
        let shown = versions.next()?;
        // Put in twice, with the same content: no conflict.
        let others = versions.filter(|v| v.value.value != shown.value.value).collect();
        Some(Self { name, shown, others })
    }

    /// All versions, the one shown first.
    pub fn versions(&self) -> impl Iterator<Item = &BlobVersion> {
        std::iter::once(&self.shown).chain(&self.others)
    }

    /// The version number `number`, counted from 1, the one shown first.
    ///
    /// # Errors
    /// [`Error::Resolve`] when there is none.
    pub fn version(&self, number: usize) -> Result<&BlobVersion, Error> {
        let found = number.checked_sub(1).and_then(|n| self.versions().nth(n));
        found.ok_or_else(|| {
            let count = 1 + self.others.len();
            let versions =
                if count == 1 { "1 version".into() } else { format!("{count} versions") };
            Error::Resolve(format!("'{}' has {versions}, there is no number {number}", self.name))
        })
    }
}

fn path(name: &str) -> Result<Path, Error> {
    Ok(Path::text([name])?)
}

impl Blobs {
    pub(crate) fn new(db: Database, name: &str) -> Self {
        Self { db, store: StoreId::blobs(name), wait: READ_WAIT }
    }

    /// With another time for which a read waits for a part that is not here: 10 seconds unless this is called.
    #[must_use]
    pub fn waiting(self, wait: Duration) -> Self {
        Self { wait, ..self }
    }

    /// Puts everything that `from` has under `name`, in place of what is there when it is committed: all of it or nothing.
    /// Durable when it returns. `media_type` may be empty. Memory: about 2 MiB.
    ///
    /// # Errors
    /// [`Error::Node`] when the name does not fit or it cannot be stored, [`Error::Value`] when `from` fails or the media
    /// type is too long.
    pub async fn put(
        &self,
        name: &str,
        media_type: &str,
        mut from: impl Read + Send + 'static,
    ) -> Result<BlobRef, Error> {
        let (blobs, name, media_type) = (self.clone(), name.to_owned(), media_type.to_owned());
        let work = move || blobs.put_blocking(&name, &media_type, &mut from, &mut |_| Ok(()));
        tokio::task::spawn_blocking(work).await.map_err(|_| NodeError::Closed)?
    }

    /// As [`Self::put`], on this thread, which may not be one of an async runtime. `progress` is told how many bytes were
    /// taken so far and may end it.
    ///
    /// # Errors
    /// As [`Self::put`], or what `progress` returned.
    pub fn put_blocking(
        &self,
        name: &str,
        media_type: &str,
        from: &mut dyn Read,
        progress: &mut dyn FnMut(u64) -> Result<(), Error>,
    ) -> Result<BlobRef, Error> {
        let path = path(name)?;
        if media_type.len() > MEDIA_TYPE_BYTES {
            return Err(Error::Value {
                what: "the media type is too long".into(),
                why: format!("it has more than {MEDIA_TYPE_BYTES} bytes"),
            });
        }
        let mut put = self.db.replica().put_content(&self.store)?;
        let mut part = vec![0; PART];
        loop {
            let count = match from.read(&mut part) {
                Ok(0) => break,
                Ok(count) => count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => {
                    let what = format!("nothing was put under '{name}'");
                    return Err(Error::Value { what, why: e.to_string() });
                }
            };
            put.write(&part[..count])?;
            progress(put.size())?;
        }
        let (_, blob) = put.finish(&path, Seen::AtCommit, media_type)?;
        Ok(blob)
    }

    /// What there is under `name`.
    ///
    /// # Errors
    /// What storage reports.
    pub fn get(&self, name: &str) -> Result<Option<Blob>, Error> {
        let path = path(name)?;
        let values =
            self.db.replica().read_store(&self.store, |view| view.cell(&self.store, &path))?;
        Ok((!values.is_empty()).then(|| Blob::of(Cell { path, values })).flatten())
    }

    /// A reader of a version's content. Every piece is checked against its hash; of a part only the pieces it touches are
    /// looked at, and fetched where they are not here.
    ///
    /// # Errors
    /// [`Error::Value`] when it was written by a later version or names no content.
    pub fn reader(&self, version: &BlobVersion) -> Result<BlobReader, Error> {
        Ok(self.db.replica().reader(&self.store, version.reference()?.content, self.wait))
    }

    /// The bytes of `range`, or those of it that there are, of the version shown under `name`; `None` when there is
    /// nothing. All of them are in memory.
    ///
    /// # Errors
    /// As [`BlobReader::read`].
    pub async fn read(&self, name: &str, range: Range<u64>) -> Result<Option<Vec<u8>>, Error> {
        let Some(blob) = self.get(name)? else { return Ok(None) };
        let reader = self.reader(&blob.shown)?;
        let work = move || {
            let mut bytes = Vec::new();
            reader.read(range, &mut |part| {
                bytes.extend_from_slice(part);
                Ok(())
            })?;
            Ok::<_, NodeError>(bytes)
        };
        let bytes = tokio::task::spawn_blocking(work).await.map_err(|_| NodeError::Closed)??;
        Ok(Some(bytes))
    }

    /// Removes what is under `name`. The content stays on the disk until [`Database::collect_blocking`].
    ///
    /// # Errors
    /// What committing reports.
    pub async fn remove(&self, name: &str) -> Result<(), Error> {
        let writes = vec![write(&self.store, path(name)?, None)];
        self.db.commit(Draft { writes, ..Draft::default() }).await
    }

    /// Settles the conflict under `name` by version number `take`, counted from 1, the one shown first.
    ///
    /// # Errors
    /// [`Error::Resolve`] when there is no conflict or no such version.
    pub async fn resolve(&self, name: &str, take: usize) -> Result<(), Error> {
        let path = path(name)?;
        let values =
            self.db.replica().read_store(&self.store, |view| view.cell(&self.store, &path))?;
        let seen = values.iter().map(|v| v.name).collect();
        let blob = (!values.is_empty()).then(|| Blob::of(Cell { path: path.clone(), values }));
        let blob = blob.flatten().filter(|blob| !blob.others.is_empty());
        let blob = blob.ok_or_else(|| Error::Resolve(format!("'{name}' has no conflict")))?;
        let chosen = blob.version(take)?.value.value.clone();
        let chosen = Write { seen: Seen::Values(seen), ..write(&self.store, path, Some(chosen)) };
        self.db.commit(Draft { writes: vec![chosen], ..Draft::default() }).await
    }

    /// Calls `visit` with each blob, by name, until it breaks. One in memory.
    ///
    /// # Errors
    /// What storage reports.
    pub fn each(&self, visit: &mut dyn FnMut(Blob) -> ControlFlow<()>) -> Result<(), Error> {
        Ok(self.db.replica().read_store(&self.store, |view| {
            view.scan_cells(&self.store, &Path::default(), None, &mut |cell| match Blob::of(cell) {
                Some(blob) => visit(blob),
                None => ControlFlow::Continue(()),
            })
        })?)
    }

    /// Whether all content of a version is known to be on this device.
    ///
    /// # Errors
    /// What storage reports.
    pub fn is_here(&self, name: &str, version: &BlobVersion) -> Result<bool, Error> {
        let path = path(name)?;
        let awaited = |view: anabranch_core::view::View<'_>| {
            view.is_awaited(&self.store, &path, &version.value.name)
        };
        Ok(!self.db.replica().read_store(&self.store, awaited)?)
    }

    /// When content comes to this device: with the entries, or when it is read.
    ///
    /// # Errors
    /// What storage reports.
    pub fn keep(&self) -> Result<Keep, Error> {
        Ok(self.db.replica().keep(Some(&self.store.name))?)
    }

    /// Says when content comes to this device. Other devices have settings of their own. What is here stays; what an eager
    /// store lacks is fetched from now on.
    ///
    /// # Errors
    /// What storage reports.
    pub fn set_keep(&self, keep: Keep) -> Result<(), Error> {
        Ok(self.db.replica().set_keep(Some(&self.store.name), keep)?)
    }

    /// Takes content off this device that it fetched: of `name`, or of all blobs of this store, which must be lazy. What
    /// this device put in itself stays, and what other stores or names have. Blocking. Cost: looks at all manifests of
    /// the database.
    ///
    /// # Errors
    /// [`Error::Node`] when the store is not lazy or another collection is under way.
    pub fn evict_blocking(&self, name: Option<&str>) -> Result<Collected, Error> {
        let path = name.map(path).transpose()?;
        let collection = self.db.replica().evict(&self.store.name, path.as_ref(), MARKS)?;
        Ok(collection.run(&mut |_| ())?)
    }
}

impl Database {
    /// Takes content off this device that no blob names any more, those in conflict included. What is being put in stays.
    /// Blocking. Cost: looks at all manifests and the name of every piece; memory: about 64 MiB at most. `progress` is
    /// told what was taken away so far.
    ///
    /// # Errors
    /// [`Error::Node`] when another collection is under way, or what storage reports.
    pub fn collect_blocking(
        &self,
        progress: &mut dyn FnMut(Collected),
    ) -> Result<Collected, Error> {
        Ok(self.replica().collect(MARKS)?.run(progress)?)
    }
}
