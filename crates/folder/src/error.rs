//! What can go wrong with a folder as a whole. Trouble with single paths is reported path by path.

use crate::scan::ScanError;
use crate::sorted::InputError;
use anabranch_core::path::PathError;
use anabranch_core::storage::StorageError;
use anabranch_node::NodeError;
use std::io;
use std::path::PathBuf;

/// Why a folder could not be worked on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FolderError {
    /// The node or the folder's database.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// It is not there, or is no directory.
    #[error("{path}: {source}")]
    Root {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is not a replica yet.
    #[error("{0} is not a replica yet; 'anabranch sync' or 'anabranch share' makes it one")]
    NotAdopted(PathBuf),
    /// It is a replica of something else.
    #[error(
        "{path} is a replica of another database ({found}, not {wanted}); to start anew, move its .anabranch directory away"
    )]
    OtherDatabase {
        /// The folder.
        path: PathBuf,
        /// Which it is of.
        found: String,
        /// Which it should be of.
        wanted: String,
    },
    /// The scan or plan came upon storage that makes no sense.
    #[error("{0}")]
    Input(String),
    /// A path that has no conflict.
    #[error("{0}")]
    Resolve(String),
}

impl From<StorageError> for FolderError {
    fn from(error: StorageError) -> Self {
        Self::Node(error.into())
    }
}

impl From<PathError> for FolderError {
    fn from(error: PathError) -> Self {
        Self::Node(anabranch_core::error::Error::from(error).into())
    }
}

impl<E: std::error::Error + Into<FolderError>> From<InputError<E>> for FolderError {
    fn from(error: InputError<E>) -> Self {
        match error {
            InputError::Failed(error) => error.into(),
            unsorted @ InputError::Unsorted(_) => Self::Input(unsorted.to_string()),
        }
    }
}

impl<E: std::error::Error + 'static> From<ScanError<E>> for FolderError {
    fn from(error: ScanError<E>) -> Self {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
        Self::Input(format!("{error}{}", cause.unwrap_or_default()))
    }
}
