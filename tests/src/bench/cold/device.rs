//! The devices of the matrix, and how long their cells take.

use serde::{Deserialize, Serialize};

use crate::{limit::Limit, readers::Kind};

/// What a load comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Device {
    /// 1 GB/s in 1000 requests a second: a general-purpose cloud disk, bound by requests.
    Gp1000,
    /// 300 MB/s, 3000 requests a second: bound by bytes.
    D300,
    /// 125 MB/s, 3000 requests a second: bound by bytes.
    D125,
    /// Whatever the disk below gives.
    Unlimited,
    /// No device: everything is in the page cache already.
    Cached,
    /// A file system in user space over a store far away: 10 ms for each request, eight at once.
    Store,
    /// One head: 8 ms when the position jumps, 150 MB/s.
    Head,
}

/// How a file system in user space serves reads.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Service {
    /// Milliseconds of each.
    pub latency: f64,
    /// So many at once.
    pub parallel: usize,
    /// Milliseconds more after a jump.
    pub seek: f64,
    /// MB/s.
    pub rate: f64,
}

impl Device {
    /// All of them, in the order of the tables.
    pub const ALL: [Self; 7] = [
        Self::Gp1000,
        Self::D300,
        Self::D125,
        Self::Unlimited,
        Self::Cached,
        Self::Store,
        Self::Head,
    ];

    /// Its name on the command line and in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gp1000 => "gp-1000",
            Self::D300 => "d300",
            Self::D125 => "d125",
            Self::Unlimited => "unlimited",
            Self::Cached => "cached",
            Self::Store => "store",
            Self::Head => "head",
        }
    }

    /// What the group is limited to.
    pub const fn limit(self) -> Limit {
        let (bytes_per_second, operations_per_second) = match self {
            Self::Gp1000 => (1_000_000_000, 1000),
            Self::D300 => (300_000_000, 3000),
            Self::D125 => (125_000_000, 3000),
            Self::Unlimited | Self::Cached | Self::Store | Self::Head => (0, 0),
        };
        Limit {
            bytes_per_second,
            operations_per_second,
        }
    }

    /// How requests are served, where that is done by a file system in user space.
    pub const fn store(self) -> Option<Service> {
        match self {
            Self::Store => Some(Service {
                latency: 10.0,
                parallel: 8,
                seek: 0.0,
                rate: 0.0,
            }),
            Self::Head => Some(Service {
                latency: 0.0,
                // In the order in which they come: several servers would answer in any order, and each step back would be a jump.
                parallel: 1,
                seek: 8.0,
                rate: 150.0,
            }),
            _ => None,
        }
    }

    /// Bytes of the model here. The kernel keeps a limit in slices of 100 ms: a load must last long enough that one slice more or less is well below the
    /// difference that is claimed.
    pub const fn bytes(self, size: u64) -> u64 {
        match self {
            Self::Gp1000 | Self::Unlimited | Self::Cached => size,
            Self::D300 => size / 2,
            Self::D125 => size / 8 * 3,
            Self::Store | Self::Head => size / 8,
        }
    }

    /// Whether the cell means anything: a direct reader does not see what is cached.
    ///
    /// Readers in several places are measured where requests bind, and where there is nothing to gain.
    pub fn has(self, kind: Kind) -> bool {
        match kind {
            _ if self.store().is_some() => matches!(kind, Kind::Map | Kind::Populate | Kind::Read),
            Kind::Direct => self != Self::Cached,
            Kind::Cursors | Kind::Threads | Kind::Ranks => matches!(self, Self::Gp1000 | Self::Cached),
            _ => true,
        }
    }

    /// Pairs that the claim needs: few for "several times faster", many for "not three percent slower".
    pub fn pairs(self, kind: Kind) -> usize {
        match self {
            // Over in a moment, and noisier for it.
            Self::Cached => 45,
            Self::Store => 3,
            Self::Gp1000 | Self::Head => 5,
            _ if kind == Kind::MapRandom => 5,
            Self::Unlimited if self.loads_per_figure(kind) > 1 => 45,
            Self::Unlimited | Self::D300 | Self::D125 => 15,
        }
    }

    /// Loads behind one figure: one from memory, or a device as fast, is over in a fraction of a second, so one figure is the median of several.
    pub fn loads_per_figure(self, kind: Kind) -> usize {
        match self {
            Self::Cached => 5,
            // So that small differences show; the others gain much.
            Self::Unlimited if matches!(kind, Kind::Read | Kind::Shards | Kind::Direct) => 3,
            _ => 1,
        }
    }

    /// Seconds after which a load is stopped and its time extrapolated. Only a 4 KiB fault at a time takes longer: at 1000
    /// requests a second 2 GiB would take nine minutes, at a constant rate.
    pub const fn cap_seconds(self) -> u64 {
        match self {
            Self::Gp1000 | Self::Store => 30,
            _ => 15,
        }
    }

    /// Seconds that the cells of this device take, roughly.
    pub fn estimate(self, size: u64, kinds: &[(Kind, usize)]) -> f64 {
        let bytes = self.bytes(size) as f64;
        let setup = 6.0 + 2.0 * bytes / 1e9;
        setup
            + kinds
                .iter()
                .map(|&(kind, pairs)| self.estimate_cell(bytes, kind, pairs))
                .sum::<f64>()
    }

    fn estimate_cell(self, bytes: f64, kind: Kind, pairs: usize) -> f64 {
        // Starting and stopping the agent, dropping the caches.
        let overhead = 1.5;
        if self == Self::Cached {
            return pairs as f64 * (overhead + 10.0 * bytes / 1e10) + bytes / 1e9;
        }
        let (rate, operations) = match self.limit() {
            _ if self == Self::Store => (1e8, 200.0),
            _ if self == Self::Head => (1.5e8, 25_000.0),
            Limit::NONE => (1.5e9, 25_000.0),
            limit => (limit.bytes_per_second as f64, limit.operations_per_second as f64),
        };
        // Bytes of one request of each reader alone, as measured.
        let request = match kind {
            Kind::Map | Kind::Cursors | Kind::Threads | Kind::Ranks => 128 << 10,
            Kind::Populate => 256 << 10,
            Kind::MapRandom => 4 << 10,
            Kind::Read | Kind::Shards | Kind::Direct => 1 << 20,
        };
        let device = bytes / rate;
        let work = if kind == Kind::Shards { device } else { 0.0 };
        let without = (device.max(bytes / f64::from(request) / operations) + work).min(self.cap_seconds() as f64);
        let with = device * 1.15 + 0.2;
        // Dropping the caches takes its time, too.
        let loads = match self.loads_per_figure(kind) {
            1 => without + with,
            several => several as f64 * (without + with + 0.6),
        };
        pairs as f64 * (loads + overhead) + 3.0 * (device + work) + 2.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_matrix_takes_two_hours_at_most() {
        let seconds: f64 = Device::ALL
            .into_iter()
            .map(|device| {
                let kinds: Vec<_> = Kind::ALL
                    .into_iter()
                    .filter(|&kind| device.has(kind))
                    .map(|kind| (kind, device.pairs(kind)))
                    .collect();
                device.estimate(2 << 30, &kinds)
            })
            .sum();
        assert!((30.0..121.0).contains(&(seconds / 60.0)), "{} minutes", seconds / 60.0);
    }
}
