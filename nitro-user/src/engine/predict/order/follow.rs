//! Whether readers go along an order: they do as long as each step that they ask for is near one of the places where they were.

use super::runs::Ranked;

/// One jump more than this out of the order, or as many more as there were along it since, and it is none of this reader's.
const MOST_JUMPS: i32 = 4;

/// So many jumps along the order, or windows, speak for it, and no more: who leaves it then does so.
const MOST_TRUST: i32 = 8;

/// Of all steps, one in so many may be where somebody is expected by chance.
const BY_CHANCE: u32 = 8;

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
    /// Whoever is there has gone from one run to the next as in the order, or has never done otherwise.
    proven: bool,
}

/// Where somebody reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Onwards in a run.
    On {
        /// See [`Place::proven`].
        proven: bool,
    },
    /// On to a run that was to follow, or at a place that was still to come.
    Next,
    /// Something that had been left out before a place.
    Behind {
        /// See [`Place::proven`].
        proven: bool,
    },
    /// Where nobody was expected.
    Away,
}

impl Places {
    /// Somebody reads `steps` from `rank` on, all in one run and for the first time. Expected is whatever is no more than two windows before or behind one of `most` places, or of
    /// the last one that was left, as long as it is not behind all the time; and a first step at a place.
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
            proven: true,
        };
        let distance = |place: &Place| {
            if rank >= place.rank {
                self.between(order, (place.rank, place.run), (rank, run))
            } else {
                self.between(order, (rank, run), (place.rank, place.run))
            }
        };
        let far = self.far(order, window);
        let distances = self.places.iter().map(distance).enumerate();
        let nearest = distances.filter(|(_, distance)| *distance <= far);
        let nearest = nearest.min_by_key(|(_, distance)| *distance).map(|(index, _)| index);
        self.add(run, steps.wrapping_neg());
        if let Some(place) = nearest.and_then(|index| self.places.get_mut(index)) {
            place.last = now;
            if rank >= place.rank {
                let step = if place.run == run {
                    Step::On { proven: place.proven }
                } else {
                    Step::Next
                };
                let proven = step == Step::Next || place.proven;
                *place = Place { proven, ..here };
                return step;
            }
            place.behind = place.behind.saturating_add(steps);
            if place.behind <= window {
                return Step::Behind { proven: place.proven };
            }
            *place = Place { proven: false, ..here };
            return Step::Away;
        }
        if self.places.len() < most.max(1) {
            self.places.push(here);
            return Step::Next;
        }
        let here = Place { proven: false, ..here };
        // Who looks elsewhere comes back to where it was.
        if self.places.len() <= most {
            self.places.push(here);
        } else if let Some(oldest) = self.places.iter_mut().min_by_key(|place| place.last) {
            *oldest = here;
        }
        Step::Away
    }

    /// How many steps away something may be: two windows, and as much for each other place, whose way may lie between, unless somebody would be near everywhere then.
    fn far(&self, order: &Ranked, window: u32) -> u32 {
        let (two, places) = (window.saturating_mul(2), self.places.len() as u32);
        let all = order.steps() / BY_CHANCE / (2 * places.max(1));
        two.saturating_mul(places).min(all).max(two)
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
    /// It jumped out of it: nothing is to be warmed by the order until it goes from one run to the next as in the order, or comes back to where it was.
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
    /// Steps along the order since they were last counted for it.
    along: u32,
    /// Steps that are not in it.
    strange: u64,
    trust: i32,
    left: bool,
}

impl Follower {
    /// The readers of a load, who are at `places` places, ask for a step for the first time. `window` is how many steps may be warmed ahead of them.
    pub fn moved(&mut self, order: &Ranked, part: u32, step: u32, window: u32, places: usize) -> Following {
        if self.left {
            return Following::Left;
        }
        self.asked += 1;
        // Of a small model, a step is soon near any other.
        let window = window.clamp(1, (order.steps() / 2 / BY_CHANCE).max(1));
        let Some(rank) = order.rank(part, step) else {
            // It was not read before: that says nothing of the rest, as long as it is the smaller part.
            self.strange += 1;
            self.left = self.strange > self.asked / 2 + u64::from(window);
            return if self.left { Following::Left } else { Following::Astray };
        };
        match self.places.take(order, self.asked, rank, 1, window, places) {
            Step::On { proven: true } | Step::Behind { proven: true } => {
                self.along += 1;
                if self.along >= window {
                    self.trusted();
                }
                Following::Along
            }
            Step::On { proven: false } | Step::Behind { proven: false } => Following::Astray,
            Step::Next => {
                self.trusted();
                Following::Along
            }
            Step::Away => {
                self.trust -= 1;
                self.left = self.trust < -MOST_JUMPS;
                if self.left { Following::Left } else { Following::Astray }
            }
        }
    }

    fn trusted(&mut self) {
        self.trust = (self.trust + 1).min(MOST_TRUST);
        self.along = 0;
    }
}
