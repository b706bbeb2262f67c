//! Ranges of one file, as a set.

use super::ByteRange;

/// A set of bytes of a file: ranges in order that do not touch each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges(Vec<ByteRange>);

impl Ranges {
    /// How many pieces it is in.
    pub fn pieces(&self) -> usize {
        self.0.len()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes in it.
    pub fn bytes(&self) -> u64 {
        self.0.iter().map(|range| range.len()).sum()
    }

    /// Its pieces, in order.
    pub fn iter(&self) -> impl Iterator<Item = ByteRange> + '_ {
        self.0.iter().copied()
    }

    /// Adds a range.
    pub fn add(&mut self, new: ByteRange) {
        if new.is_empty() {
            return;
        }
        let (first, last) = self.touching(new);
        let mut whole = new;
        for touched in self.0.drain(first..last) {
            whole.start = whole.start.min(touched.start);
            whole.end = whole.end.max(touched.end);
        }
        self.0.insert(first, whole);
    }

    /// Takes a range out.
    pub fn remove(&mut self, gone: ByteRange) {
        if gone.is_empty() {
            return;
        }
        let (first, last) = self.touching(gone);
        let touched: Vec<ByteRange> = self.0.drain(first..last).collect();
        let cut = |range: ByteRange| {
            let before = ByteRange {
                end: range.end.min(gone.start),
                ..range
            };
            let behind = ByteRange {
                start: range.start.max(gone.end),
                ..range
            };
            [before, behind]
        };
        let rest = touched.into_iter().flat_map(cut).filter(|part| !part.is_empty());
        self.0.splice(first..first, rest);
    }

    /// What of `range` is in it, in order.
    pub fn within(&self, range: ByteRange) -> Vec<ByteRange> {
        let (first, last) = self.touching(range);
        let parts = self.0[first..last].iter().map(|piece| piece.common(range));
        parts.filter(|part| !part.is_empty()).collect()
    }

    /// What of `range` is not in it, in order.
    pub fn without(&self, range: ByteRange) -> Vec<ByteRange> {
        let mut free = Vec::new();
        let mut start = range.start;
        for piece in self.within(range) {
            free.push(ByteRange {
                start,
                end: piece.start,
            });
            start = piece.end;
        }
        free.push(ByteRange { start, end: range.end });
        free.retain(|part| !part.is_empty());
        free
    }

    /// Gives up the gaps: one range from the first byte to the last.
    pub fn close_up(&mut self) {
        if let (Some(first), Some(last)) = (self.0.first(), self.0.last()) {
            let whole = ByteRange {
                start: first.start,
                end: last.end,
            };
            self.0 = vec![whole];
        }
    }

    /// Indices of the pieces that overlap a range, or touch it.
    fn touching(&self, range: ByteRange) -> (usize, usize) {
        let first = self.0.partition_point(|piece| piece.end < range.start);
        let last = self.0.partition_point(|piece| piece.start <= range.end);
        (first, last.max(first))
    }
}

impl FromIterator<ByteRange> for Ranges {
    fn from_iter<T: IntoIterator<Item = ByteRange>>(ranges: T) -> Self {
        let mut all = Self::default();
        ranges.into_iter().for_each(|range| all.add(range));
        all
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(start: u64, end: u64) -> ByteRange {
        ByteRange { start, end }
    }

    #[test]
    fn pieces_that_touch_become_one() {
        let mut all: Ranges = [range(10, 15), range(30, 35), range(20, 25), range(7, 7)]
            .into_iter()
            .collect();
        assert_eq!((all.pieces(), all.bytes()), (3, 15));
        all.add(range(15, 20));
        assert_eq!(all.iter().collect::<Vec<_>>(), [range(10, 25), range(30, 35)]);
        all.remove(range(12, 31));
        assert_eq!(all.iter().collect::<Vec<_>>(), [range(10, 12), range(31, 35)]);
        all.close_up();
        assert_eq!(all.iter().collect::<Vec<_>>(), [range(10, 35)]);
        all.remove(range(0, 99));
        assert!(all.is_empty());
    }

    proptest! {
        /// Against one flag for each byte.
        #[test]
        fn it_is_what_a_set_of_bytes_is(steps in prop::collection::vec((0u64..64, 0u64..64, any::<bool>()), 0..40), asked in (0u64..64, 0u64..64)) {
            let mut all = Ranges::default();
            let mut bytes = [false; 64];
            for (start, end, adds) in steps {
                let step = range(start, end);
                if adds { all.add(step) } else { all.remove(step) }
                (start..end).for_each(|at| bytes[at as usize] = adds);
            }
            let pieces: Vec<ByteRange> = all.iter().collect();
            prop_assert!(pieces.windows(2).all(|two| two[0].end < two[1].start));
            let flags = |parts: &[ByteRange]| (0..64).map(|at| parts.iter().any(|part| part.start <= at && at < part.end)).collect::<Vec<_>>();
            prop_assert_eq!(&flags(&pieces)[..], &bytes[..]);
            let asked = range(asked.0, asked.1);
            let inside = |at: u64| asked.start <= at && at < asked.end;
            let within: Vec<bool> = (0..64).map(|at| inside(at) && bytes[at as usize]).collect();
            let without: Vec<bool> = (0..64).map(|at| inside(at) && !bytes[at as usize]).collect();
            prop_assert_eq!(flags(&all.within(asked)), within);
            prop_assert_eq!(flags(&all.without(asked)), without);
            prop_assert_eq!(all.bytes(), bytes.iter().filter(|byte| **byte).count() as u64);
        }
    }
}
