//! What loads have taught, and what can be concluded from it: who loads what after what, in which order it is read, how soon after the first sign.
//!
//! In: loads as they begin and end, by the names of their programs and the paths of their models; rows of the last run. Out: what may come next, how a model will be read, and the
//! rows that have changed. Times are since 1970.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    learn::{
        names::Names,
        row::{Change, Number, Row},
    },
    predict::{
        lead::Leads,
        order::{Known, Lesson, Orders, Seen},
        successors::{Candidate, Successors},
    },
};
use crate::catalog::model::LayoutKind;

/// So often it is looked whether a program has fallen silent.
const SETTLED: Duration = Duration::from_secs(600);

/// A model that may be loaded next.
#[derive(Clone, Debug, PartialEq)]
pub struct Expected {
    /// Where its first part is.
    pub path: PathBuf,
    /// How likely, when, and why.
    pub candidate: Candidate,
}

/// All of it.
#[derive(Debug, Default)]
pub struct Experience {
    names: Names,
    successors: Successors,
    orders: Orders,
    leads: Leads,
    settled: Duration,
    /// Everything is to be forgotten where it is kept.
    is_emptied: bool,
}

impl Experience {
    /// Takes what was kept of the last run.
    pub fn restore(&mut self, now: Duration, rows: &[Row]) {
        let successors = rows.iter().filter(|row| matches!(row, Row::Successor(_)));
        self.successors.reserve(successors.count());
        for row in rows {
            self.names.restore(row);
            self.successors.restore(now, row);
            self.orders.restore(now, row);
            self.leads.restore(now, row);
        }
        self.drop_forgotten();
    }

    /// The number of a model, which is used now.
    pub fn model(&mut self, now: Duration, path: &Path) -> Number {
        let number = self.names.model(now, path);
        self.drop_forgotten();
        number
    }

    /// The same of a program; 0 where nobody knows which.
    fn program(&mut self, now: Duration, name: Option<&str>) -> Number {
        let number = name.map_or(0, |name| self.names.program(now, name));
        self.drop_forgotten();
        number
    }

    /// Where the model of a number is.
    pub fn path(&self, model: Number) -> Option<&Path> {
        self.names.path(model)
    }

    /// What a program of a number is called.
    pub fn name(&self, program: Number) -> Option<&str> {
        self.names.name(program)
    }

    /// A program begins to load a model.
    pub fn began(&mut self, now: Duration, program: Option<&str>, path: &Path) {
        let (program, model) = (self.program(now, program), self.model(now, path));
        self.successors.loaded(now, program, model);
    }

    /// What a program loads next, the most likely first.
    pub fn expected(&mut self, now: Duration, program: Option<&str>) -> Vec<Expected> {
        let Some(program) = self.known_program(program) else {
            return Vec::new();
        };
        let candidates = self.successors.predict(now, program).into_iter();
        let known = candidates.filter_map(|candidate| {
            let path = self.names.path(candidate.model)?.to_owned();
            Some(Expected { path, candidate })
        });
        known.collect()
    }

    /// What each program that has read a model loads after it, so many at most of each, with its name.
    pub fn followers(&self, now: Duration, path: &Path, most: usize) -> Vec<(String, Expected)> {
        let Some(model) = self.names.known_model(path) else {
            return Vec::new();
        };
        let mut followers = Vec::new();
        for program in self.orders.programs(model) {
            let name = self.names.name(program).unwrap_or_default();
            let candidates = self.successors.followers(now, program, model).into_iter().take(most);
            followers.extend(candidates.filter_map(|candidate| {
                let path = self.names.path(candidate.model)?.to_owned();
                Some((name.to_owned(), Expected { path, candidate }))
            }));
        }
        followers
    }

    /// A load has ended in which this was read, of a model of so many bytes.
    pub fn ended(
        &mut self,
        now: Duration,
        program: Option<&str>,
        path: &Path,
        bytes: u64,
        seen: Seen,
    ) -> Option<Lesson> {
        let (program, model) = (self.program(now, program), self.model(now, path));
        self.orders.learn(now, model, program, bytes, seen)
    }

    /// How a program has read a model of so many bytes so far.
    pub fn course(&self, now: Duration, program: Option<&str>, path: &Path, bytes: u64) -> Option<Known> {
        let model = self.names.known_model(path)?;
        self.orders.recall(now, model, self.known_program(program)?, bytes)
    }

    /// The same of the only program that has read it.
    pub fn only_course(&self, now: Duration, path: &Path, bytes: u64) -> Option<Known> {
        let model = self.names.known_model(path)?;
        let mut programs = self.orders.programs(model);
        let only = programs.next().filter(|_| programs.next().is_none())?;
        self.orders.recall(now, model, only, bytes)
    }

