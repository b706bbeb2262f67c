//! Counts that fade with time, and times that are remembered by their logarithm.

use std::time::Duration;

/// What a number counted at `at` still counts at `now`, in seconds since 1970. A clock that was put back makes nothing fade.
pub fn faded(weight: f32, at: u64, now: u64, half_life: Duration) -> f32 {
    let age = now.saturating_sub(at);
    if age == 0 {
        return weight;
    }
    weight * (-(age as f32) / half_life.as_secs_f32()).exp2()
}

/// Seconds since 1970, whole.
pub fn seconds(now: Duration) -> u64 {
    now.as_secs()
}

/// The shortest time that is told from none.
const SHORTEST: f32 = 0.01;

/// How far the next one may be off where a single one is known: half to twice.
const FIRST_SPREAD: f32 = std::f32::consts::LN_2;

/// A mean moves by this share at least, so that times may change.
const LEAST_RATE: f32 = 0.05;

/// Standard deviations in a mean absolute deviation, of what is spread normally: the root of π/2.
const DEVIATIONS: f32 = 1.253_314;

/// Times that differ by factors: pauses between loads, from evidence to a read. Log-normal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Times {
    /// Mean of the natural logarithm of the seconds.
    pub log: f32,
    /// Mean absolute deviation of the same.
    pub spread: f32,
}

impl Times {
    /// Of a single one.
    pub fn once(time: Duration) -> Self {
        Self {
            log: log(time),
            spread: FIRST_SPREAD,
        }
    }

    /// Takes another one; `weight` is how many there are, this one included.
    pub fn learn(&mut self, time: Duration, weight: f32) {
        let off = log(time) - self.log;
        self.log += off * (1.0 / weight).clamp(LEAST_RATE, 1.0);
        // What one alone may be off counts as one: two that are alike by chance are not certain.
        self.spread += (off.abs() - self.spread) * (1.0 / (weight + 1.0)).clamp(LEAST_RATE, 1.0);
    }

    /// The time within which `share` of them are.
    pub fn within(&self, share: f64) -> Duration {
        let log = f64::from(self.log) + quantile(share) * f64::from(self.deviation());
        // 30 years, so that nothing overflows.
        Duration::from_secs_f64(log.exp().clamp(0.0, 1e9))
    }

    /// The share of them that are longer than `time`.
    pub fn longer_than(&self, time: Duration) -> f64 {
        if time.is_zero() {
            return 1.0;
        }
        normal_above(f64::from((log(time) - self.log) / self.deviation().max(0.05)))
    }

    /// The same as read from a file; `None` where it is no such thing.
    pub fn plausible(log: f32, spread: f32) -> Option<Self> {
        ((-10.0..25.0).contains(&log) && (0.0..25.0).contains(&spread)).then_some(Self { log, spread })
    }

    fn deviation(&self) -> f32 {
        self.spread * DEVIATIONS
    }
}

fn log(time: Duration) -> f32 {
    time.as_secs_f32().max(SHORTEST).ln()
}

/// The share of a standard normal distribution above `x`. Abramowitz and Stegun 26.2.17, off by less than 1e-7.
fn normal_above(x: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.231_641_9 * x.abs());
    let series =
        t * (0.319_381_530 + t * (-0.356_563_782 + t * (1.781_477_937 + t * (-1.821_255_978 + t * 1.330_274_429))));
    let tail = (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt() * series;
    if x >= 0.0 { tail } else { 1.0 - tail }
}

/// Below what a standard normal distribution has `share`. Abramowitz and Stegun 26.2.23, off by less than 5e-4.
fn quantile(share: f64) -> f64 {
    let tail = share.min(1.0 - share).clamp(1e-9, 0.5);
    let t = (-2.0 * tail.ln()).sqrt();
    let above =
        t - (2.515_517 + t * (0.802_853 + t * 0.010_328)) / (1.0 + t * (1.432_788 + t * (0.189_269 + t * 0.001_308)));
    if share < 0.5 { -above } else { above }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400;

    #[test]
    fn half_is_left_after_a_half_life_and_a_clock_put_back_takes_nothing() {
        let half_life = Duration::from_secs(30 * DAY);
        assert!((faded(8.0, 0, 60 * DAY, half_life) - 2.0).abs() < 1e-5);
        assert_eq!(faded(8.0, 100, 50, half_life), 8.0);
    }

    #[test]
    fn times_have_the_quantiles_that_they_were_drawn_with() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut draw = || {
            let normal: f64 = (0..12).map(|_| random.f64()).sum::<f64>() - 6.0;
            Duration::from_secs_f64(300.0 * (0.5 * normal).exp())
        };
        let mut times = Times::once(draw());
        let mut weight = 1.0;
        for _ in 0..200 {
            weight += 1.0;
            times.learn(draw(), weight);
        }
        for share in [0.1, 0.5, 0.9] {
            let bound = times.within(share);
            let inside = (0..2000).filter(|_| draw() <= bound).count() as f64 / 2000.0;
            assert!((inside - share).abs() < 0.12, "{inside} within the time of {share}");
            assert!((times.longer_than(bound) - (1.0 - share)).abs() < 0.01);
        }
    }

    #[test]
    fn a_single_time_is_known_by_a_factor() {
        let times = Times::once(Duration::from_secs(60));
        assert!(times.within(0.1) < Duration::from_secs(30) && times.within(0.9) > Duration::from_secs(120));
        assert!(times.within(0.5).abs_diff(Duration::from_secs(60)) < Duration::from_secs(1));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        assert_eq!(Times::plausible(f32::NAN, 1.0), None);
        assert_eq!(Times::plausible(1.0, -1.0), None);
        assert_eq!(Times::plausible(f32::INFINITY, 1.0), None);
        assert!(Times::plausible(3.0, 0.0).is_some());
    }
}
