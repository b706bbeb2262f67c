//! The devices of the watched directories: how much the kernel reads ahead, how large requests may be, who orders them. And how many loop devices there can be.
//!
//! In: a machine's files, and mounts. Out: facts and findings.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use super::{
    finding::{Finding, Subject},
    machine::Machine,
};
use crate::{discover::judge, sys::mounts::Mount};

/// Disks below a device of several that are told.
const MOST_DISKS: usize = 16;

/// Devices on devices that are followed: encryption on a volume on an array, and some to spare.
const MOST_LAYERS: usize = 6;

/// The largest readahead with which the chain is used, in KiB: see `warm::chain`.
const CHAIN_KIB: u64 = 1024;

/// What a driver without a limit of its own says, or more.
const NO_LIMIT_KIB: u64 = i32::MAX as u64 / 1024;

/// A page: less is nothing.
const LEAST_KIB: u64 = 4;

/// What the kernel reads ahead unless it is told otherwise, in KiB.
const USUAL_KIB: u64 = 128;

/// A device that holds watched files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Major and minor number of the file system.
    pub number: (u32, u32),
    /// Its type.
    pub kind: String,
    /// The number is that of the block device, so that the agent knows its queue.
    pub is_block: bool,
    /// `nvme0n1p2`; `None` where there is no block device.
    pub name: Option<String>,
    /// What the kernel reads ahead by itself, in KiB, and the file that says so.
    pub read_ahead: Option<(u64, PathBuf)>,
    /// The largest request, in KiB, the largest that the hardware takes, and the file of the first.
    pub request: Option<(u64, Option<u64>, PathBuf)>,
    /// Numbers by which control groups know it and what is below it: `8:0`.
    pub numbers: BTreeSet<String>,
    /// The disks that do the work: a device of several has the same name as its own only where it is one.
    pub disks: Vec<Disk>,
}

/// A disk at the bottom.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Disk {
    /// `sda`.
    pub name: String,
    /// Who orders requests: `none`, `mq-deadline`, `bfq`, `kyber`.
    pub scheduler: Option<String>,
    /// It has a head that moves.
    pub rotational: Option<bool>,
}

/// How many loop devices there are and can be.
#[derive(Debug)]
pub struct Loops {
    /// `/dev/loop-control`, which makes more, is there.
    pub control: bool,
    /// The kernel has the driver.
    pub driver: bool,
    /// Devices that are there from the start.
    pub from_the_start: Option<u64>,
    /// Devices in use.
    pub in_use: usize,
}

/// The device of a mount.
pub fn gather(machine: &Machine, mount: &Mount) -> Device {
    let number = (mount.device >> 20, mount.device & 0xf_ffff);
    let numbered = format!("/sys/dev/block/{}:{}", number.0, number.1);
    // File systems that may be on several devices have a number of their own, and name one of theirs as their source.
    let is_block = machine.has(&numbered);
    let kind = mount.kind.clone();
    let block = if is_block {
        Some(PathBuf::from(numbered))
    } else {
        of_source(machine, mount)
    };
    let Some(block) = block else {
        let bdi = PathBuf::from(format!("/sys/class/bdi/{}:{}/read_ahead_kb", number.0, number.1));
        return Device {
            number,
            kind,
            is_block,
            name: None,
            read_ahead: machine.number(&bdi).map(|kib| (kib, bdi)),
            request: None,
            numbers: BTreeSet::new(),
            disks: Vec::new(),
        };
    };
    let name = name_of(machine, &block);
    let queue = queue_of(machine, &block);
    let of_file_system = name.as_deref().and_then(|name| of_btrfs(machine, mount, name));
    let of_queue = || {
        let place = queue.join("read_ahead_kb");
        Some((machine.number(&place)?, place))
    };
    let limit = queue.join("max_sectors_kb");
    let (mut disks, mut numbers) = (BTreeSet::new(), BTreeSet::new());
    let whole = name_of_disk(machine, &block).or_else(|| name.clone());
    if let Some(whole) = whole {
        collect(machine, &whole, MOST_LAYERS, &mut disks, &mut numbers);
    }
    Device {
        number,
        kind,
        is_block,
        name,
        read_ahead: of_file_system.or_else(of_queue),
        request: machine
            .number(&limit)
            .map(|kib| (kib, machine.number(queue.join("max_hw_sectors_kb")), limit)),
        numbers,
        disks: disks.into_iter().collect(),
    }
}

