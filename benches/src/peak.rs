//! How much memory this process has in use, and the most it ever had, as the kernel counts it.

use crate::Result;

/// Bytes of the largest resident set so far (`VmHWM`).
pub(crate) fn resident() -> Result<u64> {
    read("VmHWM:")
}

/// Bytes of the resident set (`VmRSS`).
pub(crate) fn now() -> Result<u64> {
    read("VmRSS:")
}

fn read(name: &str) -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    parse(&status, name).ok_or_else(|| format!("/proc/self/status has no {name}").into())
}

fn parse(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_read() {
        let status = "Name:\tx\nVmHWM:\t   12345 kB\nVmRSS:\t 1 kB\n";
        assert_eq!(parse(status, "VmHWM:"), Some(12_345 * 1024));
        assert_eq!(parse(status, "VmRSS:"), Some(1024));
        assert_eq!(parse(status, "VmSwap:"), None);
        assert!(now().unwrap() > 100_000 && resident().unwrap() >= now().unwrap() / 2);
    }
}
