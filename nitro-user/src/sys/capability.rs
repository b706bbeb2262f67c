//! Capabilities: which of those that the agent cannot do without this thread has, which of its work needs which, and giving up all others.
//!
//! They belong to threads, and a thread begins with those of the one that starts it. So they are given up by the first thread before it starts another, and no
//! thread need be told.

use std::collections::BTreeSet;

use caps::{CapSet, Capability, CapsHashSet};

/// What the agent does after the start that takes capabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// Reading other users' files and directories, and asking what of them is in the page cache.
    Files,
    /// Seeing how other users' processes opened their files, and borrowing those descriptors where root may not open the files itself.
    Processes,
    /// Removing the control socket from a directory that belongs to somebody else, keeping the state in one.
    Elsewhere,
    /// Joining a memory cgroup whose directory belongs to somebody else.
    OthersGroups,
    /// Locking more in memory than `RLIMIT_MEMLOCK` allows: of the process that holds pins, not of the agent.
    Pins,
}

impl Feature {
    /// The one table of what is kept. A feature that comes with a flag is a row here, and a line where the daemon says which are on.
    fn capabilities(self) -> &'static [Capability] {
        match self {
            // The second one, because `mincore` and `cachestat` tell the truth to a file's owner alone, and a lie ("all resident") to others; and for
            // O_NOATIME, which is its owner's too.
            Self::Files => &[Capability::CAP_DAC_READ_SEARCH, Capability::CAP_FOWNER],
            Self::Processes => &[Capability::CAP_SYS_PTRACE],
            Self::Elsewhere | Self::OthersGroups => &[Capability::CAP_DAC_OVERRIDE],
            Self::Pins => &[Capability::CAP_IPC_LOCK],
        }
    }
}

/// To load and attach eBPF programs: for the start alone. What is attached stays, and a map is changed by whoever has its descriptor.
const START: &[Capability] = &[Capability::CAP_BPF, Capability::CAP_PERFMON];

/// Instead of these, to see without them, by fanotify: for the start too. A group that was made with it keeps what it may; only marks on whole mounts would take it again.
const START_WITHOUT_EBPF: &[Capability] = &[Capability::CAP_SYS_ADMIN];

/// What is needed in any case: at the start, and after it.
const ALWAYS: &[Feature] = &[Feature::Files, Feature::Processes];

/// The capabilities that are missing for eBPF programs that look at the kernel.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "it takes root to see who reads what ({} missing): run it with sudo, or as a service with AmbientCapabilities=CAP_BPF CAP_PERFMON CAP_DAC_READ_SEARCH CAP_FOWNER CAP_SYS_PTRACE, in fanotify mode CAP_SYS_ADMIN instead of the first two",
    .0.join(" and ")
)]
pub struct Missing(Vec<String>);

impl Missing {
    /// Their names.
    pub fn names(&self) -> &[String] {
        &self.0
    }
}

/// Looks whether this thread may do what the agent does: with eBPF programs, or with fanotify, which takes `CAP_SYS_ADMIN` in their place. Where the kernel does
/// not tell, trying does.
///
/// # Errors
/// [`Missing`], with the remedy.
pub fn check(with_ebpf: bool) -> Result<(), Missing> {
    let Ok(effective) = caps::read(None, CapSet::Effective) else {
        return Ok(());
    };
    let missing = missing(&effective, with_ebpf);
    if missing.is_empty() {
        Ok(())
    } else {
        Err(Missing(missing))
    }
}

fn missing(effective: &CapsHashSet, with_ebpf: bool) -> Vec<String> {
    let start = if with_ebpf { START } else { START_WITHOUT_EBPF };
    let always = ALWAYS.iter().flat_map(|feature| feature.capabilities());
    let needed = start.iter().chain(always);
    let without = needed.filter(|wanted| !effective.contains(wanted) && !effective.contains(&stands_for(**wanted)));
    without.map(ToString::to_string).collect()
}

/// What allows the same and more; the capability itself where nothing does.
fn stands_for(wanted: Capability) -> Capability {
    match wanted {
        // Before Linux 5.8, and still, it stands for both.
        Capability::CAP_BPF | Capability::CAP_PERFMON => Capability::CAP_SYS_ADMIN,
        Capability::CAP_DAC_READ_SEARCH => Capability::CAP_DAC_OVERRIDE,
        itself => itself,
    }
}

/// Gives up, for this thread and all that it starts from here on, every capability that `features` and the agent's ordinary work do not need: effective,
/// permitted and bounding. Nothing is left to be inherited by a program. Returns the names of those that are left, in the kernel's order.
///
/// # Errors
/// What the kernel refused, in words; the rest was given up. The bounding set can be refused to a thread without `CAP_SETPCAP`: then it bounds nothing, as long as the
/// thread starts no program.
pub fn keep(features: &[Feature]) -> (Vec<String>, Result<(), String>) {
    let needed: Vec<Feature> = ALWAYS.iter().chain(features).copied().collect();
    keep_only(&needed)
}

/// The same, for a process that does none of the agent's ordinary work.
///
/// # Errors
/// As [`keep`].
pub fn keep_only(features: &[Feature]) -> (Vec<String>, Result<(), String>) {
    let permitted = caps::read(None, CapSet::Permitted).unwrap_or_default();
    let kept = kept(features, &permitted);
    give_up_all_but(&kept)
}

/// Whether this thread may use what `feature` takes.
pub fn has(feature: Feature) -> bool {
    let effective = caps::read(None, CapSet::Effective).unwrap_or_default();
    feature.capabilities().iter().all(|wanted| effective.contains(wanted))
}

