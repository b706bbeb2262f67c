//! What the agent costs others: system calls with the agent, without it, and with its hooks returning at once.
//!
//! The three are taken in turn and compared within each round, so that the machine's own drift cancels. The agent with empty
//! hooks shows what attaching alone costs, which is the kernel's price and not ours.

use std::{
    fs::File,
    hint::black_box,
    os::unix::fs::FileExt,
    path::Path,
    process::{Command, ExitCode, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use serde::Serialize;
use serde_json::json;

use super::{Check, Common, Outcome};
use crate::{
    agent::Agent,
    disk::TestDisk,
    stats::{self, Interval},
    tree::series,
};

/// Bytes of the files that are read; 32 steps of 2 MiB.
const FILE: u64 = 64 << 20;
/// Batches of one figure, which is their median: an interrupt spoils a batch and not the figure.
const BATCHES: usize = 9;

/// Options of `nitro-bench cost`.
#[derive(Clone, Debug, Args)]
pub struct CostArgs {
    #[command(flatten)]
    common: Common,
    /// Rounds, each with the agent, without it, and with empty hooks.
    #[arg(long, default_value_t = 41)]
    rounds: usize,
}

/// What runs beside the measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    None,
    Empty,
    Full,
}

const MODES: [Mode; 3] = [Mode::None, Mode::Empty, Mode::Full];

/// Nanoseconds of one operation.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Sample {
    unwatched_pread: f64,
    watched_pread: f64,
    /// On a file system without watched directories.
    open_close: f64,
    /// In a directory beside the watched one.
    open_close_beside: f64,
    getppid: f64,
    fork_exec: f64,
}

type Field = fn(&Sample) -> f64;

/// Measures and compares.
///
/// # Errors
/// When the rig or the agent fails.
pub fn run(args: &CostArgs) -> Result<ExitCode> {
    let agent = args.common.prepare()?;
    let disk = TestDisk::new(&args.common.dir, 2 * FILE + (128 << 20))?;
    let watch = disk.path().join("watched");
    let watched = series::numbered(&watch, "watched", 1, 1, FILE)?.files;
    let unwatched = series::numbered(&disk.path().join("other"), "unwatched", 2, 1, FILE)?.files;
    let elsewhere = tempfile::NamedTempFile::new_in(&args.common.dir).context("make a file elsewhere")?;
    // Cached as a loader leaves it, and not as it was written.
    disk.drop_caches()?;
    let files = Files {
        watched: open_cached(&watched[0])?,
        unwatched: open_cached(&unwatched[0])?,
        beside: &unwatched[0],
        elsewhere: elsewhere.path(),
    };
    eprintln!("{} rounds, about {} s", args.rounds, args.rounds * 3);

    let mut samples: [Vec<Sample>; 3] = Default::default();
    let mut said = String::new();
    for round in 0..args.rounds.max(1) {
        for turn in 0..MODES.len() {
            let index = (round + turn) % MODES.len();
            let running = match MODES[index] {
                Mode::None => None,
                Mode::Empty => Some(Agent::new(&agent, &watch).env("NITRO_EMPTY_PROBES", "1").start(None)?),
                Mode::Full => Some(Agent::new(&agent, &watch).start(None)?),
            };
            let sample = std::thread::scope(|scope| scope.spawn(|| measure(&files)).join());
            samples[index].push(sample.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
            if let Some(running) = running {
                let stopped = running.stop()?;
                if MODES[index] == Mode::Full {
                    said = stopped
                        .lines
                        .into_iter()
                        .find(|line| line.contains("ready"))
                        .unwrap_or_default();
                }
            }
        }
        eprintln!("round {} of {}", round + 1, args.rounds);
    }

    let checks = evaluate(&samples);
    let medians: Vec<String> = MODES
        .iter()
        .zip(&samples)
        .map(|(mode, samples)| describe(*mode, samples))
        .collect();
    let notes = [
        vec![
            format!("the agent said: {said}"),
            "differences: median of the rounds and its 95 % interval (of the sign test)".into(),
        ],
        medians,
    ]
    .concat();
    let figures = json!({ "none": samples[0], "empty": samples[1], "full": samples[2] });
    Outcome::of_checks("cost", notes, &checks, figures).publish(&args.common)
}

struct Files<'a> {
    watched: File,
    unwatched: File,
    /// On the watched directory's file system.
    beside: &'a Path,
    /// On another one.
    elsewhere: &'a Path,
}

fn open_cached(path: &Path) -> Result<File> {
    let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    let mut buffer = vec![0; 1 << 20];
    for offset in (0..FILE).step_by(buffer.len()) {
        file.read_exact_at(&mut buffer, offset)
            .with_context(|| format!("read {}", path.display()))?;
    }
    Ok(file)
}

