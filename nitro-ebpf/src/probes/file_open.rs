//! The entry of `security_file_open`: a file is opened, before 6.12.

use aya_ebpf::{macros::fentry, programs::FEntryContext};
use nitro_common::{Counter, Hook, flags};

use crate::{
    cursor,
    emit::{What, emit},
    guard::{Tally, Watched, Who, may_be_watched, watched},
    kernel::{DIRECT_FLAG, FILE_FLAGS, FILE_MAPPING, Inode, Typed, field},
};

/// `(struct file *file)`.
#[fentry(function = "security_file_open")]
pub fn file_open_entry(ctx: FEntryContext) -> i32 {
    let Some(tally) = Tally::hit() else { return 0 };
    let file: Typed = ctx.arg(0);
    // SAFETY: typed pointers from the function's argument on; the mapping of a file that is being opened is set.
    let inode = unsafe { Inode::of_mapping(field(file, &FILE_MAPPING)) };
    let who = Who::current();
    let watched = if may_be_watched(&inode) && !who.is_agent() {
        watched(&inode)
    } else {
        Watched::No
    };
    if matches!(watched, Watched::No) {
        tally.count(Counter::Filtered);
        return 0;
    }
    cursor::note_reader(who);
    super::meet(who, &inode, watched);
    // SAFETY: as above.
    let is_direct = unsafe { field::<u32>(file, &FILE_FLAGS) } & DIRECT_FLAG.load() != 0;
    let flags = if is_direct { flags::DIRECT } else { 0 };
    let (hook, start, end) = (Hook::Open, 0, 0);
    emit(
        tally,
        who,
        Some(&inode),
        What {
            hook,
            flags,
            start,
            end,
        },
    );
    0
}
