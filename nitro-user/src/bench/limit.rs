//! A control group that limits what its members read from a device, in cgroup v1 (blkio) and v2 (io.max).
//!
//! Reader and agent enter the same group: what the agent reads is paid from the same allowance. The kernel counts bios after
//! they were split at the device's limits, so scattered 4 KiB pages cost more operations than one large folio.

mod memory;

use std::{
    fs::{self, File, OpenOptions},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

pub use self::memory::MemoryLimit;
use super::{scratch, sweep};
use crate::sys::measure;

const V1: &str = "/sys/fs/cgroup/blkio";
const V2: &str = "/sys/fs/cgroup";

/// What a device allows; 0 means no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// Bytes read per second.
    pub bytes_per_second: u64,
    /// Read requests per second.
    pub operations_per_second: u64,
}

impl Limit {
    /// No limit.
    pub const NONE: Self = Self {
        bytes_per_second: 0,
        operations_per_second: 0,
    };

    /// Seconds that reading `bytes` takes at least, in requests of 1 MiB; none without a limit.
    pub fn nominal_seconds(self, bytes: u64) -> Option<f64> {
        let by_bytes = (self.bytes_per_second > 0).then(|| bytes as f64 / self.bytes_per_second as f64);
        let by_operations = (self.operations_per_second > 0)
            .then(|| bytes.div_ceil(1 << 20) as f64 / self.operations_per_second as f64);
        by_bytes.into_iter().chain(by_operations).reduce(f64::max)
    }
}

/// Number of a block device: major, minor.
pub type DeviceNumber = (u32, u32);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// One group; its members share the limits set on it. Removed on drop, after ending whoever is still in it.
///
/// Of version 2 the root hands its `io` controller down from then on, if it did not already. That is not taken back: whoever made a group of its own meanwhile, another run or a
/// container, would lose its limits without a word, and a controller that nobody uses costs nothing.
#[derive(Debug)]
pub struct IoLimit {
    // Before the group: of version 2 it is the same.
    memory: Option<MemoryLimit>,
    group: PathBuf,
    version: Version,
}

impl IoLimit {
    /// Makes a group without limits.
    ///
    /// # Errors
    /// When neither hierarchy can limit input and output here, or the group cannot be made.
    pub fn new() -> Result<Self> {
        sweep::rest_if_interrupted();
        let version = version()?;
        let parent = match version {
            Version::One => V1,
            Version::Two => {
                hand_down("io")?;
                V2
            }
        };
        let group = Path::new(parent).join(scratch::unique_name()?);
        fs::create_dir(&group).with_context(|| format!("create the group {}", group.display()))?;
        Ok(Self {
            memory: None,
            group,
            version,
        })
    }

    /// Makes a group whose members may take so much memory, page cache included, and swap none of it.
    ///
    /// # Errors
    /// As [`IoLimit::new`]; when no hierarchy can limit memory here.
    pub fn with_memory(bytes: u64) -> Result<Self> {
        let mut group = Self::new()?;
        group.memory = Some(MemoryLimit::new(bytes, &group.group)?);
        Ok(group)
    }

    /// Its limit of memory.
    ///
    /// # Errors
    /// When it has none.
    pub fn memory(&self) -> Result<&MemoryLimit> {
        self.memory.as_ref().context("the group has no limit of memory")
    }

    /// Its directory; of version 2 the other controllers' files are there, too.
    pub fn directory(&self) -> &Path {
        &self.group
    }

