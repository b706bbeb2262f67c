//! Targets of the matrix, and its table.

use comfy_table::{CellAlignment, Table};

use super::{super::verdict, cell::CellResult, device::Device};
use crate::{readers::Kind, stats::Summary};

/// How to read the table.
pub const NOTE: &str = "Seconds are medians ± distance between the quartiles. limit: O_DIRECT at depth. over: with / max(limit, cached); what shards \
     work on the processor is part of cached. with/without: interval of the median of paired ratios by the sign test, 95 % from six pairs on and their whole range below. ~: stopped early and extrapolated.";

/// With the agent, a load that requests bind ends within this of the larger of limit and cached.
const FLOOR: f64 = 1.15;
/// The same for a reader whose hint forbids the kernel to read ahead.
const FLOOR_RANDOM: f64 = 1.3;
/// The same for readers in several places at once.
const FLOOR_SEVERAL: f64 = 1.2;
/// How much faster a map reader becomes there.
const SPEEDUP: f64 = 2.5;
/// How much faster a reader of a mapping becomes on a store far away.
const SPEEDUP_STORE: f64 = 5.0;
/// Nowhere slower: the interval's upper end.
const COST: f64 = 1.03;
/// Nowhere slower: any single pair.
const WORST: f64 = 1.10;

/// How far the measured limit may be from what was set before the figures are in doubt.
const LIMIT_TRUST: f64 = 0.03;

/// The targets that a cell missed, in words.
pub fn judge(cell: &CellResult) -> Vec<String> {
    let mut misses = Vec::new();
    if cell.device == Device::Gp1000 && cell.reader != Kind::Direct {
        let floor = match cell.reader {
            Kind::MapRandom => FLOOR_RANDOM,
            Kind::Cursors | Kind::Threads | Kind::Ranks => FLOOR_SEVERAL,
            _ => FLOOR,
        };
        if let Some(over) = cell.over_floor.filter(|&over| over > floor) {
            misses.push(format!("{over:.2} × the floor, to be {floor} ×"));
        }
        if matches!(cell.reader, Kind::Map | Kind::Populate | Kind::MapRandom) && cell.speedup < SPEEDUP {
            misses.push(format!("{:.2} × faster, to be {SPEEDUP} ×", cell.speedup));
        }
    }
    if cell.device == Device::Store && cell.reader == Kind::Map && cell.speedup < SPEEDUP_STORE {
        misses.push(format!("{:.2} × faster, to be {SPEEDUP_STORE} ×", cell.speedup));
    }
    if cell.cost.high > COST {
        misses.push(format!(
            "up to {:.3} × the time without, to be {COST} ×",
            cell.cost.high
        ));
    }
    if cell.worst_pair > WORST {
        misses.push(format!("worst pair {:.3} ×, to be {WORST} ×", cell.worst_pair));
    }
    misses
}

/// One line for the progress.
pub fn line(cell: &CellResult) -> String {
    let misses = if cell.misses.is_empty() {
        "ok".to_owned()
    } else {
        format!("MISS: {}", cell.misses.join("; "))
    };
    format!(
        "{} × {}: without {:.3} s, with {:.3} s, without/with {:.2}; {misses}",
        cell.device.name(),
        cell.reader.name(),
        cell.without_summary.median,
        cell.with_summary.median,
        cell.speedup
    )
}

/// One line for every cell that missed a target, and for every doubt about the rig itself.
pub fn misses(cells: &[CellResult]) -> Vec<String> {
    let name = |cell: &CellResult| format!("{} × {}", cell.device.name(), cell.reader.name());
    let missed = cells.iter().filter(|cell| !cell.misses.is_empty());
    let off = cells.iter().filter_map(|cell| {
        let (limit, nominal) = (cell.limit?, cell.device.limit().nominal_seconds(cell.bytes)?);
        let deviation = limit / nominal - 1.0;
        (deviation.abs() > LIMIT_TRUST).then(|| {
            format!("Limit of {}: {limit:.3} s measured, {nominal:.3} s nominal; loads this short run on the limit's first burst", name(cell))
        })
    });
    let warm = cells
        .iter()
        .filter(|cell| cell.device != Device::Cached && cell.resident_before > 0.01);
    missed
        .map(|cell| format!("MISS {}: {}", name(cell), cell.misses.join("; ")))
        .chain(off)
        .chain(warm.map(|cell| {
            format!(
                "Not cold {}: {:.1} % was in memory when a load began",
                name(cell),
                cell.resident_before * 100.0
            )
        }))
        .collect()
}

/// The matrix as a table.
pub fn table(cells: &[CellResult]) -> Table {
    let mut table = Table::new();
    table.set_header([
        "device",
        "reader",
        "limit s",
        "cached s",
        "without s",
        "with s",
        "over",
        "without/with",
        "with/without",
        "worst pair",
        "requests",
        "pairs",
        "verdict",
    ]);
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for cell in cells {
        table.add_row([
            cell.device.name().to_owned(),
            cell.reader.name().to_owned(),
            cell.limit.map_or_else(|| "–".into(), |limit| format!("{limit:.3}")),
            format!("{:.3}", cell.cached),
            seconds(cell.without_summary, cell.extrapolated.0),
            seconds(cell.with_summary, cell.extrapolated.1),
            cell.over_floor.map_or_else(|| "–".into(), |over| format!("{over:.2}")),
            format!("{:.2}", cell.speedup),
            format!("{:.3} [{:.3}, {:.3}]", cell.cost.middle, cell.cost.low, cell.cost.high),
            format!("{:.3}", cell.worst_pair),
            format!("{:.0} → {:.0}", cell.requests.0, cell.requests.1),
            cell.with.len().to_string(),
            verdict(cell.misses.is_empty()).to_owned(),
        ]);
    }
    table
}

fn seconds(summary: Summary, extrapolated: bool) -> String {
    format!(
        "{}{:.3} ± {:.3}",
        if extrapolated { "~" } else { "" },
        summary.median,
        summary.spread
    )
}
