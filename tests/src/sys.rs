//! The rig's only home of `unsafe`: mappings, residency, and entering a group between fork and exec.

use std::{
    fs::File,
    io,
    io::Write,
    os::unix::process::CommandExt,
    process::Command,
    time::{Duration, Instant},
};

use memmap2::{Mmap, MmapOptions};

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
    // SAFETY: the rig's files are written before they are mapped and not truncated while a reader runs, so the mapping
    // stays valid; a concurrent change of content would be visible as other bytes and nothing more.
    unsafe { options.map(file) }
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

/// Makes a file cold: written back, and its pages out of the page cache. Those of other files stay, unlike with [`crate::disk::TestDisk::drop_caches`].
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

/// Touches `bytes` of free memory and gives them back.
///
/// A hypervisor takes free memory away (free page reporting, 5.7) and gives it back page by page as it is touched, at a microsecond or two each: a
/// second for 2 GiB, which whoever touches them first would be charged with. On bare metal this changes nothing.
///
/// # Errors
/// When there is not so much.
pub fn reclaim_from_host(bytes: u64) -> io::Result<()> {
    let length = usize::try_from(bytes).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut memory = memmap2::MmapMut::map_anon(length)?;
    memory.iter_mut().step_by(PAGE as usize).for_each(|byte| *byte = 1);
    Ok(())
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
