//! What people ask for by hand: one or several errands, or pins, and word of how far they are.

use std::time::Duration;

use super::{
    Retention,
    errand::{Errand, Purpose, Tally},
};
use crate::{
    catalog::model::Model,
    engine::{
        action::{Action, LoadId},
        input::{Command, Item, OrderId},
        learn::row::Run,
        load::key,
        order::Progress,
    },
    units::{FileId, Moment, STEP},
};

/// Whoever waits hears no more often than this.
const WORD: Duration = Duration::from_millis(100);

impl Progress {
    fn add(&mut self, tally: &Tally) {
        self.done += tally.done;
        self.there += tally.there;
        self.changed += tally.changed;
        self.held += tally.held;
        self.failed += tally.failed;
        self.trouble = tally.trouble.or(self.trouble);
    }
}

/// One order.
#[derive(Debug, Default)]
pub struct Order {
    /// What it is about, and what came of its errands that are over.
    past: Progress,
    /// Those that are not.
    errands: Vec<LoadId>,
    /// Models that are to be locked.
    pins: Vec<FileId>,
    told: Option<Moment>,
}

/// All of a part.
fn whole(model: &Model, part: usize) -> Run {
    let size = model.parts.get(part).map_or(0, |part| part.size);
    Run {
        part: part as u32,
        first: 0,
        steps: u32::try_from(size.div_ceil(STEP)).unwrap_or(u32::MAX),
    }
}

impl Retention {
    /// Somebody wants something done.
    pub fn ordered(
        &mut self,
        now: Moment,
        (order, command): (OrderId, Command),
        items: Vec<Item>,
        next: &mut u64,
        actions: &mut Vec<Action>,
    ) {
        let mut placed = Order::default();
        for Item { model, parts } in items {
            let Some(first) = model.parts.first().map(|part| part.file) else {
                continue;
            };
            let key = key(&model, first);
            let purpose = match command {
                Command::Warm => Purpose::Warm(order),
                Command::Evict => Purpose::Evict(order),
                Command::Unpin => {
                    placed.past.held += self.unpin(key, actions);
                    continue;
                }
                Command::Pin => {
                    let kept = self.entry(now, key, &model);
                    kept.ask_for();
                    let whole = parts.iter().map(|part| whole(&model, *part));
                    kept.was_read(whole.collect());
                    placed.pins.push(key);
                    self.news.insert(key);
                    continue;
                }
            };
            if command == Command::Evict {
                self.unpin(key, actions);
            }
            let id = LoadId(*next);
            *next += 1;
            let errand = Errand::new(id, model, parts.into_iter(), purpose, u64::MAX);
            placed.past.total += errand.total;
            placed.errands.push(id);
            self.errands.insert(id, errand);
        }
        self.orders.insert(order, placed);
        self.is_due = true;
    }

    /// It is not wanted any more. What was to be locked stays so.
    pub fn withdrawn(&mut self, order: OrderId, actions: &mut Vec<Action>) {
        let Some(order) = self.orders.remove(&order) else {
            return;
        };
        for id in order.errands {
            let Some(errand) = self.errands.get_mut(&id) else {
                continue;
            };
            errand.close();
            actions.push(Action::Cancel { load: id });
            if errand.is_over() {
                self.errands.remove(&id);
                actions.push(Action::Close { load: id });
            }
        }
    }

    fn unpin(&mut self, key: FileId, actions: &mut Vec<Action>) -> u64 {
        let Some(kept) = self.kept.get_mut(&key) else { return 0 };
        kept.dismiss();
        self.news.insert(key);
        self.release(key, actions)
    }

    /// An errand of an order is over.
    pub(super) fn fulfilled(&mut self, errand: &Errand) {
        let order = errand.purpose.order().and_then(|order| self.orders.get_mut(&order));
        if let Some(order) = order {
            order.errands.retain(|id| *id != errand.id);
            order.past.add(&errand.tally);
        }
    }

    /// Tells everybody who waits and has not heard for a while.
    pub(super) fn tell_orders(&mut self, now: Moment, waits: bool, actions: &mut Vec<Action>) {
        let (errands, kept) = (&self.errands, &self.kept);
        self.orders.retain(|name, order| {
            let mut progress = order.past;
            for errand in order.errands.iter().filter_map(|id| errands.get(id)) {
                progress.add(&errand.tally);
            }
            let pins = order.pins.iter().filter_map(|key| kept.get(key));
            for kept in pins.clone() {
                progress.total += kept.bytes();
                progress.held += kept.pin.held;
                progress.done += kept.pin.held;
                progress.trouble = kept.pin.refused.or(progress.trouble);
            }
            progress.waits = waits;
            progress.over = order.errands.is_empty() && pins.clone().all(|kept| kept.is_settled(now));
            if progress.over {
                progress.failed += progress.total - progress.done.min(progress.total);
            }
            if progress.over || order.told.is_none_or(|told| now.since(told) >= WORD) {
                order.told = Some(now);
                let order = *name;
                actions.push(Action::Progress { order, progress });
            }
            !progress.over
        });
    }
}
