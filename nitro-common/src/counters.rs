//! What the eBPF programs counted, per processor.
//!
//! At rest `seen == filtered + coalesced + delivered + dropped`: every hook hit has exactly one of the four outcomes, and `seen` is
//! counted by itself, at entry, so that a lost hit shows as a difference.

/// The counters of one processor.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct Counters {
    /// Hook hits.
    pub seen: u64,
    /// Hits on files that are not watched, of the agent's own accesses, of processes nobody asked about.
    pub filtered: u64,
    /// Hits absorbed into a cursor without an event.
    pub coalesced: u64,
    /// Hits that put an event on the ring.
    pub delivered: u64,
    /// Hits whose event found the ring full.
    pub dropped: u64,
    /// Hits whose cursor found the cursor map full; they are delivered without coalescing, or dropped.
    pub cursors_full: u64,
}

const _: () = assert!(size_of::<Counters>() == 48);

/// The outcomes, as the eBPF side names them.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// See [`Counters::filtered`].
    Filtered,
    /// See [`Counters::coalesced`].
    Coalesced,
    /// See [`Counters::delivered`].
    Delivered,
    /// See [`Counters::dropped`].
    Dropped,
}