/// The block device that a mount names as its source, which may be a link of the device mapper's. Whoever mounts a file system in user space writes there what he likes.
fn of_source(machine: &Machine, mount: &Mount) -> Option<PathBuf> {
    let source = &mount.source;
    let is_told = judge::foreign(&mount.kind).is_none() || mount.kind == "fuseblk";
    if !is_told || !source.starts_with("/dev") {
        return None;
    }
    let place = machine.walk(Path::new("/"), &machine.mounts(), source);
    let place = place.map_or_else(|_| source.clone(), |place| place.path);
    let block = Path::new("/sys/class/block").join(place.file_name()?);
    machine.has(&block).then_some(block)
}

/// What btrfs reads ahead: it has a queue of its own, known by one of its devices.
fn of_btrfs(machine: &Machine, mount: &Mount, name: &str) -> Option<(u64, PathBuf)> {
    const ALL: &str = "/sys/fs/btrfs";
    let all = if mount.kind == "btrfs" {
        machine.names(ALL, |_| true)
    } else {
        Vec::new()
    };
    all.iter().find_map(|one| {
        let one = Path::new(ALL).join(one);
        let place = one.join("bdi/read_ahead_kb");
        let is_it = machine.has(one.join("devices").join(name));
        is_it.then(|| Some((machine.number(&place)?, place)))?
    })
}

/// A partition's queue is that of its disk.
fn queue_of(machine: &Machine, block: &Path) -> PathBuf {
    let disk = name_of_disk(machine, block).or_else(|| name_of(machine, block));
    let own = || block.join("queue");
    disk.map_or_else(own, |disk| Path::new("/sys/block").join(disk).join("queue"))
}

fn name_of(machine: &Machine, block: &Path) -> Option<String> {
    let place = machine.path(block).canonicalize().ok()?;
    Some(place.file_name()?.to_string_lossy().into_owned())
}

/// The disk that a partition is of.
fn name_of_disk(machine: &Machine, partition: &Path) -> Option<String> {
    let place = machine.path(partition).canonicalize().ok()?;
    place.join("partition").exists().then(|| {
        let disk = place.parent()?.file_name()?;
        Some(disk.to_string_lossy().into_owned())
    })?
}

/// The disks below a block device: itself, where nothing is below. And the numbers of all on the way.
fn collect(machine: &Machine, name: &str, layers: usize, into: &mut BTreeSet<Disk>, numbers: &mut BTreeSet<String>) {
    let place = Path::new("/sys/class/block").join(name);
    numbers.extend(machine.word(place.join("dev")));
    let below = machine.names(place.join("slaves"), |_| true);
    if into.len() >= MOST_DISKS {
        return;
    }
    if layers > 0 && !below.is_empty() {
        for one in below {
            let disk = name_of_disk(machine, &Path::new("/sys/class/block").join(&one)).unwrap_or(one);
            collect(machine, &disk, layers - 1, into, numbers);
        }
        return;
    }
    let queue = Path::new("/sys/block").join(name).join("queue");
    into.insert(Disk {
        name: name.to_owned(),
        scheduler: machine.chosen(queue.join("scheduler")),
        rotational: machine.number(queue.join("rotational")).map(|turns| turns == 1),
    });
}

/// Looks at the machine's loop devices.
pub fn gather_loops(machine: &Machine) -> Loops {
    let is_used = |name: &str| name.starts_with("loop") && machine.has(format!("/sys/block/{name}/loop/backing_file"));
    Loops {
        control: machine.has("/dev/loop-control"),
        driver: machine.has("/sys/module/loop"),
        from_the_start: machine.number("/sys/module/loop/parameters/max_loop"),
        in_use: machine.names("/sys/block", is_used).len(),
    }
}

/// What is to be said of the devices, each once, and of loop devices.
pub fn findings(devices: &[Device], loops: &Loops, version: (u32, u32)) -> Vec<Finding> {
    let mut told: Vec<&Device> = Vec::new();
    let mut all = Vec::new();
    for device in devices {
        if !told.contains(&device) {
            told.push(device);
            all.extend(of_device(device));
        }
    }
    let disks: BTreeSet<&Disk> = devices.iter().flat_map(|device| &device.disks).collect();
    all.extend(disks.into_iter().map(|disk| of_disk(disk, version)));
    all.push(of_loops(loops));
    all
}

fn of_device(device: &Device) -> Vec<Finding> {
    let (major, minor) = device.number;
    let Some(name) = &device.name else {
        let ahead = device.read_ahead.as_ref();
        let ahead = ahead.map_or("not told".to_owned(), |(kib, _)| format!("{kib} KiB"));
        return vec![Subject::Devices.info(
            &format!("{} {major}:{minor}", device.kind),
            format!("no block device: readahead {ahead}, and what is warmed is asked for call by call"),
        )];
    };
    let mut all = vec![read_ahead(device, name)];
    if let Some((kib, hardware, _)) = &device.request {
        let hardware = hardware
            .filter(|kib| *kib < NO_LIMIT_KIB)
            .map(|kib| format!(", the hardware takes {kib} KiB"))
            .unwrap_or_default();
        all.push(Subject::Devices.ok(&format!("{name} max_sectors_kb"), format!("{kib} KiB{hardware}")));
    }
    all
}

