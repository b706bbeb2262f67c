//! What a day came to with one contender, and what many days came to.

use nitro_user::sim::Report;
use serde::Serialize;

use super::{
    definition::Set,
    record::{Cold, Day},
    world::Contender,
};
use crate::stats::{median, quantile};

const MIB: f64 = (1 << 20) as f64;

/// Bytes of a day that count as wasted beside those that were, so that a day without waste has a ratio.
pub const SPARED: f64 = MIB;

/// Loads shorter than this without help are not asked whether they became slower.
const SHORT: f64 = 0.2;

/// A second time.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Second {
    /// When it was made cold.
    pub cold: Cold,
    /// Bytes that it read.
    pub demanded: u64,
    /// Of these, bytes that were in the page cache before it began.
    pub resident: u64,
    /// Bytes that help had brought in when it came to their step.
    pub in_time: u64,
    /// Bytes that help brought in after that.
    pub late: u64,
    /// Bytes of its model that help brought in from the eviction to its end.
    pub brought: u64,
    /// Of these, bytes that nobody ever read.
    pub wasted: u64,
}

/// What a day came to.
#[derive(Clone, Debug, Serialize)]
pub struct Score {
    /// The scenario.
    pub scenario: String,
    /// Its set.
    pub set: Set,
    /// The seed.
    pub seed: u64,
    /// Who helped.
    pub contender: Contender,
    /// Seconds that readers took.
    pub seconds: f64,
    /// Seconds less than without help.
    pub saved: f64,
    /// Bytes that help brought in.
    pub warmed: u64,
    /// Of these, bytes that nobody read before they were evicted or the day ended.
    pub wasted: u64,
    /// Bytes that the device gave.
    pub device: u64,
    /// The load that became slowest by help: its time over that without.
    pub worst: f64,
    /// Second times.
    pub seconds_loads: Vec<Second>,
}

impl Score {
    /// Of what came of a day, with a contender and without.
    pub fn new(day: &Day, set: Set, contender: Contender, report: &Report, without: &Report) -> Self {
        let total = |report: &Report| {
            report
                .reader_times
                .iter()
                .map(std::time::Duration::as_secs_f64)
                .sum::<f64>()
        };
        let seconds = total(report);
        let pairs = report.reader_times.iter().zip(&without.reader_times);
        let ratios = pairs
            .filter(|(_, without)| without.as_secs_f64() >= SHORT)
            .map(|(with, without)| with.as_secs_f64() / without.as_secs_f64());
        let cold = day
            .loads
            .iter()
            .enumerate()
            .filter_map(|(load, spec)| Some((load, spec.cold?)));
        let seconds_loads = cold.zip(&report.tallies).filter_map(|((load, cold), tally)| {
            let served = report.served.get(load)?;
            Some(Second {
                cold,
                demanded: served.demanded(),
                resident: served.resident,
                in_time: served.in_time,
                late: served.late,
                brought: tally.brought,
                wasted: tally.brought.saturating_sub(tally.used),
            })
        });
        Self {
            scenario: day.scenario.clone(),
            set,
            seed: day.seed,
            contender,
            seconds,
            saved: total(without) - seconds,
            warmed: report.used.by_help + report.wasted_bytes,
            wasted: report.wasted_bytes,
            device: report.device_bytes,
            worst: ratios.fold(0.0, f64::max),
            seconds_loads: seconds_loads.collect(),
        }
    }

    /// Seconds saved for each MiB wasted.
    pub fn worth(&self) -> f64 {
        self.saved * MIB / (self.wasted as f64 + SPARED)
    }
}

/// A middle, and where 90 of 100 lie.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Range {
    /// 5 of 100 are below.
    pub low: f64,
    /// The median.
    pub middle: f64,
    /// 5 of 100 are above.
    pub high: f64,
}

impl Range {
    fn of(values: &[f64]) -> Self {
        Self {
            low: quantile(values, 0.05),
            middle: median(values),
            high: quantile(values, 0.95),
        }
    }
}

/// Shares of second times.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Seconds {
    /// How many.
    pub count: usize,
    /// Share of what they read that was there in time: resident before, or brought in before they came to its step. Over all bytes.
    pub in_time: f64,
    /// That, and what was on its way when they came.
    pub covered: f64,
    /// Share of it that was resident before.
    pub resident: f64,
    /// Share of what help brought in for them that nobody ever read. Over all bytes.
    pub wasted: f64,
    /// `in_time` of each.
    pub each_in_time: Range,
    /// `covered` of each.
    pub each_covered: Range,
    /// `wasted` of each.
    pub each_wasted: Range,
}

