//! Fields of kernel structures, at offsets that user space read from the running kernel's BTF.
//!
//! Rust has no CO-RE relocations; the offsets are read-only globals instead. The verifier sees constants, checks each load
//! against the pointer's BTF type and turns it into a fault-safe load, which costs as much as a plain one.

use aya_ebpf::{
    Global,
    helpers::{bpf_get_current_task_btf, bpf_probe_read_kernel, bpf_task_pt_regs},
};

macro_rules! settings {
    ($($name:ident: $type:ty),* $(,)?) => {
        $(#[unsafe(no_mangle)] pub static $name: Global<$type> = Global::new(0);)*
    };
}

settings! {
    SELF_PROCESS: u32,
    PAGE_SHIFT: u32,
    EMPTY: u32,
    ADDS_WAKE: u32,
    EXACT: u32,
    DIRECT_FLAG: u32,
    HEAD_MASK: u64,
    FOLIO_ORDER: u64,
    REGISTERS_SYSCALL: u64,
    REGISTER_DESCRIPTOR: u64,
    REGISTER_VECTORS: u64,
    REGISTER_COUNT: u64,
    REGISTER_POSITION: u64,
    CALL_READ: u32,
    CALL_PREAD64: u32,
    CALL_READV: u32,
    CALL_PREADV: u32,
    CALL_PREADV2: u32,
    INODE_NUMBER: u64,
    INODE_SUPER: u64,
    INODE_GENERATION: u64,
    INODE_SIZE: u64,
    INODE_WRITERS: u64,
    SUPER_DEVICE: u64,
    MAPPING_HOST: u64,
    FOLIO_MAPPING: u64,
    FOLIO_INDEX: u64,
    FOLIO_FLAGS: u64,
    TASK_PROCESS: u64,
    TASK_THREAD: u64,
    TASK_SIGNAL: u64,
    TASK_MM: u64,
    TASK_FILES: u64,
    SIGNAL_LIVE: u64,
    MM_ARG_START: u64,
    MM_ARG_END: u64,
    FILES_TABLE: u64,
    TABLE_SLOTS: u64,
    TABLE_SIZE: u64,
    FILE_INODE: u64,
    FILE_FLAGS: u64,
    FILE_POSITION: u64,
    FILE_MAPPING: u64,
    CALL_FILE: u64,
    CALL_POSITION: u64,
    ITER_COUNT: u64,
    FAULT_AREA: u64,
    FAULT_INDEX: u64,
    AREA_FILE: u64,
    RECORD_INODE: u64,
    RECORD_DEVICE: u64,
    RECORD_INDEX: u64,
    RECORD_ORDER: u64,
}

/// A pointer to a kernel structure whose type the verifier knows.
pub type Typed = *const u8;

/// Reads a field through a pointer that the verifier knows the type of (a tp_btf or fentry argument, or a field read from one).
///
/// # Safety
/// `base` is such a pointer and `offset` the global of a field of its structure.
#[inline(always)]
pub unsafe fn field<T: Copy>(base: Typed, offset: &Global<u64>) -> T {
    // SAFETY: the verifier rejects the program if the load is outside the structure; a bad pointer reads as zero.
    unsafe { core::ptr::read_volatile(base.add(offset.load() as usize).cast::<T>()) }
}

/// The current task.
#[inline(always)]
pub fn current_task() -> Typed {
    // SAFETY: the helper has no preconditions, and the verifier knows what it returns.
    unsafe { bpf_get_current_task_btf() as Typed }
}

/// Whether the current task is inside a system call, as opposed to a fault from user space.
#[inline(always)]
pub fn in_system_call() -> bool {
    // SAFETY: the helpers check what they are given; the current task has registers.
    unsafe {
        let registers = bpf_task_pt_regs(bpf_get_current_task_btf()) as *const u8;
        let number = registers.add(REGISTERS_SYSCALL.load() as usize).cast::<i32>();
        bpf_probe_read_kernel(number).is_ok_and(|number| number >= 0)
    }
}

/// Reads a field through a pointer of which the verifier knows nothing; `None` when it points nowhere.
///
/// # Safety
/// `base` points to the structure that `offset` belongs to, or nowhere.
#[inline(always)]
pub unsafe fn far_field<T: Copy>(base: *const u8, offset: &Global<u64>) -> Option<T> {
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_kernel(base.wrapping_add(offset.load() as usize).cast::<T>()) }.ok()
}

