//! What recording costs those who read, and how long a large trace takes to be shown and drawn.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use nitro_user::{
    engine::{Access, AccessKind, Input},
    trace::{Header, Record, TraceWriter, VERSION},
    units::{ByteCount, ByteRange, FileId, Moment, STEP, Size},
};
use nix::sys::{
    resource::{UsageWho, getrusage},
    signal::{Signal, kill},
};
use serde_json::json;

use super::{Check, Common, Outcome};
use crate::{
    agent::{Agent, AgentProcess},
    readers::{self, Kind, Reader},
    scratch::ScratchDir,
    stats,
    tree::gguf,
};

/// Loads of one figure, one after the other: a single one takes a tenth of a second.
const LOADS: usize = 5;

/// How long a recording may take to begin, and to end.
const DEADLINE: Duration = Duration::from_secs(20);

/// Options of `nitro-bench trace`.
#[derive(Clone, Debug, Args)]
pub struct TraceArgs {
    #[command(flatten)]
    common: Common,
    /// Events of the large trace.
    #[arg(long, default_value_t = 10_000_000)]
    events: u64,
    /// Bytes of the model that is read from memory.
    #[arg(long, default_value = "2GiB")]
    size: Size,
    /// Pairs of loads without and with a recording.
    #[arg(long, default_value_t = 15)]
    pairs: usize,
}

/// Runs both parts.
///
/// # Errors
/// When the rig or the agent fails.
pub fn run(args: &TraceArgs) -> Result<ExitCode> {
    let agent = args.common.prepare()?;
    let scratch = ScratchDir::new(&args.common.dir)?;
    let mut checks = Vec::new();
    let large = large(args, &agent, scratch.path(), &mut checks)?;
    let cost = cost(args, &agent, scratch.path(), &mut checks)?;
    let notes = vec![format!(
        "a model of {} from memory by 1 MiB read(), {} pairs of {LOADS} loads, the agent running in both; a trace of {} events by 16 processes in 8 files",
        args.size.of(ByteCount(0)),
        args.pairs,
        args.events
    )];
    Outcome::of_checks("trace", notes, &checks, json!({ "large": large, "cost": cost })).publish(&args.common)
}

/// A trace of many events is shown and drawn.
fn large(args: &TraceArgs, agent: &Path, place: &Path, checks: &mut Vec<Check>) -> Result<serde_json::Value> {
    let path = place.join("large.trace");
    eprintln!("writing a trace of {} events", args.events);
    write_large(&path, args.events)?;
    let bytes = path.metadata().context("the large trace")?.len();
    let mut figures = vec![("bytes", json!(bytes))];
    let picture = place.join("large.svg");
    for (what, words) in [
        ("show", vec!["trace", "show"]),
        (
            "plot",
            vec!["trace", "plot", "--out", picture.to_str().context("a path in UTF-8")?],
        ),
    ] {
        let begun = Instant::now();
        let status = Command::new(agent)
            .args(&words)
            .arg(&path)
            .stdout(Stdio::null())
            .status()
            .with_context(|| format!("run nitro-agent trace {what}"))?;
        ensure!(status.success(), "nitro-agent trace {what} failed");
        let seconds = begun.elapsed().as_secs_f64();
        // The largest of all children so far.
        let usage = getrusage(UsageWho::RUSAGE_CHILDREN).context("ask for the memory of children")?;
        let memory = ByteCount(u64::try_from(usage.max_rss()).unwrap_or(0) * 1024);
        checks.push(Check::new(
            format!("{what} {} events ({})", args.events, ByteCount(bytes)),
            format!("{seconds:.1} s, {memory}"),
            "≤ 10 s, ≤ 500 MB",
            seconds <= 10.0 && memory.0 <= 500_000_000,
        ));
        figures.push((what, json!({ "seconds": seconds, "memory": memory })));
    }
    Ok(figures
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect())
}

