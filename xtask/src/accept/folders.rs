//! Folders between two homes: through a ticket and a proxy that counts, through something in the place of ssh, and
//! side by side on one machine. What was edited while apart must be on both sides afterwards.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::Value;

use super::device::{Device, Lab, Running, bytes, check, since};
use super::proxy::Proxy;
use super::tree;
use crate::error::{Error, Result};
use crate::random::Random;
use crate::workspace::Workspace;

/// What a sync that moves nothing may send, both ways together.
const IDLE: u64 = 2_000;
/// What a rename may send, both ways together.
const RENAME: u64 = 100_000;
const LARGE: usize = 200_000_000;

pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let lab = Lab::new(workspace)?;
    let original = lab.path("original");
    let mut files = 0;
    for part in ["crates", "docs"] {
        files += tree::copy(&workspace.root().join(part), &original.join(part))?;
    }
    println!("the folder: {files} files of this repository");
    side_by_side(&lab, &original)?;
    through_ssh(&lab, &original)?;
    Pair::join(&lab, &original)?.try_everything()
}

fn side_by_side(lab: &Lab, original: &Path) -> Result<()> {
    println!("-- two folders of one machine");
    let device = lab.device("local");
    let here = lab.path("here");
    tree::copy(original, &here)?;
    let (here, there) = (text(&here), text(lab.path("there")));
    print!("{}", device.run(&["sync", &here, &there])?);
    tree::compare(Path::new(&here), Path::new(&there))?;
    nothing_moved(&device.json(&["sync", &here, &there])?)
}

/// A script stands for ssh: it runs the command here, in another home, between two `tee` that keep what passes.
fn through_ssh(lab: &Lab, original: &Path) -> Result<()> {
    println!("-- through host:path");
    let near = lab.device("near");
    let (script, up, down) = (lab.path("ssh.sh"), lab.path("up"), lab.path("down"));
    let programs = lab.program().parent().map_or_else(String::new, text);
    let far = text(&lab.device("far").home);
    let (up_name, down_name) = (text(&up), text(&down));
    let lines = format!(
        "#!/bin/sh\nPATH='{programs}':\"$PATH\" ANABRANCH_HOME='{far}'\nexport PATH ANABRANCH_HOME\n\
         tee '{up_name}' | sh -c \"$2\" | tee '{down_name}'\n"
    );
    tree::write(&script, &lines)?;
    near.run(&["config", "ssh.command", &format!("sh '{}'", script.display())])?;
    let (here, there) = (lab.path("near"), lab.path("far"));
    tree::copy(original, &here)?;
    let (here_name, address) = (text(&here), format!("elsewhere:{}", there.display()));
    let passed = || {
        let length = |path: &PathBuf| fs::metadata(path).map_or(0, |found| found.len());
        length(&up) + length(&down)
    };
    print!("{}", near.run(&["sync", &here_name, &address])?);
    tree::compare(&here, &there)?;
    println!("ok  the first sync through the pipe: {}", bytes(passed()));
    nothing_moved(&near.json(&["sync", &here_name, &address])?)?;
    let sent = passed();
    check("a second sync through the pipe sends less than 2 kB", sent < IDLE, bytes(sent))
}

/// A folder in home A, which shares it, and its replica in home B; between them the proxy.
struct Pair {
    a: Device,
    b: Device,
    in_a: PathBuf,
    in_b: PathBuf,
    proxy: Proxy,
    random: Random,
    sharing: Running,
}

impl Pair {
    fn join(lab: &Lab, original: &Path) -> Result<Self> {
        println!("-- two homes, a ticket and a proxy");
        let (a, b) = (lab.device("a"), lab.device("b"));
        let (in_a, in_b) = (lab.path("folder-a"), lab.path("folder-b"));
        tree::copy(original, &in_a)?;
        let (sharing, address) = a.start_serving(&["share", &text(&in_a), "--listen", "0"])?;
        let proxy = Proxy::start(address)
            .map_err(|source| Error::Start { command: "the proxy".to_owned(), source })?;
        let ticket = a.ticket(lab, &text(&in_a), &proxy.url())?;
        let start = Instant::now();
        print!("{}", b.run(&["join", &ticket, &text(&in_b)])?);
        println!("ok  joined in {}: {} through the proxy", since(start), bytes(proxy.total()));
        let random = Random::from_environment();
        Ok(Self { a, b, in_a, in_b, proxy, random, sharing })
    }

    fn try_everything(mut self) -> Result<()> {
        let result = self.try_all();
        let said = self.sharing.end()?;
        if result.is_err() {
            println!("the sharing side said:\n{said}");
        }
        result
    }

