//! `key`: the key of this device under a passphrase, and carried to another home.

use crate::args::{KeyCommand, PassphraseArgs};
use crate::context::Context;
use crate::failure::Failure;
use crate::passphrase;
use serde_json::json;
use std::path::Path;

/// Locks, exports or imports.
pub(crate) fn run(context: &Context, command: KeyCommand) -> Result<(), Failure> {
    match command {
        KeyCommand::Passphrase(args) => lock(context, &args),
        KeyCommand::Export { file, new } => export(context, &file, new.as_deref()),
        KeyCommand::Import { file } => import(context, &file),
    }
}

fn lock(context: &Context, args: &PassphraseArgs) -> Result<(), Failure> {
    let home = context.home()?;
    let text = if args.remove {
        home.lock_key(None)?;
        "the key is not locked any more: whoever reads its file is this device"
    } else {
        home.lock_key(Some(&passphrase::new(args.new.as_deref())?))?;
        "the key is locked; nobody can restore its passphrase"
    };
    let device = home.key().node_id().to_string();
    context.output.summary(text, &json!({ "device": device, "locked": !args.remove }))
}

fn export(context: &Context, file: &Path, new: Option<&str>) -> Result<(), Failure> {
    let home = context.home()?;
    home.export_key(file, &passphrase::new(new)?)?;
    let device = home.key().node_id();
    let text = format!("{} has the key of {device}, locked by its passphrase", file.display());
    let object = json!({ "device": device.to_string(), "file": file.display().to_string() });
    context.output.summary(&text, &object)
}

fn import(context: &Context, file: &Path) -> Result<(), Failure> {
    let device = context.import_key(file)?;
    let text = format!("this home is that of {device}; its key is locked by the passphrase");
    context.output.summary(&text, &json!({ "device": device.to_string(), "locked": true }))
}
