//! What the scenarios share: models on the disk, an agent, readers, and what the kernel and the agent say of them.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::{
    agent::{Agent, AgentProcess},
    limit::{DeviceNumber, IoLimit},
    readers::{self, Kind, Reader, ReaderArgs, Report, RunningReader},
    sys,
    tree::gguf,
};

/// 1 MiB.
pub const MIB: u64 = 1 << 20;
/// The model: large beside all windows of readahead, small beside the memory of the machine.
pub const MODEL: u64 = 64 * MIB;
/// The large one: of the size of the machine's memory, nearly.
pub const LARGE: u64 = 384 * MIB;
/// A file that is not watched, which stays cached.
const OTHER: u64 = MIB;

/// Long enough for anything that happens at all, where everything is emulated.
pub const SOON: Duration = Duration::from_secs(20);

/// The program of the agent.
pub const AGENT: &str = "/bin/nitro-agent";

/// A disk with models.
pub struct Bed {
    /// Modes of the agent, the one that `auto` is to end with first.
    pub modes: Vec<String>,
    /// The directory that is watched.
    pub models: PathBuf,
    /// A model of [`MODEL`] bytes in it.
    pub weights: PathBuf,
    /// The same file by a name that the agent does not know.
    pub alias: PathBuf,
    /// What a reader finds in it.
    pub checksum: u64,
    /// Another directory, with a model of [`LARGE`] bytes.
    pub large: (PathBuf, PathBuf),
    /// A file that is not watched.
    pub other: PathBuf,
    /// The disk.
    pub device: DeviceNumber,
}

impl Bed {
    /// Writes the models.
    ///
    /// # Errors
    /// When the disk is too small, or cannot be written.
    pub fn new(disk: &Path, modes: &[String]) -> Result<Self> {
        let write = |dir: &str, bytes: u64| -> Result<(PathBuf, PathBuf)> {
            let dir = disk.join(dir);
            let tree = gguf::single(&dir, "model", 1, bytes)?;
            Ok((dir, tree.files.first().context("the model has a file")?.clone()))
        };
        let large = write("large", LARGE)?;
        let (models, weights) = write("models", MODEL)?;
        let (alias, other) = (disk.join("alias"), disk.join("other"));
        fs::hard_link(&weights, &alias).context("link the model")?;
        fs::write(&other, vec![1; OTHER as usize]).context("write the other file")?;
        nix::unistd::sync();
        let number = fs::read_to_string("/sys/block/vda/dev").context("number of the disk")?;
        let (major, minor) = number.trim().split_once(':').context("number of the disk")?;
        let checksum = here(Kind::Read, &weights)?.checksum;
        Ok(Self {
            modes: modes.to_vec(),
            models,
            weights,
            alias,
            checksum,
            large,
            other,
            device: (major.parse()?, minor.parse()?),
        })
    }

    /// The mode that `auto` is to end with.
    pub fn auto(&self) -> &str {
        self.modes.first().map_or("auto", String::as_str)
    }

    /// An agent that watches the model.
    pub fn agent(&self, mode: &str) -> Agent {
        watching(&self.models, mode)
    }

    /// The same of the large model, in the mode of `auto`.
    pub fn agent_of_large(&self) -> Agent {
        watching(&self.large.0, self.auto())
    }

    /// A reader of the model, which is cold, at work.
    pub fn reader(&self, kind: Kind, group: Option<&IoLimit>) -> Result<RunningReader> {
        cold_reader(&self.weights, kind, group)
    }

    /// What the reader read is what is in the file.
    pub fn ensure_truth(&self, report: &Report) -> Result<()> {
        let Report { bytes, checksum, .. } = report;
        ensure!(*bytes >= MODEL, "it read {bytes} bytes");
        ensure!(*checksum == self.checksum, "it read other bytes than there are");
        Ok(())
    }

    /// Bytes that were read from the disk.
    pub fn device_bytes(&self) -> Result<u64> {
        let text = fs::read_to_string("/sys/block/vda/stat").context("counters of the disk")?;
        let sectors = text.split_whitespace().nth(2).and_then(|word| word.parse::<u64>().ok());
        Ok(sectors.context("counters of the disk")? * 512)
    }
}

fn watching(dir: &Path, mode: &str) -> Agent {
    // The rig asks for one -v; with two its log says why a step was not warmed.
    Agent::new(Path::new(AGENT), dir).arg("--events").arg(mode).arg("-v")
}

/// A reader of a file that is cold.
pub fn cold_reader(path: &Path, kind: Kind, group: Option<&IoLimit>) -> Result<RunningReader> {
    cool(path)?;
    Reader::new(&readers::program()?, kind, &[path.to_owned()]).start(group)
}

