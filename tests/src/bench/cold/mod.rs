//! Cold loads with and without the agent: every device × every reader, in pairs.
//!
//! A pair is one load without any agent and one with the agent, in alternating order. The agent is ready *before* the caches
//! are dropped and shares the reader's allowance. `limit` is what O_DIRECT at depth needs for the same files, `cached` what the
//! reader needs when everything is in memory: no help can go below the larger of the two.

mod cell;
mod device;
mod report;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use indicatif::HumanDuration;
use nitro_user::units::{ByteCount, Size};

use self::cell::Bench;
pub(super) use self::{
    cell::{ORDER_SEED, Rig, SHARDS},
    device::Device,
};
use super::{Common, Outcome, progress::Progress};
use crate::readers::{self, Kind};

/// Options of `nitro-bench cold`.
#[derive(Clone, Debug, Args)]
pub struct ColdArgs {
    #[command(flatten)]
    common: Common,
    /// Bytes of the model on the fastest devices; the slower ones get half, or less.
    #[arg(long, default_value = "2GiB")]
    size: Size,
    /// Pairs of every cell; by default 5, and 15 where a small difference is claimed.
    #[arg(long)]
    pairs: Option<usize>,
    /// Devices, or all.
    #[arg(long, value_delimiter = ',', default_value = "all")]
    device: Vec<DeviceChoice>,
    /// Readers, or all.
    #[arg(long, value_delimiter = ',', default_value = "all", value_parser = parse_reader)]
    reader: Vec<Readers>,
    /// Keep what the agent printed, a file for every load.
    #[arg(long)]
    logs: Option<PathBuf>,
    /// Only say how long it would take.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum DeviceChoice {
    #[value(name = "gp-1000")]
    Gp1000,
    D300,
    D125,
    Unlimited,
    Cached,
    Store,
    Head,
    All,
}

impl DeviceChoice {
    /// Those that are meant.
    pub(super) fn devices(self) -> Vec<Device> {
        match self {
            Self::Gp1000 => vec![Device::Gp1000],
            Self::D300 => vec![Device::D300],
            Self::D125 => vec![Device::D125],
            Self::Unlimited => vec![Device::Unlimited],
            Self::Cached => vec![Device::Cached],
            Self::Store => vec![Device::Store],
            Self::Head => vec![Device::Head],
            Self::All => Device::ALL.to_vec(),
        }
    }
}

/// One reader, or all of them.
#[derive(Clone, Debug)]
pub(super) struct Readers(pub(super) Vec<Kind>);

pub(super) fn parse_reader(text: &str) -> Result<Readers, String> {
    if text == "all" {
        Ok(Readers(Kind::ALL.to_vec()))
    } else {
        Kind::from_str(text, true).map(|kind| Readers(vec![kind]))
    }
}

/// Cells of the matrix with the number of their pairs.
fn plan(args: &ColdArgs) -> Vec<(Device, Vec<(Kind, usize)>)> {
    let mut devices: Vec<Device> = args.device.iter().flat_map(|choice| choice.devices()).collect();
    devices.dedup();
    let kinds: Vec<Kind> = args.reader.iter().flat_map(|readers| readers.0.clone()).collect();
    devices
        .into_iter()
        .map(|device| {
            let kinds = kinds.iter().filter(|&&kind| device.has(kind));
            (
                device,
                kinds
                    .map(|&kind| (kind, args.pairs.unwrap_or_else(|| device.pairs(kind)).max(1)))
                    .collect(),
            )
        })
        .collect()
}

/// Runs the matrix.
///
/// # Errors
/// When the rig or the agent fails; a missed target is not an error unless `--check` was given.
pub fn run(args: &ColdArgs) -> Result<ExitCode> {
    let plan = plan(args);
    let size = args.size.of(ByteCount(0)).0.max(8 << 20);
    let estimate: f64 = plan.iter().map(|(device, kinds)| device.estimate(size, kinds)).sum();
    let cells: usize = plan.iter().map(|(_, kinds)| kinds.len()).sum();
    eprintln!(
        "{cells} cells, about {}",
        HumanDuration(Duration::from_secs_f64(estimate))
    );
    if args.dry_run {
        return Ok(ExitCode::SUCCESS);
    }
    let agent = args.common.prepare()?;
    let program = readers::program()?;
    if let Some(logs) = &args.logs {
        std::fs::create_dir_all(logs).with_context(|| format!("create {}", logs.display()))?;
    }

    let progress = Progress::new(estimate);
    let (mut results, mut notes) = (Vec::new(), Vec::new());
    for (device, kinds) in plan {
        if kinds.is_empty() {
            continue;
        }
        progress.say(&format!(
            "{}: writing models of {}",
            device.name(),
            ByteCount(device.bytes(size))
        ));
        let bench = Bench::new(&args.common.dir, &agent, &program, args.logs.as_deref(), device, size)?;
        notes.push(bench.note());
        for (kind, pairs) in kinds {
            let result = bench
                .cell(kind, pairs, &progress)
                .with_context(|| format!("{} × {}", device.name(), kind.name()))?;
            progress.say(&report::line(&result));
            results.push(result);
        }
    }
    progress.finish();
    notes.push(report::NOTE.into());
    let missed = results.iter().filter(|result| !result.misses.is_empty()).count();
    let figures = serde_json::to_value(&results).context("figures as JSON")?;
    Outcome {
        title: "cold",
        notes: [notes, report::misses(&results)].concat(),
        tables: vec![report::table(&results)],
        figures,
        missed,
    }
    .publish(&args.common)
}
