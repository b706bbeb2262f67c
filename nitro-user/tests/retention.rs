//! What the engine keeps after the loads: pins, what is brought back, what people ask for.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

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
        learn::row::{Change, Row},
        order::Progress,
        retain::Settings,
    },
    units::{ByteCount, ByteRange, FileId, Moment, STEP},
};

const HOUR: Duration = Duration::from_secs(3600);
const STEPS: u64 = 16;
const SIZE: u64 = STEPS * STEP;
const RESERVE: u64 = 1 << 30;

/// An engine, a page cache, and workers that take 4 ms for a step that is not there.
struct World {
    engine: Engine,
    now: Moment,
    available: u64,
    stalled: Duration,
    models: BTreeMap<u64, Arc<Model>>,
    there: BTreeSet<(u64, u64)>,
    locked: BTreeMap<ModelPin, BTreeSet<(u64, u64)>>,
    /// By process: what it has mapped, whether it computes elsewhere, its own memory.
    processes: BTreeMap<u32, (BTreeSet<u64>, bool, u64)>,
    refuses: bool,
    /// Steps in the order in which they were brought in for nobody.
    errands: Vec<(u64, u64)>,
    dropped: BTreeSet<u64>,
    sought: Vec<PathBuf>,
    looks: u32,
    progress: BTreeMap<OrderId, Progress>,
    /// What is to be kept.
    kept: Vec<Change>,
}

fn file(inode: u64) -> FileId {
    FileId { device: 1, inode }
}

