//! Generated days of programs that load models: what the predictor is measured with. The same seed gives the same days.

use std::time::Duration;

use crate::engine::learn::row::Number;

/// A model is loaded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// Since 1970.
    pub at: Duration,
    pub program: Number,
    pub model: Number,
}

/// A kind of workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Three programs, each with a list of models that it goes through twice on working days, with omissions and other models in between.
    Routine,
    /// Thirty models without any order.
    Random,
    /// A round of models with rare branches off it.
    Chain,
    /// A routine that becomes another one halfway.
    Drift,
    /// A routine, and a program that touches everything every other day, in the order of a directory or in none.
    Scanner,
    /// Bases with their adapters, within seconds, in either order.
    Pairs,
    /// Pipelines of four models that are loaded together, in the same order, and models loaded over and over.
    Bursts,
    /// All of them on one machine.
    Mixed,
}

impl Kind {
    pub const ALL: [Self; 8] = [
        Self::Routine,
        Self::Random,
        Self::Chain,
        Self::Drift,
        Self::Scanner,
        Self::Pairs,
        Self::Bursts,
        Self::Mixed,
    ];
}

/// The beginning of all days: a Monday.
const MONDAY: u64 = 1_767_571_200;

const HOUR: f64 = 3600.0;
const DAY: f64 = 24.0 * HOUR;

/// The loads of `days` days.
pub fn generate(kind: Kind, seed: u64, days: u32) -> Vec<Load> {
    let mut days = Days {
        random: fastrand::Rng::with_seed(seed ^ (kind as u64) << 56),
        days,
        loads: Vec::new(),
    };
    match kind {
        Kind::Routine => days.routine(1, 0),
        Kind::Random => days.random(10, 100),
        Kind::Chain => days.chain(20, 200),
        Kind::Drift => days.drift(1, 0),
        Kind::Scanner => {
            days.routine(1, 0);
            days.scanner(30, 60);
        }
        Kind::Pairs => days.pairs(40, 300),
        Kind::Bursts => days.bursts(50, 400),
        Kind::Mixed => {
            days.routine(1, 0);
            days.random(10, 100);
            days.chain(20, 200);
            days.scanner(30, 60);
            days.pairs(40, 300);
            days.bursts(50, 400);
        }
    }
    days.loads.sort_by_key(|load| load.at);
    days.loads
}

struct Days {
    random: fastrand::Rng,
    days: u32,
    loads: Vec<Load>,
}

impl Days {
    /// A time about `median`, as far from it as people and disks are.
    fn about(&mut self, median: f64, spread: f64) -> f64 {
        // The sum of twelve is normal enough.
        let normal: f64 = (0..12).map(|_| self.random.f64()).sum::<f64>() - 6.0;
        median * (normal * spread).exp()
    }

    fn load(&mut self, at: f64, program: Number, model: Number) {
        let at = Duration::from_secs(MONDAY) + Duration::from_secs_f64(at);
        self.loads.push(Load { at, program, model });
    }

    fn chance(&mut self, share: f64) -> bool {
        self.random.f64() < share
    }

    fn one_of(&mut self, first: Number, count: Number) -> Number {
        first + 1 + self.random.u32(0..count)
    }

    /// Days from Monday to Friday among the first, or all that are left.
    fn working_days(&self, from: u32, until: u32) -> Vec<u32> {
        (from..until.min(self.days)).filter(|day| day % 7 < 5).collect()
    }

    fn routine(&mut self, program: Number, models: Number) {
        for program in program..program + 3 {
            self.habit(program, models, 0, self.days);
        }
    }

    fn drift(&mut self, program: Number, models: Number) {
        let half = self.days / 2;
        for program in program..program + 3 {
            self.habit(program, models, 0, half);
            self.habit(program, models, half, self.days);
        }
    }

