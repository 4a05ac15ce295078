//! What every command is handed: where the home is and how to print.

use crate::failure::Failure;
use crate::output::Output;
use crate::passphrase;
use anabranch::engine::node::{Home, Node as Inner, default_dir};
use anabranch::{Database, Node, NodeError, NodeId, Passphrase};
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// The surroundings of a command.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    home: Option<PathBuf>,
    /// Where the passphrase of the key is, if the command line says so.
    passphrase: Option<String>,
    /// It, once it was needed.
    known: Arc<OnceLock<Passphrase>>,
    /// How to print.
    pub(crate) output: Output,
}

impl Context {
    /// With the home given on the command line, if one was.
    pub(crate) fn new(home: Option<PathBuf>, passphrase: Option<String>, output: Output) -> Self {
        Self { home: home.or_else(default_dir), passphrase, known: Arc::default(), output }
    }

    fn dir(&self) -> Result<&PathBuf, Failure> {
        self.home.as_ref().ok_or_else(|| {
            Failure::usage("there is no home directory to keep this device's state in")
                .hint("name a directory with --home or ANABRANCH_HOME")
        })
    }

    /// The home, made at the first start.
    pub(crate) fn home(&self) -> Result<Home, Failure> {
        self.unlocking(|dir, unlock| Home::open_with(dir, unlock))
    }

    /// This device's node.
    pub(crate) fn node(&self) -> Result<Node, Failure> {
        self.unlocking(|dir, unlock| Inner::open_with(dir, unlock)).map(Node::from)
    }

    /// Makes the home that of the device whose key is in `file`.
    pub(crate) fn import_key(&self, file: &Path) -> Result<NodeId, Failure> {
        self.unlocking(|dir, unlock| Home::import_key(dir, file, unlock))
    }

    /// Opens something in the home. Whoever has the passphrase is asked once, and only if it is needed.
    fn unlocking<T>(
        &self,
        open: impl FnOnce(
            &Path,
            &dyn Fn() -> Result<Option<Passphrase>, NodeError>,
        ) -> Result<T, NodeError>,
    ) -> Result<T, Failure> {
        // What went wrong with the passphrase itself is for people as it is.
        let wrong = RefCell::new(None);
        let unlock = || {
            if let Some(known) = self.known.get() {
                return Ok(Some(known.clone()));
            }
            match passphrase::known(self.passphrase.as_deref()) {
                Ok(Some(passphrase)) => Ok(Some(self.known.get_or_init(|| passphrase).clone())),
                Ok(None) => Ok(None),
                Err(failure) => {
                    wrong.replace(Some(failure));
                    Ok(None)
                }
            }
        };
        let opened = open(self.dir()?, &unlock);
        match wrong.into_inner() {
            Some(failure) => Err(failure),
            None => Ok(opened?),
        }
    }

    /// A database of this device by name or id, with or without `db:` before it.
    pub(crate) fn database(&self, node: &Node, name: &str) -> Result<Database, Failure> {
        let replica = node.inner().database(name.strip_prefix("db:").unwrap_or(name))?;
        Ok(Database::new(Arc::clone(node.inner()), replica))
    }
}
