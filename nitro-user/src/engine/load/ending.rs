//! How a load ends: its readers fall silent, its processes end, its counters are taken, its receipt is written.

use std::time::Duration;

use super::{FREEZE, IDLE_END, LAST_CHECK, Load, OPENS_WITHIN, Stage};
use crate::{
    engine::{action::Action, happening::Skip, input::FileCounts, receipt::Receipt},
    units::Moment,
};

impl Load {
    /// Time passes. True when the load is over.
    pub fn tick(&mut self, now: Moment, actions: &mut Vec<Action>) -> bool {
        if self.stage == Stage::Ended {
            return false;
        }
        let silent = now.since(self.last_access.unwrap_or(self.begun));
        if self.stage == Stage::Announced && silent < self.patience() && now.since(self.checked) >= self.check_pause {
            self.checked = now;
            self.check_pause = (2 * self.check_pause).min(LAST_CHECK);
            if now.since(self.begun) >= OPENS_WITHIN {
                self.groups.iter_mut().for_each(|group| group.window.ramp_up());
            }
            self.ask_direct(actions);
        }
        if silent >= FREEZE && self.stage != Stage::Announced && !self.frozen {
            self.frozen = true;
            self.close(actions);
        }
        silent >= self.patience()
    }

    /// It is over when nothing was heard of it for so long.
    fn patience(&self) -> Duration {
        if self.stage == Stage::Announced {
            self.patience
        } else {
            IDLE_END
        }
    }

    /// When it wants to be told the time.
    pub fn deadline(&self) -> Option<Moment> {
        let heard = self.last_access.unwrap_or(self.begun);
        match self.stage {
            Stage::Ended => None,
            Stage::Announced => Some(self.checked.after(self.check_pause)),
            _ if self.frozen => Some(heard.after(IDLE_END)),
            _ => Some(heard.after(FREEZE)),
        }
    }

    /// A process has ended. True when the load is over; while others read on, its counters are taken now, since there may be many such.
    pub fn reader_ended(&mut self, process: u32, actions: &mut Vec<Action>) -> bool {
        self.readers.ended(process);
        if self.stage == Stage::Ended {
            return false;
        }
        if self.readers.all_ended() {
            return true;
        }
        self.count(vec![process], actions);
        self.readers.settle(process);
        false
    }

    fn count(&mut self, processes: Vec<u32>, actions: &mut Vec<Action>) {
        self.uncounted += 1;
        let (load, model) = (self.id, self.model.clone());
        actions.push(Action::Count { load, processes, model });
    }

    /// Asks for the counters once it has ended and nothing of it is on its way any more: what was warmed in vain belongs in its receipt.
    pub fn settle(&mut self, actions: &mut Vec<Action>) {
        if self.stage == Stage::Ended && self.in_flight == 0 {
            self.count(self.readers.unsettled(), actions);
        }
    }

    /// Some of its counters came. Whether they were the last.
    pub fn counted(&mut self, counts: &[FileCounts]) -> bool {
        for count in counts {
            match self.counts.iter_mut().find(|sum| sum.file == count.file) {
                Some(sum) => sum.add(count),
                None => self.counts.push(*count),
            }
        }
        self.uncounted = self.uncounted.saturating_sub(1);
        // While a step is on its way the last are still to be asked for: others had been before the end.
        self.stage == Stage::Ended && self.in_flight == 0 && self.uncounted == 0
    }

    /// The end: the process has ended, the reader has been silent for long, or the file is gone.
    pub fn end(&mut self, actions: &mut Vec<Action>) {
        if self.stage == Stage::Announced && self.last_access.is_none() && !self.skipped.contains(&Skip::NeverRead) {
            self.skipped.push(Skip::NeverRead);
        }
        if self.keeps_up && self.skipped.is_empty() {
            self.skipped.push(Skip::FastDevice);
        }
        self.stage = Stage::Ended;
        self.groups.iter_mut().for_each(|group| group.window.close());
        self.close(actions);
    }

    /// What happened; `None` for a load that was only suspected.
    pub fn receipt(&self, now: Moment) -> Option<Receipt> {
        (self.strong_at.is_some()).then(|| Receipt::of(self, now))
    }
}
