//! Control groups: which version, and what limits this process.
//!
//! In: a machine's files. Out: facts and findings. The groups are those of the doctor itself, which are the agent's where both are started alike; of an agent that runs, the
//! limits are in its service.

use super::{
    finding::{Finding, Subject},
    machine::Machine,
};
use crate::{sys::cgroup, units::ByteCount};

/// What a machine tells of its control groups.
#[derive(Debug)]
pub struct Facts {
    /// Controllers of version 2; `None` where it is not mounted.
    pub unified: Option<Vec<String>>,
    /// Controllers of version 1.
    pub first: Vec<String>,
    /// Name of this process's memory cgroup.
    pub memory: Option<String>,
    /// Bytes that its limits leave; `None` without a limit.
    pub left: Option<u64>,
    /// Limits on reading, as the kernel writes them: `8:0 rbps=1048576`.
    pub reads: Vec<String>,
}

/// Looks at a machine.
pub fn gather(machine: &Machine) -> Facts {
    let table = machine.text("/proc/self/cgroup").unwrap_or_default();
    let memory = cgroup::of_table(&table, &machine.path("/"));
    let unified = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
    let unified = unified
        .iter()
        .find(|mount| machine.has(format!("{mount}/cgroup.controllers")));
    let controllers = |mount: &&str| {
        let line = machine.word(format!("{mount}/cgroup.controllers")).unwrap_or_default();
        line.split_whitespace().map(str::to_owned).collect()
    };
    let first = table.lines().filter_map(|line| {
        let controllers = line.split(':').nth(1)?;
        (!controllers.is_empty() && !controllers.starts_with("name=")).then_some(controllers)
    });
    Facts {
        unified: unified.map(controllers),
        first: first.flat_map(|names| names.split(',')).map(str::to_owned).collect(),
        left: memory.as_ref().and_then(cgroup::MemoryGroup::left).map(|left| left.0),
        memory: memory.map(|group| group.name().to_owned()),
        reads: reads(machine, &table, unified.copied()),
    }
}

/// The lines that limit reading, of all groups from the process's own upwards.
fn reads(machine: &Machine, table: &str, unified: Option<&str>) -> Vec<String> {
    let mut found = Vec::new();
    for line in table.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(name)) = (fields.next(), fields.next()) else {
            continue;
        };
        let (mount, files): (&str, &[&str]) = match unified {
            _ if controllers.split(',').any(|one| one == "blkio") => (
                "/sys/fs/cgroup/blkio",
                &["blkio.throttle.read_bps_device", "blkio.throttle.read_iops_device"],
            ),
            Some(mount) if controllers.is_empty() => (mount, &["io.max"]),
            _ => continue,
        };
        // Outside of what this process sees.
        if name.split('/').any(|part| part == "..") {
            continue;
        }
        for level in std::path::Path::new(name.trim_start_matches('/')).ancestors().take(32) {
            for file in files {
                let path = std::path::Path::new(mount).join(level).join(file);
                let text = machine.text(&path).unwrap_or_default();
                let limiting = text.lines().filter(|line| match *file {
                    "io.max" => ["rbps", "riops"].iter().any(|name| limits(line, name)),
                    _ => true,
                });
                found.extend(limiting.take(16).map(|line| format!("{file} {}", line.trim())));
            }
        }
    }
    found
}

/// Whether a line of `io.max`, `8:0 rbps=max riops=1000`, gives a limit of this name.
fn limits(line: &str, name: &str) -> bool {
    line.split_whitespace()
        .filter_map(|word| word.split_once('='))
        .any(|(key, value)| key == name && value != "max")
}

/// What is to be said of it; `total` is the machine's memory in bytes.
pub fn findings(facts: &Facts, total: u64) -> Vec<Finding> {
    const CGROUPS: Subject = Subject::Cgroups;
    let version = match (&facts.unified, facts.first.is_empty()) {
        (Some(_), true) => "2",
        (Some(_), false) => "1, with 2 beside it",
        (None, false) => "1",
        (None, true) => "none",
    };
    let has_memory = facts.memory.is_some()
        && (facts.first.iter().any(|one| one == "memory") || facts.unified.iter().flatten().any(|one| one == "memory"));
    let mut all = vec![if has_memory {
        CGROUPS.ok("version", version)
    } else {
        CGROUPS
            .missing(
                "version",
                format!("{version}, without a memory controller"),
                "--charge consumer, the default inside Kubernetes: all that is warmed is on the agent's account",
                "boot with cgroup_enable=memory, or without cgroup_disable=memory",
            )
            .aside()
    }];
    let group = facts.memory.as_deref().unwrap_or("/");
    all.push(match facts.left {
        None => CGROUPS.ok("memory limit", format!("none for {group}")),
        Some(left) if total > 0 && left < total / 2 => CGROUPS.degraded(
            "memory limit",
            format!("{} left to {group}, of {} of the machine", ByteCount(left), ByteCount(total)),
            "the agent, started in this group, holds no more than that at once, and its warmed pages push each other out",
            "start it in a group without a limit, or with --charge consumer",
        ),
        Some(left) => CGROUPS.ok("memory limit", format!("{} left to {group}", ByteCount(left))),
    });
    all.push(if facts.reads.is_empty() {
        CGROUPS.ok("read limits", "none")
    } else {
        CGROUPS.degraded(
            "read limits",
            facts.reads.join(", "),
            "the agent, started in this group, warms no faster than that",
            "start it in a group without a limit on reading",
        )
    });
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_limited_is_a_limit() {
        assert!(limits("8:0 rbps=1048576 wbps=max riops=max wiops=max", "rbps"));
        assert!(!limits("8:0 rbps=max wbps=1048576 riops=max wiops=max", "rbps"));
        assert!(!limits("rubbish", "rbps"));
    }
}
