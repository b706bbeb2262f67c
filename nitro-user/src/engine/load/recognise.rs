//! Which kind of reader a load has: see `pattern`.

use super::{Load, READAHEAD_SLACK, Stage};
use crate::engine::{
    action::Action,
    happening::Skip,
    pattern::{MANY_PLACES, Pattern},
    plan::device::Device,
    steps::Steps,
};

impl Load {
    /// Its processes have brought in `added` bytes themselves.
    pub fn added(&mut self, added: u64, device: &mut Device, actions: &mut Vec<Action>) {
        self.measured(added, device, actions);
        self.reliance.answer(added, device.rate());
        let demanded: u64 = self.parts.iter().flatten().map(Steps::demanded_bytes).sum();
        if self.stage == Stage::Confirmed && added > demanded + READAHEAD_SLACK {
            self.skip(Skip::Prefetching, actions);
        }
    }

    /// Asks how much its processes have brought in themselves.
    pub(super) fn ask_added(&self, actions: &mut Vec<Action>) {
        let (load, model) = (self.id, self.model.clone());
        let processes = self.readers.unsettled();
        actions.push(Action::AskAdded { load, processes, model });
    }

    /// The kind of reader it has, if there is a name for it.
    pub fn pattern(&self) -> Option<Pattern> {
        if self.skipped.contains(&Skip::Prefetching) {
            Some(Pattern::Prefetching)
        } else if self.readers.scan() {
            Some(Pattern::Scanner)
        } else if self.groups.most() >= MANY_PLACES {
            Some(Pattern::Interleaved)
        } else {
            None
        }
    }

    /// The process that read all of it, or of some of its parts, from the first byte to the last in order. Says so once.
    pub fn take_pass(&mut self) -> Option<u32> {
        let process = self.readers.only()?;
        let mut read = self.parts.iter().flatten().filter(|steps| steps.demanded_bytes() > 0);
        let in_order = self.kinds.only_reads() && self.groups.only_walk();
        let is_pass = !self.pass_taken && in_order && read.all(Steps::are_all_read);
        self.pass_taken |= is_pass;
        is_pass.then_some(process)
    }
}
