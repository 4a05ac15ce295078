//! Disks that are full, for real: a file system of 16 MiB in memory. It is mounted in a namespace of its own, which only
//! the processes of the test are in and which goes with them, whatever happens.

use crate::world::{Done, Home, finish, program};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

const MIB: usize = 1024 * 1024;
const FULL: &str = "no space left on the device";

/// A small disk, and a device whose home is on it or elsewhere.
struct SmallDisk {
    /// Keeps the namespace; it ends when its input does.
    holder: Child,
    dir: TempDir,
    home: PathBuf,
}

impl SmallDisk {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut unshare = Command::new("unshare");
        unshare.arg("--mount");
        if !rustix::process::geteuid().is_root() {
            unshare.args(["--user", "--map-root-user"]);
        }
        unshare.args([
            "sh",
            "-c",
            "mount -t tmpfs -o size=16m small \"$0\" && echo mounted && exec cat",
        ]);
        unshare.arg(dir.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut holder = unshare.spawn().expect("unshare, of util-linux");
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "mounted\n", "a small file system cannot be mounted");
        let home = dir.path().join("home");
        Self { holder, dir, home }
    }

    /// Where it is, for processes that [`Self::run`] starts.
    fn at(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// Where it is, for the test itself.
    fn seen(&self, name: &str) -> PathBuf {
        let inside = self.dir.path().strip_prefix("/").unwrap();
        Path::new(&format!("/proc/{}/root", self.holder.id())).join(inside).join(name)
    }

    fn inside(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut nsenter = Command::new("nsenter");
        nsenter.args(["--target", &self.holder.id().to_string(), "--mount"]);
        if !rustix::process::geteuid().is_root() {
            nsenter.args(["--user", "--preserve-credentials"]);
        }
        nsenter.arg("--").arg(program).stdin(Stdio::null());
        nsenter
    }

    fn run(&self, args: &[&str]) -> Done {
        let mut command = self.inside(program());
        command.args(args).env("ANABRANCH_HOME", &self.home).env("HOME", self.dir.path());
        finish(command)
    }

    #[track_caller]
    fn ok(&self, args: &[&str]) -> String {
        let done = self.run(args);
        assert_eq!(done.code, 0, "{args:?} {done:?}");
        done.out
    }

    fn grow(&self) {
        let mut mount = self.inside("mount");
        // In full: what mount reads elsewhere of this one, it may not set again in a namespace of a user's.
        mount.args(["-t", "tmpfs", "-o", "remount,size=200m", "small"]).arg(self.dir.path());
        let done = finish(mount);
        assert_eq!(done.code, 0, "{done:?}");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Bytes that nothing compresses.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let word = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 32) as u32
    };
    std::iter::repeat_with(word).take(len / 4).flat_map(u32::to_le_bytes).collect()
}

fn files(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let Ok(entries) = fs::read_dir(root) else { return BTreeMap::new() };
    let paths = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    paths
        .map(|path| {
            (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap())
        })
        .collect()
}

#[test]
fn a_database_on_a_full_disk_keeps_what_it_acknowledged_and_goes_on_when_there_is_room() {
    let disk = SmallDisk::new();
    disk.ok(&["db", "new", "notes"]);
    fs::write(disk.seen("filler"), noise(12 * MIB, 1)).unwrap();
    let noise: String = noise(30_000, 2).iter().map(|byte| format!("{byte:02x}")).collect();
    let row = format!("{{\"noise\":\"{noise}\"}}");
    let mut acknowledged = Vec::new();
    let failed = loop {
        let key = format!("row {}", acknowledged.len());
        let done = disk.run(&["db", "put", "notes", "rows", &key, &row]);
        if done.code != 0 {
            break done;
        }
        acknowledged.push(key);
        assert!(acknowledged.len() < 400, "16 MiB hold no 24");
    };
    failed.fails(1, FULL);
    failed.fails(1, "free some and try again, nothing was lost");
    assert!(acknowledged.len() > 5, "{}", acknowledged.len());
    fs::remove_file(disk.seen("filler")).unwrap();
    disk.ok(&["db", "put", "notes", "rows", "afterwards", "{}"]);
    let rows = disk.ok(&["db", "rows", "notes", "rows"]);
    for key in &acknowledged {
        assert!(rows.lines().any(|line| line == format!("{key}\t{row}")), "{key} is lost");
    }
    assert_eq!(rows.lines().count(), acknowledged.len() + 1);
    disk.ok(&["db", "verify", "notes"]);
}

/// Receives 40 MiB on the small disk by `sync`, which must fail in words, leave nothing half, and go on when there is room.
fn receives(mut disk: SmallDisk, here: &Path, sync: &[&str], join: Option<&[&str]>) {
    let all = files(here);
    let outside = tempfile::tempdir().unwrap();
    disk.home = outside.path().join("home");
    let first = disk.run(join.unwrap_or(sync));
    assert!([1, 3].contains(&first.code), "{first:?}");
    first.fails(first.code, FULL);
    let half = files(&disk.seen("there"));
    assert!(half.iter().all(|(name, bytes)| all[name] == *bytes), "only whole files are shown");
    assert!(half.len() < all.len());
    disk.run(sync).fails(first.code, FULL);
    disk.grow();
    disk.ok(sync);
    assert_eq!(files(&disk.seen("there")), all);
    assert_eq!(files(here), all);
    disk.ok(&["folder", "verify", &disk.at("there")]);
    assert_eq!(fs::read_dir(disk.seen("there/.anabranch/tmp")).unwrap().count(), 0);
}

fn large_folder(home: &Home) -> PathBuf {
    let here = home.dir().join("here");
    fs::create_dir(&here).unwrap();
    for n in 0..40 {
        fs::write(here.join(format!("file {n}")), noise(MIB, n)).unwrap();
    }
    here
}

#[test]
fn a_folder_beside_another_on_a_full_disk_says_so_and_fills_up_when_there_is_room() {
    let (home, disk) = (Home::new(), SmallDisk::new());
    let here = large_folder(&home);
    let there = disk.at("there");
    receives(disk, &here, &["sync", here.to_str().unwrap(), &there], None);
}

#[test]
fn a_folder_that_comes_from_elsewhere_to_a_full_disk_says_so_and_fills_up_when_there_is_room() {
    let (home, disk) = (Home::new(), SmallDisk::new());
    let here = large_folder(&home);
    let mut sharing = home.start(&["share", "here", "--listen", "0"]);
    let ticket = format!("@{}", home.write("ticket", sharing.line()));
    let there = disk.at("there");
    receives(disk, &here, &["sync", &there], Some(&["join", &ticket, &there]));
    assert_eq!(sharing.interrupt(), 0);
}
