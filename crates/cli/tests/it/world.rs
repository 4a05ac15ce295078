//! Homes in temporary directories and processes of the binary in them. A process that was started is killed at the
//! latest when its test ends, and no other one ever is.

use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long anything may take before the test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A device.
pub(crate) struct Home {
    dir: TempDir,
}

/// The binary that belongs to these tests, unless the environment names another.
pub(crate) fn program() -> PathBuf {
    let other = std::env::var_os("ANABRANCH_ACCEPT_PROGRAM").map(PathBuf::from);
    other.unwrap_or_else(|| env!("CARGO_BIN_EXE_anabranch").into())
}

/// What a command printed and ended with.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Done {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().expect("not ended by a signal"),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Done {
    /// Panics unless the command ended with `code` and its errors contain `text`.
    #[track_caller]
    pub(crate) fn fails(&self, code: i32, text: &str) {
        assert_eq!(self.code, code, "{self:?}");
        assert!(self.err.contains(text), "{text:?} is not in {self:?}");
    }
}

impl Home {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    /// The directory that commands run in; the home is `home` in it.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.dir().join("home")
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.args(args).current_dir(self.dir()).stdin(Stdio::null());
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("ANABRANCH_HOME", self.state()).env("HOME", self.dir());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Done {
        finish(self.command(args))
    }

    /// Runs a command that must succeed; what it printed.
    #[track_caller]
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let done = self.run(args);
        assert_eq!(done.code, 0, "{args:?} {done:?}");
        done.out
    }

    /// Runs a command that must succeed with `--json`; its document.
    #[track_caller]
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let out = self.ok(&[args, &["--json"]].concat());
        serde_json::from_str(&out).unwrap_or_else(|e| panic!("{args:?}: {e}: {out}"))
    }

    /// Runs a command with this on its standard input.
    pub(crate) fn fed(&self, input: &[u8], args: &[&str]) -> Done {
        let mut command = self.command(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // A command that fails early does not read all of it.
        let _ = child.stdin.take().unwrap().write_all(input);
        within(child)
    }

    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) -> String {
        let path = self.dir().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// Starts a command that goes on until it is told to end.
    pub(crate) fn start(&self, args: &[&str]) -> Running {
        Running::of(self.command(args))
    }

    /// Starts serving on a port; the address it says.
    pub(crate) fn serve(&self, listen: &str) -> (Running, String) {
        let mut running = self.start(&["serve", "--listen", listen, "--json"]);
        let said: Value = serde_json::from_str(&running.line()).unwrap();
        let address = said["address"].as_str().unwrap().to_owned();
        (running, address)
    }

    pub(crate) fn digest(&self, db: &str) -> String {
        self.ok(&["db", "digest", db])
    }

    /// The only database file of this home.
    pub(crate) fn database_file(&self) -> PathBuf {
        let files = std::fs::read_dir(self.state().join("databases")).unwrap();
        let mut files: Vec<PathBuf> = files.map(|f| f.unwrap().path()).collect();
        files.retain(|f| f.extension().is_some_and(|e| e == "db"));
        assert_eq!(files.len(), 1, "{files:?}");
        files.remove(0)
    }
}

