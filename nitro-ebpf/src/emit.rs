//! Events onto the ring.

use core::cell::UnsafeCell;

use aya_ebpf::{
    bindings::{BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::bpf_ktime_get_ns,
};
use nitro_common::{AccessEvent, Counter, Hook};

use crate::{
    guard::{Tally, Who},
    kernel::Inode,
    maps::EVENTS,
};

/// What an event says beside who and when.
#[derive(Clone, Copy)]
pub struct What {
    /// Which hook.
    pub hook: Hook,
    /// Bits of `nitro_common::flags`.
    pub flags: u16,
    /// First byte.
    pub start: u64,
    /// Byte after the last.
    pub end: u64,
}

/// Puts an event on the ring and wakes user space, or counts it as dropped. A process event has no file.
#[inline(always)]
pub fn emit(tally: Tally, who: Who, inode: Option<&Inode>, what: What) {
    emit_at(now(), true, tally, who, inode, what);
}

/// The monotonic clock, in nanoseconds.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_ktime_get_ns() }
}

/// A word that all processors share. The target has plain loads and stores of it, which are whole, and no more is asked of them.
struct Shared(UnsafeCell<u64>);

// SAFETY: an aligned word that is loaded and stored at once.
unsafe impl Sync for Shared {}

impl Shared {
    #[inline(always)]
    fn load(&self) -> u64 {
        // SAFETY: always a valid word.
        unsafe { self.0.get().read_volatile() }
    }

    #[inline(always)]
    fn store(&self, value: u64) {
        // SAFETY: as in `load`.
        unsafe { self.0.get().write_volatile(value) }
    }
}

/// Counts the steps of events that wake nobody: one before the event is put on the ring, one after.
static SILENT: Shared = Shared(UnsafeCell::new(0));

/// Where [`SILENT`] was when user space was last woken by force.
static WOKEN_AT: Shared = Shared(UnsafeCell::new(0));

/// Steps of [`SILENT`] after which an event wakes user space whatever it is: a sixth of the ring, which a writer in small pieces would fill without a word.
const MOST_SILENT: u64 = 2 * 16_384;

/// Not one atomic step: of two processors that count at once one is lost, and the value is another one all the same.
#[inline(always)]
fn count_silent() -> u64 {
    let next = SILENT.load().wrapping_add(1);
    SILENT.store(next);
    next
}

/// How to submit an event that is to wake user space.
///
/// The kernel wakes a consumer only who has taken everything before the event: behind one that woke nobody, he must be woken by force. Forced at every
/// event, a storm would cost an interrupt each.
#[inline(always)]
fn waking() -> u64 {
    let silent = SILENT.load();
    if WOKEN_AT.load() == silent {
        return 0;
    }
    WOKEN_AT.store(silent);
    BPF_RB_FORCE_WAKEUP as u64
}

/// The same with the time given. An event that does not `wake` waits on the ring for one that does, unless too many wait there.
#[inline(always)]
pub fn emit_at(now: u64, wake: bool, tally: Tally, who: Who, inode: Option<&Inode>, what: What) {
    let wake = wake || SILENT.load().wrapping_sub(WOKEN_AT.load()) >= MOST_SILENT;
    // Before its place on the ring is taken: whoever comes behind it sees this.
    let own = if wake { 0 } else { count_silent() };
    let Some(mut slot) = EVENTS.reserve(0) else {
        return tally.count(Counter::Dropped);
    };
    let length = what.end.wrapping_sub(what.start);
    slot.write(AccessEvent {
        time_ns: now,
        inode: inode.map_or(0, |inode| inode.number),
        offset: what.start,
        length: if length > u32::MAX as u64 {
            u32::MAX
        } else {
            length as u32
        },
        device: inode.map_or(0, |inode| inode.device),
        generation: inode.map_or(0, Inode::generation),
        process: who.process,
        thread: who.thread,
        hook: what.hook as u16,
        flags: what.flags,
    });
    if wake {
        slot.submit(waking());
    } else {
        // Somebody behind it may have woken user space since, which then found this place taken and not filled, and waits for it.
        let is_waited_for = WOKEN_AT.load().wrapping_sub(own) as i64 >= 0;
        slot.submit(if is_waited_for { 0 } else { BPF_RB_NO_WAKEUP as u64 });
        count_silent();
    }
    tally.count(Counter::Delivered);
}
