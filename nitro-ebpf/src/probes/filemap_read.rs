//! The entry of `filemap_read`: buffered reads of every kind, before 6.12. It comes before the wait for the pages, and once for a call, however much it reads.

use aya_ebpf::{macros::fentry, programs::FEntryContext};
use nitro_common::{Counter, Hook};

use crate::{
    cursor,
    descriptor::at_most_one_call,
    guard::{Tally, Who, may_be_watched},
    kernel::{CALL_FILE, CALL_POSITION, FILE_MAPPING, ITER_COUNT, Inode, Typed, field},
};

/// `(struct kiocb *iocb, struct iov_iter *iter, ssize_t already_read)`.
#[fentry(function = "filemap_read")]
pub fn filemap_read_entry(ctx: FEntryContext) -> i32 {
    let Some(tally) = Tally::hit() else { return 0 };
    let call: Typed = ctx.arg(0);
    // SAFETY: typed pointers from the function's arguments on; an open file has a mapping.
    let inode = unsafe {
        let file: Typed = field(call, &CALL_FILE);
        Inode::of_mapping(field(file, &FILE_MAPPING))
    };
    let who = Who::current();
    if !may_be_watched(&inode) || who.is_agent() {
        tally.count(Counter::Filtered);
        return 0;
    }
    // SAFETY: as above.
    let (start, length) = unsafe {
        (
            field::<u64>(call, &CALL_POSITION),
            field::<u64>(ctx.arg::<Typed>(1), &ITER_COUNT),
        )
    };
    match super::clipped(Hook::Read, &inode, start, at_most_one_call(length)) {
        Some(what) => cursor::access(tally, who, &inode, what),
        None => tally.count(Counter::Filtered),
    }
    0
}
