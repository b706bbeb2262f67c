//! All decisions: who is loading what, what comes next, how much of it may be warmed now, what happened.
//!
//! A pure state machine: [`Engine::handle`] takes the time and one [`Input`], and returns [`Action`]s. No file, no thread, no lock, no clock;
//! the same inputs give the same actions, in the daemon, in tests, and in the simulator. Stages, in the order an access passes them:
//! `library` (which model), `load` (how far), `evidence` (how sure), `predict` (what next), `plan` (how much now), `receipt` (what came of it).

pub mod action;
pub mod evidence;
pub mod happening;
pub mod input;
mod library;
pub mod load;
pub mod plan;
pub mod predict;
pub mod receipt;
mod steps;
mod walk;

use std::collections::{BTreeMap, BTreeSet, HashMap};

pub use action::{Action, LoadId};
pub use input::{Access, AccessKind, Input, Outcome};

use self::{
    evidence::Evidence,
    happening::{Happening, Skip},
    library::{Library, Lookup},
    load::Load,
    plan::{budget::Budget, device::Device},
};
use crate::{
    catalog::model::Description,
    units::{ByteCount, FileId, Moment},
};

/// What the engine is told once.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Ceiling for all that was warmed and nobody used yet.
    pub ceiling: ByteCount,
    /// Predict and tell, warm nothing.
    pub dry_run: bool,
}

/// The state machine.
#[derive(Debug)]
pub struct Engine {
    policy: Policy,
    library: Library,
    loads: BTreeMap<LoadId, Load>,
    /// A load is one process consuming one model, named by the model's first file.
    by_reader: HashMap<(u32, FileId), LoadId>,
    /// Loads that could use a step: the others cost nothing when steps are handed out.
    wanting: BTreeSet<LoadId>,
    devices: BTreeMap<u32, Device>,
    budget: Budget,
    next_load: u64,
    /// Which load gets the next step, so that loads on one device take turns.
    turn: u64,
}

