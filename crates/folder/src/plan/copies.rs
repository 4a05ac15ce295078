//! The name of a conflict copy: `stem (conflict YYYY-MM-DD HH-MM-SS AUTHOR ID).ext`. It depends on the path and the
//! losing value alone, so that every replica makes the same copy under the same name (I2), and on no table that another
//! version of anything might have differently.

use crate::base::ValueId;
use crate::path::{MAX_SEGMENT, RelPath};

/// Hexadecimal digits of the value's hash in a name, from the first attempt on: a file of the user's own may already have
/// the shorter name. When all digits are there, they count up. Each name sorts after the one before it.
const ID_DIGITS: [usize; 4] = [8, 16, 32, 64];
const AUTHOR_CHARS: usize = 16;
const EXTENSION_BYTES: usize = 10;
/// The last second that a year of four digits can name.
const LAST_SECOND: u64 = 253_402_300_799;

/// The name of the conflict copy of a value at `of`, written by `author` at `at_ms` (milliseconds since 1970, UTC);
/// `attempt` counts the names that are taken. `None` when there are no more, which does not come about.
#[must_use]
pub fn copy_name(
    of: &RelPath,
    id: &ValueId,
    author: &str,
    at_ms: u64,
    attempt: usize,
) -> Option<RelPath> {
    let digits = digits(id, attempt)?;
    let middle =
        |digits: &str| format!(" (conflict {} {} {digits})", when(at_ms), sanitised(author));
    let (stem, extension) = split_name(of.name());
    // Room for the longest attempt, so that all attempts have one stem.
    let room = MAX_SEGMENT.saturating_sub(middle(&"0".repeat(64)).len() + extension.len());
    let name = [cut(stem, room), middle(&digits).as_bytes(), extension].concat();
    RelPath::in_dir(of.parent().as_ref(), &name).ok()
}

/// The digits of the name that is tried after `attempt` others.
fn digits(id: &ValueId, attempt: usize) -> Option<String> {
    let hash = blake3::hash(&id.0);
    if let Some(digits) = ID_DIGITS.get(attempt) {
        return Some(hash.to_hex()[..*digits].to_owned());
    }
    let (first, last) = hash.as_bytes().split_last_chunk::<16>()?;
    let more = u128::try_from(attempt.checked_sub(ID_DIGITS.len() - 1)?).ok()?;
    let last = u128::from_be_bytes(*last).checked_add(more)?;
    let first: String = first.iter().map(|byte| format!("{byte:02x}")).collect();
    Some(format!("{first}{last:032x}"))
}

/// Stem and extension (with its dot). Leading dots belong to the stem; `.tar` belongs to what follows it. What is long or
/// has other characters than letters and digits is no extension.
fn split_name(name: &[u8]) -> (&[u8], &[u8]) {
    let hidden = name.iter().take_while(|byte| **byte == b'.').count();
    let split = |name: &[u8]| {
        let dot = hidden + name[hidden..].iter().rposition(|byte| *byte == b'.')?;
        let extension = &name[dot + 1..];
        let plain = (1..=EXTENSION_BYTES).contains(&extension.len())
            && extension.iter().all(u8::is_ascii_alphanumeric);
        (plain && dot > hidden).then_some(dot)
    };
    let Some(mut at) = split(name) else { return (name, &[]) };
    if let Some(tar) = split(&name[..at])
        && name[tar..at].eq_ignore_ascii_case(b".tar")
    {
        at = tar;
    }
    name.split_at(at)
}

/// At most `room` bytes of `stem`, without cutting a UTF-8 character in two.
fn cut(stem: &[u8], room: usize) -> &[u8] {
    if stem.len() <= room {
        return stem;
    }
    let mut end = room;
    while end > 0 && room - end < 4 && stem[end] & 0xc0 == 0x80 {
        end -= 1;
    }
    &stem[..end]
}

/// ASCII letters, digits, `-` and `_` of `author`; anything else becomes `-`.
fn sanitised(author: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' };
    let name: String = author.chars().take(AUTHOR_CHARS).map(plain).collect();
    if name.is_empty() { "unknown".into() } else { name }
}

/// `YYYY-MM-DD HH-MM-SS` in UTC.
fn when(at_ms: u64) -> String {
    let seconds = (at_ms / 1000).min(LAST_SECOND);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (h, m, s) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {h:02}-{m:02}-{s:02}")
}

