//! What a file is part of: the layouts' answers, made into models and remembered.
//!
//! In: a file. Out: its [`Description`]. Layouts see the catalog through [`CatalogView`], which opens only what the table
//! knows, beneath its root, and bounds what is read. An answer is remembered with the directories it was read from, and
//! forgotten when one of them changes.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, HashSet},
    ffi::OsStr,
    io::Read,
    os::unix::ffi::OsStrExt,
    path::Path,
    sync::Arc,
};

use super::{
    Catalog,
    layout::{Listed, Refusal, Seen, View, group_of},
    links::{Anchor, Target, resolve},
    listing,
    model::{Description, LayoutKind, Model, Part},
    table::{DirNumber, Found, NodeKind, NodeNumber, Table},
};
use crate::{sys::open::open_beneath, units::FileId};

/// Files opened for one answer.
const MOST_OPENED: usize = 20_000;
/// Bytes read for one answer.
const MOST_READ: u64 = 256 << 20;
/// Files of all remembered models together; with more, all are forgotten and asked again.
const MOST_REMEMBERED: usize = 1 << 18;
/// Refusals noted for one answer.
const MOST_REFUSALS: usize = 16;

/// A model with what its description depends on.
#[derive(Debug)]
struct Remembered {
    model: Arc<Model>,
    dirs: HashSet<DirNumber>,
    files: HashSet<FileId>,
}

/// The answers given.
#[derive(Debug, Default)]
pub(super) struct Descriptions {
    by_file: HashMap<FileId, (u64, usize)>,
    models: HashMap<u64, Remembered>,
    next: u64,
}

impl Descriptions {
    fn of(&self, file: FileId) -> Option<Description> {
        let (model, position) = self.by_file.get(&file)?;
        let model = self.models.get(model)?.model.clone();
        Some(Description {
            file,
            model,
            position: *position,
        })
    }

    fn remember(&mut self, model: &Arc<Model>, dirs: HashSet<DirNumber>, files: HashSet<FileId>) {
        if self.by_file.len() + model.parts.len() > MOST_REMEMBERED {
            *self = Self {
                next: self.next,
                ..Self::default()
            };
        }
        self.next += 1;
        self.by_file.extend(
            model
                .parts
                .iter()
                .enumerate()
                .map(|(at, part)| (part.file, (self.next, at))),
        );
        self.models.insert(
            self.next,
            Remembered {
                model: model.clone(),
                dirs,
                files,
            },
        );
    }

    /// Forgets what rests on the listings of `dirs` or on `touched` files; returns the files whose description may be
    /// another one now.
    pub fn forget(&mut self, dirs: &HashSet<DirNumber>, touched: &HashSet<FileId>) -> Vec<FileId> {
        if dirs.is_empty() && touched.is_empty() || self.models.is_empty() {
            return Vec::new();
        }
        let stale = |known: &Remembered| !known.dirs.is_disjoint(dirs) || !known.files.is_disjoint(touched);
        let mut files = Vec::new();
        self.models.retain(|_, remembered| {
            let stale = stale(remembered);
            if stale {
                files.extend(remembered.model.parts.iter().map(|part| part.file));
            }
            !stale
        });
        let models = &self.models;
        self.by_file.retain(|_, (model, _)| models.contains_key(model));
        files
    }
}

impl Catalog {
    /// What the file is part of; `None` when it is not in the catalog (any more). May read headers and small manifests:
    /// call it on the catalog's own thread.
    pub fn describe(&mut self, file: FileId) -> Option<Description> {
        self.look_again(file);
        let node = self.table.file(file)?;
        if let Some(known) = self.descriptions.of(file) {
            return Some(known);
        }
        let view = CatalogView {
            table: &self.table,
            anchors: &self.anchors,
            dirs: RefCell::default(),
            files: RefCell::default(),
            refusals: RefCell::default(),
            opened: Cell::new(0),
            read: Cell::new(0),
        };
        let (model, position) = view.model_of(node)?;
        let (dirs, files, refusals) = (
            view.dirs.into_inner(),
            view.files.into_inner(),
            view.refusals.into_inner(),
        );
        for refusal in refusals {
            let path = refusal.path.to_string_lossy().into_owned();
            self.warnings
                .once(&path, || format!("{path:?} refused: {}", refusal.reason));
        }
        let model = Arc::new(model);
        self.descriptions.remember(&model, dirs, files);
        Some(Description { file, model, position })
    }

    /// Looks at one file again: a truncation tells nobody.
    fn look_again(&mut self, file: FileId) {
        let Some(node) = self.table.file(file) else { return };
        let (dir, name) = (self.table.parent(node), self.table.name(node).to_vec());
        let Some(job) = self.job(dir) else { return };
        let Ok(names) = listing::look(&job, [name.as_slice()], &self.devices) else {
            return;
        };
        for (name, found) in names.iter() {
            // When another file, or none, stands there, it was renamed or deleted: the events on their way say which.
            if matches!(found, Found::File { file: other, .. } if other == file) {
                self.table.put(dir, name, found, &mut self.noticed);
            }
        }
    }
}

