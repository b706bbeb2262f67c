//! How much memory there is, for the machine and for this process.

use std::{fs, path::Path, time::Duration};

use super::{cgroup, page_size};
use crate::units::ByteCount;

/// `MemTotal`; 0 when /proc cannot be read.
pub fn total() -> ByteCount {
    field("MemTotal:")
}

/// `MemAvailable`: what can be had without swapping, the page cache included; 0 when /proc cannot be read.
pub fn available() -> ByteCount {
    field("MemAvailable:")
}

/// What nobody has: `MemFree`, or what the limits of the process's own memory cgroup leave, if that is less.
fn free(own: Option<&cgroup::MemoryGroup>) -> ByteCount {
    let left = own.and_then(cgroup::MemoryGroup::left);
    field("MemFree:").min(left.unwrap_or(ByteCount(u64::MAX)))
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

/// The same for devices.
const DEVICE_PRESSURE: &str = "/proc/pressure/io";

/// The machine's memory at a moment. What is counted is counted since the machine was started; what the kernel does not tell is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryState {
    /// `MemAvailable`.
    pub available: ByteCount,
    /// What nobody has: `MemFree`, or what the limits of the process's own memory cgroup leave, if that is less.
    pub free: ByteCount,
    /// See [`left_by_cgroup`].
    pub room: Option<ByteCount>,
    /// How long at least one task has waited for memory.
    pub stalled: Duration,
    /// How long at least one task has waited for a device.
    pub devices_stalled: Duration,
    /// Pages that reclaim has taken, for the machine as for cgroups (`pgsteal_file` and `pgsteal_anon` of /proc/vmstat, which count both), in bytes.
    pub reclaimed: ByteCount,
    /// Pages of files that were evicted from a working set and read again (`workingset_restore_file`), in bytes. Under a limit of the own memory cgroup, all that were evicted and read
    /// again there ([`cgroup::MemoryGroup::refaults`]): version 1 does not tell them apart, and who goes round in more than there is room for has no working set to the kernel.
    pub restored: ByteCount,
}

impl MemoryState {
    /// As it is now.
    pub fn now() -> Self {
        let events = fs::read_to_string("/proc/vmstat").unwrap_or_default();
        let own = cgroup::of_process(std::process::id());
        let refaults = own.as_ref().and_then(cgroup::MemoryGroup::refaults);
        Self {
            available: available(),
            free: free(own.as_ref()),
            room: own.and_then(|own| own.room()),
            stalled: stalled(Path::new(PRESSURE)),
            devices_stalled: stalled(Path::new(DEVICE_PRESSURE)),
            reclaimed: pages(&events, &["pgsteal_file", "pgsteal_anon"]),
            restored: refaults.unwrap_or_else(|| pages(&events, &["workingset_restore_file"])),
        }
    }
}

/// The sum of these counters of pages, in bytes.
fn pages(events: &str, names: &[&str]) -> ByteCount {
    let count = |line: &str| {
        let (name, count) = line.split_once(' ')?;
        names.contains(&name).then(|| count.parse().ok())?
    };
    let sum = events.lines().filter_map(count).fold(0, u64::saturating_add);
    ByteCount(sum.saturating_mul(page_size()))
}

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
    fn counters_of_pages_are_found_by_their_whole_names() {
        let events = "pgsteal_file 3\npgsteal_file_x 100\npgsteal_anon 2\nworkingset_restore_file nonsense\n";
        assert_eq!(
            super::pages(events, &["pgsteal_file", "pgsteal_anon"]).0,
            5 * super::page_size()
        );
        assert_eq!(super::pages(events, &["workingset_restore_file"]).0, 0);
    }

    #[test]
    fn this_machine_has_memory() {
        assert!(super::total().0 > 64 << 20);
        assert!((1..super::total().0).contains(&super::available().0));
    }
}