/// Year, month and day, `days` after 1970-01-01, in the Gregorian calendar. Counted in years that begin on 1 March, so
/// that the leap day is a year's last.
fn civil(days: u64) -> (u64, u64, u64) {
    const ERA: u64 = 146_097; // days in 400 years
    let days = days + 719_468; // since 0000-03-01
    let (era, day) = (days / ERA, days % ERA);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const AT: u64 = 1_785_759_296_789; // 2026-08-03 12:14:56.789

    fn name(of: &str, attempt: usize) -> String {
        let of = RelPath::new(of).unwrap();
        copy_name(&of, &ValueId(b"value".to_vec()), "ann", AT, attempt).unwrap().to_string()
    }

    #[test]
    fn golden_names() {
        assert_eq!(name("d/a.txt", 0), "d/a (conflict 2026-08-03 12-14-56 ann 06444a49).txt");
        let cases = [
            ("a", "a (…)"),
            (".bashrc", ".bashrc (…)"),
            (".config.json", ".config (…).json"),
            ("x.tar.gz", "x (…).tar.gz"),
            (".tar.gz", ".tar (…).gz"),
            ("x.tar", "x (…).tar"),
            ("v1.2 final draft", "v1.2 final draft (…)"),
            ("a.", "a. (…)"),
            ("..a", "..a (…)"),
        ];
        for (of, expected) in cases {
            let middle = "(conflict 2026-08-03 12-14-56 ann 06444a49)";
            assert_eq!(name(of, 0), expected.replace("(…)", middle), "{of}");
        }
    }

    #[test]
    fn later_attempts_are_longer_then_count_up_and_sort_later() {
        let names: Vec<String> = (0..1000).map(|attempt| name("a.txt", attempt)).collect();
        assert!(names.windows(2).all(|pair| pair[0] < pair[1]));
        let lengths: Vec<usize> =
            names[..5].iter().map(|name| name.len() - names[0].len()).collect();
        assert_eq!(lengths, [0, 8, 24, 56, 56]);
        for (attempt, end) in [(3, "d95e0b).txt"), (4, "d95e0c).txt"), (8, "d95e10).txt")] {
            assert!(names[attempt].ends_with(end), "{}", names[attempt]);
        }
    }

    #[test]
    fn an_author_cannot_spoil_the_name() {
        let of = RelPath::new("a").unwrap();
        let named = |author| copy_name(&of, &ValueId(vec![]), author, 0, 0).unwrap().to_string();
        assert!(named("../../\u{202e}x y\0\n").contains(" 1970-01-01 00-00-00 -------x-y-- "));
        assert!(named("").contains(" unknown "));
        assert!(named(&"x".repeat(99)).contains(&format!(" {} ", "x".repeat(16))));
    }

    #[test]
    fn dates() {
        assert_eq!(when(0), "1970-01-01 00-00-00");
        assert_eq!(when(951_827_696_000), "2000-02-29 12-34-56");
        assert_eq!(when(4_107_542_400_000), "2100-03-01 00-00-00");
        assert_eq!(when(u64::MAX), "9999-12-31 23-59-59");
    }

    #[test]
    fn a_long_name_is_cut_between_characters() {
        let of = RelPath::new("ä".repeat(125) + ".txt").unwrap();
        let copy = copy_name(&of, &ValueId(vec![]), "ann", AT, 0).unwrap();
        assert!(copy.name().len() <= MAX_SEGMENT);
        assert!(std::str::from_utf8(copy.name()).unwrap().starts_with("ää"));
        assert!(copy.name().ends_with(b".txt"));
    }

    proptest! {
        /// Any path that may be recorded has a copy name for every attempt, in its own directory.
        #[test]
        fn every_path_has_copies(
            dirs in proptest::collection::vec("[a-z]{1,255}", 0..14),
            name in proptest::collection::vec(1..=255u8, 1..255),
            id: Vec<u8>, author: String, at: u64,
        ) {
            let name: Vec<u8> = name.into_iter().filter(|byte| *byte != b'/').collect();
            let bytes = [dirs.join("/").into_bytes(), name].join(&b'/');
            if let Ok(of) = RelPath::shared(bytes) {
                let names: Vec<RelPath> = (0..4)
                    .map(|attempt| copy_name(&of, &ValueId(id.clone()), &author, at, attempt).unwrap())
                    .collect();
                prop_assert!(names.is_sorted());
                prop_assert!(names.iter().all(|copy| copy.parent() == of.parent() && *copy != of));
            }
        }

        #[test]
        fn days_count_up(days in 0..2_932_000u64) {
            let (a, b) = (civil(days), civil(days + 1));
            prop_assert!(a < b && b.1 <= 12 && b.2 <= 31);
            prop_assert!(b.2 == a.2 + 1 || b.2 == 1);
        }
    }
}
