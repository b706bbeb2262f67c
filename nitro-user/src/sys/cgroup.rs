//! Memory cgroups, of version 1 and 2: whose account a page is on, and what is left there.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::units::ByteCount;

/// Mount points of version 2, alone and beside version 1, and of the memory controller of version 1, below the root: where systemd and every distribution put them.
const UNIFIED: [&str; 2] = ["sys/fs/cgroup", "sys/fs/cgroup/unified"];
const MEMORY: &str = "sys/fs/cgroup/memory";

/// Version 1 says "no limit" with a number near 2^63.
const NO_LIMIT: u64 = 1 << 60;

/// A memory cgroup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryGroup {
    /// Path below the mount point, as in /proc/PID/cgroup.
    name: String,
    mount: PathBuf,
    version: Version,
}

/// Of the control groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Version {
    One,
    Two,
}

impl Version {
    /// Files with the limit and with what is used.
    const fn files(self) -> (&'static str, &'static str) {
        match self {
            Self::One => ("memory.limit_in_bytes", "memory.usage_in_bytes"),
            Self::Two => ("memory.max", "memory.current"),
        }
    }
}

/// The memory cgroup of a process; `None` where there is none, or it is outside of what this process sees.
pub fn of_process(process: u32) -> Option<MemoryGroup> {
    of_table(
        &fs::read_to_string(format!("/proc/{process}/cgroup")).ok()?,
        Path::new("/"),
    )
}

/// The memory cgroup that a table in the format of /proc/PID/cgroup names, on a machine whose files are below `root`.
pub fn of_table(table: &str, root: &Path) -> Option<MemoryGroup> {
    let groups = table.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, name) = (fields.next()?, fields.next()?, fields.next()?);
        // Outside of the own cgroup namespace.
        (!Path::new(name).components().any(|part| part.as_os_str() == "..")).then_some((controllers, name))
    });
    let groups: Vec<(&str, &str)> = groups.collect();
    let group = |name: &str, mount: &str, version| MemoryGroup {
        name: name.to_owned(),
        mount: root.join(mount),
        version,
    };
    let first = groups
        .iter()
        .find(|(controllers, _)| controllers.split(',').any(|controller| controller == "memory"));
    if let Some((_, name)) = first {
        return Some(group(name, MEMORY, Version::One));
    }
    let (_, name) = groups.iter().find(|(controllers, _)| controllers.is_empty())?;
    let mount = UNIFIED
        .iter()
        .find(|mount| root.join(mount).join("cgroup.controllers").exists())?;
    Some(group(name, mount, Version::Two))
}

impl MemoryGroup {
    /// As in /proc/PID/cgroup.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is one of Kubernetes' containers.
    pub fn is_of_kubernetes(&self) -> bool {
        self.name.contains("kubepods")
    }

    /// Its directory.
    pub fn directory(&self) -> PathBuf {
        self.mount.join(self.name.trim_start_matches('/'))
    }

    /// What its limits leave, the tightest of all levels; `None` without a limit.
    pub fn left(&self) -> Option<ByteCount> {
        let below = Path::new(self.name.trim_start_matches('/'));
        let (limit, usage) = self.version.files();
        let levels = below.ancestors().filter_map(|level| {
            let directory = self.mount.join(level);
            let number = |file: &str| {
                fs::read_to_string(directory.join(file))
                    .ok()?
                    .trim()
                    .parse::<u64>()
                    .ok()
            };
            let (limit, usage) = (number(limit)?, number(usage)?);
            (limit < NO_LIMIT).then(|| limit.saturating_sub(usage))
        });
        levels.min().map(ByteCount)
    }

    /// Moves this process into it.
    ///
    /// # Errors
    /// `ENOENT`: it is gone. `EACCES`: the right to write there is missing. `EBUSY`, `EOPNOTSUPP`: it may hold no processes (version 2).
    pub fn join(&self) -> io::Result<()> {
        fs::write(self.directory().join("cgroup.procs"), "0")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_controller_of_version_1_goes_first() {
        let table = "12:cpu,cpuacct:/a\n7:memory:/b/c d\n0::/e\n";
        let of_table = |table| of_table(table, Path::new("/"));
        let group = of_table(table).unwrap();
        assert_eq!(group.name(), "/b/c d");
        assert_eq!(group.directory(), Path::new("/sys/fs/cgroup/memory/b/c d"));
        assert_eq!(of_table("7:memory:/../other\n"), None, "outside of the namespace");
        assert_eq!(of_table("rubbish\n"), None);
    }

    #[test]
    fn this_process_has_one() {
        let group = of_process(std::process::id()).unwrap();
        assert!(group.directory().is_dir(), "{group:?}");
    }

    #[test]
    fn containers_of_kubernetes_are_known_by_their_name() {
        let of_table = |table| of_table(table, Path::new("/"));
        let group = of_table("3:memory:/kubepods/burstable/pod1/abc\n").unwrap();
        assert!(group.is_of_kubernetes());
        assert!(!of_table("3:memory:/user.slice\n").unwrap().is_of_kubernetes());
    }
}
