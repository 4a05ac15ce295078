//! The commands below `anabranch folder`.

use clap::Subcommand;
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(crate) enum FolderCommand {
    /// Print what happened in a folder, newest first
    #[command(after_help = "Example:\n  anabranch folder log photos --limit 20")]
    Log {
        /// The folder
        dir: PathBuf,
        /// At most so many transactions
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: usize,
    },
    /// List files that were changed at the same time on two devices
    #[command(after_help = "Example:\n  anabranch folder conflicts photos")]
    Conflicts {
        /// The folder
        dir: PathBuf,
    },
    /// Settle the conflict of one file by one of its versions
    #[command(after_help = "Example:\n  anabranch folder resolve photos list.txt --take 2")]
    Resolve {
        /// The folder
        dir: PathBuf,
        /// The file, relative to the folder
        path: String,
        /// Which version, as 'folder conflicts' numbers them
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        take: u32,
    },
    /// Print the digest of the state: equal on two devices exactly when their states are
    #[command(after_help = "Example:\n  anabranch folder digest photos")]
    Digest {
        /// The folder
        dir: PathBuf,
    },
    /// Check every entry, value and page of a folder's database
    #[command(after_help = "Example:\n  anabranch folder verify photos")]
    Verify {
        /// The folder
        dir: PathBuf,
    },
    /// Make a replica an ordinary folder again; its files stay
    #[command(after_help = "Example:\n  anabranch folder forget photos")]
    Forget {
        /// The folder
        dir: PathBuf,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}
