//! Which of the capabilities that the agent cannot do without this process has.

use std::fs;

/// Numbers and names, from `linux/capability.h`.
const DAC_OVERRIDE: u32 = 1;
const DAC_READ_SEARCH: u32 = 2;
const SYS_ADMIN: u32 = 21;
/// To attach, the first two; to open others' files, the third; the fourth because `mincore` and `cachestat` tell the truth to a file's owner
/// alone, and a lie ("all resident") to others; the last to see how others opened a file.
const NEEDED: &[(u32, &str)] = &[
    (39, "CAP_BPF"),
    (38, "CAP_PERFMON"),
    // In fanotify mode, instead of these two.
    (SYS_ADMIN, "CAP_SYS_ADMIN"),
    (DAC_READ_SEARCH, "CAP_DAC_READ_SEARCH"),
    (3, "CAP_FOWNER"),
    (19, "CAP_SYS_PTRACE"),
];

/// The capabilities that are missing for eBPF programs that look at the kernel.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "it takes root to see who reads what ({} missing): run it with sudo, or as a service with AmbientCapabilities=CAP_BPF CAP_PERFMON CAP_DAC_READ_SEARCH CAP_FOWNER CAP_SYS_PTRACE, in fanotify mode CAP_SYS_ADMIN instead of the first two",
    .0.join(" and ")
)]
pub struct Missing(Vec<&'static str>);

/// Looks whether this process may see who reads what: with eBPF programs, or with fanotify, which takes `CAP_SYS_ADMIN` in their place. Where /proc does not
/// tell, trying does.
///
/// # Errors
/// [`Missing`], with the remedy.
pub fn check(with_ebpf: bool) -> Result<(), Missing> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let missing = missing(&status, with_ebpf);
    if missing.is_empty() {
        Ok(())
    } else {
        Err(Missing(missing))
    }
}

fn missing(status: &str, with_ebpf: bool) -> Vec<&'static str> {
    let effective = status
        .lines()
        .find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok());
    let Some(effective) = effective else {
        return Vec::new();
    };
    let has = |number: u32| effective >> number & 1 == 1;
    let stands_for = |number: u32| match number {
        // Before Linux 5.8, and still, it stands for both.
        38 | 39 => has(SYS_ADMIN),
        SYS_ADMIN => with_ebpf,
        DAC_READ_SEARCH => has(DAC_OVERRIDE),
        _ => false,
    };
    let needed = NEEDED
        .iter()
        .filter(|(number, _)| with_ebpf || !matches!(number, 38 | 39));
    let without = needed.filter(|(number, _)| !has(*number) && !stands_for(*number));
    without.map(|(_, name)| *name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_capabilities_are_named_one_by_one() {
        let none = missing("CapInh:\t0\nCapEff:\t0000000000000000\n", true);
        assert_eq!(none.len(), NEEDED.len() - 1);
        assert_eq!(missing("CapEff:\t000000c00008000c\n", false), ["CAP_SYS_ADMIN"]);
        assert!(missing("CapEff:\t000000000028000a\n", false).is_empty());
        let missing = |status| missing(status, true);
        assert_eq!(missing("CapEff:\t000000800008000e\n"), ["CAP_PERFMON"]);
        assert!(missing("CapEff:\t000000c00008000c\n").is_empty());
        assert!(missing("CapEff:\t000000000028000a\n").is_empty());
        assert!(missing("nothing of the kind\n").is_empty());
    }
}
