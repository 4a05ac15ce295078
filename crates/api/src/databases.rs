//! Databases: which there are, new ones, joining, tickets, conflicts.

use crate::change::conflict_object;
use crate::error::Failure;
use crate::routes::{Answer, Shared, blocking, ok, shaped};
use anabranch::engine::core::id::to_base32;
use anabranch::engine::core::storage::StorageError;
use anabranch::engine::node::{Offer, config::parse_duration};
use anabranch::{Database, NewDatabase, Role, Sealed, Ticket};
use axum::body::Bytes;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;

pub(crate) async fn list(State(shared): State<Shared>) -> Answer {
    let records = shared.api.node.inner().records()?;
    let databases: Vec<Value> = records
        .iter()
        .filter(|record| !record.folder)
        .map(|record| {
            json!({ "name": record.name, "database": record.database.to_string(), "joining": record.ticket.is_some() || record.request.is_some() })
        })
        .collect();
    ok(&json!({ "databases": databases }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct New {
    name: String,
    #[serde(default)]
    sealed: bool,
    sealed_stores: Option<Vec<String>>,
}

/// Names of the stores that are sealed in a database of which others are not.
#[must_use]
pub fn sealed_stores(sealed: &Sealed) -> Option<&[String]> {
    match sealed {
        Sealed::Stores(names) => Some(names),
        Sealed::Nothing | Sealed::Everything => None,
    }
}

pub(crate) async fn create(State(shared): State<Shared>, bytes: Bytes) -> Answer {
    let New { name, sealed, sealed_stores } = shaped(&bytes)?;
    let sealed = match (sealed, sealed_stores) {
        (false, Some(names)) => Sealed::Stores(names),
        (true, None) => Sealed::Everything,
        (false, None) => Sealed::Nothing,
        (true, Some(_)) => {
            return Err(Failure::bad(
                "'sealed' is for all of it, 'sealed_stores' for some: give one",
            ));
        }
    };
    let node = shared.api.node.clone();
    let terms = NewDatabase { sealed, ..NewDatabase::default() };
    let database = blocking(move || Ok((node.create_with(&name, terms)?, name))).await?;
    ok(&json!({ "name": database.1, "database": database.0.id().to_string() }))
}

fn described(name: &str, database: &Database) -> Result<Value, Failure> {
    let device = database.replica().device().id();
    let (totals, role, sealed) = database.replica().look(|view| {
        Ok::<_, StorageError>((view.totals()?, view.role_of(&device)?, view.sealed()?))
    })?;
    let digest = database.digest()?;
    Ok(json!({
        "name": name,
        "database": database.id().to_string(),
        "entries": totals.entries,
        "role": role.map(Role::name),
        "sealed": sealed != Sealed::Nothing,
        "sealed_stores": sealed_stores(&sealed),
        "digest": digest.map(|digest| to_base32(&digest)),
    }))
}

pub(crate) async fn one(State(shared): State<Shared>, Path(db): Path<String>) -> Answer {
    let database = shared.database(&db)?;
    ok(&blocking(move || described(&db, &database)).await?)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Join {
    ticket: String,
    name: String,
}

pub(crate) async fn join(State(shared): State<Shared>, bytes: Bytes) -> Answer {
    let Join { ticket, name } = shaped(&bytes)?;
    let ticket: Ticket = ticket.parse().map_err(anabranch::NodeError::from)?;
    if ticket.folder {
        return Err(Failure::bad("the ticket is for a folder; use 'anabranch join'"));
    }
    let database = shared.api.node.join(&ticket, &name).await?;
    ok(&blocking(move || described(&name, &database)).await?)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Terms {
    #[serde(default = "write")]
    role: String,
    addresses: Vec<String>,
    expires: Option<String>,
    #[serde(default)]
    once: bool,
}

fn write() -> String {
    Role::Write.name().to_owned()
}

pub(crate) async fn ticket(
    State(shared): State<Shared>,
    Path(db): Path<String>,
    bytes: Bytes,
) -> Answer {
    let terms: Terms = shaped(&bytes)?;
    let role = Role::named(&terms.role);
    let role = role.ok_or_else(|| Failure::bad("'role' is relay, read, write or admin"))?;
    let duration = |text: &String| {
        let duration = parse_duration(text).filter(|d| *d > Duration::ZERO);
        duration.ok_or_else(|| Failure::bad("'expires' is a number with a unit, such as 12h or 7d"))
    };
    let expires = terms.expires.as_ref().map(duration).transpose()?;
    let database = shared.database(&db)?;
    let offer = Offer {
        role,
        addresses: terms.addresses,
        limit: terms.once.then_some(1),
        expires,
        folder: false,
        name: db,
    };
    let ticket = shared.api.node.inner().ticket(database.replica(), &offer).await?;
    ok(&json!({ "ticket": ticket.to_string() }))
}

pub(crate) async fn conflicts(State(shared): State<Shared>, Path(db): Path<String>) -> Answer {
    let database = shared.database(&db)?;
    let conflicts = blocking(move || Ok(database.conflicts()?)).await?;
    let conflicts: Vec<Value> = conflicts.iter().map(conflict_object).collect();
    ok(&json!({ "conflicts": conflicts }))
}
