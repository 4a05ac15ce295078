//! Filling an empty replica from a full one over loopback HTTP. Each side is a process of its own, this program started
//! again, so that its memory is counted alone; they talk to the reporting process in lines of JSON.

use crate::data::Keys;
use crate::raw::Sizes;
use crate::{Result, follow, peak};
use anabranch_core::author::Draft;
use anabranch_core::ops::Role;
use anabranch_core::ticket::Ticket;
use anabranch_node::{Control, Node, Offer, Replica};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Instant;
use tokio::sync::watch;

const NAME: &str = "bench";
/// Entries that are committed at once while the database is made.
const GROUP: u64 = 2_000;
const HEX: &str = "0123456789abcdef";

/// What the filling process says when it is done.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Filled {
    pub(crate) seconds: f64,
    pub(crate) sizes: Sizes,
    /// Entries held, the founding one included.
    pub(crate) held: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Ready {
    ticket: String,
}

/// What the serving process says when it is asked to commit, or how it is.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Said {
    /// Bytes of memory before.
    pub(crate) memory: u64,
    /// The clock then, in microseconds.
    pub(crate) began: u64,
    /// Canonical bytes of what was committed.
    pub(crate) bytes: u64,
    /// Entries held afterwards.
    pub(crate) held: u64,
}

/// What the serving process says when it is over.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Served {
    pub(crate) peak: u64,
    pub(crate) digest: String,
}

/// What the joining process says when it is done.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Joined {
    /// From connecting until both sides were settled.
    pub(crate) seconds: f64,
    pub(crate) entries: u64,
    /// Entries held afterwards, as `db info` counts them.
    pub(crate) held: u64,
    /// Of entries, as they were on the wire.
    pub(crate) bytes: u64,
    pub(crate) peak: u64,
    pub(crate) digest: String,
}

/// The filling process.
pub(crate) fn fill(home: &Path, entries: u64, keys: Keys) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    // What is being made need not survive a power failure; what is measured later runs with the default.
    set_durability(home, Some("normal"))?;
    let filled = {
        let node = Node::open(home)?;
        let replica = node.create(NAME)?;
        let start = Instant::now();
        runtime.block_on(put(&replica, keys, 0..entries))?;
        Filled {
            seconds: start.elapsed().as_secs_f64(),
            sizes: replica.read_tables(Sizes::of)?,
            held: replica.read(|view| view.totals())?.entries,
        }
    };
    set_durability(home, None)?;
    say(&filled)
}

pub(crate) fn set_durability(home: &Path, value: Option<&str>) -> Result<()> {
    let node = Node::open(home)?;
    let home = node.home().ok_or("a node in memory has no home")?;
    Ok(home.configure("durability", value)?)
}

async fn put(replica: &Replica, keys: Keys, rows: std::ops::Range<u64>) -> Result<()> {
    let mut from = rows.start;
    while from < rows.end {
        let upto = rows.end.min(from + GROUP);
        let drafts: Vec<Draft> = (from..upto).map(|n| keys.draft(n)).collect::<Result<_>>()?;
        replica.commit(drafts).await?;
        from = upto;
    }
    Ok(())
}

/// The serving process.
pub(crate) fn serve(home: &Path) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let node = Node::open(home)?;
    let replica = node.database(NAME)?;
    runtime.block_on(async {
        let listener = node.listen("0".parse()?).await?;
        let offer = Offer {
            role: Role::Write,
            addresses: vec![format!("http://{}", listener.local_addr())],
            limit: None,
            expires: None,
            folder: false,
            name: NAME.to_owned(),
        };
        say(&Ready { ticket: node.ticket(&replica, &offer).await?.to_string() })?;
        let (stop, stopped) = watch::channel(false);
        let serving = node.serve(listener, vec![replica.clone()], stopped);
        let answering = tokio::runtime::Handle::current();
        let asked = replica.clone();
        let over = tokio::task::spawn_blocking(move || {
            // Whatever ends the input ends the serving.
            let answered = std::io::stdin()
                .lines()
                .try_for_each(|line| say(&answering.block_on(follow::answer(&line?, &asked))?));
            stop.send_replace(true);
            answered
        });
        tokio::join!(serving, over).1??;
        Ok::<_, crate::Error>(())
    })?;
    say(&Served { peak: peak::resident()?, digest: digest(&replica)? })
}

