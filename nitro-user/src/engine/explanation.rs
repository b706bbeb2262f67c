//! What the engine knows of a model, and what it would do on the next access, as values for `explain`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    Engine,
    experience::Expected,
    happening::Skip,
    load::key,
    plan::{
        admission,
        device::{Device, Knowledge},
        pressure::Strain,
        window,
    },
    predict::order::{Kind, Known},
    retain::path_of,
};
use crate::{
    catalog::model::{LayoutKind, Model},
    units::{ByteCount, FileId, Moment, STEP},
};

/// Models that may follow which are told of each program.
const MOST_NEXT: usize = 4;

/// All that is known of one model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// Its name.
    pub model: String,
    /// Its arrangement on disk.
    pub layout: LayoutKind,
    /// Where its first file is.
    pub path: String,
    /// Its files, …
    pub files: u64,
    /// … and their bytes.
    pub bytes: ByteCount,
    /// How often it was used lately, earlier uses counting less.
    pub uses: f64,
    /// Bytes locked.
    pub pinned: ByteCount,
    /// Somebody has asked for that.
    pub asked: bool,
    /// Processes that have it mapped.
    pub mapped_by: u64,
    /// A load of it is under way.
    pub loading: bool,
    /// Bytes that were warmed and that nobody has used.
    pub held: ByteCount,
    /// How each program reads it.
    pub readers: Vec<Habit>,
    /// What each program loads after it.
    pub next: Vec<Next>,
    /// Who is expected to load it.
    pub expected: Vec<Coming>,
    /// What its device does, as far as that was seen.
    pub device: Knowledge,
    /// What would be done.
    pub would: Would,
}

/// How a program reads a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Habit {
    /// Empty where nobody knows which.
    pub program: String,
    /// In which order.
    pub order: Order,
    /// Loads that agreed, earlier ones counting less.
    pub loads: f64,
    /// Bytes that were never read, as far as its loads were complete.
    pub never_read: ByteCount,
    /// Names of the files of which nothing is.
    pub files_never_read: Vec<String>,
    /// Nine of ten loads begin so soon after they are announced, in seconds.
    pub begins_within: Option<f64>,
}

/// In which order something is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// The files'.
    InOrder,
    /// Another one, the same each time.
    Own,
    /// None.
    Unstable,
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Next {
    /// Who loads.
    pub program: String,
    /// Where the first file of the model is that it loads.
    pub path: String,
    /// How likely, 0–1, by what became of such expectations.
    pub confidence: f32,
    /// No sooner in nine of ten cases, in half of them, and no later in nine of ten; in seconds.
    pub due: [f64; 3],
    /// So often it came, …
    pub times: f32,
    /// … of so often; both fade.
    pub of: f32,
    /// It would be brought in ahead.
    pub brought_in: bool,
}

/// Somebody who is expected.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Coming {
    /// Who.
    pub program: String,
    /// How likely, 0–1.
    pub confidence: f32,
    /// It is brought in in so many seconds; 0 where that has begun.
    pub begins_in: f64,
}

/// What would be done on the next access.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Would {
    /// Bytes that would be warmed ahead of the reader at once; it may become more.
    pub window: ByteCount,
    /// Why nothing would be warmed.
    pub hindrances: Vec<Skip>,
    /// The share of loads that are left without help.
    pub holdout: f64,
}

impl Engine {
    /// What is known of a model.
    pub fn explain(&self, now: Moment, model: &Model) -> Explanation {
        let unix = self.since_1970(now);
        let path = path_of(model).unwrap_or_default();
        let bytes = model.parts.iter().map(|part| part.size).fold(0, u64::saturating_add);
        let nowhere = FileId { device: 0, inode: 0 };
        let file = model.parts.first().map_or(nowhere, |part| part.file);
        let kept = self.retention.of(key(model, file));
        let device = self.devices.get(&file.device);
        let next = |(program, expected): (String, Expected)| Next {
            program,
            path: expected.path.to_string_lossy().into_owned(),
            confidence: expected.candidate.confidence,
            due: expected.candidate.due.map(|time| time.as_secs_f64()),
            times: expected.candidate.reason.times,
            of: expected.candidate.reason.of,
            brought_in: super::foresight::is_worth(&expected),
        };
        let habit = |(program, known): (String, Known)| {
            let lead = self.experience.lead(unix, model.layout, Some(&program), 0.9);
            Habit::of(model, program, &known, lead)
        };
        let coming = self.foresight.plans().filter(|(_, plan)| plan.path == path);
        let half_life = self.policy.retain.half_life;
        Explanation {
            model: model.name.clone(),
            layout: model.layout,
            path: path.to_string_lossy().into_owned(),
            files: model.parts.len() as u64,
            bytes: ByteCount(bytes),
            uses: kept.map_or(0.0, |kept| kept.heat.at(now, half_life)),
            pinned: ByteCount(kept.map_or(0, |kept| kept.pin.held)),
            asked: kept.is_some_and(|kept| kept.asked),
            mapped_by: kept.map_or(0, |kept| kept.mapped_by.len() as u64),
            loading: self.loads.values().any(|load| load.reads(file)),
            held: ByteCount(model.parts.iter().map(|part| self.budget.held_of(part.file)).sum()),
            readers: self
                .experience
                .courses(unix, &path, bytes)
                .into_iter()
                .map(habit)
                .collect(),
            next: self
                .experience
                .followers(unix, &path, MOST_NEXT)
                .into_iter()
                .map(next)
                .collect(),
            expected: coming
                .map(|(program, plan)| Coming {
                    program: program.unwrap_or_default().to_owned(),
                    confidence: plan.confidence,
                    begins_in: plan.begins.since(now).as_secs_f64(),
                })
                .collect(),
            device: device.map(Device::known).unwrap_or_default(),
            would: self.would(model, device),
        }
    }

    fn would(&self, model: &Model, device: Option<&Device>) -> Would {
        let rate = device.and_then(Device::rate);
        let hindered = [
            (self.policy.dry_run, Skip::DryRun),
            (model.observe_only, Skip::ObserveOnly),
            (self.paused.is_some(), Skip::Paused),
            (self.strain() == Strain::Short, Skip::Pressure),
            (admission::keeps_up(rate), Skip::FastDevice),
            (device.is_some_and(Device::is_to_rest), Skip::NoGain),
        ];
        Would {
            window: ByteCount(window::opening(rate)),
            hindrances: hindered
                .iter()
                .filter(|(is_so, _)| *is_so)
                .map(|(_, skip)| *skip)
                .collect(),
            holdout: self.policy.holdout,
        }
    }
}

impl Habit {
    fn of(model: &Model, program: String, known: &Known, lead: Option<Duration>) -> Self {
        let parts = || (0..).zip(&model.parts);
        let all: u64 = parts().map(|(_, part)| part.size.div_ceil(STEP)).sum();
        let unread = all.saturating_sub(u64::from(known.order.steps()));
        let name = |part: &crate::catalog::model::Part| {
            let name = part.place.below.file_name().unwrap_or_default();
            name.to_string_lossy().into_owned()
        };
        Self {
            program,
            order: match known.kind {
                Kind::InOrder => Order::InOrder,
                Kind::Own => Order::Own,
                Kind::Unstable => Order::Unstable,
            },
            loads: f64::from(known.weight),
            never_read: ByteCount(if known.is_sure() { unread * STEP } else { 0 }),
            files_never_read: parts()
                .filter(|(index, _)| known.is_unread_part(*index))
                .map(|(_, part)| name(part))
                .collect(),
            begins_within: lead.map(|lead| lead.as_secs_f64()),
        }
    }
}
