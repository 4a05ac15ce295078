//! The addresses people write, parsed.
//!
//! `http(s)://host[:port][/replica]`, `ws(s)://…` and `[user@]host:path`. What is written here is shown again in
//! messages, logs and tickets, so passwords are refused; and its parts reach shells and sockets, so each is checked.
//! Whether a text that also names an existing path means that path is not decided here.

mod http;
mod ssh;

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use thiserror::Error;

pub use http::{Host, HttpAddress, Scheme};
pub use ssh::SshAddress;

/// The longest address, in bytes.
const MAX_LENGTH: usize = 2048;

/// Where a node, or a replica on it, can be reached. Its text form parses to an equal address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Address {
    /// Over HTTP with a WebSocket.
    Http(HttpAddress),
    /// Through `ssh`, or what is configured in its place.
    Ssh(SshAddress),
}

impl Address {
    /// Parses an address of at most 2,048 bytes.
    pub fn parse(text: &str) -> Result<Address, AddressError> {
        if text.is_empty() {
            return Err(AddressError::Empty);
        }
        if text.len() > MAX_LENGTH {
            return Err(AddressError::TooLong(text.len()));
        }
        if text.chars().any(char::is_control) {
            return Err(AddressError::Control);
        }
        match scheme_of(text) {
            Some((scheme, rest)) => with_scheme(&scheme, rest),
            None => SshAddress::parse(text).map(Address::Ssh),
        }
    }

    /// The address of a listener in this network, for a ticket or another node's command line.
    pub fn of_listener(address: SocketAddr) -> Address {
        Address::Http(HttpAddress::of_listener(address))
    }

    /// Whether only this machine can reach what it names: loopback, `localhost`, or the unspecified address.
    pub fn is_loopback(&self) -> bool {
        match self {
            Address::Http(address) => address.host().is_loopback(),
            Address::Ssh(address) => address.is_loopback(),
        }
    }
}

/// Splits off a scheme, in lower case, where there is one: before `://`, or one of those that need no `//`.
fn scheme_of(text: &str) -> Option<(String, &str)> {
    let (head, rest) = text.split_once(':')?;
    let is_scheme = head.starts_with(|c: char| c.is_ascii_alphabetic())
        && head.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    let scheme = head.to_ascii_lowercase();
    let is_known = scheme == "iroh"
        || Scheme::named(&scheme).is_some()
        || matches!(scheme.as_str(), "nats" | "ssh");
    (is_scheme && (is_known || rest.starts_with("//"))).then_some((scheme, rest))
}

fn with_scheme(scheme: &str, rest: &str) -> Result<Address, AddressError> {
    match (scheme, rest.strip_prefix("//")) {
        ("iroh", _) => Err(AddressError::NoTransport("iroh:")),
        ("nats", Some(_)) => Err(AddressError::NoTransport("nats://")),
        ("ssh", Some(_)) => Err(AddressError::SshScheme),
        (scheme, Some(rest)) => match Scheme::named(scheme) {
            Some(scheme) => HttpAddress::parse(scheme, rest).map(Address::Http),
            None => Err(AddressError::UnknownScheme(scheme.to_owned())),
        },
        (scheme, None) => Err(AddressError::NoSlashes(scheme.to_owned())),
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Address::parse(text)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Http(address) => address.fmt(f),
            Address::Ssh(address) => address.fmt(f),
        }
    }
}

