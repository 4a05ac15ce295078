//! What a command fails with: what happened, why, and what to do; and the exit code that says the same to a script.

use crate::output::plain;
use std::fmt::Write as _;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing was done.
    Failed,
    /// The command line does not make sense.
    Usage,
    /// Some of what was asked for was done.
    Partly,
    /// Nobody reads our output any more, so there is nobody to tell.
    Unheard,
}

/// Why a command did not do all it was asked.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    what: String,
    causes: Vec<String>,
    hint: Option<String>,
}

impl Failure {
    fn new(kind: Kind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into(), causes: Vec::new(), hint: None }
    }

    /// Nothing was done.
    pub(crate) fn failed(what: impl Into<String>) -> Self {
        Self::new(Kind::Failed, what)
    }

    /// The command line does not make sense.
    pub(crate) fn usage(what: impl Into<String>) -> Self {
        Self::new(Kind::Usage, what)
    }

    /// Some of it was done.
    pub(crate) fn partly(what: impl Into<String>) -> Self {
        Self::new(Kind::Partly, what)
    }

    /// Nobody reads our output.
    pub(crate) fn unheard() -> Self {
        Self::new(Kind::Unheard, "")
    }

    /// With what to do about it.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// With what `error` says as the reason.
    #[must_use]
    pub(crate) fn because(mut self, error: &dyn std::error::Error) -> Self {
        self.causes.push(error.to_string());
        self.causes.extend(causes(error));
        self
    }

    /// With a reason in words.
    #[must_use]
    pub(crate) fn reason(mut self, reason: impl Into<String>) -> Self {
        self.causes.push(reason.into());
        self
    }

    /// With another failure as the reason.
    #[must_use]
    pub(crate) fn caused_by(mut self, cause: Self) -> Self {
        self.causes.push(cause.what);
        self.causes.extend(cause.causes);
        self.hint = self.hint.or(cause.hint);
        self
    }

    /// As another kind.
    #[must_use]
    pub(crate) fn of_kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    /// What the process ends with.
    pub(crate) fn exit_code(&self) -> u8 {
        match self.kind {
            Kind::Unheard => 0,
            Kind::Failed => 1,
            Kind::Usage => 2,
            Kind::Partly => 3,
        }
    }

    /// What happened and why, in one line.
    pub(crate) fn line(&self) -> String {
        let mut line = self.what.clone();
        for cause in &self.causes {
            // Writing to a string cannot fail.
            let _ = write!(line, ": {cause}");
        }
        line
    }

    /// For people, in a few lines.
    pub(crate) fn text(&self) -> String {
        let mut text = plain(&self.what);
        for cause in &self.causes {
            let _ = write!(text, "\n  because: {}", plain(cause));
        }
        if let Some(hint) = &self.hint {
            let _ = write!(text, "\n  {}", plain(hint));
        }
        text
    }

    /// For programs.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "error": self.what,
            "causes": self.causes,
            "hint": self.hint,
            "exit": self.exit_code(),
        })
    }
}

/// What caused `error`, without what it says itself already.
fn causes(error: &dyn std::error::Error) -> Vec<String> {
    let mut said = error.to_string();
    let mut causes = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if !said.contains(&text) {
            causes.push(text.clone());
            said = text;
        }
        next = cause.source();
    }
    causes
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { causes: causes(&error), ..Self::failed(error.to_string()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anabranch::engine::transport::ConnectError;

    #[test]
    fn an_error_keeps_its_causes() {
        let source = std::io::Error::other("the network is down");
        let failure = Failure::from(ConnectError::Unreachable { address: "h:1".into(), source });
        assert_eq!(failure.text(), "cannot reach h:1\n  because: the network is down");
        assert_eq!(failure.line(), "cannot reach h:1: the network is down");
        assert_eq!(failure.exit_code(), 1);
    }

    #[test]
    fn what_comes_from_elsewhere_cannot_drive_the_terminal() {
        assert!(!Failure::failed("a\u{1b}[2Jb").text().contains('\u{1b}'));
    }
}
