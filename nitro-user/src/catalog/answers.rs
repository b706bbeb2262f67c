//! The descriptions that were given, with what they rest on.
//!
//! In: models, with the directories and files that their layouts looked at. Out: the same models again, as long as none of that has changed. It looks
//! at nothing itself.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{
    model::{Description, Model},
    table::DirNumber,
};
use crate::units::FileId;

/// Files of all remembered models together; with more, all are forgotten and asked again.
const MOST_REMEMBERED: usize = 1 << 18;

/// Size in bytes and stamp of a file.
type Version = (u64, u32);

/// What a description rests on.
#[derive(Clone, Debug, Default)]
pub(super) struct Grounds {
    /// Directories whose listings were used.
    pub dirs: HashSet<DirNumber>,
    /// The model's own files, then others whose content was read or whose sizes were used, as they were.
    pub files: Vec<(FileId, Version)>,
}

/// A model with what its description depends on.
#[derive(Debug)]
struct Remembered {
    model: Arc<Model>,
    grounds: Arc<Grounds>,
}

/// The answers given.
#[derive(Debug, Default)]
pub(super) struct Descriptions {
    by_file: HashMap<FileId, (u64, usize)>,
    models: HashMap<u64, Remembered>,
    next: u64,
}

impl Descriptions {
    /// The answer that was given about `file`, and what it rests on.
    pub fn of(&self, file: FileId) -> Option<(Description, Arc<Grounds>)> {
        let (model, position) = self.by_file.get(&file)?;
        let remembered = self.models.get(model)?;
        let description = Description {
            file,
            model: remembered.model.clone(),
            position: *position,
            written: None,
        };
        Some((description, remembered.grounds.clone()))
    }

    /// Keeps an answer.
    pub fn remember(&mut self, model: &Arc<Model>, grounds: Grounds) {
        if self.by_file.len() + model.parts.len() > MOST_REMEMBERED {
            *self = Self {
                next: self.next,
                ..Self::default()
            };
        }
        self.next += 1;
        let parts = model.parts.iter().enumerate();
        self.by_file
            .extend(parts.map(|(at, part)| (part.file, (self.next, at))));
        let remembered = Remembered {
            model: model.clone(),
            grounds: Arc::new(grounds),
        };
        self.models.insert(self.next, remembered);
    }

    /// Forgets what rests on the listings of `dirs` or on `touched` files; returns the files whose description may be
    /// another one now.
    pub fn forget(&mut self, dirs: &HashSet<DirNumber>, touched: &HashSet<FileId>) -> Vec<FileId> {
        if dirs.is_empty() && touched.is_empty() || self.models.is_empty() {
            return Vec::new();
        }
        let stale = |grounds: &Grounds| {
            !grounds.dirs.is_disjoint(dirs) || grounds.files.iter().any(|(file, _)| touched.contains(file))
        };
        let mut files = Vec::new();
        self.models.retain(|_, remembered| {
            let stale = stale(&remembered.grounds);
            if stale {
                files.extend(remembered.model.parts.iter().map(|part| part.file));
            }
            !stale
        });
        let models = &self.models;
        self.by_file.retain(|_, (model, _)| models.contains_key(model));
        files.sort_unstable();
        files.dedup();
        files
    }
}
