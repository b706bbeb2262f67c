//! Where the system call that the current task is in began to read.
//!
//! `mm_filemap_get_pages` says nothing of a batch of folios when the kernel had to wait for the last of them: the next batch's event begins behind
//! it. Whether a reader skipped what lies before, or was handed it, only the system call's own arguments tell.

use aya_ebpf::helpers::{bpf_get_current_task_btf, bpf_task_pt_regs};

use crate::{
    descriptor::{File, at_most_one_call, vector_bytes},
    kernel::{
        CALL_PREAD64, CALL_PREADV, CALL_PREADV2, CALL_READ, CALL_READV, PAGE_SHIFT, REGISTER_COUNT,
        REGISTER_DESCRIPTOR, REGISTER_POSITION, REGISTER_VECTORS, REGISTERS_SYSCALL, Typed, field,
    },
};

/// The position of `preadv2` that stands for the file's own.
const OWN_POSITION: u64 = u64::MAX;

/// The first byte that the current system call reads, provided that it is a read that ends on the page boundary `end`; `size` is the file's.
#[inline(always)]
pub fn start_of_read(end: u64, size: u64) -> Option<u64> {
    // SAFETY: the helper returns typed registers, and each register is a field of theirs.
    let (number, descriptor, vectors, count, position) = unsafe {
        let registers = bpf_task_pt_regs(bpf_get_current_task_btf()) as Typed;
        (
            field::<i32>(registers, &REGISTERS_SYSCALL) as u32,
            field::<u64>(registers, &REGISTER_DESCRIPTOR),
            field::<u64>(registers, &REGISTER_VECTORS),
            field::<u64>(registers, &REGISTER_COUNT),
            field::<u64>(registers, &REGISTER_POSITION),
        )
    };
    let positioned = number == CALL_PREAD64.load() || number == CALL_PREADV.load();
    let positioned = positioned || number == CALL_PREADV2.load() && position != OWN_POSITION;
    let vectored = number == CALL_READV.load() || number == CALL_PREADV.load() || number == CALL_PREADV2.load();
    if !positioned && !vectored && number != CALL_READ.load() {
        return None;
    }
    let start = if positioned {
        position
    } else {
        File::of(descriptor)?.position()?
    };
    let length = if vectored {
        vector_bytes(vectors, count)?
    } else {
        at_most_one_call(count)
    };
    // The registers are the task's own word: a call that does not end here is another one, say a read on behalf of a ring.
    let shift = PAGE_SHIFT.load() & 31;
    let pages = |bytes: u64| (bytes.wrapping_sub(1) >> shift).wrapping_add(1) << shift;
    let until = pages(start.wrapping_add(length));
    let whole = pages(size);
    let until = if until < whole { until } else { whole };
    if until == end {
        Some(start >> shift << shift)
    } else {
        None
    }
}
