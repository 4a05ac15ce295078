//! Passphrases: from a file, standard input, or whoever sits at the terminal. Never from the command line, where every
//! process of the machine could read them.

use crate::failure::Failure;
use anabranch::Passphrase;
use anabranch::engine::node::PASSPHRASE_BYTES;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Write};
use std::path::Path;
use zeroize::Zeroizing;

/// Names the file that holds the passphrase.
const FILE: &str = "ANABRANCH_PASSPHRASE_FILE";

/// The passphrase of a key that is there already: as `given` (`@FILE` or `-`), else from the file that the environment
/// names, else from the terminal. Nothing where there is none of these.
pub(crate) fn known(given: Option<&str>) -> Result<Option<Passphrase>, Failure> {
    if let Some(given) = given {
        return named(given).map(Some);
    }
    match std::env::var_os(FILE).filter(|file| !file.is_empty()) {
        Some(file) => from_file(&file).map(Some),
        None if is_terminal() => typed("Passphrase of this device's key").map(Some),
        None => Ok(None),
    }
}

/// A new passphrase: as `given`, else typed twice.
pub(crate) fn new(given: Option<&str>) -> Result<Passphrase, Failure> {
    if let Some(given) = given {
        return named(given);
    }
    if !is_terminal() {
        return Err(Failure::usage("there is no terminal to type a new passphrase at")
            .hint("name a file that holds it with --new @FILE, or --new - for standard input"));
    }
    let passphrase = typed("New passphrase")?;
    if typed("Once more")? != passphrase {
        return Err(Failure::failed("the two are not the same; nothing was changed"));
    }
    Ok(passphrase)
}

fn named(given: &str) -> Result<Passphrase, Failure> {
    match given.strip_prefix('@') {
        _ if given == "-" => line(io::stdin().lock(), "standard input"),
        Some(file) => from_file(file.as_ref()),
        None => Err(Failure::usage("a passphrase does not belong on the command line")
            .hint("name a file that holds it, as @FILE, or - for standard input")),
    }
}

fn from_file(file: &OsStr) -> Result<Passphrase, Failure> {
    let from = Path::new(file).display().to_string();
    let opened = File::open(file).map_err(|e| unread(&from, &e))?;
    line(BufReader::new(opened), &from)
}

fn unread(from: &str, error: &io::Error) -> Failure {
    Failure::failed(format!("no passphrase could be read from {from}")).because(error)
}

/// One line, so that standard input may have the next one for somebody else.
fn line(from: impl BufRead, name: &str) -> Result<Passphrase, Failure> {
    // As much as a line may have with its end, and a byte that shows that it has more.
    let most = PASSPHRASE_BYTES + 3;
    let mut text = Zeroizing::new(String::with_capacity(most));
    let read = from.take(most as u64).read_line(&mut text);
    read.map_err(|e| unread(name, &e))?;
    Ok(Passphrase::new(text)?)
}

fn is_terminal() -> bool {
    io::stdin().is_terminal()
}

fn typed(what: &str) -> Result<Passphrase, Failure> {
    let silent = Silent::begin().map_err(|e| unread("the terminal", &e))?;
    let asked = write!(io::stderr().lock(), "{what}: ");
    asked.map_err(|e| unread("the terminal", &e))?;
    let passphrase = line(io::stdin().lock(), "the terminal");
    drop(silent);
    // What was typed to end the line was not shown either.
    let _ = writeln!(io::stderr().lock());
    passphrase
}

/// The terminal shows nothing of what is typed, until this is dropped.
struct Silent(Termios);

impl Silent {
    fn begin() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Flush, &silent)?;
        Ok(Self(before))
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}