    /// The same of all programs that have read it, by name; the empty one is of those that nobody knew.
    pub fn courses(&self, now: Duration, path: &Path, bytes: u64) -> Vec<(String, Known)> {
        let Some(model) = self.names.known_model(path) else {
            return Vec::new();
        };
        let known = self.orders.programs(model).filter_map(|program| {
            let known = self.orders.recall(now, model, program, bytes)?;
            Some((self.names.name(program).unwrap_or_default().to_owned(), known))
        });
        known.collect()
    }

    /// A program that was announced to load a model of this layout has begun to read so much later.
    pub fn waited(&mut self, now: Duration, layout: LayoutKind, program: Option<&str>, lead: Duration) {
        let program = self.program(now, program);
        self.leads.learn(now, layout, program, lead);
    }

    /// By when after its announcement a share of such loads has begun.
    pub fn lead(&self, now: Duration, layout: LayoutKind, program: Option<&str>, share: f64) -> Option<Duration> {
        let program = self.known_program(program).unwrap_or(0);
        self.leads.within(now, layout, program, share)
    }

    /// Forgets all models at or below a path; everything without one.
    pub fn forget(&mut self, path: Option<&Path>) {
        match path {
            Some(path) => {
                self.names.forget(path);
                self.drop_forgotten();
            }
            None => {
                *self = Self {
                    is_emptied: true,
                    ..Self::default()
                }
            }
        }
    }

    /// What is to be kept and forgotten since the last time, in this order.
    pub fn take_changes(&mut self, now: Duration) -> Vec<Change> {
        if now.saturating_sub(self.settled) >= SETTLED {
            self.settled = now;
            self.successors.settle(now);
        }
        let mut changes = Vec::new();
        if std::mem::take(&mut self.is_emptied) {
            changes.push(Change::ForgetAll);
        }
        changes.extend(self.names.take_changes());
        changes.extend(self.successors.take_changes());
        changes.extend(self.orders.take_changes());
        changes.extend(self.leads.take_changes());
        changes
    }

    /// Predictions made and found right, faded.
    pub fn calibration(&self) -> (f32, f32) {
        self.successors.calibration().counted()
    }

    fn known_program(&self, name: Option<&str>) -> Option<Number> {
        name.map_or(Some(0), |name| self.names.known_program(name))
    }

    /// What has no number any more, nobody knows anything of.
    fn drop_forgotten(&mut self) {
        let forgotten = self.names.take_forgotten();
        if forgotten.models.is_empty() && forgotten.programs.is_empty() {
            return;
        }
        self.successors.forget(&forgotten.models, &forgotten.programs);
        self.orders.forget(&forgotten.models, &forgotten.programs);
        self.leads.forget(&forgotten.programs);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::from_secs(1_767_571_200);

    #[test]
    fn what_was_kept_says_the_same_and_what_is_forgotten_nothing() {
        let (mut experience, mut again) = (Experience::default(), Experience::default());
        let mut now = START;
        let mut rows = Vec::new();
        for _ in 0..12 {
            for path in ["/m/a", "/m/b"] {
                now += Duration::from_secs(60);
                experience.began(now, Some("runner"), Path::new(path));
                experience.waited(now, LayoutKind::Gguf, Some("runner"), Duration::from_secs(3));
            }
            for change in experience.take_changes(now) {
                if let Change::Put(row) = change {
                    rows.push(row);
                }
            }
        }
        again.restore(now, &rows);
        again.began(now, Some("runner"), Path::new("/m/b"));
        experience.began(now, Some("runner"), Path::new("/m/b"));
        let first = |experience: &mut Experience| experience.expected(now, Some("runner"))[0].path.clone();
        assert_eq!(first(&mut experience), Path::new("/m/a"));
        assert_eq!(first(&mut again), Path::new("/m/a"));
        assert!(again.lead(now, LayoutKind::Gguf, Some("runner"), 0.5).is_some());
        assert!(again.expected(now, Some("another")).is_empty());
        again.take_changes(now);
        again.forget(Some(Path::new("/m/a")));
        assert!(
            again
                .expected(now, Some("runner"))
                .iter()
                .all(|found| found.path != Path::new("/m/a"))
        );
        assert!(matches!(again.take_changes(now)[..], [Change::ForgetModel(1), ..]));
        again.forget(None);
        assert!(again.expected(now, Some("runner")).is_empty());
        assert_eq!(again.take_changes(now), [Change::ForgetAll]);
    }
}
