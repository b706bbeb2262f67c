//! Whether a reader goes along an order: it does as long as each step that it asks for is near one of the places where it was.

use super::runs::Ranked;

/// Jumps out of the order within a short while after which it is none of this reader's.
const MOST_JUMPS: u32 = 4;

/// A jump is forgiven after so many windows along the order.
const FORGIVEN: u32 = 8;

/// Where readers are in an order.
#[derive(Clone, Debug, Default)]
pub struct Places {
    places: Vec<Place>,
    /// Steps of each run that were not read yet, as a Fenwick tree. What others have read meanwhile is no distance: each of several readers has its own way through the order.
    unread: Vec<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    rank: u32,
    run: usize,
    /// Steps behind it in a row.
    behind: u32,
    /// With which step it was heard last, counted.
    last: u64,
}

/// Where somebody reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Onwards from a place, or at a place that was still to come.
    On,
    /// Something that had been left out before a place.
    Behind,
    /// Where nobody was expected.
    Away,
}

impl Places {
    /// Somebody reads `steps` from `rank` on, all in one run and for the first time. Expected is whatever is no more than two windows before or behind a place, for each place that
    /// there is, as long as it is not behind all the time, and a first step at a place, if there are fewer than `most`.
    pub fn take(&mut self, order: &Ranked, now: u64, rank: u32, steps: u32, window: u32, most: usize) -> Step {
        if self.unread.is_empty() {
            self.unread = vec![0; order.runs().len() + 1];
            for (index, run) in order.runs().iter().enumerate() {
                self.add(index, run.steps);
            }
        }
        let Some(run) = order.run_at(rank) else {
            return Step::Away;
        };
        let here = Place {
            rank: rank + steps,
            run,
            behind: 0,
            last: now,
        };
        let distance = |place: &Place| {
            if rank >= place.rank {
                self.between(order, (place.rank, place.run), (rank, run))
            } else {
                self.between(order, (rank, run), (place.rank, place.run))
            }
        };
        let distances = self.places.iter().map(distance).enumerate();
        // Two windows for each place: what lies between may be the others' way.
        let far = window.saturating_mul(2 * self.places.len() as u32);
        let nearest = distances.filter(|(_, distance)| *distance <= far);
        let nearest = nearest.min_by_key(|(_, distance)| *distance).map(|(index, _)| index);
        self.add(run, steps.wrapping_neg());
        if let Some(place) = nearest.and_then(|index| self.places.get_mut(index)) {
            place.last = now;
            if rank >= place.rank {
                *place = here;
                return Step::On;
            }
            place.behind = place.behind.saturating_add(steps);
            if place.behind <= window.div_ceil(2) {
                return Step::Behind;
            }
            *place = here;
        } else if self.places.len() < most.max(1) {
            self.places.push(here);
            return Step::On;
        } else if let Some(oldest) = self.places.iter_mut().min_by_key(|place| place.last) {
            *oldest = here;
        }
        Step::Away
    }

    /// Steps that were not read yet from one rank to another, each with its run; those within the two runs are all counted.
    fn between(&self, order: &Ranked, from: (u32, usize), to: (u32, usize)) -> u32 {
        let ((from, first), (to, last)) = (from, to);
        if first == last {
            return to - from;
        }
        let rest = order.end(first).saturating_sub(from);
        let inside = to.saturating_sub(order.end(last - 1));
        rest + self.sum(last).wrapping_sub(self.sum(first + 1)) + inside
    }

    /// Steps not read in the first `runs` runs.
    fn sum(&self, runs: usize) -> u32 {
        let (mut sum, mut index) = (0_u32, runs);
        while index > 0 {
            sum = sum.wrapping_add(self.unread[index]);
            index &= index - 1;
        }
        sum
    }

    fn add(&mut self, run: usize, steps: u32) {
        let mut index = run + 1;
        while let Some(sum) = self.unread.get_mut(index) {
            *sum = sum.wrapping_add(steps);
            index += index & index.wrapping_neg();
        }
    }
}

/// Whether the order is the reader's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Following {
    /// It is along the order.
    Along,
    /// It jumped out of it: nothing is to be warmed by the order, until it is along it again.
    Astray,
    /// It has its own ways.
    Left,
}

/// One load, along an order.
#[derive(Clone, Debug, Default)]
pub struct Follower {
    places: Places,
    /// Steps asked for.
    asked: u64,
    jumps: u32,
    /// Steps along the order since the last jump.
    along: u32,
    state: Option<Following>,
}

impl Follower {
    /// The readers of a load, who are at `places` places, ask for a step for the first time. `window` is how many steps may be warmed ahead of them.
    pub fn moved(&mut self, order: &Ranked, part: u32, step: u32, window: u32, places: usize) -> Following {
        if self.state == Some(Following::Left) {
            return Following::Left;
        }
        self.asked += 1;
        let window = window.max(1);
        let rank = order.rank(part, step);
        match rank.map_or(Step::Away, |rank| {
            self.places.take(order, self.asked, rank, 1, window, places)
        }) {
            Step::On => {
                self.along += 1;
                if self.along >= FORGIVEN.saturating_mul(window) && self.jumps > 0 {
                    self.jumps -= 1;
                    self.along = 0;
                }
            }
            Step::Behind => {}
            Step::Away => {
                self.jumps += 1;
                self.along = 0;
            }
        }
        let state = if self.jumps > MOST_JUMPS {
            Following::Left
        } else if self.jumps == 0 || self.along >= window.div_ceil(2) {
            Following::Along
        } else {
            self.state.filter(|_| self.along > 0).unwrap_or(Following::Astray)
        };
        self.state = Some(state);
        state
    }
}
