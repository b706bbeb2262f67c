//! How often predictions come true: the confidence that they are given afterwards.
//!
//! Predictions are kept until they come true or can no longer, and are counted by their raw confidence. From the counts comes a curve that never falls (isotonic
//! regression: buckets that contradict each other are pooled, as by Ayer and others 1955; for probabilities Zadrozny and Elkan 2002), with a prior that believes raw
//! confidences in part, until there is experience. Older counts fade, by number and not by time: what was learned of a predictor holds while nobody asks it.
//!
//! A prediction is made when a program has begun to load a model, and comes true when the model is the next that the program loads, within the horizon, or is loaded together
//! with the next.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use super::successors::{HORIZON, TOGETHER};
use crate::engine::learn::row::{Change, Number, Row};

/// Buckets of raw confidence.
pub const BUCKETS: usize = 24;

/// Predictions that the prior counts for, in each bucket. Measured over the first ten days of generated workloads, mean error of the worst kind: 1 with a caution of 0.75
/// 0.046, 2 0.043, 4 0.050; 2 with 0.5 0.060, with 0.9 0.043.
const PRIOR: f32 = 2.0;

/// Of a raw confidence, what is believed without experience.
const CAUTION: f32 = 0.75;

/// When a bucket has counted so many, all it counted is worth half.
const MOST_COUNTED: f32 = 400.0;

/// Predictions of one program that are open at once: each load of a group makes some.
const MOST_OPEN: usize = 8;

/// What was offered at one load.
#[derive(Debug)]
struct Offer {
    at: Duration,
    /// The last load of those that it was right or wrong about; none yet.
    begun: Option<Duration>,
    /// Models and the buckets of their confidence.
    open: Vec<(Number, u8)>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Bucket {
    right: f32,
    all: f32,
    changed: bool,
}

/// Counts of predictions, and the curve that they make.
#[derive(Debug)]
pub struct Calibration {
    buckets: [Bucket; BUCKETS],
    curve: [f32; BUCKETS],
    offers: BTreeMap<Number, Vec<Offer>>,
}

impl Default for Calibration {
    fn default() -> Self {
        let mut calibration = Self {
            buckets: [Bucket::default(); BUCKETS],
            curve: [0.0; BUCKETS],
            offers: BTreeMap::new(),
        };
        calibration.fit();
        calibration
    }
}

impl Calibration {
    /// The confidence that experience gives to a raw one; never falls where the raw one rises.
    pub fn corrected(&self, raw: f32) -> f32 {
        // Between the middles of two buckets there is a straight line.
        let place = (raw.clamp(0.0, 1.0) * BUCKETS as f32 - 0.5).clamp(0.0, (BUCKETS - 1) as f32);
        let low = (place as usize).min(BUCKETS - 2);
        let share = place - low as f32;
        self.curve[low] + (self.curve[low + 1] - self.curve[low]) * share
    }

    /// What a program is predicted to load next, with raw confidences.
    pub fn offer(&mut self, now: Duration, program: Number, models: Vec<(Number, f32)>) {
        if models.is_empty() {
            return;
        }
        let offers = self.offers.entry(program).or_default();
        if offers.len() >= MOST_OPEN {
            offers.remove(0);
        }
        let open = models.into_iter().map(|(model, raw)| (model, bucket(raw)));
        offers.push(Offer {
            at: now,
            begun: None,
            open: open.collect(),
        });
    }

    /// A program loads a model: some predictions come true, and others can no longer.
    pub fn came(&mut self, now: Duration, program: Number, model: Number) {
        let Some(offers) = self.offers.get_mut(&program) else {
            return;
        };
        let (mut right, mut wrong) = (Vec::new(), Vec::new());
        offers.retain_mut(|offer| {
            if offer.is_over(now) {
                wrong.append(&mut offer.open);
                return false;
            }
            offer.begun = Some(now.max(offer.begun.unwrap_or_default()));
            if let Some(found) = offer.open.iter().position(|(open, _)| *open == model) {
                right.push(offer.open.swap_remove(found));
            }
            !offer.open.is_empty()
        });
        if offers.is_empty() {
            self.offers.remove(&program);
        }
        self.count(&right, &wrong);
    }

    /// Predictions whose time is over did not come true.
    pub fn settle(&mut self, now: Duration) {
        let mut wrong = Vec::new();
        self.offers.retain(|_, offers| {
            offers.retain_mut(|offer| {
                let is_over = offer.is_over(now);
                if is_over {
                    wrong.append(&mut offer.open);
                }
                !is_over
            });
            !offers.is_empty()
        });
        self.count(&[], &wrong);
    }

