//! All decisions: who is loading what, what comes next, how much of it may be warmed now, what happened.
//!
//! A pure state machine: [`Engine::handle`] takes the time and one [`Input`], and returns [`Action`]s. No file, no thread, no lock, no clock;
//! the same inputs give the same actions, in the daemon, in tests, and in the simulator. Stages, in the order an access passes them:
//! `library` (which model), `load` (how far), `evidence` (how sure), `predict` (what next), `plan` (how much now), `receipt` (what came of it).

pub mod action;
pub mod evidence;
pub mod experience;
pub mod explanation;
mod files;
pub mod foresight;
pub mod happening;
pub mod holdings;
pub mod input;
mod keeping;
pub mod learn;
mod learning;
mod library;
pub mod load;
pub mod order;
pub mod pattern;
pub mod plan;
pub mod predict;
mod processes;
pub mod receipt;
mod recording;
pub mod retain;
mod returned;
mod steps;
mod turns;
mod walk;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, btree_map::Entry},
    time::Duration,
};

pub use action::{Action, LoadId};
pub use input::{Access, AccessKind, Input, Outcome};

use self::{
    experience::Experience,
    foresight::Foresight,
    happening::Skip,
    holdings::{Holding, Holdings},
    library::{Library, Lookup},
    load::{Load, Stage},
    pattern::Passes,
    plan::{
        budget::Budget,
        device::Device,
        pressure::{Own, Pressure, Strain},
    },
    retain::Retention,
};
use crate::{
    catalog::model::{AT_REST, Description},
    units::{ByteCount, FileId, Moment},
};

/// Two descriptions of a file that turn out stale within this time are one too many: somebody writes to it.
const WRITTEN_TO: Duration = Duration::from_secs(10);

/// What the engine is told once.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Ceiling for all that was warmed and nobody used yet.
    pub ceiling: ByteCount,
    /// What is to stay available of the machine's memory.
    pub reserve: ByteCount,
    /// Predict and tell, warm nothing.
    pub dry_run: bool,
    /// Programs whose reads are neither helped nor counted.
    pub ignored: Vec<String>,
    /// Accesses are concluded from looking at their readers from time to time.
    pub inferred: bool,
    /// What is warmed is charged to the memory cgroup of whoever it is warmed for.
    pub charge_consumer: bool,
    /// What is kept after the loads.
    pub retain: retain::Settings,
    /// The time since 1970 when the clock of all moments began.
    pub booted: Duration,
    /// The share of loads that are left without help, 0–1.
    pub holdout: f64,
}

impl Policy {
    /// Whether a program of this name is ignored: the kernel keeps the first 15 bytes of it.
    pub fn ignores(&self, program: &str) -> bool {
        let is_cut = program.len() == 15;
        self.ignored
            .iter()
            .any(|ignored| ignored == program || is_cut && ignored.starts_with(program))
    }
}

/// The state machine.
#[derive(Debug)]
pub struct Engine {
    policy: Policy,
    library: Library,
    loads: BTreeMap<LoadId, Load>,
    /// The load of each model that is being consumed, by the model's first file.
    by_model: HashMap<FileId, LoadId>,
    /// Loads that could use a step: the others cost nothing when steps are handed out.
    wanting: BTreeSet<LoadId>,
    devices: BTreeMap<u32, Device>,
    budget: Budget,
    pressure: Pressure,
    /// What was brought in since memory was asked for.
    own: Own,
    /// For whom what is held was warmed, where their loads have ended.
    holdings: Holdings,
    retention: Retention,
    experience: Experience,
    /// What is expected to be loaded.
    foresight: Foresight,
    /// Files that a worker found to be others than the catalog had said, and when.
    stale: HashMap<FileId, Moment>,
    /// Processes of ignored programs that read watched files.
    ignored: HashSet<u32>,
    /// What each process has read from end to end.
    passes: Passes,
    /// On battery: nothing is brought in for readers that were not seen yet.
    spares: bool,
    /// Nothing is brought in: until when, if that is known.
    paused: Option<Option<Moment>>,
    next_load: u64,
    now: Moment,
    /// Which load gets the next step, so that loads on one device take turns.
    turn: u64,
    /// The same for errands.
    errand_turn: LoadId,
}

