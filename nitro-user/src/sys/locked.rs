//! A file that is mapped so that ranges of it can be locked in memory.
//!
//! In: an open file and its size. Out: ranges that the kernel does not take from the page cache, until they are unlocked or the value is dropped, and then at once: pages of a
//! file without a name go, and their space is free. Nothing is read through the mapping, so that a file that is cut short raises no signal.
//!
//! The mapping is a random reader's (`MADV_RANDOM`): nothing is read ahead for it, and pages that were locked do not count as just used when they are let go.

use std::{fs::File, io};

use memmap2::{Advice, MmapOptions, MmapRaw};

use super::page_size;
use crate::units::ByteRange;

/// No flag of `mlock2`: what is not in memory is brought in, as by `mlock`.
const NOW: libc::c_uint = 0;

/// A mapped file. Dropped, it locks nothing and is not used any more.
#[derive(Debug)]
pub struct Locked {
    map: MmapRaw,
    // Behind the mapping: closing it can wait for the file system's server, which must find nothing locked.
    _file: File,
}

impl Locked {
    /// Maps the first `size` bytes. Nothing is brought in.
    ///
    /// # Errors
    /// As mmap(2): `ENODEV` where the file system has no mappings, `ENOMEM`, `EINVAL` for a size of nothing.
    pub fn map(file: File, size: u64) -> io::Result<Self> {
        let length = usize::try_from(size).map_err(|_| io::ErrorKind::InvalidInput)?;
        let map = MmapOptions::new().len(length).map_raw_read_only(&file)?;
        // What it is not for is not worth failing for.
        let _ = map.advise(Advice::Random);
        Ok(Self { map, _file: file })
    }

    /// Locks the pages of a range (`mlock2`, Linux 4.4). Those that are not in memory are read, one by one: ask before.
    ///
    /// # Errors
    /// `EPERM`, `ENOMEM`: more than `RLIMIT_MEMLOCK` allows without `CAP_IPC_LOCK`. `ENOMEM` also: the file ends before the range does, or the mapping is in too many pieces.
    /// `EAGAIN`: no memory. `EINVAL`: beyond what is mapped. The range is not locked then.
    pub fn lock(&self, range: ByteRange) -> io::Result<()> {
        let (at, length) = self.pages(range)?;
        // SAFETY: the addresses lie in the live mapping, as was just checked; locking changes none of its content.
        if unsafe { libc::mlock2(at, length, NOW) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        // The kernel has marked the range before it failed to fill it.
        let _ = self.unlock(range);
        Err(error)
    }

    /// Unlocks the pages of a range, and lets go of them.
    ///
    /// # Errors
    /// `EINVAL`: beyond what is mapped.
    pub fn unlock(&self, range: ByteRange) -> io::Result<()> {
        let (at, length) = self.pages(range)?;
        // SAFETY: the addresses lie in the live mapping, as was just checked; nothing refers to its content, which comes back from the file.
        let done = unsafe { libc::munlock(at, length) == 0 && libc::madvise(at, length, libc::MADV_DONTNEED) == 0 };
        if done { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Address and length of the pages that a range touches.
    fn pages(&self, range: ByteRange) -> io::Result<(*mut libc::c_void, usize)> {
        let page = page_size();
        let start = range.start / page * page;
        let mapped = self.map.len() as u64;
        if range.is_empty() || range.end > mapped {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let length = range.end.div_ceil(page) * page - start;
        let fits = |number: u64| usize::try_from(number).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
        let at = self.map.as_mut_ptr().wrapping_add(fits(start)?);
        Ok((at.cast(), fits(length)?))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// Bytes of the mapping that are in memory and locked.
    fn locked(held: &Locked) -> u64 {
        let first = held.map.as_ptr() as u64;
        let ours = first..first + held.map.len() as u64;
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let (mut inside, mut bytes) = (false, 0);
        for line in smaps.lines() {
            let (word, rest) = line.split_once(' ').unwrap();
            if let Some((start, _)) = word.split_once('-') {
                inside = ours.contains(&u64::from_str_radix(start, 16).unwrap());
            } else if inside && word == "Locked:" {
                bytes += rest.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024;
            }
        }
        bytes
    }

    #[test]
    fn what_is_locked_is_counted_until_it_is_unlocked() {
        let mut file = tempfile::NamedTempFile::new_in("/var/tmp").unwrap();
        let page = page_size();
        file.write_all(&vec![7; 5 * page as usize - 100]).unwrap();
        let held = Locked::map(file.reopen().unwrap(), 5 * page - 100).unwrap();
        assert_eq!(locked(&held), 0);
        held.lock(ByteRange::new(page + 1, 2)).unwrap();
        assert_eq!(locked(&held), page);
        held.lock(ByteRange::new(3 * page, 2 * page - 100)).unwrap();
        assert_eq!(locked(&held), 3 * page);
        held.unlock(ByteRange::new(page, page)).unwrap();
        assert_eq!(locked(&held), 2 * page);
        for beyond in [
            ByteRange::new(4 * page, page),
            ByteRange::new(9 * page, 1),
            ByteRange::default(),
        ] {
            assert_eq!(held.lock(beyond).unwrap_err().raw_os_error(), Some(libc::EINVAL));
        }
    }

    #[test]
    fn of_a_file_that_was_cut_short_nothing_stays_locked() {
        let mut file = tempfile::NamedTempFile::new_in("/var/tmp").unwrap();
        let page = page_size();
        file.write_all(&vec![7; 4 * page as usize]).unwrap();
        let held = Locked::map(file.reopen().unwrap(), 4 * page).unwrap();
        file.as_file().set_len(page).unwrap();
        assert!(held.lock(ByteRange::new(0, 4 * page)).is_err());
        held.lock(ByteRange::new(0, page)).unwrap();
    }
}
