//! The filters, cheapest first, and the count of what they let pass.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use nitro_common::{
    Counter, Counters, FileKey,
    settings::{ALL_INODES, SMALLEST_ON_DEVICE, device_bit, filter_bit},
};

use crate::{
    kernel::{EMPTY, Inode, SELF_PROCESS},
    maps::{COUNTERS, DEVICES, FILTER, WATCHED},
};

/// This processor's counters. The tracepoints run with preemption off, so nobody else writes them meanwhile.
#[derive(Clone, Copy)]
pub struct Tally(*mut Counters);

impl Tally {
    /// Counts a hook hit; every way on must end in exactly one [`Tally::count`]. `None` where the programs are to return at once.
    #[inline(always)]
    pub fn hit() -> Option<Self> {
        if EMPTY.load() != 0 {
            return None;
        }
        let counters = COUNTERS.get_ptr_mut(0)?;
        // SAFETY: the map's own element, of this processor.
        unsafe { (*counters).seen += 1 };
        Some(Self(counters))
    }

    /// Counts how the hit ended.
    #[inline(always)]
    pub fn count(self, outcome: Counter) {
        // SAFETY: as in `hit`.
        unsafe {
            match outcome {
                Counter::Filtered => (*self.0).filtered += 1,
                Counter::Coalesced => (*self.0).coalesced += 1,
                Counter::Delivered => (*self.0).delivered += 1,
                Counter::Dropped => (*self.0).dropped += 1,
            }
        }
    }

    /// Counts a cursor for which there was no room; says whether it was the first on this processor.
    #[inline(always)]
    pub fn cursor_full(self) -> bool {
        // SAFETY: as in `hit`.
        unsafe {
            (*self.0).cursors_full += 1;
            (*self.0).cursors_full == 1
        }
    }
}

/// Who runs: process and thread id in the initial PID namespace.
#[derive(Clone, Copy)]
pub struct Who {
    /// Thread group.
    pub process: u32,
    /// Thread.
    pub thread: u32,
}

impl Who {
    /// The current task.
    #[inline(always)]
    pub fn current() -> Self {
        let both = bpf_get_current_pid_tgid();
        Self {
            process: (both >> 32) as u32,
            thread: both as u32,
        }
    }

    /// Whether it is a thread of the agent.
    #[inline(always)]
    pub fn is_agent(self) -> bool {
        self.process == SELF_PROCESS.load()
    }
}

/// Whether anybody asked about this file or another of its bit, or about all files of its device. Where a cursor of the file is looked up next, that settles it:
/// whoever has one reads a watched file.
#[inline(always)]
pub fn may_be_watched(inode: &Inode) -> bool {
    let bit = filter_bit(inode.device, inode.number);
    let Some(word) = FILTER.get_ptr(bit / 64) else {
        return false;
    };
    // SAFETY: an element of the array; a torn read of a word that user space is just writing is as good as a late one.
    let word = unsafe { word.read_volatile() };
    word & (1u64 << (bit % 64)) != 0 || may_be_on_watched_device(inode)
}

/// Whether all files of its device, or of another of its bit, were asked about.
#[inline(always)]
fn may_be_on_watched_device(inode: &Inode) -> bool {
    let Some(word) = DEVICES.get_ptr(0) else {
        return false;
    };
    // SAFETY: as in `may_be_watched`.
    let word = unsafe { word.read_volatile() };
    word & device_bit(inode.device) != 0
}

/// Why a file is watched.
#[derive(Clone, Copy)]
pub enum Watched {
    /// It is not.
    No,
    /// It was asked about.
    Itself,
    /// All of its device was, and it is no small file.
    ByDevice,
}

/// Whether anybody asked about this file, or about its device, by the map.
#[inline(always)]
pub fn watched(inode: &Inode) -> Watched {
    let of = |number| FileKey {
        inode: number,
        device: inode.device,
        zero: 0,
    };
    if WATCHED.get_ptr(of(inode.number)).is_some() {
        return Watched::Itself;
    }
    if may_be_on_watched_device(inode)
        && inode.size() >= SMALLEST_ON_DEVICE
        && WATCHED.get_ptr(of(ALL_INODES)).is_some()
    {
        return Watched::ByDevice;
    }
    Watched::No
}
