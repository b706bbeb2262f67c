//! Coalescing: one cursor per thread and file turns thousands of accesses into one event per 2 MiB step or jump, and counts them all.
//!
//! A cursor is written by its own thread alone. Page-cache adds and deletes are kept as one run each until the run breaks or reaches the end of
//! a step; what is still held when the thread ends, user space reads from the map.

use nitro_common::{
    Counter, CursorKey, CursorState, Hook, STEP_BYTES, flags,
    settings::{GAP_BYTES, IN_ORDER_CALLS},
};

use crate::{
    emit::{What, emit},
    guard::{Tally, Who},
    kernel::{Inode, in_system_call},
    maps::{CURSORS, READERS},
};

/// No step was reported yet.
const NO_STEP: u64 = u64::MAX;

/// The cursor of this thread in this file, made on first use; `None` when there is no room.
#[inline(always)]
fn cursor(tally: Tally, who: Who, inode: &Inode) -> Option<*mut CursorState> {
    let key = CursorKey {
        inode: inode.number,
        device: inode.device,
        thread: who.thread,
    };
    if let Some(found) = CURSORS.get_ptr_mut(key) {
        return Some(found);
    }
    let fresh = CursorState {
        step: NO_STEP,
        process: who.process,
        ..CursorState::EMPTY
    };
    let _ = CURSORS.insert(key, fresh, 0);
    if !who.is_agent() {
        let _ = READERS.insert(who.process, 1, 0);
    }
    let made = CURSORS.get_ptr_mut(key);
    if made.is_none() {
        tally.cursor_full();
    }
    made
}

/// Length of the overlap of two ranges.
#[inline(always)]
fn overlap(a: (u64, u64), b: (u64, u64)) -> u64 {
    let start = if a.0 > b.0 { a.0 } else { b.0 };
    let end = if a.1 < b.1 { a.1 } else { b.1 };
    end.saturating_sub(start)
}

/// A reader's access to `start..end` of a watched file.
#[inline(always)]
pub fn access(tally: Tally, who: Who, inode: &Inode, generation: u32, hook: Hook, mut bits: u16, start: u64, end: u64) {
    let mut report = true;
    if let Some(at) = cursor(tally, who, inode) {
        // SAFETY: the element stays valid during the program; this thread alone writes it.
        let cursor = unsafe { &mut *at };
        // A read of many pages passes its hook once for every batch of folios, with the same end: one call, its bytes counted once.
        let continued = start > cursor.start && start < cursor.next && end == cursor.next;
        if !continued {
            cursor.calls += 1;
            cursor.bytes += end - start;
        }
        cursor.missed_bytes += overlap((cursor.fresh_start, cursor.fresh_end), (start, end));
        cursor.fresh_start = 0;
        cursor.fresh_end = 0;

        // A fault is followed by the fault-around of its page, which begins before it: the same access seen again, not a step back.
        let around = matches!(hook, Hook::MapPages) && start <= cursor.start && cursor.start < end;
        if !around {
            let in_order = start >= cursor.start && start <= cursor.next + GAP_BYTES;
            if in_order && cursor.in_order < 255 {
                cursor.in_order += 1;
            }
            if !in_order {
                cursor.in_order = 0;
                bits |= flags::JUMP;
            }
            cursor.start = start;
            cursor.next = end;
        }

        let step = start / STEP_BYTES;
        report = step != cursor.step;
        if cursor.in_order == IN_ORDER_CALLS {
            bits |= flags::IN_ORDER;
            report = true;
            // Passes the threshold once per jump.
            cursor.in_order += 1;
        }
        if report {
            cursor.step = step;
        }
    }
    if report {
        if matches!(hook, Hook::MapPages | Hook::Fault) && in_system_call() {
            bits |= flags::IN_SYSCALL;
        }
        let what = What {
            hook,
            flags: bits,
            device: inode.device,
            inode: inode.number,
            generation,
            start,
            end,
        };
        emit(tally, who, what);
    } else {
        tally.count(Counter::Coalesced);
    }
}

/// Pages `start..end` came into (`Hook::Add`) or left (`Hook::Delete`) the page cache in this thread.
#[inline(always)]
pub fn change(tally: Tally, who: Who, inode: &Inode, generation: u32, hook: Hook, start: u64, end: u64) {
    let mut report = Some((start, end));
    if let Some(at) = cursor(tally, who, inode) {
        // SAFETY: as in `access`.
        let cursor = unsafe { &mut *at };
        let run = if matches!(hook, Hook::Add) {
            cursor.added_bytes += end - start;
            if cursor.fresh_end == start {
                cursor.fresh_end = end;
            } else {
                cursor.fresh_start = start;
                cursor.fresh_end = end;
            }
            (&mut cursor.add_start, &mut cursor.add_end)
        } else {
            cursor.removed_bytes += end - start;
            (&mut cursor.remove_start, &mut cursor.remove_end)
        };
        let held = (*run.0, *run.1);
        let empty = held.0 == held.1;
        let joins = held.1 == start && held.0 / STEP_BYTES == start / STEP_BYTES;
        report = if empty || joins {
            let first = if empty { start } else { held.0 };
            let full = first / STEP_BYTES != end / STEP_BYTES;
            // An emitted run leaves an empty one behind.
            (*run.0, *run.1) = if full { (0, 0) } else { (first, end) };
            if full { Some((first, end)) } else { None }
        } else {
            (*run.0, *run.1) = (start, end);
            Some(held)
        };
    }
    match report {
        Some((start, end)) => {
            let what = What {
                hook,
                flags: 0,
                device: inode.device,
                inode: inode.number,
                generation,
                start,
                end,
            };
            emit(tally, who, what);
        }
        None => tally.count(Counter::Coalesced),
    }
}
