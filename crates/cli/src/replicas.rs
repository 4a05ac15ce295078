//! Opening what is remembered of a replica, be it a database or a folder.

use crate::failure::Failure;
use crate::place::{Place, no_database, resolve};
use anabranch::Node;
use anabranch::engine::node::{Record, Replica};
use anabranch_folder::Folder;
use std::path::Path;
use std::sync::Arc;

/// An open replica.
#[derive(Debug, Clone)]
pub(crate) enum Opened {
    /// A database.
    Database(Arc<Replica>),
    /// A folder.
    Folder(Arc<Folder>),
}

impl Opened {
    /// Opens it.
    pub(crate) fn new(node: &Node, record: &Record) -> Result<Self, Failure> {
        Ok(if record.folder {
            Self::Folder(Folder::open(node.inner(), &record.path)?)
        } else {
            Self::Database(node.inner().open_record(record)?)
        })
    }

    /// Its replica.
    pub(crate) fn replica(&self) -> &Arc<Replica> {
        match self {
            Self::Database(replica) => replica,
            Self::Folder(folder) => folder.replica(),
        }
    }
}

/// What is remembered of the folder at `path`, which is a replica.
pub(crate) fn folder_record(node: &Node, path: &Path) -> Result<Record, Failure> {
    let folder = Folder::open(node.inner(), path)?;
    let records = node.inner().records()?;
    records
        .into_iter()
        .find(|r| r.folder && r.path == folder.root())
        .ok_or_else(|| Failure::failed(format!("{} is not remembered here", path.display())))
}

/// What is remembered of the replica of this device that `text` names.
pub(crate) fn named(node: &Node, text: &str) -> Result<Record, Failure> {
    match resolve(node, text)? {
        Place::Database(record) => Ok(record),
        Place::Folder(path) => folder_record(node, &path),
        Place::New(name) => Err(no_database(&name)),
        Place::Ticket(_) | Place::Remote(_) => {
            Err(Failure::usage(format!("'{text}' is no replica of this device"))
                .hint("'anabranch status' lists those there are"))
        }
    }
}
