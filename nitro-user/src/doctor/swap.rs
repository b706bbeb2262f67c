//! Swap areas, zram and zswap, and how large an area the kernel will use.
//!
//! In: a machine's files. Out: facts and findings. The agent itself swaps nothing; with swap the kernel has something else to take than cached models.

use std::path::Path;

use super::{
    finding::{Finding, Subject},
    machine::Machine,
};
use crate::{
    sys::mounts::{Mounts, unescape},
    units::ByteCount,
};

/// Areas and zram devices that are told.
const MOST: usize = 32;

/// Pages that an area can have by its header, whose `last_page` has 32 bits, and by `swap_info_struct.max`, an `unsigned int` (mm/swapfile.c).
const MOST_PAGES: u64 = u32::MAX as u64;

/// Bits for the place in an area that a page table entry has room for, whichever the processor: x86-64 and arm64 have 50.
const OFFSET_BITS: u32 = 50;

/// An area in use, a line of `/proc/swaps`.
#[derive(Debug, PartialEq, Eq)]
pub struct Area {
    /// Its file.
    pub name: String,
    /// `partition` or `file`.
    pub kind: String,
    /// Bytes that are used for swapping.
    pub size: u64,
    /// Bytes swapped out.
    pub used: u64,
    /// The higher, the sooner.
    pub priority: i64,
    /// Bytes of the device or file; `None` where that is not told.
    pub whole: Option<u64>,
}

/// A compressed block device in memory.
#[derive(Debug)]
pub struct Zram {
    name: String,
    /// Bytes before compression; 0 when it is not set up.
    size: u64,
    /// Bytes of memory that it may take; 0 for no limit.
    limit: u64,
    algorithm: Option<String>,
}

/// What a machine tells of its swap.
#[derive(Debug)]
pub struct Facts {
    /// Areas in use; `None` where the kernel has no swap.
    pub areas: Option<Vec<Area>>,
    /// All zram devices.
    pub zram: Vec<Zram>,
    /// Largest part of memory, in percent, that zswap takes, and how it compresses; `None` when it is off.
    pub zswap: Option<(u64, String)>,
    /// The largest area that will be used, in bytes.
    pub largest: u64,
    /// Why it is no larger.
    pub why: String,
}

/// Looks at a machine.
pub fn gather(machine: &Machine) -> Facts {
    let mounts = machine.mounts();
    let areas = machine.text("/proc/swaps").map(|table| {
        let areas = table.lines().skip(1).filter_map(|line| area(machine, &mounts, line));
        areas.take(MOST).collect()
    });
    let zram = machine.names("/sys/block", |name| name.starts_with("zram"));
    let zram = zram.into_iter().take(MOST).map(|name| {
        let place = format!("/sys/block/{name}");
        // The fourth number of mm_stat, in bytes: Documentation/admin-guide/blockdev/zram.rst.
        let stat = machine.word(format!("{place}/mm_stat")).unwrap_or_default();
        Zram {
            size: machine.number(format!("{place}/disksize")).unwrap_or(0),
            limit: stat
                .split_whitespace()
                .nth(3)
                .and_then(|limit| limit.parse().ok())
                .unwrap_or(0),
            algorithm: machine.chosen(format!("{place}/comp_algorithm")),
            name,
        }
    });
    let zswap = "/sys/module/zswap/parameters";
    let on = machine.word(format!("{zswap}/enabled")).is_some_and(|on| on == "Y");
    let (largest, why) = largest(machine);
    Facts {
        areas,
        zram: zram.collect(),
        zswap: on.then(|| {
            (
                machine.number(format!("{zswap}/max_pool_percent")).unwrap_or(0),
                machine.word(format!("{zswap}/compressor")).unwrap_or_default(),
            )
        }),
        largest,
        why,
    }
}

/// `/dev/sda2  partition  8388604  0  -2`, the name escaped as in a mount table.
fn area(machine: &Machine, mounts: &Mounts, line: &str) -> Option<Area> {
    let mut fields = line.split_whitespace().rev();
    let priority = fields.next()?.parse().ok()?;
    let used = fields.next()?.parse::<u64>().ok()?.checked_mul(1024)?;
    let size = fields.next()?.parse::<u64>().ok()?.checked_mul(1024)?;
    let kind = fields.next()?.to_owned();
    let name = unescape(fields.next()?.as_bytes());
    let whole = match kind.as_str() {
        "partition" => {
            let name = Path::new(&name).file_name()?.to_string_lossy().into_owned();
            let sectors = machine.number(format!("/sys/class/block/{name}/size"));
            sectors.and_then(|sectors| sectors.checked_mul(512))
        }
        // One on a server is not asked how long it is.
        _ => {
            let place = machine.walk(Path::new("/"), mounts, Path::new(&name)).ok();
            let file = place.and_then(|place| std::fs::symlink_metadata(machine.path(place.path)).ok());
            file.map(|file| file.len())
        }
    };
    Some(Area {
        name: name.to_string_lossy().into_owned(),
        kind,
        size,
        used,
        priority,
        whole,
    })
}

