//! What a device is busy with, and how fast it is.

mod knowledge;

use std::{collections::BTreeMap, time::Duration};

pub use self::knowledge::{HeldOut, Knowledge, Setback, Streams, program_hash};
use crate::{
    engine::{
        action::LoadId,
        input::{Outcome, StepEnd},
    },
    units::{FileId, Moment, Rate, STEP},
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

/// Where several streams get less than this share of what one gets, they take turns for more than a step …
const WORTH_A_TURN: f64 = 0.8;

/// … for so many: what a disk reads in a few of its seeks is little, 32 MiB are worth one.
const IN_A_ROW: u32 = 16;

/// A rate over so much busy time is kept instead of the present one.
const SURE: Duration = Duration::from_millis(500);

/// Nothing that is not urgent is tried again so soon after somebody else has used a device.
const QUIET: Duration = Duration::from_millis(250);

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
    /// Files that have steps in flight, and how many.
    streams: BTreeMap<FileId, u32>,
    /// How many files had, since the present sample began: the least and the most.
    in_sample: (usize, usize),
    /// The load that has the device for so many steps more, where taking turns costs too much.
    turn: Option<(LoadId, u32)>,
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

    /// Whether a load is to be left alone since others got less with help; it counts as left alone then. One of which it is known that it is read in an order of its own, or in part, is helped in
    /// another way than before that was known: a single setback says nothing of it.
    pub fn declines(&mut self, only_reads: bool, is_known: bool) -> bool {
        let setback = self.setback(only_reads);
        if is_known && setback.times <= 1 {
            return false;
        }
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
            (&mut self.known.one_stream, before.one_stream),
            (&mut self.known.several_streams, before.several_streams),
        ] {
            (known.rate, known.step) = (known.rate.or(before.rate), known.step.or(before.step));
        }
        if self.known.held_out.iter().all(|one| one.loads == 0) {
            self.known.held_out = before.held_out;
        }
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

    /// `bytes` of `file` were handed to a worker.
    pub fn submitted(&mut self, now: Moment, file: FileId, bytes: u64) {
        *self.streams.entry(file).or_default() += 1;
        if self.in_flight == 0 {
            self.busy_since = now;
            self.busy_bytes = 0;
            self.in_sample = (usize::MAX, 0);
        }
        self.note_streams();
        self.in_flight += bytes;
    }

    fn note_streams(&mut self) {
        let now = self.streams.len();
        let (least, most) = self.in_sample;
        self.in_sample = (least.min(now), most.max(now));
    }

    /// What is known of as many streams as there are, if that was clear all the time.
    fn streams_in_sample(&mut self) -> Option<&mut Streams> {
        match self.in_sample {
            (1, 1) => Some(&mut self.known.one_stream),
            (2.., 2..) => Some(&mut self.known.several_streams),
            _ => None,
        }
    }

    /// Which load has the next step for itself: where one stream gets clearly more than several, as from a disk whose head goes to and fro, loads do not take turns for single steps.
    pub fn turn(&self) -> Option<LoadId> {
        self.turn.map(|(whose, _)| whose)
    }

    /// A load took a step.
    pub fn took(&mut self, load: LoadId) {
        let left = match self.turn {
            Some((whose, left)) if whose == load => left,
            _ => self.steps_in_a_row(),
        };
        self.turn = (left > 1).then_some((load, left - 1));
    }

    /// A load has nothing to take.
    pub fn passes(&mut self, load: LoadId) {
        if self.turn.is_some_and(|(whose, _)| whose == load) {
            self.turn = None;
        }
    }

    fn steps_in_a_row(&self) -> u32 {
        let rates = self.known.one_stream.rate().zip(self.known.several_streams.rate());
        let rewards_one = rates.is_some_and(|(one, several)| several.0 < one.0 * WORTH_A_TURN);
        if rewards_one { IN_A_ROW } else { 1 }
    }

    /// A load of a program was left without help, and got this.
    pub fn held_out(&mut self, program: u32, only_reads: bool, rate: Rate) {
        self.known.note_held_out(program, only_reads, rate);
    }

    /// What loads of a program get without help.
    pub fn without_help(&self, program: u32, only_reads: bool) -> Option<Rate> {
        self.known.without_help(program, only_reads)
    }

    /// Whether loads of some kind are left alone at present, since others got less with help.
    pub fn is_to_rest(&self) -> bool {
        self.known.reads_setback.rest > 0 || self.known.maps_setback.rest > 0
    }

    /// Everything that was learned of it is forgotten.
    pub fn forget(&mut self) {
        (self.known, self.kept) = (Knowledge::default(), Knowledge::default());
        (self.busy, self.delivered) = (Duration::ZERO, 0);
    }

    /// A worker is done with a step.
    pub fn completed(&mut self, outcome: &Outcome) {
        self.in_flight = self.in_flight.saturating_sub(outcome.range.len());
        if let Some(steps) = self.streams.get_mut(&outcome.file) {
            *steps -= 1;
            if *steps == 0 {
                self.streams.remove(&outcome.file);
            }
        }
        self.busy_bytes += outcome.gained();
        self.in_line = self.in_line.saturating_sub(1);
        if outcome.end == StepEnd::Yielded {
            self.disturbed = Some(outcome.completed);
        }
        let busy = outcome.completed.since(self.busy_since);
        // Steps that were resident take no time of the device and say nothing about it.
        if busy >= SAMPLE && self.busy_bytes >= 2 * STEP {
            let sample = Rate::over(self.busy_bytes, busy);
            let step = outcome.completed.since(outcome.submitted).as_secs_f64();
            if let Some(streams) = self.streams_in_sample() {
                streams.learn(sample, step, RISE);
            }
            self.in_sample = (usize::MAX, 0);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::ByteRange;

    /// Keeps a device busy with steps of files in turn, each of which takes so long.
    fn busy(device: &mut Device, now: &mut Moment, files: &[u64], step: Duration) {
        let file = |inode: u64| FileId { device: 1, inode };
        let mut queue: Vec<(FileId, Moment)> = Vec::new();
        for turn in 0..200 {
            let file = file(files[turn % files.len()]);
            device.submitted(*now, file, STEP);
            queue.push((file, *now));
            if queue.len() < 2 {
                continue;
            }
            *now = now.after(step);
            let (file, submitted) = queue.remove(0);
            device.completed(&outcome(file, submitted, *now));
        }
        for (file, submitted) in queue {
            *now = now.after(step);
            device.completed(&outcome(file, submitted, *now));
        }
    }

    fn outcome(file: FileId, submitted: Moment, completed: Moment) -> Outcome {
        Outcome {
            load: LoadId(1),
            part: 0,
            file,
            device: 1,
            range: ByteRange::new(0, STEP),
            end: StepEnd::Done,
            before: 0,
            after: STEP,
            beyond: 0,
            held: 0,
            submitted,
            completed,
        }
    }

    #[test]
    fn where_one_stream_gets_more_than_several_loads_take_longer_turns() {
        let (mut device, mut now) = (Device::default(), Moment(1));
        busy(&mut device, &mut now, &[1], Duration::from_millis(14));
        device.took(LoadId(1));
        assert_eq!(device.turn(), None, "nothing is known of several");
        busy(&mut device, &mut now, &[1, 2], Duration::from_millis(28));
        let known = device.known();
        let ratio = known.one_stream.rate.unwrap() / known.several_streams.rate.unwrap();
        assert!((1.9..2.1).contains(&ratio), "{known:?}");
        assert!(known.one_stream.step < known.several_streams.step);
        device.took(LoadId(1));
        for _ in 1..IN_A_ROW {
            assert_eq!(device.turn(), Some(LoadId(1)));
            device.took(LoadId(1));
        }
        assert_eq!(device.turn(), None, "it was long enough");
        device.took(LoadId(2));
        device.passes(LoadId(2));
        assert_eq!(device.turn(), None);
    }

    #[test]
    fn where_several_get_as_much_every_step_is_a_turn() {
        let (mut device, mut now) = (Device::default(), Moment(1));
        busy(&mut device, &mut now, &[1], Duration::from_millis(2));
        busy(&mut device, &mut now, &[1, 2, 3], Duration::from_millis(2));
        device.took(LoadId(1));
        assert_eq!(device.turn(), None);
    }

    #[test]
    fn of_many_programs_without_help_those_known_best_are_remembered() {
        let mut device = Device::default();
        for round in 0..3 {
            for program in 0..12 {
                if round == 0 || program < 3 {
                    device.held_out(program, true, Rate(1e6 * f64::from(program + 1)));
                }
            }
        }
        assert_eq!(device.without_help(2, true), Some(Rate(3e6)));
        assert_eq!(device.without_help(2, false), None);
        // The test vector of the function's authors.
        assert_eq!(program_hash("a"), 0xe40c_292c);
    }

    #[test]
    fn one_setback_says_nothing_of_a_load_that_is_helped_in_another_way() {
        let mut device = Device::default();
        device.harmed(false);
        assert!(!device.declines(false, true));
        assert!(device.declines(false, false), "others are left alone");
        device.harmed(false);
        device.harmed(false);
        assert!(device.declines(false, true), "it was no accident");
        assert!(!device.declines(true, false));
    }
}
