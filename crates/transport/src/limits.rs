//! Every adjustable limit of the transports, in one place (I10).

use std::time::Duration;

use thiserror::Error;

/// The limits of links, connections and listeners.
///
/// The size of a frame is not among them: both ends must agree on it, see [`crate::MAX_FRAME`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// How long an outgoing connection may take: name look-up, TCP, TLS and the HTTP upgrade together. 10 s.
    pub connect_timeout: Duration,
    /// How long the handshake of [`crate::secure`] may take. 10 s.
    pub handshake_timeout: Duration,
    /// How long a client of the HTTP listener may take to send a request's header, and a connection may stay
    /// without a request. 10 s.
    pub http_header_timeout: Duration,
    /// How many connections the HTTP listener serves at once, links included; further ones get a 503. 1,024.
    pub http_max_connections: usize,
    /// How many accepted links may wait in [`crate::HttpListener::accept`]'s queue; further ones get a 503. 64.
    pub http_accept_queue: usize,
    /// How long a WebSocket link waits for any byte of its peer before it gives the peer up. 60 s.
    pub idle_timeout: Duration,
    /// How often a WebSocket link sends a ping, so that a living peer is never idle. 20 s.
    pub ping_interval: Duration,
    /// How long a closed link waits for the peer's close, and a closed child process for its exit. 5 s.
    pub close_timeout: Duration,
    /// How many frames a WebSocket link holds in each direction between its user and the socket. 2.
    pub link_queue: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connect_timeout: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(10),
            http_header_timeout: Duration::from_secs(10),
            http_max_connections: 1024,
            http_accept_queue: 64,
            idle_timeout: Duration::from_secs(60),
            ping_interval: Duration::from_secs(20),
            close_timeout: Duration::from_secs(5),
            link_queue: 2,
        }
    }
}

/// Longer than anything sensible, short enough that adding it to a clock cannot overflow.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 60 * 60);
const SHORTEST: Duration = Duration::from_millis(1);
const MOST: usize = 1 << 20;

impl Limits {
    /// Refuses values that cannot work: zero, out of range, or a ping that comes too late to help.
    pub fn validate(&self) -> Result<(), LimitsError> {
        let durations = [
            ("connect_timeout", self.connect_timeout),
            ("handshake_timeout", self.handshake_timeout),
            ("http_header_timeout", self.http_header_timeout),
            ("idle_timeout", self.idle_timeout),
            ("ping_interval", self.ping_interval),
            ("close_timeout", self.close_timeout),
        ];
        for (name, value) in durations {
            if !(SHORTEST..=LONGEST).contains(&value) {
                return Err(LimitsError::Duration { name, value });
            }
        }
        let counts = [
            ("http_max_connections", self.http_max_connections),
            ("http_accept_queue", self.http_accept_queue),
            ("link_queue", self.link_queue),
        ];
        for (name, value) in counts {
            if !(1..=MOST).contains(&value) {
                return Err(LimitsError::Count { name, value });
            }
        }
        if self.ping_interval >= self.idle_timeout {
            return Err(LimitsError::PingTooRare {
                ping: self.ping_interval,
                idle: self.idle_timeout,
            });
        }
        Ok(())
    }
}

/// Why a set of limits cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LimitsError {
    /// A duration is out of range.
    #[error("{name} is {value:?}: give something between {SHORTEST:?} and 7 days")]
    Duration {
        /// The field.
        name: &'static str,
        /// Its value.
        value: Duration,
    },
    /// A count is out of range.
    #[error("{name} is {value}: give something between 1 and {MOST}")]
    Count {
        /// The field.
        name: &'static str,
        /// Its value.
        value: usize,
    },
    /// Pings at this interval would not keep a quiet link from being given up.
    #[error("ping_interval ({ping:?}) must be shorter than idle_timeout ({idle:?})")]
    PingTooRare {
        /// The interval of pings.
        ping: Duration,
        /// The idle timeout.
        idle: Duration,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid() {
        Limits::default().validate().unwrap();
    }

    #[test]
    fn values_that_cannot_work_are_named() {
        let zero = Limits { link_queue: 0, ..Limits::default() };
        assert_eq!(zero.validate(), Err(LimitsError::Count { name: "link_queue", value: 0 }));
        let huge = Limits { http_max_connections: usize::MAX, ..Limits::default() };
        assert!(matches!(
            huge.validate(),
            Err(LimitsError::Count { name: "http_max_connections", .. })
        ));
        let endless = Limits { idle_timeout: Duration::MAX, ..Limits::default() };
        assert!(matches!(
            endless.validate(),
            Err(LimitsError::Duration { name: "idle_timeout", .. })
        ));
        let late = Limits { ping_interval: Duration::from_secs(60), ..Limits::default() };
        assert!(matches!(late.validate(), Err(LimitsError::PingTooRare { .. })));
    }
}