    fn try_all(&mut self) -> Result<()> {
        tree::compare(&self.in_a, &self.in_b)?;
        self.idle()?;
        self.edited_on_both_sides()?;
        self.edited_and_deleted()?;
        self.renamed()?;
        self.idle()?;
        self.log()
    }

    /// Syncs from B, and returns what it said and what went through the proxy.
    fn sync(&self) -> Result<(Value, u64)> {
        let before = self.proxy.total();
        let said = self.b.json(&["sync", &text(&self.in_b)])?;
        Ok((said, self.proxy.total() - before))
    }

    fn idle(&self) -> Result<()> {
        let (said, sent) = self.sync()?;
        nothing_moved(&said)?;
        check("a sync that moves nothing sends less than 2 kB", sent < IDLE, bytes(sent))
    }

    fn edited_on_both_sides(&self) -> Result<()> {
        let name = "docs/format.md";
        let (mine, theirs) = ("edited in A\n", "edited in B\n");
        tree::write(&self.in_a.join(name), mine)?;
        tree::write(&self.in_b.join(name), theirs)?;
        let (_, sent) = self.sync()?;
        println!("ok  a file edited on both sides: {} through the proxy", bytes(sent));
        tree::compare(&self.in_a, &self.in_b)?;
        for content in [mine, theirs] {
            let found = tree::with_text(&self.in_b.join("docs"), content)?;
            let names = found.iter().filter_map(|path| path.file_name()?.to_str());
            let names = names.collect::<Vec<_>>().join(", ");
            let what = format!("{:?} is on both sides, in one file", content.trim());
            check(&what, found.len() == 1, names)?;
        }
        for (device, folder) in [(&self.a, &self.in_a), (&self.b, &self.in_b)] {
            let conflicts = device.json(&["folder", "conflicts", &text(folder)])?;
            let listed = conflicts["conflicts"].as_array().map_or(0, Vec::len);
            let what = format!("`folder conflicts` lists it in {}", device.name.to_uppercase());
            check(&what, listed == 1, format!("{listed} listed"))?;
        }
        Ok(())
    }

    fn edited_and_deleted(&self) -> Result<()> {
        for (name, edited, deleted) in [
            ("docs/protocol.md", &self.in_a, &self.in_b),
            ("docs/design.md", &self.in_b, &self.in_a),
        ] {
            tree::write(&edited.join(name), "edited, not deleted\n")?;
            tree::remove(&deleted.join(name))?;
            self.sync()?;
            for folder in [edited, deleted] {
                let survives = tree::text(&folder.join(name));
                let survives = survives.as_deref() == Some("edited, not deleted\n");
                let place = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
                check(
                    "an edit survives a deletion elsewhere",
                    survives,
                    format!("{place}/{name}"),
                )?;
            }
        }
        tree::compare(&self.in_a, &self.in_b)
    }

    fn renamed(&mut self) -> Result<()> {
        tree::write_random(&self.in_a.join("large"), LARGE, &mut self.random)?;
        let start = Instant::now();
        let (_, sent) = self.sync()?;
        println!(
            "ok  a file of {} synced in {}: {} through the proxy",
            bytes(LARGE as u64),
            since(start),
            bytes(sent)
        );
        tree::compare(&self.in_a, &self.in_b)?;
        for (side, folder, from, to) in [
            ("A", &self.in_a, "large", "docs/renamed in A"),
            ("B", &self.in_b, "docs/renamed in A", "renamed again"),
        ] {
            tree::rename(&folder.join(from), &folder.join(to))?;
            let start = Instant::now();
            let (_, sent) = self.sync()?;
            let what = format!("renaming it in {side} sends less than 100 kB");
            check(&what, sent < RENAME, format!("{} in {}", bytes(sent), since(start)))?;
            tree::compare(&self.in_a, &self.in_b)?;
        }
        Ok(())
    }

    fn log(&self) -> Result<()> {
        let log = self.b.run(&["folder", "log", &text(&self.in_b), "--limit", "100000"])?;
        for line in log.lines().take(5) {
            println!("    {line}");
        }
        for name in ["docs/format.md", "docs/protocol.md", "renamed again", "delete"] {
            let lines = log.lines().filter(|line| line.contains(name)).count();
            check(&format!("`folder log` tells of {name}"), lines > 0, format!("{lines} lines"))?;
        }
        Ok(())
    }
}

/// What `sync --json` says of a folder when nothing moved.
fn nothing_moved(said: &Value) -> Result<()> {
    let empty = |key: &str| said[key].as_array().is_some_and(Vec::is_empty);
    let nothing = empty("sent")
        && empty("received")
        && said["entries_sent"] == 0
        && said["entries_received"] == 0
        && said["bytes_written"] == 0;
    check("a second sync says that nothing moved", nothing, said)
}

fn text(path: impl AsRef<Path>) -> String {
    path.as_ref().to_string_lossy().into_owned()
}
