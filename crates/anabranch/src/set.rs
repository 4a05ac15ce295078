//! Sets: elements that are in or not, one cell each. Removing takes away what was seen; an element that another device adds
//! at the same time stays.

use crate::table::write;
use crate::value::{NULL, Raw};
use crate::{Database, Error};
use anabranch_core::author::{Draft, Write};
use anabranch_core::entry::StoreId;
use anabranch_core::limits;
use anabranch_core::path::{Path, Segment};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::marker::PhantomData;
use std::ops::ControlFlow;

/// A set of `T`. Two elements are one if serde makes the same value of them, whatever the order of keys in maps.
pub struct Set<T> {
    pub(crate) db: Database,
    pub(crate) store: StoreId,
    element: PhantomData<fn() -> T>,
}

impl<T> Clone for Set<T> {
    fn clone(&self) -> Self {
        Self { db: self.db.clone(), store: self.store.clone(), element: PhantomData }
    }
}

impl<T> std::fmt::Debug for Set<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Set({})", self.store.name)
    }
}

fn path<T: Serialize>(element: &T) -> Result<Path, Error> {
    let encoded = Raw::new(element)?.canonical()?;
    Path::default().join_bytes(encoded.as_bytes()).map_err(|_| Error::Value {
        what: "an element cannot be stored".into(),
        why: format!("it has more than about {} bytes", limits::PATH_BYTES),
    })
}

/// The write that adds an element, also one that is there: who removes it at the same time has not seen this.
pub(crate) fn add_write<T: Serialize>(set: &Set<T>, element: &T) -> Result<Write, Error> {
    Ok(write(&set.store, path(element)?, Some(NULL.to_vec())))
}

pub(crate) fn remove_write<T: Serialize>(set: &Set<T>, element: &T) -> Result<Write, Error> {
    Ok(write(&set.store, path(element)?, None))
}

impl<T: Serialize + DeserializeOwned> Set<T> {
    pub(crate) fn new(db: Database, name: &str) -> Self {
        Self { db, store: StoreId::set(name), element: PhantomData }
    }

    /// Adds an element. One that is there is added anew, so that it stays if another device removes it at the same time.
    ///
    /// # Errors
    /// [`Error::Value`] when it is too large, or what committing reports.
    pub async fn add(&self, element: &T) -> Result<(), Error> {
        let writes = vec![add_write(self, element)?];
        self.db.commit(Draft { writes, ..Draft::default() }).await
    }

    /// Removes an element.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub async fn remove(&self, element: &T) -> Result<(), Error> {
        let writes = vec![remove_write(self, element)?];
        self.db.commit(Draft { writes, ..Draft::default() }).await
    }

    /// Whether an element is in.
    ///
    /// # Errors
    /// As [`Self::add`], or what storage reports.
    pub fn contains(&self, element: &T) -> Result<bool, Error> {
        let path = path(element)?;
        Ok(self
            .db
            .replica()
            .read_store(&self.store, |view| view.cell(&self.store, &path).map(|v| !v.is_empty()))?)
    }

    /// Calls `visit` with each element, in the order of their encoding, until it breaks. One in memory.
    ///
    /// # Errors
    /// [`Error::Value`] when one is no `T`, or what storage reports.
    pub fn each(&self, visit: &mut dyn FnMut(T) -> ControlFlow<()>) -> Result<(), Error> {
        let mut failed = None;
        self.db.replica().read_store(&self.store, |view| {
            view.scan_cells(&self.store, &Path::default(), None, &mut |cell| {
                let [Segment::Bytes(element)] = &cell.path.segments()[..] else {
                    return ControlFlow::Continue(());
                };
                match Raw(element.clone()).get() {
                    Ok(element) => visit(element),
                    Err(e) => {
                        failed = Some(e);
                        ControlFlow::Break(())
                    }
                }
            })
        })?;
        failed.map_or(Ok(()), Err)
    }

    /// All elements, in the order of their encoding.
    ///
    /// # Errors
    /// As [`Self::each`].
    pub fn elements(&self) -> Result<Vec<T>, Error> {
        let mut all = Vec::new();
        self.each(&mut |element| {
            all.push(element);
            ControlFlow::Continue(())
        })?;
        Ok(all)
    }
}
