//! How far each 2 MiB step of one part has come.

use std::ops::Range;

use crate::units::{ByteRange, Moment, STEP};

/// Steps that one jump may leave, at most: it is all the same by then.
const MOST_LEFT: usize = 512;

/// One step.
#[derive(Clone, Copy, Debug, Default)]
pub struct Step {
    /// The reader has accessed it, and it has not left the cache since.
    pub demanded: bool,
    /// It was accessed in passing: what is missing of it is still wanted.
    pub rest_wanted: bool,
    /// It was handed to a worker, or need not be.
    pub asked: bool,
    /// It is with a worker.
    pub in_flight: bool,
    /// Bytes of it that we brought in and that are still there.
    pub ours: u32,
    /// Bytes of it that we brought in before the reader asked for them.
    pub in_time: u32,
    /// Bytes that we brought in after that.
    pub late: u32,
    /// Bytes of it that came in with the step before, until it is done itself.
    pub spilled: u32,
    /// Bytes that we brought in and that left the cache unread.
    pub lost: u32,
    /// The reader jumped over it, or away from it.
    pub left: bool,
    /// How often it was asked for: again after it had left the cache.
    pub demands: u16,
    /// First access, or the first after it had left the cache.
    pub demanded_at: Moment,
    /// Bytes that left the cache since.
    gone: u32,
}

/// The steps of one part.
#[derive(Debug)]
pub struct Steps {
    size: u64,
    steps: Vec<Step>,
    /// All of it was found in the page cache.
    all_resident: bool,
}

/// Which steps may be handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Those ahead of a reader: what another had read and the kernel took away since, as well.
    Again,
    /// Those that nobody has read yet.
    Unread,
}

/// What lies ahead of a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ahead {
    /// A step that may be warmed.
    Step(u64),
    /// As much as is wanted was warmed.
    Enough,
    /// Nothing is left to do.
    Nothing,
}

/// What a demand found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Met {
    /// Steps accessed for the first time.
    pub fresh: u64,
    /// Bytes of ours it now uses.
    pub used: u64,
    /// Of the fresh steps, those that were not there yet.
    pub waited: u64,
    /// Of these, those that nobody was bringing in.
    pub cold: u64,
    /// Bytes of ours it now uses and had left before.
    pub returned: u64,
}

impl Steps {
    /// Steps of a file of `size` bytes, none touched.
    pub fn new(size: u64) -> Self {
        let count = usize::try_from(size.div_ceil(STEP)).unwrap_or(0);
        Self {
            size,
            steps: vec![Step::default(); count],
            all_resident: false,
        }
    }

    /// The reader accesses `range`.
    pub fn demand(&mut self, range: ByteRange, at: Moment) -> Met {
        let mut met = Met::default();
        let all_resident = self.all_resident;
        for step in self.touched(range) {
            if step.demanded {
                continue;
            }
            if !all_resident {
                met.waited += u64::from(!step.asked || step.in_flight);
                met.cold += u64::from(!step.asked);
            }
            step.demanded = true;
            step.demanded_at = at;
            step.demands = step.demands.saturating_add(1);
            step.gone = 0;
            met.fresh += 1;
            met.used += u64::from(step.ours);
            if std::mem::take(&mut step.left) {
                met.returned += if step.in_flight { STEP } else { u64::from(step.ours) };
            }
            step.in_time += std::mem::take(&mut step.ours);
        }
        met
    }

    /// Whether a step was read and is still there.
    pub fn is_demanded(&self, step: u64) -> bool {
        let step = usize::try_from(step).ok().and_then(|step| self.steps.get(step));
        step.is_some_and(|step| step.demanded)
    }

    /// Whether a step was ever read.
    pub fn was_demanded(&self, step: u64) -> bool {
        let step = usize::try_from(step).ok().and_then(|step| self.steps.get(step));
        step.is_some_and(|step| step.demands > 0)
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.steps.len() as u64
    }

    /// Whether all of it was read.
    pub fn are_all_read(&self) -> bool {
        self.steps.iter().all(|step| step.demands > 0)
    }

    /// Bytes read, those that left the cache in between again.
    pub fn demanded_bytes(&self) -> u64 {
        let demands = self.steps.iter().map(|step| u64::from(step.demands));
        demands.sum::<u64>() * STEP
    }

    /// Whether a step was warmed, or is with a worker.
    pub fn is_warm(&self, step: u64) -> bool {
        let step = usize::try_from(step).ok().and_then(|step| self.steps.get(step));
        self.all_resident || step.is_some_and(|step| step.asked)
    }

