//! What work on the processors costs, and who waits for one.

use std::{collections::VecDeque, time::Duration};

use crate::units::Moment;

/// What the processors of a machine take for the work on a load.
///
/// [`Machine::default`] is a virtual machine with two processors on which `nitro-bench cold` was run: `copy`, `touch` and `populate` are the sizes over the times of
/// its `cached` column, the rest what the cells of a device without a limit left open.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Machine {
    /// How many there are.
    pub processors: usize,
    /// Bytes a second that one copies out of the page cache for a reader.
    pub copy: f64,
    /// Bytes a second that one touches through a mapping, page tables included.
    pub touch: f64,
    /// The same where the mapping is populated first.
    pub populate: f64,
    /// Making room for a page in the page cache …
    pub page: Duration,
    /// … and for a folio of any number of them.
    pub folio: Duration,
    /// Building a request and handing it over.
    pub request: Duration,
    /// A fault that finds no page to map.
    pub fault: Duration,
    /// The first miss of a process more than any other: what slept wakes, the agent on the same processors included.
    pub begin: Duration,
    /// From the end of a wait until whoever waited can go on, on average: half of it always, the rest as it happens.
    pub wake: Duration,
    /// Putting a thread on a processor.
    pub switch: Duration,
    /// From an event or an outcome until the engine has it.
    pub hear: Duration,
    /// Opening a file for its first step.
    pub open: Duration,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            processors: 2,
            copy: 24.5e9,
            touch: 58e9,
            populate: 19.4e9,
            page: Duration::from_nanos(30),
            folio: Duration::from_nanos(850),
            request: Duration::from_micros(3),
            fault: Duration::from_micros(2),
            begin: Duration::from_millis(1),
            wake: Duration::from_micros(4),
            switch: Duration::from_micros(1),
            hear: Duration::from_micros(300),
            open: Duration::from_micros(250),
        }
    }
}

/// Time for `bytes` at `rate` bytes a second; none at a rate of 0, which is no bound.
pub fn time_of(bytes: u64, rate: f64) -> Duration {
    if rate > 0.0 {
        Duration::from_secs_f64(bytes as f64 / rate)
    } else {
        Duration::ZERO
    }
}

/// What happens by chance, and the same in each run: a generator of pseudo-random numbers (Marsaglia's xorshift64*).
#[derive(Debug)]
pub struct Chance(u64);

impl Default for Chance {
    fn default() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }
}

impl Chance {
    /// A time of which half is certain, and the other half is the mean of a time without memory.
    pub fn about(&mut self, mean: Duration) -> Duration {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11;
        let share = (number as f64 + 1.0) / (1u64 << 53) as f64;
        mean.mul_f64(0.5 - 0.5 * share.ln())
    }
}

/// Whoever has had a processor for so long gives it to others who wait.
const QUANTUM: Duration = Duration::from_millis(3);

/// The processors at work: whoever has one keeps it until it waits for something else, or its time is over; the others wait in line.
#[derive(Debug)]
pub struct Processors<T> {
    number: usize,
    /// Who has one, and since when.
    held: Vec<(T, Moment)>,
    line: VecDeque<(T, Duration)>,
}

impl<T: Copy + PartialEq> Processors<T> {
    /// So many idle ones.
    pub fn new(number: usize) -> Self {
        Self {
            number: number.max(1),
            held: Vec::new(),
            line: VecDeque::new(),
        }
    }

    /// `who` wants to do `work`. Returns who does work from now on on account of that, and until when: itself, somebody who waited, or nobody more.
    pub fn run(&mut self, now: Moment, who: T, work: Duration) -> Option<(T, Moment)> {
        let held = self.held.iter().find(|(holder, _)| *holder == who);
        if held.is_some_and(|(_, since)| self.line.is_empty() || now.since(*since) < QUANTUM) {
            return Some((who, now.after(work)));
        }
        self.line.push_back((who, work));
        self.leave(now, who)
    }

    /// `who` waits for something else. Returns who works from now on instead, and until when.
    pub fn leave(&mut self, now: Moment, who: T) -> Option<(T, Moment)> {
        self.held.retain(|(holder, _)| *holder != who);
        if self.held.len() >= self.number {
            return None;
        }
        let (next, work) = self.line.pop_front()?;
        self.held.push((next, now));
        Some((next, now.after(work)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn at(milliseconds: u64) -> Moment {
        Moment(milliseconds * 1_000_000)
    }

    #[test]
    fn a_third_waits_until_one_of_two_leaves() {
        let mut processors = Processors::new(2);
        assert_eq!(processors.run(at(0), 'a', 2 * MS), Some(('a', at(2))));
        assert_eq!(processors.run(at(0), 'b', MS), Some(('b', at(1))));
        assert_eq!(processors.run(at(0), 'c', 5 * MS), None);
        assert_eq!(processors.run(at(1), 'b', MS), Some(('b', at(2))), "it goes on");
        assert_eq!(processors.leave(at(2), 'b'), Some(('c', at(7))));
        assert_eq!(processors.leave(at(2), 'a'), None);
    }

    #[test]
    fn what_happens_by_chance_has_its_mean_and_is_the_same_again() {
        let times = |count: u32| {
            let mut chance = Chance::default();
            (0..count).map(|_| chance.about(MS)).collect::<Vec<_>>()
        };
        let all = times(10_000);
        let mean = all.iter().sum::<Duration>() / 10_000;
        assert!(mean.abs_diff(MS) < MS / 50, "{mean:?}");
        assert!(all.iter().all(|time| *time >= MS / 2));
        assert_eq!(all[..10], times(10));
    }

    #[test]
    fn nobody_keeps_one_for_ever() {
        let mut processors = Processors::new(1);
        processors.run(at(0), 'a', 4 * MS);
        processors.run(at(1), 'b', MS);
        assert_eq!(processors.run(at(4), 'a', MS), Some(('b', at(5))));
        assert_eq!(processors.leave(at(5), 'b'), Some(('a', at(6))));
    }
}
