//! What the program's JSON reader fails with, as far as it needs it.

use std::fmt;

/// Why a text was refused.
#[derive(Debug)]
pub(crate) struct Failure(String);

impl Failure {
    pub(crate) fn failed(what: impl Into<String>) -> Self {
        Self(what.into())
    }

    pub(crate) fn hint(self, _hint: impl Into<String>) -> Self {
        self
    }

    #[cfg(test)]
    pub(crate) fn text(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self(error.to_string())
    }
}
