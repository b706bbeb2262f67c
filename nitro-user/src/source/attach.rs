//! Which programs make up an event mode, and what happened when they were attached.
//!
//! Every program is tried by itself: a kernel may refuse one kind and take another. A mode is active when all its essential hooks have a program.

use std::{fmt, str::FromStr};

use aya::{Btf, Ebpf, programs::Program};
use serde::{Deserialize, Serialize};

use super::{
    price::{self, Price},
    refusal, tracefs,
};

/// How accesses are seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventMode {
    /// Tracepoints of the page cache (6.12): other system calls pay nothing.
    PageCache,
    /// Entries of the page cache's functions, before 6.12: other system calls pay nothing.
    Fentry,
    /// Tracepoints on system calls: every system call on the machine pays.
    Syscalls,
    /// No eBPF program: opens and closes by fanotify, and looking at who has files open.
    Fanotify,
}

impl EventMode {
    /// Whether what readers do is concluded from looking at them from time to time, and not told by the kernel access by access.
    pub const fn is_inferred(self) -> bool {
        matches!(self, Self::Fanotify)
    }
}

impl fmt::Display for EventMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::PageCache => "page-cache",
            Self::Fentry => "fentry",
            Self::Syscalls => "syscalls",
            Self::Fanotify => "fanotify",
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
    /// As `Auto` on a kernel that refuses typed tracepoints and entries of functions; for tests.
    Classic,
}

impl EventChoice {
    /// Whether it takes eBPF programs, as far as is known before they are tried: `auto` does without when the kernel refuses them.
    pub const fn needs_ebpf(self) -> bool {
        !matches!(self, Self::Only(EventMode::Fanotify))
    }
}

impl FromStr for EventChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "page-cache" => Ok(Self::Only(EventMode::PageCache)),
            "fentry" => Ok(Self::Only(EventMode::Fentry)),
            "syscalls" => Ok(Self::Only(EventMode::Syscalls)),
            "fanotify" => Ok(Self::Only(EventMode::Fanotify)),
            "classic" => Ok(Self::Classic),
            _ => Err(format!(
                "{text:?} is not an event mode: auto, page-cache, fentry, syscalls or fanotify"
            )),
        }
    }
}

