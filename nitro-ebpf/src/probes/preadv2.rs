//! `preadv2`: `preadv`, or `readv` where the position is −1, with flags that do not matter here.

use aya_ebpf::{macros::tracepoint, programs::TracePointContext};

use crate::descriptor::{argument, vector_bytes};

/// `(unsigned long fd, const struct iovec *vec, unsigned long vlen, unsigned long pos_l, unsigned long pos_h, rwf_t flags)`.
#[tracepoint]
pub fn syscall_preadv2(ctx: TracePointContext) -> u32 {
    super::reads(argument(&ctx, 0), |file| {
        let start = match argument(&ctx, 3) {
            u64::MAX => file.position()?,
            start => start,
        };
        Some((start, vector_bytes(argument(&ctx, 1), argument(&ctx, 2))?))
    })
}
