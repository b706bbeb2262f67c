//! How far a visit went, of which only the beginning is known.
//!
//! The kernel tells of an access once in 2 MiB, or when it jumps. Where the next event goes on, everything up to it was read; the last visit before a jump went on for less than a
//! step, and how far nobody said. But the bytes of all accesses were counted: what the visits do not explain yet is spread over the ends that are open.

use crate::units::{ByteRange, STEP};

/// How far a visit at `start` can have gone that is known to have reached `known_end`: the next step would have been told.
pub fn farthest(range: ByteRange, size: u64) -> u64 {
    let next_step = (range.start / STEP + 1).saturating_mul(STEP);
    next_step.min(size).max(range.end)
}

/// Lengthens visits whose ends are open, so that together with the others they come to `counted` bytes, as far as they can. `known` are the bytes of all as they are.
pub fn lengthen<'a>(open: impl Iterator<Item = (&'a mut ByteRange, u64)>, known: u64, counted: u64) {
    let mut open: Vec<(&mut ByteRange, u64)> = open.collect();
    let room: u64 = open
        .iter()
        .map(|(range, farthest)| farthest - range.end.min(*farthest))
        .sum();
    if room == 0 {
        return;
    }
    let share = (counted.saturating_sub(known) as f64 / room as f64).min(1.0);
    for (range, farthest) in &mut open {
        range.end += ((*farthest - range.end.min(*farthest)) as f64 * share) as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_ends_share_what_was_counted_beyond_what_is_known() {
        let mut ranges = [ByteRange::new(0, 100), ByteRange::new(10 * STEP, 100)];
        let ends = ranges.map(|range| farthest(range, 20 * STEP));
        assert_eq!(ends, [STEP, 11 * STEP]);
        let spread = |ranges: &mut [ByteRange; 2], counted| {
            lengthen(ranges.iter_mut().zip(ends), 200, counted);
            ranges.map(|range| range.len())
        };
        assert_eq!(spread(&mut ranges, 200), [100, 100]);
        assert_eq!(spread(&mut ranges, 200 + (STEP - 100)), [100 + (STEP - 100) / 2; 2]);
        assert_eq!(spread(&mut ranges, u64::MAX), [STEP, STEP]);
    }

    #[test]
    fn nothing_goes_past_the_end_of_its_file_or_back() {
        assert_eq!(farthest(ByteRange::new(0, 100), 1000), 1000);
        assert_eq!(farthest(ByteRange::new(0, 100), 50), 100);
        assert_eq!(farthest(ByteRange::new(u64::MAX - 5, 5), u64::MAX), u64::MAX);
    }
}
