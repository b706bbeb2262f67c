//! `mm_filemap_fault` (6.12): a fault whose page the fault-around could not map, before the wait for it.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use nitro_common::Hook;

/// `(struct address_space *mapping, pgoff_t index)`.
#[btf_tracepoint(function = "mm_filemap_fault")]
pub fn filemap_fault(ctx: BtfTracePointContext) -> i32 {
    let index: u64 = ctx.arg(1);
    super::mapping_access(Hook::Fault, ctx.arg(0), index, index)
}
