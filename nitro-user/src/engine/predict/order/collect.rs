//! One load's first demand for each step, as runs: what a cursor read from one place on.
//!
//! Several cursors at once (ranks, threads that take slices) would cut each other's runs into single steps, so that a run goes on while its cursor was heard of lately, whoever
//! was heard of in between. Holes of a few steps are filled as they are passed: threads that take turns are not in step.

use std::collections::HashMap;

use super::{
    bits::Bits,
    runs::{self, MOST_STEPS},
};
use crate::{
    engine::learn::row::{MOST_RUNS, Run},
    units::STEP,
};

/// A cursor may be so many steps ahead of where it was heard last: what threads read at once.
const SLACK: u32 = 4;

/// A cursor is the same as long as no more than this many steps were demanded elsewhere: two each by sixteen. With more, the layers of a small model, read in another order
/// than they lie in, would be taken for cursors that take turns …
const LATELY: u64 = 32;

/// … but one that has gone on after others again and again may wait longer, for each time, up to so many times as long.
const MOST_LATELY: u32 = 8;

/// If more than one step in so many came after the cursor that had passed it was gone on, it was chance that anything seemed to go on.
const BY_CHANCE: u64 = 16;

/// Places at which a load is believed to read at once.
const MOST_PLACES: usize = 64;

/// Runs that continue each other are joined, when there are too many, if no more than this many others began in between …
const FIRST_REACH: usize = 16;

/// … and then more, in steps of this factor, …
const FURTHER: usize = 4;

/// … up to this: further apart, half of any steps in any order continue some other.
const MOST_REACH: usize = 256;

/// What a load has read, and in which order.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// In the order in which they were begun, or, without one, in that of the file. No step is in two of them.
    pub runs: Vec<Run>,
    /// Whether it is known in which order they were read: there were not too many of them.
    pub ordered: bool,
    /// Places at which it read at once.
    pub places: usize,
}

/// A place that reads on.
#[derive(Clone, Copy, Debug)]
struct Cursor {
    run: usize,
    /// The fresh step with which it was heard last.
    last: u64,
    /// So often it has gone on after another was heard.
    resumed: u32,
}

impl Cursor {
    fn is_there(&self, fresh: u64) -> bool {
        fresh - self.last <= LATELY * u64::from(self.resumed.clamp(1, MOST_LATELY))
    }
}

/// Collects them.
#[derive(Debug)]
pub struct Collector {
    /// Steps of each part, and which of them were demanded.
    seen: Vec<Bits>,
    /// Those that are in a run.
    covered: Vec<Bits>,
    runs: Vec<Run>,
    cursors: Vec<Cursor>,
    /// Steps demanded so far.
    fresh: u64,
    /// Steps that a cursor had passed, and that were read when it was gone.
    late: u64,
    reach: usize,
    /// There were too many runs, or the model is too large.
    lost: bool,
}

impl Collector {
    /// For a model whose parts have these sizes in bytes. Of more than eight TiB nothing is collected.
    pub fn new(sizes: impl IntoIterator<Item = u64>) -> Self {
        let steps: Vec<u64> = sizes.into_iter().map(|size| size.div_ceil(STEP)).collect();
        let is_small = steps
            .iter()
            .try_fold(0_u64, |sum, steps| sum.checked_add(*steps))
            .is_some_and(|sum| sum <= MOST_STEPS);
        let bits = || steps.iter().map(|steps| Bits::new(*steps)).collect();
        Self {
            seen: if is_small { bits() } else { Vec::new() },
            covered: if is_small { bits() } else { Vec::new() },
            runs: Vec::new(),
            cursors: Vec::new(),
            fresh: 0,
            late: 0,
            reach: FIRST_REACH,
            lost: !is_small,
        }
    }

    /// A step was demanded; whether for the first time. Nothing is the first time where nothing is collected.
    pub fn demanded(&mut self, part: usize, step: u64) -> bool {
        let is_first = self.seen.get_mut(part).is_some_and(|seen| seen.set(step));
        if is_first && !self.lost {
            self.collect(part, step);
        }
        is_first
    }

