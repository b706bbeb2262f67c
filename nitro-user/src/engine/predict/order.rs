//! In which order a program reads a model, learned load by load.
//!
//! In: the steps that a load asked for, each when it was asked for first ([`Collector`]); rows. Out: what is known before the next load ([`Known`]): that the file's own order
//! will do, as the engine's other predictor serves it; or another order, which is followed as long as the reader does ([`Follower`]); and which steps and parts were never read.
//!
//! Orders are never quite the same: several threads take turns, ranks are at different speeds, a page cache that held something hurries somebody. So orders are judged by jumps:
//! the file's own will do if what it does not foresee costs little, each jump as much as 16 steps; another is the one that is known if that foresees most of these jumps.

mod bits;
mod collect;
mod follow;
mod kept;
mod runs;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    time::Duration,
};

use self::kept::{Kept, Load, Shape};
pub use self::{
    collect::{Collector, Seen},
    follow::{Follower, Following},
    runs::{Ranked, push, union},
};
use crate::{
    engine::learn::{
        fading::seconds,
        row::{Change, MOST_RUNS, Number, Order, Row, Run},
    },
    units::STEP,
};

/// Orders that are kept, …
const MOST_ORDERS: usize = 65_536;

/// … and runs in all of them: twelve bytes each.
const MOST_RUNS_IN_ALL: usize = 1 << 20;

/// The share that goes when there is no room: one in so many.
const SHARE: usize = 16;

/// What kind of order it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The file's, part by part, without what is never read.
    InOrder,
    /// Another one, which can be followed.
    Own,
    /// None that would be the same twice.
    Unstable,
}

/// What is known of how a program reads a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Known {
    /// Its kind: only [`Kind::Own`] is to be followed.
    pub kind: Kind,
    /// All steps that were ever read; in the order in which they are, if that is stable.
    pub order: Ranked,
    /// Loads that agreed, faded.
    pub weight: f32,
    is_sure: bool,
}

impl Known {
    /// Whether what no load has read is not read.
    pub const fn is_sure(&self) -> bool {
        self.is_sure
    }

    /// Whether no complete load has read a step.
    pub fn is_unread(&self, part: u32, step: u32) -> bool {
        self.is_sure && self.order.run_of(part, step).is_none()
    }

    /// Whether no complete load has read anything of a part.
    pub fn is_unread_part(&self, part: u32) -> bool {
        self.is_sure && !self.order.has_part(part)
    }

    /// What follows after a step of which the reader was heard last, as ranges of steps, the next one first. Nothing where the step is in no order.
    pub fn after(&self, part: u32, step: u32) -> impl Iterator<Item = Run> {
        let rank = self.order.rank(part, step).map_or(self.order.steps(), |rank| rank + 1);
        self.order.from(rank)
    }
}

/// What a load was, compared with what had been known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lesson {
    /// It was the first, or the model has another size now.
    First,
    /// As before.
    Agreed,
    /// As before, and not to its end.
    CutShort,
    /// Otherwise.
    Differed,
    /// Otherwise, and as another load that differed: this is how it is read now.
    Replaced,
}

/// All orders.
#[derive(Debug)]
pub struct Orders {
    kept: BTreeMap<(Number, Number), Kept>,
    runs: usize,
    most_runs: usize,
    touched: BTreeSet<(Number, Number)>,
}

impl Default for Orders {
    fn default() -> Self {
        Self::new(MOST_RUNS_IN_ALL)
    }
}

impl Orders {
    /// None yet, and room for so many runs.
    pub fn new(most_runs: usize) -> Self {
        Self {
            kept: BTreeMap::new(),
            runs: 0,
            most_runs: most_runs.max(MOST_RUNS),
            touched: BTreeSet::new(),
        }
    }

    /// What is known of how `program` reads `model`, which has `bytes` in all its parts.
    pub fn recall(&self, now: Duration, model: Number, program: Number, bytes: u64) -> Option<Known> {
        let kept = self.kept.get(&(model, program)).filter(|kept| kept.bytes == bytes)?;
        Some(Known {
            kind: kept.kind(seconds(now)),
            order: kept.order()?,
            weight: kept.weight_at(seconds(now)),
            is_sure: kept.is_sure(),
        })
    }

