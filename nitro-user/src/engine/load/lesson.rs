//! What is to be learned of a load, and what was learned of others like it.

use std::time::Duration;

use super::{IDLE_END, LONGEST_PATIENCE, Load, Stage};
use crate::{
    engine::{
        happening::Skip,
        predict::order::{Known, Seen},
    },
    units::Rate,
};

impl Load {
    /// Whether it is known how its program read the model before.
    pub fn is_recalled(&self) -> bool {
        self.recalled
    }

    /// Before it is known whose load it is: so the only program has read the model that ever did.
    pub fn presume(&mut self, known: Option<Known>) {
        self.course.recall(known);
    }

    /// It is known whose load it is: how that program read this model before, how soon after its announcement nine of ten of its loads begin, and by when all do; and what the
    /// device does.
    pub fn recall(
        &mut self,
        known: Option<Known>,
        within: Option<Duration>,
        at_last: Option<Duration>,
        rate: Option<Rate>,
    ) {
        self.recalled = true;
        self.course.recall(known);
        if self.stage != Stage::Announced {
            return;
        }
        if let Some(within) = within {
            self.groups
                .iter_mut()
                .for_each(|group| group.window.expect_within(within, rate));
        }
        self.patience = at_last.map_or(IDLE_END, |time| (2 * time).clamp(IDLE_END, LONGEST_PATIENCE));
    }

    /// How much later than its announcement it began.
    pub const fn lead(&self) -> Option<Duration> {
        self.lead
    }

    /// Whether its beginning is to be learned: once, as soon as it counts as a use of its model.
    pub fn take_lesson(&mut self) -> bool {
        self.use_taken && !self.readers.scan() && !std::mem::replace(&mut self.taught, true)
    }

    /// What was read, in which order, if it is worth learning.
    pub fn take_course(&mut self) -> Option<Seen> {
        let is_whole = |skip: &Skip| {
            !matches!(
                skip,
                Skip::DirectIo | Skip::Gone | Skip::Changed | Skip::Written | Skip::Ignored | Skip::Namesake
            )
        };
        let is_lesson = self.taught && !self.readers.scan() && self.skipped.iter().all(is_whole);
        let places = self.groups.most();
        is_lesson.then(|| self.course.finish(&self.model, places)).flatten()
    }
}
