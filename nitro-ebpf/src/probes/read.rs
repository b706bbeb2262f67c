//! `read`: from the file's own position.

use aya_ebpf::{macros::tracepoint, programs::TracePointContext};

use crate::descriptor::argument;

/// `(unsigned int fd, char *buf, size_t count)`.
#[tracepoint]
pub fn syscall_read(ctx: TracePointContext) -> u32 {
    super::reads(argument(&ctx, 0), |file| Some((file.position()?, argument(&ctx, 2))))
}
