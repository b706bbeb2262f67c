//! What is to be done for the models that are kept: which are locked, which are brought back, which nobody needs.

use std::{collections::BTreeMap, ops::Bound};

use super::{
    Retention,
    errand::{Errand, Purpose},
    kept::Kept,
    pins::{self, Candidate, Thresholds},
};
use crate::{
    engine::{
        action::{Action, LoadId, ModelPin, Task},
        plan::{budget::Budget, device::Device, pressure::Strain},
    },
    units::{ByteRange, FileId, Moment},
};

/// Models that are dropped at the same time.
const MOST_DROPPED: usize = 4;

/// What is known of the machine's memory.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// It was asked for a moment ago.
    pub is_known: bool,
    /// How short it is.
    pub strain: Strain,
    /// Bytes that may be taken beside the reserve; nothing before it was asked for, and while others use memory or devices.
    pub spare: Option<u64>,
    /// Of these, bytes that nobody has.
    pub free: Option<u64>,
}

/// A piece that may be handed out.
#[derive(Clone, Debug)]
pub struct Piece {
    /// Of which errand.
    pub id: LoadId,
    /// Its file.
    pub file: FileId,
    /// The part.
    pub part: usize,
    /// Its bytes.
    pub range: ByteRange,
}

impl Retention {
    /// Something may have to be decided: time has passed, or memory was asked for.
    pub fn stir(&mut self) {
        self.is_due = true;
    }

    /// Whether it has to be known how much memory there is: something is locked or is being brought in, or is to be.
    pub fn needs_memory(&self) -> bool {
        let is_to_be = self.is_waiting || self.is_ready || !self.start.is_empty();
        !self.paused && (is_to_be || !self.errands.is_empty() || self.pinned > 0)
    }

    /// Decides anew where something has changed.
    pub fn decide(&mut self, now: Moment, memory: Memory, next: &mut u64, actions: &mut Vec<Action>) {
        let waits = self.paused || memory.strain != Strain::None;
        if std::mem::take(&mut self.is_due) {
            self.finish_those_over(now, actions);
            self.look(now, actions);
            self.share_out(now, waits || !memory.is_known, next, actions);
            if !waits {
                self.bring_expected(memory, next);
                self.bring_back(now, memory, next);
                if memory.is_known {
                    self.seek(actions);
                }
            }
            if memory.strain != Strain::None && !self.settings.keep_after_copy {
                self.drop_copied(next);
            }
            // What there is nothing to do for is over at once.
            self.finish_those_over(now, actions);
            let is_ready = |kept: &Kept| {
                let returns = kept.errand.is_none() && !kept.loading && kept.returns_at().is_some_and(|at| at <= now);
                returns || kept.is_to_come()
            };
            self.is_ready = self.kept.values().any(is_ready);
            self.wake = self.next_change(now);
        }
        if !self.orders.is_empty() {
            self.tell_orders(now, waits, actions);
        }
    }

    /// Asks who has what, if it is time.
    fn look(&mut self, now: Moment, actions: &mut Vec<Action>) {
        if self.look_at.is_none_or(|at| at > now) {
            return;
        }
        self.look_at = Some(now.after(super::LOOK));
        let (mut files, mut processes) = (Vec::new(), Vec::new());
        for kept in self.kept.values() {
            if !kept.readers.is_empty() || !kept.mapped_by.is_empty() {
                files.extend(kept.model.parts.iter().map(|part| part.file));
                processes.extend(kept.readers.keys());
            }
        }
        processes.sort_unstable();
        processes.dedup();
        actions.push(Action::AskUsers { files, processes });
    }

    fn thresholds(&self) -> Thresholds {
        Thresholds {
            above: self.settings.pin_above,
            below: self.settings.unpin_below,
        }
    }

