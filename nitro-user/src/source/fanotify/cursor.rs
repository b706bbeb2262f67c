//! Where one reader is in one file, as far as looking at it from time to time tells, and the events that follows.
//!
//! In: what was seen. Out: pieces of at most a step, each with the flags of its event. Pure.

use nitro_common::flags;

use crate::units::{ByteRange, STEP};

/// So many bytes in order since the last jump stand for the eight accesses in order that the eBPF programs count: eight windows of the kernel's readahead.
const WALKS: u64 = 1 << 20;

/// Of what was read after a jump, so much is taken to lie before where it is by now: it may have been elsewhere in between.
const READAHEAD: u64 = 128 << 10;

/// A reader's place in a file.
#[derive(Clone, Debug, Default)]
pub struct Cursor {
    /// First byte of the last access.
    start: u64,
    /// Byte behind it.
    at: u64,
    /// Bytes in order since the last jump.
    run: u64,
}

/// One event to be told.
pub type Piece = (ByteRange, u16);

impl Cursor {
    /// Byte behind the last access.
    pub const fn at(&self) -> u64 {
        self.at
    }

    /// The reader has accessed `range`, which goes on where it was when it begins no more than `gap` behind; tells of it step by step.
    pub fn accessed(&mut self, range: ByteRange, gap: u64, mut tell: impl FnMut(Piece)) {
        let onwards = (self.start..=self.at.saturating_add(gap)).contains(&range.start);
        let mut jump = if onwards { 0 } else { flags::JUMP };
        if !onwards {
            self.run = 0;
        }
        let mut start = range.start;
        while start < range.end {
            let end = range.end.min((start / STEP + 1) * STEP);
            self.run += end - start;
            let in_order = if self.run >= WALKS { flags::IN_ORDER } else { 0 };
            tell((ByteRange { start, end }, std::mem::take(&mut jump) | in_order));
            start = end;
        }
        (self.start, self.at) = (range.start, range.end);
    }

    /// The position of a descriptor is `to` by now, and its process has read `read` bytes of whatever meanwhile, where that is known. What of the file it has
    /// read, then: `read` moves the position, `lseek` does as well.
    pub fn moved(&mut self, to: u64, read: Option<u64>) -> Option<ByteRange> {
        let from = self.at;
        if to == from {
            return None;
        }
        if to > from && read.is_none_or(|read| read >= to - from) {
            return Some(ByteRange { start: from, end: to });
        }
        match read.unwrap_or(0).min(to).min(READAHEAD) {
            0 => {
                (self.start, self.at, self.run) = (to, to, 0);
                None
            }
            bytes => Some(ByteRange {
                start: to - bytes,
                end: to,
            }),
        }
    }

    /// A call that began at `offset` was seen, and since the call seen before the reader has read `read` bytes. What of the file it has read since: all between,
    /// if it was that much.
    pub fn called(&self, offset: u64, bytes: u64, read: u64) -> ByteRange {
        let end = offset + bytes.clamp(1, STEP);
        let between = offset.saturating_sub(self.at);
        // What it reads elsewhere counts too, and what it waits for does not yet: a little less is enough.
        let start = if between > 0 && read >= between - between / 4 {
            self.at
        } else {
            offset
        };
        ByteRange { start, end }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn told(cursor: &mut Cursor, start: u64, end: u64) -> Vec<(u64, u64, u16)> {
        let mut pieces = Vec::new();
        cursor.accessed(ByteRange { start, end }, 0, |(range, flags)| {
            pieces.push((range.start, range.end, flags));
        });
        pieces
    }

    #[test]
    fn a_walk_is_told_step_by_step() {
        let mut cursor = Cursor::default();
        assert_eq!(told(&mut cursor, 0, MIB / 2), [(0, MIB / 2, 0)]);
        let onwards = told(&mut cursor, MIB / 2, 5 * MIB);
        let expected = [(MIB / 2, 2 * MIB), (2 * MIB, 4 * MIB), (4 * MIB, 5 * MIB)];
        assert_eq!(onwards, expected.map(|(start, end)| (start, end, flags::IN_ORDER)));
        let jump = told(&mut cursor, 9 * MIB, 9 * MIB + 4096);
        assert_eq!(jump, [(9 * MIB, 9 * MIB + 4096, flags::JUMP)]);
    }

    #[test]
    fn a_position_that_was_only_sought_is_no_access() {
        let mut cursor = Cursor::default();
        assert_eq!(cursor.moved(100 * MIB, Some(0)), None);
        assert_eq!(cursor.at(), 100 * MIB);
        let read = cursor.moved(101 * MIB, Some(MIB)).unwrap();
        assert_eq!((read.start, read.end), (100 * MIB, 101 * MIB));
        cursor.accessed(read, 0, |_| ());
        // Sought and then read.
        let read = cursor.moved(51 * MIB, Some(MIB)).unwrap();
        assert_eq!((read.start, read.end), (51 * MIB - READAHEAD, 51 * MIB));
        // Where /proc does not tell how much was read, onwards is read.
        assert_eq!(
            Cursor::default().moved(MIB, None),
            Some(ByteRange { start: 0, end: MIB })
        );
    }

    #[test]
    fn between_two_calls_all_was_read_if_it_was_as_much() {
        let mut cursor = Cursor::default();
        cursor.accessed(cursor.called(0, MIB, 0), 0, |_| ());
        assert_eq!(cursor.called(40 * MIB, MIB, 39 * MIB).start, MIB);
        assert_eq!(cursor.called(40 * MIB, MIB, 3 * MIB).start, 40 * MIB);
        assert_eq!(cursor.called(0, MIB, 3 * MIB).start, 0);
    }
}
