//! What a handful of noisy measurements allows one to say. Deterministic: the same numbers give the same interval.

use serde::Serialize;

/// Fewest values whose interval holds the true middle in 95 of 100 cases: of five, all of them lie on one side of it in 6 of 100.
pub const FEWEST: usize = 6;

/// How often an interval is to hold the true middle.
const SURE: f64 = 0.95;

/// A middle and how far the values lie around it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// The middle value.
    pub median: f64,
    /// Distance between the quartiles.
    pub spread: f64,
}

/// Where a middle lies.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// The estimate itself.
    pub middle: f64,
    /// Upper end.
    pub high: f64,
    /// How often such an interval holds the true middle, 0–1: 0.95 at least, or, of fewer values than [`FEWEST`], what their whole range comes to.
    pub coverage: f64,
}

/// The value below which a share `q` of the values lies, between two values in proportion; NaN of nothing.
pub fn quantile(values: &[f64], q: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    quantile_of_sorted(&sorted, q)
}

fn quantile_of_sorted(sorted: &[f64], q: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else {
        return f64::NAN;
    };
    let place = q.clamp(0.0, 1.0) * last as f64;
    let (below, above) = (place.floor() as usize, place.ceil() as usize);
    sorted[below] + (sorted[above] - sorted[below]) * place.fract()
}

/// The median; NaN of nothing.
pub fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// Median and spread.
pub fn summary(values: &[f64]) -> Summary {
    Summary {
        median: median(values),
        spread: quantile(values, 0.75) - quantile(values, 0.25),
    }
}

/// Where the true median of what these values are drawn from lies: between two of them.
///
/// Each value lies below the true median with a chance of one half, whatever the distribution, so that how many do is binomial. The k-th smallest and the k-th largest value
/// enclose the median unless fewer than k lie on one side of it. Of all such pairs the narrowest is taken that does so in 95 of 100 cases; with fewer than [`FEWEST`] values there
/// is none, and the whole range is given. (A bootstrap of the median gives less than it says for so few: of three values that lie on one side of 1, which are 25 in 100 cases, it
/// says that 1 is excluded.)
pub fn median_interval(values: &[f64]) -> Interval {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let count = sorted.len();
    let (mut left_out, mut coverage) = (0, enclosed(count, 1));
    while coverage_is_enough(count, left_out + 2) {
        left_out += 1;
        coverage = enclosed(count, left_out + 1);
    }
    let at = |index: Option<usize>| index.and_then(|index| sorted.get(index)).copied().unwrap_or(f64::NAN);
    Interval {
        low: at(Some(left_out)),
        middle: quantile_of_sorted(&sorted, 0.5),
        high: at(count.checked_sub(left_out + 1)),
        coverage,
    }
}

/// Whether the `place`-th smallest and largest values enclose the median often enough, and are in this order.
fn coverage_is_enough(count: usize, place: usize) -> bool {
    2 * place <= count && enclosed(count, place) >= SURE
}

/// How often the `place`-th smallest and the `place`-th largest of `count` values enclose the true median.
fn enclosed(count: usize, place: usize) -> f64 {
    // Chance that exactly `below` of them lie below it. By logarithms: one half to the power of some thousand is no number.
    let mut chance = -(count as f64) * std::f64::consts::LN_2;
    let mut fewer = 0.0;
    for below in 0..place {
        fewer += chance.exp();
        chance += ((count - below.min(count)) as f64 / (below + 1) as f64).ln();
    }
    (1.0 - 2.0 * fewer).max(0.0)
}

/// The ratios of pairs measured one beside the other: what both had to bear cancels out.
pub fn paired_ratios(numerators: &[f64], denominators: &[f64]) -> Vec<f64> {
    numerators
        .iter()
        .zip(denominators)
        .map(|(numerator, denominator)| numerator / denominator)
        .collect()
}

