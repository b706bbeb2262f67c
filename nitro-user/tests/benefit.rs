//! A reader on a device that gives two less than one: it is found out, and left alone.

#![allow(clippy::expect_used, clippy::panic)]

mod one_file;

use std::collections::VecDeque;

use nitro_user::{
    engine::{
        Action, Engine, Input, LoadId, Policy,
        happening::Skip,
        input::{FileCounts, StepEnd},
        load::{Stage, saved::Basis},
        plan::device::{Knowledge, Setback},
        receipt::Receipt,
    },
    units::{ByteRange, Moment, Rate, STEP},
};
use one_file::FILE;

const STEPS: u64 = 4096;
const READER: u32 = 7;

/// The engine, a reader, and one head for both: a step takes `together` nanoseconds while anything is on its way, else `alone`.
struct Bench {
    engine: Engine,
    /// Steps of the file.
    size: u64,
    now: Moment,
    together: u64,
    alone: u64,
    queue: VecDeque<(LoadId, ByteRange)>,
    warm: Vec<bool>,
    own: u64,
    widest: u64,
    windows: Vec<u64>,
    kept: Vec<Knowledge>,
    receipt: Option<Receipt>,
}

impl Bench {
    fn new(together: Rate, alone: Rate) -> Self {
        let time = |rate: Rate| (STEP as f64 / rate.0 * 1e9) as u64;
        Self {
            engine: Engine::new(one_file::policy(8 << 30)),
            size: STEPS,
            now: Moment(1_000_000_000),
            together: time(together),
            alone: time(alone),
            queue: VecDeque::new(),
            warm: vec![false; STEPS as usize],
            own: 0,
            widest: 0,
            windows: Vec::new(),
            kept: Vec::new(),
            receipt: None,
        }
    }

    fn feed(&mut self, input: Input) {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            for action in self.engine.handle(self.now, input) {
                match action {
                    Action::Describe(file) => inputs.push(Input::Described {
                        file,
                        description: Some(one_file::description(self.size * STEP)),
                    }),
                    Action::Warm { load, range, .. } => self.queue.push_back((load, range)),
                    Action::Cancel { .. } => {
                        for (load, range) in std::mem::take(&mut self.queue) {
                            let outcome = one_file::outcome(load, range, StepEnd::Cancelled, 0, self.now, self.now);
                            inputs.push(Input::Outcome(outcome));
                        }
                    }
                    Action::AskProgram { process } => inputs.push(Input::Program {
                        process,
                        name: "reader".into(),
                        user: 0,
                    }),
                    Action::AskAdded { load, .. } => inputs.push(Input::Added { load, added: self.own }),
                    Action::Count { load, .. } => {
                        let count = FileCounts {
                            file: Some(FILE),
                            calls: 1,
                            bytes: STEPS * STEP,
                            added: self.own,
                            ..FileCounts::default()
                        };
                        inputs.push(Input::Counted {
                            load,
                            counts: vec![count],
                        });
                    }
                    Action::Keep { knowledge, .. } => self.kept.push(knowledge),
                    Action::Finish(receipt) => self.receipt = Some(*receipt),
                    _ => {}
                }
            }
        }
    }

    /// The reader wants a step; the head brings what is asked for, the oldest first, and then the reader's own.
    fn read(&mut self, step: u64) {
        let access = one_file::access(self.now, READER, 1, ByteRange::new(step * STEP, 128 << 10));
        self.feed(Input::Access(access));
        while !self.warm[step as usize] {
            let Some((load, range)) = self.queue.pop_front() else {
                self.own += STEP;
                self.now = Moment(self.now.0 + self.alone);
                break;
            };
            let submitted = self.now;
            self.now = Moment(self.now.0 + self.together);
            self.warm[(range.start / STEP) as usize] = true;
            let outcome = one_file::outcome(load, range, StepEnd::Done, range.len(), submitted, self.now);
            self.feed(Input::Outcome(outcome));
        }
        let window = self.engine.loads().map(|load| load.window().0).sum();
        if self.windows.last() != Some(&window) {
            self.windows.push(window);
        }
        self.widest = self.widest.max(window);
    }

    /// A load of an eighth of the file, cold, a minute after the one before; what its receipt says.
    fn load(&mut self) -> Receipt {
        self.warm.fill(false);
        (self.receipt, self.own) = (None, 0);
        for step in 0..STEPS / 8 {
            self.read(step);
        }
        self.feed(Input::Ended { process: READER });
        self.now = Moment(self.now.0 + 60_000_000_000);
        self.receipt.take().expect("one for each load")
    }

    fn is_left_alone(&self) -> bool {
        self.engine
            .loads()
            .any(|load| load.stage == Stage::Skipped(Skip::NoGain))
    }

    fn seconds(&self) -> u64 {
        self.now.0 / 1_000_000_000 - 1
    }
}

const MB: f64 = 1e6;

