//! What is kept after a load: heat, pins, what is brought back when the kernel has taken it away, and what people ask for by hand.
//!
//! In: who uses what, what left the page cache, what memory there is. Out: [`Errand`]s, whose steps are handed out after those of all loads, and what is to be let go. Nothing here is
//! urgent, and nothing is brought in under pressure; what is locked goes then, the coldest first.

pub mod decide;
pub mod errand;
pub mod heat;
mod kept;
pub mod orders;
mod pins;
mod returned;
pub mod settings;
mod strained;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use self::{
    errand::{Errand, Purpose},
    heat::Heat,
    orders::Order,
};
pub use self::{
    kept::{Expectation, Kept, Possession, path_of},
    returned::Returned,
    settings::Settings,
};
use super::{
    action::{Action, LoadId, ModelPin},
    input::{OrderId, User},
    learn::row::Run,
};
use crate::{
    catalog::model::{Description, Model},
    units::{ByteRange, FileId, Moment},
};

/// Models remembered; the coldest that hold nothing go.
const MOST_KEPT: usize = 4096;

/// Models of which nothing but their heat is remembered.
const MOST_REMEMBERED: usize = 65_536;

/// So often it is asked who has the models mapped that were used.
const LOOK: Duration = Duration::from_secs(60);

/// A reader that is silent has its model for a moment longer in its hands before it is looked at.
const FIRST_LOOK: Duration = Duration::from_secs(1);

/// What is kept of all models.
#[derive(Debug, Default)]
pub struct Retention {
    settings: Settings,
    kept: BTreeMap<FileId, Kept>,
    /// The models that a file is part of.
    of_file: BTreeMap<FileId, BTreeSet<FileId>>,
    errands: BTreeMap<LoadId, Errand>,
    orders: BTreeMap<OrderId, Order>,
    /// Models of the last run that are still to be looked for, the hottest first.
    start: VecDeque<PathBuf>,
    /// The one that the catalog was asked for.
    sought: Option<PathBuf>,
    /// What was known in the last run of models that were not seen since: their heat, and whether somebody had asked for them to be pinned.
    remembered: HashMap<PathBuf, (Heat, bool)>,
    /// When it was last asked who has what, or is to be asked.
    look_at: Option<Moment>,
    /// Bytes locked of all models.
    pinned: u64,
    /// Models of which the heat is to be kept anew.
    news: BTreeSet<FileId>,
    /// Something is to be locked as soon as there is memory.
    is_waiting: bool,
    /// Something is to be brought in or back as soon as there is memory.
    is_ready: bool,
    /// When time alone changes what is to be done.
    wake: Option<Moment>,
    /// What changed since it was last decided what to do.
    is_due: bool,
    /// Pins go no further before this.
    barred_until: Moment,
    bar: Duration,
    paused: bool,
}

