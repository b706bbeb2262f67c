//! What was read in a trace: by whom, in which order, and when.

mod finish;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use super::speed::Speed;
use crate::{
    engine::{
        AccessKind, Input,
        input::{Access, Outcome},
    },
    sim::{Files, Style},
    trace::{CallKind, Header, Record, names::Names},
    units::{ByteCount, ByteRange, FileId, Moment, Rate, STEP},
};

/// Places that are visited in a replay: every one of a sequential load is a step.
const MOST_VISITS: usize = 1 << 19;

/// Bytes that all visits of a replay come to.
const MOST_READ: u64 = 1 << 42;

/// Threads of a replay.
const MOST_THREADS: usize = 4096;

/// Bytes of the files of a replay, whose every page is simulated.
const MOST_BYTES: u64 = 1 << 40;

/// An event tells of fewer bytes than this; what says otherwise is not one of ours.
const MOST_AT_ONCE: u64 = 4 << 30;

/// While nobody did anything for longer, nothing happens in a replay either.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// A mapping whose bytes were nearly all waited for had no readahead.
const RANDOM: (u64, u64) = (9, 10);

/// Why a trace cannot be replayed among other things than it was recorded with.
#[derive(Debug, thiserror::Error)]
pub enum DemandError {
    /// Nobody reads in it.
    #[error("nobody reads a file in it: record while something is loaded")]
    Nothing,
    /// It holds too many accesses.
    #[error("it holds more than {MOST_VISITS} accesses, or more than {read} were read: record one program alone, or for a shorter time", read = ByteCount(MOST_READ))]
    Long,
    /// Too many threads read.
    #[error("more than {MOST_THREADS} threads read in it: record one program alone, or for a shorter time")]
    Threads,
    /// Its files are too large.
    #[error("its files hold {0}, and a replay takes up to {max}: record fewer models at once", max = ByteCount(MOST_BYTES))]
    Large(ByteCount),
}

/// What was read.
#[derive(Clone, Debug)]
pub struct Demand {
    /// The files, and what they make up.
    pub files: Files,
    /// Threads, in the order in which they began.
    pub readers: Vec<Reader>,
    /// What was in the page cache at the beginning, as far as anybody came upon it.
    pub resident: Vec<(usize, ByteRange)>,
    /// What left the page cache meanwhile, and when.
    pub evictions: Vec<(Moment, usize, ByteRange)>,
    /// What the device gave in its best moment; `None` where it gave next to nothing.
    pub rate: Option<Rate>,
    /// The agent warmed something.
    pub was_helped: bool,
    /// What could not be taken up.
    pub left_out: LeftOut,
}

/// What a replay lacks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Files that somebody read past the page cache, which only `--syscalls` records.
    pub direct: usize,
    /// Records that are missing from the trace.
    pub lost: u64,
}

/// A thread.
#[derive(Clone, Debug)]
pub struct Reader {
    /// Its process.
    pub process: u32,
    /// Its program, as far as it is known.
    pub program: String,
    /// When the command line of its process named a model.
    pub named: Option<Moment>,
    /// Where it was; never empty.
    pub visits: Vec<Visited>,
}

/// A range that a thread read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Visited {
    /// When it was told of.
    pub at: Moment,
    /// Index of the part.
    pub part: usize,
    /// Which bytes.
    pub range: ByteRange,
    /// How.
    pub style: Style,
}

/// A range of a file that is not numbered yet.
#[derive(Clone, Copy, Debug)]
struct Place {
    at: Moment,
    file: FileId,
    range: ByteRange,
    style: Style,
    /// Whether the next event of the thread in the file went on from here.
    is_closed: bool,
    /// Whether it goes on from the one before.
    goes_on: bool,
    /// All that is known is that it brought pages in.
    is_trace: bool,
}

#[derive(Debug, Default)]
struct Thread {
    places: Vec<Place>,
    /// The last place in each file.
    last: HashMap<FileId, usize>,
}

/// Bytes by the kernel's count.
#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    bytes: u64,
    added: u64,
    missed: u64,
}

/// Whether a step was in the page cache at the beginning: it was, if nobody brought it in before it left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Came,
    Left,
}

/// The time of the replay: it begins with the trace, and leaves out what lasts too long.
#[derive(Debug, Default)]
struct Clock {
    last: Option<Moment>,
    now: Duration,
}

impl Clock {
    fn at(&mut self, moment: Moment) -> Moment {
        let last = self.last.unwrap_or(moment);
        self.now += moment.since(last).min(LONGEST_PAUSE);
        self.last = Some(last.max(moment));
        let back = last.since(moment);
        Moment(u64::try_from(self.now.saturating_sub(back).as_nanos()).unwrap_or(u64::MAX))
    }
}

/// Collects records.
#[derive(Debug)]
pub struct Collecting {
    agent: u32,
    /// Reads are taken from exact calls.
    calls: bool,
    /// It is told who brings pages in.
    sees_added: bool,
    names: Names,
    clock: Clock,
    threads: BTreeMap<(u32, u32), Thread>,
    visits: usize,
    counted: HashMap<(u32, FileId), Counted>,
    named: HashMap<u32, Moment>,
    steps: HashMap<(FileId, u64), Step>,
    removed: Vec<(Moment, FileId, ByteRange)>,
    speed: Speed,
    was_helped: bool,
    direct: HashSet<FileId>,
    lost: u64,
}

fn within(range: ByteRange) -> ByteRange {
    let end = range.end.min(range.start.saturating_add(MOST_AT_ONCE));
    ByteRange { end, ..range }
}

fn steps(range: ByteRange) -> std::ops::Range<u64> {
    range.start / STEP..range.end.div_ceil(STEP)
}

