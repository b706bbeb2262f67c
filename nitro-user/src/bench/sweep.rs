//! Removes what a run left on the machine: its own on a signal, a dead run's at the next start.
//!
//! Nothing is remembered in a file: mounts, loop devices, groups and directories are found by their name ([`super::scratch`]),
//! so what a SIGKILL left is found as well. Only a bench's own names are touched, in directories that this user made, and only those of the owner asked for; only mounts of the
//! kinds that a bench makes go, and nothing is removed below a mount that stays.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::symlink,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Mutex, Once,
        atomic::{AtomicBool, Ordering},
    },
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
    scratch::{Owner, ScratchDir, is_ours, owner, scratch_of},
    session::{self, GRACE},
    tools,
};
use crate::sys::mounts::{Mount, Mounts, OWN};

/// Children to end before their disk can be unmounted, should a signal arrive.
static CHILDREN: Mutex<Vec<u32>> = Mutex::new(Vec::new());
/// Sessions of processes to end likewise, with SIGTERM first: programs that are not ours.
static SESSIONS: Mutex<Vec<u32>> = Mutex::new(Vec::new());
/// Directories in which scratch directories were made, beside the usual ones.
static BASES: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
/// What else is to be done on a signal.
static LAST: Mutex<Vec<Box<dyn FnOnce() + Send>>> = Mutex::new(Vec::new());

/// A signal has come, and everything is being removed.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);
/// The first thread makes nothing any more.
static AT_REST: AtomicBool = AtomicBool::new(false);

/// Beside the directories where scratch directories usually are: links with these names in one there lead to other such directories, that of the run and that of `TMPDIR`.
const BASE: &str = "base";
const TEMPORARY: &str = "temporary";
/// Where such links are left: for the next run to find whatever its environment is, and after a restart.
const MARKED: &str = "/var/tmp";

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
            // On a thread of its own: a pipe that nobody empties holds up nothing.
            let _ = std::thread::Builder::new().spawn(|| say("bench: interrupted, removing what was made"));
            // Whatever goes wrong there, later signals would be swallowed and this process would go on for ever.
            let _ = catch_unwind(AssertUnwindSafe(remove_everything));
            // 128 + SIGINT, as shells report it.
            std::process::exit(130);
        });
    });
    installed.context("install the handler of SIGINT and SIGTERM")?;
    sweep(Owner::Gone);
    let unusual = |dir: &Path| !USUAL.iter().any(|usual| dir == Path::new(usual));
    let mut marker = None;
    for (name, dir) in [(BASE, base), (TEMPORARY, &std::env::temp_dir())] {
        if !unusual(dir) {
            continue;
        }
        let marker = match &mut marker {
            Some(marker) => marker,
            none => none.insert(ScratchDir::new(Path::new(MARKED))?),
        };
        let dir = std::path::absolute(dir).context("the directory's path")?;
        symlink(&dir, marker.path().join(name)).context("note the directory")?;
    }
    Ok(Prepared { _marker: marker })
}

/// What a signal does.
fn remove_everything() {
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
}

/// Where scratch directories are looked for in any case.
const USUAL: [&str; 3] = ["/tmp", "/dev/shm", "/var/tmp"];

fn usual_bases() -> Vec<PathBuf> {
    let mut bases = vec![std::env::temp_dir()];
    bases.extend(USUAL.map(PathBuf::from));
    bases.dedup();
    bases
}

/// Says something on standard error. Whoever read there may be gone, which ends nothing.
pub fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Says what went wrong with the removal; nothing while two threads remove the same things.
pub fn complain(text: &str) {
    if !INTERRUPTED.load(Ordering::SeqCst) {
        say(&format!("bench: {text}"));
    }
}

/// Returns at once, but after a signal: then the process is about to end, and what fails does so because of that. Whoever makes something asks before.
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

/// Notes the first process of a session, so that a signal ends all of it: SIGTERM first, since it is somebody's program.
pub fn adopt_session(leader: u32) {
    if let Ok(mut sessions) = SESSIONS.lock() {
        sessions.push(leader);
    }
}

