//! The devices that a trace is replayed on.

use std::{fmt, str::FromStr, time::Duration};

use crate::{
    sim::{DeviceSpec, Limit, Service},
    units::{ByteCount, Rate, Size},
};

/// What a file system in user space adds to each request: two switches of process, and its own read.
pub const IN_USER_SPACE: Duration = Duration::from_micros(250);

/// The kernel's usual readahead in bytes.
const READ_AHEAD: u64 = 128 << 10;

/// Bytes of the largest request of a usual disk.
const REQUEST: u64 = 1280 << 10;

/// A device on the command line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Choice {
    /// The one of the recording.
    Recorded,
    /// One that `nitro-agent bench` builds as well.
    Named(Named),
    /// One that is bound by bytes a second, and perhaps by requests a second.
    Bound {
        /// Bytes a second.
        rate: Rate,
        /// Requests a second; 0 is no bound.
        requests: f64,
    },
}

/// A device with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// A local NVMe drive: 3 GB/s in 400 000 requests a second, 80 µs each.
    Nvme,
    /// A network volume: 125 MB/s in 3000 requests a second, 0.6 ms each.
    Gp3,
    /// A disk with one head: 150 MB/s, 8 ms for each jump.
    Hdd,
    /// A store on the network: 2 ms a request, eight at once, 280 MB/s in all.
    Nas,
}

impl Named {
    const ALL: [Self; 4] = [Self::Nvme, Self::Gp3, Self::Hdd, Self::Nas];

    const fn name(self) -> &'static str {
        match self {
            Self::Nvme => "nvme",
            Self::Gp3 => "gp3",
            Self::Hdd => "hdd",
            Self::Nas => "nas",
        }
    }

    fn spec(self) -> DeviceSpec {
        let (limit, each, parallel) = match self {
            Self::Nvme => (Limit::throttle(3e9, 400e3), Duration::from_micros(80), 64),
            Self::Gp3 => (Limit::throttle(125e6, 3000.0), Duration::from_micros(600), 64),
            Self::Hdd => {
                return DeviceSpec {
                    limit: None,
                    service: Service {
                        each: Duration::from_micros(100),
                        rate: 150e6,
                        seek: Duration::from_millis(8),
                        ..Service::AT_ONCE
                    },
                    read_ahead: READ_AHEAD,
                    request: REQUEST,
                };
            }
            Self::Nas => {
                return DeviceSpec {
                    service: Service {
                        each: IN_USER_SPACE + Duration::from_millis(2),
                        parallel: 8,
                        ..Service::AT_ONCE
                    },
                    request: 0,
                    ..DeviceSpec::bound_by(280e6, 0.0)
                };
            }
        };
        DeviceSpec {
            limit: Some(limit),
            service: Service {
                each,
                parallel,
                ..Service::AT_ONCE
            },
            read_ahead: READ_AHEAD,
            request: REQUEST,
        }
    }
}

impl Choice {
    /// What the simulator makes of it; `recorded` is what is known of the device of the recording.
    pub fn spec(self, recorded: Option<Rate>) -> DeviceSpec {
        let bound = |rate: f64, requests: f64| DeviceSpec {
            request: REQUEST,
            ..DeviceSpec::bound_by(rate, requests)
        };
        match self {
            // Nothing was read from it, or as good as nothing: nobody waited for it.
            Self::Recorded => bound(recorded.map_or(0.0, |rate| rate.0), 0.0),
            Self::Named(named) => named.spec(),
            Self::Bound { rate, requests } => bound(rate.0, requests),
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Recorded => f.pad("recorded"),
            Self::Named(named) => f.pad(named.name()),
            Self::Bound { rate, requests } if *requests > 0.0 => f.pad(&format!("{rate}, {requests}/s")),
            Self::Bound { rate, .. } => f.pad(&rate.to_string()),
        }
    }
}

/// Why a device is none.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0:?} is no device: give recorded, nvme, gp3, hdd, nas, or what it does in a second, as 500MB or 500MB/3000 (bytes, and requests)"
)]
pub struct DeviceError(String);

impl FromStr for Choice {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        if text == "recorded" {
            return Ok(Self::Recorded);
        }
        if let Some(named) = Named::ALL.into_iter().find(|named| named.name() == text) {
            return Ok(Self::Named(named));
        }
        let none = || DeviceError(text.to_owned());
        let (rate, requests) = match text.split_once('/') {
            Some((rate, requests)) => {
                let requests: f64 = requests.parse().map_err(|_| none())?;
                (rate, Some(requests))
            }
            None => (text, None),
        };
        let Ok(Size::Bytes(ByteCount(bytes))) = rate.parse::<Size>() else {
            return Err(none());
        };
        let is_possible = |number: f64| (1.0..1e12).contains(&number);
        if !is_possible(bytes as f64) || requests.is_some_and(|requests| !is_possible(requests)) {
            return Err(none());
        }
        Ok(Self::Bound {
            rate: Rate(bytes as f64),
            requests: requests.unwrap_or(0.0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_as_they_are_written() {
        for name in ["recorded", "nvme", "gp3", "hdd", "nas"] {
            assert_eq!(name.parse::<Choice>().unwrap().to_string(), name);
        }
        assert_eq!(
            "500MB/3000".parse::<Choice>().unwrap(),
            Choice::Bound {
                rate: Rate(5e8),
                requests: 3000.0
            }
        );
        for none in [
            "",
            "floppy",
            "0MB",
            "500",
            "50%",
            "500MB/",
            "500MB/0",
            "500MB/NaN",
            "500MB/inf",
            "1GB/1/1",
        ] {
            assert!(none.parse::<Choice>().is_err(), "{none}");
        }
    }
}
