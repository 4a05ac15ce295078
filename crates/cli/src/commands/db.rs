//! `anabranch db …`: what can be done with a database by itself.

mod blob;
mod conflicts;
mod counter;
mod export;
mod forget;
mod import;
mod index;
mod info;
mod list;
mod rows;
mod set;
mod verify;
mod watch;

use crate::args::DbCommand;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::table;
use crate::units;
use anabranch::engine::core::id::to_base32;
use anabranch::{NewDatabase, Sealed};
use serde_json::json;

pub(crate) use forget::confirm;
pub(crate) use verify::replica as verify;

/// Carries out a command.
pub(crate) async fn run(context: &Context, command: DbCommand) -> Result<(), Failure> {
    match command {
        DbCommand::New { name, recovery, sealed } => {
            let sealed = scope(sealed.as_deref());
            new(context, &name, NewDatabase { recovery: recovery.as_deref(), sealed })
        }
        DbCommand::Ls => ls(context),
        DbCommand::Info(args) => info::run(context, &args),
        DbCommand::Import(args) => import::run(context, &args).await,
        DbCommand::Export(args) => export::run(context, &args),
        DbCommand::Get(args) => rows::get(context, &args),
        DbCommand::Put { row, value } => rows::put(context, &row, &value).await,
        DbCommand::Rm(args) => rows::rm(context, &args).await,
        DbCommand::Rows(args) => rows::list(context, &args),
        DbCommand::Find(args) => index::find(context, &args),
        DbCommand::Index(command) => index::run(context, &command).await,
        DbCommand::Counter(command) => counter::run(context, &command).await,
        DbCommand::Set(command) => set::run(context, &command).await,
        DbCommand::List(command) => list::run(context, &command).await,
        DbCommand::Blob(command) => blob::run(context, command).await,
        DbCommand::Gc(args) => blob::gc(context, &args).await,
        DbCommand::Watch(args) => watch::watch(context, &args).await,
        DbCommand::Log(args) => watch::log(context, &args),
        DbCommand::Conflicts(args) => conflicts::list(context, &args),
        DbCommand::Resolve { row, take } => conflicts::resolve(context, &row, take).await,
        DbCommand::Digest(args) => digest(context, &args.db),
        DbCommand::Verify(args) => verify::run(context, &args).await,
        DbCommand::Forget { db, yes } => forget::run(context, &db, yes),
    }
}

/// The parts of a path as it is typed.
fn path_parts(path: &str) -> Result<Vec<&str>, Failure> {
    let parts: Vec<&str> = path.split('/').collect();
    if parts.iter().any(|part| part.is_empty()) {
        return Err(Failure::usage(format!("'{path}' is no path"))
            .hint("a path is one or more names with / between them, such as pages/home"));
    }
    Ok(parts)
}

/// What '--sealed' asks for.
fn scope(sealed: Option<&str>) -> Sealed {
    match sealed {
        None => Sealed::Nothing,
        Some("") => Sealed::Everything,
        Some(names) => {
            Sealed::Stores(names.split(',').map(|name| name.trim().to_owned()).collect())
        }
    }
}

fn new(context: &Context, name: &str, terms: NewDatabase<'_>) -> Result<(), Failure> {
    let node = context.node()?;
    let (recovery, sealed) = (terms.recovery, terms.sealed.clone());
    let id = node.inner().create_with(name, terms)?.database();
    let mut text = match &sealed {
        Sealed::Nothing => format!("made database {name} ({id})"),
        Sealed::Everything => format!("made sealed database {name} ({id})"),
        Sealed::Stores(names) => {
            format!("made database {name} ({id}); sealed in it: {}", names.join(", "))
        }
    };
    if let Some(file) = recovery {
        let file = file.display();
        text.push_str(&format!("\n{file} lets whoever has it become its admin: keep it elsewhere"));
    }
    let recovery = recovery.map(|file| file.display().to_string());
    let document = json!({
        "name": name,
        "database": id.to_string(),
        "recovery": recovery,
        "sealed": sealed != Sealed::Nothing,
        "sealed_stores": anabranch_api::sealed_stores(&sealed),
    });
    context.output.summary(&text, &document)
}

fn ls(context: &Context) -> Result<(), Failure> {
    let node = context.node()?;
    let (mut rows, mut objects, mut damaged) = (Vec::new(), Vec::new(), Vec::new());
    let records = node.inner().records()?;
    for record in records.iter().filter(|r| !r.folder) {
        let found = node.inner().open_record(record).map_err(Failure::from).and_then(|replica| {
            let entries = replica.look(|view| view.totals())?.entries;
            Ok((entries, replica.storage().size()?))
        });
        let id = record.database.to_string();
        let mut row = vec![record.name.clone()];
        match found {
            Ok((entries, size)) => {
                row.extend([units::counted(entries, "entry", "entries"), units::bytes(size)]);
                objects.push(json!({
                    "name": record.name, "database": id, "entries": entries, "bytes": size,
                }));
            }
            Err(failure) => {
                row.push(failure.line());
                objects.push(json!({
                    "name": record.name, "database": id, "error": failure.line(),
                }));
                damaged.push(record.name.as_str());
            }
        }
        rows.push(row);
    }
    if rows.is_empty() {
        context.output.note("there is no database here yet; 'anabranch db new NAME' makes one");
    }
    context.output.answer(&table(&rows), &json!({ "databases": objects }))?;
    match damaged.as_slice() {
        [] => Ok(()),
        names => Err(Failure::partly(format!("{} cannot be opened", names.join(", ")))),
    }
}

fn digest(context: &Context, name: &str) -> Result<(), Failure> {
    let node = context.node()?;
    let db = context.database(&node, name)?;
    let closed = db.replica().look(|view| view.is_closed())?;
    let digest = db.digest()?.ok_or_else(|| match closed {
        true => Failure::failed("this database is sealed with a key that is not here").hint(
            "a device that may read gets it from an admin it syncs with; one that relays does not",
        ),
        false => Failure::failed("a store of this database holds operations of a later version")
            .hint("update anabranch to get its digest"),
    })?;
    let text = to_base32(&digest);
    context.output.answer(&text, &json!({ "digest": text }))
}