/// Forgets a session whose first process has been waited for.
pub fn disown_session(leader: u32) {
    if let Ok(mut sessions) = SESSIONS.lock() {
        sessions.retain(|&session| session != leader);
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
        let sessions = SESSIONS.lock().map(|mut sessions| std::mem::take(&mut *sessions));
        sessions.unwrap_or_default().into_iter().for_each(session::end);
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
        .flat_map(|dir| bases_in(&dir))
        .collect();
    bases.extend(elsewhere);
    for mount_point in mounts(whose) {
        unmount(&mount_point);
        bases.extend(scratch_of(&mount_point).and_then(Path::parent).map(Path::to_owned));
    }
    bases.extend(BASES.lock().map(|bases| bases.clone()).unwrap_or_default());
    for (device, backing) in loops(whose) {
        detach(&device);
        bases.extend(scratch_of(&backing).and_then(Path::parent).map(Path::to_owned));
    }
    bases.sort();
    bases.dedup();
    for dir in bases.iter().flat_map(|base| named(base, whose)) {
        remove_dir(&dir);
    }
    for group in &groups {
        remove_group(group);
    }
}

/// Removes a directory with everything in it; not while something is mounted there, whose files would go, too.
pub fn remove_dir(dir: &Path) {
    let removed = match table().below(dir).next() {
        Some(mount) => Err(io::Error::other(format!("{} is mounted", mount.point.display()))),
        None => fs::remove_dir_all(dir),
    };
    if let Err(error) = removed {
        complain(&format!("{} was left behind: {error}", dir.display()));
    }
}

/// The directories that a run noted in one of its own.
fn bases_in(dir: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    [BASE, TEMPORARY]
        .map(|name| dir.join(name))
        .into_iter()
        .filter_map(|link| fs::read_link(link).ok())
}

/// Directories in `parent` that carry a bench's name, belong to `whose`, and were made by this user: everybody may write where some of them are.
fn named(parent: &Path, whose: Owner) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(parent) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter(|entry| owner(&entry.file_name().to_string_lossy()) == Some(whose))
        .map(|entry| entry.path())
        .filter(|path| is_ours(path))
        .collect()
}

/// Mount points, the last mounted first.
fn mounts(whose: Owner) -> Vec<PathBuf> {
    let table = table();
    let in_ours = |mount: &&Mount| {
        owner(&mount.point.to_string_lossy()) == Some(whose) && scratch_of(&mount.point).is_some_and(is_ours)
    };
    let found: Vec<&Mount> = table.below(Path::new("/")).filter(in_ours).collect();
    let ours: Vec<&Path> = found
        .iter()
        .filter(|mount| is_made_here(mount))
        .map(|mount| mount.point.as_path())
        .collect();
    // What lies on one of them keeps it from going.
    let goes = |mount: &&&Mount| ours.iter().any(|point| mount.point.starts_with(point));
    let mut points: Vec<PathBuf> = found.iter().filter(goes).map(|mount| mount.point.clone()).collect();
    points.reverse();
    points
}

/// Whether a bench, or a test, makes mounts of that kind: a test disk, a store, an overlay.
fn is_made_here(mount: &Mount) -> bool {
    match mount.kind.as_str() {
        "ext4" | "xfs" | "btrfs" => mount.source.to_string_lossy().starts_with("/dev/loop"),
        kind => kind == "overlay" || kind == "fuse" || kind.starts_with("fuse."),
    }
}

/// All mounts; none where they cannot be told.
fn table() -> Mounts {
    Mounts::read(Path::new(OWN)).unwrap_or_default()
}

/// Whether something is mounted there.
pub fn is_mounted(path: &Path) -> bool {
    table().below(Path::new("/")).any(|mount| mount.point == path)
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
        match umount2(mount_point, MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => return,
            Err(nix::errno::Errno::EBUSY) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(20)),
            Err(error) => {
                complain(&format!("unmount {}: {error}; detaching it", mount_point.display()));
                let _ = umount2(mount_point, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW);
                return;
            }
        }
    }
}

/// Frees a loop device.
pub fn detach(device: &Path) {
    if let Err(error) = tools::run_to_remove(tools::command("losetup").arg("--detach").arg(device)) {
        complain(&format!("{}: {error:#}", device.display()));
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
