//! Several processes that read one model, and what is gone in between.

#![allow(clippy::expect_used, clippy::panic)]

mod one_file;

use nitro_user::{
    engine::{
        Action, Engine, Input,
        input::{FileCounts, StepEnd},
        receipt::Receipt,
    },
    units::{ByteRange, Moment, STEP},
};
use one_file::FILE;

const STEPS: u64 = 64;

/// The engine, workers that are done at once, and a kernel that has counted a call for every process.
struct Bench {
    engine: Engine,
    now: Moment,
    /// Workers and kernel answer later, as long as this holds their answers.
    later: Option<Vec<Input>>,
    warmed: Vec<u64>,
    counted: Vec<u32>,
    forgotten: Vec<u32>,
    receipts: Vec<Receipt>,
}

impl Bench {
    fn new() -> Self {
        Self {
            engine: Engine::new(one_file::policy(4 << 30)),
            now: Moment(1_000_000_000),
            later: None,
            warmed: Vec::new(),
            counted: Vec::new(),
            forgotten: Vec::new(),
            receipts: Vec::new(),
        }
    }

    fn feed(&mut self, input: Input) {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            for action in self.engine.handle(self.now, input) {
                match action {
                    Action::Describe(file) => inputs.push(Input::Described {
                        file,
                        description: Some(one_file::description(STEPS * STEP)),
                    }),
                    Action::Warm { load, range, .. } => {
                        self.warmed.push(range.start / STEP);
                        let outcome = one_file::outcome(load, range, StepEnd::Done, range.len(), self.now, self.now);
                        self.later.as_mut().unwrap_or(&mut inputs).push(Input::Outcome(outcome));
                    }
                    Action::Count { load, processes, .. } => {
                        let count = FileCounts {
                            file: Some(FILE),
                            calls: 1,
                            bytes: STEP,
                            ..FileCounts::default()
                        };
                        let counts = vec![count; processes.len()];
                        self.counted.extend(processes);
                        let counted = Input::Counted { load, counts };
                        self.later.as_mut().unwrap_or(&mut inputs).push(counted);
                    }
                    Action::Forget { process } => self.forgotten.push(process),
                    Action::Finish(receipt) => self.receipts.push(*receipt),
                    _ => {}
                }
            }
        }
    }

    fn read(&mut self, process: u32, step: u64, jump: bool) {
        self.now = Moment(self.now.0 + 20_000_000);
        let mut access = one_file::access(self.now, process, 1, ByteRange::new(step * STEP, 128 << 10));
        (access.jump, access.in_order) = (jump, !jump);
        self.feed(Input::Access(access));
    }

    fn read_all(&mut self, process: u32) {
        for step in 0..STEPS {
            self.read(process, step, step == 0);
        }
    }
}

#[test]
fn a_second_pass_after_the_cache_was_dropped_is_helped_as_the_first() {
    let mut bench = Bench::new();
    bench.read_all(7);
    let all: Vec<u64> = (1..STEPS).collect();
    assert_eq!(
        bench.warmed, all,
        "each once; a read of the first is a look at the header"
    );
    bench.feed(Input::Removed {
        file: FILE,
        range: ByteRange::new(0, STEPS * STEP),
    });
    bench.warmed.clear();
    bench.read_all(7);
    let all: Vec<u64> = (0..STEPS).collect();
    assert_eq!(bench.warmed, all);
}

#[test]
fn what_one_had_read_and_the_kernel_took_is_warmed_for_the_next() {
    let mut bench = Bench::new();
    for step in 0..STEPS / 2 {
        bench.read(7, step, step == 0);
    }
    bench.feed(Input::Removed {
        file: FILE,
        range: ByteRange::new(8 * STEP, 4 * STEP),
    });
    bench.warmed.clear();
    for step in 0..6 {
        bench.read(8, step, step == 0);
    }
    let again: Vec<u64> = bench.warmed.iter().copied().filter(|step| *step < STEPS / 2).collect();
    assert_eq!(again, [8, 9, 10, 11]);
}

#[test]
fn of_processes_that_come_and_go_the_counters_are_taken_at_once_and_add_up() {
    let mut bench = Bench::new();
    // A script: a process for every step, while the first reads on.
    bench.read(1, 0, true);
    bench.read(1, 1, false);
    for step in 2..STEPS {
        let process = 100 + step as u32;
        bench.read(process, step, true);
        bench.read(process, step, false);
        bench.feed(Input::Ended { process });
        assert_eq!(bench.counted.last(), Some(&process));
        assert_eq!(bench.forgotten.last(), Some(&process));
        bench.read(1, step, false);
    }
    assert!(bench.receipts.is_empty());
    bench.feed(Input::Ended { process: 1 });
    let [receipt] = bench.receipts.as_slice() else {
        panic!("one load, one receipt: {:?}", bench.receipts);
    };
    assert_eq!(receipt.calls, STEPS - 1, "those that have gone, and the first");
    assert_eq!(bench.counted.len() as u64, STEPS - 1, "each once");
}

#[test]
fn what_the_last_process_did_counts_when_it_ends_with_another_while_a_step_is_on_its_way() {
    let mut bench = Bench::new();
    bench.later = Some(Vec::new());
    for step in 0..4 {
        bench.read(7, step, step == 0);
        bench.read(8, step, step == 0);
    }
    bench.feed(Input::Ended { process: 7 });
    bench.feed(Input::Ended { process: 8 });
    let answers = bench.later.take().expect("they were held");
    let (steps, counts): (Vec<Input>, Vec<Input>) = answers
        .into_iter()
        .partition(|answer| matches!(answer, Input::Outcome(_)));
    assert!(!steps.is_empty());
    assert_eq!(bench.counted, [7]);
    counts.into_iter().for_each(|answer| bench.feed(answer));
    assert!(
        bench.receipts.is_empty(),
        "a step is on its way, and the other was not counted"
    );
    steps.into_iter().for_each(|answer| bench.feed(answer));
    assert_eq!(bench.counted, [7, 8]);
    let calls: Vec<u64> = bench.receipts.iter().map(|receipt| receipt.calls).collect();
    assert_eq!(calls, [2]);
}
