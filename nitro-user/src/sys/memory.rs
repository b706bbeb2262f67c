//! How much memory there is, for the machine and for this process.

use std::{fs, path::Path};

use crate::units::ByteCount;

/// `MemTotal`; 0 when /proc cannot be read.
pub fn total() -> ByteCount {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB"));
    ByteCount(
        line.and_then(|kib| kib.trim().parse::<u64>().ok())
            .unwrap_or(0)
            .saturating_mul(1024),
    )
}

/// What the limits of this process's own memory cgroups leave, the tightest of all levels, v1 or v2; `None` without a limit.
pub fn left_by_cgroup() -> Option<ByteCount> {
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let mut least = None;
    for line in own.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let (mounts, limit, usage): (&[&str], _, _) = if controllers.is_empty() {
            (
                &["/sys/fs/cgroup", "/sys/fs/cgroup/unified"],
                "memory.max",
                "memory.current",
            )
        } else if controllers.split(',').any(|name| name == "memory") {
            (
                &["/sys/fs/cgroup/memory"],
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
            )
        } else {
            continue;
        };
        for mount in mounts {
            for level in Path::new(path.trim_start_matches('/')).ancestors() {
                let folder = Path::new(mount).join(level);
                let number = |name: &str| fs::read_to_string(folder.join(name)).ok()?.trim().parse::<u64>().ok();
                let (Some(limit), Some(usage)) = (number(limit), number(usage)) else {
                    continue;
                };
                // v1 says "no limit" with a number near 2^63.
                if limit < 1 << 60 {
                    let left = limit.saturating_sub(usage);
                    least = Some(least.map_or(left, |least: u64| least.min(left)));
                }
            }
        }
    }
    least.map(ByteCount)
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
    }
}
