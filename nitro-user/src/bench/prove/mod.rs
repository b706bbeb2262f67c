//! `nitro-agent prove`: the user's own command on the user's own files, with the agent and without.
//!
//! In: files, directories to watch, a command. Out: the times of pairs, what the disk itself can do, and a verdict. It reads, and evicts those files' pages; nothing is written.
//!
//! The first run of the command is not counted: it pays for what the command itself consists of, which later ones find in memory. Directly after it comes the one from memory.

pub mod command;
pub mod files;

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use self::{
    command::{OwnCommand, Ran},
    files::OwnFile,
};
use super::{
    agent::Agent,
    compare::CACHED,
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
    /// What the agent calls the models that these files are of: its receipts of others are none of theirs.
    pub names: HashSet<String>,
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
    /// The program that this is.
    pub program: String,
    /// Directories that the agent watched.
    pub watched: Vec<String>,
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
    /// A run with what the one before it had left in memory.
    pub cached: f64,
    /// Bytes of the files that were there before it.
    pub cached_bytes: u64,
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

/// What was measured.
#[derive(Debug, Default)]
struct Measured {
    without: Vec<Ran>,
    with: Vec<Ran>,
    /// Bytes of the files that each run without left in memory.
    resident: Vec<f64>,
    told: Vec<Told>,
    cached: f64,
    cached_bytes: u64,
    device_rate: Option<Rate>,
    /// Memory that there was for it.
    memory: u64,
}

/// What an agent said of a run.
#[derive(Debug, Default, PartialEq, Eq)]
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
    // Refused, if at all, before anything is run.
    files::evict(&claim.files)?;
    let progress = if claim.command.shows() {
        Progress::hidden()
    } else {
        Progress::new(60.0)
    };
    progress.step("what the disk can do");
    let mut measured = Measured {
        memory: room::memory_left().0,
        device_rate: device_rate(&claim.files),
        ..Measured::default()
    };
    progress.step("a run that is not counted");
    claim
        .command
        .run()
        .context("the run before the first, which is not counted")?;
    progress.step("from memory");
    measured.cached_bytes = files::resident(&claim.files)?;
    measured.cached = claim.command.run().context("the run from memory")?.seconds;
    for run in 0..claim.runs {
        // In alternating order, so that what changes over time does not fall on one side.
        for turn in 0..2 {
            let helped = (run + turn) % 2 == 1;
            let who = if helped { "with the agent" } else { "without" };
            progress.step(&format!("run {} of {}, {who}", run + 1, claim.runs));
            let context = || format!("run {} {who}", run + 1);
            if helped {
                let (ran, said) = with_agent(claim, &program).with_context(context)?;
                measured.with.push(ran);
                measured.told.push(said);
            } else {
                files::evict(&claim.files).with_context(context)?;
                measured.without.push(claim.command.run().with_context(context)?);
                measured.resident.push(files::resident(&claim.files)? as f64);
            }
            let done = (run * 2 + turn + 3) as f64;
            progress.expect((claim.runs as f64 * 2.0 + 2.0) / done);
        }
    }
    progress.finish();
    let mut proof = evaluate(claim, measured);
    proof.notes.extend(busy);
    Ok(proof)
}

fn with_agent(claim: &Claim, program: &Path) -> Result<(Ran, Told)> {
    let (first, others) = claim.watched.split_first().context("nothing to watch")?;
    let agent = others
        .iter()
        .fold(Agent::new(program, first), |agent, dir| agent.arg("--watch").arg(dir));
    // Ready before the files are made cold: it knows them, and nothing of them is in memory.
    let agent = agent.start(None)?;
    files::evict(&claim.files)?;
    let ran = claim.command.run()?;
    let stopped = agent.stop()?;
    stopped.served()?;
    Ok((ran, told(&stopped.lines, &claim.names)))
}