/// The largest value; NaN of nothing.
pub fn worst(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::NAN, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_between_values() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(quantile(&[0.0, 10.0], 0.95), 9.5);
        assert!(median(&[]).is_nan());
        assert_eq!(
            summary(&[1.0, 2.0, 3.0, 4.0, 5.0]),
            Summary {
                median: 3.0,
                spread: 2.0
            }
        );
    }

    #[test]
    fn an_interval_lies_between_values_and_holds_its_middle() {
        let ratios = [0.98, 1.01, 1.0, 0.97, 1.02, 0.99];
        let interval = median_interval(&ratios);
        assert_eq!((interval.low, interval.middle, interval.high), (0.97, 0.995, 1.02));
        assert!((interval.coverage - 0.96875).abs() < 1e-12, "{interval:?}");
        // Tables of the sign test: of nine the second smallest and largest, of twenty the sixth, of a hundred the fortieth.
        let of = |count: usize| median_interval(&(1..=count).map(|value| value as f64).collect::<Vec<_>>());
        for (count, low) in [(6, 1.0), (8, 1.0), (9, 2.0), (12, 3.0), (20, 6.0), (100, 40.0)] {
            let interval = of(count);
            assert_eq!(
                (interval.low, interval.high),
                (low, count as f64 + 1.0 - low),
                "{count}"
            );
            assert!((0.95..0.995).contains(&interval.coverage), "{interval:?}");
        }
        let many = of(5000);
        assert!(many.coverage >= 0.95 && many.coverage < 0.952, "{many:?}");
        assert!(median_interval(&[]).low.is_nan() && median_interval(&[]).coverage == 0.0);
        assert_eq!(of(1).coverage, 0.0);
        for (count, coverage) in [(2, 0.5), (3, 0.75), (5, 0.9375)] {
            let interval = of(count);
            assert_eq!((interval.low, interval.high), (1.0, count as f64));
            assert!((interval.coverage - coverage).abs() < 1e-12, "{interval:?}");
        }
        assert!(of(FEWEST - 1).coverage < SURE && of(FEWEST).coverage >= SURE);
    }

    /// The share of samples of `count` values, drawn with a median of 1, whose interval does not hold 1.
    fn missed(count: usize, draw: impl Fn(&mut fastrand::Rng) -> f64) -> f64 {
        const SAMPLES: usize = 20_000;
        let mut random = fastrand::Rng::with_seed(7);
        let misses = (0..SAMPLES).filter(|_| {
            let sample: Vec<f64> = (0..count).map(|_| draw(&mut random)).collect();
            let interval = median_interval(&sample);
            interval.low > 1.0 || interval.high < 1.0
        });
        misses.count() as f64 / SAMPLES as f64
    }

    #[test]
    fn an_interval_misses_the_truth_as_seldom_as_it_says_whatever_the_distribution() {
        let even = |random: &mut fastrand::Rng| 0.9 + 0.2 * random.f64();
        // Most loads near each other, and some that took much longer.
        let skewed = |random: &mut fastrand::Rng| {
            let place = random.f64();
            if place < 0.5 {
                0.99 + 0.02 * place
            } else {
                1.0 + (place - 0.5).powi(3) * 40.0
            }
        };
        for count in [2, 3, 5, 6, 7, 9, 12, 25] {
            let expected = 1.0 - median_interval(&vec![1.0; count]).coverage;
            for missed in [missed(count, even), missed(count, skewed)] {
                assert!(
                    (missed - expected).abs() < 0.015,
                    "{count}: {missed}, expected {expected}"
                );
                assert!(count < FEWEST || missed < 0.055, "{count}: {missed}");
            }
        }
    }

    #[test]
    fn a_shift_shared_by_a_pair_cancels() {
        // The machine was twice as slow during the second pair.
        let ratios = paired_ratios(&[1.0, 2.0, 1.0], &[2.0, 4.0, 2.0]);
        let interval = median_interval(&ratios);
        assert_eq!((interval.low, interval.middle, interval.high), (0.5, 0.5, 0.5));
        assert_eq!(worst(&ratios), 0.5);
    }
}
