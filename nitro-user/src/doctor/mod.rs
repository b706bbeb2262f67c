//! `nitro-agent doctor`: what this machine has for the agent, what it lacks, and what to do about it.
//!
//! In: which directories are meant, and what an agent that runs says of itself. Out: a [`Report`]: findings, each with what is lost and the remedy, and the verdict.
//! Facts are gathered first, from files below a root that a test can replace and from trials on the running kernel; what is made of them is pure, subject by subject.
//! Nothing is changed, and whatever a trial attaches is gone when it ends.

mod cgroups;
mod devices;
mod events;
mod file_systems;
pub mod finding;
mod fuse;
mod kernel;
mod machine;
mod memory;
mod rights;
mod roots;
mod settings;
mod swap;
#[cfg(test)]
mod tests;
mod wsl;

use std::{ffi::OsString, io, os::unix::ffi::OsStringExt, path::PathBuf, time::Duration};

use serde::Serialize;

use self::{
    events::Trial,
    finding::{Finding, Subject, Weight},
    machine::Machine,
    roots::Chosen,
};
use crate::{
    discover::finder::Finder,
    source::attach::EventMode,
    sys::{self, confine, fork},
};

/// What is lost where the agent cannot use the kernel's own chain of readahead: see `warm::chain`.
const NO_CHAIN: &str = "what is warmed comes in as single pages of 4 KiB: up to a third more requests to the device, and 2 GiB of a mapping take 0.25 s to touch instead of 0.03";

/// How long threads that were told to end may take.
const THREADS: Duration = Duration::from_secs(2);

/// What is asked.
#[derive(Debug, Default)]
pub struct Question {
    /// Directories that were named: absolute paths.
    pub watch: Vec<PathBuf>,
    /// Look for directories with models besides.
    pub auto: bool,
    /// What an agent that runs says of itself, or why none answers.
    pub agent: Option<Result<Running, String>>,
}

/// An agent that runs.
#[derive(Clone, Debug, Default)]
pub struct Running {
    /// Its version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Its event mode.
    pub mode: String,
    /// The directories that it watches, those that are not there included.
    pub directories: Vec<PathBuf>,
}

/// What the verdict comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Nothing is lost.
    Ok,
    /// It works, with less than there could be.
    Degraded,
    /// It cannot work.
    CannotWork,
}

impl Outcome {
    /// What the process ends with.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Degraded => 1,
            Self::CannotWork => 2,
        }
    }
}

/// The verdict.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// What it comes to.
    pub outcome: Outcome,
    /// In a sentence.
    pub words: String,
    /// What the process ends with.
    pub exit_code: u8,
}

/// All that the doctor says.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Version of the agent.
    pub version: &'static str,
    /// Release of the running kernel.
    pub kernel: String,
    /// The event mode that `auto` takes; `None` where none works.
    pub mode: Option<EventMode>,
    /// Subject by subject.
    pub findings: Vec<Finding>,
    /// What it comes to.
    pub verdict: Verdict,
}

/// What was tried on the running kernel, with all rights.
#[derive(Debug)]
struct Tried {
    rights: rights::Facts,
    events: Vec<Trial>,
    fuse: io::Result<bool>,
    cachestat: bool,
}

impl Tried {
    fn now() -> Self {
        Self {
            rights: rights::gather(),
            events: events::try_all(),
            fuse: sys::fuse::knows_passthrough(),
            cachestat: sys::page_cache::tells_presence(),
        }
    }
}

/// All facts.
#[derive(Debug)]
struct Facts {
    tried: Tried,
    agent: Option<Result<Running, String>>,
    kernel: kernel::Facts,
    memory: memory::Facts,
    swap: swap::Facts,
    cgroups: cgroups::Facts,
    chosen: Chosen,
    roots: Vec<roots::Root>,
    loops: devices::Loops,
    settings: settings::Facts,
    wsl: Option<wsl::Facts>,
}

/// Looks at this machine. The calling thread gives up its rights on the way, as the agent does: to be called last, and before there is another thread.
pub fn examine(question: Question) -> Report {
    let tried = Tried::now();
    // Threads of what was tried keep their rights, and would be in the way of asking by copies of this process.
    if !fork::alone_within(THREADS) {
        tracing::debug!("threads of what was tried go on");
    }
    // From here on what others have written is read.
    let confined = confine::confine(&[]);
    for refused in &confined.refused {
        tracing::debug!("a right was not given up: {refused}");
    }
    Facts::gather(&Machine::own(), question, tried, found).report()
}

/// Directories with models, as `--watch auto` finds them; as bytes, since a path need not be UTF-8.
fn found() -> Vec<Vec<u8>> {
    let findings = Finder::default().look();
    let paths = findings.watch.iter().map(|suggestion| suggestion.top.native());
    paths.map(|path| path.into_os_string().into_vec()).collect()
}

