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

/// The observation of one reader.
#[derive(Clone, Copy, Debug, Default)]
pub struct Admission {
    began: Option<Moment>,
    last: Moment,
    bytes: u64,
    slow_steps: u32,
}

impl Admission {
    /// The reader asked for `bytes` it had not asked for before, at `at`. Says whether it is slow enough to be helped.
    pub fn needs_help(&mut self, at: Moment, bytes: u64) -> bool {
        let Some(began) = self.began else {
            self.began = Some(at);
            self.last = at;
            return true;
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
        let fast = self.bytes >= LEAST_JUDGED && overall >= FAST && self.slow_steps < 2;
        if self.bytes >= JUDGED {
            self.began = Some(at);
            self.bytes = 0;
        }
        !fast
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

    fn observe(microseconds_per_step: u64, steps: u64) -> bool {
        let mut admission = Admission::default();
        (0..steps)
            .map(|step| admission.needs_help(Moment(step * microseconds_per_step * 1000), STEP))
            .last()
            .unwrap()
    }

    #[test]
    fn a_reader_at_memory_speed_is_left_alone() {
        assert!(!observe(400, 50));
    }

    #[test]
    fn a_reader_that_waits_for_a_device_is_helped() {
        assert!(observe(5_000, 2));
        assert!(observe(1_200, 9));
    }

    #[test]
    fn a_cached_head_does_not_hide_a_cold_tail() {
        let mut admission = Admission::default();
        for step in 0..100 {
            admission.needs_help(Moment(step * 100_000), STEP);
        }
        // Two steps of 5 ms: the cache has ended.
        admission.needs_help(Moment(15_000_000), STEP);
        assert!(admission.needs_help(Moment(20_000_000), STEP));
    }
}
