//! `sched_process_exec`: a program starts; its command line may name a model.

use aya_ebpf::{
    macros::{btf_tracepoint, tracepoint},
    programs::{BtfTracePointContext, TracePointContext},
};
use nitro_common::{Counter, Hook, settings::MIN_ARGUMENT_BYTES};

use crate::{
    emit::{What, emit},
    guard::{Tally, Who},
    kernel::{MM_ARG_END, MM_ARG_START, TASK_MM, Typed, current_task, field},
};

/// `(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)`; `p` is the current task.
#[btf_tracepoint(function = "sched_process_exec")]
pub fn process_exec(_: BtfTracePointContext) -> i32 {
    started();
    0
}

/// Raised by the same task.
#[tracepoint]
pub fn process_exec_classic(_: TracePointContext) -> u32 {
    started();
    0
}

#[inline(always)]
fn started() {
    let Some(tally) = Tally::hit() else { return };
    // SAFETY: typed pointers; a task that has just executed a program has an mm, and a null one reads as zero.
    let length = unsafe {
        let mm: Typed = field(current_task(), &TASK_MM);
        field::<u64>(mm, &MM_ARG_END).wrapping_sub(field(mm, &MM_ARG_START))
    };
    let who = Who::current();
    if length < MIN_ARGUMENT_BYTES || who.is_agent() {
        return tally.count(Counter::Filtered);
    }
    let (hook, flags, start, end) = (Hook::Exec, 0, 0, 0);
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
