//! The engine in a simulated world: a device, the kernel's page cache and readahead, processors, readers, and the agent's workers; time is a number.
//!
//! Inputs: a [`Scenario`]. Outputs: a [`Report`], with every rule that was broken on the way. It has no clock, does no input or output, and gives the same report for
//! the same scenario. It is not used by the daemon. All its parameters are physical, and the same for every reader on a device:
//!
//! | module | models | parameters |
//! |---|---|---|
//! | [`device`] | a limit kept in slices as blk-throttle does; a service with a time for each request, a rate, requests at once, a head that jumps | [`DeviceSpec`] |
//! | `cache` | pages that are there, on their way, or marked, and who brought them; the step used longest ago goes first | [`Scenario::memory`] |
//! | `readahead` | the windows that the kernel reads ahead for `read` and for mappings | [`DeviceSpec::read_ahead`], [`DeviceSpec::request`] |
//! | `machine` | what touching, copying, and bringing pages in costs, and who waits for a processor | [`Machine`] |
//! | `reader` | processes and threads, what they visit and how | [`ReaderSpec`] |
//! | `cursor` | what the agent's programs in the kernel tell of it | `nitro_common::settings` |
//! | `warmer` | a worker's thread: the chain of the kernel's readahead, or calls of a fixed size | |
//! | `simple` | a prefetcher that knows names only, in the agent's place | [`Course::simple`] |
//! | `rows` | what the agent keeps over a restart | [`Course::restarts`] |
//!
//! A scenario may be a whole day: readers that follow one another ([`ReaderSpec::follows`]), processes that live on after they have read, with a copy of their own or a mapping,
//! evictions, restarts of the agent. What is locked stays; else the step used longest ago goes first, whoever has it mapped.
//!
//! `nitro-bench sim` compares it with what `nitro-bench cold` measured; `nitro-agent replay` makes a scenario of a recorded trace.

pub mod baseline;
mod cache;
mod cursor;
pub mod device;
mod machine;
mod readahead;
mod reader;
mod rows;
mod simple;
mod table;
#[cfg(test)]
mod tests;
mod warmer;
mod world;

use std::{path::PathBuf, time::Duration};

use self::baseline::Baseline;
pub use device::{DeviceSpec, Limit, Service};
pub use machine::Machine;
pub use reader::{ReaderSpec, Style, Visit};

use crate::{
    catalog::model::LayoutKind,
    engine::{Policy, receipt::Receipt},
    units::{ByteRange, Moment},
};

/// Bytes of a page.
const PAGE: u64 = 4096;

/// One run.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The device that holds all files.
    pub device: DeviceSpec,
    /// What work on the processors costs.
    pub machine: Machine,
    /// What is on the device.
    pub files: Files,
    /// What is in the page cache at the beginning: indexes of parts, and ranges of them.
    pub resident: Vec<(usize, ByteRange)>,
    /// What leaves it for reasons that lie outside the scenario.
    pub evictions: Vec<Eviction>,
    /// The readers, each a process of its own unless it says otherwise.
    pub readers: Vec<ReaderSpec>,
    /// Page cache in bytes; what was used longest ago is evicted.
    pub memory: u64,
    /// What the engine may do; `None` runs without the agent.
    pub policy: Option<Policy>,
    /// What a day has that a load has not.
    pub course: Course,
}

/// What else happens in a scenario, and is told of it.
#[derive(Clone, Debug, Default)]
pub struct Course {
    /// Absolute paths of the files; their indexes where there are none.
    pub names: Vec<PathBuf>,
    /// What helps in the agent's place: it brings in by the same means, and chooses by names.
    pub simple: Option<Baseline>,
    /// The agent is started anew, as soon after this as none of its workers is at work; what it learned it is told again.
    pub restarts: Vec<Moment>,
    /// What is to be counted by itself.
    pub tallies: Vec<TallySpec>,
}

/// What help brings into a model from an eviction on, until a reader of it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TallySpec {
    /// Index of the eviction.
    pub eviction: usize,
    /// Index of the reader.
    pub reader: usize,
}

/// What came of a [`TallySpec`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tallied {
    /// Bytes that help brought in.
    pub brought: u64,
    /// Bytes of these that somebody used at last.
    pub used: u64,
}

