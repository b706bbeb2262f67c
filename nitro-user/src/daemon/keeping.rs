//! Carries out what the engine wants kept: steps are locked when they are warm, pages dropped, and processes looked at.
//!
//! A pin of the engine is of a model, one of `warm` is of a file. A step that is to be locked is brought in as any other; when it is there it is locked, and only then the engine hears of it. Where it is on
//! the account of somebody who could be killed for it, it is dropped and brought in once more, on ours; after that it is given up. Nothing here blocks.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::Arc,
};

use super::{stop::LetGo, wiring::Wiring};
use crate::{
    catalog::model::Model,
    engine::{
        Input, LoadId, Outcome,
        action::{Manner, ModelPin, Task},
        input::{StepEnd, User},
    },
    source::users::{Asked, UserReader},
    sys::{clock, users::Found},
    units::{ByteRange, FileId, PinId, Ranges},
    warm::{
        account::Helpers,
        evict::{self, Eviction, Evictor},
        pins::{self, PinEvent, Pins, Refused},
    },
};

/// A step on its way to be locked.
struct Step {
    pin: ModelPin,
    model: Arc<Model>,
    /// As the workers told it.
    outcome: Outcome,
}

/// Why something is dropped.
enum Dropping {
    /// It was asked for.
    Ordered {
        load: LoadId,
        part: usize,
        range: ByteRange,
    },
    /// To be brought in again on our account, and locked then.
    Again(Step),
}

/// What carries it out, and what is under way.
pub struct Keeping {
    pins: Option<Pins>,
    evictor: Evictor,
    users: LetGo<UserReader>,
    own: Helpers,
    /// Errands that lock.
    errands: HashMap<LoadId, (ModelPin, Arc<Model>)>,
    /// The pins of files, by those of their models, and the other way round.
    files: BTreeMap<(ModelPin, FileId), PinId>,
    models: HashMap<PinId, (ModelPin, FileId)>,
    last: u64,
    /// Steps that are being locked, by the pin of their file and their beginning.
    locking: HashMap<(PinId, u64), Step>,
    /// What is being dropped, by file, in the order in which it was asked for.
    dropping: HashMap<FileId, VecDeque<Dropping>>,
    /// Steps that were dropped once to be locked.
    again: HashSet<(LoadId, usize, u64)>,
    /// Pins of which it was said why they are not held.
    said: HashSet<ModelPin>,
}

impl Keeping {
    /// Nothing is kept yet. `own` are the agent's other processes.
    pub fn new(pins: Option<Pins>, evictor: Evictor, users: UserReader, own: Helpers) -> Self {
        Self {
            pins,
            evictor,
            users: LetGo::new(users),
            own,
            errands: HashMap::new(),
            files: BTreeMap::new(),
            models: HashMap::new(),
            last: 0,
            locking: HashMap::new(),
            dropping: HashMap::new(),
            again: HashSet::new(),
            said: HashSet::new(),
        }
    }

    /// The agent's other processes: what they read, nobody else has read.
    pub fn own(&self) -> Helpers {
        self.own.clone()
    }

    /// The errand is over: nothing more of it will come.
    pub fn close(&mut self, load: LoadId) {
        self.errands.remove(&load);
        self.again.retain(|(other, ..)| *other != load);
    }

    /// Asks who has these files, and how these processes are.
    pub fn ask_users(&self, files: Vec<FileId>, processes: Vec<u32>) {
        let own = self.own.living();
        // While a question waits the answer to it comes, and the engine asks again.
        self.users.ask(Asked { files, processes, own });
    }

    /// The pin of a file, opened if it is not yet.
    fn pin_of(&mut self, pin: ModelPin, model: &Model, part: usize) -> Option<PinId> {
        let part = model.parts.get(part)?;
        if let Some(known) = self.files.get(&(pin, part.file)) {
            return Some(*known);
        }
        self.last += 1;
        let id = PinId(self.last);
        let pins = self.pins.as_mut()?;
        pins.open(id, part.file, part.size, pins::opener(part)).ok()?;
        self.files.insert((pin, part.file), id);
        self.models.insert(id, (pin, part.file));
        Some(id)
    }

    /// Forgets the pins of a model's files; what of it was on its way comes back as not locked.
    fn forget(&mut self, pin: ModelPin) -> Vec<Outcome> {
        let ids: Vec<PinId> = self.of(pin).collect();
        self.files.retain(|(other, _), _| *other != pin);
        self.said.remove(&pin);
        self.models.retain(|id, _| !ids.contains(id));
        let steps = self.locking.extract_if(|(id, _), _| ids.contains(id));
        steps.map(|(_, step)| step.outcome).collect()
    }