/// The joining process.
pub(crate) fn join(home: &Path, ticket: &str) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let ticket: Ticket = ticket.parse()?;
    let node = Node::open(home)?;
    let replica = node.prepare(&ticket, NAME)?;
    let start = Instant::now();
    let report = runtime.block_on(node.join(&replica, &ticket, &Control::default()))?;
    say(&Joined {
        seconds: start.elapsed().as_secs_f64(),
        entries: report.progress.entries_received,
        held: replica.read(|view| view.totals())?.entries,
        bytes: report.progress.bytes_received,
        peak: peak::resident()?,
        digest: digest(&replica)?,
    })
}

fn digest(replica: &Replica) -> Result<String> {
    let digest = replica.read(|view| view.state_digest())?.ok_or("there is no digest")?;
    let hex = |nibble: u8| HEX.as_bytes()[usize::from(nibble)] as char;
    Ok(digest.iter().flat_map(|b| [hex(b >> 4), hex(b & 15)]).collect())
}

fn say(what: &impl Serialize) -> Result<()> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, what)?;
    out.write_all(b"\n")?;
    Ok(out.flush()?)
}

/// This program in a process of its own.
pub(crate) struct Part {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<Box<dyn Read + Send>>,
    ticket: String,
}

impl Part {
    fn start(arguments: &[&std::ffi::OsStr]) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().ok_or("no standard output")?;
        let stdout = BufReader::new(Box::new(stdout) as Box<dyn Read + Send>);
        Ok(Self { stdin: child.stdin.take(), stdout, child, ticket: String::new() })
    }

    /// Serves what is in `home`.
    pub(crate) fn serve(home: &Path) -> Result<Self> {
        let mut part = Self::start(&["serve".as_ref(), home.as_ref()])?;
        part.ticket = part.hear::<Ready>()?.ticket;
        Ok(part)
    }

    /// The way to what is served.
    pub(crate) fn ticket(&self) -> &str {
        &self.ticket
    }

    /// Has it commit rows from `from` on.
    pub(crate) fn put(&mut self, from: u64, count: u64) -> Result<Said> {
        self.ask(&format!("{from} {count}"))
    }

    /// Bytes of memory that it takes now.
    pub(crate) fn memory(&mut self) -> Result<u64> {
        Ok(self.ask("")?.memory)
    }

    fn ask(&mut self, line: &str) -> Result<Said> {
        let stdin = self.stdin.as_mut().ok_or("no standard input")?;
        writeln!(stdin, "{line}")?;
        stdin.flush()?;
        self.hear()
    }

    /// Ends it.
    pub(crate) fn last(self) -> Result<Served> {
        self.end()
    }

    fn hear<T: DeserializeOwned>(&mut self) -> Result<T> {
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        Ok(serde_json::from_str(&line)?)
    }

    fn end<T: DeserializeOwned>(mut self) -> Result<T> {
        drop(self.stdin.take());
        let said = self.hear();
        let status = self.child.wait()?;
        if !status.success() {
            return Err(format!("a part of the measurement failed: {status}").into());
        }
        said
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        drop(self.stdin.take());
        // It ends by itself once its input has; a failure is reported by whoever was listening.
        let _ = self.child.wait();
    }
}

/// Makes a database of `entries` rows in the new home `home`.
pub(crate) fn filled(home: &Path, entries: u64, keys: Keys) -> Result<Filled> {
    let entries = entries.to_string();
    Part::start(&["fill".as_ref(), home.as_ref(), entries.as_ref(), keys.name().as_ref()])?.end()
}

/// Fills the new home `there` from `here`.
pub(crate) fn joined(here: &Path, there: &Path) -> Result<(Served, Joined)> {
    let serving = Part::serve(here)?;
    let joining = Part::start(&["join".as_ref(), there.as_ref(), serving.ticket().as_ref()])?;
    let joined = joining.end()?;
    Ok((serving.last()?, joined))
}
