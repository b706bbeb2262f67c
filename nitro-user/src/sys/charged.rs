//! Whose account the pages of a file are on.
//!
//! In: an open file and a range. Out: which of its pages are in memory, and for each the number of the memory cgroup that is charged for it: the inode number of the cgroup's
//! directory (`/proc/kpagecgroup`, Documentation/admin-guide/mm/pagemap.rst). The kernel counts pages of a cgroup that is gone as its next parent's.
//!
//! A page is asked about by its place in physical memory, which is told of mapped pages alone, in `/proc/self/pagemap`, and to those who opened that with `CAP_SYS_ADMIN`: so both
//! files are opened while the rights are there, and read after they were given up (seen on 6.18). Only pages that are in memory are mapped for it, and while a
//! [`Look`] lasts they hardly go: the kernel passes over pages that were just mapped.

use std::{fs::File, io, os::unix::fs::FileExt};

use memmap2::{Advice, MmapOptions, MmapRaw};

use super::page_size;
use crate::units::ByteRange;

/// Of an entry of `pagemap`: the page is in memory, and mapped here.
const PRESENT: u64 = 1 << 63;
/// Its place in physical memory; 0 for those who may not know.
const FRAME: u64 = (1 << 55) - 1;

/// The kernel's books, open.
#[derive(Debug)]
pub struct Books {
    pagemap: Option<File>,
    groups: Option<File>,
    silent: Option<String>,
}

/// A part of a file whose pages are mapped here as far as they are in memory.
#[derive(Debug)]
pub struct Look<'books> {
    books: &'books Books,
    map: MmapRaw,
    /// Where in the file it begins: at a page.
    start: u64,
    /// Page by page: in memory.
    here: Vec<bool>,
    /// Page by page: the number of the cgroup; 0 where it is not told. Empty where nothing is told.
    groups: Vec<u64>,
}

impl Books {
    /// Opens them, for this process: its copies have books of their own. To be called before rights are given up.
    pub fn open() -> Self {
        let pagemap = File::open("/proc/self/pagemap");
        let groups = File::open("/proc/kpagecgroup");
        let silent = match (&pagemap, &groups) {
            (Err(error), _) => Some(format!("/proc/self/pagemap cannot be read: {error}")),
            (_, Err(error)) if error.kind() == io::ErrorKind::NotFound => {
                Some("this kernel has no /proc/kpagecgroup (CONFIG_MEMCG, CONFIG_PROC_PAGE_MONITOR)".into())
            }
            (_, Err(error)) => Some(format!("/proc/kpagecgroup cannot be read: {error}")),
            (Ok(pagemap), _) if !shows_frames(pagemap) => {
                Some("places in memory are shown only to those who have CAP_SYS_ADMIN when they start".into())
            }
            _ => None,
        };
        Self {
            pagemap: pagemap.ok(),
            groups: groups.ok(),
            silent,
        }
    }

    /// Why it cannot be told who is charged; `None` where it can be.
    pub fn silent(&self) -> Option<&str> {
        self.silent.as_deref()
    }

    /// Maps what is in memory of a range, and asks who is charged for it. Nothing is read from the device, but for a page that goes in the moment between being asked about and
    /// being mapped.
    ///
    /// # Errors
    /// As mmap(2) and mincore(2); `EFAULT`: the file ends within the range.
    pub fn look(&self, file: &File, range: ByteRange) -> io::Result<Look<'_>> {
        let page = page_size();
        let start = range.start / page * page;
        let length = (range.end.saturating_sub(start)).div_ceil(page) * page;
        let length = usize::try_from(length).map_err(|_| io::ErrorKind::InvalidInput)?;
        let map = MmapOptions::new().offset(start).len(length).map_raw_read_only(file)?;
        // Nothing is read ahead, and looking does not count as use.
        let _ = map.advise(Advice::Random);
        let here = in_memory(&map)?;
        let mut look = Look {
            books: self,
            map,
            start,
            here,
            groups: Vec::new(),
        };
        if !put_into_page_tables(&look.map, &look.here)? {
            return Ok(look);
        }
        if self.silent.is_none()
            && let Some(groups) = &self.groups
        {
            look.groups = numbers(&look.entries()?, groups)?;
        }
        Ok(look)
    }
}

