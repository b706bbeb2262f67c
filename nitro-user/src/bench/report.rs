//! A bench's result for people: a table for the terminal and for the page, its notes, and what is said of it.

use std::fs;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::{
    compare::{Cell, Helped},
    limit::Limit,
    plan::{Help, Loader, Plan},
    stats::Interval,
    verdict::{FEWEST, times},
};
use crate::{sys::memory, units::ByteCount};

/// Columns of the table.
pub const COLUMNS: usize = 7;

/// The head of the table; of too few runs there is no interval, only the range of all that was measured.
pub const fn head(runs: usize) -> [&'static str; COLUMNS] {
    let last = if runs < FEWEST { "range" } else { "95 % interval" };
    [
        "device",
        "loader",
        "with",
        "seconds",
        "load alone",
        "times as fast",
        last,
    ]
}

/// Seconds of a load from which on the first slice of a limit does not matter.
const SHORT: f64 = 1.0;

/// Columns of words; the others are figures.
pub const WORDS: usize = 3;

/// A bench's result, as in JSON.
#[derive(Clone, Debug, Serialize)]
pub struct Results {
    /// Version of the agent.
    pub version: &'static str,
    /// The machine in one line.
    pub machine: String,
    /// What one must know to read the figures.
    pub notes: Vec<String>,
    /// What was asked for.
    pub plan: Plan,
    /// One loader on one device each.
    pub cells: Vec<Cell>,
}

impl Results {
    /// Rows of the table, without its head.
    pub fn rows(&self) -> Vec<[String; COLUMNS]> {
        self.cells.iter().flat_map(rows).collect()
    }

    /// The table.
    pub fn table(&self) -> String {
        let mut table = Table::new();
        table
            .load_preset(presets::UTF8_FULL_CONDENSED)
            .set_header(head(self.plan.runs));
        for column in table.column_iter_mut().skip(WORDS) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        for row in self.rows() {
            table.add_row(row);
        }
        table.to_string()
    }

    /// One sentence for each loader on each device.
    pub fn sentences(&self) -> Vec<String> {
        let sentence = |cell: &Cell| {
            format!(
                "{} × {}: {}",
                cell.device.name(),
                cell.loader.name(),
                cell.verdict.sentence
            )
        };
        self.cells.iter().map(sentence).collect()
    }
}

fn rows(cell: &Cell) -> Vec<[String; COLUMNS]> {
    let named = |with: &str, seconds: String| {
        let mut row = [const { String::new() }; COLUMNS];
        row[2] = with.into();
        row[3] = seconds;
        row
    };
    let mut rows: Vec<_> = cell.helped.iter().map(row).collect();
    let limit = cell.limit.map_or_else(|| "–".to_owned(), |limit| format!("{limit:.2}"));
    rows.push(named("(device's limit)", limit));
    let unsure = if cell.is_cached() { "" } else { "~" };
    rows.push(named("(from memory)", format!("{unsure}{:.2}", cell.cached)));
    if let Some(first) = rows.first_mut() {
        first[0] = cell.device.name().into();
        first[1] = cell.loader.name().into();
    }
    rows
}

/// An interval, or a range, in words.
pub fn interval(ratio: Interval) -> String {
    format!("{}–{}", times(ratio.low), times(ratio.high))
}

fn row(helped: &Helped) -> [String; COLUMNS] {
    let approximately = if helped.extrapolated { "~" } else { "" };
    let alone = helped
        .load_alone
        .map_or_else(String::new, |alone| format!("{:.2}", alone.median));
    let (faster, range) = helped
        .faster
        .map_or_else(Default::default, |faster| (times(faster.middle), interval(faster)));
    [
        String::new(),
        String::new(),
        helped.help.name().into(),
        format!(
            "{approximately}{:.2} ± {:.2}",
            helped.summary.median, helped.summary.spread
        ),
        alone,
        faster,
        range,
    ]
}

/// How to read the table, as far as it has what it takes.
pub fn notes(plan: &Plan) -> Vec<String> {
    let range = if plan.runs < FEWEST {
        format!("with the range of all of them: an interval takes {FEWEST} runs")
    } else {
        "with its 95 % interval, which is one of the sign test and asks nothing of the distribution".into()
    };
    let mut notes = vec![format!(
        "Seconds are medians of {} loads ± the distance between the quartiles, each of files that were cold. Times as fast: the median of the pairs of one round each, \
         {range}. (device's limit): O_DIRECT with several requests at once. (from memory): everything cached.",
        plan.runs
    )];
    if plan.helps.iter().any(|help| help.before().is_some()) {
        notes.push(
            "vmtouch and cat read everything before the load begins, and their time counts; \"load alone\" is what remains of the load after that. Whoever can run them long before \
             the load waits for that alone; whoever starts both together waits for the sum."
                .into(),
        );
    }
    if plan.loaders.contains(&Loader::Safetensors) {
        notes.push(
            "safetensors: eight shards; after each the processor works for as long as the device took to deliver it."
                .into(),
        );
    }
    if plan.loaders.contains(&Loader::Random) {
        notes.push("~: stopped after 20 s and extrapolated.".into());
    }
    notes
}

