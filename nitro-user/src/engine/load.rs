//! One model being consumed, by one process or several together, from the first access until they stop: how far they are, how sure we are, what was
//! done for them.

mod course;
mod demand;
mod ending;
mod groups;
mod leave_alone;
mod lesson;
mod readers;
mod recognise;
pub mod saved;
mod silent;
mod steps_ahead;
mod uses;

use std::{sync::Arc, time::Duration};

use super::{
    Policy,
    action::{Action, LoadId},
    evidence::Evidence,
    happening::{Happening, Skip, What},
    input::{FileCounts, Outcome, StepEnd},
    plan::{
        admission::{Admission, Pace},
        benefit::Benefit,
        budget::Budget,
        reliance::Reliance,
    },
    receipt,
    steps::Steps,
};
use crate::{
    catalog::model::{AT_REST, Model, Part},
    units::{ByteCount, ByteRange, FileId, Moment, STEP},
};

use course::Course;
use groups::Groups;
use readers::Readers;
pub use steps_ahead::Planned;

/// Whoever reads a model so long after the last access to it begins a load of its own.
const TOGETHER: Duration = Duration::from_secs(10);

/// A reader silent for so long gets nothing more warmed and its descriptors are closed, until it is heard again. Longer than the pauses of
/// loaders that work on a shard before they read the next.
const FREEZE: Duration = Duration::from_secs(5);

/// A reader silent for so long has finished.
const IDLE_END: Duration = Duration::from_secs(30);

/// A load that was announced is believed in for so long at most, if its program is known to take its time.
const LONGEST_PATIENCE: Duration = Duration::from_secs(600);

/// While a load is announced and not seen, its process is looked at for `O_DIRECT`: after so long, then after twice as long each time …
const FIRST_CHECK: Duration = Duration::from_millis(2);

/// … up to this.
const LAST_CHECK: Duration = Duration::from_millis(250);

/// Most loaders open their model so soon after they start, or much later: until then the window does not grow, since a device with a burst to spare would have
/// done with twice as much for one that reads with `O_DIRECT`.
const OPENS_WITHIN: Duration = Duration::from_millis(10);

/// So many bytes in a row that somebody else had brought in ahead of the readers are a reason to ask whether it was they.
const FOUND_THERE: u64 = 8 * STEP;

/// What a reader may have brought in beyond what it read without prefetching: the kernel's readahead, a `WILLNEED` that is cut short.
const READAHEAD_SLACK: u64 = 16 << 20;

/// Where a load stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Weak evidence: watched, not helped.
    Suspected,
    /// Announced by a command line: a small window, until it is seen.
    Announced,
    /// Seen to progress: helped.
    Confirmed,
    /// Left alone.
    Skipped(Skip),
    /// Over; waiting for the kernel's counters.
    Ended,
}

impl Stage {
    /// For `status`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Suspected => "suspected",
            Self::Announced => "announced",
            Self::Confirmed => "confirmed",
            Self::Skipped(_) => "skipped",
            Self::Ended => "ended",
        }
    }
}

/// What names a model among the loads: its first file, or `file` for a model without parts.
pub fn key(model: &Model, file: FileId) -> FileId {
    model.parts.first().map_or(file, |part| part.file)
}