impl Retention {
    /// Nothing is kept.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            ..Self::default()
        }
    }

    /// What it was told once.
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The models, for `status`.
    pub fn kept(&self) -> impl Iterator<Item = (&FileId, &Kept)> {
        self.kept.iter()
    }

    /// Bytes locked.
    pub const fn pinned(&self) -> u64 {
        self.pinned
    }

    /// A model is read: once per load.
    pub fn used(&mut self, now: Moment, key: FileId, model: &Arc<Model>, process: u32) {
        let half_life = self.settings.half_life;
        self.news.insert(key);
        let kept = self.entry(now, key, model);
        kept.used(now, half_life);
        kept.loading = true;
        kept.readers.insert(process, Possession::Unknown);
        self.is_due = true;
    }

    /// A load of it is over: this of it was read, by these processes that live.
    pub fn load_ended(&mut self, now: Moment, key: FileId, runs: Vec<Run>, readers: impl Iterator<Item = u32>) {
        let Some(kept) = self.kept.get_mut(&key) else { return };
        kept.loading = false;
        kept.heat.kept(now);
        self.news.insert(key);
        kept.was_read(runs);
        kept.readers
            .extend(readers.map(|process| (process, Possession::Unknown)));
        if !kept.readers.is_empty() {
            let first = now.after(FIRST_LOOK);
            self.look_at = Some(self.look_at.map_or(first, |at| at.min(first)));
        }
        self.is_due = true;
    }

    /// A process has ended.
    pub fn process_ended(&mut self, now: Moment, process: u32) {
        for (key, kept) in &mut self.kept {
            let was_in_use = kept.is_in_use();
            let known = kept.readers.remove(&process).is_some() | kept.mapped_by.remove(&process);
            if known && was_in_use {
                kept.heat.kept(now);
                self.news.insert(*key);
                self.is_due = true;
            }
        }
    }

    /// What is to be kept of models whose heat has changed: path, heat now, whether they were asked for.
    pub fn take_news(&mut self, now: Moment) -> Vec<(PathBuf, f64, bool)> {
        let half_life = self.settings.half_life;
        let news = std::mem::take(&mut self.news).into_iter();
        let news = news.filter_map(|key| {
            let kept = self.kept.get(&key)?;
            Some((kept.path()?, kept.heat.at(now, half_life), kept.asked))
        });
        news.collect()
    }

    /// Who has what, in answer to [`Action::AskUsers`].
    pub fn users(&mut self, now: Moment, users: &[User]) {
        for (key, kept) in &mut self.kept {
            if kept.is_in_use() {
                kept.heat.kept(now);
                self.news.insert(*key);
            }
            kept.learn(users);
        }
        let any = self
            .kept
            .values()
            .any(|kept| !kept.readers.is_empty() || !kept.mapped_by.is_empty());
        self.look_at = any.then(|| now.after(LOOK));
        self.is_due = true;
    }

    /// Memory is short while models are read: it is asked soon what their readers do with them.
    pub fn look_soon(&mut self, now: Moment) {
        let any = self.kept.values().any(|kept| kept.loading);
        let soon = any.then(|| now.after(FIRST_LOOK));
        self.look_at = self.look_at.into_iter().chain(soon).min();
    }

    /// So much was read of a model in the present load.
    pub fn read_so_far(&mut self, key: FileId, bytes: u64) {
        if let Some(kept) = self.kept.get_mut(&key) {
            kept.read_so_far = bytes;
        }
    }

    /// Drops these runs of a model that is being read, which its readers have copied.
    pub fn drop_behind(&mut self, key: FileId, runs: &[Run], next: &mut u64) {
        let Some(kept) = self.kept.get_mut(&key).filter(|kept| kept.errand.is_none()) else {
            return;
        };
        kept.dropped_at = kept.read_so_far;
        let id = LoadId(*next);
        *next += 1;
        kept.errand = Some(id);
        let errand = Errand::along(id, kept.model.clone(), runs, Purpose::Behind);
        self.errands.insert(id, errand);
        self.is_due = true;
    }

    /// Pages left the page cache.
    pub fn removed(&mut self, now: Moment, file: FileId, range: ByteRange) {
        for key in self.of_file.get(&file).into_iter().flatten() {
            if let Some(kept) = self.kept.get_mut(key) {
                kept.lost(now, range.len());
                let comes = kept.returns_at().filter(|_| kept.errand.is_none() && !kept.loading);
                self.wake = self.wake.into_iter().chain(comes).min();
            }
        }
    }

    /// Files are gone, or others, or no longer watched: nothing of them is held.
    pub fn gone(&mut self, file: FileId, actions: &mut Vec<Action>) {
        for key in self.of_file.get(&file).cloned().into_iter().flatten() {
            self.forget(key, actions);
        }
        let concerned = self
            .errands
            .values_mut()
            .filter(|errand| errand.model.parts.iter().any(|part| part.file == file));
        for errand in concerned {
            errand.close();
            actions.push(Action::Cancel { load: errand.id });
            actions.push(Action::Close { load: errand.id });
        }
    }

    /// What was hot when the agent ended last, the hottest first.
    pub fn restore(&mut self, hot: Vec<(PathBuf, Heat, bool)>) {
        let brings = self.settings.rewarm || self.settings.pin.0 > 0;
        let half_life = self.settings.half_life;
        for (path, heat, asked) in hot {
            let is_hot = heat.at(Moment(0), half_life) >= self.settings.unpin_below;
            if brings && (is_hot || asked) {
                self.start.push_back(path.clone());
            }
            self.remembered.insert(path, (heat, asked));
        }
        self.is_due = true;
    }

    /// The catalog's answer about a model of the last run.
    pub fn found(&mut self, now: Moment, path: &Path, description: Option<&Description>) {
        if self.sought.as_deref() == Some(path) {
            self.sought = None;
            self.is_due = true;
        }
        let Some(description) = description else {
            self.remembered.remove(path);
            return;
        };
        let key = super::load::key(&description.model, description.file);
        let below = self.settings.unpin_below;
        let half_life = self.settings.half_life;
        let kept = self.entry(now, key, &description.model);
        // It had been hot enough once.
        kept.pin.chosen = kept.heat.at(now, half_life) >= below;
        kept.lost(Moment(0), kept.bytes());
    }

    /// Whether the catalog was asked for a model of the last run at this path.
    pub fn is_sought(&self, path: &Path) -> bool {
        self.sought.as_deref() == Some(path)
    }

    /// One of the models, by its first file.
    pub fn of(&self, key: FileId) -> Option<&Kept> {
        self.kept.get(&key)
    }

    /// The same by the path of its first part.
    pub fn at(&self, path: &Path) -> Option<(FileId, &Kept)> {
        let mut kept = self.kept.iter();
        kept.find(|(_, kept)| kept.path().as_deref() == Some(path))
            .map(|(key, kept)| (*key, kept))
    }

    /// Somebody is expected to load a model soon, of which these runs are read; all, if there are none.
    pub fn expect(&mut self, now: Moment, key: FileId, model: &Arc<Model>, runs: Vec<Run>) {
        let kept = self.entry(now, key, model);
        kept.expected = Some(Expectation { runs, given: false });
        self.is_due = true;
    }

    /// Nobody is expected any more: they came, or did not.
    pub fn expected_came(&mut self, key: FileId) {
        if let Some(kept) = self.kept.get_mut(&key) {
            kept.expected = None;
        }
        let of_it = |errand: &&mut Errand| {
            let first = errand.model.parts.first().map(|part| part.file);
            errand.purpose == Purpose::Expected && first == Some(key)
        };
        self.errands.values_mut().filter(of_it).for_each(Errand::close);
        self.is_due = true;
    }

    /// As far as was learned in earlier runs, this of a model is read.
    pub fn recall_read(&mut self, key: FileId, runs: Vec<Run>) {
        if let Some(kept) = self.kept.get_mut(&key).filter(|kept| kept.read.is_none()) {
            kept.was_read(runs);
        }
    }

    /// These pins went unasked.
    pub fn unheld(&mut self, now: Moment, pins: &[ModelPin], actions: &mut Vec<Action>) {
        let keys = self
            .kept
            .iter()
            .filter(|(_, kept)| kept.pin.id.is_some_and(|id| pins.contains(&id)));
        let keys: Vec<FileId> = keys.map(|(key, _)| *key).collect();
        for key in keys {
            self.release(key, actions);
        }
        self.hold_off(now);
        self.is_due = true;
    }

    /// Nothing is brought in, and no file held, until it is resumed.
    pub fn pause(&mut self, actions: &mut Vec<Action>) {
        self.paused = true;
        for errand in self.errands.values_mut() {
            actions.push(Action::Cancel { load: errand.id });
            actions.push(Action::Close { load: errand.id });
        }
        let held: Vec<FileId> = self
            .kept
            .iter()
            .filter(|(_, kept)| kept.pin.id.is_some())
            .map(|(key, _)| *key)
            .collect();
        for key in held {
            self.release(key, actions);
        }
    }

    /// The pause is over.
    pub fn resume(&mut self) {
        self.paused = false;
        self.is_due = true;
    }

    /// When something is to be decided though nothing happens.
    pub fn deadline(&self, now: Moment) -> Option<Moment> {
        if self.is_due {
            return Some(now);
        }
        let rests = self.errands.values().filter_map(|errand| errand.deadline(now));
        rests.chain(self.wake).chain(self.look_at).min()
    }

    /// The next moment at which time alone changes what is to be done.
    fn next_change(&self, now: Moment) -> Option<Moment> {
        let settings = &self.settings;
        let models = self.kept.values().filter(|kept| kept.errand.is_none() && !kept.loading);
        let returns = models.clone().filter_map(|kept| kept.returns_at());
        let cool = models
            .filter(|kept| kept.pin.chosen && !kept.asked && !kept.is_in_use())
            .map(|kept| kept.heat.cools_below(settings.unpin_below, settings.half_life));
        let barred = self.kept.values().map(|kept| kept.pin.barred_until);
        let barred = barred.chain([self.barred_until]).filter(|_| settings.pin.0 > 0);
        returns.chain(cool).chain(barred).filter(|at| *at > now).min()
    }

    fn entry(&mut self, now: Moment, key: FileId, model: &Arc<Model>) -> &mut Kept {
        if !self.kept.contains_key(&key) && self.kept.len() >= MOST_KEPT {
            let half_life = self.settings.half_life;
            let idle = self
                .kept
                .iter()
                .filter(|(_, kept)| kept.errand.is_none() && kept.pin.id.is_none() && !kept.asked && !kept.loading);
            let coldest = idle
                .min_by(|(_, one), (_, other)| one.heat.at(now, half_life).total_cmp(&other.heat.at(now, half_life)));
            if let Some(key) = coldest.map(|(key, _)| *key) {
                self.forget(key, &mut Vec::new());
            }
        }
        let is_known = self.kept.get(&key).is_some_and(|kept| Arc::ptr_eq(&kept.model, model));
        if !is_known {
            self.unlist(key);
            for part in &model.parts {
                self.of_file.entry(part.file).or_default().insert(key);
            }
        }
        let remembered = &mut self.remembered;
        let kept = self.kept.entry(key).or_insert_with(|| {
            let path = kept::path_of(model);
            let (heat, asked) = path.and_then(|path| remembered.remove(&path)).unwrap_or_default();
            Kept::new(model.clone(), heat, asked)
        });
        if !is_known {
            if kept.model.parts.len() != model.parts.len() {
                kept.read = None;
            }
            kept.model = model.clone();
        }
        kept
    }

    /// Nothing is known any more of the models at or below a path, or of any; what somebody asked for stays locked.
    pub fn forget_learned(&mut self, path: Option<&Path>, actions: &mut Vec<Action>) {
        let concerns = |at: &Path| path.is_none_or(|path| at.starts_with(path));
        self.remembered.retain(|at, (_, asked)| *asked || !concerns(at));
        self.start.retain(|at| !concerns(at));
        let mut cold = Vec::new();
        for (key, kept) in &mut self.kept {
            if !kept.path().is_some_and(|at| concerns(&at)) {
                continue;
            }
            kept.heat = Heat::default();
            (kept.read, kept.expected, kept.pin.chosen) = (None, None, false);
            kept.let_lie();
            if !kept.asked {
                cold.push(*key);
            }
        }
        for key in cold {
            self.release(key, actions);
        }
        self.is_due = true;
    }

    /// Of a model that comes back under its name it is known how much it was used.
    fn forget(&mut self, key: FileId, actions: &mut Vec<Action>) {
        self.release(key, actions);
        self.unlist(key);
        let Some(kept) = self.kept.remove(&key) else { return };
        if let Some(path) = kept.path().filter(|_| self.remembered.len() < MOST_REMEMBERED) {
            self.remembered.insert(path, (kept.heat, kept.asked));
        }
    }

    /// The files of a model are not known as its own any more.
    fn unlist(&mut self, key: FileId) {
        let Some(kept) = self.kept.get(&key) else { return };
        for part in &kept.model.parts {
            if let Some(keys) = self.of_file.get_mut(&part.file) {
                keys.remove(&key);
                if keys.is_empty() {
                    self.of_file.remove(&part.file);
                }
            }
        }
    }

    /// Nothing of a model is held any more; bytes that were.
    fn release(&mut self, key: FileId, actions: &mut Vec<Action>) -> u64 {
        let Some(kept) = self.kept.get_mut(&key) else { return 0 };
        let Some(pin) = kept.pin.id.take() else { return 0 };
        let errand = kept.errand.and_then(|id| self.errands.get_mut(&id));
        if let Some(errand) = errand.filter(|errand| errand.purpose == Purpose::Pin(pin)) {
            errand.close();
            actions.push(Action::Cancel { load: errand.id });
        }
        actions.push(Action::Release { pin });
        let held = std::mem::take(&mut kept.pin.held);
        self.pinned -= held;
        held
    }
}
