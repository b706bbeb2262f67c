//! `preadv`: from a position of its own into several buffers.

use aya_ebpf::{macros::tracepoint, programs::TracePointContext};

use crate::descriptor::{argument, vector_bytes};

/// `(unsigned long fd, const struct iovec *vec, unsigned long vlen, unsigned long pos_l, unsigned long pos_h)`.
#[tracepoint]
pub fn syscall_preadv(ctx: TracePointContext) -> u32 {
    // The lower half of the position holds all of it on 64-bit architectures.
    super::reads(argument(&ctx, 0), |_| {
        Some((argument(&ctx, 3), vector_bytes(argument(&ctx, 1), argument(&ctx, 2))?))
    })
}
