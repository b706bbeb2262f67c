//! Whether anybody else uses a device: what is brought in before its reader is there gives way to everybody.
//!
//! The block layer counts requests and sectors of each device. What changed since our last request ended, or what was read beyond what our request brought into
//! the page cache, is somebody else's. A file system's own metadata counts as such, too: it is rare, and a pause costs little. Devices that nothing is counted of
//! (network and other virtual file systems) look quiet.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crate::sys::block::{self, Traffic};

/// A request that is over still counts as under way for so long.
const SETTLING: Duration = Duration::from_micros(200);

/// What the devices had done when our last request on each had ended. Shared by all streams.
#[derive(Debug, Default)]
pub struct Quiet {
    last: Mutex<HashMap<u32, Traffic>>,
}

impl Quiet {
    /// Whether nobody else uses `device`, as far as can be told before a request.
    pub fn is_quiet(&self, device: u32) -> bool {
        let Some(mut now) = block::traffic(device) else {
            return true;
        };
        if now.under_way > 0 {
            std::thread::sleep(SETTLING);
            now = block::traffic(device).unwrap_or(now);
        }
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let before = last.insert(device, now);
        now.under_way == 0 && before.is_none_or(|before| before.bytes() == now.bytes())
    }

    /// A request of ours on `device`, which brought `own` bytes in, has ended. Whether nobody else used the device meanwhile.
    pub fn was_quiet(&self, device: u32, own: u64) -> bool {
        let Some(now) = block::traffic(device) else {
            return true;
        };
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let before = last.insert(device, now);
        before.is_none_or(|before| now.bytes().saturating_sub(before.bytes()) <= own)
    }
}
