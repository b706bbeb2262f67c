//! The event modes, each tried for real.
//!
//! In: the kernel. Out: what came of each mode, which one `auto` takes, and findings. A mode is opened as the agent opens it, told of no file, and dropped at once: then its
//! programs are gone. Syscalls mode, for which others pay while it is attached, takes a second: the kernel detaches one program after the other.

use std::time::{Duration, Instant};

use super::{
    finding::{Finding, Subject},
    kernel, rights,
};
use crate::source::{
    attach::{Attachment, EventChoice, EventMode, ProgramReport},
    ebpf::{Options, SourceError},
    events::EventSource,
};

/// Files that a trial has room for: none is watched.
const CAPACITY: u32 = 1024;

/// All modes, in the order in which `auto` tries them.
pub const MODES: [EventMode; 4] = [
    EventMode::PageCache,
    EventMode::Fentry,
    EventMode::Syscalls,
    EventMode::Fanotify,
];

/// What came of a mode.
#[derive(Debug)]
pub struct Trial {
    /// Which.
    pub mode: EventMode,
    /// How it was attached, or why it was not, in one line.
    pub outcome: Result<Attachment, String>,
    /// How long that took, its end included.
    pub took: Duration,
}

/// Tries all modes, one after the other.
pub fn try_all() -> Vec<Trial> {
    MODES.into_iter().map(try_one).collect()
}

fn try_one(mode: EventMode) -> Trial {
    let began = Instant::now();
    let options = Options {
        events: EventChoice::Only(mode),
        capacity: CAPACITY,
        empty: false,
        exact: false,
    };
    // What was opened is dropped right here.
    let outcome = EventSource::open(options).map(|(_, attachment)| attachment);
    Trial {
        mode,
        outcome: outcome.map_err(|error| reason(mode, &error)),
        took: began.elapsed(),
    }
}

fn reason(mode: EventMode, error: &SourceError) -> String {
    let words = match error {
        SourceError::NoMode(reasons) => reasons.clone(),
        other => other.to_string(),
    };
    let prefix = format!("{mode}: ");
    let words = words.strip_prefix(&prefix).unwrap_or(&words);
    // The remedy has a place of its own, and depends on who asks.
    words.split(": run as root").next().unwrap_or(words).to_owned()
}

/// The mode that `auto` takes.
pub fn auto(trials: &[Trial]) -> Option<EventMode> {
    let works = |mode: &EventMode| trials.iter().any(|trial| trial.mode == *mode && trial.outcome.is_ok());
    MODES.into_iter().find(works)
}

/// What is to be said of them.
pub fn findings(trials: &[Trial], kernel: &kernel::Facts, rights: &rights::Facts) -> Vec<Finding> {
    let taken = auto(trials);
    let mut all = vec![of_auto(taken, kernel, rights)];
    for trial in trials {
        all.extend(of_mode(trial, taken, kernel, rights));
    }
    all
}

fn of_auto(taken: Option<EventMode>, kernel: &kernel::Facts, rights: &rights::Facts) -> Finding {
    const NAME: &str = "auto";
    let newer = if kernel.version < (6, 12) {
        "use Linux 6.12 or later, which has page-cache mode"
    } else {
        "see why page-cache mode is refused, below"
    };
    match taken {
        Some(mode @ EventMode::PageCache) => {
            Subject::Events.ok(NAME, format!("takes {mode} mode, which costs least and knows most"))
        }
        // There the better mode should work.
        Some(mode @ EventMode::Fentry) if kernel.version >= (6, 12) => Subject::Events.degraded(
            NAME,
            format!("takes {mode} mode, though this kernel should have page-cache mode"),
            "a call that asks for much counts as one access, so that its reader is seen later",
            newer,
        ),
        Some(mode @ EventMode::Fentry) => Subject::Events.ok(
            NAME,
            format!(
                "takes {mode} mode: other system calls pay nothing, and a call that asks for much counts as one access"
            ),
        ),
        Some(mode @ EventMode::Syscalls) => Subject::Events.degraded(
            NAME,
            format!("takes {mode} mode"),
            "every system call on this machine gets some 40 ns slower, and the reader of a mapping is seen only where it waits",
            newer,
        ),
        Some(mode @ EventMode::Fanotify) => Subject::Events.degraded(
            NAME,
            format!("takes {mode} mode"),
            "readers are looked at from time to time, so that receipts are inferred, and nothing is announced before its first open",
            newer,
        ),
        None => Subject::Events
            .missing(
                NAME,
                "no event mode works",
                "everything: it cannot be seen who reads what",
                if rights.user == 0 {
                    "see why each mode is refused, below; in a container, run it on the host, or with CAP_SYS_ADMIN"
                } else {
                    "run it with sudo"
                },
            )
            .essential(),
    }
}