    /// The programs of which it is known how they read a model.
    pub fn programs(&self, model: Number) -> impl Iterator<Item = Number> {
        let kept = self.kept.range((model, Number::MIN)..=(model, Number::MAX));
        kept.map(|((_, program), _)| *program)
    }

    /// A load has ended. Loads that were left to chance (a scanner's, one that was stopped at once) are not to be told.
    pub fn learn(&mut self, now: Duration, model: Number, program: Number, bytes: u64, seen: Seen) -> Option<Lesson> {
        let now = seconds(now);
        let load = Load::of(seen)?;
        let key = (model, program);
        let known = self.take(key).filter(|kept| kept.bytes == bytes);
        let (kept, lesson) = match known {
            None => (Kept::first(now, bytes, load), Lesson::First),
            Some(kept) => kept.learn(now, load),
        };
        self.put(key, kept);
        self.touched.insert(key);
        Some(lesson)
    }

    /// Takes a row that was kept; others than its own are ignored. What cannot be is forgotten where it was kept.
    pub fn restore(&mut self, now: Duration, row: &Row) {
        let Row::Order(row) = row else { return };
        let key = (row.model, row.program);
        let parts = row.runs.iter().map(|run| run.part).collect::<BTreeSet<_>>().len() as u64;
        let fits = |order: &Ranked| u64::from(order.steps()) <= (row.bytes / STEP).saturating_add(parts);
        let is_weight = row.weight > 0.0 && row.weight <= kept::MOST_WEIGHT;
        let order = Ranked::new(row.runs.clone()).filter(|order| fits(order) && is_weight && order.steps() > 0);
        let Some(order) = order else {
            self.touched.insert(key);
            return;
        };
        let shape = Shape::of(&order);
        let at = row.at.min(seconds(now));
        self.take(key);
        self.put(key, Kept::restored(row.bytes, shape, order.into_runs(), row.weight, at));
    }

    /// Forgets models and programs. Whoever told of it does not need to hear of each row.
    pub fn forget(&mut self, models: &HashSet<Number>, programs: &HashSet<Number>) {
        let is_gone = |(model, program): &(Number, Number)| models.contains(model) || programs.contains(program);
        self.kept.retain(|key, _| !is_gone(key));
        self.touched.retain(|key| !is_gone(key));
        self.runs = self.kept.values().map(Kept::len).sum();
    }

    /// Rows that were put, and those for which there was no room, since the last time.
    pub fn take_changes(&mut self) -> Vec<Change> {
        let touched = std::mem::take(&mut self.touched);
        let change = |(model, program): (Number, Number)| {
            let kept = self.kept.get(&(model, program));
            kept.map_or(Change::ForgetOrder { model, program }, |kept| {
                Change::Put(Row::Order(Order {
                    model,
                    program,
                    bytes: kept.bytes,
                    runs: kept.runs.clone(),
                    weight: kept.weight,
                    at: kept.at,
                }))
            })
        };
        touched.into_iter().map(change).collect()
    }

    fn take(&mut self, key: (Number, Number)) -> Option<Kept> {
        let kept = self.kept.remove(&key)?;
        self.runs -= kept.len();
        Some(kept)
    }

    fn put(&mut self, key: (Number, Number), kept: Kept) {
        self.runs += kept.len();
        self.kept.insert(key, kept);
        if self.runs <= self.most_runs && self.kept.len() <= MOST_ORDERS {
            return;
        }
        let mut oldest: Vec<_> = self.kept.iter().map(|(key, kept)| (kept.at, *key)).collect();
        oldest.sort_unstable();
        let (most_runs, most_orders) = (
            self.most_runs - self.most_runs / SHARE,
            MOST_ORDERS - MOST_ORDERS / SHARE,
        );
        for (_, old) in oldest.into_iter().filter(|(_, old)| *old != key) {
            if self.runs <= most_runs && self.kept.len() <= most_orders {
                break;
            }
            self.take(old);
            self.touched.insert(old);
        }
    }
}
