//! Events on the ring buffer.

/// One event, in the ring buffer's native byte order.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct AccessEvent {
    /// `CLOCK_MONOTONIC` in nanoseconds at the hook.
    pub time_ns: u64,
    /// Inode number; 0 for process events.
    pub inode: u64,
    /// Byte offset of the range in the file; page-aligned except in syscalls mode.
    pub offset: u64,
    /// Length of the range in bytes, clipped to 4 GiB − 1 (`u32::MAX`).
    pub length: u32,
    /// Device as in `super_block.s_dev`: major << 20 | minor.
    pub device: u32,
    /// `inode.i_generation`: inode numbers are reused at once, generations are not. 0 where the hook does not show it (process events,
    /// adds and deletes through classic tracepoints).
    pub generation: u32,
    /// Process (thread group) id in the initial PID namespace.
    pub process: u32,
    /// Thread id in the initial PID namespace.
    pub thread: u32,
    /// Which hook made it: a [`Hook`] as a number.
    pub hook: u16,
    /// Bits of [`flags`].
    pub flags: u16,
}

const _: () = assert!(size_of::<AccessEvent>() == 48 && align_of::<AccessEvent>() == 8);

/// Facts about an event beyond its range.
pub mod flags {
    /// The eighth access in order after a jump: the reader walks, it does not hop.
    pub const IN_ORDER: u16 = 1;
    /// The access does not continue the thread's previous one in this file. Jumps within one step are coalesced like other accesses.
    pub const JUMP: u16 = 2;
    /// `Exit`: the last thread of the process has ended.
    pub const LAST_THREAD: u16 = 4;
    /// The descriptor is open with `O_DIRECT` (syscalls mode).
    pub const DIRECT: u16 = 8;
    /// The fault happened inside a system call: `MAP_POPULATE`, `MADV_POPULATE_READ`, a copy from a mapping.
    pub const IN_SYSCALL: u16 = 16;
    /// Somebody has the file open for writing.
    pub const WRITTEN: u16 = 32;
}

/// The hooks, one per probe file of nitro-ebpf.
#[repr(u16)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// `mm_filemap_get_pages`: a buffered read found its pages (fires after the wait, if any).
    GetPages = 1,
    /// `mm_filemap_map_pages`: a fault mapped cached pages around it.
    MapPages = 2,
    /// `mm_filemap_fault`: a fault found its page not mapped by the fault-around (fires before the wait).
    Fault = 3,
    /// `mm_filemap_add_to_page_cache`: a run of pages was brought in, by the thread named in the event.
    Add = 4,
    /// `mm_filemap_delete_from_page_cache`: a run of pages left the cache.
    Delete = 5,
    /// `sched_process_exec`.
    Exec = 6,
    /// `sched_process_exit` of a thread whose process read a watched file.
    Exit = 7,
    /// Syscalls mode: `openat`, `openat2` returned a descriptor of a watched file.
    Open = 8,
    /// Syscalls mode: `read`, `pread64`, `readv`, `preadv`, `preadv2`, `sendfile`, before the wait.
    Read = 9,
    /// Syscalls mode: `mmap`.
    Map = 10,
    /// No hook of its own: a thread's first sign in a file that is watched only because all of its device is. Comes before the event of that sign; `offset` is
    /// the file's size in bytes.
    Met = 11,
}

impl Hook {
    /// The hook of a number on the wire; `None` for a number this version does not know.
    pub const fn from_number(number: u16) -> Option<Self> {
        Some(match number {
            1 => Self::GetPages,
            2 => Self::MapPages,
            3 => Self::Fault,
            4 => Self::Add,
            5 => Self::Delete,
            6 => Self::Exec,
            7 => Self::Exit,
            8 => Self::Open,
            9 => Self::Read,
            10 => Self::Map,
            11 => Self::Met,
            _ => return None,
        })
    }
}
