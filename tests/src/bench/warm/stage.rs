//! One disk with models, and what the cells do on it.

use std::{
    fs::File,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nitro_user::{
    sys::page_cache,
    units::{ByteCount, ByteRange},
};

use crate::{
    agent::{Agent, AgentProcess},
    disk::TestDisk,
    limit::{IoLimit, Limit},
    readers::{self, Kind, Reader, Report},
    stats,
    sys::FreeMemory,
    tree::gguf,
};

/// What the group may have of the device.
const DEVICE: Limit = Limit {
    bytes_per_second: 1_000_000_000,
    operations_per_second: 1000,
};

/// Models that are as hot as one another.
pub const SEVERAL: u64 = 8;

/// How long the agent may take for what it does when it has time.
const PATIENCE: Duration = Duration::from_secs(60);

/// Loads behind a figure of the device's, or of the cache's.
const REFERENCES: usize = 5;

/// The disk, and what is on it.
pub struct Stage {
    agent: PathBuf,
    pub program: PathBuf,
    /// What all may take of memory.
    pub limit: u64,
    /// Two fifths of that.
    pub model: PathBuf,
    /// Twice as much as the limit; a stranger's files, where it is not watched.
    pub large: PathBuf,
    /// Half of it, in several models.
    pub several: Vec<PathBuf>,
    disk: TestDisk,
    _memory: FreeMemory,
}

/// Somebody's group on the disk: its memory and its share of the device.
pub struct Group<'a> {
    pub limits: IoLimit,
    stage: &'a Stage,
}

impl Stage {
    /// Makes the disk and writes everything.
    pub fn new(base: &Path, agent: PathBuf, limit: u64) -> Result<Self> {
        let (model, each) = (limit / 5 * 2, limit / 2 / SEVERAL);
        let disk = TestDisk::new(base, 3 * limit + limit / 8 + (512 << 20))?;
        let single = |name: &str, seed, bytes| -> Result<PathBuf> {
            Ok(gguf::single(&disk.path().join(name), name, seed, bytes)?
                .files
                .remove(0))
        };
        let several = (0..SEVERAL)
            .map(|number| {
                let mut tree = gguf::single(&disk.path().join("several"), &format!("m{number}"), 10 + number, each)?;
                Ok(tree.files.remove(0))
            })
            .collect::<Result<_>>()?;
        let stage = Self {
            agent,
            program: readers::program()?,
            limit,
            model: single("model", 1, model)?,
            large: single("large", 2, 2 * limit)?,
            several,
            _memory: {
                // First, so that there is free memory to keep.
                disk.drop_caches()?;
                FreeMemory::keep(limit + limit / 4).context("keep memory for the models")?
            },
            disk,
        };
        stage.disk.drop_caches()?;
        Ok(stage)
    }

    /// How it is made.
    pub fn note(&self) -> String {
        format!(
            "ext4 on a loop device ({}), readahead 128 KiB, {} MB/s and {} requests/s for the group, which may take {} of memory",
            if self.disk.is_direct() { "direct" } else { "buffered" },
            DEVICE.bytes_per_second / 1_000_000,
            DEVICE.operations_per_second,
            ByteCount(self.limit)
        )
    }

    /// A new group with a limit of memory, where one is given, and the device's, and nothing in the page cache.
    pub fn group(&self, memory: Option<u64>) -> Result<Group<'_>> {
        let limits = memory.map_or_else(IoLimit::new, IoLimit::with_memory)?;
        self.disk.limit(&limits, DEVICE)?;
        self.disk.remount()?;
        self.disk.drop_caches()?;
        Ok(Group { limits, stage: self })
    }

    /// The agent on these directories, to be started.
    pub fn agent(&self, watched: &[&Path]) -> Agent {
        let directories: Vec<&Path> = watched.iter().filter_map(|file| file.parent()).collect();
        let first = Agent::new(&self.agent, directories.first().copied().unwrap_or(self.disk.path()));
        let rest = directories.iter().skip(1);
        rest.fold(first, |agent, directory| agent.arg("--watch").arg(*directory))
    }

    /// Runs a command of the agent's on the socket of one that is running, and leaves it to itself.
    pub fn agent_program(&self) -> &Path {
        &self.agent
    }

    /// Bytes read from the device so far.
    pub fn read_from_device(&self) -> Result<u64> {
        self.disk.device_bytes_read()
    }

    /// Seconds in which the device itself delivers `path` to a group.
    pub fn device_seconds(&self, path: &Path) -> Result<f64> {
        let group = self.group(Some(self.limit))?;
        let paths = [path.to_owned()];
        let reader = Reader::new(&self.program, Kind::Direct, &paths);
        let seconds = (0..REFERENCES)
            .map(|_| Ok(reader.run(Some(&group.limits))?.seconds))
            .collect::<Result<Vec<_>>>()?;
        Ok(stats::median(&seconds))
    }
}

impl Group<'_> {
    /// Reads a file as somebody of the group.
    pub fn load(&self, kind: Kind, path: &Path) -> Result<Report> {
        let report = Reader::new(&self.stage.program, kind, &[path.to_owned()]).run(Some(&self.limits))?;
        ensure!(report.complete >= 1.0, "{} was not read to its end", path.display());
        Ok(report)
    }

    /// The same without the device's limit, where it is not what is measured.
    pub fn load_fast(&self, path: &Path) -> Result<Report> {
        self.set_device(Limit::NONE)?;
        let report = self.load(Kind::Read, path);
        self.set_device(DEVICE)?;
        report
    }

    /// What it may have of the device from now on.
    pub fn set_device(&self, limit: Limit) -> Result<()> {
        self.stage.disk.limit(&self.limits, limit)
    }

    /// Seconds that a reader needs for what is all in memory.
    pub fn cached(&self, kind: Kind, path: &Path) -> Result<f64> {
        let seconds = (0..REFERENCES)
            .map(|_| Ok(self.load(kind, path)?.seconds))
            .collect::<Result<Vec<_>>>()?;
        ensure!(
            present(path)? >= bytes(path)?,
            "{} was not kept in memory",
            path.display()
        );
        Ok(stats::median(&seconds))
    }
}

/// Bytes of a file.
pub fn bytes(path: &Path) -> Result<u64> {
    let data = path.metadata().with_context(|| format!("size of {}", path.display()))?;
    Ok(data.len())
}

/// A size as the agent's options take it, up to the next KiB.
pub fn in_kib(bytes: u64) -> String {
    format!("{}KiB", bytes.div_ceil(1024))
}

/// Bytes of it in the page cache, at most its size.
pub fn present(path: &Path) -> Result<u64> {
    let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    let all = bytes(path)?;
    let here = page_cache::present(&file, ByteRange::new(0, all)).context("what is in memory (Linux 6.5)")?;
    Ok(here.min(all))
}

/// Waits until so many bytes are locked.
pub fn await_pins(agent: &AgentProcess, bytes: u64) -> Result<Duration> {
    let are_there = || Ok(agent.keeper().is_some_and(|(_, held)| held >= bytes));
    await_that("the pins", are_there).with_context(|| {
        let status = agent.ask("status").unwrap_or_default();
        format!(
            "{} is wanted, and the agent says: {} {}",
            ByteCount(bytes),
            status["pressure"],
            status["kept"]
        )
    })
}

/// Waits for something that the agent does when it has time; how long it took.
pub fn await_that(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<Duration> {
    let began = Instant::now();
    while !is_so()? {
        ensure!(began.elapsed() < PATIENCE, "{what} did not come within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(2));
    }
    Ok(began.elapsed())
}
