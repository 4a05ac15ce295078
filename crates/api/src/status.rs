//! How everything stands.

use crate::Api;
use crate::change::date;
use crate::routes::{Answer, Shared, blocking, ok};
use anabranch::engine::node::{Record, Trouble, Visitor};
use anabranch::{Intent, Role, Standing, State, Timestamp, Why};
use axum::extract::State as Handed;
use serde_json::{Value, json};

pub(crate) fn why_object(why: &Why) -> Value {
    json!({ "code": why.code(), "text": why.to_string() })
}

/// How a replica stands with a peer that it is kept in step with.
#[must_use]
pub fn standing_object(standing: &Standing) -> Value {
    let progress = standing.progress;
    let wait = match standing.state {
        State::Resting { every: time } | State::Waiting { again_in: time } => {
            Some(time.saturating_sub(standing.since.elapsed()).as_secs_f64())
        }
        _ => None,
    };
    let error = standing.last_error.as_ref().map(|(at, why)| {
        json!({ "at": date(Timestamp(*at)), "code": why.code(), "text": why.to_string() })
    });
    let reasons: Vec<Value> = standing.reasons().iter().map(why_object).collect();
    json!({
        "name": standing.name,
        "database": standing.database.to_string(),
        "addresses": standing.addresses,
        "device": standing.device.map(|device| device.to_string()),
        "state": standing.state.name(),
        "again_in_seconds": wait,
        "remaining_seconds": standing.remaining().map(|time| time.as_secs_f64()),
        "due": progress.due,
        "lacking": progress.lacking,
        "entries_sent": progress.entries_sent,
        "entries_received": progress.entries_received,
        "bytes_sent": progress.bytes_sent,
        "bytes_received": progress.bytes_received,
        "in_step": standing.last_success.map(|at| date(Timestamp(at))),
        "last_error": error,
        "reasons": reasons,
    })
}

/// What is declared.
#[must_use]
pub fn intent_object(intent: &Intent) -> Value {
    json!({
        "address": intent.address,
        "send": intent.direction.send,
        "receive": intent.direction.receive,
        "every_seconds": intent.every.map(|every| every.as_secs_f64()),
        "priority": intent.priority.name(),
    })
}

/// As [`intent_object`], and how it stands if something works on it.
pub(crate) fn declared_object(api: &Api, record: &Record, intent: &Intent) -> Value {
    let works = |standing: &&Standing| {
        standing.database == record.database && standing.addresses.contains(&intent.address)
    };
    let standings = api.node.inner().standings();
    let mut object = intent_object(intent);
    object["standing"] = standings.iter().find(works).map(standing_object).into();
    object
}

fn visitor_object(visitor: &Visitor) -> Value {
    json!({
        "address": visitor.address,
        "since": date(Timestamp(visitor.since)),
        "device": visitor.progress.peer.map(|device| device.to_string()),
        "entries_sent": visitor.progress.entries_sent,
        "entries_received": visitor.progress.entries_received,
    })
}

fn trouble_object(trouble: &Trouble) -> Value {
    json!({
        "host": trouble.host,
        "device": trouble.device.map(|device| device.to_string()),
        "code": trouble.code,
        "text": trouble.text,
        "times": trouble.times,
        "last": date(Timestamp(trouble.last)),
    })
}

pub(crate) async fn all(Handed(shared): Handed<Shared>) -> Answer {
    let api = shared.api.clone();
    ok(&blocking(move || Ok(document(&api)?)).await?)
}

fn document(api: &Api) -> Result<Value, anabranch::NodeError> {
    let node = api.node.inner();
    let device = node.id();
    let mut replicas = Vec::new();
    for record in api.replicas.records() {
        let state = api.replicas.open(&record).map(|replica| {
            replica.look(|view| {
                let role = view.role_of(&device)?.map(Role::name);
                Ok::<_, anabranch::engine::core::storage::StorageError>((view.totals()?, role))
            })
        });
        let state = state.transpose()?;
        let (totals, role) = match state {
            Some((totals, role)) => (Some(totals.entries), role),
            None => (None, None),
        };
        replicas.push(json!({
            "name": record.name,
            "kind": if record.folder { "folder" } else { "database" },
            "database": record.database.to_string(),
            "role": role,
            "entries": totals,
        }));
    }
    let standings = node.standings();
    Ok(json!({
        "device": device.to_string(),
        "replicas": replicas,
        "syncs": standings.iter().map(standing_object).collect::<Vec<_>>(),
        "visitors": node.visitors().iter().map(visitor_object).collect::<Vec<_>>(),
        "troubles": node.troubles().iter().map(trouble_object).collect::<Vec<_>>(),
    }))
}
