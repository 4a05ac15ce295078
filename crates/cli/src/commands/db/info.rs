//! `db info`: what a database holds, how large it is, and who may use it.

use crate::args::DbArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::table;
use crate::units;
use anabranch::engine::core::cells::StoreInfo;
use anabranch::engine::core::id::to_base32;
use anabranch::engine::core::membership::Grant;
use anabranch::engine::core::ops::Subject;
use anabranch::engine::core::storage::StorageError;
use anabranch::engine::core::view::Totals;
use anabranch::{NodeId, Role, Sealed};
use anabranch_api::kind_name;
use serde_json::{Value, json};

struct Info {
    totals: Totals,
    stores: Vec<StoreInfo>,
    grants: Vec<Grant>,
    role: Option<Role>,
    frontier: [u8; 32],
    digest: Option<[u8; 32]>,
    sealed: Sealed,
    /// Some of it cannot be opened here.
    closed: bool,
}

/// Prints everything about a database.
pub(super) fn run(context: &Context, args: &DbArgs) -> Result<(), Failure> {
    let node = context.node()?;
    let db = context.database(&node, &args.db)?;
    let info = db.replica().read_any(|view| {
        Ok::<_, StorageError>(Info {
            totals: view.totals()?,
            stores: view.stores()?,
            grants: view.grants()?,
            role: view.role_of(&node.id())?,
            frontier: view.frontier_digest()?,
            digest: view.state_digest()?,
            sealed: view.sealed()?,
            closed: view.is_closed()?,
        })
    })?;
    let record = node.inner().record_of(db.id())?;
    let name = record.as_ref().map(|r| r.name.clone()).unwrap_or_default();
    let file = record.map(|r| r.path.display().to_string()).unwrap_or_default();
    let size = db.replica().storage().size()?;
    let digest = info.digest.map(|d| to_base32(&d));
    let object = json!({
        "name": name,
        "database": db.id().to_string(),
        "file": file,
        "bytes": size,
        "entries": info.totals.entries,
        "logs": info.totals.branches,
        "role": info.role.map(Role::name),
        "sealed": info.sealed != Sealed::Nothing,
        "sealed_stores": anabranch_api::sealed_stores(&info.sealed),
        "opened": !info.closed,
        "digest": digest,
        "frontier": to_base32(&info.frontier),
        "stores": info.stores.iter().map(store_object).collect::<Vec<_>>(),
        "members": info.grants.iter().map(grant_object).collect::<Vec<_>>(),
    });
    let lacks = if info.closed { "needs a key" } else { "needs a newer version" };
    let mut head = vec![
        vec!["name".into(), name],
        vec!["database".into(), db.id().to_string()],
        vec!["file".into(), file],
        vec!["size".into(), units::bytes(size)],
        vec!["entries".into(), units::number(info.totals.entries)],
        vec!["logs".into(), units::number(info.totals.branches)],
        vec!["my role".into(), info.role.map_or("none", Role::name).into()],
        vec!["digest".into(), digest.unwrap_or_else(|| lacks.into())],
        vec!["frontier".into(), to_base32(&info.frontier)],
    ];
    let sealed = match &info.sealed {
        Sealed::Nothing => None,
        Sealed::Everything => Some("yes".to_owned()),
        Sealed::Stores(names) => Some(names.join(", ")),
    };
    if let Some(sealed) = sealed {
        let opened = match (info.closed, info.role) {
            (false, _) => "this device has every key",
            (true, Some(Role::Relay)) => "this device relays what it cannot read",
            (true, _) => "some of it with a key that this device does not have yet",
        };
        head.push(vec!["sealed".into(), format!("{sealed}; {opened}")]);
    }
    let stores: Vec<_> = info.stores.iter().map(store_row).collect();
    let grants: Vec<_> = info.grants.iter().map(|g| grant_row(g, node.id())).collect();
    let mut text = table(&head);
    for (title, rows) in [("stores", stores), ("members", grants)] {
        if !rows.is_empty() {
            text = format!("{text}\n\n{title}\n{}", table(&rows));
        }
    }
    context.output.answer(&text, &object)
}

fn store_row(store: &StoreInfo) -> Vec<String> {
    vec![
        format!("  {}", kind_name(store.id.kind)),
        store.id.name.clone(),
        units::counted(store.live, "live value", "live values"),
        match store.digest {
            Some(digest) => to_base32(&digest[..10]),
            None if store.closed => "needs a key".into(),
            None => "needs a newer version".into(),
        },
    ]
}

fn store_object(store: &StoreInfo) -> Value {
    json!({
        "kind": kind_name(store.id.kind),
        "name": store.id.name,
        "live": store.live,
        "digest": store.digest.map(|d| to_base32(&d)),
    })
}

fn grant_row(grant: &Grant, me: NodeId) -> Vec<String> {
    let who = match grant.subject {
        Subject::Device(device) if device == me => format!("{} (this device)", device.short()),
        Subject::Device(device) => device.short(),
        Subject::Anyone => "anyone".into(),
        Subject::Ticket(_) => "ticket".into(),
        Subject::Person(person) => format!("the devices of {}", person.short()),
    };
    let mut terms = Vec::new();
    if let Some(limit) = grant.terms.limit {
        terms.push(format!("for {}", units::counted(u64::from(limit), "device", "devices")));
    }
    if let Some(end) = grant.terms.expires {
        terms.push(format!("until {}", anabranch_api::date(end)));
    }
    let (role, by) = (grant.role.name().into(), format!("by {}", grant.by.short()));
    vec![format!("  {who}"), role, by, terms.join(", ")]
}

fn grant_object(grant: &Grant) -> Value {
    let (kind, subject) = match grant.subject {
        Subject::Device(device) => ("device", Some(device.to_string())),
        Subject::Anyone => ("anyone", None),
        Subject::Ticket(key) => ("ticket", Some(to_base32(&key.0))),
        Subject::Person(person) => ("person", Some(person.to_string())),
    };
    json!({
        "kind": kind,
        "subject": subject,
        "role": grant.role.name(),
        "by": grant.by.to_string(),
        "limit": grant.terms.limit,
        "expires": grant.terms.expires.map(anabranch_api::date),
    })
}
