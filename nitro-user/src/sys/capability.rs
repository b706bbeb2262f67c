//! Which of the capabilities that the agent cannot do without this process has.

use std::fs;

/// Numbers and names, from `linux/capability.h`.
const SYS_ADMIN: u32 = 21;
const NEEDED: &[(u32, &str)] = &[(39, "CAP_BPF"), (38, "CAP_PERFMON")];

/// The capabilities that are missing for eBPF programs that look at the kernel.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "it takes root to see who reads what ({} missing): run it with sudo, or as a service with AmbientCapabilities=CAP_BPF CAP_PERFMON CAP_DAC_READ_SEARCH",
    .0.join(" and ")
)]
pub struct Missing(Vec<&'static str>);

/// Looks whether this process may load and attach eBPF programs. Where /proc does not tell, trying does.
///
/// # Errors
/// [`Missing`], with the remedy.
pub fn check() -> Result<(), Missing> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let missing = missing(&status);
    if missing.is_empty() {
        Ok(())
    } else {
        Err(Missing(missing))
    }
}

fn missing(status: &str) -> Vec<&'static str> {
    let effective = status
        .lines()
        .find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok());
    let Some(effective) = effective else {
        return Vec::new();
    };
    let has = |number: u32| effective >> number & 1 == 1;
    // Before Linux 5.8, and still, it stands for both.
    if has(SYS_ADMIN) {
        return Vec::new();
    }
    let without = NEEDED.iter().filter(|(number, _)| !has(*number));
    without.map(|(_, name)| *name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_capabilities_are_named_one_by_one() {
        assert_eq!(
            missing("CapInh:\t0\nCapEff:\t0000000000000000\n"),
            ["CAP_BPF", "CAP_PERFMON"]
        );
        assert_eq!(missing("CapEff:\t0000008000000000\n"), ["CAP_PERFMON"]);
        assert!(missing("CapEff:\t000000c000000000\n").is_empty());
        assert!(missing("CapEff:\t0000000000200000\n").is_empty());
        assert!(missing("nothing of the kind\n").is_empty());
    }
}
