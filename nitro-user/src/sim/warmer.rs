//! A worker's thread, as far as it is state: what is queued, what is on its way, and the chain of windows in each part.
//!
//! What it does is in `world::warming`; the original is `warm::{stream, chain}`.

use std::collections::{BTreeMap, VecDeque};

use super::readahead::Window;
use crate::{
    engine::{
        Outcome,
        action::{Manner, Task},
    },
    units::ByteRange,
};

/// A step to do.
#[derive(Clone, Copy, Debug)]
pub struct Command {
    /// Its part's position in the load's model.
    pub position: usize,
    /// The part.
    pub part: usize,
    /// Its bytes.
    pub range: ByteRange,
    /// How.
    pub manner: Manner,
}

/// A step whose reader is not there yet: one request after the other.
#[derive(Clone, Copy, Debug)]
pub struct Gentle {
    /// What will be told of it.
    pub outcome: Outcome,
    /// What is to be done with it.
    pub task: Task,
    /// Where the next request begins.
    pub start: u64,
    /// The request under way: its end, and what it brings in.
    pub asked: Option<(u64, u64)>,
}

/// The thread of one load.
#[derive(Debug, Default)]
pub struct Stream {
    /// Steps to do.
    pub queue: VecDeque<Command>,
    /// Steps that were submitted, the oldest first.
    pub pending: VecDeque<(Outcome, Task)>,
    /// The step that is done gently.
    pub gentle: Option<Gentle>,
    /// It is to be given up.
    pub is_cancelled: bool,
    /// The thread is at work, or waits for the device; it looks at its queue when that is over.
    pub is_busy: bool,
    /// The parts that it has opened.
    pub parts: BTreeMap<usize, Chain>,
}

/// A window of the chain: its mark, the order of its folios, and where it ends.
#[derive(Clone, Copy, Debug)]
struct Link {
    mark: u64,
    order: u32,
    end: u64,
}

/// Places of a part at which windows end; and what they brought in beyond the step that asked for them.
#[derive(Debug, Default)]
pub struct Chain {
    windows: VecDeque<Link>,
    beyond: VecDeque<(ByteRange, u64)>,
}

/// As many as the agent keeps in mind.
const MOST_WINDOWS: usize = 64;

impl Chain {
    /// The window of `pages` pages that begins at `from`, and the mark of the window before, which is used up by it.
    pub fn extend(&mut self, from: u64, pages: u64) -> (Window, Option<u64>) {
        let found = self.windows.iter().position(|link| link.end == from);
        let before = found.and_then(|found| self.windows.remove(found));
        let window = Window {
            start: from,
            size: pages,
            // The first window's mark is in its middle.
            mark: Some(if before.is_some() { from } else { from + pages / 2 }),
            // The kernel's folios become four times as large from window to window.
            order: before.map_or(0, |link| (link.order + 2).min(pages.ilog2())),
        };
        (window, before.map(|link| link.mark))
    }

    /// A window was brought in, up to `end`.
    pub fn remember(&mut self, window: Window, end: u64) {
        if self.windows.len() == MOST_WINDOWS {
            self.windows.pop_front();
        }
        self.windows.push_back(Link {
            mark: window.mark.unwrap_or(window.start),
            order: window.order,
            end,
        });
    }

    /// Bytes were brought in beyond a step, within `place`.
    pub fn note_beyond(&mut self, place: ByteRange, bytes: u64) {
        if bytes > 0 {
            self.beyond.push_back((place, bytes));
        }
    }

    /// Bytes brought in beyond a step that ended at `end`.
    pub fn beyond(&self, end: u64) -> u64 {
        let places = self.beyond.iter().filter(|(place, _)| place.start == end);
        places.map(|(_, bytes)| bytes).sum()
    }

    /// Bytes of `range` that an earlier step brought in beyond itself; each is told once.
    pub fn brought_before(&mut self, range: ByteRange) -> u64 {
        let mut claimed = 0;
        for (place, bytes) in &mut self.beyond {
            let overlap = place.end.min(range.end).saturating_sub(place.start.max(range.start));
            let ours = overlap.min(*bytes);
            *bytes -= ours;
            claimed += ours;
            if overlap > 0 {
                place.start = place.end.min(range.end);
            }
        }
        self.beyond.retain(|(place, bytes)| !place.is_empty() && *bytes > 0);
        claimed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_goes_on_where_the_last_one_ended() {
        let mut chain = Chain::default();
        let (first, before) = chain.extend(0, 320);
        assert_eq!((first.mark, first.order, before), (Some(160), 0, None));
        chain.remember(first, 320);
        let (next, before) = chain.extend(320, 320);
        assert_eq!(
            (next.start, next.mark, next.order, before),
            (320, Some(320), 2, Some(160))
        );
        assert_eq!(chain.extend(5000, 320).1, None);
    }

    #[test]
    fn what_lies_beyond_a_step_is_claimed_once() {
        let mut chain = Chain::default();
        chain.note_beyond(ByteRange::new(100, 50), 50);
        assert_eq!(chain.beyond(100), 50);
        assert_eq!(chain.brought_before(ByteRange::new(100, 20)), 20);
        assert_eq!(chain.brought_before(ByteRange::new(100, 100)), 30);
        assert_eq!(chain.brought_before(ByteRange::new(100, 100)), 0);
    }
}
