//! What a bench needs of the machine before it makes anything: rights, tools, room on the disk and in memory. It refuses with what is missing and what to do.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::{
    statfs::{FsType, TMPFS_MAGIC, statfs},
    statvfs::statvfs,
};

use super::{
    limit::{self, Limit},
    plan::{Device, Help, Plan},
    tools,
};
use crate::{sys::memory, units::ByteCount};

/// What the file system of a test disk takes for itself, beside a sixteenth of what is on it.
const OVERHEAD: u64 = 128 << 20;

/// `ramfs` in `linux/magic.h`, which nix does not name.
const RAMFS_MAGIC: FsType = FsType(0x8584_58f6);

/// Where the models of a device lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a directory of the user's disk.
    Directory,
    /// On a disk that the bench makes, whose image is in that directory.
    Disk,
    /// In that directory, and read through a file system in user space.
    Store,
}

impl Place {
    /// Where they lie on `device`; `given` says whether the user named a directory.
    pub fn of(device: Device, given: bool) -> Self {
        match device {
            _ if device.service().is_some() => Self::Store,
            Device::AsIs if given => Self::Directory,
            _ => Self::Disk,
        }
    }
}

/// Says at once what no bench can be made without.
///
/// # Errors
/// Not root.
pub fn needs_root(what: &str) -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "{what} needs root, for the eBPF programs and to make files cold: run it with sudo"
    );
    Ok(())
}

/// Looks whether everything is there that the plan takes, in `dir`.
///
/// # Errors
/// What is missing, and what to do.
pub fn check(plan: &Plan, dir: &Path, given: bool, hollow: bool) -> Result<()> {
    let status = fs::metadata(dir).with_context(|| format!("cannot look at {}", dir.display()))?;
    ensure!(status.is_dir(), "{} is no directory: --dir takes one", dir.display());
    // A test disk's image and what a store serves have to be loaded from somewhere, too.
    in_memory(dir)?;
    for &device in &plan.devices {
        let place = Place::of(device, given);
        match place {
            Place::Directory => {}
            Place::Disk => tools(hollow)?,
            Place::Store => fuse()?,
        }
        if place == Place::Disk && device.limit() != Limit::NONE {
            limit::available()
                .with_context(|| format!("{} cannot be made: choose --device as-is, hdd or nas", device.name()))?;
        }
        disk_room(plan, device, place, dir, hollow)?;
        memory_room(plan, device, place)?;
    }
    Ok(())
}

fn in_memory(dir: &Path) -> Result<()> {
    let kind = statfs(dir)
        .with_context(|| format!("cannot ask which file system {} is on", dir.display()))?
        .filesystem_type();
    ensure!(
        kind != TMPFS_MAGIC && kind != RAMFS_MAGIC,
        "{} is in memory, where nothing has to be loaded: --dir takes a directory on a disk",
        dir.display()
    );
    Ok(())
}

fn tools(hollow: bool) -> Result<()> {
    let hollows = hollow.then_some(("fallocate", "util-linux"));
    for (tool, package) in [("losetup", "mount"), ("mkfs.ext4", "e2fsprogs")]
        .into_iter()
        .chain(hollows)
    {
        ensure!(
            tools::find(tool).is_some(),
            "{tool} is missing, which makes the test disk: install the package {package}, or measure a directory of yours with --dir DIR"
        );
    }
    ensure!(
        Path::new("/dev/loop-control").exists(),
        "this kernel has no loop devices, of which a test disk is made: measure a directory of yours with --dir DIR"
    );
    Ok(())
}

fn fuse() -> Result<()> {
    File::options()
        .read(true)
        .write(true)
        .open("/dev/fuse")
        .context("cannot open /dev/fuse, through which hdd and nas are served: choose another --device")?;
    Ok(())
}

fn disk_room(plan: &Plan, device: Device, place: Place, dir: &Path, hollow: bool) -> Result<()> {
    let models = match place {
        Place::Store if hollow => 0,
        // One is full for a moment.
        Place::Disk if hollow => plan.bytes(device),
        _ => plan.bytes(device).saturating_mul(plan.models().len() as u64),
    };
    let needed = match place {
        Place::Disk => models.saturating_add(models / 16 + OVERHEAD),
        Place::Directory | Place::Store => models.saturating_add(models / 64 + (16 << 20)),
    };
    let status = statvfs(dir).with_context(|| format!("cannot ask how much room {} has", dir.display()))?;
    let free = (status.blocks_available() as u64).saturating_mul(status.fragment_size() as u64);
    ensure!(
        needed <= free,
        "{} takes {} in {}, where {} are free: choose another place with --dir, or a smaller --size",
        device.name(),
        ByteCount(needed),
        dir.display(),
        ByteCount(free)
    );
    Ok(())
}

