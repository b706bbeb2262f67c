//! `pread64`: from a position of its own.

use aya_ebpf::{macros::tracepoint, programs::TracePointContext};

use crate::descriptor::argument;

/// `(unsigned int fd, char *buf, size_t count, loff_t pos)`.
#[tracepoint]
pub fn syscall_pread64(ctx: TracePointContext) -> u32 {
    super::reads(argument(&ctx, 0), |_| Some((argument(&ctx, 3), argument(&ctx, 2))))
}
