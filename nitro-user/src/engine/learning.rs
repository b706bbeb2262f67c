//! What is learned beyond single loads: it goes out as changes of rows, and comes back as rows when the agent starts.

use std::{path::Path, time::Duration};

use super::{
    Engine,
    action::{Action, LoadId},
    learn::row::{Change, Row},
    load::{Load, Stage},
    plan::device::{Device, Knowledge},
    retain::{
        heat::{Heat, decayed},
        path_of,
    },
};
use crate::units::Moment;

/// A reader that was announced is expected after the time in which so many had begun, …
const LIKELY: f64 = 0.9;

/// … and given up after the one in which so many had.
const SURELY: f64 = 0.98;

impl Engine {
    /// The time since 1970 at a moment.
    pub(super) fn since_1970(&self, at: Moment) -> Duration {
        self.policy.booted.saturating_add(at.since(Moment(0)))
    }

    /// What was kept of the last run.
    pub(super) fn learned(&mut self, now: Moment, rows: &[Row]) {
        let (unix, half_life) = (self.since_1970(now), self.policy.retain.half_life);
        self.experience.restore(unix, rows);
        let mut hot: Vec<(_, f64, bool)> = Vec::new();
        for row in rows {
            if let Row::Heat { model, heat, asked, at } = row
                && let Some(path) = self.experience.path(*model)
            {
                let age = unix.saturating_sub(Duration::from_secs(*at));
                hot.push((path.to_owned(), decayed(*heat, age, half_life), *asked));
            }
        }
        hot.sort_by(|one, other| other.1.total_cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
        let hot = hot.into_iter();
        self.retention.restore(
            hot.map(|(path, heat, asked)| (path, Heat::new(heat, now), asked))
                .collect(),
        );
    }

    /// What was known of a device.
    pub(super) fn recalled(&mut self, number: u32, knowledge: Knowledge, actions: &mut Vec<Action>) {
        let device = self.devices.entry(number).or_default();
        device.recall(knowledge);
        for load in self.loads.values_mut().filter(|load| load.key.device == number) {
            load.recalled(device, actions);
        }
    }

    /// Until it is known whose load it is, it is taken for one of the program that loads this model, if there is only one.
    pub(super) fn presume_course(&self, load: &mut Load) {
        let unix = self.since_1970(self.now);
        if let Some(path) = path_of(&load.model) {
            load.presume(self.experience.only_course(unix, &path, load.model_bytes().0));
        }
    }

    /// Whose load it is has become known: so the program has loaded this model before, as far as anybody knows.
    pub(super) fn recall_course(&mut self, now: Moment, id: LoadId) {
        let unix = self.since_1970(now);
        let Some(load) = self.loads.get_mut(&id).filter(|load| !load.is_recalled()) else {
            return;
        };
        let (Some(program), Some(path)) = (load.readers.program(), path_of(&load.model)) else {
            return;
        };
        let (layout, bytes) = (load.model.layout, load.model_bytes().0);
        let known = self.experience.course(unix, Some(program), &path, bytes);
        let usual = |share| self.experience.lead(unix, layout, Some(program), share);
        let (within, at_last) = (usual(LIKELY), usual(SURELY));
        let rate = self.devices.get(&load.key.device).and_then(|device| device.rate());
        load.recall(known, within, at_last, rate);
        if load.wants() {
            self.wanting.insert(id);
        }
    }

    /// A load is one, and it is known whose: what comes after the last one of this program is learned, and what comes after this one is expected.
    pub(super) fn learn_beginning(&mut self, now: Moment, id: LoadId) {
        let Some(load) = self.loads.get_mut(&id) else { return };
        let is_over = load.stage == Stage::Ended;
        if !(is_over || load.readers.program().is_some()) || !load.take_lesson() {
            return;
        }
        let Some(path) = path_of(&load.model) else { return };
        let (program, brought) = (load.readers.program().map(str::to_owned), load.brought_before);
        let (layout, lead) = (load.model.layout, load.lead());
        let unix = self.since_1970(now);
        self.experience.began(unix, program.as_deref(), &path);
        if let Some(lead) = lead {
            self.experience.waited(unix, layout, program.as_deref(), lead);
        }
        self.foresee(now, program.as_deref(), &path, brought);
    }

    /// A load is over: how it was read is learned.
    pub(super) fn learn_end(&mut self, now: Moment, id: LoadId) {
        self.learn_beginning(now, id);
        let unix = self.since_1970(now);
        let Some(load) = self.loads.get_mut(&id) else { return };
        let Some(path) = path_of(&load.model) else { return };
        if let Some(seen) = load.take_course() {
            let bytes = load.model_bytes().0;
            self.experience.ended(unix, load.readers.program(), &path, bytes, seen);
        }
    }

    /// What was learned of the models at or below a path is forgotten; without one, everything.
    pub(super) fn forget_learned(&mut self, path: Option<&Path>, actions: &mut Vec<Action>) {
        self.experience.forget(path);
        self.expect_nothing(path);
        self.retention.forget_learned(path, actions);
        if path.is_none() {
            self.devices.values_mut().for_each(Device::forget);
        }
    }

    /// Hands out what is to be kept of what has changed.
    pub(super) fn teach(&mut self, now: Moment, actions: &mut Vec<Action>) {
        let unix = self.since_1970(now);
        let mut heat = Vec::new();
        for (path, of_it, asked) in self.retention.take_news(now) {
            heat.push(Change::Put(Row::Heat {
                model: self.experience.model(unix, &path),
                heat: of_it,
                asked,
                at: unix.as_secs(),
            }));
        }
        // The models' rows come before those that mention them.
        let changes = self.experience.take_changes(unix).into_iter().chain(heat);
        actions.extend(changes.map(Action::Learn));
    }
}
