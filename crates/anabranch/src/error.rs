use anabranch_node::NodeError;

/// What an application's call can fail with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The node, its storage, or a session.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// A value that cannot be stored, or not be read as the type asked for.
    #[error("{what}: {why}")]
    Value {
        /// Where.
        what: String,
        /// What does not fit.
        why: String,
    },
    /// Nothing to resolve, or no such value.
    #[error("{0}")]
    Resolve(String),
}

impl From<anabranch_core::error::Error> for Error {
    fn from(error: anabranch_core::error::Error) -> Self {
        Self::Node(error.into())
    }
}

impl From<anabranch_core::storage::StorageError> for Error {
    fn from(error: anabranch_core::storage::StorageError) -> Self {
        Self::Node(error.into())
    }
}

impl From<anabranch_core::path::PathError> for Error {
    fn from(error: anabranch_core::path::PathError) -> Self {
        anabranch_core::error::Error::from(error).into()
    }
}
