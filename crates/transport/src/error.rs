//! How links, connections and listeners fail, in sentences that say what to do. What the system or a library said
//! is the source of an error and not repeated in its text.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use crate::LimitsError;

/// Why a link cannot carry frames any further. Cloneable, so that both halves of a link can give the same reason.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum LinkError {
    /// A frame above the limit: ours, refused before it was sent, or the peer's, refused before it was read.
    #[error("a frame of {size} bytes is above the limit of {limit} bytes")]
    TooBig {
        /// The frame's size in bytes.
        size: u64,
        /// The limit in bytes.
        limit: usize,
    },
    /// The link was closed; nothing more can be sent.
    #[error("the link is closed")]
    Closed,
    /// The link ended without the peer's close: the peer died, or something on the way cut it.
    #[error("the link was cut off before the peer closed it")]
    Truncated,
    /// Nothing was heard from the peer for too long.
    #[error("nothing was heard from the peer for {after:?}; it or the network is gone")]
    Idle {
        /// How long the link waited.
        after: Duration,
    },
    /// The peer broke the rules of the link.
    #[error("the peer does not follow the link's protocol: {0}")]
    Protocol(String),
    /// The peer, or something between, ended the link and said why.
    #[error("the link was ended by the other side: {reason}")]
    Aborted {
        /// What it said.
        reason: String,
    },
    /// What came out of a pipe was not Anabranch's, usually a message of the remote shell.
    #[error(
        "expected Anabranch at the other end of the pipe, but it printed: {seen:?} \
         (a shell's start-up files must print nothing when it is not interactive)"
    )]
    NotAnabranch {
        /// The beginning of what came, printable characters only.
        seen: String,
    },
    /// A record of an encrypted link is not the one the peer sent at this place.
    #[error(
        "record {record} of the encrypted link was changed, dropped, repeated or reordered on the way"
    )]
    Tampered {
        /// Its number, from 0, in its direction.
        record: u64,
    },
    /// An encrypted link has used up its nonces.
    #[error("the encrypted link has sent all the records its key allows; connect again")]
    NonceExhausted,
    /// The process at the other end of the link ended early.
    #[error(transparent)]
    Process(ProcessFailure),
    /// The operating system's error.
    #[error("the link failed")]
    Io(#[source] Arc<io::Error>),
}

impl From<io::Error> for LinkError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::UnexpectedEof => LinkError::Truncated,
            _ => LinkError::Io(Arc::new(error)),
        }
    }
}

/// A child process that ended, or failed, before its link was closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessFailure {
    /// The program that was run.
    pub program: String,
    /// How it ended, as the operating system says it; `None` while it is still running.
    pub status: Option<String>,
    /// Its exit code, if it exited by itself.
    pub code: Option<i32>,
    /// The end of what it wrote to standard error, printable characters only.
    pub stderr: String,
}

/// What a POSIX shell exits with when it cannot find the command.
const COMMAND_NOT_FOUND: i32 = 127;

impl fmt::Display for ProcessFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.status {
            Some(status) => write!(f, "{} ended early ({status})", self.program)?,
            None => write!(f, "{} closed its output early", self.program)?,
        }
        if !self.stderr.is_empty() {
            write!(f, ": {}", self.stderr)?;
        }
        if self.code == Some(COMMAND_NOT_FOUND) {
            f.write_str(
                " (is anabranch installed there, on the PATH of a non-interactive shell?)",
            )?;
        }
        Ok(())
    }
}

impl std::error::Error for ProcessFailure {}

/// Why no link to an address came about.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// No connection to the host: its name does not resolve, nobody listens, or the network is down.
    #[error("cannot reach {address}")]
    Unreachable {
        /// The address asked for.
        address: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// The host did not answer in time.
    #[error("{address} did not answer within {after:?}")]
    Timeout {
        /// The address asked for.
        address: String,
        /// The limit, `connect_timeout`.
        after: Duration,
    },
    /// The TLS handshake failed, most often because the certificate is not one this machine accepts.
    #[error("no TLS connection to {address}")]
    Tls {
        /// The address asked for.
        address: String,
        /// What TLS said.
        source: io::Error,
    },
    /// Something answered over HTTP, but not with a link.
    #[error("{address} answered with HTTP status {status}{}", explain(*.status, .message))]
    Refused {
        /// The address asked for.
        address: String,
        /// The HTTP status.
        status: u16,
        /// The beginning of the answer's text, printable characters only; may be empty.
        message: String,
    },
    /// Something answered that does not speak HTTP with WebSocket.
    #[error("{address} does not speak HTTP with WebSocket: {reason}")]
    NotHttp {
        /// The address asked for.
        address: String,
        /// What was wrong.
        reason: String,
    },
    /// The program that carries the link could not be started.
    #[error("cannot start `{program}`")]
    Spawn {
        /// The program.
        program: String,
        /// What the operating system said.
        source: io::Error,
    },
}

fn explain(status: u16, message: &str) -> String {
    match (status, message) {
        (404, _) => ": there is no Anabranch node there".to_owned(),
        (300..=399, _) => {
            ": redirects are not followed; use the address it redirects to".to_owned()
        }
        (_, "") => String::new(),
        (_, message) => format!(": {message}"),
    }
}

/// Why nothing listens.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ListenError {
    /// The address cannot be bound.
    #[error("cannot listen on {address}{}", bind_hint(.source))]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
    /// The limits cannot work.
    #[error(transparent)]
    Limits(#[from] LimitsError),
}

fn bind_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => ": another program has this port, choose another or 0 for any",
        io::ErrorKind::PermissionDenied => {
            ": ports below 1024 need privileges, choose a higher one"
        }
        io::ErrorKind::AddrNotAvailable => ": this machine has no such address",
        _ => "",
    }
}

/// Makes text from another machine safe to print: printable characters only, at most `limit` of them.
pub(crate) fn printable(bytes: &[u8], limit: usize) -> String {
    let text = String::from_utf8_lossy(bytes);
    let spaced = text.trim().chars().map(|c| if c.is_whitespace() { ' ' } else { c });
    spaced.filter(|c| !c.is_control()).take(limit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_elsewhere_cannot_drive_a_terminal() {
        assert_eq!(printable(b"  \x1b[31mred\x07\r\nnext\xff ", 100), "[31mred  next\u{fffd}");
        assert_eq!(printable(b"abcdef", 3), "abc");
    }

    #[test]
    fn a_vanished_peer_is_a_truncated_link() {
        let reset = LinkError::from(io::Error::from(io::ErrorKind::ConnectionReset));
        assert!(matches!(reset, LinkError::Truncated));
        let other = LinkError::from(io::Error::other("disk on fire"));
        assert!(matches!(other, LinkError::Io(cause) if cause.to_string() == "disk on fire"));
    }

    #[test]
    fn a_missing_remote_program_is_explained() {
        let failure = ProcessFailure {
            program: "ssh".to_owned(),
            status: Some("exit status: 127".to_owned()),
            code: Some(127),
            stderr: "sh: anabranch: not found".to_owned(),
        };
        let text = LinkError::Process(failure).to_string();
        assert!(
            text.starts_with("ssh ended early (exit status: 127): sh: anabranch: not found"),
            "{text}"
        );
        assert!(text.contains("is anabranch installed"), "{text}");
    }
}
