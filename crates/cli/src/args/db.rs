//! The commands below `anabranch db`.

use super::blob::BlobCommand;
use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(crate) enum DbCommand {
    /// Make a new database
    #[command(after_help = "Examples:
  anabranch db new notes
  anabranch db new notes --recovery notes.key    and keep that file elsewhere
  anabranch db new notes --sealed                then 'share --role relay' lets helpers in that cannot read it
  anabranch db new notes --sealed=diary,pins     these stores alone; helpers read the others")]
    New {
        /// What to call it: letters, digits, '-', '_' and '.'
        name: String,
        /// Write a new key to this file, by which another device can become admin should this one be lost
        #[arg(long, value_name = "FILE")]
        recovery: Option<PathBuf>,
        /// Encrypt what is in it, or in these stores of it, to those who may read, so that relays pass on what they cannot read
        #[arg(
            long,
            value_name = "STORE,…",
            num_args = 0..=1,
            require_equals = true,
            default_missing_value = ""
        )]
        sealed: Option<String>,
    },
    /// List the databases of this device
    #[command(after_help = "Example:\n  anabranch db ls")]
    Ls,
    /// Show what a database holds and who may use it
    #[command(after_help = "Example:\n  anabranch db info notes")]
    Info(DbArgs),
    /// Put rows into a table, from JSON objects one a line
    #[command(after_help = "Examples:
  anabranch db import shop products products.jsonl --key sku
  zcat dump.jsonl.gz | anabranch db import shop products - --key sku")]
    Import(ImportArgs),
    /// Print the rows of a table as JSON objects one a line, by key
    #[command(after_help = "Example:\n  anabranch db export shop products > products.jsonl")]
    Export(ExportArgs),
    /// Print one row
    #[command(after_help = "Example:\n  anabranch db get notes tasks milk")]
    Get(RowArgs),
    /// Insert or replace one row
    #[command(after_help = "Examples:
  anabranch db put notes tasks milk '{\"text\": \"buy milk\", \"done\": false}'
  generate-row | anabranch db put notes tasks milk -")]
    Put {
        #[command(flatten)]
        row: RowArgs,
        /// The row, a JSON object; - reads it from standard input
        #[arg(value_name = "JSON")]
        value: String,
    },
    /// Delete one row
    #[command(after_help = "Example:\n  anabranch db rm notes tasks milk")]
    Rm(RowArgs),
    /// Print rows with their keys
    #[command(after_help = "Example:\n  anabranch db rows notes tasks --prefix m --limit 10")]
    Rows(RowsArgs),
    /// Print the rows that have a value in an indexed field
    #[command(after_help = "Examples:
  anabranch db find notes tasks done false
  anabranch db find notes tasks owner '\"anna\"' --limit 10
  anabranch db find shop products price --from 10 --to 20 --descending")]
    Find(FindArgs),
    /// Find rows by a field without looking at all of them
    #[command(
        subcommand,
        arg_required_else_help = true,
        after_help = "Example:\n  anabranch db index add notes tasks done"
    )]
    Index(IndexCommand),
    /// Count things
    #[command(
        subcommand,
        arg_required_else_help = true,
        after_help = "Example:\n  anabranch db counter add shop visits pages/home"
    )]
    Counter(CounterCommand),
    /// Keep things in a set
    #[command(
        subcommand,
        arg_required_else_help = true,
        after_help = "Example:\n  anabranch db set add notes tags '\"urgent\"'"
    )]
    Set(SetCommand),
    /// Keep a list in a document
    #[command(
        subcommand,
        arg_required_else_help = true,
        after_help = "Example:\n  anabranch db list push notes week shopping/list '\"milk\"'"
    )]
    List(ListCommand),
    /// Keep content of any size
    #[command(
        subcommand,
        arg_required_else_help = true,
        after_help = "Example:\n  anabranch db blob put album photos beach.jpg ~/beach.jpg"
    )]
    Blob(BlobCommand),
    /// Free the space of content that no blob names any more
    #[command(
        after_help = "The space is used again for what comes; the database file does not become smaller.\n\n\
                      Example:\n  anabranch db gc album"
    )]
    Gc(DbArgs),
    /// Print every change from now on, wherever it is made, until interrupted
    #[command(after_help = "Example:\n  anabranch db watch notes")]
    Watch(DbArgs),
    /// Print the newest transactions, newest first
    #[command(after_help = "Example:\n  anabranch db log notes --limit 5")]
    Log(LogArgs),
    /// List values that were written at the same time and still contradict each other
    #[command(after_help = "Example:\n  anabranch db conflicts notes")]
    Conflicts(DbArgs),
    /// Settle the conflicts of one row by one of its versions
    #[command(after_help = "Example:\n  anabranch db resolve notes tasks milk --take 2")]
    Resolve {
        #[command(flatten)]
        row: RowArgs,
        /// Which version, as 'db conflicts' numbers them
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        take: u32,
    },
    /// Print the digest of the state: equal on two devices exactly when their states are
    #[command(after_help = "Example:\n  anabranch db digest notes")]
    Digest(DbArgs),
    /// Check every entry, value and page of a database
    #[command(after_help = "Example:\n  anabranch db verify notes")]
    Verify(DbArgs),
    /// Delete the replica of this device; other devices keep theirs
    #[command(after_help = "Example:\n  anabranch db forget notes")]
    Forget {
        #[command(flatten)]
        db: DbArgs,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum IndexCommand {
    /// Index a field of a table, on this device alone
    #[command(after_help = "Example:\n  anabranch db index add notes tasks done")]
    Add(IndexArgs),
    /// Remove an index from this device
    #[command(after_help = "Example:\n  anabranch db index rm notes tasks done")]
    Rm(IndexArgs),
    /// List the indexes that this device has of a database
    #[command(after_help = "Example:\n  anabranch db index ls notes")]
    Ls(DbArgs),
}

#[derive(Debug, Args)]
pub(crate) struct IndexArgs {
    #[command(flatten)]
    pub(crate) table: TableArgs,
    /// The field
    #[arg(value_name = "FIELD")]
    pub(crate) field: String,
}

#[derive(Debug, Args)]
pub(crate) struct FindArgs {
    #[command(flatten)]
    pub(crate) index: IndexArgs,
    /// What the field is to be
    #[arg(
        value_name = "JSON",
        required_unless_present_any = ["from", "to"],
        conflicts_with_all = ["from", "to"],
        allow_negative_numbers = true
    )]
    pub(crate) value: Option<String>,
    /// Or the least that it may be
    #[arg(long, value_name = "JSON", allow_negative_numbers = true)]
    pub(crate) from: Option<String>,
    /// And the most that it may be
    #[arg(long, value_name = "JSON", allow_negative_numbers = true)]
    pub(crate) to: Option<String>,
    /// The largest values first
    #[arg(long)]
    pub(crate) descending: bool,
    /// At most so many
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CounterCommand {
    /// Add to a counter, and print its sum
    #[command(after_help = "Examples:
  anabranch db counter add shop visits pages/home
  anabranch db counter add shop stock apples -- -12")]
    Add {
        #[command(flatten)]
        at: CounterArgs,
        /// How many; after -- it may be negative
        #[arg(value_name = "N", default_value_t = 1)]
        by: i64,
    },
    /// Print the sum of a counter
    #[command(after_help = "Example:\n  anabranch db counter get shop visits pages/home")]
    Get(CounterArgs),
    /// Bring a counter to 0; what others add at the same time stays
    #[command(after_help = "Example:\n  anabranch db counter reset shop visits pages/home")]
    Reset(CounterArgs),
    /// Print all counters of a store that are not 0
    #[command(after_help = "Example:\n  anabranch db counter ls shop visits")]
    Ls {
        /// The database, by name or id
        #[arg(value_name = "DB")]
        db: String,
        /// The store of counters
        #[arg(value_name = "COUNTERS")]
        counter: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct CounterArgs {
    /// The database, by name or id
    #[arg(value_name = "DB")]
    pub(crate) db: String,
    /// The store of counters
    #[arg(value_name = "COUNTERS")]
    pub(crate) counter: String,
    /// Which one: names with / between them
    #[arg(value_name = "PATH")]
    pub(crate) path: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SetCommand {
    /// Add an element
    #[command(after_help = "Examples:
  anabranch db set add notes tags '\"urgent\"'
  anabranch db set add notes seats '[\"A\", 7]'")]
    Add(SetArgs),
    /// Remove an element; it stays if somebody adds it at the same time
    #[command(after_help = "Example:\n  anabranch db set rm notes tags '\"urgent\"'")]
    Rm(SetArgs),
    /// Print whether an element is in
    #[command(after_help = "Example:\n  anabranch db set has notes tags '\"urgent\"'")]
    Has(SetArgs),
    /// Print all elements
    #[command(after_help = "Example:\n  anabranch db set ls notes tags")]
    Ls {
        /// The database, by name or id
        #[arg(value_name = "DB")]
        db: String,
        /// The set
        #[arg(value_name = "SET")]
        set: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct SetArgs {
    /// The database, by name or id
    #[arg(value_name = "DB")]
    pub(crate) db: String,
    /// The set
    #[arg(value_name = "SET")]
    pub(crate) set: String,
    /// The element
    #[arg(value_name = "JSON")]
    pub(crate) element: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ListCommand {
    /// Put an element at the end
    #[command(after_help = "Example:
  anabranch db list push notes week shopping/list '\"milk\"'")]
    Push {
        #[command(flatten)]
        list: ListArgs,
        /// The element
        #[arg(value_name = "JSON")]
        value: String,
    },
    /// Put an element at a place; what is there makes way
    #[command(after_help = "Example:
  anabranch db list insert notes week shopping/list 0 '\"bread\"'")]
    Insert {
        #[command(flatten)]
        list: ListArgs,
        /// The place, counted from 0
        #[arg(value_name = "AT")]
        at: usize,
        /// The element
        #[arg(value_name = "JSON")]
        value: String,
    },
    /// Replace an element
    #[command(after_help = "Example:
  anabranch db list set notes week shopping/list 0 '\"rye bread\"'")]
    Set {
        #[command(flatten)]
        list: ListArgs,
        /// The place, counted from 0
        #[arg(value_name = "AT")]
        at: usize,
        /// The new element
        #[arg(value_name = "JSON")]
        value: String,
    },
    /// Move an element
    #[command(after_help = "Example:\n  anabranch db list mv notes week shopping/list 2 0")]
    Mv {
        #[command(flatten)]
        list: ListArgs,
        /// Where it is, counted from 0
        #[arg(value_name = "FROM")]
        from: usize,
        /// Where it is to be
        #[arg(value_name = "TO")]
        to: usize,
    },
    /// Remove an element; it stays if somebody changes it at the same time
    #[command(after_help = "Example:\n  anabranch db list rm notes week shopping/list 1")]
    Rm {
        #[command(flatten)]
        list: ListArgs,
        /// The place, counted from 0
        #[arg(value_name = "AT")]
        at: usize,
    },
    /// Print the elements with their places
    #[command(after_help = "Example:\n  anabranch db list ls notes week shopping/list")]
    Ls(ListArgs),
}

impl ListCommand {
    /// Which list it is about.
    pub(crate) fn list(&self) -> &ListArgs {
        match self {
            Self::Push { list, .. }
            | Self::Insert { list, .. }
            | Self::Set { list, .. }
            | Self::Mv { list, .. }
            | Self::Rm { list, .. }
            | Self::Ls(list) => list,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// The database, by name or id
    #[arg(value_name = "DB")]
    pub(crate) db: String,
    /// The document
    #[arg(value_name = "DOC")]
    pub(crate) doc: String,
    /// Where in the document the list is: names with / between them
    #[arg(value_name = "PATH")]
    pub(crate) path: String,
}

#[derive(Debug, Args)]
pub(crate) struct DbArgs {
    /// The database, by name or id
    #[arg(value_name = "DB")]
    pub(crate) db: String,
}

#[derive(Debug, Args)]
pub(crate) struct TableArgs {
    /// The database, by name or id
    #[arg(value_name = "DB")]
    pub(crate) db: String,
    /// The table
    #[arg(value_name = "TABLE")]
    pub(crate) table: String,
}

#[derive(Debug, Args)]
pub(crate) struct RowArgs {
    #[command(flatten)]
    pub(crate) table: TableArgs,
    /// The row's key
    #[arg(value_name = "KEY")]
    pub(crate) key: String,
}

#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    #[command(flatten)]
    pub(crate) table: TableArgs,
    /// The file; - for standard input
    #[arg(value_name = "FILE|-")]
    pub(crate) file: String,
    /// The field that holds each row's key: a text or a number. It stays in the row
    #[arg(long, value_name = "FIELD")]
    pub(crate) key: String,
}

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    pub(crate) table: TableArgs,
    /// Put each row's key into this field, where it is not there already
    #[arg(long, value_name = "FIELD")]
    pub(crate) key: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct RowsArgs {
    #[command(flatten)]
    pub(crate) table: TableArgs,
    /// Only keys that begin so
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) prefix: String,
    /// At most so many
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
}

#[derive(Debug, Args)]
pub(crate) struct LogArgs {
    /// The database, by name or id
    #[arg(value_name = "DB")]
    pub(crate) db: String,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub(crate) limit: usize,
}
