//! Changes and conflicts as JSON, on the command line as in the API.

use crate::json::Json;
use anabranch::engine::core::id::to_base32;
use anabranch::engine::core::path::{Path, Segment};
use anabranch::{BlobRef, Change, Conflict, Effect, Raw, StoreKind, Timestamp, Written};
use serde_json::{Value, json};

/// A value as it is shown; one that cannot be does not keep others from being shown.
#[must_use]
pub fn value_object(raw: &Raw) -> Value {
    match raw.get::<Json>() {
        Ok(json) => json.0,
        Err(e) => json!({ "$unreadable": e.to_string() }),
    }
}

/// A value of a store of this kind: of blobs what it says of the content.
#[must_use]
pub fn written_object(kind: StoreKind, raw: &Raw) -> Value {
    if kind != StoreKind::BLOBS {
        return value_object(raw);
    }
    match BlobRef::decode(raw.as_bytes()) {
        Ok(blob) => json!({
            "size": blob.content.size(),
            "type": blob.media_type,
            "root": to_base32(&blob.content.root().0),
        }),
        Err(e) => json!({ "$unreadable": e.to_string() }),
    }
}

/// The parts of a path; of a set the element as JSON.
#[must_use]
pub fn place(written: &Written) -> Vec<String> {
    match &written.path.segments()[..] {
        [Segment::Bytes(element)] if written.store.kind == StoreKind::SET => {
            vec![value_object(&Raw::from_bytes(element.clone())).to_string()]
        }
        _ => parts(&written.path),
    }
}

/// A sum, as rows show integers.
#[must_use]
pub fn integer(n: i128) -> Value {
    match i64::try_from(n) {
        Ok(n) => n.into(),
        Err(_) => json!({ "$int": n.to_string() }),
    }
}

/// A transaction.
#[must_use]
pub fn change_object(change: &Change) -> Value {
    let writes: Vec<Value> = change
        .writes
        .iter()
        .map(|written| {
            let mut object = json!({
                "kind": kind_name(written.store.kind),
                "store": written.store.name,
                "path": place(written),
            });
            match &written.effect {
                Effect::Put(raw) => {
                    (object["deleted"], object["value"]) =
                        (false.into(), written_object(written.store.kind, raw));
                }
                Effect::Delete => (object["deleted"], object["value"]) = (true.into(), Value::Null),
                Effect::Add(delta) => object["added"] = integer((*delta).into()),
                Effect::Reset(delta) => {
                    (object["added"], object["reset"]) = (integer(*delta), true.into());
                }
            }
            object
        })
        .collect();
    json!({
        "entry": change.entry.to_string(),
        "device": change.device.to_string(),
        "local": change.local,
        "time": date(change.timestamp),
        "writes": writes,
        "counts": change.counts,
        "recounted": change.recounted,
        "closed": change.closed,
    })
}

/// A conflict, the version shown first.
#[must_use]
pub fn conflict_object(conflict: &Conflict) -> Value {
    let versions: Vec<Value> = conflict
        .versions
        .iter()
        .map(|version| {
            json!({
                "device": version.device.to_string(),
                "time": date(version.timestamp),
                "deleted": version.value.is_none(),
                "value": version.value.as_ref().map(|raw| written_object(conflict.store.kind, raw)),
            })
        })
        .collect();
    json!({
        "kind": kind_name(conflict.store.kind),
        "store": conflict.store.name,
        "path": parts(&conflict.path),
        "versions": versions,
    })
}

/// The parts of a path as people see them.
#[must_use]
pub fn parts(path: &Path) -> Vec<String> {
    let part = |segment: Segment| match segment {
        Segment::Text(text) => text,
        Segment::Bytes(bytes) | Segment::Other(_, bytes) => {
            bytes.iter().map(|b| format!("{b:02x}")).collect()
        }
    };
    path.segments().into_iter().map(part).collect()
}

/// What kind of store it is.
#[must_use]
pub fn kind_name(kind: StoreKind) -> String {
    match kind {
        StoreKind::MEMBERS => "members".into(),
        StoreKind::TABLE => "table".into(),
        StoreKind::DOC => "doc".into(),
        StoreKind::COUNTER => "counter".into(),
        StoreKind::SET => "set".into(),
        StoreKind::BLOBS => "blobs".into(),
        StoreKind::KEYS => "keys".into(),
        StoreKind(number) => format!("kind {number}"),
    }
}

/// RFC 3339 in UTC to the second: `2026-08-01T12:30:00Z`.
#[must_use]
pub fn date(time: Timestamp) -> String {
    let seconds = time.0 / 1_000_000;
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (rest / 3_600, rest % 3_600 / 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// The date of a day since 1970 in the Gregorian calendar. Years are counted from March, so that the day of a leap year
/// comes last.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let at = |seconds: u64| date(Timestamp(seconds * 1_000_000));
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(at(1_709_251_200), "2024-03-01T00:00:00Z");
        assert_eq!(at(4_102_444_799), "2099-12-31T23:59:59Z");
        assert!(!date(Timestamp(u64::MAX)).is_empty());
    }
}
