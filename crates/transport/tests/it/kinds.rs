//! Connected pairs of every kind of link.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anabranch_transport::http::TlsRoots;
use anabranch_transport::secure::{self, SecureLink, StaticKey};
use anabranch_transport::{
    Address, HttpListener, Limits, Link, TransportConfig, TransportManager, Trust, memory, pipe,
};

pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

pub(crate) fn manager(limits: Limits) -> TransportManager {
    let config = TransportConfig { limits, ..TransportConfig::new(TlsRoots::new(None).unwrap()) };
    TransportManager::new(config).unwrap()
}

pub(crate) async fn memory() -> (Link, Link) {
    memory::pair(4)
}

pub(crate) async fn duplex() -> (Link, Link) {
    let (left, right) = tokio::io::duplex(1000);
    let link = |stream| {
        let (input, output) = tokio::io::split(stream);
        pipe::link("duplex", Trust::Trusted, input, output)
    };
    (link(left), link(right))
}

pub(crate) async fn http() -> (Link, Link) {
    http_with(Limits::default()).await
}

/// A client's and a listener's end. The listener itself is gone, which links survive.
pub(crate) async fn http_with(limits: Limits) -> (Link, Link) {
    let mut listener = HttpListener::bind(loopback(), &limits).await.unwrap();
    let address = Address::of_listener(listener.local_addr());
    let client = manager(limits).connect(&address).await.unwrap();
    let server = listener.accept().await.unwrap();
    (client, server)
}

/// Both ends of an encrypted session over a pair of links.
pub(crate) async fn secured((left, right): (Link, Link)) -> (SecureLink, SecureLink) {
    let (ours, theirs) = (StaticKey::generate().unwrap(), StaticKey::generate().unwrap());
    let (connected, accepted) = tokio::join!(
        secure::connect(left, &ours, PATIENCE),
        secure::accept(right, &theirs, PATIENCE)
    );
    (connected.unwrap(), accepted.unwrap())
}

pub(crate) async fn secure_memory() -> (Link, Link) {
    let (left, right) = secured(memory().await).await;
    (left.link, right.link)
}

pub(crate) async fn secure_duplex() -> (Link, Link) {
    let (left, right) = secured(duplex().await).await;
    (left.link, right.link)
}

pub(crate) async fn secure_http() -> (Link, Link) {
    let (left, right) = secured(http().await).await;
    (left.link, right.link)
}
