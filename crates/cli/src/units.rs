//! Numbers as people read them: bytes, durations, counts, points in time.

use anabranch::Timestamp;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// `0 B`, `1.4 KiB`, `23.0 MiB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let (mut value, mut unit) = (count as f64 / 1024.0, 0);
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// `1 entry`, `2,345 entries`.
pub(crate) fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{} {}", number(count), if count == 1 { one } else { many })
}

/// `1,234,567`.
pub(crate) fn number(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `40 ms`, `2.5 s`, `12 s`, `3 min 20 s`, `5 h 2 min`, `7 d`.
pub(crate) fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    let two = |big: u64, unit: &str, small: u64, lesser: &str| match small {
        0 => format!("{big} {unit}"),
        small => format!("{big} {unit} {small} {lesser}"),
    };
    match seconds {
        0 => format!("{} ms", time.as_millis()),
        1..10 => format!("{:.1} s", time.as_secs_f64()),
        10..60 => format!("{seconds} s"),
        60..3_600 => two(seconds / 60, "min", seconds % 60, "s"),
        3_600..86_400 => two(seconds / 3_600, "h", seconds % 3_600 / 60, "min"),
        _ => two(seconds / 86_400, "d", seconds % 86_400 / 3_600, "h"),
    }
}

/// The wall clock.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

/// `3 min ago`; for what lies ahead, the date.
pub(crate) fn ago(then: Timestamp) -> String {
    match now().0.checked_sub(then.0) {
        Some(0..60_000_000) => "just now".to_owned(),
        Some(passed) => {
            let whole = Duration::from_micros(passed);
            let text = duration(whole);
            let coarse = text.split(' ').take(2).collect::<Vec<_>>().join(" ");
            format!("{coarse} ago")
        }
        None => anabranch_api::date(then),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_units() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1024), "1.0 KiB");
        assert_eq!(bytes(1024 * 1024 - 1), "1.0 MiB");
        assert_eq!(bytes(200_000_000), "190.7 MiB");
        assert_eq!(bytes(u64::MAX), "16384.0 PiB");
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(number(999), "999");
        assert_eq!(number(1_000), "1,000");
        assert_eq!(number(12_345_678), "12,345,678");
        assert_eq!(counted(1, "entry", "entries"), "1 entry");
    }

    #[test]
    fn durations_are_short() {
        assert_eq!(duration(Duration::from_millis(430)), "430 ms");
        assert_eq!(duration(Duration::from_millis(2_440)), "2.4 s");
        assert_eq!(duration(Duration::from_secs(200)), "3 min 20 s");
        assert_eq!(duration(Duration::from_secs(7 * 86_400)), "7 d");
    }
}
