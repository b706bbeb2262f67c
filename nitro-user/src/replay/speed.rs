//! How fast a device was, as far as a trace shows it: what it gave in its best moment. It may have been able to do more.

use std::time::Duration;

use crate::units::{Moment, Rate};

/// A moment: long enough that a run that was told late does not count for much.
const MOMENT: Duration = Duration::from_millis(250);

/// Fewer bytes say nothing of a device.
const LEAST: u64 = 16 << 20;

/// Bytes that came, over time.
#[derive(Debug, Default)]
pub struct Speed {
    pieces: Vec<(Moment, Moment, u64)>,
}

impl Speed {
    /// So many bytes came between two moments.
    pub fn gave(&mut self, from: Moment, until: Moment, bytes: u64) {
        if bytes > 0 {
            self.pieces.push((from.min(until), until, bytes));
        }
    }

    /// The most in any moment; `None` where that is too little to tell.
    pub fn best(&self) -> Option<Rate> {
        let total: u64 = self.pieces.iter().map(|(_, _, bytes)| bytes).sum();
        if total < LEAST {
            return None;
        }
        let first = self.pieces.iter().map(|(from, ..)| *from).min()?;
        let last = self.pieces.iter().map(|(_, until, _)| *until).max()?;
        let all = last.since(first);
        if all <= MOMENT {
            return Some(Rate::over(total, all)).filter(|rate| rate.0 > 0.0);
        }
        let mut bins = std::collections::HashMap::<u128, f64>::new();
        let bin_of = |at: Moment| at.since(first).as_nanos() / MOMENT.as_nanos();
        for (from, until, bytes) in &self.pieces {
            // What took long came evenly; of what took very long the first bins are enough.
            let (one, end) = (bin_of(*from), bin_of(*until));
            let bins_of_it = end - one + 1;
            let each = *bytes as f64 / bins_of_it as f64;
            for bin in one..=end.min(one + 1000) {
                *bins.entry(bin).or_default() += each;
            }
        }
        let most = bins.into_values().fold(0.0, f64::max);
        Some(Rate(most / MOMENT.as_secs_f64()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u64) -> Moment {
        Moment(milliseconds * 1_000_000)
    }

    #[test]
    fn the_best_moment_counts() {
        let mut speed = Speed::default();
        assert!(speed.best().is_none());
        for piece in 0..100 {
            speed.gave(at(piece * 10), at(piece * 10), 1_000_000);
        }
        // And much slower afterwards.
        speed.gave(at(1000), at(9000), 100_000_000);
        let best = speed.best().unwrap().0;
        assert!((0.98e8..1.15e8).contains(&best), "{best}");
    }

    #[test]
    fn a_little_says_nothing_and_a_burst_is_what_it_is() {
        let mut speed = Speed::default();
        speed.gave(at(0), at(0), 1 << 20);
        assert!(speed.best().is_none());
        speed.gave(at(0), at(100), 100_000_000);
        assert!(speed.best().is_some_and(|rate| rate.0 > 1e9));
    }
}
