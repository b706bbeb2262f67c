//! An engine, a page cache in the simplest form, and workers: what the tests of retention are played in.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use nitro_user::{
    catalog::model::{Description, LayoutKind, Model, Part, Place},
    engine::{
        Access, AccessKind, Action, Engine, Input, Outcome, Policy,
        action::{LoadId, Manner, ModelPin, Task},
        input::{Command, Item, MachineMemory, OrderId, StepEnd, User},
        learn::row::Change,
        order::Progress,
        retain::Settings,
    },
    units::{ByteCount, ByteRange, FileId, Moment, STEP},
};

pub const HOUR: Duration = Duration::from_secs(3600);
pub const STEPS: u64 = 16;
pub const SIZE: u64 = STEPS * STEP;
pub const RESERVE: u64 = 1 << 30;

/// An engine, a page cache, and workers that take 4 ms for a step that is not there.
pub struct World {
    pub engine: Engine,
    pub now: Moment,
    pub available: u64,
    /// Of that, by the page cache.
    pub taken: u64,
    pub stalled: Duration,
    /// Under a limit of the agent's own.
    pub room: Option<u64>,
    pub restored: u64,
    pub models: BTreeMap<u64, Arc<Model>>,
    pub there: BTreeSet<(u64, u64)>,
    pub locked: BTreeMap<ModelPin, BTreeSet<(u64, u64)>>,
    /// By process: what it has mapped, whether it computes elsewhere, its own memory.
    pub processes: BTreeMap<u32, (BTreeSet<u64>, bool, u64)>,
    pub refuses: bool,
    /// Somebody else uses the device all the time.
    pub busy: bool,
    /// Models that were dropped at the same time, at most.
    pub most_dropped: usize,
    /// Steps in the order in which they were brought in for nobody.
    pub errands: Vec<(u64, u64)>,
    /// Steps in the order in which they were asked for on behalf of a reader.
    pub asked: Vec<(u64, u64)>,
    /// Programs of processes.
    pub programs: BTreeMap<u32, String>,
    pub dropped: BTreeSet<u64>,
    pub sought: Vec<PathBuf>,
    pub looks: u32,
    pub progress: BTreeMap<OrderId, Progress>,
    /// What is to be kept.
    pub kept: Vec<Change>,
}

pub fn file(inode: u64) -> FileId {
    FileId { device: 1, inode }
}

/// A model of one file, or of several of the numbers from `inode` on.
pub fn model(inode: u64, parts: u64) -> Arc<Model> {
    let part = |number: u64| Part {
        file: file(inode + number),
        size: SIZE,
        header: 4096,
        place: Place {
            root: Path::new("/r").into(),
            below: format!("{}", inode + number).into(),
        },
        generation: 0,
        layer: None,
    };
    Arc::new(Model {
        name: format!("m{inode}"),
        layout: LayoutKind::Single,
        observe_only: false,
        lent: false,
        changes_unseen: false,
        parts: (0..parts).map(part).collect(),
    })
}

/// The same of a layout whose loaders read all files.
pub fn several(inode: u64, parts: u64) -> Arc<Model> {
    let mut several = (*model(inode, parts)).clone();
    several.layout = LayoutKind::Gguf;
    Arc::new(several)
}

impl World {
    pub fn new(settings: Settings) -> Self {
        let models = [(10, 1), (20, 1), (30, 1), (40, 3)];
        Self {
            engine: Engine::new(Policy {
                reserve: ByteCount(RESERVE),
                ceiling: ByteCount(4 << 30),
                retain: settings,
                ..Policy::default()
            }),
            now: Moment(1_000_000_000),
            available: 64 << 30,
            taken: 0,
            stalled: Duration::ZERO,
            room: None,
            restored: 0,
            models: models.map(|(inode, parts)| (inode, model(inode, parts))).into(),
            there: BTreeSet::new(),
            locked: BTreeMap::new(),
            processes: BTreeMap::new(),
            refuses: false,
            busy: false,
            most_dropped: 0,
            errands: Vec::new(),
            asked: Vec::new(),
            programs: BTreeMap::new(),
            dropped: BTreeSet::new(),
            sought: Vec::new(),
            looks: 0,
            progress: BTreeMap::new(),
            kept: Vec::new(),
        }
    }

