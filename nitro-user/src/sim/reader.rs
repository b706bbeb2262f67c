//! Readers: threads and processes that visit ranges of files in an order of their own.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use super::{Served, Stay, cache::Since, cursor::Cursor, readahead::Readahead};
use crate::{
    engine::AccessKind,
    units::{ByteRange, Moment, STEP},
};

/// A range of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Visit {
    /// Index of the part.
    pub part: usize,
    /// Its bytes; what lies past the end of the part is left out.
    pub range: ByteRange,
    /// How they are read, where that is not the reader's usual way.
    pub style: Option<Style>,
    /// It does not begin before this moment.
    pub not_before: Option<Moment>,
    /// So long after it the reader waits for something else, without a processor.
    pub pause: Duration,
}

impl Visit {
    /// One step.
    pub const fn of_step(part: usize, step: u64) -> Self {
        Self::of(part, ByteRange::new(step * STEP, STEP))
    }

    /// A range.
    pub const fn of(part: usize, range: ByteRange) -> Self {
        Self {
            part,
            range,
            style: None,
            not_before: None,
            pause: Duration::ZERO,
        }
    }
}

/// How a reader reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// `read` or `pread` of so many bytes.
    Read {
        /// Bytes of a call.
        call: u64,
    },
    /// A mapping is touched, page by page.
    Map,
    /// The same with `MADV_RANDOM`: nothing is read ahead.
    MapRandom,
    /// `FADV_SEQUENTIAL`, which doubles the readahead, and `MAP_POPULATE`.
    Populate,
    /// `O_DIRECT`, of which the page cache knows nothing.
    Direct {
        /// Bytes of a call.
        call: u64,
    },
}

impl Style {
    /// As the agent is told of it.
    pub const fn kind(self) -> AccessKind {
        match self {
            Self::Read { .. } | Self::Direct { .. } => AccessKind::Read,
            Self::Map | Self::MapRandom => AccessKind::MapTouch,
            Self::Populate => AccessKind::MapPopulate,
        }
    }
}

/// A reader.
#[derive(Clone, Debug)]
pub struct ReaderSpec {
    /// When it starts.
    pub start: Moment,
    /// `start` is so long after the end of the reader with this index, and not after the beginning.
    pub follows: Option<usize>,
    /// So long before its start the command line of its process named the model.
    pub announced: Option<Duration>,
    /// It is a thread of the reader with this index, and not a process of its own.
    pub thread_of: Option<usize>,
    /// What it visits, in order.
    pub visits: Vec<Visit>,
    /// It takes its visits from the list of the reader with this index: several work off one list.
    pub shares: Option<usize>,
    /// How it reads.
    pub style: Style,
    /// Processor time after each visit.
    pub think: Duration,
    /// Its program's name.
    pub program: String,
    /// It reads for others, not for itself: what it brings in is help.
    pub helps: bool,
    /// It copies what it reads into memory of its own, which the page cache then has not, until its process ends.
    pub copies: bool,
    /// Its process ends so long after it has read all.
    pub lives_on: Duration,
}

impl ReaderSpec {
    /// A reader that maps and touches all of files of these sizes in order.
    pub fn in_order(parts: &[u64]) -> Self {
        let visits = parts
            .iter()
            .enumerate()
            .flat_map(|(part, size)| (0..size.div_ceil(STEP)).map(move |step| Visit::of_step(part, step)))
            .collect();
        Self {
            start: Moment(0),
            follows: None,
            announced: None,
            thread_of: None,
            visits,
            shares: None,
            style: Style::Map,
            think: Duration::ZERO,
            program: "sim".into(),
            helps: false,
            copies: false,
            lives_on: Duration::ZERO,
        }
    }
}

/// What a reader is about to do.
#[derive(Clone, Copy, Debug)]
pub enum Phase {
    /// Begin its next visit.
    Next,
    /// Begin this visit, whose time has come.
    Begin,
    /// Go on in its visit.
    Visit,
    /// Work on for so long.
    Think(Duration),
    /// Wait until then.
    Pause(Moment),
    /// Nothing any more.
    Done,
}

/// A reader at work.
#[derive(Debug)]
pub struct Reader {
    /// Its process.
    pub process: u32,
    /// Its thread.
    pub thread: u32,
    /// What it is.
    pub spec: ReaderSpec,
    /// Visits to come.
    pub left: VecDeque<Visit>,
    /// What comes next.
    pub phase: Phase,
    /// The visit it is in.
    pub visit: Visit,
    /// How far it has come in that.
    pub at: u64,
    /// Where the present call ends.
    pub call_end: u64,
    /// It was told that it waits for the page where it is.
    pub is_told: bool,
    /// It has missed a page.
    pub has_missed: bool,
    /// The page that it last missed: it holds on to that, even where the page cache does not.
    pub missed: Option<u64>,
    /// First access.
    pub began: Option<Moment>,
    /// Last access done, and worked on.
    pub ended: Option<Moment>,
    /// Its visits so far.
    pub stays: Vec<Stay>,
    /// The kernel's readahead, by part: it has a descriptor for each.
    pub readahead: BTreeMap<usize, Readahead>,
    /// What the agent's programs know of it, by part.
    pub cursors: BTreeMap<usize, Cursor>,
    /// The step it is at, and since when.
    pub step: Option<(usize, u64)>,
    /// See `step`.
    pub came: Moment,
    /// How it found what it used.
    pub served: Served,
    /// Bytes of its copy.
    pub copied: u64,
    /// Its process has ended.
    pub is_gone: bool,
}

impl Reader {
    /// A reader that has not begun.
    pub fn new(index: usize, spec: &ReaderSpec) -> Self {
        let number = |index: usize| 100 + u32::try_from(index).unwrap_or(0);
        Self {
            process: number(spec.thread_of.unwrap_or(index)),
            thread: number(index),
            left: spec.visits.iter().copied().collect(),
            spec: spec.clone(),
            phase: Phase::Next,
            visit: Visit::of_step(0, 0),
            at: 0,
            call_end: 0,
            is_told: false,
            has_missed: false,
            missed: None,
            began: None,
            ended: None,
            stays: Vec::new(),
            readahead: BTreeMap::new(),
            cursors: BTreeMap::new(),
            step: None,
            came: Moment(0),
            served: Served::default(),
            copied: 0,
            is_gone: false,
        }
    }

    /// What comes after the visit that it is in.
    pub fn after_visit(&self, now: Moment) -> Phase {
        if self.spec.think.is_zero() {
            self.pause(now)
        } else {
            Phase::Think(self.spec.think)
        }
    }

    /// What comes after that and the work on it.
    pub fn pause(&self, now: Moment) -> Phase {
        if self.visit.pause.is_zero() || self.left.is_empty() {
            Phase::Next
        } else {
            Phase::Pause(now.after(self.visit.pause))
        }
    }

    /// Goes on where it is.
    pub fn come(&mut self, now: Moment) {
        let step = Some((self.visit.part, self.at / STEP));
        if self.step != step {
            (self.step, self.came) = (step, now);
        }
    }

    /// Since when it reads.
    pub fn since(&self) -> Since {
        Since {
            began: self.began.unwrap_or_default(),
            came: self.came,
        }
    }

    /// How it reads at present.
    pub fn style(&self) -> Style {
        self.visit.style.unwrap_or(self.spec.style)
    }
}
