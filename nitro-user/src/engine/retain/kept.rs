//! What is known of one model beyond its loads: how much it is used, by whom, and what of it is where.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use super::heat::Heat;
use crate::{
    catalog::model::Model,
    engine::{
        action::{LoadId, ModelPin},
        input::{StepEnd, User},
        learn::row::Run,
        predict::order::union,
    },
    units::{ByteRange, FileId, Moment, STEP},
};

/// What was evicted is not brought back before nothing more of it has gone for so long …
const CALM: Duration = Duration::from_secs(1);

/// … and, once it has gone again unused, for so long, and each time for twice as long, …
const IN_VAIN: Duration = Duration::from_secs(120);

/// … up to this.
const MOST_PATIENCE: Duration = Duration::from_secs(3600);

/// A process has a copy of its own of what it read, if its own memory is so much of it.
const COPY: f64 = 0.8;

/// While it reads, it is asked after so much: any program has some memory of its own.
const LEAST_COPIED: u64 = 64 << 20;

/// How a live process has a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Possession {
    /// Not known yet.
    Unknown,
    /// Mapped: it is in use, though nothing tells of it.
    Mapped,
    /// In memory of its own, or of a device: it does not need the page cache any more.
    Elsewhere,
    /// Neither.
    None,
}

/// What is held of it by the keeper.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pin {
    /// It was hot enough at some time, and has not cooled since.
    pub chosen: bool,
    /// The number under which it is, or is being, locked.
    pub id: Option<ModelPin>,
    /// Bytes that it may hold.
    pub share: u64,
    /// Bytes locked.
    pub held: u64,
    /// Not tried again before.
    pub barred_until: Moment,
    /// Why it could not be locked, or not all of it.
    pub refused: Option<StepEnd>,
}

impl Pin {
    /// Whether all is held that its share allows: what is left of a share may be less than the next step.
    pub const fn is_full(&self, bytes: u64) -> bool {
        self.held >= self.share || self.share < bytes && self.held + STEP > self.share
    }
}

/// That somebody will load a model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expectation {
    /// What of it is read, in the order in which it is; empty where that is not known.
    pub runs: Vec<Run>,
    /// It is being brought in, or was.
    pub given: bool,
}

/// One model.
#[derive(Debug)]
pub struct Kept {
    /// Its files.
    pub model: Arc<Model>,
    /// How much it is used.
    pub heat: Heat,
    /// Somebody asked for it to be pinned.
    pub asked: bool,
    /// What is locked.
    pub pin: Pin,
    /// What is being done about it.
    pub errand: Option<LoadId>,
    /// Loads of it under way.
    pub loading: bool,
    /// What the present load has read of it so far, …
    pub read_so_far: u64,
    /// … and had read when something was last dropped behind it.
    pub dropped_at: u64,
    /// Somebody is expected to load it.
    pub expected: Option<Expectation>,
    /// What somebody has read, in the files' order, when one load at least is known.
    pub read: Option<Vec<Run>>,
    /// The processes that have loaded it and live.
    pub readers: BTreeMap<u32, Possession>,
    /// Processes that have it mapped, whether they were seen to load it or not.
    pub mapped_by: BTreeSet<u32>,
    /// Somebody dropped it on purpose: nothing is done for it until it is used.
    dismissed: bool,
    /// Bytes that the kernel has taken away since it was there, and when the last of them.
    lost: u64,
    lost_at: Moment,
    /// It was brought back and nobody has used it since.
    returned: bool,
    patience: Duration,
}

impl Kept {
    /// One that so much is known of.
    pub fn new(model: Arc<Model>, heat: Heat, asked: bool) -> Self {
        Self {
            model,
            heat,
            asked,
            pin: Pin::default(),
            errand: None,
            loading: false,
            read_so_far: 0,
            dropped_at: 0,
            expected: None,
            read: None,
            readers: BTreeMap::new(),
            mapped_by: BTreeSet::new(),
            dismissed: false,
            lost: 0,
            lost_at: Moment(0),
            returned: false,
            patience: CALM,
        }
    }

    /// Where its first part is: its name beyond a restart.
    pub fn path(&self) -> Option<PathBuf> {
        path_of(&self.model)
    }

    /// What is worth keeping, as ranges of its parts: what was read; all, while that is not known.
    pub fn spans(&self) -> Vec<(usize, ByteRange)> {
        let parts = self.model.parts.iter().enumerate();
        match &self.read {
            None => parts
                .map(|(part, known)| (part, ByteRange::new(0, known.size)))
                .collect(),
            Some(runs) => runs.iter().filter_map(|run| span(&self.model, run)).collect(),
        }
    }

    /// Bytes of these.
    pub fn bytes(&self) -> u64 {
        match &self.read {
            None => self
                .model
                .parts
                .iter()
                .map(|part| part.size)
                .fold(0, u64::saturating_add),
            Some(runs) => {
                let spans = runs.iter().filter_map(|run| span(&self.model, run));
                spans.map(|(_, range)| range.len()).fold(0, u64::saturating_add)
            }
        }
    }

    /// This was read, too.
    pub fn was_read(&mut self, runs: Vec<Run>) {
        let read = self.read.take().unwrap_or_default();
        self.read = Some(union(read.into_iter().chain(runs).collect()));
    }

