//! What the catalog's thread is asked and what it tells. Values only.

use std::{ffi::OsString, path::PathBuf};

use super::{
    WatchRoot,
    below::Found,
    model::{Description, Place},
    refused::Refusals,
    report::ScanReport,
    unwatch::{Kept, Left},
};
use crate::units::FileId;

/// A question to the catalog's thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CatalogRequest {
    /// What is this file part of? Answered by [`CatalogEvent::Described`].
    Describe(FileId),
    /// Where are these files? Answered by one [`CatalogEvent::Places`].
    Places(Vec<FileId>),
    /// Which watched file does this process name on its command line? Answered by [`CatalogEvent::Matched`] once per
    /// file that was recognised; not answered when none was.
    Match {
        /// The process whose arguments they are; handed back as it is.
        process: u32,
        /// Its command line.
        arguments: Vec<OsString>,
    },
    /// What is at or below these absolute paths? Answered by [`CatalogEvent::Below`] with the same number.
    Below(u64, Vec<PathBuf>),
    /// What is the file at this absolute path? Answered by [`CatalogEvent::Found`].
    Find(PathBuf),
    /// Watch this directory, too, unless it is known. A [`CatalogEvent::Scanned`] follows when it has been looked through.
    Watch(WatchRoot),
    /// Watch nothing at or below this absolute path from now on. Answered by [`CatalogEvent::Left`].
    Unwatch(PathBuf),
}

/// What the catalog's thread tells.
#[derive(Clone, Debug)]
pub enum CatalogEvent {
    /// All roots that exist have been looked through; comes after the `Watched` it led to. Again after each full rescan, and when roots have come or gone.
    Scanned(ScanReport),
    /// These files are to be watched from now on (with their sizes in bytes); at most [`super::BATCH`] per event.
    Watched(Vec<(FileId, u64)>),
    /// These files are gone, or no longer below a root: drop every descriptor, mapping and pin on them.
    Unwatched(Vec<FileId>),
    /// The content, the size or the model of this file may be another one: what was known of it no longer holds.
    Changed(FileId),
    /// The answer to [`CatalogRequest::Describe`]; `None` when the file is not in the catalog (any more).
    Described(Option<Description>, FileId),
    /// The answer to [`CatalogRequest::Places`]: those that are in the catalog, each at one of its names.
    Places(Vec<(FileId, Place)>),
    /// A file that a process named on its command line.
    Matched {
        /// The process, as in the request.
        process: u32,
        /// The file.
        file: FileId,
    },
    /// The answer to [`CatalogRequest::Unwatch`] of this path: what went. The `Unwatched` it led to came before.
    Left(PathBuf, Result<Left, Kept>),
    /// The answer to [`CatalogRequest::Below`].
    Below(u64, Found),
    /// The answer to [`CatalogRequest::Find`]; `None` where there is no watched file.
    Found(PathBuf, Option<Description>),
    /// What this part of the catalog may not look into now: everything, whenever something of it changes.
    Refused(Refusals),
    /// Something for the log: what could not be watched or was refused, and what to do. Rate-limited.
    Warning(String),
}