    fn of(&self, pin: ModelPin) -> impl Iterator<Item = PinId> {
        let all = self.files.range((pin, FileId { device: 0, inode: 0 })..);
        all.take_while(move |((other, _), _)| *other == pin).map(|(_, id)| *id)
    }
}

impl Wiring {
    /// Has a step brought in.
    fn warm(&mut self, load: LoadId, model: Arc<Model>, part: usize, range: ByteRange, manner: Manner) {
        let Some(file) = model.parts.get(part).map(|part| part.file) else {
            return;
        };
        if let Err(error) = self.workers.warm(load, model, part, range, manner) {
            tracing::warn!("a step was not warmed: {error}");
            let now = clock::now();
            self.feed(Input::Outcome(Outcome {
                load,
                part,
                file,
                device: file.device,
                range,
                end: StepEnd::Refused,
                before: 0,
                after: 0,
                beyond: 0,
                held: 0,
                submitted: now,
                completed: now,
            }));
        }
    }

    /// A step is to be brought in, locked or dropped.
    pub(super) fn begin_step(
        &mut self,
        load: LoadId,
        model: Arc<Model>,
        part: usize,
        range: ByteRange,
        manner: Manner,
    ) {
        match manner.task {
            Task::Warm => self.warm(load, model, part, range, manner),
            Task::Pin(pin) => {
                self.keeping.errands.insert(load, (pin, model.clone()));
                self.warm(load, model, part, range, manner);
            }
            Task::Drop => {
                let ordered = Dropping::Ordered { load, part, range };
                self.drop_pages(&model, part, range, ordered);
            }
        }
    }

    /// A worker is done with a step: one that is to be locked is now.
    pub(super) fn step_done(&mut self, outcome: Outcome) {
        let errand = self.keeping.errands.get(&outcome.load).cloned();
        let is_there = matches!(outcome.end, StepEnd::Done | StepEnd::WholePartResident) && outcome.after > 0;
        let Some((pin, model)) = errand.filter(|_| is_there) else {
            return self.feed(Input::Outcome(outcome));
        };
        self.lock(Step { pin, model, outcome });
    }

    fn lock(&mut self, step: Step) {
        let keeping = &mut self.keeping;
        let (outcome, range) = (step.outcome, step.outcome.range);
        let id = keeping.pin_of(step.pin, &step.model, outcome.part);
        let taken = id.filter(|id| keeping.pins.as_mut().is_some_and(|pins| pins.hold(*id, range).is_ok()));
        match taken {
            Some(id) => {
                keeping.locking.insert((id, range.start), step);
            }
            None => self.feed(Input::Outcome(Outcome {
                end: StepEnd::NotHeld,
                ..outcome
            })),
        }
    }

    /// Lets go of what is locked of a model.
    pub(super) fn release(&mut self, pin: ModelPin) {
        let ids: Vec<PinId> = self.keeping.of(pin).collect();
        if let Some(pins) = &mut self.keeping.pins {
            ids.into_iter().for_each(|id| pins.release(id));
        }
        for outcome in self.keeping.forget(pin) {
            self.feed(Input::Outcome(outcome));
        }
    }

    /// Something has become of what was to be, or was, locked.
    pub fn pin_event(&mut self, event: PinEvent) {
        match event {
            PinEvent::Held {
                pin,
                range,
                locked,
                refused,
                ..
            } => {
                if let Some(step) = self.keeping.locking.remove(&(pin, range.start)) {
                    self.locked(step, locked.0, refused);
                }
            }
            PinEvent::Released { .. } => {}
            PinEvent::Withdrawn { pin, why, .. } => {
                tracing::warn!("a pin was let go of: {why}");
                self.unheld(&[pin]);
            }
            PinEvent::Lost { pins, end, .. } => {
                match end.signal {
                    Some(libc::SIGKILL) => tracing::warn!(
                        "what was pinned was let go of: the process that held it was killed, for want of memory as a rule"
                    ),
                    Some(signal) => tracing::warn!(
                        "what was pinned was let go of: the process that held it ended by signal {signal}"
                    ),
                    None => tracing::warn!("what was pinned was let go of: the process that held it has ended"),
                }
                self.unheld(&pins);
            }
        }
    }

    fn locked(&mut self, step: Step, bytes: u64, refused: Option<Refused>) {
        let Step { pin, outcome, .. } = step;
        let place = (outcome.load, outcome.part, outcome.range.start);
        if let Some(refused) = &refused {
            if refused.why.is_mended_by_warming() && self.keeping.again.insert(place) {
                let (model, part, range) = (step.model.clone(), outcome.part, outcome.range);
                return self.drop_pages(&model, part, range, Dropping::Again(step));
            }
            if self.keeping.said.insert(pin) {
                tracing::warn!("{} is not pinned, or not all of it: {}", step.model.name, refused.why);
            }
        }
        let end = if bytes == 0 && refused.is_some() {
            StepEnd::NotHeld
        } else {
            StepEnd::Done
        };
        self.feed(Input::Outcome(Outcome {
            end,
            held: bytes,
            ..outcome
        }));
    }

