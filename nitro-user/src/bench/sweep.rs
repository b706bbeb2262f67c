//! Removes what a run left on the machine: its own on a signal, a dead run's at the next start.
//!
//! Nothing is remembered in a file: mounts, loop devices, groups and directories are found by their name ([`super::scratch`]),
//! so what a SIGKILL left is found as well. Only a bench's own names are touched, and only those of the owner asked for.

use std::{
    fs,
    os::unix::fs::{MetadataExt, symlink},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Mutex, Once,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::{
    mount::{MntFlags, umount2},
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};

use super::{
    limit,
    scratch::{Owner, PREFIX, ScratchDir, owner},
};
use crate::sys::mounts::unescape;

/// Children to end before their disk can be unmounted, should a signal arrive.
static CHILDREN: Mutex<Vec<u32>> = Mutex::new(Vec::new());
/// Groups of processes to end likewise, with SIGTERM first: programs that are not ours.
static GROUPS: Mutex<Vec<u32>> = Mutex::new(Vec::new());
/// Directories in which scratch directories were made, beside the usual ones.
static BASES: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
/// What else is to be done on a signal.
static LAST: Mutex<Vec<Box<dyn FnOnce() + Send>>> = Mutex::new(Vec::new());

/// A signal has come, and everything is being removed.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);
/// The first thread makes nothing any more.
static AT_REST: AtomicBool = AtomicBool::new(false);

/// Beside the directories where scratch directories usually are: a link with this name in one there leads to another such directory.
const BASE: &str = "base";
/// How long somebody's program has to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(2);

/// A run under way: while it lives, the next run finds what a killed one leaves in its directory.
#[derive(Debug)]
pub struct Prepared {
    _marker: Option<ScratchDir>,
}

/// Prepares a run: removes what dead runs left, in `base` too, and has SIGINT and SIGTERM remove what this one makes.
///
/// # Errors
/// When the signal handler cannot be installed.
pub fn prepare(base: &Path) -> Result<Prepared> {
    static HANDLER: Once = Once::new();
    remember_base(base);
    let mut installed = Ok(());
    HANDLER.call_once(|| {
        installed = ctrlc::set_handler(|| {
            INTERRUPTED.store(true, Ordering::SeqCst);
            eprintln!("bench: interrupted, removing what was made");
            sweep(Owner::Us);
            // What the first thread was making just then is there by the time it has come to rest.
            let deadline = Instant::now() + GRACE;
            while !AT_REST.load(Ordering::SeqCst) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(10));
            }
            sweep(Owner::Us);
            let last = LAST
                .lock()
                .map(|mut last| std::mem::take(&mut *last))
                .unwrap_or_default();
            last.into_iter().for_each(|act| act());
            // 128 + SIGINT, as shells report it.
            std::process::exit(130);
        });
    });
    installed.context("install the handler of SIGINT and SIGTERM")?;
    sweep(Owner::Gone);
    let marker = if usual_bases().iter().any(|usual| usual == base) {
        None
    } else {
        let marker = ScratchDir::new(&std::env::temp_dir())?;
        let base = std::path::absolute(base).context("the directory's path")?;
        symlink(&base, marker.path().join(BASE)).context("note the directory")?;
        Some(marker)
    };
    Ok(Prepared { _marker: marker })
}

/// Where scratch directories are looked for in any case.
fn usual_bases() -> Vec<PathBuf> {
    vec![
        std::env::temp_dir(),
        PathBuf::from("/dev/shm"),
        PathBuf::from("/var/tmp"),
    ]
}

/// Says what went wrong with the removal; nothing while two threads remove the same things.
pub fn complain(text: &str) {
    if !INTERRUPTED.load(Ordering::SeqCst) {
        eprintln!("bench: {text}");
    }
}

/// Returns at once, but after a signal: then the process is about to end, and what fails does so because of that.
pub fn rest_if_interrupted() {
    while INTERRUPTED.load(Ordering::SeqCst) {
        AT_REST.store(true, Ordering::SeqCst);
        std::thread::park_timeout(GRACE);
    }
}

