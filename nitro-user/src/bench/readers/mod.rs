//! Loaders, each in a process of its own, as the agent meets them.
//!
//! A reader is this bench's binary run again with a hidden subcommand; it prints one [`Report`] as JSON. Time is measured inside
//! it, from its first open to its last byte, so the start of the process is not part of a load.

mod direct;
mod map;
mod several;
mod stream;

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

pub use self::several::{CURSORS, PIECE, RANKS, THREADS};
use super::{limit::IoLimit, sweep};
use crate::sys::measure;

/// The hidden subcommand that is a reader, of every program that starts one.
pub const SUBCOMMAND: &str = "bench-reader";

/// How a loader reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A shared mapping without hints, every page touched in order.
    Map,
    /// As llama.cpp: FADV_SEQUENTIAL, MAP_POPULATE, MADV_WILLNEED, then every page.
    Populate,
    /// A mapping with MADV_RANDOM, tensor by tensor in a seeded order, the pages of each in order. GGUF only.
    MapRandom,
    /// read() of 1 MiB.
    Read,
    /// read() of each file, followed by work on the processor.
    Shards,
    /// O_DIRECT, several requests at once.
    Direct,
    /// read() of 128 KiB at sixteen places in turn.
    Cursors,
    /// Thirty-two threads that take the next 128 KiB in turn.
    Threads,
    /// Eight processes that map and touch all of it each.
    Ranks,
}

impl Kind {
    /// All of them, in the order of the tables.
    pub const ALL: [Self; 9] = [
        Self::Map,
        Self::Populate,
        Self::MapRandom,
        Self::Read,
        Self::Shards,
        Self::Direct,
        Self::Cursors,
        Self::Threads,
        Self::Ranks,
    ];

    /// Its name on the command line and in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Map => "map",
            Self::Populate => "populate",
            Self::MapRandom => "map-random",
            Self::Read => "read",
            Self::Shards => "shards",
            Self::Direct => "direct",
            Self::Cursors => "cursors",
            Self::Threads => "threads",
            Self::Ranks => "ranks",
        }
    }
}

/// What the hidden subcommand takes.
#[derive(Clone, Debug, Args)]
pub struct ReaderArgs {
    /// How to read.
    pub kind: Kind,
    /// What to read, in order.
    #[arg(required = true)]
    pub paths: Vec<PathBuf>,
    /// Milliseconds of processor time after each file (shards).
    #[arg(long, default_value_t = 0.0)]
    pub cpu_ms: f64,
    /// Seed of the order of tensors (map-random).
    #[arg(long, default_value_t = 1)]
    pub order_seed: u64,
    /// Stop after so many milliseconds; the report says how far it came.
    #[arg(long)]
    pub cap_ms: Option<u64>,
    /// Threads, each with one request (direct).
    #[arg(long, default_value_t = 8)]
    pub depth: usize,
    /// Bytes of one request (direct).
    #[arg(long, default_value_t = 1 << 20)]
    pub request: usize,
}

/// What one load did.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// How it read.
    pub kind: Kind,
    /// Wall time from the first open to the last byte, or to the cap.
    pub seconds: f64,
    /// Bytes read or touched.
    pub bytes: u64,
    /// The share of the files it came to before the cap, 0–1.
    pub complete: f64,
    /// Sum of the first bytes of all pages: the same for every way of reading the same files to their end.
    pub checksum: u64,
    /// The first tensors of the order (map-random).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub first_tensors: Vec<String>,
}

impl Report {
    /// Seconds for the whole, assuming that the part after the cap would have gone as the part before.
    pub fn whole_seconds(&self) -> f64 {
        self.seconds / self.complete.max(1e-9)
    }
}

/// Runs a reader in this process and gives its report.
///
/// # Errors
/// When a file cannot be read.
pub fn run(args: &ReaderArgs) -> Result<Report> {
    let cap = Cap {
        start: Instant::now(),
        limit: args.cap_ms.map(Duration::from_millis),
    };
    let mut progress = Progress::default();
    match args.kind {
        Kind::Map => map::in_order(&args.paths, map::Hints::None, &cap, &mut progress)?,
        Kind::Populate => map::in_order(&args.paths, map::Hints::Populate, &cap, &mut progress)?,
        Kind::MapRandom => map::in_tensor_order(&args.paths, args.order_seed, &cap, &mut progress)?,
        Kind::Read => stream::read(&args.paths, Duration::ZERO, &cap, &mut progress)?,
        Kind::Shards => stream::read(
            &args.paths,
            Duration::from_secs_f64(args.cpu_ms / 1e3),
            &cap,
            &mut progress,
        )?,
        Kind::Direct => direct::read(&args.paths, args.depth, args.request, &cap, &mut progress)?,
        Kind::Cursors => several::cursors(&args.paths, &cap, &mut progress)?,
        Kind::Threads => several::threads(&args.paths, &cap, &mut progress)?,
        Kind::Ranks => several::ranks(&args.paths, &mut progress)?,
    }
    let seconds = cap.start.elapsed().as_secs_f64();
    let sizes = args.paths.iter().map(|path| {
        Ok(path
            .metadata()
            .with_context(|| format!("size of {}", path.display()))?
            .len())
    });
    let all = sizes.sum::<Result<u64>>()?;
    let complete = if progress.capped {
        progress.bytes as f64 / all.max(1) as f64
    } else {
        1.0
    };
    Ok(Report {
        kind: args.kind,
        seconds,
        bytes: progress.bytes,
        complete,
        checksum: progress.checksum,
        first_tensors: progress.first_tensors,
    })
}

