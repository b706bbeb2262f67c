//! Whether help helps: what a reader that waits for its data gets with help, and without.
//!
//! Two who ask a device for data can get less than one: a disk whose head goes to and fro, a server that serves one request at a time better than four.
//! So a reader that has to wait although it is helped, and gets less than it did alone, gets half the window, and then none. What it gets alone nobody knows
//! before it was tried: after a while of waiting help stops for a moment, and what the reader brings in itself meanwhile is measured. The device keeps the result,
//! also over a restart. It may be old, so that a reader whose windows were closed for it is measured too: help goes on if it was worth it.

use std::time::Duration;

use crate::units::{Moment, Rate, STEP};

/// A reader's rate is judged over so much time, and so much data.
const STRETCH: Duration = Duration::from_secs(1);
const LEAST_STRETCH: u64 = 4 * STEP;

/// Where it is not known what a reader gets alone, it is tried after so much time of waiting: a model of a few GiB on a fast device is loaded by then.
const UNTRIED: Duration = Duration::from_secs(3);

/// How long it is tried, and over how much data: longer than the slices of 100 ms in which the kernel keeps a limit.
const TRIAL: Duration = Duration::from_millis(200);
const LEAST_TRIAL: u64 = 4 * STEP;

/// A trial that comes to no result in this time is given up.
const LONGEST_TRIAL: Duration = Duration::from_secs(2);

/// A reader that is silent for longer than a stretch, and for so many times its usual pause, was away: stopped, or busy with something else. What it waited before says nothing of
/// what it finds when it comes back.
const AWAY: u32 = 8;

/// Share of what a reader gets alone that it gets with help at least, measurements being what they are.
const ENOUGH: f64 = 0.9;

/// Share of the bytes of a trial that the reader brought in itself, at least: otherwise they were there before.
const OWN: f64 = 0.8;

/// What to do about a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// Nothing.
    GoOn,
    /// Halve its windows.
    Halve,
    /// Hand out nothing more.
    Hold,
    /// Ask what it has brought in by itself, and tell [`Benefit::added`].
    Measure,
    /// Help again.
    Resume,
    /// Leave it alone for good.
    GiveUp,
    /// Nothing: it waits, and gets at least what it would alone.
    Worth,
}

/// What one access told.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// Bytes asked for the first time.
    pub fresh: u64,
    /// Of those, bytes that the reader had to wait for.
    pub waited: u64,
    /// Of those, bytes that nobody had asked for.
    pub cold: u64,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// It is helped.
    Helped,
    /// Help stops; what was on its way is used up.
    Holding { since: Moment },
    /// It is on its own.
    Alone {
        since: Moment,
        /// What it had brought in itself by then, once that is known.
        added: Option<u64>,
        /// When it was over.
        until: Option<Moment>,
    },
}

/// The observation of one load.
#[derive(Clone, Copy, Debug)]
pub struct Benefit {
    state: State,
    began: Option<Moment>,
    bytes: u64,
    waited: u64,
    /// Its rate in the last stretch in which it waited.
    helped: Option<Rate>,
    /// Stretches in a row below what it gets alone.
    below: u32,
    /// Time of waiting since the last trial.
    waiting: Duration,
    /// Its last access, and its usual time from one to the next.
    last: Option<Moment>,
    usual: Option<Duration>,
    /// What it got in its last trial.
    alone: Option<Rate>,
    /// Time of waiting after which the next trial comes: trials without a result come less and less often.
    patience: Duration,
}

impl Default for Benefit {
    fn default() -> Self {
        Self {
            state: State::Helped,
            began: None,
            bytes: 0,
            waited: 0,
            helped: None,
            below: 0,
            waiting: Duration::ZERO,
            last: None,
            usual: None,
            alone: None,
            patience: UNTRIED,
        }
    }
}

impl Benefit {
    /// What this reader got when it was left alone, if it ever was.
    pub const fn alone(&self) -> Option<Rate> {
        self.alone
    }

    /// Whether nothing is to be handed out at present.
    pub fn holds(&self) -> bool {
        !matches!(self.state, State::Helped)
    }

