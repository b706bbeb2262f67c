//! What the figures allow one to say, in one sentence. Pure.

use serde::Serialize;

use super::stats::{self, Interval};

/// Fewest pairs that a verdict rests on: of fewer there is no interval of 95 %.
pub const FEWEST: usize = stats::FEWEST;

/// A difference of less is none: what the start of an agent, or a neighbour on the machine, may shift all pairs by.
const LEAST: f64 = 1.02;

/// As long as it waits for no more than this many times what the device itself needs, the device gives all it has.
const ALL_IT_HAS: f64 = 1.15;
/// Below this share of its time, waiting for the device is not what a load is made of.
const HARDLY: f64 = 0.1;

/// What came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The interval lies above 1, and the middle is 2 % above it at least.
    Faster,
    /// The interval lies below 1, and the middle is 2 % below it at least.
    Slower,
    /// Neither.
    NoDifference,
    /// Fewer than [`FEWEST`] pairs.
    TooFew,
}

/// What a load without help waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bound {
    /// The device gives more when it is asked for much at once.
    Requests,
    /// The device gives all it has.
    Bytes,
    /// The load's own work: it hardly waits for the device.
    Work,
    /// The device's own limit is not known, or what the load takes with everything in memory.
    Unknown,
}

/// Seconds that a load takes, the middles of all runs.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// Without help.
    pub without: f64,
    /// With everything in memory; `None` where not everything was.
    pub cached: Option<f64>,
    /// What the device needs for the same bytes when it is asked for many at once.
    pub limit: Option<f64>,
}

/// How it is said.
#[derive(Clone, Copy, Debug)]
pub struct Words {
    /// What became faster: "to exit".
    pub done: &'static str,
    /// What is read from: "your disk".
    pub device: &'static str,
}

/// What can be said.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// What came out.
    pub outcome: Outcome,
    /// What a load without help waits for.
    pub bound: Bound,
    /// Times as fast as without, with its 95 % interval.
    pub faster: Interval,
    /// In words.
    pub sentence: String,
}

/// Judges pairs: `ratios` are times without over times with, of one pair each.
pub fn judge(ratios: &[f64], times: Times, words: Words) -> Verdict {
    let faster = stats::median_interval(ratios);
    let outcome = match ratios.len() {
        ..FEWEST => Outcome::TooFew,
        _ if faster.low > 1.0 && faster.middle >= LEAST => Outcome::Faster,
        _ if faster.high < 1.0 && faster.middle <= 1.0 / LEAST => Outcome::Slower,
        _ => Outcome::NoDifference,
    };
    let bound = bound(times);
    Verdict {
        outcome,
        bound,
        faster,
        sentence: sentence(outcome, bound, faster.middle, ratios.len(), words),
    }
}

fn bound(times: Times) -> Bound {
    let (Some(cached), Some(limit)) = (times.cached, times.limit) else {
        return Bound::Unknown;
    };
    let waiting = times.without - cached;
    if waiting < times.without * HARDLY {
        Bound::Work
    } else if waiting <= limit * ALL_IT_HAS {
        Bound::Bytes
    } else {
        Bound::Requests
    }
}

fn sentence(outcome: Outcome, bound: Bound, faster: f64, runs: usize, Words { done, device }: Words) -> String {
    let said = match outcome {
        Outcome::Faster => format!("{} times faster {done}", times(faster)),
        Outcome::Slower => format!("{} times slower {done}", times(1.0 / faster)),
        Outcome::NoDifference => format!("no difference could be shown in {runs} runs"),
        Outcome::TooFew if runs == 1 => return format!("1 run is too few for a verdict: it takes {FEWEST}"),
        Outcome::TooFew => return format!("{runs} runs are too few for a verdict: it takes {FEWEST}"),
    };
    match (bound, outcome) {
        (Bound::Requests, Outcome::Faster | Outcome::Slower) => format!("{said}; {device} is bound by requests"),
        // It could give more, and does not: that it is for want of requests was not shown.
        (Bound::Requests, _) => said,
        (Bound::Bytes, Outcome::Faster) => {
            format!("{said}; {device} is bound by bytes, and now reads on while the load works")
        }
        (Bound::Bytes, _) => format!("{said}; {device} is bound by bytes, of which nothing gets more out of it"),
        (Bound::Work, _) => format!("{said}; it hardly waits for {device}"),
        (Bound::Unknown, _) => said,
    }
}