/// Readahead decides how the agent warms: by the chain, or call by call.
fn read_ahead(device: &Device, name: &str) -> Finding {
    const DEVICES: Subject = Subject::Devices;
    let line = format!("{name} read_ahead_kb");
    let Some((kib, place)) = &device.read_ahead else {
        return DEVICES.info(&line, "not told");
    };
    let set = |kib: u64| format!("echo {kib} > {}", place.display());
    let value = format!("{kib} KiB");
    if !device.is_block {
        // btrfs: whatever is set here, the agent does not know the queue.
        let kind = &device.kind;
        return DEVICES.info(
            &line,
            format!("{value}; what is warmed on {kind} is asked for call by call"),
        );
    }
    let Some((request, hardware, limit)) = &device.request else {
        return DEVICES.info(
            &line,
            format!("{value}; the largest request is not told, so that what is warmed is asked for call by call"),
        );
    };
    // What every remedy sets: none is to be undone by the next.
    let usual = USUAL_KIB.min(*request).max(LEAST_KIB);
    match *kib {
        0 => DEVICES.degraded(
            &line,
            value,
            &format!(
                "readers that are not helped get page after page from the device; {}",
                super::NO_CHAIN
            ),
            &set(usual),
        ),
        kib if kib > CHAIN_KIB => DEVICES.degraded(
            &line,
            format!("{value}, more than {CHAIN_KIB} KiB"),
            super::NO_CHAIN,
            &format!(
                "{}, unless readers that are not helped are worth more: they profit from more",
                set(CHAIN_KIB.min(*request).max(LEAST_KIB))
            ),
        ),
        kib if kib > *request => {
            let remedy = match hardware {
                Some(hardware) if *hardware >= kib => format!("echo {kib} > {}", limit.display()),
                _ => set((*request).max(LEAST_KIB)),
            };
            DEVICES.degraded(
                &line,
                format!("{value}, more than the {request} KiB of a request"),
                super::NO_CHAIN,
                &remedy,
            )
        }
        kib if kib < usual => DEVICES
            .info(&line, value)
            .losing(&format!(
                "readers that are not helped ask for less at once than {usual} KiB, which is usual here"
            ))
            .remedied(&set(usual)),
        _ => DEVICES.ok(&line, value),
    }
}

/// Who honours the priorities of `ionice`. The agent does not rely on it: under `none`, which most fast disks have, they do nothing.
fn of_disk(disk: &Disk, version: (u32, u32)) -> Finding {
    const LOST: &str =
        "nothing of the agent's, which keeps its requests few by itself; `ionice` of other programs does nothing";
    let name = format!("{} scheduler", disk.name);
    let kind = match disk.rotational {
        Some(true) => "; rotational",
        Some(false) => "; not rotational",
        None => "",
    };
    let remedy = format!(
        "echo mq-deadline > /sys/block/{}/queue/scheduler, where ionice matters",
        disk.name
    );
    match disk.scheduler.as_deref() {
        Some("bfq") => Subject::Devices.ok(&name, format!("bfq: honours io priorities{kind}")),
        Some("mq-deadline") if version == (0, 0) || version >= (5, 14) => Subject::Devices.ok(
            &name,
            format!("mq-deadline: honours the classes of io priorities{kind}"),
        ),
        Some("mq-deadline") => Subject::Devices
            .missing(
                &name,
                format!("mq-deadline: ignores io priorities before Linux 5.14{kind}"),
                LOST,
                "use Linux 5.14 or later, or bfq, where ionice matters",
            )
            .aside(),
        Some(other) => Subject::Devices
            .missing(&name, format!("{other}: ignores io priorities{kind}"), LOST, &remedy)
            .aside(),
        None => Subject::Devices.info(&name, format!("not told{kind}")),
    }
}

fn of_loops(loops: &Loops) -> Finding {
    const NAME: &str = "loop devices";
    let first = loops
        .from_the_start
        .map(|first| format!(", {first} of them from the start"))
        .unwrap_or_default();
    if loops.control {
        return Subject::Devices.ok(NAME, format!("made as they are needed{first}; {} in use", loops.in_use));
    }
    Subject::Devices
        .missing(
            NAME,
            format!("no /dev/loop-control{first}"),
            "nothing of the agent's: its tests and benches make disks of files",
            if loops.driver {
                "the kernel has the driver: in a container, give it the devices /dev/loop-control and /dev/loop*"
            } else {
                "modprobe loop; in a container, on the host"
            },
        )
        .aside()
}