    /// Limits what members read from `device`, replacing an earlier limit.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set(&self, (major, minor): DeviceNumber, limit: Limit) -> Result<()> {
        match self.version {
            Version::One => {
                self.write(
                    "blkio.throttle.read_bps_device",
                    &format!("{major}:{minor} {}", limit.bytes_per_second),
                )?;
                self.write(
                    "blkio.throttle.read_iops_device",
                    &format!("{major}:{minor} {}", limit.operations_per_second),
                )
            }
            Version::Two => {
                let or_max = |value: u64| {
                    if value == 0 {
                        "max".to_owned()
                    } else {
                        value.to_string()
                    }
                };
                let line = format!(
                    "{major}:{minor} rbps={} riops={}",
                    or_max(limit.bytes_per_second),
                    or_max(limit.operations_per_second)
                );
                self.write("io.max", &line)
            }
        }
    }

    /// Read requests that members have put to `device`, as the limit counts them.
    ///
    /// # Errors
    /// When the counter cannot be read.
    pub fn requests(&self, (major, minor): DeviceNumber) -> Result<u64> {
        let file = match self.version {
            Version::One => "blkio.throttle.io_serviced",
            Version::Two => "io.stat",
        };
        let path = self.group.join(file);
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let device = format!("{major}:{minor}");
        let mut lines = text
            .lines()
            .filter_map(|line| line.strip_prefix(&device))
            .map(str::split_whitespace);
        Ok(match self.version {
            Version::One => {
                lines.find_map(|mut words| (words.next() == Some("Read")).then(|| words.next()?.parse().ok())?)
            }
            Version::Two => lines.find_map(|mut words| words.find_map(|word| word.strip_prefix("rios=")?.parse().ok())),
        }
        .unwrap_or(0))
    }

    /// Has the command's process start as a member.
    ///
    /// # Errors
    /// When the group cannot be opened.
    pub fn join(&self, command: &mut Command) -> Result<()> {
        let memory = self.memory.as_ref().and_then(MemoryLimit::entrance);
        let entrances = [self.group.join("cgroup.procs")].into_iter().chain(memory);
        let open = |path: PathBuf| -> Result<File> {
            let procs = OpenOptions::new().write(true).open(&path);
            procs.with_context(|| format!("open {}", path.display()))
        };
        measure::enter_before_exec(command, entrances.map(open).collect::<Result<_>>()?);
        Ok(())
    }

    fn write(&self, file: &str, line: &str) -> Result<()> {
        let path = self.group.join(file);
        fs::write(&path, line).with_context(|| format!("write {line:?} to {}", path.display()))
    }
}

impl Drop for IoLimit {
    fn drop(&mut self) {
        sweep::end_members(&self.group);
        sweep::remove_group(&self.group);
    }
}

/// Whether groups can limit reads here. Nothing is made.
///
/// # Errors
/// Neither hierarchy can.
pub fn available() -> Result<()> {
    version().map(drop)
}

fn version() -> Result<Version> {
    let by_two = |all: String| all.split_whitespace().any(|controller| controller == "io");
    if Path::new(V1).join("blkio.throttle.read_bps_device").exists() {
        Ok(Version::One)
    } else if fs::read_to_string(Path::new(V2).join("cgroup.controllers")).is_ok_and(by_two) {
        Ok(Version::Two)
    } else {
        bail!("no control group can limit reads here: neither {V1} nor the io controller of {V2}");
    }
}

/// Directories in which groups of a bench can be found.
pub fn group_parents() -> [PathBuf; 3] {
    [V1, memory::V1, V2].map(PathBuf::from)
}

/// A controller works in a group of version 2 only when its parent hands it down.
fn hand_down(controller: &str) -> Result<()> {
    let control = Path::new(V2).join("cgroup.subtree_control");
    let before = fs::read_to_string(&control).context("controllers of child groups")?;
    if !before.split_whitespace().any(|word| word == controller) {
        fs::write(&control, format!("+{controller}"))
            .with_context(|| format!("hand the {controller} controller to child groups"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tighter_of_two_limits_gives_the_time() {
        let limit = Limit {
            bytes_per_second: 1_000_000_000,
            operations_per_second: 1000,
        };
        assert!((limit.nominal_seconds(2 << 30).unwrap() - 2.147).abs() < 0.001);
        let few = Limit {
            bytes_per_second: 1_000_000_000,
            operations_per_second: 500,
        };
        assert!((few.nominal_seconds(1 << 30).unwrap() - 2.048).abs() < 0.001);
        assert_eq!(Limit::NONE.nominal_seconds(1 << 30), None);
    }
}
