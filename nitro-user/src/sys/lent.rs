//! A file through the descriptor of somebody who has it open, where the agent may not open it by its path: FUSE mounts that are their user's alone, network file systems
//! that take root for nobody.
//!
//! In: a process and a file's identity. Out: a duplicate of the process's own descriptor (`pidfd_getfd`, Linux 5.6; `CAP_SYS_PTRACE`), with what it is called there. Nothing
//! here asks the server: descriptors are told apart by `/proc/PID/fdinfo` (the inode is told from Linux 5.14 on), the device by a `statx` that asks for nothing.
//!
//! The duplicate shares the position, the flags and the readahead of its owner's: whoever has it must not seek, advise, or read without waiting.

use std::{
    collections::{HashMap, VecDeque},
    fs::{self, File},
    io,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
    path::{Component, Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{
    mounts::{Mount, Mounts, OWN},
    proc::read_at_most,
    process::end_of,
    stat,
};
use crate::units::FileId;

/// Descriptors of one process that are looked at; a loader opens its model early.
pub(super) const MOST_DESCRIPTORS: usize = 4096;

/// Files whose lenders are remembered.
const MOST_FILES: usize = 4096;

/// Lenders remembered of each file, the latest.
const MOST_LENDERS: usize = 8;

/// A file that is somebody else's descriptor.
#[derive(Debug)]
pub struct Lent {
    /// The duplicate.
    pub file: File,
    /// Its path from the top of its file system, whatever of it is mounted where. Names are others' text.
    pub path: PathBuf,
    /// Readable when the process has ended that lends it.
    pub owner: OwnedFd,
}

impl Lent {
    /// Whether the process has ended that lends it.
    pub fn is_orphaned(&self) -> bool {
        let mut owner = [PollFd::new(self.owner.as_fd(), PollFlags::POLLIN)];
        matches!(poll(&mut owner, PollTimeout::ZERO), Ok(ready) if ready > 0)
    }
}

/// What the kernel says of a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Info {
    flags: i32,
    mount: u64,
    pub(super) inode: u64,
}

impl Info {
    /// The lines of an `fdinfo` file; `None` where one is missing.
    fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| text.lines().find_map(|line| Some(line.strip_prefix(name)?.trim()));
        Some(Self {
            flags: i32::from_str_radix(field("flags:")?, 8).ok()?,
            mount: field("mnt_id:")?.parse().ok()?,
            inode: field("ino:")?.parse().ok()?,
        })
    }

    pub(super) fn of(path: &str) -> Option<Self> {
        let text = read_at_most(path, 4096)?;
        Self::parse(std::str::from_utf8(&text).ok()?)
    }

    /// Whether bytes can be read through it into the page cache.
    fn reads(self) -> bool {
        self.flags & libc::O_ACCMODE != libc::O_WRONLY && self.flags & (libc::O_DIRECT | libc::O_PATH) == 0
    }
}

/// Duplicates a descriptor by which `process` can read `file`.
///
/// # Errors
/// `NotFound`: it has ended, or has no such descriptor (any more). Otherwise what the system says; `EPERM` without the capability, or where Yama or the sandbox of the process refuses
/// it.
pub fn borrow(process: u32, file: FileId) -> io::Result<Lent> {
    let gone = || io::Error::new(io::ErrorKind::NotFound, "no process that reads it has it open");
    let handle = end_of(process).map_err(|error| match error.raw_os_error() {
        Some(libc::ESRCH) => gone(),
        _ => error,
    })?;
    let mut refused = None;
    for entry in fs::read_dir(format!("/proc/{process}/fdinfo"))?
        .flatten()
        .take(MOST_DESCRIPTORS)
    {
        let Some(number) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let info = Info::of(&format!("/proc/{process}/fdinfo/{number}"));
        if !info.is_some_and(|info| info.inode == file.inode && info.reads()) {
            continue;
        }
        // What it names may be another file by now: the duplicate itself is asked.
        match duplicate(&handle, number).map(|copy| (identified(&copy, file, process), copy)) {
            Ok((Some(path), file)) => {
                let owner = handle;
                return Ok(Lent { file, path, owner });
            }
            Ok((None, _)) => {}
            // Closed meanwhile.
            Err(error) if error.raw_os_error() == Some(libc::EBADF) => {}
            Err(error) => refused = Some(error),
        }
    }
    Err(refused.unwrap_or_else(gone))
}

