//! What a device is busy with, and how fast it is.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    engine::input::{Outcome, StepEnd},
    units::{Moment, Rate, STEP},
};

/// Bytes in flight are bounded by what the device does in this time: what is submitted cannot be recalled, and a bystander's read waits behind
/// it. 512 MiB at once made a bystander wait 2 s at 125 MB/s; 50 ms is a few of the device's own worst latencies.
const IN_FLIGHT: Duration = Duration::from_millis(50);

/// So many times that where several threads of a load are ahead of us: each of their requests waits in line with ours, and a line that is theirs stays theirs.
const IN_LINE: u32 = 4;

/// Steps for which that holds after the last one that they overtook.
const MEMORY: u32 = 32;

/// Two steps at least: one in flight while the other's completion is noticed.
const LEAST_IN_FLIGHT: u64 = 2 * STEP;

/// Past this, more in flight gained nothing on any device.
const MOST_IN_FLIGHT: u64 = 64 << 20;

/// In flight while the device's rate is not known: enough to measure it soon.
const FIRST_IN_FLIGHT: u64 = 4 * STEP;

/// Shortest busy time that makes a sample of the rate.
const SAMPLE: Duration = Duration::from_millis(50);

/// Weight of a sample above the rate …
const RISE: f64 = 0.3;

/// … and of one below it. A device that had too little to do gives a low sample, and a low rate would give it less still: what it has once shown it
/// is believed to do for a while, as BBR's bottleneck bandwidth is (Cardwell et al., ACM Queue 14(5), 2016).
const FALL: f64 = 0.03;

/// What was learned of a device and holds beyond a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Knowledge {
    /// Bytes a second while the agent kept it busy.
    pub rate: Option<Rate>,
    /// What a reader that calls `read` and waits for its data gets without help.
    pub reads_alone: Option<Rate>,
    /// What one that touches a mapping gets.
    pub maps_alone: Option<Rate>,
    /// How those that call `read` fared with help.
    pub reads_setback: Setback,
    /// How those that touch a mapping fared.
    pub maps_setback: Setback,
}

/// Loads that got less with help than alone. The next ones are left alone from the start: as many as were harmed make it twice as many, and then help is tried again, since
/// servers and disks are exchanged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Setback {
    /// Such loads, one after the other.
    pub times: u32,
    /// Loads still to be left alone.
    pub rest: u32,
}

impl Setback {
    fn after(times: u32) -> Self {
        Self {
            times,
            rest: (1 << times.min(MOST_DOUBLED)) - 1,
        }
    }
}

/// So often the number of loads that are left alone doubles: 31 at most.
const MOST_DOUBLED: u32 = 5;

impl Knowledge {
    /// The same without what no device does: it comes from a file.
    pub fn plausible(self) -> Self {
        let check = |rate: Option<Rate>| rate.filter(|rate| (1.0..1e13).contains(&rate.0));
        Self {
            rate: check(self.rate),
            reads_alone: check(self.reads_alone),
            maps_alone: check(self.maps_alone),
            reads_setback: Setback {
                rest: self.reads_setback.rest.min(1 << MOST_DOUBLED),
                ..self.reads_setback
            },
            maps_setback: Setback {
                rest: self.maps_setback.rest.min(1 << MOST_DOUBLED),
                ..self.maps_setback
            },
        }
    }

    /// Whether it says, all in all, the same as `other`.
    fn is_like(&self, other: &Self) -> bool {
        let alike = |one: Option<Rate>, other: Option<Rate>| match (one, other) {
            (None, None) => true,
            (Some(one), Some(other)) => (one.0 / other.0 - 1.0).abs() < NEWS,
            _ => false,
        };
        alike(self.rate, other.rate)
            && alike(self.reads_alone, other.reads_alone)
            && alike(self.maps_alone, other.maps_alone)
            && self.reads_setback == other.reads_setback
            && self.maps_setback == other.maps_setback
    }
}

/// A rate over so much busy time is kept instead of the present one.
const SURE: Duration = Duration::from_millis(500);

/// Nothing that is not urgent is tried again so soon after somebody else has used a device.
const QUIET: Duration = Duration::from_millis(250);

/// A rate that differs by less from the one that was kept is not kept anew.
const NEWS: f64 = 0.1;

/// One block device, or whatever carries a file system.
#[derive(Debug, Default)]
pub struct Device {
    in_flight: u64,
    /// Its rate, and what readers get alone.
    known: Knowledge,
    /// What was kept last.
    kept: Knowledge,
    /// Time that it was kept busy, and bytes that it delivered then: over seconds its rate is surer than over a sample, which can hold two slices of a limit.
    busy: Duration,
    delivered: u64,
    /// Its rate was not measured since the agent began: the first sample counts for more than what was remembered.
    remembered: bool,
    busy_since: Moment,
    busy_bytes: u64,
    /// Steps left of [`MEMORY`].
    in_line: u32,
    /// Somebody else used it then: nothing that is not urgent before this is over.
    disturbed: Option<Moment>,
}

