//! One million entries of one cell each, with random keys, over loopback HTTP into an empty replica: neither side may
//! need much memory (I7), and both must have one state at the end.

use serde_json::Value;

use crate::error::{Error, Result};
use crate::process;
use crate::workspace::Workspace;

/// Bytes that each side may have in use at its peak.
const PEAK: u64 = 150 * 1000 * 1000;
/// Single-cell entries.
const ENTRIES: u64 = 1_000_000;

pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let package = ["--release", "--locked", "--package", "anabranch-benches"];
    process::run(workspace.cargo(&["build"]).args(package))?;
    let entries = ENTRIES.to_string();
    let mut command = workspace.cargo(&["run", "--quiet"]);
    command.args(package).args(["--", "--bootstrap-only", "--runs", "1", "--json"]);
    let printed = process::tee(command.args(["--entries", &entries]))?;
    let report: Value = serde_json::from_str(&printed)
        .map_err(|e| Error::NotAccepted(format!("the report is JSON ({e})")))?;
    judge(&report["bootstrap"][0])
}

fn judge(bootstrap: &Value) -> Result<()> {
    let number = |name: &str| bootstrap[name].as_u64().unwrap_or_default();
    let (serving, joining) = (number("peak_serving"), number("peak_joining"));
    println!(
        "{} entries held after {:.1} s, {:.0} entries/s, {:.1} MB of entries on the wire",
        number("held"),
        bootstrap["seconds"]["median"].as_f64().unwrap_or_default(),
        bootstrap["entries_per_second"]["median"].as_f64().unwrap_or_default(),
        number("wire_bytes") as f64 / 1e6,
    );
    println!(
        "peak memory: serving {:.1} MB, joining {:.1} MB; digest {}",
        serving as f64 / 1e6,
        joining as f64 / 1e6,
        bootstrap["digest"].as_str().unwrap_or_default(),
    );
    require(number("held") > ENTRIES, "all entries are on the joining side")?;
    require(bootstrap["digests_equal"] == true, "both sides have one digest")?;
    require((1..PEAK).contains(&serving), "the serving side needs less than 150 MB")?;
    require((1..PEAK).contains(&joining), "the joining side needs less than 150 MB")
}

fn require(holds: bool, what: &str) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::NotAccepted(what.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_condition_counts() {
        let good = json!({
            "held": 1_000_004, "peak_serving": 20_000_000, "peak_joining": 60_000_000,
            "digests_equal": true, "digest": "ab",
        });
        assert!(judge(&good).is_ok());
        for (name, bad) in [
            ("held", json!(999_999)),
            ("peak_serving", json!(150_000_000)),
            ("peak_joining", json!(0)),
            ("digests_equal", json!(false)),
        ] {
            let mut report = good.clone();
            report[name] = bad;
            assert!(matches!(judge(&report), Err(Error::NotAccepted(_))), "{name}");
        }
        assert!(judge(&Value::Null).is_err());
    }
}
