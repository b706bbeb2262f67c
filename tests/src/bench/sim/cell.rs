//! Cells as `nitro-bench cold --json` writes them, as far as a prediction needs them.

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::{
    bench::cold::{Device, Rig},
    readers::Kind,
};

#[derive(Deserialize)]
struct Bench {
    result: Vec<Cell>,
}

/// One cell. Times in seconds.
#[derive(Clone, Debug, Deserialize)]
pub struct Cell {
    /// The device.
    pub device: Device,
    /// The reader.
    pub reader: Kind,
    /// What it was measured on; missing in files of older versions.
    rig: Option<Rig>,
    /// Bytes of the model.
    pub bytes: u64,
    /// Processor time that the load itself takes.
    pub work: f64,
    /// The reader with everything cached, where that was measured.
    pub cached: Option<f64>,
    /// Measured without the agent.
    pub without_summary: Median,
    /// Measured with it.
    pub with_summary: Median,
    /// Requests without it and with it.
    pub requests: (f64, f64),
}

/// The middle of what was measured.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Median {
    /// Seconds.
    pub median: f64,
}

impl Cell {
    /// Its name in messages.
    pub fn name(&self) -> String {
        format!("{} × {}", self.device.name(), self.reader.name())
    }

    /// What it was measured on; the benches' usual disk on two processors where the file does not say.
    pub fn rig(&self) -> Rig {
        self.rig.unwrap_or(Rig {
            limit: self.device.limit(),
            service: self.device.store(),
            read_ahead: 128 << 10,
            request: if self.device.store().is_some() { 0 } else { 1280 << 10 },
            processors: 2,
        })
    }
}

/// The cells of a file.
///
/// # Errors
/// It is not what the bench writes.
pub fn parse(text: &str) -> Result<Vec<Cell>> {
    let bench: Bench = serde_json::from_str(text).context("result of the bench")?;
    Ok(bench.result)
}