/// The largest area that the kernel will use, as `arch_max_swapfile_size` and `read_swap_header` reckon, and why it is no larger. Of what is longer it uses the beginning and
/// says so in its log (`Truncating oversized swap area`).
fn largest(machine: &Machine) -> (u64, String) {
    let by_entry = 1u64 << OFFSET_BITS;
    let header = MOST_PAGES.min(by_entry);
    match half_of_the_addresses(machine) {
        Some((pages, bits)) if pages < header => (
            pages.saturating_mul(machine.page),
            format!("the L1TF mitigation keeps swap entries below half of the processor's {bits} address bits"),
        ),
        _ => (
            header.saturating_mul(machine.page),
            format!(
                "the header of an area counts pages of {} in 32 bits",
                ByteCount(machine.page)
            ),
        ),
    }
}

/// Pages that the mitigation of L1TF leaves on an x86-64 processor that needs it, and the address bits that are reckoned with; `None` where it limits nothing.
fn half_of_the_addresses(machine: &Machine) -> Option<(u64, u32)> {
    /// Model numbers of family 6, Nehalem to Kaby Lake, whose caches have more address bits than they report: the kernel reckons with 44 at least.
    const MORE_BITS: [u64; 13] = [
        0x1e, 0x25, 0x2a, 0x3a, 0x3c, 0x45, 0x46, 0x3d, 0x47, 0x4e, 0x5e, 0x8e, 0x9e,
    ];
    if machine.architecture != "x86_64" {
        return None;
    }
    let state = machine.word("/sys/devices/system/cpu/vulnerabilities/l1tf")?;
    let line = machine.word("/proc/cmdline").unwrap_or_default();
    let is_off = line
        .split_whitespace()
        .any(|word| matches!(word, "l1tf=off" | "mitigations=off"));
    if state == "Not affected" || is_off {
        return None;
    }
    let processors = machine.text("/proc/cpuinfo")?;
    let field = |name: &str| {
        processors.lines().find_map(|line| {
            let (field, value) = line.split_once(':')?;
            (field.trim() == name).then(|| value.trim().to_owned())
        })
    };
    let mut bits: u32 = field("address sizes")?.split_whitespace().next()?.parse().ok()?;
    let number = |name: &str| field(name).and_then(|value| value.parse::<u64>().ok());
    if number("cpu family") == Some(6) && number("model").is_some_and(|model| MORE_BITS.contains(&model)) {
        bits = bits.max(44);
    }
    // Half of the addresses in pages; entries hold the place three bits further down than a page's number.
    let shift = bits
        .checked_sub(1)?
        .checked_add(3)?
        .checked_sub(machine.page.trailing_zeros())?;
    Some((1u64.checked_shl(shift)?, bits))
}

/// What is to be said of it.
pub fn findings(facts: &Facts) -> Vec<Finding> {
    const SWAP: Subject = Subject::Swap;
    let mut all = Vec::new();
    match facts.areas.as_deref() {
        None => all.push(SWAP.info("areas", "this kernel has no swap")),
        Some([]) => all.push(SWAP.info(
            "areas",
            "none: under pressure the kernel has little to take but cached files, models among them",
        )),
        Some(areas) => all.extend(areas.iter().map(|area| of_area(area, facts.largest))),
    }
    if facts.areas.is_some() {
        all.push(SWAP.info("largest area", format!("{}: {}", ByteCount(facts.largest), facts.why)));
    }
    all.extend(facts.zram.iter().map(of_zram));
    if let Some((percent, compressor)) = &facts.zswap {
        all.push(SWAP.info(
            "zswap",
            format!("on: up to {percent} % of memory, compressed with {compressor}"),
        ));
    }
    all
}

fn of_area(area: &Area, largest: u64) -> Finding {
    let words = format!(
        "{} of {}, {} used, priority {}",
        area.kind,
        ByteCount(area.size),
        ByteCount(area.used),
        area.priority
    );
    match area.whole {
        Some(whole) if whole > largest => Subject::Swap
            .degraded(
                &area.name,
                format!("{words}; it is {} long", ByteCount(whole)),
                "what is beyond the largest area that the kernel uses; nothing of the agent's",
                "divide it into several areas",
            )
            .aside(),
        _ => Subject::Swap.info(&area.name, words),
    }
}