fn of_mode(trial: &Trial, taken: Option<EventMode>, kernel: &kernel::Facts, rights: &rights::Facts) -> Vec<Finding> {
    let name = trial.mode.to_string();
    let milliseconds = trial.took.as_millis();
    match &trial.outcome {
        Ok(attachment) => {
            let price = attachment
                .price
                .map(|price| price.to_string().replace(" now costs ", " costs "));
            let price = price
                .map(|price| format!("; while it is attached, {price}"))
                .unwrap_or_default();
            let mut all = vec![Subject::Events.ok(&name, format!("works, tried in {milliseconds} ms{price}"))];
            let programs = attachment.programs.iter();
            let refused = programs.filter_map(|program| Some((program, program.refused.as_deref()?)));
            for (program, why) in refused {
                let finding = without(trial.mode, program, why);
                all.push(if Some(trial.mode) == taken {
                    finding
                } else {
                    finding.aside()
                });
            }
            all
        }
        Err(why) => {
            let is_needed = taken.is_none_or(|taken| rank(trial.mode) < rank(taken));
            let lost = match (is_needed, taken) {
                (false, Some(taken)) => format!("nothing here: {taken} mode goes before it"),
                _ => purpose(trial.mode).to_owned(),
            };
            // The verdict speaks of the mode that is taken.
            vec![
                Subject::Events
                    .missing(&name, why, &lost, remedy(trial.mode, why, kernel, rights))
                    .aside(),
            ]
        }
    }
}

fn rank(mode: EventMode) -> usize {
    MODES.iter().position(|other| *other == mode).unwrap_or(MODES.len())
}

fn purpose(mode: EventMode) -> &'static str {
    match mode {
        EventMode::PageCache => "the mode that costs least and knows most",
        EventMode::Fentry => "the mode for kernels before 6.12 that costs other system calls nothing",
        EventMode::Syscalls => "the mode for kernels that take no programs at the entries of functions",
        EventMode::Fanotify => "the mode that needs no eBPF program",
    }
}

/// What the words of a refusal come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// The kernel has it, and does not let us.
    Forbidden,
    /// Descriptors or groups are used up.
    UsedUp,
    /// There is no memory for it, or none may be locked.
    NoMemory,
    /// The kernel has it not, or says nothing else.
    Lacking,
}

fn cause(why: &str) -> Cause {
    let says = |words: &[&str]| words.iter().any(|word| why.contains(word));
    if says(&["Operation not permitted", "Permission denied", "EPERM", "EACCES"]) {
        Cause::Forbidden
    } else if says(&["Too many open files", "EMFILE", "ENFILE"]) {
        Cause::UsedUp
    } else if says(&["Cannot allocate memory", "Out of memory", "ENOMEM"]) {
        Cause::NoMemory
    } else {
        Cause::Lacking
    }
}

/// What can be done, by what went wrong.
fn remedy(mode: EventMode, why: &str, kernel: &kernel::Facts, rights: &rights::Facts) -> &'static str {
    let missing = if mode == EventMode::Fanotify {
        &rights.fanotify
    } else {
        &rights.ebpf
    };
    if !missing.is_empty() {
        return if rights.user == 0 {
            "give the container the capabilities that are missing, above, so that it can be tried"
        } else {
            "run the doctor with sudo, so that it can be tried"
        };
    }
    match (cause(why), mode) {
        (Cause::UsedUp, EventMode::Fanotify) => "raise fs.fanotify.max_user_groups, or the limit on open files",
        (Cause::UsedUp, _) => "raise the limit on open files",
        (Cause::NoMemory, _) => "free some memory, or raise the limit on locked memory (ulimit -l)",
        (Cause::Forbidden, _) if kernel.lockdown.as_deref().is_some_and(|lockdown| lockdown != "none") => {
            "kernel lockdown may refuse it: boot without lockdown, or run it outside of a sandbox"
        }
        (Cause::Forbidden, EventMode::Fentry) => {
            "run it outside of a sandbox, on a kernel that lets programs be attached to its functions (CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS)"
        }
        (Cause::Forbidden, _) => "run it outside of the sandbox or the security policy that refuses it",
        (Cause::Lacking, EventMode::PageCache) if kernel.version < (6, 12) => "use Linux 6.12 or later",
        (Cause::Lacking, EventMode::PageCache | EventMode::Fentry | EventMode::Syscalls) if kernel.btf.is_err() => {
            "use a kernel built with CONFIG_DEBUG_INFO_BTF"
        }
        (Cause::Lacking, EventMode::Syscalls) if kernel.tracefs.is_err() => crate::source::tracefs::REMEDY,
        (Cause::Lacking, EventMode::PageCache) => {
            "see the reason: this kernel is new enough, and has it not as it should be"
        }
        (Cause::Lacking, EventMode::Fentry) => {
            "use a kernel that lets programs be attached to its functions (CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS)"
        }
        (Cause::Lacking, EventMode::Syscalls) => "use a kernel built with CONFIG_FTRACE_SYSCALLS",
        (Cause::Lacking, EventMode::Fanotify) => "use a kernel built with CONFIG_FANOTIFY",
    }
}

