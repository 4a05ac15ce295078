//! Running everything in turn, and the table or the JSON that comes of it. Own runs and those of SQLite alone alternate, so
//! that whatever else the machine does strikes both.

use crate::bootstrap::{filled, joined};
use crate::commits::{self, Counts};
use crate::data::Keys;
use crate::raw::{Raw, Sizes};
use crate::spread::Spread;
use crate::{Result, commits::WRITERS};
use anabranch_core::storage::Durability;
use anabranch_node::Node;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Entries that a session applies in one transaction, about; SQLite alone gets groups of this size.
const BATCH: u64 = 1_280;

/// What is to be measured.
pub(crate) struct Plan {
    pub(crate) entries: u64,
    pub(crate) runs: usize,
    /// `None`: only the bootstrap with random keys, and no SQLite alone.
    pub(crate) commits: Option<Counts>,
    pub(crate) json: bool,
    pub(crate) dir: PathBuf,
}

/// The outcome. Rates are a second.
#[derive(Debug, Serialize)]
struct Report {
    entries: u64,
    runs: usize,
    cores: usize,
    sizes: Option<Sizes>,
    bootstrap: Vec<Bootstrap>,
    commits: Vec<Commits>,
}

#[derive(Debug, Serialize)]
struct Bootstrap {
    keys: &'static str,
    entries_per_second: Spread,
    seconds: Spread,
    raw_entries_per_second: Option<Spread>,
    ratio: Option<f64>,
    /// Entries that moved in each run, those about members included.
    moved: u64,
    /// Entries held on the joining side afterwards.
    held: u64,
    wire_bytes: u64,
    peak_serving: u64,
    peak_joining: u64,
    digests_equal: bool,
    digest: String,
    /// How fast the database was made, several thousand entries at a time.
    made_per_second: f64,
}

#[derive(Debug, Serialize)]
struct Commits {
    what: String,
    per_second: Spread,
    /// SQLite alone, one by one with the same `synchronous` setting; nothing where it has no counterpart.
    raw_per_second: Option<Spread>,
    ratio: Option<f64>,
}

/// Measures and prints.
pub(crate) fn run(plan: &Plan) -> Result<()> {
    let dir = tempfile::Builder::new().prefix("anabranch-report").tempdir_in(&plan.dir)?;
    let mut report = Report {
        entries: plan.entries,
        runs: plan.runs,
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        sizes: None,
        bootstrap: Vec::new(),
        commits: Vec::new(),
    };
    let all = if plan.commits.is_some() { &Keys::BOTH[..] } else { &[Keys::Random] };
    let runtime = tokio::runtime::Runtime::new()?;
    for &keys in all {
        let full = dir.path().join(format!("full-{}", keys.name()));
        let (bootstrap, sizes) = bootstrap(plan, keys, &full, dir.path())?;
        report.bootstrap.push(bootstrap);
        report.sizes = Some(sizes);
        if let Some(counts) = plan.commits.filter(|_| keys == Keys::Random) {
            report.commits = commits(plan, counts, sizes, dir.path(), &runtime)?;
            report.commits.push(on_large(plan, counts, &full, &runtime)?);
        }
        std::fs::remove_dir_all(&full)?;
    }
    if plan.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print(&report);
    }
    Ok(())
}

fn bootstrap(plan: &Plan, keys: Keys, full: &Path, dir: &Path) -> Result<(Bootstrap, Sizes)> {
    progress(&format!("making a database of {} entries, {} keys", plan.entries, keys.name()));
    let made = filled(full, plan.entries, keys)?;
    let (mut rates, mut seconds, mut raws) = (Vec::new(), Vec::new(), Vec::new());
    let (mut serving, mut joining, mut equal) = (0, 0, true);
    let (mut moved, mut held, mut wire, mut digest) = (0, 0, 0, String::new());
    for run in 1..=plan.runs {
        let there = dir.join("joining");
        let (here, got) = joined(full, &there)?;
        std::fs::remove_dir_all(&there)?;
        rates.push(got.entries as f64 / got.seconds);
        seconds.push(got.seconds);
        serving = here.peak.max(serving);
        joining = got.peak.max(joining);
        equal &= here.digest == got.digest && got.entries >= made.held;
        (moved, held, wire, digest) = (got.entries, got.held, got.bytes, got.digest);
        let mut line =
            format!("bootstrap run {run}: {:.0} entries/s", got.entries as f64 / got.seconds);
        if plan.commits.is_some() {
            let raw = raw_bulk(plan, keys, made.sizes, dir)?;
            line.push_str(&format!(", SQLite alone {raw:.0}"));
            raws.push(raw);
        }
        progress(&line);
    }
    let (own, raw) = (Spread::of(rates), (!raws.is_empty()).then(|| Spread::of(raws)));
    let outcome = Bootstrap {
        keys: keys.name(),
        ratio: raw.map(|raw| own.median / raw.median),
        entries_per_second: own,
        seconds: Spread::of(seconds),
        raw_entries_per_second: raw,
        moved,
        held,
        wire_bytes: wire,
        peak_serving: serving,
        peak_joining: joining,
        digests_equal: equal,
        digest,
        made_per_second: plan.entries as f64 / made.seconds,
    };
    Ok((outcome, made.sizes))
}

