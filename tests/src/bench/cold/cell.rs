//! One device with its models, and one cell of the matrix on it.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nitro_user::sys::block::{self, RequestLimits};
use serde::{Deserialize, Serialize};

use super::{
    super::{in_turns, progress::Progress},
    device::{Device, Service},
    report,
};
use crate::{
    agent::Agent,
    disk::TestDisk,
    limit::{IoLimit, Limit},
    readers::{Kind, Reader, Report},
    stats::{self, Interval, Summary},
    store::{Store, StoreArgs},
    sys::FreeMemory,
    tree::{self, ModelTree, gguf, hugging_face},
};

/// Files of the shards.
pub const SHARDS: usize = 8;
/// Order of the tensors for the random-hint reader; in the report, so that a run can be repeated.
pub const ORDER_SEED: u64 = 42;
/// Loads behind the figures `limit` and `cached`.
const REFERENCES: usize = 3;

/// What a cell was measured on: what `nitro-bench sim` has to know to predict it.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Rig {
    /// What the group was limited to.
    pub limit: Limit,
    /// How requests were served, where a file system in user space did.
    pub service: Option<Service>,
    /// Bytes that the kernel reads ahead there.
    pub read_ahead: u64,
    /// Bytes of the largest request; 0 where there is no block device.
    pub request: u64,
    /// Processors of the machine.
    pub processors: usize,
}

/// All that one cell measured. Times in seconds.
#[derive(Debug, Serialize)]
pub struct CellResult {
    pub device: Device,
    pub reader: Kind,
    pub rig: Rig,
    pub bytes: u64,
    /// O_DIRECT at depth on the same files: none for the cached row.
    pub limit: Option<f64>,
    /// Processor time that the load itself takes (shards).
    pub work: f64,
    /// The reader with everything cached.
    pub cached: f64,
    pub without: Vec<f64>,
    pub with: Vec<f64>,
    pub without_summary: Summary,
    pub with_summary: Summary,
    /// Whether a load without, with the agent was stopped early and its time extrapolated.
    pub extrapolated: (bool, bool),
    /// Median with, over the larger of limit and cached.
    pub over_floor: Option<f64>,
    /// without/with.
    pub speedup: f64,
    /// with/without.
    pub cost: Interval,
    pub worst_pair: f64,
    /// Requests to the device, median of a load without and with.
    pub requests: (f64, f64),
    /// The largest share of the model that was in memory when a load began, 0–1.
    pub resident_before: f64,
    pub first_tensors: Vec<String>,
    /// Targets that were missed, in words.
    pub misses: Vec<String>,
}

/// One load and what it cost the device.
struct Load {
    report: Report,
    requests: u64,
    resident_before: f64,
}

/// A device with models on it.
pub struct Bench<'a> {
    device: Device,
    agent: &'a Path,
    program: &'a Path,
    logs: Option<&'a Path>,
    gguf: ModelTree,
    shards: Vec<PathBuf>,
    // Members before their disk, which cannot be unmounted under them.
    group: IoLimit,
    // Unmounted before the disk that it serves.
    store: Option<Store>,
    disk: TestDisk,
    _memory: FreeMemory,
}

impl<'a> Bench<'a> {
    /// Makes the disk and writes the models.
    pub fn new(
        base: &Path,
        agent: &'a Path,
        program: &'a Path,
        logs: Option<&'a Path>,
        device: Device,
        size: u64,
    ) -> Result<Self> {
        let bytes = device.bytes(size);
        let disk = TestDisk::new(base, bytes * 2 + bytes / 4 + (256 << 20))?;
        let group = IoLimit::new()?;
        let gguf = gguf::single(disk.path(), "model", 1, bytes)?;
        let hub = hugging_face::snapshot(disk.path(), "rig", "shards", 2, SHARDS, bytes)?;
        let shards: Vec<PathBuf> = hub
            .files
            .into_iter()
            .filter(|path| path.extension().is_some_and(|extension| extension == "safetensors"))
            .collect();
        ensure!(shards.len() == SHARDS, "{} shards", shards.len());
        disk.limit(&group, device.limit())?;
        let (mut gguf, mut shards) = (gguf, shards);
        let store = match device.store() {
            Some(service) => {
                let mount = disk.path().with_file_name("store");
                for path in gguf.files.iter_mut().chain(&mut shards) {
                    *path = mount.join(path.strip_prefix(disk.path()).context("a model beside its disk")?);
                }
                let args = StoreArgs {
                    source: disk.path().to_owned(),
                    mount,
                    latency: service.latency,
                    parallel: service.parallel,
                    seek: service.seek,
                    rate: service.rate,
                    bandwidth: 0.0,
                    kind: "nitrostore".into(),
                    private: false,
                    user: None,
                };
                Some(Store::start(program, &args)?)
            }
            None => None,
        };
        // First, so that there is free memory to keep.
        disk.drop_caches()?;
        // Twice the model, because some of it lies in pieces too small for the folios of a load.
        let memory = FreeMemory::keep(2 * bytes).context("keep memory for the model")?;
        Ok(Self {
            device,
            agent,
            program,
            logs,
            gguf,
            shards,
            group,
            store,
            disk,
            _memory: memory,
        })
    }