/// How the fields of an inode can be reached. Known where the program is compiled, so that only one way is left of each `match`.
#[derive(Clone, Copy)]
enum Reach {
    /// The verifier knows the pointer's type: plain loads.
    Typed(Typed),
    /// It does not: loads through a helper.
    Far(*const u8),
    /// A tracepoint's record named the file; the structure is out of reach.
    Nowhere,
}

/// A file as the page cache knows it.
#[derive(Clone, Copy)]
pub struct Inode {
    /// Inode number.
    pub number: u64,
    /// `s_dev`.
    pub device: u32,
    /// The structure, for fields that only watched files need.
    at: Reach,
}

impl Inode {
    /// The inode behind a mapping.
    ///
    /// # Safety
    /// `mapping` is a typed `struct address_space *`.
    #[inline(always)]
    pub unsafe fn of_mapping(mapping: Typed) -> Self {
        // SAFETY: each base is the typed pointer that its field's structure asks for.
        unsafe {
            let at: Typed = field(mapping, &MAPPING_HOST);
            let superblock: Typed = field(at, &INODE_SUPER);
            Self {
                number: field(at, &INODE_NUMBER),
                device: field(superblock, &SUPER_DEVICE),
                at: Reach::Typed(at),
            }
        }
    }

    /// The inode at an address that nobody vouches for; `None` when there is none.
    ///
    /// # Safety
    /// `at` points to a `struct inode`, or nowhere.
    #[inline(always)]
    pub unsafe fn far(at: *const u8) -> Option<Self> {
        // SAFETY: each field is of the structure that its base points to, or nothing is read.
        unsafe {
            let superblock: *const u8 = far_field(at, &INODE_SUPER)?;
            Some(Self {
                number: far_field(at, &INODE_NUMBER)?,
                device: far_field(superblock, &SUPER_DEVICE)?,
                at: Reach::Far(at),
            })
        }
    }

    /// A file that is known by its name only.
    #[inline(always)]
    pub fn named(number: u64, device: u32) -> Self {
        let at = Reach::Nowhere;
        Self { number, device, at }
    }

    /// Its generation; 0 where that is out of reach.
    #[inline(always)]
    pub fn generation(&self) -> u32 {
        // SAFETY: `at` is a `struct inode`, reached the way it says.
        unsafe {
            match self.at {
                Reach::Typed(at) => field(at, &INODE_GENERATION),
                Reach::Far(at) => far_field(at, &INODE_GENERATION).unwrap_or(0),
                Reach::Nowhere => 0,
            }
        }
    }

    /// Its size in bytes; 0 where that is out of reach.
    #[inline(always)]
    pub fn size(&self) -> u64 {
        // SAFETY: as in `generation`.
        unsafe {
            match self.at {
                Reach::Typed(at) => field(at, &INODE_SIZE),
                Reach::Far(at) => far_field(at, &INODE_SIZE).unwrap_or(0),
                Reach::Nowhere => 0,
            }
        }
    }

    /// Whether somebody has it open for writing; not where that is out of reach.
    #[inline(always)]
    pub fn is_written(&self) -> bool {
        // SAFETY: as in `generation`.
        let writers: i32 = unsafe {
            match self.at {
                Reach::Typed(at) => field(at, &INODE_WRITERS),
                Reach::Far(at) => far_field(at, &INODE_WRITERS).unwrap_or(0),
                Reach::Nowhere => 0,
            }
        };
        // Negative while it is being executed.
        writers > 0
    }
}
