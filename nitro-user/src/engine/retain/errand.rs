//! Going through a model from its beginning to its end for no reader: to bring it back, to lock it, because somebody asked for it, or to drop it.
//!
//! In: the outcomes of its steps. Out: the next step. It waits for nobody by itself: when steps are handed out is decided by whoever asks for the next one.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use super::kept::span;
use crate::{
    catalog::model::Model,
    engine::{
        action::{LoadId, ModelPin, Task},
        input::{OrderId, Outcome, StepEnd},
        learn::row::Run,
    },
    units::{ByteRange, FileId, Moment, STEP},
};

/// After somebody else was seen to use the device, nothing is handed out for so long.
const REST: Duration = Duration::from_millis(250);

/// What is dropped at once: it costs a moment, and a device nothing.
const DROPPED: u64 = 256 * STEP;

/// Why it is gone through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// It is used often, and the kernel took it away.
    Return,
    /// It is to be locked, under this number.
    Pin(ModelPin),
    /// Somebody is expected to load it.
    Expected,
    /// Somebody asked for it.
    Warm(OrderId),
    /// Somebody asked to drop it.
    Evict(OrderId),
    /// Nobody needs its pages: whoever read it has the data elsewhere.
    Drop,
    /// The same of what was read by somebody who still reads on.
    Behind,
}

impl Purpose {
    /// What is done with each piece.
    pub const fn task(self) -> Task {
        match self {
            Self::Return | Self::Expected | Self::Warm(_) => Task::Warm,
            Self::Pin(pin) => Task::Pin(pin),
            Self::Evict(_) | Self::Drop | Self::Behind => Task::Drop,
        }
    }

    /// Whose order it is.
    pub const fn order(self) -> Option<OrderId> {
        match self {
            Self::Warm(order) | Self::Evict(order) => Some(order),
            Self::Return | Self::Expected | Self::Pin(_) | Self::Drop | Self::Behind => None,
        }
    }
}

/// What came of the pieces so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Bytes of the pieces that are done.
    pub done: u64,
    /// Of these, bytes that are in the page cache now.
    pub there: u64,
    /// Bytes brought in, or dropped.
    pub changed: u64,
    /// Bytes locked.
    pub held: u64,
    /// Bytes of the pieces that could not be done.
    pub failed: u64,
    /// Why the last of these could not.
    pub trouble: Option<StepEnd>,
}

/// One errand.
#[derive(Debug)]
pub struct Errand {
    /// Its name among the loads.
    pub id: LoadId,
    /// Its model.
    pub model: Arc<Model>,
    /// Why.
    pub purpose: Purpose,
    /// What came of it.
    pub tally: Tally,
    /// Bytes of all its pieces.
    pub total: u64,
    /// What of its parts was not handed out, the next first.
    spans: VecDeque<(usize, ByteRange)>,
    /// Bytes that may still be handed out.
    left: u64,
    /// Pieces that came back undone.
    again: VecDeque<(usize, ByteRange)>,
    /// Bytes with a worker.
    in_flight: u64,
    rests_until: Moment,
    surveyed: Option<usize>,
    closed: bool,
}

impl Errand {
    /// Through these parts of a model, in this order, as far as `most` bytes.
    pub fn new(id: LoadId, model: Arc<Model>, parts: impl Iterator<Item = usize>, purpose: Purpose, most: u64) -> Self {
        let size = |part: usize| model.parts.get(part).map_or(0, |part| part.size);
        let spans = parts.map(|part| (part, ByteRange::new(0, size(part)))).collect();
        Self::through(id, model, spans, purpose, most)
    }

    /// Through these runs of steps, in this order.
    pub fn along(id: LoadId, model: Arc<Model>, runs: &[Run], purpose: Purpose) -> Self {
        let spans = runs.iter().filter_map(|run| span(&model, run)).collect();
        Self::through(id, model, spans, purpose, u64::MAX)
    }

    /// Through these ranges of parts, in this order, as far as `most` bytes.
    pub fn through(id: LoadId, model: Arc<Model>, spans: Vec<(usize, ByteRange)>, purpose: Purpose, most: u64) -> Self {
        let mut spans = VecDeque::from(spans);
        spans.retain(|(_, range)| !range.is_empty());
        let total = spans.iter().map(|(_, range)| range.len()).fold(0, u64::saturating_add);
        Self {
            id,
            model,
            purpose,
            tally: Tally::default(),
            total: total.min(most),
            spans,
            left: most,
            again: VecDeque::new(),
            in_flight: 0,
            rests_until: Moment(0),
            surveyed: None,
            closed: false,
        }
    }

