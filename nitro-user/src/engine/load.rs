//! One process consuming one model, from its first access until it stops: how far it is, how sure we are, what was done for it.

mod leave_alone;
mod silent;
mod steps_ahead;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{
    action::{Action, LoadId},
    evidence::{self, Evidence},
    happening::{Happening, Skip, What},
    input::{Access, AccessKind, FileCounts, Outcome, StepEnd},
    plan::{
        admission::{self, Admission, Pace},
        budget::Budget,
        device::Device,
        window::Window,
    },
    receipt::{self, Receipt},
    steps::Steps,
    walk::{Move, Walk},
};
use crate::{
    catalog::model::Model,
    units::{ByteCount, ByteRange, FileId, Moment, STEP},
};

pub use steps_ahead::Planned;

/// A reader silent for so long gets nothing more warmed and its descriptors are closed, until it is heard again. Longer than the pauses of
/// loaders that work on a shard before they read the next.
const FREEZE: Duration = Duration::from_secs(5);

/// A reader silent for so long has finished.
const IDLE_END: Duration = Duration::from_secs(30);

/// While a load is announced and not seen, its process is looked at for `O_DIRECT`: after so long, then after twice as long each time …
const FIRST_CHECK: Duration = Duration::from_millis(2);

/// … up to this.
const LAST_CHECK: Duration = Duration::from_millis(250);

/// Most loaders open their model so soon after they start, or much later: until then the window does not grow, since a device with a burst to spare would have
/// done with twice as much for one that reads with `O_DIRECT`.
const OPENS_WITHIN: Duration = Duration::from_millis(10);

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

/// What names a model among the loads of a process: its first file, or `file` for a model without parts.
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
    /// The process.
    pub process: u32,
    /// Its program, once known.
    pub program: Option<String>,
    /// Its user, once known.
    pub user: Option<u32>,
    /// What it loads.
    pub model: Arc<Model>,
    /// Where it stands.
    pub stage: Stage,
    /// Bytes with the workers.
    pub in_flight: u64,
    /// By part, bytes brought in beyond the last step.
    pub(super) beyond: BTreeMap<usize, u64>,
    /// Its process has ended.
    pub(super) process_ended: bool,
    pub(super) evidence: Evidence,
    pub(super) started: Moment,
    pub(super) last_access: Option<Moment>,
    pub(super) strong_at: Option<Moment>,
    pub(super) first_submit: Option<Moment>,
    pub(super) parts: Vec<Option<Steps>>,
    pub(super) skipped: Vec<Skip>,
    pub(super) kinds: receipt::KindCounts,
    /// It made a mapping and the event mode said so: it may read without a sign.
    mapped: bool,
    begun: Moment,
    /// When the process was last looked at for `O_DIRECT`.
    checked: Moment,
    /// From then to the next look.
    check_pause: Duration,
    window: Window,
    /// Bytes warmed and not used by this reader.
    unused: u64,
    /// Of those, bytes that the reader jumped away from: it may come back to them, they do not hold up what is ahead of it.
    stranded: u64,
    /// Bytes that were in flight when it jumped: steps of one load arrive in order, so that the next to arrive are these.
    stranded_in_flight: u64,
    walk: Walk,
    /// After a jump into the cold nothing is warmed until the reader walks again.
    lost: bool,
    admission: Admission,
    /// The reader is served so fast that help could only cost it.
    keeps_up: bool,
    /// How its latest accesses came.
    pace: Pace,
    /// It was left alone for its fast device, and fell behind.
    fell_behind: bool,
    frozen: bool,
    stream_open: bool,
    surveyed: Vec<bool>,
    dry_run: bool,
}

