//! Names of what user space patches into the object before it is loaded, and the sizes both sides must agree on.

/// Bits of the first filter: `(inode ^ device · odd) mod 2^20`, 128 KiB of `.bss`.
///
/// A test of one bit costs 4 ns where a look-up in the map that misses costs 30; with 10 000 files 1 % of foreign files pass.
pub const FILTER_BITS: u32 = 1 << 20;

/// Smallest file, in bytes, that is told of on a device that is watched as a whole: there user space cannot leave the small ones out.
pub const SMALLEST_ON_DEVICE: u64 = 1 << 20;

/// The inode number that stands for all files of a device in the map of watched files; no file has it.
pub const ALL_INODES: u64 = 0;

/// The bit of a device in the word of those that are watched as a whole.
#[inline(always)]
pub const fn device_bit(device: u32) -> u64 {
    1 << ((device ^ (device >> 20)) & 63)
}

/// Ring buffer size in bytes: 150 000 events, 0.7 s at 200 000 events a second.
pub const RING_BYTES: u32 = 8 << 20;

/// Cursors kept at once: threads × files in use. User space removes them as threads end.
pub const CURSORS: u32 = 32 << 10;

/// Accesses in order after which a cursor that jumped is reported as walking.
pub const IN_ORDER_CALLS: u32 = 8;

/// Largest forward gap, in bytes, that still continues a read: readers skip alignment holes between tensors.
pub const GAP_BYTES: u64 = 128 << 10;

/// The same for a mapping. A fault-around maps a whole large folio (6.18) and still tells of 64 KiB: the next event comes from the next folio.
pub const MAP_GAP_BYTES: u64 = 2 << 20;

/// A reader that takes its steps faster than this, in nanoseconds, wakes user space no more often: that costs it up to 10 µs in a virtual machine, and
/// one that goes on this fast waits for nothing.
pub const WAKE_PAUSE: u64 = 1_000_000;

/// Steps in a row that are taken so fast before the reader is believed to: a short load on a device with a burst to spare is one as well.
pub const HURRIED_STEPS: u32 = 16;

/// After so many, its steps come from memory, or from a device as fast: the pause between wake-ups grows to [`LONG_WAKE_PAUSE`]. A step that takes longer than
/// [`WAKE_PAUSE`] still wakes at once.
pub const LONG_HURRIED_STEPS: u32 = 96;

/// A step of a thread that has brought nothing of the file in counts as so many: what it reads was in memory, and that is believed sooner.
pub const SERVED_STEPS: u32 = 4;

/// See [`LONG_HURRIED_STEPS`]; nanoseconds.
pub const LONG_WAKE_PAUSE: u64 = 8_000_000;

/// The bit of a file in the first filter.
#[inline(always)]
pub const fn filter_bit(device: u32, inode: u64) -> u32 {
    let mixed = inode ^ (inode >> 20) ^ (device as u64).wrapping_mul(0x9E37_79B1);
    (mixed as u32) & (FILTER_BITS - 1)
}

/// Shortest command line, in bytes, that can name a model file; shorter ones raise no `Exec` event.
pub const MIN_ARGUMENT_BYTES: u64 = 16;

