//! The commands below `anabranch db blob`.

use clap::{Args, Subcommand, ValueEnum};
use std::ops::Range;
use std::str::FromStr;

#[derive(Debug, Subcommand)]
pub(crate) enum BlobCommand {
    /// Put a file in under a name, in place of what is there
    #[command(after_help = "Examples:
  anabranch db blob put album photos beach.jpg ~/beach.jpg --type image/jpeg
  tar c src | anabranch db blob put album backups src.tar -")]
    Put {
        #[command(flatten)]
        at: BlobArgs,
        /// The file; - for standard input
        #[arg(value_name = "FILE|-")]
        file: String,
        /// What kind of thing it is, such as image/png
        #[arg(long = "type", value_name = "TYPE", default_value = "", hide_default_value = true)]
        media_type: String,
    },
    /// Write a blob, or a part of it, to a file or standard output
    #[command(after_help = "Examples:
  anabranch db blob get album photos beach.jpg beach.jpg
  anabranch db blob get album backups src.tar | tar t
  anabranch db blob get album backups src.tar --range 0-511 | xxd")]
    Get {
        #[command(flatten)]
        at: BlobArgs,
        /// Where to write it; - for standard output
        #[arg(value_name = "FILE|-", default_value = "-", hide_default_value = true)]
        to: String,
        /// Only these bytes: the first and the last, counted from 0; without the last all that follow
        #[arg(long, value_name = "A-B")]
        range: Option<ByteRange>,
        /// Which version, as 'db conflicts' numbers them
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..), hide_default_value = true)]
        version: u32,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// List blobs: size, type, and whether the content is on this device
    #[command(after_help = "Example:\n  anabranch db blob ls album photos")]
    Ls(BlobsArgs),
    /// Remove a blob; 'db gc' frees the space
    #[command(after_help = "Example:\n  anabranch db blob rm album photos beach.jpg")]
    Rm(BlobArgs),
    /// Fetch content that is not on this device, of one blob or all
    #[command(after_help = "Examples:
  anabranch db blob fetch album videos trip.mp4
  anabranch db blob fetch album videos")]
    Fetch {
        #[command(flatten)]
        blobs: BlobsArgs,
        /// The blob [default: all]
        #[arg(value_name = "NAME")]
        name: Option<String>,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Free the space of content that this device fetched, of one blob or all of a lazy store
    #[command(after_help = "Example:\n  anabranch db blob evict album videos trip.mp4")]
    Evict {
        #[command(flatten)]
        blobs: BlobsArgs,
        /// The blob [default: all]
        #[arg(value_name = "NAME")]
        name: Option<String>,
    },
    /// Show or say when content comes to this device: with every sync, or when it is read
    #[command(after_help = "Examples:
  anabranch db blob keep album videos lazy     only what is read, here
  anabranch db blob keep album videos          show it")]
    Keep {
        #[command(flatten)]
        blobs: BlobsArgs,
        /// eager: with every sync; lazy: when it is read
        #[arg(value_name = "WHEN")]
        when: Option<KeepArg>,
    },
    /// Settle a conflict by one of its versions
    #[command(after_help = "Example:\n  anabranch db blob resolve album photos beach.jpg --take 2")]
    Resolve {
        #[command(flatten)]
        at: BlobArgs,
        /// Which version, as 'db conflicts' numbers them
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        take: u32,
    },
}

#[derive(Debug, Args)]
pub(crate) struct BlobsArgs {
    /// The database, by name or id
    #[arg(value_name = "DB")]
    pub(crate) db: String,
    /// The store of blobs
    #[arg(value_name = "STORE")]
    pub(crate) store: String,
}

#[derive(Debug, Args)]
pub(crate) struct BlobArgs {
    #[command(flatten)]
    pub(crate) blobs: BlobsArgs,
    /// The blob's name
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
}

#[derive(Debug, Args)]
pub(crate) struct WaitArgs {
    /// How many seconds to wait for each part that no peer sends
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub(crate) wait: u64,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum KeepArg {
    Eager,
    Lazy,
}

/// Bytes of a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ByteRange(pub(crate) Range<u64>);

impl FromStr for ByteRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || {
            format!("'{text}' is no range; write 0-511 for the first 512 bytes, 512- for the rest")
        };
        let number = |part: &str| match part.bytes().all(|b| b.is_ascii_digit()) {
            true => part.parse::<u64>().map_err(|_| bad()),
            false => Err(bad()),
        };
        let (first, last) = text.split_once('-').ok_or_else(bad)?;
        let first = number(first)?;
        let end = match last {
            "" => u64::MAX,
            last => number(last)?.checked_add(1).ok_or_else(bad)?,
        };
        if first < end { Ok(Self(first..end)) } else { Err(bad()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read() {
        let read = |text: &str| text.parse::<ByteRange>().map(|range| range.0).ok();
        assert_eq!(read("0-0"), Some(0..1));
        assert_eq!(read("5-9"), Some(5..10));
        assert_eq!(read("5-"), Some(5..u64::MAX));
        for bad in ["", "-", "5", "-5", "9-5", "+1-5", "0-18446744073709551615", "a-b", "1-2-3"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
