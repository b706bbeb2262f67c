//! The event loop: whoever acts next, acts; the engine hears of it as it would from the kernel and the workers.

mod course;
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
    Files, ModelSpec, PAGE, Report, Scenario, Tallied,
    cache::{self, By, Cache},
    device::Device,
    machine::{Chance, Processors},
    readahead::{Window, folios},
    reader::{Phase, Reader},
    rows::Rows,
    simple::Simple,
    warmer::Stream,
};
use crate::{
    catalog::model::{Model, Part, Place},
    engine::{Engine, Input, LoadId, action::ModelPin},
    units::{ByteRange, FileId, Moment},
};

/// The simulated device's number.
const DEVICE: u32 = 8 << 20;

/// Ticks in a row that leave the engine's deadline where it is: more, and it has nothing to do and does not rest.
const MOST_TICKS: u32 = 4;

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
    /// The eviction with this index.
    Evict(usize),
    /// The agent is started anew.
    Restart,
    /// This process ends.
    End(u32),
    /// The simple prefetcher hears that a process has come to this step of a part, and whether it has just opened that.
    Notice(u32, usize, u64, bool),
    /// It hears that a step of this job came back.
    Returned(LoadId),
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
    models: Vec<Arc<Model>>,
    /// For each part the index of its model, and its position in that.
    homes: Vec<Option<(usize, usize)>>,
    engine: Option<Engine>,
    simple: Option<Simple>,
    /// What the agent keeps over its restarts.
    rows: Rows,
    /// Steps that are locked, by what they are locked for.
    locks: BTreeMap<ModelPin, Vec<cache::Place>>,
    device: Device,
    cache: Cache,
    processors: Processors<Actor>,
    chance: Chance,
    readers: Vec<Reader>,
    /// Readers and evictions that wait for the end of a reader, or for nobody's.
    followers: BTreeMap<Option<usize>, (Vec<usize>, Vec<usize>)>,
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

/// Which part a file is.
fn part_of(file: FileId) -> usize {
    usize::try_from(file.inode).unwrap_or(0).saturating_sub(1)
}

