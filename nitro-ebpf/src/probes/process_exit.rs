//! `sched_process_exit`: a thread of a reader ends; with the last one its load ends.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use nitro_common::{Counter, Hook, flags};

use crate::{
    emit::{What, emit},
    guard::{Tally, Who},
    kernel::{EMPTY, SIGNAL_LIVE, TASK_SIGNAL, Typed, field},
    maps::READERS,
};

/// `(struct task_struct *p)`, and from 6.16 `bool group_dead`.
#[btf_tracepoint(function = "sched_process_exit")]
pub fn process_exit(ctx: BtfTracePointContext) -> i32 {
    if EMPTY.load() != 0 {
        return 0;
    }
    let Some(tally) = Tally::hit() else { return 0 };
    let who = Who::current();
    if READERS.get_ptr(who.process).is_none() {
        tally.count(Counter::Filtered);
        return 0;
    }
    let task: Typed = ctx.arg(0);
    // `signal.live` was decremented just before this hook: zero in the last thread, on every kernel version.
    // SAFETY: typed argument.
    let last = unsafe { field::<u32>(field(task, &TASK_SIGNAL), &SIGNAL_LIVE) } == 0;
    if last {
        let _ = READERS.remove(who.process);
    }
    let flags = if last { flags::LAST_THREAD } else { 0 };
    emit(
        tally,
        who,
        None,
        What {
            hook: Hook::Exit,
            flags,
            start: 0,
            end: 0,
        },
    );
    0
}
