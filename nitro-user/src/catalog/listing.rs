//! Listing one directory: `openat2`, an inotify watch, `getdents64`, and a `statx` for every regular file.
//!
//! In: a directory below a root. Out: [`Listing`]s of bounded size, so that a directory of a million files needs no
//! memory of that size twice. The watch is added before the first name is read, so that nothing appears unnoticed.
//! It keeps no descriptor and knows nothing of the table.

use std::{
    ffi::{CStr, CString, OsStr},
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::PathBuf,
    time::SystemTime,
};

use nix::{
    dir::{Dir, Type},
    errno::Errno,
    fcntl::readlinkat,
    sys::{
        inotify::{AddWatchFlags, Inotify, WatchDescriptor},
        statfs::{self, FsType},
    },
};

use super::{exclude::Exclude, growing::RECENT, identity::Devices, stores::Store, table::DirNumber};
use crate::{
    sys::{
        open::open_directory_beneath,
        overlay::Layers,
        stat::{Kind, Status, status_at, status_of},
        top::Top,
    },
    units::FileId,
};

/// Names in one listing.
const MOST_LISTED: usize = 2048;

/// What is watched of every directory: names, and the directory itself. Not `IN_CLOSE_WRITE`, `IN_MODIFY` or `IN_ATTRIB`: with one of these in the
/// mask, or any other that concerns a file's content, the kernel looks the directory up in every read of every file in it,
/// which adds 120 to 135 ns to a read of 370 ns (medians over 3000 alternations, ext4 and tmpfs, Linux 6.18); the mask below adds 12 to 21 ns. What is written
/// to files is found out by looking: see `growing` and `describe`.
pub(super) fn events_of_directories() -> AddWatchFlags {
    AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_MOVED_FROM
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_DELETE_SELF
        | AddWatchFlags::IN_MOVE_SELF
        | AddWatchFlags::IN_ONLYDIR
}

/// A directory to list.
#[derive(Clone, Debug)]
pub(super) struct Job {
    /// Its number in the table.
    pub dir: DirNumber,
    /// The root's path.
    pub root: Top,
    /// Its path below the root.
    pub below: PathBuf,
    /// `st_dev` of the directory above it: only where it differs can another file system begin.
    pub above: Option<u32>,
    /// What is left out.
    pub exclude: Exclude,
}

impl Job {
    fn leaves_out(&self, name: &[u8]) -> bool {
        self.exclude.covers(&self.root, &self.below, OsStr::from_bytes(name))
    }
}

/// What became of the inotify watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Watching {
    /// Watched.
    By(WatchDescriptor),
    /// Watched, and not all changes are told: those on a server by its other clients, and an overlay's new copies of files that are opened for writing.
    InPart(WatchDescriptor),
    /// Nobody asked for it.
    Unasked,
    /// The limit of the user is reached.
    Exhausted,
    /// The file system or the kernel refused.
    Refused,
}

/// Beginning, part or end of a directory.
#[derive(Debug)]
pub(super) enum Listing {
    /// It was opened.
    Opened {
        dir: DirNumber,
        identity: (u32, u64),
        watching: Watching,
    },
    /// Some of its names.
    Names { dir: DirNumber, names: Names },
    /// All names were told.
    Complete { dir: DirNumber },
    /// It could not be read, or no further.
    Failed { dir: DirNumber, error: io::Error },
    /// A pseudo file system is mounted here.
    Pseudo { dir: DirNumber },
    /// It is on an overlay, of whose layers none can be reached: its names follow, but nobody will be seen to read them.
    Veiled { dir: DirNumber },
}

/// Names of a directory and what is behind them.
#[derive(Debug, Default)]
pub(super) struct Names {
    text: Vec<u8>,
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    name: (u32, u32),
    what: What,
    /// Its inode changed a short while ago.
    recent: bool,
    /// Last modification and last change of the inode, nanoseconds since 1970; 0 for what is no file.
    times: (i64, i64),
}

/// What is behind a name.
#[derive(Clone, Copy, Debug)]
pub(super) enum What {
    /// A regular file.
    File { file: FileId, size: u64, stamp: u32 },
    /// A directory.
    Directory,
    /// A symbolic link; where in the text its target is.
    Link { target: (u32, u32) },
}

