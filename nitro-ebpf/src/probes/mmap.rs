//! `mmap`: a file is mapped; what of it is read, faults alone would tell.

use aya_ebpf::{macros::tracepoint, programs::TracePointContext};
use nitro_common::{Counter, Hook};

use crate::{cursor::note_reader, descriptor::argument, emit::emit, guard::Tally};

/// `MAP_ANONYMOUS`, the same on x86-64 and aarch64: no file, whatever the descriptor says.
const ANONYMOUS: u64 = 0x20;

/// `(unsigned long addr, unsigned long len, unsigned long prot, unsigned long flags, unsigned long fd, unsigned long off)`.
#[tracepoint]
pub fn syscall_mmap(ctx: TracePointContext) -> u32 {
    let Some(tally) = Tally::hit() else { return 0 };
    if argument(&ctx, 3) & ANONYMOUS == 0
        && let Some((who, _, inode, _)) = super::watched_file(argument(&ctx, 4))
        && let Some(what) = super::clipped(Hook::Map, &inode, argument(&ctx, 5), argument(&ctx, 1))
    {
        note_reader(who);
        emit(tally, who, Some(&inode), what);
    } else {
        tally.count(Counter::Filtered);
    }
    0
}
