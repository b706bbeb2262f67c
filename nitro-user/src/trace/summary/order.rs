//! In which order a thread goes through a file.

use serde::Serialize;

use crate::units::{ByteRange, STEP};

/// Shares of accesses, together 1; all 0 where there was but one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Order {
    /// Where the one before ended, or a short gap behind it.
    pub sequential: f64,
    /// As far from the one before as that was from its own.
    pub strided: f64,
    /// Elsewhere.
    pub random: f64,
}

impl Order {
    /// In a word, for people.
    pub fn word(&self) -> &'static str {
        if self.sequential + self.strided + self.random == 0.0 {
            "-"
        } else if self.sequential >= 0.9 {
            "sequential"
        } else if self.strided >= 0.5 {
            "strided"
        } else if self.random >= 0.5 {
            "random"
        } else {
            "mixed"
        }
    }

    /// The share that goes with the word.
    pub fn share(&self) -> f64 {
        match self.word() {
            "strided" => self.strided,
            "random" => self.random,
            _ => self.sequential,
        }
    }
}

/// Counts of moves from one access to the next.
#[derive(Clone, Copy, Debug, Default)]
pub struct Moves {
    sequential: u64,
    strided: u64,
    random: u64,
}

/// Where one thread is.
#[derive(Clone, Copy, Debug)]
pub struct Trail {
    last: ByteRange,
    stride: Option<i64>,
}

impl Trail {
    /// Begins at its first access.
    pub const fn at(range: ByteRange) -> Self {
        Self {
            last: range,
            stride: None,
        }
    }

    /// Goes on to the next. `jumps` is what the kernel said of it, where it did: it sees the accesses between two events.
    pub fn go(&mut self, to: ByteRange, jumps: Option<bool>, moves: &mut Moves) {
        let distance = to.start.wrapping_sub(self.last.start).cast_signed();
        let follows = to.start >= self.last.start && to.start <= self.last.end.saturating_add(GAP);
        if !jumps.unwrap_or(!follows) {
            moves.sequential += 1;
            self.stride = None;
        } else {
            if self.stride.is_some_and(|stride| stride == distance) {
                moves.strided += 1;
            } else {
                moves.random += 1;
            }
            self.stride = Some(distance);
        }
        self.last = to;
    }
}

/// Gap that still continues a read: readers skip alignment holes between tensors.
const GAP: u64 = nitro_common::settings::GAP_BYTES;

impl Moves {
    /// Shares, where `all` accesses were made of which only the jumps and one in a step were seen.
    pub fn order(&self, all: Option<u64>) -> Order {
        let jumps = self.strided + self.random;
        let sequential = all.map_or(self.sequential, |all| {
            all.saturating_sub(jumps + 1).max(self.sequential)
        });
        let sum = (sequential + jumps) as f64;
        let share = |count: u64| if sum == 0.0 { 0.0 } else { count as f64 / sum };
        Order {
            sequential: share(sequential),
            strided: share(self.strided),
            random: share(self.random),
        }
    }
}

/// The step of an access.
pub const fn step_of(range: ByteRange) -> u64 {
    range.start / STEP
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1024;

    fn order(starts: &[u64], length: u64) -> Order {
        let mut moves = Moves::default();
        let mut trail = Trail::at(ByteRange::new(starts[0], length));
        for start in &starts[1..] {
            trail.go(ByteRange::new(*start, length), None, &mut moves);
        }
        moves.order(None)
    }

    #[test]
    fn reads_one_after_the_other_are_sequential_also_with_small_gaps() {
        assert_eq!(
            order(&[0, 64 * KIB, 128 * KIB, 200 * KIB], 64 * KIB).word(),
            "sequential"
        );
    }

    #[test]
    fn equal_distances_are_a_stride_from_the_second_on() {
        let starts: Vec<u64> = (0..11).map(|number| number * (1 << 20)).collect();
        let order = order(&starts, 4 * KIB);
        assert_eq!((order.word(), order.strided), ("strided", 0.9));
    }

    #[test]
    fn here_and_there_is_random() {
        let order = order(&[0, 5 << 20, 1 << 20, 9 << 20, 3 << 20], 4 * KIB);
        assert_eq!((order.word(), order.random), ("random", 1.0));
    }

    #[test]
    fn accesses_that_were_counted_and_not_told_were_in_order() {
        let mut moves = Moves::default();
        let mut trail = Trail::at(ByteRange::new(0, 4096));
        trail.go(ByteRange::new(8 << 20, 4096), Some(true), &mut moves);
        assert_eq!(moves.order(None).random, 1.0);
        assert_eq!(moves.order(Some(11)).random, 0.1);
    }
}