/// Where a program is attached.
#[derive(Clone, Copy)]
enum Tracepoint {
    /// A typed one (`tp_btf`): cheap, needs the kernel's BTF.
    Typed(&'static str),
    /// A classic one, `category/name`: needs tracefs.
    Classic(&'static str),
    /// No tracepoint: the entry of a function, which needs the kernel's BTF.
    Entry(&'static str),
}

use Tracepoint::{Classic, Entry, Typed};

impl Tracepoint {
    const fn name(self) -> &'static str {
        match self {
            Self::Typed(name) | Self::Classic(name) | Self::Entry(name) => name,
        }
    }
}

/// One program for a hook: its name in the object, and where it goes.
type Way = (&'static str, Tracepoint);

/// One hook of a mode.
struct Spec {
    /// Ways to it, the best first.
    ways: &'static [Way],
    /// Without it the mode sees nothing.
    essential: bool,
}

impl Spec {
    /// Whether it hangs on a system call.
    fn is_call(&self) -> bool {
        self.ways.iter().any(|way| way.1.name().starts_with("syscalls/"))
    }
}

const fn needs(ways: &'static [Way]) -> Spec {
    Spec { ways, essential: true }
}

const fn likes(ways: &'static [Way]) -> Spec {
    Spec { ways, essential: false }
}

const ADD: Way = ("filemap_add", Typed("mm_filemap_add_to_page_cache"));
const DELETE: Way = ("filemap_delete", Typed("mm_filemap_delete_from_page_cache"));
const EXEC: Way = ("process_exec", Typed("sched_process_exec"));
const EXIT: Way = ("process_exit", Typed("sched_process_exit"));

/// Who accesses: 6.12.
const PAGE_CACHE: &[Spec] = &[
    needs(&[("filemap_get_pages", Typed("mm_filemap_get_pages"))]),
    needs(&[("filemap_map_pages", Typed("mm_filemap_map_pages"))]),
    needs(&[("filemap_fault", Typed("mm_filemap_fault"))]),
    likes(&[ADD]),
    likes(&[DELETE]),
    likes(&[EXEC]),
    likes(&[EXIT]),
];

/// Who accesses, before 6.12.
const FENTRY: &[Spec] = &[
    needs(&[("filemap_read_entry", Entry("filemap_read"))]),
    needs(&[("filemap_map_pages_entry", Entry("filemap_map_pages"))]),
    needs(&[("filemap_fault_entry", Entry("filemap_fault"))]),
    likes(&[("file_open_entry", Entry("security_file_open"))]),
    likes(&[ADD]),
    likes(&[DELETE]),
    likes(&[EXEC]),
    likes(&[EXIT]),
];

/// What else is known of files and processes comes first here: the first of the system calls' hooks, which
/// is measured, then adds nothing but its own price.
const SYSCALLS: &[Spec] = &[
    likes(&[
        ADD,
        ("filemap_add_classic", Classic("filemap/mm_filemap_add_to_page_cache")),
    ]),
    likes(&[
        DELETE,
        (
            "filemap_delete_classic",
            Classic("filemap/mm_filemap_delete_from_page_cache"),
        ),
    ]),
    likes(&[EXEC, ("process_exec_classic", Classic("sched/sched_process_exec"))]),
    likes(&[EXIT, ("process_exit_classic", Classic("sched/sched_process_exit"))]),
    needs(&[("syscall_read", Classic("syscalls/sys_enter_read"))]),
    needs(&[("syscall_pread64", Classic("syscalls/sys_enter_pread64"))]),
    needs(&[("syscall_mmap", Classic("syscalls/sys_enter_mmap"))]),
    needs(&[("syscall_openat", Classic("syscalls/sys_exit_openat"))]),
    likes(&[("syscall_openat2", Classic("syscalls/sys_exit_openat2"))]),
    #[cfg(target_arch = "x86_64")]
    likes(&[("syscall_open", Classic("syscalls/sys_exit_open"))]),
    likes(&[("syscall_readv", Classic("syscalls/sys_enter_readv"))]),
    likes(&[("syscall_preadv", Classic("syscalls/sys_enter_preadv"))]),
    likes(&[("syscall_preadv2", Classic("syscalls/sys_enter_preadv2"))]),
    likes(&[("syscall_sendfile64", Classic("syscalls/sys_enter_sendfile64"))]),
];

/// What came of one hook.
#[derive(Clone, Debug, Serialize)]
pub struct ProgramReport {
    /// Name of the program; in fanotify mode, of what is looked at.
    pub program: &'static str,
    /// Tracepoint or function it belongs to, with the category for a classic one; in fanotify mode, the file that tells.
    pub hook: &'static str,
    /// Why it is not attached; `None` when it is.
    pub refused: Option<String>,
}

/// What came of a mode.
#[derive(Clone, Debug, Serialize)]
pub struct Attachment {
    /// The active mode.
    pub mode: EventMode,
    /// Why a cheaper mode is not active, and what this one costs, for the start-up line.
    pub why: String,
    /// What others pay: measured in syscalls mode, where it is not nothing.
    pub price: Option<Price>,
    /// Hook by hook.
    pub programs: Vec<ProgramReport>,
}

/// Attaches the programs of `mode`, typed ones only if `typed`, those on system calls only if `exact`; the links detach when the programs are dropped, and with this process in any
/// case. Returns what came of each hook, and in syscalls mode what others now pay.
///
/// # Errors
/// The first essential hook's refusal, in one line, with the remedy.
pub fn attach(
    ebpf: &mut Ebpf,
    btf: &Btf,
    mode: EventMode,
    typed: bool,
    exact: bool,
) -> Result<(Vec<ProgramReport>, Option<Price>), String> {
    let specs = match mode {
        EventMode::PageCache => PAGE_CACHE,
        EventMode::Fentry => FENTRY,
        EventMode::Syscalls => {
            tracefs::find().map_err(|error| error.to_string())?;
            SYSCALLS
        }
        // It has no programs.
        EventMode::Fanotify => &[],
    };
    let mut price = None;
    let mut reports = Vec::new();
    for spec in specs.iter().filter(|spec| !exact || spec.is_call()) {
        let report = attach_spec(ebpf, btf, spec, typed, &mut price);
        if let Some(reason) = &report.refused
            && spec.essential
        {
            return Err(format!("{} ({}): {reason}", report.program, report.hook));
        }
        reports.push(report);
    }
    Ok((reports, price))
}

/// Tries the ways to one hook.
fn attach_spec(ebpf: &mut Ebpf, btf: &Btf, spec: &Spec, typed: bool, price: &mut Option<Price>) -> ProgramReport {
    let mut refusals: Vec<String> = Vec::new();
    for &(program, tracepoint) in spec.ways {
        match attach_way(ebpf, btf, program, tracepoint, typed, price) {
            Ok(()) => {
                for refusal in refusals {
                    tracing::info!("{program} on {} instead: {refusal}", tracepoint.name());
                }
                return ProgramReport {
                    program,
                    hook: tracepoint.name(),
                    refused: None,
                };
            }
            Err(refusal) if refusals.contains(&refusal) => {}
            Err(refusal) => refusals.push(refusal),
        }
    }
    let (program, hook) = spec.ways.first().map_or(("", ""), |way| (way.0, way.1.name()));
    let refused = Some(refusals.join("; "));
    ProgramReport { program, hook, refused }
}

fn attach_way(
    ebpf: &mut Ebpf,
    btf: &Btf,
    program: &str,
    tracepoint: Tracepoint,
    typed: bool,
    price: &mut Option<Price>,
) -> Result<(), String> {
    let Some(program) = ebpf.program_mut(program) else {
        return Err("not in the eBPF object: rebuild it with `cargo xtask build-ebpf`".into());
    };
    let refused = |error| refusal::of_program(&error);
    match (program, tracepoint) {
        (Program::FEntry(program), Entry(name)) => {
            program.load(name, btf).map_err(|error| refusal::of_entry(&error))?;
            program.attach().map_err(|error| refusal::of_entry(&error))?;
        }
        (_, Typed(_)) if !typed => return Err("typed tracepoints were not to be tried".into()),
        (Program::BtfTracePoint(program), Typed(name)) => {
            program.load(name, btf).map_err(refused)?;
            program.attach().map_err(refused)?;
        }
        (Program::TracePoint(program), Classic(name)) => {
            let (category, name) = name.split_once('/').ok_or("a classic tracepoint has a category")?;
            program.load().map_err(refused)?;
            if category == "syscalls" && price.is_none() {
                *price = Some(price::of_attaching(program, category, name).map_err(refused)?);
            } else {
                program.attach(category, name).map_err(refused)?;
            }
        }
        _ => return Err("of another kind in the eBPF object: rebuild it with `cargo xtask build-ebpf`".into()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_needs_tracefs_in_syscalls_mode_names_its_category() {
        for (_, tracepoint) in SYSCALLS.iter().flat_map(|spec| spec.ways) {
            let classic = matches!(tracepoint, Classic(_));
            assert_eq!(classic, tracepoint.name().contains('/'), "{}", tracepoint.name());
        }
    }

    #[test]
    fn the_modes_of_the_page_cache_need_no_tracefs() {
        let specs = PAGE_CACHE.iter().chain(FENTRY);
        assert!(specs.flat_map(|spec| spec.ways).all(|way| !matches!(way.1, Classic(_))));
    }

    #[test]
    fn a_mode_is_read_as_it_is_printed() {
        for mode in [
            EventMode::PageCache,
            EventMode::Fentry,
            EventMode::Syscalls,
            EventMode::Fanotify,
        ] {
            assert_eq!(mode.to_string().parse(), Ok(EventChoice::Only(mode)));
        }
        assert!("telepathy".parse::<EventChoice>().unwrap_err().contains("page-cache"));
    }
}
