//! The first process of a virtual machine with another kernel: makes it a machine, runs the scenarios, and turns it off.
//!
//! In: a file system in memory that holds this program, the agent and the kernel's modules, and a disk; `cargo xtask vm-test` makes all of that and reads what is
//! printed: a line for each scenario, as `line_of` makes it, and how many there were. Nothing outlives the machine, so that nothing is cleaned up.

mod bed;
mod commands;
mod doctor;
mod groups;
mod loads;
mod reclaim;

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use bed::Bed;
use clap::Args;
use nix::{
    errno::Errno,
    kmod::{ModuleInitFlags, finit_module},
    mount::{MsFlags, mount},
    sys::reboot::{RebootMode, reboot},
};

/// Begins the lines that are for the task that started the machine.
const MARK: &str = "vm-test:";

/// Where the modules lie, in the order of their names.
const MODULES: &str = "/modules";
/// The disk, and where it is mounted.
const DISK: &str = "/dev/vda";
const MOUNTED: &str = "/disk";
/// How long the disk's driver may take to find it.
const DISK_DEADLINE: Duration = Duration::from_secs(20);
/// What the kernel reads ahead on an ordinary disk, in KiB.
const READ_AHEAD: (&str, &str) = ("/sys/block/vda/queue/read_ahead_kb", "128");
/// The controllers that groups are to have.
const CONTROLLERS: (&str, &str) = ("/sys/fs/cgroup/cgroup.subtree_control", "+io +memory");

/// Options of `nitro-bench guest`.
#[derive(Clone, Debug, Args)]
pub struct GuestArgs {
    /// The modes that the kernel offers; `auto` is to end with the first.
    #[arg(long, value_delimiter = ',', required = true)]
    modes: Vec<String>,
}

/// Runs as the first process; turns the machine off in the end.
///
/// # Errors
/// When this is no such machine: the first process only.
pub fn run(args: &GuestArgs) -> Result<ExitCode> {
    ensure!(
        std::process::id() == 1,
        "this runs as the first process of a virtual machine only"
    );
    let mut told = Told::default();
    let ran = boot()
        .and_then(|()| Bed::new(Path::new(MOUNTED), &args.modes))
        .map(|bed| scenarios(&bed, &mut told));
    match ran {
        Ok(()) => println!("{MARK} end {}", told.count),
        Err(error) => told.say("start of the machine", Err(error)),
    }
    nix::unistd::sync();
    reboot(RebootMode::RB_POWER_OFF).context("turn the machine off")?;
    Ok(ExitCode::FAILURE)
}

fn scenarios(bed: &Bed, told: &mut Told) {
    doctor::run(bed, told);
    loads::run(bed, told);
    commands::run(bed, told);
    groups::run(bed, told);
    reclaim::run(bed, told);
}

/// Prints the line of each scenario, and counts them.
#[derive(Default)]
struct Told {
    count: usize,
}

impl Told {
    /// How a scenario ended.
    fn say(&mut self, name: &str, done: Result<String>) {
        match done {
            Ok(words) => self.line(name, "ok", &words),
            Err(error) => self.line(name, "FAILED", &format!("{error:#}")),
        }
    }

    fn line(&mut self, name: &str, verdict: &str, words: &str) {
        println!("{}", line_of(name, verdict, words));
        self.count += 1;
    }
}

/// A scenario's line: its name, how it ended, and what there is to say.
fn line_of(name: &str, verdict: &str, words: &str) -> String {
    let words: Vec<&str> = words.split_whitespace().collect();
    format!("{MARK} {name} | {verdict} | {}", words.join(" "))
}

fn boot() -> Result<()> {
    let none = None::<&str>;
    for (kind, place) in [
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("devtmpfs", "/dev"),
        ("tmpfs", "/tmp"),
        ("tracefs", "/sys/kernel/tracing"),
        ("cgroup2", "/sys/fs/cgroup"),
    ] {
        fs::create_dir_all(place).with_context(|| format!("make {place}"))?;
        mount(Some(kind), place, Some(kind), MsFlags::empty(), none).with_context(|| format!("mount {place}"))?;
    }
    let mut modules: Vec<_> = fs::read_dir(MODULES)
        .with_context(|| format!("list {MODULES}"))?
        .flatten()
        .map(|entry| entry.path())
        .collect();
    modules.sort();
    load(modules)?;
    let begun = Instant::now();
    while !Path::new(DISK).exists() {
        ensure!(begun.elapsed() < DISK_DEADLINE, "no {DISK} within {DISK_DEADLINE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    fs::create_dir_all(MOUNTED).context("make the mount point")?;
    mount(Some(DISK), MOUNTED, Some("ext4"), MsFlags::MS_NOATIME, none).context("mount the disk")?;
    for (file, value) in [READ_AHEAD, CONTROLLERS] {
        fs::write(file, value).with_context(|| format!("write {value:?} to {file}"))?;
    }
    Ok(())
}

/// Loads modules. One that needs symbols of another waits for it: which needs which changes from one update of a kernel to the next.
fn load(modules: Vec<PathBuf>) -> Result<()> {
    let mut waiting = modules;
    while !waiting.is_empty() {
        let mut next = Vec::new();
        let mut lacking = None;
        for module in &waiting {
            let file = File::open(module).with_context(|| format!("open {}", module.display()))?;
            match finit_module(&file, c"", ModuleInitFlags::empty()) {
                Ok(()) => {}
                // Its name for a symbol that nobody has.
                Err(error @ Errno::ENOENT) => {
                    lacking = Some((module, error));
                    next.push(module.clone());
                }
                Err(error) => return Err(error).with_context(|| format!("load {}", module.display())),
            }
        }
        if let Some((module, error)) = lacking.filter(|_| next.len() == waiting.len()) {
            return Err(error).with_context(|| format!("load {}: a symbol that it needs is in none", module.display()));
        }
        waiting = next;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_line() {
        let failed = line_of("reads", "FAILED", "the agent ended:\n  no BTF\r\n");
        assert_eq!(failed, "vm-test: reads | FAILED | the agent ended: no BTF");
        assert_eq!(line_of("reads", "ok", "2 s"), "vm-test: reads | ok | 2 s");
    }
}
