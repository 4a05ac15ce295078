//! `db forget`: deletes the replica of this device.

use crate::args::DbArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::plain;
use crate::place::no_database;
use serde_json::json;
use std::io::{self, BufRead, IsTerminal, Write};

/// Forgets a database, after asking.
pub(super) fn run(context: &Context, args: &DbArgs, yes: bool) -> Result<(), Failure> {
    let node = context.node()?;
    let name = args.db.strip_prefix("db:").unwrap_or(&args.db);
    let records = node.inner().records()?;
    let record = records
        .iter()
        .find(|r| !r.folder && (r.name == name || r.database.to_string() == name))
        .ok_or_else(|| no_database(name))?;
    if !yes {
        let text =
            format!("This deletes {name} from this device; what no other device has is lost.");
        confirm(&text, &record.name)?;
    }
    node.inner().forget(record)?;
    let object = json!({ "name": record.name, "database": record.database.to_string() });
    context.output.summary(&format!("forgot {}", record.name), &object)
}

/// Asks for the name of what is to be forgotten.
pub(crate) fn confirm(consequence: &str, name: &str) -> Result<(), Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::usage(format!("nobody can be asked whether to forget {name}"))
            .hint("give --yes to do so without being asked"));
    }
    let question = format!("{consequence}\nType its name, {name}, to go on: ");
    io::stderr().lock().write_all(plain(&question).as_bytes())?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    if answer.trim() == name { Ok(()) } else { Err(Failure::failed("nothing was forgotten")) }
}
