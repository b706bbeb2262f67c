//! Coalescing: one cursor per thread and file turns thousands of accesses into one event per 2 MiB step, and counts them all.
//!
//! A cursor is written by its own thread alone. Page-cache adds and deletes are kept as one run each until the run breaks or reaches the end of
//! a step; what is still held when the thread ends, user space reads from the map.

use nitro_common::{
    Counter, CursorKey, CursorState, Hook, STEP_BYTES, flags,
    settings::{
        GAP_BYTES, HURRIED_STEPS, IN_ORDER_CALLS, LONG_HURRIED_STEPS, LONG_WAKE_PAUSE, MAP_GAP_BYTES, SERVED_STEPS,
        WAKE_PAUSE,
    },
};

use crate::{
    call,
    emit::{What, emit, emit_at, now},
    guard::{Tally, Watched, Who, watched},
    kernel::{Inode, in_system_call},
    maps::{CURSORS, READERS},
};

/// No step was reported yet.
const NO_STEP: u64 = u64::MAX;

/// Its end is worth an event from now on.
#[inline(always)]
pub fn note_reader(who: Who) {
    if !who.is_agent() {
        let _ = READERS.insert(who.process, 1, 0);
    }
}

/// What is found when a thread's cursor is looked for.
enum Place {
    /// The cursor.
    Cursor(*mut CursorState),
    /// There is no room for one.
    Full,
    /// The file only shares its filter bit with a watched one.
    Foreign,
}

/// The cursor of this thread in this file, made on first use.
#[inline(always)]
fn cursor(tally: Tally, who: Who, inode: &Inode) -> Place {
    let key = CursorKey {
        inode: inode.number,
        device: inode.device,
        thread: who.thread,
    };
    if let Some(found) = CURSORS.get_ptr_mut(key) {
        // SAFETY: the element stays valid during the program. A thread id is reused; the counts of its last owner are not the new one's.
        if unsafe { (*found).process } == who.process {
            return Place::Cursor(found);
        }
    }
    match watched(inode) {
        Watched::No => return Place::Foreign,
        Watched::Itself => {}
        Watched::ByDevice => meet(who.process, who.thread, inode.number, inode.device, inode.size()),
    }
    insert(&key, who.process);
    note_reader(who);
    match CURSORS.get_ptr_mut(key) {
        Some(made) => Place::Cursor(made),
        None => {
            if tally.cursor_full() {
                say_full();
            }
            Place::Full
        }
    }
}

/// A function of its own: the compiler would fill the new cursor in before it knows that it needs one.
#[inline(never)]
fn insert(key: &CursorKey, process: u32) {
    let fresh = CursorState {
        step: NO_STEP,
        process,
        ..CursorState::EMPTY
    };
    let _ = CURSORS.insert(key, fresh, 0);
}

/// Tells that a thread has come to a file of which user space knows no more than its device. Such files are few: it is a hook hit of its own, and a function of
/// its own.
#[inline(never)]
pub fn meet(process: u32, thread: u32, number: u64, device: u32, size: u64) {
    let who = Who { process, thread };
    if who.is_agent() {
        return;
    }
    let Some(tally) = Tally::hit() else { return };
    let inode = Inode::named(number, device);
    let what = What {
        hook: Hook::Met,
        flags: 0,
        start: size,
        end: size,
    };
    emit(tally, who, Some(&inode), what);
}

/// A function of its own: a log line is long, and each program would get a copy.
#[inline(never)]
fn say_full() {
    aya_log_ebpf::warn!(
        (),
        "the map of cursors is full: some accesses are told one by one and not counted by thread"
    );
}

/// A read through `O_DIRECT`: no demand on the page cache, told once for each thread and file.
#[inline(always)]
pub fn direct(tally: Tally, who: Who, inode: &Inode, what: What) {
    match cursor(tally, who, inode) {
        Place::Cursor(at) => {
            // SAFETY: as in `access`.
            let cursor = unsafe { &mut *at };
            if cursor.direct != 0 {
                return tally.count(Counter::Coalesced);
            }
            cursor.direct = 1;
        }
        Place::Full => {}
        Place::Foreign => return tally.count(Counter::Filtered),
    }
    emit(tally, who, Some(inode), what);
}

/// Length of the overlap of two ranges.
#[inline(always)]
fn overlap(a: (u64, u64), b: (u64, u64)) -> u64 {
    let start = if a.0 > b.0 { a.0 } else { b.0 };
    let end = if a.1 < b.1 { a.1 } else { b.1 };
    end.saturating_sub(start)
}

/// Whether a hook hit belongs to the access that was counted last.
///
/// A read of many pages passes its hook once for every batch of folios, with the same end; a fault that had to wait is tried again.
#[inline(always)]
fn continues(cursor: &CursorState, what: &What) -> bool {
    let same_end = what.end == cursor.next;
    match what.hook {
        Hook::GetPages => same_end && what.start > cursor.start && what.start < cursor.next,
        Hook::Fault => same_end && what.start == cursor.start && cursor.before_wait != 0,
        _ => false,
    }
}

/// Whether an access is a touch of a mapping.
#[inline(always)]
fn is_map(what: &What) -> bool {
    matches!(what.hook, Hook::MapPages | Hook::Fault)
}

