//! The event loop: whoever acts next, acts; the engine hears of it as it would from the kernel and the workers.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashSet, VecDeque},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{Report, Scenario, cache::Cache, device::Device, reader::Reader};
use crate::{
    catalog::model::{Description, Model, Part, Place},
    engine::{
        Access, AccessKind, Action, Engine, Input, LoadId, Outcome, Policy,
        input::{FileCounts, StepEnd},
        load::Stage,
    },
    units::{ByteCount, ByteRange, FileId, Moment, STEP},
};

/// Touching a resident step costs the reader so much.
const TOUCH: Duration = Duration::from_micros(250);

/// Requests of the warmers.
const WARM_REQUEST: u64 = 1 << 20;

/// The simulated device's number.
const DEVICE: u32 = 8 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Turn {
    Reader(usize),
    Warmed(u64),
}

/// Everything there is.
pub struct World<'a> {
    scenario: &'a Scenario,
    model: Arc<Model>,
    engine: Option<Engine>,
    device: Device,
    cache: Cache,
    readers: Vec<Reader>,
    turns: BinaryHeap<Reverse<(Moment, u64, Turn)>>,
    order: u64,
    outcomes: BTreeMap<u64, Outcome>,
    on_the_way: BTreeMap<(usize, u64), Moment>,
    closed: HashSet<LoadId>,
    report: Report,
}

fn file(part: usize) -> FileId {
    FileId {
        device: DEVICE,
        inode: part as u64 + 1,
    }
}