    /// The next piece.
    fn piece(&self) -> Option<(usize, ByteRange)> {
        if let Some(piece) = self.again.front() {
            return Some(*piece);
        }
        let (part, rest) = *self.spans.front()?;
        let piece = if self.purpose.task() == Task::Drop {
            DROPPED
        } else {
            STEP
        };
        let range = ByteRange::new(rest.start, piece.min(rest.len()));
        (range.len() <= self.left).then_some((part, range))
    }

    /// The next piece, and its file, if it is time for one.
    pub fn next(&self, now: Moment) -> Option<(FileId, usize, ByteRange)> {
        if self.closed || now < self.rests_until {
            return None;
        }
        let (part, range) = self.piece()?;
        Some((self.model.parts.get(part)?.file, part, range))
    }

    /// Whether it locks what it brings in.
    pub const fn locks(&self) -> bool {
        matches!(self.purpose, Purpose::Pin(_))
    }

    /// When it wants to go on, if it rests.
    pub fn deadline(&self, now: Moment) -> Option<Moment> {
        let rests = !self.closed && self.rests_until > now && self.piece().is_some();
        rests.then_some(self.rests_until)
    }

    /// The next piece was handed out; whether its part is to be looked at as a whole first.
    pub fn submitted(&mut self) -> bool {
        let Some((part, range)) = self.piece() else {
            return false;
        };
        if self.again.pop_front().is_none() {
            self.left -= range.len();
            if let Some((_, rest)) = self.spans.front_mut() {
                rest.start = range.end;
            }
            if self.spans.front().is_some_and(|(_, rest)| rest.is_empty()) {
                self.spans.pop_front();
            }
        }
        self.in_flight += range.len();
        // What is to be locked is locked step by step, whether it is there or not.
        self.purpose.task() == Task::Warm && self.surveyed.replace(part) != Some(part)
    }

    /// A piece came back.
    pub fn outcome(&mut self, outcome: &Outcome) {
        let bytes = outcome.range.len();
        self.in_flight = self.in_flight.saturating_sub(bytes);
        match outcome.end {
            StepEnd::Done => {
                self.tally.done += bytes;
                self.tally.there += outcome.after.min(bytes);
                self.tally.changed += outcome.after.abs_diff(outcome.before);
                self.tally.held += outcome.held;
            }
            StepEnd::WholePartResident => {
                let rest = self.leave(outcome.part);
                self.tally.done += bytes + rest;
                self.tally.there += bytes + rest;
            }
            StepEnd::Cancelled | StepEnd::Yielded => {
                if !self.closed {
                    self.again.push_front((outcome.part, outcome.range));
                }
                self.tally.changed += outcome.gained();
                if outcome.end == StepEnd::Yielded {
                    self.rests_until = outcome.completed.after(REST);
                }
            }
            trouble => {
                // The part cannot be had: neither can the rest of it.
                let rest = self.leave(outcome.part);
                self.tally.done += bytes + rest;
                self.tally.failed += bytes + rest;
                self.tally.trouble = Some(trouble);
            }
        }
    }

    /// Nothing more of a part is handed out; bytes that would have been.
    fn leave(&mut self, part: usize) -> u64 {
        let of_it = self.again.iter().filter(|(other, _)| *other == part);
        let rest: u64 = of_it.map(|(_, range)| range.len()).sum();
        self.again.retain(|(other, _)| *other != part);
        let unseen = self.spans.iter().filter(|(other, _)| *other == part);
        let unseen = unseen
            .map(|(_, range)| range.len())
            .fold(0, u64::saturating_add)
            .min(self.left);
        self.left -= unseen;
        self.spans.retain(|(other, _)| *other != part);
        rest + unseen
    }

    /// Nothing more is handed out.
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// Whether nothing is left of it.
    pub fn is_over(&self) -> bool {
        self.in_flight == 0 && (self.closed || self.piece().is_none())
    }

    /// Whether something of it is with a worker.
    pub const fn is_under_way(&self) -> bool {
        self.in_flight > 0
    }

    /// Whether it was ended before it was through.
    pub const fn is_closed(&self) -> bool {
        self.closed
    }
}
