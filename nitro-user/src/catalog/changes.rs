//! Files that appear, change, are renamed or go while the agent runs.
//!
//! In: inotify events. Out: an up-to-date table and the net change. An event is taken as a hint that a name, or a
//! directory, may be another one: what is there *now* is looked up, so that the order and the number of events do not
//! matter, and a rename is seen as what it comes to. Events are collected for [`BURST`] before they are acted upon.
//!
//! It does not wait for events (see `service`) and does not watch the roots' own existence (see `presence`).

use std::{
    collections::{HashMap, HashSet},
    ffi::OsString,
    os::unix::ffi::OsStrExt,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::inotify::{AddWatchFlags, Inotify, InotifyEvent},
};

use super::{
    Catalog,
    delta::{Delta, NetChange},
    listing::{self, Names},
    scan::{Means, Reach},
    table::{DirNumber, NONE},
};

/// How long events are collected. A copy of ten thousand files is then looked at a few times instead of thirty thousand; a
/// deleted file is still told well within a second.
pub(super) const BURST: Duration = Duration::from_millis(50);

/// Names collected after which they are looked at without waiting.
const MOST_PENDING: usize = 65_536;

/// Reads from inotify in one go: a writer that never pauses must not keep the thread from everything else.
const MOST_READS: usize = 256;

/// Events that are not acted upon yet.
#[derive(Debug, Default)]
pub(super) struct Pending {
    names: HashMap<DirNumber, HashSet<OsString>>,
    count: usize,
    dirs: HashSet<DirNumber>,
    /// Events were lost: everything must be looked at.
    pub everything: bool,
    /// A root's top directory may have gone.
    pub roots: bool,
    since: Option<Instant>,
}

impl Pending {
    /// When it is time to act; `None` when there is nothing to do.
    pub fn due(&self) -> Option<Instant> {
        let hurry = self.count >= MOST_PENDING;
        self.since.map(|since| if hurry { since } else { since + BURST })
    }

    /// Somebody waits: what is to be done is due.
    pub fn hurry(&mut self) {
        self.since = self.since.map(|since| since.checked_sub(BURST).unwrap_or(since));
    }

    /// Notes that something is to be done, from `now`.
    pub fn begin(&mut self, now: Instant) {
        self.since.get_or_insert(now);
    }

    /// Notes directories that are to be listed without waiting for more to happen: the rest of what was begun.
    pub fn go_on(&mut self, dirs: impl IntoIterator<Item = DirNumber>, now: Instant) {
        for dir in dirs {
            self.dir(dir, now.checked_sub(BURST).unwrap_or(now));
        }
    }

    /// Notes that a directory is to be looked at.
    pub fn dir(&mut self, dir: DirNumber, now: Instant) {
        self.begin(now);
        self.dirs.insert(dir);
    }
}

impl Catalog {
    /// Takes the waiting events from `inotify`.
    pub(super) fn collect(&mut self, inotify: &Inotify, pending: &mut Pending, now: Instant) {
        for _ in 0..MOST_READS {
            match inotify.read_events() {
                Ok(events) => events.into_iter().for_each(|event| self.note(event, pending, now)),
                Err(Errno::EINTR) => {}
                // EAGAIN: that was all.
                Err(_) => return,
            }
        }
    }

    fn note(&mut self, event: InotifyEvent, pending: &mut Pending, now: Instant) {
        if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
            pending.begin(now);
            pending.everything = true;
            return;
        }
        // Events of directories that were dropped from the table are stale.
        let Some(dir) = self.table.dir_by_watch(event.wd) else {
            return;
        };
        if event.mask.contains(AddWatchFlags::IN_IGNORED) {
            // The kernel took the watch away: the directory is deleted or unmounted.
            self.table.lost_watch(event.wd);
        }
        if let Some(name) = event.name {
            pending.begin(now);
            pending.count += usize::from(pending.names.entry(dir).or_default().insert(name));
            return;
        }
        let own = AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_UNMOUNT
            | AddWatchFlags::IN_IGNORED;
        if event.mask.intersects(own) {
            pending.dir(dir, now);
            pending.roots |= self.table.dir(dir).is_some_and(|dir| dir.node == NONE);
        }
    }

    /// Looks at everything that events hinted at; returns the directories that are still to be listed.
    pub(super) fn apply(&mut self, pending: Pending, means: Means<'_>, delta: &mut Delta) -> Vec<DirNumber> {
        if pending.everything {
            self.look_through_roots(means, delta);
            return Vec::new();
        }
        let mut dirs = pending.dirs;
        let mut found: Vec<(DirNumber, Names)> = Vec::new();
        // First what is gone, then what has come: a directory that was moved is one that is known elsewhere until then.
        for (dir, names) in pending.names {
            let Some(job) = self.job(dir) else { continue };
            match listing::look(&job, names.iter().map(|name| name.as_bytes()), &self.devices) {
                Ok(there) => {
                    self.remove_missing(dir, &names, &there, delta);
                    found.push((dir, there));
                }
                // The directory itself is gone, or unreadable: listing it says which.
                Err(_) => {
                    dirs.insert(dir);
                }
            }
        }
        self.remove_watches(means, delta);
        // A directory that was known under its name may be another one by now.
        for (dir, names) in &found {
            let known = names
                .iter()
                .filter_map(|(name, _)| self.table.as_dir(self.table.child(*dir, name)?));
            dirs.extend(known);
        }
        let dirs: Vec<_> = dirs.into_iter().collect();
        self.look_at(&found, &dirs, Reach::New, means, delta)
    }

    fn remove_missing(&mut self, dir: DirNumber, names: &HashSet<OsString>, there: &Names, delta: &mut Delta) {
        let there: HashSet<&[u8]> = there.iter().map(|(name, _)| name).collect();
        for name in names
            .iter()
            .map(|name| name.as_bytes())
            .filter(|name| !there.contains(name))
        {
            if let Some(node) = self.table.child(dir, name) {
                self.table.remove(node, delta);
            }
        }
    }

    /// Removes the inotify watches of directories that are no longer in the table.
    fn remove_watches(&self, means: Means<'_>, delta: &mut Delta) {
        for watch in delta.unwatched_dirs.drain(..) {
            // A directory that was moved within the roots has the same watch at its new place.
            if self.table.dir_by_watch(watch).is_none()
                && let Some(inotify) = means.inotify
            {
                // EINVAL: the kernel was faster.
                let _ = inotify.rm_watch(watch);
            }
        }
    }

    /// Ends a batch: the net change, with what was noticed in passing.
    pub(super) fn settle(&mut self, mut delta: Delta, means: Means<'_>) -> NetChange {
        self.remove_watches(means, &mut delta);
        let touched = delta.files();
        self.follow_changed(&delta);
        let mut net = delta.settle(&self.table);
        for file in self.descriptions.forget(&delta.dirs, &touched) {
            let told = net.changed.contains(&file) || net.watched.iter().any(|(other, _)| *other == file);
            if !told && self.table.file(file).is_some() {
                net.changed.push(file);
            }
        }
        self.uncovered.retain(|dir| self.table.dir(*dir).is_some());
        self.table.reclaim(&mut delta);
        net
    }
}
