//! How long after the first evidence of a load its reader begins: what a deadline is made of.
//!
//! In: for each load, the time from the first sign of it (a command line, an open, a header read) to the first read beyond the header. Out: by when so and so many of them have
//! begun. For each layout and program; of a program that nobody knows, what any program takes with that layout.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet, btree_map::Entry},
    time::Duration,
};

use crate::{
    catalog::model::LayoutKind,
    engine::learn::{
        fading::{Times, faded, seconds},
        row::{Change, Lead, Number, Row},
    },
};

/// Loads count half after so long.
const HALF_LIFE: Duration = Duration::from_secs(30 * 86_400);

/// A program's own times count from so many loads on; before, any program's may be as good.
const OWN: f32 = 1.5;

/// What counts less is as if it had never been.
const FAINT: f32 = 0.06;

/// Longer than this nobody waits between a sign and a read: they belong to different things.
const LONGEST: Duration = Duration::from_secs(3600);

#[derive(Clone, Copy, Debug)]
struct Known {
    weight: f32,
    at: u64,
    times: Times,
}

/// All times.
#[derive(Debug, Default)]
pub struct Leads {
    known: BTreeMap<(LayoutKind, Number), Known>,
    touched: BTreeSet<(LayoutKind, Number)>,
}

impl Leads {
    /// A load of a model with this layout by this program (0: nobody knows which) began to read so long after its first sign. Times are since 1970.
    pub fn learn(&mut self, now: Duration, layout: LayoutKind, program: Number, lead: Duration) {
        if lead > LONGEST {
            return;
        }
        // What any program takes is counted under none.
        for program in BTreeSet::from([program, 0]) {
            let at = seconds(now);
            match self.known.entry((layout, program)) {
                Entry::Vacant(entry) => {
                    entry.insert(Known {
                        weight: 1.0,
                        at,
                        times: Times::once(lead),
                    });
                }
                Entry::Occupied(mut entry) => {
                    let known = entry.get_mut();
                    known.weight = faded(known.weight, known.at, at, HALF_LIFE) + 1.0;
                    known.at = at;
                    known.times.learn(lead, known.weight);
                }
            }
            self.touched.insert((layout, program));
        }
    }

    /// The time after the first sign by which `share` of such loads have begun to read; `None` where nothing is known.
    pub fn within(&self, now: Duration, layout: LayoutKind, program: Number, share: f64) -> Option<Duration> {
        let weight = |known: &&Known| faded(known.weight, known.at, seconds(now), HALF_LIFE);
        let own = self.known.get(&(layout, program)).filter(|known| weight(known) >= OWN);
        let any = self.known.get(&(layout, 0)).filter(|known| weight(known) >= FAINT);
        Some(own.or(any)?.times.within(share))
    }

    /// Takes a row that was kept; others than its own are ignored, and so is what cannot be.
    pub fn restore(&mut self, now: Duration, row: &Row) {
        let Row::Lead(row) = row else { return };
        let is_weight = row.weight > 0.0 && row.weight <= 1e6;
        if let Some(times) = Times::plausible(row.log, row.spread).filter(|_| is_weight) {
            let known = Known {
                weight: row.weight,
                at: row.at.min(seconds(now)),
                times,
            };
            self.known.insert((row.layout, row.program), known);
        }
    }

    /// Forgets programs. Whoever told of it does not need to hear of each row.
    pub fn forget(&mut self, programs: &HashSet<Number>) {
        self.known.retain(|(_, program), _| !programs.contains(program));
        self.touched.retain(|(_, program)| !programs.contains(program));
    }

    /// Rows that changed since the last time.
    pub fn take_changes(&mut self) -> Vec<Change> {
        let touched = std::mem::take(&mut self.touched);
        let row = |(layout, program): (LayoutKind, Number)| {
            let known = self.known.get(&(layout, program))?;
            Some(Change::Put(Row::Lead(Lead {
                layout,
                program,
                weight: known.weight,
                at: known.at,
                log: known.times.log,
                spread: known.times.spread,
            })))
        };
        touched.into_iter().filter_map(row).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Duration = Duration::from_secs(1_767_571_200);
    const DAY: Duration = Duration::from_secs(86_400);

    fn millis(time: u64) -> Duration {
        Duration::from_millis(time)
    }

    #[test]
    fn a_deadline_is_met_as_often_as_it_says() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut draw = move || {
            let normal: f64 = (0..12).map(|_| random.f64()).sum::<f64>() - 6.0;
            Duration::from_secs_f64(2.0 * (0.4 * normal).exp())
        };
        let mut leads = Leads::default();
        (0..100).for_each(|_| leads.learn(START, LayoutKind::Gguf, 1, draw()));
        for share in [0.1, 0.5, 0.9] {
            let deadline = leads.within(START, LayoutKind::Gguf, 1, share).unwrap();
            let begun = (0..2000).filter(|_| draw() <= deadline).count() as f64 / 2000.0;
            assert!((begun - share).abs() < 0.12, "{begun} had begun by the time of {share}");
        }
    }

