//! The released program as a user has it: one binary, and homes in temporary directories that stand for devices.
//! What is started here is ended here, by its process id, and nothing else is.

use std::fmt::Display;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::error::{Error, Result};
use crate::process;
use crate::workspace::Workspace;

/// Names a program to try instead of the one that this checkout builds.
pub(crate) const PROGRAM: &str = "ANABRANCH_ACCEPT_PROGRAM";
/// Longer than anything that is awaited here takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The binary, and the directory in which everything happens; gone with it.
pub(crate) struct Lab {
    program: PathBuf,
    directory: TempDir,
}

impl Lab {
    /// With the binary as it is released, built from this checkout unless the environment names one.
    pub(crate) fn new(workspace: &Workspace) -> Result<Self> {
        let program = match std::env::var_os(PROGRAM) {
            Some(program) => workspace.root().join(program),
            None => build(workspace)?,
        };
        println!("the program: {}", program.display());
        let directory = TempDir::with_prefix("anabranch-accept-")
            .map_err(|source| Error::File { path: std::env::temp_dir(), source })?;
        Ok(Self { program, directory })
    }

    /// A path in the directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The binary.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// A device with a home of its own, new if the name is.
    pub(crate) fn device(&self, name: &str) -> Device {
        let home = self.path(&format!("home-{name}"));
        Device { name: name.to_owned(), program: self.program.clone(), home }
    }
}

fn build(workspace: &Workspace) -> Result<PathBuf> {
    let build = ["build", "--release", "--locked", "--package", "anabranch-cli"];
    process::run(&mut workspace.cargo(&build))?;
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| workspace.root().join("target"), |dir| workspace.root().join(dir));
    Ok(target.join("release").join("anabranch"))
}

/// One device.
#[derive(Clone)]
pub(crate) struct Device {
    pub(crate) name: String,
    program: PathBuf,
    pub(crate) home: PathBuf,
}

impl Device {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).env("ANABRANCH_HOME", &self.home).stdin(Stdio::null());
        command
    }

    /// What a command prints. One that fails is an error with what it said.
    pub(crate) fn run(&self, arguments: &[&str]) -> Result<String> {
        let (status, out, said) = self.attempt(arguments)?;
        if status.success() {
            return Ok(out);
        }
        let command = process::line(&self.command(arguments));
        Err(Error::NotAccepted(format!("`{command}` works; {status}\n{said}")))
    }

    /// How a command that may fail ends, what it prints, and what it complains of.
    pub(crate) fn attempt(&self, arguments: &[&str]) -> Result<(ExitStatus, String, String)> {
        let mut command = self.command(arguments);
        let output = command
            .output()
            .map_err(|source| Error::Start { command: process::line(&command), source })?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok((output.status, text(&output.stdout), text(&output.stderr)))
    }

    /// The object that a command prints with `--json`.
    pub(crate) fn json(&self, arguments: &[&str]) -> Result<Value> {
        let out = self.run(&[arguments, &["--json"]].concat())?;
        parse(&out)
    }

    /// Starts a command that goes on until it is ended.
    pub(crate) fn start(&self, arguments: &[&str]) -> Result<Running> {
        let mut command = self.command(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let line = process::line(&command);
        let mut child =
            command.spawn().map_err(|source| Error::Start { command: line.clone(), source })?;
        let (out, lines) = channel();
        let (said, complaints) = channel();
        forward(child.stdout.take(), out);
        forward(child.stderr.take(), said);
        Ok(Running { line, child, lines, complaints })
    }

    /// Starts `serve` or `share`, and waits for the address it prints.
    pub(crate) fn start_serving(&self, arguments: &[&str]) -> Result<(Running, SocketAddr)> {
        let running = self.start(&[arguments, &["--json"]].concat())?;
        let object = parse(&running.line(PATIENCE)?.1)?;
        let url = object["address"].as_str().or_else(|| object["addresses"][0].as_str());
        let address = url.and_then(|url| url.strip_prefix("http://")?.parse().ok());
        let address = address.ok_or_else(|| {
            Error::NotAccepted(format!("`{}` prints where it listens: {object}", running.line))
        })?;
        Ok((running, address))
    }

    /// A ticket that names `address`, in a file as `join` takes it.
    pub(crate) fn ticket(&self, lab: &Lab, replica: &str, address: &str) -> Result<String> {
        let ticket = self.run(&["ticket", replica, "--address", address, "--quiet"])?;
        let path = lab.path(&format!("ticket-{}", process_unique()));
        std::fs::write(&path, ticket)
            .map_err(|source| Error::File { path: path.clone(), source })?;
        Ok(format!("@{}", path.display()))
    }
}