/// A ratio with as many digits as mean anything.
pub fn times(ratio: f64) -> String {
    match ratio {
        ..1.995 => format!("{ratio:.2}"),
        ..99.95 => format!("{ratio:.1}"),
        _ => format!("{ratio:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORDS: Words = Words {
        done: "to exit",
        device: "your disk",
    };

    fn said(ratios: &[f64], without: f64, cached: impl Into<Option<f64>>, limit: Option<f64>) -> String {
        let cached = cached.into();
        let times = Times { without, cached, limit };
        judge(ratios, times, WORDS).sentence
    }

    #[test]
    fn a_difference_is_claimed_only_where_the_interval_excludes_one() {
        let clear = [3.9, 3.8, 3.95, 3.9, 3.85, 3.9];
        assert_eq!(
            said(&clear, 8.1, 0.1, Some(2.1)),
            "3.9 times faster to exit; your disk is bound by requests"
        );
        let both = [1.02, 0.97, 1.01, 0.99, 1.0, 1.0];
        assert_eq!(
            said(&both, 8.1, 0.1, Some(8.0)),
            "no difference could be shown in 6 runs; your disk is bound by bytes, of which nothing gets more out of it"
        );
        let slower = [0.9, 0.91, 0.92, 0.91, 0.9, 0.92];
        assert_eq!(said(&slower, 1.0, 0.0, None), "1.10 times slower to exit");
        // One bad pair of six: the middle says faster, the interval does not.
        assert!(said(&[1.5, 1.4, 1.5, 1.4, 1.5, 0.8], 1.0, 0.0, None).starts_with("no difference"));
    }

    #[test]
    fn a_difference_of_a_hundredth_is_none_however_sure_it_is() {
        for ratio in [1.012, 1.0 / 1.012] {
            assert!(
                said(&[ratio; 40], 1.0, 0.0, None).starts_with("no difference"),
                "{ratio}"
            );
        }
        assert!(said(&[1.03; 40], 1.0, 0.0, None).starts_with("1.03 times faster"));
        assert!(said(&[0.97; 40], 1.0, 0.0, None).starts_with("1.03 times slower"));
    }

    #[test]
    fn few_runs_say_nothing_however_clear_they_are() {
        assert_eq!(
            said(&[4.0; 5], 4.0, 0.0, Some(1.0)),
            "5 runs are too few for a verdict: it takes 6"
        );
        assert!(said(&[4.0], 4.0, 0.0, Some(4.0)).starts_with("1 run is too few"));
    }

    #[test]
    fn what_a_load_works_is_not_the_disks_affair() {
        let gain = [1.6; 6];
        assert!(
            said(&gain, 3.8, 2.2, Some(2.1))
                .ends_with("your disk is bound by bytes, and now reads on while the load works")
        );
        assert!(said(&[1.0; 6], 3.8, 3.7, Some(2.1)).ends_with("it hardly waits for your disk"));
    }

    #[test]
    fn nothing_is_said_of_the_disk_where_it_was_not_measured_or_asked_again() {
        let same = [1.0; 6];
        assert_eq!(said(&same, 3.8, 3.7, None), "no difference could be shown in 6 runs");
        assert_eq!(
            said(&same, 3.8, None, Some(2.1)),
            "no difference could be shown in 6 runs"
        );
    }

    #[test]
    fn a_ratio_has_the_digits_that_mean_anything() {
        assert_eq!([times(1.026), times(3.86), times(223.4)], ["1.03", "3.9", "223"]);
    }
}
