//! From a system call's arguments to the file they speak of.
//!
//! A system-call tracepoint knows a descriptor; the current task's table knows its file. The way there is read without locks: the hook runs
//! with preemption off, so that the table stays, and a file that is closed meanwhile reads as another file or as none.

use aya_ebpf::{
    EbpfContext,
    helpers::{bpf_probe_read_kernel, bpf_probe_read_user},
    programs::TracePointContext,
};

use crate::kernel::{
    DIRECT_FLAG, FILE_FLAGS, FILE_INODE, FILE_POSITION, FILES_TABLE, Inode, PAGE_SHIFT, TABLE_SIZE, TABLE_SLOTS,
    TASK_FILES, Typed, current_task, far_field, field,
};

/// Vectors of a `readv` that are looked at; the rest is taken to be like them.
const VECTORS: u64 = 8;

/// The kernel's `UIO_MAXIOV`: more vectors are an error.
const MOST_VECTORS: u64 = 1024;

/// An argument of the system call, or, at its exit, with `index` 0 its result.
///
/// The record holds the arguments from its 16th byte on, eight bytes each, on every 64-bit architecture.
#[inline(always)]
pub fn argument(ctx: &TracePointContext, index: usize) -> u64 {
    // SAFETY: inside the record; the kernel refuses the attachment if the call has fewer arguments.
    unsafe { ctx.as_ptr().cast::<u64>().add(2 + index).read_volatile() }
}

/// An open file.
#[derive(Clone, Copy)]
pub struct File(*const u8);

impl File {
    /// The file behind a descriptor of the current task.
    #[inline(always)]
    pub fn of(descriptor: u64) -> Option<Self> {
        // The kernel takes descriptors as 32-bit numbers.
        let descriptor = descriptor as u32;
        // SAFETY: typed pointers from the current task on; slots are read through the helper. A task without files reads as zeros.
        unsafe {
            let files: Typed = field(current_task(), &TASK_FILES);
            let table: Typed = field(files, &FILES_TABLE);
            if descriptor >= field::<u32>(table, &TABLE_SIZE) {
                return None;
            }
            let slots: *const *const u8 = field(table, &TABLE_SLOTS);
            let file = bpf_probe_read_kernel(slots.wrapping_add(descriptor as usize)).ok()?;
            if file.is_null() { None } else { Some(Self(file)) }
        }
    }

    /// Its inode.
    #[inline(always)]
    pub fn inode(self) -> Option<Inode> {
        // SAFETY: `self.0` is a `struct file`, or was one.
        unsafe { Inode::far(far_field(self.0, &FILE_INODE)?) }
    }

    /// Where a `read` starts.
    #[inline(always)]
    pub fn position(self) -> Option<u64> {
        // SAFETY: as in `inode`.
        unsafe { far_field(self.0, &FILE_POSITION) }
    }

    /// Whether it was opened with `O_DIRECT`.
    #[inline(always)]
    pub fn is_direct(self) -> bool {
        // SAFETY: as in `inode`.
        let flags: u32 = unsafe { far_field(self.0, &FILE_FLAGS) }.unwrap_or(0);
        flags & DIRECT_FLAG.load() != 0
    }
}

/// The most that one system call reads: `MAX_RW_COUNT`.
#[inline(always)]
pub fn at_most_one_call(bytes: u64) -> u64 {
    let most = i32::MAX as u64 >> (PAGE_SHIFT.load() & 31) << (PAGE_SHIFT.load() & 31);
    if bytes < most { bytes } else { most }
}

/// A word of the caller's memory; `None` when that cannot be read just now.
#[inline(always)]
pub fn user_word(pointer: u64) -> Option<u64> {
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_user(pointer as *const u64) }.ok()
}

/// Bytes that `count` vectors ask for: exact for up to eight, an estimate by their average beyond.
#[inline(always)]
pub fn vector_bytes(pointer: u64, count: u64) -> Option<u64> {
    if count == 0 || count > MOST_VECTORS {
        return None;
    }
    let mut sum = 0;
    for index in 0..VECTORS {
        if index >= count {
            break;
        }
        // A `struct iovec` is an address and a length; one helper call each, since most calls have one or two.
        sum += at_most_one_call(user_word(pointer.wrapping_add(16 * index + 8))?);
    }
    if count > VECTORS {
        sum = sum * count / VECTORS;
    }
    Some(at_most_one_call(sum))
}