/// The catalog as layouts see it.
struct CatalogView<'a> {
    table: &'a Table,
    anchors: &'a [Anchor],
    dirs: RefCell<HashSet<DirNumber>>,
    files: RefCell<HashSet<FileId>>,
    refusals: RefCell<Vec<Refusal>>,
    opened: Cell<usize>,
    read: Cell<u64>,
}

impl CatalogView<'_> {
    fn model_of(&self, node: NodeNumber) -> Option<(Model, usize)> {
        let (file, size) = self.table.as_file(node)?;
        let seen = self.seen(node)?;
        let (layout, group) = group_of(self, &seen.path).unzip();
        let (name, members) = match group {
            Some(group) => (group.name, group.members),
            None => {
                let name = seen.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let part = self.part(file, size, 0)?;
                return Some((
                    Model {
                        name,
                        layout: LayoutKind::Single,
                        parts: vec![part],
                    },
                    0,
                ));
            }
        };
        let parts: Vec<_> = members
            .into_iter()
            .filter_map(|member| self.part(member.seen.file, member.seen.size, member.header))
            .collect();
        let position = parts.iter().position(|part| part.file == file)?;
        Some((
            Model {
                name,
                layout: layout.unwrap_or(LayoutKind::Single),
                parts,
            },
            position,
        ))
    }

    fn part(&self, file: FileId, size: u64, header: u64) -> Option<Part> {
        let node = self.table.file(file)?;
        let root = self.table.dir(self.table.parent(node))?.root;
        let root = self.anchors.get(root as usize)?.root.path.clone();
        self.dirs.borrow_mut().insert(self.table.parent(node));
        self.files.borrow_mut().insert(file);
        Some(Part {
            file,
            size,
            header,
            place: super::model::Place {
                root,
                below: self.table.path_of(node).into(),
            },
        })
    }

    fn seen(&self, node: NodeNumber) -> Option<Seen> {
        let (file, size) = self.table.as_file(node)?;
        let root = self.table.dir(self.table.parent(node))?.root;
        let path = self
            .anchors
            .get(root as usize)?
            .root
            .path
            .join(self.table.path_of(node));
        Some(Seen { file, size, path })
    }

    /// What `path` names; the directories that the answer rests on are noted.
    fn find(&self, path: &Path) -> Target {
        let target = resolve(self.table, self.anchors, None, path.as_os_str().as_bytes());
        let mut dirs = self.dirs.borrow_mut();
        match &target {
            Target::File(node) => {
                dirs.insert(self.table.parent(*node));
                self.files
                    .borrow_mut()
                    .extend(self.table.as_file(*node).map(|(file, _)| file));
            }
            Target::Directory(dir) => {
                dirs.insert(*dir);
            }
            Target::Nothing { last } => dirs.extend(*last),
            Target::Outside(_) => {}
        }
        target
    }
}

impl View for CatalogView<'_> {
    fn file(&self, path: &Path) -> Option<Seen> {
        match self.find(path) {
            Target::File(node) => self.seen(node),
            _ => None,
        }
    }

    fn list(&self, directory: &Path, each: &mut dyn FnMut(&OsStr, Listed) -> bool) -> bool {
        let Target::Directory(dir) = self.find(directory) else {
            return false;
        };
        for node in self.table.children(dir) {
            let listed = match self.table.kind(node) {
                NodeKind::File | NodeKind::Alias => Listed::File(self.table.as_file(node).map_or(0, |(_, size)| size)),
                NodeKind::Directory => Listed::Directory,
                NodeKind::Link => Listed::Link,
                NodeKind::Free => continue,
            };
            if !each(OsStr::from_bytes(self.table.name(node)), listed) {
                break;
            }
        }
        true
    }

    fn head(&self, path: &Path, limit: u64) -> Option<Box<dyn Read + '_>> {
        let Target::File(node) = self.find(path) else {
            return None;
        };
        let left = MOST_READ.saturating_sub(self.read.get());
        if self.opened.get() >= MOST_OPENED || left == 0 {
            return None;
        }
        self.opened.set(self.opened.get() + 1);
        let root = self.table.dir(self.table.parent(node))?.root;
        let root = &self.anchors.get(root as usize)?.root.path;
        let file = open_beneath(root, Path::new(&self.table.path_of(node))).ok()?;
        Some(Box::new(Counted {
            file: file.take(limit.min(left)),
            read: &self.read,
        }))
    }

    fn refuse(&self, path: &Path, reason: &str) {
        let mut refusals = self.refusals.borrow_mut();
        if refusals.len() < MOST_REFUSALS {
            refusals.push(Refusal {
                path: path.to_owned(),
                reason: reason.to_owned(),
            });
        }
    }
}

/// A file whose bytes count towards the bound on an answer.
struct Counted<'a> {
    file: std::io::Take<std::fs::File>,
    read: &'a Cell<u64>,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.read.set(self.read.get() + count as u64);
        Ok(count)
    }
}
