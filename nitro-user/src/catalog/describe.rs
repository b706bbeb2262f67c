//! What a file is part of: the layouts' answers, made into models and remembered.
//!
//! In: a file. Out: its [`Description`]. Layouts see the catalog through [`CatalogView`], which opens only what the table
//! knows, beneath its root, and bounds what is read. An answer is remembered with the directories and files it rests on (see `answers`), and
//! forgotten when one of them changes.

use std::{
    cell::{Cell, RefCell},
    collections::HashSet,
    ffi::OsStr,
    io::Read,
    os::unix::ffi::OsStrExt,
    path::Path,
    sync::Arc,
};

use super::{
    Catalog,
    answers::Grounds,
    contents::Contents,
    identity::Devices,
    layout::{Content, Listed, Refusal, Seen, View, group_of, read_small},
    links::{Anchor, Target, resolve},
    listing::Names,
    model::{AT_REST, Description, LayoutKind, Model, Part, Place},
    stores::Store,
    table::{DirNumber, Found, NodeKind, NodeNumber, Table},
};
use crate::{
    sys::{clock, open::open_beneath, stat::generation_of},
    units::{FileId, Moment},
};

/// Files opened for one answer.
const MOST_OPENED: usize = 20_000;
/// Bytes read for one answer.
const MOST_READ: u64 = 256 << 20;
/// Files looked at again before an answer is given, those of the model first; the reader waits for it. The others follow, so many at a time.
const LOOKED_BEFORE: usize = 16;
/// Files looked at again at all. Of more, a worker finds out when it opens them.
const MOST_LOOKED: usize = 1024;
/// Refusals noted for one answer.
const MOST_REFUSALS: usize = 16;

/// Where a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whereabouts {
    /// Where it was, or nowhere.
    There {
        /// When it was written to, if that was a moment ago.
        written: Option<Moment>,
    },
    /// Another name leads to it by now, or none: the event that tells so was not looked at yet.
    Moved,
}

impl Catalog {
    /// What the file is part of; `None` when it is not in the catalog (any more). May read headers and small manifests:
    /// call it on the catalog's own thread.
    ///
    /// No event tells of writes (see `listing`), so that the file, and what an answer rests on, is looked at again first: a `statx` each.
    pub fn describe(&mut self, file: FileId) -> Option<Description> {
        let written = match self.whereabouts(file) {
            Whereabouts::There { written } => written,
            Whereabouts::Moved => None,
        };
        self.describe_here(file, written)
    }

    /// As [`Self::describe`], for a file that was looked at just now, and when it was written to.
    pub(super) fn describe_here(&mut self, file: FileId, written: Option<Moment>) -> Option<Description> {
        let node = self.table.file(file)?;
        if let Some((known, grounds)) = self.descriptions.of(file) {
            self.look_again(grounds.files.iter().take(LOOKED_BEFORE).map(|(file, _)| *file));
            // An answer that no longer holds stays where it is: settling what was noticed voids it, and tells so.
            if grounds
                .files
                .iter()
                .all(|(file, was)| self.table.state(*file) == Some(*was))
            {
                return Some(Description { written, ..known });
            }
        }
        let (mut model, mut position, mut grounds) = self.ask_layouts(node)?;
        // Sizes come from the table, which may be behind. Once: a file that is being written to is never the same.
        if self.look_again(grounds.files.iter().take(LOOKED_BEFORE).map(|(file, _)| *file)) {
            (model, position, grounds) = self.ask_layouts(node)?;
        }
        let model = Arc::new(model);
        self.descriptions.remember(&model, grounds);
        Some(Description {
            file,
            model,
            position,
            written,
        })
    }

    /// Looks at some of what else the answer about `file` rests on, from the `from`th turn on; returns the next turn, `None` after the last. What has
    /// changed voids the answer, and is in `noticed`.
    pub fn verify(&mut self, file: FileId, from: usize) -> Option<usize> {
        let (_, grounds) = self.descriptions.of(file)?;
        let most = grounds.files.len().min(MOST_LOOKED);
        let turn = grounds.files.get(from * LOOKED_BEFORE..most)?;
        self.look_again(turn.iter().take(LOOKED_BEFORE).map(|(file, _)| *file));
        (turn.len() > LOOKED_BEFORE).then_some(from + 1)
    }

    fn ask_layouts(&mut self, node: NodeNumber) -> Option<(Model, usize, Grounds)> {
        let view = CatalogView {
            table: &self.table,
            devices: &self.devices,
            contents: RefCell::new(&mut self.contents),
            anchors: &self.anchors,
            dirs: RefCell::default(),
            files: RefCell::default(),
            headed: RefCell::default(),
            refusals: RefCell::default(),
            opened: Cell::new(0),
            read: Cell::new(0),
        };
        let (model, position) = view.model_of(node)?;
        let grounds = view.grounds(&model);
        for refusal in view.refusals.into_inner() {
            let path = refusal.path.to_string_lossy().into_owned();
            self.warnings
                .once(&path, || format!("{path:?} refused: {}", refusal.reason));
        }
        Some((model, position, grounds))
    }

