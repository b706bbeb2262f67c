//! How much memory there is, for the machine and for this process.

use std::{fs, path::Path, time::Duration};

use super::cgroup;
use crate::units::ByteCount;

/// `MemTotal`; 0 when /proc cannot be read.
pub fn total() -> ByteCount {
    field("MemTotal:")
}

/// `MemAvailable`: what can be had without swapping, the page cache included; 0 when /proc cannot be read.
pub fn available() -> ByteCount {
    field("MemAvailable:")
}

fn field(name: &str) -> ByteCount {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.trim().strip_suffix("kB"));
    ByteCount(
        line.and_then(|kib| kib.trim().parse::<u64>().ok())
            .unwrap_or(0)
            .saturating_mul(1024),
    )
}

/// What the limits of this process's own memory cgroup leave, if pages of files go that nobody uses; `None` without a limit.
pub fn left_by_cgroup() -> Option<ByteCount> {
    cgroup::of_process(std::process::id())?.room()
}

/// Where the kernel says who waits for memory (PSI, Linux 4.20 and where it is not turned off).
pub const PRESSURE: &str = "/proc/pressure/memory";

/// How long, in all since the machine was started, at least one task has waited for memory (Documentation/accounting/psi.rst); none where the kernel does not tell.
pub fn stalled(pressure: &Path) -> Duration {
    let text = fs::read_to_string(pressure).unwrap_or_default();
    let total = text.lines().find_map(|line| {
        line.strip_prefix("some ")?
            .split(' ')
            .find_map(|field| field.strip_prefix("total="))
    });
    Duration::from_micros(total.and_then(|total| total.parse().ok()).unwrap_or(0))
}

/// Gives freed memory back to the system: parsing the kernel's types at the start takes ten times what the agent needs afterwards.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: has no preconditions.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn stalls_are_told_in_microseconds() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("memory");
        let text =
            "some avg10=0.00 avg60=0.12 avg300=0.00 total=1500000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
        std::fs::write(&file, text).unwrap();
        assert_eq!(super::stalled(&file).as_millis(), 1500);
        std::fs::write(&file, "some total=-1\n").unwrap();
        assert!(super::stalled(&file).is_zero() && super::stalled(dir.path()).is_zero());
    }

    #[test]
    fn this_machine_has_memory() {
        assert!(super::total().0 > 64 << 20);
        assert!((1..super::total().0).contains(&super::available().0));
    }
}
