//! `mm_filemap_add_to_page_cache`: who brings pages in. The agent's own are counted too.

use aya_ebpf::{
    macros::{btf_tracepoint, tracepoint},
    programs::{BtfTracePointContext, TracePointContext},
};
use nitro_common::Hook;

/// `(struct folio *folio)`.
#[btf_tracepoint(function = "mm_filemap_add_to_page_cache")]
pub fn filemap_add(ctx: BtfTracePointContext) -> i32 {
    super::folio_change(Hook::Add, ctx.arg(0))
}

/// Fields: see `nitro_common::settings::globals::RECORD_OFFSETS`.
#[tracepoint]
pub fn filemap_add_classic(ctx: TracePointContext) -> u32 {
    super::record_change(Hook::Add, &ctx)
}