/// Has a signal do this, too, after everything was removed.
pub fn at_interrupt(act: impl FnOnce() + Send + 'static) {
    if let Ok(mut last) = LAST.lock() {
        last.push(Box::new(act));
    }
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

/// Notes a group of processes, so that a signal ends it: SIGTERM first, since it is somebody's program.
pub fn adopt_group(leader: u32) {
    if let Ok(mut groups) = GROUPS.lock() {
        groups.push(leader);
    }
}

/// Forgets a group whose leader has been waited for.
pub fn disown_group(leader: u32) {
    if let Ok(mut groups) = GROUPS.lock() {
        groups.retain(|&group| group != leader);
    }
}

/// Ends a group of processes: SIGTERM, and SIGKILL for what is there after a moment.
pub fn end_group(leader: u32) {
    let group = Pid::from_raw(leader.cast_signed());
    let deadline = Instant::now() + GRACE;
    let mut signal = Signal::SIGTERM;
    while killpg(group, signal).is_ok() && signal == Signal::SIGTERM {
        std::thread::sleep(Duration::from_millis(20));
        if Instant::now() > deadline {
            signal = Signal::SIGKILL;
        }
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
        let groups = GROUPS.lock().map(|mut groups| std::mem::take(&mut *groups));
        groups.unwrap_or_default().into_iter().for_each(end_group);
    }
    let groups: Vec<PathBuf> = limit::group_parents()
        .iter()
        .flat_map(|parent| named(parent, whose))
        .collect();
    for group in &groups {
        end_members(group);
    }
    let mut bases = usual_bases();
    let elsewhere: Vec<PathBuf> = bases
        .iter()
        .flat_map(|base| named(base, whose))
        .filter_map(|dir| base_in(&dir))
        .collect();
    bases.extend(elsewhere);
    for mount_point in mounts(whose) {
        unmount(&mount_point);
        bases.extend(base_of(&mount_point));
    }
    bases.extend(BASES.lock().map(|bases| bases.clone()).unwrap_or_default());
    for (device, backing) in loops(whose) {
        detach(&device);
        bases.extend(backing.parent().and_then(Path::parent).map(Path::to_owned));
    }
    bases.sort();
    bases.dedup();
    for dir in bases.iter().flat_map(|base| named(base, whose)) {
        if let Err(error) = fs::remove_dir_all(&dir) {
            complain(&format!("{} was left behind: {error}", dir.display()));
        }
    }
    for group in &groups {
        remove_group(group);
    }
}

/// The directory that a run noted in one of its own. Everybody may write where those are: only what is ours is believed.
fn base_in(dir: &Path) -> Option<PathBuf> {
    let ours = fs::symlink_metadata(dir).is_ok_and(|status| status.uid() == nix::unistd::geteuid().as_raw());
    ours.then(|| fs::read_link(dir.join(BASE)).ok())?
}

/// The directory in which the scratch directory is that a path lies in.
fn base_of(path: &Path) -> Option<PathBuf> {
    let is_scratch = |dir: &&Path| {
        dir.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with(PREFIX))
    };
    path.ancestors().find(is_scratch)?.parent().map(Path::to_owned)
}

/// Directories in `parent` that carry a bench's name and belong to `whose`.
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
    let mut found = mount_points();
    found.retain(|mount_point| owner(&mount_point.to_string_lossy()) == Some(whose));
    found.reverse();
    found
}

/// All mount points, in the order in which they were mounted.
fn mount_points() -> Vec<PathBuf> {
    let table = fs::read("/proc/self/mountinfo").unwrap_or_default();
    let point = |line: &[u8]| Some(PathBuf::from(unescape(line.split(|byte| *byte == b' ').nth(4)?)));
    table.split(|byte| *byte == b'\n').filter_map(point).collect()
}

/// Whether something is mounted there.
pub fn is_mounted(path: &Path) -> bool {
    mount_points().iter().any(|mount_point| mount_point == path)
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
                complain(&format!("unmount {}: {error}; detaching it", mount_point.display()));
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
        Ok(output) => complain(&format!(
            "losetup --detach {}: {}",
            device.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        )),
        Err(error) => complain(&format!("losetup --detach {}: {error}", device.display())),
    }
}

/// Ends what still runs in a group of a bench's: only its children ever entered it.
pub fn end_members(group: &Path) {
    for pid in fs::read_to_string(group.join("cgroup.procs"))
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.parse().ok())
    {
        complain(&format!("ending process {pid}, still in {}", group.display()));
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

/// Removes a group; an ended process leaves it a moment later, so it waits.
pub fn remove_group(group: &Path) {
    let deadline = Instant::now() + Duration::from_secs(2);
    while let Err(error) = fs::remove_dir(group) {
        if Instant::now() > deadline {
            complain(&format!("{} was left behind: {error}", group.display()));
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
