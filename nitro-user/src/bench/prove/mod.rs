//! `nitro-agent prove`: the user's own command on the user's own files, with the agent and without.
//!
//! In: files, directories to watch, a command. Out: the times of pairs, what the disk itself can do, and a verdict. It reads, and evicts those files' pages; nothing is written.

pub mod command;
pub mod files;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use self::{command::OwnCommand, files::OwnFile};
use super::{
    agent::{Agent, Stopped},
    progress::Progress,
    readers::{self, Kind, ReaderArgs},
    report, room,
    stats::{self, Summary},
    verdict::{self, Outcome, Times, Verdict, Words},
};
use crate::units::{ByteCount, Rate};

/// How long the disk is asked what it can do.
const LONGEST_MS: u64 = 10_000;
/// Requests at once, and bytes of each, with which it is asked.
const DEPTH: usize = 8;
/// Of so many files: the largest.
const MOST_ASKED: usize = 64;
const REQUEST: usize = 1 << 20;
/// A command that leaves less than this share of the files in memory did not read them there.
const READ: f64 = 0.01;

/// What is to be proved.
#[derive(Debug)]
pub struct Claim {
    /// The files, the largest first.
    pub files: Vec<OwnFile>,
    /// Directories that the agent watches.
    pub watched: Vec<PathBuf>,
    /// What loads them.
    pub command: OwnCommand,
    /// Pairs.
    pub runs: usize,
}

/// What came of it. Times in seconds.
#[derive(Clone, Debug, Serialize)]
pub struct Proof {
    /// Version of the agent.
    pub version: &'static str,
    /// The machine in one line.
    pub machine: String,
    /// The command as one line.
    pub command: String,
    /// How many files, and their bytes.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of them that the command brought into memory.
    pub read: u64,
    /// Each run without, with the agent.
    pub without: Vec<f64>,
    /// Each run with the agent.
    pub with: Vec<f64>,
    /// Their middles and spreads.
    pub without_summary: Summary,
    /// The same with the agent.
    pub with_summary: Summary,
    /// A run with everything in memory.
    pub cached: f64,
    /// Bytes a second that the disk delivers by `O_DIRECT` with several requests at once; `None` where it cannot be asked so.
    pub device_rate: Option<Rate>,
    /// Seconds in which the disk itself delivers what the command read.
    pub limit: Option<f64>,
    /// Bytes that the agent brought in, the middle of its runs.
    pub warmed: u64,
    /// Why it left loads alone, as in receipts.
    pub skipped: Vec<String>,
    /// What is said of it.
    pub verdict: Verdict,
    /// What one must know to read the figures.
    pub notes: Vec<String>,
}

/// What an agent said of a run.
#[derive(Debug, Default)]
struct Told {
    warmed: u64,
    skipped: Vec<String>,
}

/// Runs the pairs.
///
/// # Errors
/// The files cannot be made cold; the command fails; the agent cannot be started.
pub fn run(claim: &Claim) -> Result<Proof> {
    let program = room::this_program()?;
    let busy = report::busy();
    let bytes: u64 = claim.files.iter().map(|file| file.size).sum();
    // Refused, if at all, before anything is run.
    files::evict(&claim.files)?;
    let progress = if claim.command.shows() {
        Progress::hidden()
    } else {
        Progress::new(60.0)
    };
    progress.step("what the disk can do");
    let device_rate = device_rate(&claim.files);
    let (mut without, mut with, mut read, mut told) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for run in 0..claim.runs {
        // In alternating order, so that what changes over time does not fall on one side.
        for turn in 0..2 {
            let helped = (run + turn) % 2 == 1;
            let who = if helped { "with the agent" } else { "without" };
            progress.step(&format!("run {} of {}, {who}", run + 1, claim.runs));
            let context = || format!("run {} {who}", run + 1);
            if helped {
                let (seconds, said) = with_agent(claim, &program).with_context(context)?;
                with.push(seconds);
                told.push(said);
            } else {
                files::evict(&claim.files).with_context(context)?;
                without.push(claim.command.run().with_context(context)?);
                read.push(files::resident(&claim.files)? as f64);
            }
            let done = (run * 2 + turn + 1) as f64;
            progress.expect((claim.runs as f64 * 2.0 + 1.0) / done);
        }
    }
    progress.step("from memory");
    // What a run with the agent left in memory is all that the command reads.
    let cached = claim.command.run().context("the run from memory")?;
    progress.finish();
    let mut proof = evaluate(claim, bytes, (without, with, cached), &read, device_rate, &told);
    proof.notes.extend(busy);
    Ok(proof)
}

