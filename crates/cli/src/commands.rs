//! What each command does, one module a command or group.

mod config;
mod db;
mod device;
mod folder;
pub(crate) mod folders;
mod follow;
mod join;
mod key;
mod members;
mod peers;
mod requests;
mod serve;
mod share;
mod sim;
mod status;
mod sync;
mod ticket;

use crate::args::{Arguments, Command};
use crate::context::Context;
use crate::failure::Failure;
use clap::CommandFactory;
use clap_complete::Shell;

/// Carries out a command.
pub(crate) async fn run(context: &Context, command: Command) -> Result<(), Failure> {
    match command {
        Command::Sync(args) => sync::run(context, &args).await,
        Command::Share(args) => share::run(context, &args).await,
        Command::Ticket(args) => ticket::run(context, &args).await,
        Command::Join(args) => join::run(context, &args).await,
        Command::Members(args) => members::run(context, args),
        Command::VerifyProof { file } => members::verify_proof(context, &file),
        Command::Requests(command) => requests::run(context, command),
        Command::Serve(args) => serve::run(context, &args).await,
        Command::Status(args) => status::run(context, &args),
        Command::Peers(args) => peers::run(context, args.command),
        Command::Id => device::id(context),
        Command::Key(command) => key::run(context, command),
        Command::Init => device::init(context),
        Command::Config(args) => config::run(context, &args),
        Command::Db(command) => db::run(context, command).await,
        Command::Folder(command) => folder::run(context, command).await,
        Command::Sim(args) => sim::run(context, &args),
        Command::Completions { shell } => completions(context, shell),
    }
}

fn completions(context: &Context, shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "anabranch", &mut script);
    let script = String::from_utf8_lossy(&script);
    context.output.answer(&script, &serde_json::json!({ "script": script }))
}
