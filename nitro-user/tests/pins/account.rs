//! Memory cgroups, of whichever version there is.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use nitro_user::{
    bench::{scratch, sweep},
    sys::measure,
};

const ONE: &str = "/sys/fs/cgroup/memory";
const TWO: &str = "/sys/fs/cgroup";

/// A memory cgroup; removed on drop.
pub struct Account(PathBuf);

impl Account {
    pub fn new(limit: Option<u64>) -> Self {
        let parent = if Path::new(ONE).exists() { ONE } else { TWO };
        Self::made(&Path::new(parent).join(scratch::unique_name().unwrap()), limit)
    }

    fn made(directory: &Path, limit: Option<u64>) -> Self {
        fs::create_dir(directory).unwrap();
        let account = Self(directory.to_owned());
        if let Some(limit) = limit {
            account.limit(limit);
        }
        account
    }

    /// One below it, without a limit. To be dropped first.
    pub fn below(&self, name: &str) -> Self {
        // A controller works in a group only when its parent hands it down.
        let _ = fs::write(self.0.join("cgroup.subtree_control"), "+memory");
        Self::made(&self.0.join(name), None)
    }

    pub fn limit(&self, bytes: u64) {
        let names = ["memory.limit_in_bytes", "memory.max"];
        let name = names.iter().find(|name| self.0.join(name).exists()).unwrap();
        fs::write(self.0.join(name), bytes.to_string()).unwrap();
    }

    /// For writing the numbers of those who enter it.
    pub fn members(&self) -> File {
        File::options().write(true).open(self.0.join("cgroup.procs")).unwrap()
    }

    /// One of its members reads a file, which is charged to it as far as it is not in memory yet.
    pub fn reads(&self, path: &Path) {
        let mut reader = Command::new("cat");
        reader.stdin(File::open(path).unwrap()).stdout(Stdio::null());
        measure::enter_before_exec(&mut reader, vec![self.members()]);
        assert!(reader.status().unwrap().success());
    }

    /// Whether nobody is in it.
    pub fn is_empty(&self) -> bool {
        fs::read_to_string(self.0.join("cgroup.procs")).unwrap().is_empty()
    }

    /// Whether /proc/PID/cgroup calls it so.
    pub fn is_called(&self, name: &str) -> bool {
        let parent = if self.0.starts_with(ONE) { ONE } else { TWO };
        self.0.strip_prefix(parent).unwrap() == Path::new(name.trim_start_matches('/'))
    }

    /// How many of its members were killed for want of memory, where that is told.
    pub fn killed(&self) -> Option<u64> {
        let names = ["memory.oom_control", "memory.events"];
        let text = names
            .iter()
            .find_map(|name| fs::read_to_string(self.0.join(name)).ok())?;
        text.lines()
            .find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok())
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        sweep::end_members(&self.0);
        sweep::remove_group(&self.0);
    }
}