/// A model of one file, or of several of the numbers from `inode` on.
fn model(inode: u64, parts: u64) -> Arc<Model> {
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

impl World {
    fn new(settings: Settings) -> Self {
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
            stalled: Duration::ZERO,
            models: models.map(|(inode, parts)| (inode, model(inode, parts))).into(),
            there: BTreeSet::new(),
            locked: BTreeMap::new(),
            processes: BTreeMap::new(),
            refuses: false,
            errands: Vec::new(),
            dropped: BTreeSet::new(),
            sought: Vec::new(),
            looks: 0,
            progress: BTreeMap::new(),
            kept: Vec::new(),
        }
    }

    fn describe(&self, file: FileId) -> Option<Description> {
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

    fn warm(&mut self, load: LoadId, file: FileId, part: usize, range: ByteRange, manner: Manner) -> Outcome {
        let submitted = self.now;
        let steps: Vec<(u64, u64)> = range.steps().map(|step| (file.inode, step)).collect();
        let before: u64 = steps.iter().filter(|step| self.there.contains(step)).count() as u64 * STEP;
        let (mut held, mut end) = (0, StepEnd::Done);
        match manner.task {
            Task::Drop => {
                self.dropped.insert(file.inode);
                let locked: BTreeSet<_> = self.locked.values().flatten().copied().collect();
                for step in steps.iter().filter(|step| !locked.contains(step)) {
                    self.there.remove(step);
                }
            }
            Task::Warm | Task::Pin(_) => {
                if before == 0 {
                    self.now = self.now.after(Duration::from_millis(4));
                    self.errands.extend(steps.iter().filter(|_| manner.reader == 0));
                }
                self.there.extend(&steps);
            }
        }
        if let Task::Pin(pin) = manner.task {
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

    fn feed(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            for action in self.engine.handle(self.now, input) {
                match action {
                    Action::Describe(file) => {
                        let description = self.describe(file);
                        inputs.push_back(Input::Described { file, description });
                    }
                    Action::AskMemory => inputs.push_back(Input::Memory(MachineMemory {
                        available: ByteCount(self.available),
                        stalled: self.stalled,
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
    fn load(&mut self, inode: u64, process: u32) {
        self.read(inode, process);
        self.end(process);
    }

    fn read(&mut self, inode: u64, process: u32) {
        self.processes.entry(process).or_default();
        for step in 0..STEPS {
            self.now = self.now.after(Duration::from_millis(5));
            self.there.insert((inode, step));
            self.feed(Input::Access(Access {
                at: self.now,
                process,
                thread: process,
                file: file(inode),
                generation: 0,
                range: ByteRange::new(step * STEP, STEP),
                kind: AccessKind::Read,
                jump: false,
                in_order: true,
                written: false,
            }));
        }
    }

    fn end(&mut self, process: u32) {
        self.processes.remove(&process);
        self.feed(Input::Ended { process });
    }

    /// The kernel takes a file away, but for what is locked.
    fn evict(&mut self, inode: u64) {
        let locked: BTreeSet<_> = self.locked.values().flatten().copied().collect();
        for step in 0..STEPS {
            if !locked.contains(&(inode, step)) && self.there.remove(&(inode, step)) {
                let range = ByteRange::new(step * STEP, STEP);
                self.feed(Input::Removed {
                    file: file(inode),
                    range,
                });
            }
        }
    }

    /// Time passes in which the engine is woken as it asks to be.
    fn wait(&mut self, time: Duration) {
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

    fn order(&mut self, number: u64, command: Command, inode: u64) -> Progress {
        let model = self.models[&inode].clone();
        let parts = (0..model.parts.len()).collect();
        let order = OrderId(number);
        let items = vec![Item { model, parts }];
        self.feed(Input::Ordered { order, command, items });
        self.progress.get(&order).copied().unwrap_or_default()
    }

    fn locked(&self, inode: u64) -> u64 {
        let locked: BTreeSet<_> = self.locked.values().flatten().collect();
        locked.iter().filter(|(other, _)| *other == inode).count() as u64
    }

    fn there(&self, inode: u64) -> u64 {
        self.there.iter().filter(|(other, _)| *other == inode).count() as u64
    }
}

fn pinning(models: u64) -> Settings {
    Settings {
        pin: ByteCount(models * SIZE),
        ..Settings::default()
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_model_that_was_used_is_locked_and_let_go_when_it_has_cooled() {
    let mut world = World::new(pinning(2));
    world.load(10, 7);
    world.wait(SECOND);
    assert_eq!(world.locked(10), STEPS);
    assert_eq!(world.engine.held().0, SIZE, "it is inside the ceiling");
    world.evict(10);
    assert_eq!(world.there(10), STEPS);
    world.wait(11 * HOUR);
    assert_eq!(world.locked(10), STEPS, "0.28 uses are left");
    world.wait(2 * HOUR);
    assert_eq!(world.locked(10), 0);
    assert_eq!(world.engine.held().0, 0);
}

#[test]
fn without_pins_nothing_is_locked() {
    let mut world = World::new(Settings::default());
    world.load(10, 7);
    world.wait(SECOND);
    assert!(world.locked.is_empty());
}

#[test]
fn the_hottest_are_locked_and_the_room_is_not_exceeded() {
    let mut world = World::new(pinning(1));
    world.load(10, 7);
    world.wait(SECOND);
    assert_eq!((world.locked(10), world.locked(20)), (STEPS, 0));
    world.load(20, 8);
    world.wait(SECOND);
    assert_eq!((world.locked(10), world.locked(20)), (STEPS, 0), "not clearly hotter");
    world.load(20, 8);
    world.wait(SECOND);
    assert_eq!((world.locked(10), world.locked(20)), (0, STEPS));
}

#[test]
fn of_a_model_that_is_larger_than_the_room_a_part_is_locked() {
    let settings = Settings {
        pin: ByteCount(5 * STEP + 4096),
        ..Settings::default()
    };
    let mut world = World::new(settings);
    world.load(10, 7);
    world.wait(SECOND);
    assert_eq!(world.locked(10), 5);
    let before = world.errands.len();
    world.wait(HOUR);
    assert_eq!(world.locked(10), 5);
    assert_eq!(world.errands.len(), before, "it is not tried again and again");
}

#[test]
fn only_what_is_read_of_a_model_is_locked() {
    let mut world = World::new(pinning(4));
    world.load(40, 7);
    world.wait(SECOND);
    assert_eq!((world.locked(40), world.locked(41)), (STEPS, 0));
}

#[test]
fn a_mapping_of_a_live_process_keeps_a_model_hot() {
    let mut world = World::new(pinning(2));
    world.read(10, 7);
    world.processes.get_mut(&7).unwrap().0.insert(10);
    world.wait(48 * HOUR);
    assert_eq!(world.locked(10), STEPS);
    assert!((2000..4000).contains(&world.looks), "{} looks in two days", world.looks);
    world.end(7);
    world.wait(11 * HOUR);
    assert_eq!(world.locked(10), STEPS, "it cools from the end of the process on");
    world.wait(2 * HOUR);
    assert_eq!(world.locked(10), 0);
    let looks = world.looks;
    world.wait(HOUR);
    assert_eq!(world.looks, looks, "nobody is looked at where nobody has anything");
}

#[test]
fn what_is_gone_or_unwatched_is_let_go_at_once() {
    let mut world = World::new(pinning(4));
    world.load(10, 7);
    world.load(20, 7);
    world.wait(SECOND);
    world.feed(Input::Gone { file: file(10) });
    assert_eq!((world.locked(10), world.locked(20)), (0, STEPS));
    world.feed(Input::Unwatched { path: "/r".into() });
    assert!(world.locked.is_empty());
    assert_eq!(world.engine.held().0, 0);
}

#[test]
fn a_pause_lets_go_and_its_end_takes_up_again() {
    let mut world = World::new(pinning(2));
    world.load(10, 7);
    world.wait(SECOND);
    world.feed(Input::Pause { until: None });
    assert!(world.locked.is_empty());
    world.wait(HOUR);
    assert!(world.locked.is_empty());
    world.feed(Input::Resume);
    world.wait(SECOND);
    assert_eq!(world.locked(10), STEPS);
}

#[test]
fn under_pressure_the_coldest_go_first_within_a_second() {
    let mut world = World::new(pinning(3));
    world.load(10, 7);
    world.wait(HOUR);
    world.load(20, 7);
    world.wait(SECOND);
    assert_eq!((world.locked(10), world.locked(20)), (STEPS, STEPS));
    world.available = RESERVE - STEP;
    world.wait(SECOND + Duration::from_millis(1));
    assert_eq!(world.locked(10), 0);
    world.wait(SECOND);
    assert!(world.locked.is_empty(), "it is still short");
    world.available = 64 << 30;
    world.wait(20 * SECOND);
    assert!(world.locked.is_empty(), "it is not taken back at once");
    world.wait(20 * SECOND);
    assert_eq!((world.locked(10), world.locked(20)), (STEPS, STEPS));
}

#[test]
fn where_somebody_stalls_pins_go_within_two_seconds() {
    let mut world = World::new(pinning(4));
    for inode in [10, 20, 30, 40] {
        world.load(inode, 7);
    }
    world.wait(SECOND);
    assert_eq!(world.engine.held().0, 4 * SIZE);
    world.available = 2 * RESERVE;
    world.wait(SECOND);
    for _ in 0..8 {
        world.stalled += Duration::from_millis(100);
        world.wait(Duration::from_millis(250));
    }
    assert!(world.locked.is_empty(), "{:?}", world.locked);
}

#[test]
fn what_the_kernel_took_comes_back_when_there_is_room() {
    let mut world = World::new(Settings::default());
    world.load(10, 7);
    world.available = RESERVE / 2;
    world.evict(10);
    world.wait(60 * SECOND);
    assert_eq!(world.there(10), 0, "memory is short");
    world.available = RESERVE + SIZE / 2;
    world.wait(60 * SECOND);
    assert_eq!(world.there(10), 0, "not enough to spare");
    world.available = 64 << 30;
    world.wait(600 * SECOND);
    assert_eq!(world.there(10), STEPS);
    assert_eq!(world.engine.held().0, SIZE, "nobody has used it yet");
}

#[test]
fn what_is_evicted_again_and_again_comes_back_less_and_less_often() {
    let mut world = World::new(Settings::default());
    world.load(10, 7);
    let mut returns = 0;
    let end = world.now.after(HOUR);
    while world.now < end {
        world.evict(10);
        world.wait(4 * SECOND);
        returns += u32::from(world.there(10) > 0);
    }
    assert!((3..=12).contains(&returns), "{returns} times in an hour");
}

#[test]
fn what_was_used_long_ago_stays_away() {
    let mut world = World::new(Settings::default());
    world.load(10, 7);
    world.wait(24 * HOUR);
    world.evict(10);
    world.wait(HOUR);
    assert_eq!(world.there(10), 0);
    assert_eq!(world.engine.deadline(), None, "nothing is left to do");
}

#[test]
fn a_model_in_memory_of_its_readers_own_goes_first_and_is_wanted_when_they_end() {
    let gpu = |world: &mut World| world.processes.get_mut(&7).unwrap().1 = true;
    let copy = |world: &mut World| world.processes.get_mut(&7).unwrap().2 = SIZE;
    for elsewhere in [&gpu as &dyn Fn(&mut World), &copy] {
        let mut world = World::new(pinning(4));
        world.read(10, 7);
        elsewhere(&mut world);
        world.load(20, 8);
        world.wait(60 * SECOND);
        assert_eq!((world.locked(10), world.locked(20)), (0, STEPS));
        world.available = RESERVE / 2;
        world.wait(2 * SECOND);
        assert_eq!(world.there(10), 0, "it is dropped");
        world.available = 64 << 30;
        world.wait(HOUR);
        assert_eq!(world.there(10), 0, "nobody needs it");
        world.end(7);
        world.wait(60 * SECOND);
        assert_eq!(world.locked(10), STEPS, "somebody may start it again");
    }
}

#[test]
fn what_was_copied_is_kept_if_that_is_wanted() {
    let mut world = World::new(Settings {
        keep_after_copy: true,
        ..Settings::default()
    });
    world.read(10, 7);
    world.processes.get_mut(&7).unwrap().2 = SIZE;
    world.wait(60 * SECOND);
    world.available = RESERVE / 2;
    world.load(20, 8);
    world.wait(10 * SECOND);
    assert_eq!(world.there(10), STEPS);
    assert!(world.dropped.is_empty());
}

#[test]
fn the_keepers_end_is_noticed_and_it_begins_anew_later() {
    let mut world = World::new(pinning(2));
    world.load(10, 7);
    world.wait(SECOND);
    let pins = std::mem::take(&mut world.locked).into_keys().collect();
    world.feed(Input::Unheld { pins });
    assert_eq!(world.engine.held().0, 0);
    world.wait(20 * SECOND);
    assert!(world.locked.is_empty());
    world.wait(20 * SECOND);
    assert_eq!(world.locked(10), STEPS);
}

#[test]
fn a_model_that_may_not_be_locked_is_not_tried_all_the_time() {
    let mut world = World::new(pinning(2));
    world.refuses = true;
    world.load(10, 7);
    world.wait(10 * SECOND);
    assert!(world.locked.is_empty());
    let progress = world.order(1, Command::Pin, 10);
    assert!(progress.over, "{progress:?}");
    assert_eq!((progress.held, progress.trouble), (0, Some(StepEnd::NotHeld)));
}

#[test]
fn by_hand_it_is_pinned_unpinned_warmed_and_evicted() {
    let mut world = World::new(pinning(2));
    let warmed = world.order(1, Command::Warm, 40);
    assert!(warmed.over, "{warmed:?}");
    assert_eq!(
        (warmed.total, warmed.there, warmed.changed),
        (3 * SIZE, 3 * SIZE, 3 * SIZE)
    );
    assert_eq!(world.there(41), STEPS);
    let evicted = world.order(2, Command::Evict, 40);
    assert_eq!((evicted.changed, evicted.there, evicted.over), (3 * SIZE, 0, true));
    world.wait(60 * SECOND);
    assert_eq!(world.there(40), 0, "it stays away");
    let pinned = world.order(3, Command::Pin, 10);
    assert_eq!((pinned.total, pinned.held, pinned.over), (SIZE, SIZE, true));
    world.wait(100 * HOUR);
    assert_eq!(world.locked(10), STEPS, "whatever its heat");
    let unpinned = world.order(4, Command::Unpin, 10);
    assert_eq!((unpinned.held, unpinned.over), (SIZE, true));
    assert!(world.locked.is_empty());
    world.wait(HOUR);
    assert!(world.locked.is_empty());
}

#[test]
fn an_order_waits_while_memory_is_short_and_ends_when_it_is_withdrawn() {
    let mut world = World::new(pinning(2));
    world.available = RESERVE / 2;
    world.load(20, 7);
    world.wait(2 * SECOND);
    let order = world.order(1, Command::Warm, 10);
    assert!(order.waits && !order.over, "{order:?}");
    world.wait(10 * SECOND);
    assert_eq!(world.there(10), 0);
    world.available = 64 << 30;
    world.wait(10 * SECOND);
    assert!(world.progress[&OrderId(1)].over);
    assert_eq!(world.there(10), STEPS);
    world.available = RESERVE / 2;
    world.wait(10 * SECOND);
    world.order(2, Command::Warm, 30);
    world.feed(Input::Withdrawn { order: OrderId(2) });
    world.available = 64 << 30;
    world.wait(60 * SECOND);
    assert_eq!(world.there(30), 0);
}

#[test]
fn after_a_day_of_random_use_the_room_was_never_exceeded() {
    let mut world = World::new(pinning(2));
    let mut seed = 7u64;
    for _ in 0..400 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let inode = [10, 20, 30, 40][(seed >> 33) as usize % 4];
        match (seed >> 40) % 8 {
            0 => world.evict(inode),
            1 => world.available = RESERVE / 2,
            2 | 3 => world.available = 64 << 30,
            _ => world.load(inode, 7),
        }
        world.wait(Duration::from_secs((seed >> 50) % 600));
        let locked: BTreeSet<_> = world.locked.values().flatten().collect();
        assert!(locked.len() as u64 * STEP <= 2 * SIZE);
        assert!(world.locked.len() <= 2);
    }
}

fn learned(hot: &[(u64, f64, u64)], asked: u64) -> Input {
    let mut rows = Vec::new();
    for (number, (inode, heat, at)) in (1..).zip(hot) {
        rows.push(Row::Model {
            number,
            path: format!("/r/{inode}").into(),
        });
        rows.push(Row::Heat {
            model: number,
            heat: *heat,
            asked: *inode == asked,
            at: *at,
        });
    }
    Input::Learned(rows)
}

const NOW: u64 = 1_700_000_000;

fn restarted(settings: Settings) -> World {
    let mut world = World::new(settings);
    world.engine = Engine::new(Policy {
        booted: Duration::from_secs(NOW),
        ..world.engine.policy().clone()
    });
    world
}

#[test]
fn at_the_start_what_was_hottest_comes_back_in_order_of_its_heat() {
    let rewarm = Settings {
        rewarm: true,
        ..Settings::default()
    };
    for (settings, locked) in [(rewarm, 0), (pinning(3), STEPS)] {
        let mut world = restarted(settings);
        // What was hotter longer ago is colder now; 30 is cold; 99 is not there any more.
        let six_hours_ago = NOW - 6 * 3600;
        world.feed(learned(
            &[(10, 1.0, NOW), (20, 5.0, six_hours_ago), (30, 0.2, NOW), (99, 9.0, NOW)],
            0,
        ));
        world.wait(60 * SECOND);
        let came: Vec<u64> = world
            .errands
            .chunk_by(|one, other| one.0 == other.0)
            .map(|chunk| chunk[0].0)
            .collect();
        assert_eq!(came, [20, 10]);
        assert_eq!((world.there(20), world.there(30)), (STEPS, 0));
        assert_eq!((world.locked(20), world.locked(10)), (locked, locked));
        assert_eq!(world.sought.first(), Some(&PathBuf::from("/r/99")));
    }
}

#[test]
fn at_the_start_the_first_sign_of_pressure_ends_it() {
    let mut world = restarted(Settings {
        rewarm: true,
        ..Settings::default()
    });
    world.available = RESERVE / 2;
    world.feed(learned(&[(10, 1.0, NOW), (20, 2.0, NOW)], 0));
    world.wait(5 * SECOND);
    world.available = 64 << 30;
    world.wait(600 * SECOND);
    assert_eq!(world.there(10), 0, "it was not begun");
}

#[test]
fn without_being_asked_for_nothing_comes_at_the_start_and_heat_goes_on() {
    let mut world = restarted(Settings::default());
    world.feed(learned(&[(10, 3.0, NOW)], 0));
    world.wait(60 * SECOND);
    assert!(world.sought.is_empty() && world.errands.is_empty());
    world.load(10, 7);
    let (now, half_life) = (world.now, Settings::default().half_life);
    let heats: Vec<f64> = world
        .engine
        .retention()
        .kept()
        .map(|(_, kept)| kept.heat.at(now, half_life))
        .collect();
    assert!(heats.len() == 1 && (3.9..=4.0).contains(&heats[0]), "{heats:?}");
}

#[test]
fn what_was_pinned_by_hand_is_so_after_a_restart() {
    let mut world = restarted(pinning(2));
    world.feed(learned(&[(10, 0.0, NOW)], 10));
    world.wait(60 * SECOND);
    assert_eq!(world.locked(10), STEPS);
}

#[test]
fn heat_is_kept_when_it_changes() {
    let mut world = restarted(pinning(2));
    world.load(10, 7);
    world.order(1, Command::Pin, 20);
    let heat = |world: &World, inode: u64| {
        let wanted = PathBuf::from(format!("/r/{inode}"));
        let number = world.kept.iter().find_map(|change| match change {
            Change::Put(Row::Model { number, path }) if *path == wanted => Some(*number),
            _ => None,
        });
        world.kept.iter().rev().find_map(|change| match change {
            Change::Put(Row::Heat { model, heat, asked, .. }) if Some(*model) == number => Some((*heat, *asked)),
            _ => None,
        })
    };
    assert!(heat(&world, 10).is_some_and(|(heat, asked)| heat > 0.99 && !asked));
    assert_eq!(heat(&world, 20), Some((0.0, true)));
    world.order(2, Command::Unpin, 20);
    assert_eq!(heat(&world, 20), Some((0.0, false)));
}