/// One load.
#[derive(Debug)]
pub struct Load {
    /// Its name.
    pub id: LoadId,
    /// Its model's key: see [`key`].
    pub key: FileId,
    /// Who loads.
    pub readers: Readers,
    /// What is loaded.
    pub model: Arc<Model>,
    /// Where it stands.
    pub stage: Stage,
    /// Bytes with the workers.
    pub in_flight: u64,
    pub(super) evidence: Evidence,
    pub(super) started: Moment,
    pub(super) last_access: Option<Moment>,
    pub(super) strong_at: Option<Moment>,
    pub(super) first_submit: Option<Moment>,
    pub(super) parts: Vec<Option<Steps>>,
    pub(super) skipped: Vec<Skip>,
    pub(super) kinds: receipt::KindCounts,
    /// What the kernel counted for it so far, by file.
    pub(super) counts: Vec<FileCounts>,
    /// Questions for its counters that were not answered yet.
    uncounted: u32,
    begun: Moment,
    /// When the process was last looked at for `O_DIRECT`.
    checked: Moment,
    /// From then to the next look.
    check_pause: Duration,
    /// Where its readers are.
    groups: Groups,
    /// The part that it was heard of by.
    expected: usize,
    admission: Admission,
    /// The reader is served so fast that help could only cost it.
    keeps_up: bool,
    /// How its latest accesses came.
    pace: Pace,
    /// Whether help is of use to it.
    benefit: Benefit,
    /// Whether it gets along by itself between its jumps.
    reliance: Reliance,
    /// It was left alone for its fast device, and fell behind.
    fell_behind: bool,
    frozen: bool,
    stream_open: bool,
    surveyed: Vec<bool>,
    dry_run: bool,
    /// It is left without help, so that it is known what help is worth.
    held_out: bool,
    /// What is warmed for it is on its readers' account.
    charged: bool,
    /// Bytes ahead of the readers in a row that were there before we came.
    found_there: u64,
    /// Whether it was looked at as one of a scanner's passes.
    pass_taken: bool,
    /// Whether it was counted as a use of its model.
    use_taken: bool,
    /// Bytes that were brought in before it, and that nobody had used.
    pub(super) brought_before: u64,
    /// In which order it is read.
    course: Course,
    /// It was announced, and began so much later.
    lead: Option<Duration>,
    /// What is to be learned of its beginning was.
    taught: bool,
    /// What is known of its program's other loads was looked up.
    recalled: bool,
    /// While it is announced and nobody reads it, it is believed in for so long.
    patience: Duration,
}

impl Load {
    /// A load that was just heard of.
    pub fn begin(id: LoadId, now: Moment, process: u32, model: Arc<Model>, position: usize, policy: &Policy) -> Self {
        let parts = model.parts.len();
        let mut course = Course::new(&model);
        if policy.inferred {
            course.note_silence();
        }
        let key = key(
            &model,
            model
                .parts
                .get(position)
                .map_or(FileId { device: 0, inode: 0 }, |part| part.file),
        );
        Self {
            id,
            key,
            readers: Readers::begin(process),
            model,
            stage: Stage::Suspected,
            in_flight: 0,
            evidence: Evidence::Header,
            started: now,
            last_access: None,
            strong_at: None,
            first_submit: None,
            parts: (0..parts).map(|_| None).collect(),
            skipped: Vec::new(),
            kinds: receipt::KindCounts::default(),
            counts: Vec::new(),
            uncounted: 0,
            begun: now,
            checked: now,
            check_pause: FIRST_CHECK,
            groups: Groups::default(),
            expected: position,
            admission: Admission::default(),
            keeps_up: false,
            pace: Pace::Unknown,
            benefit: Benefit::default(),
            reliance: Reliance::default(),
            fell_behind: false,
            frozen: false,
            stream_open: false,
            surveyed: vec![false; parts],
            dry_run: policy.dry_run,
            held_out: saved::is_held_out(policy, id),
            charged: policy.charge_consumer,
            found_there: 0,
            pass_taken: false,
            use_taken: false,
            brought_before: 0,
            course,
            lead: None,
            taught: false,
            recalled: false,
            patience: IDLE_END,
        }
    }

    /// Whether `process` belongs to it: it takes part already, or comes soon enough to be one of several that load together.
    pub fn takes(&self, process: u32, now: Moment) -> bool {
        let heard = self.last_access.unwrap_or(self.begun);
        self.readers.contains(process) || now.since(heard) < TOGETHER
    }

    /// Index of `file` among its parts; `likely` is looked at first.
    pub fn position_of(&self, file: FileId, likely: usize) -> Option<usize> {
        let is_there = self.model.parts.get(likely).is_some_and(|part| part.file == file);
        if is_there {
            Some(likely)
        } else {
            self.model.parts.iter().position(|part| part.file == file)
        }
    }

