//! Which model a file belongs to, asked of the catalog once per file.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use super::input::Access;
use crate::{
    catalog::model::{Description, Model},
    units::FileId,
};

/// Accesses kept while the catalog is asked; later ones of the same file replace the middle.
const WAITING: usize = 64;

/// Files remembered; past it, everything is asked again. A model has hundreds of files at most.
const REMEMBERED: usize = 65_536;

#[derive(Debug)]
enum Known {
    Asked(VecDeque<Access>),
    /// With the generation of the first access that told one, 0 before.
    Part(Arc<Model>, usize, u32),
    Stranger,
}

/// The engine's own copy of what the catalog said.
#[derive(Debug, Default)]
pub struct Library {
    files: HashMap<FileId, Known>,
}

/// What is known of an access's file.
pub enum Lookup {
    /// It is this part of this model.
    Known(Arc<Model>, usize),
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
    /// Looks the file of an access up, and keeps the access if it must wait.
    pub fn find(&mut self, access: Access) -> Lookup {
        match self.files.get_mut(&access.file) {
            Some(Known::Part(model, part, generation)) => {
                match (*generation, access.generation) {
                    (0, now) => *generation = now,
                    (was, now) if now != 0 && now != was => return Lookup::Reused,
                    _ => {}
                }
                Lookup::Known(model.clone(), *part)
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
    pub fn learn(&mut self, file: FileId, description: Option<Description>) -> VecDeque<Access> {
        let known = match description {
            Some(found) if found.position < found.model.parts.len() => {
                // The other parts belong to the same model: no need to ask for each.
                for (position, part) in found.model.parts.iter().enumerate() {
                    if !matches!(self.files.get(&part.file), Some(Known::Asked(_))) {
                        self.files
                            .insert(part.file, Known::Part(found.model.clone(), position, 0));
                    }
                }
                Known::Part(found.model, found.position, 0)
            }
            _ => Known::Stranger,
        };
        match self.files.insert(file, known) {
            Some(Known::Asked(waiting)) => waiting,
            _ => VecDeque::new(),
        }
    }

    /// Forgets a file, and the models it is part of.
    pub fn forget(&mut self, file: FileId) {
        let Some(Known::Part(model, ..)) = self.files.remove(&file) else {
            return;
        };
        for part in &model.parts {
            if matches!(self.files.get(&part.file), Some(Known::Part(other, ..)) if Arc::ptr_eq(other, &model)) {
                self.files.remove(&part.file);
            }
        }
    }
}
