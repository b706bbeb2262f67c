//! `open`: what C libraries other than glibc call on x86-64; newer architectures lack it.

use aya_ebpf::{macros::tracepoint, programs::TracePointContext};

use crate::descriptor::argument;

/// At the exit, when the descriptor has its file.
#[tracepoint]
pub fn syscall_open(ctx: TracePointContext) -> u32 {
    super::opened(argument(&ctx, 0))
}