    /// The reader is in this step and walks: the rest of it is wanted too.
    pub fn want_rest(&mut self, step: u64) {
        if let Some(found) = self.at(step)
            && !found.asked
        {
            found.rest_wanted = true;
        }
    }

    /// Looks from step `from` on, up to `until`, for one that is wanted, while less than `room` bytes were warmed, or are on their way, before it; `ahead` counts
    /// these. What is left out is none.
    pub fn look_ahead(
        &self,
        steps: Range<u64>,
        wanted: Wanted,
        room: u64,
        ahead: &mut u64,
        left_out: impl Fn(u64) -> bool,
    ) -> Ahead {
        let from = usize::try_from(steps.start).unwrap_or(usize::MAX);
        let until = usize::try_from(steps.end).unwrap_or(usize::MAX).min(self.steps.len());
        if self.all_resident {
            return Ahead::Nothing;
        }
        for (index, step) in self.steps.iter().enumerate().take(until).skip(from) {
            let here = index == from;
            let read = match wanted {
                Wanted::Again if !here => step.demanded,
                Wanted::Again | Wanted::Unread => step.demands > 0,
            };
            let covered = step.asked || read && !step.rest_wanted;
            if !covered && !left_out(index as u64) {
                return if *ahead + STEP > room {
                    Ahead::Enough
                } else {
                    Ahead::Step(index as u64)
                };
            }
            if step.in_flight {
                *ahead += STEP;
            } else if !step.demanded {
                *ahead += u64::from(step.ours);
            }
            if *ahead >= room {
                return Ahead::Enough;
            }
        }
        Ahead::Nothing
    }

    /// The reader jumps away from step `from`, within the part to step `to`: what it leaves of ours, or of what is on its way, that it had not left before. Within a step it leaves nothing.
    pub fn leave(&mut self, from: u64, to: Option<u64>) -> u64 {
        if to == Some(from) {
            return 0;
        }
        let first = usize::try_from(from + 1).unwrap_or(usize::MAX);
        let until = to.filter(|to| *to > from).and_then(|to| usize::try_from(to).ok());
        let until = until.unwrap_or(usize::MAX).min(first.saturating_add(MOST_LEFT));
        let ahead = self.steps.iter_mut().take(until).skip(first);
        let mut left = 0;
        for step in ahead.take_while(|step| step.asked || step.demanded) {
            if !step.demanded && !std::mem::replace(&mut step.left, true) {
                left += if step.in_flight { STEP } else { u64::from(step.ours) };
            }
        }
        left
    }

    /// Hands a step out.
    pub fn submit(&mut self, step: u64) {
        if let Some(step) = self.at(step) {
            step.asked = true;
            step.in_flight = true;
        }
    }

    /// Takes a step's result: `gained` bytes, seen complete at `completed`. Returns the bytes of ours in it if nobody has asked for them yet.
    pub fn arrived(&mut self, step: u64, gained: u64, completed: Moment) -> u64 {
        let Some(step) = self.at(step) else { return 0 };
        step.in_flight = false;
        // They are among what it gained.
        step.spilled = 0;
        let gained = u32::try_from(gained).unwrap_or(u32::MAX);
        if !step.demanded {
            // A step that lost pages and was brought in again has the others still.
            step.ours = step.ours.saturating_add(gained).min(STEP as u32);
            return u64::from(step.ours);
        }
        // A buffered read's event comes after its wait, so that a completion seen just before may have been waited for: late unless
        // it was certainly there.
        let counted = if completed <= step.demanded_at {
            &mut step.in_time
        } else {
            &mut step.late
        };
        *counted = counted.saturating_add(gained);
        0
    }

    /// The step before brought `bytes` of this one in.
    pub fn spilled(&mut self, step: u64, bytes: u64) {
        if let Some(step) = self.at(step) {
            step.spilled = u32::try_from(bytes).unwrap_or(u32::MAX);
        }
    }

    /// A step was not done: it may be asked for again.
    pub fn withdraw(&mut self, step: u64) {
        if let Some(found) = self.at(step) {
            found.asked = false;
            found.in_flight = false;
        }
    }

    /// The whole part is resident: nothing to do.
    pub fn cover_all(&mut self) {
        self.all_resident = true;
    }

