//! A load that its command line announced and that was not seen yet: how much is warmed for it, and when no more.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod one_file;

use std::time::Duration;

use nitro_user::{
    engine::{Action, Engine, Input, input::StepEnd},
    units::{ByteRange, Moment, STEP},
};
use one_file::FILE;

const PROCESS: u32 = 7;
const SIZE: u64 = 1000 * STEP;

/// The engine, and a device that takes `pace` for a step.
struct Bench {
    engine: Engine,
    now: Moment,
    pace: Duration,
    /// Steps that were warmed, or are being warmed.
    warmed: u64,
    looks: u32,
}

impl Bench {
    fn new(pace: Duration) -> Self {
        let mut bench = Self {
            engine: Engine::new(one_file::policy(4 << 30)),
            now: Moment(1_000_000_000),
            pace,
            warmed: 0,
            looks: 0,
        };
        bench.feed(Input::Named {
            process: PROCESS,
            description: one_file::description(SIZE),
        });
        bench
    }

    fn feed(&mut self, input: Input) {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            for action in self.engine.handle(self.now, input) {
                match action {
                    Action::AskDirect { .. } => self.looks += 1,
                    Action::Warm { load, range, .. } => {
                        self.warmed += 1;
                        let submitted = self.now;
                        self.now = self.now.after(self.pace);
                        let outcome = one_file::outcome(load, range, StepEnd::Done, range.len(), submitted, self.now);
                        inputs.push(Input::Outcome(outcome));
                    }
                    _ => {}
                }
            }
        }
    }

    /// Lets time pass as far as the engine's next deadline.
    fn wait(&mut self) -> Duration {
        let deadline = self.engine.deadline().expect("somebody is awaited");
        let waited = deadline.since(self.now);
        self.now = self.now.max(deadline);
        self.feed(Input::Tick);
        waited
    }
}

#[test]
fn it_is_looked_at_soon_and_gets_more_with_each_look() {
    let mut bench = Bench::new(Duration::from_millis(20));
    assert_eq!((bench.looks, bench.warmed), (1, 2), "4 MiB at first");
    let mut before = bench.warmed;
    for _ in 0..3 {
        bench.wait();
        assert!(bench.warmed <= 2 * before, "{} after {before}", bench.warmed);
        before = bench.warmed;
    }
    assert_eq!(bench.looks, 4);
    for _ in 0..10 {
        bench.wait();
    }
    assert_eq!(
        bench.warmed, 64,
        "128 MiB where the device was not known when it was announced"
    );
}

#[test]
fn a_reader_with_o_direct_gets_nothing_more() {
    let mut bench = Bench::new(Duration::from_millis(1));
    bench.feed(Input::Direct {
        process: PROCESS,
        file: FILE,
    });
    for _ in 0..3 {
        if bench.engine.deadline().is_some() {
            bench.wait();
        }
    }
    assert_eq!(bench.warmed, 2);
}

#[test]
fn a_first_read_that_comes_before_the_command_line_counts() {
    let mut bench = Bench {
        engine: Engine::new(one_file::policy(4 << 30)),
        now: Moment(1_000_000_000),
        pace: Duration::from_millis(1),
        warmed: 0,
        looks: 0,
    };
    let read = |bench: &mut Bench, step: u64| {
        let range = ByteRange::new(step * STEP, 1 << 20);
        let access = one_file::access(bench.now, PROCESS, 1, range);
        bench.feed(Input::Access(access));
    };
    // The catalog is asked, and the answer to another question comes first.
    read(&mut bench, 0);
    bench.feed(Input::Named {
        process: PROCESS,
        description: one_file::description(SIZE),
    });
    read(&mut bench, 1);
    assert!(bench.warmed >= 64, "it reads from the start: {}", bench.warmed);
}