impl<'a> World<'a> {
    /// The world before anything happens.
    pub fn new(scenario: &'a Scenario) -> Self {
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
        let model = Model {
            name: "sim".into(),
            layout: scenario.layout,
            observe_only: false,
            lent: false,
            changes_unseen: false,
            parts: parts.collect(),
        };
        let mut world = Self {
            scenario,
            model: Arc::new(model),
            engine: scenario.ceiling.map(|ceiling| {
                Engine::new(Policy {
                    ceiling,
                    dry_run: false,
                    ignored: Vec::new(),
                    inferred: false,
                    charge_consumer: false,
                })
            }),
            device: Device::new(scenario.device),
            cache: Cache::new(scenario.memory),
            readers: Vec::new(),
            turns: BinaryHeap::new(),
            order: 0,
            outcomes: BTreeMap::new(),
            on_the_way: BTreeMap::new(),
            closed: HashSet::new(),
            report: Report::default(),
        };
        for (index, spec) in scenario.readers.iter().enumerate() {
            world
                .readers
                .push(Reader::new(100 + index as u32, spec, scenario.parts.len()));
            world.at(spec.start, Turn::Reader(index));
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
                    match turn {
                        Turn::Reader(index) => self.read(now, index),
                        Turn::Warmed(id) => self.warmed(now, id),
                    }
                }
            }
        }
        self.report.ended = now;
        self.report.device_bytes = self.device.bytes;
        let times = self
            .readers
            .iter()
            .map(|reader| reader.ended.unwrap_or_default().since(reader.began.unwrap_or_default()));
        self.report.reader_times = times.collect();
        self.report
    }

    fn size_of(&self, place: (usize, u64)) -> ByteRange {
        ByteRange::of_step(place.1, self.scenario.parts.get(place.0).copied().unwrap_or(0))
    }

    /// A reader goes on: to its next visit, with the next piece of the one it is in, or to its end.
    fn read(&mut self, now: Moment, index: usize) {
        let Some(reader) = self.readers.get(index) else { return };
        let Some((place, had)) = reader.visit else {
            return self.visit(now, index);
        };
        let (request, range) = (reader.spec.request, self.size_of(place));
        if let Some(arrives) = self.on_the_way.get(&place).copied() {
            // Just after, so that whoever brings it has put it down.
            return self.at(arrives.max(now).after(Duration::from_nanos(1)), Turn::Reader(index));
        }
        if let Some(reader) = self.readers.get_mut(index) {
            reader.pieces += 1;
            // The kernel reports the eighth access in order after a jump.
            if reader.pieces == 8 {
                let at = range.start + had;
                let touched = ByteRange {
                    start: at,
                    end: range.end.min(at + 65_536),
                };
                let access = self.access(now, index, place, touched, false, true);
                self.tell(now, Input::Access(access));
            }
        }
        // Whatever is missing, the reader brings in by itself, one request at a time; a warmer may overtake it.
        let resident = self.cache.resident(place).min(range.len()).max(had);
        let missing = (range.len() - resident).min(request);
        if missing > 0 && self.cache.resident(place) < range.len() {
            let done = self.device.read(now, missing, request);
            self.fill(now, place, resident + missing);
            if let Some(reader) = self.readers.get_mut(index) {
                reader.visit = Some((place, resident + missing));
                if let Some(added) = reader.added.get_mut(place.0) {
                    *added += missing;
                }
            }
            return self.at(done, Turn::Reader(index));
        }
        self.cache.touch(place);
        let Some(reader) = self.readers.get_mut(index) else {
            return;
        };
        if let Some(bytes) = reader.bytes.get_mut(place.0) {
            *bytes += range.len();
        }
        reader.visit = None;
        reader.ended = Some(now.after(TOUCH));
        let think = reader.spec.think;
        self.at(now.after(TOUCH + think), Turn::Reader(index));
    }

    /// Begins a reader's next visit, or ends the reader.
    fn visit(&mut self, now: Moment, index: usize) {
        let Some(reader) = self.readers.get_mut(index) else {
            return;
        };
        let (process, list) = (reader.process, reader.spec.shares.unwrap_or(index));
        let Some(place) = self.readers.get_mut(list).and_then(|owner| owner.left.pop_front()) else {
            return self.tell(now, Input::Ended { process });
        };
        let Some(reader) = self.readers.get_mut(index) else {
            return;
        };
        reader.began.get_or_insert(now);
        let last = reader.last.replace(place);
        let follows = last.is_some_and(|last| place == last || place == (last.0, last.1 + 1));
        let first_of_part = last.is_none_or(|last| last.0 != place.0);
        let jump = !(follows || first_of_part && place.1 == 0);
        if jump || first_of_part {
            reader.pieces = 0;
        }
        let range = self.size_of(place);
        if !range.is_empty() {
            if let Some(reader) = self.readers.get_mut(index) {
                reader.visit = Some((place, 0));
            }
            let touched = ByteRange {
                start: range.start,
                end: range.end.min(range.start + 65_536),
            };
            let access = self.access(now, index, place, touched, jump, false);
            self.tell(now, Input::Access(access));
        }
        self.at(now, Turn::Reader(index));
    }

    fn access(
        &self,
        now: Moment,
        index: usize,
        place: (usize, u64),
        range: ByteRange,
        jump: bool,
        in_order: bool,
    ) -> Access {
        let reader = self.readers.get(index);
        let process = reader.map_or(0, |reader| reader.process);
        let kind = reader.map_or(AccessKind::Read, |reader| reader.spec.kind);
        Access {
            at: now,
            process,
            thread: process,
            file: file(place.0),
            generation: 1,
            range,
            kind,
            jump,
            in_order,
            written: false,
        }
    }

    fn fill(&mut self, now: Moment, place: (usize, u64), bytes: u64) {
        for gone in self.cache.fill(place, bytes) {
            let range = self.size_of(gone);
            self.tell(
                now,
                Input::Removed {
                    file: file(gone.0),
                    range,
                },
            );
        }
    }

    fn warmed(&mut self, now: Moment, id: u64) {
        let Some(mut outcome) = self.outcomes.remove(&id) else {
            return;
        };
        let place = (outcome.part, outcome.range.start / STEP);
        self.on_the_way.remove(&place);
        outcome.completed = now;
        self.report.warmed_bytes += outcome.gained();
        self.fill(now, place, outcome.range.len());
        self.tell(now, Input::Outcome(outcome));
    }

    fn tell(&mut self, now: Moment, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let Some(engine) = &mut self.engine else { return };
            let actions = engine.handle(now, input);
            let (held, ceiling) = (engine.held(), engine.ceiling());
            if held > ceiling {
                self.broken(&format!("{held} held above the ceiling of {ceiling}"));
            }
            for action in actions {
                inputs.extend(self.act(now, action));
            }
        }
    }

    fn act(&mut self, now: Moment, action: Action) -> Option<Input> {
        match action {
            Action::Describe(file) => {
                let position = usize::try_from(file.inode).unwrap_or(0).saturating_sub(1);
                let description = Some(Description {
                    file,
                    model: self.model.clone(),
                    position,
                    written: None,
                });
                return Some(Input::Described { file, description });
            }
            Action::Warm { load, part, range, .. } => self.warm(now, load, part, range),
            Action::Count { load, processes, .. } => {
                let mut loads = self.engine.iter().flat_map(Engine::loads);
                if !loads.any(|going| going.id == load && going.stage != Stage::Ended) {
                    self.closed.insert(load);
                }
                let readers = self.readers.iter().filter(|reader| processes.contains(&reader.process));
                let parts = self.scenario.parts.len();
                let counts = readers.flat_map(|reader| {
                    (0..parts).map(|part| FileCounts {
                        file: Some(file(part)),
                        calls: 1,
                        bytes: reader.bytes.get(part).copied().unwrap_or(0),
                        added: reader.added.get(part).copied().unwrap_or(0),
                        missed: 0,
                    })
                });
                return Some(Input::Counted {
                    load,
                    counts: counts.collect(),
                });
            }
            Action::Finish(receipt) => self.report.receipts.push(*receipt),
            _ => {}
        }
        None
    }

    fn warm(&mut self, now: Moment, load: LoadId, part: usize, range: ByteRange) {
        let size = self.scenario.parts.get(part).copied().unwrap_or(0);
        if range.end > size || range.is_empty() {
            self.broken(&format!(
                "part {part}: {range:?} lies outside a file of {}",
                ByteCount(size)
            ));
        }
        if self.closed.contains(&load) {
            self.broken("a step for a load that has ended");
        }
        let place = (part, range.start / STEP);
        let before = self.cache.resident(place).min(range.len());
        let missing = range.len() - before;
        let done = if missing > 0 {
            self.device.read(now, missing, WARM_REQUEST)
        } else {
            now
        };
        let outcome = Outcome {
            load,
            part,
            file: file(part),
            device: DEVICE,
            range,
            end: StepEnd::Done,
            before,
            after: range.len(),
            beyond: 0,
            submitted: now,
            completed: done,
        };
        self.order += 1;
        let id = self.order;
        self.outcomes.insert(id, outcome);
        self.on_the_way.insert(place, done);
        self.at(done, Turn::Warmed(id));
    }

    fn broken(&mut self, rule: &str) {
        if self.report.broken.len() < 16 {
            self.report.broken.push(rule.to_owned());
        }
    }
}
