//! What the engine does when a worker finds another file than the catalog had described.

mod one_file;

use nitro_user::{
    engine::{
        Action, Engine, Input, LoadId,
        happening::{Skip, What},
        input::StepEnd,
    },
    units::{ByteRange, Moment, STEP},
};

const PROCESS: u32 = 7;

/// The engine with a catalog and a kernel that answer at once, and workers that do not.
struct Bench {
    engine: Engine,
    now: Moment,
    /// What the catalog says when it is asked.
    size: u64,
    asked: usize,
    warming: Vec<(LoadId, ByteRange)>,
    generation: u32,
    told: Vec<String>,
}

impl Bench {
    fn new(size: u64) -> Self {
        Self {
            engine: Engine::new(one_file::policy(1 << 30)),
            now: Moment(1_000_000_000),
            size,
            asked: 0,
            warming: Vec::new(),
            told: Vec::new(),
            generation: 1,
        }
    }

    fn feed(&mut self, input: Input) {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            for action in self.engine.handle(self.now, input) {
                match action {
                    Action::Describe(file) => {
                        self.asked += 1;
                        let description = Some(one_file::description(self.size));
                        inputs.push(Input::Described { file, description });
                    }
                    Action::Count { load, .. } => inputs.push(Input::Counted {
                        load,
                        counts: Vec::new(),
                    }),
                    Action::Warm { load, range, .. } => self.warming.push((load, range)),
                    Action::Tell(happening) if happening.what == What::Skip => self.told.push(happening.note),
                    _ => {}
                }
            }
        }
    }

    /// A slow reader reads these steps.
    fn read(&mut self, steps: std::ops::Range<u64>) {
        for step in steps {
            self.now = Moment(self.now.0 + 20_000_000);
            let access = one_file::access(
                self.now,
                PROCESS,
                self.generation,
                ByteRange::new(step * STEP, 128 << 10),
            );
            self.feed(Input::Access(access));
        }
    }

    /// All steps with the workers end so.
    fn end_all(&mut self, end: StepEnd) {
        for (load, range) in std::mem::take(&mut self.warming) {
            let outcome = one_file::outcome(load, range, end, 0, self.now, self.now);
            self.feed(Input::Outcome(outcome));
        }
    }
}

#[test]
fn a_stale_file_is_described_again_and_helped_with_its_new_size() {
    let mut bench = Bench::new(100 * STEP);
    bench.read(0..4);
    assert!(bench.warming.len() > 1, "several steps are in flight, and all find out");
    bench.size = 8 * STEP;
    bench.end_all(StepEnd::Stale);
    assert_eq!(bench.asked, 2, "once at the start, and once for all the steps");
    assert_eq!(bench.told, [Skip::Changed.reason()]);
    bench.read(4..6);
    assert!(!bench.warming.is_empty());
    assert!(bench.warming.iter().all(|(_, range)| range.end <= 8 * STEP));
    assert_eq!(bench.engine.loads().count(), 1);
}

#[test]
fn a_file_that_is_read_beyond_its_known_end_is_described_again() {
    let mut bench = Bench::new(8 * STEP);
    bench.read(0..8);
    while !bench.warming.is_empty() {
        bench.end_all(StepEnd::Done);
    }
    bench.size = 16 * STEP;
    bench.read(8..12);
    assert_eq!(bench.asked, 2);
    assert_eq!(bench.told, [Skip::Changed.reason()]);
    assert!(!bench.warming.is_empty());
    assert!(bench.warming.iter().all(|(_, range)| range.end <= 16 * STEP));
    // It grows on: once in a while is enough.
    bench.read(16..20);
    assert_eq!(bench.asked, 2);
}

#[test]
fn a_file_that_is_stale_again_at_once_is_left_alone_for_this_load_and_not_for_ever() {
    let mut bench = Bench::new(100 * STEP);
    bench.read(0..4);
    bench.end_all(StepEnd::Stale);
    bench.read(4..8);
    assert!(!bench.warming.is_empty());
    bench.end_all(StepEnd::Stale);
    let asked = bench.asked;
    bench.read(8..60);
    assert!(bench.warming.is_empty(), "somebody writes to it");
    assert!(bench.asked <= asked + 1);
    bench.feed(Input::Ended { process: PROCESS });
    bench.now = Moment(bench.now.0 + 60_000_000_000);
    bench.read(0..4);
    assert!(!bench.warming.is_empty());
    assert!(bench.engine.held().0 <= 1 << 30);
}

#[test]
fn what_is_unwatched_is_left_alone_until_the_catalog_says_where_it_is() {
    let mut bench = Bench::new(100 * STEP);
    bench.read(0..4);
    assert!(!bench.warming.is_empty());
    bench.feed(Input::Unwatched {
        path: "/r/other".into(),
    });
    assert_eq!((bench.told.len(), bench.asked), (0, 1), "it is elsewhere");
    bench.feed(Input::Unwatched { path: "/r".into() });
    assert_eq!(bench.told, [Skip::Gone.reason()]);
    bench.end_all(StepEnd::Cancelled);
    bench.read(4..8);
    assert_eq!(bench.asked, 2, "it may have another name that is watched");
}

#[test]
fn another_file_with_the_same_inode_number_is_another_file() {
    let mut bench = Bench::new(100 * STEP);
    bench.generation = 0;
    bench.read(0..2);
    bench.generation = 1;
    bench.read(2..4);
    assert_eq!(bench.asked, 1, "where the kernel tells no generation, none is missed");
    bench.size = 8 * STEP;
    bench.generation = 2;
    bench.read(0..1);
    assert_eq!(bench.asked, 2);
    assert_eq!(bench.told, [Skip::Gone.reason()]);
    bench.end_all(StepEnd::Done);
    bench.read(1..4);
    assert_eq!(bench.asked, 2);
    assert!(!bench.warming.is_empty());
    assert!(bench.warming.iter().all(|(_, range)| range.end <= 8 * STEP));
}
