//! One hook per file. Each: count the hit, filter, read the hook's arguments, hand over.
//!
//! Page-cache hooks and process hooks are programs on typed tracepoints (`tp_btf`). Those that the syscalls mode needs as well have a second
//! program, on the classic tracepoint, for kernels that refuse the first kind. Where the tracepoints of accesses are missing, before 6.12, programs at the entry
//! of the functions that would raise them (`fentry`) stand in for them.

mod file_open;
mod filemap_add;
mod filemap_delete;
mod filemap_fault;
mod filemap_get_pages;
mod filemap_map_pages;
mod filemap_read;
mod mmap;
mod open;
mod openat;
mod openat2;
mod pread64;
mod preadv;
mod preadv2;
mod process_exec;
mod process_exit;
mod read;
mod readv;
mod sendfile64;

use aya_ebpf::programs::TracePointContext;
use nitro_common::{Counter, Hook, flags};

use crate::{
    cursor,
    descriptor::{File, at_most_one_call},
    emit::{What, emit, emit_at, now},
    guard::{Tally, Watched, Who, may_be_watched, watched},
    kernel::{
        ADDS_WAKE, AREA_FILE, EXACT, FAULT_AREA, FILE_MAPPING, FOLIO_FLAGS, FOLIO_INDEX, FOLIO_MAPPING, FOLIO_ORDER,
        HEAD_MASK, Inode, PAGE_SHIFT, RECORD_DEVICE, RECORD_INDEX, RECORD_INODE, RECORD_ORDER, Typed, field,
    },
};

/// The mapping of the file that a fault is in.
#[inline(always)]
fn mapping_of_fault(fault: Typed) -> Typed {
    // SAFETY: `fault` is the typed argument of a function that handles faults in mappings of files.
    unsafe {
        let area: Typed = field(fault, &FAULT_AREA);
        let file: Typed = field(area, &AREA_FILE);
        field(file, &FILE_MAPPING)
    }
}

/// Accesses through the page cache: `first..=last` in pages of `mapping`.
#[inline(always)]
fn mapping_access(hook: Hook, mapping: Typed, first: u64, last: u64) -> i32 {
    let Some(tally) = Tally::hit() else { return 0 };
    // SAFETY: `mapping` is the tracepoint's typed argument.
    let inode = unsafe { Inode::of_mapping(mapping) };
    if !may_be_watched(&inode) {
        tally.count(Counter::Filtered);
        return 0;
    }
    let who = Who::current();
    if who.is_agent() {
        tally.count(Counter::Filtered);
        return 0;
    }
    let shift = PAGE_SHIFT.load() & 31;
    // A read's last page follows from its length, which may reach beyond the end of the file.
    let pages = (inode.size().wrapping_sub(1) >> shift).wrapping_add(1);
    let end = last.wrapping_add(1);
    let (start, end) = (first << shift, (if end < pages { end } else { pages }) << shift);
    let what = What {
        hook,
        flags: 0,
        start,
        end,
    };
    if end > start {
        cursor::access(tally, who, &inode, what);
    } else {
        tally.count(Counter::Filtered);
    }
    0
}

/// A folio that came into or left the page cache.
#[inline(always)]
fn folio_change(hook: Hook, folio: Typed) -> i32 {
    let Some(tally) = Tally::hit() else { return 0 };
    // SAFETY: `folio` is the tracepoint's typed argument; the mapping is set at both hooks.
    let (inode, index, pages) = unsafe {
        let inode = Inode::of_mapping(field(folio, &FOLIO_MAPPING));
        if !may_be_watched(&inode) {
            tally.count(Counter::Filtered);
            return 0;
        }
        let large = field::<u64>(folio, &FOLIO_FLAGS) & HEAD_MASK.load() != 0;
        let order = if large {
            field::<u8>(folio, &FOLIO_ORDER) & 31
        } else {
            0
        };
        (inode, field::<u64>(folio, &FOLIO_INDEX), 1u64 << order)
    };
    pages_changed(tally, hook, &inode, index, pages)
}