    /// Who may hold how much: lets go of what may not be held, and begins to lock what may.
    fn share_out(&mut self, now: Moment, waits: bool, next: &mut u64, actions: &mut Vec<Action>) {
        if self.settings.pin.0 == 0 {
            return;
        }
        let (half_life, thresholds) = (self.settings.half_life, self.thresholds());
        for kept in self.kept.values_mut() {
            kept.pin.chosen = thresholds.chooses(kept.heat.at(now, half_life), kept.pin.chosen);
        }
        let candidate = |(key, kept): (&FileId, &Kept)| Candidate {
            key: *key,
            heat: kept.heat.at(now, half_life),
            asked: kept.asked,
            chosen: kept.pin.chosen,
            held: kept.pin.id.is_some(),
            bytes: if kept.is_wanted() { kept.bytes() } else { 0 },
        };
        let candidates = self.kept.iter().map(candidate).collect();
        let shares = pins::shares(candidates, thresholds, self.settings.pin.0);
        let by_key: BTreeMap<FileId, u64> = shares.iter().copied().collect();
        let share_of = |key: &FileId| by_key.get(key).copied().unwrap_or(0);
        for (key, kept) in &mut self.kept {
            kept.pin.share = share_of(key);
        }
        let too_much: Vec<FileId> = self
            .kept
            .iter()
            .filter(|(key, kept)| kept.pin.id.is_some() && kept.pin.held > share_of(key))
            .map(|(key, _)| *key)
            .collect();
        for key in too_much {
            self.release(key, actions);
        }
        self.is_waiting = false;
        if self.barred_until > now {
            return;
        }
        // One after the other, the hottest first.
        if self.errands.values().any(Errand::locks) {
            return;
        }
        for (key, share) in shares {
            let Some(kept) = self.kept.get_mut(&key) else { continue };
            let is_free = kept.errand.is_none() && !kept.loading && kept.pin.barred_until <= now;
            if !is_free || kept.pin.is_full(kept.bytes()) {
                continue;
            }
            if waits {
                self.is_waiting = true;
                continue;
            }
            let id = LoadId(*next);
            *next += 1;
            let pin = *kept.pin.id.get_or_insert(ModelPin(id.0));
            kept.pin.refused = None;
            // All of it once more: what is locked already is there and costs nothing.
            self.pinned -= std::mem::take(&mut kept.pin.held);
            let errand = Errand::through(id, kept.model.clone(), kept.spans(), Purpose::Pin(pin), share);
            kept.errand = Some(id);
            self.errands.insert(id, errand);
            return;
        }
    }

    /// Begins to bring in what somebody is expected to load, one model at a time.
    fn bring_expected(&mut self, memory: Memory, next: &mut u64) {
        let comes = |errand: &Errand| errand.purpose == Purpose::Expected;
        let Some(spare) = memory.spare.filter(|_| !self.errands.values().any(comes)) else {
            return;
        };
        // What is there of it counts as room, as for one that is brought back.
        let fits = |kept: &&mut Kept| kept.is_to_come() && kept.bytes() <= spare;
        let Some(kept) = self.kept.values_mut().find(fits) else {
            return;
        };
        let (model, all) = (kept.model.clone(), kept.spans());
        let Some(expected) = &mut kept.expected else { return };
        expected.given = true;
        let id = LoadId(*next);
        *next += 1;
        let errand = if expected.runs.is_empty() {
            Errand::through(id, model, all, Purpose::Expected, u64::MAX)
        } else {
            Errand::along(id, model, &expected.runs, Purpose::Expected)
        };
        kept.errand = Some(id);
        self.errands.insert(id, errand);
    }

