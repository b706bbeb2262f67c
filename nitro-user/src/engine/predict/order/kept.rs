//! What is kept of how one program reads one model, and what another load changes in it.

use std::{collections::VecDeque, time::Duration};

use super::{
    Kind, Lesson,
    collect::Seen,
    follow::{Places, Step},
    runs::{Ranked, ascending, bridge, push},
};
use crate::engine::learn::{
    fading::faded,
    row::{MOST_RUNS, Run},
};

/// What a jump costs that nobody expected, in steps: the window begins anew.
const COST: f64 = 16.0;

/// Steps ahead of a reader that are warmed, when orders are compared.
const WINDOW: u32 = 32;

/// Places that were left are remembered, so many.
const MOST_LEFT: usize = 64;

/// The file's own order will do if it could have served so much of a load.
const IN_ORDER: f64 = 0.98;

/// An order is like another if of the jumps that the file's own leaves to chance it leaves no more than this share.
const ALIKE: f64 = 0.5;

/// Loads count half after so long.
const HALF_LIFE: Duration = Duration::from_secs(90 * 86_400);

/// An order that counts less is no more than a guess. One load counts 1, …
const OFFERED: f32 = 0.6;

/// … one that contradicts what was known, this.
const CONTRADICTS: f32 = 0.5;

/// An order counts no more, so that a new one needs no more loads than it had.
pub const MOST_WEIGHT: f32 = 8.0;

/// What so many loads did not read is not read. One is enough: whoever is wrong about it finds out with the second step, and what it costs to warm what nobody wants is more.
const SURE: f32 = 0.7;

/// An order whose steps are not all known counts no more: less than what would be sure.
const UNSURE: f32 = 1.3;

/// A load that read so much of what is known to be read was complete.
const COMPLETE: f64 = 0.9;

/// A load that read so much else shows that not everything is known.
const NEWS: f64 = 0.02;

/// What so many complete loads in a row have not read is not read any more.
const OUT_OF_USE: u32 = 4;

/// How an order is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// The file's.
    InOrder,
    /// Its own.
    Own,
    /// There is none that could be kept: too many runs.
    Scattered,
}

impl Shape {
    /// The shape of runs that were kept.
    pub fn of(order: &Ranked) -> Self {
        if ascending(order.runs()) == order.runs() {
            Self::InOrder
        } else {
            Self::Own
        }
    }
}

/// A load that has ended, looked at by itself.
#[derive(Clone, Debug)]
pub struct Load {
    seen: Seen,
    shape: Shape,
    order: Ranked,
    /// Jumps that the file's order does not foresee.
    jumps: u32,
}

impl Load {
    /// `None` where nothing was read.
    pub fn of(seen: Seen) -> Option<Self> {
        let order = Ranked::new(seen.runs.clone()).filter(|order| order.steps() > 0)?;
        let file = Ranked::new(ascending(&seen.runs))?;
        // So does the engine, with the file's own order.
        let unforeseen = f64::from(jumps(&file, &seen, true));
        let steps = f64::from(order.steps());
        let shape = if !seen.ordered {
            Shape::Scattered
        } else if steps >= IN_ORDER * (steps + COST * unforeseen) {
            Shape::InOrder
        } else {
            Shape::Own
        };
        Some(Self {
            jumps: jumps(&file, &seen, false),
            seen,
            shape,
            order,
        })
    }

    /// Whether it read as in `order`, which is of a certain shape.
    fn is_like(&self, shape: Shape, order: &Ranked) -> bool {
        match shape {
            Shape::Own => {
                self.seen.ordered && f64::from(jumps(order, &self.seen, false)) <= ALIKE * f64::from(self.jumps)
            }
            Shape::InOrder | Shape::Scattered => self.shape == shape,
        }
    }
}

