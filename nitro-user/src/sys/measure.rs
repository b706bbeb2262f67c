//! What measuring takes: mappings, residency, pages that go, memory that stays, and entering a group between fork and exec.

use std::{
    fs::File,
    io,
    io::Write,
    mem::MaybeUninit,
    os::{
        fd::AsRawFd,
        unix::{
            fs::{FileExt, OpenOptionsExt},
            process::{CommandExt, ExitStatusExt},
        },
    },
    path::Path,
    process::{Command, ExitStatus},
    time::{Duration, Instant},
};

use memmap2::{Mmap, MmapOptions};
use nix::{
    errno::Errno,
    sys::wait::{Id, WaitPidFlag, waitid},
    unistd::{Gid, Pid, Uid},
};

/// Bytes of a page.
pub const PAGE: u64 = 4096;

/// Maps a whole file for reading, shared; with `populate` the call returns when all of it is mapped.
///
/// # Errors
/// As mmap(2).
pub fn map_file(file: &File, populate: bool) -> io::Result<Mmap> {
    let mut options = MmapOptions::new();
    if populate {
        options.populate();
    }
    // SAFETY: a bench's files are written before they are mapped and not truncated while a reader runs, so the mapping
    // stays valid; a concurrent change of content would be visible as other bytes and nothing more.
    unsafe { options.map(file) }
}

/// Opens a file for reading with these flags, so that reading it does not change when it was read last, where that can be had: it takes the file's owner or `CAP_FOWNER`.
///
/// # Errors
/// As open(2).
pub fn open_unnoticed(path: &Path, flags: i32) -> io::Result<File> {
    let with = |flags| File::options().read(true).custom_flags(flags).open(path);
    match with(flags | libc::O_NOATIME) {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => with(flags),
        opened => opened,
    }
}

/// How many of the file's pages are in the page cache, up to date, and how many it has.
///
/// # Errors
/// When the file cannot be mapped or asked about.
pub fn resident_pages(file: &File) -> io::Result<(u64, u64)> {
    let pages = page_map(file)?;
    Ok((pages.iter().filter(|&&here| here).count() as u64, pages.len() as u64))
}

