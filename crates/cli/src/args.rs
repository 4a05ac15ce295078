//! The command line: every command and option, with an example for each. What they do is in [`crate::commands`].

mod blob;
mod db;
mod folder;
mod key;
mod members;
mod requests;

use anabranch::Role;
use anabranch::engine::node::Priority;
use anabranch::engine::node::config::parse_duration;
use anabranch_sim::plan::FaultKind;
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use std::path::PathBuf;
use std::time::Duration;

pub(crate) use blob::*;
pub(crate) use db::*;
pub(crate) use folder::*;
pub(crate) use key::*;
pub(crate) use members::*;
pub(crate) use requests::*;

const PLACES: &str = "\
HERE, THERE and REPLICA name a replica:
  DIR                       a folder; an existing path wins over all else
  NAME                      a database of this device; db:NAME where a path has the same name
THERE may also be
  host:DIR, host:NAME       on another machine, through ssh
  http://HOST:PORT[/NAME]   a node that serves it, of which this device is a member
  ticket_…, @FILE, -        a ticket; from a file or standard input it stands in no list of processes";

const EXITS: &str =
    "Exit codes: 0 done (conflicts included), 1 failed, 2 wrong usage, 3 partly done.";

/// Keeps replicas of databases in step between any machines, with no server required.
#[derive(Debug, Parser)]
#[command(name = "anabranch", version, max_term_width = 100)]
#[command(after_help = EXITS, after_long_help = format!("{PLACES}\n\n{EXITS}"))]
pub(crate) struct Arguments {
    /// Where this device keeps its key and databases [default: by the platform's convention]
    #[arg(long, global = true, value_name = "DIR", env = "ANABRANCH_HOME", hide_env_values = true)]
    pub(crate) home: Option<PathBuf>,
    /// What unlocks this device's key, if it is locked: a file that holds it, or - for standard input
    #[arg(long, global = true, value_name = "@FILE|-")]
    pub(crate) passphrase: Option<String>,
    /// Print objects for programs instead of text
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Print nothing but what was asked for, and errors
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Say more on standard error; twice for even more
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Bring two replicas up to date with each other, both ways
    Sync(SyncArgs),
    /// Print a ticket for a replica and serve it until interrupted
    Share(ShareArgs),
    /// Print a ticket that lets other devices in
    Ticket(TicketArgs),
    /// Get a replica of what a ticket is for, or ask to be let in; run it again to go on after a failure
    Join(JoinArgs),
    /// Show, grant and revoke who may do what
    Members(MembersArgs),
    /// Check a proof that a device wrote two histories of one log; no database is needed
    #[command(after_help = "Example:\n  anabranch verify-proof proof.bin")]
    VerifyProof {
        /// The proof, as 'anabranch members REPLICA proof' writes it
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Decide about devices that ask to be let in
    #[command(subcommand, arg_required_else_help = true)]
    Requests(RequestsCommand),
    /// Keep all replicas in step with their peers until interrupted
    Serve(ServeArgs),
    /// Show the replicas of this device and how they stand
    Status(StatusArgs),
    /// Show the devices this one has talked to, or change with whom replicas are kept in step
    Peers(PeersArgs),
    /// Print the id of this device
    #[command(after_help = "Example:\n  anabranch id")]
    Id,
    /// Lock the key of this device by a passphrase, or carry it to another home
    #[command(subcommand, arg_required_else_help = true)]
    Key(KeyCommand),
    /// Make the home of this device, if it is not there yet
    #[command(after_help = "Example:\n  anabranch init --home /srv/anabranch")]
    Init,
    /// Show or change settings
    Config(ConfigArgs),
    /// Work with databases
    #[command(subcommand, arg_required_else_help = true)]
    Db(DbCommand),
    /// Look into folders that are replicas
    #[command(subcommand, arg_required_else_help = true)]
    Folder(FolderCommand),
    /// Attack this program's engine in a simulation and see whether its promises hold
    Sim(SimArgs),
    /// Print a script that completes commands in a shell
    #[command(
        after_help = "Example:\n  anabranch completions bash > ~/.local/share/bash-completion/completions/anabranch"
    )]
    Completions {
        /// The shell
        shell: Shell,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  anabranch sim                              100 simulations nobody has seen before
  anabranch sim --seeds 10000
  anabranch sim --seed 42 --story            one, and what happens in it
  anabranch sim --faults power,copy --nodes 5
  anabranch sim --seeds 10000 --save found.json   keep what fails
  anabranch sim --plan found.json

Faults: crash (processes die, links break), power (what was not synced is lost), full (disks fill up),
net (networks part, links lose and alter frames), clock (days off, jumps), copy (state restored from older
copies, or cloned), rogue (members lie and send garbage), rot (bits of what is stored change).")]
pub(crate) struct SimArgs {
    /// The seed to simulate, or with --seeds the first one [default: by the clock]
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// How many seeds [default: 100, or 1 with --seed]
    #[arg(long, value_name = "N")]
    pub(crate) seeds: Option<u64>,
    /// The most nodes of one simulation
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(crate) nodes: usize,
    /// What may go wrong
    #[arg(long, value_name = "FAULT,…", value_delimiter = ',', default_values = FaultKind::ALL.map(FaultKind::name))]
    pub(crate) faults: Vec<FaultKind>,
    /// Print what happens, line by line
    #[arg(long)]
    pub(crate) story: bool,
    /// Go on after a seed that fails, and list all that did
    #[arg(long, requires = "seeds", conflicts_with = "story")]
    pub(crate) go_on: bool,
    /// Simulate what a file says that --save wrote
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seed", "seeds", "nodes", "faults"])]
    pub(crate) plan: Option<PathBuf>,
    /// Write what failed, made as short as possible, to a file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["go_on", "plan"])]
    pub(crate) save: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  anabranch sync photos /mnt/disk/photos        two folders; the second may be new
  anabranch sync photos laptop:photos           through ssh
  anabranch sync                                every replica, with all its addresses
  anabranch sync notes                          one, with all its addresses
  anabranch sync notes http://10.0.0.2:7700     one, with one peer
  anabranch sync notes laptop:notes --pull
  anabranch sync photos /mnt/disk/photos --follow    and go on with every change until Ctrl-C", after_long_help = PLACES)]
pub(crate) struct SyncArgs {
    /// What is here; every replica unless named
    #[arg(value_name = "HERE")]
    pub(crate) here: Option<String>,
    /// What it is synced with; all its remembered addresses unless named
    #[arg(value_name = "THERE")]
    pub(crate) there: Option<String>,
    /// Only send
    #[arg(long, conflicts_with = "pull")]
    pub(crate) push: bool,
    /// Only receive
    #[arg(long)]
    pub(crate) pull: bool,
    /// Only say what would be moved
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Then stay in step, change by change, until interrupted
    #[arg(long, conflicts_with_all = ["push", "pull", "dry_run"])]
    pub(crate) follow: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  anabranch peers                                        devices that were talked to
  anabranch peers add notes http://10.0.0.2:7700         'serve' stays connected
  anabranch peers add notes laptop:notes --every 15m --pull
  anabranch peers rm notes laptop:notes")]
pub(crate) struct PeersArgs {
    #[command(subcommand)]
    pub(crate) command: Option<PeersCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PeersCommand {
    /// Declare that 'serve' keeps a replica in step with whoever answers at an address
    #[command(after_help = "Examples:
  anabranch peers add notes http://10.0.0.2:7700
  anabranch peers add photos laptop:photos --every 1h --push --priority low")]
    Add(PeersAddArgs),
    /// Take that back; the replica stays as it is
    #[command(after_help = "Example:\n  anabranch peers rm notes http://10.0.0.2:7700")]
    Rm(PeersRmArgs),
}

#[derive(Debug, Args)]
pub(crate) struct PeersAddArgs {
    /// Which replica
    #[arg(value_name = "REPLICA")]
    pub(crate) replica: String,
    /// Where the peer is: http://HOST:PORT or host:PATH; more addresses of one peer are found to be that
    #[arg(value_name = "ADDRESS")]
    pub(crate) address: String,
    /// Only send
    #[arg(long, conflicts_with = "pull")]
    pub(crate) push: bool,
    /// Only receive
    #[arg(long)]
    pub(crate) pull: bool,
    /// Sync so often, such as 15m, instead of staying connected
    #[arg(long, value_name = "TIME", value_parser = lifetime)]
    pub(crate) every: Option<Duration>,
    /// Who goes first when many catch up at once
    #[arg(long, value_enum, default_value = "normal")]
    pub(crate) priority: PriorityArg,
}

#[derive(Debug, Args)]
pub(crate) struct PeersRmArgs {
    /// Which replica
    #[arg(value_name = "REPLICA")]
    pub(crate) replica: String,
    /// The address, as 'status' shows it
    #[arg(value_name = "ADDRESS")]
    pub(crate) address: String,
}

/// Who goes first.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum PriorityArg {
    /// Before all others
    High,
    /// As most
    Normal,
    /// After all others
    Low,
}

impl From<PriorityArg> for Priority {
    fn from(priority: PriorityArg) -> Self {
        match priority {
            PriorityArg::High => Self::High,
            PriorityArg::Normal => Self::Normal,
            PriorityArg::Low => Self::Low,
        }
    }
}

/// What a member may do.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum RoleArg {
    /// Receive everything and pass it on, without the keys of a sealed database
    Relay,
    /// Receive everything
    Read,
    /// And write
    Write,
    /// And let others in
    Admin,
}

impl From<RoleArg> for Role {
    fn from(role: RoleArg) -> Self {
        match role {
            RoleArg::Relay => Self::Relay,
            RoleArg::Read => Self::Read,
            RoleArg::Write => Self::Write,
            RoleArg::Admin => Self::Admin,
        }
    }
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  anabranch share notes                          reachable from this machine only
  anabranch share notes --listen 0.0.0.0:7700    reachable from every network")]
pub(crate) struct ShareArgs {
    /// What to share
    #[arg(value_name = "REPLICA")]
    pub(crate) replica: String,
    /// Where to listen: a port (this machine only) or an IP address with a port [default: share.listen]
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<String>,
    /// What whoever has the ticket may do
    #[arg(long, value_enum, default_value = "write")]
    pub(crate) role: RoleArg,
    /// Encrypt what is in it to those who may read: for a folder that is shared for the first time
    #[arg(long)]
    pub(crate) sealed: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  anabranch ticket notes --address http://10.0.0.2:7700
  anabranch ticket notes --role read --once --expires 1h > ticket.txt
  anabranch ticket ~/photos --sealed --role relay > ticket.txt
                                          for a helper that keeps it and cannot read it")]
pub(crate) struct TicketArgs {
    /// What the ticket is for
    #[arg(value_name = "REPLICA")]
    pub(crate) replica: String,
    /// What whoever has the ticket may do
    #[arg(long, value_enum, default_value = "write")]
    pub(crate) role: RoleArg,
    /// Where it is served; several may be given [default: ticket.address]
    #[arg(long, value_name = "URL")]
    pub(crate) address: Vec<String>,
    /// How long it can be used, such as 30m, 12h, 7d [default: ticket.expires]
    #[arg(long, value_name = "TIME", value_parser = lifetime)]
    pub(crate) expires: Option<Duration>,
    /// For one device only
    #[arg(long)]
    pub(crate) once: bool,
    /// Encrypt what is in it to those who may read: for a folder that is shared for the first time
    #[arg(long)]
    pub(crate) sealed: bool,
}

fn lifetime(text: &str) -> Result<Duration, String> {
    parse_duration(text)
        .filter(|d| !d.is_zero())
        .ok_or_else(|| "it takes a number with a unit: 30s, 10m, 12h or 7d".to_owned())
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  anabranch join @ticket.txt
  ssh laptop anabranch ticket notes | anabranch join - --name notes
  anabranch join @ticket.txt --name photos         a folder, for others to fetch it from here
  anabranch join http://10.0.0.2:7700/db_… --name notes --ask \"I am Ana's laptop\"
  anabranch join http://10.0.0.2:7700/db_… --name notes --as ana

Who asks is let in once an admin there says so: 'anabranch requests approve'. Until then 'sync' and
'serve' ask again. A device of a person to whom something is granted there ('anabranch members grant') is let in at once. DB_ID is the database's id, as 'anabranch db info' shows it.")]
#[command(group(clap::ArgGroup::new("asks").multiple(true)))]
pub(crate) struct JoinArgs {
    /// The ticket, @FILE that holds it, or - for standard input; with --ask or --as, http://HOST:PORT/DB_ID
    #[arg(value_name = "TICKET|@FILE|-|URL")]
    pub(crate) place: String,
    /// For a folder: where to put it
    #[arg(value_name = "PATH", conflicts_with = "name")]
    pub(crate) path: Option<PathBuf>,
    /// For a database: what to call it here [default: what the ticket suggests]. For a folder: keep it under this name for
    /// others to fetch, without a place for its files
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// For a database: content of blobs comes to this device when it is read (see 'db blob keep')
    #[arg(long, conflicts_with = "path")]
    pub(crate) lazy: bool,
    /// Ask an admin to be let in, in a few words that say who you are
    #[arg(long, value_name = "TEXT", group = "asks")]
    pub(crate) ask: Option<String>,
    /// Show that this device is one of a person's: the database here whose members are that one's devices
    #[arg(long = "as", value_name = "DATABASE", group = "asks")]
    pub(crate) person: Option<String>,
    /// What to ask for [default: write]
    #[arg(long, value_enum, requires = "asks")]
    pub(crate) role: Option<RoleArg>,
    /// Do not end before the request was approved or rejected
    #[arg(long, requires = "asks")]
    pub(crate) wait: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  anabranch serve                          connect to all known peers and follow them; nothing listens
  anabranch serve --listen 0.0.0.0:7700    and let peers connect
  anabranch serve --api 7701               and answer programs on this machine (see docs/api.md)
  anabranch serve --stdio notes            one session on standard input and output, as ssh starts it")]
pub(crate) struct ServeArgs {
    /// Where to listen: a port (this machine only) or an IP address with a port
    #[arg(long, value_name = "ADDR", conflicts_with = "stdio")]
    pub(crate) listen: Option<String>,
    /// Answer programs on this machine, as JSON: over the socket 'api.sock' in the home, or at a port
    #[arg(long, value_name = "PORT", num_args = 0..=1, default_missing_value = "", conflicts_with = "stdio")]
    pub(crate) api: Option<String>,
    /// How to write the log to standard error
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
    /// Serve one session on standard input and output
    #[arg(long)]
    pub(crate) stdio: bool,
    /// The one replica to serve on standard input and output
    #[arg(value_name = "REPLICA", requires = "stdio")]
    pub(crate) replica: Option<String>,
}

/// How lines of the log look: for people, or an object a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  anabranch status\n  anabranch status notes --json")]
pub(crate) struct StatusArgs {
    /// Only this one
    #[arg(value_name = "REPLICA")]
    pub(crate) replica: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  anabranch config                        all settings
  anabranch config ticket.expires 1d
  anabranch config ticket.expires --unset")]
pub(crate) struct ConfigArgs {
    /// The setting
    #[arg(value_name = "KEY")]
    pub(crate) key: Option<String>,
    /// Its new value
    #[arg(value_name = "VALUE", requires = "key")]
    pub(crate) value: Option<String>,
    /// Return to the default
    #[arg(long, requires = "key", conflicts_with = "value")]
    pub(crate) unset: bool,
}
