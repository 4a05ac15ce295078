//! Where to listen, as a user writes it. Loopback unless an address says otherwise (I9).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use thiserror::Error;

/// An address to listen on.
///
/// Written as `PORT` or `localhost:PORT` (the loopback address), `IP:PORT` or `[IPV6]:PORT`. Port 0 takes any free
/// one. Host names are refused: what they resolve to may change, and with it who can connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ListenAddr(SocketAddr);

impl ListenAddr {
    /// The address to bind.
    pub fn socket_addr(self) -> SocketAddr {
        self.0
    }

    /// Whether only this machine can connect to it.
    pub fn is_loopback(self) -> bool {
        self.0.ip().to_canonical().is_loopback()
    }
}

impl FromStr for ListenAddr {
    type Err = ListenAddrError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(ListenAddr(address));
        }
        if text.parse::<IpAddr>().is_ok() {
            return Err(ListenAddrError::NoPort(text.to_owned()));
        }
        let port = text.strip_prefix("localhost:").unwrap_or(text);
        if port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()) {
            return Err(ListenAddrError::Malformed(text.to_owned()));
        }
        let port = port.parse().map_err(|_| ListenAddrError::Port(port.to_owned()))?;
        Ok(ListenAddr((Ipv4Addr::LOCALHOST, port).into()))
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why one cannot listen there.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ListenAddrError {
    /// An IP address without a port.
    #[error("`{0}` has no port; write for example 127.0.0.1:7700 or [::1]:7700")]
    NoPort(String),
    /// The port is out of range.
    #[error("`{0}` is not a port; ports are 0 to 65535")]
    Port(String),
    /// None of the forms.
    #[error(
        "cannot listen on `{0}`; write a port (7700, this machine only) or an IP address of this machine with a port \
         (0.0.0.0:7700, every network)"
    )]
    Malformed(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_port_is_loopback() {
        for text in ["7700", "localhost:7700", "127.0.0.1:7700"] {
            let address: ListenAddr = text.parse().unwrap();
            assert_eq!(address.to_string(), "127.0.0.1:7700");
            assert!(address.is_loopback());
        }
        assert_eq!("0".parse::<ListenAddr>().unwrap().socket_addr().port(), 0);
    }

    #[test]
    fn other_networks_must_be_named() {
        for text in ["0.0.0.0:7700", "[::]:7700", "192.168.1.2:7700"] {
            assert!(!text.parse::<ListenAddr>().unwrap().is_loopback(), "{text}");
        }
        for text in ["[::1]:1", "[::ffff:127.0.0.1]:1", "127.1.2.3:1"] {
            assert!(text.parse::<ListenAddr>().unwrap().is_loopback(), "{text}");
        }
    }

    #[test]
    fn mistakes_are_explained() {
        let error = |text: &str| text.parse::<ListenAddr>().unwrap_err();
        assert_eq!(error("127.0.0.1"), ListenAddrError::NoPort("127.0.0.1".to_owned()));
        assert_eq!(error("::1"), ListenAddrError::NoPort("::1".to_owned()));
        assert_eq!(error("65536"), ListenAddrError::Port("65536".to_owned()));
        for text in [
            "",
            ":7700",
            "+7700",
            "host:7700",
            "localhost:",
            "1.2.3:7",
            "7700 ",
            "http://127.0.0.1:1",
        ] {
            assert_eq!(error(text), ListenAddrError::Malformed(text.to_owned()));
        }
    }
}
