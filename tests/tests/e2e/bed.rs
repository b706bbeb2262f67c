//! What every scenario needs: a disk of its own with a rate, an agent on it, files made cold, and waiting for a condition with a deadline.

use std::{
    fs::File,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use rig::{
    agent::{self, Agent, AgentProcess},
    disk::{Format, TestDisk},
    limit::{IoLimit, Limit},
    sweep, sys,
};
use serde_json::Value;

use super::{reader::StepReader, steps::Done};

/// 1 MiB.
pub const MIB: u64 = 1 << 20;

/// Long enough for anything that happens at all.
pub const SOON: Duration = Duration::from_secs(20);

/// One scenario at a time: the agent of one would see the readers of the other, and two disks share the processors.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Attempts at a scenario that others disturb.
const MOST_ATTEMPTS: u32 = 4;

/// Runs a scenario on a disk of `mib` MiB, when it is its turn; says why where it cannot run, which in CI is a failure.
///
/// It is repeated when it fails and somebody dropped the caches of the whole machine meanwhile: what is in the page cache is what these tests are about.
pub fn scenario(mib: u64, body: impl Fn(&Bed)) {
    scenario_on(Format::Ext4, mib, body);
}

/// The same on another file system.
pub fn scenario_on(format: Format, mib: u64, body: impl Fn(&Bed)) {
    if !nix::unistd::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "in CI this test must run as root");
        eprintln!("skipped: needs root");
        return;
    }
    if !format.is_available() {
        assert!(
            std::env::var_os("CI").is_none(),
            "in CI the tools for {format:?} must be there"
        );
        eprintln!("skipped: no mkfs for {format:?}");
        return;
    }
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    sweep::prepare(&base()).unwrap();
    for attempt in 1.. {
        let before = caches_dropped();
        let run = || body(&Bed::new(format, mib));
        let Err(failure) = catch_unwind(AssertUnwindSafe(run)) else {
            return;
        };
        if caches_dropped() == before || attempt == MOST_ATTEMPTS {
            resume_unwind(failure);
        }
        eprintln!("once more: somebody dropped the caches of the machine");
    }
}

/// How often the page cache of the machine was dropped since it was started.
fn caches_dropped() -> Option<u64> {
    let counters = std::fs::read_to_string("/proc/vmstat").ok()?;
    counters
        .lines()
        .find_map(|line| line.strip_prefix("drop_pagecache ")?.parse().ok())
}

/// Where images of disks go: not where a RAM disk is likely.
pub fn base() -> PathBuf {
    PathBuf::from("/var/tmp")
}

/// A disk, and a group in which agent and readers share what the disk allows.
pub struct Bed {
    pub group: IoLimit,
    pub disk: TestDisk,
}

impl Bed {
    fn new(format: Format, mib: u64) -> Self {
        Self {
            group: IoLimit::new().unwrap(),
            disk: TestDisk::formatted(&base(), mib * MIB, format).unwrap(),
        }
    }

    /// Limits the disk to `mib` MiB a second, in a generous number of requests.
    pub fn limit(&self, mib: u64) {
        let limit = Limit {
            bytes_per_second: mib * MIB,
            operations_per_second: 20_000,
        };
        self.disk.limit(&self.group, limit).unwrap();
    }

