//! Whose turn it is, and whether there is room for it: memory, the ceiling, the devices.

use super::{
    Engine,
    action::{Action, LoadId},
    input::MachineMemory,
    load::Load,
    plan::{
        device::Device,
        pressure::{Own, Strain},
    },
};
use crate::units::{Moment, STEP};

impl Engine {
    /// Whether the machine's memory is short.
    pub fn strain(&self) -> Strain {
        self.pressure.strain(self.now)
    }

    /// Whether there is a load that could use a step.
    pub(super) fn could_warm(&self) -> bool {
        self.paused.is_none() && !self.wanting.is_empty()
    }

    /// The machine's memory is so and so.
    pub(super) fn memory(&mut self, now: Moment, memory: MachineMemory, actions: &mut Vec<Action>) {
        let before = self.pressure.strain(now);
        let on_its_way = self.devices.values().map(Device::in_flight).sum();
        let own = Own {
            idle: on_its_way == 0,
            on_its_way,
            ..std::mem::take(&mut self.own)
        };
        self.pressure.told(now, memory, own);
        let strain = self.pressure.strain(now);
        self.retention.stir();
        if strain != Strain::None {
            self.retention.look_soon(now);
        }
        if self.pressure.presses(now) {
            self.retention.strained(now, strain, self.pressure.missing(), actions);
        }
        if strain > before {
            for load in self.loads.values_mut() {
                if strain == Strain::Short || load.is_speculative() {
                    load.give_way(actions);
                }
            }
        }
    }

    /// Hands out steps, one per load and turn, while the devices and the ceiling have room.
    pub(super) fn plan(&mut self, now: Moment, actions: &mut Vec<Action>) {
        if !self.could_warm() {
            return;
        }
        if self.pressure.ask(now) {
            actions.push(Action::AskMemory);
        }
        let strain = self.pressure.strain(now);
        if strain == Strain::Short {
            self.loads.values_mut().for_each(Load::note_pressure);
            return;
        }
        // Two steps: one that is read, and one on its way.
        let most_ahead = if strain < Strain::Stalls { u64::MAX } else { 2 * STEP };
        loop {
            // Loads take turns: those after the last served first.
            let turn = self.turn;
            let after = self.wanting.range(LoadId(turn + 1)..);
            let order: Vec<LoadId> = after.chain(self.wanting.range(..=LoadId(turn))).copied().collect();
            let mut served = false;
            for id in order {
                let Some(load) = self.loads.get_mut(&id).filter(|load| load.wants()) else {
                    self.wanting.remove(&id);
                    continue;
                };
                let gives_way = strain != Strain::None && load.is_speculative();
                if gives_way {
                    load.note_pressure();
                }
                let step = load.next_step(&self.budget, most_ahead).filter(|_| !gives_way);
                let Some(step) = step else {
                    self.devices.values_mut().for_each(|device| device.passes(id));
                    continue;
                };
                let device = self.devices.entry(step.device).or_default();
                // Of one that wants nothing any more it is nobody's turn.
                if device
                    .turn()
                    .is_some_and(|other| other != id && self.wanting.contains(&other))
                {
                    continue;
                }
                let admitted = if load.is_speculative() {
                    !self.spares && device.admits_speculative(now)
                } else {
                    device.admits(step.range.len())
                };
                if !admitted {
                    continue;
                }
                let file = load.model.parts.get(step.part).map_or(load.key, |part| part.file);
                device.submitted(now, file, step.range.len());
                device.took(id);
                self.budget.submitted(file, step.range.len());
                load.submit(&step, self.budget.percent(), actions);
                self.turn = id.0;
                served = true;
            }
            if !served {
                return;
            }
        }
    }
}
