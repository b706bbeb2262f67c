//! What the engine is told, and what it asks for.

use std::collections::VecDeque;

use super::{Turn, World, file, part_of};
use crate::{
    catalog::model::Description,
    engine::{
        Action, Engine, Input, LoadId,
        input::{FileCounts, MachineMemory},
        load::Stage,
    },
    sim::{cursor::Cursor, reader::Style, warmer::Command},
    units::{ByteCount, Moment},
};

impl World<'_> {
    /// The engine will hear this in a moment.
    pub(super) fn say(&mut self, now: Moment, input: Input) {
        let heard = now.after(self.scenario.machine.hear);
        if self.engine.is_some() {
            let id = self.order;
            self.said.insert(id, input);
            self.at(heard, Turn::Hear(id));
        } else if let Input::Outcome(outcome) = input
            && self.simple.is_some()
        {
            self.at(heard, Turn::Returned(outcome.load));
        }
    }

    /// A reader's command line names the model.
    pub(super) fn announce(&mut self, now: Moment, index: usize) {
        let Some(reader) = self.readers.get(index) else { return };
        let part = reader.left.front().map_or(0, |visit| visit.part);
        let process = reader.process;
        if let Some(description) = self.describe(part) {
            self.say(now, Input::Named { process, description });
        }
    }

    pub(super) fn describe(&self, part: usize) -> Option<Description> {
        let (model, position) = self.homes.get(part).copied().flatten()?;
        Some(Description {
            file: file(part),
            model: self.models.get(model)?.clone(),
            position,
            written: None,
        })
    }

    /// The engine hears this.
    pub(super) fn tell(&mut self, now: Moment, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let Some(engine) = &mut self.engine else { return };
            let actions = engine.handle(now, input);
            let (held, ceiling) = (engine.held(), engine.ceiling());
            if held > ceiling {
                self.broken(&format!("{held} held above the ceiling of {ceiling}"));
            }
            for action in actions {
                inputs.extend(self.carry_out(now, action));
            }
        }
    }

    fn carry_out(&mut self, now: Moment, action: Action) -> Option<Input> {
        match action {
            Action::Describe(file) => {
                let description = self.describe(part_of(file));
                return Some(Input::Described { file, description });
            }
            Action::AskProgram { process } => {
                let reader = self.readers.iter().find(|reader| reader.process == process)?;
                return Some(Input::Program {
                    process,
                    name: reader.spec.program.clone(),
                    user: 0,
                });
            }
            Action::AskMemory => {
                // Its page cache can be taken back, but for what is locked.
                return Some(Input::Memory(MachineMemory {
                    available: ByteCount(self.cache.available()),
                    free: ByteCount(self.cache.free()),
                    reclaimed: ByteCount(self.report.evicted_bytes),
                    ..MachineMemory::default()
                }));
            }
            Action::Warm {
                load,
                model,
                part,
                range,
                manner,
            } => {
                let command = Command {
                    position: part,
                    part: part_of(model.parts.get(part)?.file),
                    range,
                    manner,
                };
                self.warm(now, load, command);
            }
            Action::Cancel { load } => self.cancel(now, load),
            Action::Release { pin } => self.release(pin),
            Action::Learn(change) => self.rows.change(change),
            Action::Keep { device, knowledge } => self.rows.keep(device, knowledge),
            Action::Recall { device } => {
                let knowledge = self.rows.device(device)?;
                return Some(Input::Recalled { device, knowledge });
            }
            Action::Find { path } => {
                let description = self.find(&path);
                return Some(Input::Found { path, description });
            }
            Action::AskUsers { files, processes } => return Some(Input::Users(self.users(&files, &processes))),
            Action::AskDirect { process, file } => {
                let is_direct = self.readers.iter().any(|reader| {
                    let is_there = reader.process == process && reader.began.is_some();
                    is_there && reader.visit.part == part_of(file) && matches!(reader.style(), Style::Direct { .. })
                });
                return is_direct.then_some(Input::Direct { process, file });
            }
            Action::AskAdded { load, processes, .. } => {
                let readers = self.readers.iter().filter(|reader| processes.contains(&reader.process));
                let cursors = readers.flat_map(|reader| reader.cursors.values());
                let added = cursors.map(|cursor| cursor.added).sum();
                return Some(Input::Added { load, added });
            }
            Action::Count { load, processes, .. } => return Some(self.count(load, &processes)),
            Action::Finish(receipt) => self.report.receipts.push(*receipt),
            _ => {}
        }
        None
    }

    /// Takes the counters of these processes: whoever reads on is counted anew.
    fn count(&mut self, load: LoadId, processes: &[u32]) -> Input {
        let mut loads = self.engine.iter().flat_map(Engine::loads);
        if !loads.any(|going| going.id == load && going.stage != Stage::Ended) {
            self.closed.insert(load);
        }
        let readers = self
            .readers
            .iter_mut()
            .filter(|reader| processes.contains(&reader.process));
        let cursors = readers.flat_map(|reader| std::mem::take(&mut reader.cursors));
        let counts = cursors.map(|(part, cursor): (usize, Cursor)| FileCounts {
            file: Some(file(part)),
            calls: cursor.calls,
            bytes: cursor.bytes,
            added: cursor.added,
            missed: cursor.missed,
        });
        Input::Counted {
            load,
            counts: counts.collect(),
        }
    }
}
