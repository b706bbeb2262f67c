//! The first process of a virtual machine with another kernel: makes it a machine, runs the scenarios, and turns it off.
//!
//! In: a file system in memory that holds this program, the agent and the kernel's modules, and a disk; `cargo xtask vm-test` makes all of that and reads what is
//! printed: a line for each scenario, as `line_of` makes it. Nothing outlives the machine, so that nothing is cleaned up.

mod scenarios;

use std::{
    fs::{self, File},
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use nix::{
    kmod::{ModuleInitFlags, finit_module},
    mount::{MsFlags, mount},
    sys::reboot::{RebootMode, reboot},
};

/// Begins the lines that are for the task that started the machine.
pub const MARK: &str = "vm-test:";

/// Where the modules lie, in the order of their names.
const MODULES: &str = "/modules";
/// The disk, and where it is mounted.
const DISK: &str = "/dev/vda";
const MOUNTED: &str = "/disk";
/// How long the disk's driver may take to find it.
const DISK_DEADLINE: Duration = Duration::from_secs(20);

/// Options of `nitro-bench guest`.
#[derive(Clone, Debug, Args)]
pub struct GuestArgs {
    /// The mode that `auto` is to end with on this kernel.
    #[arg(long)]
    auto: String,
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
    let ran = boot().and_then(|()| scenarios::run(Path::new(MOUNTED), &args.auto));
    match ran {
        Ok(()) => println!("{MARK} end"),
        Err(error) => println!("{}", line_of("machine", &Err(error))),
    }
    nix::unistd::sync();
    reboot(RebootMode::RB_POWER_OFF).context("turn the machine off")?;
    Ok(ExitCode::FAILURE)
}

/// A scenario's line: its name, how it ended, and what there is to say.
fn line_of(name: &str, done: &Result<String>) -> String {
    let (verdict, words) = match done {
        Ok(words) => ("ok", words.clone()),
        Err(error) => ("FAILED", format!("{error:#}")),
    };
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
    for module in modules {
        let file = File::open(&module).with_context(|| format!("open {}", module.display()))?;
        finit_module(&file, c"", ModuleInitFlags::empty()).with_context(|| format!("load {}", module.display()))?;
    }
    let begun = Instant::now();
    while !Path::new(DISK).exists() {
        ensure!(begun.elapsed() < DISK_DEADLINE, "no {DISK} within {DISK_DEADLINE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    fs::create_dir_all(MOUNTED).context("make the mount point")?;
    mount(Some(DISK), MOUNTED, Some("ext4"), MsFlags::MS_NOATIME, none).context("mount the disk")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_line() {
        let failed = line_of("reads", &Err(anyhow::anyhow!("the agent ended:\n  no BTF")));
        assert_eq!(failed, "vm-test: reads | FAILED | the agent ended: no BTF");
        assert_eq!(line_of("reads", &Ok("2 s".into())), "vm-test: reads | ok | 2 s");
    }
}
