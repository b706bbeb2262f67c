//! Events onto the ring.

use aya_ebpf::helpers::bpf_ktime_get_ns;
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

/// Puts an event on the ring, or counts it as dropped. A process event has no file.
#[inline(always)]
pub fn emit(tally: Tally, who: Who, inode: Option<&Inode>, what: What) {
    let Some(mut slot) = EVENTS.reserve(0) else {
        return tally.count(Counter::Dropped);
    };
    let length = what.end.wrapping_sub(what.start);
    slot.write(AccessEvent {
        // SAFETY: the helper has no preconditions.
        time_ns: unsafe { bpf_ktime_get_ns() },
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
    slot.submit(0);
    tally.count(Counter::Delivered);
}
