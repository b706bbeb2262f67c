//! The event loop: whoever acts next, acts; the engine hears of it as it would from the kernel and the workers.

mod reading;
mod telling;
mod warming;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashSet},
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{
    PAGE, Report, Scenario,
    cache::{self, Cache},
    device::Device,
    machine::{Chance, Processors},
    readahead::{Window, folios},
    reader::Reader,
    warmer::Stream,
};
use crate::{
    catalog::model::{Model, Part, Place},
    engine::{Engine, Input, LoadId, Policy},
    units::{ByteRange, FileId, Moment},
};

/// The simulated device's number.
const DEVICE: u32 = 8 << 20;

/// Who needs a processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Actor {
    Reader(usize),
    /// A worker's thread.
    Worker(LoadId),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Turn {
    /// A process is announced by its command line.
    Announce(usize),
    /// What somebody waited for has come.
    Wake(Actor),
    /// Somebody has a processor, and goes on.
    Act(Actor),
    /// The engine hears what was said.
    Hear(u64),
}

/// What was brought in.
#[derive(Default)]
struct Brought {
    /// A range for each request.
    ranges: Vec<ByteRange>,
    /// Processor time that it took.
    work: Duration,
}

/// Everything there is.
pub struct World<'a> {
    scenario: &'a Scenario,
    model: Arc<Model>,
    engine: Option<Engine>,
    device: Device,
    cache: Cache,
    processors: Processors<Actor>,
    chance: Chance,
    readers: Vec<Reader>,
    /// Readers at work in each process.
    at_work: BTreeMap<u32, usize>,
    streams: BTreeMap<LoadId, Stream>,
    /// Bytes that the device had given when a gentle request last ended.
    quiet: Option<u64>,
    turns: BinaryHeap<Reverse<(Moment, u64, Turn)>>,
    order: u64,
    /// What was said and not heard yet.
    said: BTreeMap<u64, Input>,
    closed: HashSet<LoadId>,
    report: Report,
}

fn file(part: usize) -> FileId {
    FileId {
        device: DEVICE,
        inode: part as u64 + 1,
    }
}

fn model(scenario: &Scenario) -> Model {
    let parts = scenario.parts.iter().enumerate().map(|(index, size)| Part {
        file: file(index),
        size: *size,
        header: scenario.header,
        place: Place {
            root: Path::new("/sim").into(),
            below: PathBuf::from(format!("{index}")),
        },
        generation: 0,
        layer: None,
    });
    Model {
        name: "sim".into(),
        layout: scenario.layout,
        observe_only: false,
        lent: false,
        changes_unseen: false,
        parts: parts.collect(),
    }
}

impl<'a> World<'a> {
    /// The world before anything happens.
    pub fn new(scenario: &'a Scenario) -> Self {
        let mut world = Self {
            scenario,
            model: Arc::new(model(scenario)),
            engine: scenario.ceiling.map(|ceiling| {
                Engine::new(Policy {
                    ceiling,
                    ..Policy::default()
                })
            }),
            device: Device::new(scenario.device),
            cache: Cache::new(scenario.memory),
            processors: Processors::new(scenario.machine.processors),
            chance: Chance::default(),
            readers: Vec::new(),
            at_work: BTreeMap::new(),
            streams: BTreeMap::new(),
            quiet: None,
            turns: BinaryHeap::new(),
            order: 0,
            said: BTreeMap::new(),
            closed: HashSet::new(),
            report: Report::default(),
        };
        if scenario.cached {
            for (part, size) in scenario.parts.iter().enumerate() {
                world.cache.insert(part, 0..size.div_ceil(PAGE), Moment(0));
            }
        }
        for (index, spec) in scenario.readers.iter().enumerate() {
            let reader = Reader::new(index, spec);
            *world.at_work.entry(reader.process).or_default() += 1;
            world.readers.push(reader);
            if let Some(before) = spec.announced {
                let when = spec.start.0.saturating_sub(before.as_nanos() as u64);
                world.at(Moment(when), Turn::Announce(index));
            }
            world.at(spec.start, Turn::Wake(Actor::Reader(index)));
        }
        world
    }

    fn at(&mut self, when: Moment, turn: Turn) {
        self.order += 1;
        self.turns.push(Reverse((when, self.order, turn)));
    }

