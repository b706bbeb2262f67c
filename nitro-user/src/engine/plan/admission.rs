//! Whether a reader can use help: one that the device already serves at memory's speed cannot, and would pay for the attempt.
//!
//! Bringing a page in costs the agent a quarter of a second of processor time per GiB, on a machine whose reader may want both processors. Where
//! the reader does several GB/s by itself, its data being cached or its device that fast, the attempt can only lose.

use crate::units::{Moment, Rate};

/// A reader at this rate is left alone.
const FAST: Rate = Rate(2.5e9);

/// Bytes over which a rate is judged …
const JUDGED: u64 = 16 << 20;

/// … and the fewest on which a reader is called fast at first sight.
const LEAST_JUDGED: u64 = 256 << 10;

/// One step slower than this might be a pause; two in a row are a device.
const SLOW_STEP: Rate = Rate(1.25e9);

/// How a reader gets on by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Too little was seen.
    Unknown,
    /// It is served at memory's speed.
    Fast,
    /// It waits for its data, or for its own work.
    Slow,
}

/// The observation of one reader.
#[derive(Clone, Copy, Debug, Default)]
pub struct Admission {
    began: Option<Moment>,
    last: Moment,
    bytes: u64,
    slow_steps: u32,
    /// Its rate when it was last judged.
    judged: Option<Rate>,
}

impl Admission {
    /// The reader asked for `bytes` it had not asked for before, at `at`.
    pub fn observe(&mut self, at: Moment, bytes: u64) -> Pace {
        let Some(began) = self.began else {
            self.began = Some(at);
            self.last = at;
            return Pace::Unknown;
        };
        self.bytes += bytes;
        let step = Rate::over(bytes, at.since(self.last));
        self.slow_steps = if bytes > 0 && step < SLOW_STEP {
            self.slow_steps + 1
        } else {
            0
        };
        self.last = at;
        let overall = Rate::over(self.bytes, at.since(began));
        let pace = match self.slow_steps {
            2.. => Pace::Slow,
            _ if self.bytes < LEAST_JUDGED => Pace::Unknown,
            _ if overall >= FAST => Pace::Fast,
            _ => Pace::Slow,
        };
        if self.bytes >= JUDGED {
            self.judged = Some(overall);
            self.began = Some(at);
            self.bytes = 0;
        }
        pace
    }

    /// Whether a device of this rate serves buffered reads well enough without help: at memory's speed, or at half of what it can; or nothing is known of them
    /// yet.
    pub fn is_served_by(&self, rate: Option<Rate>) -> bool {
        let enough = |rate: Rate| self.judged.is_none_or(|judged| judged.0 >= FAST.0.min(rate.0 / 2.0));
        rate.is_some_and(|rate| keeps_up(Some(rate)) && enough(rate))
    }
}

/// Whether a device is so fast that nothing need be brought in before a reader shows that it waits.
pub fn keeps_up(rate: Option<Rate>) -> bool {
    rate.is_some_and(|rate| rate >= FAST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::STEP;

    fn observe(microseconds_per_step: u64, steps: u64) -> Pace {
        let mut admission = Admission::default();
        (0..steps)
            .map(|step| admission.observe(Moment(step * microseconds_per_step * 1000), STEP))
            .last()
            .unwrap()
    }

    #[test]
    fn a_reader_at_memory_speed_is_left_alone() {
        assert_eq!(observe(400, 50), Pace::Fast);
    }

    #[test]
    fn a_reader_that_waits_for_a_device_is_helped() {
        assert_eq!(observe(5_000, 1), Pace::Unknown);
        assert_eq!(observe(5_000, 2), Pace::Slow);
        assert_eq!(observe(1_200, 9), Pace::Slow);
    }

    #[test]
    fn a_device_as_fast_as_memory_serves_a_reader_that_gets_half_of_it() {
        let mut admission = Admission::default();
        assert!(admission.is_served_by(Some(Rate(6e9))));
        assert!(!admission.is_served_by(Some(Rate(1e9))));
        for step in 0..9 {
            admission.observe(Moment(step * 1_000_000), STEP);
        }
        assert!(admission.is_served_by(Some(Rate(4e9))), "2.1 GB/s");
        assert!(!admission.is_served_by(Some(Rate(5e9))));
        for step in 9..18 {
            admission.observe(Moment(step * 500_000 + 4_500_000), STEP);
        }
        assert!(admission.is_served_by(Some(Rate(9e9))), "at memory's speed");
    }

    #[test]
    fn a_cached_head_does_not_hide_a_cold_tail() {
        let mut admission = Admission::default();
        for step in 0..100 {
            admission.observe(Moment(step * 100_000), STEP);
        }
        // Two steps of 5 ms: the cache has ended.
        admission.observe(Moment(15_000_000), STEP);
        assert_eq!(admission.observe(Moment(20_000_000), STEP), Pace::Slow);
    }
}
