//! A fault whose page the fault-around could not map, before the wait for it: `mm_filemap_fault` (6.12), before that the entry of `filemap_fault`.

use aya_ebpf::{
    macros::{btf_tracepoint, fentry},
    programs::{BtfTracePointContext, FEntryContext},
};
use nitro_common::Hook;

use crate::kernel::{FAULT_INDEX, Typed, field};

/// `(struct address_space *mapping, pgoff_t index)`.
#[btf_tracepoint(function = "mm_filemap_fault")]
pub fn filemap_fault(ctx: BtfTracePointContext) -> i32 {
    let index: u64 = ctx.arg(1);
    super::mapping_access(Hook::Fault, ctx.arg(0), index, index)
}

/// `(struct vm_fault *vmf)`.
#[fentry(function = "filemap_fault")]
pub fn filemap_fault_entry(ctx: FEntryContext) -> i32 {
    let fault: Typed = ctx.arg(0);
    // SAFETY: the function's typed argument.
    let index: u64 = unsafe { field(fault, &FAULT_INDEX) };
    super::mapping_access(Hook::Fault, super::mapping_of_fault(fault), index, index)
}
