//! Events onto the ring.

use aya_ebpf::{bindings::BPF_RB_NO_WAKEUP, helpers::bpf_ktime_get_ns};
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

/// The same with the time given. An event that does not `wake` waits on the ring for one that does.
#[inline(always)]
pub fn emit_at(now: u64, wake: bool, tally: Tally, who: Who, inode: Option<&Inode>, what: What) {
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
    slot.submit(if wake { 0 } else { BPF_RB_NO_WAKEUP as u64 });
    tally.count(Counter::Delivered);
}
