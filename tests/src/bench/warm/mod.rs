//! What keeping models warm is worth, and what it costs whoever shares the memory: reloads after a neighbour, models larger than the memory, a neighbour's own pages, a hog.
//!
//! Everybody in a cell is in one control group, whose limits of memory and of the device the bench sets: so the pins are on the agent's own account, what one takes another lacks, and
//! the kernel looks for somebody to kill among them alone. With the agent and without are measured in turns, each from dropped caches on.

mod hog;
mod larger;
mod neighbour;
mod reload;
mod stage;

use std::{process::ExitCode, time::Duration};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use comfy_table::Table;
use indicatif::HumanDuration;
use nitro_user::units::{ByteCount, Size};
use serde_json::{Map, Value, json};

use self::stage::Stage;
pub use self::{
    hog::{HogArgs, hog},
    neighbour::{WorkerArgs, work},
};
use super::{Check, Common, Outcome, progress::Progress, table_of};
use crate::{readers::Kind, stats};

/// Options of `nitro-bench warm`.
#[derive(Clone, Debug, Args)]
pub struct WarmArgs {
    #[command(flatten)]
    common: Common,
    /// What all in a cell may take of memory together; the models' sizes follow from it.
    #[arg(long, default_value = "1GiB")]
    limit: Size,
    /// Pairs of every comparison.
    #[arg(long, default_value_t = stats::FEWEST)]
    pairs: usize,
    /// Cells; all by default.
    #[arg(long, value_delimiter = ',')]
    cell: Vec<Cell>,
    /// Readers of the reloads and of what is larger than the memory.
    #[arg(long, value_delimiter = ',', default_value = "map,read")]
    reader: Vec<Kind>,
    /// Only say how long it would take.
    #[arg(long)]
    dry_run: bool,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Cell {
    /// A model that is locked, after a neighbour has read twice the limit.
    ReloadPinned,
    /// A model that comes back when a neighbour's memory is free again.
    ReloadReturned,
    /// A model of twice the limit, read once.
    TwiceTheLimit,
    /// The same read twice, a part of it locked in between.
    TwoPasses,
    /// A neighbour that nearly fills the memory, beside an agent that holds all it may.
    Neighbour,
    /// Somebody who takes all there is.
    Hog,
}

impl Cell {
    /// Its name on the command line.
    fn name(self) -> String {
        self.to_possible_value()
            .map(|value| value.get_name().to_owned())
            .unwrap_or_default()
    }

    /// Seconds that it takes for each pair, at a limit of 1 GiB; measured.
    fn seconds(self, readers: usize) -> f64 {
        let readers = readers as f64;
        match self {
            Self::ReloadPinned => 12.0 * readers,
            Self::ReloadReturned => 14.0,
            Self::TwiceTheLimit => 22.0 * readers,
            Self::TwoPasses => 30.0 * readers,
            Self::Neighbour => 55.0,
            Self::Hog => 60.0,
        }
    }

    fn run(self, stage: &Stage, args: &WarmArgs, progress: &Progress) -> Result<Part> {
        let pairs = args.pairs.max(1);
        match self {
            Self::ReloadPinned => reload::pinned(stage, &args.reader, pairs, progress),
            Self::ReloadReturned => reload::returned(stage, pairs, progress),
            Self::TwiceTheLimit => larger::once(stage, &args.reader, pairs, progress),
            Self::TwoPasses => larger::twice(stage, &args.reader, pairs, progress),
            Self::Neighbour => neighbour::run(stage, pairs, progress),
            Self::Hog => hog::run(stage, pairs, progress),
        }
    }
}

/// A cell's result.
struct Part {
    checks: Vec<Check>,
    table: Table,
    figures: Value,
}

/// A table with a column of names, and numbers on the right.
fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.set_header(header);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(comfy_table::CellAlignment::Right);
    }
    table
}

/// The median of paired ratios, and its interval.
fn ratio(numerators: &[f64], denominators: &[f64]) -> (stats::Interval, String) {
    let interval = stats::median_interval(&stats::paired_ratios(numerators, denominators));
    let text = format!("{:.3} [{:.3}, {:.3}]", interval.middle, interval.low, interval.high);
    (interval, text)
}

/// A median with the distance between the quartiles, in seconds.
fn seconds(values: &[f64]) -> String {
    let stats::Summary { median, spread } = stats::summary(values);
    format!("{median:.3} ± {spread:.3}")
}

/// Bytes as a share of others.
fn percent(bytes: f64, of: u64) -> String {
    format!("{:.1} %", 100.0 * bytes / of.max(1) as f64)
}

/// Runs the cells.
///
/// # Errors
/// When the rig or the agent fails; a missed target is not an error unless `--check` was given.
pub fn run(args: &WarmArgs) -> Result<ExitCode> {
    let limit = args.limit.of(ByteCount(0)).0.max(256 << 20);
    let cells = if args.cell.is_empty() {
        Cell::value_variants().to_vec()
    } else {
        args.cell.clone()
    };
    let each: f64 = cells.iter().map(|cell| cell.seconds(args.reader.len())).sum();
    let estimate = 20.0 + each * args.pairs as f64 * limit as f64 / f64::from(1 << 30);
    eprintln!(
        "{} cells, about {}",
        cells.len(),
        HumanDuration(Duration::from_secs_f64(estimate))
    );
    if args.dry_run {
        return Ok(ExitCode::SUCCESS);
    }
    let agent = args.common.prepare()?;
    let progress = Progress::new(estimate);
    progress.say("writing models");
    let stage = Stage::new(&args.common.dir, agent, limit)?;
    let (mut checks, mut tables, mut figures) = (Vec::new(), Vec::new(), Map::new());
    for cell in cells {
        let part = cell.run(&stage, args, &progress).with_context(|| cell.name())?;
        for check in &part.checks {
            let verdict = super::verdict(check.ok);
            progress.say(&format!(
                "{verdict} {}: {} ({})",
                check.what, check.measured, check.target
            ));
        }
        checks.extend(part.checks);
        tables.push(part.table);
        figures.insert(cell.name(), part.figures);
    }
    progress.finish();
    tables.insert(0, table_of(&checks));
    Outcome {
        title: "warm",
        notes: vec![
            stage.note(),
            format!(
                "{} pairs, with the agent and without in turns; medians ± distance between the quartiles, ratios of pairs with the interval of their median by the sign test (95 % from six \
                 pairs on, their whole range below)",
                args.pairs
            ),
        ],
        missed: checks.iter().filter(|check| !check.ok).count(),
        figures: json!({ "checks": checks, "limit": limit, "cells": figures }),
        tables,
    }
    .publish(&args.common)
}
