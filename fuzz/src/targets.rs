//! The targets, one module for what belongs together.

pub(crate) mod blob;
pub(crate) mod entry;
pub(crate) mod file;
pub(crate) mod folder;
pub(crate) mod frame;
pub(crate) mod home;
pub(crate) mod link;
pub(crate) mod rows;
pub(crate) mod session;
pub(crate) mod text;
pub(crate) mod value;
