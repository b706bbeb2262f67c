//! `sendfile`: from a position that the caller keeps, or from the file's own.

use aya_ebpf::{macros::tracepoint, programs::TracePointContext};

use crate::descriptor::{argument, user_word};

/// `(int out_fd, int in_fd, loff_t *offset, size_t count)`.
#[tracepoint]
pub fn syscall_sendfile64(ctx: TracePointContext) -> u32 {
    super::reads(argument(&ctx, 1), |file| {
        let start = match argument(&ctx, 2) {
            0 => file.position()?,
            pointer => user_word(pointer)?,
        };
        Some((start, argument(&ctx, 3)))
    })
}
