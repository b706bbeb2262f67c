//! `nitro-agent replay`: a recorded trace through the engine once more.

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use serde_json::json;

use super::ask::print;
use crate::{
    replay::exact::{Outcome, Replay},
    trace::Opened,
};

/// Flags of `replay`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  nitro-agent replay load.trace --exact")]
pub struct Options {
    /// A trace.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Give the engine every input again, and compare what it decides with what it decided then.
    #[arg(long)]
    exact: bool,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

/// Replays and prints.
///
/// # Errors
/// The file is no trace; the replay came to something else.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let mut trace = Opened::open(&options.file)?;
    let mut replay = Replay::new(trace.header());
    for record in trace.by_ref() {
        replay.tell(record);
    }
    let outcome = replay.end();
    if options.json {
        print(&as_json(&outcome).to_string())?;
    } else {
        print(&format!(
            "{} inputs, {} steps of {} wanted, {} receipts",
            outcome.inputs,
            outcome.steps,
            outcome.bytes,
            outcome.replayed.len()
        ))?;
    }
    if !outcome.is_same() {
        bail!(
            "the replay wrote {} receipts, {} were recorded, and they differ: inputs are missing, or it is another version",
            outcome.replayed.len(),
            outcome.recorded.len()
        );
    }
    Ok(())
}

fn as_json(outcome: &Outcome) -> serde_json::Value {
    json!({
        "inputs": outcome.inputs,
        "steps": outcome.steps,
        "bytes": outcome.bytes,
        "receipts": outcome.replayed.len(),
        "same": outcome.is_same(),
    })
}
