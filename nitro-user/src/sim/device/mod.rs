//! A device: a limit, then a service; first come, first served.

mod limit;
mod service;

use std::time::Duration;

pub use limit::Limit;
pub use service::Service;

use self::{limit::Gate, service::Servers};
use crate::units::{ByteRange, Moment};

/// A device, and how the kernel asks it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DeviceSpec {
    /// What it allows, if that is less than it can.
    pub limit: Option<Limit>,
    /// How it serves what is allowed.
    pub service: Service,
    /// Bytes that the kernel reads ahead (`read_ahead_kb`).
    pub read_ahead: u64,
    /// Bytes of the largest request (`max_sectors_kb`); 0 where there is no block device.
    pub request: u64,
}

impl DeviceSpec {
    /// Bound by bytes and by requests a second from moment to moment, and by nothing else.
    pub const fn bound_by(rate: f64, requests: f64) -> Self {
        Self {
            limit: Some(Limit {
                rate,
                requests,
                slice: Duration::ZERO,
                tick: Duration::ZERO,
            }),
            service: Service::AT_ONCE,
            read_ahead: 128 << 10,
            request: 1 << 20,
        }
    }
}

/// The device at work.
#[derive(Debug)]
pub struct Device {
    /// What it is.
    pub spec: DeviceSpec,
    gate: Option<Gate>,
    servers: Servers,
    /// When it will have answered all requests.
    pub busy_until: Moment,
    /// Bytes given so far, or promised.
    pub bytes: u64,
    /// Requests so far.
    pub requests: u64,
}

impl Device {
    /// An idle device.
    pub fn new(spec: DeviceSpec) -> Self {
        Self {
            spec,
            gate: spec.limit.map(Gate::new),
            servers: Servers::new(spec.service),
            busy_until: Moment(0),
            bytes: 0,
            requests: 0,
        }
    }

    /// Asks at `now` for a range of a file, which one request can hold, for the page cache or past it; returns when it is there. Moments never go back from one call to the next.
    pub fn submit(&mut self, now: Moment, file: usize, range: ByteRange, is_direct: bool) -> Moment {
        let admitted = self.gate.as_mut().map_or(now, |gate| gate.admit(now, range.len()));
        let done = self.servers.serve(admitted, file, range, is_direct);
        self.busy_until = self.busy_until.max(done);
        self.bytes += range.len();
        self.requests += 1;
        done
    }

    /// Bytes of the largest request.
    pub fn largest(&self) -> u64 {
        if self.spec.request == 0 {
            u64::MAX
        } else {
            self.spec.request
        }
    }
}
