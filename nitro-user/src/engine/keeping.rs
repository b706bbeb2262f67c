//! What the engine does for no load: hands out the pieces of errands, and tells what is kept of what the loads do.

use super::{
    Engine,
    action::{Action, LoadId, Manner, Task},
    input::{Outcome, StepEnd, User},
    load::Stage,
    plan::pressure::Strain,
    retain::{Returned, decide::Memory},
};
use crate::units::{Moment, STEP};

/// So much more was read before something is dropped behind a reader again.
const AT_ONCE: u64 = 8 * STEP;

impl Engine {
    /// A load's model is in use, once it is sure that it is read.
    pub(super) fn note_use(&mut self, now: Moment, id: LoadId, process: u32) {
        let Some(load) = self.loads.get_mut(&id) else { return };
        if load.take_use() {
            let (key, model) = (load.key, load.model.clone());
            self.retention.used(now, key, &model, process);
        }
        self.learn_beginning(now, id);
    }

    /// A load is over: what of it was read, and by whom.
    pub(super) fn note_end(&mut self, now: Moment, id: LoadId) {
        self.learn_end(now, id);
        let Some(load) = self.loads.get(&id) else { return };
        if load.stage == Stage::Ended {
            self.retention
                .load_ended(now, load.key, load.runs_read(), load.readers.alive());
        }
    }

    /// A piece of an errand came back, and takes room until somebody uses it; what is locked takes it anyway.
    pub(super) fn errand_outcome(&mut self, outcome: &Outcome, returned: Returned) {
        match returned.task {
            // Of the last pages of a run the kernel tells with the next.
            Task::Drop if outcome.after == 0 && outcome.end == StepEnd::Done => {
                self.budget.evicted(outcome.file, outcome.range);
            }
            Task::Drop => {}
            Task::Warm | Task::Pin(_) => {
                // What comes back was the page cache's before, and takes memory that nobody had: it does not keep others from being helped.
                let counts = returned.is_watched && !returned.is_return;
                let unused = if counts { outcome.gained() } else { 0 };
                self.budget.arrived(outcome.file, outcome.range, unused);
                if returned.expected {
                    self.brought_ahead(unused);
                }
                if outcome.held > 0 {
                    self.budget.used(outcome.file, outcome.range);
                }
            }
        }
    }

    /// Who has what of the models.
    pub(super) fn users(&mut self, now: Moment, users: &[User]) {
        for load in self.loads.values() {
            self.retention.read_so_far(load.key, load.bytes_read());
        }
        self.retention.users(now, users);
    }

    /// Memory is short: what readers have copied into memory of their own is dropped behind them.
    fn drop_behind(&mut self) {
        for load in self.loads.values() {
            let Some(kept) = self.retention.of(load.key).filter(|_| load.only_reads()) else {
                continue;
            };
            if !kept.is_copied() || kept.errand.is_some() {
                continue;
            }
            let read = load.bytes_read();
            // What cannot be dropped is not tried all the time.
            if read < kept.dropped_at + AT_ONCE {
                continue;
            }
            let runs = load.behind();
            if !runs.is_empty() {
                self.retention.read_so_far(load.key, read);
                self.retention.drop_behind(load.key, &runs, &mut self.next_load);
            }
        }
    }

    /// After the loads have had their turns: decides what is to be kept, and hands out pieces of errands.
    pub(super) fn keep(&mut self, now: Moment, actions: &mut Vec<Action>) {
        self.look_forward(now, actions);
        let strain = self.pressure.strain(now);
        let memory = Memory {
            is_known: self.pressure.spare(now).is_some(),
            strain,
            spare: self.pressure.spare(now).filter(|_| self.pressure.is_calm(now)),
            free: self.pressure.free(now).filter(|_| self.pressure.is_calm(now)),
        };
        if strain != Strain::None && !self.policy.retain.keep_after_copy {
            self.drop_behind();
        }
        self.retention.decide(now, memory, &mut self.next_load, actions);
        self.budget.set_pinned(self.retention.pinned());
        if self.retention.needs_memory() && self.pressure.ask(now) {
            actions.push(Action::AskMemory);
        }
        while let Some(piece) = self
            .retention
            .next_piece(now, self.errand_turn, strain, &self.budget, &self.devices)
        {
            let Some((errand, survey)) = self.retention.submitted(piece.id) else {
                return;
            };
            let (task, model) = (errand.purpose.task(), errand.model.clone());
            self.errand_turn = piece.id;
            if task != Task::Drop {
                self.devices
                    .entry(piece.file.device)
                    .or_default()
                    .submitted(now, piece.file, piece.range.len());
                self.budget.submitted(piece.file, piece.range.len());
            }
            actions.push(Action::Warm {
                load: piece.id,
                model,
                part: piece.part,
                range: piece.range,
                manner: Manner {
                    task,
                    survey,
                    speculative: true,
                    reader: 0,
                    charged: false,
                },
            });
        }
    }
}