/// A number that was not given out before.
fn process_unique() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn parse(text: &str) -> Result<Value> {
    serde_json::from_str(text)
        .map_err(|e| Error::NotAccepted(format!("--json prints an object: {e}: {text}")))
}

fn forward(
    stream: Option<impl std::io::Read + Send + 'static>,
    to: std::sync::mpsc::Sender<(Instant, String)>,
) {
    let Some(stream) = stream else { return };
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(std::result::Result::ok) {
            if to.send((Instant::now(), line)).is_err() {
                return;
            }
        }
    });
}

/// A command that goes on until it is ended. Dropping it kills it.
pub(crate) struct Running {
    line: String,
    child: Child,
    lines: Receiver<(Instant, String)>,
    complaints: Receiver<(Instant, String)>,
}

impl Running {
    /// The next line it prints, and when it came.
    pub(crate) fn line(&self, patience: Duration) -> Result<(Instant, String)> {
        self.lines.recv_timeout(patience).map_err(|_| {
            Error::NotAccepted(format!("`{}` prints a line; it said: {}", self.line, self.said()))
        })
    }

    /// Waits until it says something that contains `text` on its standard error.
    pub(crate) fn wait_until_said(&self, text: &str) -> Result<()> {
        while let Ok((_, line)) = self.complaints.recv_timeout(PATIENCE) {
            if line.contains(text) {
                return Ok(());
            }
        }
        Err(Error::NotAccepted(format!("`{}` says: {text}", self.line)))
    }

    /// What it complained of since it was last asked.
    pub(crate) fn said(&self) -> String {
        self.complaints.try_iter().map(|(_, line)| line).collect::<Vec<_>>().join("\n")
    }

    /// Asks it to end in good order, and returns what it complained of until it did.
    pub(crate) fn end(mut self) -> Result<String> {
        process::read(Command::new("kill").args(["-TERM", &self.child.id().to_string()]))?;
        let start = Instant::now();
        while self.ended()?.is_none() && start.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(20));
        }
        let said = self.complaints.iter();
        Ok(said.map(|(_, line)| line).collect::<Vec<_>>().join("\n"))
    }

    /// How it ended, if it did.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().map_err(|source| Error::Start { command: self.line.clone(), source })
    }

    /// Kills it as `kill -9` does, and waits until it is gone.
    pub(crate) fn kill(mut self) {
        self.kill_and_reap();
    }

    fn kill_and_reap(&mut self) {
        // Both fail only for a child that is gone, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill_and_reap();
    }
}

/// Prints what was found; what does not hold is the program's error.
pub(crate) fn check(condition: &str, holds: bool, measured: impl Display) -> Result<()> {
    if holds {
        println!("ok  {condition}: {measured}");
        return Ok(());
    }
    Err(Error::NotAccepted(format!("{condition}: {measured}")))
}

/// A number of bytes for people.
pub(crate) fn bytes(count: u64) -> String {
    match count {
        0..10_000 => format!("{count} bytes"),
        10_000..10_000_000 => format!("{:.1} kB", count as f64 / 1e3),
        _ => format!("{:.1} MB", count as f64 / 1e6),
    }
}

/// `start` until now, for people.
pub(crate) fn since(start: Instant) -> String {
    format!("{:.2} s", start.elapsed().as_secs_f64())
}
