//! What a handful of noisy measurements allows one to say. Deterministic: the same numbers give the same interval.

use serde::Serialize;

/// Resamples of a bootstrap; more do not change the second digit.
const RESAMPLES: usize = 10_000;

/// A middle and how far the values lie around it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// The middle value.
    pub median: f64,
    /// Distance between the quartiles.
    pub spread: f64,
}

/// A 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// The estimate itself.
    pub middle: f64,
    /// Upper end.
    pub high: f64,
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

/// Bootstrap interval of the median: how far the middle of these pairs would move with other pairs.
pub fn median_interval(values: &[f64]) -> Interval {
    let mut random = fastrand::Rng::with_seed(0x6e69_7472);
    let mut resample = vec![0.0; values.len()];
    let mut medians: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            resample.fill_with(|| random.choice(values).copied().unwrap_or(f64::NAN));
            resample.sort_by(f64::total_cmp);
            quantile_of_sorted(&resample, 0.5)
        })
        .collect();
    medians.sort_by(f64::total_cmp);
    Interval {
        low: quantile_of_sorted(&medians, 0.025),
        middle: median(values),
        high: quantile_of_sorted(&medians, 0.975),
    }
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
    fn an_interval_holds_its_middle_and_is_the_same_again() {
        let ratios = [0.98, 1.01, 1.0, 0.97, 1.02, 0.99, 1.0];
        let interval = median_interval(&ratios);
        assert!(interval.low <= interval.middle && interval.middle <= interval.high);
        assert!(interval.low >= 0.97 && interval.high <= 1.02);
        assert_eq!(interval, median_interval(&ratios));
    }

    #[test]
    fn a_shift_shared_by_a_pair_cancels() {
        // The machine was twice as slow during the second pair.
        let ratios = paired_ratios(&[1.0, 2.0, 1.0], &[2.0, 4.0, 2.0]);
        assert_eq!(
            median_interval(&ratios),
            Interval {
                low: 0.5,
                middle: 0.5,
                high: 0.5
            }
        );
        assert_eq!(worst(&ratios), 0.5);
    }
}
