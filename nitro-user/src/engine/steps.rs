//! How far each 2 MiB step of one part has come.

use crate::units::{ByteRange, Moment, STEP};

/// One step.
#[derive(Clone, Copy, Debug, Default)]
pub struct Step {
    /// The reader has accessed it.
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
    /// Bytes that we brought in and that left the cache unread.
    pub lost: u32,
    /// First access.
    pub demanded_at: Moment,
}

/// The steps of one part.
#[derive(Debug)]
pub struct Steps {
    size: u64,
    steps: Vec<Step>,
    /// All steps before this one are covered: where looking for the next one starts.
    covered: usize,
}

/// What a demand found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Met {
    /// Steps accessed for the first time.
    pub fresh: u64,
    /// Bytes of ours it now uses.
    pub used: u64,
}

impl Steps {
    /// Steps of a file of `size` bytes, none touched.
    pub fn new(size: u64) -> Self {
        let count = usize::try_from(size.div_ceil(STEP)).unwrap_or(0);
        Self {
            size,
            steps: vec![Step::default(); count],
            covered: 0,
        }
    }

    /// The reader accesses `range`.
    pub fn demand(&mut self, range: ByteRange, at: Moment) -> Met {
        let mut met = Met::default();
        for step in self.touched(range) {
            if step.demanded {
                continue;
            }
            step.demanded = true;
            step.demanded_at = at;
            met.fresh += 1;
            met.used += u64::from(step.ours);
            step.in_time += std::mem::take(&mut step.ours);
        }
        met
    }

    /// Whether a step was warmed, or is with a worker.
    pub fn is_warm(&self, step: u64) -> bool {
        let step = usize::try_from(step).ok().and_then(|step| self.steps.get(step));
        step.is_some_and(|step| step.asked)
    }

    /// The reader is in this step and walks: the rest of it is wanted too.
    pub fn want_rest(&mut self, step: u64) {
        if let Some(found) = self.at(step)
            && !found.asked
        {
            found.rest_wanted = true;
            self.covered = self.covered.min(usize::try_from(step).unwrap_or(usize::MAX));
        }
    }

    /// The next step from `from` on that neither the reader nor we have touched.
    pub fn next_uncovered(&mut self, from: u64) -> Option<u64> {
        let is_covered = |step: &Step| step.asked || step.demanded && !step.rest_wanted;
        while self.steps.get(self.covered).is_some_and(is_covered) {
            self.covered += 1;
        }
        let from = usize::try_from(from).ok()?.max(self.covered);
        let found = self.steps.get(from..)?.iter().position(|step| !is_covered(step))?;
        Some((from + found) as u64)
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
        let gained = u32::try_from(gained).unwrap_or(u32::MAX);
        if !step.demanded {
            // A step that lost pages and was brought in again has the others still.
            step.ours = step.ours.saturating_add(gained).min(STEP as u32);
            return u64::from(step.ours);
        }
        // A buffered read's event comes after its wait, so that a completion seen just before may have been waited for: late unless
        // it was certainly there.
        if completed <= step.demanded_at {
            step.in_time += gained;
        } else {
            step.late += gained;
        }
        0
    }

    /// A step was not done: it may be asked for again.
    pub fn withdraw(&mut self, step: u64) {
        if let Some(found) = self.at(step) {
            found.asked = false;
            found.in_flight = false;
            self.covered = self.covered.min(usize::try_from(step).unwrap_or(usize::MAX));
        }
    }

    /// The whole part is resident: nothing to do.
    pub fn cover_all(&mut self) {
        for step in &mut self.steps {
            step.asked = true;
        }
    }

    /// Pages left the cache. Returns the bytes of ours that nobody had used.
    pub fn evicted(&mut self, range: ByteRange) -> u64 {
        let (mut lost, mut reopened) = (0, usize::MAX);
        let size = self.size;
        let first = range.steps().start;
        for (index, step) in self.touched(range).iter_mut().enumerate() {
            let whole = ByteRange::of_step(first + index as u64, size);
            let overlap = range.end.min(whole.end).saturating_sub(range.start.max(whole.start));
            let gone = step.ours.min(u32::try_from(overlap).unwrap_or(u32::MAX));
            step.ours -= gone;
            step.lost += gone;
            // It may be brought in again; the window, which shrinks with what is lost, keeps that from thrashing.
            if step.asked && !step.in_flight {
                step.asked = false;
                reopened = reopened.min(index);
            }
            lost += u64::from(gone);
        }
        if reopened != usize::MAX {
            let first = usize::try_from(first).unwrap_or(usize::MAX);
            self.covered = self.covered.min(first.saturating_add(reopened));
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
}
