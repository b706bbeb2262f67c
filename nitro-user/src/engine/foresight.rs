//! What is expected to be loaded next, and bringing it in before anybody asks for it.
//!
//! When a program begins to load a model, what it usually loads then is looked up; what is likely enough is brought in at idle pace, soon before it is due, where there is memory for
//! all of it. It is no load and has no receipt: what it came to is counted here, and the load that it was for says what it found there.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{
    Engine, action::Action, experience::Expected, learn::row::Run, load::key, plan::budget::Budget, retain::Kept,
};
use crate::{
    catalog::model::{Description, Model},
    units::{ByteCount, FileId, Moment},
};

/// What is less likely is not brought in: of what is, one part in ten may be in vain.
pub const WORTH: f32 = 0.75;

/// Models that are brought in for one program at once.
const MOST_PLANS: usize = 4;

/// Time that is needed before it is due, where nothing is known of its size or of its device.
const UNKNOWN: Duration = Duration::from_secs(30);

/// So many times the time that its device needs: idle pace gives way to everybody.
const AHEAD: u32 = 3;

/// What nobody loaded so long after the time at which nine of ten had been loaded was in vain.
const GRACE: Duration = Duration::from_secs(600);

/// Programs whose plans are remembered.
const MOST_PROGRAMS: usize = 256;

/// How far a plan is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Waiting,
    /// The catalog was asked.
    Sought,
    /// It is being brought in, or has been.
    Given(FileId),
}

/// One model that is expected.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Where its first part is.
    pub path: PathBuf,
    /// How likely.
    pub confidence: f32,
    /// It is brought in from then on.
    pub begins: Moment,
    /// Nine of ten are loaded by then.
    pub until: Moment,
    stage: Stage,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tally {
    /// Bytes brought in since they were expected to be needed.
    pub warmed: ByteCount,
    /// Of those, bytes that were there when their model was loaded.
    pub met: ByteCount,
    /// Of those, bytes that nobody came for in time.
    pub in_vain: ByteCount,
}

/// All plans.
#[derive(Debug, Default)]
pub struct Foresight {
    plans: BTreeMap<Option<String>, Vec<Plan>>,
    tally: Tally,
}

impl Foresight {
    /// What is expected of whom.
    pub fn plans(&self) -> impl Iterator<Item = (Option<&str>, &Plan)> {
        self.plans
            .iter()
            .flat_map(|(program, plans)| plans.iter().map(move |plan| (program.as_deref(), plan)))
    }

    /// What came of it so far.
    pub const fn tally(&self) -> Tally {
        self.tally
    }

    /// Nothing is expected at or below a path; without one, nothing at all. The models that were being brought in.
    fn forget(&mut self, path: Option<&Path>) -> Vec<FileId> {
        let gone = self.take(|plan| path.is_none_or(|path| plan.path.starts_with(path)));
        let given = gone.into_iter().filter_map(|(_, plan)| match plan.stage {
            Stage::Given(file) => Some(file),
            Stage::Waiting | Stage::Sought => None,
        });
        given.collect()
    }

    /// When something is to be done.
    fn deadline(&self) -> Option<Moment> {
        let plans = self.plans.values().flatten();
        let next = plans.filter_map(|plan| match plan.stage {
            Stage::Waiting => Some(plan.begins),
            Stage::Given(_) => Some(plan.until.after(GRACE)),
            Stage::Sought => None,
        });
        next.min()
    }

    /// It has changed who is expected to load what.
    fn replace(&mut self, program: Option<&str>, plans: Vec<Plan>) -> Vec<Plan> {
        let program = program.map(str::to_owned);
        let no_room = self.plans.len() >= MOST_PROGRAMS && !self.plans.contains_key(&program);
        if plans.is_empty() || no_room {
            return self.plans.remove(&program).unwrap_or_default();
        }
        self.plans.insert(program, plans).unwrap_or_default()
    }

    /// Takes the plans out for which this holds.
    fn take(&mut self, which: impl Fn(&Plan) -> bool) -> Vec<(Option<String>, Plan)> {
        let mut taken = Vec::new();
        for (program, plans) in &mut self.plans {
            let (these, others) = std::mem::take(plans).into_iter().partition(&which);
            *plans = others;
            let these: Vec<Plan> = these;
            taken.extend(these.into_iter().map(|plan| (program.clone(), plan)));
        }
        self.plans.retain(|_, plans| !plans.is_empty());
        taken
    }
}

fn bytes_of(model: &Model) -> u64 {
    model.parts.iter().map(|part| part.size).fold(0, u64::saturating_add)
}

/// Bytes of a model that were brought in and that nobody has used.
fn unused(budget: &Budget, kept: &Kept) -> u64 {
    kept.model.parts.iter().map(|part| budget.held_of(part.file)).sum()
}

impl Engine {
    /// What is expected, and what came of it.
    pub const fn foresight(&self) -> &Foresight {
        &self.foresight
    }

    /// A program begins to load the model at `path`: what it loads next is expected from now on.
    /// `brought` bytes of that were there before.
    pub(super) fn foresee(&mut self, now: Moment, program: Option<&str>, path: &Path, brought: u64) {
        let unix = self.since_1970(now);
        for (_, came) in self.foresight.take(|plan| plan.path == path) {
            if let Stage::Given(file) = came.stage
                && self.retention.of(file).is_some_and(Kept::is_expected)
            {
                self.foresight.tally.met.0 += brought;
                self.retention.expected_came(file);
            }
        }
        let found = self.experience.expected(unix, program);
        let worth = found.into_iter().filter(|next| is_worth(next) && next.path != path);
        let plans: Vec<Plan> = worth.take(MOST_PLANS).map(|next| self.plan_for(now, next)).collect();
        let before = self.foresight.replace(program, plans);
        for plan in before {
            let goes_on = |(of, new): (Option<&str>, &Plan)| of == program && new.path == plan.path;
            if matches!(plan.stage, Stage::Given(_)) && !self.foresight.plans().any(goes_on) {
                self.came_to_nothing(&plan);
            }
        }
    }

