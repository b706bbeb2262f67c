//! What a batch of changes did to the set of files.
//!
//! In: every single step on the table. Out: the net effect, so that a file that was renamed, or replaced under one of
//! its names, is not reported as gone and come.

use std::collections::{HashMap, HashSet};

use nix::sys::inotify::WatchDescriptor;

use super::{
    SMALLEST_WATCHED,
    table::{DirNumber, NodeNumber, Table},
};
use crate::units::FileId;

/// The steps of one batch.
#[derive(Debug, Default)]
pub(super) struct Delta {
    /// Whether anything is recorded: not during the first scan, where everything is new.
    pub recording: bool,
    /// Files as they were before the batch: size and stamp, `None` for files that were not there.
    before: HashMap<FileId, Option<(u64, u32)>>,
    /// Directories whose listing is another one now.
    pub dirs: HashSet<DirNumber>,
    /// Watches of directories that are gone; to be removed.
    pub unwatched_dirs: Vec<WatchDescriptor>,
    /// Numbers that may be used again when the batch is over.
    pub freed_nodes: Vec<NodeNumber>,
    /// Numbers that may be used again when the batch is over.
    pub freed_dirs: Vec<DirNumber>,
}

/// The net effect of a batch on files worth watching.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct NetChange {
    /// Come, with sizes.
    pub watched: Vec<(FileId, u64)>,
    /// Gone.
    pub unwatched: Vec<FileId>,
    /// Still there with another size or another time.
    pub changed: Vec<FileId>,
}

impl Delta {
    /// A delta that records.
    pub fn recording() -> Self {
        Self {
            recording: true,
            ..Self::default()
        }
    }

    /// Notes how `file` was before it is changed; only the first time counts.
    pub fn touch_file(&mut self, file: FileId, before: Option<(u64, u32)>) {
        if self.recording {
            self.before.entry(file).or_insert(before);
        }
    }

    /// Notes that the listing of `dir` changes.
    pub fn touch_dir(&mut self, dir: DirNumber) {
        if self.recording {
            self.dirs.insert(dir);
        }
    }

    /// The files that were touched so far.
    pub fn files(&self) -> HashSet<FileId> {
        self.before.keys().copied().collect()
    }

    /// The files that were there before, with another size or time.
    pub fn changed(&self, table: &Table) -> Vec<FileId> {
        let changed = |(file, before): (&FileId, &Option<(u64, u32)>)| {
            let now = table.state(*file)?;
            before.is_some_and(|before| before != now).then_some(*file)
        };
        self.before.iter().filter_map(changed).collect()
    }

    /// The net effect, given the table as it is now.
    pub fn settle(&mut self, table: &Table) -> NetChange {
        let mut net = NetChange::default();
        for (file, before) in self.before.drain() {
            let now = table.state(file);
            let worth = |state: Option<(u64, u32)>| state.filter(|(size, _)| *size >= SMALLEST_WATCHED);
            match (worth(before), worth(now)) {
                (None, Some((size, _))) => net.watched.push((file, size)),
                (Some(_), None) => net.unwatched.push(file),
                (Some(was), Some(is)) if was != is => net.changed.push(file),
                _ => {}
            }
        }
        // In a defined order, for whoever reads the trace.
        net.watched.sort_unstable();
        net.unwatched.sort_unstable();
        net.changed.sort_unstable();
        net
    }
}
