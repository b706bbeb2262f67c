//! What the engine does when a file is not what it was: stale, gone, no longer watched, or taken out of the page cache.

use std::{collections::BTreeSet, path::Path};

use super::{
    Engine, WRITTEN_TO,
    action::{Action, LoadId},
    happening::Skip,
};
use crate::units::{ByteRange, FileId, Moment};

impl Engine {
    /// Notes that what is known of a file does not hold; whether the same was found a moment ago.
    pub(super) fn was_stale(&mut self, now: Moment, file: FileId) -> bool {
        self.stale.retain(|_, at| now.since(*at) < WRITTEN_TO);
        let known = self.stale.contains_key(&file);
        self.stale.entry(file).or_insert(now);
        known
    }

    /// The catalog was behind: what it said of the file is forgotten, and asked for again. A file that has been stale a moment ago is being written
    /// to: the load is left alone, since its next description would be as short-lived.
    pub(super) fn renew(&mut self, now: Moment, id: LoadId, file: FileId, actions: &mut Vec<Action>) {
        if self.was_stale(now, file) {
            self.library.forget(file);
            if let Some(load) = self.loads.get_mut(&id) {
                load.skip(Skip::Changed, actions);
            }
            return;
        }
        self.gone(file, false, actions);
        actions.push(Action::Describe(file));
    }

    /// Pages left the page cache.
    pub(super) fn removed(&mut self, now: Moment, file: FileId, range: ByteRange) {
        self.budget.evicted(file, range);
        self.retention.removed(now, file, range);
        for load in self.loads.values_mut() {
            load.evicted(file, range);
        }
    }

    /// Loads of the file end; `entirely`: it is not only another one now.
    pub(super) fn gone(&mut self, file: FileId, entirely: bool, actions: &mut Vec<Action>) {
        self.library.forget(file);
        self.retention.gone(file, actions);
        let concerned: Vec<LoadId> = self
            .loads
            .values()
            .filter(|load| load.reads(file))
            .map(|load| load.id)
            .collect();
        for id in concerned {
            if let Some(load) = self.loads.get_mut(&id) {
                load.skip(if entirely { Skip::Gone } else { Skip::Changed }, actions);
            }
            self.end(id, actions);
        }
        if entirely {
            self.budget.forget(file);
        }
    }

    /// Nothing at or below `path` is watched any more.
    pub(super) fn unwatched(&mut self, path: &Path, actions: &mut Vec<Action>) {
        let kept = self.retention.kept().flat_map(|(_, kept)| &kept.model.parts);
        let parts = self.loads.values().flat_map(|load| &load.model.parts).chain(kept);
        let here: BTreeSet<FileId> = parts.filter(|part| part.is_at(path)).map(|part| part.file).collect();
        for file in here {
            self.gone(file, true, actions);
        }
        self.library.forget_at(path);
    }
}