/// Whether an access goes on where the last one was: not before it, no further behind it than a gap. The fault-around that follows a fault
/// begins before the page that was asked for.
#[inline(always)]
fn in_order(cursor: &CursorState, what: &What) -> bool {
    let gap = if is_map(what) { MAP_GAP_BYTES } else { GAP_BYTES };
    let forward = what.start >= cursor.start && what.start <= cursor.next + gap;
    forward || matches!(what.hook, Hook::MapPages) && what.start < cursor.start && what.end >= cursor.next
}

/// A reader's access to the range of `what` in a watched file.
#[inline(always)]
pub fn access(tally: Tally, who: Who, inode: &Inode, mut what: What) {
    let mut report = true;
    let (mut time, mut wake) = (0, true);
    let place = cursor(tally, who, inode);
    if matches!(place, Place::Foreign) {
        return tally.count(Counter::Filtered);
    }
    if let Place::Cursor(at) = place {
        // SAFETY: the element stays valid during the program; this thread alone writes it.
        let cursor = unsafe { &mut *at };
        let continues = continues(cursor, &what);
        // A read whose first folios went untold begins before what is told.
        if matches!(what.hook, Hook::GetPages)
            && !continues
            && what.start != cursor.next
            && let Some(start) = call::start_of_read(what.end, inode.size())
            && start < what.start
        {
            what.start = start;
        }
        if cursor.fresh_end != 0 {
            // Of these hooks a read's alone comes after its wait. A fault-around maps what is there and waits for nothing.
            if matches!(what.hook, Hook::GetPages) {
                cursor.missed_bytes += overlap((cursor.fresh_start, cursor.fresh_end), (what.start, what.end));
            }
            cursor.fresh_start = 0;
            cursor.fresh_end = 0;
        }
        cursor.before_wait = matches!(what.hook, Hook::Fault | Hook::Read) as u32;

        let in_order = continues || in_order(cursor, &what);
        if !continues {
            cursor.calls += 1;
            cursor.bytes += what.end - what.start;
            // What a mapping steps over in order was mapped with the folio before.
            if in_order && is_map(&what) && cursor.calls > 1 {
                cursor.bytes += what.start.saturating_sub(cursor.next);
            }
            if in_order && cursor.in_order < 255 {
                cursor.in_order += 1;
            }
        }
        if !in_order {
            cursor.in_order = 0;
            what.flags |= flags::JUMP;
        }
        cursor.start = what.start;
        cursor.next = what.end;

        let step = what.start / STEP_BYTES;
        report = step != cursor.step;
        if cursor.in_order == IN_ORDER_CALLS {
            what.flags |= flags::IN_ORDER;
            report = true;
            // Passes the threshold once per jump.
            cursor.in_order += 1;
        }
        if report {
            cursor.step = step;
            time = now();
            // Steps and jumps of a reader that nothing holds up wait for each other. A fault is about to wait for the device.
            let in_passing = matches!(what.hook, Hook::GetPages | Hook::MapPages);
            if time - cursor.emitted >= WAKE_PAUSE {
                cursor.hurried = 0;
            } else if cursor.hurried < 255 {
                cursor.hurried += 1;
            }
            cursor.emitted = time;
            let hurried = if cursor.added_bytes == 0 {
                cursor.hurried * SERVED_STEPS
            } else {
                cursor.hurried
            };
            let pause = if hurried < LONG_HURRIED_STEPS {
                WAKE_PAUSE
            } else {
                LONG_WAKE_PAUSE
            };
            wake = !in_passing || hurried < HURRIED_STEPS || time - cursor.woken >= pause;
            if wake {
                cursor.woken = time;
            }
        }
    } else {
        time = now();
    }
    if report {
        if matches!(what.hook, Hook::MapPages | Hook::Fault) && in_system_call() {
            what.flags |= flags::IN_SYSCALL;
        }
        if inode.is_written() {
            what.flags |= flags::WRITTEN;
        }
        emit_at(time, wake, tally, who, Some(inode), what);
    } else {
        tally.count(Counter::Coalesced);
    }
}

/// Pages came into (`Hook::Add`) or left (`Hook::Delete`) the page cache in this thread. With `wake` false the event waits on the ring for one that wakes.
#[inline(always)]
pub fn change(tally: Tally, who: Who, inode: &Inode, what: What, wake: bool) {
    let (start, end) = (what.start, what.end);
    let mut report = Some((start, end));
    let place = cursor(tally, who, inode);
    if matches!(place, Place::Foreign) {
        return tally.count(Counter::Filtered);
    }
    if let Place::Cursor(at) = place {
        // SAFETY: as in `access`.
        let cursor = unsafe { &mut *at };
        let run = if matches!(what.hook, Hook::Add) {
            cursor.added_bytes += end - start;
            if cursor.before_wait != 0 {
                cursor.missed_bytes += overlap((start, end), (cursor.start, cursor.next));
            }
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
        Some((start, end)) => emit_at(now(), wake, tally, who, Some(inode), What { start, end, ..what }),
        None => tally.count(Counter::Coalesced),
    }
}