impl Load {
    /// A load that was just heard of.
    pub fn begin(id: LoadId, now: Moment, process: u32, model: Arc<Model>, position: usize, dry_run: bool) -> Self {
        let parts = model.parts.len();
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
            process,
            program: None,
            user: None,
            model,
            stage: Stage::Suspected,
            in_flight: 0,
            beyond: BTreeMap::new(),
            process_ended: false,
            evidence: Evidence::Header,
            started: now,
            last_access: None,
            strong_at: None,
            first_submit: None,
            parts: (0..parts).map(|_| None).collect(),
            skipped: Vec::new(),
            kinds: receipt::KindCounts::default(),
            mapped: false,
            begun: now,
            checked: now,
            check_pause: FIRST_CHECK,
            window: Window::default(),
            unused: 0,
            stranded: 0,
            stranded_in_flight: 0,
            walk: Walk::begin(position),
            lost: false,
            admission: Admission::default(),
            keeps_up: false,
            pace: Pace::Unknown,
            fell_behind: false,
            frozen: false,
            stream_open: false,
            surveyed: vec![false; parts],
            dry_run,
        }
    }

    /// Learns who reads.
    pub fn identify(&mut self, name: &str, user: u32) {
        self.program = Some(name.to_owned());
        self.user = Some(user);
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

    /// Whether `file` is one of its parts.
    pub fn reads(&self, file: FileId) -> bool {
        self.model.parts.iter().any(|part| part.file == file)
    }

    /// The reader accesses part `part`.
    pub fn demand(
        &mut self,
        part: usize,
        access: &Access,
        budget: &Budget,
        device: &Device,
        actions: &mut Vec<Action>,
    ) {
        if self.stage == Stage::Ended {
            return;
        }
        if self.last_access.is_none() {
            self.started = access.at;
        }
        self.last_access = Some(access.at.max(self.last_access.unwrap_or_default()));
        self.frozen = false;
        self.kinds.count(access);
        self.mapped |= access.kind == AccessKind::Map;
        if matches!(access.kind, AccessKind::Open | AccessKind::Map | AccessKind::Brought) {
            return;
        }
        let Some(known) = self.model.parts.get(part) else {
            return;
        };
        let (size, header) = (known.size, known.header);
        let steps = self.parts[part].get_or_insert_with(|| Steps::new(size));
        let warm = steps.is_warm(access.range.start / STEP);
        let met = steps.demand(access.range, access.at);
        self.unused = self.unused.saturating_sub(met.used);
        self.stranded = self.stranded.min(self.unused);
        self.window.consumed(met.used);
        self.pace = self.admission.observe(access.at, met.fresh * STEP);

        let jumped = self.walk.follow(part, access, met, warm) == Move::ColdJump;
        // A jump into a step that was accessed in passing is one into the cold as well.
        let cold = !warm && (met.fresh > 0 || jumped);
        if cold {
            // What was warmed lies elsewhere: it must not hold up what is ahead of the reader now.
            self.stranded = self.unused;
            self.stranded_in_flight = self.in_flight;
        }
        if jumped {
            self.window.jumped(self.walk.typical_run());
            self.lost = self.walk.typical_run() < STEP;
        } else if access.in_order || !access.jump {
            self.lost = false;
        }
        // Where the reader has caught up, or walks on after a jump, it wants the rest of the very step it is in: without readahead of its own
        // it would fetch it page by page.
        let walks = access.in_order || (cold && !self.lost);
        if walks && let Some(Some(steps)) = self.parts.get_mut(part) {
            steps.want_rest(access.range.start / STEP);
        }
        if self.stage == Stage::Confirmed {
            self.judge(device);
            if self.walk.is_random() {
                self.skip(Skip::Random, actions);
            }
        }
        if evidence::of_access(access, header) == Evidence::Progress
            && matches!(self.stage, Stage::Suspected | Stage::Announced)
        {
            self.keeps_up = self.pace == Pace::Fast || self.is_served(device);
            self.confirm(access.at, device, budget, actions);
        }
    }

    /// Strong evidence.
    fn confirm(&mut self, at: Moment, device: &Device, budget: &Budget, actions: &mut Vec<Action>) {
        let announced = self.stage == Stage::Announced;
        self.stage = Stage::Confirmed;
        self.evidence = self.evidence.max(Evidence::Progress);
        self.strong_at.get_or_insert(at);
        self.window.open(device.rate());
        if !announced {
            actions.push(Action::Tell(self.tell(
                What::Load,
                self.model_bytes(),
                budget.percent(),
                "reading".into(),
            )));
        }
        self.refuse_dry_run(actions);
    }

    /// A command line named part `part`.
    pub fn expect(&mut self, now: Moment, part: usize, evidence: Evidence, device: &Device, actions: &mut Vec<Action>) {
        if self.stage != Stage::Suspected {
            return;
        }
        self.stage = Stage::Announced;
        self.evidence = evidence;
        (self.begun, self.checked) = (now, now);
        self.strong_at.get_or_insert(now);
        self.walk.expect(part);
        if !admission::keeps_up(device.rate()) {
            self.window.open_unconfirmed(device.rate());
        }
        actions.push(Action::Tell(self.tell(
            What::Load,
            self.model_bytes(),
            0,
            "named on its command line".into(),
        )));
        self.ask_direct(actions);
        self.refuse_dry_run(actions);
    }

    fn refuse_dry_run(&mut self, actions: &mut Vec<Action>) {
        if self.dry_run {
            self.skip(Skip::DryRun, actions);
        }
    }

    fn ask_direct(&self, actions: &mut Vec<Action>) {
        if let Some(part) = self.model.parts.get(self.walk.part()) {
            actions.push(Action::AskDirect {
                process: self.process,
                file: part.file,
            });
        }
    }

    /// Leaves the load alone from now on.
    pub fn skip(&mut self, skip: Skip, actions: &mut Vec<Action>) {
        if !self.skipped.contains(&skip) {
            self.skipped.push(skip);
        }
        if matches!(self.stage, Stage::Skipped(_) | Stage::Ended) {
            return;
        }
        let told = self.stage != Stage::Suspected;
        self.stage = Stage::Skipped(skip);
        self.window.close();
        self.close(actions);
        if told {
            actions.push(Action::Tell(self.tell(
                What::Skip,
                self.model_bytes(),
                0,
                skip.reason().into(),
            )));
        }
    }

    /// Stops what is queued and closes the descriptors.
    fn close(&mut self, actions: &mut Vec<Action>) {
        if std::mem::take(&mut self.stream_open) {
            actions.push(Action::Cancel { load: self.id });
            actions.push(Action::Close { load: self.id });
        }
    }

    /// The end: the process has ended, the reader has been silent for long, or the file is gone.
    pub fn end(&mut self, actions: &mut Vec<Action>) {
        if self.stage == Stage::Announced && self.last_access.is_none() && !self.skipped.contains(&Skip::NeverRead) {
            self.skipped.push(Skip::NeverRead);
        }
        if self.keeps_up && self.skipped.is_empty() {
            self.skipped.push(Skip::FastDevice);
        }
        self.stage = Stage::Ended;
        self.window.close();
        self.close(actions);
    }

    /// A step came back.
    pub fn warmed(&mut self, outcome: &Outcome, budget: &mut Budget, actions: &mut Vec<Action>) {
        self.in_flight = self.in_flight.saturating_sub(outcome.range.len());
        let step = outcome.range.start / STEP;
        let mut held = 0;
        if let Some(Some(steps)) = self.parts.get_mut(outcome.part) {
            match outcome.end {
                StepEnd::Done => {
                    if outcome.gained() > 0 {
                        self.first_submit.get_or_insert(outcome.submitted);
                    }
                    held = steps.arrived(step, outcome.gained(), outcome.completed);
                    self.beyond.insert(outcome.part, outcome.beyond);
                }
                StepEnd::WholePartResident => steps.cover_all(),
                StepEnd::Cancelled => steps.withdraw(step),
                StepEnd::Failed | StepEnd::Stale | StepEnd::Unverified | StepEnd::Refused => {}
            }
        }
        let unused = outcome.gained().min(held);
        self.unused += unused;
        if self.stranded_in_flight > 0 {
            self.stranded_in_flight = self.stranded_in_flight.saturating_sub(outcome.range.len());
            self.stranded += unused;
        }
        budget.arrived(outcome.file, outcome.range, held);
        match outcome.end {
            StepEnd::Failed => self.skip(Skip::Unreadable, actions),
            StepEnd::Refused => self.skip(Skip::Busy, actions),
            StepEnd::Unverified => self.skip(Skip::Unverified, actions),
            StepEnd::WholePartResident if !self.skipped.contains(&Skip::Resident) => self.skipped.push(Skip::Resident),
            _ => {}
        }
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
            self.unused = self.unused.saturating_sub(lost);
            self.stranded = self.stranded.min(self.unused);
            self.window.lost(lost);
        }
    }

    /// Time passes. True when the load is over.
    pub fn tick(&mut self, now: Moment, actions: &mut Vec<Action>) -> bool {
        if self.stage == Stage::Ended {
            return false;
        }
        let silent = now.since(self.last_access.unwrap_or(self.begun));
        if self.stage == Stage::Announced && silent < IDLE_END && now.since(self.checked) >= self.check_pause {
            self.checked = now;
            self.check_pause = (2 * self.check_pause).min(LAST_CHECK);
            if now.since(self.begun) >= OPENS_WITHIN {
                self.window.ramp_up();
            }
            self.ask_direct(actions);
        }
        if silent >= FREEZE && self.stage != Stage::Announced && !self.frozen {
            self.frozen = true;
            self.close(actions);
        }
        silent >= IDLE_END
    }

    /// When it wants to be told the time.
    pub fn deadline(&self) -> Option<Moment> {
        let heard = self.last_access.unwrap_or(self.begun);
        match self.stage {
            Stage::Ended => None,
            Stage::Announced => Some(self.checked.after(self.check_pause)),
            _ if self.frozen => Some(heard.after(IDLE_END)),
            _ => Some(heard.after(FREEZE)),
        }
    }

    /// Bytes that may be warmed and unread; 0 while closed.
    pub fn window(&self) -> ByteCount {
        ByteCount(self.window.size())
    }

    /// Bytes of the model.
    pub fn model_bytes(&self) -> ByteCount {
        ByteCount(self.model.parts.iter().map(|part| part.size).sum())
    }

    fn tell(&self, what: What, bytes: ByteCount, ceiling_percent: u8, note: String) -> Happening {
        let (model, program) = (self.model.name.clone(), self.program.clone());
        Happening {
            what,
            model,
            program,
            process: self.process,
            bytes,
            ceiling_percent,
            note,
        }
    }

    /// What happened; `None` for a load that was only suspected.
    pub fn receipt(&self, now: Moment, counts: &[FileCounts]) -> Option<Receipt> {
        (self.strong_at.is_some()).then(|| Receipt::of(self, now, counts))
    }
}
