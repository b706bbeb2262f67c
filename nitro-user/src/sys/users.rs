//! Who uses files, without being asked: processes that have them mapped, that have them open, and that have an accelerator open beside.
//!
//! In: identities of files as the page cache knows them, and processes that are of interest in themselves. Out: for each file its users and which ranges they have mapped; for each
//! of these processes what accelerator it has open and how much memory of its own it has. One pass over /proc for all, which is bounded in time: what was not looked at is
//! counted, and of that nothing is known. Nothing here asks a file system, whose server may be dead.
//!
//! Names are others' text and decide nothing here, but for those of devices. A file of an overlay is another one to its users than to the page cache, with the same number: it counts
//! as used when a file of that number is, on any overlay that its user sees. So a user can be seen where there is none, and none is missed.

mod accelerator;
mod line;

use std::{
    collections::{HashMap, HashSet},
    ffi::CString,
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::{
    dir::Dir,
    errno::Errno,
    fcntl::{OFlag, openat, readlinkat},
    sys::stat::Mode,
};

pub use self::accelerator::Accelerator;
use self::line::Mapping;
use super::{lent::MOST_DESCRIPTORS, mounts::Mounts, stat::kernel_device};
use crate::units::{ByteCount, FileId, Ranges};

/// Where the kernel tells of processes.
pub const PROC: &str = "/proc";

/// Processes of one pass: as many as most machines allow.
const MOST_PROCESSES: usize = 1 << 17;

/// Bytes of a process's list of mappings: more than a hundred of each that the kernel allows by default (`vm.max_map_count`).
const MOST_MAPS: u64 = 16 << 20;

/// Ranges that are kept of one file in one process; of more, what lies between counts as mapped, too.
const MOST_RANGES: usize = 256;

/// A process that may not be looked at, even by root, and has less than this of any files mapped, is not who uses large ones: the first one of a container is such a one.
const LITTLE: u64 = 1 << 20;

/// Longest status of a process: before what is looked for come its groups, 65 536 at most.
const MOST_STATUS: usize = 1 << 19;

/// In the number of a file of an overlay the upper bits may tell the layer (`xino`).
const NUMBER: u64 = (1 << 48) - 1;

/// What is asked.
#[derive(Debug, Default)]
pub struct Question<'set> {
    /// Files.
    pub files: &'set [FileId],
    /// Processes that are told of in any case.
    pub processes: &'set [u32],
    /// Processes that are passed over: the agent's.
    pub own: &'set [u32],
    /// Whether descriptors are of interest. Without them neither open files nor accelerators are known, in half the time.
    pub descriptors: bool,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The users of each file that has some, by process.
    pub users: HashMap<FileId, Vec<User>>,
    /// The users, and those that were asked about, if they live.
    pub processes: HashMap<u32, Process>,
    /// Processes that could not be looked at, not whole or not in time: they may be users of anything.
    pub unseen: u64,
}

/// Who uses a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// Process id.
    pub process: u32,
    /// What of the file is mapped; it may reach beyond the end of the file.
    pub mapped: Ranges,
    /// Whether a descriptor of it is open.
    pub open: bool,
}

/// A process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// The most telling accelerator that it has open.
    pub accelerator: Option<Accelerator>,
    /// What memory of its own it has.
    pub memory: OwnMemory,
}

/// Memory that is no file's: what a loader copies a model into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnMemory {
    /// Private (`RssAnon`).
    pub private: ByteCount,
    /// Shared without a file that has a name, or in one that is in memory (`RssShmem`).
    pub shared: ByteCount,
    /// In huge pages that are set aside (`HugetlbPages`).
    pub huge: ByteCount,
    /// Of the private: swapped out (`VmSwap`).
    pub swapped: ByteCount,
}

impl OwnMemory {
    /// All of it.
    pub fn total(&self) -> ByteCount {
        let parts = [self.private, self.shared, self.huge, self.swapped];
        ByteCount(parts.iter().fold(0, |sum, part| sum.saturating_add(part.0)))
    }
}

