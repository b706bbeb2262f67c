//! The files under the watch roots, and which of them belong together.
//!
//! In: the watch roots. Out: identities, places and models of files, for the kernel filter, the engine and the
//! warmers. Everything below a root is untrusted: the agent runs as root and others write there. So nothing is opened
//! but through [`crate::sys::open`], every read is bounded, and symbolic links are resolved in the catalog's own memory.
//!
//! It reads no file data beyond headers and small manifests, and keeps no descriptor below a root.

// In tests a failed unwrap is a failed test; the build without tests still refuses it.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod answers;
pub mod below;
mod changes;
mod contents;
mod delta;
mod describe;
pub mod exclude;
mod growing;
pub mod identity;
pub mod layout;
pub mod lent;
mod links;
mod listing;
mod matching;
pub mod message;
pub mod model;
pub mod parts;
mod presence;
pub mod refused;
pub mod report;
pub mod roots;
mod scan;
pub mod service;
pub mod stores;
mod suggest;
mod table;
#[cfg(test)]
mod tests;
mod unwatch;
mod warning;

use std::{
    collections::{HashMap, HashSet},
    io,
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
};

pub use message::{CatalogEvent, CatalogRequest};
pub use report::ScanReport;
pub use roots::{Suggested, WatchRoot, open_roots};
pub use suggest::add_suggested;
pub use unwatch::{Kept, Left};

pub use self::model::SMALLEST_WATCHED;
use self::{
    answers::Descriptions,
    contents::Contents,
    delta::Delta,
    exclude::Exclude,
    growing::Growing,
    identity::Devices,
    links::Anchor,
    listing::{Job, Watching},
    model::Place,
    refused::Refusal,
    scan::{Means, Reach},
    table::{DirNumber, NONE, NodeNumber, Table},
    warning::Warnings,
};
use crate::units::FileId;

/// Smallest file that a command-line argument is matched with: names such as `config.json` are in every directory.
pub const SMALLEST_MATCHED: u64 = 16 << 20;

/// Most files in one [`CatalogEvent::Watched`] or [`CatalogEvent::Unwatched`].
pub const BATCH: usize = 4096;

/// Why there is no catalog.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// A watch root that does not exist.
    #[error("watch root {path:?} does not exist: create it, or add --wait, which waits for it")]
    Missing {
        /// As it was given.
        path: PathBuf,
    },
    /// A watch root that is a file.
    #[error("watch root {path:?} is not a directory: give the directory that holds it")]
    NotADirectory {
        /// As it was given.
        path: PathBuf,
    },
    /// A watch root that cannot be looked at.
    #[error("cannot look at watch root {path:?}: {source}")]
    Root {
        /// As it was given.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// No inotify, eventfd or thread for the service.
    #[error("cannot {operation}: {source}; {remedy}")]
    Service {
        /// What was tried.
        operation: &'static str,
        /// The system's reason.
        source: io::Error,
        /// What to do.
        remedy: &'static str,
    },
}

/// All files below the watch roots.
#[derive(Debug)]
pub struct Catalog {
    devices: Arc<Devices>,
    exclude: Exclude,
    /// Suggested directories that were unwatched, by what they are: in another namespace their path is another one with each process.
    unwanted: HashSet<(u32, u64)>,
    table: Table,
    anchors: Vec<Anchor>,
    warnings: Warnings,
    /// Directories that have no inotify watch though they should: looked at again from time to time.
    uncovered: HashSet<DirNumber>,
    descriptions: Descriptions,
    contents: Contents,
    /// Directories that are known under another path, whose names are ignored here, by what they are. One that was moved here becomes the only one
    /// once its departure is heard of, which can be a batch later.
    doubles: HashMap<DirNumber, (u32, u64)>,
    /// Files that may still be written to.
    growing: Growing,
    /// Changes that were noticed in passing and not told yet.
    noticed: Delta,
    /// Which part of several it is: see [`parts`].
    part: usize,
    /// Directories that not even root may look into, and whether they are others than was told.
    refused: Vec<Refusal>,
    refusals_changed: bool,
}