/// Gives up every capability of this thread.
pub fn keep_none() -> (Vec<String>, Result<(), String>) {
    give_up_all_but(&CapsHashSet::new())
}

fn kept(features: &[Feature], permitted: &CapsHashSet) -> CapsHashSet {
    let wanted = features.iter().flat_map(|feature| feature.capabilities());
    let there = wanted.filter_map(|wanted| {
        let itself = permitted.contains(wanted).then_some(*wanted);
        itself.or_else(|| permitted.get(&stands_for(*wanted)).copied())
    });
    there.collect()
}

fn give_up_all_but(kept: &CapsHashSet) -> (Vec<String>, Result<(), String>) {
    let mut refused = Vec::new();
    let mut note = |what: &str, done: Result<(), caps::errors::CapsError>| {
        if let Err(error) = done {
            refused.push(format!("{what}: {error}"));
        }
    };
    note("ambient set", caps::clear(None, CapSet::Ambient));
    // While CAP_SETPCAP is still there. One refusal stands for all.
    let bounding = caps::read(None, CapSet::Bounding).unwrap_or_default();
    let mut given_up = bounding.difference(kept);
    note(
        "bounding set",
        given_up.try_for_each(|one| caps::drop(None, CapSet::Bounding, *one)),
    );
    note("inheritable set", caps::clear(None, CapSet::Inheritable));
    // What is not permitted cannot be effective: first the one, then the other.
    note("effective set", caps::set(None, CapSet::Effective, kept));
    note("permitted set", caps::set(None, CapSet::Permitted, kept));
    let left = caps::read(None, CapSet::Permitted).unwrap_or_else(|_| kept.clone());
    let done = if refused.is_empty() {
        Ok(())
    } else {
        Err(refused.join("; "))
    };
    (names(&left), done)
}

fn names(set: &CapsHashSet) -> Vec<String> {
    let ordered: BTreeSet<u8> = set.iter().map(Capability::index).collect();
    let all = caps::all();
    let named = ordered
        .iter()
        .filter_map(|index| all.iter().find(|one| one.index() == *index));
    named.map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(capabilities: &[Capability]) -> CapsHashSet {
        capabilities.iter().copied().collect()
    }

    #[test]
    fn the_capabilities_are_named_one_by_one() {
        use Capability::*;
        assert_eq!(missing(&set(&[CAP_BPF, CAP_PERFMON]), false).len(), 4);
        assert_eq!(missing(&set(&[CAP_SYS_ADMIN]), false).len(), 3);
        let missing = |effective: CapsHashSet| missing(&effective, true);
        assert_eq!(missing(set(&[])).len(), 5);
        let most = [CAP_BPF, CAP_DAC_READ_SEARCH, CAP_FOWNER, CAP_SYS_PTRACE];
        assert_eq!(missing(set(&most)), ["CAP_PERFMON"]);
        assert!(missing(set(&[CAP_SYS_ADMIN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_SYS_PTRACE])).is_empty());
    }

    #[test]
    fn what_is_kept_is_what_is_needed_and_was_there() {
        use Capability::*;
        let usual = [CAP_DAC_READ_SEARCH, CAP_FOWNER, CAP_SYS_PTRACE];
        assert_eq!(kept(ALWAYS, &caps::all()), set(&usual));
        assert_eq!(kept(ALWAYS, &set(&[CAP_FOWNER, CAP_BPF])), set(&[CAP_FOWNER]));
        assert_eq!(kept(&[Feature::Pins], &caps::all()), set(&[CAP_IPC_LOCK]));
        // Of those who may override, nobody need search.
        let container = set(&[CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_CHOWN]);
        assert_eq!(kept(ALWAYS, &container), set(&[CAP_DAC_OVERRIDE, CAP_FOWNER]));
        let elsewhere = kept(&[ALWAYS, &[Feature::Elsewhere]].concat(), &caps::all());
        assert_eq!(
            names(&elsewhere),
            [
                "CAP_DAC_OVERRIDE",
                "CAP_DAC_READ_SEARCH",
                "CAP_FOWNER",
                "CAP_SYS_PTRACE"
            ]
        );
    }

    #[test]
    fn nothing_is_left_of_all_others_and_threads_started_later_have_no_more() {
        let thread = std::thread::spawn(|| {
            let before = caps::read(None, CapSet::Permitted).unwrap();
            let privileged = before.contains(&Capability::CAP_SETPCAP);
            let (left, done) = keep(&[]);
            // Only the bounding set takes a right of its own.
            assert_eq!(done.is_ok(), privileged, "{done:?}");
            assert!(left.len() <= 3, "{left:?}");
            let child = std::thread::spawn(|| {
                let sets = [
                    CapSet::Effective,
                    CapSet::Permitted,
                    CapSet::Inheritable,
                    CapSet::Ambient,
                ];
                (
                    sets.map(|set| caps::read(None, set).unwrap()),
                    caps::read(None, CapSet::Bounding).unwrap(),
                )
            });
            let ([effective, permitted, inheritable, ambient], bounding) = child.join().unwrap();
            assert_eq!(names(&effective), left);
            assert_eq!(names(&permitted), left);
            assert!(inheritable.is_empty() && ambient.is_empty());
            assert!(!privileged || names(&bounding) == left, "{bounding:?}");
        });
        thread.join().unwrap();
        // The thread that did not give anything up still has it.
        let own = caps::read(None, CapSet::Permitted).unwrap();
        assert!(!nix::unistd::geteuid().is_root() || own.len() > 3);
    }
}
