//! `readv`: from the file's own position into several buffers.

use aya_ebpf::{macros::tracepoint, programs::TracePointContext};

use crate::descriptor::{argument, vector_bytes};

/// `(unsigned long fd, const struct iovec *vec, unsigned long vlen)`.
#[tracepoint]
pub fn syscall_readv(ctx: TracePointContext) -> u32 {
    super::reads(argument(&ctx, 0), |file| {
        Some((file.position()?, vector_bytes(argument(&ctx, 1), argument(&ctx, 2))?))
    })
}
