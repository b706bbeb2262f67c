//! What a load tells of how its model is used.

use super::{Load, Stage};
use crate::{
    engine::{happening::Skip, learn::row::Run, predict::order::push, steps::Steps},
    units::FileId,
};

/// Steps that are left to a reader behind the one where it was heard last.
const CLEAR: u64 = 2;

impl Load {
    /// Whether its model is used: once, as soon as it is sure that it is read, through the page cache and by somebody who wants it.
    pub fn take_use(&mut self) -> bool {
        let is_use = match self.stage {
            Stage::Confirmed => !self.readers.scan(),
            Stage::Skipped(skip) => {
                self.strong_at.is_some() && !matches!(skip, Skip::DirectIo | Skip::Ignored | Skip::Gone | Skip::Written)
            }
            Stage::Suspected | Stage::Announced | Stage::Ended => false,
        };
        is_use && !std::mem::replace(&mut self.use_taken, true)
    }

    /// What was read, in the files' order; of parts of which not everything is told, all.
    pub fn runs_read(&self) -> Vec<Run> {
        let mut runs = Vec::new();
        for (part, steps) in (0..).zip(&self.parts) {
            let Some(steps) = steps.as_ref().filter(|steps| steps.demanded_bytes() > 0) else {
                continue;
            };
            for step in 0..u32::try_from(steps.count()).unwrap_or(u32::MAX) {
                if self.course.is_silent() || steps.was_demanded(u64::from(step)) {
                    let first = step;
                    push(&mut runs, Run { part, first, steps: 1 });
                }
            }
        }
        runs
    }

    /// Bytes read so far.
    pub fn bytes_read(&self) -> u64 {
        self.parts.iter().flatten().map(Steps::demanded_bytes).sum()
    }

    /// What was read and is still there, well behind all readers.
    pub fn behind(&self) -> Vec<Run> {
        let mut runs = Vec::new();
        for (part, steps) in (0..).zip(&self.parts) {
            let Some(steps) = steps else { continue };
            let places = self.groups.iter().filter(|group| group.walk.part() == part as usize);
            let end = places.map(|group| group.walk.step().saturating_sub(CLEAR)).min();
            for step in 0..end.unwrap_or(u64::MAX).min(steps.count()) {
                if let Ok(first) = u32::try_from(step)
                    && steps.is_demanded(step)
                {
                    push(&mut runs, Run { part, first, steps: 1 });
                }
            }
        }
        runs
    }

    /// Whether it calls `read`, and maps nothing.
    pub fn only_reads(&self) -> bool {
        self.kinds.only_reads()
    }

    /// Whether `file` is one of its parts.
    pub fn reads(&self, file: FileId) -> bool {
        self.model.parts.iter().any(|part| part.file == file)
    }
}