impl Engine {
    /// An engine that knows no file yet.
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            library: Library::default(),
            loads: BTreeMap::new(),
            by_reader: HashMap::new(),
            wanting: BTreeSet::new(),
            devices: BTreeMap::new(),
            budget: Budget::new(policy.ceiling),
            next_load: 1,
            turn: 0,
        }
    }

    /// Takes one input; `now` never runs backwards.
    pub fn handle(&mut self, now: Moment, input: Input) -> Vec<Action> {
        let mut actions = Vec::new();
        match input {
            Input::Access(access) => self.access(now, access, &mut actions),
            Input::Described { file, description } => {
                for access in self.library.learn(file, description) {
                    self.access(now, access, &mut actions);
                }
            }
            Input::Named { process, description } => self.named(now, process, &description, &mut actions),
            Input::Program { process, name, user } => {
                for load in self.loads.values_mut().filter(|load| load.process == process) {
                    load.identify(&name, user);
                }
            }
            Input::Direct { process, file } => self.direct(process, file, &mut actions),
            Input::Outcome(outcome) => self.outcome(&outcome, &mut actions),
            Input::Removed { file, range } => self.removed(file, range),
            Input::Ended { process } => {
                let ended: Vec<LoadId> = self
                    .loads
                    .values()
                    .filter(|load| load.process == process)
                    .map(|load| load.id)
                    .collect();
                for id in ended {
                    self.end(id, &mut actions);
                }
                actions.push(Action::Forget { process });
            }
            Input::Counted { load, counts } => self.counted(now, load, &counts, &mut actions),
            Input::Gone { file } => self.gone(file, true, &mut actions),
            Input::Changed { file } => self.gone(file, false, &mut actions),
            Input::Ceiling(ceiling) => self.budget.set_ceiling(ceiling),
            Input::Tick => self.tick(now, &mut actions),
        }
        self.plan(now, &mut actions);
        actions
    }

    /// When the engine wants its next [`Input::Tick`]; `None` while nothing is going on, so that an idle agent sleeps.
    pub fn deadline(&self) -> Option<Moment> {
        self.loads.values().filter_map(Load::deadline).min()
    }

    /// Bytes warmed that nobody has used yet, and those on their way.
    pub fn held(&self) -> ByteCount {
        ByteCount(self.budget.held())
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

    /// Share of the ceiling in use, 0–100.
    pub fn held_percent(&self) -> u8 {
        self.budget.percent()
    }

    fn access(&mut self, now: Moment, access: Access, actions: &mut Vec<Action>) {
        let (model, part) = match self.library.find(access) {
            Lookup::Known(model, part) => (model, part),
            Lookup::Ask => return actions.push(Action::Describe(access.file)),
            Lookup::Wait | Lookup::Stranger => return,
        };
        self.budget.used(access.file, access.range);
        let id = self.load_of(
            now,
            access.process,
            &Description {
                file: access.file,
                model,
                position: part,
            },
            actions,
        );
        let Some(load) = self.loads.get_mut(&id) else { return };
        let device = self.devices.entry(access.file.device).or_default();
        load.demand(part, &access, &self.budget, device, actions);
        if load.wants() {
            self.wanting.insert(id);
        }
    }

    fn named(&mut self, now: Moment, process: u32, description: &Description, actions: &mut Vec<Action>) {
        self.library.learn(description.file, Some(description.clone()));
        let id = self.load_of(now, process, description, actions);
        let Some(load) = self.loads.get_mut(&id) else { return };
        let device = self.devices.entry(description.file.device).or_default();
        load.expect(now, description.position, Evidence::CommandLine, device, actions);
        if load.wants() {
            self.wanting.insert(id);
        }
    }

    /// The load of this process and model, begun if there is none.
    fn load_of(&mut self, now: Moment, process: u32, description: &Description, actions: &mut Vec<Action>) -> LoadId {
        let key = load::key(&description.model, description.file);
        if let Some(id) = self.by_reader.get(&(process, key)) {
            return *id;
        }
        let id = LoadId(self.next_load);
        self.next_load += 1;
        self.by_reader.insert((process, key), id);
        let load = Load::begin(
            id,
            now,
            process,
            description.model.clone(),
            description.position,
            self.policy.dry_run,
        );
        self.loads.insert(id, load);
        actions.push(Action::AskProgram { process });
        id
    }

    fn direct(&mut self, process: u32, file: FileId, actions: &mut Vec<Action>) {
        for load in self
            .loads
            .values_mut()
            .filter(|load| load.process == process && load.reads(file))
        {
            load.skip(Skip::DirectIo, actions);
        }
    }

    fn outcome(&mut self, outcome: &Outcome, actions: &mut Vec<Action>) {
        if let Some(device) = self.devices.get_mut(&outcome.device) {
            device.completed(outcome);
        }
        match self.loads.get_mut(&outcome.load) {
            Some(load) => load.warmed(outcome, &mut self.budget, actions),
            // The load ended with this step on its way: nobody used it, and it takes room until somebody does.
            None => self.budget.arrived(outcome.file, outcome.range, outcome.gained()),
        }
    }

    fn removed(&mut self, file: FileId, range: crate::units::ByteRange) {
        self.budget.evicted(file, range);
        for load in self.loads.values_mut() {
            load.evicted(file, range);
        }
    }

    fn gone(&mut self, file: FileId, entirely: bool, actions: &mut Vec<Action>) {
        self.library.forget(file);
        let concerned: Vec<LoadId> = self
            .loads
            .values()
            .filter(|load| load.reads(file))
            .map(|load| load.id)
            .collect();
        for id in concerned {
            if let Some(load) = self.loads.get_mut(&id) {
                load.skip(if entirely { Skip::Gone } else { Skip::Changed }, actions);
            }
            self.end(id, actions);
        }
        if entirely {
            self.budget.forget(file);
        }
    }

    /// Closes a load's stream and asks for the counters its receipt needs.
    fn end(&mut self, id: LoadId, actions: &mut Vec<Action>) {
        let Some(load) = self.loads.get_mut(&id) else { return };
        load.end(actions);
        let (process, model) = (load.process, load.model.clone());
        actions.push(Action::Count {
            load: id,
            process,
            model,
        });
    }

    fn counted(&mut self, now: Moment, id: LoadId, counts: &[input::FileCounts], actions: &mut Vec<Action>) {
        let Some(load) = self.loads.remove(&id) else { return };
        self.by_reader.remove(&(load.process, load.key));
        self.wanting.remove(&id);
        if let Some(receipt) = load.receipt(now, counts) {
            actions.push(Action::Tell(Happening::done(&receipt, self.budget.percent())));
            actions.push(Action::Finish(Box::new(receipt)));
        }
    }

    fn tick(&mut self, now: Moment, actions: &mut Vec<Action>) {
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

    /// Hands out steps, one per load and turn, while the devices and the ceiling have room.
    fn plan(&mut self, now: Moment, actions: &mut Vec<Action>) {
        loop {
            // Loads take turns: those after the last served first.
            let turn = self.turn;
            let after = self.wanting.range(LoadId(turn + 1)..);
            let order: Vec<LoadId> = after.chain(self.wanting.range(..=LoadId(turn))).copied().collect();
            let mut served = false;
            for id in order {
                let Some(load) = self.loads.get_mut(&id).filter(|load| load.wants()) else {
                    self.wanting.remove(&id);
                    continue;
                };
                let Some(step) = load.next_step(&self.budget) else {
                    continue;
                };
                let device = self.devices.entry(step.device).or_default();
                if !device.admits(step.range.len()) {
                    continue;
                }
                device.submitted(now, step.range.len());
                let file = load.model.parts.get(step.part).map(|part| part.file);
                self.budget.submitted(file.unwrap_or(load.key), step.range.len());
                load.submit(&step, self.budget.percent(), actions);
                self.turn = id.0;
                served = true;
            }
            if !served {
                return;
            }
        }
    }
}
