//! `mm_filemap_delete_from_page_cache`: what reclaim, truncation or `drop_caches` take away.

use aya_ebpf::{
    macros::{btf_tracepoint, tracepoint},
    programs::{BtfTracePointContext, TracePointContext},
};
use nitro_common::Hook;

/// `(struct folio *folio)`.
#[btf_tracepoint(function = "mm_filemap_delete_from_page_cache")]
pub fn filemap_delete(ctx: BtfTracePointContext) -> i32 {
    super::folio_change(Hook::Delete, ctx.arg(0))
}

/// Fields: see `nitro_common::settings::globals::RECORD_OFFSETS`.
#[tracepoint]
pub fn filemap_delete_classic(ctx: TracePointContext) -> u32 {
    super::record_change(Hook::Delete, &ctx)
}
