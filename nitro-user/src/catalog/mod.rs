//! The files under the watch roots, and which of them belong together.
//!
//! In: the watch roots. Out: identities, places and models of files, for the kernel filter, the engine and the
//! warmers. Everything below a root is untrusted: the agent runs as root and others write there. So nothing is opened
//! but through [`crate::sys::open`], every read is bounded, and symbolic links are resolved in the catalog's own memory.
//!
//! It reads no file data beyond headers and small manifests, and keeps no descriptor below a root.

// In tests a failed unwrap is a failed test; the build without tests still refuses it.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod identity;
pub mod message;
pub mod model;
pub mod report;
pub mod roots;
pub mod service;

use std::{
    collections::HashMap,
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

pub use message::{CatalogEvent, CatalogRequest};
pub use report::ScanReport;
pub use roots::{WatchRoot, open_roots};

use self::{
    identity::Devices,
    model::{Description, LayoutKind, Model, Part, Place},
};
use crate::{
    sys::stat,
    units::{ByteCount, FileId},
};

/// Smallest file that the kernel filter is told of. Below it (manifests, tokenizers, configuration) a file is read in
/// one kernel readahead, so that warming it gains less than the event costs; in the catalog it still is.
pub const SMALLEST_WATCHED: u64 = 1 << 20;

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
    files: HashMap<FileId, (u64, Place)>,
}

impl Catalog {
    /// Looks through `roots`. Vanishing files are no error.
    pub fn scan(roots: &[WatchRoot], devices: Arc<Devices>) -> (Self, ScanReport) {
        let mut catalog = Self {
            devices,
            files: HashMap::new(),
        };
        for root in roots.iter().filter(|root| root.present) {
            catalog.walk(&root.path, Path::new(""));
        }
        let bytes = catalog.files.values().map(|(size, _)| size).sum();
        let report = ScanReport {
            files: catalog.files.len() as u64,
            bytes: ByteCount(bytes),
            ..ScanReport::default()
        };
        (catalog, report)
    }

    fn walk(&mut self, root: &Arc<Path>, below: &Path) {
        let Ok(entries) = std::fs::read_dir(root.join(below)) else {
            return;
        };
        for entry in entries.flatten() {
            let below = below.join(entry.file_name());
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() {
                self.walk(root, &below);
            } else if kind.is_file()
                && let Ok(file) = crate::sys::open::open_beneath(root, &below)
                && let Ok(status) = stat::status_of(&file)
            {
                let id = self.devices.file_id(&status);
                self.files.insert(
                    id,
                    (
                        status.size,
                        Place {
                            root: root.clone(),
                            below,
                        },
                    ),
                );
            }
        }
    }

    /// All files with their sizes in bytes, each once.
    pub fn files(&self) -> impl Iterator<Item = (FileId, u64)> + '_ {
        self.files.iter().map(|(file, (size, _))| (*file, *size))
    }

    /// Where the file is.
    pub fn place(&self, file: FileId) -> Option<Place> {
        self.files.get(&file).map(|(_, place)| place.clone())
    }

    /// What the file is part of; `None` when it is not in the catalog. May read headers and small manifests: call it
    /// on the catalog's own thread.
    pub fn describe(&mut self, file: FileId) -> Option<Description> {
        let (size, place) = self.files.get(&file)?;
        let name = place
            .below
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let part = Part {
            file,
            size: *size,
            header: 0,
            place: place.clone(),
        };
        let model = Model {
            name,
            layout: LayoutKind::Single,
            parts: vec![part],
        };
        Some(Description {
            file,
            model: Arc::new(model),
            position: 0,
        })
    }

    /// The file that an argument of some process names, by its name alone: the process may live in another mount
    /// namespace, so that its path says nothing here. `None` when no file, or more than one, fits.
    pub fn match_argument(&self, argument: &OsStr) -> Option<FileId> {
        let name = Path::new(argument).file_name()?;
        let mut fits = self
            .files
            .iter()
            .filter(|(_, (_, place))| place.below.file_name() == Some(name));
        fits.next().map(|(file, _)| *file)
    }
}
