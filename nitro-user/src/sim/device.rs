//! A device bound by bytes and by requests, first come first served.

use std::time::Duration;

use crate::units::Moment;

/// A device's limits.
#[derive(Clone, Copy, Debug)]
pub struct DeviceSpec {
    /// Bytes per second.
    pub rate: f64,
    /// Requests per second.
    pub requests: f64,
}

/// The device at work.
#[derive(Debug)]
pub struct Device {
    spec: DeviceSpec,
    free_at: Moment,
    /// Bytes given so far.
    pub bytes: u64,
}

impl Device {
    /// An idle device.
    pub fn new(spec: DeviceSpec) -> Self {
        Self {
            spec,
            free_at: Moment(0),
            bytes: 0,
        }
    }

    /// Queues a read of `bytes` in requests of `request` bytes at `now`; returns when it is done.
    pub fn read(&mut self, now: Moment, bytes: u64, request: u64) -> Moment {
        let requests = bytes.div_ceil(request.max(1));
        let seconds = (bytes as f64 / self.spec.rate).max(requests as f64 / self.spec.requests);
        self.bytes += bytes;
        self.free_at = self.free_at.max(now).after(Duration::from_secs_f64(seconds));
        self.free_at
    }
}