    fn plan_for(&self, now: Moment, next: Expected) -> Plan {
        let [soonest, _, latest] = next.candidate.due;
        let known = self.retention.at(&next.path);
        let rate = |file: FileId| self.devices.get(&file.device).and_then(|device| device.rate());
        let takes = known.and_then(|(file, kept)| Some(rate(file)?.time_of(kept.bytes()) * AHEAD));
        Plan {
            path: next.path,
            confidence: next.candidate.confidence,
            begins: now.after(soonest.saturating_sub(takes.unwrap_or(UNKNOWN))),
            until: now.after(latest),
            stage: Stage::Waiting,
        }
    }

    /// Whether anything may be brought in that nobody has asked for.
    fn may_foresee(&self) -> bool {
        self.paused.is_none() && !self.policy.dry_run && !self.spares
    }

    /// When something that is expected is to be brought in, or is not expected any more.
    pub(super) fn foresight_deadline(&self) -> Option<Moment> {
        self.foresight.deadline().filter(|_| self.may_foresee())
    }

    /// What is due is looked for, and what was in vain given up.
    pub(super) fn look_forward(&mut self, now: Moment, actions: &mut Vec<Action>) {
        if self.foresight_deadline().is_none_or(|at| at > now) {
            return;
        }
        let over = |plan: &Plan| match plan.stage {
            Stage::Waiting => plan.until <= now,
            Stage::Given(_) => plan.until.after(GRACE) <= now,
            Stage::Sought => false,
        };
        for (_, plan) in self.foresight.take(over) {
            self.came_to_nothing(&plan);
        }
        let unix = self.since_1970(now);
        let due = |plan: &Plan| plan.stage == Stage::Waiting && plan.begins <= now;
        for (program, mut plan) in self.foresight.take(due) {
            // Since it was expected, time has passed in which it might have come.
            let found = self.experience.expected(unix, program.as_deref());
            if !found.iter().any(|next| is_worth(next) && next.path == plan.path) {
                continue;
            }
            actions.push(Action::Find {
                path: plan.path.clone(),
            });
            plan.stage = Stage::Sought;
            self.foresight.plans.entry(program).or_default().push(plan);
        }
    }

    /// The catalog's answer.
    pub(super) fn found(&mut self, now: Moment, path: &Path, description: Option<&Description>) {
        for (program, mut plan) in self
            .foresight
            .take(|plan| plan.stage == Stage::Sought && plan.path == path)
        {
            // It is not there any more.
            let Some(description) = description else { continue };
            let (model, unix) = (&description.model, self.since_1970(now));
            let bytes = bytes_of(model);
            let course = self.experience.course(unix, program.as_deref(), path, bytes);
            let file = key(model, description.file);
            let runs = course.map(|known| known.order.into_runs());
            self.retention.expect(now, file, model, runs.unwrap_or_default());
            plan.stage = Stage::Given(file);
            self.foresight.plans.entry(program).or_default().push(plan);
        }
        if self.retention.is_sought(path) {
            self.retention.found(now, path, description);
            if let Some(description) = description {
                self.recall_read(now, path, description);
            }
        }
    }

    /// Of a model of the last run, what programs read of it.
    fn recall_read(&mut self, now: Moment, path: &Path, description: &Description) {
        let unix = self.since_1970(now);
        let bytes = bytes_of(&description.model);
        let courses = self.experience.courses(unix, path, bytes).into_iter();
        let runs: Vec<Run> = courses.flat_map(|(_, known)| known.order.into_runs()).collect();
        if !runs.is_empty() {
            self.retention
                .recall_read(key(&description.model, description.file), runs);
        }
    }

    /// Nobody is expected to load what lies at or below a path; without one, anything: what is not there yet does not come.
    pub(super) fn expect_nothing(&mut self, path: Option<&Path>) {
        for file in self.foresight.forget(path) {
            self.retention.expected_came(file);
        }
    }

    /// A piece of what is expected came back.
    pub(super) fn brought_ahead(&mut self, bytes: u64) {
        self.foresight.tally.warmed.0 += bytes;
    }

    /// Bytes of a model that were brought in before, for whatever reason, and that nobody has used.
    pub(super) fn brought_before(&self, file: FileId) -> u64 {
        self.retention.of(file).map_or(0, |kept| unused(&self.budget, kept))
    }

    /// It was not loaded: what is there of it stays as long as nobody needs the room, and takes none from others.
    fn came_to_nothing(&mut self, plan: &Plan) {
        let Stage::Given(file) = plan.stage else { return };
        let Some(kept) = self.retention.of(file).filter(|kept| kept.is_expected()) else {
            return;
        };
        self.foresight.tally.in_vain.0 += unused(&self.budget, kept);
        for part in &kept.model.parts {
            self.budget.give_up(part.file);
        }
        self.retention.expected_came(file);
    }
}

/// Whether something is likely enough to be brought in.
pub(super) fn is_worth(next: &Expected) -> bool {
    next.candidate.confidence >= WORTH
}
