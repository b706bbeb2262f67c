//! What this user may do: capabilities, and the limit on locked memory.
//!
//! In: what the kernel says of this process. Out: findings.

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};

use super::{
    finding::{Finding, Subject},
    kernel,
};
use crate::{sys::capability, units::ByteCount};

/// What the maps of the eBPF programs take at the least, before 5.11 out of the locked memory.
const MAPS: u64 = 16 << 20;

/// What this process may do.
#[derive(Debug)]
pub struct Facts {
    /// Effective user id.
    pub user: u32,
    /// Capabilities that are missing for the eBPF modes.
    pub ebpf: Vec<String>,
    /// Those that are missing for fanotify mode.
    pub fanotify: Vec<String>,
    /// Bytes that may be locked, now and at most; `None` for no limit.
    pub memlock: (Option<u64>, Option<u64>),
}

/// Asks the kernel. To be called before anything is given up.
pub fn gather() -> Facts {
    let missing = |with_ebpf| {
        let checked = capability::check(with_ebpf);
        checked
            .err()
            .map(|missing| missing.names().to_vec())
            .unwrap_or_default()
    };
    let limit = |bytes: u64| (bytes != RLIM_INFINITY).then_some(bytes);
    Facts {
        user: nix::unistd::geteuid().as_raw(),
        ebpf: missing(true),
        fanotify: missing(false),
        memlock: getrlimit(Resource::RLIMIT_MEMLOCK).map_or((None, None), |(soft, hard)| (limit(soft), limit(hard))),
    }
}

/// What is to be said of it.
pub fn findings(facts: &Facts, kernel: &kernel::Facts) -> Vec<Finding> {
    const RIGHTS: Subject = Subject::Rights;
    const NAME: &str = "capabilities";
    const SUDO: &str = "run it with sudo, or as a service with AmbientCapabilities=CAP_BPF CAP_PERFMON CAP_DAC_READ_SEARCH CAP_FOWNER CAP_SYS_PTRACE";
    let remedy = if facts.user == 0 {
        to_container(&facts.ebpf)
    } else {
        SUDO.to_owned()
    };
    let lacking = format!("{} missing for user {}", facts.ebpf.join(", "), facts.user);
    let capabilities = if facts.ebpf.is_empty() {
        RIGHTS.ok(NAME, format!("all that it takes, as user {}", facts.user))
    } else if facts.fanotify.is_empty() {
        RIGHTS.degraded(
            NAME,
            lacking,
            "every event mode but fanotify, which has to be asked for (--events fanotify)",
            &remedy,
        )
    } else {
        let lost = "it cannot be seen who reads what, and whatever below needs root is told as missing, too";
        RIGHTS.missing(NAME, lacking, lost, &remedy).essential()
    };
    vec![capabilities, memlock(facts.memlock, kernel.version)]
}

/// Who is root already and lacks something is in a container, or in a service that was given less: sudo gives no more there.
fn to_container(missing: &[String]) -> String {
    let short: Vec<&str> = missing
        .iter()
        .map(|name| name.strip_prefix("CAP_").unwrap_or(name))
        .collect();
    format!(
        "give the container the capabilities {} (Docker: --cap-add; Kubernetes: securityContext.capabilities.add), or the service that it runs in",
        short.join(", ")
    )
}

fn memlock(limits: (Option<u64>, Option<u64>), version: (u32, u32)) -> Finding {
    let words = |limit: Option<u64>| limit.map_or("no limit".to_owned(), |bytes| ByteCount(bytes).to_string());
    let value = format!("{}, at most {}", words(limits.0), words(limits.1));
    match limits.0 {
        // Since 5.11 maps are charged to the memory cgroup.
        Some(bytes) if bytes < MAPS && ((1, 0)..(5, 11)).contains(&version) => Subject::Rights.degraded(
            "locked memory",
            value,
            "the maps of the eBPF programs do not fit, and with them every mode but fanotify",
            "ulimit -l unlimited; for a service, LimitMEMLOCK=infinity",
        ),
        _ => Subject::Rights.ok("locked memory", format!("{value}; the agent locks none")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::State;

    #[test]
    fn a_limit_on_locked_memory_matters_before_5_11_alone() {
        let state = |soft, version| memlock((soft, None), version).state;
        assert_eq!(state(Some(64 << 10), (5, 10)), State::Degraded);
        assert_eq!(state(Some(64 << 10), (5, 11)), State::Ok);
        assert_eq!(state(Some(64 << 10), (0, 0)), State::Ok, "not known");
        assert_eq!(state(None, (4, 19)), State::Ok);
    }
}