/// What is kept.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Bytes of the model.
    pub bytes: u64,
    /// All steps that are read.
    pub runs: Vec<Run>,
    /// Loads that agreed, as they counted at `at`.
    pub weight: f32,
    /// Seconds since 1970.
    pub at: u64,
    shape: Shape,
    /// Complete loads that read nothing else; not faded.
    complete: f32,
    /// The last load that differed, and what it counts.
    other: Option<(Box<Load>, f32)>,
    /// What the last complete loads have not read, and how many these were.
    unused: Vec<Run>,
    unused_for: u32,
}

impl Kept {
    /// After a first load.
    pub fn first(now: u64, bytes: u64, load: Load) -> Self {
        let mut kept = Self::restored(bytes, load.shape, Vec::new(), 1.0, now);
        kept.take_order(load.shape, load.seen.runs);
        kept
    }

    /// As it was kept.
    pub fn restored(bytes: u64, shape: Shape, runs: Vec<Run>, weight: f32, at: u64) -> Self {
        Self {
            bytes,
            runs,
            weight,
            at,
            shape,
            complete: weight,
            other: None,
            unused: Vec::new(),
            unused_for: 0,
        }
    }

    /// Its kind at `now`.
    pub fn kind(&self, now: u64) -> Kind {
        match self.shape {
            _ if self.weight_at(now) < OFFERED => Kind::Unstable,
            Shape::InOrder => Kind::InOrder,
            Shape::Own => Kind::Own,
            Shape::Scattered => Kind::Unstable,
        }
    }

    /// The order, to be followed or looked up in.
    pub fn order(&self) -> Option<Ranked> {
        Ranked::new(self.runs.clone())
    }

    /// Whether what is in none of its runs is not read.
    pub fn is_sure(&self) -> bool {
        self.complete >= SURE
    }

    /// Loads that agreed, as they count at `now`.
    pub fn weight_at(&self, now: u64) -> f32 {
        faded(self.weight, self.at, now, HALF_LIFE)
    }

    /// Runs in it.
    pub fn len(&self) -> usize {
        self.runs.len() + self.unused.len() + self.other.as_ref().map_or(0, |(load, _)| 2 * load.seen.runs.len())
    }

    /// Takes another load.
    pub fn learn(mut self, now: u64, load: Load) -> (Self, Lesson) {
        let Some(order) = self.order() else {
            return (Self::first(now, self.bytes, load), Lesson::First);
        };
        self.weight = self.weight_at(now);
        self.at = now;
        let both = common(&order, &load.order);
        let is_complete = f64::from(both) >= COMPLETE * f64::from(order.steps());
        let is_news = f64::from(load.order.steps() - both) > NEWS * f64::from(load.order.steps());
        if is_complete {
            // Of what was not read before, one load tells.
            self.complete = if is_news { 1.0 } else { self.complete + 1.0 };
        }
        if !load.is_like(self.shape, &order) {
            return self.differ(&order, load, is_complete);
        }
        self.other = None;
        if !is_complete {
            self.take_order(self.shape, with_missing(&order, &load.order));
            return (self, Lesson::CutShort);
        }
        self.weight = (self.weight + 1.0).min(if is_news { UNSURE } else { MOST_WEIGHT });
        let shape = if self.shape == Shape::Own {
            Shape::Own
        } else {
            load.shape
        };
        let used = self.without_unused(&order, &load.order);
        self.take_order(shape, with_missing(&load.order, &used));
        (self, Lesson::Agreed)
    }

    fn differ(mut self, order: &Ranked, load: Load, is_complete: bool) -> (Self, Lesson) {
        self.weight /= 2.0;
        let before = self
            .other
            .take()
            .filter(|(other, _)| load.is_like(other.shape, &other.order));
        let weight = before.as_ref().map_or(CONTRADICTS, |(_, weight)| weight + 1.0);
        if weight < self.weight {
            self.take_order(self.shape, with_missing(order, &load.order));
            self.other = Some((Box::new(load), weight));
            return (self, Lesson::Differed);
        }
        self.weight = weight;
        if is_complete || before.is_none() {
            self.take_order(load.shape, with_missing(&load.order, order));
        } else {
            // Two alike that read less: the rest is not read any more.
            self.complete = weight;
            self.take_order(load.shape, load.seen.runs);
        }
        (self, Lesson::Replaced)
    }

