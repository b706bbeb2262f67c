//! What the engine does as processes come, turn out to be ignored, and end.

use super::{
    Engine,
    action::{Action, LoadId},
    happening::Skip,
    pattern::is_scanner,
};
use crate::{
    catalog::model::Description,
    units::{FileId, Moment},
};

impl Engine {
    /// The command line of a process names a file.
    pub(super) fn named(&mut self, now: Moment, process: u32, description: &Description, actions: &mut Vec<Action>) {
        let waiting = self.library.learn(now, description.file, Some(description.clone()));
        let id = self.load_of(now, process, description, actions);
        let Some(load) = self.loads.get_mut(&id) else { return };
        let device = self.devices.entry(description.file.device).or_default();
        load.expect(now, process, description.position, device, actions);
        if load.wants() {
            self.wanting.insert(id);
        }
        // It reads already: the catalog had been asked what that is, and this answers it.
        for access in waiting {
            self.access(now, access, actions);
        }
    }

    /// Who a process is.
    pub(super) fn identify(&mut self, now: Moment, process: u32, name: &str, user: u32) {
        let mut concerned = Vec::new();
        for load in self.loads.values_mut().filter(|load| load.readers.contains(process)) {
            load.readers.identify(process, name, user);
            if is_scanner(name) {
                load.readers.note_scanner(process);
            }
            concerned.push(load.id);
        }
        for id in concerned {
            self.recall_course(now, id);
            self.learn_beginning(now, id);
        }
    }

    /// A process reads a file past the page cache.
    pub(super) fn direct(&mut self, process: u32, file: FileId, actions: &mut Vec<Action>) {
        for load in self.loads.values_mut().filter(|load| load.reads(file)) {
            if load.readers.contains(process) && load.readers.note_direct(process) {
                load.skip(Skip::DirectIo, actions);
            }
        }
    }

    /// A process has ended.
    pub(super) fn ended(&mut self, now: Moment, process: u32, actions: &mut Vec<Action>) {
        self.ignored.remove(&process);
        self.passes.forget(process);
        self.retention.process_ended(now, process);
        let mut over = Vec::new();
        for load in self.loads.values_mut().filter(|load| load.readers.contains(process)) {
            if load.reader_ended(process, actions) {
                over.push(load.id);
            }
        }
        for id in over {
            self.end(id, actions);
        }
        if !self.is_awaited(process) {
            actions.push(Action::Forget { process });
        }
    }

    /// A process that reads is of an ignored program.
    pub(super) fn ignore(&mut self, process: u32, actions: &mut Vec<Action>) {
        let reads = self.loads.values().any(|load| load.readers.is_there(process));
        let concerned = self.loads.values_mut().filter(|load| load.readers.contains(process));
        let alone: Vec<LoadId> = concerned
            .filter_map(|load| (!load.readers.leave(process)).then_some(load.id))
            .collect();
        for id in &alone {
            if let Some(load) = self.loads.get_mut(id) {
                load.ignore(actions);
            }
            self.end(*id, actions);
        }
        // Of one that has ended nobody would tell again.
        if reads {
            self.ignored.insert(process);
        }
    }

    /// A process has come to a load: the others that it took part in may be behind it.
    pub(super) fn came(&mut self, process: u32, to: LoadId) {
        let others = self.loads.values_mut().filter(|load| load.id != to);
        for load in others.filter(|load| load.readers.contains(process)) {
            if let Some(process) = load.take_pass() {
                self.passes.note(self.now, process);
            }
        }
        if self.passes.are_many(self.now, process)
            && let Some(load) = self.loads.get_mut(&to)
        {
            load.readers.note_scanner(process);
        }
    }

    /// Whether a load has yet to take the counters of a process.
    pub(super) fn is_awaited(&self, process: u32) -> bool {
        self.loads.values().any(|load| load.readers.awaits(process))
    }
}