impl Engine {
    /// An engine that knows no file yet.
    pub fn new(policy: Policy) -> Self {
        let budget = Budget::new(policy.ceiling);
        let retention = Retention::new(policy.retain);
        Self {
            pressure: Pressure::new(policy.reserve),
            own: Own::default(),
            policy,
            library: Library::default(),
            loads: BTreeMap::new(),
            by_model: HashMap::new(),
            wanting: BTreeSet::new(),
            devices: BTreeMap::new(),
            budget,
            holdings: Holdings::default(),
            retention,
            experience: Experience::default(),
            foresight: Foresight::default(),
            stale: HashMap::new(),
            ignored: HashSet::new(),
            passes: Passes::default(),
            spares: false,
            paused: None,
            next_load: 1,
            now: Moment(0),
            turn: 0,
            errand_turn: LoadId(0),
        }
    }

    /// Takes one input. A `now` before that of the input before counts as that.
    pub fn handle(&mut self, now: Moment, input: Input) -> Vec<Action> {
        let mut actions = Vec::new();
        // Events carry the kernel's time, which is a little older than that of the inputs between them.
        self.now = self.now.max(now);
        let now = self.now;
        match input {
            Input::Access(access) => self.access(now, access, &mut actions),
            Input::Described { file, description } => {
                for access in self.library.learn(now, file, description) {
                    self.access(now, access, &mut actions);
                }
            }
            Input::Named { process, description } => self.named(now, process, &description, &mut actions),
            Input::Program { process, name, .. } if self.policy.ignores(&name) => self.ignore(process, &mut actions),
            Input::Program { process, name, user } => {
                self.identify(now, process, &name, user);
            }
            Input::Direct { process, file } => self.direct(process, file, &mut actions),
            Input::Outcome(outcome) => self.outcome(now, &outcome, &mut actions),
            Input::Removed { file, range } => self.removed(now, file, range),
            Input::Ended { process } => self.ended(now, process, &mut actions),
            Input::Counted { load, counts } => self.counted(now, load, &counts, &mut actions),
            Input::Added { load, added } => {
                if let Some(load) = self.loads.get_mut(&load) {
                    let device = self.devices.entry(load.key.device).or_default();
                    load.added(added, device, &mut actions);
                    if load.wants() {
                        self.wanting.insert(load.id);
                    }
                }
            }
            Input::Recalled { device, knowledge } => self.recalled(device, knowledge, &mut actions),
            Input::Gone { file } => self.gone(file, true, &mut actions),
            Input::Unwatched { path } => self.unwatched(&path, &mut actions),
            // What is read on may still be right: a worker that meets another file says so. The next access asks the catalog again.
            Input::Changed { file } => self.library.forget(file),
            Input::Pause { until } => {
                self.paused = Some(until);
                self.loads.values_mut().for_each(|load| load.pause(&mut actions));
                self.retention.pause(&mut actions);
            }
            Input::Resume => self.resume(),
            Input::Battery(on_battery) => self.spares = on_battery,
            Input::Ceiling(ceiling) => self.budget.set_ceiling(ceiling),
            Input::Memory(memory) => self.memory(now, memory, &mut actions),
            Input::Learned(rows) => self.learned(now, &rows),
            Input::Users(users) => self.users(now, &users),
            Input::Found { path, description } => self.found(now, &path, description.as_ref()),
            Input::Ordered { order, command, items } => {
                let next = &mut self.next_load;
                self.retention.ordered(now, (order, command), items, next, &mut actions);
            }
            Input::Withdrawn { order } => self.retention.withdrawn(order, &mut actions),
            Input::Unheld { pins } => self.retention.unheld(now, &pins, &mut actions),
            Input::Forget { path } => self.forget_learned(path.as_deref(), &mut actions),
            Input::Tick => self.tick(now, &mut actions),
        }
        self.plan(now, &mut actions);
        self.keep(now, &mut actions);
        self.teach(now, &mut actions);
        actions
    }