fn of_zram(zram: &Zram) -> Finding {
    let algorithm = zram.algorithm.as_deref().unwrap_or("?");
    match zram.size {
        0 => Subject::Swap.info(&zram.name, "not set up"),
        size => {
            let limit = match zram.limit {
                0 => "no limit on the memory it takes".to_owned(),
                limit => format!("{} of memory at most", ByteCount(limit)),
            };
            Subject::Swap.info(
                &zram.name,
                format!("{} before compression with {algorithm}, {limit}", ByteCount(size)),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::doctor::finding::State;

    fn machine(l1tf: &str, cpuinfo: &str, cmdline: &str) -> (tempfile::TempDir, Machine) {
        let tree = tempfile::tempdir().unwrap();
        let vulnerabilities = tree.path().join("sys/devices/system/cpu/vulnerabilities");
        fs::create_dir_all(&vulnerabilities).unwrap();
        fs::create_dir(tree.path().join("proc")).unwrap();
        fs::write(vulnerabilities.join("l1tf"), l1tf).unwrap();
        fs::write(tree.path().join("proc/cpuinfo"), cpuinfo).unwrap();
        fs::write(tree.path().join("proc/cmdline"), cmdline).unwrap();
        let machine = Machine {
            architecture: "x86_64",
            page: 4096,
            ..Machine::at(tree.path())
        };
        (tree, machine)
    }

    const CORE_2: &str = "cpu family\t: 6\nmodel\t\t: 23\naddress sizes\t: 36 bits physical, 48 bits virtual\n";
    const SKYLAKE: &str = "cpu family\t: 6\nmodel\t\t: 94\naddress sizes\t: 39 bits physical, 48 bits virtual\n";
    const MITIGATED: &str = "Mitigation: PTE Inversion\n";

    #[test]
    fn the_header_limits_an_area_to_four_billion_pages() {
        let (_tree, machine) = machine("Not affected\n", CORE_2, "");
        let (bytes, why) = largest(&machine);
        assert_eq!(bytes, u64::from(u32::MAX) * 4096);
        assert_eq!(ByteCount(bytes).to_string(), "16.0 TiB");
        assert!(why.contains("32 bits"), "{why}");
    }

    #[test]
    fn the_mitigation_of_l1tf_limits_processors_with_few_address_bits() {
        let (_tree, core) = machine(MITIGATED, CORE_2, "quiet");
        assert_eq!(largest(&core).0, 256 << 30);
        assert!(largest(&core).1.contains("36 address bits"));
        // The kernel reckons with 44 bits there: 64 TiB, which the header does not reach.
        let (_tree, skylake) = machine(MITIGATED, SKYLAKE, "quiet");
        assert_eq!(half_of_the_addresses(&skylake), Some((1 << 34, 44)));
        assert!(largest(&skylake).1.contains("header"));
        let (_tree, off) = machine(MITIGATED, CORE_2, "quiet l1tf=off");
        assert!(largest(&off).1.contains("header"));
        let (_tree, arm) = machine(MITIGATED, CORE_2, "");
        let arm = Machine {
            architecture: "aarch64",
            page: 65_536,
            ..arm
        };
        assert_eq!(largest(&arm).0, u64::from(u32::MAX) * 65_536);
    }

    #[test]
    fn rubbish_limits_nothing_and_breaks_nothing() {
        for cpuinfo in [
            "",
            "address sizes\t: 0 bits",
            "address sizes : 4000000000 bits",
            "address sizes: 64 bits",
        ] {
            let (_tree, machine) = machine(MITIGATED, cpuinfo, "");
            assert!(largest(&machine).0 >= u64::from(u32::MAX) * 4096, "{cpuinfo}");
        }
    }

    #[test]
    fn an_area_that_is_longer_than_the_kernel_uses_is_told() {
        let area = |whole| Area {
            name: "/dev/sda2".into(),
            kind: "partition".into(),
            size: 256 << 30,
            used: 0,
            priority: -2,
            whole,
        };
        assert_eq!(of_area(&area(Some(256 << 30)), 256 << 30).state, State::Info);
        assert_eq!(of_area(&area(Some(512 << 30)), 256 << 30).state, State::Degraded);
        assert_eq!(of_area(&area(None), 256 << 30).state, State::Info);
    }

    #[test]
    fn a_line_of_swaps_is_read_from_its_end() {
        let tree = tempfile::tempdir().unwrap();
        let machine = Machine::at(tree.path());
        let mounts = Mounts::default();
        let found = area(&machine, &mounts, "/swap\\040file\t\tfile\t\t2097148\t\t1024\t\t-2").unwrap();
        assert_eq!(found.name, "/swap file");
        assert_eq!((found.size, found.used, found.priority), (2_097_148 << 10, 1 << 20, -2));
        for rubbish in ["", "x", "a file b c d", "a file 99999999999999999999 1 1"] {
            assert_eq!(area(&machine, &mounts, rubbish), None, "{rubbish}");
        }
    }
    #[test]
    fn an_area_on_a_server_is_not_asked_how_long_it_is() {
        let tree = tempfile::tempdir().unwrap();
        let machine = Machine::at(tree.path());
        fs::create_dir(tree.path().join("net")).unwrap();
        for file in ["swap", "net/swap"] {
            fs::write(tree.path().join(file), "x").unwrap();
        }
        let table = b"1 0 8:1 / / rw - ext4 a rw\n2 1 0:9 / /net rw - nfs4 server:/ rw\n";
        let mounts = Mounts::parse(table);
        let whole = |name: &str| area(&machine, &mounts, &format!("{name} file 4 0 -2")).unwrap().whole;
        assert_eq!((whole("/swap"), whole("/net/swap")), (Some(1), None));
    }
}