    /// Models and programs that are no more were not predicted either.
    pub fn forget(&mut self, models: &HashSet<Number>, programs: &HashSet<Number>) {
        self.offers.retain(|program, offers| {
            offers
                .iter_mut()
                .for_each(|offer| offer.open.retain(|(model, _)| !models.contains(model)));
            !programs.contains(program)
        });
    }

    /// Takes a row that was kept.
    pub fn restore(&mut self, bucket: u8, right: f32, all: f32) {
        let is_count = right >= 0.0 && right <= all && all <= MOST_COUNTED + 1.0;
        if let Some(found) = self.buckets.get_mut(usize::from(bucket))
            && is_count
        {
            (found.right, found.all) = (right, all);
            self.fit();
        }
    }

    /// Rows that changed since the last time.
    pub fn take_changes(&mut self) -> Vec<Change> {
        let row = |(index, bucket): (usize, &mut Bucket)| {
            std::mem::take(&mut bucket.changed).then_some(Change::Put(Row::Calibration {
                bucket: index as u8,
                right: bucket.right,
                all: bucket.all,
            }))
        };
        self.buckets.iter_mut().enumerate().filter_map(row).collect()
    }

    /// Predictions counted, and how many of them came true: decayed numbers.
    pub fn counted(&self) -> (f32, f32) {
        self.buckets.iter().fold((0.0, 0.0), |(all, right), bucket| {
            (all + bucket.all, right + bucket.right)
        })
    }

    fn count(&mut self, right: &[(Number, u8)], wrong: &[(Number, u8)]) {
        if right.is_empty() && wrong.is_empty() {
            return;
        }
        let right = right.iter().map(|(_, bucket)| (*bucket, 1.0));
        let wrong = wrong.iter().map(|(_, bucket)| (*bucket, 0.0));
        for (bucket, came) in right.chain(wrong) {
            let bucket = &mut self.buckets[usize::from(bucket)];
            if bucket.all >= MOST_COUNTED {
                bucket.all /= 2.0;
                bucket.right /= 2.0;
            }
            bucket.all += 1.0;
            bucket.right += came;
            bucket.changed = true;
        }
        self.fit();
    }