fn with_agent(claim: &Claim, program: &Path) -> Result<(f64, Told)> {
    let (first, others) = claim.watched.split_first().context("nothing to watch")?;
    let agent = others
        .iter()
        .fold(Agent::new(program, first), |agent, dir| agent.arg("--watch").arg(dir));
    // Ready before the files are made cold: it knows them, and nothing of them is in memory.
    let agent = agent.start(None)?;
    files::evict(&claim.files)?;
    let seconds = claim.command.run()?;
    Ok((seconds, told(&agent.stop()?)))
}

/// What the receipts say.
fn told(stopped: &Stopped) -> Told {
    let mut told = Told::default();
    for line in &stopped.lines {
        let Ok(line) = serde_json::from_str::<serde_json::Value>(line) else {
            continue;
        };
        let receipt = &line["receipt"];
        let bytes = |field: &str| receipt[field].as_u64().unwrap_or(0);
        told.warmed += bytes("warmed_in_time") + bytes("warmed_late");
        let skipped = receipt["skipped"].as_array().into_iter().flatten();
        told.skipped
            .extend(skipped.filter_map(|reason| reason.as_str()).map(str::to_owned));
    }
    told
}

/// Bytes a second by direct reads of the files, the largest first.
fn device_rate(files: &[OwnFile]) -> Option<Rate> {
    let paths = files
        .iter()
        .filter(|file| file.size > 0)
        .take(MOST_ASKED)
        .map(|file| file.path.clone());
    let report = readers::run(&ReaderArgs {
        kind: Kind::Direct,
        paths: paths.collect(),
        cpu_ms: 0.0,
        order_seed: 0,
        cap_ms: Some(LONGEST_MS),
        depth: DEPTH,
        request: REQUEST,
    });
    let report = report.ok()?;
    (report.seconds > 0.0 && report.bytes > 0).then(|| Rate(report.bytes as f64 / report.seconds))
}

fn evaluate(
    claim: &Claim,
    bytes: u64,
    (without, with, cached): (Vec<f64>, Vec<f64>, f64),
    read: &[f64],
    device_rate: Option<Rate>,
    told: &[Told],
) -> Proof {
    let read = stats::median(read).max(0.0);
    let limit = device_rate.filter(|_| read > 0.0).map(|rate| read / rate.0);
    let times = Times {
        without: stats::median(&without),
        cached,
        // Of a command that reads past the page cache, or something else, nothing is known.
        limit: limit.filter(|_| read >= READ * bytes as f64),
    };
    let words = Words {
        done: "to exit",
        device: "your disk",
    };
    let verdict = verdict::judge(&stats::paired_ratios(&without, &with), times, words);
    let warmed = stats::median(&told.iter().map(|told| told.warmed as f64).collect::<Vec<_>>()) as u64;
    let mut skipped: Vec<String> = told.iter().flat_map(|told| told.skipped.clone()).collect();
    skipped.sort();
    skipped.dedup();
    let mut notes = Vec::new();
    if read < READ * bytes as f64 {
        notes.push(format!(
            "the command left {} of these files in memory: either it does not read them, or it reads past the page cache (O_DIRECT), where nothing can be warmed",
            ByteCount(read as u64)
        ));
    }
    if warmed == 0 {
        let why = if skipped.is_empty() {
            "it saw no load of these files".to_owned()
        } else {
            skipped.join(", ")
        };
        notes.push(format!("the agent brought nothing in: {why}"));
    }
    if device_rate.is_none() {
        notes.push("what the disk itself can do is not known: its file system takes no O_DIRECT".into());
    }
    if let Some(user) = claim.command.user() {
        notes.push(format!("the command was run as {user}, who called sudo"));
    }
    if verdict.outcome == Outcome::TooFew {
        notes.push(format!("--runs {} or more gives a verdict", verdict::FEWEST));
    }
    Proof {
        version: env!("CARGO_PKG_VERSION"),
        machine: report::machine(),
        command: claim.command.line(),
        files: claim.files.len(),
        bytes,
        read: read as u64,
        without_summary: stats::summary(&without),
        with_summary: stats::summary(&with),
        without,
        with,
        cached,
        device_rate,
        limit,
        warmed,
        skipped,
        verdict,
        notes,
    }
}

/// Says at once what cannot be proved.
///
/// # Errors
/// Not root; no run.
pub fn check(runs: usize) -> Result<()> {
    room::needs_root("prove")?;
    ensure!(
        runs > 0,
        "--runs must be 1 at least, and {} for a verdict",
        verdict::FEWEST
    );
    Ok(())
}
