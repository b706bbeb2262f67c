//! Removes what a run left on the machine: its own on a signal, a dead run's at the next start.
//!
//! Nothing is remembered in a file: mounts, loop devices, groups and directories are found by their name ([`super::scratch`]),
//! so what a SIGKILL left is found as well. Only the rig's own names are touched, and only those of the owner asked for.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, Once},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::{
    mount::{MntFlags, umount2},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{
    limit,
    scratch::{Owner, owner},
};

/// Children to end before their disk can be unmounted, should a signal arrive.
static CHILDREN: Mutex<Vec<u32>> = Mutex::new(Vec::new());
/// Directories in which scratch directories were made, beside the usual ones.
static BASES: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Prepares a run: removes what dead runs left, in `base` too, and has SIGINT and SIGTERM remove what this one makes.
///
/// # Errors
/// When the signal handler cannot be installed.
pub fn prepare(base: &Path) -> Result<()> {
    static HANDLER: Once = Once::new();
    remember_base(base);
    let mut installed = Ok(());
    HANDLER.call_once(|| {
        installed = ctrlc::set_handler(|| {
            eprintln!("rig: interrupted, removing disks and groups");
            sweep(Owner::Us);
            // 128 + SIGINT, as shells report it.
            std::process::exit(130);
        });
    });
    installed.context("install the handler of SIGINT and SIGTERM")?;
    sweep(Owner::Gone);
    Ok(())
}

/// Has later sweeps look into `base`.
pub fn remember_base(base: &Path) {
    if let Ok(mut bases) = BASES.lock() {
        let base = base.to_owned();
        if !bases.contains(&base) {
            bases.push(base);
        }
    }
}

/// Notes a child, so that a signal ends it.
pub fn adopt(pid: u32) {
    if let Ok(mut children) = CHILDREN.lock() {
        children.push(pid);
    }
}

/// Forgets a child that has been waited for: its pid may be another's by now.
pub fn disown(pid: u32) {
    if let Ok(mut children) = CHILDREN.lock() {
        children.retain(|&child| child != pid);
    }
}

/// Removes everything whose owner is `whose`, in the order in which one holds the other; says what it could not remove.
pub fn sweep(whose: Owner) {
    if whose == Owner::Us {
        let children = CHILDREN
            .lock()
            .map(|mut children| std::mem::take(&mut *children))
            .unwrap_or_default();
        for pid in children {
            let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
        }
    }
    let groups: Vec<PathBuf> = limit::group_parents()
        .iter()
        .flat_map(|parent| named(parent, whose))
        .collect();
    for group in &groups {
        end_members(group);
    }
    for mount_point in mounts(whose) {
        unmount(&mount_point);
    }
    let mut bases = vec![
        std::env::temp_dir(),
        PathBuf::from("/dev/shm"),
        PathBuf::from("/var/tmp"),
    ];
    bases.extend(BASES.lock().map(|bases| bases.clone()).unwrap_or_default());
    for (device, backing) in loops(whose) {
        detach(&device);
        bases.extend(backing.parent().and_then(Path::parent).map(Path::to_owned));
    }
    bases.sort();
    bases.dedup();
    for dir in bases.iter().flat_map(|base| named(base, whose)) {
        if let Err(error) = fs::remove_dir_all(&dir) {
            eprintln!("rig: {} was left behind: {error}", dir.display());
        }
    }
    for group in &groups {
        remove_group(group);
    }
}

/// Directories in `parent` that carry the rig's name and belong to `whose`.
fn named(parent: &Path, whose: Owner) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(parent) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter(|entry| owner(&entry.file_name().to_string_lossy()) == Some(whose))
        .map(|entry| entry.path())
        .collect()
}

/// Mount points, the last mounted first.
fn mounts(whose: Owner) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut found: Vec<PathBuf> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .filter(|mount_point| owner(mount_point) == Some(whose))
        .map(PathBuf::from)
        .collect();
    found.reverse();
    found
}

/// Loop devices with their backing files.
fn loops(whose: Owner) -> Vec<(PathBuf, PathBuf)> {
    let Ok(entries) = fs::read_dir("/sys/block") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| {
            let backing = fs::read_to_string(entry.path().join("loop/backing_file")).ok()?;
            // The kernel marks a removed file behind its path.
            let backing = backing.trim_end().trim_end_matches(" (deleted)");
            (owner(backing) == Some(whose)).then(|| (Path::new("/dev").join(entry.file_name()), PathBuf::from(backing)))
        })
        .collect()
}

/// Unmounts, waiting a little for a process that is just ending; then detaches, so that at least nothing new sees it.
pub fn unmount(mount_point: &Path) {
    let deadline = Instant::now() + Duration::from_secs(2);
    loop {
        match umount2(mount_point, MntFlags::empty()) {
            Ok(()) => return,
            Err(nix::errno::Errno::EBUSY) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(20)),
            Err(error) => {
                eprintln!("rig: unmount {}: {error}; detaching it", mount_point.display());
                let _ = umount2(mount_point, MntFlags::MNT_DETACH);
                return;
            }
        }
    }
}

/// Frees a loop device.
pub fn detach(device: &Path) {
    match Command::new("losetup").arg("--detach").arg(device).output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => eprintln!(
            "rig: losetup --detach {}: {}",
            device.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        ),
        Err(error) => eprintln!("rig: losetup --detach {}: {error}", device.display()),
    }
}

/// Ends what still runs in a group of the rig's: only its children ever entered it.
pub fn end_members(group: &Path) {
    for pid in fs::read_to_string(group.join("cgroup.procs"))
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.parse().ok())
    {
        eprintln!("rig: ending process {pid}, still in {}", group.display());
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

/// Removes a group; an ended process leaves it a moment later, so it waits.
pub fn remove_group(group: &Path) {
    let deadline = Instant::now() + Duration::from_secs(2);
    while let Err(error) = fs::remove_dir(group) {
        if Instant::now() > deadline {
            eprintln!("rig: {} was left behind: {error}", group.display());
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
