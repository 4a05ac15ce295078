//! Addresses reached through ssh: `[user@]host:path`, as scp and rsync write them.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use super::AddressError;
use super::http::{is_host_name, is_local_name};

/// `[user@]host:path`. The host is passed to ssh as it is, so it may be an alias of the user's ssh configuration.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SshAddress {
    user: Option<String>,
    /// An IPv6 address has no brackets here.
    host: String,
    path: String,
}

impl SshAddress {
    pub(super) fn parse(text: &str) -> Result<SshAddress, AddressError> {
        let no_host = || AddressError::NoHost(text.to_owned());
        let (login, path) = split_path(text).ok_or_else(no_host)?;
        // `user:password@host:path` would otherwise be a path on a host called `user`.
        if path
            .split('/')
            .next()
            .is_some_and(|first| first.split_once('@').is_some_and(|(_, host)| host.contains(':')))
        {
            return Err(AddressError::Credentials);
        }
        let (user, host) = match login.split_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, login),
        };
        if let Some(user) = user.filter(|user| !is_user(user)) {
            return Err(AddressError::User(user.to_owned()));
        }
        let host = checked_host(host).ok_or_else(|| AddressError::Host(host.to_owned()))?;
        if path.is_empty() {
            return Err(AddressError::NoPath(text.to_owned()));
        }
        Ok(SshAddress { user: user.map(str::to_owned), host, path: path.to_owned() })
    }

    /// The user to log in as, if the address says.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The machine: a name, an alias, or an IP address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The path or name there; a relative one starts at the user's home.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// `[user@]host`, the argument that ssh expects. Never begins with `-`.
    pub fn login(&self) -> String {
        match &self.user {
            Some(user) => format!("{user}@{}", self.host),
            None => self.host.clone(),
        }
    }

    pub(super) fn is_loopback(&self) -> bool {
        is_local_name(&self.host)
            || self.host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
    }
}

impl fmt::Display for SshAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.path)
        } else {
            write!(f, "{}:{}", self.host, self.path)
        }
    }
}

/// Splits at the colon that ends the host. A slash before it means that the text is a path.
fn split_path(text: &str) -> Option<(&str, &str)> {
    let bracketed =
        text.starts_with('[') || text.split('/').next().is_some_and(|first| first.contains("@["));
    let colon = if bracketed { text.find("]:")? + 1 } else { text.find(':')? };
    let (login, path) = (&text[..colon], &text[colon + 1..]);
    (!login.is_empty() && !login.contains('/')).then_some((login, path))
}

fn is_user(user: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._+-".contains(&b);
    !user.is_empty() && !user.starts_with('-') && user.bytes().all(plain)
}

fn checked_host(host: &str) -> Option<String> {
    match host.strip_prefix('[') {
        Some(inner) => {
            let ip: Ipv6Addr = inner.strip_suffix(']')?.parse().ok()?;
            Some(ip.to_string())
        }
        None => is_host_name(host).then(|| host.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Address, AddressError};
    use super::*;

    fn ssh(text: &str) -> SshAddress {
        match Address::parse(text) {
            Ok(Address::Ssh(address)) => address,
            other => panic!("{text}: {other:?}"),
        }
    }

    fn error(text: &str) -> AddressError {
        Address::parse(text).unwrap_err()
    }

    #[test]
    fn parts_are_taken_apart() {
        let address = ssh("me@host.example:/srv/my notes");
        assert_eq!(
            (address.user(), address.host(), address.path()),
            (Some("me"), "host.example", "/srv/my notes")
        );
        assert_eq!(address.login(), "me@host.example");
        assert_eq!(ssh("host:~/x").path(), "~/x");
        assert_eq!(ssh("host:a:b@c").path(), "a:b@c");
        assert_eq!(ssh("h_1:it's").path(), "it's");
        let v6 = ssh("me@[0:0::1]:x");
        assert_eq!((v6.login().as_str(), v6.to_string().as_str()), ("me@::1", "me@[::1]:x"));
        assert_eq!(ssh("host:[::1]:x").path(), "[::1]:x");
        assert_eq!(ssh("host:a/b@[c]:d").path(), "a/b@[c]:d");
    }

    #[test]
    fn a_host_can_never_be_an_option_or_a_command() {
        for text in [
            "-oProxyCommand=id:x",
            "-h:x",
            "a b:x",
            "$(id):x",
            "a;b:x",
            "`id`:x",
            "me@-h:x",
            "me@:x",
            "a@b@c:x",
            "h*:x",
        ] {
            assert!(matches!(error(text), AddressError::Host(_) | AddressError::User(_)), "{text}");
        }
        for text in ["-l@host:x", "@host:x", "a b@host:x", "$x@host:x"] {
            assert!(matches!(error(text), AddressError::User(_)), "{text}");
        }
    }

    #[test]
    fn passwords_are_refused_and_not_repeated() {
        let error = error("me:hunter2@host:x");
        assert_eq!(error, AddressError::Credentials);
        assert!(!error.to_string().contains("hunter2"));
    }

    #[test]
    fn paths_and_names_are_not_addresses() {
        for text in ["notes", "/srv/a:b", "./a:b", ":x", "a/b:c", "[::1]", "[x"] {
            assert_eq!(error(text), AddressError::NoHost(text.to_owned()), "{text}");
        }
        assert_eq!(error("host:"), AddressError::NoPath("host:".to_owned()));
    }
}