/// When to give up.
struct Cap {
    start: Instant,
    limit: Option<Duration>,
}

impl Cap {
    fn reached(&self) -> bool {
        self.limit.is_some_and(|limit| self.start.elapsed() >= limit)
    }
}

/// What was read so far.
#[derive(Default)]
struct Progress {
    bytes: u64,
    checksum: u64,
    capped: bool,
    first_tensors: Vec<String>,
}

/// A reader to be started.
#[derive(Clone, Debug)]
pub struct Reader {
    program: PathBuf,
    kind: Kind,
    arguments: Vec<String>,
    paths: Vec<PathBuf>,
}

impl Reader {
    /// A reader of `paths`, run by `program` (see [`program`]).
    pub fn new(program: &Path, kind: Kind, paths: &[PathBuf]) -> Self {
        Self {
            program: program.to_owned(),
            kind,
            arguments: vec![SUBCOMMAND.into(), kind.name().into()],
            paths: paths.to_vec(),
        }
    }

    /// How it reads.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What it reads.
    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// Processor time after each file.
    pub fn cpu(self, each: Duration) -> Self {
        self.option("--cpu-ms", &(each.as_secs_f64() * 1e3).to_string())
    }

    /// Seed of the order of tensors.
    pub fn order_seed(self, seed: u64) -> Self {
        self.option("--order-seed", &seed.to_string())
    }

    /// Requests at once, of a direct reader.
    pub fn depth(self, requests: usize) -> Self {
        self.option("--depth", &requests.to_string())
    }

    /// When to give up.
    pub fn cap(self, after: Duration) -> Self {
        self.option("--cap-ms", &after.as_millis().to_string())
    }

    fn option(mut self, name: &str, value: &str) -> Self {
        self.arguments.extend([name.to_owned(), value.to_owned()]);
        self
    }

    /// Starts it, in `group` if one is given.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn start(&self, group: Option<&IoLimit>) -> Result<RunningReader> {
        sweep::rest_if_interrupted();
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .arg("--")
            .args(&self.paths)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        measure::end_with_parent(&mut command);
        if let Some(group) = group {
            group.join(&mut command)?;
        }
        let child = command
            .spawn()
            .with_context(|| format!("start the reader {}", self.program.display()))?;
        sweep::adopt(child.id());
        Ok(RunningReader { child: Some(child) })
    }

    /// Starts it and waits for its report.
    ///
    /// # Errors
    /// When it cannot be started, fails, or prints no report.
    pub fn run(&self, group: Option<&IoLimit>) -> Result<Report> {
        self.start(group)?.wait()
    }
}

/// A reader at work; killed on drop.
#[derive(Debug)]
pub struct RunningReader {
    child: Option<Child>,
}

impl RunningReader {
    /// Its process.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it failed or printed no report.
    pub fn wait(mut self) -> Result<Report> {
        let child = self.child.take().context("the reader was waited for before")?;
        let pid = child.id();
        let output = child.wait_with_output();
        sweep::disown(pid);
        let output = output.context("wait for the reader")?;
        ensure!(output.status.success(), "the reader failed: {}", output.status);
        serde_json::from_slice(&output.stdout).context("report of the reader")
    }
}

impl Drop for RunningReader {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
            sweep::disown(child.id());
        }
    }
}

/// The program that is a reader: this one when it is the bench, else the bench beside or above it, where cargo puts it.
///
/// # Errors
/// When there is none: build the package's binaries first.
pub fn program() -> Result<PathBuf> {
    let this = std::env::current_exe().context("path of this program")?;
    if this.file_stem().is_some_and(|name| name == "nitro-bench") {
        return Ok(this);
    }
    this.ancestors()
        .skip(1)
        .take(2)
        .map(|dir| dir.join("nitro-bench"))
        .find(|path| path.exists())
        .with_context(|| format!("no nitro-bench near {}", this.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{scratch::ScratchDir, tree};

    fn args(kind: Kind, paths: &[PathBuf]) -> ReaderArgs {
        ReaderArgs {
            kind,
            paths: paths.to_vec(),
            cpu_ms: 1.0,
            order_seed: 3,
            cap_ms: None,
            depth: 3,
            request: 1 << 20,
        }
    }

    #[test]
    fn the_order_of_tensors_follows_its_seed() {
        let dir = ScratchDir::new(&std::env::temp_dir()).unwrap();
        let tree = tree::gguf::single(dir.path(), "m", 5, 8 << 20).unwrap();
        let order = |seed| {
            run(&ReaderArgs {
                order_seed: seed,
                ..args(Kind::MapRandom, &tree.files)
            })
            .unwrap()
            .first_tensors
        };
        assert_eq!(order(1), order(1));
        assert_ne!(order(1), order(2));
    }

    #[test]
    fn a_capped_reader_says_how_far_it_came() {
        let dir = ScratchDir::new(&std::env::temp_dir()).unwrap();
        let tree = tree::series::numbered(dir.path(), "p", 5, 8, 8 << 20).unwrap();
        let report = run(&ReaderArgs {
            cpu_ms: 30.0,
            cap_ms: Some(70),
            ..args(Kind::Shards, &tree.files)
        })
        .unwrap();
        assert!(report.complete > 0.1 && report.complete < 0.9, "{report:?}");
        assert!(report.whole_seconds() > report.seconds);
    }
}
