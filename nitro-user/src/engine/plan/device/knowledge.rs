//! What was learned of a device and survives a restart.

use serde::{Deserialize, Serialize};

use crate::units::Rate;

/// A rate that differs by less from the one that was kept is not kept anew.
const NEWS: f64 = 0.1;

/// So often the number of loads that are left alone doubles: 31 at most.
const MOST_DOUBLED: u32 = 5;

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
    /// What it does with one stream of steps, …
    pub one_stream: Streams,
    /// … and with several at once, from different files.
    pub several_streams: Streams,
    /// What programs got whose loads were left without help.
    pub held_out: [HeldOut; MOST_HELD_OUT],
}

/// What a device does with a number of streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Streams {
    /// Bytes a second.
    pub rate: Option<f32>,
    /// Seconds from the submission of a step until it is there.
    pub step: Option<f32>,
}

impl Streams {
    /// Bytes a second.
    pub fn rate(&self) -> Option<Rate> {
        self.rate.map(|rate| Rate(f64::from(rate)))
    }

    /// Takes a sample, which counts so much.
    pub(super) fn learn(&mut self, rate: Rate, step: f64, weight: f64) {
        let of = |known: Option<f32>, new: f64| {
            let known = known.map_or(new, f64::from);
            Some((known + (new - known) * weight) as f32)
        };
        (self.rate, self.step) = (of(self.rate, rate.0), of(self.step, step));
    }
}

/// What a program's loads got without help.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HeldOut {
    /// [`program_hash`] of its name.
    pub program: u32,
    /// It calls `read`, and does not touch a mapping.
    pub only_reads: bool,
    /// Loads; 0 in a place that is free.
    pub loads: u16,
    /// Bytes a second, the later loads counting more.
    pub rate: f32,
}

/// Programs of which it is known what they get without help.
const MOST_HELD_OUT: usize = 4;

/// A load without help counts as one of so many at least.
const HELD_OUT_MEMORY: u16 = 8;

/// A name as a number that is the same after a restart: FNV-1a of its first 15 bytes, which are all that the kernel keeps.
pub fn program_hash(name: &str) -> u32 {
    let hash = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    name.as_bytes().iter().take(15).fold(0x811c_9dc5, hash)
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
    pub(super) fn after(times: u32) -> Self {
        Self {
            times,
            rest: (1 << times.min(MOST_DOUBLED)) - 1,
        }
    }
}

impl Knowledge {
    /// The same without what no device does: it comes from a file.
    pub fn plausible(self) -> Self {
        let check = |rate: Option<Rate>| rate.filter(|rate| (1.0..1e13).contains(&rate.0));
        let streams = |streams: Streams| Streams {
            rate: streams.rate.filter(|rate| (1.0..1e13).contains(rate)),
            step: streams.step.filter(|step| (0.0..1e4).contains(step)),
        };
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
            one_stream: streams(self.one_stream),
            several_streams: streams(self.several_streams),
            held_out: self.held_out.map(|held_out| {
                let is_one = (1.0..1e13).contains(&held_out.rate);
                if is_one { held_out } else { HeldOut::default() }
            }),
        }
    }

    /// Whether it says, all in all, the same as `other`.
    pub(super) fn is_like(&self, other: &Self) -> bool {
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
            && alike(self.one_stream.rate(), other.one_stream.rate())
            && alike(self.several_streams.rate(), other.several_streams.rate())
            && self.held_out == other.held_out
    }

    /// A load of a program was left without help, and got this.
    pub(super) fn note_held_out(&mut self, program: u32, only_reads: bool, rate: Rate) {
        let known = &mut self.held_out;
        let same = |one: &HeldOut| one.loads > 0 && one.program == program && one.only_reads == only_reads;
        // A free place, or that of whoever is known least.
        let at = known.iter().position(same);
        let at = at
            .or_else(|| (0..MOST_HELD_OUT).min_by_key(|at| known[*at].loads))
            .unwrap_or(0);
        let place = &mut known[at];
        if !same(place) {
            *place = HeldOut {
                program,
                only_reads,
                loads: 0,
                rate: rate.0 as f32,
            };
        }
        place.loads = place.loads.saturating_add(1);
        let weight = 1.0 / f32::from(place.loads.min(HELD_OUT_MEMORY));
        place.rate += (rate.0 as f32 - place.rate) * weight;
    }

    /// What loads of a program get without help.
    pub(super) fn without_help(&self, program: u32, only_reads: bool) -> Option<Rate> {
        let mut known = self.held_out.iter();
        let found = known.find(|one| one.loads > 0 && one.program == program && one.only_reads == only_reads)?;
        Some(Rate(f64::from(found.rate)))
    }
}
