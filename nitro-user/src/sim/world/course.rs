//! What a day has that a load has not: the agent is started anew, processes live on with what they have read, models are locked; and a simple prefetcher in the agent's place.

use std::{collections::BTreeSet, path::Path, time::Duration};

use super::{Turn, World, file};
use crate::{
    catalog::model::Description,
    engine::{
        Engine, Input, LoadId, Outcome,
        action::{ModelPin, Task},
        input::{StepEnd, User},
    },
    sim::{
        reader::{Reader, Style},
        warmer::Command,
    },
    units::{ByteCount, ByteRange, FileId, Moment, STEP},
};

/// Whoever waits until the agent's workers rest looks again after so long.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

impl Reader {
    /// It has begun, and its process lives.
    fn lives(&self) -> bool {
        self.began.is_some() && !self.is_gone
    }

    /// The parts that it has mapped.
    fn maps(&self) -> impl Iterator<Item = usize> {
        let maps = !matches!(self.spec.style, Style::Read { .. } | Style::Direct { .. });
        self.readahead.keys().copied().filter(move |_| maps)
    }
}

impl World<'_> {
    /// The agent ends and begins anew, with what it has learned.
    pub(super) fn restart(&mut self, now: Moment) {
        let Some(policy) = self
            .engine
            .as_ref()
            .map(|_| self.scenario.policy.clone().unwrap_or_default())
        else {
            return;
        };
        if self.streams.values().any(|stream| stream.is_busy) {
            return self.at(now.after(LOOK_AGAIN), Turn::Restart);
        }
        self.engine = Some(Engine::new(policy));
        self.streams.clear();
        self.closed.clear();
        // Nobody hears what was on its way.
        self.said.clear();
        for pin in self.locks.keys().copied().collect::<Vec<_>>() {
            self.release(pin);
        }
        // The programs in the kernel begin anew with their maps.
        self.readers.iter_mut().for_each(|reader| reader.cursors.clear());
        let rows = self.rows.all();
        self.tell(now, Input::Learned(rows));
    }

    /// A process has ended.
    pub(super) fn process_ends(&mut self, now: Moment, process: u32) {
        let mut copied = 0;
        for reader in self.readers.iter_mut().filter(|reader| reader.process == process) {
            copied += std::mem::take(&mut reader.copied);
            reader.is_gone = true;
        }
        self.cache.give(copied);
        self.say(now, Input::Ended { process });
    }

    /// A reader has copied so much more.
    pub(super) fn copy(&mut self, now: Moment, index: usize, bytes: u64) {
        if let Some(reader) = self.readers.get_mut(index) {
            reader.copied += bytes;
            let gone = self.cache.take(bytes);
            self.evicted(now, gone);
        }
    }

    /// Those of these processes that live, and all that live and have one of these files mapped.
    pub(super) fn users(&self, files: &[FileId], processes: &[u32]) -> Vec<User> {
        let living = || self.readers.iter().filter(|reader| reader.lives());
        let numbers: BTreeSet<u32> = living().map(|reader| reader.process).collect();
        let users = numbers.into_iter().map(|process| {
            let threads = || living().filter(|reader| reader.process == process);
            let maps = threads().flat_map(Reader::maps).map(file);
            User {
                process,
                maps: maps.filter(|file| files.contains(file)).collect(),
                accelerator: false,
                anonymous: ByteCount(threads().map(|reader| reader.copied).sum()),
            }
        });
        users
            .filter(|user| !user.maps.is_empty() || processes.contains(&user.process))
            .collect()
    }

    /// What is at a path.
    pub(super) fn find(&self, path: &Path) -> Option<Description> {
        let is_it = |part: &usize| {
            let described = self.describe(*part);
            let place = described
                .as_ref()
                .and_then(|found| found.model.parts.get(found.position));
            place.is_some_and(|part| part.is_at(path))
        };
        let part = (0..self.homes.len()).find(is_it)?;
        self.describe(part)
    }

    /// Pages of a step that came back are locked, or let go, if that is the task.
    pub(super) fn fulfil(&mut self, task: Task, part: usize, outcome: &mut Outcome) {
        match task {
            Task::Pin(pin) if outcome.end == StepEnd::Done || outcome.end == StepEnd::WholePartResident => {
                outcome.held = self.cache.lock(part, outcome.range);
                let place = (part, outcome.range.start / STEP);
                self.locks.entry(pin).or_default().push(place);
            }
            Task::Warm | Task::Pin(_) | Task::Drop => {}
        }
    }

    /// Nothing is locked for this any more.
    pub(super) fn release(&mut self, pin: ModelPin) {
        for place in self.locks.remove(&pin).unwrap_or_default() {
            self.cache.unlock(place);
        }
    }

    /// Pages leave the page cache because the agent wants it.
    pub(super) fn drop_pages(&mut self, now: Moment, part: usize, range: ByteRange) {
        let is_mapped = self
            .readers
            .iter()
            .any(|reader| reader.lives() && reader.maps().any(|mapped| mapped == part));
        if !is_mapped {
            self.cache.remove(part, range);
            self.say(
                now,
                Input::Removed {
                    file: file(part),
                    range,
                },
            );
        }
    }

    fn model_of(&self, part: usize) -> Vec<usize> {
        let home = self.homes.get(part).copied().flatten();
        let spec = home.and_then(|(model, _)| self.scenario.files.models.get(model));
        spec.map(|spec| spec.parts.clone()).unwrap_or_default()
    }

    /// This eviction has happened: what begins with it to be counted.
    pub(super) fn open_tallies(&mut self, eviction: usize) {
        let scenario = self.scenario;
        let Some(part) = scenario.evictions.get(eviction).map(|eviction| eviction.part) else {
            return;
        };
        for (index, spec) in scenario.course.tallies.iter().enumerate() {
            if spec.eviction == eviction {
                for part in self.model_of(part) {
                    self.cache.count_in(part, Some(index));
                }
            }
        }
    }

    /// This reader has read all: what is counted until then.
    pub(super) fn close_tallies(&mut self, reader: usize) {
        let scenario = self.scenario;
        for spec in scenario.course.tallies.iter().filter(|spec| spec.reader == reader) {
            let part = scenario
                .evictions
                .get(spec.eviction)
                .map_or(0, |eviction| eviction.part);
            for part in self.model_of(part) {
                self.cache.count_in(part, None);
            }
        }
    }

    /// A reader begins a visit: whether it opens its file for it, the simple prefetcher wants to know.
    pub(super) fn note_opening(&mut self, now: Moment, index: usize) {
        let Some(reader) = self.readers.get(index) else { return };
        let part = reader.visit.part;
        if self.simple.is_some() && !reader.spec.helps && !reader.readahead.contains_key(&part) {
            let notice = Turn::Notice(reader.process, part, reader.visit.range.start / STEP, true);
            self.at(now.after(self.scenario.machine.hear), notice);
        }
    }

    /// The simple prefetcher hears of a reader.
    pub(super) fn notice(&mut self, now: Moment, process: u32, part: usize, step: u64, is_opened: bool) {
        let Some(simple) = &mut self.simple else { return };
        let commands = if is_opened {
            simple.opened(part)
        } else {
            simple.reached(process, part, step)
        };
        self.hand_out(now, commands);
    }

    /// The simple prefetcher hears of a worker.
    pub(super) fn returned(&mut self, now: Moment, job: LoadId) {
        let Some(simple) = &mut self.simple else { return };
        let commands = simple.returned(job);
        self.hand_out(now, commands);
    }

    fn hand_out(&mut self, now: Moment, commands: Vec<(LoadId, Command)>) {
        for (job, command) in commands {
            self.warm(now, job, command);
        }
    }
}