/// Reads in this process.
pub fn here(kind: Kind, path: &Path) -> Result<Report> {
    readers::run(&ReaderArgs {
        kind,
        paths: vec![path.to_owned()],
        cpu_ms: 0.0,
        order_seed: 1,
        cap_ms: None,
        depth: 2,
        request: 1 << 20,
    })
}

/// The process of a reader.
pub fn pid_of(reader: &RunningReader) -> Result<u32> {
    reader.pid().context("a reader has a number")
}

/// Sends a signal.
pub fn signal(process: u32, signal: Signal) -> Result<()> {
    kill(Pid::from_raw(process.cast_signed()), signal).with_context(|| format!("{signal} to {process}"))
}

/// Makes a file cold.
pub fn cool(path: &Path) -> Result<()> {
    sys::drop_pages(&File::open(path)?).with_context(|| format!("make {} cold", path.display()))
}

/// Bytes of a file that are in the page cache.
pub fn resident(path: &Path) -> Result<u64> {
    Ok(sys::resident_pages(&File::open(path)?)?.0 * sys::PAGE)
}

/// Descriptors and mappings that a process has below a directory.
pub fn held(process: u32, below: &Path) -> Result<usize> {
    let descriptors = fs::read_dir(format!("/proc/{process}/fd"))?.flatten();
    let open = descriptors.filter_map(|entry| fs::read_link(entry.path()).ok());
    let maps = fs::read_to_string(format!("/proc/{process}/maps"))?;
    let mapped = maps.lines().filter(|line| line.contains(&*below.to_string_lossy()));
    Ok(open.filter(|path| path.starts_with(below)).count() + mapped.count())
}

/// Waits until `condition` holds.
pub fn until(what: &str, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let begun = Instant::now();
    while !condition()? {
        ensure!(begun.elapsed() < SOON, "not within {SOON:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Waits until `value` stays the same for a second; gives it.
pub fn settled<T: PartialEq>(mut value: impl FnMut() -> Result<T>) -> Result<T> {
    const REST: Duration = Duration::from_secs(1);
    let begun = Instant::now();
    let (mut last, mut since) = (value()?, Instant::now());
    while since.elapsed() < REST {
        ensure!(begun.elapsed() < SOON, "it does not come to rest within {SOON:?}");
        std::thread::sleep(Duration::from_millis(50));
        let now = value()?;
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    Ok(last)
}

/// All receipts so far.
pub fn receipts(agent: &AgentProcess) -> Vec<Value> {
    let lines = agent.lines();
    let objects = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    objects
        .filter(|object| object["event"] == "receipt")
        .map(|object| object["receipt"].clone())
        .collect()
}

/// Waits for the receipt of a process.
pub fn receipt(agent: &AgentProcess, pid: u32) -> Result<Value> {
    let is_its = |receipt: &Value| {
        receipt["pids"]
            .as_array()
            .is_some_and(|pids| pids.contains(&pid.into()))
    };
    let begun = Instant::now();
    while begun.elapsed() < SOON {
        if let Some(found) = receipts(agent).into_iter().find(is_its) {
            return Ok(found);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    bail!("no receipt of {pid}: {}", agent.lines().join(" "))
}

/// A number of an object.
pub fn number(object: &Value, name: &str) -> Result<u64> {
    object[name]
        .as_u64()
        .with_context(|| format!("no number {name} in {object}"))
}

/// What was demanded, which is the sum of its parts.
pub fn demanded(receipt: &Value) -> Result<u64> {
    let parts = [
        "resident_before",
        "kernel_readahead",
        "warmed_in_time",
        "warmed_late",
        "missed",
    ];
    let sum = parts.iter().map(|part| number(receipt, part)).sum::<Result<u64>>()?;
    let demanded = number(receipt, "demanded")?;
    ensure!(sum == demanded, "the parts are {sum} of {demanded}: {receipt}");
    Ok(demanded)
}

/// What the agent brought in.
pub fn warmed(receipt: &Value) -> Result<u64> {
    let parts = ["warmed_in_time", "warmed_late", "wasted"];
    parts.iter().map(|part| number(receipt, part)).sum()
}

/// What the agent's log says of steps that were not warmed.
pub fn log_of(agent: &AgentProcess) -> String {
    let lines = agent.lines();
    let troubles = lines.iter().filter(|line| line.contains("not warmed"));
    troubles.take(2).cloned().collect::<Vec<_>>().join(" ")
}

/// What a receipt says, in MiB.
pub fn in_words(receipt: &Value) -> Result<String> {
    let mib = |name: &str| Ok::<_, anyhow::Error>(number(receipt, name)? >> 20);
    Ok(format!(
        "{} MiB demanded, {} in time, {} late, {} wasted, {} by itself, {} missed",
        mib("demanded")?,
        mib("warmed_in_time")?,
        mib("warmed_late")?,
        mib("wasted")?,
        mib("kernel_readahead")?,
        mib("missed")?,
    ))
}
