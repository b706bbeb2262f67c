//! What sysfs says about a device.

use std::{fs, io::Read, path::PathBuf};

use serde::{Deserialize, Serialize};

/// What bounds the requests of a device, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestLimits {
    /// `read_ahead_kb`: what the kernel reads ahead by itself.
    pub read_ahead: u64,
    /// `max_sectors_kb`: the largest request; 0 where there is no block device.
    pub request: u64,
}

impl RequestLimits {
    /// Largest readahead that one call makes the kernel submit: the larger of the two.
    pub fn readahead_call(self) -> u64 {
        self.read_ahead.max(self.request)
    }
}

/// The limits of a device in the kernel's encoding, major << 20 | minor. Where sysfs knows it not (network and other virtual file systems),
/// 128 KiB of readahead, the kernel's default.
pub fn request_limits(device: u32) -> RequestLimits {
    let number = format!("{}:{}", device >> 20, device & 0xf_ffff);
    let block = PathBuf::from("/sys/dev/block").join(&number);
    // A partition has no queue of its own.
    let queues = [block.join("queue"), block.join("../queue")];
    let kib = |path: PathBuf| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let of_queue = |name: &str| queues.iter().find_map(|queue| kib(queue.join(name)));
    let read_ahead =
        of_queue("read_ahead_kb").or_else(|| kib(PathBuf::from("/sys/class/bdi").join(&number).join("read_ahead_kb")));
    RequestLimits {
        read_ahead: read_ahead.unwrap_or(128).saturating_mul(1024),
        request: of_queue("max_sectors_kb").unwrap_or(0).saturating_mul(1024),
    }
}

/// Name of a block device (`nvme0n1p2`); `None` for file systems without one.
pub fn name(device: u32) -> Option<String> {
    let link = format!("/sys/dev/block/{}:{}", device >> 20, device & 0xf_ffff);
    let place = fs::read_link(link).ok()?;
    Some(place.file_name()?.to_string_lossy().into_owned())
}

/// What a device has done since the machine was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes read.
    pub read: u64,
    /// Bytes written or discarded.
    pub written: u64,
    /// Requests that have not ended.
    pub under_way: u64,
}

impl Traffic {
    /// Bytes in both directions.
    pub fn bytes(self) -> u64 {
        self.read.wrapping_add(self.written)
    }
}

/// What a device, the whole disk where it is a partition, has done so far; `None` where nothing is counted. Documentation/block/stat.rst: sectors of 512 bytes.
pub fn traffic(device: u32) -> Option<Traffic> {
    let block = PathBuf::from(format!("/sys/dev/block/{}:{}", device >> 20, device & 0xf_ffff));
    let disk = if block.join("partition").exists() {
        block.join("../stat")
    } else {
        block.join("stat")
    };
    let text = short(&disk)?;
    let fields: Vec<u64> = text.split_whitespace().filter_map(|field| field.parse().ok()).collect();
    // Before 4.18 nothing is told of discards.
    let discarded = fields.get(13).copied().unwrap_or(0);
    Some(Traffic {
        read: fields.get(2)?.wrapping_mul(512),
        written: fields.get(6)?.wrapping_add(discarded).wrapping_mul(512),
        under_way: *fields.get(8)?,
    })
}

/// What identifies a device beyond a restart, when numbers and names may be others: what its maker or its driver calls it, the file behind a loop device; of a
/// file system without a block device, its kind and where it comes from. `None` where nothing tells.
pub fn identity(device: u32) -> Option<String> {
    let number = format!("{}:{}", device >> 20, device & 0xf_ffff);
    let block = PathBuf::from("/sys/dev/block").join(&number);
    if !block.exists() {
        return of_mount(&number);
    }
    // A partition is as fast as its disk.
    let disk = if block.join("partition").exists() {
        block.join("..")
    } else {
        block
    };
    let names = [
        "dm/uuid",
        "md/uuid",
        "wwid",
        "device/wwid",
        "serial",
        "device/serial",
        "loop/backing_file",
    ];
    let told = names.iter().find_map(|name| {
        let text = short(&disk.join(name))?;
        let kind = name.rsplit('/').next().unwrap_or(name);
        (!text.is_empty()).then(|| format!("{kind} {text}"))
    });
    told.or_else(|| {
        let name = fs::canonicalize(&disk)
            .ok()?
            .file_name()?
            .to_string_lossy()
            .into_owned();
        Some(format!("{name} of {} sectors", short(&disk.join("size"))?))
    })
}

/// The first line of a file of sysfs, without blanks around it and with a bound.
fn short(path: &std::path::Path) -> Option<String> {
    let mut bytes = Vec::new();
    fs::File::open(path).ok()?.take(4096).read_to_end(&mut bytes).ok()?;
    Some(
        String::from_utf8_lossy(&bytes)
            .lines()
            .next()
            .unwrap_or_default()
            .trim()
            .to_owned(),
    )
}

/// Kind and source of the file system with this device number, from a line like `36 25 0:32 / /mnt rw shared:7 - nfs4 server:/models rw`.
fn of_mount(number: &str) -> Option<String> {
    let table = fs::read("/proc/thread-self/mountinfo").ok()?;
    let table = String::from_utf8_lossy(&table).into_owned();
    table.lines().find_map(|line| {
        let (places, kinds) = line.split_once(" - ")?;
        if places.split(' ').nth(2)? != number {
            return None;
        }
        let mut kinds = kinds.split(' ');
        Some(format!("{} {}", kinds.next()?, kinds.next()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_device_of_this_machine_has_an_identity() {
        for entry in fs::read_dir("/sys/dev/block").unwrap().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let (major, minor) = name.split_once(':').unwrap();
            let device = major.parse::<u32>().unwrap() << 20 | minor.parse::<u32>().unwrap();
            assert!(identity(device).is_some_and(|identity| identity.len() > 3), "{name}");
        }
    }

    #[test]
    fn what_a_disk_has_done_is_told() {
        let disk = fs::read_dir("/sys/dev/block").unwrap().flatten().find_map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            let (major, minor) = name.split_once(':')?;
            traffic(major.parse::<u32>().ok()? << 20 | minor.parse::<u32>().ok()?).filter(|done| done.bytes() > 0)
        });
        assert!(disk.is_some());
        assert_eq!(traffic(9999 << 20), None);
    }

    #[test]
    fn a_file_system_without_a_block_device_is_known_by_its_kind_and_source() {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let proc = table.lines().find(|line| line.contains(" /proc ")).unwrap();
        let number = proc.split(' ').nth(2).unwrap();
        assert_eq!(of_mount(number).as_deref(), Some("proc proc"));
        assert_eq!(of_mount("9999:1"), None);
    }
}
