//! Readers: a process that visits steps in an order of its own.

use std::{collections::VecDeque, time::Duration};

use super::cache::Place;
use crate::{
    engine::AccessKind,
    units::{Moment, STEP},
};

/// A reader.
#[derive(Clone, Debug)]
pub struct ReaderSpec {
    /// When it starts.
    pub start: Moment,
    /// Part and step, in the order of its visits.
    pub visits: Vec<Place>,
    /// It takes its visits from the list of the reader with this index: several work off one list.
    pub shares: Option<usize>,
    /// How it reads.
    pub kind: AccessKind,
    /// Bytes the kernel reads at a time for it.
    pub request: u64,
    /// Work after each visit.
    pub think: Duration,
}

impl ReaderSpec {
    /// A reader that maps and touches all of `parts` in order, with the kernel's readahead of 128 KiB.
    pub fn in_order(parts: &[u64]) -> Self {
        let visits = parts
            .iter()
            .enumerate()
            .flat_map(|(part, size)| (0..size.div_ceil(STEP)).map(move |step| (part, step)))
            .collect();
        Self {
            start: Moment(0),
            visits,
            shares: None,
            kind: AccessKind::MapTouch,
            request: 128 << 10,
            think: Duration::ZERO,
        }
    }
}

/// A reader at work.
#[derive(Debug)]
pub struct Reader {
    /// Its process id.
    pub process: u32,
    /// What it is.
    pub spec: ReaderSpec,
    /// Visits to come.
    pub left: VecDeque<Place>,
    /// The visit before.
    pub last: Option<Place>,
    /// The visit it is in, and how many bytes of that it has.
    pub visit: Option<(Place, u64)>,
    /// Pieces read since the last jump.
    pub pieces: u32,
    /// First access.
    pub began: Option<Moment>,
    /// Last access done.
    pub ended: Option<Moment>,
    /// Bytes it brought in itself, by part.
    pub added: Vec<u64>,
    /// Bytes it accessed, by part.
    pub bytes: Vec<u64>,
}

impl Reader {
    /// A reader that has not begun.
    pub fn new(process: u32, spec: &ReaderSpec, parts: usize) -> Self {
        Self {
            process,
            left: spec.visits.iter().copied().collect(),
            spec: spec.clone(),
            last: None,
            visit: None,
            pieces: 0,
            began: None,
            ended: None,
            added: vec![0; parts],
            bytes: vec![0; parts],
        }
    }
}
