//! The commands below `anabranch key`.

use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Lock the key of this device by a passphrase, change that, or remove it
    #[command(after_help = "Examples:
  anabranch key passphrase                      asks for it at the terminal
  anabranch key passphrase --new @new.txt --passphrase @old.txt
  anabranch key passphrase --remove

Every command asks for it from then on: give it with --passphrase @FILE, or name its file in
ANABRANCH_PASSPHRASE_FILE. Nobody can restore it, and copies of the home from before have the key
as it was.")]
    Passphrase(PassphraseArgs),
    /// Write the key of this device to a new file, locked by a passphrase
    #[command(after_help = "Examples:
  anabranch key export laptop.key
  anabranch key export /mnt/stick/laptop.key --new @passphrase.txt")]
    Export {
        /// The file, which must not be there yet
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// A file that holds the passphrase, or - for standard input
        #[arg(long, value_name = "@FILE|-")]
        new: Option<String>,
    },
    /// Make a home without a key that of the device whose key was exported
    #[command(after_help = "Example:\n  anabranch key import laptop.key --home /srv/anabranch")]
    Import {
        /// What 'key export' wrote; its passphrase locks the key here too
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct PassphraseArgs {
    /// A file that holds the new passphrase, or - for standard input
    #[arg(long, value_name = "@FILE|-")]
    pub(crate) new: Option<String>,
    /// Leave the key to whoever may read the file
    #[arg(long, conflicts_with = "new")]
    pub(crate) remove: bool,
}