/// The same from the record of a classic tracepoint.
#[inline(always)]
fn record_change(hook: Hook, ctx: &TracePointContext) -> u32 {
    let Some(tally) = Tally::hit() else { return 0 };
    // SAFETY: the offsets are those of the record's own fields; the helper checks the address.
    let (number, device, index, order) = unsafe {
        let Ok(number) = ctx.read_at::<u64>(RECORD_INODE.load() as usize) else {
            tally.count(Counter::Filtered);
            return 0;
        };
        let device = ctx.read_at::<u32>(RECORD_DEVICE.load() as usize).unwrap_or(0);
        let index = ctx.read_at::<u64>(RECORD_INDEX.load() as usize).unwrap_or(0);
        // Kernels whose record lacks the order have one record for each page.
        let order = match RECORD_ORDER.load() {
            0 => 0,
            at => ctx.read_at::<u8>(at as usize).unwrap_or(0) & 31,
        };
        (number, device, index, order)
    };
    let inode = Inode::named(number, device);
    if !may_be_watched(&inode) {
        tally.count(Counter::Filtered);
        return 0;
    }
    pages_changed(tally, hook, &inode, index, 1 << order) as u32
}

#[inline(always)]
fn pages_changed(tally: Tally, hook: Hook, inode: &Inode, index: u64, pages: u64) -> i32 {
    let shift = PAGE_SHIFT.load() & 31;
    let (start, end) = (index << shift, (index + pages) << shift);
    let what = What {
        hook,
        flags: 0,
        start,
        end,
    };
    let who = Who::current();
    let wake = matches!(hook, Hook::Delete) || ADDS_WAKE.load() != 0 && !who.is_agent();
    cursor::change(tally, who, inode, what, wake);
    0
}

/// The watched file behind a descriptor of somebody else than the agent, and why it is watched.
#[inline(always)]
fn watched_file(descriptor: u64) -> Option<(Who, File, Inode, Watched)> {
    let file = File::of(descriptor)?;
    let inode = file.inode()?;
    if !may_be_watched(&inode) {
        return None;
    }
    let watched = watched(&inode);
    let who = Who::current();
    if matches!(watched, Watched::No) || who.is_agent() {
        return None;
    }
    Some((who, file, inode, watched))
}

/// Tells of a file that is watched by its device alone, where no cursor does.
#[inline(always)]
fn meet(who: Who, inode: &Inode, watched: Watched) {
    if matches!(watched, Watched::ByDevice) {
        cursor::meet(who.process, who.thread, inode.number, inode.device, inode.size());
    }
}

/// A system call returned a descriptor, or an error.
#[inline(always)]
fn opened(result: u64) -> u32 {
    let Some(tally) = Tally::hit() else { return 0 };
    if result as i64 >= 0
        && let Some((who, file, inode, watched)) = watched_file(result)
    {
        cursor::note_reader(who);
        meet(who, &inode, watched);
        let flags = if file.is_direct() { flags::DIRECT } else { 0 };
        let (hook, start, end) = (Hook::Open, 0, 0);
        emit(
            tally,
            who,
            Some(&inode),
            What {
                hook,
                flags,
                start,
                end,
            },
        );
    } else {
        tally.count(Counter::Filtered);
    }
    0
}

/// A system call is about to read: `range` says where from and how many bytes at most.
#[inline(always)]
fn reads(descriptor: u64, range: impl FnOnce(File) -> Option<(u64, u64)>) -> u32 {
    let Some(tally) = Tally::hit() else { return 0 };
    if let Some((who, file, inode, _)) = watched_file(descriptor)
        && let Some((start, length)) = range(file)
        && let Some(what) = clipped(Hook::Read, &inode, start, at_most_one_call(length))
    {
        if EXACT.load() != 0 {
            let flags = if file.is_direct() { flags::DIRECT } else { 0 };
            emit_at(now(), false, tally, who, Some(&inode), What { flags, ..what });
        } else if file.is_direct() {
            let flags = flags::DIRECT;
            cursor::direct(tally, who, &inode, What { flags, ..what });
        } else {
            cursor::access(tally, who, &inode, what);
        }
    } else {
        tally.count(Counter::Filtered);
    }
    0
}

/// The part of a range that lies in the file; `None` when there is none, as at a read's end of file.
#[inline(always)]
fn clipped(hook: Hook, inode: &Inode, start: u64, length: u64) -> Option<What> {
    let size = inode.size();
    if start >= size || length == 0 {
        return None;
    }
    let end = if length < size - start { start + length } else { size };
    let flags = 0;
    Some(What {
        hook,
        flags,
        start,
        end,
    })
}
