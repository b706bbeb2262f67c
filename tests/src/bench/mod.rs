//! What `nitro-bench` runs, one bench per module, and what the benches share: their options and how a result is published.

pub mod cold;
mod companion;
pub mod cost;
pub mod day;
pub mod idle;
pub mod latency;
pub mod neighbours;
pub mod predict;
mod progress;
pub mod sim;
pub mod storm;
pub mod trace;
pub mod warm;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result};
use clap::Args;
use comfy_table::{Table, presets};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{agent, report, sweep};

/// Options of every bench.
#[derive(Clone, Debug, Args)]
pub struct Common {
    /// The agent; without it the one beside this program, or the one that NITRO_AGENT names.
    #[arg(long)]
    pub agent: Option<PathBuf>,
    /// Where the disk's image goes: a file system with direct I/O and room.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    pub dir: PathBuf,
    /// Also write the result as Markdown.
    #[arg(long)]
    pub report: Option<PathBuf>,
    /// Also write every figure as JSON.
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// Fail when a target is missed.
    #[arg(long)]
    pub check: bool,
}

impl Common {
    /// Cleans up after dead runs and finds the agent.
    fn prepare(&self) -> Result<PathBuf> {
        anyhow::ensure!(
            nix::unistd::geteuid().is_root(),
            "benches need root: loop devices, mounts, control groups"
        );
        sweep::prepare(&self.dir)?;
        match &self.agent {
            Some(path) => path
                .canonicalize()
                .with_context(|| format!("the agent {}", path.display())),
            None => agent::default_binary(),
        }
    }
}

/// One target and what was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// What was measured.
    pub what: String,
    /// The figure, with its unit.
    pub measured: String,
    /// What it was to be.
    pub target: String,
    /// Whether it was.
    pub ok: bool,
}

impl Check {
    fn new(what: impl Into<String>, measured: impl Into<String>, target: impl Into<String>, ok: bool) -> Self {
        Self {
            what: what.into(),
            measured: measured.into(),
            target: target.into(),
            ok,
        }
    }
}

/// A bench's result.
struct Outcome {
    title: &'static str,
    /// What one must know to read the tables.
    notes: Vec<String>,
    tables: Vec<Table>,
    /// Every figure.
    figures: Value,
    missed: usize,
}

impl Outcome {
    /// As Markdown.
    fn markdown(&mut self) -> String {
        let tables = self
            .tables
            .iter_mut()
            .map(|table| table.load_preset(presets::ASCII_MARKDOWN).to_string());
        let tables = tables.collect::<Vec<_>>().join("\n\n");
        format!("## {}\n\n{}\n\n{tables}\n", self.title, self.notes.join("  \n"))
    }

    fn of_checks(title: &'static str, notes: Vec<String>, checks: &[Check], figures: Value) -> Self {
        let table = table_of(checks);
        let missed = checks.iter().filter(|check| !check.ok).count();
        Self {
            title,
            notes,
            tables: vec![table],
            figures: json!({ "checks": checks, "figures": figures }),
            missed,
        }
    }

    /// Prints the result, writes the files asked for, and says how the program ends.
    fn publish(mut self, common: &Common) -> Result<ExitCode> {
        self.notes.insert(0, report::machine());
        for note in &self.notes {
            println!("{note}");
        }
        for table in &mut self.tables {
            println!("{}", table.load_preset(presets::UTF8_FULL_CONDENSED));
        }
        if let Some(path) = &common.report {
            write(path, &self.markdown())?;
        }
        if let Some(path) = &common.json {
            let value =
                json!({ "bench": self.title, "notes": self.notes, "missed": self.missed, "result": self.figures });
            write(path, &serde_json::to_string_pretty(&value).context("result as JSON")?)?;
        }
        if self.missed > 0 {
            eprintln!("{} of the targets missed", self.missed);
        }
        Ok(if common.check && self.missed > 0 {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        })
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

fn table_of(checks: &[Check]) -> Table {
    let mut table = Table::new();
    table.set_header(["", "measured", "target", "verdict"]);
    for check in checks {
        table.add_row([check.what.as_str(), &check.measured, &check.target, verdict(check.ok)]);
    }
    table
}

/// Figures without and with the agent, in alternating order, so that what changes over time does not fall on one side. Told the number of the pair, and which side it is.
fn in_turns<T>(pairs: usize, mut measure: impl FnMut(usize, bool) -> Result<T>) -> Result<Vec<(T, T)>> {
    (0..pairs)
        .map(|pair| {
            if pair % 2 == 0 {
                let without = measure(pair, false)?;
                Ok((without, measure(pair, true)?))
            } else {
                let with = measure(pair, true)?;
                Ok((measure(pair, false)?, with))
            }
        })
        .collect()
}

const fn verdict(ok: bool) -> &'static str {
    if ok { "ok" } else { "MISS" }
}

/// All objects in `value`, however deep, that have the field.
fn objects_with<'a>(value: &'a Value, field: &str) -> Vec<&'a Value> {
    let mut found = Vec::new();
    let mut open = vec![value];
    while let Some(value) = open.pop() {
        match value {
            Value::Object(fields) => {
                if fields.contains_key(field) {
                    found.push(value);
                }
                open.extend(fields.values());
            }
            Value::Array(elements) => open.extend(elements),
            _ => {}
        }
    }
    found
}