/// Runs a command to its end.
pub(crate) fn finish(mut command: Command) -> Done {
    within(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
}

/// The end of a process, which is killed when it does not come.
fn within(child: Child) -> Done {
    let pid = child.id().to_string();
    let (ended, waits) = std::sync::mpsc::channel();
    let output = thread::spawn(move || {
        let output = child.wait_with_output().unwrap();
        let _ = ended.send(());
        output
    });
    if waits.recv_timeout(PATIENCE).is_err() {
        let _ = Command::new("kill").args(["-9", &pid]).status();
        panic!("it does not end: {:?}", output.join().unwrap());
    }
    output.join().unwrap().into()
}

/// Two homes: `a` has the database `notes` and serves it, `b` joined it.
pub(crate) fn joined() -> (Home, Home, Running, String) {
    let (a, b) = (Home::new(), Home::new());
    a.ok(&["db", "new", "notes"]);
    let (serving, address) = a.serve("0");
    let ticket = a.ok(&["ticket", "notes", "--address", &address]);
    b.ok(&["join", ticket.trim()]);
    (a, b, serving, address)
}

/// Lines that a process printed.
#[derive(Clone, Default)]
struct Said(Arc<(Mutex<Lines>, Condvar)>);

#[derive(Default)]
struct Lines {
    lines: VecDeque<String>,
    ended: bool,
}

impl Said {
    fn listen(from: impl Read + Send + 'static) -> Self {
        let said = Self::default();
        let hears = said.clone();
        thread::spawn(move || {
            for line in BufReader::new(from).lines() {
                let Ok(line) = line else { break };
                hears.lock().lines.push_back(line);
                hears.0.1.notify_all();
            }
            hears.lock().ended = true;
            hears.0.1.notify_all();
        });
        said
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.0.0.lock().unwrap()
    }

    fn all(&self) -> Vec<String> {
        self.lock().lines.iter().cloned().collect()
    }

    fn next(&self) -> Option<String> {
        let end = Instant::now() + PATIENCE;
        let mut lines = self.lock();
        loop {
            if let Some(line) = lines.lines.pop_front() {
                return Some(line);
            }
            let left = end.saturating_duration_since(Instant::now());
            if lines.ended || left.is_zero() {
                return None;
            }
            lines = self.0.1.wait_timeout(lines, left).unwrap().0;
        }
    }
}

/// A process that goes on.
pub(crate) struct Running {
    child: Child,
    out: Said,
    err: Said,
}

impl Running {
    /// Starts a program.
    pub(crate) fn of(mut command: Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let out = Said::listen(child.stdout.take().unwrap());
        let err = Said::listen(child.stderr.take().unwrap());
        Self { child, out, err }
    }

    /// The next line it prints.
    #[track_caller]
    pub(crate) fn line(&mut self) -> String {
        self.out
            .next()
            .unwrap_or_else(|| panic!("it printed nothing; errors: {:?}", self.err.all()))
    }

    /// Waits for a line on standard error that contains `text`.
    #[track_caller]
    pub(crate) fn note(&mut self, text: &str) -> String {
        loop {
            match self.err.next() {
                Some(line) if line.contains(text) => return line,
                Some(_) => {}
                None => panic!("it never said {text:?}"),
            }
        }
    }

    /// Tells it to end, as Ctrl-C does, and waits; its exit code.
    pub(crate) fn interrupt(mut self) -> i32 {
        self.tell_to_end();
        self.wait()
    }

    /// Tells it to end, as Ctrl-C does.
    pub(crate) fn tell_to_end(&self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    }

    /// Waits for its end; its exit code.
    pub(crate) fn wait(&mut self) -> i32 {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
            }
            assert!(Instant::now() < end, "it does not end");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// How it ended, if it did.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// What it said on standard error and nobody has read.
    pub(crate) fn complaints(&self) -> Vec<String> {
        self.err.all()
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Waits until `is` holds.
#[track_caller]
pub(crate) fn eventually(what: &str, is: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is() {
        assert!(Instant::now() < end, "{what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// The files below a folder, by their paths in it.
pub(crate) fn tree(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_path_buf()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().display().to_string();
            if name == ".anabranch" {
                continue;
            }
            if path.is_dir() {
                open.push(path);
            } else {
                found.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// Everything below a folder, by its bytes: kind and mode, and of a file time and content, of a link its target.
///
/// # Errors
/// When something goes while it is looked at.
pub(crate) fn manifest(root: &Path) -> std::io::Result<BTreeMap<PathBuf, String>> {
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_path_buf()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir)? {
            let path = entry?.path();
            let name = path.strip_prefix(root).unwrap().to_owned();
            if name == Path::new(".anabranch") {
                continue;
            }
            let meta = path.symlink_metadata()?;
            let mode = meta.permissions().mode() & 0o777;
            let what = if meta.is_dir() {
                open.push(path);
                format!("directory {mode:o}")
            } else if meta.is_symlink() {
                format!("link to {:?}", std::fs::read_link(&path)?)
            } else {
                let (bytes, seconds) = (std::fs::read(&path)?, meta.mtime());
                let hash = blake3::hash(&bytes);
                format!("file {mode:o} {seconds}.{} {} {hash}", meta.mtime_nsec(), bytes.len())
            };
            found.insert(name, what);
        }
    }
    Ok(found)
}
