//! A reader of a mapping in the syscalls mode: it makes no system calls, and the page cache tells of it only when it brings pages in itself.
//!
//! What was warmed for it, it goes through without a sign, until it comes to the first page that was not. Its position is known then, and what
//! lies between where it was seen before and there, it has used. What it uses after its last sign nobody sees: that counts as wasted.

use super::Load;
use crate::{
    engine::input::{Access, AccessKind},
    units::{ByteRange, STEP},
};

impl Load {
    /// The accesses that an event stands for: itself, as a rule.
    pub fn signs(&self, part: usize, access: &Access) -> Vec<Access> {
        if access.kind != AccessKind::Brought {
            return vec![*access];
        }
        if !self.readers.maps(access.process) {
            // A buffered reader's own calls say more, and earlier.
            return Vec::new();
        }
        let here = access.range.start / STEP;
        let group = self.groups.of_thread(access.thread);
        let at = group.map_or(0, |group| group.walk.step());
        let known = group.is_some_and(|group| group.walk.part() == part) && self.kinds.any_touch();
        let passed = known && here > at + 1 && self.is_warm(part, at + 1..here);
        let onwards = passed || known && (at..=at + 1).contains(&here);
        let touch = Access {
            kind: AccessKind::MapTouch,
            jump: !onwards && known,
            in_order: onwards,
            ..*access
        };
        let mut signs = Vec::with_capacity(2);
        if passed {
            signs.push(Access {
                range: ByteRange {
                    start: (at + 1) * STEP,
                    end: here * STEP,
                },
                ..touch
            });
        }
        signs.push(touch);
        signs
    }

    /// Whether all of these steps were warmed, or are being warmed.
    fn is_warm(&self, part: usize, mut steps: std::ops::Range<u64>) -> bool {
        let known = self.parts.get(part).and_then(Option::as_ref);
        known.is_some_and(|known| steps.all(|step| known.is_warm(step)))
    }
}
