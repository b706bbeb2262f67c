//! Which step of a load may be warmed next, and handing it out.

use super::{Load, Stage};
use crate::{
    engine::{action::Action, happening::What, plan::budget::Budget, predict::sequence, steps::Steps},
    units::{ByteCount, ByteRange, STEP},
};

/// A step that may be warmed next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Index of the part.
    pub part: usize,
    /// Index of the step in it.
    pub step: u64,
    /// Its bytes.
    pub range: ByteRange,
    /// Its device.
    pub device: u32,
}

impl Load {
    /// Bytes warmed, or on their way, ahead of where the reader is now.
    fn ahead(&self) -> u64 {
        (self.unused - self.stranded) + (self.in_flight - self.stranded_in_flight.min(self.in_flight))
    }

    /// Whether it could use a step.
    pub fn wants(&self) -> bool {
        matches!(self.stage, Stage::Announced | Stage::Confirmed)
            && !(self.frozen || self.lost || self.keeps_up)
            && self.window.size() > 0
    }

    /// The next step that may be warmed; `None` when the window or the ceiling is full, or all is covered.
    pub fn next_step(&mut self, budget: &Budget) -> Option<Planned> {
        if !self.wants() || self.ahead() + STEP > self.window.size() || !budget.admits(2 * STEP) {
            return None;
        }
        let first = self.walk.part();
        let reach = sequence::reach(self.model.layout, self.walk.in_order_parts());
        let last = first.saturating_add(reach).min(self.parts.len() - 1);
        for part in first..=last {
            let from = if part == first { self.walk.step() } else { 0 };
            if let Some(found) = self.uncovered(part, from) {
                return Some(found);
            }
        }
        // A reader that jumps back and forth reads, as a rule, everything: tensors in an order of its own.
        if self.walk.wanders() {
            self.uncovered(first, 0)
        } else {
            None
        }
    }

    fn uncovered(&mut self, part: usize, from: u64) -> Option<Planned> {
        let known = self.model.parts.get(part)?;
        let (size, device) = (known.size, known.file.device);
        let steps = self.parts.get_mut(part)?.get_or_insert_with(|| Steps::new(size));
        let step = steps.next_uncovered(from)?;
        Some(Planned {
            part,
            step,
            range: steps.range(step),
            device,
        })
    }

    /// Hands a planned step to the workers.
    pub fn submit(&mut self, planned: &Planned, ceiling_percent: u8, actions: &mut Vec<Action>) {
        if let Some(Some(steps)) = self.parts.get_mut(planned.part) {
            steps.submit(planned.step);
        }
        if !self.stream_open && self.first_submit.is_none() {
            let note = format!("window of {}", ByteCount(self.window.size()));
            actions.push(Action::Tell(self.tell(
                What::Warm,
                self.model_bytes(),
                ceiling_percent,
                note,
            )));
        }
        self.stream_open = true;
        self.in_flight += planned.range.len();
        let survey = !std::mem::replace(&mut self.surveyed[planned.part], true);
        let (load, model) = (self.id, self.model.clone());
        actions.push(Action::Warm {
            load,
            model,
            part: planned.part,
            range: planned.range,
            survey,
        });
    }
}