    /// Pools neighbours until nothing falls.
    fn fit(&mut self) {
        // Sums of what came true, of all, and how many buckets are in it.
        let mut pools: Vec<(f32, f32, usize)> = Vec::with_capacity(BUCKETS);
        for (index, bucket) in self.buckets.iter().enumerate() {
            let middle = (index as f32 + 0.5) / BUCKETS as f32;
            let mut pool = (bucket.right + PRIOR * CAUTION * middle, bucket.all + PRIOR, 1);
            while let Some(before) = pools
                .last()
                .copied()
                .filter(|before| before.0 * pool.1 > pool.0 * before.1)
            {
                pools.pop();
                pool = (pool.0 + before.0, pool.1 + before.1, pool.2 + before.2);
            }
            pools.push(pool);
        }
        let values = pools
            .iter()
            .flat_map(|pool| std::iter::repeat_n(pool.0 / pool.1, pool.2));
        self.curve
            .iter_mut()
            .zip(values)
            .for_each(|(point, value)| *point = value);
    }
}

impl Offer {
    /// Whether nothing that is loaded at `now` can be what was meant.
    fn is_over(&self, now: Duration) -> bool {
        match self.begun {
            None => now.saturating_sub(self.at) > HORIZON,
            Some(begun) => now.saturating_sub(begun) > TOGETHER,
        }
    }
}

fn bucket(raw: f32) -> u8 {
    let bucket = (raw.clamp(0.0, 1.0) * BUCKETS as f32) as usize;
    bucket.min(BUCKETS - 1) as u8
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn offered(calibration: &mut Calibration, at: Duration, raw: f32) {
        calibration.offer(at, 1, vec![(7, raw)]);
    }

    #[test]
    fn without_experience_it_is_cautious() {
        let calibration = Calibration::default();
        for percent in 5..100_u8 {
            let raw = f32::from(percent) / 100.0;
            let corrected = calibration.corrected(raw);
            assert!(corrected < raw && corrected > 0.5 * raw, "{raw} became {corrected}");
        }
    }

    #[test]
    fn what_comes_true_is_believed_and_what_does_not_is_not() {
        let mut calibration = Calibration::default();
        for day in 0..60 {
            let at = Duration::from_secs(day * 86_400);
            calibration.offer(at, 1, vec![(7, 0.3), (8, 0.7)]);
            calibration.came(at + 60 * SECOND, 1, 7);
        }
        calibration.settle(Duration::from_secs(100 * 86_400));
        // They contradict each other: the higher one can have no less.
        let (low, high) = (calibration.corrected(0.3), calibration.corrected(0.7));
        assert!((0.35..0.6).contains(&low) && low <= high && high < 0.6, "{low} {high}");
        assert_eq!(calibration.counted(), (120.0, 60.0));
    }

    #[test]
    fn a_prediction_holds_for_the_next_load_and_those_together_with_it() {
        let mut calibration = Calibration::default();
        let came = |calibration: &mut Calibration, second: u64, model| {
            calibration.came(Duration::from_secs(second), 1, model);
        };
        calibration.offer(Duration::ZERO, 1, vec![(7, 0.5), (8, 0.5), (9, 0.5)]);
        // Another program's loads say nothing.
        calibration.came(SECOND, 2, 9);
        assert_eq!(calibration.counted(), (0.0, 0.0));
        came(&mut calibration, 600, 7);
        came(&mut calibration, 605, 8);
        assert_eq!(calibration.counted(), (2.0, 2.0));
        came(&mut calibration, 700, 9);
        assert_eq!(calibration.counted(), (3.0, 2.0), "too late");
    }

    #[test]
    fn after_the_horizon_it_did_not_come_true() {
        let mut calibration = Calibration::default();
        offered(&mut calibration, Duration::ZERO, 0.5);
        calibration.came(HORIZON + SECOND, 1, 7);
        assert_eq!(calibration.counted(), (1.0, 0.0));
        offered(&mut calibration, Duration::ZERO, 0.5);
        calibration.settle(HORIZON);
        assert_eq!(calibration.counted(), (1.0, 0.0));
        calibration.settle(HORIZON + SECOND);
        assert_eq!(calibration.counted(), (2.0, 0.0));
    }

    #[test]
    fn what_is_forgotten_was_not_predicted() {
        let mut calibration = Calibration::default();
        calibration.offer(Duration::ZERO, 1, vec![(7, 0.5), (8, 0.5)]);
        calibration.offer(Duration::ZERO, 2, vec![(7, 0.5), (8, 0.5)]);
        calibration.forget(&HashSet::from([7]), &HashSet::from([2]));
        calibration.settle(2 * HORIZON);
        assert_eq!(calibration.counted(), (1.0, 0.0));
    }

    #[test]
    fn rows_that_cannot_be_are_left_out() {
        let mut calibration = Calibration::default();
        let before = calibration.curve;
        for (bucket, right, all) in [
            (99, 1.0, 2.0),
            (3, 3.0, 2.0),
            (3, f32::NAN, 2.0),
            (3, 0.0, f32::INFINITY),
            (3, -1.0, 2.0),
        ] {
            calibration.restore(bucket, right, all);
        }
        assert_eq!(calibration.curve, before);
    }

    proptest! {
        #[test]
        fn the_curve_never_falls_and_comes_back_from_its_rows(
            counts in prop::collection::vec((0.0..1.0_f32, 0.0..MOST_COUNTED), BUCKETS),
            more in prop::collection::vec((0.0..1.0_f32, any::<bool>()), 0..200),
        ) {
            let mut calibration = Calibration::default();
            for (bucket, (right, all)) in counts.iter().enumerate() {
                calibration.restore(bucket as u8, right * all, *all);
            }
            for (raw, comes) in &more {
                offered(&mut calibration, Duration::ZERO, *raw);
                calibration.came(SECOND, 1, if *comes { 7 } else { 8 });
                calibration.settle(2 * HORIZON);
            }
            let values: Vec<f32> = (0..=1000_u16).map(|raw| calibration.corrected(f32::from(raw) / 1000.0)).collect();
            prop_assert!(values.windows(2).all(|pair| pair[0] <= pair[1] + 1e-6));
            prop_assert!(values.iter().all(|value| (0.0..=1.0).contains(value)));

            let mut again = Calibration::default();
            for (bucket, (right, all)) in counts.iter().enumerate() {
                again.restore(bucket as u8, right * all, *all);
            }
            for change in calibration.take_changes() {
                let Change::Put(Row::Calibration { bucket, right, all }) = change else { panic!("{change:?}") };
                again.restore(bucket, right, all);
            }
            prop_assert_eq!(again.curve, calibration.curve);
        }
    }
}
