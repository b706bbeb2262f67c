//! The agent's state at one moment: what `nitro-agent status` shows and `--json` prints. Values only; the field names are the contract.
//!
//! Names that come from the disk or from a process are text whose bytes that are not UTF-8 were replaced; control characters are still in it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::units::{ByteCount, Rate};

/// Everything at once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// Version of the agent.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// Release of the running kernel.
    pub kernel: String,
    /// Seconds since the agent was ready.
    pub uptime_seconds: f64,
    /// Nothing is warmed.
    pub dry_run: bool,
    /// Nothing is warmed for the time being.
    pub paused: bool,
    /// Seconds until that ends by itself.
    pub paused_seconds: Option<f64>,
    /// Event mode.
    pub mode: String,
    /// Why this one.
    pub mode_reason: String,
    /// The eBPF programs, one by one.
    pub programs: Vec<ProgramStatus>,
    /// Canonical watch roots.
    pub roots: Vec<String>,
    /// The same, with what is in each.
    pub directories: Vec<DirectoryStatus>,
    /// Paths that were unwatched.
    pub unwatched: Vec<String>,
    /// What `--watch auto` looks at; `None` without it.
    pub auto: Option<AutoStatus>,
    /// Models found in them, by layout.
    pub models: BTreeMap<String, u64>,
    /// Files in the catalog at the last scan.
    pub files: u64,
    /// Their bytes.
    pub bytes: ByteCount,
    /// Files the kernel watches for us.
    pub watched: u64,
    /// How many it could.
    pub watched_capacity: u64,
    /// Ceiling for all that was warmed and nobody used yet.
    pub ceiling: ByteCount,
    /// Bytes warmed and not used yet, with those on their way.
    pub held: ByteCount,
    /// The same as a percentage of the ceiling.
    pub held_percent: u8,
    /// Bytes locked.
    pub pinned: ByteCount,
    /// Bytes that may be.
    pub pin: ByteCount,
    /// Models that are used, the hottest first.
    pub kept: Vec<KeptStatus>,
    /// What came of bringing in what was expected.
    pub foresight: ForesightStatus,
    /// What follows from memory being short, when it was looked at last: while something could be warmed; `None` while it is not.
    pub pressure: Option<String>,
    /// What the agent may still do.
    pub rights: RightsStatus,
    /// Only readers that were seen to read are helped: the machine runs on its battery.
    pub on_battery: bool,
    /// What is held of each model, and for whom, the largest first.
    pub holdings: Vec<HoldingStatus>,
    /// The agent's own memory cgroup; `None` where it cannot be told.
    pub own_cgroup: Option<String>,
    /// Loads that have not ended.
    pub loads: Vec<LoadStatus>,
    /// Devices that the agent has warmed from.
    pub devices: Vec<DeviceStatus>,
    /// What the eBPF programs counted.
    pub counters: CounterStatus,
    /// Events taken from the ring.
    pub ring_received: u64,
    /// Hits that the kernel refused to a program since another was running: of all programs together, `None` where it does not tell.
    pub recursion_misses: Option<u64>,
    /// Maps that were full when something was to be put into them.
    pub full_maps: Vec<FullMap>,
}

/// What was brought in since somebody was expected to load it, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ForesightStatus {
    /// All of it.
    pub warmed: ByteCount,
    /// Of that, what was there when somebody did.
    pub met: ByteCount,
    /// Of that, what nobody came for in time.
    pub in_vain: ByteCount,
}

/// A model that is used.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct KeptStatus {
    /// Its name.
    pub model: String,
    /// Bytes of it worth keeping: what was read of it before.
    pub bytes: ByteCount,
    /// Uses, the earlier ones counting less.
    pub heat: f64,
    /// Bytes locked.
    pub pinned: ByteCount,
    /// Somebody asked for it to be pinned.
    pub asked: bool,
    /// Processes that live and have it mapped.
    pub mapped_by: Vec<u32>,
    /// Whoever has loaded it has the data elsewhere: nobody needs its pages.
    pub elsewhere: bool,
    /// Bytes that the kernel has taken away and that are to come back.
    pub evicted: ByteCount,
}

