//! A mapping of a watched file: which steps of it the process has touched, by its own page tables.
//!
//! In: which pages are in its page tables. Out: the steps that were touched since the last look. Who brought the pages in makes no difference, so that what was warmed is seen
//! as well as what was not.

use super::{cursor::Cursor, proc::Mapping};
use crate::{
    sys::page_size,
    units::{ByteRange, STEP},
};

/// Steps ahead of the last touched one that each look goes through: in 5 ms a reader of 12 GB/s touches as many.
const AHEAD: usize = 32;

/// Steps elsewhere that each look goes through, in turn: who jumps is found sooner or later.
const ELSEWHERE: usize = 32;

/// Steps of one mapping that are followed, 8 TiB: a mapping may be larger than its file.
const MOST_STEPS: usize = 4 << 20;

/// One mapping.
#[derive(Debug)]
pub struct Mapped {
    /// What is mapped where.
    pub mapping: Mapping,
    /// Tells its touches from others'.
    pub thread: u32,
    /// Where its process is in it.
    pub cursor: Cursor,
    /// By step: touched.
    touched: Vec<bool>,
    /// Steps that are not touched yet.
    left: usize,
    /// Where the look elsewhere goes on.
    elsewhere: usize,
}

impl Mapped {
    /// A mapping that was just found, of which nothing is known.
    pub fn new(mapping: Mapping, thread: u32) -> Self {
        let steps = range_of(&mapping).steps();
        let count = usize::try_from(steps.end - steps.start)
            .unwrap_or(MOST_STEPS)
            .min(MOST_STEPS);
        Self {
            mapping,
            thread,
            cursor: Cursor::default(),
            touched: vec![false; count],
            left: count,
            elsewhere: 0,
        }
    }

    /// The bytes of the file that are mapped.
    pub fn range(&self) -> ByteRange {
        range_of(&self.mapping)
    }

    /// The steps that were touched since the last look, as far as they are by now: those ahead of the last one first. `present` says of so many pages from an
    /// address on whether they are mapped; of fewer where the process's memory ends.
    pub fn look(&mut self, present: &impl Fn(u64, usize) -> Vec<bool>) -> Vec<ByteRange> {
        let count = self.touched.len();
        if self.left == 0 {
            return Vec::new();
        }
        let here = (self.cursor.at() / STEP).saturating_sub(self.first());
        let here = usize::try_from(here).unwrap_or(count).min(count);
        let mut found = self.look_at(present, here, here + AHEAD);
        let elsewhere = if self.elsewhere < count { self.elsewhere } else { 0 };
        found.extend(self.look_at(present, elsewhere, elsewhere + ELSEWHERE));
        self.elsewhere = elsewhere + ELSEWHERE;
        found
    }

    fn first(&self) -> u64 {
        self.range().steps().start
    }

    fn look_at(&mut self, present: &impl Fn(u64, usize) -> Vec<bool>, from: usize, until: usize) -> Vec<ByteRange> {
        let (page, whole, first) = (page_size(), self.range(), self.first());
        // What is touched already need not be looked at, at the ends.
        let until = until.min(self.touched.len());
        let Some(from) = (from..until).find(|step| !self.touched[*step]) else {
            return Vec::new();
        };
        let step_of = |index: usize| ByteRange {
            start: ((first + index as u64) * STEP).max(whole.start),
            end: ((first + index as u64 + 1) * STEP).min(whole.end),
        };
        let start = step_of(from).start;
        let bytes = step_of(until - 1).end - start;
        let address = self.mapping.start + (start - whole.start);
        let pages = present(address, usize::try_from(bytes.div_ceil(page)).unwrap_or(0));
        let mut found = Vec::new();
        for index in from..until {
            if self.touched[index] {
                continue;
            }
            let step = step_of(index);
            let at = |byte: u64| usize::try_from((byte - start).div_ceil(page)).unwrap_or(usize::MAX);
            let here = pages.get(at(step.start).min(pages.len())..at(step.end).min(pages.len()));
            let here = here.unwrap_or_default();
            let (Some(low), Some(high)) = (here.iter().position(|page| *page), here.iter().rposition(|page| *page))
            else {
                continue;
            };
            self.touched[index] = true;
            self.left -= 1;
            found.push(ByteRange {
                start: step.start + low as u64 * page,
                end: (step.start + (high as u64 + 1) * page).min(step.end),
            });
        }
        found
    }
}

fn range_of(mapping: &Mapping) -> ByteRange {
    ByteRange::new(mapping.offset, mapping.end - mapping.start)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::FileId;

    #[test]
    fn touched_steps_are_found_once_and_the_others_not() {
        let page = page_size();
        let (offset, size) = (3 * page, 400 * STEP);
        let mapping = Mapping {
            start: 1 << 40,
            end: (1 << 40) + size,
            offset,
            file: FileId { device: 1, inode: 1 },
        };
        let mut mapped = Mapped::new(mapping, 1);
        let touch = |mapped: &mut Mapped, bytes: &[u64]| {
            let pages: Vec<u64> = bytes
                .iter()
                .map(|byte| ((1 << 40) + byte - offset) / page * page)
                .collect();
            let present = |start: u64, count: usize| {
                let addresses = (0..count as u64).map(|index| start + index * page);
                addresses.map(|address| pages.contains(&address)).collect()
            };
            let found: Vec<(u64, u64)> = mapped
                .look(&present)
                .iter()
                .map(|range| (range.start, range.end))
                .collect();
            found
        };
        assert_eq!(touch(&mut mapped, &[]), []);
        let begin = (offset, offset + page);
        assert_eq!(
            touch(&mut mapped, &[offset, 3 * STEP, 3 * STEP + page]),
            [begin, (3 * STEP, 3 * STEP + 2 * page)]
        );
        assert_eq!(touch(&mut mapped, &[offset, 3 * STEP]), []);
        // Far from where it was: found in turn.
        let far: Vec<_> = (0..12).flat_map(|_| touch(&mut mapped, &[300 * STEP])).collect();
        assert_eq!(far, [(300 * STEP, 300 * STEP + page)]);
    }

    #[test]
    fn a_mapping_of_nothing_costs_nothing() {
        let file = FileId { device: 1, inode: 1 };
        let (start, end) = (4096, 1 << 62);
        let mapped = Mapped::new(
            Mapping {
                start,
                end,
                offset: 0,
                file,
            },
            1,
        );
        assert_eq!(mapped.touched.len(), MOST_STEPS);
    }
}
