//! The page cache of one file: bring in, look, wait.

use std::{
    fs::File,
    io,
    num::NonZeroUsize,
    os::fd::{AsFd, AsRawFd},
    os::unix::fs::FileExt,
    sync::OnceLock,
    time::{Duration, Instant},
};

use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap, mmap_anonymous, munmap};

use super::page_size;
use crate::units::ByteRange;

/// `struct cachestat` of `linux/mman.h`, in pages.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct CacheStat {
    cached: u64,
    dirty: u64,
    writeback: u64,
    evicted: u64,
    recently_evicted: u64,
}

/// Number of `cachestat` (6.5), the same on every architecture.
const SYS_CACHESTAT: libc::c_long = 451;

/// Says that this descriptor reads in order: the kernel reads ahead twice as far for it (`mm/fadvise.c`).
///
/// # Errors
/// `EINVAL`, `ESPIPE`: not for this file.
pub fn read_in_order(file: &File) -> io::Result<()> {
    Ok(nix::fcntl::posix_fadvise(
        file,
        0,
        0,
        nix::fcntl::PosixFadviseAdvice::POSIX_FADV_SEQUENTIAL,
    )?)
}

/// Submits reads for `range` and returns; blocks while the device's queue is full.
///
/// The kernel clips a call to max(`max_sectors_kb`, `read_ahead_kb`): call it in steps no larger than that.
///
/// # Errors
/// `EINVAL` where the file system has no readahead (FUSE with direct I/O, some pseudo file systems).
pub fn readahead(file: &File, range: ByteRange) -> io::Result<()> {
    let start = i64::try_from(range.start).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let length = usize::try_from(range.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: takes a descriptor and numbers; touches no memory of ours.
    let done = unsafe { libc::readahead(file.as_raw_fd(), start, length) };
    if done < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Most that one touch asks for.
const TOUCH: usize = 16 << 20;

/// Where a touch has the kernel copy to: addresses that nothing may be written to, so that it stops before the first byte.
fn nowhere() -> io::Result<*mut libc::c_void> {
    static NOWHERE: OnceLock<usize> = OnceLock::new();
    if let Some(&address) = NOWHERE.get() {
        return Ok(address as *mut _);
    }
    let size = NonZeroUsize::new(TOUCH).ok_or(io::ErrorKind::InvalidInput)?;
    // SAFETY: a fresh mapping at an address of the kernel's choice, which nobody can access and which stays until the process ends.
    let mapping = unsafe { mmap_anonymous(None, size, ProtFlags::PROT_NONE, MapFlags::MAP_PRIVATE)? };
    // Two threads at once: one mapping too many, of which nothing is used but its address.
    Ok(*NOWHERE.get_or_init(|| mapping.as_ptr() as usize) as *mut _)
}

/// Asks for `range` without waiting and without a copy, to no end but the readahead that the attempt starts: at most one window, because the
/// attempt ends with the first page that is there. Says whether one was.
///
/// At most 16 MiB at once.
///
/// # Errors
/// `EOPNOTSUPP` where the file system cannot read without waiting.
pub fn touch(file: &File, range: ByteRange) -> io::Result<bool> {
    let start = i64::try_from(range.start).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let piece = libc::iovec {
        iov_base: nowhere()?,
        iov_len: usize::try_from(range.len()).unwrap_or(TOUCH).min(TOUCH),
    };
    // SAFETY: the piece lies in a mapping that is never removed; that it cannot be written to, the kernel reports as EFAULT.
    let done = unsafe { libc::preadv2(file.as_raw_fd(), &raw const piece, 1, start, libc::RWF_NOWAIT) };
    if done >= 0 {
        // The end of the file.
        return Ok(false);
    }
    match io::Error::last_os_error() {
        error if error.raw_os_error() == Some(libc::EFAULT) => Ok(true),
        error if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        error => Err(error),
    }
}

/// Bytes of `range` present in the cache, pages still being read included; at most `range.len()` rounded up to pages.
///
/// # Errors
/// `ENOSYS` before 6.5.
pub fn present(file: &File, range: ByteRange) -> io::Result<u64> {
    // To the kernel a length of nothing means to the end of the file.
    if range.is_empty() {
        return Ok(0);
    }
    Ok(cachestat(file, range.start, range.len())?.cached * page_size())
}

/// How long what is under way may take before it is not waited for any more: more than a slice of a throttled device.
const ARRIVAL: Duration = Duration::from_millis(250);

/// Between two looks at what is under way.
const GLANCE: Duration = Duration::from_micros(100);

/// Waits until what is present of `range` is up to date, for a quarter of a second at most, and touches none of it: a touch can have the kernel read further ahead.
///
/// # Errors
/// As [`present`] and [`resident`].
pub fn arrived(file: &File, range: ByteRange) -> io::Result<()> {
    let deadline = Instant::now() + ARRIVAL;
    while resident(file, range)? < present(file, range)? && Instant::now() < deadline {
        std::thread::sleep(GLANCE);
    }
    Ok(())
}

/// Whether the kernel tells what is present (`cachestat`, 6.5, unless a sandbox refuses it).
pub fn tells_presence() -> bool {
    static TELLS: OnceLock<bool> = OnceLock::new();
    *TELLS.get_or_init(|| {
        let (asked, mut found) = ([0u64; 2], CacheStat::default());
        // SAFETY: as in `cachestat`; no file is asked about.
        let done = unsafe { libc::syscall(SYS_CACHESTAT, -1, asked.as_ptr(), &raw mut found, 0u32) };
        done == 0 || io::Error::last_os_error().raw_os_error() == Some(libc::EBADF)
    })
}

/// Whether pages of the file are not on the device yet; no where the kernel does not tell (`cachestat` is of 6.5).
///
/// # Errors
/// None that means anything: the file is open.
pub fn is_dirty(file: &File) -> io::Result<bool> {
    dirty(file, 0, 0)
}

/// The same of a range.
///
/// # Errors
/// As [`is_dirty`].
pub fn is_dirty_in(file: &File, range: ByteRange) -> io::Result<bool> {
    // To the kernel a length of nothing means to the end of the file.
    Ok(!range.is_empty() && dirty(file, range.start, range.len())?)
}

fn dirty(file: &File, start: u64, length: u64) -> io::Result<bool> {
    match cachestat(file, start, length) {
        Ok(found) => Ok(found.dirty + found.writeback > 0),
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::ENOSYS | libc::EPERM | libc::EOPNOTSUPP)
            ) =>
        {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

fn cachestat(file: &File, start: u64, length: u64) -> io::Result<CacheStat> {
    let asked = [start, length];
    let mut found = CacheStat::default();
    // SAFETY: both pointers are to live values of the layout the kernel expects: two u64, five u64.
    let done = unsafe { libc::syscall(SYS_CACHESTAT, file.as_raw_fd(), asked.as_ptr(), &raw mut found, 0u32) };
    if done < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(found)
    }
}

/// Bytes of `range` that are up to date in the cache: `mincore` over a mapping that exists for the moment of the question.
///
/// # Errors
/// As `mmap` and `mincore`.
pub fn resident(file: &File, range: ByteRange) -> io::Result<u64> {
    let page = page_size();
    let start = range.start / page * page;
    let length = range.end.saturating_sub(start);
    let Some(size) = usize::try_from(length).ok().and_then(NonZeroUsize::new) else {
        return Ok(0);
    };
    let offset = i64::try_from(start).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut pages = vec![0u8; size.get().div_ceil(page as usize)];
    // SAFETY: a fresh mapping at an address of the kernel's choice; nothing reads through it, so that a truncated file cannot raise SIGBUS.
    let mapping = unsafe {
        mmap(
            None,
            size,
            ProtFlags::PROT_READ,
            MapFlags::MAP_SHARED,
            file.as_fd(),
            offset,
        )?
    };
    // SAFETY: the mapping is live and `pages` has a byte for each of its pages.
    let done = unsafe { libc::mincore(mapping.as_ptr(), size.get(), pages.as_mut_ptr()) };
    let error = io::Error::last_os_error();
    // SAFETY: the mapping made above, of that size, not used afterwards.
    unsafe { munmap(mapping, size.get())? };
    if done < 0 {
        return Err(error);
    }
    let count = pages.iter().filter(|page| **page & 1 != 0).count() as u64;
    Ok((count * page).min(length))
}

/// Waits until the page that holds byte `at` is up to date; brings that page, and no other, in if it is not on its way.
///
/// A fault in a mapping with `MADV_RANDOM`: unlike a read it neither starts readahead nor moves a stream of it on.
///
/// # Errors
/// The device's error; `EFAULT` past the end of the file.
pub fn wait(file: &File, at: u64) -> io::Result<()> {
    let page = page_size();
    let offset = i64::try_from(at / page * page).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let Some(size) = usize::try_from(page).ok().and_then(NonZeroUsize::new) else {
        return Ok(());
    };
    // SAFETY: a fresh mapping at an address of the kernel's choice, read by the kernel alone, which reports a truncated file instead of
    // raising SIGBUS.
    let mapping = unsafe {
        mmap(
            None,
            size,
            ProtFlags::PROT_READ,
            MapFlags::MAP_SHARED,
            file.as_fd(),
            offset,
        )?
    };
    let mut looked = 0u8;
    // SAFETY: the mapping made above, of one page, and one byte for it.
    let is_known = unsafe { libc::mincore(mapping.as_ptr(), size.get(), &raw mut looked) } == 0;
    // To the kernel a page that it fills in for us was used, and its whole folio with it; what was used twice it prefers to others' pages. So what is there is left alone.
    let done = if is_known && looked & 1 == 1 {
        Ok(())
    } else {
        // SAFETY: the mapping made above, whole.
        unsafe {
            madvise(mapping, size.get(), MmapAdvise::MADV_RANDOM)
                .and_then(|()| madvise(mapping, size.get(), MmapAdvise::MADV_POPULATE_READ))
        }
    };
    // SAFETY: the mapping made above, of that size, not used afterwards.
    unsafe { munmap(mapping, size.get())? };
    match done {
        // Before 5.14 there is no MADV_POPULATE_READ.
        Err(nix::errno::Errno::EINVAL) => file.read_exact_at(&mut [0u8; 1], at),
        other => other.map_err(io::Error::from),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn what_was_just_written_is_present_and_resident() {
        let mut file = tempfile::NamedTempFile::new_in(".").unwrap();
        file.write_all(&vec![7; 3 << 20]).unwrap();
        let whole = ByteRange::new(0, 3 << 20);
        assert_eq!(resident(file.as_file(), whole).unwrap(), 3 << 20);
        match present(file.as_file(), whole) {
            Ok(bytes) => assert_eq!((bytes, tells_presence()), (3 << 20, true)),
            Err(error) => assert_eq!((error.raw_os_error(), tells_presence()), (Some(libc::ENOSYS), false)),
        }
        assert_eq!(resident(file.as_file(), ByteRange::default()).unwrap(), 0);
        match touch(file.as_file(), whole) {
            Ok(there) => {
                assert!(there);
                assert!(!touch(file.as_file(), ByteRange::new(4 << 20, 4096)).unwrap());
            }
            // A file system that cannot read without waiting.
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EOPNOTSUPP)),
        }
        wait(file.as_file(), 100).unwrap();
        assert!(wait(file.as_file(), 4 << 20).is_err());
    }
}
