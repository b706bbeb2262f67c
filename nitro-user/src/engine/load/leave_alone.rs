//! Whether a load is better left alone, and leaving it alone, for good or for a while.

use super::{AT_REST, FREEZE, Load, Stage};
use crate::{
    engine::{
        action::Action,
        happening::{Skip, What},
        plan::{
            admission::{self, Pace},
            benefit::{Advice, Progress},
            device::Device,
        },
    },
    units::Moment,
};

impl Load {
    /// What its device does is known, or known better.
    ///
    /// A device as fast as memory needs no preparation; and buffered reads, which ask for much at once, need no help with it. A mapping's reader, who asks
    /// for little, is helped all the same.
    pub fn served_by(&mut self, device: &Device) {
        match self.stage {
            Stage::Announced if admission::keeps_up(device.rate()) => {
                self.groups.iter_mut().for_each(|group| group.window.close());
            }
            Stage::Confirmed => self.keeps_up |= self.is_served(device),
            Stage::Announced | Stage::Suspected | Stage::Skipped(_) | Stage::Ended => {}
        }
    }

    /// Whether its buffered reads get along without help on a device that has proved as fast as memory.
    pub(super) fn is_served(&self, device: &Device) -> bool {
        !self.fell_behind && self.kinds.only_reads() && self.admission.is_served_by(device.rate())
    }

    /// Whether a reader that was left alone needs help after all. Where help and reader take turns in the lead, both lose: a reader that is served is judged
    /// over more than a hiccup, and once.
    pub(super) fn judge(&mut self, device: &Device) {
        if !self.keeps_up {
            return;
        }
        if admission::keeps_up(device.rate()) && self.kinds.only_reads() {
            self.fell_behind = !self.is_served(device);
            self.keeps_up = !self.fell_behind;
        } else {
            self.keeps_up = self.pace != Pace::Slow;
        }
    }

    /// Whether the readers get less with help than alone.
    pub(super) fn weigh(&mut self, at: Moment, progress: Progress, device: &mut Device, actions: &mut Vec<Action>) {
        if self.keeps_up || self.first_submit.is_none() {
            return;
        }
        let alone = *device.alone(self.kinds.only_reads());
        let advice = self.benefit.observe(at, progress, alone);
        if advice == Advice::Worth {
            device.did_well(self.kinds.only_reads());
        }
        self.follow_advice(advice, actions);
    }

    /// Its processes have brought in `added` bytes themselves: it was asked how it gets on alone.
    pub(super) fn measured(&mut self, added: u64, device: &mut Device, actions: &mut Vec<Action>) {
        if self.stage == Stage::Confirmed {
            let only_reads = self.kinds.only_reads();
            let advice = self.benefit.added(added, device.alone(only_reads));
            if advice == Advice::GiveUp {
                device.harmed(only_reads);
            }
            self.follow_advice(advice, actions);
        }
    }

    /// Leaves it alone from the start where help has harmed others of its kind.
    pub(super) fn learn_from_others(&mut self, device: &mut Device, actions: &mut Vec<Action>) {
        if self.stage == Stage::Confirmed && device.declines(self.kinds.only_reads(), self.course.is_its_own()) {
            self.skip(Skip::NoGain, actions);
        }
    }

    fn follow_advice(&mut self, advice: Advice, actions: &mut Vec<Action>) {
        match advice {
            // Those with windows to fill are asked after every input.
            Advice::GoOn | Advice::Resume | Advice::Worth => {}
            Advice::Halve => self.groups.iter_mut().for_each(|group| group.window.halve()),
            Advice::Hold => actions.push(Action::Cancel { load: self.id }),
            Advice::Measure => self.ask_added(actions),
            Advice::GiveUp => self.skip(Skip::NoGain, actions),
        }
    }

    /// What the agent's last run learned of its device is known.
    pub fn recalled(&mut self, device: &mut Device, actions: &mut Vec<Action>) {
        self.learn_from_others(device, actions);
        let Some(rate) = device.rate() else { return };
        let places = self.groups.alive(FREEZE);
        for group in self.groups.iter_mut() {
            group.window.aim(rate);
            if self.stage == Stage::Confirmed && group.window.size() > 0 && !group.inside {
                group.window.open(Some(rate), places);
            }
        }
        self.served_by(device);
    }

    /// Leaves the load alone from now on.
    pub fn skip(&mut self, skip: Skip, actions: &mut Vec<Action>) {
        if !self.skipped.contains(&skip) {
            self.skipped.push(skip);
        }
        if matches!(self.stage, Stage::Skipped(_) | Stage::Ended) {
            return;
        }
        let told = self.stage != Stage::Suspected;
        self.stage = Stage::Skipped(skip);
        self.groups.iter_mut().for_each(|group| group.window.close());
        self.close(actions);
        if told {
            actions.push(Action::Tell(self.tell(
                What::Skip,
                self.model_bytes(),
                0,
                skip.reason().into(),
            )));
        }
    }

    /// Its only reader is of an ignored program: nobody hears of it, unless something was done for it.
    pub fn ignore(&mut self, actions: &mut Vec<Action>) {
        if self.first_submit.is_none() {
            self.strong_at = None;
        }
        self.skip(Skip::Ignored, actions);
    }

    /// One of its files is being written: it is left alone and, unless something was done for it already, nobody hears of it.
    pub fn leave_to_writer(&mut self, actions: &mut Vec<Action>) {
        if self.first_submit.is_none() {
            self.strong_at = None;
        }
        self.skip(Skip::Written, actions);
    }

    /// Whether it was left to a writer so long ago that the file may be complete.
    pub fn is_at_rest(&self, now: Moment) -> bool {
        now.since(self.begun) >= AT_REST
    }

    /// Nothing more for now.
    pub fn pause(&mut self, actions: &mut Vec<Action>) {
        if matches!(self.stage, Stage::Announced | Stage::Confirmed) && !self.skipped.contains(&Skip::Paused) {
            self.skipped.push(Skip::Paused);
        }
        self.close(actions);
    }

    /// Memory is short: what was not begun is taken back.
    pub fn give_way(&mut self, actions: &mut Vec<Action>) {
        self.note_pressure();
        if self.in_flight > 0 && !matches!(self.stage, Stage::Ended) {
            actions.push(Action::Cancel { load: self.id });
        }
    }

    /// It could use a step and does not get it, for want of memory.
    pub fn note_pressure(&mut self) {
        if self.wants() && !self.skipped.contains(&Skip::Pressure) {
            self.skipped.push(Skip::Pressure);
        }
    }

    /// Stops what is queued and closes the descriptors.
    pub(super) fn close(&mut self, actions: &mut Vec<Action>) {
        if std::mem::take(&mut self.stream_open) {
            actions.push(Action::Cancel { load: self.id });
            actions.push(Action::Close { load: self.id });
        }
    }
}