/// A doubt about loads that are over too soon: the kernel keeps a limit in slices of 100 ms, the first of which is free.
pub fn short(cells: &[Cell]) -> Option<String> {
    let is_short = |cell: &Cell| cell.device.limit() != Limit::NONE && cell.limit.is_some_and(|limit| limit < SHORT);
    let names: Vec<String> = cells
        .iter()
        .filter(|cell| is_short(cell))
        .map(|cell| format!("{} × {}", cell.device.name(), cell.loader.name()))
        .collect();
    (!names.is_empty()).then(|| {
        format!(
            "Loads of less than a second run in part on the first burst that a limit allows: choose a larger --size for {}.",
            names.join(", ")
        )
    })
}

/// A doubt about loads that were to be from memory, of files of which not everything was there.
pub fn uncached(cells: &[Cell]) -> Option<String> {
    let names: Vec<String> = cells
        .iter()
        .filter(|cell| !cell.is_cached())
        .map(|cell| {
            let here = cell.cached_share * 100.0;
            format!("{} × {} ({here:.0} %)", cell.device.name(), cell.loader.name())
        })
        .collect();
    (!names.is_empty()).then(|| {
        format!(
            "Not everything stayed in memory for the loads from there, and nothing is said of what they wait for: {}; choose a smaller --size.",
            names.join(", ")
        )
    })
}

/// Helps in the order in which they are shown.
pub fn in_order(helps: &mut Vec<Help>) {
    const ORDER: [Help; 4] = [Help::None, Help::Agent, Help::Vmtouch, Help::Cat];
    let asked = std::mem::take(helps);
    let always = |help: &Help| matches!(help, Help::None | Help::Agent) || asked.contains(help);
    helps.extend(ORDER.into_iter().filter(always));
}

/// A doubt about figures of a machine that has something else to do.
pub fn busy() -> Option<String> {
    let text = fs::read_to_string("/proc/loadavg").ok()?;
    let load: f64 = text.split(' ').next()?.parse().ok()?;
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (load > processors as f64).then(|| {
        format!("the machine was busy when it began (load average {load} on {processors} processors): figures differ more than on an idle one")
    })
}

/// The machine in one line; its load tells how much to trust the figures.
pub fn machine() -> String {
    let first = |path: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        text.lines().next().unwrap_or_default().to_owned()
    };
    // What follows the three averages is of that moment.
    let load = first("/proc/loadavg");
    let load: Vec<&str> = load.split(' ').take(3).collect();
    let processors = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    format!(
        "nitro-agent {}, Linux {}, {processors} processors, {} of memory, load average {}",
        env!("CARGO_PKG_VERSION"),
        first("/proc/sys/kernel/osrelease"),
        ByteCount(memory::total().0),
        load.join(" ")
    )
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::bench::{compare, plan::Device};

    /// Results as they may come out.
    pub fn results() -> Results {
        let mut helps = vec![Help::Vmtouch];
        in_order(&mut helps);
        let plan = Plan {
            devices: vec![Device::Gp3],
            loaders: vec![Loader::LlamaCpp],
            helps,
            size: None,
            runs: 6,
        };
        Results {
            version: "1",
            machine: machine(),
            notes: notes(&plan),
            cells: vec![compare::tests::cell()],
            plan,
        }
    }

    #[test]
    fn without_help_and_the_agent_are_always_measured() {
        assert_eq!(results().plan.helps, [Help::None, Help::Agent, Help::Vmtouch]);
        let mut helps = vec![Help::None];
        in_order(&mut helps);
        assert_eq!(helps, [Help::None, Help::Agent]);
    }

    #[test]
    fn the_table_has_the_limit_the_ratios_and_their_intervals() {
        let table = results().table();
        for wanted in [
            "gp3",
            "llama.cpp",
            "8.10 ± 0.15",
            "3.8",
            "3.7–3.9",
            "(device's limit)",
            "2.00",
            "0.10",
        ] {
            assert!(table.contains(wanted), "{wanted} is not in\n{table}");
        }
        assert!(table.lines().all(|line| line.chars().count() <= 100), "{table}");
        assert!(results().notes.iter().any(|note| note.contains("vmtouch")));
    }

    #[test]
    fn what_is_no_interval_is_not_called_one() {
        assert!(results().table().contains("95 % interval"));
        let mut results = results();
        results.plan.runs = 5;
        let table = results.table();
        assert!(table.contains("range") && !table.contains("interval"), "{table}");
        assert!(notes(&results.plan)[0].contains("takes 6 runs"));
    }

    #[test]
    fn what_was_not_all_in_memory_is_doubted() {
        let mut cell = compare::tests::cell();
        assert_eq!(uncached(std::slice::from_ref(&cell)), None);
        cell.cached_share = 0.5;
        assert!(uncached(&[cell]).unwrap().contains("gp3 × llama.cpp (50 %)"));
    }

    #[test]
    fn a_load_that_is_over_at_once_is_doubted() {
        let mut cell = compare::tests::cell();
        assert_eq!(short(std::slice::from_ref(&cell)), None);
        cell.limit = Some(0.3);
        assert!(short(&[cell.clone()]).unwrap().contains("gp3 × llama.cpp"));
        cell.device = Device::AsIs;
        assert_eq!(short(&[cell]), None);
    }

    #[test]
    fn json_has_every_figure() {
        let json = serde_json::to_value(results()).unwrap();
        assert_eq!(json["cells"][0]["helped"][1]["help"], "agent");
        assert_eq!(json["cells"][0]["helped"][1]["seconds"].as_array().unwrap().len(), 6);
        assert_eq!(json["cells"][0]["verdict"]["bound"], "requests");
        assert_eq!(json["plan"]["helps"], serde_json::json!(["none", "agent", "vmtouch"]));
    }
}
