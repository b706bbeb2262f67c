//! Others on the device: what a bystander's reads wait while somebody loads, two loads at once, and a scanner among the models.
//!
//! All share one device of 1 GB/s and 1000 requests a second, agent included.

use std::{
    fs::OpenOptions,
    io::Read,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Check, Common, Outcome, companion::Companion, in_turns};
use crate::{
    agent::{Agent, AgentProcess},
    disk::TestDisk,
    limit::{IoLimit, Limit},
    readers::{self, Kind, Reader},
    stats,
    sys::FreeMemory,
    tree::{self, gguf},
};

/// A bystander's pause between two reads.
const PAUSE: Duration = Duration::from_millis(2);
/// During a load, a bystander's 99th percentile against the one without help.
const BESIDE_LOAD: f64 = 1.25;
/// While something is brought in before its reader is there, against an idle device.
const BESIDE_SPECULATION: f64 = 1.1;
/// Models that a scanner is among.
const SCANNED: u64 = 10;
/// Two loads, each against half of the device.
const FAIR: f64 = 1.1;

/// Options of `nitro-bench neighbours`.
#[derive(Clone, Debug, Args)]
pub struct NeighboursArgs {
    #[command(flatten)]
    common: Common,
    /// Bytes of a model.
    #[arg(long, default_value = "1GiB")]
    size: nitro_user::units::Size,
    /// Pairs of every comparison.
    #[arg(long, default_value_t = 5)]
    pairs: usize,
    /// Readers that a bystander is beside.
    #[arg(long, value_delimiter = ',', default_value = "map,read")]
    reader: Vec<Kind>,
    /// Only the two loads.
    #[arg(long)]
    two_only: bool,
}

/// What the hidden subcommand takes.
#[derive(Clone, Debug, Args)]
pub struct BystanderArgs {
    /// The file that is read here and there, past the page cache, until standard input ends.
    pub path: PathBuf,
}

/// What a bystander waited, in milliseconds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Waits(Vec<f64>);

/// Reads 4 KiB here and there until standard input ends.
///
/// # Errors
/// The file cannot be read past the page cache.
pub fn bystander(args: &BystanderArgs) -> Result<Waits> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open(&args.path)
        .with_context(|| format!("open {} with O_DIRECT", args.path.display()))?;
    let pages = file.metadata().context("size of the bystander's file")?.len() / 4096;
    let over = Arc::new(AtomicBool::new(false));
    let told = over.clone();
    thread::spawn(move || {
        let _ = std::io::stdin().read(&mut [0]);
        told.store(true, Ordering::Relaxed);
    });
    let mut page = memmap2::MmapMut::map_anon(4096).context("a page")?;
    let mut random = fastrand::Rng::with_seed(1);
    let mut waits = Waits::default();
    while !over.load(Ordering::Relaxed) {
        let began = Instant::now();
        file.read_exact_at(&mut page, random.u64(..pages.max(1)) * 4096)
            .context("read as a bystander")?;
        waits.0.push(began.elapsed().as_secs_f64() * 1e3);
        thread::sleep(PAUSE);
    }
    Ok(waits)
}

/// A bystander at work.
struct Bystander(Companion);

impl Bystander {
    fn start(program: &Path, path: &Path, group: &IoLimit) -> Result<Self> {
        let companion = Companion::start(program, ["bystander".as_ref(), path.as_os_str()], Some(group))?;
        // At work for a moment before anything else begins.
        thread::sleep(Duration::from_millis(200));
        Ok(Self(companion))
    }

    fn end(self) -> Result<Waits> {
        let (_, said) = self.0.end()?;
        serde_json::from_str(&said).context("what a bystander waited")
    }
}

/// The device with three models on it.
struct Stage {
    agent: PathBuf,
    program: PathBuf,
    models: Vec<PathBuf>,
    other: PathBuf,
    scanned: Vec<PathBuf>,
    group: IoLimit,
    disk: TestDisk,
    _memory: FreeMemory,
}

