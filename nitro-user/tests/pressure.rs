//! What the engine does while memory is short.

use std::time::Duration;

use nitro_user::{
    engine::{
        Action, Engine, Input, Policy,
        input::{MachineMemory, StepEnd},
    },
    units::{ByteCount, ByteRange, Moment, STEP},
};

#[path = "one_file/mod.rs"]
mod one_file;

const PROCESS: u32 = 7;
const SIZE: u64 = 1 << 30;
const RESERVE: u64 = 1 << 30;
const PLENTY: ByteCount = ByteCount(16 * RESERVE);

/// An engine, and workers that take 4 ms for a step.
struct Bench {
    engine: Engine,
    now: Moment,
    available: ByteCount,
    stalled: Duration,
    asked: u32,
    warmed: Vec<ByteRange>,
    cancelled: u32,
}

impl Bench {
    fn new() -> Self {
        Self {
            engine: Engine::new(Policy {
                reserve: ByteCount(RESERVE),
                ..one_file::policy(4 << 30)
            }),
            now: Moment(1_000_000_000),
            available: PLENTY,
            stalled: Duration::from_secs(5),
            asked: 0,
            warmed: Vec::new(),
            cancelled: 0,
        }
    }

    fn feed(&mut self, input: Input) {
        let mut inputs = std::collections::VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            for action in self.engine.handle(self.now, input) {
                match action {
                    Action::Describe(file) => inputs.push_back(Input::Described {
                        file,
                        description: Some(one_file::description(SIZE)),
                    }),
                    Action::AskMemory => {
                        self.asked += 1;
                        inputs.push_back(Input::Memory(MachineMemory {
                            available: self.available,
                            stalled: self.stalled,
                            ..MachineMemory::default()
                        }));
                    }
                    Action::Warm { load, range, .. } => {
                        self.warmed.push(range);
                        let submitted = self.now;
                        self.now = self.now.after(Duration::from_millis(4));
                        let done = one_file::outcome(load, range, StepEnd::Done, range.len(), submitted, self.now);
                        inputs.push_back(Input::Outcome(done));
                    }
                    Action::Cancel { .. } => self.cancelled += 1,
                    _ => {}
                }
            }
        }
    }

    /// The reader takes its next steps, one each 10 ms.
    fn read(&mut self, steps: std::ops::Range<u64>) {
        for step in steps {
            self.now = self.now.after(Duration::from_millis(10));
            let access = one_file::access(self.now, PROCESS, 0, ByteRange::new(step * STEP, STEP));
            self.feed(Input::Access(access));
        }
    }

    /// The farthest that was warmed beyond a step, in steps.
    fn ahead(&self, step: u64) -> u64 {
        let end = self.warmed.iter().map(|range| range.end).max().unwrap_or(0);
        (end / STEP).saturating_sub(step)
    }

    /// Time passes in which the engine is woken as it asks to be.
    fn wait(&mut self, time: Duration) {
        let end = self.now.after(time);
        while let Some(deadline) = self.engine.deadline().filter(|deadline| *deadline <= end) {
            self.now = self.now.max(deadline);
            self.feed(Input::Tick);
        }
        self.now = self.now.max(end);
    }
}

#[test]
fn with_plenty_it_is_asked_now_and_then_and_changes_nothing() {
    let mut bench = Bench::new();
    bench.read(0..100);
    assert!(bench.ahead(99) > 8, "{} steps ahead", bench.ahead(99));
    let seconds = bench.now.since(Moment(1_000_000_000)).as_secs_f64();
    assert!(
        (1.0..=4.0 * seconds + 2.0).contains(&f64::from(bench.asked)),
        "{} in {seconds} s",
        bench.asked
    );
    assert_eq!(bench.cancelled, 0);
}

#[test]
fn nothing_is_warmed_below_the_reserve_and_it_goes_on_above() {
    let mut bench = Bench::new();
    bench.read(0..50);
    bench.available = ByteCount(RESERVE - 1);
    // Until it is asked again.
    bench.read(50..80);
    let before = bench.warmed.len();
    bench.read(80..200);
    assert_eq!(bench.warmed.len(), before, "warmed while memory is short");
    assert_eq!(
        bench.engine.strain().reason(),
        Some("memory is short: nothing is warmed")
    );
    bench.available = PLENTY;
    bench.wait(Duration::from_millis(300));
    assert!(bench.engine.strain().reason().is_none());
    bench.read(200..210);
    assert!(bench.ahead(209) > 8, "{} steps ahead", bench.ahead(209));
}

#[test]
fn while_others_stall_little_is_warmed_ahead() {
    let mut bench = Bench::new();
    bench.read(0..50);
    assert!(bench.ahead(49) > 8);
    // Between two answers somebody waits all the time.
    bench.available = ByteCount(2 * RESERVE);
    for step in 50..300 {
        bench.stalled += Duration::from_millis(10);
        bench.read(step..step + 1);
    }
    assert!((1..=3).contains(&bench.ahead(299)), "{} steps ahead", bench.ahead(299));
    // Two seconds after the last of it the window is as it was.
    for step in 300..520 {
        bench.read(step..step + 1);
    }
    assert!(bench.ahead(511) > 0 || bench.warmed.iter().any(|range| range.end == SIZE));
}

#[test]
fn what_is_only_announced_gets_nothing_while_others_stall() {
    let mut bench = Bench::new();
    // Learned from an earlier load.
    bench.available = ByteCount(2 * RESERVE);
    bench.read(0..2);
    bench.stalled += Duration::from_secs(1);
    bench.wait(Duration::from_millis(260));
    bench.read(2..4);
    let before = bench.warmed.len();
    let other = PROCESS + 1;
    bench.feed(Input::Ended { process: PROCESS });
    bench.feed(Input::Named {
        process: other,
        description: one_file::description(SIZE),
    });
    assert!(bench.warmed.len() <= before + 2, "{} and {before}", bench.warmed.len());
}