impl Look<'_> {
    /// The ranges within `range` that are in memory; their ends are those of pages, or of `range`.
    pub fn resident(&self, range: ByteRange) -> Vec<ByteRange> {
        let page = page_size();
        let pages = self.pages(range);
        let first = pages.start;
        let found = runs(&self.here[pages]).map(|run| {
            let at = |index: usize| self.start + (first + index) as u64 * page;
            ByteRange {
                start: at(run.start).max(range.start),
                end: at(run.end).min(range.end),
            }
        });
        found.collect()
    }

    /// The numbers of the cgroups that are charged for what of `range` is in memory, each with its bytes; `None` for those of which it is not told.
    pub fn charged(&self, range: ByteRange) -> Vec<(Option<u64>, u64)> {
        let mut charged: Vec<(Option<u64>, u64)> = Vec::new();
        for index in self.pages(range).filter(|&index| self.here[index]) {
            let number = self.groups.get(index).copied().filter(|&number| number != 0);
            match charged.iter_mut().find(|(known, _)| *known == number) {
                Some((_, bytes)) => *bytes += page_size(),
                None => charged.push((number, page_size())),
            }
        }
        charged
    }

    /// Whether all that was in memory of `ranges` never left it since the look began. `None` where the kernel does not tell.
    pub fn stayed(&self, ranges: impl IntoIterator<Item = ByteRange>) -> Option<bool> {
        let entries = self.entries().ok().filter(|entries| !entries.is_empty())?;
        let mut pages = ranges.into_iter().flat_map(|range| self.pages(range));
        Some(pages.all(|index| !self.here[index] || entries[index] & PRESENT != 0))
    }

    /// The entries of `pagemap`; none where there is no such file.
    fn entries(&self) -> io::Result<Vec<u64>> {
        let Some(pagemap) = &self.books.pagemap else {
            return Ok(Vec::new());
        };
        let mut entries = vec![0; self.here.len()];
        let first = self.map.as_ptr() as u64 / page_size();
        pagemap.read_exact_at(bytemuck::cast_slice_mut(&mut entries), first * 8)?;
        Ok(entries)
    }

    /// Indices of the pages that a range touches, as far as they were looked at.
    fn pages(&self, range: ByteRange) -> std::ops::Range<usize> {
        let page = page_size();
        let index = |at: u64| (at.saturating_sub(self.start)).div_ceil(page) as usize;
        let first = (range.start.saturating_sub(self.start) / page) as usize;
        let last = index(range.end).min(self.here.len());
        first.min(last)..last
    }
}

/// Whether a page of our own is told with its place.
fn shows_frames(pagemap: &File) -> bool {
    let touched = Box::new(1u8);
    let mut entry = [0; 8];
    let at = &raw const *touched as u64 / page_size() * 8;
    pagemap.read_exact_at(&mut entry, at).is_ok() && u64::from_ne_bytes(entry) & FRAME != 0
}

/// Page by page, what of a mapping is in memory and up to date.
fn in_memory(map: &MmapRaw) -> io::Result<Vec<bool>> {
    let mut pages = vec![0u8; map.len().div_ceil(page_size() as usize)];
    // SAFETY: the mapping is live and `pages` has a byte for each of its pages.
    if unsafe { libc::mincore(map.as_mut_ptr().cast(), map.len(), pages.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(pages.into_iter().map(|page| page & 1 != 0).collect())
}

/// Maps the pages that are there. False where the kernel cannot do that without reading them (before 5.14).
fn put_into_page_tables(map: &MmapRaw, here: &[bool]) -> io::Result<bool> {
    let bytes = |pages: usize| pages * page_size() as usize;
    for run in runs(here) {
        match map.advise_range(Advice::PopulateRead, bytes(run.start), bytes(run.len())) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return Ok(false),
            done => done?,
        }
    }
    Ok(true)
}

/// Runs of pages that are there.
fn runs(here: &[bool]) -> impl Iterator<Item = std::ops::Range<usize>> + '_ {
    let mut at = 0;
    here.chunk_by(|one, other| one == other).filter_map(move |run| {
        let range = at..at + run.len();
        at = range.end;
        run[0].then_some(range)
    })
}

