//! Devices that ask to be let in to a database, and what becomes of them.

use crate::change::date;
use crate::error::Failure;
use crate::routes::{Answer, Shared, blocking, ok, shaped};
use anabranch::engine::node::Asking;
use anabranch::{NodeId, Role};
use axum::body::Bytes;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::{Value, json};

fn request_object(asking: &Asking) -> Value {
    json!({
        "device": asking.device.to_string(),
        "role": asking.request.role.name(),
        "message": asking.request.text,
        "at": date(asking.at),
        "rejected": asking.rejected,
    })
}

pub(crate) async fn list(State(shared): State<Shared>, Path(db): Path<String>) -> Answer {
    let database = shared.database(&db)?;
    let requests = blocking(move || Ok(database.replica().requests()?)).await?;
    ok(&json!({ "requests": requests.iter().map(request_object).collect::<Vec<_>>() }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Decision {
    approved: bool,
    role: Option<String>,
}

fn device(text: &str) -> Result<NodeId, Failure> {
    text.parse().map_err(|e: anabranch::engine::core::id::IdError| Failure::bad(e.to_string()))
}

pub(crate) async fn decide(
    State(shared): State<Shared>,
    Path((db, who)): Path<(String, String)>,
    bytes: Bytes,
) -> Answer {
    let Decision { approved, role } = shaped(&bytes)?;
    let named = |name: &String| {
        Role::named(name).ok_or_else(|| Failure::bad("'role' is relay, read, write or admin"))
    };
    let role = role.as_ref().map(named).transpose()?;
    if !approved && role.is_some() {
        return Err(Failure::bad("who is rejected gets no role"));
    }
    let (database, device) = (shared.database(&db)?, device(&who)?);
    let given = blocking(move || {
        Ok(match approved {
            true => Some(database.replica().approve(&device, role)?),
            false => {
                database.replica().reject(&device)?;
                None
            }
        })
    })
    .await?;
    ok(&json!({ "device": who, "role": given.map(Role::name) }))
}

pub(crate) async fn forget(
    State(shared): State<Shared>,
    Path((db, who)): Path<(String, String)>,
) -> Answer {
    let (database, device) = (shared.database(&db)?, device(&who)?);
    blocking(move || Ok(database.replica().forget_request(&device)?)).await?;
    ok(&json!({ "device": who, "role": null }))
}