impl Names {
    fn push(&mut self, name: &[u8], what: What, file: Option<&Status>) {
        let name = self.add(name);
        self.entries.push(Entry {
            name,
            what,
            recent: file.is_some_and(is_recent),
            times: file.map_or((0, 0), |status| (status.mtime_ns, status.ctime_ns)),
        });
    }
    fn add(&mut self, text: &[u8]) -> (u32, u32) {
        let start = self.text.len() as u32;
        self.text.extend_from_slice(text);
        (start, self.text.len() as u32)
    }
    /// Each name with what is behind it.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], super::table::Found<'_>)> {
        use super::table::Found;
        self.entries.iter().map(|entry| {
            let found = match entry.what {
                What::File { file, size, stamp } => Found::File { file, size, stamp },
                What::Directory => Found::Directory,
                What::Link { target } => Found::Link {
                    target: self.at(target),
                },
            };
            (self.at(entry.name), found)
        })
    }
    /// Last modification, and last change of the inode, of the file among them that was modified last; zeros when there is none.
    pub fn latest_write(&self) -> (i64, i64) {
        self.entries.iter().map(|entry| entry.times).max().unwrap_or((0, 0))
    }

    /// The files among them; with `recent`, only those whose inode changed a short while ago.
    pub fn files(&self, recent: bool) -> impl Iterator<Item = FileId> {
        let wanted = self.entries.iter().filter(move |entry| entry.recent || !recent);
        wanted.filter_map(|entry| match entry.what {
            What::File { file, .. } => Some(file),
            What::Directory | What::Link { .. } => None,
        })
    }
    fn at(&self, (start, end): (u32, u32)) -> &[u8] {
        &self.text[start as usize..end as usize]
    }
}

/// Lists the directory of `job` into `sink`, which returns false to stop.
pub(super) fn list(job: &Job, devices: &Devices, inotify: Option<&Inotify>, sink: &mut dyn FnMut(Listing) -> bool) {
    let dir = job.dir;
    let failed = |error: io::Error| Listing::Failed { dir, error };
    let (opened, status) = match open(job) {
        Ok(opened) => opened,
        Err(error) => {
            sink(failed(error));
            return;
        }
    };
    if job.above != Some(status.st_dev) && is_pseudo(&opened) {
        sink(Listing::Pseudo { dir });
        return;
    }
    let identities = Identities::of(job, devices, &status);
    let watching = inotify.map_or(Watching::Unasked, |inotify| watch(inotify, &opened));
    let watching = match watching {
        Watching::By(watch) if identities.change_unseen(&status) => Watching::InPart(watch),
        other => other,
    };
    if !sink(Listing::Opened {
        dir,
        identity: (status.st_dev, status.inode),
        watching,
    }) {
        return;
    }
    if identities.are_unknown() && !sink(Listing::Veiled { dir }) {
        return;
    }
    let end = match read(job, opened, &identities, &mut |names| {
        sink(Listing::Names { dir, names })
    }) {
        Ok(true) => Listing::Complete { dir },
        Ok(false) => return,
        Err(error) => failed(error),
    };
    sink(end);
}

/// `st_dev` and inode of the directory of `job`.
///
/// # Errors
///
/// It cannot be opened.
pub(super) fn identity(job: &Job) -> io::Result<(u32, u64)> {
    open(job).map(|(_, status)| (status.st_dev, status.inode))
}

fn open(job: &Job) -> io::Result<(OwnedFd, Status)> {
    let opened = open_directory_beneath(&job.root, &job.below)?;
    let status = status_of(&opened)?;
    Ok((opened, status))
}

fn watch(inotify: &Inotify, opened: &OwnedFd) -> Watching {
    // Through the descriptor: exactly the directory that is listed, whatever is at its path by now.
    let path = format!("/proc/self/fd/{}", opened.as_raw_fd());
    match inotify.add_watch(path.as_str(), events_of_directories()) {
        Ok(descriptor) => Watching::By(descriptor),
        Err(Errno::ENOSPC | Errno::ENOMEM) => Watching::Exhausted,
        Err(_) => Watching::Refused,
    }
}

/// What the page cache knows the files of a directory by.
struct Identities<'a> {
    devices: &'a Devices,
    /// Where the page cache belongs to the files of a layer.
    layers: Option<Layers>,
}

impl<'a> Identities<'a> {
    fn of(job: &Job, devices: &'a Devices, directory: &Status) -> Self {
        let layers = devices.layers_of(&job.root, &job.below, directory);
        Self { devices, layers }
    }

    /// Whether files in the directory change without an event of it. Looking at what is paid for by the request is not worth it.
    fn change_unseen(&self, directory: &Status) -> bool {
        self.layers.is_some() || self.devices.store_of(self.devices.device_of(directory)) == Store::Remote
    }

    fn are_unknown(&self) -> bool {
        self.layers.as_ref().is_some_and(Layers::are_out_of_reach)
    }

    fn file_id(&self, name: &CStr, status: &Status) -> FileId {
        let layers = self.layers.as_ref().filter(|_| status.kind == Kind::File);
        match layers.and_then(|layers| layers.file(name, status)) {
            Some((found, ..)) => self.devices.file_id(&found),
            None => self.devices.file_id(status),
        }
    }
}

