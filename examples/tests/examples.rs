//! Both examples between two processes each, as their README says.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// A process in a terminal.
struct Terminal {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Terminal {
    fn start(program: &str, args: &[&str]) -> Self {
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (told, lines) = channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            output
                .lines()
                .map_while(Result::ok)
                .take_while(|line| told.send(line.clone()).is_ok())
                .for_each(drop);
        });
        let input = child.stdin.take();
        Self { child, input, lines }
    }

    fn until(&self, text: &str) -> String {
        loop {
            match self.lines.recv_timeout(Duration::from_secs(30)) {
                Ok(line) if line.contains(text) => return line,
                Ok(_) => {}
                Err(e) => panic!("'{text}' was not printed: {e}"),
            }
        }
    }

    fn say(&mut self, line: &str) {
        writeln!(self.input.as_mut().unwrap(), "{line}").unwrap();
    }

    /// Leaves with Ctrl-D.
    fn leave(mut self) {
        self.input = None;
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn at(dir: &Path, name: &str) -> String {
    dir.join(name).display().to_string()
}

#[test]
fn two_terminals_chat() {
    let (dir, chat) = (tempfile::tempdir().unwrap(), env!("CARGO_BIN_EXE_chat"));
    let (anns, bobs) = (at(dir.path(), "ann"), at(dir.path(), "bob"));
    let mut ann = Terminal::start(chat, &[&anns, "ann"]);
    let ticket = ann.until("ticket: ").replace("ticket: ", "");
    ann.until("type a line");
    ann.say("hello");
    let mut bob = Terminal::start(chat, &[&bobs, "bob", &ticket]);
    bob.until("ann: hello");
    bob.until("type a line");
    bob.say("hi ann");
    ann.until("bob: hi ann");
    ann.say("how are you?");
    bob.until("ann: how are you?");
    // He goes on where he was, with what was said meanwhile.
    bob.leave();
    ann.say("gone?");
    let bob = Terminal::start(chat, &[&bobs, "bob"]);
    bob.until("ann: hello");
    bob.until("ann: gone?");
    ann.leave();
    drop(bob);
    let wrong = Command::new(chat).arg(&anns).output().unwrap();
    assert_eq!(wrong.status.code(), Some(2));
}

fn todo(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_todo")).args(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn two_devices_share_a_to_do_list() {
    let dir = tempfile::tempdir().unwrap();
    let (laptop, phone) = (at(dir.path(), "laptop"), at(dir.path(), "phone"));
    assert_eq!(todo(&[&laptop, "add", "buy", "milk"]), "  1 [ ] buy milk\n");
    let share = Terminal::start(env!("CARGO_BIN_EXE_todo"), &[&laptop, "share", "0"]);
    let ticket = share.until("ticket_");
    assert_eq!(todo(&[&phone, "join", &ticket]), "  1 [ ] buy milk\n");
    todo(&[&phone, "done", "1"]);
    todo(&[&laptop, "add", "call mum"]);
    let synced = todo(&[&phone, "sync"]);
    assert!(synced.contains("in step with") && synced.contains("  2 [ ] call mum"), "{synced}");
    assert_eq!(todo(&[&laptop, "ls"]), "  1 [x] buy milk\n  2 [ ] call mum\n");
    let none = Command::new(env!("CARGO_BIN_EXE_todo")).args([&*phone, "done", "9"]).output();
    let none = none.unwrap();
    assert!(String::from_utf8_lossy(&none.stderr).contains("there is no item 9"));
}