    /// Looks whether the file is where it was last seen.
    pub(super) fn whereabouts(&mut self, file: FileId) -> Whereabouts {
        let names = self.names_of([file]);
        let written = names.iter().map(|(_, names)| names.latest_write()).max();
        let (found, _) = self.take_looks(names);
        if found == 0 && self.table.file(file).is_some() {
            return Whereabouts::Moved;
        }
        Whereabouts::There {
            written: written.and_then(|(modified, changed)| clock::written_at(modified, changed, AT_REST)),
        }
    }

    /// Looks at files again; whether any was another one than the table said.
    fn look_again(&mut self, files: impl IntoIterator<Item = FileId>) -> bool {
        let names = self.names_of(files);
        self.take_looks(names).1
    }

    /// Takes what was found at names; how many files are still there, and whether any was another one than the table said.
    fn take_looks(&mut self, names: Vec<(DirNumber, Names)>) -> (usize, bool) {
        let (mut there, mut changed) = (0, false);
        for (dir, names) in names {
            for (name, found) in self.still_there(dir, &names) {
                if let Found::File { file, size, stamp } = found {
                    there += 1;
                    changed |= self.table.state(file) != Some((size, stamp));
                    self.table.put(dir, name, found, &mut self.noticed);
                }
            }
        }
        (there, changed)
    }
}

/// The catalog as layouts see it.
struct CatalogView<'a> {
    table: &'a Table,
    devices: &'a Devices,
    contents: RefCell<&'a mut Contents>,
    anchors: &'a [Anchor],
    dirs: RefCell<HashSet<DirNumber>>,
    /// Whose sizes were used.
    files: RefCell<HashSet<FileId>>,
    /// Whose content was read.
    headed: RefCell<HashSet<FileId>>,
    refusals: RefCell<Vec<Refusal>>,
    opened: Cell<usize>,
    read: Cell<u64>,
}

impl CatalogView<'_> {
    /// What the answers so far rest on.
    fn grounds(&self, model: &Model) -> Grounds {
        let (headed, used) = (self.headed.borrow(), self.files.borrow());
        let parts: HashSet<FileId> = model.parts.iter().map(|part| part.file).collect();
        let others = headed.union(&used).filter(|file| !parts.contains(file));
        let files = parts.iter().chain(others);
        Grounds {
            dirs: self.dirs.borrow().clone(),
            files: files
                .filter_map(|file| Some((*file, self.table.state(*file)?)))
                .collect(),
        }
    }

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
                        observe_only: self.devices.observes_only(file.device, &seen.path),
                        lent: false,
                        changes_unseen: self.changes_unseen(file),
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
                observe_only: self.devices.observes_only(file.device, &seen.path),
                lent: false,
                changes_unseen: self.changes_unseen(file),
            },
            position,
        ))
    }

    /// Whether no event tells of all changes to the file: on a server others make them.
    fn changes_unseen(&self, file: FileId) -> bool {
        self.devices.store_of(file.device) != Store::Local
    }

    fn part(&self, file: FileId, size: u64, header: u64) -> Option<Part> {
        let node = self.table.file(file)?;
        let root = self.table.dir(self.table.parent(node))?.root;
        let root = self.anchors.get(root as usize)?.root.path.clone();
        self.dirs.borrow_mut().insert(self.table.parent(node));
        self.files.borrow_mut().insert(file);
        let place = Place {
            root,
            below: self.table.path_of(node).into(),
        };
        let of_directory = self.table.dir(self.table.parent(node))?.identity;
        let is_elsewhere = of_directory.is_some_and(|(device, _)| device != file.device);
        let layer = is_elsewhere.then(|| self.devices.layer_of(&place)).flatten();
        let generation = if is_elsewhere && layer.is_none() {
            open_beneath(&place.root, &place.below).map_or(0, generation_of)
        } else {
            0
        };
        Some(Part {
            file,
            size,
            header,
            generation,
            place,
            layer,
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
        let (found, _) = self.table.as_file(node)?;
        if self.devices.observes_only(found.device, &self.seen(node)?.path) {
            return None;
        }
        self.opened.set(self.opened.get() + 1);
        self.headed
            .borrow_mut()
            .extend(self.table.as_file(node).map(|(file, _)| file));
        let root = self.table.dir(self.table.parent(node))?.root;
        let root = &self.anchors.get(root as usize)?.root.path;
        let file = open_beneath(root, Path::new(&self.table.path_of(node))).ok()?;
        Some(Box::new(Counted {
            file: file.take(limit.min(left)),
            read: &self.read,
        }))
    }

    fn read(&self, path: &Path, limit: u64) -> Option<Content> {
        let Target::File(node) = self.find(path) else {
            return None;
        };
        let (file, _) = self.table.as_file(node)?;
        let version = self.table.state(file)?;
        if let Some(known) = self.contents.borrow().of(file, version).filter(|_| version.0 <= limit) {
            self.headed.borrow_mut().insert(file);
            let bytes = known.to_vec();
            return Some(Content { bytes, known: true });
        }
        let content = read_small(self, path, limit)?;
        self.contents.borrow_mut().keep(file, version, &content.bytes);
        Some(content)
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