/// Page by page, whether it is in the page cache and up to date.
///
/// # Errors
/// When the file cannot be mapped or asked about.
pub fn page_map(file: &File) -> io::Result<Vec<bool>> {
    let bytes = file.metadata()?.len();
    if bytes == 0 {
        return Ok(Vec::new());
    }
    let map = map_file(file, false)?;
    let mut pages = vec![0u8; bytes.div_ceil(PAGE) as usize];
    // SAFETY: the address and length are those of a live mapping, and the vector has one byte for each of its pages.
    let result = unsafe { libc::mincore(map.as_ptr().cast_mut().cast(), map.len(), pages.as_mut_ptr()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(pages.iter().map(|page| page & 1 == 1).collect())
}

/// Pages of the first `bytes` of a file that reclaim has taken from the page cache since they were brought in, by the traces it leaves (`cachestat`, since
/// 6.5). A machine may reclaim at any time: some have DAMON take pages that have rested for a minute, with 20 GiB free.
///
/// # Errors
/// When the file cannot be asked about.
pub fn reclaimed_pages(file: &File, bytes: u64) -> io::Result<u64> {
    /// The same number on every architecture.
    const CACHESTAT: libc::c_long = 451;
    let range = [0u64, bytes];
    // Cached, dirty, under writeback, evicted, recently evicted: `struct cachestat` of `linux/mman.h`.
    let mut counts = [0u64; 5];
    // SAFETY: both arrays have the size and layout of what the call reads and writes, and outlive it.
    let result = unsafe { libc::syscall(CACHESTAT, file.as_raw_fd(), range.as_ptr(), counts.as_mut_ptr(), 0) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(counts[3])
}

/// Asks the kernel to bring `bytes` of a file in from `start` on, without waiting for them.
///
/// # Errors
/// Where the file system has no readahead.
pub fn readahead(file: &File, start: u64, bytes: u64) -> io::Result<()> {
    // SAFETY: takes a descriptor and numbers; touches no memory of ours.
    let done = unsafe { libc::readahead(file.as_raw_fd(), start as i64, bytes as usize) };
    if done < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Makes a file cold: written back, and its pages out of the page cache. Those of other files stay, unlike with `TestDisk::drop_caches`.
///
/// # Errors
/// When the file cannot be written back or asked about; `TimedOut` when something holds pages of it for seconds.
pub fn drop_pages(file: &File) -> io::Result<()> {
    file.sync_all()?;
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        nix::fcntl::posix_fadvise(file, 0, 0, nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
        if resident_pages(file)?.0 == 0 {
            return Ok(());
        }
        // Pages under read, or in another processor's list of new ones.
        if Instant::now() > deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Free memory that the machine really has.
///
/// A hypervisor takes away what its guest has not used for a while (free page reporting, since 5.7; two seconds are enough) and gives it back page by
/// page as it is touched, at some microseconds each: seconds for 2 GiB, which whoever touches them first is charged with, and a different share of a
/// load each time. Only large free blocks are taken, 2 MiB as a rule. So this holds every other MiB of physical memory in twice what is wanted: what
/// lies free between is no large block, whoever takes it and gives it back, unless the kernel moves the held pages. On bare metal it changes nothing.
#[derive(Debug)]
pub struct FreeMemory {
    _held: memmap2::MmapMut,
}

impl FreeMemory {
    /// Pages of a block, held and free in turn: half of what a hypervisor takes, and large enough for any folio of a file that is read ahead.
    const BLOCK: u64 = (1 << 20) / PAGE;

    /// Makes `bytes` of free memory stay while the value lives, or a quarter of what is free; as much more is held meanwhile.
    ///
    /// # Errors
    /// Without the right to see physical addresses (`CAP_SYS_ADMIN`).
    pub fn keep(bytes: u64) -> io::Result<Self> {
        let available = nix::unistd::sysconf(nix::unistd::SysconfVar::_AVPHYS_PAGES)?.unwrap_or(0);
        let available = u64::try_from(available).unwrap_or(0) * PAGE;
        let length =
            usize::try_from(bytes.saturating_mul(2).min(available / 2)).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut held = memmap2::MmapMut::map_anon(length)?;
        // A huge page could not be given back by halves.
        held.advise(memmap2::Advice::NoHugePage)?;
        held.iter_mut().step_by(PAGE as usize).for_each(|byte| *byte = 1);
        let free: Vec<bool> = frames(&held)?
            .into_iter()
            .map(|frame| (frame / Self::BLOCK) % 2 == 1)
            .collect();
        let mut page = 0;
        for run in free.chunk_by(|one, other| one == other) {
            if run[0] {
                // SAFETY: nothing refers to the mapping's content, which reads as zeroes afterwards.
                unsafe {
                    held.unchecked_advise_range(
                        memmap2::UncheckedAdvice::DontNeed,
                        page * PAGE as usize,
                        run.len() * PAGE as usize,
                    )?;
                }
            }
            page += run.len();
        }
        Ok(Self { _held: held })
    }
}

/// Number of the physical page behind each page of a mapping, which is all in memory.
///
/// <https://docs.kernel.org/admin-guide/mm/pagemap.html>
fn frames(memory: &[u8]) -> io::Result<Vec<u64>> {
    const FRAME: u64 = (1 << 55) - 1;
    const PRESENT: u64 = 1 << 63;
    let pages = memory.len().div_ceil(PAGE as usize);
    let mut entries = vec![0; pages * 8];
    File::open("/proc/self/pagemap")?.read_exact_at(&mut entries, memory.as_ptr() as u64 / PAGE * 8)?;
    let (entries, _) = entries.as_chunks::<8>();
    let entries = entries.iter().map(|&entry| u64::from_ne_bytes(entry));
    if entries.clone().any(|entry| entry & PRESENT == 0) {
        return Err(io::Error::new(
            io::ErrorKind::OutOfMemory,
            "memory that was just touched was swapped out: there is not so much",
        ));
    }
    let frames: Vec<u64> = entries.map(|entry| entry & FRAME).collect();
    if frames.contains(&0) {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "physical addresses are not shown without CAP_SYS_ADMIN",
        ));
    }
    Ok(frames)
}

/// Has the command's process end when this thread does, killed or not: what a killed bench has started must not go on without it.
pub fn end_with_parent(command: &mut Command) {
    let parent = std::process::id();
    let end = move || {
        nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
        // The parent may have ended before it was asked for.
        if std::os::unix::process::parent_id() == parent {
            Ok(())
        } else {
            Err(io::ErrorKind::BrokenPipe.into())
        }
    };
    // SAFETY: between fork and exec the closure calls prctl(2) and getppid(2), and nothing that allocates or locks.
    unsafe {
        command.pre_exec(end);
    }
}

/// Has the command's process begin a session of its own, with no terminal: in a group in the background of one it would be stopped when it reads from it, for ever.
pub fn own_session(command: &mut Command) {
    let begin = || nix::unistd::setsid().map(drop).map_err(io::Error::from);
    // SAFETY: between fork and exec the closure calls setsid(2), and nothing that allocates or locks.
    unsafe {
        command.pre_exec(begin);
    }
}

/// How a process ended, and what it took.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// Its exit status.
    pub status: ExitStatus,
    /// Bytes that it, and those that it has waited for, had read from disks: past the page cache or into it. File systems that are served from elsewhere may count none.
    pub read: u64,
}

/// Waits for the end of a child, and leaves it to be waited for: its number stays its own.
///
/// # Errors
/// There is no such child.
pub fn await_end(child: u32) -> io::Result<()> {
    let end = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
    loop {
        match waitid(Id::Pid(Pid::from_raw(child.cast_signed())), end) {
            Err(Errno::EINTR) => {}
            other => return other.map(drop).map_err(io::Error::from),
        }
    }
}

/// Waits for a child, and tells what it took. Not to be waited for otherwise afterwards.
///
/// # Errors
/// There is no such child.
pub fn wait_for(child: u32) -> io::Result<Ended> {
    let (mut status, mut usage) = (0, MaybeUninit::<libc::rusage>::zeroed());
    loop {
        // SAFETY: both pointers are to live values of the types that the call writes.
        let done = unsafe { libc::wait4(child.cast_signed(), &raw mut status, 0, usage.as_mut_ptr()) };
        if done >= 0 {
            break;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    // SAFETY: zeroed, which is a value of this type, and filled in by the call.
    let usage = unsafe { usage.assume_init() };
    Ok(Ended {
        status: ExitStatus::from_raw(status),
        // In blocks of 512 bytes whatever the device's own size.
        read: u64::try_from(usage.ru_inblock).unwrap_or(0).saturating_mul(512),
    })
}

/// Has the command's process become another user's, with these groups, before it becomes the program.
pub fn become_user(command: &mut Command, user: Uid, group: Gid, groups: Vec<Gid>) {
    let change = move || {
        nix::unistd::setgroups(&groups)?;
        nix::unistd::setgid(group)?;
        nix::unistd::setuid(user)?;
        Ok(())
    };
    // SAFETY: between fork and exec the closure calls setgroups(2), setgid(2) and setuid(2) on values made before, and nothing that allocates or locks.
    unsafe {
        command.pre_exec(change);
    }
}

/// Has the command's process enter the groups whose `cgroup.procs` are open here, before it becomes the program: not one
/// of its reads happens outside.
pub fn enter_before_exec(command: &mut Command, groups: Vec<File>) {
    let enter = move || groups.iter().try_for_each(|mut procs| procs.write_all(b"0"));
    // SAFETY: between fork and exec the closure calls write(2) on descriptors opened before, and nothing that allocates or locks.
    unsafe {
        command.pre_exec(enter);
    }
}
