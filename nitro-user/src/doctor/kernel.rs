//! The kernel: its release, what it was built with, and what the event modes need of it.
//!
//! In: a machine's files, and whether `cachestat` answers. Out: facts that other subjects ask, too, and findings.

use std::{io::Read, path::PathBuf};

use super::{
    finding::{Finding, Subject},
    machine::Machine,
};
use crate::source::{
    attach::EventMode,
    tracefs::{self, NoTracefs},
};

/// Longest configuration that is unpacked: the largest of distributions are a quarter of a megabyte.
const MOST_CONFIG: u64 = 4 << 20;

/// What a kernel tells of itself.
#[derive(Debug)]
pub struct Facts {
    /// `6.18.44`; empty where it is not told.
    pub release: String,
    /// Its first two numbers; zeros where there are none.
    pub version: (u32, u32),
    /// `x86_64`.
    pub architecture: &'static str,
    /// Bytes of its types, or why there are none.
    pub btf: Result<u64, String>,
    /// Where tracefs is.
    pub tracefs: Result<PathBuf, NoTracefs>,
    /// Whether programs are compiled; `None` where it is not told.
    pub jit: Option<bool>,
    /// `none`, `integrity`, `confidentiality`; `None` where there is no lockdown.
    pub lockdown: Option<String>,
    /// Whether `cachestat` answers.
    pub cachestat: bool,
    /// What it was built with.
    pub config: Option<Config>,
}

/// What a kernel was built with.
#[derive(Debug, PartialEq, Eq)]
pub struct Config(String);

impl Config {
    /// Whether an option is built in or a module; the name is without `CONFIG_`.
    pub fn has(&self, option: &str) -> bool {
        self.0.lines().any(|line| {
            let value = line
                .strip_prefix("CONFIG_")
                .and_then(|line| line.strip_prefix(option)?.strip_prefix('='));
            matches!(value, Some("y" | "m"))
        })
    }
}

/// Looks at a machine.
pub fn gather(machine: &Machine, cachestat: bool) -> Facts {
    let release = machine.word("/proc/sys/kernel/osrelease").unwrap_or_default();
    Facts {
        version: version(&release),
        architecture: machine.architecture,
        btf: btf(machine),
        tracefs: tracefs::find_below(&machine.path("/")),
        jit: machine.number("/proc/sys/net/core/bpf_jit_enable").map(|on| on > 0),
        lockdown: machine.chosen("/sys/kernel/security/lockdown"),
        cachestat,
        config: config(machine, &release),
        release,
    }
}

fn version(release: &str) -> (u32, u32) {
    let mut parts = release.split(|letter: char| !letter.is_ascii_digit());
    let mut number = || parts.next()?.parse().ok();
    match number() {
        Some(major) => (major, number().unwrap_or(0)),
        None => (0, 0),
    }
}

/// Looks at the beginning of the kernel's types alone; whether they are of use, the event modes show.
fn btf(machine: &Machine) -> Result<u64, String> {
    const PLACE: &str = "/sys/kernel/btf/vmlinux";
    const MAGIC: [[u8; 2]; 2] = [[0x9f, 0xeb], [0xeb, 0x9f]];
    let place = machine.path(PLACE);
    let found = std::fs::metadata(&place).map_err(|error| format!("{PLACE}: {error}"))?;
    match machine.bytes(PLACE, 2) {
        Some(bytes) if MAGIC.iter().any(|magic| bytes == magic) => Ok(found.len()),
        Some(_) => Err(format!("{PLACE} holds something else")),
        None => Err(format!("{PLACE} cannot be read")),
    }
}

/// The configuration, from where kernels and distributions keep it.
fn config(machine: &Machine, release: &str) -> Option<Config> {
    if let Some(packed) = machine.bytes("/proc/config.gz", 1 << 20) {
        let (mut bytes, unpacked) = (Vec::new(), flate2::read::GzDecoder::new(packed.as_slice()));
        unpacked.take(MOST_CONFIG).read_to_end(&mut bytes).ok()?;
        return Some(Config(String::from_utf8_lossy(&bytes).into_owned()));
    }
    // A release is no path; whoever names a kernel `../x` is not followed.
    let places = [
        format!("/boot/config-{release}"),
        format!("/lib/modules/{release}/config"),
    ];
    let mut places = places.iter().filter(|_| !release.is_empty() && !release.contains('/'));
    let bytes = places.find_map(|place| machine.bytes(place, MOST_CONFIG as usize))?;
    Some(Config(String::from_utf8_lossy(&bytes).into_owned()))
}

