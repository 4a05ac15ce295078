//! The commands below `anabranch members`.

use super::RoleArg;
use anabranch::engine::core::id::IdError;
use anabranch::engine::core::ops::Subject;
use anabranch::{DatabaseId, NodeId};
use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  anabranch members notes                              who may do what
  anabranch members notes grant node_… write
  anabranch members notes grant db_… write             all devices of a person, as they come and go
  anabranch members notes revoke node_…                a lost laptop
  anabranch members notes why node_…                   who let it in")]
pub(crate) struct MembersArgs {
    /// Of which replica
    #[arg(value_name = "REPLICA")]
    pub(crate) replica: String,
    #[command(subcommand)]
    pub(crate) command: Option<MembersCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum MembersCommand {
    /// List who may do what
    #[command(after_help = "Examples:
  anabranch members notes ls
  anabranch members notes ls --all --json")]
    Ls {
        /// And what was revoked
        #[arg(long)]
        all: bool,
    },
    /// Give a device, a person or everybody a role; what could be done beyond that is revoked
    #[command(after_help = "Examples:
  anabranch members notes grant node_… admin
  anabranch members notes grant node_… read
  anabranch members notes grant anyone read
  anabranch members notes grant db_… write      the devices that are members of that database

A person is a database that is used for nothing else: 'anabranch db new ana' on one device, 'anabranch ticket ana' for
the others, 'anabranch db info ana' prints the id. Devices that are let in or put out there are so here as well, once one of
them was in step with both.")]
    Grant {
        /// A device, a person's database, or 'anyone'
        #[arg(value_name = "WHO", value_parser = subject)]
        who: Subject,
        /// What it may do
        #[arg(value_enum)]
        role: RoleArg,
        /// Its rank, 0 the highest: admins revoke only what ranks below them [default: your own]
        #[arg(long, value_name = "N")]
        priority: Option<u32>,
    },
    /// Take every right from a device, a ticket or everybody, or give up those of this device
    #[command(after_help = "Examples:
  anabranch members notes revoke node_…          what it wrote so far stays
  anabranch members notes revoke node_… --all    nothing that it wrote counts
  anabranch members notes revoke anyone
  anabranch members notes revoke @ticket.txt     nobody comes in by it any more")]
    Revoke {
        /// A device, a person's database, 'anyone', or a ticket (from @FILE or - to keep it out of lists of processes)
        #[arg(value_name = "WHO")]
        who: String,
        /// Nothing that was written with these rights counts any more
        #[arg(long)]
        all: bool,
    },
    /// Write again what this device wrote without a right to it, after it was let in once more
    #[command(
        after_help = "Example:\n  anabranch members notes rewrite    'anabranch status' says if there is anything"
    )]
    Rewrite,
    /// Make a key that lets whoever has it become an admin, for the case that all admins' devices are lost
    #[command(
        after_help = "Example:\n  anabranch members notes recovery notes.key    and keep that file elsewhere"
    )]
    Recovery {
        /// Where to write it
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Become an admin by such a key
    #[command(after_help = "Examples:
  anabranch members notes recover notes.key
  anabranch members notes revoke node_…      then, the lost device")]
    Recover {
        /// Where it was written
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Write down a proof that a device wrote two histories of one log: 'anabranch verify-proof' checks it anywhere
    #[command(after_help = "Example:\n  anabranch members notes proof node_… proof.bin")]
    Proof {
        /// The device
        #[arg(value_name = "DEVICE")]
        device: NodeId,
        /// Where to write it
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Show who let a device in, up to whoever founded the database
    #[command(after_help = "Example:\n  anabranch members notes why node_…")]
    Why {
        /// The device
        #[arg(value_name = "DEVICE")]
        device: NodeId,
    },
}

/// A device, a person, or everybody.
pub(crate) fn subject(text: &str) -> Result<Subject, String> {
    if text == "anyone" {
        return Ok(Subject::Anyone);
    }
    if text.starts_with(DatabaseId::PREFIX) {
        return text.parse().map(Subject::Person).map_err(|e: IdError| e.to_string());
    }
    let device = text.parse::<NodeId>().map_err(|e| format!("{e}; or say 'anyone'"))?;
    Ok(Subject::Device(device))
}