    /// Runs until nobody has anything to do.
    pub fn run(mut self) -> Report {
        let mut now = Moment(0);
        loop {
            let next = self.turns.peek().map(|Reverse((when, ..))| *when);
            let deadline = self.engine.as_ref().and_then(Engine::deadline);
            match (next, deadline) {
                (None, None) => break,
                (next, Some(deadline)) if next.is_none_or(|next| deadline < next) => {
                    now = now.max(deadline);
                    self.tell(now, Input::Tick);
                    if self.engine.as_ref().and_then(Engine::deadline) == Some(deadline) {
                        self.broken("a tick at the deadline left the deadline where it was");
                        break;
                    }
                }
                _ => {
                    let Some(Reverse((when, _, turn))) = self.turns.pop() else {
                        break;
                    };
                    now = now.max(when);
                    self.take(now, turn);
                }
            }
        }
        self.report.ended = now;
        self.report.device_bytes = self.device.bytes;
        self.report.requests = self.device.requests;
        let ends = self.readers.iter().filter_map(|reader| reader.ended);
        self.report.readers_ended = ends.max().unwrap_or_default();
        let times = self
            .readers
            .iter()
            .map(|reader| reader.ended.unwrap_or_default().since(reader.began.unwrap_or_default()));
        self.report.reader_times = times.collect();
        self.report
    }

    fn take(&mut self, now: Moment, turn: Turn) {
        match turn {
            Turn::Announce(index) => self.announce(now, index),
            Turn::Wake(actor) => self.run_for(now, actor, self.scenario.machine.switch),
            Turn::Act(Actor::Reader(index)) => self.read(now, index),
            Turn::Act(Actor::Worker(load)) => self.work(now, load),
            Turn::Hear(id) => {
                if let Some(input) = self.said.remove(&id) {
                    self.tell(now, input);
                }
            }
        }
    }

    /// Somebody works for so long, once there is a processor, and then goes on.
    fn run_for(&mut self, now: Moment, actor: Actor, work: Duration) {
        let runs = self.processors.run(now, actor, work);
        self.let_act(runs);
    }

    /// Somebody leaves its processor to others until `until`, and a little longer.
    fn sleep(&mut self, now: Moment, actor: Actor, until: Moment) {
        self.leave(now, actor);
        let wake = self.chance.about(self.scenario.machine.wake);
        self.at(until.max(now).after(wake), Turn::Wake(actor));
    }

    /// Somebody has nothing more to do.
    fn leave(&mut self, now: Moment, actor: Actor) {
        let runs = self.processors.leave(now, actor);
        self.let_act(runs);
    }

    fn let_act(&mut self, runs: Option<(Actor, Moment)>) {
        if let Some((actor, done)) = runs {
            self.at(done, Turn::Act(actor));
        }
    }

    fn size(&self, part: usize) -> u64 {
        self.scenario.parts.get(part).copied().unwrap_or(0)
    }

    /// Brings in those pages of a window that are not there, in requests as large as they may be. Whoever does it has a processor from `now` on: it puts the pages into
    /// the page cache, where others find them, and then hands its requests over.
    fn bring_in(&mut self, now: Moment, part: usize, window: Window) -> Brought {
        let size = self.size(part);
        let largest = (self.device.largest() / PAGE).max(1);
        let mut brought = Brought::default();
        for (run, order) in self.room_for(part, window) {
            let number = folios(run.clone(), order).count() as u64;
            brought.work += self.price_of_room(run.end - run.start, number);
            let mut start = run.start;
            while start < run.end {
                let end = start.saturating_add(largest).min(run.end);
                let range = ByteRange {
                    start: start * PAGE,
                    end: (end * PAGE).min(size),
                };
                brought.work += self.scenario.machine.request;
                let arrives = self.device.submit(now.after(brought.work), part, range);
                let gone = self.cache.insert(part, start..end, arrives);
                self.evicted(now, gone);
                brought.ranges.push(range);
                start = end;
            }
            self.cache.fold(part, run.clone(), order);
            if let Some(mark) = window.mark.filter(|mark| run.contains(mark)) {
                let head = self.cache.head(part, mark);
                self.cache.mark(part, head, true);
            }
        }
        brought
    }

    /// The runs of a window's pages that are not there, and the order of their folios: from the first page that is there on, the kernel takes single ones.
    fn room_for(&self, part: usize, window: Window) -> Vec<(Range<u64>, u32)> {
        let end = (window.start + window.size).min(self.size(part).div_ceil(PAGE));
        let runs = self.cache.absent(part, window.start..end).into_iter();
        let with_order = |run: Range<u64>| {
            let order = if run.start == window.start { window.order } else { 0 };
            (run, order)
        };
        runs.map(with_order).collect()
    }

    fn evicted(&mut self, now: Moment, gone: Vec<cache::Place>) {
        for (part, step) in gone {
            let range = ByteRange::of_step(step, self.size(part));
            self.report.evicted_bytes += range.len();
            self.say(
                now,
                Input::Removed {
                    file: file(part),
                    range,
                },
            );
        }
    }

    /// Processor time of making room for so many pages in so many folios.
    fn price_of_room(&self, pages: u64, folios: u64) -> Duration {
        let machine = &self.scenario.machine;
        let times = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        machine.page * times(pages) + machine.folio * times(folios)
    }

    fn broken(&mut self, rule: &str) {
        if self.report.broken.len() < 16 {
            self.report.broken.push(rule.to_owned());
        }
    }
}
