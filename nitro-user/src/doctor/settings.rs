//! Settings of the kernel that are worth a thought. They are told, never changed.
//!
//! In: a machine's files, and whether it swaps to memory. Out: findings.

use super::{
    finding::{Finding, Subject},
    machine::Machine,
    swap,
};

const SETTINGS: Subject = Subject::Settings;

/// Watches that the kernel gives on the smallest machine: one for each directory.
const USUAL_WATCHES: u64 = 8192;

/// The settings.
#[derive(Debug)]
pub struct Facts {
    swappiness: Option<u64>,
    cache_pressure: Option<u64>,
    zone_reclaim: Option<u64>,
    bpf_stats: Option<u64>,
    watches: Option<u64>,
}

/// Looks at a machine.
pub fn gather(machine: &Machine) -> Facts {
    let of = |name: &str| machine.number(format!("/proc/sys/{name}"));
    Facts {
        swappiness: of("vm/swappiness"),
        cache_pressure: of("vm/vfs_cache_pressure"),
        zone_reclaim: of("vm/zone_reclaim_mode"),
        bpf_stats: of("kernel/bpf_stats_enabled"),
        watches: of("fs/inotify/max_user_watches"),
    }
}

/// What is to be said of them.
pub fn findings(facts: &Facts, swap: &swap::Facts) -> Vec<Finding> {
    let mut all = Vec::new();
    if let Some(value) = facts.swappiness {
        all.push(swappiness(value, swap));
    }
    if let Some(value) = facts.cache_pressure {
        const NAME: &str = "vm.vfs_cache_pressure";
        all.push(match value {
            0 => advice(
                NAME,
                "0",
                "names and inodes are never given back, which can end in the OOM killer",
                "sysctl vm.vfs_cache_pressure=100",
            ),
            201.. => advice(
                NAME,
                &value.to_string(),
                "names and inodes of models are forgotten early, and looked up on the device again",
                "sysctl vm.vfs_cache_pressure=100",
            ),
            _ => SETTINGS.ok(NAME, value.to_string()),
        });
    }
    match facts.zone_reclaim {
        Some(0) => all.push(SETTINGS.ok("vm.zone_reclaim_mode", "0")),
        Some(value) => all.push(advice(
            "vm.zone_reclaim_mode",
            &value.to_string(),
            "a NUMA node that is full drops cached models though others have room",
            "sysctl vm.zone_reclaim_mode=0",
        )),
        None => {}
    }
    if facts.bpf_stats.is_some_and(|on| on > 0) {
        all.push(advice(
            "kernel.bpf_stats_enabled",
            "on",
            "every run of an eBPF program is timed, and every buffered read pays for it",
            "sysctl kernel.bpf_stats_enabled=0",
        ));
    }
    if let Some(watches) = facts.watches {
        const NAME: &str = "inotify watches";
        all.push(if watches < USUAL_WATCHES {
            SETTINGS.degraded(
                NAME,
                format!("{watches} (fs.inotify.max_user_watches)"),
                "one is needed for each directory below those that are watched: changes in those without are noticed within a minute",
                "sysctl fs.inotify.max_user_watches=65536",
            )
        } else {
            SETTINGS.ok(NAME, format!("{watches}: one is needed for each directory below those that are watched"))
        });
    }
    all
}

/// What the kernel takes first under pressure. Above 100 it takes idle memory of programs before cached files, which is right where swap is in memory.
fn swappiness(value: u64, swap: &swap::Facts) -> Finding {
    const NAME: &str = "vm.swappiness";
    let areas = swap.areas.as_deref().unwrap_or_default();
    let in_memory = swap.zswap.is_some() || areas.iter().any(|area| area.name.contains("/zram"));
    match value {
        _ if areas.is_empty() => SETTINGS.ok(NAME, format!("{value}; without swap it says nothing")),
        0..100 if in_memory => advice(
            NAME,
            &format!("{value}, and swap is compressed memory"),
            "under pressure cached models go although idle memory of programs could be compressed for less",
            "sysctl vm.swappiness=150",
        ),
        0..10 => advice(
            NAME,
            &value.to_string(),
            "under pressure cached models go before idle memory of programs is swapped out",
            "sysctl vm.swappiness=60",
        ),
        _ => SETTINGS.ok(NAME, value.to_string()),
    }
}

/// Worth changing; nothing that the agent could not live with.
fn advice(name: &str, value: &str, lost: &str, remedy: &str) -> Finding {
    SETTINGS.info(name, value).losing(lost).remedied(remedy)
}