fn memory_room(plan: &Plan, device: Device, place: Place) -> Result<()> {
    let model = plan.bytes(device);
    // What a store serves from is cached, too.
    let copies = if place == Place::Store { 2 } else { 1 };
    let needed = model.saturating_add(model / 8).saturating_mul(copies);
    let free = memory_left();
    ensure!(
        needed <= free.0,
        "a model of {} takes {} of memory to be loaded into, and {free} are free: choose a smaller --size",
        ByteCount(model),
        ByteCount(needed)
    );
    Ok(())
}

/// Memory that this process may still take.
pub fn memory_left() -> ByteCount {
    memory::left_by_cgroup().map_or_else(memory::available, |left| left.min(memory::available()))
}

/// Leaves out of `helps` what is not installed; says what that was and how to get it.
pub fn available(helps: &mut Vec<Help>) -> Vec<String> {
    let mut missing = Vec::new();
    helps.retain(|help| match help.before() {
        Some((program, _)) if tools::find(program).is_none() => {
            missing.push(format!(
                "{program} is not installed and left out: install it (apt install {program}, dnf install {program})"
            ));
            false
        }
        _ => true,
    });
    missing
}

/// A program of another's that runs before a load.
pub fn command(program: &str) -> Command {
    let mut command = tools::command(program);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

/// The program that this process runs.
///
/// # Errors
/// It cannot be told, or has been replaced.
pub fn this_program() -> Result<PathBuf> {
    let path = std::env::current_exe().context("cannot tell where this program is")?;
    if !path.exists() {
        bail!(
            "{} has been replaced since it was started: start it again",
            path.display()
        );
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::plan::Loader;

    fn plan(device: Device, size: u64) -> Plan {
        Plan {
            devices: vec![device],
            loaders: vec![Loader::Mmap, Loader::Ollama],
            helps: vec![Help::None, Help::Agent],
            size: Some(size),
            runs: 5,
        }
    }

    #[test]
    fn a_model_larger_than_the_disk_or_than_memory_is_refused_with_a_way_out() {
        let dir = std::env::current_dir().unwrap();
        let error = disk_room(&plan(Device::Gp3, u64::MAX), Device::Gp3, Place::Disk, &dir, false).unwrap_err();
        assert!(error.to_string().contains("--size"), "{error}");
        let error = memory_room(&plan(Device::Nas, u64::MAX), Device::Nas, Place::Store).unwrap_err();
        assert!(error.to_string().contains("--size"), "{error}");
        memory_room(&plan(Device::Gp3, 16 << 20), Device::Gp3, Place::Disk).unwrap();
    }

    #[test]
    fn a_directory_in_memory_is_nothing_to_measure() {
        for device in [Device::AsIs, Device::Gp3, Device::Nas] {
            let error = check(&plan(device, 16 << 20), Path::new("/dev/shm"), true, false).unwrap_err();
            assert!(error.to_string().contains("in memory"), "{error}");
        }
        let error = check(&plan(Device::AsIs, 16 << 20), Path::new("/nonexistent"), true, false).unwrap_err();
        assert!(error.to_string().contains("/nonexistent"), "{error}");
        let error = check(
            &plan(Device::AsIs, 16 << 20),
            Path::new("/proc/self/status"),
            true,
            false,
        )
        .unwrap_err();
        assert!(error.to_string().contains("no directory"), "{error}");
    }

    #[test]
    fn a_place_follows_from_the_device_and_from_who_named_the_directory() {
        assert_eq!(Place::of(Device::AsIs, true), Place::Directory);
        assert_eq!(Place::of(Device::AsIs, false), Place::Disk);
        assert_eq!(Place::of(Device::Gp3, true), Place::Disk);
        assert_eq!(Place::of(Device::Nas, false), Place::Store);
    }

    #[test]
    fn what_is_not_installed_is_left_out_with_a_word() {
        let mut helps = vec![Help::None, Help::Cat, Help::Agent];
        assert!(available(&mut helps).is_empty());
        assert_eq!(helps.len(), 3);
    }
}