fn raw_bulk(plan: &Plan, keys: Keys, sizes: Sizes, dir: &Path) -> Result<f64> {
    let dir = tempfile::tempdir_in(dir)?;
    let mut raw = Raw::create(&dir.path().join("raw"), Durability::Full, sizes, keys)?;
    Ok(plan.entries as f64 / raw.insert(plan.entries, BATCH)?.as_secs_f64())
}

fn commits(
    plan: &Plan,
    counts: Counts,
    sizes: Sizes,
    dir: &Path,
    runtime: &tokio::runtime::Runtime,
) -> Result<Vec<Commits>> {
    let (mut full, mut normal, mut many) = (Vec::new(), Vec::new(), Vec::new());
    let (mut raw_full, mut raw_normal) = (Vec::new(), Vec::new());
    for run in 1..=plan.runs {
        let dir = tempfile::tempdir_in(dir)?;
        let at = |name: &str| dir.path().join(name);
        let replica = commits::replica(&at("full"), Durability::Full)?;
        full.push(runtime.block_on(commits::one_by_one(&replica, Keys::Random, 0, counts.full))?);
        raw_full.push(commits::raw(&at("raw-full"), Durability::Full, sizes, counts.full)?);
        let replica = commits::replica(&at("normal"), Durability::Normal)?;
        normal.push(runtime.block_on(commits::one_by_one(
            &replica,
            Keys::Random,
            0,
            counts.normal,
        ))?);
        raw_normal.push(commits::raw(&at("raw-normal"), Durability::Normal, sizes, counts.normal)?);
        let replica = commits::replica(&at("many"), Durability::Full)?;
        many.push(runtime.block_on(commits::at_once(&replica, counts.many))?);
        progress(&format!("commits run {run} done"));
    }
    let (raw_full, raw_normal) = (Spread::of(raw_full), Spread::of(raw_normal));
    let line = |what: &str, own: Vec<f64>, raw: Spread| {
        let per_second = Spread::of(own);
        let ratio = Some(per_second.median / raw.median);
        Commits { what: what.to_owned(), per_second, raw_per_second: Some(raw), ratio }
    };
    Ok(vec![
        line("FULL, one by one", full, raw_full),
        line(&format!("FULL, {WRITERS} writers"), many, raw_full),
        line("NORMAL, one by one", normal, raw_normal),
    ])
}

/// Whether a commit costs more where much is held already.
fn on_large(
    plan: &Plan,
    counts: Counts,
    home: &Path,
    runtime: &tokio::runtime::Runtime,
) -> Result<Commits> {
    let node = Node::open(home)?;
    node.home().ok_or("a node in memory has no home")?.configure("durability", Some("normal"))?;
    drop(node);
    let node = Node::open(home)?;
    let replica = node.database("bench")?;
    let mut rates = Vec::new();
    for run in 0..plan.runs as u64 {
        let from = plan.entries + run * counts.normal;
        rates.push(runtime.block_on(commits::one_by_one(
            &replica,
            Keys::Random,
            from,
            counts.normal,
        ))?);
    }
    Ok(Commits {
        what: format!("NORMAL, one by one, {} entries held", plan.entries),
        per_second: Spread::of(rates),
        raw_per_second: None,
        ratio: None,
    })
}

fn progress(what: &str) {
    eprintln!("{what}");
}

fn print(report: &Report) {
    println!(
        "{} entries, median of {} alternating runs (lowest to highest), {} cores",
        report.entries, report.runs, report.cores
    );
    if let Some(s) = report.sizes {
        println!("rows: entry {} bytes, cell {} + {} bytes", s.entry, s.key, s.value);
    }
    println!("\n{:<40}{:>26}{:>26}{:>8}", "a second", "Anabranch", "SQLite alone", "ratio");
    for b in &report.bootstrap {
        let what = format!("bootstrap, {} keys: entries", b.keys);
        row(&what, b.entries_per_second, b.raw_entries_per_second, b.ratio);
    }
    for c in &report.commits {
        row(&format!("commits, {}", c.what), c.per_second, c.raw_per_second, c.ratio);
    }
    for b in &report.bootstrap {
        println!(
            "\nbootstrap, {} keys: {:.1} s, {} entries, {:.1} MB on the wire ({:.0} bytes an entry)\n  peak memory: serving {:.1} MB, joining {:.1} MB\n  digests {}: {}\n  made at {:.0} entries/s",
            b.keys,
            b.seconds.median,
            b.moved,
            b.wire_bytes as f64 / 1e6,
            b.wire_bytes as f64 / b.moved.max(1) as f64,
            b.peak_serving as f64 / 1e6,
            b.peak_joining as f64 / 1e6,
            if b.digests_equal { "equal" } else { "DIFFER" },
            b.digest,
            b.made_per_second,
        );
    }
}

fn row(what: &str, own: Spread, raw: Option<Spread>, ratio: Option<f64>) {
    let raw = raw.map(|raw| raw.to_string()).unwrap_or_default();
    let ratio = ratio.map(|r| format!("{r:.2}")).unwrap_or_default();
    println!("{what:<40}{:>26}{raw:>26}{ratio:>8}", own.to_string());
}