    /// How the disk is made.
    pub fn note(&self) -> String {
        let Limit {
            bytes_per_second,
            operations_per_second,
        } = self.device.limit();
        let limit = if self.device.limit() == Limit::NONE {
            "no limit".to_owned()
        } else {
            format!(
                "{} MB/s, {operations_per_second} requests/s",
                bytes_per_second / 1_000_000
            )
        };
        if let Some(service) = self.device.store() {
            return format!(
                "{}: FUSE, {} ms a request, {} at once, {} ms more after a jump, {}, model of {}",
                self.device.name(),
                service.latency,
                service.parallel,
                service.seek,
                if service.rate > 0.0 {
                    format!("{} MB/s", service.rate)
                } else {
                    "no limit of bytes".into()
                },
                nitro_user::units::ByteCount(self.gguf.bytes)
            );
        }
        let access = if self.disk.is_direct() { "direct" } else { "buffered" };
        format!(
            "{}: ext4 on a loop device ({access}), readahead 128 KiB, {limit}, model of {}",
            self.device.name(),
            nitro_user::units::ByteCount(self.gguf.bytes)
        )
    }

    /// Measures one cell.
    pub fn cell(&self, kind: Kind, pairs: usize, progress: &Progress) -> Result<CellResult> {
        let label = format!("{} × {}", self.device.name(), kind.name());
        progress.step(format!("{label}: references"));
        let limit = self.measure_limit(kind)?;
        let work = match limit {
            Some(limit) if kind == Kind::Shards => limit,
            // Nothing to hide the work behind: a tenth of a second stands for it.
            None if kind == Kind::Shards => 0.1,
            _ => 0.0,
        };
        let reader = self.reader(kind, work);
        let cached = self.measure_cached(kind, &reader)?;

        let (without, with): (Vec<_>, Vec<_>) = in_turns(pairs, |pair, with| {
            progress.step(format!("{label}: pair {} of {pairs}", pair + 1));
            self.figure(&reader, with.then_some(pair))
        })?
        .into_iter()
        .unzip();
        self.verify(&cached, without.iter().chain(&with).flatten())?;
        let cached_seconds = cached.iter().map(|load| load.report.seconds).collect::<Vec<_>>();
        let mut result = evaluate(
            self.device,
            kind,
            limit,
            work,
            stats::median(&cached_seconds),
            &without,
            &with,
        );
        result.rig = self.rig();
        result.bytes = cached.first().map_or(0, |load| load.report.bytes);
        result.misses = report::judge(&result);
        Ok(result)
    }

    fn rig(&self) -> Rig {
        let (major, minor) = self.disk.number();
        let limits = match self.device.store() {
            // A file system in user space has no queue, and the kernel's usual readahead.
            Some(_) => RequestLimits {
                read_ahead: 128 << 10,
                request: 0,
            },
            None => block::request_limits(major << 20 | minor),
        };
        Rig {
            limit: self.device.limit(),
            service: self.device.store(),
            read_ahead: limits.read_ahead,
            request: limits.request,
            processors: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        }
    }

    fn reader(&self, kind: Kind, work: f64) -> Reader {
        let reader = Reader::new(self.program, kind, self.files(kind));
        match kind {
            Kind::MapRandom => reader
                .order_seed(ORDER_SEED)
                .cap(Duration::from_secs(self.device.cap_seconds())),
            Kind::Shards => reader.cpu(Duration::from_secs_f64(work / SHARDS as f64)),
            _ => reader,
        }
    }

    fn files(&self, kind: Kind) -> &[PathBuf] {
        if kind == Kind::Shards {
            &self.shards
        } else {
            &self.gguf.files
        }
    }

    /// Seconds in which the device itself delivers the reader's files.
    fn measure_limit(&self, kind: Kind) -> Result<Option<f64>> {
        if self.device == Device::Cached || self.store.is_some() {
            return Ok(None);
        }
        let direct = Reader::new(self.program, Kind::Direct, self.files(kind));
        let seconds = (0..REFERENCES)
            .map(|_| Ok(self.load(&direct, true)?.report.seconds))
            .collect::<Result<Vec<_>>>()?;
        Ok(Some(stats::median(&seconds)))
    }

    /// The reader with everything cached as the kernel caches it best, in large folios.
    fn measure_cached(&self, kind: Kind, reader: &Reader) -> Result<Vec<Load>> {
        self.disk.limit(&self.group, Limit::NONE)?;
        self.load(&Reader::new(self.program, Kind::Read, self.files(kind)), true)
            .context("fill the cache")?;
        let loads = (0..REFERENCES)
            .map(|_| self.load(reader, false))
            .collect::<Result<Vec<_>>>()?;
        self.disk.limit(&self.group, self.device.limit())?;
        Ok(loads)
    }