    /// A list of models, some of them in it twice, with a usual pause after each.
    fn habit(&mut self, program: Number, models: Number, from: u32, until: u32) {
        let length = self.random.usize(4..9);
        let list: Vec<(Number, f64)> = (0..length)
            .map(|_| (self.one_of(models, 12), 30.0 * 40_f64.powf(self.random.f64())))
            .collect();
        let hour = 7.0 + 2.0 * self.random.f64();
        for day in self.working_days(from, until) {
            for session in [hour, hour + 6.0] {
                let mut at = f64::from(day) * DAY + session * HOUR + self.about(600.0, 0.5);
                for (model, pause) in &list {
                    if self.chance(0.03) {
                        break;
                    }
                    if self.chance(0.08) {
                        let other = self.one_of(models, 12);
                        self.load(at, program, other);
                        at += self.about(120.0, 0.8);
                    }
                    if !self.chance(0.08) {
                        self.load(at, program, *model);
                        at += self.about(*pause, 0.5);
                    }
                }
            }
        }
    }

    fn random(&mut self, program: Number, models: Number) {
        for day in 0..self.days {
            let mut at = (f64::from(day) + 0.4) * DAY;
            for _ in 0..self.random.usize(5..25) {
                let model = self.one_of(models, 30);
                self.load(at, program, model);
                at += self.about(300.0, 1.0);
            }
        }
    }

    fn chain(&mut self, program: Number, models: Number) {
        for day in 0..self.days {
            let mut at = (f64::from(day) + 0.5) * DAY;
            for step in 0..24 {
                let place = step % 8;
                self.load(at, program, models + 1 + place);
                at += self.about(60.0, 0.4);
                let branch = match place {
                    2 => self.chance(0.05),
                    5 => self.chance(0.1),
                    _ => false,
                };
                if branch {
                    for side in 0..2 {
                        self.load(at, program, models + 10 + place * 2 + side);
                        at += self.about(45.0, 0.4);
                    }
                }
            }
        }
    }

    fn scanner(&mut self, program: Number, models: Number) {
        let in_order = self.random.bool();
        for day in (0..self.days).step_by(2) {
            let mut all: Vec<Number> = (1..=models).collect();
            if !in_order {
                self.random.shuffle(&mut all);
            }
            let mut at = (f64::from(day) + 0.1) * DAY;
            for model in all {
                self.load(at, program, model);
                at += self.about(if in_order { 2.0 } else { 15.0 }, 0.3);
            }
        }
    }

    fn pairs(&mut self, program: Number, models: Number) {
        let mut topic = 0;
        for day in 0..self.days {
            let mut at = (f64::from(day) + 0.6) * DAY;
            for _ in 0..self.random.usize(4..12) {
                topic = if self.chance(0.6) {
                    (topic + 1) % 5
                } else {
                    self.random.u32(0..5)
                };
                let base = models + 1 + topic;
                let adapter = models + 10 + topic * 2 + u32::from(self.chance(0.2));
                let together = self.about(2.0, 0.4);
                match self.random.u32(0..10) {
                    0 | 1 => self.load(at, program, base),
                    2..6 => {
                        self.load(at, program, base);
                        self.load(at + together, program, adapter);
                    }
                    _ => {
                        self.load(at, program, adapter);
                        self.load(at + together, program, base);
                    }
                }
                at += self.about(400.0, 0.6);
            }
        }
    }

    fn bursts(&mut self, program: Number, models: Number) {
        for day in 0..self.days {
            let mut at = (f64::from(day) + 0.7) * DAY;
            for _ in 0..self.random.usize(2..6) {
                let pipeline = self.random.u32(0..3);
                let mut inside = at;
                for member in 0..4 {
                    self.load(inside, program, models + 1 + 4 * pipeline + member);
                    inside += self.about(1.5, 0.3);
                }
                at += self.about(500.0, 0.5);
            }
            let again = self.one_of(models + 20, 2);
            for _ in 0..self.random.usize(3..15) {
                self.load(at, program + 1, again);
                at += self.about(40.0, 0.3);
            }
        }
    }
}
