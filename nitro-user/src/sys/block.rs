//! What sysfs says about a device.

use std::{fs, path::PathBuf};

/// What bounds the requests of a device, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