    /// Pages left the cache. Returns the bytes of ours that nobody had used.
    pub fn evicted(&mut self, range: ByteRange) -> u64 {
        let mut lost = 0;
        self.all_resident = false;
        let size = self.size;
        let first = range.steps().start;
        for (index, step) in self.touched(range).iter_mut().enumerate() {
            let whole = ByteRange::of_step(first + index as u64, size);
            let overlap = range.end.min(whole.end).saturating_sub(range.start.max(whole.start));
            let overlap = u32::try_from(overlap).unwrap_or(u32::MAX);
            if step.demanded {
                step.gone = step.gone.saturating_add(overlap);
                if u64::from(step.gone) >= whole.len() / 2 {
                    step.in_time = step.in_time.saturating_add(std::mem::take(&mut step.spilled));
                    (step.demanded, step.rest_wanted) = (false, false);
                }
            }
            let gone = step.ours.min(overlap);
            step.ours -= gone;
            step.lost = step.lost.saturating_add(gone);
            if step.demands == 0 {
                let spilled = step.spilled.min(overlap - gone);
                step.spilled -= spilled;
                step.lost = step.lost.saturating_add(spilled);
            }
            // It may be brought in again; the window, which shrinks with what is lost, keeps that from thrashing.
            if !step.in_flight {
                step.asked = false;
            }
            lost += u64::from(gone);
        }
        lost
    }

    /// All steps with their ranges.
    pub fn iter(&self) -> impl Iterator<Item = (ByteRange, &Step)> {
        self.steps
            .iter()
            .enumerate()
            .map(|(index, step)| (ByteRange::of_step(index as u64, self.size), step))
    }

    /// The range of a step.
    pub fn range(&self, step: u64) -> ByteRange {
        ByteRange::of_step(step, self.size)
    }

    fn at(&mut self, step: u64) -> Option<&mut Step> {
        self.steps.get_mut(usize::try_from(step).ok()?)
    }

    fn touched(&mut self, range: ByteRange) -> &mut [Step] {
        let count = self.steps.len();
        let steps = range.steps();
        let start = usize::try_from(steps.start).unwrap_or(count).min(count);
        let end = usize::try_from(steps.end).unwrap_or(count).clamp(start, count);
        &mut self.steps[start..end]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_lost_a_page_and_got_it_back_is_still_ours() {
        let mut steps = Steps::new(2 * STEP);
        steps.submit(0);
        assert_eq!(steps.arrived(0, STEP, Moment(1)), STEP);
        assert_eq!(steps.evicted(ByteRange::new(4096, 4096)), 4096);
        assert!(!steps.is_warm(0), "it may be asked for again");
        steps.submit(0);
        assert_eq!(steps.arrived(0, 4096, Moment(2)), STEP);
        assert_eq!(steps.demand(ByteRange::new(0, STEP), Moment(3)).used, STEP);
    }

    #[test]
    fn what_a_jump_leaves_counts_once_and_not_any_more_when_the_reader_comes_back() {
        let mut steps = Steps::new(8 * STEP);
        (1..5).for_each(|step| steps.submit(step));
        for step in 1..4 {
            steps.arrived(step, STEP, Moment(1));
        }
        assert_eq!(steps.leave(0, Some(0)), 0, "within a step");
        assert_eq!(steps.leave(0, Some(3)), 2 * STEP, "what it jumps over");
        assert_eq!(steps.leave(0, None), 2 * STEP, "the rest, of which one is on its way");
        assert_eq!(steps.leave(0, None), 0, "it was left before");
        let met = steps.demand(ByteRange::new(STEP, STEP), Moment(2));
        assert_eq!((met.used, met.returned), (STEP, STEP));
        let met = steps.demand(ByteRange::new(4 * STEP, STEP), Moment(2));
        assert_eq!((met.used, met.returned), (0, STEP));
    }

    #[test]
    fn what_spilled_into_a_step_counts_once() {
        let mut steps = Steps::new(2 * STEP);
        steps.spilled(1, 4096);
        let spilled = |steps: &Steps| steps.iter().map(|(_, step)| step.spilled).sum::<u32>();
        assert_eq!(spilled(&steps), 4096);
        steps.submit(1);
        // Its outcome claims what the step before brought in.
        steps.arrived(1, STEP, Moment(1));
        assert_eq!(spilled(&steps), 0);
        steps.spilled(1, 4096);
        assert_eq!(steps.evicted(ByteRange::new(STEP, STEP)), STEP);
        let lost: u32 = steps.iter().map(|(_, step)| step.lost).sum();
        assert_eq!(u64::from(lost), STEP, "the bytes of one step");
    }
}
