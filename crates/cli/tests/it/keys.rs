//! The key of a device under a passphrase: given in every way there is, refused, and carried to another home.

use crate::world::{Done, Home, PATIENCE};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;

/// A home with a database whose key is locked, its device, and `@FILE` for the passphrase.
fn locked() -> (Home, String, String) {
    let a = Home::new();
    a.ok(&["db", "new", "notes"]);
    let id = a.ok(&["id"]);
    let file = format!("@{}", a.write("passphrase", "correct horse\n"));
    assert_eq!(a.json(&["key", "passphrase", "--new", &file])["locked"], true);
    (a, id, file)
}

#[test]
fn a_locked_key_takes_its_passphrase_wherever_that_comes_from() {
    let (a, id, file) = locked();
    a.run(&["id"]).fails(1, "ANABRANCH_PASSPHRASE_FILE");
    assert_eq!(a.ok(&["id", "--passphrase", &file]), id);
    let done = a.fed(b"correct horse\n", &["status", "--passphrase", "-"]);
    assert!(done.code == 0 && done.out.contains("notes"), "{done:?}");
    let mut command = a.command(&["db", "put", "notes", "t", "k", "{}"]);
    command.env("ANABRANCH_PASSPHRASE_FILE", &file[1..]);
    assert!(command.status().unwrap().success());
    a.run(&["id", "--passphrase", "correct horse"]).fails(2, "does not belong on the command line");
    a.fed(b"correct hors\n", &["id", "--passphrase", "-"]).fails(1, "the passphrase is wrong");
    a.fed(b"\n", &["id", "--passphrase", "-"]).fails(1, "one line of 1 to 1024 bytes");
    a.run(&["id", "--passphrase", "@nowhere"]).fails(1, "no passphrase could be read");
    let mut serving = a.start(&["serve", "--json", "--passphrase", &file]);
    assert!(serving.line().contains(id.trim()));
}

#[test]
fn a_passphrase_is_changed_and_removed() {
    let (a, id, old) = locked();
    let change = ["key", "passphrase", "--new", "-", "--passphrase", "-"];
    a.fed(b"wrong\nbattery staple\n", &change).fails(1, "the passphrase is wrong");
    assert_eq!(a.fed(b"correct horse\nbattery staple\n", &change).code, 0);
    a.run(&["id", "--passphrase", &old]).fails(1, "the passphrase is wrong");
    a.run(&["key", "passphrase", "--new", &old]).fails(1, "is locked by a passphrase");
    let remove = ["key", "passphrase", "--remove", "--passphrase", "-"];
    assert_eq!(a.fed(b"battery staple\n", &remove).code, 0);
    assert_eq!(a.ok(&["id"]), id);
    a.run(&["key", "passphrase"]).fails(2, "there is no terminal");
}

#[test]
fn a_key_is_carried_to_another_home() {
    let (a, id, file) = locked();
    let b = Home::new();
    let travel = format!("@{}", b.write("travel", "travel"));
    let to = b.dir().join("laptop.key").display().to_string();
    let export = ["key", "export", &to, "--new", &travel, "--passphrase", &file];
    a.ok(&export);
    a.run(&export).fails(1, "already");
    b.run(&["key", "import", &to, "--passphrase", &file]).fails(1, "the passphrase is wrong");
    assert!(!b.state().exists(), "nothing was made");
    assert_eq!(b.json(&["key", "import", &to, "--passphrase", &travel])["device"], id.trim());
    assert_eq!(b.ok(&["id", "--passphrase", &travel]), id);
    b.run(&["key", "import", &to, "--passphrase", &travel]).fails(1, "a key is never replaced");
    let key = a.state().join("key").display().to_string();
    let c = Home::new();
    c.ok(&["key", "import", &key, "--passphrase", &file]);
    let plain = Home::new();
    plain.ok(&["id"]);
    let key = plain.state().join("key").display().to_string();
    Home::new().run(&["key", "import", &key]).fails(1, "does not hold");
}

/// Kills a process unless it is heard of in time that it ended: it may wait at the terminal for ever.
fn kill_if_late(process: u32) -> mpsc::Sender<()> {
    let (ended, waits) = mpsc::channel();
    thread::spawn(move || {
        if waits.recv_timeout(PATIENCE).is_err() {
            let _ = Command::new("kill").args(["-9", &process.to_string()]).status();
        }
    });
    ended
}

/// Runs a command whose standard input is a terminal at which `typed` is typed. Returns what the terminal showed, too.
fn at_terminal(home: &Home, args: &[&str], typed: &[&str]) -> (Done, String) {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let name = ptsname(&terminal, Vec::new()).unwrap();
    let side = OpenOptions::new().read(true).write(true).open(name.to_str().unwrap()).unwrap();
    let mut command = home.command(args);
    command.stdin(Stdio::from(side)).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(command);
    let ended = kill_if_late(child.id());
    let (mut terminal, mut errors) = (File::from(terminal), child.stderr.take().unwrap());
    let mut said = String::new();
    for line in typed {
        // Not before it is asked for.
        while !said.ends_with(": ") {
            let mut byte = [0];
            assert_eq!(errors.read(&mut byte).unwrap(), 1, "it asks for nothing: {said}");
            said.push(char::from(byte[0]));
        }
        terminal.write_all(format!("{line}\n").as_bytes()).unwrap();
        said.push('\n');
    }
    errors.read_to_string(&mut said).unwrap();
    let output = child.wait_with_output().unwrap();
    // From now on its number may be somebody else's.
    let _ = ended.send(());
    let mut done = Done::from(output);
    done.err = said;
    let mut shown = Vec::new();
    // It ends with an error once nobody has the other side open.
    let _ = terminal.read_to_end(&mut shown);
    (done, String::from_utf8_lossy(&shown).into_owned())
}

#[test]
fn at_a_terminal_it_is_typed_and_not_shown() {
    let a = Home::new();
    let id = a.ok(&["id"]);
    let (done, _) = at_terminal(&a, &["key", "passphrase"], &["correct horse", "correct hose"]);
    done.fails(1, "the two are not the same");
    let (done, shown) =
        at_terminal(&a, &["key", "passphrase"], &["correct horse", "correct horse"]);
    assert!(done.code == 0 && !shown.contains("horse"), "{done:?} {shown:?}");
    let (done, shown) = at_terminal(&a, &["id"], &["correct horse"]);
    assert_eq!((done.code, &done.out), (0, &id), "{done:?}");
    assert!(done.err.contains("Passphrase of this device's key: "), "{done:?}");
    assert!(!shown.contains("horse"), "{shown:?}");
    // Once is enough for a command that opens the home twice.
    let (done, _) = at_terminal(&a, &["status"], &["correct horse"]);
    assert_eq!(done.code, 0, "{done:?}");
    let (done, _) = at_terminal(&a, &["id"], &["wrong"]);
    done.fails(1, "the passphrase is wrong");
}