impl Device {
    /// Its measured rate while the agent kept it busy.
    pub fn rate(&self) -> Option<Rate> {
        self.known.rate
    }

    /// What is known of it.
    pub const fn known(&self) -> Knowledge {
        self.known
    }

    /// What a reader gets without help, one that calls `read` or one that touches a mapping.
    pub fn alone(&mut self, only_reads: bool) -> &mut Option<Rate> {
        if only_reads {
            &mut self.known.reads_alone
        } else {
            &mut self.known.maps_alone
        }
    }

    fn setback(&mut self, only_reads: bool) -> &mut Setback {
        if only_reads {
            &mut self.known.reads_setback
        } else {
            &mut self.known.maps_setback
        }
    }

    /// Whether a load is to be left alone since others got less with help; it counts as left alone then.
    pub fn declines(&mut self, only_reads: bool) -> bool {
        let setback = self.setback(only_reads);
        let declines = setback.rest > 0;
        setback.rest = setback.rest.saturating_sub(1);
        declines
    }

    /// A load got less with help than alone.
    pub fn harmed(&mut self, only_reads: bool) {
        let setback = self.setback(only_reads);
        *setback = Setback::after(setback.times.saturating_add(1));
    }

    /// A load that waited for its data got as much with help as alone.
    pub fn did_well(&mut self, only_reads: bool) {
        *self.setback(only_reads) = Setback::default();
    }

    /// What was known of it when the agent ran before; what has been measured since goes first.
    pub fn recall(&mut self, before: Knowledge) {
        let before = before.plausible();
        self.remembered = self.known.rate.is_none();
        self.known.rate = self.known.rate.or(before.rate);
        self.known.reads_alone = self.known.reads_alone.or(before.reads_alone);
        self.known.maps_alone = self.known.maps_alone.or(before.maps_alone);
        for (known, before) in [
            (&mut self.known.reads_setback, before.reads_setback),
            (&mut self.known.maps_setback, before.maps_setback),
        ] {
            if *known == Setback::default() {
                *known = before;
            }
        }
        self.kept = before;
    }

    /// What is worth keeping of it, if there is any news.
    pub fn news(&mut self) -> Option<Knowledge> {
        let mut known = self.known;
        if self.busy >= SURE {
            known.rate = Some(Rate::over(self.delivered, self.busy));
        }
        if known.is_like(&self.kept) {
            return None;
        }
        self.kept = known;
        Some(known)
    }

    /// Bytes with its workers.
    pub fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// Whether `bytes` more may be submitted now.
    pub fn admits(&self, bytes: u64) -> bool {
        let times = if self.in_line > 0 { IN_LINE } else { 1 };
        let limit = self.known.rate.map_or(FIRST_IN_FLIGHT * u64::from(times), |rate| {
            rate.during(IN_FLIGHT * times).clamp(LEAST_IN_FLIGHT, MOST_IN_FLIGHT)
        });
        self.in_flight + bytes <= limit.max(LEAST_IN_FLIGHT)
    }

    /// Whether a step may be submitted that nobody waits for: it is the only one, and nobody else has used the device for a while.
    pub fn admits_speculative(&self, now: Moment) -> bool {
        self.in_flight == 0 && self.disturbed.is_none_or(|at| now.since(at) >= QUIET)
    }

    /// Several threads of a load were at a step before us.
    pub fn overtaken(&mut self) {
        self.in_line = MEMORY;
    }

    /// A reader brings `bytes` in by itself.
    pub fn shared(&mut self, bytes: u64) {
        if self.in_flight > 0 {
            self.busy_bytes += bytes;
        }
    }

    /// `bytes` were handed to a worker.
    pub fn submitted(&mut self, now: Moment, bytes: u64) {
        if self.in_flight == 0 {
            self.busy_since = now;
            self.busy_bytes = 0;
        }
        self.in_flight += bytes;
    }

    /// A worker is done with a step.
    pub fn completed(&mut self, outcome: &Outcome) {
        self.in_flight = self.in_flight.saturating_sub(outcome.range.len());
        self.busy_bytes += outcome.gained();
        self.in_line = self.in_line.saturating_sub(1);
        if outcome.end == StepEnd::Yielded {
            self.disturbed = Some(outcome.completed);
        }
        let busy = outcome.completed.since(self.busy_since);
        // Steps that were resident take no time of the device and say nothing about it.
        if busy >= SAMPLE && self.busy_bytes >= 2 * STEP {
            let sample = Rate::over(self.busy_bytes, busy);
            self.busy += busy;
            self.delivered += self.busy_bytes;
            let before = self.known.rate.filter(|_| !std::mem::take(&mut self.remembered));
            self.known.rate = Some(before.map_or(sample, |rate| {
                let weight = if sample.0 > rate.0 { RISE } else { FALL };
                Rate(rate.0 + (sample.0 - rate.0) * weight)
            }));
            self.busy_since = outcome.completed;
            self.busy_bytes = 0;
        }
    }
}
