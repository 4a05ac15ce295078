//! Metrics in the text format of Prometheus.

use crate::routes::{Shared, blocking, typed};
use anabranch::{Role, State as At};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use std::fmt::Write as _;

const KIND: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A family of samples.
struct Family<'t> {
    text: &'t mut String,
    name: &'static str,
}

impl<'t> Family<'t> {
    fn new(text: &'t mut String, name: &'static str, kind: &str, help: &str) -> Self {
        // Writing to a string cannot fail.
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        Self { text, name }
    }

    fn add(&mut self, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        let labels: Vec<String> =
            labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        let labels =
            if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.text, "{}{labels} {value}", self.name);
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

pub(crate) async fn all(State(shared): State<Shared>) -> Result<Response, crate::error::Failure> {
    let text = blocking(move || Ok(text(&shared)?)).await?;
    Ok(typed(StatusCode::OK, KIND, text))
}

fn text(shared: &Shared) -> Result<String, anabranch::NodeError> {
    let node = shared.api.node.inner();
    let mut text = String::new();
    let mut info = Family::new(&mut text, "anabranch_info", "gauge", "This node.");
    info.add(&[("version", env!("CARGO_PKG_VERSION")), ("device", &node.id().to_string())], 1);
    let mut held = Vec::new();
    for record in shared.api.replicas.records() {
        let Some(replica) = shared.api.replicas.open(&record) else { continue };
        let (totals, role) = replica.look(|view| {
            Ok::<_, anabranch::engine::core::storage::StorageError>((
                view.totals()?,
                view.role_of(&node.id())?,
            ))
        })?;
        let (size, database) = (replica.storage().size()?, record.database.to_string());
        held.push((record.name, database, totals, role, size, replica));
    }
    let mut family =
        Family::new(&mut text, "anabranch_entries", "gauge", "Entries held, by database.");
    for (name, database, totals, role, ..) in &held {
        let role = role.map_or("none", Role::name);
        family.add(&[("name", name), ("database", database), ("role", role)], totals.entries);
    }
    let mut family = Family::new(&mut text, "anabranch_logs", "gauge", "Logs and branches held.");
    for (name, database, totals, ..) in &held {
        family.add(&[("name", name), ("database", database)], totals.branches);
    }
    let mut family =
        Family::new(&mut text, "anabranch_bytes", "gauge", "Bytes on disk, by database.");
    for (name, database, _, _, size, _) in &held {
        family.add(&[("name", name), ("database", database)], size);
    }
    let help = "Bytes of entries that wait for what they build on; bounded by sync.pending_bytes.";
    let mut family = Family::new(&mut text, "anabranch_pending_bytes", "gauge", help);
    for (name, database, _, _, _, replica) in &held {
        family.add(&[("name", name), ("database", database)], replica.pending_bytes());
    }
    let help = "Entries that arrived and are not in place yet.";
    let mut family = Family::new(&mut text, "anabranch_unbuilt_entries", "gauge", help);
    for (name, database, _, _, _, replica) in &held {
        family.add(&[("name", name), ("database", database)], replica.unbuilt());
    }
    let standings = node.standings();
    let help = "Whether a sync that was declared is in step (1) or not (0).";
    let mut family = Family::new(&mut text, "anabranch_sync_in_step", "gauge", help);
    for standing in &standings {
        let address = standing.addresses.first().map_or("", String::as_str);
        let there = matches!(standing.state, At::InStep | At::Resting { .. });
        let labels =
            [("name", &*standing.name), ("address", address), ("state", standing.state.name())];
        family.add(&labels, u8::from(there));
    }
    let help = "When a sync was in step last, in seconds since 1970.";
    let mut family = Family::new(&mut text, "anabranch_sync_last_success_seconds", "gauge", help);
    for standing in &standings {
        let address = standing.addresses.first().map_or("", String::as_str);
        if let Some(at) = standing.last_success {
            family.add(&[("name", &*standing.name), ("address", address)], at / 1_000_000);
        }
    }
    let help = "Bytes of sessions that passed since the node started.";
    let mut family = Family::new(&mut text, "anabranch_session_bytes_total", "counter", help);
    let (sent, received) = node.bytes_passed();
    family.add(&[("direction", "sent")], sent);
    family.add(&[("direction", "received")], received);
    let help = "Peers that came by themselves and are here now.";
    Family::new(&mut text, "anabranch_visitors", "gauge", help).add(&[], node.visitors().len());
    let help = "What went wrong with peers that came, by reason.";
    let mut family = Family::new(&mut text, "anabranch_troubles_total", "counter", help);
    for (code, times) in node.troubles_counted() {
        family.add(&[("code", code)], times);
    }
    Ok(text)
}