    /// Begins to bring back the hottest model that the kernel has taken away, one at a time.
    fn bring_back(&mut self, now: Moment, memory: Memory, next: &mut u64) {
        let returning = |errand: &Errand| errand.purpose == Purpose::Return;
        let Some(free) = memory.free.filter(|_| !self.errands.values().any(returning)) else {
            return;
        };
        let (half_life, below) = (self.settings.half_life, self.settings.unpin_below);
        let ready = self.kept.values_mut().filter(|kept| {
            let is_free = kept.errand.is_none() && !kept.loading && kept.pin.id.is_none();
            is_free && kept.returns_at().is_some_and(|at| at <= now)
        });
        let (mut hot, cold): (Vec<_>, Vec<_>) = ready.partition(|kept| kept.heat.at(now, half_life) >= below);
        cold.into_iter().for_each(Kept::let_lie);
        hot.sort_by(|one, other| other.heat.at(now, half_life).total_cmp(&one.heat.at(now, half_life)));
        for kept in hot {
            // All that has gone must find room that nobody has: in somebody else's place it would only be driven out again.
            if kept.bytes_lost().min(kept.bytes()) > free {
                kept.postponed(now);
                continue;
            }
            let id = LoadId(*next);
            *next += 1;
            let errand = Errand::through(id, kept.model.clone(), kept.spans(), Purpose::Return, u64::MAX);
            self.errands.insert(id, errand);
            kept.errand = Some(id);
            break;
        }
    }

    /// Looks for the next of the models that were hot in the last run, when the one before is done.
    fn seek(&mut self, actions: &mut Vec<Action>) {
        let comes = |errand: &Errand| errand.purpose == Purpose::Return || errand.locks();
        if self.sought.is_some() || self.errands.values().any(comes) {
            return;
        }
        if let Some(path) = self.start.pop_front() {
            actions.push(Action::Find { path: path.clone() });
            self.sought = Some(path);
        }
    }

    /// Under pressure: drops the pages of models whose readers have the data in memory of their own.
    fn drop_copied(&mut self, next: &mut u64) {
        for kept in self.kept.values_mut() {
            let is_there = kept.bytes_lost() < kept.bytes();
            if kept.is_elsewhere() && kept.errand.is_none() && is_there {
                let id = LoadId(*next);
                *next += 1;
                let all = 0..kept.model.parts.len();
                let errand = Errand::new(id, kept.model.clone(), all, Purpose::Drop, u64::MAX);
                kept.errand = Some(id);
                self.errands.insert(id, errand);
            }
        }
    }

    /// The next piece that may be handed out; errands take turns.
    pub fn next_piece(
        &self,
        now: Moment,
        after: LoadId,
        strain: Strain,
        budget: &Budget,
        devices: &BTreeMap<u32, Device>,
    ) -> Option<Piece> {
        if self.paused {
            return None;
        }
        let from = self.errands.range((Bound::Excluded(after), Bound::Unbounded));
        let order = from.chain(self.errands.range(..=after));
        // Dropping takes no device, which would bound it; for each piece all processes are looked at.
        let drops = |errand: &&Errand| errand.purpose.task() == Task::Drop;
        let dropping = self
            .errands
            .values()
            .filter(drops)
            .filter(|errand| errand.is_under_way());
        let room = dropping.count() < MOST_DROPPED;
        let is_free = |errand: &Errand| !drops(&errand) || room && !errand.is_under_way();
        order
            .filter(|(_, errand)| is_free(errand))
            .filter_map(|(id, errand)| Some((*id, errand.purpose, errand.next(now)?)))
            .find_map(|(id, purpose, next)| {
                let (file, part, range) = next;
                let device = devices.get(&file.device);
                let drops = purpose.task() == Task::Drop;
                let admitted = drops
                    || strain == Strain::None
                        && budget.admits(range.len())
                        && device.is_none_or(|device| device.admits_speculative(now));
                admitted.then_some(Piece { id, file, part, range })
            })
    }

    /// A piece was handed out: what is done with it, and whether its part is to be looked at as a whole first.
    pub fn submitted(&mut self, id: LoadId) -> Option<(&Errand, bool)> {
        let errand = self.errands.get_mut(&id)?;
        let survey = errand.submitted();
        Some((errand, survey))
    }
}