    #[test]
    fn a_program_nobody_knows_takes_what_any_does() {
        let mut leads = Leads::default();
        assert_eq!(leads.within(START, LayoutKind::Gguf, 7, 0.5), None);
        (0..10).for_each(|_| leads.learn(START, LayoutKind::Gguf, 1, millis(2000)));
        let near = |found: Option<Duration>, time: u64| found.unwrap().abs_diff(millis(time)) < millis(time / 5);
        assert!(near(leads.within(START, LayoutKind::Gguf, 7, 0.5), 2000));
        assert_eq!(leads.within(START, LayoutKind::Ollama, 7, 0.5), None);
        // Its own times go first once there are two.
        (0..2).for_each(|_| leads.learn(START, LayoutKind::Gguf, 7, millis(100)));
        assert!(near(leads.within(START, LayoutKind::Gguf, 7, 0.5), 100));
        leads.forget(&HashSet::from([7]));
        assert!(leads.within(START, LayoutKind::Gguf, 7, 0.5).unwrap() > millis(1000));
    }

    #[test]
    fn what_took_an_hour_has_another_reason_and_what_is_old_is_forgotten() {
        let mut leads = Leads::default();
        leads.learn(START, LayoutKind::Gguf, 1, 2 * LONGEST);
        assert_eq!(leads.within(START, LayoutKind::Gguf, 1, 0.5), None);
        leads.learn(START, LayoutKind::Gguf, 1, millis(5));
        assert!(leads.within(START, LayoutKind::Gguf, 1, 0.9) > leads.within(START, LayoutKind::Gguf, 1, 0.1));
        assert_eq!(leads.within(START + 200 * DAY, LayoutKind::Gguf, 1, 0.5), None);
    }

    #[test]
    fn rows_that_cannot_be_are_left_out() {
        let good = Lead {
            layout: LayoutKind::Gguf,
            program: 1,
            weight: 2.0,
            at: START.as_secs(),
            log: 1.0,
            spread: 0.5,
        };
        let mut leads = Leads::default();
        for row in [
            Lead {
                weight: f32::NAN,
                ..good
            },
            Lead { weight: 0.0, ..good },
            Lead {
                log: f32::INFINITY,
                ..good
            },
            Lead { spread: -0.1, ..good },
        ] {
            leads.restore(START, &Row::Lead(row));
            assert_eq!(leads.within(START, LayoutKind::Gguf, 1, 0.5), None, "{row:?}");
        }
        leads.restore(START, &Row::Lead(Lead { at: u64::MAX, ..good }));
        assert!(leads.within(START, LayoutKind::Gguf, 1, 0.5).is_some());
    }

    proptest! {
        #[test]
        fn what_was_kept_says_the_same(loads in prop::collection::vec((0..3_u32, 0..5_000_000_u64, 0..100_000_u64), 1..50)) {
            let (mut leads, mut again) = (Leads::default(), Leads::default());
            let mut now = START;
            for (program, time, pause) in loads {
                now += Duration::from_secs(pause);
                leads.learn(now, LayoutKind::Ollama, program, millis(time));
                for change in leads.take_changes() {
                    let Change::Put(row) = change else { panic!("{change:?}") };
                    again.restore(now, &row);
                }
            }
            for program in 0..4 {
                for share in [0.0, 0.1, 0.5, 0.99, 1.0] {
                    let found = leads.within(now, LayoutKind::Ollama, program, share);
                    prop_assert_eq!(found, again.within(now, LayoutKind::Ollama, program, share));
                    prop_assert!(found <= leads.within(now, LayoutKind::Ollama, program, 1.0));
                }
            }
        }
    }
}
