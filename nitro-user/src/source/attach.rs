//! Which programs make up an event mode, and what happened when they were attached.
//!
//! Every program is tried by itself: a kernel may refuse one kind and take another. A mode is active when all its essential programs are.

use std::{fmt, io, str::FromStr};

use aya::{
    Btf, Ebpf,
    programs::{Program, ProgramError},
};
use serde::{Deserialize, Serialize};

/// How accesses are seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventMode {
    /// Tracepoints of the page cache (6.12): other system calls pay nothing.
    PageCache,
    /// Tracepoints on system calls: every system call on the machine pays.
    Syscalls,
}

impl fmt::Display for EventMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::PageCache => "page-cache",
            Self::Syscalls => "syscalls",
        })
    }
}

/// What `--events` asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EventChoice {
    /// The first mode that works, cheapest first.
    #[default]
    Auto,
    /// This one or an error.
    Only(EventMode),
}

impl FromStr for EventChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "page-cache" => Ok(Self::Only(EventMode::PageCache)),
            "syscalls" => Ok(Self::Only(EventMode::Syscalls)),
            _ => Err(format!("{text:?} is not an event mode: auto, page-cache or syscalls")),
        }
    }
}

/// One program of the object.
struct Spec {
    /// Its name in the object.
    program: &'static str,
    /// Tracepoint: its name, with the category for classic ones.
    hook: &'static str,
    /// Without it the mode sees nothing.
    essential: bool,
}

const fn needs(program: &'static str, hook: &'static str) -> Spec {
    Spec {
        program,
        hook,
        essential: true,
    }
}

const fn likes(program: &'static str, hook: &'static str) -> Spec {
    Spec {
        program,
        hook,
        essential: false,
    }
}

const PAGE_CACHE: &[Spec] = &[
    needs("filemap_get_pages", "mm_filemap_get_pages"),
    needs("filemap_map_pages", "mm_filemap_map_pages"),
    needs("filemap_fault", "mm_filemap_fault"),
    likes("filemap_add", "mm_filemap_add_to_page_cache"),
    likes("filemap_delete", "mm_filemap_delete_from_page_cache"),
    likes("process_exec", "sched_process_exec"),
    likes("process_exit", "sched_process_exit"),
];

/// What came of one program.
#[derive(Clone, Debug, Serialize)]
pub struct ProgramReport {
    /// Name of the program.
    pub program: &'static str,
    /// Tracepoint it belongs to.
    pub hook: &'static str,
    /// Why it is not attached; `None` when it is.
    pub refused: Option<String>,
}

/// What came of a mode.
#[derive(Clone, Debug, Serialize)]
pub struct Attachment {
    /// The active mode.
    pub mode: EventMode,
    /// Why a cheaper mode is not active, for the start-up line.
    pub why: String,
    /// Program by program.
    pub programs: Vec<ProgramReport>,
}

/// Attaches the programs of `mode`; the links detach when they are dropped, and with this process in any case.
///
/// # Errors
/// The first essential program's refusal, in words, with the remedy.
pub fn attach(ebpf: &mut Ebpf, btf: &Btf, mode: EventMode) -> Result<Vec<ProgramReport>, String> {
    let mut reports = Vec::new();
    for spec in specs(mode) {
        let done = attach_one(ebpf, btf, spec);
        if let Err(reason) = &done
            && spec.essential
        {
            return Err(format!("{} ({}): {reason}", spec.program, spec.hook));
        }
        reports.push(ProgramReport {
            program: spec.program,
            hook: spec.hook,
            refused: done.err(),
        });
    }
    Ok(reports)
}

fn specs(mode: EventMode) -> &'static [Spec] {
    match mode {
        EventMode::PageCache => PAGE_CACHE,
        EventMode::Syscalls => &[],
    }
}

fn attach_one(ebpf: &mut Ebpf, btf: &Btf, spec: &Spec) -> Result<(), String> {
    let Some(program) = ebpf.program_mut(spec.program) else {
        return Err("not in the eBPF object: rebuild it with `cargo xtask build-ebpf`".into());
    };
    match program {
        Program::BtfTracePoint(program) => {
            program.load(spec.hook, btf).map_err(|error| reason(&error))?;
            program.attach().map_err(|error| reason(&error))?;
        }
        Program::TracePoint(program) => {
            let (category, name) = spec.hook.split_once('/').unwrap_or(("syscalls", spec.hook));
            program.load().map_err(|error| reason(&error))?;
            program.attach(category, name).map_err(|error| reason(&error))?;
        }
        _ => return Err("of a kind this version does not attach".into()),
    }
    Ok(())
}

/// A refusal in words, with what to do about it.
fn reason(error: &ProgramError) -> String {
    let errno = |error: &io::Error| match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => format!("{error}: run as root, or with CAP_BPF and CAP_PERFMON"),
        Some(libc::ENOENT) => format!("{error}: is tracefs mounted? mount -t tracefs tracefs /sys/kernel/tracing"),
        _ => error.to_string(),
    };
    match error {
        ProgramError::Btf(_) => "this kernel has no such tracepoint (it came with Linux 6.12)".into(),
        ProgramError::LoadError { io_error, verifier_log } => {
            tracing::debug!(%verifier_log, "the verifier refused a program");
            format!("refused by the kernel: {}", errno(io_error))
        }
        ProgramError::SyscallError(call) => format!("{}: {}", call.call, errno(&call.io_error)),
        other => {
            let chain = std::iter::successors(Some(other as &dyn std::error::Error), |error| error.source());
            chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
        }
    }
}