/// Why a text is not an address. Never repeats what may be a secret.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AddressError {
    /// Nothing was given.
    #[error("an address is empty; write http://host:port or host:path")]
    Empty,
    /// Above the limit.
    #[error("an address of {0} bytes is above the limit of {MAX_LENGTH}")]
    TooLong(usize),
    /// Control characters.
    #[error("an address cannot contain control characters such as line breaks")]
    Control,
    /// A name or a path, without a host.
    #[error("`{0}` names no machine; write http://host:port, or host:path to go through ssh")]
    NoHost(String),
    /// A scheme that is not one of ours.
    #[error(
        "`{0}://` is not a kind of address; there are http, https, ws, wss, and host:path for ssh"
    )]
    UnknownScheme(String),
    /// A scheme of ours without `//`.
    #[error(
        "`{0}:` needs two slashes, as in {0}://host; for a machine of that name write ./{0}:… or user@{0}:path"
    )]
    NoSlashes(String),
    /// ssh, written as a URL.
    #[error(
        "write ssh addresses as host:path; a port belongs into ~/.ssh/config or the ssh command (ssh -p PORT)"
    )]
    SshScheme,
    /// A scheme for which this build has no transport.
    #[error("this build has no transport for {0}")]
    NoTransport(&'static str),
    /// A user name or password in a URL.
    #[error(
        "an address cannot contain a user name or password: it is shown in messages and stored in tickets; nodes prove \
         who they are by their keys, so none is needed"
    )]
    Credentials,
    /// A part of an http address that has no meaning here.
    #[error("an http address ends after the replica's name; remove what follows from `{0}`")]
    Extra(char),
    /// The host of an address.
    #[error(
        "`{0}` is not a host; use a name in ASCII (xn-- for others), an IPv4 address, or an IPv6 one in brackets"
    )]
    Host(String),
    /// The user of an ssh address.
    #[error(
        "`{0}` cannot be a user's name here; use letters, digits and . _ + - and no - in front"
    )]
    User(String),
    /// The port of an http address.
    #[error("`{0}` is not a port; ports are 1 to 65535")]
    Port(String),
    /// The replica's name in an http address.
    #[error(
        "`{0}` is not a replica's name; it is one part of a path, at most 255 bytes, with % only before two digits"
    )]
    Replica(String),
    /// An ssh address without a path.
    #[error("`{0}` names no path; write host:path, for example host:~/notes")]
    NoPath(String),
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn error(text: &str) -> AddressError {
        Address::parse(text).unwrap_err()
    }

    #[test]
    fn reserved_and_unknown_schemes_are_told_apart() {
        assert_eq!(error("iroh:abcdef"), AddressError::NoTransport("iroh:"));
        assert_eq!(error("iroh://abcdef"), AddressError::NoTransport("iroh:"));
        assert_eq!(error("nats://host/subject"), AddressError::NoTransport("nats://"));
        assert_eq!(error("NATS://host"), AddressError::NoTransport("nats://"));
        assert_eq!(error("iroh:x").to_string(), "this build has no transport for iroh:");
        assert_eq!(error("ftp://host/x"), AddressError::UnknownScheme("ftp".to_owned()));
        assert_eq!(error("ssh://host/x"), AddressError::SshScheme);
        assert_eq!(error("http:host"), AddressError::NoSlashes("http".to_owned()));
        assert_eq!(error("nats:x"), AddressError::NoSlashes("nats".to_owned()));
    }

    #[test]
    fn bounds_hold_before_anything_else() {
        assert_eq!(error(""), AddressError::Empty);
        assert_eq!(error(&format!("host:{}", "x".repeat(2044))), AddressError::TooLong(2049));
        assert!(Address::parse(&format!("host:{}", "x".repeat(2043))).is_ok());
        assert_eq!(error("host:a\nb"), AddressError::Control);
        assert_eq!(error("http://host/a\0"), AddressError::Control);
    }

    #[test]
    fn loopback_is_recognised_in_every_form() {
        for text in [
            "http://127.0.0.1:1",
            "ws://localhost",
            "https://[::1]/x",
            "http://0.0.0.0:1",
            "localhost:x",
            "[::1]:x",
        ] {
            assert!(Address::parse(text).unwrap().is_loopback(), "{text}");
        }
        for text in [
            "http://10.0.0.1:1",
            "wss://example.org",
            "http://[fe80::1]",
            "me@host:x",
            "http://localhost.org",
        ] {
            assert!(!Address::parse(text).unwrap().is_loopback(), "{text}");
        }
    }

    fn host() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-zA-Z_]([a-zA-Z0-9_-]{0,10}[a-z])?(\\.[a-z]{1,5}){0,2}",
            any::<std::net::Ipv4Addr>().prop_map(|ip| ip.to_string()),
            any::<std::net::Ipv6Addr>().prop_map(|ip| format!("[{ip}]")),
        ]
    }

    prop_compose! {
        fn http_text()(
            scheme in "http|https|ws|wss|HTTP",
            host in host(),
            port in prop::option::of(1_u16..),
            replica in prop::option::of("[a-zA-Z0-9_ü ~+%]{0,20}"),
        ) -> String {
            let port = port.map(|port| format!(":{port}")).unwrap_or_default();
            let replica = replica.map(|name| format!("/{}", name.replace('%', "%2f%20"))).unwrap_or_default();
            format!("{scheme}://{host}{port}{replica}")
        }
    }

    proptest! {
        #[test]
        fn text_forms_parse_to_equal_addresses(text in prop_oneof![
            http_text(),
            "([a-z][a-z0-9.]{0,5}@)?[a-z0-9][a-z0-9.-]{0,10}:[^\\x00-\\x1f\\x7f-\\x9f]{1,40}",
            "[a-z@:/\\[\\]. %~-]{0,30}",
            ".{0,60}",
        ]) {
            if let Ok(address) = Address::parse(&text) {
                let shown = address.to_string();
                let again = Address::parse(&shown);
                prop_assert_eq!(again.as_ref(), Ok(&address), "{}", shown);
                prop_assert_eq!(again.unwrap().to_string(), shown);
            }
        }

        #[test]
        fn http_addresses_are_understood(text in http_text()) {
            // `%2f` is a slash in a replica's name, which is refused; everything else must be accepted.
            prop_assert_eq!(Address::parse(&text).is_ok(), !text.contains("%2f"), "{}", text);
        }
    }
}
