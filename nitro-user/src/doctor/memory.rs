//! Memory: how much there is, and who takes pages out of the page cache.
//!
//! In: a machine's files. Out: facts and findings. The agent keeps nothing in memory itself: what it warms is in the page cache, and stays there as long as the kernel lets it.

use super::{
    finding::{Finding, Subject},
    kernel,
    machine::Machine,
};
use crate::{
    sys::power,
    units::{ByteCount, Size},
};

/// Whether DAMON reclaims by itself.
const RECLAIM: &str = "/sys/module/damon_reclaim/parameters/enabled";

/// Files of the kernel that are looked through for each kind of DAMON.
const MOST_OF_A_KIND: usize = 16;

/// What a machine tells of its memory.
#[derive(Debug)]
pub struct Facts {
    /// `MemTotal` in bytes; 0 where it is not told.
    pub total: u64,
    /// The line of `/proc/pressure/memory`; `None` where there is none.
    pub pressure: Option<String>,
    /// Word of `lru_gen/enabled`; `None` where it is not built in.
    pub generations: Option<String>,
    /// Who reclaims what looks unused: the module, or a scheme of an administrator's; `None` where we may not look.
    pub reclaimers: Option<Vec<String>>,
    /// How shared memory gets huge pages; `None` where there are none.
    pub huge: Option<String>,
    /// It runs on its battery.
    pub on_battery: bool,
}

/// Looks at a machine.
pub fn gather(machine: &Machine) -> Facts {
    let meminfo = machine.text("/proc/meminfo").unwrap_or_default();
    Facts {
        total: kib_of(&meminfo, "MemTotal:").unwrap_or(0),
        pressure: machine.word("/proc/pressure/memory").filter(|line| !line.is_empty()),
        generations: machine.word("/sys/kernel/mm/lru_gen/enabled"),
        reclaimers: reclaimers(machine),
        huge: machine.chosen("/sys/kernel/mm/transparent_hugepage/shmem_enabled"),
        on_battery: power::on_battery(&machine.path(power::SUPPLIES)),
    }
}

/// A line of `/proc/meminfo`, in bytes.
pub fn kib_of(meminfo: &str, name: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim()
        .strip_suffix("kB")?
        .trim()
        .parse::<u64>()
        .ok()?
        .checked_mul(1024)
}

/// Everything of DAMON that takes pages: Documentation/admin-guide/mm/damon.
fn reclaimers(machine: &Machine) -> Option<Vec<String>> {
    let mut found = Vec::new();
    if machine.word(RECLAIM).is_some_and(|on| on == "Y") {
        found.push("DAMON_RECLAIM".to_owned());
    }
    let below = |directory: &str| {
        let numbered = machine.names(directory, |name| name.parse::<u32>().is_ok());
        let paths = numbered.into_iter().map(|name| format!("{directory}/{name}"));
        paths.take(MOST_OF_A_KIND).collect::<Vec<_>>()
    };
    for daemon in below("/sys/kernel/mm/damon/admin/kdamonds") {
        if machine.word(format!("{daemon}/state"))? != "on" {
            continue;
        }
        let contexts = below(&format!("{daemon}/contexts"));
        let schemes = contexts.iter().flat_map(|context| below(&format!("{context}/schemes")));
        let pages_out = |scheme: &String| machine.word(format!("{scheme}/action")).as_deref() == Some("pageout");
        found.extend(schemes.filter(pages_out));
    }
    Some(found)
}

/// What is to be said of it.
pub fn findings(facts: &Facts, kernel: &kernel::Facts) -> Vec<Finding> {
    const MEMORY: Subject = Subject::Memory;
    let total = ByteCount(facts.total);
    let mut all = vec![match facts.total {
        0 => MEMORY.degraded(
            "memory",
            "not to be read in /proc/meminfo",
            "a percentage for --memory, the default, means nothing",
            "mount /proc, or give --memory in bytes",
        ),
        _ => MEMORY.ok(
            "memory",
            format!(
                "{total}, of which --memory 50%, the default, is {}",
                Size::Percent(50.0).of(total)
            ),
        ),
    }];
    all.push(match &facts.pressure {
        Some(line) => MEMORY.ok("pressure (PSI)", line),
        None => {
            let built = kernel.config.as_ref().map(|config| config.has("PSI"));
            let remedy = match built {
                Some(true) => "boot with psi=1: this kernel has it, switched off",
                Some(false) => "use a kernel built with CONFIG_PSI",
                None => "boot with psi=1, or use a kernel built with CONFIG_PSI",
            };
            let lost = "nothing in this version, which notices pressure by the pages that the kernel takes away";
            MEMORY
                .missing("pressure (PSI)", "no /proc/pressure/memory", lost, remedy)
                .aside()
        }
    });
    all.push(match facts.generations.as_deref() {
        None => MEMORY.info(
            "page reclaim",
            "two lists of pages: the multi-generational LRU is not built in",
        ),
        Some("0x0000" | "0" | "n") => {
            MEMORY.info("page reclaim", "two lists of pages: the multi-generational LRU is off")
        }
        Some(parts) => MEMORY.info("page reclaim", format!("multi-generational LRU ({parts})")),
    });
    all.push(proactive(facts.reclaimers.as_deref()));
    all.push(match facts.huge.as_deref() {
        Some("deny") | None => MEMORY
            .missing(
                "huge pages in tmpfs",
                facts.huge.as_deref().map_or("not built in", |_| "denied"),
                "nothing in this version, which keeps no copies in memory",
                if facts.huge.is_some() {
                    "echo never > /sys/kernel/mm/transparent_hugepage/shmem_enabled, which leaves it to each mount"
                } else {
                    "use a kernel built with CONFIG_TRANSPARENT_HUGEPAGE"
                },
            )
            .aside(),
        Some(word) => MEMORY.ok(
            "huge pages in tmpfs",
            format!("as each mount asks for (huge=); shared memory without a mount: {word}"),
        ),
    });
    if facts.on_battery {
        all.push(MEMORY.info(
            "power",
            "on battery: only readers that were seen to read are helped, nothing is brought in before",
        ));
    }
    all
}

/// DAMON, and how each part of it is stopped.
fn proactive(reclaimers: Option<&[String]>) -> Finding {
    const NAME: &str = "proactive reclaim";
    let Some(reclaimers) = reclaimers else {
        return Subject::Memory.info(NAME, "there is DAMON, and only root may see what it does");
    };
    if reclaimers.is_empty() {
        return Subject::Memory.ok(NAME, "DAMON takes no pages");
    }
    let off = |reclaimer: &String| match reclaimer.split_once("/contexts") {
        Some((daemon, _)) => format!("echo off > {daemon}/state"),
        None => format!("echo N > {RECLAIM}"),
    };
    let mut commands: Vec<String> = reclaimers.iter().map(off).collect();
    commands.dedup();
    Subject::Memory.degraded(
        NAME,
        format!("DAMON takes pages that look unused: {}", reclaimers.join(", ")),
        "warmed pages that nobody has touched for a while go though there may be memory free, as its own settings (age, quota, watermarks) say, and are read from the device again",
        &format!("{}, as far as cached models matter more", commands.join("; ")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_meminfo_is_in_bytes() {
        let meminfo =
            "MemTotal:       24684100 kB\nMemFree: 12 kB\nHugePages_Total:       0\nBig: 99999999999999999999 kB\n";
        assert_eq!(kib_of(meminfo, "MemTotal:"), Some(24_684_100 << 10));
        assert_eq!(kib_of(meminfo, "HugePages_Total:"), None);
        assert_eq!(kib_of(meminfo, "Big:"), None);
    }
}
