//! What the listener answers to which request.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::http::{Response, StatusCode, header};
use axum::routing::get;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;
use tokio_tungstenite::tungstenite::protocol::Role;
use tracing::debug;

use super::{HEALTH_PATH, LINK_PATH, TurnedAway};
use crate::websocket::{self, Pulse, Socket};
use crate::{Limits, Link};

const FULL: &str = "This node serves as many connections as it may; try again later, or raise http_max_connections.\n";
const BUSY: &str =
    "This node has more new links than it can take right now; try again in a moment.\n";
const NOT_AN_UPGRADE: &str = "This is where Anabranch nodes connect, with a WebSocket.\n";

/// The connection a request came on.
#[derive(Clone)]
pub(super) struct Caller {
    pub(super) peer: SocketAddr,
    pub(super) place: Arc<OwnedSemaphorePermit>,
}

/// The answers of one listener.
#[derive(Clone)]
pub(super) struct Routes {
    router: Router,
}

#[derive(Clone)]
struct Shared {
    queue: mpsc::Sender<Link>,
    limits: Arc<Limits>,
    turned_away: Arc<watch::Sender<TurnedAway>>,
}

impl Routes {
    pub(super) fn new(
        queue: mpsc::Sender<Link>,
        limits: Limits,
        turned_away: Arc<watch::Sender<TurnedAway>>,
    ) -> Routes {
        let router = Router::new()
            .route(LINK_PATH, get(upgrade))
            .route(HEALTH_PATH, get(health))
            .with_state(Shared { queue, limits: Arc::new(limits), turned_away });
        Routes { router }
    }

    /// The answers on one connection.
    pub(super) fn router(self, caller: Caller) -> Router {
        self.router.layer(Extension(caller))
    }
}

/// The only answer on a connection above the limit.
pub(super) fn refusing() -> Router {
    Router::new().fallback(|| async { sentence(StatusCode::SERVICE_UNAVAILABLE, FULL) })
}

async fn health() -> Response<Body> {
    answer(StatusCode::OK, "application/json", r#"{"status":"ok"}"#)
}

/// Turns a request into a link, or says why not.
async fn upgrade(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    mut request: Request,
) -> Response<Body> {
    let Some(upgraded) = request.extensions_mut().remove::<OnUpgrade>() else {
        return not_an_upgrade();
    };
    let Ok(response) = create_response_with_body(&request, Body::empty) else {
        return not_an_upgrade();
    };
    let Ok(slot) = shared.queue.try_reserve_owned() else {
        shared.turned_away.send_modify(|turned_away| turned_away.note(caller.peer));
        return sentence(StatusCode::SERVICE_UNAVAILABLE, BUSY);
    };
    tokio::spawn(finish(upgraded, slot, caller, shared.limits));
    response
}

/// Waits until the answer is out, then hands the link to whoever accepts.
async fn finish(
    upgraded: OnUpgrade,
    slot: mpsc::OwnedPermit<Link>,
    caller: Caller,
    limits: Arc<Limits>,
) {
    let peer = caller.peer;
    match timeout(limits.http_header_timeout, upgraded).await {
        Ok(Ok(stream)) => {
            let stream = Pulse::new(TokioIo::new(stream));
            let socket =
                Socket::from_raw_socket(stream, Role::Server, Some(websocket::config())).await;
            slot.send(websocket::link(
                format!("http client {peer}"),
                socket,
                &limits,
                Some(caller.place),
            ));
        }
        Ok(Err(error)) => debug!(%peer, %error, "an upgrade failed"),
        Err(_) => debug!(%peer, "an upgrade took too long"),
    }
}

fn not_an_upgrade() -> Response<Body> {
    let mut response = sentence(StatusCode::UPGRADE_REQUIRED, NOT_AN_UPGRADE);
    response.headers_mut().insert(header::UPGRADE, header::HeaderValue::from_static("websocket"));
    response
}

fn sentence(status: StatusCode, text: &'static str) -> Response<Body> {
    answer(status, "text/plain; charset=utf-8", text)
}

fn answer(status: StatusCode, kind: &'static str, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}
