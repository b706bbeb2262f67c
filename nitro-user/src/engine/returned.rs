//! What comes back of what the engine has asked for: steps, and the counters of a load that is over.

use super::{
    Engine,
    action::{Action, LoadId},
    happening::Happening,
    input::{FileCounts, Outcome, StepEnd},
    load::Stage,
    plan::device::Device,
};
use crate::units::Moment;

impl Engine {
    /// A step came back.
    pub(super) fn outcome(&mut self, now: Moment, outcome: &Outcome, actions: &mut Vec<Action>) {
        if let Some(device) = self.devices.get_mut(&outcome.device) {
            device.completed(outcome);
        }
        self.own.gained += outcome.gained();
        match self.loads.get_mut(&outcome.load) {
            Some(load) => {
                // The first of a load's steps in flight says it for all.
                let helped = !matches!(load.stage, Stage::Skipped(_) | Stage::Ended);
                let overtaken = load.warmed(outcome, &mut self.budget, actions);
                if let Some(device) = self.devices.get_mut(&outcome.device) {
                    if overtaken {
                        device.overtaken();
                    }
                    load.served_by(device);
                }
                load.settle(actions);
                if helped && outcome.end == StepEnd::Stale {
                    self.renew(now, outcome.load, outcome.file, actions);
                }
            }
            None => match self.retention.outcome(now, outcome, actions) {
                Some(returned) => self.errand_outcome(outcome, returned),
                // The load ended with this step on its way: nobody used it, and it takes room until somebody does.
                None => self.budget.arrived(outcome.file, outcome.range, outcome.gained()),
            },
        }
    }

    /// Some counters of a load came; with the last its receipt is written.
    pub(super) fn counted(&mut self, now: Moment, id: LoadId, counts: &[FileCounts], actions: &mut Vec<Action>) {
        let is_last = self.loads.get_mut(&id).is_some_and(|load| load.counted(counts));
        let Some(mut load) = is_last.then(|| self.loads.remove(&id)).flatten() else {
            return;
        };
        self.wanting.remove(&id);
        self.holdings.leave(&load, &self.budget);
        if load.model.changes_unseen {
            self.library.forget(load.key);
        }
        let number = load.key.device;
        if let Some(process) = load.take_pass().filter(|process| load.readers.is_there(*process)) {
            self.passes.note(self.now, process);
        }
        if let Some(mut receipt) = load.receipt(now) {
            receipt.inferred = self.policy.inferred;
            receipt.saved = self
                .devices
                .get_mut(&number)
                .and_then(|device| load.compare(&receipt, device));
            actions.push(Action::Tell(Happening::done(&receipt, self.budget.percent())));
            actions.push(Action::Finish(Box::new(receipt)));
        }
        if let Some(knowledge) = self.devices.get_mut(&number).and_then(Device::news) {
            actions.push(Action::Keep {
                device: number,
                knowledge,
            });
        }
        for process in load.readers.gone() {
            if !self.is_awaited(process) {
                actions.push(Action::Forget { process });
            }
        }
    }
}