    fn collect(&mut self, part: usize, step: u64) {
        self.fresh += 1;
        // Both are small enough: the bits are there.
        let (part, step) = (part as u32, step as u32);
        let fresh = self.fresh;
        self.cursors.retain(|cursor| cursor.is_there(fresh));
        if self.covered[part as usize].has(step) {
            let is_passing = |cursor: &Cursor| {
                let run = self.runs[cursor.run];
                run.part == part && u64::from((run.first + run.steps).wrapping_sub(step)) <= 2 * LATELY
            };
            self.late += u64::from(!self.cursors.iter().any(is_passing));
            return;
        }
        let ahead = |cursor: &Cursor| {
            let run = self.runs[cursor.run];
            let end = run.first + run.steps;
            (run.part == part && (end..=end + SLACK).contains(&step)).then(|| step - end)
        };
        let nearest = self.cursors.iter().enumerate();
        let nearest = nearest
            .filter_map(|(index, cursor)| Some((ahead(cursor)?, index)))
            .min();
        match nearest.filter(|(ahead, _)| self.are_free(part, step - ahead, *ahead)) {
            Some((ahead, index)) => {
                let cursor = &mut self.cursors[index];
                cursor.resumed += u32::from(cursor.last + 1 < fresh);
                cursor.last = fresh;
                self.runs[cursor.run].steps += ahead + 1;
                (step - ahead..=step).for_each(|step| self.covered[part as usize].put(step));
            }
            None => self.begin(part, step),
        }
    }

    /// What was read, at so many places at once.
    pub fn finish(mut self, places: usize) -> Seen {
        self.lost |= self.late * BY_CHANCE > self.fresh;
        let mut read = Vec::new();
        if !self.lost {
            for run in &self.runs {
                let seen = &self.seen[run.part as usize];
                seen.runs(run.first, run.steps, |first, steps| {
                    runs::push(&mut read, Run { first, steps, ..*run })
                });
            }
        }
        let ordered = !self.lost && read.len() <= MOST_RUNS;
        if !ordered {
            read.clear();
            for (part, seen) in (0..).zip(&self.seen) {
                seen.runs(0, seen.len(), |first, steps| {
                    runs::push(&mut read, Run { part, first, steps })
                });
            }
            runs::bridge(&mut read);
        }
        Seen {
            runs: read,
            ordered,
            places: places.clamp(1, MOST_PLACES),
        }
    }

    fn are_free(&self, part: u32, first: u32, steps: u32) -> bool {
        (first..first + steps).all(|step| !self.covered[part as usize].has(step))
    }

    fn begin(&mut self, part: u32, step: u32) {
        if self.runs.len() >= MOST_RUNS {
            self.join();
            if self.lost {
                return;
            }
        }
        self.cursors.push(Cursor {
            run: self.runs.len(),
            last: self.fresh,
            resumed: 0,
        });
        self.runs.push(Run {
            part,
            first: step,
            steps: 1,
        });
        self.covered[part as usize].put(step);
    }

    /// Joins runs that continue each other, until a quarter of the room is free.
    fn join(&mut self) {
        loop {
            self.join_within(self.reach);
            if self.runs.len() <= MOST_RUNS / 4 * 3 {
                return;
            }
            if self.reach >= MOST_REACH {
                // It reads here and there.
                self.lost = true;
                (self.runs, self.cursors, self.covered) = (Vec::new(), Vec::new(), Vec::new());
                return;
            }
            self.reach *= FURTHER;
        }
    }

    fn join_within(&mut self, reach: usize) {
        let begins: HashMap<(u32, u32), usize> = self
            .runs
            .iter()
            .enumerate()
            .map(|(index, run)| ((run.part, run.first), index))
            .collect();
        // Where each run has gone; one that was joined to another is empty.
        let mut place: Vec<usize> = (0..self.runs.len()).collect();
        for index in 0..self.runs.len() {
            if self.runs[index].steps == 0 {
                continue;
            }
            let mut last = index;
            loop {
                let Run { part, first, steps } = self.runs[index];
                let next = begins.get(&(part, first + steps)).copied();
                let Some(next) =
                    next.filter(|next| *next > index && next.abs_diff(last) <= reach && self.runs[*next].steps > 0)
                else {
                    break;
                };
                self.runs[index].steps += std::mem::take(&mut self.runs[next].steps);
                place[next] = index;
                last = next;
            }
        }
        let mut kept = 0;
        let moved: Vec<usize> = (self.runs.iter())
            .map(|run| {
                kept += usize::from(run.steps > 0);
                kept.saturating_sub(1)
            })
            .collect();
        for cursor in &mut self.cursors {
            cursor.run = moved[place[cursor.run]];
        }
        self.runs.retain(|run| run.steps > 0);
    }
}
