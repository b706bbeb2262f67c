//! Memory cgroups, of version 1 and 2: whose account a page is on, and what is left there.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::page_size;
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

/// A limit on the way up from a memory cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitAt {
    /// The cgroup that has it, as in /proc/PID/cgroup.
    pub name: String,
    /// What it allows.
    pub bytes: ByteCount,
}

/// Of the control groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Version {
    One,
    Two,
}

impl Version {
    /// Files with limits. Above `memory.high` nobody is killed, and whoever takes more has to wait until as much has gone.
    const fn limits(self) -> &'static [&'static str] {
        match self {
            Self::One => &["memory.limit_in_bytes"],
            Self::Two => &["memory.max", "memory.high"],
        }
    }

    /// In `memory.stat`: pages of files that were evicted and read again, in the cgroup and below it (Linux 5.9).
    const fn refaults(self) -> &'static str {
        match self {
            Self::One => "total_workingset_refault_file",
            Self::Two => "workingset_refault_file",
        }
    }

    /// The file with what is used.
    const fn usage(self) -> &'static str {
        match self {
            Self::One => "memory.usage_in_bytes",
            Self::Two => "memory.current",
        }
    }

    /// In `memory.stat`: pages of files that nobody has used for a while, in the cgroup and below it.
    const fn idle(self) -> &'static str {
        match self {
            Self::One => "total_inactive_file",
            Self::Two => "inactive_file",
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

    /// What its limits leave, the tightest of all levels; `None` without a limit. Nothing that is there has to go for it.
    pub fn left(&self) -> Option<ByteCount> {
        self.least(|directory| number(&directory.join(self.version.usage())))
    }

    /// The same once the pages of files that nobody uses have gone: a cgroup that has read for a while is full of them.
    pub fn room(&self) -> Option<ByteCount> {
        self.least(|directory| {
            let used = number(&directory.join(self.version.usage()))?;
            let table = fs::read_to_string(directory.join("memory.stat")).unwrap_or_default();
            Some(used.saturating_sub(of_name(&table, self.version.idle()).unwrap_or(0)))
        })
    }

    /// Pages of files that were evicted and read again below the nearest limit, in bytes since it was made; `None` without a limit, or where the kernel does not tell.
    pub fn refaults(&self) -> Option<ByteCount> {
        let below = Path::new(self.name.trim_start_matches('/'));
        let limits = |directory: &PathBuf| {
            let mut files = self.version.limits().iter();
            files.any(|file| number(&directory.join(file)).is_some_and(|limit| limit < NO_LIMIT))
        };
        let nearest = below.ancestors().map(|level| self.mount.join(level)).find(limits)?;
        let table = fs::read_to_string(nearest.join("memory.stat")).ok()?;
        let pages = of_name(&table, self.version.refaults())?;
        Some(ByteCount(pages.saturating_mul(page_size())))
    }

    /// What `memory.swap.max` allows, the least of all levels; `None` without a limit. Version 1 limits memory and swap together, which is not told here.
    pub fn swap(&self) -> Option<ByteCount> {
        if self.version == Version::One {
            return None;
        }
        let below = Path::new(self.name.trim_start_matches('/'));
        let levels = below.ancestors();
        let limits = levels.filter_map(|level| number(&self.mount.join(level).join("memory.swap.max")));
        limits.min().map(ByteCount)
    }

    /// The least of what is left of each limit, where `used` is what counts of a cgroup.
    fn least(&self, used: impl Fn(&Path) -> Option<u64>) -> Option<ByteCount> {
        let below = Path::new(self.name.trim_start_matches('/'));
        let levels = below.ancestors().filter_map(|level| {
            let directory = self.mount.join(level);
            let limits = self.version.limits().iter();
            let limit = limits.filter_map(|file| number(&directory.join(file))).min()?;
            let used = used(&directory)?;
            (limit < NO_LIMIT).then(|| limit.saturating_sub(used))
        });
        levels.min().map(ByteCount)
    }

    /// The nearest limit from here up that does not bind `other` as well: what its members have against it is theirs alone.
    ///
    /// # Errors
    /// A limit cannot be read that is there.
    pub fn limit_apart_from(&self, other: &Self) -> io::Result<Option<LimitAt>> {
        let relative = |group: &Self| PathBuf::from(group.name.trim_start_matches('/'));
        let (below, theirs) = (relative(self), relative(other));
        let shared = |level: &Path| self.mount == other.mount && theirs.starts_with(level);
        for level in below.ancestors().filter(|level| !shared(level)) {
            let mut least = None;
            for file in self.version.limits() {
                let text = match fs::read_to_string(self.mount.join(level).join(file)) {
                    // The controller is off there.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    text => text?,
                };
                let limit = text.trim().parse().ok().filter(|limit| *limit < NO_LIMIT);
                least = least.into_iter().chain(limit).min();
            }
            if let Some(limit) = least {
                return Ok(Some(LimitAt {
                    name: Path::new("/").join(level).to_string_lossy().into_owned(),
                    bytes: ByteCount(limit),
                }));
            }
        }
        Ok(None)
    }

    /// Where its hierarchy is mounted.
    pub fn mount(&self) -> &Path {
        &self.mount
    }

    /// The group of the same hierarchy whose directory this is; `None` for a name that is no text, and for what is elsewhere.
    pub fn beside(&self, directory: &Path) -> Option<Self> {
        let name = directory.strip_prefix(&self.mount).ok()?.to_str()?;
        Some(Self {
            name: format!("/{name}"),
            ..self.clone()
        })
    }

    /// Moves this process into it.
    ///
    /// # Errors
    /// `ENOENT`: it is gone. `EACCES`: the right to write there is missing. `EBUSY`, `EOPNOTSUPP`: it may hold no processes (version 2).
    pub fn join(&self) -> io::Result<()> {
        fs::write(self.directory().join("cgroup.procs"), "0")
    }
}

