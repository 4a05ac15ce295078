//! One place that makes links, whatever the address.

use crate::http::{self, HttpListener, TlsRoots};
use crate::ssh::{self, SshCommand};
use crate::{Address, ConnectError, Limits, LimitsError, Link, ListenAddr, ListenError};

/// What the transports are set up with.
#[derive(Debug, Clone)]
pub struct TransportConfig {
    /// The limits of all transports.
    pub limits: Limits,
    /// What runs a command on another machine.
    pub ssh: SshCommand,
    /// How Anabranch is started on another machine, in the syntax of its shell.
    pub remote_program: String,
    /// Whose certificates are accepted.
    pub tls_roots: TlsRoots,
}

impl TransportConfig {
    /// The default limits, plain `ssh`, and `anabranch` from the remote machine's path.
    pub fn new(tls_roots: TlsRoots) -> TransportConfig {
        TransportConfig {
            limits: Limits::default(),
            ssh: SshCommand::default(),
            remote_program: "anabranch".to_owned(),
            tls_roots,
        }
    }
}

/// Makes outgoing links by address, and listeners.
#[derive(Debug, Clone)]
pub struct TransportManager {
    config: TransportConfig,
}

impl TransportManager {
    /// A manager with these settings, unless its limits cannot work.
    pub fn new(config: TransportConfig) -> Result<TransportManager, LimitsError> {
        config.limits.validate()?;
        Ok(TransportManager { config })
    }

    /// The limits in use.
    pub fn limits(&self) -> &Limits {
        &self.config.limits
    }

    /// Opens a link to the node at this address. One whose [`crate::Trust`] is untrusted is not yet encrypted.
    ///
    /// An ssh link is there as soon as ssh runs; that it failed to log in shows when the link is first used.
    pub async fn connect(&self, address: &Address) -> Result<Link, ConnectError> {
        let config = &self.config;
        match address {
            Address::Http(address) => {
                http::connect(address, &config.tls_roots, &config.limits).await
            }
            Address::Ssh(address) => {
                ssh::connect(&config.ssh, &config.remote_program, address, &config.limits)
            }
        }
    }

    /// Listens over HTTP. Only ever called because a user asked for it (I9).
    pub async fn listen(&self, address: ListenAddr) -> Result<HttpListener, ListenError> {
        HttpListener::bind(address.socket_addr(), &self.config.limits).await
    }
}
