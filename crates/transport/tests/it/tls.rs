//! `https` and `wss`: which certificates are accepted, and that links work through TLS.

use std::net::SocketAddr;
use std::sync::Arc;

use anabranch_transport::http::TlsRoots;
use anabranch_transport::{
    Address, ConnectError, HttpListener, Limits, Link, TransportConfig, TransportManager,
};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::kinds;

const AUTHORITY: &[u8] = include_bytes!("data/ca.pem");
const CERTIFICATE: &[u8] = include_bytes!("data/server.pem");
const KEY: &[u8] = include_bytes!("data/server.key");

/// A proxy that ends TLS in front of a listener, as a web server would.
async fn tls_proxy(target: SocketAddr) -> SocketAddr {
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(CERTIFICATE).unwrap()],
            PrivateKeyDer::from_pem_slice(KEY).unwrap(),
        )
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(kinds::loopback()).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(mut stream) = acceptor.accept(stream).await {
                let mut target = TcpStream::connect(target).await.unwrap();
                tokio::spawn(
                    async move { copy_bidirectional(&mut stream, &mut target).await.ok() },
                );
            }
        }
    });
    address
}

async fn connect(address: &str, authority: Option<&[u8]>) -> Result<Link, ConnectError> {
    let config = TransportConfig::new(TlsRoots::new(authority).unwrap());
    TransportManager::new(config).unwrap().connect(&Address::parse(address).unwrap()).await
}

#[tokio::test]
async fn links_work_through_tls_with_a_named_authority() {
    let mut listener = HttpListener::bind(kinds::loopback(), &Limits::default()).await.unwrap();
    let port = tls_proxy(listener.local_addr()).await.port();
    for address in [format!("https://localhost:{port}/x"), format!("wss://127.0.0.1:{port}")] {
        let client = connect(&address, Some(AUTHORITY)).await.unwrap();
        assert_eq!(client.peer(), address);
        let server = listener.accept().await.unwrap();
        let (client, server) = kinds::secured((client, server)).await;
        let ((mut sender, mut receiver), (mut far_sender, mut far_receiver)) =
            (client.link.split(), server.link.split());
        sender.send(vec![3; 500_000]).await.unwrap();
        sender.close().await.unwrap();
        assert_eq!(far_receiver.recv().await.unwrap().unwrap(), vec![3; 500_000]);
        assert_eq!(far_receiver.recv().await.unwrap(), None);
        far_sender.close().await.unwrap();
        assert_eq!(receiver.recv().await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_certificate_from_elsewhere_is_refused() {
    let listener = HttpListener::bind(kinds::loopback(), &Limits::default()).await.unwrap();
    let port = tls_proxy(listener.local_addr()).await.port();
    let error = connect(&format!("https://localhost:{port}"), None).await.unwrap_err();
    assert!(matches!(error, ConnectError::Tls { .. }), "{error:?}");
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("certificate"), "{cause}");
    // The right authority, but another machine's name.
    let error =
        connect(&format!("https://[::ffff:127.0.0.1]:{port}"), Some(AUTHORITY)).await.unwrap_err();
    assert!(matches!(error, ConnectError::Tls { .. }), "{error:?}");
}

#[tokio::test]
async fn a_server_without_tls_is_named_as_such() {
    let listener = HttpListener::bind(kinds::loopback(), &Limits::default()).await.unwrap();
    let error = connect(&format!("https://{}", listener.local_addr()), None).await.unwrap_err();
    assert!(matches!(error, ConnectError::Tls { .. }), "{error:?}");
}
