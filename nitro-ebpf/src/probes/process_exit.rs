//! `sched_process_exit`: a thread of a reader ends; with the last one its load ends.

use aya_ebpf::{
    macros::{btf_tracepoint, tracepoint},
    programs::{BtfTracePointContext, TracePointContext},
};
use nitro_common::{Counter, Hook, flags};

use crate::{
    emit::{What, emit},
    guard::{Tally, Who},
    kernel::{SIGNAL_LIVE, TASK_SIGNAL, current_task, field},
    maps::READERS,
};

/// `(struct task_struct *p)`, and from 6.16 `bool group_dead`; `p` is the current task.
#[btf_tracepoint(function = "sched_process_exit")]
pub fn process_exit(_: BtfTracePointContext) -> i32 {
    ended();
    0
}

/// Raised by the same task.
#[tracepoint]
pub fn process_exit_classic(_: TracePointContext) -> u32 {
    ended();
    0
}

#[inline(always)]
fn ended() {
    let Some(tally) = Tally::hit() else { return };
    let who = Who::current();
    if READERS.get_ptr(who.process).is_none() {
        return tally.count(Counter::Filtered);
    }
    // `signal.live` was decremented just before this hook: zero in the last thread, on every kernel version.
    // SAFETY: typed pointers.
    let last = unsafe { field::<u32>(field(current_task(), &TASK_SIGNAL), &SIGNAL_LIVE) } == 0;
    if last {
        let _ = READERS.remove(who.process);
    }
    let flags = if last { flags::LAST_THREAD } else { 0 };
    let (hook, start, end) = (Hook::Exit, 0, 0);
    emit(
        tally,
        who,
        None,
        What {
            hook,
            flags,
            start,
            end,
        },
    );
}
