//! Keys and values of the eBPF maps.

/// Key of the map of watched files.
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
    /// Accesses: reads, fault-arounds and faults, coalesced or not.
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
    /// First byte of a fault that waits for its page, or `u64::MAX`.
    pub fault: u64,
    /// Process of the thread.
    pub process: u32,
    /// Accesses in order since the last jump, up to 255.
    pub in_order: u32,
}

const _: () = assert!(size_of::<FileKey>() == 16 && size_of::<CursorKey>() == 16);
const _: () = assert!(size_of::<CursorState>() == 104 && size_of::<WatchedFile>() == 8);
