//! The commands below `anabranch requests`.

use super::{RoleArg, lifetime};
use anabranch::{NodeId, Role};
use clap::{Args, Subcommand, ValueEnum};
use std::time::Duration;

#[derive(Debug, Subcommand)]
pub(crate) enum RequestsCommand {
    /// List the devices that ask to be let in, and those that were rejected
    #[command(after_help = "Examples:
  anabranch requests ls
  anabranch requests ls notes --json")]
    Ls {
        /// Only of this replica
        #[arg(value_name = "REPLICA")]
        replica: Option<String>,
    },
    /// Let in a device that asked
    #[command(after_help = "Examples:
  anabranch requests approve notes node_…
  anabranch requests approve notes node_… --role read")]
    Approve {
        #[command(flatten)]
        request: RequestArgs,
        /// What it may do [default: what it asked for, unless that is admin]
        #[arg(long, value_enum)]
        role: Option<RoleArg>,
    },
    /// Reject a device that asked: it is told so, and may not ask again
    #[command(after_help = "Example:\n  anabranch requests reject notes node_…")]
    Reject(RequestArgs),
    /// Forget a device that asked or was rejected: it may ask again
    #[command(after_help = "Example:\n  anabranch requests forget notes node_…")]
    Forget(RequestArgs),
    /// Show, set or remove the policy by which 'serve' approves requests by itself
    #[command(after_help = "Examples:
  anabranch requests policy notes                                  show it
  anabranch requests policy notes --device node_… --role write     this device, when it asks
  anabranch requests policy notes --anyone 5 --expires 1d          the next five, today
  anabranch requests policy notes --remove")]
    Policy(PolicyArgs),
}

#[derive(Debug, Args)]
pub(crate) struct RequestArgs {
    /// What it asks to be let in to
    #[arg(value_name = "REPLICA")]
    pub(crate) replica: String,
    /// The device, as 'requests ls' shows it
    #[arg(value_name = "DEVICE")]
    pub(crate) device: NodeId,
}

#[derive(Debug, Args)]
pub(crate) struct PolicyArgs {
    /// What it lets devices in to
    #[arg(value_name = "REPLICA")]
    pub(crate) replica: String,
    /// Approve this device; several may be given
    #[arg(long, value_name = "DEVICE")]
    pub(crate) device: Vec<NodeId>,
    /// Approve so many devices, whoever they are
    #[arg(long, value_name = "N")]
    pub(crate) anyone: Option<u32>,
    /// What they may ask for at most
    #[arg(long, value_enum, default_value = "read")]
    pub(crate) role: MemberRoleArg,
    /// How long it counts, such as 12h or 7d [default: until it is removed]
    #[arg(long, value_name = "TIME", value_parser = lifetime)]
    pub(crate) expires: Option<Duration>,
    /// Approve nothing by itself any more
    #[arg(long, conflicts_with_all = ["device", "anyone", "expires"])]
    pub(crate) remove: bool,
}

/// What a device may become without an admin's say.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum MemberRoleArg {
    /// Receive everything
    Read,
    /// And write
    Write,
}

impl From<MemberRoleArg> for Role {
    fn from(role: MemberRoleArg) -> Self {
        match role {
            MemberRoleArg::Read => Self::Read,
            MemberRoleArg::Write => Self::Write,
        }
    }
}
