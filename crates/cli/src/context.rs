//! What every command is handed: where the home is and how to print.

use crate::failure::Failure;
use crate::output::Output;
use anabranch::engine::node::{Home, default_dir};
use anabranch::{Database, Node};
use std::path::PathBuf;
use std::sync::Arc;

/// The surroundings of a command.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    home: Option<PathBuf>,
    /// How to print.
    pub(crate) output: Output,
}

impl Context {
    /// With the home given on the command line, if one was.
    pub(crate) fn new(home: Option<PathBuf>, output: Output) -> Self {
        Self { home: home.or_else(default_dir), output }
    }

    fn dir(&self) -> Result<&PathBuf, Failure> {
        self.home.as_ref().ok_or_else(|| {
            Failure::usage("there is no home directory to keep this device's state in")
                .hint("name a directory with --home or ANABRANCH_HOME")
        })
    }

    /// The home, made at the first start.
    pub(crate) fn home(&self) -> Result<Home, Failure> {
        Ok(Home::open(self.dir()?)?)
    }

    /// This device's node.
    pub(crate) fn node(&self) -> Result<Node, Failure> {
        Ok(Node::open(self.dir()?)?)
    }

    /// A database of this device by name or id, with or without `db:` before it.
    pub(crate) fn database(&self, node: &Node, name: &str) -> Result<Database, Failure> {
        let replica = node.inner().database(name.strip_prefix("db:").unwrap_or(name))?;
        Ok(Database::new(Arc::clone(node.inner()), replica))
    }
}
