//! How much a model is used: a number of uses of which each counts half as much after a half-life.
//!
//! While somebody uses it, no time passes for it: a model that is served from mapped pages for a day, and raises no event, is as hot at the end of the day as at its beginning.

use std::time::Duration;

use crate::units::Moment;

/// The heat of one model.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Heat {
    value: f64,
    at: Moment,
}

impl Heat {
    /// What is left of `value`, which it was at `at`.
    pub const fn new(value: f64, at: Moment) -> Self {
        Self { value, at }
    }

    /// It is used once more.
    pub fn used(&mut self, now: Moment, half_life: Duration) {
        *self = Self::new(self.at(now, half_life) + 1.0, self.at.max(now));
    }

    /// It has been in use all the time until now.
    pub fn kept(&mut self, now: Moment) {
        self.at = self.at.max(now);
    }

    /// Uses, the earlier ones counting less.
    pub fn at(&self, now: Moment, half_life: Duration) -> f64 {
        decayed(self.value, now.since(self.at), half_life)
    }

    /// When it will have cooled below `threshold`, if nobody uses it.
    pub fn cools_below(&self, threshold: f64, half_life: Duration) -> Moment {
        if self.value <= threshold {
            return self.at;
        }
        if threshold <= 0.0 {
            return Moment(u64::MAX);
        }
        let half_lives = (self.value / threshold).log2();
        let seconds = half_lives * half_life.as_secs_f64();
        let time = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        // A nanosecond later it is below, not at it.
        self.at.after(time).after(Duration::from_nanos(1))
    }
}

/// What is left of `value` after `time`.
pub fn decayed(value: f64, time: Duration, half_life: Duration) -> f64 {
    value * (-time.as_secs_f64() / half_life.as_secs_f64().max(f64::MIN_POSITIVE)).exp2()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn at(hours: u64) -> Moment {
        Moment(0).after(HOUR * u32::try_from(hours).unwrap())
    }

    #[test]
    fn a_use_counts_half_after_a_half_life() {
        let mut heat = Heat::default();
        heat.used(at(1), 6 * HOUR);
        assert_eq!(heat.at(at(1), 6 * HOUR), 1.0);
        assert!((heat.at(at(7), 6 * HOUR) - 0.5).abs() < 1e-9);
        heat.used(at(7), 6 * HOUR);
        assert!((heat.at(at(13), 6 * HOUR) - 0.75).abs() < 1e-9);
    }

    #[test]
    fn what_is_in_use_does_not_cool() {
        let mut heat = Heat::default();
        heat.used(at(0), HOUR);
        (1..=24).for_each(|hour| heat.kept(at(hour)));
        assert_eq!(heat.at(at(24), HOUR), 1.0);
        assert!((heat.at(at(25), HOUR) - 0.5).abs() < 1e-9);
    }

    #[test]
    fn it_is_told_when_a_threshold_is_crossed() {
        let mut heat = Heat::default();
        heat.used(at(0), 6 * HOUR);
        let crossing = heat.cools_below(0.25, 6 * HOUR);
        assert!(heat.at(crossing, 6 * HOUR) <= 0.25);
        assert!(heat.at(Moment(crossing.0 - 1_000_000_000), 6 * HOUR) > 0.25);
        assert_eq!(Heat::default().cools_below(0.25, HOUR), Moment(0));
        assert_eq!(heat.cools_below(0.0, HOUR), Moment(u64::MAX));
    }
}
