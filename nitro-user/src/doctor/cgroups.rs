//! Control groups: which version, and what limits the agent that runs, or the doctor where none does.
//!
//! In: a machine's files, and which process the agent is. Out: facts and findings. Without an agent the groups are those of the doctor itself, which are the agent's where both
//! are started alike.

use std::path::Path;

use super::{
    devices::Device,
    finding::{Finding, Subject},
    machine::Machine,
};
use crate::{sys::cgroup, units::ByteCount};

const CGROUPS: Subject = Subject::Cgroups;

/// Groups above one another that are looked at, and limits of each.
const MOST_LEVELS: usize = 32;
const MOST_LIMITS: usize = 16;

/// What a machine tells of its control groups.
#[derive(Debug)]
pub struct Facts {
    /// Controllers of version 2; `None` where it is not mounted.
    pub unified: Option<Vec<String>>,
    /// Controllers of version 1.
    pub first: Vec<String>,
    /// They are those of the agent that runs.
    pub is_of_agent: bool,
    /// The process is in a group that cannot be seen from here.
    pub is_outside: bool,
    /// Name of the process's memory cgroup.
    pub memory: Option<String>,
    /// Bytes that its limits leave once idle pages of files have gone, which is what an agent reckons with; `None` without a limit.
    pub room: Option<u64>,
    /// What `memory.swap.max` allows, the least of all levels; `None` without a limit.
    pub swap: Option<u64>,
    /// Limits on reading.
    pub reads: Vec<ReadLimit>,
}

/// A limit on reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadLimit {
    /// `8:0`.
    device: String,
    /// File and line: `io.max 8:0 rbps=1048576`.
    words: String,
}

/// Looks at a machine, where `agent` is the process of an agent that runs.
pub fn gather(machine: &Machine, agent: Option<u32>) -> Facts {
    let its = agent.and_then(|process| machine.text(format!("/proc/{process}/cgroup")));
    let is_of_agent = its.is_some();
    let table = its.or_else(|| machine.text("/proc/self/cgroup")).unwrap_or_default();
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
        is_of_agent,
        is_outside: memory.is_none()
            && table
                .lines()
                .any(|line| is_outside(line.splitn(3, ':').last().unwrap_or(""))),
        room: memory.as_ref().and_then(cgroup::MemoryGroup::room).map(|room| room.0),
        swap: memory.as_ref().and_then(cgroup::MemoryGroup::swap).map(|swap| swap.0),
        memory: memory.map(|group| group.name().to_owned()),
        reads: reads(machine, &table, unified.copied()),
    }
}

/// Whether a group is outside of what this process sees.
fn is_outside(name: &str) -> bool {
    name.split('/').any(|part| part == "..")
}

/// The lines that limit reading, of all groups from the process's own upwards.
fn reads(machine: &Machine, table: &str, unified: Option<&str>) -> Vec<ReadLimit> {
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
        if is_outside(name) {
            continue;
        }
        for level in Path::new(name.trim_start_matches('/')).ancestors().take(MOST_LEVELS) {
            for file in files {
                let text = machine
                    .text(Path::new(mount).join(level).join(file))
                    .unwrap_or_default();
                let limiting = text.lines().filter(|line| match *file {
                    "io.max" => ["rbps", "riops"].iter().any(|name| limits(line, name)),
                    _ => true,
                });
                found.extend(limiting.take(MOST_LIMITS).map(|line| ReadLimit {
                    device: line.split_whitespace().next().unwrap_or_default().to_owned(),
                    words: format!("{file} {}", line.trim()),
                }));
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

/// What is to be said of it; `total` is the machine's memory in bytes, `devices` are those of the watched directories.
pub fn findings(facts: &Facts, total: u64, devices: &[Device]) -> Vec<Finding> {
    let mut all = vec![version(facts)];
    if facts.is_outside {
        let words = format!(
            "cannot be told: {} is outside of what can be seen from here",
            whose(facts)
        );
        all.push(CGROUPS.info("limits", words));
        return all;
    }
    all.push(memory(facts, total));
    if let Some(swap) = facts.swap {
        let words = format!("{} for {}", ByteCount(swap), whose(facts));
        all.push(CGROUPS.info("swap limit", words));
    }
    all.extend(of_reads(facts, devices));
    all
}

/// The group in question.
fn whose(facts: &Facts) -> String {
    let group = facts.memory.as_deref().unwrap_or("/");
    if facts.is_of_agent {
        format!("{group}, the group of the agent that runs")
    } else {
        format!("{group}, the group of this process")
    }
}

fn version(facts: &Facts) -> Finding {
    const NAME: &str = "version";
    let version = match (&facts.unified, facts.first.is_empty()) {
        (Some(_), true) => "2",
        (Some(_), false) => "1, with 2 beside it",
        (None, false) => "1",
        (None, true) => "none",
    };
    let is_there =
        facts.first.iter().any(|one| one == "memory") || facts.unified.iter().flatten().any(|one| one == "memory");
    if is_there && (facts.memory.is_some() || facts.is_outside) {
        return CGROUPS.ok(NAME, version);
    }
    CGROUPS
        .missing(
            NAME,
            format!("{version}, without a memory controller"),
            "--charge consumer, the default inside Kubernetes: all that is warmed is on the agent's account",
            "boot with cgroup_enable=memory, or without cgroup_disable=memory",
        )
        .aside()
}

fn memory(facts: &Facts, total: u64) -> Finding {
    const NAME: &str = "memory limit";
    let group = whose(facts);
    match facts.room {
        None => CGROUPS.ok(NAME, format!("none for {group}")),
        Some(room) if total > 0 && room < total / 2 => CGROUPS.degraded(
            NAME,
            format!(
                "{} left to {group}, of {} of the machine",
                ByteCount(room),
                ByteCount(total)
            ),
            "an agent in this group holds no more than that at once, and its warmed pages push each other out",
            "start it in a group without a limit, or with --charge consumer",
        ),
        Some(room) => CGROUPS.ok(NAME, format!("{} left to {group}", ByteCount(room))),
    }
}

/// Those of watched devices slow the agent down; others are good to know.
fn of_reads(facts: &Facts, devices: &[Device]) -> Vec<Finding> {
    let is_watched = |limit: &&ReadLimit| devices.iter().any(|device| device.numbers.contains(&limit.device));
    let (watched, others): (Vec<_>, Vec<_>) = facts.reads.iter().partition(is_watched);
    let words = |limits: &[&ReadLimit]| {
        let all: Vec<&str> = limits.iter().map(|limit| limit.words.as_str()).collect();
        format!("{}, for {}", all.join(", "), whose(facts))
    };
    let mut all = vec![if watched.is_empty() {
        CGROUPS.ok("read limits", "none on the devices of watched directories")
    } else {
        CGROUPS.degraded(
            "read limits",
            words(&watched),
            "an agent in this group warms no faster than that",
            "start it in a group without a limit on reading",
        )
    }];
    if !others.is_empty() {
        all.push(CGROUPS.info("other devices' read limits", words(&others)));
    }
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
