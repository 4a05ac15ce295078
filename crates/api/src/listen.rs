//! Where the API listens: a Unix socket in the home, or a port of this machine. Only ever because a user asked for it (I9).

use crate::Api;
use crate::routes::router;
use anabranch::NodeError;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;

/// The name of the socket in the home.
pub const SOCKET: &str = "api.sock";

/// A place at which requests arrive.
#[derive(Debug)]
pub enum Listener {
    /// A socket that only its owner may open.
    Unix(UnixListener, PathBuf),
    /// A port of this machine, and the token without which nothing is answered.
    Tcp(TcpListener, String),
}

impl Listener {
    /// Listens on the socket in `home`. One that a dead process left is replaced.
    ///
    /// # Errors
    /// [`NodeError::File`] when another process serves there or the socket cannot be made.
    pub fn unix(home: &Path) -> Result<Self, NodeError> {
        let path = home.join(SOCKET);
        let failed = |source| NodeError::File { path: path.clone(), source };
        if std::os::unix::net::UnixStream::connect(&path).is_ok() {
            let text = "another process serves the API of this home";
            return Err(failed(io::Error::new(io::ErrorKind::AddrInUse, text)));
        }
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
            _ => {}
        }
        // The home is its owner's alone, so nobody else gets here before the mode is set.
        let listener = UnixListener::bind(&path).map_err(failed)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        Ok(Self::Unix(listener, path))
    }

    /// Listens at a port of this machine for requests with `token`.
    ///
    /// # Errors
    /// [`NodeError::Setting`] for an address of another machine, [`NodeError::Listen`] when it cannot be bound.
    pub async fn tcp(address: SocketAddr, token: String) -> Result<Self, NodeError> {
        if !address.ip().is_loopback() {
            let text = format!(
                "the API is for programs on this machine, and {address} can be reached from others; \
                 give a port alone, or 127.0.0.1:PORT"
            );
            return Err(NodeError::Setting(text));
        }
        let failed = |source| {
            NodeError::Listen(anabranch::engine::transport::ListenError::Bind { address, source })
        };
        Ok(Self::Tcp(TcpListener::bind(address).await.map_err(failed)?, token))
    }

    /// Where it listens, for people.
    #[must_use]
    pub fn place(&self) -> String {
        match self {
            Self::Unix(_, path) => path.display().to_string(),
            Self::Tcp(listener, _) => listener
                .local_addr()
                .map_or_else(|e| e.to_string(), |addr| format!("http://{addr}")),
        }
    }
}

/// Answers requests until told to stop; streams end then.
pub async fn serve(api: Api, listener: Listener, stop: watch::Receiver<bool>) {
    let mut stopping = stop.clone();
    let stopped = async move {
        if stopping.wait_for(|stop| *stop).await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    let served = match listener {
        Listener::Unix(listener, path) => {
            let router = router(api, None, stop);
            let served = axum::serve(listener, router).with_graceful_shutdown(stopped).await;
            let _ = fs::remove_file(path);
            served
        }
        Listener::Tcp(listener, token) => {
            let router = router(api, Some(token), stop);
            axum::serve(listener, router).with_graceful_shutdown(stopped).await
        }
    };
    if let Err(e) = served {
        tracing::warn!("the API ended: {e}");
    }
}
