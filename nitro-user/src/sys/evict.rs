//! Pages of a file that leave the page cache so that others have the memory, or so that they can be brought in again on another account.
//!
//! In: a file, ranges of it, and what of it processes have mapped. Out: how much has gone, how much has stayed and why. What is mapped is not touched, and what is not on the device
//! yet is left alone, for it would be written for it. The kernel itself keeps what is in page tables, is locked, read or written, or is in a folio that reaches beyond the range.

use std::{fs::File, io};

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use super::{page_cache, page_size};
use crate::units::{ByteRange, Ranges};

/// What has become of the pages of some ranges, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evicted {
    /// They have gone.
    pub dropped: u64,
    /// They stay: a process has them mapped.
    pub mapped: u64,
    /// They stay: something in the same step of 2 MiB is not on the device yet.
    pub dirty: u64,
    /// They stay: the kernel keeps them, for they are locked, or just being read or written.
    pub busy: u64,
}

impl Evicted {
    /// What is still in memory.
    pub const fn left(&self) -> u64 {
        self.mapped + self.dirty + self.busy
    }
}

/// Drops the pages of `ranges` from the page cache but for those of `mapped`. Asking what is there takes the right to know it: see [`page_cache::resident`].
///
/// # Errors
/// The file cannot be asked about; `ESPIPE` for what is no file.
pub fn evict(file: &File, ranges: &Ranges, mapped: &Ranges) -> io::Result<Evicted> {
    let mut total = Evicted::default();
    let size = file.metadata()?.len();
    let mapped = in_pages(mapped.iter());
    for range in in_pages(ranges.iter()).within(ByteRange::new(0, size)) {
        for kept in mapped.within(range) {
            total.mapped += page_cache::resident(file, kept)?;
        }
        for part in mapped.without(range) {
            drop_part(file, part, size, &mut total)?;
        }
    }
    Ok(total)
}

/// Step by step where something is dirty, at once where nothing is.
fn drop_part(file: &File, part: ByteRange, size: u64, total: &mut Evicted) -> io::Result<()> {
    if !page_cache::is_dirty_in(file, part)? {
        return drop_clean(file, part, total);
    }
    for step in part.steps() {
        let whole = ByteRange::of_step(step, size);
        let inside = ByteRange {
            start: whole.start.max(part.start),
            end: whole.end.min(part.end),
        };
        if page_cache::is_dirty_in(file, inside)? {
            total.dirty += page_cache::resident(file, inside)?;
        } else {
            drop_clean(file, inside, total)?;
        }
    }
    Ok(())
}

fn drop_clean(file: &File, part: ByteRange, total: &mut Evicted) -> io::Result<()> {
    let before = page_cache::resident(file, part)?;
    if before == 0 {
        return Ok(());
    }
    let number = |at: u64| i64::try_from(at).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
    let (start, length) = (number(part.start)?, number(part.len())?);
    posix_fadvise(file, start, length, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
    let after = page_cache::resident(file, part)?.min(before);
    total.dropped += before - after;
    total.busy += after;
    Ok(())
}

/// Ranges in whole pages.
fn in_pages(ranges: impl Iterator<Item = ByteRange>) -> Ranges {
    let page = page_size();
    let rounded = ranges.map(|range| ByteRange {
        start: range.start / page * page,
        end: range.end.div_ceil(page).saturating_mul(page),
    });
    rounded.collect()
}

#[cfg(test)]
mod tests {
    use std::{io::Write, os::unix::fs::FileExt};

    use super::super::measure;
    use super::*;

    const MIB: u64 = 1 << 20;

    /// Of 4 KiB folios in some file systems and of large ones in others; the borders are such that it does not matter.
    fn file(mib: u64) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new_in("/var/tmp").unwrap();
        file.write_all(&vec![7; (mib * MIB) as usize]).unwrap();
        file.as_file().sync_all().unwrap();
        file
    }

    fn range(from: u64, to: u64) -> ByteRange {
        ByteRange { start: from, end: to }
    }

    fn set(parts: &[ByteRange]) -> Ranges {
        parts.iter().copied().collect()
    }

    #[test]
    fn what_is_mapped_stays_though_nobody_has_touched_it() {
        let file = file(16);
        let mapped = set(&[range(4 * MIB + 1, 5 * MIB), range(5 * MIB, 6 * MIB - 1)]);
        let evicted = evict(file.as_file(), &set(&[range(1, 16 * MIB)]), &mapped).unwrap();
        let here = |from, to| page_cache::resident(file.as_file(), range(from, to)).unwrap();
        assert_eq!(here(4 * MIB, 6 * MIB), 2 * MIB);
        assert_eq!(evicted.mapped, 2 * MIB);
        assert_eq!(evicted.left(), here(0, 16 * MIB), "{evicted:?}");
        // A folio that reaches across a border stays whole.
        assert!(evicted.dropped >= 8 * MIB, "{evicted:?}");
    }

    #[test]
    fn what_is_in_page_tables_the_kernel_keeps_and_it_is_told() {
        let file = file(4);
        let map = measure::map_file(file.as_file(), true).unwrap();
        let evicted = evict(file.as_file(), &set(&[range(0, 4 * MIB)]), &set(&[])).unwrap();
        assert_eq!((evicted.dropped, evicted.busy), (0, 4 * MIB), "{evicted:?}");
        drop(map);
        let evicted = evict(file.as_file(), &set(&[range(0, 4 * MIB)]), &set(&[])).unwrap();
        assert_eq!((evicted.dropped, evicted.left()), (4 * MIB, 0), "{evicted:?}");
        assert_eq!(
            evict(file.as_file(), &set(&[range(0, 99 * MIB)]), &set(&[])).unwrap(),
            Evicted::default()
        );
    }

    #[test]
    fn what_is_not_on_the_device_yet_is_left_alone() {
        if !page_cache::tells_presence() {
            eprintln!("skipped: this kernel does not tell what is dirty");
            return;
        }
        let file = file(8);
        file.as_file().write_all_at(&[9; 4096], 5 * MIB).unwrap();
        let evicted = evict(file.as_file(), &set(&[range(0, 8 * MIB)]), &set(&[])).unwrap();
        let still = page_cache::is_dirty(file.as_file()).unwrap();
        // The system may have written it back by itself at any moment.
        assert!(!still || evicted.dirty >= 4096, "{evicted:?}");
        assert!(evicted.dirty <= 2 * MIB, "{evicted:?}");
        assert_eq!(evicted.dropped + evicted.left(), 8 * MIB);
    }
}
