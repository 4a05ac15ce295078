//! Folder replicas: a directory whose files are kept in step with those of other devices.
//!
//! [`plan`] is pure: what to record and what to do follows from the base, what is here and what the database says.
//! [`scan`] and [`apply`] take their file system and clock as parameters, so that a simulator can drive them.
//! [`Folder`] puts them to work on a real directory and its database.

pub mod apply;
pub mod base;
mod content;
pub mod dirty;
mod error;
mod exchange;
mod folder;
pub mod fs;
pub mod hold;
pub mod intent;
mod kept;
mod live;
mod nodes;
pub mod path;
pub mod plan;
mod preview;
mod record;
pub mod scan;
mod sorted;
pub mod state;
mod tables;
mod update;
mod watch;

pub use content::FolderBlobs;
pub use error::FolderError;
pub use exchange::{Outcome, With};
pub use folder::{Conflict, Folder};
pub use live::{Tell, Work};
pub use preview::{Preview, PreviewWith};
pub use sorted::InputError;
pub use tables::{author, found, is_new, store};
pub use update::{Fetch, Fetched, Site, Updated};
