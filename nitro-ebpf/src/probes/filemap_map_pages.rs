//! `mm_filemap_map_pages` (6.12): a fault mapped the cached pages around it. Not raised when a whole huge page is mapped at once.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use nitro_common::Hook;

/// `(struct address_space *mapping, pgoff_t index, pgoff_t last_index)`.
#[btf_tracepoint(function = "mm_filemap_map_pages")]
pub fn filemap_map_pages(ctx: BtfTracePointContext) -> i32 {
    super::mapping_access(Hook::MapPages, ctx.arg(0), ctx.arg(1), ctx.arg(2))
}