/// Looks through the processes below `proc` (see [`PROC`]), for no longer than `most`.
///
/// # Errors
/// They cannot be listed.
pub fn look(proc: &Path, question: &Question<'_>, most: Duration) -> io::Result<Found> {
    let deadline = Instant::now() + most;
    let wanted = Wanted::new(question.files);
    let asked: HashSet<u32> = question.processes.iter().copied().collect();
    let mut found = Found::default();
    let mut count = 0;
    for entry in std::fs::read_dir(proc)? {
        let name = entry?.file_name();
        let Some(process) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if question.own.contains(&process) {
            continue;
        }
        count += 1;
        if count > MOST_PROCESSES || Instant::now() >= deadline {
            found.unseen += 1;
            continue;
        }
        let directory = proc.join(&name);
        let mut one = One {
            directory: &directory,
            wanted: &wanted,
            deadline,
            uses: HashMap::new(),
            mounts: None,
            accelerator: None,
        };
        match one.look(question.descriptors) {
            Ok(()) => {}
            Err(Error::Gone) => continue,
            Err(Error::Unseen) => found.unseen += 1,
        }
        if one.uses.is_empty() && !asked.contains(&process) {
            continue;
        }
        for (file, mut user) in one.uses {
            user.process = process;
            found.users.entry(file).or_default().push(user);
        }
        let facts = Process {
            accelerator: one.accelerator,
            memory: memory(&directory),
        };
        found.processes.insert(process, facts);
    }
    Ok(found)
}

/// The files that are asked about.
struct Wanted {
    files: HashSet<FileId>,
    by_number: HashMap<u64, Vec<FileId>>,
}

impl Wanted {
    fn new(files: &[FileId]) -> Self {
        let mut by_number: HashMap<u64, Vec<FileId>> = HashMap::new();
        for file in files {
            by_number.entry(file.inode & NUMBER).or_default().push(*file);
        }
        Self {
            files: files.iter().copied().collect(),
            by_number,
        }
    }
}

/// Why a process could not be looked at.
enum Error {
    /// It has ended.
    Gone,
    /// It may not be, there is too much of it, or the time is over.
    Unseen,
}

impl From<Errno> for Error {
    fn from(error: Errno) -> Self {
        match error {
            Errno::ENOENT | Errno::ESRCH => Self::Gone,
            _ => Self::Unseen,
        }
    }
}

/// A process while it is looked at.
struct One<'look> {
    directory: &'look Path,
    wanted: &'look Wanted,
    deadline: Instant,
    uses: HashMap<FileId, User>,
    /// Its mount table, once it was needed.
    mounts: Option<Mounts>,
    accelerator: Option<Accelerator>,
}

