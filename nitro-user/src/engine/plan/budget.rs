//! The ceiling for all that was warmed and nobody used yet.
//!
//! Counted per step and whoever it was warmed for, since what a load leaves behind still takes room until somebody reads it or the kernel
//! takes it away.

use std::collections::{BTreeMap, BTreeSet};

use crate::units::{ByteCount, ByteRange, FileId, STEP};

/// The agent's account.
#[derive(Debug)]
pub struct Budget {
    ceiling: u64,
    in_flight: u64,
    /// The same by file, of those that have any.
    on_their_way: BTreeMap<FileId, u64>,
    /// Files that were deleted with bytes in flight: what arrives of them is gone already.
    deleted: BTreeSet<FileId>,
    unused: u64,
    /// Bytes locked, whoever uses them.
    pinned: u64,
    /// Bytes warmed and not used, by file and step.
    steps: BTreeMap<(FileId, u64), u64>,
}

impl Budget {
    /// An empty account.
    pub fn new(ceiling: ByteCount) -> Self {
        Self {
            ceiling: ceiling.0,
            in_flight: 0,
            on_their_way: BTreeMap::new(),
            deleted: BTreeSet::new(),
            unused: 0,
            pinned: 0,
            steps: BTreeMap::new(),
        }
    }

    /// Changes the ceiling; what is held above it drains by itself.
    pub fn set_ceiling(&mut self, ceiling: ByteCount) {
        self.ceiling = ceiling.0;
    }

    /// The ceiling.
    pub fn ceiling(&self) -> ByteCount {
        ByteCount(self.ceiling)
    }

    /// Bytes that count against the ceiling.
    pub fn held(&self) -> u64 {
        self.in_flight + self.unused + self.pinned
    }

    /// So many bytes are locked now.
    pub fn set_pinned(&mut self, bytes: u64) {
        self.pinned = bytes;
    }

    /// Share of the ceiling in use, 0–100.
    pub fn percent(&self) -> u8 {
        let percent = self.held().saturating_mul(100).checked_div(self.ceiling).unwrap_or(100);
        u8::try_from(percent.min(100)).unwrap_or(100)
    }

    /// Whether `bytes` more fit below the ceiling.
    pub fn admits(&self, bytes: u64) -> bool {
        self.held().saturating_add(bytes) <= self.ceiling
    }

    /// `bytes` of `file` were handed to a worker.
    pub fn submitted(&mut self, file: FileId, bytes: u64) {
        self.in_flight += bytes;
        *self.on_their_way.entry(file).or_default() += bytes;
    }

    /// A step came back with `unused` bytes brought in that nobody has asked for yet.
    pub fn arrived(&mut self, file: FileId, range: ByteRange, unused: u64) {
        self.in_flight = self.in_flight.saturating_sub(range.len());
        let is_deleted = self.deleted.contains(&file);
        let left = self
            .on_their_way
            .get(&file)
            .map_or(0, |bytes| bytes.saturating_sub(range.len()));
        if left == 0 {
            self.on_their_way.remove(&file);
            self.deleted.remove(&file);
        } else {
            self.on_their_way.insert(file, left);
        }
        if unused > 0 && !is_deleted {
            let step = self.steps.entry((file, range.start / STEP)).or_default();
            // Warmed twice, it still takes its room once.
            let grown = unused.max(*step) - *step;
            *step += grown;
            self.unused += grown;
        }
    }

    /// Bytes of a file that were warmed and not used.
    pub fn held_of(&self, file: FileId) -> u64 {
        self.steps
            .range((file, 0)..=(file, u64::MAX))
            .map(|(_, bytes)| bytes)
            .sum()
    }

    /// The same of every file that has any.
    pub fn by_file(&self) -> BTreeMap<FileId, u64> {
        let mut sums = BTreeMap::new();
        for ((file, _), bytes) in self.steps.iter().filter(|(_, bytes)| **bytes > 0) {
            *sums.entry(*file).or_default() += bytes;
        }
        sums
    }

    /// Somebody reads `range`.
    pub fn used(&mut self, file: FileId, range: ByteRange) {
        if self.unused > 0 {
            self.release(file, range.steps().start..range.steps().end);
        }
    }

    /// Pages left the cache. Returns the bytes that nobody had used.
    pub fn evicted(&mut self, file: FileId, range: ByteRange) -> u64 {
        if self.unused == 0 {
            return 0;
        }
        let mut gone = 0;
        for (&(_, step), bytes) in self
            .steps
            .range_mut((file, range.steps().start)..(file, range.steps().end))
        {
            let whole = ByteRange::new(step * STEP, STEP);
            let overlap = range.end.min(whole.end).saturating_sub(range.start.max(whole.start));
            let lost = overlap.min(*bytes);
            *bytes -= lost;
            gone += lost;
        }
        self.unused -= gone;
        gone
    }

    /// The file is deleted: its pages are gone with it, and those on their way will be.
    pub fn forget(&mut self, file: FileId) {
        self.release(file, 0..u64::MAX);
        if self.on_their_way.contains_key(&file) {
            self.deleted.insert(file);
        }
    }

    /// Nobody comes for what was warmed of a file: it is the page cache's, as if somebody had read it.
    pub fn give_up(&mut self, file: FileId) {
        self.release(file, 0..u64::MAX);
    }

    fn release(&mut self, file: FileId, steps: std::ops::Range<u64>) {
        let inside: Vec<(FileId, u64)> = self
            .steps
            .range((file, steps.start)..(file, steps.end))
            .map(|(key, _)| *key)
            .collect();
        for key in inside {
            self.unused -= self.steps.remove(&key).unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_arrives_of_a_deleted_file_is_not_held() {
        let file = FileId { device: 1, inode: 1 };
        let step = |step| ByteRange::of_step(step, u64::MAX);
        let mut budget = Budget::new(ByteCount(1 << 30));
        (0..3).for_each(|_| budget.submitted(file, STEP));
        budget.arrived(file, step(0), STEP);
        assert_eq!(budget.held(), 3 * STEP);
        budget.forget(file);
        assert_eq!(budget.held(), 2 * STEP);
        budget.arrived(file, step(1), STEP);
        budget.arrived(file, step(2), STEP);
        assert_eq!(budget.held(), 0);
        // The next file of this number is another one.
        budget.submitted(file, STEP);
        budget.arrived(file, step(0), STEP);
        assert_eq!(budget.held(), STEP);
    }
}
