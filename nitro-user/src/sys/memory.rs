//! How much memory there is, for the machine and for this process.

use std::fs;

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
    fn this_machine_has_memory() {
        assert!(super::total().0 > 64 << 20);
        assert!((1..super::total().0).contains(&super::available().0));
    }
}
