//! Addresses of nodes that listen over HTTP.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::AddressError;

/// The longest host name, by the rules of the DNS.
const MAX_HOST: usize = 253;
/// The longest name of a replica, in bytes.
const MAX_REPLICA: usize = 255;

/// The scheme of an http address. `ws` and `wss` are other spellings of `http` and `https`, kept as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Plain, as a web address.
    Http,
    /// Over TLS, as a web address.
    Https,
    /// Plain, as a WebSocket address.
    Ws,
    /// Over TLS, as a WebSocket address.
    Wss,
}

impl Scheme {
    pub(super) fn named(name: &str) -> Option<Scheme> {
        match name {
            "http" => Some(Scheme::Http),
            "https" => Some(Scheme::Https),
            "ws" => Some(Scheme::Ws),
            "wss" => Some(Scheme::Wss),
            _ => None,
        }
    }

    /// Whether the connection is made over TLS.
    pub fn is_tls(self) -> bool {
        matches!(self, Scheme::Https | Scheme::Wss)
    }

    fn default_port(self) -> u16 {
        if self.is_tls() { 443 } else { 80 }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
            Scheme::Ws => "ws",
            Scheme::Wss => "wss",
        })
    }
}

/// A machine's name or IP address. Shown without brackets.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// A name, in lower case.
    Name(String),
    /// An IP address.
    Ip(IpAddr),
}

impl Host {
    fn parse(text: &str) -> Result<Host, AddressError> {
        let wrong = || AddressError::Host(text.to_owned());
        if let Some(inner) = text.strip_prefix('[') {
            let ip = inner.strip_suffix(']').and_then(|ip| ip.parse::<Ipv6Addr>().ok());
            return ip.map(|ip| Host::Ip(ip.into())).ok_or_else(wrong);
        }
        if let Ok(ip) = text.parse::<Ipv4Addr>() {
            return Ok(Host::Ip(ip.into()));
        }
        let is_name = is_host_name(text) && !text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        is_name.then(|| Host::Name(text.to_ascii_lowercase())).ok_or_else(wrong)
    }

    /// Whether it means this machine and no other.
    pub fn is_loopback(&self) -> bool {
        match self {
            Host::Name(name) => is_local_name(name),
            Host::Ip(ip) => ip.to_canonical().is_loopback() || ip.to_canonical().is_unspecified(),
        }
    }
}

/// Letters, digits, `.`, `_` and `-`; no empty label and no `-` in front, where a program could take it for an option.
pub(super) fn is_host_name(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    text.len() <= MAX_HOST
        && text.bytes().all(plain)
        && !text.starts_with('-')
        && text.strip_suffix('.').unwrap_or(text).split('.').all(|label| !label.is_empty())
}

pub(super) fn is_local_name(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Name(name) => name.fmt(f),
            Host::Ip(ip) => ip.fmt(f),
        }
    }
}

/// `http://host[:port][/replica]` and its kin. The usual port of the scheme is left out when shown.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HttpAddress {
    scheme: Scheme,
    host: Host,
    port: u16,
    replica: Option<String>,
}

impl HttpAddress {
    pub(super) fn parse(scheme: Scheme, rest: &str) -> Result<HttpAddress, AddressError> {
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        if authority.contains('@') {
            return Err(AddressError::Credentials);
        }
        let (host, port) = split_port(authority)?;
        let port = match port {
            Some(port) => parse_port(port)?,
            None => scheme.default_port(),
        };
        Ok(HttpAddress { scheme, host: Host::parse(host)?, port, replica: parse_path(path)? })
    }

    pub(super) fn of_listener(address: SocketAddr) -> HttpAddress {
        HttpAddress {
            scheme: Scheme::Http,
            host: Host::Ip(address.ip()),
            port: address.port(),
            replica: None,
        }
    }

    /// The scheme, as it was written.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The machine.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The port, the scheme's usual one if none was written.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The replica on that node, by name or id, if the address names one.
    pub fn replica(&self) -> Option<&str> {
        self.replica.as_deref()
    }

    /// The same node's address for another replica.
    pub fn with_replica(mut self, name: &str) -> Result<HttpAddress, AddressError> {
        self.replica = Some(checked_replica(name)?);
        Ok(self)
    }

    /// Host and port as they stand in a URL or a `Host` header.
    pub(crate) fn authority(&self) -> String {
        let host = match &self.host {
            Host::Ip(IpAddr::V6(ip)) => format!("[{ip}]"),
            host => host.to_string(),
        };
        if self.port == self.scheme.default_port() { host } else { format!("{host}:{}", self.port) }
    }
}

impl fmt::Display for HttpAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.authority())?;
        let Some(replica) = &self.replica else {
            return Ok(());
        };
        f.write_str("/")?;
        for byte in replica.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                    write!(f, "{}", byte as char)?
                }
                _ => write!(f, "%{byte:02X}")?,
            }
        }
        Ok(())
    }
}

/// Splits `host[:port]`; the colons of an IPv6 address stand in brackets.
fn split_port(authority: &str) -> Result<(&str, Option<&str>), AddressError> {
    let after_host = authority.rfind(']').map_or(0, |bracket| bracket + 1);
    match authority[after_host..].split_once(':') {
        None => Ok((authority, None)),
        Some((_, port)) if port.contains(':') => Err(AddressError::Host(authority.to_owned())),
        Some((_, port)) => Ok((&authority[..authority.len() - port.len() - 1], Some(port))),
    }
}