fn style_of(access: &Access) -> Option<Style> {
    match access.kind {
        AccessKind::Read => Some(Style::Read {
            call: within(access.range).len().max(1),
        }),
        AccessKind::MapTouch | AccessKind::Brought => Some(Style::Map),
        AccessKind::MapPopulate => Some(Style::Populate),
        AccessKind::Map | AccessKind::Open => None,
    }
}

impl Collecting {
    /// Nothing yet.
    pub fn new(header: &Header) -> Self {
        Self {
            agent: header.process,
            calls: header.calls,
            sees_added: header.mode != "fanotify",
            names: Names::default(),
            clock: Clock::default(),
            threads: BTreeMap::new(),
            visits: 0,
            counted: HashMap::new(),
            named: HashMap::new(),
            steps: HashMap::new(),
            removed: Vec::new(),
            speed: Speed::default(),
            was_helped: false,
            direct: HashSet::new(),
            lost: 0,
        }
    }

    /// Takes a record. What is more than a replay can hold is left out; [`Self::end`] says so.
    pub fn add(&mut self, record: &Record) {
        let now = self.clock.at(record.at());
        self.names.learn(record);
        match record {
            Record::Input { input, .. } => self.input(now, input),
            Record::Brought {
                process, file, range, ..
            } if *process != self.agent => self.came(now, now, *file, *range, range.len()),
            Record::Call {
                process,
                thread,
                file,
                kind: CallKind::Read,
                direct,
                range,
                ..
            } => {
                let call = range.len().max(1);
                let style = if *direct {
                    Style::Direct { call }
                } else {
                    Style::Read { call }
                };
                let place = Place::new(now, *file, *range, style);
                self.visit((*process, *thread), place, None);
            }
            Record::Counts {
                process,
                file,
                bytes,
                added,
                missed,
                ..
            } => {
                let counted = self.counted.entry((*process, *file)).or_default();
                counted.bytes = counted.bytes.saturating_add(*bytes);
                counted.added = counted.added.saturating_add(*added);
                counted.missed = counted.missed.saturating_add(*missed);
            }
            Record::Lost { loss, .. } => self.lost = loss.sum(),
            _ => {}
        }
    }

    fn input(&mut self, now: Moment, input: &Input) {
        match input {
            Input::Access(access) => {
                let exact = self.calls && access.kind == AccessKind::Read;
                if let Some(style) = style_of(access).filter(|_| !exact) {
                    let mut place = Place::new(now, access.file, access.range, style);
                    place.is_trace = access.kind == AccessKind::Brought;
                    self.visit((access.process, access.thread), place, Some(access.jump));
                }
            }
            Input::Outcome(outcome) => self.warmed(now, outcome),
            Input::Removed { file, range } => {
                let range = within(*range);
                for step in steps(range) {
                    self.steps.entry((*file, step)).or_insert(Step::Left);
                }
                self.removed.push((now, *file, range));
            }
            Input::Named { process, .. } => {
                self.named.entry(*process).or_insert(now);
            }
            Input::Direct { file, .. } => {
                self.direct.insert(*file);
            }
            _ => {}
        }
    }

    fn warmed(&mut self, now: Moment, outcome: &Outcome) {
        if outcome.gained() > 0 {
            self.was_helped = true;
            let took = outcome.completed.since(outcome.submitted).min(LONGEST_PAUSE);
            let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
            let began = Moment(now.0.saturating_sub(took));
            self.came(began, now, outcome.file, outcome.range, outcome.gained());
        }
    }

    fn came(&mut self, from: Moment, until: Moment, file: FileId, range: ByteRange, bytes: u64) {
        for step in steps(within(range)) {
            self.steps.entry((file, step)).or_insert(Step::Came);
        }
        self.speed.gave(from, until, bytes.min(MOST_AT_ONCE));
    }

    /// A thread is at a place; `jump` is what the kernel said of the way there, where it did.
    fn visit(&mut self, who: (u32, u32), mut place: Place, jump: Option<bool>) {
        place.range = within(place.range);
        if who.0 == self.agent || place.range.is_empty() {
            return;
        }
        let thread = self.threads.entry(who).or_default();
        let last = thread
            .last
            .get(&place.file)
            .and_then(|last| thread.places.get_mut(*last));
        if let Some(last) = last {
            let follows = match jump {
                Some(jump) => !jump && place.range.start >= last.range.start,
                None => place.range.start == last.range.end,
            };
            let is_alike = std::mem::discriminant(&last.style) == std::mem::discriminant(&place.style);
            if follows {
                last.is_closed = true;
                let reached = place.range.start.max(last.range.end);
                last.range.end = reached.min(last.range.start.saturating_add(MOST_AT_ONCE));
                place.goes_on = true;
            }
            if follows && is_alike && place.range.start / STEP == last.range.start / STEP {
                // The same step: the eighth access in order, or a call among many.
                last.is_closed = false;
                last.range.end = last.range.end.max(place.range.end);
                return;
            }
        }
        self.visits += 1;
        if self.visits <= MOST_VISITS {
            thread.last.insert(place.file, thread.places.len());
            thread.places.push(place);
        }
    }
}

impl Place {
    const fn new(at: Moment, file: FileId, range: ByteRange, style: Style) -> Self {
        Self {
            at,
            file,
            range,
            style,
            is_closed: false,
            goes_on: false,
            is_trace: false,
        }
    }
}

impl Reader {
    /// Its first access.
    pub fn began(&self) -> Moment {
        self.visits.first().map_or(Moment(0), |visited| visited.at)
    }

    /// Its last one.
    pub fn ended(&self) -> Moment {
        self.visits.last().map_or(Moment(0), |visited| visited.at)
    }
}
