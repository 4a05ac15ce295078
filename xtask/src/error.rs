//! Why a task failed, in words that say what to do next.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;

pub(crate) type Result<T> = std::result::Result<T, Error>;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The arguments make no sense; the text says which ones would.
    #[error("{0}")]
    Usage(String),

    #[error("cannot start `{command}`: {source}")]
    Start { command: String, source: io::Error },

    #[error("`{command}` failed: {status}")]
    Failed { command: String, status: ExitStatus },

    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },

    #[error(
        "the tests need {programs}, and there is no apt-get here to install them with; install them by hand"
    )]
    MissingPrograms { programs: String },

    #[error("these tests are ignored, and a skipped test is a failure: {0}")]
    IgnoredTests(String),

    /// A check found something; each finding names its place.
    #[error("{check}: {} found\n  {}", findings.len(), findings.join("\n  "))]
    Findings { check: &'static str, findings: Vec<String> },

    #[error("README.md: {0}")]
    Readme(#[from] crate::accept::readme::ReadmeError),

    #[error("an acceptance condition does not hold: {0}")]
    NotAccepted(String),
}
