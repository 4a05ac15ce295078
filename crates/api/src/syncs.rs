//! With whom a database is kept in step, and syncing it now.

use crate::error::Failure;
use crate::routes::{Answer, Shared, ok, shaped};
use crate::status::{declared_object, why_object};
use anabranch::engine::node::{Opening, Record, Until, config::parse_duration};
use anabranch::engine::sync::channel::Direction;
use anabranch::{Control, Intent, Priority};
use axum::body::Bytes;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Declared {
    address: String,
    #[serde(default = "yes")]
    send: bool,
    #[serde(default = "yes")]
    receive: bool,
    every: Option<String>,
    priority: Option<String>,
}

fn yes() -> bool {
    true
}

fn record(shared: &Shared, db: &str) -> Result<Record, Failure> {
    let database = shared.database(db)?;
    let record = shared.api.node.inner().record_of(database.id())?;
    record.ok_or_else(|| Failure::bad("a database in memory is kept in step with nobody"))
}

pub(crate) async fn list(State(shared): State<Shared>, Path(db): Path<String>) -> Answer {
    let record = record(&shared, &db)?;
    let syncs: Vec<Value> =
        record.intents.iter().map(|intent| declared_object(&shared.api, &record, intent)).collect();
    ok(&json!({ "syncs": syncs }))
}

pub(crate) async fn declare(
    State(shared): State<Shared>,
    Path(db): Path<String>,
    bytes: Bytes,
) -> Answer {
    let Declared { address, send, receive, every, priority } = shaped(&bytes)?;
    let bad = || Failure::bad("'every' is a number with a unit, such as 30s or 15m");
    let every = every.map(|text| parse_duration(&text).ok_or_else(bad)).transpose()?;
    let priority = match priority.as_deref() {
        None | Some("normal") => Priority::Normal,
        Some("high") => Priority::High,
        Some("low") => Priority::Low,
        Some(_) => return Err(Failure::bad("'priority' is high, normal or low")),
    };
    let direction = Direction { send, receive };
    let address = anabranch::engine::transport::Address::parse(&address)
        .map_err(anabranch::NodeError::from)?
        .to_string();
    let intent = Intent { address: address.clone(), direction, every, priority };
    shared.api.node.inner().declare(&record(&shared, &db)?, intent)?;
    ok(&json!({ "name": db, "address": address }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Where {
    address: String,
}

pub(crate) async fn withdraw(
    State(shared): State<Shared>,
    Path(db): Path<String>,
    bytes: Bytes,
) -> Answer {
    let Where { address } = shaped(&bytes)?;
    if !shared.api.node.inner().withdraw(&record(&shared, &db)?, &address)? {
        return Err(Failure::absent(format!("{db} is not kept in step with {address}")));
    }
    ok(&json!({ "name": db, "address": address }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Now {
    address: Option<String>,
}

/// Syncs once with one address, or with each that is declared; answers when that is done.
pub(crate) async fn now(
    State(shared): State<Shared>,
    Path(db): Path<String>,
    bytes: Bytes,
) -> Answer {
    let Now { address } = if bytes.is_empty() { Now { address: None } } else { shaped(&bytes)? };
    let database = shared.database(&db)?;
    let addresses: Vec<String> = match address {
        Some(address) => vec![address],
        None => record(&shared, &db)?.addresses().map(str::to_owned).collect(),
    };
    if addresses.is_empty() {
        return Err(Failure::bad(format!("no address is known to sync {db} with; name one")));
    }
    let mut done = Vec::new();
    for address in addresses {
        let opening = Opening {
            replica: Arc::clone(database.replica()),
            direction: Direction::BOTH,
            ticket: None,
        };
        let list = [address.clone()];
        let synced =
            shared.api.node.inner().sync(opening, &list, Until::Settled, &Control::default()).await;
        done.push(match synced {
            Ok(report) => json!({
                "address": address,
                "device": report.peer.to_string(),
                "entries_sent": report.progress.entries_sent,
                "entries_received": report.progress.entries_received,
                "why": null,
            }),
            Err(e) => {
                json!({ "address": address, "why": why_object(&anabranch::Why::of(&e, false)) })
            }
        });
    }
    ok(&json!({ "syncs": done }))
}