    /// A step came back. Whether several threads had been there first.
    pub fn warmed(&mut self, outcome: &Outcome, budget: &mut Budget, actions: &mut Vec<Action>) -> bool {
        self.in_flight = self.in_flight.saturating_sub(outcome.range.len());
        let step = outcome.range.start / STEP;
        let (mut held, mut overtaken_by_several) = (0, false);
        if let Some(Some(steps)) = self.parts.get_mut(outcome.part) {
            match outcome.end {
                StepEnd::Done => {
                    if outcome.gained() > 0 {
                        self.first_submit.get_or_insert(outcome.submitted);
                        self.found_there = 0;
                    } else if !steps.is_demanded(step) {
                        self.found_there += outcome.range.len();
                    }
                    held = steps.arrived(step, outcome.gained(), outcome.completed);
                    let overtaken = held == 0 && outcome.gained() > 0;
                    overtaken_by_several = self.groups.warmed(outcome.part, step, overtaken);
                    steps.spilled(step + 1, outcome.beyond);
                }
                StepEnd::Yielded => {
                    held = steps.arrived(step, outcome.gained(), outcome.completed);
                    steps.spilled(step + 1, outcome.beyond);
                    steps.withdraw(step);
                }
                StepEnd::WholePartResident => steps.cover_all(),
                StepEnd::Cancelled => steps.withdraw(step),
                StepEnd::Failed
                | StepEnd::Stale
                | StepEnd::Written
                | StepEnd::Unverified
                | StepEnd::Refused
                | StepEnd::NoAccount
                | StepEnd::NotLent
                | StepEnd::Namesake
                | StepEnd::NotHeld
                | StepEnd::NoRoom => {}
            }
        }
        // Of what nobody tells nothing is held: it would be for ever.
        let is_watched = self.model.parts.get(outcome.part).is_some_and(Part::is_watched);
        budget.arrived(outcome.file, outcome.range, if is_watched { held } else { 0 });
        if self.found_there >= FOUND_THERE && self.stage == Stage::Confirmed {
            self.found_there = 0;
            self.ask_added(actions);
        }
        match outcome.end {
            StepEnd::Failed => self.skip(Skip::Unreadable, actions),
            StepEnd::NotLent => self.skip(Skip::NotLent, actions),
            StepEnd::Namesake => self.skip(Skip::Namesake, actions),
            StepEnd::Refused => self.skip(Skip::Busy, actions),
            StepEnd::NoAccount => self.skip(Skip::NoAccount, actions),
            StepEnd::NoRoom => self.skip(Skip::NoRoom, actions),
            StepEnd::Unverified => self.skip(Skip::Unverified, actions),
            StepEnd::Written => self.leave_to_writer(actions),
            StepEnd::WholePartResident if !self.skipped.contains(&Skip::Resident) => self.skipped.push(Skip::Resident),
            _ => {}
        }
        overtaken_by_several
    }

    /// Pages left the cache.
    pub fn evicted(&mut self, file: FileId, range: ByteRange) {
        let Some(part) = self.model.parts.iter().position(|part| part.file == file) else {
            return;
        };
        let Some(Some(steps)) = self.parts.get_mut(part) else {
            return;
        };
        let lost = steps.evicted(range);
        if lost > 0 {
            self.groups.iter_mut().for_each(|group| group.window.lost(lost));
        }
    }

    /// Bytes that may be warmed and unread; 0 while closed.
    pub fn window(&self) -> ByteCount {
        if self.benefit.holds() {
            return ByteCount(0);
        }
        ByteCount(
            self.groups
                .iter()
                .map(|group| group.window.size())
                .fold(0, u64::saturating_add),
        )
    }

    /// Bytes of the model.
    pub fn model_bytes(&self) -> ByteCount {
        ByteCount(self.model.parts.iter().map(|part| part.size).sum())
    }

    fn tell(&self, what: What, bytes: ByteCount, ceiling_percent: u8, note: String) -> Happening {
        let (model, program) = (self.model.name.clone(), self.readers.program().map(str::to_owned));
        Happening {
            what,
            model,
            program,
            process: self.readers.first(),
            bytes,
            ceiling_percent,
            note,
        }
    }
}
