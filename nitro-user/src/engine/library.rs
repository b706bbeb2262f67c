//! Which model a file belongs to, asked of the catalog once per file.

use std::{
    collections::{HashMap, VecDeque},
    path::Path,
    sync::Arc,
    time::Duration,
};

use super::input::Access;
use crate::{
    catalog::model::{Description, Model},
    units::{FileId, Moment},
};

/// Accesses kept while the catalog is asked; later ones of the same file replace the middle.
const WAITING: usize = 64;

/// A file that was being written is asked about again after so long.
const RESTLESS: Duration = Duration::from_secs(1);

/// Files remembered; past it, everything is asked again. A model has hundreds of files at most.
const REMEMBERED: usize = 65_536;

#[derive(Clone, Debug)]
struct Part {
    model: Arc<Model>,
    position: usize,
    /// As the catalog told it, else of the first access that did; 0 before.
    generation: u32,
    written: Option<Moment>,
    /// When the catalog said so.
    learned: Moment,
}

impl Part {
    /// Whether files of other subvolumes may have its number.
    fn is_one_of_several(&self) -> bool {
        self.model
            .parts
            .get(self.position)
            .is_some_and(|part| part.generation != 0)
    }
}

#[derive(Debug)]
enum Known {
    Asked(VecDeque<Access>),
    Part(Part),
    Stranger,
}

/// The engine's own copy of what the catalog said.
#[derive(Debug, Default)]
pub struct Library {
    files: HashMap<FileId, Known>,
}

/// What is known of an access's file.
pub enum Lookup {
    /// It is this.
    Known(Description),
    /// Nothing: ask the catalog; the access is kept.
    Ask,
    /// The catalog was asked; the access is kept.
    Wait,
    /// It belongs to no watch root.
    Stranger,
    /// Another file has this inode number now.
    Reused,
}

impl Library {
    /// Whether it can tell of a file without asking.
    pub fn knows(&self, file: FileId) -> bool {
        matches!(self.files.get(&file), Some(Known::Part(_)))
    }

    /// Looks the file of an access up, and keeps the access if it must wait.
    pub fn find(&mut self, now: Moment, access: Access) -> Lookup {
        if let Some(Known::Part(part)) = self.files.get(&access.file)
            && part.written.is_some()
            && now.since(part.learned) >= RESTLESS
        {
            self.forget(access.file);
        }
        match self.files.get_mut(&access.file) {
            Some(Known::Part(part)) => {
                match (part.generation, access.generation) {
                    (0, now) => part.generation = now,
                    // The number is not this file's alone, and it is not this file that is read.
                    (was, now) if now != 0 && now != was && part.is_one_of_several() => return Lookup::Stranger,
                    (was, now) if now != 0 && now != was => return Lookup::Reused,
                    _ => {}
                }
                Lookup::Known(Description {
                    file: access.file,
                    model: part.model.clone(),
                    position: part.position,
                    written: part.written,
                })
            }
            Some(Known::Stranger) => Lookup::Stranger,
            Some(Known::Asked(waiting)) => {
                // The first accesses tell where it began, the last where it is.
                if waiting.len() >= WAITING {
                    waiting.pop_back();
                }
                waiting.push_back(access);
                Lookup::Wait
            }
            None => {
                if self.files.len() >= REMEMBERED {
                    self.files.clear();
                }
                self.files.insert(access.file, Known::Asked(VecDeque::from([access])));
                Lookup::Ask
            }
        }
    }

    /// Takes an answer; returns the accesses that waited for it.
    pub fn learn(&mut self, now: Moment, file: FileId, description: Option<Description>) -> VecDeque<Access> {
        let known = match description {
            Some(found) if found.position < found.model.parts.len() => {
                // The other parts belong to the same model: no need to ask for each.
                for (position, part) in found.model.parts.iter().enumerate() {
                    if !matches!(self.files.get(&part.file), Some(Known::Asked(_))) {
                        let other = Part {
                            model: found.model.clone(),
                            position,
                            generation: part.generation,
                            written: None,
                            learned: now,
                        };
                        self.files.insert(part.file, Known::Part(other));
                    }
                }
                let told = found.model.parts.get(found.position);
                Known::Part(Part {
                    generation: told.map_or(0, |part| part.generation),
                    model: found.model,
                    position: found.position,
                    written: found.written,
                    learned: now,
                })
            }
            _ => Known::Stranger,
        };
        match self.files.insert(file, known) {
            Some(Known::Asked(waiting)) => waiting,
            _ => VecDeque::new(),
        }
    }

    /// Forgets all models with a part at or below `path`.
    pub fn forget_at(&mut self, path: &Path) {
        // A model is looked through once, not once for each of its files.
        let mut there: HashMap<*const Model, bool> = HashMap::new();
        self.files.retain(|_, known| match known {
            Known::Part(Part { model, .. }) => !*there
                .entry(Arc::as_ptr(model))
                .or_insert_with(|| model.parts.iter().any(|part| part.is_at(path))),
            Known::Asked(_) | Known::Stranger => true,
        });
    }

    /// Forgets a file, and the models it is part of.
    pub fn forget(&mut self, file: FileId) {
        let Some(Known::Part(Part { model, .. })) = self.files.remove(&file) else {
            return;
        };
        for part in &model.parts {
            if matches!(self.files.get(&part.file), Some(Known::Part(other)) if Arc::ptr_eq(&other.model, &model)) {
                self.files.remove(&part.file);
            }
        }
    }
}
