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
    /// Those that the agent has which runs.
    used: Option<u64>,
}

/// Longest description of a descriptor that is read: one of 100 000 watches.
const MOST_OF_WATCHES: usize = 16 << 20;

/// Looks at a machine, where `agent` is the process of an agent that runs.
pub fn gather(machine: &Machine, agent: Option<u32>) -> Facts {
    let of = |name: &str| machine.number(format!("/proc/sys/{name}"));
    Facts {
        swappiness: of("vm/swappiness"),
        cache_pressure: of("vm/vfs_cache_pressure"),
        zone_reclaim: of("vm/zone_reclaim_mode"),
        bpf_stats: of("kernel/bpf_stats_enabled"),
        watches: of("fs/inotify/max_user_watches"),
        used: agent.map(|process| used(machine, process)),
    }
}

/// Watches of a process, each a line in what is told of its descriptor.
fn used(machine: &Machine, process: u32) -> u64 {
    let place = format!("/proc/{process}/fdinfo");
    let descriptors = machine.names(&place, |_| true).into_iter();
    let watches = descriptors.map(|descriptor| {
        let bytes = machine.bytes(format!("{place}/{descriptor}"), MOST_OF_WATCHES);
        let bytes = bytes.unwrap_or_default();
        bytes
            .split(|byte| *byte == b'\n')
            .filter(|line| line.starts_with(b"inotify wd:"))
            .count() as u64
    });
    watches.sum()
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
    all.extend(facts.watches.map(|watches| inotify(watches, facts.used)));
    all
}

/// One watch is needed for each directory below those that are watched: those that the agent has are nearly all, or there are few for anybody.
fn inotify(watches: u64, used: Option<u64>) -> Finding {
    const NAME: &str = "inotify watches";
    const LOST: &str = "one is needed for each directory below those that are watched: changes in those without are noticed within a minute";
    let value = match used {
        Some(used) => format!("{watches} (fs.inotify.max_user_watches), of which the agent that runs has {used}"),
        None => format!("{watches} (fs.inotify.max_user_watches)"),
    };
    let is_short = match used {
        Some(used) => used.saturating_add(used / 4) >= watches,
        None => watches < USUAL_WATCHES,
    };
    if is_short {
        let enough = used.unwrap_or(0).saturating_mul(2).max(65_536);
        let remedy = format!("sysctl fs.inotify.max_user_watches={enough}");
        return SETTINGS.degraded(NAME, value, LOST, &remedy);
    }
    SETTINGS.ok(
        NAME,
        format!("{value}; one is needed for each directory below those that are watched"),
    )
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
