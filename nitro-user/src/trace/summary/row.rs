//! One process in one file.

use std::collections::{HashMap, HashSet};

use serde::Serialize;

use super::order::{Moves, Order, Trail, step_of};
use crate::{
    engine::input::{Access, AccessKind},
    trace::{names::Names, record::CallKind},
    units::{ByteCount, ByteRange, FileId, Moment, STEP},
};

/// Distances that are kept of a row to tell their middle; of more, every second, fourth … one.
const MOST_DISTANCES: usize = 4096;

/// One process in one file.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The process.
    pub process: u32,
    /// Its program.
    pub program: Option<String>,
    /// The file's path, or its numbers.
    pub file: String,
    /// Its size, where it is known.
    pub size: Option<ByteCount>,
    /// Threads that read it.
    pub threads: u64,
    /// Seconds from the beginning of the trace to the first access.
    pub began: f64,
    /// Seconds from the first access to the last.
    pub seconds: f64,
    /// Bytes that were accessed; repeated ones count again.
    pub bytes: ByteCount,
    /// Calls that read; with `exact_calls`, as they were recorded, else as far as the kernel counted accesses.
    pub calls: u64,
    /// Every call was recorded by itself.
    pub exact_calls: bool,
    /// Faults and touches of mappings.
    pub faults: u64,
    /// Bytes that the process waited for; `None` where nobody counted.
    pub missed: Option<ByteCount>,
    /// Bytes that it brought in, the kernel's readahead for it included.
    pub brought: ByteCount,
    /// Share of what was brought in that was accessed then; `None` where nothing was.
    pub readahead_used: Option<f64>,
    /// In which order.
    pub order: Order,
    /// Accesses to places that had been accessed before.
    pub reused: Option<Reused>,
    /// Seconds from the first sign of it (its command line, its open, its first page) to the first byte.
    pub first_byte: Option<f64>,
    /// It went past the page cache.
    pub direct: bool,
    /// Figures are concluded from events: nobody took the kernel's counts.
    pub estimated: bool,
}

/// How far accesses lie from the ones before to the same place, in bytes accessed in between.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Reused {
    /// Steps of 2 MiB that were accessed again.
    pub steps: u64,
    /// Half of the distances are no longer.
    pub median: ByteCount,
    /// Nine of ten are no longer.
    pub p90: ByteCount,
}

impl Row {
    /// Whether there is anything to say.
    pub const fn is_worth(&self) -> bool {
        self.bytes.0 > 0 || self.calls > 0 || self.faults > 0 || self.direct
    }
}

/// What is known of one process in one file while records come.
#[derive(Debug)]
pub(super) struct Work {
    began: Moment,
    first_access: Option<Moment>,
    last_access: Moment,
    first_sign: Moment,
    trails: HashMap<u32, Trail>,
    moves: Moves,
    call_trails: HashMap<u32, Trail>,
    call_moves: Moves,
    reads: u64,
    touches: u64,
    calls: u64,
    call_bytes: u64,
    /// Bytes of the events' steps: what was accessed, where nobody counted.
    seen_bytes: u64,
    counts: Option<[u64; 4]>,
    brought: u64,
    /// Steps that were accessed.
    touched: HashSet<u64>,
    /// Bytes brought in by step, until the step is accessed.
    waiting: HashMap<u64, u64>,
    used: u64,
    distances: Vec<u64>,
    every: u64,
    reuses: u64,
    pub(super) direct: bool,
}

impl Work {
    pub(super) fn begun(at: Moment) -> Self {
        Self {
            began: at,
            first_access: None,
            last_access: at,
            first_sign: at,
            trails: HashMap::new(),
            moves: Moves::default(),
            call_trails: HashMap::new(),
            call_moves: Moves::default(),
            reads: 0,
            touches: 0,
            calls: 0,
            call_bytes: 0,
            seen_bytes: 0,
            counts: None,
            brought: 0,
            touched: HashSet::new(),
            waiting: HashMap::new(),
            used: 0,
            distances: Vec::new(),
            every: 1,
            reuses: 0,
            direct: false,
        }
    }

    /// An access; the step that it is the first in, or again in.
    pub(super) fn access(&mut self, access: &Access) -> Option<u64> {
        match access.kind {
            AccessKind::Read => self.reads += 1,
            AccessKind::MapTouch | AccessKind::MapPopulate => self.touches += 1,
            AccessKind::Map | AccessKind::Open | AccessKind::Brought => return None,
        }
        self.first_access.get_or_insert(access.at);
        self.last_access = self.last_access.max(access.at);
        let step = step_of(access.range);
        self.touched.insert(step);
        self.used += self.waiting.remove(&step).unwrap_or(0);
        // Told since it walks, and told before.
        if access.in_order && !access.jump {
            return None;
        }
        self.seen_bytes += STEP.max(access.range.len());
        match self.trails.get_mut(&access.thread) {
            Some(trail) => trail.go(access.range, Some(access.jump), &mut self.moves),
            None => {
                self.trails.insert(access.thread, Trail::at(access.range));
            }
        }
        Some(step)
    }