/// What is to be said of it; `mode` is the event mode that `auto` takes.
pub fn findings(facts: &Facts, mode: Option<EventMode>) -> Vec<Finding> {
    const KERNEL: Subject = Subject::Kernel;
    const NEEDS: &str = "every event mode but fanotify: the eBPF programs cannot know the kernel's structures";
    let Facts {
        release, architecture, ..
    } = facts;
    let mut all = vec![match facts.version {
        (0, 0) => KERNEL.degraded(
            "release",
            "not to be read in /proc/sys/kernel/osrelease",
            "what this kernel can do is known only as far as it was tried",
            "mount /proc",
        ),
        (6, 12..) | (7.., _) => KERNEL.ok("release", release),
        (6, 1..) => KERNEL.ok(
            "release",
            format!("{release}; page-cache mode, the cheapest, came with 6.12"),
        ),
        _ => KERNEL.degraded(
            "release",
            format!("{release}, older than 6.1"),
            "nobody has tried the agent on it: event modes may be missing, and warming is slower",
            "use Linux 6.12 or later, 6.1 at least",
        ),
    }];
    all.push(match *architecture {
        "x86_64" => KERNEL.ok("processor", *architecture),
        other => KERNEL.degraded(
            "processor",
            other,
            "the agent is built and tested on x86-64 alone",
            "run its tests (`cargo xtask test`) on this machine before you rely on it",
        ),
    });
    all.push(match &facts.btf {
        Ok(bytes) => KERNEL.ok("BTF", format!("{} of types", crate::units::ByteCount(*bytes))),
        Err(why) => KERNEL.missing(
            "BTF",
            why,
            NEEDS,
            "use a kernel built with CONFIG_DEBUG_INFO_BTF (every distribution's is, since 2021)",
        ),
    });
    all.push(of_tracefs(facts, mode));
    match facts.jit {
        Some(true) => all.push(KERNEL.ok("eBPF compiler", "on")),
        Some(false) => all.push(KERNEL.degraded(
            "eBPF compiler",
            "off",
            "programs are interpreted, which every buffered read pays for, and fentry mode is refused",
            "sysctl net.core.bpf_jit_enable=1",
        )),
        None => {}
    }
    match facts.lockdown.as_deref() {
        Some("confidentiality") => all.push(KERNEL.missing(
            "lockdown",
            "confidentiality: programs may not look into the kernel",
            "every event mode but fanotify",
            "boot with lockdown=integrity, or without the parameter",
        )),
        Some(level) => all.push(KERNEL.ok("lockdown", level)),
        None => {}
    }
    all.push(if facts.cachestat {
        KERNEL.ok("cachestat", "answers")
    } else {
        KERNEL.degraded(
            "cachestat",
            "not there: it came with Linux 6.5, and sandboxes may refuse it",
            super::NO_CHAIN,
            "use Linux 6.5 or later, and let the sandbox allow the system call",
        )
    });
    all
}

/// Only syscalls mode needs it.
fn of_tracefs(facts: &Facts, mode: Option<EventMode>) -> Finding {
    const NAME: &str = "tracefs";
    let lost = match mode {
        Some(mode @ (EventMode::PageCache | EventMode::Fentry)) => {
            format!("nothing here: syscalls mode alone needs it, and {mode} mode goes before that")
        }
        _ => "syscalls mode, and with it all that fanotify mode cannot see".to_owned(),
    };
    let found = match &facts.tracefs {
        Ok(place) => return Subject::Kernel.ok(NAME, place.to_string_lossy()),
        Err(NoTracefs::NotMounted) => Subject::Kernel.missing(NAME, "not mounted", &lost, tracefs::REMEDY),
        Err(NoTracefs::Refused(place, error)) => Subject::Kernel.missing(
            NAME,
            format!("/{place}: {error}"),
            &lost,
            "run the doctor with sudo, so that it can look",
        ),
    };
    match mode {
        Some(EventMode::PageCache | EventMode::Fentry) => found.aside(),
        _ => found,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_begins_with_two_numbers() {
        for (release, numbers) in [
            ("6.18.44-fc", (6, 18)),
            ("5.15.167.4-microsoft-standard-WSL2", (5, 15)),
            ("6.1", (6, 1)),
            ("rubbish", (0, 0)),
            ("99999999999999999999.1", (0, 0)),
            ("", (0, 0)),
        ] {
            assert_eq!(version(release), numbers, "{release}");
        }
    }

    #[test]
    fn an_option_is_known_by_its_whole_name() {
        let config = Config("CONFIG_PSI=y\nCONFIG_FUSE_FS=m\n# CONFIG_LRU_GEN is not set\nCONFIG_HZ=250\n".into());
        assert!(config.has("PSI") && config.has("FUSE_FS"));
        for option in ["LRU_GEN", "FUSE", "HZ", "PSI_DEFAULT_DISABLED", ""] {
            assert!(!config.has(option), "{option}");
        }
    }

    #[test]
    fn a_configuration_that_unpacks_to_gigabytes_is_cut() {
        use std::io::Write;
        let tree = tempfile::tempdir().unwrap();
        std::fs::create_dir(tree.path().join("proc")).unwrap();
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        for _ in 0..64 {
            packed.write_all(&vec![b'\n'; 1 << 20]).unwrap();
        }
        std::fs::write(tree.path().join("proc/config.gz"), packed.finish().unwrap()).unwrap();
        let config = config(&Machine::at(tree.path()), "6.1").unwrap();
        assert_eq!(config.0.len() as u64, MOST_CONFIG);
        // And one that is none is none.
        std::fs::write(tree.path().join("proc/config.gz"), "rubbish").unwrap();
        assert_eq!(super::config(&Machine::at(tree.path()), "6.1"), None);
    }
}
