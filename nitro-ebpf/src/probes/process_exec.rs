//! `sched_process_exec`: a program starts; its command line may name a model.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use nitro_common::{Counter, Hook, settings::MIN_ARGUMENT_BYTES};

use crate::{
    emit::{What, emit},
    guard::{Tally, Who},
    kernel::{EMPTY, MM_ARG_END, MM_ARG_START, TASK_MM, Typed, field},
};

/// `(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)`.
#[btf_tracepoint(function = "sched_process_exec")]
pub fn process_exec(ctx: BtfTracePointContext) -> i32 {
    if EMPTY.load() != 0 {
        return 0;
    }
    let Some(tally) = Tally::hit() else { return 0 };
    let task: Typed = ctx.arg(0);
    // SAFETY: typed argument; a task that has just executed a program has an mm, and a null one reads as zero.
    let length = unsafe {
        let mm: Typed = field(task, &TASK_MM);
        field::<u64>(mm, &MM_ARG_END).wrapping_sub(field(mm, &MM_ARG_START))
    };
    let who = Who::current();
    if length < MIN_ARGUMENT_BYTES || who.is_agent() {
        tally.count(Counter::Filtered);
        return 0;
    }
    emit(
        tally,
        who,
        None,
        What {
            hook: Hook::Exec,
            flags: 0,
            start: 0,
            end: 0,
        },
    );
    0
}
