//! Which certificates the client accepts for `https` and `wss`.
//!
//! Mozilla's list, compiled in, so that a connection does not depend on what a machine has installed; and whatever
//! further authorities the user names, for networks that have their own.

use std::sync::Arc;

use thiserror::Error;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

/// The authorities whose certificates are accepted. Made once and shared by all connections.
#[derive(Debug, Clone)]
pub struct TlsRoots {
    pub(super) config: Arc<ClientConfig>,
}

impl TlsRoots {
    /// Mozilla's authorities, and those in `further`, certificates in PEM form.
    pub fn new(further: Option<&[u8]>) -> Result<TlsRoots, TlsError> {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        if let Some(pem) = further {
            add_all(&mut roots, pem)?;
        }
        // HTTP/1.1 only: a WebSocket is an upgrade of it.
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsRoots { config: Arc::new(config) })
    }
}

fn add_all(roots: &mut RootCertStore, pem: &[u8]) -> Result<(), TlsError> {
    let before = roots.len();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| TlsError::Pem(error.to_string()))?;
        roots.add(certificate)?;
    }
    if roots.len() == before {
        return Err(TlsError::NoCertificate);
    }
    Ok(())
}

/// Why TLS cannot be set up.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The further authorities are not valid PEM.
    #[error("the file of further certificate authorities is not valid PEM: {0}")]
    Pem(String),
    /// There is no certificate in the PEM text.
    #[error("the file of further certificate authorities holds no certificate")]
    NoCertificate,
    /// A certificate is malformed, or TLS itself refused the settings.
    #[error("TLS cannot be set up")]
    Rustls(#[from] rustls::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn further_authorities_must_be_certificates() {
        TlsRoots::new(None).unwrap();
        assert!(matches!(TlsRoots::new(Some(b"")), Err(TlsError::NoCertificate)));
        assert!(matches!(TlsRoots::new(Some(b"not a certificate")), Err(TlsError::NoCertificate)));
        let broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(matches!(TlsRoots::new(Some(broken)), Err(TlsError::Rustls(_))));
        let unfinished = b"-----BEGIN CERTIFICATE-----\nAAAA\n";
        assert!(matches!(TlsRoots::new(Some(unfinished)), Err(TlsError::Pem(_))));
    }
}