#[test]
fn help_that_harms_is_found_out_within_seconds() {
    let mut bench = Bench::new(Rate(20.0 * MB), Rate(50.0 * MB));
    let mut step = 0;
    while !bench.is_left_alone() {
        bench.read(step);
        step += 1;
        assert!(bench.seconds() < 8, "{:?}", bench.windows);
    }
    // What the reader gets alone is kept for the next time.
    bench.feed(Input::Ended { process: READER });
    let alone = bench
        .kept
        .last()
        .and_then(|kept| kept.reads_alone)
        .expect("it was measured");
    assert!((alone.0 / MB - 50.0).abs() < 3.0, "{alone}");
    let receipt = bench.receipt.expect("a load that was helped");
    assert_eq!(receipt.skipped, [Skip::NoGain]);
}

#[test]
fn where_it_was_learned_before_the_window_halves_at_once_and_closes() {
    let mut bench = Bench::new(Rate(20.0 * MB), Rate(50.0 * MB));
    let knowledge = Knowledge {
        rate: Some(Rate(100.0 * MB)),
        reads_alone: Some(Rate(50.0 * MB)),
        ..Knowledge::default()
    };
    bench.read(0);
    bench.feed(Input::Recalled {
        device: FILE.device,
        knowledge,
    });
    let mut step = 1;
    while !bench.is_left_alone() {
        bench.read(step);
        step += 1;
        assert!(bench.seconds() < 4, "{:?}", bench.windows);
    }
    assert_eq!(bench.widest, 200_000_000, "two seconds of the rate that is known");
    assert_eq!(bench.windows, [0, 200_000_000, 100_000_000, 0]);
}

#[test]
fn help_that_helps_goes_on_after_the_trial() {
    let mut bench = Bench::new(Rate(100.0 * MB), Rate(15.0 * MB));
    let began = bench.now;
    for step in 0..STEPS {
        bench.read(step);
    }
    let seconds = bench.now.since(began).as_secs_f64();
    let best = (STEPS * STEP) as f64 / (100.0 * MB);
    assert!(seconds < 1.02 * best, "{seconds} s of {best}");
    bench.feed(Input::Ended { process: READER });
    let alone = bench
        .kept
        .last()
        .and_then(|kept| kept.reads_alone)
        .expect("it was measured");
    assert!((alone.0 / MB - 15.0).abs() < 2.0, "{alone}");
}

#[test]
fn after_loads_that_were_harmed_the_next_are_left_alone_until_help_is_tried_again() {
    let mut bench = Bench::new(Rate(20.0 * MB), Rate(50.0 * MB));
    // From end to end: what is read in part is helped in another way the second time.
    bench.size = STEPS / 8;
    let told: Vec<bool> = (0..12)
        .map(|_| {
            let receipt = bench.load();
            assert_eq!(receipt.skipped, [Skip::NoGain]);
            receipt.warmed_late.0 > 0
        })
        .collect();
    let (tried, left) = (true, false);
    assert_eq!(
        told,
        [
            tried, left, tried, left, left, left, tried, left, left, left, left, left
        ]
    );
    // The device is exchanged for one that serves two as well as one.
    bench.together = bench.alone;
    let last = (0..4).map(|_| bench.load()).last();
    let receipt = last.expect("of four");
    assert!(receipt.skipped.is_empty() && receipt.warmed_late.0 > 0, "{receipt:?}");
    let kept = bench.kept.last().expect("it was kept");
    assert_eq!(kept.reads_setback, Setback::default());
}

#[test]
fn loads_that_are_held_out_tell_what_help_saves() {
    let (helped, alone) = (Rate(50.0 * MB), Rate(20.0 * MB));
    let mut bench = Bench::new(helped, alone);
    let policy = Policy {
        holdout: 1.0,
        ..one_file::policy(8 << 30)
    };
    bench.engine = Engine::new(policy);
    let receipt = bench.load();
    assert_eq!((receipt.skipped, receipt.saved), (vec![Skip::HeldOut], None));
    let knowledge = *bench.kept.last().expect("it was learned");
    // A load of another time, which is helped.
    bench.engine = Engine::new(one_file::policy(8 << 30));
    bench.feed(Input::Recalled {
        device: FILE.device,
        knowledge,
    });
    let receipt = bench.load();
    let saved = receipt.saved.expect("there is something to compare with");
    let bytes = (STEPS / 8 * STEP) as f64;
    let expected = bytes / alone.0 - receipt.seconds;
    assert_eq!(saved.by, Basis::HeldOut);
    assert!((saved.seconds / expected - 1.0).abs() < 0.1, "{saved:?}, {expected}");
    assert!(
        receipt.summary().contains("by its loads without help"),
        "{}",
        receipt.summary()
    );
}

#[test]
fn without_anything_to_compare_with_nothing_is_said_of_what_was_saved() {
    let mut bench = Bench::new(Rate(900.0 * MB), Rate(200.0 * MB));
    let receipt = bench.load();
    assert_eq!(receipt.saved, None);
}