impl Seconds {
    /// Of these.
    pub fn of<'a>(seconds: impl Iterator<Item = &'a Second> + Clone) -> Self {
        let sum = |count: fn(&Second) -> u64| seconds.clone().map(count).sum::<u64>();
        let demanded = sum(|one| one.demanded);
        let there = |one: &Second| one.resident + one.in_time;
        let covered: Vec<f64> = seconds
            .clone()
            .map(|one| share(there(one) + one.late, one.demanded))
            .collect();
        let in_time: Vec<f64> = seconds.clone().map(|one| share(there(one), one.demanded)).collect();
        let wasted: Vec<f64> = seconds.clone().map(|one| share(one.wasted, one.brought)).collect();
        Self {
            count: covered.len(),
            in_time: share(sum(|one| one.resident + one.in_time), demanded),
            covered: share(sum(|one| one.resident + one.in_time + one.late), demanded),
            resident: share(sum(|one| one.resident), demanded),
            wasted: share(sum(|one| one.wasted), sum(|one| one.brought)),
            each_in_time: Range::of(&in_time),
            each_covered: Range::of(&covered),
            each_wasted: Range::of(&wasted),
        }
    }
}

/// A part of a whole; 0 of nothing.
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// What many days came to with one contender.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Total {
    /// Days.
    pub days: usize,
    /// Seconds that readers took, of all days.
    pub seconds: f64,
    /// Seconds saved.
    pub saved: f64,
    /// Bytes brought in.
    pub warmed: u64,
    /// Bytes of these that nobody read.
    pub wasted: u64,
    /// The share of the time that was saved, of each day.
    pub each_saved: Range,
    /// The share of what was brought in that was wasted, of each day.
    pub each_wasted: Range,
    /// Seconds saved for each MiB wasted, of each day.
    pub each_worth: Range,
    /// The slowest load of each day by help.
    pub each_worst: Range,
    /// Second times.
    pub second: Seconds,
}

impl Total {
    /// Of these.
    pub fn of(scores: &[&Score]) -> Self {
        let each = |value: fn(&Score) -> f64| Range::of(&scores.iter().map(|score| value(score)).collect::<Vec<_>>());
        Self {
            days: scores.len(),
            seconds: scores.iter().map(|score| score.seconds).sum(),
            saved: scores.iter().map(|score| score.saved).sum(),
            warmed: scores.iter().map(|score| score.warmed).sum(),
            wasted: scores.iter().map(|score| score.wasted).sum(),
            each_saved: each(|score| score.saved / (score.seconds + score.saved)),
            each_wasted: each(|score| share(score.wasted, score.warmed)),
            each_worth: each(Score::worth),
            each_worst: each(|score| score.worst),
            second: Seconds::of(scores.iter().flat_map(|score| &score.seconds_loads)),
        }
    }

    /// The share of what was brought in that was wasted.
    pub fn waste(&self) -> f64 {
        share(self.wasted, self.warmed)
    }

    /// Seconds saved for each MiB wasted, a MiB of each day more.
    pub fn worth(&self) -> f64 {
        self.saved * MIB / (self.wasted as f64 + SPARED * self.days as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn second(demanded: u64, resident: u64, in_time: u64, late: u64, brought: u64, wasted: u64) -> Second {
        Second {
            cold: Cold::Early,
            demanded,
            resident,
            in_time,
            late,
            brought,
            wasted,
        }
    }

    fn score(saved: f64, warmed: u64, wasted: u64) -> Score {
        Score {
            scenario: "s".into(),
            set: Set::Tuning,
            seed: 0,
            contender: Contender::Agent,
            seconds: 10.0 - saved,
            saved,
            warmed,
            wasted,
            device: 0,
            worst: 1.0,
            seconds_loads: Vec::new(),
        }
    }

    #[test]
    fn shares_are_of_bytes_and_not_of_loads() {
        let all = [second(100, 10, 40, 50, 90, 0), second(900, 0, 0, 0, 10, 10)];
        let found = Seconds::of(all.iter());
        assert_eq!((found.count, found.in_time, found.covered), (2, 0.05, 0.1));
        assert_eq!((found.resident, found.wasted), (0.01, 0.1));
        assert_eq!((found.each_covered.middle, found.each_wasted.middle), (0.5, 0.5));
        assert_eq!(Seconds::of([].iter()).covered, 0.0);
    }

    #[test]
    fn a_day_without_waste_has_a_worth() {
        assert_eq!(score(2.0, 100, 0).worth(), 2.0);
        assert_eq!(score(2.0, 8 << 20, 1 << 20).worth(), 1.0);
    }

    #[test]
    fn totals_are_of_all_days_and_ranges_of_each() {
        let scores = [score(2.0, 4 << 20, 0), score(4.0, 4 << 20, 2 << 20)];
        let total = Total::of(&scores.iter().collect::<Vec<_>>());
        assert_eq!((total.days, total.saved, total.waste()), (2, 6.0, 0.25));
        // Two MiB wasted, and one for each day.
        assert_eq!(total.worth(), 1.5);
        assert!((total.each_saved.middle - 0.3).abs() < 1e-12);
        assert_eq!(total.each_wasted.middle, 0.25);
    }
}
