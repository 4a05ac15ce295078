//! `requests`: devices that ask to be let in, and what becomes of them.

use crate::args::{PolicyArgs, RequestArgs, RequestsCommand};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::table;
use crate::replicas::{Opened, named};
use crate::units;
use anabranch::engine::node::{Asking, Policy, Record, Replica};
use anabranch::{NodeId, Role, Timestamp};
use serde_json::{Value, json};
use std::sync::Arc;

/// Lists, approves, rejects, forgets, or says what is approved by itself.
pub(crate) fn run(context: &Context, command: RequestsCommand) -> Result<(), Failure> {
    match command {
        RequestsCommand::Ls { replica } => list(context, replica.as_deref()),
        RequestsCommand::Approve { request, role } => {
            let (record, replica) = open(context, &request.replica)?;
            let role = replica.approve(&request.device, role.map(Role::from))?;
            let text =
                format!("{} is let in to {} to {}", request.device, record.name, role.name());
            context.output.summary(&text, &object(&record, &request.device, Some(role)))
        }
        RequestsCommand::Reject(request) => {
            decide(context, &request, Replica::reject, "is not let in to")
        }
        RequestsCommand::Forget(request) => {
            decide(context, &request, Replica::forget_request, "is forgotten and may ask again for")
        }
        RequestsCommand::Policy(args) => policy(context, &args),
    }
}

fn open(context: &Context, text: &str) -> Result<(Record, Arc<Replica>), Failure> {
    let node = context.node()?;
    let record = named(&node, text)?;
    let replica = Arc::clone(Opened::new(&node, &record)?.replica());
    Ok((record, replica))
}

fn decide(
    context: &Context,
    request: &RequestArgs,
    act: impl FnOnce(&Replica, &NodeId) -> Result<(), anabranch::NodeError>,
    done: &str,
) -> Result<(), Failure> {
    let (record, replica) = open(context, &request.replica)?;
    act(&replica, &request.device)?;
    let text = format!("{} {done} {}", request.device, record.name);
    context.output.summary(&text, &object(&record, &request.device, None))
}

fn object(record: &Record, device: &NodeId, role: Option<Role>) -> Value {
    json!({
        "name": record.name,
        "database": record.database.to_string(),
        "device": device.to_string(),
        "role": role.map(Role::name),
    })
}

fn list(context: &Context, replica: Option<&str>) -> Result<(), Failure> {
    let node = context.node()?;
    let records = match replica {
        Some(text) => vec![named(&node, text)?],
        None => context.home()?.records()?,
    };
    let (mut rows, mut objects, mut broken) = (Vec::new(), Vec::new(), 0);
    for record in &records {
        let opened = Opened::new(&node, record);
        let requests = opened.and_then(|opened| Ok(opened.replica().requests()?));
        match requests {
            Ok(requests) => {
                rows.extend(requests.iter().map(|asking| row(record, asking)));
                objects.extend(requests.iter().map(|asking| request_object(record, asking)));
            }
            Err(failure) if records.len() == 1 => return Err(failure),
            Err(failure) => {
                context.output.warn(&format!("{}: {}", record.name, failure.line()));
                broken += 1;
            }
        }
    }
    if rows.is_empty() && broken == 0 {
        context.output.note("no device asks to be let in");
    }
    context.output.answer(&table(&rows), &json!({ "requests": objects }))?;
    match broken {
        0 => Ok(()),
        n => {
            let which = units::counted(n, "replica", "replicas");
            Err(Failure::partly(format!("{which} cannot be opened")))
        }
    }
}

fn row(record: &Record, asking: &Asking) -> Vec<String> {
    let state = if asking.rejected { "rejected" } else { "waiting" };
    vec![
        record.name.clone(),
        asking.device.to_string(),
        asking.request.role.name().to_owned(),
        format!("{state}, {}", units::ago(asking.at)),
        asking.request.text.clone(),
    ]
}

fn request_object(record: &Record, asking: &Asking) -> Value {
    let mut object = object(record, &asking.device, Some(asking.request.role));
    object["person"] = asking.request.person.map(|person| person.to_string()).into();
    object["message"] = asking.request.text.clone().into();
    object["at"] = anabranch_api::date(asking.at).into();
    object["rejected"] = asking.rejected.into();
    object
}

fn policy(context: &Context, args: &PolicyArgs) -> Result<(), Failure> {
    let (record, replica) = open(context, &args.replica)?;
    let sets = !args.device.is_empty() || args.anyone.is_some();
    if args.remove {
        replica.set_policy(None)?;
    } else if sets {
        let until = args.expires.map(|time| {
            let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
            Timestamp(units::now().0.saturating_add(micros))
        });
        replica.set_policy(Some(&Policy {
            devices: args.device.iter().copied().collect(),
            anyone: args.anyone.unwrap_or(0),
            role: args.role.into(),
            until,
        }))?;
    } else if args.expires.is_some() {
        return Err(Failure::usage("a policy is for somebody")
            .hint("list devices with --device, or say how many others with --anyone"));
    }
    let policy = replica.policy()?;
    let text = match &policy {
        None => format!("requests for {} wait for an admin, each by itself", record.name),
        Some(policy) => described(&record, policy),
    };
    let object = json!({
        "name": record.name,
        "database": record.database.to_string(),
        "policy": policy.as_ref().map(policy_object),
    });
    context.output.answer(&text, &object)
}

fn described(record: &Record, policy: &Policy) -> String {
    let until = match policy.until {
        Some(until) if until <= units::now() => ", which is over".to_owned(),
        Some(until) => format!(" until {}", anabranch_api::date(until)),
        None => String::new(),
    };
    let role = policy.role.name();
    let mut lines =
        vec![format!("let in to {} to {role} at most, when they ask{until}:", record.name)];
    lines.extend(policy.devices.iter().map(|device| format!("  {device}")));
    if policy.anyone > 0 {
        let others = units::counted(u64::from(policy.anyone), "device", "devices");
        lines.push(format!("  {others} more, whoever they are"));
    }
    lines.join("\n")
}

fn policy_object(policy: &Policy) -> Value {
    json!({
        "devices": policy.devices.iter().map(NodeId::to_string).collect::<Vec<_>>(),
        "anyone": policy.anyone,
        "role": policy.role.name(),
        "until": policy.until.map(anabranch_api::date),
    })
}