    pub fn describe(&self, file: FileId) -> Option<Description> {
        let mut models = self.models.values();
        models.find_map(|model| {
            let position = model.parts.iter().position(|part| part.file == file)?;
            Some(Description {
                file,
                model: model.clone(),
                position,
                written: None,
            })
        })
    }

    pub fn warm(&mut self, load: LoadId, file: FileId, part: usize, range: ByteRange, manner: Manner) -> Outcome {
        let submitted = self.now;
        let steps: Vec<(u64, u64)> = range.steps().map(|step| (file.inode, step)).collect();
        let before: u64 = steps.iter().filter(|step| self.there.contains(step)).count() as u64 * STEP;
        let (mut held, mut end) = (0, StepEnd::Done);
        if manner.reader != 0 {
            self.asked.extend(&steps);
        }
        match manner.task {
            Task::Drop => {
                self.dropped.insert(file.inode);
                let locked: BTreeSet<_> = self.locked.values().flatten().copied().collect();
                for step in steps.iter().filter(|step| !locked.contains(step)) {
                    self.there.remove(step);
                }
            }
            // What a reader waits for is not put off.
            Task::Warm | Task::Pin(_) if self.busy && before == 0 && manner.reader == 0 => end = StepEnd::Yielded,
            Task::Warm | Task::Pin(_) => {
                if before == 0 {
                    self.now = self.now.after(Duration::from_millis(4));
                    self.errands.extend(steps.iter().filter(|_| manner.reader == 0));
                }
                self.there.extend(&steps);
            }
        }
        if let (Task::Pin(pin), StepEnd::Done) = (manner.task, end) {
            if self.refuses {
                end = StepEnd::NotHeld;
            } else {
                held = range.len();
                self.locked.entry(pin).or_default().extend(&steps);
            }
        }
        let after = steps.iter().filter(|step| self.there.contains(step)).count() as u64 * STEP;
        Outcome {
            load,
            part,
            file,
            device: file.device,
            range,
            end,
            before,
            after,
            beyond: 0,
            held,
            submitted,
            completed: self.now,
        }
    }

