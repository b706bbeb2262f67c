//! A fault maps the cached pages around it: `mm_filemap_map_pages` (6.12), which is not raised when a whole huge page is mapped at once; before that the entry of
//! `filemap_map_pages`, which names the pages that are tried, cached or not.

use aya_ebpf::{
    macros::{btf_tracepoint, fentry},
    programs::{BtfTracePointContext, FEntryContext},
};
use nitro_common::Hook;

/// `(struct address_space *mapping, pgoff_t index, pgoff_t last_index)`.
#[btf_tracepoint(function = "mm_filemap_map_pages")]
pub fn filemap_map_pages(ctx: BtfTracePointContext) -> i32 {
    super::mapping_access(Hook::MapPages, ctx.arg(0), ctx.arg(1), ctx.arg(2))
}

/// `(struct vm_fault *vmf, pgoff_t start_pgoff, pgoff_t end_pgoff)`.
#[fentry(function = "filemap_map_pages")]
pub fn filemap_map_pages_entry(ctx: FEntryContext) -> i32 {
    let mapping = super::mapping_of_fault(ctx.arg(0));
    super::mapping_access(Hook::MapPages, mapping, ctx.arg(1), ctx.arg(2))
}