    /// Whether `file` is one of its parts.
    pub fn has(&self, file: FileId) -> bool {
        self.model.parts.iter().any(|part| part.file == file)
    }

    /// Whether somebody is expected to load it.
    pub const fn is_expected(&self) -> bool {
        self.expected.is_some()
    }

    /// Whether it is still to be brought in for whoever is expected.
    pub fn is_to_come(&self) -> bool {
        let is_new = self.expected.as_ref().is_some_and(|expected| !expected.given);
        is_new && self.errand.is_none() && !self.loading && self.is_wanted()
    }

    /// It is used.
    pub fn used(&mut self, now: Moment, half_life: Duration) {
        self.heat.used(now, half_life);
        (self.returned, self.dismissed, self.patience) = (false, false, CALM);
        // Whoever reads it brings it in.
        (self.lost, self.read_so_far, self.dropped_at) = (0, 0, 0);
    }

    /// Somebody wants it pinned.
    pub fn ask_for(&mut self) {
        (self.asked, self.dismissed) = (true, false);
        (self.pin.barred_until, self.pin.refused) = (Moment(0), None);
    }

    /// Whether anything may be done for it.
    pub fn is_wanted(&self) -> bool {
        !self.dismissed && !self.model.observe_only && !self.model.lent && !self.is_elsewhere()
    }

    /// Whether somebody uses it without a sign.
    pub fn is_in_use(&self) -> bool {
        self.loading || !self.mapped_by.is_empty() || self.is_elsewhere()
    }

    /// Whether everybody who loaded it and lives has the data elsewhere.
    pub fn is_elsewhere(&self) -> bool {
        !self.loading
            && self.mapped_by.is_empty()
            && !self.readers.is_empty()
            && self.readers.values().all(|had| *had == Possession::Elsewhere)
    }

    /// Whether those who load it copy it into memory of their own: what they have read they do not need any more.
    pub fn is_copied(&self) -> bool {
        self.loading
            && self.read_so_far >= LEAST_COPIED
            && self.mapped_by.is_empty()
            && !self.readers.is_empty()
            && self.readers.values().all(|had| *had == Possession::Elsewhere)
    }

    /// Learns who has it, and how: all that live.
    pub fn learn(&mut self, users: &[User]) {
        let bytes = if self.loading { self.read_so_far } else { self.bytes() };
        self.mapped_by = users
            .iter()
            .filter(|user| user.maps.iter().any(|file| self.has(*file)))
            .map(|user| user.process)
            .collect();
        let mapped_by = &self.mapped_by;
        self.readers.retain(|process, possession| {
            let Some(user) = users.iter().find(|user| user.process == *process) else {
                return false;
            };
            let copied = user.anonymous.0 as f64 >= bytes as f64 * COPY;
            *possession = match mapped_by.contains(process) {
                true => Possession::Mapped,
                false if user.accelerator || copied => Possession::Elsewhere,
                false => Possession::None,
            };
            true
        });
    }

    /// The kernel took `bytes` of it away.
    pub fn lost(&mut self, now: Moment, bytes: u64) {
        if self.returned && self.lost == 0 {
            // It was in vain.
            self.patience = (self.patience * 2).clamp(IN_VAIN, MOST_PATIENCE);
        }
        self.lost = self.lost.saturating_add(bytes);
        self.lost_at = now;
    }

    /// Its pages were of no use: it stays away as long as that is so.
    pub fn dropped(&mut self) {
        self.lost = self.bytes();
    }

    /// Somebody dropped it on purpose: it stays away until it is used.
    pub fn dismiss(&mut self) {
        (self.asked, self.dismissed, self.lost) = (false, true, 0);
    }

    /// It is used too little to be brought back.
    pub fn let_lie(&mut self) {
        self.lost = 0;
    }

    /// All was done that can be done to lock it.
    pub fn is_settled(&self, now: Moment) -> bool {
        let pin = &self.pin;
        let is_done = pin.is_full(self.bytes()) || pin.refused.is_some() || pin.barred_until > now;
        self.errand.is_none() && (!self.asked || is_done)
    }

    /// All of it is there again.
    pub fn returned(&mut self) {
        self.lost = 0;
        self.returned = true;
    }

    /// It could not be brought back now.
    pub fn postponed(&mut self, now: Moment) {
        self.lost_at = now;
        self.patience = (self.patience * 2).min(MOST_PATIENCE);
    }

    /// When it may be brought back; `None` while nothing of it has gone.
    pub fn returns_at(&self) -> Option<Moment> {
        (self.lost > 0 && self.is_wanted()).then(|| self.lost_at.after(self.patience))
    }

    /// Bytes of it that have gone, at least.
    pub const fn bytes_lost(&self) -> u64 {
        self.lost
    }
}

/// Which bytes of which part a run is; `None` where it lies outside.
pub fn span(model: &Model, run: &Run) -> Option<(usize, ByteRange)> {
    let (part, first) = (run.part as usize, u64::from(run.first));
    let size = model.parts.get(part)?.size;
    let (start, end) = (first * STEP, (first + u64::from(run.steps)) * STEP);
    let range = ByteRange {
        start,
        end: end.min(size),
    };
    (start < size).then_some((part, range))
}

/// Where the first part of a model is.
pub fn path_of(model: &Model) -> Option<PathBuf> {
    let first = model.parts.first()?;
    Some(first.place.root.join(&first.place.below))
}
