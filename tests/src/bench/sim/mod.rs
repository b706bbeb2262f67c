//! What the simulator predicts for the cells that `nitro-bench cold` measured, side by side.
//!
//! `nitro-bench sim` compares with the cells in `tests/data/cold.json`, `--cold FILE` with those of another run, which `cold --json FILE` wrote. It measures nothing
//! and needs no rights.

mod cell;
mod scenario;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result, ensure};
use clap::Args;
use comfy_table::{CellAlignment, Table};
use nitro_user::{sim, units::ByteCount};
use serde::Serialize;

use self::cell::Cell;
use super::{
    Common, Outcome,
    cold::{DeviceChoice, Readers, parse_reader},
    verdict,
};

/// Cells as they were measured last.
const MEASURED: &str = include_str!("../../../data/cold.json");

/// A prediction may be off by so much.
const TOLERANCE: f64 = 0.15;

/// The agent's ceiling on the machines of the benches, half of their memory; no cell comes near it.
const CEILING: ByteCount = ByteCount(12 << 30);

const NOTE: &str = "Seconds; measured are medians, error is predicted/measured − 1. What a reader costs the processors is taken from the cell's column `cached`, all \
     else from the model's parameters: see \"The simulator\" in ARCHITECTURE.md.";

/// Options of `nitro-bench sim`.
#[derive(Clone, Debug, Args)]
pub struct SimArgs {
    #[command(flatten)]
    common: Common,
    /// What `nitro-bench cold --json` wrote; without it the cells that the repository keeps.
    #[arg(long)]
    cold: Option<PathBuf>,
    /// Devices, or all.
    #[arg(long, value_delimiter = ',', default_value = "all")]
    device: Vec<DeviceChoice>,
    /// Readers, or all.
    #[arg(long, value_delimiter = ',', default_value = "all", value_parser = parse_reader)]
    reader: Vec<Readers>,
}

/// A cell's figures, measured and predicted, in seconds.
#[derive(Clone, Debug, Serialize)]
struct Compared {
    device: &'static str,
    reader: &'static str,
    without: Pair,
    with: Pair,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Pair {
    measured: f64,
    predicted: f64,
    /// Predicted over measured, less one.
    error: f64,
    /// Requests to the device, measured (none are counted of a file system in user space) and predicted.
    requests: (f64, u64),
}

impl Pair {
    fn is_near(self) -> bool {
        self.error.abs() <= TOLERANCE
    }
}

fn predict(cell: &Cell, ceiling: Option<ByteCount>) -> Result<Pair> {
    let (measured, requests) = match ceiling {
        None => (cell.without_summary.median, cell.requests.0),
        Some(_) => (cell.with_summary.median, cell.requests.1),
    };
    let (scenario, start) = scenario::of(cell, ceiling)?;
    let report = sim::run(&scenario);
    ensure!(report.broken.is_empty(), "{}: {:?}", cell.name(), report.broken);
    let predicted = report.readers_ended.since(start).as_secs_f64();
    Ok(Pair {
        measured,
        predicted,
        error: predicted / measured - 1.0,
        requests: (requests, report.requests),
    })
}

fn compare(cell: &Cell) -> Result<Compared> {
    Ok(Compared {
        device: cell.device.name(),
        reader: cell.reader.name(),
        without: predict(cell, None)?,
        with: predict(cell, Some(CEILING))?,
    })
}

/// Predicts every cell and compares.
///
/// # Errors
/// When the file cannot be read or understood. A prediction that is off is not an error unless `--check` was given.
pub fn run(args: &SimArgs) -> Result<ExitCode> {
    let text = match &args.cold {
        Some(path) => std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?,
        None => MEASURED.to_owned(),
    };
    let source = args
        .cold
        .as_ref()
        .map_or("tests/data/cold.json".into(), |path| path.display().to_string());
    let all = cell::parse(&text).with_context(|| format!("cells of {source}: is it what `cold --json` wrote?"))?;
    let devices: Vec<_> = args.device.iter().flat_map(|choice| choice.devices()).collect();
    let kinds: Vec<_> = args.reader.iter().flat_map(|readers| readers.0.clone()).collect();
    let cells = all
        .iter()
        .filter(|cell| devices.contains(&cell.device) && kinds.contains(&cell.reader));
    let compared = cells.map(compare).collect::<Result<Vec<_>>>()?;
    ensure!(
        !compared.is_empty(),
        "{source} has no cell of these devices and readers"
    );
    let missed = compared
        .iter()
        .filter(|cell| !(cell.without.is_near() && cell.with.is_near()))
        .count();
    Outcome {
        title: "sim",
        notes: vec![format!("Measured: {source}"), NOTE.into()],
        tables: vec![table(&compared)],
        figures: serde_json::to_value(&compared).context("figures as JSON")?,
        missed,
    }
    .publish(&args.common)
}

fn table(cells: &[Compared]) -> Table {
    let mut table = Table::new();
    table.set_header([
        "device",
        "reader",
        "without",
        "predicted",
        "error",
        "requests",
        "with",
        "predicted",
        "error",
        "requests",
        "verdict",
    ]);
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for cell in cells {
        let figures = |pair: Pair| {
            [
                format!("{:.3}", pair.measured),
                format!("{:.3}", pair.predicted),
                format!("{:+.1} %", 100.0 * pair.error),
                format!("{:.0} / {}", pair.requests.0, pair.requests.1),
            ]
        };
        let mut row = vec![cell.device.to_owned(), cell.reader.to_owned()];
        row.extend(figures(cell.without));
        row.extend(figures(cell.with));
        row.push(verdict(cell.without.is_near() && cell.with.is_near()).to_owned());
        table.add_row(row);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_that_was_measured_is_predicted_within_the_tolerance() {
        let cells = cell::parse(MEASURED).unwrap();
        let compared = cells.iter().map(|cell| (cell, compare(cell).unwrap()));
        let mut guarded = 0;
        let mut off = Vec::new();
        for (cell, compared) in compared {
            for pair in [compared.without, compared.with] {
                guarded += 1;
                if !pair.is_near() {
                    off.push(format!("{}: {pair:?}", cell.name()));
                }
            }
        }
        assert!(guarded >= 2 * 41, "{guarded} figures");
        assert!(off.is_empty(), "{off:#?}");
    }

    #[test]
    fn a_prediction_off_by_more_than_the_tolerance_is_a_miss() {
        let pair = |error| Pair {
            measured: 1.0,
            predicted: 1.0 + error,
            error,
            requests: (0.0, 0),
        };
        assert!(pair(0.149).is_near() && pair(-0.149).is_near());
        assert!(!pair(0.151).is_near() && !pair(-0.151).is_near());
    }
}
