//! Which request is answered by what, who may ask, and how answers look.

use crate::error::Failure;
use crate::json::{Json, parse};
use crate::token::same;
use crate::{Api, OPENAPI, databases, docs, events, metrics, requests, rows, status, syncs};
use anabranch::Database;
use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::{Semaphore, watch};

/// The largest request: a row of the largest entry, with escapes.
const BODY_BYTES: usize = 2 * 1024 * 1024;
/// Requests that are worked on at once, streams apart.
const AT_ONCE: usize = 64;

/// What every handler is handed.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) api: Api,
    token: Option<Arc<str>>,
    places: Arc<Semaphore>,
    pub(crate) stop: watch::Receiver<bool>,
}

impl Shared {
    /// The database with this name or id, with an eye on what other processes commit to it.
    pub(crate) fn database(&self, name: &str) -> Result<Database, Failure> {
        let database = self.api.node.database(name)?;
        self.api.node.inner().notice_others(database.replica())?;
        Ok(database)
    }
}

pub(crate) type Answer = Result<Response, Failure>;

pub(crate) fn router(api: Api, token: Option<String>, stop: watch::Receiver<bool>) -> Router {
    let shared = Shared {
        api,
        token: token.map(Arc::from),
        places: Arc::new(Semaphore::new(AT_ONCE)),
        stop,
    };
    let guarded = Router::new()
        .route("/metrics", get(metrics::all))
        .route("/v1/status", get(status::all))
        .route("/v1/events", get(events::stream))
        .route("/v1/databases", get(databases::list).post(databases::create))
        .route("/v1/join", post(databases::join))
        .route("/v1/databases/{db}", get(databases::one))
        .route("/v1/databases/{db}/tickets", post(databases::ticket))
        .route("/v1/databases/{db}/requests", get(requests::list))
        .route(
            "/v1/databases/{db}/requests/{device}",
            put(requests::decide).delete(requests::forget),
        )
        .route("/v1/databases/{db}/conflicts", get(databases::conflicts))
        .route("/v1/databases/{db}/transaction", post(rows::transaction))
        .route("/v1/databases/{db}/tables/{table}", get(rows::list))
        .route(
            "/v1/databases/{db}/tables/{table}/{key}",
            get(rows::one).put(rows::put).delete(rows::delete),
        )
        .route("/v1/databases/{db}/docs/{doc}", get(docs::get).put(docs::put).delete(docs::delete))
        .route(
            "/v1/databases/{db}/syncs",
            get(syncs::list).put(syncs::declare).delete(syncs::withdraw),
        )
        .route("/v1/databases/{db}/sync", post(syncs::now))
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .layer(from_fn_with_state(shared.clone(), guard));
    Router::new()
        .route("/health", get(async || answer(StatusCode::OK, &json!({ "status": "ok" }))))
        .route("/v1/openapi.json", get(async || typed(StatusCode::OK, "application/json", OPENAPI)))
        .merge(guarded)
        .fallback(async || Failure::no_route())
        .method_not_allowed_fallback(async || Failure::no_method())
        .with_state(shared)
}

/// Lets in who has the token, so many at once.
async fn guard(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    if let Some(token) = &shared.token {
        let given = request.headers().get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
        let given = given.and_then(|text| text.strip_prefix("Bearer "));
        if !given.is_some_and(|given| same(given.trim(), token)) {
            return Failure::unauthorized().into_response();
        }
    }
    let length = request.headers().get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok());
    if length.and_then(|length| length.parse::<usize>().ok()).is_some_and(|n| n > BODY_BYTES) {
        return Failure::too_large(BODY_BYTES).into_response();
    }
    // Closed never; who waits here waits for others like it.
    let _place = shared.places.acquire().await;
    in_one_form(next.run(request).await).await
}

/// What fails before a handler sees it, in the form in which handlers fail.
async fn in_one_form(response: Response) -> Response {
    let status = response.status();
    let kind = response.headers().get(header::CONTENT_TYPE);
    if !status.is_client_error() || kind.is_some_and(|kind| kind == "application/json") {
        return response;
    }
    let text = to_bytes(response.into_body(), BODY_BYTES).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    answer(status, &json!({ "error": text, "code": "bad-request" }))
}

/// An answer in JSON.
pub(crate) fn answer(status: StatusCode, body: &Value) -> Response {
    typed(status, "application/json", body.to_string())
}

pub(crate) fn ok(body: &Value) -> Answer {
    Ok(answer(StatusCode::OK, body))
}

pub(crate) fn typed(status: StatusCode, kind: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// The body as JSON.
pub(crate) fn body(bytes: &Bytes) -> Result<Json, Failure> {
    let text = std::str::from_utf8(bytes).map_err(|_| Failure::bad("the body is not UTF-8"))?;
    parse(text).map_err(|e| Failure::bad(format!("the body is no JSON: {e}")))
}

/// The body as an object with a known shape.
pub(crate) fn shaped<T: serde::de::DeserializeOwned>(bytes: &Bytes) -> Result<T, Failure> {
    serde_json::from_slice(bytes).map_err(|e| Failure::bad(format!("the body does not fit: {e}")))
}

/// Does `work` on a thread that may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(_) => Err(anabranch::NodeError::Closed.into()),
    }
}