/// Files, and the models that they make up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// The files. All else names them by their index here.
    pub parts: Vec<PartSpec>,
    /// The models. A file that is a part of several is described as one of the last.
    pub models: Vec<ModelSpec>,
}

/// A file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartSpec {
    /// Bytes.
    pub size: u64,
    /// Bytes of these that are its header.
    pub header: u64,
}

/// Files that are loaded together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelSpec {
    /// For people.
    pub name: String,
    /// What ties them together.
    pub layout: LayoutKind,
    /// Indexes of its parts, in the order in which they are loaded.
    pub parts: Vec<usize>,
}

impl Files {
    /// One model of files of these sizes, with `header` bytes of header in each.
    pub fn one_model(sizes: &[u64], layout: LayoutKind, header: u64) -> Self {
        Self {
            parts: sizes.iter().map(|size| PartSpec { size: *size, header }).collect(),
            models: vec![ModelSpec {
                name: "sim".into(),
                layout,
                parts: (0..sizes.len()).collect(),
            }],
        }
    }

    /// All there is.
    pub fn whole(&self) -> Vec<(usize, ByteRange)> {
        let ranges = self.parts.iter().map(|part| ByteRange::new(0, part.size));
        ranges.enumerate().collect()
    }

    /// Bytes of a part; 0 of one that is not there.
    pub fn size(&self, part: usize) -> u64 {
        self.parts.get(part).map_or(0, |part| part.size)
    }
}

/// Something leaves the page cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Eviction {
    /// When.
    pub at: Moment,
    /// That is so long after the end of the reader with this index, and not after the beginning.
    pub follows: Option<usize>,
    /// Index of the part.
    pub part: usize,
    /// Which bytes.
    pub range: ByteRange,
}

/// When a reader was at a visit: from its first access to what comes after its last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stay {
    /// It was ready to begin.
    pub began: Moment,
    /// It had all.
    pub ended: Moment,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Each reader's time from first access to last, in the order of the scenario.
    pub reader_times: Vec<Duration>,
    /// Each reader's visits, in the order of its own list. Those of a list that several work off are not kept.
    pub stays: Vec<Vec<Stay>>,
    /// When the last reader was done.
    pub readers_ended: Moment,
    /// Receipts, in the order they were written.
    pub receipts: Vec<Receipt>,
    /// Bytes the device gave.
    pub device_bytes: u64,
    /// Requests to it.
    pub requests: u64,
    /// Bytes the workers brought in, as they tell: what a reader brought in beside them within a step is theirs, too.
    pub warmed_bytes: u64,
    /// Bytes of the steps that the kernel took out of the page cache.
    pub evicted_bytes: u64,
    /// Bytes of the pages that readers used: each once for every time that it came into the page cache.
    pub used: Used,
    /// What each reader found, in the order of the scenario.
    pub served: Vec<Served>,
    /// What was counted by itself, in the order of the scenario.
    pub tallies: Vec<Tallied>,
    /// Bytes that workers, and readers whose [`ReaderSpec::helps`], brought in and nobody used.
    pub wasted_bytes: u64,
    /// When the world came to rest.
    pub ended: Moment,
    /// Rules broken, in words; empty in a right engine.
    pub broken: Vec<String>,
}

/// Bytes that readers used, by who brought them into the page cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// They were there at the beginning.
    pub before: u64,
    /// A reader did, or the kernel for it.
    pub by_readers: u64,
    /// A worker did, or a reader that only helps.
    pub by_help: u64,
}

/// Bytes that a reader used, by how it found them. What it used twice counts twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// They were there when it began, and nobody had brought them in for it.
    pub resident: u64,
    /// Help had brought them in when it came to their 2 MiB step.
    pub in_time: u64,
    /// Help brought them in, and was not done when it came to their step.
    pub late: u64,
    /// It brought them in itself, or the kernel did for it.
    pub by_itself: u64,
}

impl Served {
    /// Both together.
    pub const fn plus(self, other: Self) -> Self {
        Self {
            resident: self.resident + other.resident,
            in_time: self.in_time + other.in_time,
            late: self.late + other.late,
            by_itself: self.by_itself + other.by_itself,
        }
    }

    /// All of them.
    pub const fn demanded(self) -> u64 {
        self.resident + self.in_time + self.late + self.by_itself
    }
}

/// Runs a scenario to its rest.
pub fn run(scenario: &Scenario) -> Report {
    world::World::new(scenario).run()
}