    /// The reader asks for something at `at`; `alone` is what readers of its kind get from the device without help, as far as that is known.
    pub fn observe(&mut self, at: Moment, progress: Progress, alone: Option<Rate>) -> Advice {
        let was_away = self.was_away(at);
        if was_away {
            (self.helped, self.waiting) = (None, Duration::ZERO);
        }
        match self.state {
            State::Helped if was_away => {
                (self.began, self.bytes, self.waited, self.below) = (Some(at), 0, 0, 0);
                Advice::GoOn
            }
            State::Holding { .. } | State::Alone { .. } if was_away => self.resume(),
            State::Helped => self.helped(at, progress, alone),
            State::Holding { since } if at.since(since) >= LONGEST_TRIAL => self.resume(),
            State::Holding { .. } if progress.cold > 0 => {
                self.state = State::Alone {
                    since: at,
                    added: None,
                    until: None,
                };
                self.bytes = 0;
                Advice::Measure
            }
            State::Alone { since, until: None, .. } => {
                self.bytes += progress.fresh;
                let time = at.since(since);
                if time >= TRIAL && self.bytes >= LEAST_TRIAL {
                    if let State::Alone { until, .. } = &mut self.state {
                        *until = Some(at);
                    }
                    return Advice::Measure;
                }
                if time >= LONGEST_TRIAL {
                    return self.resume();
                }
                Advice::GoOn
            }
            State::Holding { .. } | State::Alone { .. } => Advice::GoOn,
        }
    }

    /// Whether the reader did something else since its last access.
    fn was_away(&mut self, at: Moment) -> bool {
        let Some(pause) = self.last.replace(at).map(|last| at.since(last)) else {
            return false;
        };
        let usual = self.usual.get_or_insert(pause);
        let was_away = pause > STRETCH && pause > *usual * AWAY;
        if !was_away {
            *usual = (*usual * 7 + pause) / 8;
        }
        was_away
    }

    fn helped(&mut self, at: Moment, progress: Progress, alone: Option<Rate>) -> Advice {
        let Some(began) = self.began else {
            self.began = Some(at);
            return Advice::GoOn;
        };
        self.bytes += progress.fresh;
        self.waited += progress.waited;
        let time = at.since(began);
        if time < STRETCH || self.bytes < LEAST_STRETCH {
            return Advice::GoOn;
        }
        let (bytes, waited) = (std::mem::take(&mut self.bytes), std::mem::take(&mut self.waited));
        self.began = Some(at);
        // One that finds its data there is as fast as it wants to be.
        if waited < bytes / 2 {
            self.below = 0;
            return Advice::GoOn;
        }
        let rate = Rate::over(bytes, time);
        self.helped = Some(rate);
        self.waiting += time;
        match alone {
            Some(alone) if rate.0 < ENOUGH * alone.0 => {
                self.below += 1;
                if self.below == 1 { Advice::Halve } else { self.hold(at) }
            }
            Some(_) => {
                self.below = 0;
                Advice::Worth
            }
            None if self.waiting >= self.patience => self.hold(at),
            None => Advice::GoOn,
        }
    }

    fn hold(&mut self, at: Moment) -> Advice {
        self.state = State::Holding { since: at };
        self.waiting = Duration::ZERO;
        self.patience *= 2;
        Advice::Hold
    }

    fn resume(&mut self) -> Advice {
        self.state = State::Helped;
        (self.began, self.bytes, self.waited, self.below) = (None, 0, 0, 0);
        Advice::Resume
    }

