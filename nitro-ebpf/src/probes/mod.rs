//! One hook per file. Each: count the hit, filter, read the hook's arguments, hand over.

mod filemap_add;
mod filemap_delete;
mod filemap_fault;
mod filemap_get_pages;
mod filemap_map_pages;
mod process_exec;
mod process_exit;

use nitro_common::{Counter, Hook};

use crate::{
    cursor,
    emit::What,
    guard::{Tally, Who, watched},
    kernel::{EMPTY, FOLIO_FLAGS, FOLIO_INDEX, FOLIO_MAPPING, FOLIO_ORDER, HEAD_MASK, Inode, PAGE_SHIFT, Typed, field},
};

/// Accesses through the page cache: `first..=last` in pages of `mapping`.
#[inline(always)]
fn mapping_access(hook: Hook, mapping: Typed, first: u64, last: u64) -> i32 {
    if EMPTY.load() != 0 {
        return 0;
    }
    let Some(tally) = Tally::hit() else { return 0 };
    // SAFETY: `mapping` is the tracepoint's typed argument.
    let inode = unsafe { Inode::of_mapping(mapping) };
    if !watched(&inode) {
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
    if EMPTY.load() != 0 {
        return 0;
    }
    let Some(tally) = Tally::hit() else { return 0 };
    // SAFETY: `folio` is the tracepoint's typed argument; the mapping is set at both hooks.
    let (inode, index, pages) = unsafe {
        let inode = Inode::of_mapping(field(folio, &FOLIO_MAPPING));
        if !watched(&inode) {
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
    let shift = PAGE_SHIFT.load() & 31;
    let (start, end) = (index << shift, (index + pages) << shift);
    let what = What {
        hook,
        flags: 0,
        start,
        end,
    };
    cursor::change(tally, Who::current(), &inode, what);
    0
}