/// A part of a mode that the agent can do without.
fn without(mode: EventMode, program: &ProgramReport, why: &str) -> Finding {
    let lost = match program.program {
        name if name.starts_with("filemap_add") => {
            "what a reader brings in itself is not counted, so that receipts know less"
        }
        name if name.starts_with("filemap_delete") => {
            "pages that the kernel takes away are noticed only when they are read again"
        }
        name if name.starts_with("process_exec") => {
            "models are not announced by the command lines of programs that start"
        }
        name if name.starts_with("process_exit") => "the end of a reader is noticed by its silence, 30 s later",
        name if name.starts_with("file_open") => "opens are not seen, so that a load is noticed with its first read",
        name if name.starts_with("syscall_") => {
            "reads by this system call are seen only where they wait for the device"
        }
        _ => "what it tells is missing in receipts",
    };
    let name = format!("{mode} without {}", program.program);
    Subject::Events.degraded(
        &name,
        format!("{}: {why}", program.hook),
        lost,
        "see the reason; a newer kernel may have it",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(mode: EventMode, works: bool) -> Trial {
        let attachment = Attachment {
            mode,
            why: "as asked".into(),
            price: None,
            programs: Vec::new(),
        };
        Trial {
            mode,
            outcome: works.then_some(attachment).ok_or_else(|| "refused".to_owned()),
            took: Duration::from_millis(3),
        }
    }

    #[test]
    fn auto_takes_the_first_that_works() {
        let trials = |works: [bool; 4]| {
            let trials: Vec<_> = MODES
                .into_iter()
                .zip(works)
                .map(|(mode, works)| trial(mode, works))
                .collect();
            auto(&trials)
        };
        assert_eq!(trials([true; 4]), Some(EventMode::PageCache));
        assert_eq!(trials([false, false, true, true]), Some(EventMode::Syscalls));
        assert_eq!(trials([false, false, false, true]), Some(EventMode::Fanotify));
        assert_eq!(trials([false; 4]), None);
    }

    #[test]
    fn a_reason_repeats_neither_mode_nor_remedy() {
        let error = SourceError::Fanotify(crate::source::fanotify::FanotifyError::Init(nix::errno::Errno::EPERM));
        assert!(!reason(EventMode::Fanotify, &error).contains("run as root"));
        let error = SourceError::NoMode("fentry: filemap_read_entry (filemap_read): no".into());
        assert_eq!(
            reason(EventMode::Fentry, &error),
            "filemap_read_entry (filemap_read): no"
        );
    }

    #[test]
    fn what_went_wrong_is_in_the_words_of_the_refusal() {
        for (why, expected) in [
            (
                "filemap_read: refused by the kernel: Operation not permitted (os error 1)",
                Cause::Forbidden,
            ),
            (
                "cannot listen with fanotify: EMFILE: Too many open files",
                Cause::UsedUp,
            ),
            (
                "cannot create the map: Cannot allocate memory (os error 12)",
                Cause::NoMemory,
            ),
            ("this kernel has no such tracepoint", Cause::Lacking),
            (
                "cannot listen with fanotify: ENOSYS: Function not implemented",
                Cause::Lacking,
            ),
        ] {
            assert_eq!(cause(why), expected, "{why}");
        }
    }
}
