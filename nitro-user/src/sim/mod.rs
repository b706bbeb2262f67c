//! The engine in a simulated world: one device, a page cache, readers; time is a number.
//!
//! Inputs: a [`Scenario`]. Outputs: a [`Report`], with every rule that was broken on the way. First version: one device, steps as the grain of
//! the cache, readers that follow a list of steps. It is not used by the daemon.

mod cache;
mod device;
mod reader;
mod world;

use std::time::Duration;

pub use device::DeviceSpec;
pub use reader::ReaderSpec;

use crate::{
    catalog::model::LayoutKind,
    engine::receipt::Receipt,
    units::{ByteCount, Moment},
};

/// One run.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The device that holds all files.
    pub device: DeviceSpec,
    /// Sizes of the model's parts in bytes.
    pub parts: Vec<u64>,
    /// What ties them together.
    pub layout: LayoutKind,
    /// Bytes of header in each part.
    pub header: u64,
    /// The readers, each a process of its own.
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
    /// Receipts, in the order they were written.
    pub receipts: Vec<Receipt>,
    /// Bytes the device gave.
    pub device_bytes: u64,
    /// Bytes the workers brought in.
    pub warmed_bytes: u64,
    /// When the world came to rest.
    pub ended: Moment,
    /// Rules broken, in words; empty in a right engine.
    pub broken: Vec<String>,
}

/// Runs a scenario to its rest.
pub fn run(scenario: &Scenario) -> Report {
    world::World::new(scenario).run()
}