    /// These pins of files are not held any more, and with them those of their models are not whole.
    fn unheld(&mut self, ids: &[PinId]) {
        let mut pins: Vec<ModelPin> = ids
            .iter()
            .filter_map(|id| Some(self.keeping.models.get(id)?.0))
            .collect();
        pins.sort_unstable();
        pins.dedup();
        for pin in &pins {
            for outcome in self.keeping.forget(*pin) {
                let end = StepEnd::NotHeld;
                self.feed(Input::Outcome(Outcome { end, ..outcome }));
            }
        }
        self.feed(Input::Unheld { pins });
    }

    fn drop_pages(&mut self, model: &Model, part: usize, range: ByteRange, why: Dropping) {
        let Some(part) = model.parts.get(part) else { return };
        let mut ranges = Ranges::default();
        ranges.add(range);
        let request = Eviction {
            file: part.file,
            ranges,
            opener: pins::opener(part),
        };
        let file = part.file;
        match self.keeping.evictor.evict(vec![request]) {
            Ok(()) => self.keeping.dropping.entry(file).or_default().push_back(why),
            Err(busy) => {
                tracing::debug!(?file, "{busy}");
                self.dropped_or_not(file, why, None);
            }
        }
    }

    /// Files were let go of, or not.
    pub fn evicted(&mut self, outcomes: Vec<evict::Outcome>) {
        for outcome in outcomes {
            let why = self
                .keeping
                .dropping
                .get_mut(&outcome.file)
                .and_then(VecDeque::pop_front);
            if self.keeping.dropping.get(&outcome.file).is_some_and(VecDeque::is_empty) {
                self.keeping.dropping.remove(&outcome.file);
            }
            let done = match outcome.done {
                Ok(evicted) => Some((evicted.dropped, evicted.left())),
                Err(reason) => {
                    tracing::warn!("pages were not dropped: {reason}");
                    None
                }
            };
            if let Some(why) = why {
                self.dropped_or_not(outcome.file, why, done);
            }
        }
    }

    fn dropped_or_not(&mut self, file: FileId, why: Dropping, done: Option<(u64, u64)>) {
        match why {
            Dropping::Ordered { load, part, range } => {
                let now = clock::now();
                let (dropped, left) = done.unwrap_or_default();
                self.feed(Input::Outcome(Outcome {
                    load,
                    part,
                    file,
                    device: file.device,
                    range,
                    end: if done.is_some() { StepEnd::Done } else { StepEnd::Failed },
                    before: dropped + left,
                    after: left,
                    beyond: 0,
                    held: 0,
                    submitted: now,
                    completed: now,
                }));
            }
            // What stays is mapped by somebody: it cannot be ours.
            Dropping::Again(step) if done.is_none_or(|(dropped, _)| dropped == 0) => {
                if self.keeping.said.insert(step.pin) {
                    tracing::warn!(
                        "{} is not pinned, or not all of it: it is charged to a limited memory cgroup of somebody else, and in use there",
                        step.model.name
                    );
                }
                self.feed(Input::Outcome(Outcome {
                    end: StepEnd::NotHeld,
                    ..step.outcome
                }));
            }
            Dropping::Again(step) => {
                let manner = Manner {
                    task: Task::Pin(step.pin),
                    speculative: true,
                    ..Manner::default()
                };
                let Outcome { load, part, range, .. } = step.outcome;
                self.warm(load, step.model, part, range, manner);
            }
        }
    }

    /// Who has what.
    pub fn users_found(&mut self, found: Found) {
        if found.unseen > 0 {
            // They may have anything: nothing is concluded, and it is asked again.
            tracing::debug!(unseen = found.unseen, "some processes were not looked at");
            return;
        }
        let mut users: BTreeMap<u32, User> = found
            .processes
            .iter()
            .map(|(process, had)| {
                let user = User {
                    process: *process,
                    maps: Vec::new(),
                    accelerator: had.accelerator.is_some(),
                    anonymous: had.memory.total(),
                };
                (*process, user)
            })
            .collect();
        for (file, having) in &found.users {
            for one in having.iter().filter(|one| !one.mapped.is_empty()) {
                if let Some(user) = users.get_mut(&one.process) {
                    user.maps.push(*file);
                }
            }
        }
        self.feed(Input::Users(users.into_values().collect()));
    }
}
