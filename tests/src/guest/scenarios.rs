//! What is tried on the kernel of the machine: which mode the agent finds, what each mode sees of a map reader and of one that reads, and what others pay.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::line_of;
use crate::{
    agent::{Agent, AgentProcess},
    readers::{self, Kind, Reader},
    sys,
    tree::gguf,
};

/// The model: large beside all windows of readahead, small beside the memory of the machine.
const MODEL: u64 = 64 << 20;
/// A file that is not watched, which stays cached.
const OTHER: u64 = 1 << 20;
/// How long a receipt may take after its reader's end.
const RECEIPT: Duration = Duration::from_secs(20);
/// Reads of one batch, and batches of one figure.
const READS: u32 = 2000;
const BATCHES: usize = 15;

/// The program of the agent.
const AGENT: &str = "/bin/nitro-agent";

struct Bed {
    models: PathBuf,
    weights: PathBuf,
    other: PathBuf,
}

/// Runs all, and prints a line for each.
///
/// # Errors
/// When the disk cannot be prepared; a scenario's failure is in its line.
pub fn run(disk: &Path, auto: &str) -> Result<()> {
    let models = disk.join("models");
    let tree = gguf::single(&models, "model", 1, MODEL)?;
    let other = disk.join("other");
    fs::write(&other, vec![1; OTHER as usize]).context("write the other file")?;
    let weights = tree.files.first().context("the model has a file")?.clone();
    let bed = Bed { models, weights, other };
    nix::unistd::sync();

    say("auto", &chosen(&bed, auto));
    if auto != "page-cache" {
        say("page-cache is refused", &refused(&bed));
    }
    let mut modes = vec![auto, "syscalls", "fanotify"];
    modes.dedup();
    for mode in modes {
        for kind in [Kind::Map, Kind::Read] {
            say(&format!("{mode}: {}", kind.name()), &load(&bed, mode, kind));
        }
        say(&format!("{mode}: not watched"), &cost(&bed, mode));
    }
    Ok(())
}

fn say(name: &str, done: &Result<String>) {
    println!("{}", line_of(name, done));
}

fn start(bed: &Bed, mode: &str) -> Result<AgentProcess> {
    // The rig asks for one -v; with two its log says why a step was not warmed.
    Agent::new(Path::new(AGENT), &bed.models)
        .arg("--events")
        .arg(mode)
        .arg("-v")
        .start(None)
}

/// The mode that the agent finds by itself, and why.
fn chosen(bed: &Bed, auto: &str) -> Result<String> {
    let agent = start(bed, "auto")?;
    let status = agent.ask("status")?;
    let mode = status["mode"].as_str().unwrap_or_default();
    let why = status["mode_reason"].as_str().unwrap_or_default();
    ensure!(mode == auto, "{mode} instead of {auto}: {why}");
    Ok(format!("{mode} in {:.1} s: {why}", agent.time_to_ready().as_secs_f64()))
}

/// The page-cache mode of Linux 6.12 does not start, and says what it lacks.
fn refused(bed: &Bed) -> Result<String> {
    let Err(error) = start(bed, "page-cache") else {
        bail!("it started")
    };
    let words = format!("{error:#}");
    let reason = words
        .lines()
        .find(|line| line.contains("6.12"))
        .context(words.clone())?;
    Ok(reason.to_owned())
}

/// A cold load is seen, helped and accounted for.
fn load(bed: &Bed, mode: &str, kind: Kind) -> Result<String> {
    let agent = start(bed, mode)?;
    sys::drop_pages(&File::open(&bed.weights)?)?;
    let reader = Reader::new(&readers::program()?, kind, std::slice::from_ref(&bed.weights)).start(None)?;
    let pid = reader.pid().context("a reader has a number")?;
    let report = reader.wait()?;
    ensure!(report.bytes >= MODEL, "it read {} bytes", report.bytes);
    let receipt = receipt(&agent, pid)?;
    let number = |name: &str| {
        receipt[name]
            .as_u64()
            .with_context(|| format!("no {name} in {receipt}"))
    };
    let mut sum = 0;
    for part in [
        "resident_before",
        "kernel_readahead",
        "warmed_in_time",
        "warmed_late",
        "missed",
    ] {
        sum += number(part)?;
    }
    let demanded = number("demanded")?;
    ensure!(sum == demanded, "the parts are {sum} of {demanded}: {receipt}");
    let warmed = number("warmed_in_time")? + number("warmed_late")? + number("wasted")?;
    ensure!(
        warmed >= MODEL / 2,
        "it brought in {warmed}: {receipt} {}",
        log_of(&agent)
    );
    let (map, seen) = (kind == Kind::Map, demanded as f64 / MODEL as f64);
    // In syscalls mode most touches of what was warmed are not seen, in fanotify mode those since the last look, which is long ago where looking is emulated.
    let least = match mode {
        "syscalls" if map => 0.1,
        "fanotify" if map => 0.3,
        "fanotify" => 0.6,
        _ => 0.9,
    };
    ensure!(seen >= least, "only {:.0} % were seen: {receipt}", seen * 100.0);
    let counters = agent.ask("status")?["counters"].clone();
    ensure!(counters["dropped"] == 0, "events were dropped: {counters}");
    let mib = |bytes: u64| bytes >> 20;
    Ok(format!(
        "{:.2} s, {} MiB demanded, {} in time, {} late, {} wasted, {} by itself, {} missed",
        report.seconds,
        mib(demanded),
        mib(number("warmed_in_time")?),
        mib(number("warmed_late")?),
        mib(number("wasted")?),
        mib(number("kernel_readahead")?),
        mib(number("missed")?),
    ))
}

/// What the agent's log says of steps that were not warmed.
fn log_of(agent: &AgentProcess) -> String {
    let lines = agent.lines();
    let troubles = lines.iter().filter(|line| line.contains("not warmed"));
    troubles.take(2).cloned().collect::<Vec<_>>().join(" ")
}

fn receipt(agent: &AgentProcess, pid: u32) -> Result<Value> {
    let begun = Instant::now();
    while begun.elapsed() < RECEIPT {
        let lines = agent.lines();
        let objects = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut receipts = objects.map(|object| object["receipt"].clone());
        if let Some(found) = receipts.find(|receipt| receipt["pids"][0] == pid) {
            return Ok(found);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    bail!("no receipt of {pid}: {}", agent.lines().join(" "))
}

/// What a cached read of a file that is not watched costs, which is no load. The machine is emulated beside whatever else its host does, so that no bound is set.
fn cost(bed: &Bed, mode: &str) -> Result<String> {
    let file = File::open(&bed.other)?;
    let before = read_cost(&file)?;
    let agent = start(bed, mode)?;
    let with = read_cost(&file)?;
    let loads = agent.ask("status")?["loads"].clone();
    ensure!(
        loads.as_array().is_some_and(Vec::is_empty),
        "it was taken for a load: {loads}"
    );
    drop(agent);
    let without = before.min(read_cost(&file)?);
    Ok(format!(
        "a cached 4 KiB pread takes {without:.0} ns without, {with:.0} ns with the agent"
    ))
}

/// Nanoseconds of a read, by the best batch: the others share the host's processors.
fn read_cost(file: &File) -> Result<f64> {
    let mut buffer = [0; 4096];
    let mut best = f64::MAX;
    for _ in 0..BATCHES {
        let begun = Instant::now();
        for index in 0..READS {
            file.read_exact_at(&mut buffer, u64::from(index % 256) * 4096)?;
        }
        best = best.min(begun.elapsed().as_secs_f64() * 1e9 / f64::from(READS));
    }
    Ok(best)
}