/// Reads all names. `Ok(false)`: the sink wants no more.
fn read(
    job: &Job,
    opened: OwnedFd,
    identities: &Identities<'_>,
    sink: &mut dyn FnMut(Names) -> bool,
) -> io::Result<bool> {
    let mut opened = Dir::from_fd(opened)?;
    let mut names = Names::default();
    // Statuses are asked relative to a descriptor of its own: the iterator holds the first one.
    let at = opened.as_fd().try_clone_to_owned()?;
    for entry in opened.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") || job.leaves_out(name.to_bytes()) {
            continue;
        }
        match entry.file_type() {
            Some(Type::Directory) => names.push(name.to_bytes(), What::Directory, None),
            Some(Type::File | Type::Symlink) | None => {
                // A file that vanished meanwhile is no error.
                if let Ok(status) = status_at(at.as_fd(), name) {
                    push_status(&mut names, &at, name, &status, identities);
                }
            }
            Some(Type::Fifo | Type::CharacterDevice | Type::BlockDevice | Type::Socket) => {}
        }
        if names.entries.len() >= MOST_LISTED && !sink(std::mem::take(&mut names)) {
            return Ok(false);
        }
    }
    Ok(names.entries.is_empty() || sink(names))
}

fn push_status(names: &mut Names, at: &OwnedFd, name: &CStr, status: &Status, identities: &Identities<'_>) {
    match status.kind {
        Kind::File => {
            let file = identities.file_id(name, status);
            names.push(
                name.to_bytes(),
                What::File {
                    file,
                    size: status.size,
                    stamp: stamp_of(status),
                },
                Some(status),
            );
        }
        Kind::Directory => names.push(name.to_bytes(), What::Directory, None),
        Kind::Link => {
            if let Ok(target) = readlinkat(at, name) {
                let target = names.add(target.as_os_str().as_encoded_bytes());
                names.push(name.to_bytes(), What::Link { target }, None);
            }
        }
        Kind::Other => {}
    }
}

/// What is behind `names` in the directory of `job`; names with nothing behind them are left out.
///
/// # Errors
///
/// The directory cannot be opened.
pub(super) fn look<'a>(job: &Job, names: impl IntoIterator<Item = &'a [u8]>, devices: &Devices) -> io::Result<Names> {
    let mut found = Names::default();
    let (opened, status) = open(job)?;
    let identities = Identities::of(job, devices, &status);
    let kept = names.into_iter().filter(|name| !job.leaves_out(name));
    for name in kept {
        let Ok(name) = CString::new(name) else { continue };
        if let Ok(status) = status_at(opened.as_fd(), &name) {
            push_status(&mut found, &opened, &name, &status, &identities);
        }
    }
    Ok(found)
}

/// Whether the inode changed a short while ago, or in the future, as clocks go. By `ctime`: nobody can set it back.
fn is_recent(status: &Status) -> bool {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.map_or(0, |now| i64::try_from(now.as_nanos()).unwrap_or(i64::MAX));
    now.saturating_sub(status.ctime_ns) < RECENT.as_nanos() as i64
}

/// A short mark of a file's version: it differs when size or times do, except by a chance of one in four thousand million.
pub(super) fn stamp_of(status: &Status) -> u32 {
    let mixed = [status.size, status.mtime_ns as u64, status.ctime_ns as u64]
        .into_iter()
        .fold(0u64, |mixed, value| {
            (mixed.rotate_left(23) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        });
    (mixed >> 32) as u32
}

/// File systems without files: reading them means nothing, or does something. Automounts are here, too: looking into
/// one would mount it.
fn is_pseudo(directory: &OwnedFd) -> bool {
    const NAMED: [FsType; 17] = [
        statfs::AUTOFS_SUPER_MAGIC,
        statfs::BPF_FS_MAGIC,
        statfs::CGROUP2_SUPER_MAGIC,
        statfs::CGROUP_SUPER_MAGIC,
        statfs::DEBUGFS_MAGIC,
        statfs::DEVPTS_SUPER_MAGIC,
        statfs::NSFS_MAGIC,
        statfs::OPENPROM_SUPER_MAGIC,
        statfs::PROC_SUPER_MAGIC,
        statfs::RDTGROUP_SUPER_MAGIC,
        statfs::SECURITYFS_MAGIC,
        statfs::SELINUX_MAGIC,
        statfs::SMACK_MAGIC,
        statfs::SYSFS_MAGIC,
        statfs::TRACEFS_MAGIC,
        statfs::USBDEVICE_SUPER_MAGIC,
        statfs::XENFS_SUPER_MAGIC,
    ];
    // pstore, efivarfs, configfs, mqueue, binfmt_misc, fusectl: see linux/magic.h and the file systems themselves.
    const NUMBERED: [u32; 6] = [
        0x6165_676c,
        0xde5e_81e4,
        0x6265_6570,
        0x1980_0202,
        0x4249_4e4d,
        0x6573_5543,
    ];
    let Ok(found) = statfs::fstatfs(directory) else {
        return false;
    };
    let kind = found.filesystem_type();
    NAMED.contains(&kind) || NUMBERED.contains(&(kind.0 as u32))
}