fn model(spec: &ModelSpec, files: &Files, names: &[PathBuf]) -> Model {
    let place = |part: usize| match names.get(part) {
        Some(name) => Place {
            root: Path::new("/").into(),
            below: name.strip_prefix("/").unwrap_or(name).to_owned(),
        },
        None => Place {
            root: Path::new("/sim").into(),
            below: PathBuf::from(format!("{part}")),
        },
    };
    let parts = spec.parts.iter().map(|part| Part {
        file: file(*part),
        size: files.size(*part),
        header: files.parts.get(*part).map_or(0, |part| part.header),
        place: place(*part),
        generation: 0,
        layer: None,
    });
    Model {
        name: spec.name.clone(),
        layout: spec.layout,
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
            models: Vec::new(),
            homes: vec![None; scenario.files.parts.len()],
            engine: scenario.policy.clone().map(Engine::new),
            simple: scenario
                .course
                .simple
                .map(|kind| Simple::new(kind, &scenario.files, &scenario.course.names)),
            rows: Rows::default(),
            locks: BTreeMap::new(),
            device: Device::new(scenario.device),
            cache: Cache::new(scenario.memory),
            processors: Processors::new(scenario.machine.processors),
            chance: Chance::default(),
            readers: Vec::new(),
            followers: BTreeMap::new(),
            at_work: BTreeMap::new(),
            streams: BTreeMap::new(),
            quiet: None,
            turns: BinaryHeap::new(),
            order: 0,
            said: BTreeMap::new(),
            closed: HashSet::new(),
            report: Report::default(),
        };
        for (index, spec) in scenario.files.models.iter().enumerate() {
            for (position, part) in spec.parts.iter().enumerate() {
                if let Some(home) = world.homes.get_mut(*part) {
                    *home = Some((index, position));
                }
            }
            world
                .models
                .push(Arc::new(model(spec, &scenario.files, &scenario.course.names)));
        }
        for (part, range) in &scenario.resident {
            let end = range.end.min(scenario.files.size(*part));
            let range = ByteRange { end, ..*range };
            world.cache.insert(*part, cache::pages(range), Moment(0), By::Nobody);
        }
        for (index, spec) in scenario.readers.iter().enumerate() {
            let reader = Reader::new(index, spec);
            *world.at_work.entry(reader.process).or_default() += 1;
            world.readers.push(reader);
            world.followers.entry(spec.follows).or_default().0.push(index);
        }
        for (index, eviction) in scenario.evictions.iter().enumerate() {
            world.followers.entry(eviction.follows).or_default().1.push(index);
        }
        world.begin_what_follows(Moment(0), None);
        for at in &scenario.course.restarts {
            world.at(*at, Turn::Restart);
        }
        world
    }

    /// A reader is done, or none has begun yet: what is to happen so long after that gets its time.
    fn begin_what_follows(&mut self, now: Moment, done: Option<usize>) {
        let scenario = self.scenario;
        let after = |moment: Moment| now.after(Duration::from_nanos(moment.0));
        let Some((readers, evictions)) = self.followers.remove(&done) else {
            return;
        };
        for (index, eviction) in evictions
            .into_iter()
            .filter_map(|index| Some((index, scenario.evictions.get(index)?)))
        {
            self.at(after(eviction.at), Turn::Evict(index));
        }
        for (index, spec) in readers
            .into_iter()
            .filter_map(|index| Some((index, scenario.readers.get(index)?)))
        {
            if let Some(before) = spec.announced {
                let before = u64::try_from(before.as_nanos()).unwrap_or(u64::MAX);
                let start = Moment(spec.start.0.saturating_sub(before));
                self.at(after(start), Turn::Announce(index));
            }
            self.at(after(spec.start), Turn::Wake(Actor::Reader(index)));
        }
    }

    fn at(&mut self, when: Moment, turn: Turn) {
        self.order += 1;
        self.turns.push(Reverse((when, self.order, turn)));
    }

    /// Runs until nobody has anything to do for a reader.
    pub fn run(mut self) -> Report {
        let (mut now, mut ticks) = (Moment(0), 0);
        loop {
            let next = self.turns.peek().map(|Reverse((when, ..))| *when);
            let deadline = self.engine.as_ref().and_then(Engine::deadline);
            match (next, deadline) {
                (None, None) => break,
                // What the agent keeps for later loads has no end.
                _ if self.is_over() => break,
                (next, Some(deadline)) if next.is_none_or(|next| deadline < next) => {
                    now = now.max(deadline);
                    self.tell(now, Input::Tick);
                    // What a tick decides may have to be followed up in the same moment.
                    let is_same = self.engine.as_ref().and_then(Engine::deadline) == Some(deadline);
                    ticks = if is_same { ticks + 1 } else { 0 };
                    if ticks == MOST_TICKS {
                        self.broken("ticks at the deadline left the deadline where it was");
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
        self.report.served = self.readers.iter().map(|reader| reader.served).collect();
        self.report.stays = self.readers.into_iter().map(|reader| reader.stays).collect();
        self.report.tallies = self.cache.tallies().to_vec();
        self.report
            .tallies
            .resize(self.scenario.course.tallies.len(), Tallied::default());
        (self.report.used, self.report.wasted_bytes) = self.cache.account();
        self.report
    }

    /// Whether all readers have come and gone, and every load has its receipt.
    fn is_over(&self) -> bool {
        let helps = self.engine.is_some() || self.simple.is_some();
        let is_loading = self
            .engine
            .as_ref()
            .is_some_and(|engine| engine.loads().next().is_some());
        helps && !is_loading && self.readers.iter().all(|reader| matches!(reader.phase, Phase::Done))
    }

    fn take(&mut self, now: Moment, turn: Turn) {
        match turn {
            Turn::Announce(index) => self.announce(now, index),
            Turn::Evict(index) => self.evict(now, index),
            Turn::Restart => self.restart(now),
            Turn::End(process) => self.process_ends(now, process),
            Turn::Notice(process, part, step, is_opened) => self.notice(now, process, part, step, is_opened),
            Turn::Returned(job) => self.returned(now, job),
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
        self.scenario.files.size(part)
    }

    /// Brings in those pages of a window that are not there, in requests as large as they may be. Whoever does it has a processor from `now` on: it puts the pages into
    /// the page cache, where others find them, and then hands its requests over.
    fn bring_in(&mut self, now: Moment, by: By, part: usize, window: Window) -> Brought {
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
                let arrives = self.device.submit(now.after(brought.work), part, range, false);
                let gone = self.cache.insert(part, start..end, arrives, by);
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

    fn evict(&mut self, now: Moment, index: usize) {
        let Some(eviction) = self.scenario.evictions.get(index) else {
            return;
        };
        let end = eviction.range.end.min(self.size(eviction.part));
        let range = ByteRange { end, ..eviction.range };
        self.cache.remove(eviction.part, range);
        self.open_tallies(index);
        let file = file(eviction.part);
        self.say(now, Input::Removed { file, range });
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