/// A file that is one number; `None` also for `max`, which is no limit.
fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// The number behind a name in `memory.stat`.
fn of_name(table: &str, name: &str) -> Option<u64> {
    let mut lines = table.lines().filter_map(|line| line.split_once(' '));
    lines.find_map(|(key, value)| (key == name).then(|| value.trim().parse().ok())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cgroup `/a/b` with these files in `a/b`, below `mount`.
    fn group(mount: &Path, version: Version, files: &[(&str, &str)]) -> MemoryGroup {
        let group = MemoryGroup {
            name: "/a/b".into(),
            mount: mount.to_owned(),
            version,
        };
        fs::create_dir_all(group.directory()).unwrap();
        for (file, text) in files {
            fs::write(group.directory().join(file), text).unwrap();
        }
        group
    }

    #[test]
    fn the_tightest_limit_of_all_levels_counts() {
        let mount = tempfile::tempdir().unwrap();
        let files = [
            ("memory.max", "max\n"),
            ("memory.high", "max\n"),
            ("memory.current", "700\n"),
        ];
        let group = group(mount.path(), Version::Two, &files);
        assert_eq!(group.left(), None, "no limit");
        let write = |file: &str, text: &str| fs::write(group.directory().join(file), text).unwrap();
        write("memory.max", "2000\n");
        assert_eq!(group.left(), Some(ByteCount(1300)));
        write("memory.high", "1000\n");
        assert_eq!(group.left(), Some(ByteCount(300)), "who goes beyond it waits");
        let above = mount.path().join("a");
        fs::write(above.join("memory.max"), "5000\n").unwrap();
        assert_eq!(group.left(), Some(ByteCount(300)), "nobody knows what is used there");
        fs::write(above.join("memory.current"), "4900\n").unwrap();
        assert_eq!(group.left(), Some(ByteCount(100)));
        fs::write(above.join("memory.current"), "6000\n").unwrap();
        assert_eq!(group.left(), Some(ByteCount(0)));
    }

    #[test]
    fn pages_that_nobody_uses_make_room() {
        let mount = tempfile::tempdir().unwrap();
        let stat = "anon 100\ninactive_file 550\nactive_file 50\n";
        let files = [
            ("memory.high", "1000"),
            ("memory.current", "900"),
            ("memory.stat", stat),
        ];
        let two = group(mount.path(), Version::Two, &files);
        assert_eq!((two.left(), two.room()), (Some(ByteCount(100)), Some(ByteCount(650))));
        fs::write(two.directory().join("memory.stat"), "inactive_file many\n").unwrap();
        assert_eq!(two.room(), two.left());

        let mount = tempfile::tempdir().unwrap();
        let stat = "inactive_file 1\ntotal_inactive_file 200\n";
        let files = [
            ("memory.limit_in_bytes", "1000"),
            ("memory.usage_in_bytes", "900"),
            ("memory.stat", stat),
        ];
        let one = group(mount.path(), Version::One, &files);
        assert_eq!((one.left(), one.room()), (Some(ByteCount(100)), Some(ByteCount(300))));
        fs::write(one.directory().join("memory.limit_in_bytes"), "9223372036854771712").unwrap();
        assert_eq!(one.left(), None, "its way to say that there is none");
    }

    #[test]
    fn what_is_read_again_is_counted_where_the_limit_is() {
        for (version, file, name) in [
            (Version::One, "memory.limit_in_bytes", "total_workingset_refault_file"),
            (Version::Two, "memory.max", "workingset_refault_file"),
        ] {
            let mount = tempfile::tempdir().unwrap();
            let stat = |pages: u64| format!("workingset_refault_anon 9\n{name} {pages}\n");
            let group = group(mount.path(), version, &[("memory.stat", &stat(3))]);
            assert_eq!(group.refaults(), None, "no limit");
            let above = mount.path().join("a");
            fs::write(above.join(file), "5000\n").unwrap();
            fs::write(above.join("memory.stat"), stat(7)).unwrap();
            assert_eq!(group.refaults(), Some(ByteCount(7 * page_size())));
            fs::write(group.directory().join(file), "4000\n").unwrap();
            assert_eq!(group.refaults(), Some(ByteCount(3 * page_size())));
        }
    }

    #[test]
    fn a_limit_that_binds_us_too_is_not_theirs_alone() {
        for (version, file, none) in [
            (Version::One, "memory.limit_in_bytes", "9223372036854771712\n"),
            (Version::Two, "memory.max", "max\n"),
        ] {
            let mount = tempfile::tempdir().unwrap();
            let theirs = group(mount.path(), version, &[(file, none)]);
            let top = theirs.beside(mount.path()).unwrap();
            let cousin = theirs.beside(&mount.path().join("a/c")).unwrap();
            assert_eq!((top.name(), cousin.name()), ("/", "/a/c"));
            let apart = |other: &MemoryGroup| theirs.limit_apart_from(other).unwrap();
            assert_eq!(apart(&top), None);
            fs::write(mount.path().join("a").join(file), "5000\n").unwrap();
            let above = LimitAt {
                name: "/a".into(),
                bytes: ByteCount(5000),
            };
            assert_eq!(apart(&top), Some(above));
            assert_eq!(
                apart(&cousin),
                None,
                "the kernel looks for somebody to kill below /a, and finds us"
            );
            fs::write(theirs.directory().join(file), "300\n").unwrap();
            let nearest = Some(ByteCount(300));
            assert_eq!(apart(&cousin).map(|limit| limit.bytes), nearest);
            assert_eq!(apart(&theirs), None);
        }
        let mount = tempfile::tempdir().unwrap();
        let two = group(
            mount.path(),
            Version::Two,
            &[("memory.max", "max"), ("memory.high", "70")],
        );
        let top = two.beside(mount.path()).unwrap();
        let limit = two.limit_apart_from(&top).unwrap().unwrap();
        assert_eq!((limit.name.as_str(), limit.bytes), ("/a/b", ByteCount(70)));
        assert_eq!(two.beside(Path::new("/elsewhere")), None);
    }

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
