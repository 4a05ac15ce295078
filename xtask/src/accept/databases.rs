//! A database of at least 100,000 rows on three devices, of which the third only ever talks to the second: bootstrap,
//! edits while apart, conflicts and how they are settled, and commits that are pushed live.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::device::{Device, Lab, check, since};
use super::dpkg;
use crate::error::{Error, Result};
use crate::workspace::Workspace;

/// What the database and its table are called.
pub(crate) const DATABASE: &str = "packages";
pub(crate) const TABLE: &str = "files";
/// Edits on each side while apart, and how many of them are on the same cells.
const EDITS: usize = 1_000;
const SHARED: usize = 100;
const PUTS: usize = 4;

pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let lab = Lab::new(workspace)?;
    let rows = dpkg::owned_paths()?;
    let (a, b, c) = (lab.device("a"), lab.device("b"), lab.device("c"));
    import(&lab, &a, &rows)?;
    let (serving, at_a) = a.start_serving(&["serve", "--listen", "0"])?;
    let ticket = a.ticket(&lab, DATABASE, &format!("http://{at_a}"))?;
    join(&b, &ticket)?;
    same(&[&a, &b])?;
    same_export(&[&a, &b])?;

    // Peers that are served may write; B only follows when it is told to, so both are apart until then.
    edit_apart(&a, &b, &rows)?;
    b.run(&["sync", DATABASE])?;
    same(&[&a, &b])?;
    settle(&a, &b)?;

    third_device(&lab, &a, &b, &c)?;
    live(&a, &b)?;
    drop(serving);
    Ok(())
}

/// Makes the database and fills it.
pub(crate) fn import(lab: &Lab, device: &Device, rows: &[(String, String)]) -> Result<()> {
    let file: PathBuf = lab.path("rows.jsonl");
    dpkg::write_rows(rows, &file)?;
    device.run(&["db", "new", DATABASE])?;
    let start = Instant::now();
    let file = file.to_string_lossy();
    let said = device.json(&["db", "import", DATABASE, TABLE, &file, "--key", "path"])?;
    check(
        "the paths of this machine's packages are imported",
        said["rows"] == rows.len(),
        format!("{} rows in {} entries, {}", rows.len(), said["entries"], since(start)),
    )
}

fn join(device: &Device, ticket: &str) -> Result<()> {
    let start = Instant::now();
    let said = device.json(&["join", ticket])?;
    println!(
        "ok  {} joined: {} entries, {} bytes, {}",
        device.name.to_uppercase(),
        said["received"]["entries"],
        said["received"]["bytes"],
        since(start)
    );
    Ok(())
}

/// Fails unless all devices have one digest.
pub(crate) fn same(devices: &[&Device]) -> Result<()> {
    same_output(devices, &["db", "digest", DATABASE], "digests are equal", |text| {
        text.trim().to_owned()
    })
}

fn same_export(devices: &[&Device]) -> Result<()> {
    same_output(devices, &["db", "export", DATABASE, TABLE], "exports are equal", |text| {
        format!("{} lines, {} bytes", text.lines().count(), text.len())
    })
}

fn same_output(
    devices: &[&Device],
    command: &[&str],
    what: &str,
    measure: impl Fn(&str) -> String,
) -> Result<()> {
    let outputs = devices.iter().map(|d| d.run(command)).collect::<Result<Vec<_>>>()?;
    let names = devices.iter().map(|d| d.name.to_uppercase()).collect::<Vec<_>>().join(" and ");
    let measured: Vec<String> = outputs.iter().map(|text| measure(text)).collect();
    let equal = outputs.windows(2).all(|pair| pair[0] == pair[1]);
    let shown = if equal { measured[..1].to_vec() } else { measured };
    check(&format!("{what} in {names}"), equal, shown.join(" and "))
}

/// One `db put` for each edit, on both sides at once.
fn edit_apart(a: &Device, b: &Device, rows: &[(String, String)]) -> Result<()> {
    let start = Instant::now();
    // Spread over the table; the first SHARED rows are edited on both sides.
    let step = rows.len() / (2 * EDITS);
    let row = |index: usize| &rows[index * step].0;
    let (left, right): (Vec<&String>, Vec<&String>) = (
        (0..EDITS).map(row).collect(),
        (0..SHARED).chain(EDITS..2 * EDITS - SHARED).map(row).collect(),
    );
    let edit = |device: &Device, keys: &[&String]| -> Result<()> {
        keys.iter().try_for_each(|key| put(device, key))
    };
    let (one, two) = thread::scope(|scope| {
        let one = scope.spawn(|| edit(a, &left));
        (edit(b, &right), one.join())
    });
    one?;
    two.unwrap_or_else(|_| Err(Error::NotAccepted("the thread that edits ends".to_owned())))?;
    println!(
        "ok  {EDITS} edits on each side, {SHARED} of them on the same cells: {}",
        since(start)
    );
    Ok(())
}

