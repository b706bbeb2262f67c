//! `openat`: a file is opened.

use aya_ebpf::{macros::tracepoint, programs::TracePointContext};

use crate::descriptor::argument;

/// At the exit, when the descriptor has its file.
#[tracepoint]
pub fn syscall_openat(ctx: TracePointContext) -> u32 {
    super::opened(argument(&ctx, 0))
}