impl One<'_> {
    fn look(&mut self, descriptors: bool) -> Result<(), Error> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        // By a descriptor: another process may get the number meanwhile.
        let mut directory = nix::fcntl::open(self.directory, flags, Mode::empty())?;
        let mut seen = self.mappings(&directory).map_err(|error| self.little(error))?;
        if !seen {
            // A thread of the kernel, or a process whose first thread has ended before it: then another one tells.
            if let Some(thread) = self.threads(&directory)? {
                directory = openat(&directory, thread.as_c_str(), flags, Mode::empty())?;
                seen = self.mappings(&directory).map_err(|error| self.little(error))?;
            }
        }
        if seen && descriptors {
            self.descriptors(&directory)?;
        }
        Ok(())
    }

    /// A thread that is not the first one, below the directory of the process; none of most.
    fn threads(&self, directory: &OwnedFd) -> Result<Option<CString>, Errno> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let first = self.directory.file_name().map(std::os::unix::ffi::OsStrExt::as_bytes);
        let mut threads = Dir::openat(directory, "task", flags, Mode::empty())?;
        for entry in threads.iter().take(8) {
            let name = entry?.file_name().to_owned();
            if !name.as_bytes().starts_with(b".") && Some(name.as_bytes()) != first {
                return Ok(CString::new([b"task/", name.as_bytes()].concat()).ok());
            }
        }
        Ok(None)
    }

    /// What it has mapped; false where there is no list: of a thread of the kernel, and of one that has ended.
    fn mappings(&mut self, directory: &OwnedFd) -> Result<bool, Errno> {
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let mut maps = match openat(directory, "maps", flags, Mode::empty()) {
            Err(Errno::ESRCH) => return Ok(false),
            maps => File::from(maps?).take(MOST_MAPS + 1),
        };
        let mut lines = line::Lines::default();
        loop {
            let more = match lines.fill(&mut maps) {
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => false,
                more => more.map_err(errno)?,
            };
            while let Some(line) = lines.next() {
                if let Some(mapping) = line::mapping(line) {
                    self.mapping(&mapping);
                }
            }
            match maps.limit() {
                0 => return Err(Errno::EFBIG),
                left if !more => return Ok(left <= MOST_MAPS),
                _ if Instant::now() >= self.deadline => return Err(Errno::ETIMEDOUT),
                _ => {}
            }
        }
    }

    fn mapping(&mut self, mapping: &Mapping) {
        for file in self.named(mapping.device, mapping.inode) {
            let user = self.uses.entry(file).or_default();
            user.mapped.add(mapping.range);
            if user.mapped.pieces() > MOST_RANGES {
                user.mapped.close_up();
            }
        }
    }

    /// The files that a device and a number of this process's stand for.
    fn named(&mut self, device: u32, inode: u64) -> Vec<FileId> {
        let Some(candidates) = self.wanted.by_number.get(&(inode & NUMBER)) else {
            return Vec::new();
        };
        let exact = FileId { device, inode };
        if self.wanted.files.contains(&exact) {
            return vec![exact];
        }
        let is_overlay = self.mounts().is_overlay(device);
        if is_overlay { candidates.clone() } else { Vec::new() }
    }

    fn mounts(&mut self) -> &Mounts {
        let directory = self.directory;
        self.mounts
            .get_or_insert_with(|| Mounts::read(&directory.join("mountinfo")).unwrap_or_default())
    }

    /// What it has open.
    fn descriptors(&mut self, directory: &OwnedFd) -> Result<(), Error> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let mut names = Dir::openat(directory, "fd", flags, Mode::empty())?;
        let links = names.as_fd().try_clone_to_owned().map_err(|_| Error::Unseen)?;
        for (count, entry) in names.iter().enumerate() {
            if count >= MOST_DESCRIPTORS || Instant::now() >= self.deadline {
                return Err(Error::Unseen);
            }
            let name = entry?.file_name().to_owned();
            if name.as_bytes().starts_with(b".") {
                continue;
            }
            // Closed meanwhile.
            let Ok(link) = readlinkat(&links, name.as_c_str()) else {
                continue;
            };
            let link = std::os::unix::ffi::OsStrExt::as_bytes(link.as_os_str());
            if let Some(accelerator) = accelerator::named(link) {
                self.accelerator = self.accelerator.max(Some(accelerator));
            } else if link.starts_with(b"/") {
                self.descriptor(directory, &name);
            }
        }
        Ok(())
    }

    /// Which file a descriptor is of: by its number, which is told from Linux 5.14 on, and its mount.
    fn descriptor(&mut self, directory: &OwnedFd, name: &CString) {
        let path = PathBuf::from("fdinfo").join(name.to_string_lossy().as_ref());
        let Some((mount, inode)) = line::descriptor(directory, &path) else {
            return;
        };
        if !self.wanted.by_number.contains_key(&(inode & NUMBER)) {
            return;
        }
        let Some(device) = self.mounts().numbered(mount).map(|mount| mount.device) else {
            return;
        };
        for file in self.named(device, inode) {
            self.uses.entry(file).or_default().open = true;
        }
    }

    /// Of a process that may not be looked at, whether that matters.
    fn little(&self, error: Errno) -> Error {
        let denied = matches!(error, Errno::EACCES | Errno::EPERM);
        if denied && status(self.directory, "RssFile:").is_none_or(|bytes| bytes.0 < LITTLE) {
            return Error::Gone;
        }
        error.into()
    }
}

fn errno(error: io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

fn memory(directory: &Path) -> OwnMemory {
    let text = read_status(directory);
    let of = |name| field(&text, name).unwrap_or_default();
    OwnMemory {
        private: of("RssAnon:"),
        shared: of("RssShmem:"),
        huge: of("HugetlbPages:"),
        swapped: of("VmSwap:"),
    }
}

fn status(directory: &Path, name: &str) -> Option<ByteCount> {
    field(&read_status(directory), name)
}

fn read_status(directory: &Path) -> String {
    let bytes = super::proc::read_at_most(directory.join("status"), MOST_STATUS).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn field(text: &str, name: &str) -> Option<ByteCount> {
    let mut lines = text.lines();
    let kib = lines.find_map(|line| line.strip_prefix(name)?.trim().strip_suffix("kB"))?;
    Some(ByteCount(kib.trim().parse::<u64>().ok()?.saturating_mul(1024)))
}

#[cfg(test)]
mod tests;