fn duplicate(process: &OwnedFd, number: i32) -> io::Result<File> {
    // SAFETY: takes numbers; touches no memory of ours. The new descriptor is closed on exec.
    let copy = unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number, 0) };
    match i32::try_from(copy) {
        // SAFETY: the kernel has just made it, and nobody else knows of it.
        Ok(copy) if copy >= 0 => Ok(unsafe { File::from_raw_fd(copy) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The path of the duplicate in its file system, if it is the file that is wanted and has one.
fn identified(copy: &File, wanted: FileId, process: u32) -> Option<PathBuf> {
    let number = copy.as_raw_fd();
    let info = Info::of(&format!("/proc/self/fdinfo/{number}"))?;
    if info.inode != wanted.inode || !info.reads() || stat::device_alone(copy).ok()? != wanted.device {
        return None;
    }
    let named = fs::read_link(format!("/proc/self/fd/{number}")).ok()?;
    // Of another mount namespace its own table tells.
    let tables = [OWN.into(), PathBuf::from(format!("/proc/{process}/mountinfo"))];
    tables.iter().find_map(|table| {
        let mounts = Mounts::read(table).ok()?;
        let mount = mounts.numbered(info.mount)?;
        (mount.device == wanted.device).then(|| from_the_top(&named, mount))?
    })
}

/// Where a file that is called `named` is in the file system that `mount` shows; `None` for a text that is no path in it.
fn from_the_top(named: &Path, mount: &Mount) -> Option<PathBuf> {
    let below = named.strip_prefix(&mount.point).ok()?;
    let plain = below.components().all(|part| matches!(part, Component::Normal(_)));
    (plain && named.is_absolute() && below.file_name().is_some()).then(|| mount.shows.join(below))
}

/// Who has files open that the agent may not open, by file. Shared by those who hear of readers and those who read.
#[derive(Clone, Debug, Default)]
pub struct Lenders(Arc<Mutex<HashMap<FileId, Of>>>);

/// Of one file.
#[derive(Clone, Debug, Default)]
struct Of {
    /// The processes, the latest first.
    processes: VecDeque<u32>,
    /// What one of them has lent to somebody who still has it.
    lent: Weak<Lent>,
}

impl Lenders {
    fn lock(&self) -> MutexGuard<'_, HashMap<FileId, Of>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A process has come to a file.
    pub fn add(&self, file: FileId, process: u32) {
        let mut all = self.lock();
        if all.len() >= MOST_FILES && !all.contains_key(&file) {
            all.clear();
        }
        let processes = &mut all.entry(file).or_default().processes;
        processes.retain(|known| *known != process);
        processes.push_front(process);
        processes.truncate(MOST_LENDERS);
    }

    /// What was lent may be shared for as long as somebody keeps it: its lender may have closed it by then.
    pub fn share(&self, file: FileId, lent: &Arc<Lent>) {
        if let Some(of) = self.lock().get_mut(&file) {
            of.lent = Arc::downgrade(lent);
        }
    }

    /// Nobody need know of these files any more.
    pub fn forget(&self, files: &[FileId]) {
        let mut all = self.lock();
        files.iter().for_each(|file| drop(all.remove(file)));
    }

    /// Borrows a file of whoever was lent it and still has it, or of whoever has it open, the latest first.
    ///
    /// # Errors
    /// As [`borrow`], of the last that was asked.
    pub fn borrow(&self, file: FileId) -> io::Result<Lent> {
        // Not while others wait: looking at processes can take a while.
        let of = self.lock().get(&file).cloned().unwrap_or_default();
        if let Some(shared) = of.lent.upgrade() {
            return Ok(Lent {
                file: shared.file.try_clone()?,
                path: shared.path.clone(),
                owner: shared.owner.try_clone()?,
            });
        }
        let mut failed = io::Error::new(io::ErrorKind::NotFound, "no process is known that reads it");
        for process in of.processes {
            match borrow(process, file) {
                Ok(lent) => return Ok(lent),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn what_the_kernel_says_of_a_descriptor_is_read_and_nothing_else() {
        let text = "pos:\t0\nflags:\t02100000\nmnt_id:\t43\nino:\t2\n";
        let info = Info::parse(text).unwrap();
        assert_eq!((info.mount, info.inode), (43, 2));
        assert!(info.reads());
        let flags = |flags: &str| Info::parse(&text.replace("02100000", flags));
        // Write alone, O_DIRECT, O_PATH.
        for no in [libc::O_WRONLY, libc::O_DIRECT, libc::O_PATH] {
            assert!(!flags(&format!("{no:o}")).unwrap().reads());
        }
        assert!(flags(&format!("{:o}", libc::O_RDWR)).unwrap().reads());
        for broken in ["", "flags:\t9\nmnt_id:\t1\nino:\t2\n", "flags:\t0\nmnt_id:\t1\n"] {
            assert_eq!(Info::parse(broken), None, "{broken:?}");
        }
    }

    #[test]
    fn a_text_that_is_no_path_below_the_mount_names_nothing() {
        let mounts = Mounts::parse(b"30 22 0:44 /sub /mnt/a\\040b rw - fuse x rw\n");
        let mount = mounts.numbered(30).unwrap();
        let top = |text: &str| from_the_top(Path::new(text), mount);
        assert_eq!(top("/mnt/a b/models/m.gguf"), Some("/sub/models/m.gguf".into()));
        for other in [
            "/mnt/a b",
            "/mnt/a b/",
            "/mnt/a bc/m",
            "/mnt/a b/../m",
            "/mnt/a b/m/..",
            "mnt/a b/m",
            "pipe:[1]",
            "(unreachable)/mnt/a b/m",
            "",
        ] {
            assert_eq!(top(other), None, "{other}");
        }
    }

    #[test]
    fn a_file_is_borrowed_of_whoever_can_read_it_and_only_that_file() {
        let file = tempfile::NamedTempFile::new_in(".").unwrap();
        fs::write(file.path(), "lent").unwrap();
        let path = file.path().canonicalize().unwrap();
        let id = |file: &File| FileId {
            device: stat::device_alone(file).unwrap(),
            inode: file.metadata().unwrap().ino(),
        };
        let own = id(file.as_file());
        let mut reader = std::process::Command::new("sleep")
            .arg("60")
            .stdin(File::open(&path).unwrap())
            .spawn()
            .unwrap();
        let lenders = Lenders::default();
        assert_eq!(lenders.borrow(own).unwrap_err().kind(), io::ErrorKind::NotFound);
        lenders.add(own, reader.id());
        let lent = lenders.borrow(own).unwrap();
        let mut text = [0; 4];
        std::os::unix::fs::FileExt::read_exact_at(&lent.file, &mut text, 0).unwrap();
        assert_eq!(&text, b"lent");
        assert!(lent.path.ends_with(path.file_name().unwrap()), "{:?}", lent.path);
        let stranger = FileId {
            inode: own.inode + 1,
            ..own
        };
        let elsewhere = FileId { device: 1, ..own };
        for not in [stranger, elsewhere] {
            assert_eq!(borrow(reader.id(), not).unwrap_err().kind(), io::ErrorKind::NotFound);
        }
        assert!(!lent.is_orphaned());
        let lent = Arc::new(lent);
        lenders.share(own, &lent);
        reader.kill().unwrap();
        reader.wait().unwrap();
        assert!(lent.is_orphaned());
        // As long as somebody has it.
        drop(lenders.borrow(own).unwrap());
        drop(lent);
        assert_eq!(lenders.borrow(own).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn through_a_descriptor_for_writing_nothing_is_borrowed() {
        let (file, path) = tempfile::NamedTempFile::new_in(".").unwrap().into_parts();
        let own = FileId {
            device: stat::device_alone(&file).unwrap(),
            inode: file.metadata().unwrap().ino(),
        };
        drop(file);
        let writer = File::options().write(true).open(&path).unwrap();
        let borrowed = || borrow(std::process::id(), own);
        assert_eq!(borrowed().unwrap_err().kind(), io::ErrorKind::NotFound);
        drop(writer);
        let _reader = File::open(&path).unwrap();
        borrowed().unwrap();
    }
}
