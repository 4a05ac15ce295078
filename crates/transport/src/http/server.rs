//! The incoming side: a listener that answers HTTP and turns upgrades into links.
//!
//! Who connects has proved nothing. Therefore the number of connections, the time for a header, its size, and the
//! links that wait to be accepted are all bounded (I7, I10), and an error ends one connection only (I5).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::routes::{self, Caller, Routes};
use crate::{Limits, Link, ListenError};

/// The largest request header.
const MAX_HEADER: usize = 16 * 1024;

/// How many connections above the limit are told so at one time; the rest are dropped without an answer.
const MAX_REFUSALS: usize = 64;

/// How long to wait when the operating system has no more file descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections for which there was no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TurnedAway {
    /// How many there were since they were taken last.
    pub times: u64,
    /// Where the last one came from.
    pub last: Option<SocketAddr>,
}

impl TurnedAway {
    pub(super) fn note(&mut self, peer: SocketAddr) {
        self.times += 1;
        self.last = Some(peer);
    }
}

/// Accepts links over HTTP. Dropping it stops listening at once; links already accepted live on.
#[derive(Debug)]
pub struct HttpListener {
    local_addr: SocketAddr,
    links: mpsc::Receiver<Link>,
    turned_away: Arc<watch::Sender<TurnedAway>>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
    patience: Duration,
}

impl HttpListener {
    /// Listens on this address (port 0 takes a free one). Must be called within a tokio runtime.
    pub async fn bind(address: SocketAddr, limits: &Limits) -> Result<HttpListener, ListenError> {
        limits.validate()?;
        let failed = |source| ListenError::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let local_addr = listener.local_addr().map_err(failed)?;
        let (queue, links) = mpsc::channel(limits.http_accept_queue);
        let (stop, stopped) = watch::channel(false);
        let turned_away = Arc::new(watch::Sender::new(TurnedAway::default()));
        let server = Server {
            places: Arc::new(Semaphore::new(limits.http_max_connections)),
            refusals: Arc::new(Semaphore::new(MAX_REFUSALS)),
            routes: Routes::new(queue, limits.clone(), Arc::clone(&turned_away)),
            turned_away: Arc::clone(&turned_away),
            header_timeout: limits.http_header_timeout,
            stopped,
        };
        let task = tokio::spawn(server.run(listener));
        Ok(HttpListener {
            local_addr,
            links,
            turned_away,
            stop,
            task,
            patience: limits.close_timeout,
        })
    }

    /// The address in use, with the real port.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// The next link that a peer opened; `None` only if the listener has failed. May be cancelled.
    pub async fn accept(&mut self) -> Option<Link> {
        self.links.recv().await
    }

    /// Wakes when there is no place for a connection.
    pub fn turns_away(&self) -> watch::Receiver<TurnedAway> {
        self.turned_away.subscribe()
    }

    /// Takes the count of connections for which there was no place.
    pub fn take_turned_away(&self) -> TurnedAway {
        let mut taken = TurnedAway::default();
        self.turned_away.send_if_modified(|count| {
            taken = std::mem::take(count);
            false
        });
        taken
    }

    /// Stops listening, lets requests under way finish for at most `close_timeout`, and drops the links nobody
    /// accepted. Links already accepted live on.
    pub async fn stop(mut self) {
        self.links.close();
        self.stop.send_replace(true);
        let _ = timeout(self.patience, &mut self.task).await;
    }
}

impl Drop for HttpListener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Server {
    places: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
    turned_away: Arc<watch::Sender<TurnedAway>>,
    routes: Routes,
    header_timeout: Duration,
    stopped: watch::Receiver<bool>,
}

impl Server {
    async fn run(self, listener: TcpListener) {
        let mut stopped = self.stopped.clone();
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = told(&mut stopped) => break,
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => self.admit(stream, peer, &mut connections),
                    Err(error) => {
                        warn!(%error, "cannot accept a connection");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(_) = connections.join_next() => {}
            }
        }
        drop(listener);
        while connections.join_next().await.is_some() {}
    }

    /// Serves a connection if there is a place for it, else tells it that there is none.
    fn admit(&self, stream: TcpStream, peer: SocketAddr, connections: &mut JoinSet<()>) {
        let (place, full) = match Arc::clone(&self.places).try_acquire_owned() {
            Ok(place) => (place, false),
            Err(_) => {
                self.turned_away.send_modify(|turned_away| turned_away.note(peer));
                match Arc::clone(&self.refusals).try_acquire_owned() {
                    Ok(place) => (place, true),
                    Err(_) => return,
                }
            }
        };
        let connection = Connection { place: Arc::new(place), peer, full };
        connections.spawn(connection.serve(
            stream,
            self.routes.clone(),
            self.header_timeout,
            self.stopped.clone(),
        ));
    }
}

/// Done when the listener is told to stop, or is gone.
async fn told(stopped: &mut watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

struct Connection {
    place: Arc<OwnedSemaphorePermit>,
    peer: SocketAddr,
    full: bool,
}

impl Connection {
    async fn serve(
        self,
        stream: TcpStream,
        routes: Routes,
        header_timeout: Duration,
        mut stopped: watch::Receiver<bool>,
    ) {
        let peer = self.peer;
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%peer, %error, "cannot set TCP_NODELAY");
        }
        let router = if self.full {
            routes::refusing()
        } else {
            routes.router(Caller { peer, place: self.place.clone() })
        };
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(header_timeout)
            .max_buf_size(MAX_HEADER)
            .keep_alive(!self.full);
        let serving = builder
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
            .with_upgrades();
        tokio::pin!(serving);
        let served = tokio::select! {
            served = serving.as_mut() => served,
            () = told(&mut stopped) => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        };
        if let Err(error) = served {
            debug!(%peer, %error, "a connection failed");
        }
    }
}
