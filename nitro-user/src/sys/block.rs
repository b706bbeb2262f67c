//! What sysfs says about a device.

use std::{fs, path::PathBuf};

/// Largest readahead that one call makes the kernel submit, in bytes: max(`max_sectors_kb`, `read_ahead_kb`).
///
/// `device` is in the kernel's encoding, major << 20 | minor. Where sysfs knows neither (network and other virtual file systems), 128 KiB, the
/// kernel's default.
pub fn readahead_limit(device: u32) -> u64 {
    let number = format!("{}:{}", device >> 20, device & 0xf_ffff);
    let block = PathBuf::from("/sys/dev/block").join(&number);
    // A partition has no queue of its own.
    let places = [
        block.join("queue/max_sectors_kb"),
        block.join("../queue/max_sectors_kb"),
        block.join("queue/read_ahead_kb"),
        block.join("../queue/read_ahead_kb"),
        PathBuf::from("/sys/class/bdi").join(&number).join("read_ahead_kb"),
    ];
    let kib = places
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok())
        .max();
    kib.unwrap_or(128).saturating_mul(1024)
}

/// Name of a block device (`nvme0n1p2`); `None` for file systems without one.
pub fn name(device: u32) -> Option<String> {
    let link = format!("/sys/dev/block/{}:{}", device >> 20, device & 0xf_ffff);
    let place = fs::read_link(link).ok()?;
    Some(place.file_name()?.to_string_lossy().into_owned())
}
