//! Events onto the ring.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use nitro_common::{AccessEvent, Counter, Hook};

use crate::{
    guard::{Tally, Who},
    kernel::{INODE_GENERATION, Inode, field},
    maps::EVENTS,
};

/// The generation of an inode that came from a typed pointer.
#[inline(always)]
pub fn generation(inode: &Inode) -> u32 {
    // SAFETY: `Inode::of_mapping` keeps the typed pointer.
    unsafe { field(inode.at, &INODE_GENERATION) }
}

/// What an event says beside who and when.
pub struct What {
    /// Which hook.
    pub hook: Hook,
    /// Bits of `nitro_common::flags`.
    pub flags: u16,
    /// `s_dev`, inode number and generation of the file; zeros for process events.
    pub device: u32,
    /// See `device`.
    pub inode: u64,
    /// See `device`.
    pub generation: u32,
    /// First byte.
    pub start: u64,
    /// Byte after the last.
    pub end: u64,
}

/// Puts an event on the ring, or counts it as dropped.
#[inline(always)]
pub fn emit(tally: Tally, who: Who, what: What) {
    let Some(mut slot) = EVENTS.reserve(0) else {
        return tally.count(Counter::Dropped);
    };
    let length = what.end.wrapping_sub(what.start);
    slot.write(AccessEvent {
        // SAFETY: the helper has no preconditions.
        time_ns: unsafe { bpf_ktime_get_ns() },
        inode: what.inode,
        offset: what.start,
        length: if length > u32::MAX as u64 {
            u32::MAX
        } else {
            length as u32
        },
        device: what.device,
        generation: what.generation,
        process: who.process,
        thread: who.thread,
        hook: what.hook as u16,
        flags: what.flags,
    });
    slot.submit(0);
    tally.count(Counter::Delivered);
}