impl Stage {
    fn new(args: &NeighboursArgs, agent: PathBuf, size: u64) -> Result<Self> {
        let disk = TestDisk::new(&args.common.dir, 3 * size + size / 2 + (1 << 30) + (512 << 20))?;
        let group = IoLimit::new()?;
        let models = (0..3u64)
            .map(|number| {
                Ok(
                    gguf::single(&disk.path().join(format!("m{number}")), "model", number, size)?
                        .files
                        .remove(0),
                )
            })
            .collect::<Result<Vec<_>>>()?;
        let other = gguf::single(&disk.path().join("other"), "other", 9, 256 << 20)?
            .files
            .remove(0);
        let scanned = (0..SCANNED)
            .map(|number| {
                Ok(gguf::single(
                    &disk.path().join("scanned"),
                    &format!("s{number}"),
                    20 + number,
                    64 << 20,
                )?
                .files
                .remove(0))
            })
            .collect::<Result<Vec<_>>>()?;
        let limit = Limit {
            bytes_per_second: 1_000_000_000,
            operations_per_second: 1000,
        };
        disk.limit(&group, limit)?;
        disk.drop_caches()?;
        let memory = FreeMemory::keep(3 * size).context("keep memory for the models")?;
        Ok(Self {
            agent,
            program: readers::program()?,
            models,
            other,
            scanned,
            group,
            disk,
            _memory: memory,
        })
    }

    fn agent(&self, with: bool) -> Result<Option<AgentProcess>> {
        with.then(|| Agent::new(&self.agent, self.disk.path()).start(Some(&self.group)))
            .transpose()
    }

    /// What a bystander waits while one reader loads.
    fn beside_a_load(&self, kind: Kind, with: bool) -> Result<Waits> {
        let agent = self.agent(with)?;
        self.disk.drop_caches()?;
        let bystander = Bystander::start(&self.program, &self.other, &self.group)?;
        let report = Reader::new(&self.program, kind, &self.models[..1])
            .cap(Duration::from_secs(10))
            .run(Some(&self.group))?;
        ensure!(report.bytes > 0, "the reader read nothing");
        let waits = bystander.end()?;
        agent.map(AgentProcess::stop).transpose()?;
        Ok(waits)
    }

    /// What it waits while a model is announced and not read, or nothing happens.
    fn beside_speculation(&self, with: bool) -> Result<Waits> {
        let agent = self.agent(with)?;
        self.disk.drop_caches()?;
        let bystander = Bystander::start(&self.program, &self.other, &self.group)?;
        // A name on a command line, and nothing else.
        let mut runner = Command::new("sh");
        runner
            .args(["-c", "sleep 3; :", "runner", "--model"])
            .arg(&self.models[1]);
        runner.status().context("run a runner")?;
        let waits = bystander.end()?;
        agent.map(AgentProcess::stop).transpose()?;
        Ok(waits)
    }

    /// A checksum of all but the last of ten models: bytes read from the device beyond those, bytes warmed in vain, bytes of the last in memory.
    fn scan(&self) -> Result<[u64; 3]> {
        let agent = self.agent(true)?;
        self.disk.drop_caches()?;
        let before = self.disk.device_bytes_read()?;
        let (last, read) = self.scanned.split_last().context("models to scan")?;
        let mut scanner = Command::new("sha256sum");
        scanner.args(read).stdout(Stdio::null());
        self.group.join(&mut scanner)?;
        let status = scanner.status().context("run sha256sum")?;
        ensure!(status.success(), "sha256sum failed: {status}");
        thread::sleep(Duration::from_millis(500));
        let extra = (self.disk.device_bytes_read()? - before).saturating_sub(read.len() as u64 * (64 << 20));
        let resident = (tree::resident(std::slice::from_ref(last))? * (64 << 20) as f64) as u64;
        let mut wasted = 0;
        if let Some(agent) = agent {
            for receipt in super::objects_with(&Value::Array(agent.ask_lines("loads")?), "wasted") {
                wasted += receipt["wasted"].as_u64().unwrap_or(0);
            }
            agent.stop()?;
        }
        Ok([extra, wasted, resident])
    }

    /// Seconds of two loads that begin together, and requests to the device.
    fn two_loads(&self) -> Result<[f64; 3]> {
        let agent = self.agent(true)?;
        self.disk.drop_caches()?;
        let start = |model: &PathBuf| {
            Reader::new(&self.program, Kind::Map, std::slice::from_ref(model)).start(Some(&self.group))
        };
        let before = self.group.requests(self.disk.number())?;
        let (one, other) = (start(&self.models[0])?, start(&self.models[1])?);
        let (one, other) = (one.wait()?.seconds, other.wait()?.seconds);
        let requests = self.group.requests(self.disk.number())?.saturating_sub(before);
        agent.map(AgentProcess::stop).transpose()?;
        Ok([one, other, requests as f64])
    }
}

