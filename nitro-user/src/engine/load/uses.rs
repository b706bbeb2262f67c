//! What a load tells of how its model is used.

use super::{Load, Stage};
use crate::{
    engine::{happening::Skip, steps::Steps},
    units::FileId,
};

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

    /// The parts that were read, beyond a look at their beginning.
    pub fn parts_read(&self) -> impl Iterator<Item = usize> {
        let read = |steps: &Option<Steps>| steps.as_ref().is_some_and(|steps| steps.demanded_bytes() > 0);
        let parts = self.parts.iter().enumerate();
        parts.filter(move |(_, steps)| read(steps)).map(|(part, _)| part)
    }

    /// Whether `file` is one of its parts.
    pub fn reads(&self, file: FileId) -> bool {
        self.model.parts.iter().any(|part| part.file == file)
    }
}
