//! The engine in a simulated world: a device, the kernel's page cache and readahead, processors, readers, and the agent's workers; time is a number.
//!
//! Inputs: a [`Scenario`]. Outputs: a [`Report`], with every rule that was broken on the way. It has no clock, does no input or output, and gives the same report for
//! the same scenario. It is not used by the daemon. All its parameters are physical, and the same for every reader on a device:
//!
//! | module | models | parameters |
//! |---|---|---|
//! | [`device`] | a limit kept in slices as blk-throttle does; a service with a time for each request, a rate, requests at once, a head that jumps | [`DeviceSpec`] |
//! | `cache` | pages that are there, on their way, or marked; the step used longest ago goes first | [`Scenario::memory`] |
//! | `readahead` | the windows that the kernel reads ahead for `read` and for mappings | [`DeviceSpec::read_ahead`], [`DeviceSpec::request`] |
//! | `machine` | what touching, copying, and bringing pages in costs, and who waits for a processor | [`Machine`] |
//! | `reader` | processes and threads, what they visit and how | [`ReaderSpec`] |
//! | `cursor` | what the agent's programs in the kernel tell of it | `nitro_common::settings` |
//! | `warmer` | a worker's thread: the chain of the kernel's readahead, or calls of a fixed size | |
//!
//! `nitro-bench sim` compares it with what `nitro-bench cold` measured.

mod cache;
mod cursor;
pub mod device;
mod machine;
mod readahead;
mod reader;
mod warmer;
mod world;

use std::time::Duration;

pub use device::{DeviceSpec, Limit, Service};
pub use machine::Machine;
pub use reader::{ReaderSpec, Style, Visit};

use crate::{
    catalog::model::LayoutKind,
    engine::receipt::Receipt,
    units::{ByteCount, Moment},
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
    /// Sizes of the model's parts in bytes.
    pub parts: Vec<u64>,
    /// What ties them together.
    pub layout: LayoutKind,
    /// Bytes of header in each part.
    pub header: u64,
    /// Everything is in the page cache at the beginning.
    pub cached: bool,
    /// The readers, each a process of its own unless it says otherwise.
    pub readers: Vec<ReaderSpec>,
    /// Page cache in bytes; what was used longest ago is evicted.
    pub memory: u64,
    /// The engine's ceiling; `None` runs without the agent.
    pub ceiling: Option<ByteCount>,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Each reader's time from first access to last, in the order of the scenario.
    pub reader_times: Vec<Duration>,
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
    /// When the world came to rest.
    pub ended: Moment,
    /// Rules broken, in words; empty in a right engine.
    pub broken: Vec<String>,
}

/// Runs a scenario to its rest.
pub fn run(scenario: &Scenario) -> Report {
    world::World::new(scenario).run()
}