    /// When the engine wants its next [`Input::Tick`]; `None` while nothing is going on, so that an idle agent sleeps.
    pub fn deadline(&self) -> Option<Moment> {
        let deadlines = self.loads.values().filter_map(Load::deadline);
        // Under strain nothing comes back that would be the occasion to ask again.
        let memory = self
            .pressure
            .deadline()
            .filter(|_| self.could_warm() && self.strain() != Strain::None);
        let needs_memory = self.retention.needs_memory();
        let pins = needs_memory.then(|| self.pressure.relaxed_deadline(self.now));
        let kept = self.retention.deadline(self.now);
        let others = [self.paused.flatten(), memory, pins, kept, self.foresight_deadline()];
        deadlines.chain(others.into_iter().flatten()).min()
    }

    /// What is kept of the models that were used, for `status`.
    pub const fn retention(&self) -> &Retention {
        &self.retention
    }

    /// Bytes warmed that nobody has used yet, those on their way, and those locked.
    pub fn held(&self) -> ByteCount {
        ByteCount(self.budget.held())
    }

    /// Whether what is warmed is on its readers' account.
    pub fn charges_consumer(&self) -> bool {
        self.policy.charge_consumer
    }

    /// What is held and for whom, the largest first, for `status`.
    pub fn holdings(&self) -> Vec<Holding> {
        self.holdings.list(self.loads.values(), &self.budget)
    }

    /// Whether what a program of this name reads is ignored.
    pub fn ignores(&self, program: &str) -> bool {
        self.policy.ignores(program)
    }

    /// The ceiling in force.
    pub fn ceiling(&self) -> ByteCount {
        self.budget.ceiling()
    }

    /// The loads that have not ended, for `status`.
    pub fn loads(&self) -> impl Iterator<Item = &Load> {
        self.loads.values()
    }

    /// The devices that loads were seen on, by number, for `status`.
    pub fn devices(&self) -> impl Iterator<Item = (u32, &Device)> {
        self.devices.iter().map(|(number, device)| (*number, device))
    }

    /// Whether nothing is brought in at present, and until when, if that is known.
    pub fn paused(&self) -> Option<Option<Moment>> {
        self.paused
    }

    /// Whether only readers that were seen to read are helped, to spare a battery.
    pub fn spares(&self) -> bool {
        self.spares
    }

    /// Share of the ceiling in use, 0–100.
    pub fn held_percent(&self) -> u8 {
        self.budget.percent()
    }

