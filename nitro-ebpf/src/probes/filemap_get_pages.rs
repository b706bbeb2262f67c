//! `mm_filemap_get_pages` (6.12): buffered reads of every kind, after the wait for the pages.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use nitro_common::Hook;

/// `(struct address_space *mapping, pgoff_t index, pgoff_t last_index)`.
#[btf_tracepoint(function = "mm_filemap_get_pages")]
pub fn filemap_get_pages(ctx: BtfTracePointContext) -> i32 {
    super::mapping_access(Hook::GetPages, ctx.arg(0), ctx.arg(1), ctx.arg(2))
}