    /// `order` without what has not been read for several loads, `load` included.
    fn without_unused(&mut self, order: &Ranked, load: &Ranked) -> Ranked {
        let mut unused = Vec::new();
        let before = Ranked::new(std::mem::take(&mut self.unused)).filter(|_| self.unused_for > 0);
        for run in order.runs() {
            load.pieces(*run, |piece, rank| match &before {
                _ if rank.is_some() => {}
                None => push(&mut unused, piece),
                Some(before) => before.pieces(piece, |piece, rank| {
                    if rank.is_some() {
                        push(&mut unused, piece);
                    }
                }),
            });
        }
        self.unused_for = if unused.is_empty() { 0 } else { self.unused_for + 1 };
        if self.unused_for < OUT_OF_USE || unused.len() > MOST_RUNS {
            self.unused = unused;
            return order.clone();
        }
        self.unused_for = 0;
        let unused = Ranked::new(unused).unwrap_or_default();
        let mut used = Vec::new();
        for run in order.runs() {
            unused.pieces(*run, |piece, rank| {
                if rank.is_none() {
                    push(&mut used, piece);
                }
            });
        }
        Ranked::new(used).unwrap_or_else(|| order.clone())
    }

    fn take_order(&mut self, shape: Shape, runs: Vec<Run>) {
        (self.shape, self.runs) = match shape {
            Shape::Own if runs.len() <= MOST_RUNS => (shape, runs),
            Shape::Own => (Shape::Scattered, ascending(&runs)),
            _ => (shape, ascending(&runs)),
        };
        bridge(&mut self.runs);
    }
}

/// How often a load went where nobody was who had been prepared for `order`; where it left off before, somebody is who remembers.
fn jumps(order: &Ranked, seen: &Seen, remembers: bool) -> u32 {
    let mut places = Places::default();
    let mut left: VecDeque<u32> = VecDeque::with_capacity(MOST_LEFT);
    // Of a small model, a step is soon near any other.
    let window = (order.steps() / 64).clamp(2, WINDOW);
    let (mut jumps, mut now) = (0, 0);
    for run in &seen.runs {
        order.pieces(*run, |piece, rank| {
            now += 1;
            let Some(rank) = rank else {
                jumps += 1;
                return;
            };
            let step = places.take(order, now, rank, piece.steps, window, seen.places);
            let back = left.iter().position(|end| remembers && *end == rank);
            jumps += u32::from(step == Step::Away && back.is_none());
            match back {
                Some(back) => drop(left.remove(back)),
                None if left.len() == MOST_LEFT => drop(left.pop_front()),
                None => {}
            }
            left.push_back(rank + piece.steps);
        });
    }
    jumps
}

/// Steps that are in both.
fn common(one: &Ranked, other: &Ranked) -> u32 {
    let mut both = 0;
    for run in other.runs() {
        one.pieces(*run, |piece, rank| both += if rank.is_some() { piece.steps } else { 0 });
    }
    both
}

/// `order` with the steps that only `other` has, each after the run that has the one before it.
fn with_missing(order: &Ranked, other: &Ranked) -> Vec<Run> {
    // After how many runs of the order a piece comes.
    let mut missing: Vec<(usize, Run)> = Vec::new();
    let mut place = 0;
    for run in other.runs() {
        order.pieces(*run, |piece, rank| match rank {
            Some(_) => {
                place = order
                    .run_of(piece.part, piece.first + piece.steps - 1)
                    .map_or(place, |index| index + 1)
            }
            None => missing.push((place, piece)),
        });
    }
    missing.sort_by_key(|(place, _)| *place);
    let mut missing = missing.into_iter().peekable();
    let mut both = Vec::with_capacity(order.runs().len());
    for (index, run) in order.runs().iter().enumerate() {
        while let Some((_, piece)) = missing.next_if(|(place, _)| *place <= index) {
            push(&mut both, piece);
        }
        push(&mut both, *run);
    }
    missing.for_each(|(_, piece)| push(&mut both, piece));
    both
}
