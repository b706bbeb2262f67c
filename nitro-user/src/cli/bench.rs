//! `nitro-agent bench`: what the agent does to cold loads on this machine, beside vmtouch and cat.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, ValueEnum};

use super::{
    ask::{Socket, print},
    report::ReportDir,
    running,
};
use crate::{
    bench::{
        page,
        plan::{Device, Help, Loader, Plan},
        report::Results,
        run::{self, Bench},
        sweep,
        verdict::FEWEST,
    },
    config::resolve_home,
    sys::memory,
    units::Size,
};

/// Where a test disk's image goes unless it is said: on a disk, as a rule.
const DIR: &str = "/var/tmp";

/// Names of the files below `--report DIR`.
const PAGE: &str = "nitro-agent-bench.html";
const FIGURES: &str = "nitro-agent-bench.json";

/// What the models are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Fill {
    /// Headers, and data that cannot be compressed.
    Random,
    /// Headers, and holes that take no room; for devices that the bench makes.
    Sparse,
}

/// Flags of `bench`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sudo nitro-agent bench
  sudo nitro-agent bench --dir /srv --size 4GiB
  sudo nitro-agent bench --device nvme,gp3,hdd,nas --fill sparse --report /tmp/bench
  sudo nitro-agent bench --dir /srv --reader mmap,llama.cpp --against vmtouch,cat

It makes models of its own, and removes them; no file of yours is read or written. Without --dir it builds a test disk in /var/tmp. An agent that runs is paused meanwhile.

Exit code: 0 when everything was measured, 1 when something was missing or went wrong, 130 after Ctrl-C.")]
pub struct Options {
    /// Directory on the disk to be measured; with a --device of its own, where that one's image goes. Without it, /var/tmp.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Bytes of each model; by default 2GiB, and less on slow devices: 512MiB on gp3, 256MiB on hdd and nas.
    #[arg(long, value_name = "SIZE")]
    size: Option<Size>,
    /// What to load from.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        value_name = "DEVICE",
        default_value = "as-is"
    )]
    device: Vec<Device>,
    /// Who loads, and how.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        value_name = "LOADER",
        default_value = "llama.cpp,ollama,safetensors"
    )]
    reader: Vec<Loader>,
    /// What else to compare with; the load without help is always measured.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "HELP", default_value = "none")]
    against: Vec<Help>,
    /// Loads with each help; fewer than 6 give a range and no verdict.
    #[arg(long, value_name = "N", default_value_t = FEWEST)]
    runs: usize,
    /// What the models are made of.
    #[arg(long, value_enum, default_value = "random")]
    fill: Fill,
    /// Also write a page with plots, nitro-agent-bench.html, and every figure, nitro-agent-bench.json, into this directory.
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    /// One JSON object with every figure instead of the table.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    socket: Socket,
}

/// Measures and prints.
///
/// # Errors
/// What is missing, or went wrong.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let done = measure(options);
    sweep::rest_if_interrupted();
    done
}

fn measure(options: &Options) -> anyhow::Result<()> {
    let mut bench = bench(options);
    let (missing, _prepared) = run::prepare(&mut bench)?;
    // Before minutes are spent on what could not be written.
    let report = options.report.as_deref().map(ReportDir::open).transpose()?;
    let paused = running::pause(&options.socket.socket)?;
    let mut notes = missing;
    if let Some(paused) = &paused {
        notes.push(format!(
            "the agent that runs here (process {}) is paused meanwhile",
            paused.pid
        ));
    }
    for note in &notes {
        sweep::say(note);
    }
    let mut results = run::run(&bench)?;
    drop(paused);
    // These were said at the start.
    let shown = results.notes.len();
    results.notes.extend(notes);
    let figures = serde_json::to_string(&results).context("the result as JSON")?;
    // Shown first: whatever becomes of the files, what took minutes is not lost.
    let page = report.as_ref().map(|_| page::page(&results)).transpose();
    if options.json {
        print(&figures)?;
    } else {
        results.notes.truncate(shown);
        show(&results)?;
    }
    if let Some(report) = report {
        report.write(FIGURES, &figures)?;
        report.write(PAGE, &page?.unwrap_or_default())?;
        if !options.json {
            print(&format!("Report: {}", report.at(PAGE).display()))?;
        }
    }
    Ok(())
}

fn bench(options: &Options) -> Bench {
    let mut loaders: Vec<Loader> = Vec::new();
    for loader in &options.reader {
        if !loaders.contains(loader) {
            loaders.push(*loader);
        }
    }
    let mut devices: Vec<Device> = Vec::new();
    for device in &options.device {
        if !devices.contains(device) {
            devices.push(*device);
        }
    }
    Bench {
        plan: Plan {
            devices,
            loaders,
            helps: options.against.clone(),
            size: options.size.map(|size| size.of(memory::total()).0),
            runs: options.runs,
        },
        dir: options.dir.as_deref().map_or_else(|| DIR.into(), resolve_home),
        given: options.dir.is_some(),
        hollow: options.fill == Fill::Sparse,
    }
}

fn show(results: &Results) -> anyhow::Result<()> {
    let said = results.sentences().into_iter();
    let notes = results.notes.iter().cloned();
    let lines = [results.machine.clone(), results.table()];
    for line in lines.into_iter().chain(said).chain([String::new()]).chain(notes) {
        if !print(&line)? {
            break;
        }
    }
    Ok(())
}