fn write_large(path: &Path, events: u64) -> Result<()> {
    let header = Header {
        format: VERSION,
        agent: env!("CARGO_PKG_VERSION").into(),
        kernel: "none".into(),
        mode: "page-cache".into(),
        ..Header::default()
    };
    let mut writer = TraceWriter::create(path, &header)?;
    let mut random = fastrand::Rng::with_seed(1);
    for number in 0..events {
        let process = u32::try_from(number % 16).unwrap_or(0) + 100;
        let file = FileId {
            device: 8 << 20,
            inode: u64::from(process % 8) + 1,
        };
        let at = Moment(number * 10_000);
        // Half of them walk, half jump.
        let step = if process % 2 == 0 {
            number / 16 % 50_000
        } else {
            random.u64(0..50_000)
        };
        let range = ByteRange::new(step * STEP, 128 << 10);
        let record = if number % 5 == 4 {
            Record::Brought {
                at,
                process,
                thread: process,
                file,
                range,
            }
        } else {
            let input = Input::Access(Access {
                at,
                process,
                thread: process,
                file,
                generation: 1,
                range,
                kind: AccessKind::Read,
                jump: process % 2 == 1,
                in_order: false,
                written: false,
            });
            Record::Input { at, input }
        };
        writer.record(&record)?;
    }
    writer.finish()?;
    Ok(())
}

/// What a cached sequential read takes longer while it is recorded.
fn cost(args: &TraceArgs, agent: &Path, place: &Path, checks: &mut Vec<Check>) -> Result<serde_json::Value> {
    let program = readers::program()?;
    let models = place.join("models");
    eprintln!("writing a model of {}", args.size.of(ByteCount(0)));
    let tree = gguf::single(&models, "model", 1, args.size.of(ByteCount(0)).0.max(64 << 20))?;
    let running = Agent::new(agent, &models).start(None)?;
    let load = || -> Result<f64> {
        let mut seconds = 0.0;
        for _ in 0..LOADS {
            seconds += Reader::new(&program, Kind::Read, &tree.files).run(None)?.seconds;
        }
        Ok(seconds)
    };
    // Brings it in, and into the processor's way of doing things.
    load()?;
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for pair in 0..args.pairs {
        let recorded = || -> Result<f64> {
            let recording = Recording::start(agent, &running, place.join(format!("{pair}.trace")))?;
            let seconds = load()?;
            recording.end()?;
            Ok(seconds)
        };
        if pair % 2 == 0 {
            without.push(load()?);
            with.push(recorded()?);
        } else {
            with.push(recorded()?);
            without.push(load()?);
        }
        eprintln!("pair {} of {}", pair + 1, args.pairs);
    }
    running.stop()?;
    let ratios = stats::paired_ratios(&with, &without);
    let interval = stats::median_interval(&ratios);
    checks.push(Check::new(
        "a cached sequential read while it is recorded, with / without",
        format!(
            "{:.3} [{:.3}, {:.3}]",
            stats::median(&ratios),
            interval.low,
            interval.high
        ),
        "≤ 1.02",
        stats::median(&ratios) <= 1.02,
    ));
    Ok(json!({ "without": without, "with": with }))
}

/// A recording of a running agent.
struct Recording {
    child: std::process::Child,
    out: PathBuf,
}

impl Recording {
    fn start(agent: &Path, running: &AgentProcess, out: PathBuf) -> Result<Self> {
        let child = Command::new(agent)
            .args(["trace", "record", "--out"])
            .arg(&out)
            .arg("--socket")
            .arg(running.socket())
            .stderr(Stdio::null())
            .spawn()
            .context("run nitro-agent trace record")?;
        let recording = Self { child, out };
        let begun = Instant::now();
        while !recording.out.exists() {
            ensure!(begun.elapsed() < DEADLINE, "the recording does not begin");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(recording)
    }

    fn end(mut self) -> Result<()> {
        let process = i32::try_from(self.child.id()).context("a process number")?;
        kill(nix::unistd::Pid::from_raw(process), Signal::SIGINT).context("end the recording")?;
        ensure!(
            self.child.wait().context("wait for the recording")?.success(),
            "the recording failed"
        );
        let bytes = File::open(&self.out)
            .and_then(|file| file.metadata())
            .context("the trace")?
            .len();
        ensure!(bytes > 1024, "the trace is empty");
        std::fs::remove_file(&self.out).context("remove the trace")
    }
}