fn put(device: &Device, key: &str) -> Result<()> {
    let row = json!({ "path": key, "package": format!("edited in {}", device.name) });
    device.run(&["db", "put", DATABASE, TABLE, key, &row.to_string()]).map(drop)
}

fn conflicts(device: &Device) -> Result<Vec<Value>> {
    let said = device.json(&["db", "conflicts", DATABASE])?;
    Ok(said["conflicts"].as_array().cloned().unwrap_or_default())
}

/// Settles every conflict in A; afterwards B has none either.
fn settle(a: &Device, b: &Device) -> Result<()> {
    let both = [a, b];
    let text = ["db", "conflicts", DATABASE];
    let lines = |text: &str| format!("{} lines", text.lines().count());
    same_output(&both, &text, "`db conflicts` is equal", lines)?;
    let json = ["db", "conflicts", DATABASE, "--json"];
    same_output(&both, &json, "`db conflicts --json` is equal", |text| {
        format!("{} bytes", text.len())
    })?;
    let found = conflicts(a)?;
    check("there is a conflict for each cell edited twice", found.len() == SHARED, found.len())?;
    let start = Instant::now();
    for (index, conflict) in found.iter().enumerate() {
        let key = conflict["path"][0].as_str().unwrap_or_default();
        let take = if index % 2 == 0 { "1" } else { "2" };
        a.run(&["db", "resolve", DATABASE, TABLE, key, "--take", take])?;
    }
    println!("ok  {} conflicts settled in A: {}", found.len(), since(start));
    b.run(&["sync", DATABASE])?;
    for device in both {
        let left = conflicts(device)?.len();
        check(&format!("none is left in {}", device.name.to_uppercase()), left == 0, left)?;
    }
    same(&both)
}

/// C joins with a ticket that A makes and that names the address of B: who may let others in and who is connected to
/// are two things. B must have heard of the ticket before, so it syncs first.
fn third_device(lab: &Lab, a: &Device, b: &Device, c: &Device) -> Result<()> {
    println!("-- a third device that only talks to the second");
    let (serving, at_b) = b.start_serving(&["serve", "--listen", "0"])?;
    serving.wait_until_said("in step")?;
    let ticket = a.ticket(lab, DATABASE, &format!("http://{at_b}"))?;
    b.run(&["sync", DATABASE])?;
    join(c, &ticket)?;
    same(&[a, b, c])?;
    drop(serving);
    put(a, "/only/in/A")?;
    put(c, "/only/in/C")?;
    b.run(&["sync", DATABASE])?;
    let (_serving, at_b) = b.start_serving(&["serve", "--listen", "0"])?;
    c.run(&["sync", DATABASE, &format!("http://{at_b}")])?;
    b.run(&["sync", DATABASE])?;
    same(&[a, b, c])?;
    same_export(&[a, b, c])
}

/// Four commits at once beside A's `serve`, while B follows and watches.
fn live(a: &Device, b: &Device) -> Result<()> {
    println!("-- {PUTS} commits at once, pushed live");
    let following = b.start(&["serve"])?;
    following.wait_until_said("in step")?;
    let watching = b.start(&["db", "watch", DATABASE, "--json"])?;
    watching.wait_until_said("watching")?;
    let keys: Vec<String> = (0..PUTS).map(|n| format!("/live/{n}")).collect();
    let puts: Vec<_> = keys
        .iter()
        .cloned()
        .map(|key| {
            let a = a.clone();
            thread::spawn(move || {
                let start = Instant::now();
                put(&a, &key).map(|()| (key, start, Instant::now()))
            })
        })
        .collect();
    let mut seen: BTreeMap<String, Instant> = BTreeMap::new();
    while seen.len() < PUTS {
        let (at, line) = watching.line(Duration::from_secs(10))?;
        let change: Value = serde_json::from_str(&line).unwrap_or_default();
        for write in change["writes"].as_array().into_iter().flatten() {
            let key = write["path"][0].as_str().unwrap_or_default();
            if keys.iter().any(|k| k == key) {
                seen.entry(key.to_owned()).or_insert(at);
            }
        }
    }
    for thread in puts {
        let done = thread.join();
        let (key, start, end) =
            done.map_err(|_| Error::NotAccepted("the thread that puts a row ends".to_owned()))??;
        let Some(at) = seen.get(&key) else { continue };
        println!(
            "ok  {key}: seen in B {:.0} ms after `db put` started, which took {:.0} ms",
            (*at - start).as_secs_f64() * 1e3,
            (end - start).as_secs_f64() * 1e3
        );
        b.run(&["db", "get", DATABASE, TABLE, &key])?;
    }
    same(&[a, b])
}
