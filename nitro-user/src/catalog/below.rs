//! What people mean by a path: the models of the files there.
//!
//! In: absolute paths of files and directories. Out: the models, with those of their parts that are meant. Links lead to what they name, as far as that is watched: a snapshot
//! of a Hugging Face cache holds nothing else. As with all names, the file system is not asked.

use std::{
    collections::{BTreeSet, HashMap},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Catalog,
    links::{Target, resolve},
    model::{Description, Model},
    table::DirNumber,
};
use crate::units::FileId;

/// Files that one request is about, at most.
const MOST_FILES: usize = 1 << 16;

/// What was found at paths.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Models, and indexes of those of their parts that are there.
    pub models: Vec<(Arc<Model>, Vec<usize>)>,
    /// Paths at and below which nothing is watched.
    pub strangers: Vec<PathBuf>,
    /// There are more than can be told.
    pub too_many: bool,
}

impl Catalog {
    /// The models of all files at or below these paths. May read headers, as [`Self::describe`].
    pub fn models_at(&mut self, paths: &[PathBuf]) -> Found {
        let mut found = Found::default();
        let (mut files, mut seen) = (Vec::new(), BTreeSet::new());
        for path in paths {
            let here = self.files_below(path);
            if here.is_empty() {
                found.strangers.push(path.clone());
            }
            files.extend(here.into_iter().filter(|file| seen.insert(*file)));
        }
        found.too_many = files.len() > MOST_FILES;
        files.truncate(MOST_FILES);
        // By address: the catalog hands out the same model for each of its files.
        let mut known: HashMap<*const Model, usize> = HashMap::new();
        for file in files {
            let Some(described) = self.describe(file) else { continue };
            let models = &mut found.models;
            let at = *known.entry(Arc::as_ptr(&described.model)).or_insert_with(|| {
                models.push((described.model.clone(), Vec::new()));
                models.len() - 1
            });
            if let Some((_, parts)) = models.get_mut(at) {
                parts.push(described.position);
            }
        }
        for (_, parts) in &mut found.models {
            parts.sort_unstable();
        }
        found
    }

    /// What the file at a path is part of.
    pub fn describe_at(&mut self, path: &Path) -> Option<Description> {
        let file = *self.files_below(path).first()?;
        self.describe(file)
    }

    /// The watched files at or below a path, each once, in the order of the table.
    fn files_below(&self, path: &Path) -> Vec<FileId> {
        let mut dirs: Vec<DirNumber> = Vec::new();
        let mut files = Vec::new();
        match resolve(&self.table, &self.anchors, None, path.as_os_str().as_encoded_bytes()) {
            Target::File(node) => files.extend(self.table.as_file(node).map(|(file, _)| file)),
            Target::Directory(dir) => dirs.push(dir),
            Target::Nothing { .. } | Target::Outside(_) => {
                let below = self.anchors.iter().filter(|anchor| anchor.root.path.starts_with(path));
                dirs.extend(below.filter_map(|anchor| anchor.dir));
            }
        }
        let mut seen: BTreeSet<DirNumber> = dirs.iter().copied().collect();
        let mut known: BTreeSet<FileId> = BTreeSet::new();
        while let Some(dir) = dirs.pop() {
            for node in self.table.children(dir) {
                if let Some((file, _)) = self.table.as_file(node) {
                    if known.insert(file) {
                        files.push(file);
                    }
                    continue;
                }
                let target = match self.table.as_link(node) {
                    Some(text) => resolve(&self.table, &self.anchors, Some(dir), text),
                    None => match self.table.as_dir(node) {
                        Some(dir) => Target::Directory(dir),
                        None => continue,
                    },
                };
                match target {
                    Target::File(node) => {
                        let file = self.table.as_file(node).map(|(file, _)| file);
                        files.extend(file.filter(|file| known.insert(*file)));
                    }
                    Target::Directory(dir) if seen.insert(dir) => dirs.push(dir),
                    Target::Directory(_) | Target::Nothing { .. } | Target::Outside(_) => {}
                }
            }
            if files.len() > MOST_FILES {
                break;
            }
        }
        files
    }
}
