//! `openat2`: a file is opened with conditions on its path.

use aya_ebpf::{macros::tracepoint, programs::TracePointContext};

use crate::descriptor::argument;

/// At the exit, when the descriptor has its file.
#[tracepoint]
pub fn syscall_openat2(ctx: TracePointContext) -> u32 {
    super::opened(argument(&ctx, 0))
}