    /// A directory on the disk.
    pub fn dir(&self, name: &str) -> PathBuf {
        let dir = self.disk.path().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    /// An agent that watches the whole disk, in the group.
    pub fn agent(&self) -> AgentProcess {
        self.start(Agent::new(&binary(), self.disk.path()))
    }

    /// Starts an agent in the group.
    pub fn start(&self, agent: Agent) -> AgentProcess {
        agent.start(Some(&self.group)).unwrap()
    }

    /// A reader in the group that has `path` open.
    pub fn reader(&self, path: &Path) -> StepReader {
        StepReader::of(path, Some(&self.group))
    }

    /// What a reader gets without an agent; the file is cold afterwards.
    pub fn truth(&self, path: &Path) -> Done {
        let truth = StepReader::of(path, None).read_to_end(MIB);
        cool(path);
        truth
    }

    /// Bytes that the device has read.
    pub fn device_bytes(&self) -> u64 {
        self.disk.device_bytes_read().unwrap()
    }
}

/// The agent's binary.
pub fn binary() -> PathBuf {
    agent::default_binary().unwrap()
}

/// Writes a file's pages out, and makes it look as if it had been written a minute ago.
pub fn age(path: &Path) {
    let file = File::options().write(true).open(path).unwrap();
    file.sync_all().unwrap();
    let minute = Duration::from_secs(60);
    file.set_modified(std::time::SystemTime::now() - minute).unwrap();
}

/// Makes a file cold.
pub fn cool(path: &Path) {
    sys::drop_pages(&File::open(path).unwrap()).unwrap();
}

/// Makes files cold.
pub fn cool_all(paths: &[PathBuf]) {
    paths.iter().for_each(|path| cool(path));
}

/// Bytes of `start..end` of a file that are in the page cache, up to date.
pub fn resident(path: &Path, start: u64, end: u64) -> u64 {
    let pages = sys::page_map(&File::open(path).unwrap()).unwrap();
    let (first, last) = ((start / sys::PAGE) as usize, end.div_ceil(sys::PAGE) as usize);
    let inside = pages.iter().take(last).skip(first);
    inside.filter(|&&here| here).count() as u64 * sys::PAGE
}

/// Bytes of the first `end` of a file that were brought in since it was cold: those in the page cache, and those that the machine has reclaimed meanwhile.
pub fn brought(path: &Path, end: u64) -> u64 {
    let reclaimed = || sys::reclaimed_pages(&File::open(path).unwrap(), end).unwrap();
    loop {
        let before = reclaimed();
        let here = resident(path, 0, end);
        // One that goes between the two would count twice, or not at all.
        if reclaimed() == before {
            return here + before * sys::PAGE;
        }
    }
}

/// All bytes of a file that are in the page cache.
pub fn resident_all(path: &Path) -> u64 {
    resident(path, 0, u64::MAX / 2)
}

/// Descriptors and mappings that a process has below a directory.
pub fn held(pid: u32, below: &Path) -> usize {
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let open = descriptors.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    open.filter(|path| path.starts_with(below)).count()
        + maps
            .lines()
            .filter(|line| line.contains(&*below.to_string_lossy()))
            .count()
}

/// Waits until `condition` holds; fails after [`SOON`].
pub fn until(what: &str, condition: impl FnMut() -> bool) {
    within(SOON, what, condition);
}

/// Waits until `condition` holds; fails after `most`.
pub fn within(most: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + most;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {most:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until `value` stays the same for `time`; gives it. Fails after [`SOON`].
pub fn settled<T: PartialEq>(time: Duration, mut value: impl FnMut() -> T) -> T {
    let deadline = Instant::now() + SOON;
    let (mut last, mut since) = (value(), Instant::now());
    while since.elapsed() < time {
        assert!(Instant::now() < deadline, "it never came to rest");
        std::thread::sleep(Duration::from_millis(20));
        let now = value();
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    last
}

/// The objects of JSON among what an agent printed so far, with `event` as its name.
pub fn events(agent: &AgentProcess, event: &str) -> Vec<Value> {
    let lines = agent.lines();
    let objects = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    objects
        .filter(|object| object["event"] == event)
        .map(|object| object[event].clone())
        .collect()
}

/// Waits for the receipt of process `pid`.
pub fn receipt(agent: &AgentProcess, pid: u32) -> Value {
    receipts(agent, pid, 1).remove(0)
}

/// Waits for `count` receipts of process `pid`.
pub fn receipts(agent: &AgentProcess, pid: u32, count: usize) -> Vec<Value> {
    let mut found = Vec::new();
    let deadline = Instant::now() + SOON;
    while found.len() < count {
        assert!(
            Instant::now() < deadline,
            "no receipt of {pid}:\n{}",
            agent.lines().join("\n")
        );
        std::thread::sleep(Duration::from_millis(5));
        found = events(agent, "receipt");
        found.retain(|receipt| receipt["pids"][0] == pid);
    }
    found
}

/// What the agent said happened to the loads of `pid`: `LOAD`, `WARM`, `SKIP`, `DONE`, each with its note.
pub fn happenings(agent: &AgentProcess, pid: u32) -> Vec<(String, String)> {
    let all = events(agent, "happening");
    let mine = all.iter().filter(|happening| happening["process"] == pid);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    mine.map(|happening| (text(&happening["what"]), text(&happening["note"])))
        .collect()
}

/// A number of a JSON object.
pub fn number(object: &Value, name: &str) -> u64 {
    object[name]
        .as_u64()
        .unwrap_or_else(|| panic!("no number {name:?} in {object}"))
}

/// Bytes that the agent brought in, by a receipt.
pub fn warmed(receipt: &Value) -> u64 {
    ["warmed_in_time", "warmed_late", "wasted"]
        .iter()
        .map(|part| number(receipt, part))
        .sum()
}

/// Bytes that the device was asked for, by a receipt.
pub fn brought_in(receipt: &Value) -> u64 {
    warmed(receipt) + number(receipt, "kernel_readahead") + number(receipt, "missed")
}

/// The five parts of what was demanded.
pub fn assert_adds_up(receipt: &Value) {
    let parts = [
        "resident_before",
        "kernel_readahead",
        "warmed_in_time",
        "warmed_late",
        "missed",
    ];
    let sum: u64 = parts.iter().map(|part| number(receipt, part)).sum();
    assert_eq!(number(receipt, "demanded"), sum, "{receipt:#}");
}