impl Facts {
    fn gather(machine: &Machine, question: Question, tried: Tried, found: impl Fn() -> Vec<Vec<u8>>) -> Self {
        let Question { watch, auto, agent } = question;
        let (process, running) = match &agent {
            Some(Ok(running)) => (
                Some(running.pid).filter(|process| machine.is_agent(*process)),
                running.directories.clone(),
            ),
            _ => (None, Vec::new()),
        };
        let (chosen, paths) = match (watch.is_empty(), running.is_empty()) {
            (false, _) if !auto => (Chosen::Named, watch),
            (true, false) if !auto => (Chosen::Running, running),
            // It looks at what strangers name: half of the time is left for what was found.
            _ => match machine.half().ask(&[()], |()| found()).pop().flatten() {
                Some(found) => {
                    let found = found.into_iter().map(|path| OsString::from_vec(path).into());
                    (Chosen::Found, watch.into_iter().chain(found).collect())
                }
                None => (Chosen::Silent, watch),
            },
        };
        Self {
            agent,
            kernel: kernel::gather(machine, tried.cachestat),
            memory: memory::gather(machine),
            swap: swap::gather(machine),
            cgroups: cgroups::gather(machine, process),
            chosen,
            roots: roots::gather(machine, &paths, chosen),
            loops: devices::gather_loops(machine),
            settings: settings::gather(machine, process),
            wsl: wsl::gather(machine),
            tried,
        }
    }

    fn report(&self) -> Report {
        let mode = events::auto(&self.tried.events);
        let kernel = &self.kernel;
        let places = self.roots.iter().filter_map(|root| root.place.as_ref().ok()).flatten();
        let on_devices = places.filter(|place| file_systems::has_device(&place.mount.kind));
        let devices: Vec<_> = on_devices.map(|place| place.device.clone()).collect();
        let findings: Vec<Finding> = [
            of_agent(self.agent.as_ref(), mode),
            kernel::findings(kernel, mode),
            rights::findings(&self.tried.rights, kernel),
            events::findings(&self.tried.events, kernel, &self.tried.rights),
            memory::findings(&self.memory, kernel),
            swap::findings(&self.swap),
            cgroups::findings(&self.cgroups, self.memory.total, &devices),
            file_systems::findings(&self.roots, self.chosen, mode),
            devices::findings(&devices, &self.loops, kernel.version),
            fuse::findings(&self.tried.fuse, kernel),
            settings::findings(&self.settings, &self.swap),
            wsl::findings(self.wsl.as_ref(), self.memory.total),
        ]
        .concat();
        Report {
            version: env!("CARGO_PKG_VERSION"),
            kernel: crate::units::printable(&kernel.release),
            mode,
            verdict: verdict(&findings, mode),
            findings,
        }
    }
}

fn of_agent(agent: Option<&Result<Running, String>>, mode: Option<EventMode>) -> Vec<Finding> {
    const AGENT: Subject = Subject::Agent;
    const NAME: &str = "running";
    let running = match agent {
        None => return Vec::new(),
        Some(Err(why)) => return vec![AGENT.info(NAME, why)],
        Some(Ok(running)) => running,
    };
    let Running {
        version,
        pid,
        mode: its,
        ..
    } = running;
    let words = format!("version {version}, pid {pid}, in {its} mode");
    if version != env!("CARGO_PKG_VERSION") {
        let lost = format!("what version {} does otherwise", env!("CARGO_PKG_VERSION"));
        return vec![AGENT.degraded(
            NAME,
            words,
            &lost,
            "start the agent again, so that the installed version runs",
        )];
    }
    let rank = |mode: &str| events::MODES.iter().position(|other| other.to_string() == mode);
    match mode {
        Some(mode) if rank(&mode.to_string()) < rank(its) => vec![AGENT.degraded(
            NAME,
            words,
            &format!("what {mode} mode, which works now, knows more or costs less"),
            "start the agent again, with --events auto",
        )],
        _ => vec![AGENT.ok(NAME, words)],
    }
}

/// What it comes to: the first thing without which nothing works, or else all that costs something.
fn verdict(findings: &[Finding], mode: Option<EventMode>) -> Verdict {
    let bad = findings.iter().filter(|finding| finding.is_bad());
    let essential = bad.clone().find(|finding| finding.weight == Weight::Essential);
    let useful = bad.filter(|finding| finding.weight == Weight::Useful);
    let names: Vec<String> = useful
        .map(|finding| format!("{} ({})", finding.name, finding.subject))
        .collect();
    let works = mode.map_or_else(String::new, |mode| format!(", in {mode} mode"));
    let (outcome, words) = match essential {
        Some(finding) => {
            let remedy = finding.remedy.as_deref().unwrap_or_default();
            let words = format!("{}: {}; {remedy}", finding.name, finding.value);
            (Outcome::CannotWork, words)
        }
        None if names.is_empty() => (
            Outcome::Ok,
            format!("the agent works here{works}, with all that it uses"),
        ),
        None => {
            let words = format!(
                "the agent works here{works}, with less than there could be: {}",
                names.join(", ")
            );
            (Outcome::Degraded, words)
        }
    };
    Verdict {
        outcome,
        words,
        exit_code: outcome.exit_code(),
    }
}