    fn access(&mut self, now: Moment, access: Access, actions: &mut Vec<Action>) {
        // To learn of a file, the catalog reads headers.
        let unknown_while_paused = self.paused.is_some() && !self.library.knows(access.file);
        if self.ignored.contains(&access.process) || unknown_while_paused {
            return;
        }
        let description = match self.library.find(now, access) {
            Lookup::Known(description) => description,
            Lookup::Ask => return actions.push(Action::Describe(access.file)),
            Lookup::Wait | Lookup::Stranger => return,
            // Two files with one number (btrfs): what is known of the one holds, and the other is nobody's.
            Lookup::Reused if self.was_stale(now, access.file) => return,
            Lookup::Reused => {
                // What is known is of the file that had the number before; the catalog is asked about the new one.
                self.gone(access.file, true, actions);
                return self.access(now, access, actions);
            }
        };
        // Pages that a reader of whom nothing else is known brings in are somebody's buffered reads.
        let key = load::key(&description.model, access.file);
        self.own.read += access.range.len();
        if access.kind == AccessKind::Brought {
            let load = self.by_model.get(&key).and_then(|id| self.loads.get(id));
            if !load.is_some_and(|load| load.readers.contains(access.process)) {
                return;
            }
        }
        let id = self.load_of(now, access.process, &description, actions);
        let Some(load) = self.loads.get_mut(&id) else { return };
        let is_fresh = description.written.is_some_and(|at| now.since(at) < AT_REST);
        if access.written || is_fresh {
            load.leave_to_writer(actions);
        }
        // The load keeps the description it began with.
        let Some(part) = load.position_of(access.file, description.position) else {
            return;
        };
        // It has grown since it was described. Whoever appends to it all the time is read on without.
        if load
            .model
            .parts
            .get(part)
            .is_some_and(|part| access.range.start >= part.size)
            && access.kind.is_demand()
        {
            if !self.was_stale(now, access.file) {
                self.gone(access.file, false, actions);
                self.access(now, access, actions);
            }
            return;
        }
        let device = self.devices.entry(access.file.device).or_default();
        for access in load.signs(part, &access) {
            self.budget.used(access.file, access.range);
            load.demand(part, &access, &self.budget, device, actions);
        }
        if load.wants() {
            self.wanting.insert(id);
        }
        self.note_use(now, id, access.process);
    }

    /// The load of this model that the process takes part in from now on, begun if there is none.
    fn load_of(&mut self, now: Moment, process: u32, description: &Description, actions: &mut Vec<Action>) -> LoadId {
        let key = load::key(&description.model, description.file);
        if let Some(&id) = self.by_model.get(&key)
            && let Some(load) = self.loads.get_mut(&id)
        {
            // What kept one reader from being helped need not hold for another, nor for long.
            let another = match load.stage {
                Stage::Skipped(Skip::Written) => !load.readers.is_there(process) || load.is_at_rest(now),
                Stage::Skipped(_) => !load.readers.is_there(process),
                _ => false,
            };
            if !another && load.takes(process, now) {
                if load.readers.join(process) {
                    actions.push(Action::AskProgram { process });
                    self.came(process, id);
                }
                return id;
            }
            // Or its readers have been silent for long: who comes now comes for another reason.
            self.end(id, actions);
        }
        let id = LoadId(self.next_load);
        self.next_load += 1;
        self.by_model.insert(key, id);
        let mut load = Load::begin(
            id,
            now,
            process,
            description.model.clone(),
            description.position,
            &self.policy,
        );
        load.brought_before = self.brought_before(key);
        self.presume_course(&mut load);
        self.loads.insert(id, load);
        if let Entry::Vacant(device) = self.devices.entry(key.device) {
            device.insert(Device::default());
            actions.push(Action::Recall { device: key.device });
        }
        actions.push(Action::AskProgram { process });
        self.came(process, id);
        id
    }

    fn resume(&mut self) {
        self.paused = None;
        self.retention.resume();
    }

    /// Closes a load's stream; when its last step has come back, asks for the counters its receipt needs.
    fn end(&mut self, id: LoadId, actions: &mut Vec<Action>) {
        let Some(load) = self.loads.get_mut(&id) else { return };
        if load.stage != Stage::Ended {
            load.end(actions);
            load.settle(actions);
            // Who reads the model from now on begins another load.
            let key = load.key;
            if self.by_model.get(&key) == Some(&id) {
                self.by_model.remove(&key);
            }
            self.note_end(self.now, id);
        }
    }

    fn tick(&mut self, now: Moment, actions: &mut Vec<Action>) {
        self.retention.stir();
        if self.paused.flatten().is_some_and(|until| until <= now) {
            self.resume();
        }
        let mut idle = Vec::new();
        for load in self.loads.values_mut() {
            if load.tick(now, actions) {
                idle.push(load.id);
            }
        }
        for id in idle {
            self.end(id, actions);
        }
    }
}