    pub fn feed(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let actions = self.engine.handle(self.now, input);
            let drops = |action: &&Action| matches!(action, Action::Warm { manner, .. } if manner.task == Task::Drop);
            self.most_dropped = self.most_dropped.max(actions.iter().filter(drops).count());
            for action in actions {
                match action {
                    Action::Describe(file) => {
                        let description = self.describe(file);
                        inputs.push_back(Input::Described { file, description });
                    }
                    Action::AskProgram { process } => {
                        if let Some(name) = self.programs.get(&process).cloned() {
                            inputs.push_back(Input::Program { process, name, user: 0 });
                        }
                    }
                    Action::AskMemory => inputs.push_back(Input::Memory(MachineMemory {
                        available: ByteCount(self.available),
                        free: ByteCount(self.available.saturating_sub(self.taken)),
                        stalled: self.stalled,
                        room: self.room.map(ByteCount),
                        restored: ByteCount(self.restored),
                        ..MachineMemory::default()
                    })),
                    Action::Warm {
                        load,
                        model,
                        part,
                        range,
                        manner,
                    } => {
                        let outcome = self.warm(load, model.parts[part].file, part, range, manner);
                        inputs.push_back(Input::Outcome(outcome));
                    }
                    Action::Release { pin } => {
                        self.locked.remove(&pin);
                    }
                    Action::AskUsers { files, processes } => {
                        self.looks += 1;
                        let users = self.processes.iter().map(|(process, (maps, accelerator, bytes))| User {
                            process: *process,
                            maps: files
                                .iter()
                                .filter(|file| maps.contains(&file.inode))
                                .copied()
                                .collect(),
                            accelerator: *accelerator,
                            anonymous: ByteCount(*bytes),
                        });
                        let asked = |user: &User| processes.contains(&user.process) || !user.maps.is_empty();
                        inputs.push_back(Input::Users(users.filter(asked).collect()));
                    }
                    Action::Find { path } => {
                        self.sought.push(path.clone());
                        let inode = path.file_name().and_then(|name| name.to_str()?.parse().ok());
                        let description = inode.and_then(|inode| self.describe(file(inode)));
                        inputs.push_back(Input::Found { path, description });
                    }
                    Action::Progress { order, progress } => {
                        self.progress.insert(order, progress);
                    }
                    Action::Learn(change) => self.kept.push(change),
                    Action::Count { load, .. } => inputs.push_back(Input::Counted { load, counts: vec![] }),
                    _ => {}
                }
            }
        }
    }

    /// A process reads a part of a model from end to end, and ends.
    pub fn load(&mut self, inode: u64, process: u32) {
        self.read(inode, process);
        self.end(process);
    }

    pub fn read(&mut self, inode: u64, process: u32) {
        (0..STEPS).for_each(|step| self.read_step(inode, step, process));
    }

    /// A process reads one step; it jumps there, if it was elsewhere before.
    pub fn read_step(&mut self, inode: u64, step: u64, process: u32) {
        self.processes.entry(process).or_default();
        self.now = self.now.after(Duration::from_millis(5));
        let jump = step > 0 && !self.there.contains(&(inode, step - 1));
        self.there.insert((inode, step));
        self.feed(Input::Access(Access {
            at: self.now,
            process,
            thread: process,
            file: file(inode),
            generation: 0,
            range: ByteRange::new(step * STEP, STEP),
            kind: AccessKind::Read,
            jump,
            in_order: !jump,
            written: false,
        }));
    }

    pub fn end(&mut self, process: u32) {
        self.processes.remove(&process);
        self.feed(Input::Ended { process });
    }

    /// The kernel takes a file away, but for what is locked.
    pub fn evict(&mut self, inode: u64) {
        (0..STEPS).for_each(|step| self.evict_step(inode, step));
    }

    /// The same of one step.
    pub fn evict_step(&mut self, inode: u64, step: u64) {
        let is_locked = self.locked.values().any(|steps| steps.contains(&(inode, step)));
        if !is_locked && self.there.remove(&(inode, step)) {
            let range = ByteRange::new(step * STEP, STEP);
            self.feed(Input::Removed {
                file: file(inode),
                range,
            });
        }
    }

    /// Time passes in which the engine is woken as it asks to be.
    pub fn wait(&mut self, time: Duration) {
        let end = self.now.after(time);
        let mut wakes = 0;
        while let Some(deadline) = self.engine.deadline().filter(|deadline| *deadline <= end) {
            wakes += 1;
            assert!(wakes < 1_000_000, "it does not come to rest");
            self.now = self.now.max(deadline);
            self.feed(Input::Tick);
        }
        self.now = self.now.max(end);
    }

    pub fn order(&mut self, number: u64, command: Command, inode: u64) -> Progress {
        let model = self.models[&inode].clone();
        let parts = (0..model.parts.len()).collect();
        let order = OrderId(number);
        let items = vec![Item { model, parts }];
        self.feed(Input::Ordered { order, command, items });
        self.progress.get(&order).copied().unwrap_or_default()
    }

    pub fn locked(&self, inode: u64) -> u64 {
        let locked: BTreeSet<_> = self.locked.values().flatten().collect();
        locked.iter().filter(|(other, _)| *other == inode).count() as u64
    }

    pub fn there(&self, inode: u64) -> u64 {
        self.there.iter().filter(|(other, _)| *other == inode).count() as u64
    }
}

pub const SECOND: Duration = Duration::from_secs(1);

pub fn pinning(models: u64) -> Settings {
    Settings {
        pin: ByteCount(models * SIZE),
        ..Settings::default()
    }
}
