//! What a group's members may take of memory, page cache included: of version 1 in a hierarchy of its own, of version 2 in the group itself.
//!
//! They may swap nothing: what is measured is what the page cache gives way to.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use super::{V2, hand_down};
use crate::{
    bench::{scratch, sweep},
    sys::measure::PAGE,
};

pub(super) const V1: &str = "/sys/fs/cgroup/memory";

/// A limit of memory. A group of version 1 is removed on drop, after ending whoever is still in it.
#[derive(Debug)]
pub struct MemoryLimit {
    group: PathBuf,
    version: Version,
    /// The group was made for this alone.
    own: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl MemoryLimit {
    /// Limits the members to `bytes`: in a group of its own, or, of version 2, in `beside`, where that is of the same hierarchy.
    pub(super) fn new(bytes: u64, beside: &Path) -> Result<Self> {
        let by_two = |all: String| all.split_whitespace().any(|controller| controller == "memory");
        let (version, own) = if Path::new(V1).join("memory.limit_in_bytes").exists() {
            (Version::One, true)
        } else if fs::read_to_string(Path::new(V2).join("cgroup.controllers")).is_ok_and(by_two) {
            hand_down("memory")?;
            (Version::Two, beside.parent() != Some(Path::new(V2)))
        } else {
            bail!("no control group can limit memory here: neither {V1} nor the memory controller of {V2}");
        };
        let group = if own {
            let parent = if version == Version::One { V1 } else { V2 };
            let group = Path::new(parent).join(scratch::unique_name()?);
            fs::create_dir(&group).with_context(|| format!("create the group {}", group.display()))?;
            group
        } else {
            beside.to_owned()
        };
        let limit = Self { group, version, own };
        let (memory, swap) = match version {
            Version::One => ("memory.limit_in_bytes", ("memory.memsw.limit_in_bytes", bytes)),
            Version::Two => ("memory.max", ("memory.swap.max", 0)),
        };
        limit.write(memory, bytes)?;
        // A kernel that cannot swap, or does not count it, has no such file.
        if limit.group.join(swap.0).exists() {
            limit.write(swap.0, swap.1)?;
        }
        Ok(limit)
    }

    /// The file through which a process enters, where that is another than the one of the group beside it.
    pub(super) fn entrance(&self) -> Option<PathBuf> {
        self.own.then(|| self.group.join("cgroup.procs"))
    }

    /// Bytes that members have taken.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn used(&self) -> Result<u64> {
        let text = self.read(match self.version {
            Version::One => "memory.usage_in_bytes",
            Version::Two => "memory.current",
        })?;
        text.trim().parse().context("what a group uses")
    }

    /// Bytes of these that are no pages of files: neither such as would go for others, nor such as are locked.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn own(&self) -> Result<u64> {
        let files = ["inactive_file", "active_file", "unevictable"].map(|name| self.counter("memory.stat", name));
        let files: u64 = files.into_iter().sum::<Result<_>>()?;
        Ok(self.used()?.saturating_sub(files))
    }

    /// Bytes of files that the kernel takes for often used.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn used_often(&self) -> Result<u64> {
        self.counter("memory.stat", "active_file")
    }

    /// Bytes of files that had been evicted and were read again by a member (`workingset_refault_file`, Linux 5.9).
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn refaults(&self) -> Result<u64> {
        Ok(self.counter("memory.stat", "workingset_refault_file")? * PAGE)
    }

    /// Members that were killed for want of memory.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn kills(&self) -> Result<u64> {
        self.counter(
            match self.version {
                Version::One => "memory.oom_control",
                Version::Two => "memory.events",
            },
            "oom_kill",
        )
    }

    fn counter(&self, file: &str, name: &str) -> Result<u64> {
        let text = self.read(file)?;
        let lines = text.lines().filter_map(|line| line.split_once(' '));
        lines
            .filter(|(key, _)| *key == name)
            .find_map(|(_, count)| count.trim().parse().ok())
            .with_context(|| format!("{name} in {}", self.group.join(file).display()))
    }

    fn read(&self, file: &str) -> Result<String> {
        let path = self.group.join(file);
        fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    }

    fn write(&self, file: &str, bytes: u64) -> Result<()> {
        let path = self.group.join(file);
        fs::write(&path, bytes.to_string()).with_context(|| format!("write {bytes} to {}", path.display()))
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        if self.own {
            sweep::end_members(&self.group);
            sweep::remove_group(&self.group);
        }
    }
}