/// What the receipts of these models say.
fn told(lines: &[String], names: &HashSet<String>) -> Told {
    let mut told = Told::default();
    for line in lines {
        let Ok(line) = serde_json::from_str::<serde_json::Value>(line) else {
            continue;
        };
        let receipt = &line["receipt"];
        if !receipt["model"].as_str().is_some_and(|model| names.contains(model)) {
            continue;
        }
        let bytes = |field: &str| receipt[field].as_u64().unwrap_or(0);
        told.warmed += bytes("warmed_in_time") + bytes("warmed_late");
        let skipped = receipt["skipped"].as_array().into_iter().flatten();
        told.skipped
            .extend(skipped.filter_map(|reason| reason.as_str()).map(str::to_owned));
    }
    told
}

/// Bytes that a command reads: of what it leaves in memory and what it had read from disks the larger, and all there is where that does not fit into memory.
fn asked(bytes: u64, resident: u64, from_disks: u64, memory: u64) -> u64 {
    if bytes > memory {
        bytes
    } else {
        resident.max(from_disks)
    }
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

fn evaluate(claim: &Claim, measured: Measured) -> Proof {
    let bytes = claim.files.iter().map(|file| file.size).fold(0, u64::saturating_add);
    let seconds = |runs: &[Ran]| runs.iter().map(|ran| ran.seconds).collect::<Vec<_>>();
    let (without, with) = (seconds(&measured.without), seconds(&measured.with));
    let read = stats::median(&measured.resident).max(0.0);
    let from_disks = stats::median(&measured.without.iter().map(|ran| ran.read as f64).collect::<Vec<_>>());
    let asked = asked(bytes, read as u64, from_disks as u64, measured.memory);
    let from_memory = measured.cached_bytes as f64 >= CACHED * asked as f64;
    let limit = measured.device_rate.filter(|_| read > 0.0).map(|rate| read / rate.0);
    let times = Times {
        without: stats::median(&without),
        cached: from_memory.then_some(measured.cached),
        // Of a command that reads past the page cache, or something else, nothing is known.
        limit: limit.filter(|_| read >= READ * bytes as f64),
    };
    let words = Words {
        done: "to exit",
        device: "your disk",
    };
    let verdict = verdict::judge(&stats::paired_ratios(&without, &with), times, words);
    let warmed: Vec<f64> = measured.told.iter().map(|told| told.warmed as f64).collect();
    let warmed = stats::median(&warmed) as u64;
    let mut skipped: Vec<String> = measured.told.iter().flat_map(|told| told.skipped.clone()).collect();
    skipped.sort();
    skipped.dedup();
    let mut notes = Vec::new();
    if read < READ * bytes as f64 {
        notes.push(format!(
            "the command left {} of these files in memory: either it does not read them, or it reads past the page cache (O_DIRECT), where nothing can be warmed",
            ByteCount(read as u64)
        ));
    }
    if !from_memory {
        notes.push(format!(
            "what the command waits for is not known: before the run from memory {} of the {} that it reads were there",
            ByteCount(measured.cached_bytes),
            ByteCount(asked)
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
    if measured.device_rate.is_none() {
        notes.push("what the disk itself can do is not known: its file system takes no O_DIRECT".into());
    }
    if let Some(ran) = measured.without.iter().find(|ran| !ran.left.is_empty()) {
        notes.push(format!(
            "the command left processes behind, which were ended after each run: {}",
            ran.left.join(", ")
        ));
    }
    if let Some(user) = claim.command.user() {
        notes.push(format!("the command was run as {user}, who called sudo"));
    }
    if verdict.outcome == Outcome::TooFew {
        notes.push(format!("--runs {} or more gives a verdict", verdict::FEWEST));
    }
    let told = |path: &Path| path.to_string_lossy().into_owned();
    Proof {
        version: env!("CARGO_PKG_VERSION"),
        machine: report::machine(),
        command: claim.command.line(),
        program: told(claim.command.program()),
        watched: claim.watched.iter().map(|dir| told(dir)).collect(),
        files: claim.files.len(),
        bytes,
        read: read as u64,
        without_summary: stats::summary(&without),
        with_summary: stats::summary(&with),
        without,
        with,
        cached: measured.cached,
        cached_bytes: measured.cached_bytes,
        device_rate: measured.device_rate,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::verdict::Bound;

    /// A claim of one file of 1 GiB, and what may have been measured of it.
    fn measured() -> (tempfile::TempDir, Claim, Measured) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model");
        std::fs::File::create(&path).unwrap().set_len(1 << 30).unwrap();
        let claim = Claim {
            files: files::collect(&[path]).unwrap(),
            watched: vec![dir.path().to_owned()],
            names: HashSet::from(["model".to_owned()]),
            command: OwnCommand::new(&["true".into()], command::Output::Hidden).unwrap(),
            runs: 6,
        };
        let ran = |seconds| Ran {
            seconds,
            read: 1 << 30,
            left: Vec::new(),
        };
        let measured = Measured {
            without: vec![ran(10.0); 6],
            with: vec![ran(10.0); 6],
            resident: vec![(1u64 << 30) as f64; 6],
            told: Vec::new(),
            cached: 9.9,
            cached_bytes: 1 << 30,
            device_rate: Some(Rate(1e9)),
            memory: 8 << 30,
        };
        (dir, claim, measured)
    }

    #[test]
    fn that_a_command_hardly_waits_is_said_only_of_one_that_was_in_memory() {
        let judge = |change: fn(&mut Measured)| {
            let (_dir, claim, mut measured) = measured();
            change(&mut measured);
            evaluate(&claim, measured)
        };
        let all = judge(|_| {});
        assert_eq!(all.verdict.bound, Bound::Work, "{all:?}");
        assert!(!all.notes.iter().any(|note| note.contains("from memory")), "{all:?}");
        let unknown = |change: fn(&mut Measured)| {
            let proof = judge(change);
            assert_eq!(proof.verdict.bound, Bound::Unknown, "{proof:?}");
            assert!(!proof.verdict.sentence.contains("hardly"), "{proof:?}");
            proof.notes
        };
        let told = |notes: &[String]| notes.iter().any(|note| note.contains("before the run from memory"));
        // Larger than memory: a part of it stays, and is all that can.
        let notes = unknown(|measured| {
            measured.memory = 1 << 29;
            measured.cached_bytes = 1 << 29;
            measured.resident = vec![(1u64 << 29) as f64; 6];
            measured.without.iter_mut().for_each(|ran| ran.read = 0);
        });
        assert!(told(&notes), "{notes:?}");
        // It reads past the page cache.
        let notes = unknown(|measured| {
            measured.cached_bytes = 0;
            measured.resident = vec![0.0; 6];
        });
        assert!(told(&notes), "{notes:?}");
        // A quarter of it had left memory again.
        let notes = unknown(|measured| measured.cached_bytes = 3 << 28);
        assert!(told(&notes), "{notes:?}");
        // The disk could not be asked.
        unknown(|measured| measured.device_rate = None);
    }

    #[test]
    fn only_receipts_of_these_files_count() {
        let names = HashSet::from(["llama:8b".to_owned()]);
        let receipt = |model: &str, bytes: u64| {
            let receipt = serde_json::json!({ "model": model, "warmed_in_time": bytes, "warmed_late": 1, "skipped": ["resident"] });
            serde_json::json!({ "event": "receipt", "receipt": receipt }).to_string()
        };
        let lines = [receipt("llama:8b", 5), receipt("other", 100), "no JSON".to_owned()];
        let wanted = Told {
            warmed: 6,
            skipped: vec!["resident".into()],
        };
        assert_eq!(told(&lines, &names), wanted);
        assert_eq!(told(&lines[1..], &names), Told::default());
    }
}