/// One figure of every kind, on one processor: a thread that moves between processors measures its caches.
fn measure(files: &Files) -> Result<Sample> {
    let mut processors = CpuSet::new();
    processors.set(0).context("choose processor 0")?;
    sched_setaffinity(Pid::from_raw(0), &processors).context("stay on one processor")?;
    let mut page = [0; 4096];
    let mut pread = |file: &File, pages: u64| {
        per_operation(FILE / 4096, || {
            (0..FILE / 4096).try_for_each(|index| {
                file.read_exact_at(&mut page, index % pages * 4096)
                    .context("read a page")
            })
        })
    };
    let unwatched_pread = pread(&files.unwatched, 256)?;
    // In order through the whole file: all but one access of each 2 MiB step coalesce.
    let watched_pread = pread(&files.watched, FILE / 4096)?;
    let open_close = |path: &Path| {
        per_operation(2000, || {
            (0..2000).try_for_each(|_| File::open(path).map(drop).context("open"))
        })
    };
    let (open_close, open_close_beside) = (open_close(files.elsewhere)?, open_close(files.beside)?);
    let getppid = per_operation(50_000, || {
        for _ in 0..50_000 {
            black_box(std::os::unix::process::parent_id());
        }
        Ok(())
    })?;
    let fork_exec = per_operation(20, || {
        (0..20).try_for_each(|_| {
            let status = Command::new("/bin/true")
                .stdin(Stdio::null())
                .status()
                .context("run /bin/true")?;
            ensure!(status.success(), "/bin/true: {status}");
            Ok(())
        })
    })?;
    Ok(Sample {
        unwatched_pread,
        watched_pread,
        open_close,
        open_close_beside,
        getppid,
        fork_exec,
    })
}

/// Nanoseconds of one operation: median of some batches, each of `count` operations.
fn per_operation(count: u64, mut batch: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut times = Vec::with_capacity(BATCHES);
    for _ in 0..BATCHES {
        let start = Instant::now();
        batch()?;
        times.push(start.elapsed().as_nanos() as f64 / count as f64);
    }
    Ok(stats::median(&times))
}

fn describe(mode: Mode, samples: &[Sample]) -> String {
    let median = |field: Field| stats::median(&samples.iter().map(field).collect::<Vec<_>>());
    let name = match mode {
        Mode::None => "without agent",
        Mode::Empty => "empty hooks",
        Mode::Full => "with agent",
    };
    format!(
        "{name}: unwatched pread {:.0} ns, watched pread {:.0} ns, open+close {:.0} ns, beside a watched directory {:.0} ns, getppid {:.0} ns, fork+exec+exit {:.0} µs",
        median(|sample| sample.unwatched_pread),
        median(|sample| sample.watched_pread),
        median(|sample| sample.open_close),
        median(|sample| sample.open_close_beside),
        median(|sample| sample.getppid),
        median(|sample| sample.fork_exec) / 1e3
    )
}

fn evaluate([none, empty, full]: &[Vec<Sample>; 3]) -> Vec<Check> {
    let differences = |more: &[Sample], less: &[Sample], field: Field| -> Interval {
        let differences: Vec<f64> = more
            .iter()
            .zip(less)
            .map(|(more, less)| field(more) - field(less))
            .collect();
        stats::median_interval(&differences)
    };
    let at_most = |what: &str, interval: Interval, target: f64| {
        Check::new(
            what,
            nanoseconds(interval),
            format!("≤ +{target} ns"),
            interval.middle <= target,
        )
    };
    // "No change" of a noisy figure: the interval reaches down to none, or the middle is below one percent.
    let unchanged = |what: &str, field: Field| {
        let interval = differences(full, none, field);
        let base = stats::median(&none.iter().map(field).collect::<Vec<_>>());
        let ok = interval.low <= 0.0 || interval.middle < base * 0.01;
        Check::new(what, nanoseconds(interval), "+0 ns", ok)
    };
    let ratios: Vec<f64> = full
        .iter()
        .zip(none)
        .map(|(full, none)| full.fork_exec / none.fork_exec)
        .collect();
    let fork = stats::median_interval(&ratios);
    let percent = |ratio: f64| (ratio - 1.0) * 100.0;
    vec![
        at_most(
            "unwatched pread over empty hooks",
            differences(full, empty, |sample| sample.unwatched_pread),
            8.0,
        ),
        at_most(
            "unwatched pread over no agent",
            differences(full, none, |sample| sample.unwatched_pread),
            60.0,
        ),
        at_most(
            "watched, coalesced pread over no agent",
            differences(full, none, |sample| sample.watched_pread),
            150.0,
        ),
        unchanged("open+close over no agent", |sample| sample.open_close),
        // Any inotify watch makes every open and close on its file system ask whether it is meant.
        at_most(
            "open+close beside a watched directory over no agent",
            differences(full, none, |sample| sample.open_close_beside),
            60.0,
        ),
        unchanged("getppid", |sample| sample.getppid),
        Check::new(
            "fork+exec+exit",
            format!(
                "{:+.1} % [{:+.1}, {:+.1}]",
                percent(fork.middle),
                percent(fork.low),
                percent(fork.high)
            ),
            "≤ +2 %",
            fork.middle <= 1.02,
        ),
    ]
}

fn nanoseconds(interval: Interval) -> String {
    format!(
        "{:+.1} ns [{:+.1}, {:+.1}]",
        interval.middle, interval.low, interval.high
    )
}