    pub(super) fn brought(&mut self, range: ByteRange) {
        self.brought += range.len();
        for step in range.steps() {
            let inside = ByteRange {
                start: range.start.max(step * STEP),
                end: range.end.min((step + 1).saturating_mul(STEP)),
            };
            if self.touched.contains(&step) {
                self.used += inside.len();
            } else {
                *self.waiting.entry(step).or_default() += inside.len();
            }
        }
    }

    pub(super) fn call(&mut self, at: Moment, thread: u32, kind: CallKind, range: ByteRange) {
        if kind != CallKind::Read {
            return;
        }
        self.calls += 1;
        self.call_bytes += range.len();
        self.last_access = self.last_access.max(at);
        match self.call_trails.get_mut(&thread) {
            Some(trail) => trail.go(range, None, &mut self.call_moves),
            None => {
                self.call_trails.insert(thread, Trail::at(range));
            }
        }
    }

    pub(super) fn count(&mut self, counts: [u64; 4]) {
        let sums = self.counts.get_or_insert_default();
        sums.iter_mut()
            .zip(counts)
            .for_each(|(sum, count)| *sum = sum.saturating_add(count));
    }

    pub(super) fn reused(&mut self, distance: u64) {
        self.reuses += 1;
        if self.reuses.is_multiple_of(self.every) {
            self.distances.push(distance);
        }
        if self.distances.len() >= MOST_DISTANCES {
            let mut keep = false;
            self.distances.retain(|_| {
                keep = !keep;
                keep
            });
            self.every *= 2;
        }
    }

    pub(super) fn row(
        mut self,
        process: u32,
        file: FileId,
        names: &Names,
        named: Option<Moment>,
        began: Moment,
    ) -> Row {
        let events = self.reads + self.touches;
        let counted = self.counts.filter(|counts| counts[0] > 0);
        let accesses = counted.map_or(events, |counts| counts[0]);
        // The kernel counts both kinds together: the events say how they are mixed.
        let faults = if events == 0 {
            0
        } else {
            (accesses as f64 * self.touches as f64 / events as f64).round() as u64
        };
        let exact = self.calls > 0;
        let size = names.file(file).map(|known| known.size);
        let seen = size.map_or(self.seen_bytes, |size| {
            self.seen_bytes.min(size.max(1).saturating_mul(1 + self.reuses))
        });
        let bytes = match counted {
            Some(counts) => counts[1],
            None if exact && self.touches == 0 => self.call_bytes,
            None => seen,
        };
        let brought = self.counts.map_or(self.brought, |counts| counts[2].max(self.brought));
        let used = self.used.min(bytes);
        let first_sign = named.map_or(self.first_sign, |named| named.min(self.first_sign));
        self.distances.sort_unstable();
        let at = |share: f64| {
            let index = (self.distances.len() as f64 * share) as usize;
            ByteCount(
                self.distances
                    .get(index.min(self.distances.len().saturating_sub(1)))
                    .copied()
                    .unwrap_or(0),
            )
        };
        Row {
            process,
            program: names.program(process).map(str::to_owned),
            file: names.path(file),
            size: size.map(ByteCount),
            threads: self.trails.len().max(self.call_trails.len()) as u64,
            began: self.began.since(began).as_secs_f64(),
            seconds: self
                .last_access
                .since(self.first_access.unwrap_or(self.began))
                .as_secs_f64(),
            bytes: ByteCount(bytes),
            calls: if exact {
                self.calls
            } else {
                accesses.saturating_sub(faults)
            },
            exact_calls: exact,
            faults,
            missed: self.counts.map(|counts| ByteCount(counts[3])),
            brought: ByteCount(brought),
            readahead_used: (self.brought > 0).then(|| (used as f64 / self.brought as f64).min(1.0)),
            order: if exact && self.touches == 0 {
                self.call_moves.order(None)
            } else {
                self.moves.order(counted.map(|counts| counts[0]))
            },
            reused: (self.reuses > 0).then(|| Reused {
                steps: self.reuses,
                median: at(0.5),
                p90: at(0.9),
            }),
            first_byte: self.first_access.map(|first| first.since(first_sign).as_secs_f64()),
            direct: self.direct,
            estimated: counted.is_none() && !exact,
        }
    }
}
