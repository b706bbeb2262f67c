//! What the agent's programs in the kernel make of one thread's accesses to one file: one event for each step, or jump, or eighth access in order, and counters.
//!
//! The same rules as in `nitro-ebpf/src/cursor.rs`, page-cache mode.

use nitro_common::settings::{GAP_BYTES, IN_ORDER_CALLS, MAP_GAP_BYTES};

use crate::units::{ByteRange, STEP};

/// Where an access was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// A read, after its wait.
    Read,
    /// A fault, before its wait.
    Fault,
    /// Pages that were there were mapped.
    Mapped,
}

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// It does not continue the access before.
    pub jump: bool,
    /// The eighth in order.
    pub in_order: bool,
}

/// A thread's cursor in a file.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cursor {
    /// Accesses.
    pub calls: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// Bytes that the thread brought in.
    pub added: u64,
    /// Of these, bytes that it waited for.
    pub missed: u64,
    last: ByteRange,
    step: Option<u64>,
    in_order: u32,
    /// Added since the last access.
    fresh: ByteRange,
    before_wait: bool,
}

fn overlap(one: ByteRange, other: ByteRange) -> u64 {
    one.end.min(other.end).saturating_sub(one.start.max(other.start))
}

impl Cursor {
    /// An access; what is told of it, if anything is.
    pub fn access(&mut self, hook: Hook, range: ByteRange) -> Option<Seen> {
        // A read passes its hook once for every batch of pages, a fault that waited is tried again.
        let continues = range.end == self.last.end
            && match hook {
                Hook::Read => range.start > self.last.start && range.start < self.last.end,
                Hook::Fault => range.start == self.last.start && self.before_wait,
                Hook::Mapped => false,
            };
        if hook == Hook::Read {
            self.missed += overlap(self.fresh, range);
        }
        self.fresh = ByteRange::default();
        self.before_wait = hook == Hook::Fault;
        let (last, is_map) = (self.last, hook != Hook::Read);
        let gap = if is_map { MAP_GAP_BYTES } else { GAP_BYTES };
        let forward = range.start >= last.start && range.start <= last.end + gap;
        let encloses = hook == Hook::Mapped && range.start < last.start && range.end >= last.end;
        let goes_on = continues || forward || encloses;
        if !continues {
            self.calls += 1;
            self.bytes += range.len();
            if goes_on && is_map && self.calls > 1 {
                self.bytes += range.start.saturating_sub(last.end);
            }
            if goes_on {
                self.in_order += 1;
            }
        }
        if !goes_on {
            self.in_order = 0;
        }
        self.last = range;
        let step = range.start / STEP;
        let eighth = self.in_order == IN_ORDER_CALLS;
        if eighth {
            self.in_order += 1;
        }
        (self.step.replace(step) != Some(step) || eighth).then_some(Seen {
            jump: !goes_on,
            in_order: eighth,
        })
    }

    /// The thread brought pages in.
    pub fn add(&mut self, range: ByteRange) {
        self.added += range.len();
        if self.before_wait {
            self.missed += overlap(range, self.last);
        }
        self.fresh = if self.fresh.end == range.start {
            ByteRange {
                start: self.fresh.start,
                end: range.end,
            }
        } else {
            range
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_event_for_each_step_and_one_for_the_eighth_in_order() {
        let mut cursor = Cursor::default();
        let seen: Vec<u64> = (0..64)
            .filter(|piece| {
                cursor
                    .access(Hook::Mapped, ByteRange::new(piece << 16, 1 << 16))
                    .is_some()
            })
            .collect();
        assert_eq!(seen, [0, 7, 32]);
        assert_eq!((cursor.calls, cursor.bytes), (64, 4 << 20));
    }

    #[test]
    fn a_jump_is_told_with_its_step() {
        let mut cursor = Cursor::default();
        cursor.access(Hook::Read, ByteRange::new(0, 4096));
        let seen = cursor.access(Hook::Read, ByteRange::new(64 << 20, 4096));
        assert_eq!(
            seen,
            Some(Seen {
                jump: true,
                in_order: false
            })
        );
    }

    #[test]
    fn what_a_fault_brings_in_for_its_page_was_missed() {
        let mut cursor = Cursor::default();
        cursor.access(Hook::Fault, ByteRange::new(8192, 4096));
        cursor.add(ByteRange::new(0, 128 << 10));
        cursor.access(Hook::Mapped, ByteRange::new(0, 64 << 10));
        assert_eq!((cursor.added, cursor.missed), (128 << 10, 4096));
    }

    #[test]
    fn what_a_read_waited_for_is_what_was_added_before_it() {
        let mut cursor = Cursor::default();
        cursor.add(ByteRange::new(0, 1 << 20));
        cursor.access(Hook::Read, ByteRange::new(0, 128 << 10));
        assert_eq!((cursor.added, cursor.missed), (1 << 20, 128 << 10));
    }
}