/// What the agent may do, since its start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RightsStatus {
    /// Capabilities that are left, in the kernel's order.
    pub capabilities: Vec<String>,
    /// No program that it might start gets more.
    pub no_new_privileges: bool,
    /// System calls that the agent never makes are refused.
    pub system_calls_filtered: bool,
}

/// One watch root.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryStatus {
    /// Its canonical path; as it was given while it does not exist.
    pub path: String,
    /// Whether it is there.
    pub present: bool,
    /// Root may not look into it: what is in it is known once somebody reads it.
    #[serde(default)]
    pub refused: bool,
    /// Why it was found to be worth watching; `None` for one that was named on the command line.
    pub why: Option<String>,
    /// Models in it; `None`, as are the next two, for one that lies in another one, which holds its files.
    pub models: Option<u64>,
    /// Files that have their first name in it.
    pub files: Option<u64>,
    /// Their bytes.
    pub bytes: Option<ByteCount>,
}

/// What `--watch auto` looks at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AutoStatus {
    /// Processes, at the last look at all of them.
    pub processes: u64,
    /// Homes.
    pub homes: u64,
    /// Directories that were found and are not watched unasked.
    pub not_watched: Vec<NotWatchedStatus>,
}

/// A directory that was found and is not watched unasked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotWatchedStatus {
    /// Its path.
    pub path: String,
    /// Why it was found.
    pub why: String,
    /// Why it is not watched, and what to do.
    pub reason: String,
}

/// Bytes of one model that were warmed and not used yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldingStatus {
    /// Model or file.
    pub model: String,
    /// Program that they were warmed for, once known.
    pub program: Option<String>,
    /// Its process id; it may have ended.
    pub pid: u32,
    /// Real user, once known.
    pub user: Option<u32>,
    /// Memory cgroup that they are charged to; `None` where it cannot be told any more.
    pub charged_to: Option<String>,
    /// How many.
    pub bytes: ByteCount,
}

/// One eBPF program.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramStatus {
    /// Its name.
    pub program: String,
    /// What it is attached to.
    pub hook: String,
    /// Why it is not attached; `None` when it is.
    pub refused: Option<String>,
    /// Hits refused to it by the kernel; `None` where it does not tell.
    pub recursion_misses: Option<u64>,
}

/// A load that has not ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadStatus {
    /// Model or file.
    pub model: String,
    /// Program, once known.
    pub program: Option<String>,
    /// Process id.
    pub pid: u32,
    /// Real user, once known.
    pub user: Option<u32>,
    /// Where it stands: `suspected`, `announced`, `confirmed`, `skipped`.
    pub stage: String,
    /// Why it is left alone, for people.
    pub skipped: Option<String>,
    /// Bytes that may be warmed and unread; 0 while closed.
    pub window: ByteCount,
    /// Bytes with the workers.
    pub in_flight: ByteCount,
    /// Bytes of the model.
    pub bytes: ByteCount,
}

/// A block device, or what stands for one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DeviceStatus {
    /// Major and minor number.
    pub number: (u32, u32),
    /// Name of the block device; `None` for file systems without one.
    pub name: Option<String>,
    /// Bytes a second while the agent kept it busy; `None` before the first measurement.
    pub rate: Option<Rate>,
    /// Bytes with its workers.
    pub in_flight: ByteCount,
}

/// What the eBPF programs counted, summed over the processors. At rest `seen = filtered + coalesced + delivered + dropped`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CounterStatus {
    /// Hook hits.
    pub seen: u64,
    /// Hits on what is not watched.
    pub filtered: u64,
    /// Hits absorbed without an event.
    pub coalesced: u64,
    /// Hits that put an event on the ring.
    pub delivered: u64,
    /// Hits that found the ring full.
    pub dropped: u64,
    /// Hits that found the cursor map full.
    pub cursors_full: u64,
}

/// A map without room.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FullMap {
    /// Its name.
    pub map: String,
    /// How often something found no room in it.
    pub refused: u64,
}