/// Measures all of it.
///
/// # Errors
/// When the rig or the agent fails.
pub fn run(args: &NeighboursArgs) -> Result<ExitCode> {
    let agent = args.common.prepare()?;
    let size = args.size.of(nitro_user::units::ByteCount(0)).0.max(64 << 20);
    eprintln!("writing three models");
    let stage = Stage::new(args, agent, size)?;
    let (mut checks, mut figures) = (Vec::new(), serde_json::Map::new());

    let beside = if args.two_only { &[][..] } else { &args.reader };
    for &kind in beside {
        let pairs = in_turns(args.pairs, |_, with| stage.beside_a_load(kind, with))?;
        eprintln!("beside {}: done", kind.name());
        let name = format!("beside a load by {}", kind.name());
        checks.push(compare(&name, &pairs, BESIDE_LOAD));
        figures.insert(name, percentiles(&pairs));
    }
    if !args.two_only {
        let announced = in_turns(args.pairs, |_, with| stage.beside_speculation(with))?;
        eprintln!("beside an announced model: done");
        checks.push(compare("beside an announced model", &announced, BESIDE_SPECULATION));
        figures.insert("beside an announced model".into(), percentiles(&announced));
    }

    // Both are over when the device has delivered both.
    let fair = 2.0 * size as f64 / 1e9;
    let times: Vec<[f64; 3]> = (0..args.pairs).map(|_| stage.two_loads()).collect::<Result<_>>()?;
    let slower: Vec<f64> = times.iter().map(|pair| pair[0].max(pair[1])).collect();
    let median = stats::median(&slower);
    checks.push(Check::new(
        "two loads at once, the slower",
        format!(
            "{median:.3} s ({:.2} × fair halves), {:.0} requests",
            median / fair,
            stats::median(&times.iter().map(|times| times[2]).collect::<Vec<_>>())
        ),
        format!("≤ {:.3} s", FAIR * fair),
        median <= FAIR * fair,
    ));
    figures.insert("two loads".into(), json!(times));

    let scans: Vec<[u64; 3]> = (0..args.pairs).map(|_| stage.scan()).collect::<Result<_>>()?;
    let worst = |index: usize| scans.iter().map(|scan| scan[index]).max().unwrap_or(0);
    let [extra, wasted, resident] = [0, 1, 2].map(worst);
    let bytes = nitro_user::units::ByteCount;
    checks.push(Check::new(
        "a scanner of nine models of ten, the worst run",
        format!(
            "{} read beyond them, {} warmed in vain, {} of the tenth",
            bytes(extra),
            bytes(wasted),
            bytes(resident)
        ),
        "≤ 1 MiB (metadata), nothing, nothing",
        extra <= 1 << 20 && wasted == 0 && resident == 0,
    ));
    figures.insert("scanner".into(), json!(scans));

    let notes = vec![format!(
        "1 GB/s and 1000 requests a second for all, models of {}; a bystander reads 4 KiB every {} ms past the page cache; {} pairs, medians of the 99th percentiles",
        nitro_user::units::ByteCount(size),
        PAUSE.as_millis(),
        args.pairs
    )];
    Outcome::of_checks("neighbours", notes, &checks, Value::Object(figures)).publish(&args.common)
}

fn p99(waits: &Waits) -> f64 {
    stats::quantile(&waits.0, 0.99)
}

fn compare(name: &str, pairs: &[(Waits, Waits)], target: f64) -> Check {
    let without: Vec<f64> = pairs.iter().map(|(without, _)| p99(without)).collect();
    let with: Vec<f64> = pairs.iter().map(|(_, with)| p99(with)).collect();
    let ratio = stats::median_interval(&stats::paired_ratios(&with, &without));
    Check::new(
        format!("a bystander {name}, p99"),
        format!(
            "{:.2} ms without, {:.2} ms with: {:.2} × [{:.2}, {:.2}]",
            stats::median(&without),
            stats::median(&with),
            ratio.middle,
            ratio.low,
            ratio.high
        ),
        format!("≤ {target} ×"),
        ratio.middle <= target,
    )
}

fn percentiles(pairs: &[(Waits, Waits)]) -> Value {
    let of =
        |waits: &Waits| json!({ "p50": stats::quantile(&waits.0, 0.5), "p99": p99(waits), "reads": waits.0.len() });
    json!(
        pairs
            .iter()
            .map(|(without, with)| json!({ "without": of(without), "with": of(with) }))
            .collect::<Vec<_>>()
    )
}
