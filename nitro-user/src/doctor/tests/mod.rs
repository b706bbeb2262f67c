//! The doctor on machines that tests have made of files.

mod hostile;
mod limits;
mod machines;
mod places;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    Facts, Question, Report, Tried,
    events::{MODES, Trial},
    finding::{Finding, State},
    machine::Machine,
    rights,
};
use crate::source::attach::{Attachment, EventMode};

/// A machine with all that the agent uses; tests take from it and add to it.
struct Tree(tempfile::TempDir);

impl Tree {
    fn whole() -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        for (path, text) in [
            ("proc/sys/kernel/osrelease", "6.18.1-generic\n"),
            ("proc/version", "Linux version 6.18.1-generic (builder@host)\n"),
            ("proc/meminfo", "MemTotal:       16777216 kB\nMemFree: 1 kB\n"),
            (
                "proc/pressure/memory",
                "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
            ),
            ("proc/swaps", "Filename\tType\tSize\tUsed\tPriority\n"),
            ("proc/self/cgroup", "0::/user.slice\n"),
            ("proc/cmdline", "quiet\n"),
            ("proc/sys/net/core/bpf_jit_enable", "1\n"),
            ("proc/sys/kernel/bpf_stats_enabled", "0\n"),
            ("proc/sys/vm/swappiness", "60\n"),
            ("proc/sys/vm/vfs_cache_pressure", "100\n"),
            ("proc/sys/vm/zone_reclaim_mode", "0\n"),
            ("proc/sys/fs/inotify/max_user_watches", "65536\n"),
            ("sys/kernel/security/lockdown", "[none] integrity confidentiality\n"),
            ("sys/kernel/tracing/events/enable", "0\n"),
            ("sys/kernel/mm/lru_gen/enabled", "0x0007\n"),
            (
                "sys/kernel/mm/transparent_hugepage/shmem_enabled",
                "always [never] deny force\n",
            ),
            ("sys/module/damon_reclaim/parameters/enabled", "N\n"),
            ("sys/module/loop/parameters/max_loop", "8\n"),
            ("sys/fs/cgroup/cgroup.controllers", "cpu io memory\n"),
            ("sys/fs/cgroup/user.slice/memory.max", "max\n"),
            ("dev/loop-control", ""),
            (
                "boot/config-6.18.1-generic",
                "CONFIG_PSI=y\nCONFIG_FUSE_FS=m\nCONFIG_FUSE_PASSTHROUGH=y\n",
            ),
        ] {
            tree.file(path, text);
        }
        tree.file("sys/kernel/btf/vmlinux", [0x9f, 0xeb, 1, 0]);
        tree.disk("nvme0n1", (259, 0), "[none] mq-deadline kyber", 128, 1280);
        tree.partition("nvme0n1", "nvme0n1p1", (259, 1));
        tree.mounts("27 1 259:1 / / rw,relatime - ext4 /dev/nvme0n1p1 rw\n");
        fs::create_dir(tree.path("models")).unwrap();
        tree
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn file(&self, path: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn remove(&self, path: &str) {
        let path = self.path(path);
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap();
        } else {
            fs::remove_file(path).unwrap();
        }
    }