    /// The reader has brought in `added` bytes itself so far. What it gets alone goes to `alone` once it is known.
    pub fn added(&mut self, added: u64, alone: &mut Option<Rate>) -> Advice {
        match &mut self.state {
            State::Alone {
                added: before @ None, ..
            } => {
                *before = Some(added);
                Advice::GoOn
            }
            State::Alone {
                since,
                added: Some(before),
                until: Some(until),
            } => {
                let (own, time) = (added.saturating_sub(*before), until.since(*since));
                if (own as f64) < OWN * self.bytes as f64 {
                    return self.resume();
                }
                let rate = Rate::over(self.bytes, time);
                *alone = Some(rate);
                self.alone = Some(rate);
                if self.helped.is_some_and(|helped| helped.0 < ENOUGH * rate.0) {
                    Advice::GiveUp
                } else {
                    self.resume()
                }
            }
            State::Helped | State::Holding { .. } | State::Alone { .. } => Advice::GoOn,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: f64 = 1e6;

    #[test]
    fn a_reader_that_was_stopped_is_not_taken_for_one_that_waited() {
        let (mut benefit, mut at) = (Benefit::default(), 1_000_000_000);
        let mut step = |benefit: &mut Benefit, milliseconds: u64, known: Option<Rate>| {
            at += milliseconds * 1_000_000;
            let progress = Progress {
                fresh: STEP,
                waited: STEP,
                cold: 0,
            };
            benefit.observe(Moment(at), progress, known)
        };
        // 16 MB/s for a second and a half, and then stopped for ten.
        let fast = Some(Rate(15e6));
        for _ in 0..12 {
            assert!(matches!(step(&mut benefit, 125, fast), Advice::GoOn | Advice::Worth));
        }
        assert_eq!(step(&mut benefit, 10_000, fast), Advice::GoOn);
        for _ in 0..100 {
            assert!(matches!(step(&mut benefit, 20, fast), Advice::GoOn | Advice::Worth));
        }
        assert!(!benefit.holds());
        // Where nothing is known of the device either.
        assert_eq!(step(&mut benefit, 10_000, None), Advice::GoOn);
        assert!(benefit.helped.is_none());
    }

    #[test]
    fn a_device_that_takes_seconds_for_each_step_is_no_reader_that_was_away() {
        let mut known = Some(Rate(2.0 * MB));
        let advice = read(0.7 * MB, 2.0 * MB, &mut known, 120);
        assert!(advice.iter().any(|(_, advice)| *advice == Advice::Hold), "{advice:?}");
    }

    /// A reader that waits for every step, at `helped` bytes a second while it is helped and `alone` otherwise; what was advised in which second.
    fn read(helped: f64, alone: f64, known: &mut Option<Rate>, seconds: u64) -> Vec<(u64, Advice)> {
        let (mut benefit, mut at, mut added) = (Benefit::default(), 0.0, 0);
        let mut advice = Vec::new();
        while at < seconds as f64 {
            let holds = benefit.holds();
            at += STEP as f64 / if holds { alone } else { helped };
            let cold = if holds { STEP } else { 0 };
            added += cold;
            let progress = Progress {
                fresh: STEP,
                waited: STEP,
                cold,
            };
            let mut given = benefit.observe(Moment((at * 1e9) as u64), progress, *known);
            if given == Advice::Measure {
                given = benefit.added(added, known);
            }
            if !matches!(given, Advice::GoOn | Advice::Worth) {
                advice.push((at as u64, given));
            }
            if given == Advice::GiveUp {
                break;
            }
        }
        advice
    }

    #[test]
    fn what_a_reader_gets_alone_is_tried_once_and_help_that_helps_goes_on() {
        let mut known = None;
        let advice = read(100.0 * MB, 20.0 * MB, &mut known, 60);
        assert_eq!(
            advice.iter().map(|(_, advice)| *advice).collect::<Vec<_>>(),
            [Advice::Hold, Advice::Resume]
        );
        assert!((known.unwrap().0 / MB - 20.0).abs() < 1.0, "{known:?}");
    }

    #[test]
    fn help_that_harms_ends_after_the_trial() {
        let mut known = None;
        let advice = read(20.0 * MB, 50.0 * MB, &mut known, 60);
        assert_eq!(
            advice.iter().map(|(_, advice)| *advice).collect::<Vec<_>>(),
            [Advice::Hold, Advice::GiveUp]
        );
        assert!(advice[1].0 <= 5, "{advice:?}");
    }

    #[test]
    fn where_it_is_known_the_window_halves_and_then_closes() {
        let mut known = Some(Rate(50.0 * MB));
        let advice = read(20.0 * MB, 50.0 * MB, &mut known, 60);
        let kinds: Vec<_> = advice.iter().map(|(_, advice)| *advice).collect();
        assert_eq!(kinds, [Advice::Halve, Advice::Hold, Advice::GiveUp]);
        assert!(advice[2].0 <= 3, "{advice:?}");
    }

    #[test]
    fn what_was_known_of_a_device_that_has_become_slower_is_found_out() {
        let mut known = Some(Rate(200.0 * MB));
        let advice = read(100.0 * MB, 20.0 * MB, &mut known, 60);
        let kinds: Vec<_> = advice.iter().map(|(_, advice)| *advice).collect();
        assert_eq!(kinds, [Advice::Halve, Advice::Hold, Advice::Resume]);
        assert!(known.unwrap().0 < 25.0 * MB);
    }

    #[test]
    fn a_trial_over_what_was_there_before_proves_nothing() {
        let mut benefit = Benefit::default();
        let mut known = None;
        let cold = Progress {
            fresh: STEP,
            waited: STEP,
            cold: STEP,
        };
        let mut at = 0;
        while !benefit.holds() {
            at += 100;
            benefit.observe(Moment(at * 1_000_000), cold, known);
        }
        let mut last = Advice::GoOn;
        while benefit.holds() {
            at += 1;
            if benefit.observe(Moment(at * 1_000_000), cold, known) == Advice::Measure {
                last = benefit.added(4096, &mut known);
            }
        }
        assert_eq!((last, known), (Advice::Resume, None));
    }

    #[test]
    fn a_reader_that_finds_its_data_there_is_not_judged() {
        let mut benefit = Benefit::default();
        let ready = Progress {
            fresh: STEP,
            ..Progress::default()
        };
        for step in 0..1000 {
            let advice = benefit.observe(Moment(step * 100_000_000), ready, Some(Rate(1e9)));
            assert_eq!(advice, Advice::GoOn);
        }
    }
}