fn parse_port(text: &str) -> Result<u16, AddressError> {
    let wrong = || AddressError::Port(text.to_owned());
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    text.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)
}

fn parse_path(path: &str) -> Result<Option<String>, AddressError> {
    if let Some(extra) = path.chars().find(|c| matches!(c, '?' | '#')) {
        return Err(AddressError::Extra(extra));
    }
    let name = path.strip_prefix('/').unwrap_or(path);
    let name = name.strip_suffix('/').unwrap_or(name);
    if name.is_empty() {
        return if path.len() <= 1 { Ok(None) } else { Err(AddressError::Extra('/')) };
    }
    if name.contains('/') {
        return Err(AddressError::Extra('/'));
    }
    let decoded = percent_decode(name).ok_or_else(|| AddressError::Replica(name.to_owned()))?;
    checked_replica(&decoded).map(Some)
}

fn checked_replica(name: &str) -> Result<String, AddressError> {
    let fits = !name.is_empty() && name.len() <= MAX_REPLICA && name != "." && name != "..";
    let plain = |c: char| c != '/' && !c.is_control();
    if fits && name.chars().all(plain) {
        Ok(name.to_owned())
    } else {
        Err(AddressError::Replica(name.escape_default().take(MAX_REPLICA).collect()))
    }
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            bytes.push(hex(rest.next()?)? << 4 | hex(rest.next()?)?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

fn hex(digit: u8) -> Option<u8> {
    let value = char::from(digit).to_digit(16)?;
    u8::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::super::{Address, AddressError};
    use super::*;

    fn http(text: &str) -> HttpAddress {
        match Address::parse(text) {
            Ok(Address::Http(address)) => address,
            other => panic!("{text}: {other:?}"),
        }
    }

    fn error(text: &str) -> AddressError {
        Address::parse(text).unwrap_err()
    }

    #[test]
    fn parts_are_taken_apart() {
        let address = http("http://127.0.0.1:7700/db_abc");
        assert_eq!(address.host(), &Host::Ip(Ipv4Addr::LOCALHOST.into()));
        assert_eq!(address.port(), 7700);
        assert_eq!(address.replica(), Some("db_abc"));
        assert_eq!(http("https://Example.ORG").port(), 443);
        assert_eq!(http("ws://example.org/").replica(), None);
        assert_eq!(http("ws://example.org/name/").replica(), Some("name"));
        assert_eq!(http("http://h/my%20notes%C3%BC").replica(), Some("my notesü"));
        assert_eq!(http("http://[::1]:80").to_string(), "http://[::1]");
    }

    #[test]
    fn one_spelling_is_shown() {
        for (written, shown) in [
            ("HTTP://EXAMPLE.org:80/", "http://example.org"),
            ("wss://example.org:443/x", "wss://example.org/x"),
            ("wss://example.org:80/x", "wss://example.org:80/x"),
            ("http://[0:0::1]:7/a b", "http://[::1]:7/a%20b"),
            ("http://h:0080", "http://h"),
        ] {
            assert_eq!(http(written).to_string(), shown);
        }
    }

    #[test]
    fn secrets_are_refused_and_not_repeated() {
        for text in
            ["http://user:hunter2@host/x", "wss://hunter2@host", "http://a@b@c", "http://@host"]
        {
            let error = error(text);
            assert_eq!(error, AddressError::Credentials);
            assert!(!error.to_string().contains("hunter2"));
        }
    }

    #[test]
    fn malformed_parts_are_named() {
        for text in [
            "",
            "-h",
            "h..x",
            "a b",
            "[::1",
            "::1",
            "[::1]x",
            "[1.2.3.4]",
            "1.2.3",
            "256.1.1.1",
            "bücher.de",
            "[fe80::1%25eth0]",
            "a:b:1",
        ] {
            let error = error(&format!("http://{text}"));
            assert!(matches!(error, AddressError::Host(_)), "{text}: {error:?}");
        }
        for text in ["0", "65536", "+1", "x", "", "99999999999999999999"] {
            assert_eq!(error(&format!("http://h:{text}")), AddressError::Port(text.to_owned()));
        }
        for text in ["%", "%1", "%zz", "%ff", "%2F", "%00", ".", "..", "%2e%2E", &"x".repeat(256)] {
            assert!(
                matches!(error(&format!("http://h/{text}")), AddressError::Replica(_)),
                "{text}"
            );
        }
        for text in ["/a/b", "/a//", "//", "/a?b", "?x", "#y", "/a#b"] {
            assert!(matches!(error(&format!("http://h{text}")), AddressError::Extra(_)), "{text}");
        }
    }

    #[test]
    fn a_listener_has_an_address() {
        let shown = |text: &str| Address::of_listener(text.parse().unwrap()).to_string();
        assert_eq!(shown("127.0.0.1:7700"), "http://127.0.0.1:7700");
        assert_eq!(shown("[::1]:7700"), "http://[::1]:7700");
        let named =
            HttpAddress::of_listener("10.0.0.1:80".parse().unwrap()).with_replica("my db").unwrap();
        assert_eq!(named.to_string(), "http://10.0.0.1/my%20db");
        assert!(named.with_replica("a/b").is_err());
    }
}