    fn link(&self, path: &str, target: &Path) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(target, path).unwrap();
    }

    fn mounts(&self, table: &str) {
        self.file("proc/thread-self/mountinfo", table);
    }

    /// A disk with what its queue tells, in KiB.
    fn disk(&self, name: &str, (major, minor): (u32, u32), scheduler: &str, read_ahead: u64, request: u64) {
        let place = format!("sys/devices/{name}");
        self.file(&format!("{place}/dev"), format!("{major}:{minor}\n"));
        self.file(&format!("{place}/size"), "2097152\n");
        self.file(&format!("{place}/queue/scheduler"), format!("{scheduler}\n"));
        self.file(&format!("{place}/queue/rotational"), "0\n");
        self.file(&format!("{place}/queue/read_ahead_kb"), format!("{read_ahead}\n"));
        self.file(&format!("{place}/queue/max_sectors_kb"), format!("{request}\n"));
        self.file(&format!("{place}/queue/max_hw_sectors_kb"), "4096\n");
        let target = self.path(&place);
        for link in ["sys/block", "sys/class/block"] {
            self.link(&format!("{link}/{name}"), &target);
        }
        self.link(&format!("sys/dev/block/{major}:{minor}"), &target);
    }

    fn partition(&self, disk: &str, name: &str, (major, minor): (u32, u32)) {
        let place = format!("sys/devices/{disk}/{name}");
        self.file(&format!("{place}/partition"), "1\n");
        self.file(&format!("{place}/size"), "1048576\n");
        let target = self.path(&place);
        self.link(&format!("sys/class/block/{name}"), &target);
        self.link(&format!("sys/dev/block/{major}:{minor}"), &target);
    }

    fn machine(&self) -> Machine {
        Machine {
            architecture: "x86_64",
            page: 4096,
            ..Machine::at(self.0.path())
        }
    }

    /// What is said of `/models` there by root, where all modes work.
    fn report(&self) -> Report {
        self.report_on(&["/models"], tried([true; 4]))
    }

    fn report_on(&self, watch: &[&str], tried: Tried) -> Report {
        let question = Question {
            watch: watch.iter().map(PathBuf::from).collect(),
            ..Question::default()
        };
        let report = Facts::gather(&self.machine(), question, tried, Vec::new).report();
        assert_sound(&report);
        report
    }
}

/// What was tried by root, each mode with this success.
fn tried(works: [bool; 4]) -> Tried {
    let trial = |(mode, works): (EventMode, bool)| Trial {
        mode,
        outcome: works
            .then(|| Attachment {
                mode,
                why: "as asked".into(),
                price: None,
                programs: Vec::new(),
            })
            .ok_or_else(|| "refused by the kernel".to_owned()),
        took: Duration::from_millis(4),
    };
    Tried {
        rights: rights::Facts {
            user: 0,
            ebpf: Vec::new(),
            fanotify: Vec::new(),
            memlock: (Some(8 << 20), None),
        },
        events: MODES.into_iter().zip(works).map(trial).collect(),
        fuse: Ok(true),
        cachestat: true,
    }
}

/// Whoever reads that something is wrong reads what it costs and what to do, in a line that controls no terminal.
fn assert_sound(report: &Report) {
    for finding in &report.findings {
        let Finding {
            name,
            value,
            lost,
            remedy,
            ..
        } = finding;
        assert!(!name.is_empty() && !value.is_empty(), "{finding:?}");
        if finding.is_bad() {
            assert!(lost.as_ref().is_some_and(|lost| !lost.is_empty()), "{finding:?}");
            assert!(remedy.as_ref().is_some_and(|remedy| !remedy.is_empty()), "{finding:?}");
        }
        for text in [Some(name), Some(value), lost.as_ref(), remedy.as_ref()]
            .into_iter()
            .flatten()
        {
            assert!(!text.chars().any(char::is_control), "{finding:?}");
            assert!(!text.contains("  "), "{finding:?}");
        }
    }
    let mut subjects: Vec<_> = report.findings.iter().map(|finding| finding.subject).collect();
    assert!(subjects.is_sorted(), "each subject once: {subjects:?}");
    subjects.dedup();
    assert!(subjects.len() >= 8);
    assert!(!report.verdict.words.is_empty());
    serde_json::to_string(report).unwrap();
}

/// The finding with this name.
#[track_caller]
fn of<'a>(report: &'a Report, name: &str) -> &'a Finding {
    let found = report.findings.iter().find(|finding| finding.name == name);
    found.unwrap_or_else(|| panic!("nothing is said of {name}: {:#?}", report.findings))
}

#[track_caller]
fn state(report: &Report, name: &str) -> State {
    of(report, name).state
}
