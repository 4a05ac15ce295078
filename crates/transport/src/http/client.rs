//! The outgoing side: TCP, TLS where asked for, the HTTP upgrade, and then a link.

use std::io;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_tungstenite::client_async_with_config;
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::http::Response;

use super::{LINK_PATH, TlsRoots};
use crate::error::printable;
use crate::websocket::{self, Pulse};
use crate::{ConnectError, HttpAddress, Limits, Link};

/// How much of a refusal's text is quoted.
const MESSAGE: usize = 200;

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Connects to the node at `address`; which replica is wanted is said within the link.
pub(crate) async fn connect(
    address: &HttpAddress,
    roots: &TlsRoots,
    limits: &Limits,
) -> Result<Link, ConnectError> {
    let after = limits.connect_timeout;
    let connected = timeout(after, dial(address, roots, limits)).await;
    connected.unwrap_or_else(|_| Err(ConnectError::Timeout { address: address.to_string(), after }))
}

async fn dial(
    address: &HttpAddress,
    roots: &TlsRoots,
    limits: &Limits,
) -> Result<Link, ConnectError> {
    let unreachable = |source| ConnectError::Unreachable { address: address.to_string(), source };
    let tcp = open(address, limits).await.map_err(unreachable)?;
    let stream: Box<dyn Stream> = if address.scheme().is_tls() {
        let secured = handshake(address, roots, tcp).await;
        Box::new(
            secured.map_err(|source| ConnectError::Tls { address: address.to_string(), source })?,
        )
    } else {
        Box::new(tcp)
    };
    let url = format!("ws://{}{LINK_PATH}", address.authority());
    let (socket, _response) =
        client_async_with_config(url, Pulse::new(stream), Some(websocket::config()))
            .await
            .map_err(|error| refused(address, error))?;
    Ok(websocket::link(address.to_string(), socket, limits, None))
}

/// Tries each address the host's name has, each with its share of the time, so that a dead one hides no live one.
async fn open(address: &HttpAddress, limits: &Limits) -> io::Result<TcpStream> {
    let found: Vec<_> = lookup_host((address.host().to_string(), address.port())).await?.collect();
    let share = limits.connect_timeout / u32::try_from(found.len().max(1)).unwrap_or(u32::MAX);
    let mut last = io::Error::new(io::ErrorKind::NotFound, "its name has no address");
    for candidate in found {
        match timeout(share, TcpStream::connect(candidate)).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

async fn handshake(
    address: &HttpAddress,
    roots: &TlsRoots,
    tcp: TcpStream,
) -> io::Result<impl Stream + use<>> {
    let name = ServerName::try_from(address.host().to_string()).map_err(io::Error::other)?;
    TlsConnector::from(roots.config.clone()).connect(name, tcp).await
}

fn refused(address: &HttpAddress, error: tungstenite::Error) -> ConnectError {
    let address = address.to_string();
    match error {
        tungstenite::Error::Http(response) => ConnectError::Refused {
            address,
            status: response.status().as_u16(),
            message: quoted(&response),
        },
        tungstenite::Error::Io(source) => ConnectError::Unreachable { address, source },
        other => ConnectError::NotHttp {
            address,
            reason: printable(other.to_string().as_bytes(), MESSAGE),
        },
    }
}

/// The answer's text, if it is text that came along.
fn quoted(response: &Response<Option<Vec<u8>>>) -> String {
    let is_plain = response
        .headers()
        .get("content-type")
        .is_some_and(|kind| kind.as_bytes().starts_with(b"text/plain"));
    match response.body() {
        Some(body) if is_plain => printable(body, MESSAGE),
        _ => String::new(),
    }
}