impl Catalog {
    /// A catalog that knows no file yet.
    fn new(roots: &[WatchRoot], devices: Arc<Devices>, exclude: Exclude) -> Self {
        let anchors = roots
            .iter()
            .map(|root| Anchor {
                root: root.clone(),
                dir: None,
                dropped: false,
            })
            .collect();
        Self {
            devices,
            exclude,
            unwanted: HashSet::new(),
            table: Table::default(),
            anchors,
            warnings: Warnings::default(),
            uncovered: HashSet::new(),
            descriptions: Descriptions::default(),
            contents: Contents::default(),
            doubles: HashMap::new(),
            growing: Growing::default(),
            noticed: Delta::recording(),
            part: 0,
            refused: Vec::new(),
            refusals_changed: false,
        }
    }

    /// Looks through `roots` once, without following what changes later: see [`service`] for that. Roots that are not
    /// there, and files that vanish, are no error.
    pub fn scan(roots: &[WatchRoot], devices: Arc<Devices>, exclude: Exclude) -> (Self, ScanReport) {
        let mut catalog = Self::new(roots, devices, exclude);
        let stop = AtomicBool::new(false);
        let mut delta = Delta::default();
        catalog.look_through_roots(
            Means {
                inotify: None,
                stop: &stop,
            },
            &mut delta,
        );
        catalog.table.reclaim(&mut delta);
        let report = catalog.report();
        (catalog, report)
    }

    /// Looks through all roots that are there; those that are known, again.
    fn look_through_roots(&mut self, means: Means<'_>, delta: &mut Delta) {
        let mut tops = Vec::new();
        for (number, anchor) in (0..).zip(&mut self.anchors) {
            if anchor.root.present {
                tops.push(*anchor.dir.get_or_insert_with(|| self.table.add_root(number)));
            }
        }
        self.look_through(&tops, Reach::Everything, means, delta);
        self.drop_empty_roots(delta);
    }

    /// Takes out roots that could not be opened, or that another root's tree holds.
    fn drop_empty_roots(&mut self, delta: &mut Delta) {
        for anchor in &mut self.anchors {
            let opened = |dir: DirNumber| self.table.dir(dir).is_some_and(|dir| dir.identity.is_some());
            if let Some(dir) = anchor.dir.filter(|dir| !opened(*dir)) {
                self.table.remove_root(dir, delta);
                anchor.dir = None;
                anchor.dropped |= anchor.root.suggested.is_some();
            }
        }
    }

    /// The work order for listing a directory.
    fn job(&self, dir: DirNumber) -> Option<Job> {
        let known = self.table.dir(dir)?;
        let root = self.anchors.get(known.root as usize)?.root.path.clone();
        let above = (known.node != NONE)
            .then(|| self.table.dir(self.table.parent(known.node)))
            .flatten();
        let above = above.and_then(|above| above.identity).map(|(device, _)| device);
        Some(Job {
            dir,
            root,
            below: self.table.path_of_dir(dir).into(),
            above,
            exclude: self.exclude.clone(),
        })
    }

    /// Notes whether all changes of a directory are told.
    fn watching(&mut self, dir: DirNumber, watching: Watching) {
        match watching {
            Watching::By(_) | Watching::Unasked => {
                self.uncovered.remove(&dir);
                return;
            }
            Watching::InPart(_) => {}
            Watching::Exhausted => self.warnings.once("inotify", || {
                "no inotify watches left: changes in some directories are noticed within a minute only; \
                 raise fs.inotify.max_user_watches"
                    .into()
            }),
            Watching::Refused => self.warnings.once("refused", || {
                "some file systems do not tell of changes: they are looked at once a minute".into()
            }),
        }
        self.uncovered.insert(dir);
    }

    fn path_of_dir(&self, dir: DirNumber) -> PathBuf {
        let root = self.table.dir(dir).and_then(|dir| self.anchors.get(dir.root as usize));
        root.map_or_else(PathBuf::new, |anchor| {
            anchor.root.path.join(self.table.path_of_dir(dir))
        })
    }

    fn place_of(&self, node: NodeNumber) -> Option<Place> {
        let root = self.table.dir(self.table.parent(node))?.root;
        let root = self.anchors.get(root as usize)?.root.path.clone();
        Some(Place {
            root,
            below: self.table.path_of(node).into(),
        })
    }

    /// All files with their sizes in bytes, each once.
    pub fn files(&self) -> impl Iterator<Item = (FileId, u64)> + '_ {
        self.table.files()
    }

    /// Where the file is; its first name when it has several.
    pub fn place(&self, file: FileId) -> Option<Place> {
        self.place_of(self.table.file(file)?)
    }

    /// What was noticed since the last call, for the log.
    pub fn take_warnings(&mut self) -> Vec<String> {
        self.warnings.take()
    }
}
