//! How a request fails: a status, a word for programs, and a sentence that says what to do.

use anabranch::engine::core::error::Error as CoreError;
use anabranch::engine::core::storage::StorageError;
use anabranch::{Error, NodeError};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// Why a request could not be done.
#[derive(Debug)]
pub(crate) struct Failure {
    status: StatusCode,
    code: &'static str,
    text: String,
}

impl Failure {
    pub(crate) fn bad(text: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, code: "bad-request", text: text.into() }
    }

    pub(crate) fn absent(text: impl Into<String>) -> Self {
        Self { status: StatusCode::NOT_FOUND, code: "not-found", text: text.into() }
    }

    pub(crate) fn unauthorized() -> Self {
        let text = "send the token that is in the file 'api.token' of the home: 'Authorization: Bearer TOKEN'";
        Self { status: StatusCode::UNAUTHORIZED, code: "unauthorized", text: text.into() }
    }

    pub(crate) fn too_large(limit: usize) -> Self {
        let text = format!("a request has at most {limit} bytes; put large content in several");
        Self { status: StatusCode::PAYLOAD_TOO_LARGE, code: "too-large", text }
    }

    pub(crate) fn no_route() -> Self {
        Self::absent("there is nothing at this path; '/v1/openapi.json' lists what there is")
    }

    pub(crate) fn no_method() -> Self {
        Self {
            status: StatusCode::METHOD_NOT_ALLOWED,
            code: "method",
            text: "this path takes another method; '/v1/openapi.json' lists them".into(),
        }
    }
}

impl From<NodeError> for Failure {
    fn from(error: NodeError) -> Self {
        let (status, code) = match &error {
            NodeError::NoDatabase(_) | NodeError::NoRequest(_) => {
                (StatusCode::NOT_FOUND, "not-found")
            }
            NodeError::Core(CoreError::Storage(StorageError::NoKey)) => {
                (StatusCode::CONFLICT, "no-key")
            }
            NodeError::NameTaken(_) => (StatusCode::CONFLICT, "taken"),
            NodeError::BadName(_)
            | NodeError::Core(CoreError::SealedStores)
            | NodeError::Setting(_)
            | NodeError::AsksForAdmin(_)
            | NodeError::Address(_)
            | NodeError::Ticket(_) => (StatusCode::BAD_REQUEST, "bad-request"),
            NodeError::Unreachable { .. }
            | NodeError::Connect(_)
            | NodeError::Handshake(_)
            | NodeError::Link(_)
            | NodeError::Session { .. } => {
                (StatusCode::BAD_GATEWAY, anabranch::Why::of(&error, false).code())
            }
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "failed"),
        };
        Self { status, code, text: error.chain() }
    }
}

impl From<StorageError> for Failure {
    fn from(error: StorageError) -> Self {
        NodeError::from(error).into()
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Node(error) => error.into(),
            other => Self::bad(other.to_string()),
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let body = json!({ "error": self.text, "code": self.code });
        crate::routes::answer(self.status, &body)
    }
}