    /// The loads behind one figure, with the agent when `with` gives the pair's number.
    fn figure(&self, reader: &Reader, with: Option<usize>) -> Result<Vec<Load>> {
        let cold = self.device != Device::Cached;
        let count = self.device.loads_per_figure(reader.kind());
        // Each with an agent that knows nothing of the device yet: what it learns from the first load would help the others. Cached, there is nothing to learn.
        let (figures, loads) = if cold { (count, 1) } else { (1, count) };
        let parts: Vec<Vec<Load>> = (0..figures)
            .map(|_| self.loads(reader, with, cold, loads))
            .collect::<Result<_>>()?;
        Ok(parts.into_iter().flatten().collect())
    }

    /// Some loads with one agent, or without any.
    fn loads(&self, reader: &Reader, with: Option<usize>, cold: bool, count: usize) -> Result<Vec<Load>> {
        let agent = match with {
            // Ready before the caches are dropped: the agent knows the files and has none of them in memory.
            Some(_) => {
                let watched = self.store.as_ref().map_or(self.disk.path(), Store::path);
                Some(Agent::new(self.agent, watched).start(Some(&self.group))?)
            }
            None => None,
        };
        let loads = (0..count).map(|_| self.load(reader, cold)).collect::<Result<Vec<_>>>();
        if let (Some(agent), Some(pair)) = (agent, with) {
            let stopped = agent.stop()?;
            if let (Some(logs), Some(load)) = (self.logs, loads.as_ref().ok().and_then(|loads| loads.first())) {
                let path = logs.join(format!("{}-{}-{pair}.log", self.device.name(), load.report.kind.name()));
                let text = format!("{}\n{:?}\n", stopped.lines.join("\n"), load.report);
                fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
            }
        }
        loads
    }

    fn load(&self, reader: &Reader, cold: bool) -> Result<Load> {
        let mut resident_before = 1.0;
        if cold {
            self.disk.drop_caches()?;
            resident_before = tree::resident(reader.paths())?;
        }
        let before = self.group.requests(self.disk.number())?;
        let report = reader.run(Some(&self.group))?;
        Ok(Load {
            report,
            requests: self.group.requests(self.disk.number())?.saturating_sub(before),
            resident_before,
        })
    }

    /// Every load that came to its end read the same bytes.
    fn verify<'b>(&self, cached: &'b [Load], loads: impl Iterator<Item = &'b Load>) -> Result<()> {
        let mut complete = cached.iter().chain(loads).filter(|load| load.report.complete >= 1.0);
        let Some(first) = complete.next() else { return Ok(()) };
        ensure!(
            complete.all(|load| load.report.checksum == first.report.checksum),
            "two loads of the same files read different bytes"
        );
        Ok(())
    }
}

/// Figures from loads.
fn evaluate(
    device: Device,
    reader: Kind,
    limit: Option<f64>,
    work: f64,
    cached: f64,
    without: &[Vec<Load>],
    with: &[Vec<Load>],
) -> CellResult {
    let seconds = |figures: &[Vec<Load>]| -> Vec<f64> {
        figures
            .iter()
            .map(|loads| stats::median(&loads.iter().map(|load| load.report.whole_seconds()).collect::<Vec<_>>()))
            .collect()
    };
    let requests = |figures: &[Vec<Load>]| {
        stats::median(
            &figures
                .iter()
                .flatten()
                .map(|load| load.requests as f64)
                .collect::<Vec<_>>(),
        )
    };
    let stopped = |figures: &[Vec<Load>]| figures.iter().flatten().any(|load| load.report.complete < 1.0);
    let all = || without.iter().chain(with).flatten();
    let (without_seconds, with_seconds) = (seconds(without), seconds(with));
    let ratios = stats::paired_ratios(&with_seconds, &without_seconds);
    let (without_summary, with_summary) = (stats::summary(&without_seconds), stats::summary(&with_seconds));
    let cost = stats::median_interval(&ratios);
    CellResult {
        device,
        reader,
        rig: Rig::default(),
        bytes: 0,
        limit,
        work,
        cached,
        without_summary,
        with_summary,
        extrapolated: (stopped(without), stopped(with)),
        over_floor: limit.map(|limit| with_summary.median / limit.max(cached)),
        speedup: 1.0 / cost.middle,
        cost,
        worst_pair: stats::worst(&ratios),
        requests: (requests(without), requests(with)),
        resident_before: if device == Device::Cached {
            1.0
        } else {
            all().map(|load| load.resident_before).fold(0.0, f64::max)
        },
        first_tensors: all()
            .next()
            .map(|load| load.report.first_tensors.clone())
            .unwrap_or_default(),
        without: without_seconds,
        with: with_seconds,
        misses: Vec::new(),
    }
}
