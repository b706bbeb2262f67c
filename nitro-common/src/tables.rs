//! Keys and values of the eBPF maps.

/// Key of the map of watched files; with the inode [`crate::settings::ALL_INODES`] it stands for a device that is watched as a whole.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct FileKey {
    /// Inode number.
    pub inode: u64,
    /// Device as in `super_block.s_dev`.
    pub device: u32,
    /// Always 0; keeps the key free of padding.
    pub zero: u32,
}

/// Value of the map of watched files.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct WatchedFile {
    /// Generation the catalog knew when it asked for the watch; informative, the event carries the real one.
    pub generation: u32,
    /// Reserved.
    pub zero: u32,
}

/// Key of the map of cursors: one per thread and file.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct CursorKey {
    /// Inode number.
    pub inode: u64,
    /// Device as in `super_block.s_dev`.
    pub device: u32,
    /// Thread id.
    pub thread: u32,
}

/// Where one thread is in one file, and what it did there since the cursor was made.
///
/// Written by the thread's own hooks only, so that no lock is needed; user space reads it at any time and removes it after the thread's end.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct CursorState {
    /// Accesses: reads, fault-arounds and faults, coalesced or not; neither opens nor `mmap` nor what goes through `O_DIRECT`.
    pub calls: u64,
    /// Bytes of those accesses; repeated ones count again.
    pub bytes: u64,
    /// Bytes this thread brought into the page cache, its readahead included.
    pub added_bytes: u64,
    /// Of those, bytes it had asked for in the very access that brought them in: what it had to wait for.
    pub missed_bytes: u64,
    /// Bytes this thread removed from the page cache (reclaim, truncation).
    pub removed_bytes: u64,
    /// First byte after the previous access.
    pub next: u64,
    /// Step of the last emitted access event.
    pub step: u64,
    /// First byte and byte after the last of the run of added pages that is not emitted yet; equal when there is none.
    pub add_start: u64,
    /// See `add_start`.
    pub add_end: u64,
    /// The same for removed pages.
    pub remove_start: u64,
    /// See `remove_start`.
    pub remove_end: u64,
    /// First byte of the previous access.
    pub start: u64,
    /// Pages added since the previous access: what a read finds of them after its wait it had to wait for.
    pub fresh_start: u64,
    /// See `fresh_start`.
    pub fresh_end: u64,
    /// Process of the thread.
    pub process: u32,
    /// Accesses in order since the last jump, up to 255.
    pub in_order: u32,
    /// 1 when the previous access passed its hook before its pages were there: what `start..next` then lacks is added by the wait for it.
    pub before_wait: u32,
    /// 1 when an access through `O_DIRECT` was reported.
    pub direct: u32,
    /// When an event of this cursor last woke user space, on the monotonic clock in nanoseconds.
    pub woken: u64,
    /// When it last emitted an access event, on the same clock.
    pub emitted: u64,
    /// Access events in a row that came sooner than `WAKE_PAUSE` after the one before, up to 255.
    pub hurried: u32,
    /// Always 0.
    pub zero: u32,
}

const _: () = assert!(size_of::<FileKey>() == 16 && size_of::<CursorKey>() == 16);
const _: () = assert!(size_of::<CursorState>() == 152 && size_of::<WatchedFile>() == 8);

impl CursorState {
    /// A cursor that has seen nothing.
    pub const EMPTY: Self = Self {
        calls: 0,
        bytes: 0,
        added_bytes: 0,
        missed_bytes: 0,
        removed_bytes: 0,
        next: 0,
        step: 0,
        add_start: 0,
        add_end: 0,
        remove_start: 0,
        remove_end: 0,
        start: 0,
        fresh_start: 0,
        fresh_end: 0,
        process: 0,
        in_order: 0,
        before_wait: 0,
        direct: 0,
        woken: 0,
        emitted: 0,
        hurried: 0,
        zero: 0,
    };
}