/// Globals of the object that user space patches before loading it. Offsets are in bytes from the start of the structure.
pub mod globals {
    /// `u32`: process id of the agent, whose own accesses are dropped.
    pub const SELF_PROCESS: &str = "SELF_PROCESS";
    /// `u32`: log2 of the page size.
    pub const PAGE_SHIFT: &str = "PAGE_SHIFT";
    /// `u32`: 1 makes every program return at once; the yardstick of the cost bench.
    pub const EMPTY: &str = "EMPTY";
    /// `u32`: 1 where every system call on a watched file is an event of its own.
    pub const EXACT: &str = "EXACT";
    /// `u32`: 1 where pages that a reader brings in are to wake user space: in syscalls mode, where they alone tell of readers of mappings.
    pub const ADDS_WAKE: &str = "ADDS_WAKE";
    /// `u32`: `O_DIRECT` of this architecture, as in `file.f_flags`.
    pub const DIRECT_FLAG: &str = "DIRECT_FLAG";
    /// `u64`: bit number of `PG_head` as a mask of `folio.flags`.
    pub const HEAD_MASK: &str = "HEAD_MASK";
    /// `u64` field offsets: global, structure, field path. A field that a kernel lacks leaves its programs unloaded.
    pub const OFFSETS: &[(&str, &str, &str)] = &[
        ("INODE_NUMBER", "inode", "i_ino"),
        ("INODE_SUPER", "inode", "i_sb"),
        ("INODE_GENERATION", "inode", "i_generation"),
        ("INODE_SIZE", "inode", "i_size"),
        ("INODE_WRITERS", "inode", "i_writecount"),
        ("SUPER_DEVICE", "super_block", "s_dev"),
        ("MAPPING_HOST", "address_space", "host"),
        ("FOLIO_MAPPING", "folio", "mapping"),
        ("FOLIO_INDEX", "folio", "index"),
        ("FOLIO_FLAGS", "folio", "flags"),
        ("TASK_PROCESS", "task_struct", "tgid"),
        ("TASK_THREAD", "task_struct", "pid"),
        ("TASK_SIGNAL", "task_struct", "signal"),
        ("TASK_MM", "task_struct", "mm"),
        ("TASK_FILES", "task_struct", "files"),
        ("SIGNAL_LIVE", "signal_struct", "live"),
        ("MM_ARG_START", "mm_struct", "arg_start"),
        ("MM_ARG_END", "mm_struct", "arg_end"),
        ("FILES_TABLE", "files_struct", "fdt"),
        ("TABLE_SLOTS", "fdtable", "fd"),
        ("TABLE_SIZE", "fdtable", "max_fds"),
        ("FILE_INODE", "file", "f_inode"),
        ("FILE_FLAGS", "file", "f_flags"),
        ("FILE_POSITION", "file", "f_pos"),
        ("FILE_MAPPING", "file", "f_mapping"),
        ("CALL_FILE", "kiocb", "ki_filp"),
        ("CALL_POSITION", "kiocb", "ki_pos"),
        ("ITER_COUNT", "iov_iter", "count"),
        ("FAULT_AREA", "vm_fault", "vma"),
        ("FAULT_INDEX", "vm_fault", "pgoff"),
        ("AREA_FILE", "vm_area_struct", "vm_file"),
    ];
    /// `u64`: offset of the register slot that holds the number of the system call a task is in, −1 outside of one.
    pub const REGISTERS_SYSCALL: &str = "REGISTERS_SYSCALL";
    /// The slot's name in `pt_regs`.
    pub const REGISTERS_SYSCALL_FIELD: &str = if cfg!(target_arch = "aarch64") {
        "syscallno"
    } else {
        "orig_ax"
    };
    /// `u64` offsets of the arguments of a read in `pt_regs`: global, field, offset in the field.
    pub const REGISTERS: &[(&str, &str, u64)] = if cfg!(target_arch = "aarch64") {
        &[
            ("REGISTER_DESCRIPTOR", "regs", 0),
            ("REGISTER_VECTORS", "regs", 8),
            ("REGISTER_COUNT", "regs", 16),
            ("REGISTER_POSITION", "regs", 24),
        ]
    } else {
        &[
            ("REGISTER_DESCRIPTOR", "di", 0),
            ("REGISTER_VECTORS", "si", 0),
            ("REGISTER_COUNT", "dx", 0),
            ("REGISTER_POSITION", "r10", 0),
        ]
    };
    /// `u32` numbers of the calls that read.
    pub const CALL_READ: &str = "CALL_READ";
    /// See [`CALL_READ`].
    pub const CALL_PREAD64: &str = "CALL_PREAD64";
    /// See [`CALL_READ`].
    pub const CALL_READV: &str = "CALL_READV";
    /// See [`CALL_READ`].
    pub const CALL_PREADV: &str = "CALL_PREADV";
    /// See [`CALL_READ`].
    pub const CALL_PREADV2: &str = "CALL_PREADV2";
    /// `u64`: offset of the byte that holds a large folio's order. Its field moved: `_flags_1` from 6.6, `_folio_order` before.
    pub const FOLIO_ORDER: &str = "FOLIO_ORDER";
    /// `u64` offsets in the record of the classic page-cache tracepoints: global, field of their `format` file in tracefs.
    pub const RECORD_OFFSETS: &[(&str, &str)] = &[
        ("RECORD_INODE", "i_ino"),
        ("RECORD_DEVICE", "s_dev"),
        ("RECORD_INDEX", "index"),
        (RECORD_ORDER, "order"),
    ];
    /// The one of [`RECORD_OFFSETS`] that older kernels lack; 0 then: they tell of pages one by one.
    pub const RECORD_ORDER: &str = "RECORD_ORDER";
    /// The fields of [`FOLIO_ORDER`], newest first.
    pub const FOLIO_ORDER_FIELDS: &[&str] = &["_flags_1", "_folio_order"];
}

/// Names of the maps.
pub mod maps {
    /// Ring buffer of [`crate::AccessEvent`].
    pub const EVENTS: &str = "EVENTS";
    /// Hash of [`crate::FileKey`] to [`crate::WatchedFile`], allocated as it fills.
    pub const WATCHED: &str = "WATCHED";
    /// Array of the first filter's 64-bit words.
    pub const FILTER: &str = "FILTER";
    /// One 64-bit word: a bit for each device that is watched as a whole, see [`super::device_bit`].
    pub const DEVICES: &str = "DEVICES";
    /// Hash of [`crate::CursorKey`] to [`crate::CursorState`].
    pub const CURSORS: &str = "CURSORS";
    /// Hash of process id to 1: who read a watched file and has not ended.
    pub const READERS: &str = "READERS";
    /// Per-processor [`crate::Counters`], one element.
    pub const COUNTERS: &str = "COUNTERS";
}