/// For each entry the number of the cgroup that is charged; 0 for pages that are not there, or of which it is not told.
fn numbers(entries: &[u64], groups: &File) -> io::Result<Vec<u64>> {
    let frame = |entry: u64| if entry & PRESENT == 0 { 0 } else { entry & FRAME };
    let mut numbers = Vec::with_capacity(entries.len());
    // One after the other in memory: the pages of a folio always are.
    for run in entries.chunk_by(|one, other| frame(*one) != 0 && frame(*one) + 1 == frame(*other)) {
        let from = numbers.len();
        numbers.resize(from + run.len(), 0u64);
        let place = frame(run[0]);
        if place == 0 {
            continue;
        }
        let told = &mut numbers[from..];
        groups.read_exact_at(bytemuck::cast_slice_mut(told), place * 8)?;
        fill(told);
    }
    Ok(numbers)
}

/// Older kernels tell the cgroup of a folio's first page alone, and 0 of those behind it; a page of a file is always on somebody's account.
fn fill(told: &mut [u64]) {
    let mut last = 0;
    for number in told {
        match *number {
            0 => *number = last,
            known => last = known,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write, os::unix::fs::MetadataExt};

    use super::super::{cgroup, measure, page_cache};
    use super::*;

    const PAGES: u64 = 64;

    fn file() -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new_in("/var/tmp").unwrap();
        file.write_all(&vec![7; (PAGES * page_size() - 10) as usize]).unwrap();
        file.as_file().sync_all().unwrap();
        file
    }

    #[test]
    fn what_this_process_brought_in_is_on_its_own_account() {
        let (file, page) = (file(), page_size());
        let books = Books::open();
        let whole = ByteRange::new(0, PAGES * page - 10);
        let look = books.look(file.as_file(), whole).unwrap();
        assert_eq!(look.resident(whole), [whole]);
        assert_eq!(look.stayed([whole]), Some(true));
        let charged = look.charged(ByteRange::new(page, 3 * page));
        match books.silent() {
            // Root need not have the right to see places in memory.
            Some(_) => assert_eq!(charged, [(None, 3 * page)]),
            None => {
                let own = cgroup::of_process(std::process::id()).unwrap().directory();
                assert_eq!(charged, [(Some(own.metadata().unwrap().ino()), 3 * page)]);
            }
        }
    }

    #[test]
    fn what_is_not_in_memory_is_not_brought_in() {
        let (file, page) = (file(), page_size());
        let whole = ByteRange::new(0, PAGES * page - 10);
        measure::drop_pages(file.as_file()).unwrap();
        let books = Books::open();
        let look = books.look(file.as_file(), whole).unwrap();
        assert_eq!((look.resident(whole), look.charged(whole)), (vec![], vec![]));
        assert_eq!(look.stayed([whole]), Some(true));
        drop(look);
        page_cache::wait(file.as_file(), 8 * page).unwrap();
        let look = books
            .look(file.as_file(), ByteRange::new(4 * page + 5, 8 * page))
            .unwrap();
        let found = look.resident(ByteRange::new(4 * page + 5, 8 * page));
        assert_eq!(found, [ByteRange::new(8 * page, page)]);
        // A page that goes while it is looked at is missed.
        assert!(page_cache::resident(file.as_file(), whole).unwrap() <= page);
    }

    #[test]
    fn of_a_folio_whose_first_page_alone_is_told_all_are_known() {
        let mut told = [0, 7, 0, 0, 9, 0];
        fill(&mut told);
        assert_eq!(told, [0, 7, 7, 7, 9, 9]);
    }

    #[test]
    fn books_that_are_shut_tell_nothing_and_say_why() {
        let books = Books {
            pagemap: None,
            groups: None,
            silent: Some("for the test".into()),
        };
        let (file, page) = (file(), page_size());
        let whole = ByteRange::new(0, PAGES * page - 10);
        let look = books.look(file.as_file(), whole).unwrap();
        assert_eq!(look.charged(whole), [(None, PAGES * page)]);
        assert_eq!(look.stayed([whole]), None);
    }

    #[test]
    fn a_file_that_ends_early_is_an_error() {
        let file = file();
        let books = Books::open();
        file.as_file().set_len(page_size()).unwrap();
        let cut = books.look(file.as_file(), ByteRange::new(0, 4 * page_size()));
        // Beyond the end nothing is in memory.
        assert_eq!(cut.unwrap().resident(ByteRange::new(0, 4 * page_size())).len(), 1);
    }
}
