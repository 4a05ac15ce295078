//! Folder replicas.
pub mod apply;
pub mod base;
pub mod fs;
pub mod hold;
pub mod path;
pub mod plan;
pub mod scan;
mod sorted;
pub mod state;

pub use sorted::InputError;
