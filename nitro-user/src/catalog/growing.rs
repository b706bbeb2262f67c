//! Files that may still be written to: looked at again until they have come to rest.
//!
//! The directories' watches tell of names only, since the ones that tell of writes cost every reader (see `listing`). So a file that has
//! just come, or was found in the middle of a change, is looked at with `statx` after 0.25, 0.5, 1, 2 … s, from the start again
//! whenever it changed. In: files, and how they look. Out: which to look at when, and whether one has come to rest. While there are none, there
//! is no timer.
//!
//! What happens to a file that has been at rest for long is not noticed here: `describe` looks before it answers, and a worker before it
//! warms.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use super::{
    Catalog, SMALLEST_WATCHED,
    changes::BURST,
    delta::Delta,
    listing::{self, Names},
    model::AT_REST,
    table::{DirNumber, Found},
};
use crate::units::FileId;

/// Files that are looked at one by one. A round of all of them takes a few milliseconds.
const MOST: usize = 4096;

/// Until the first look, and until the next one after a change: a file that has come to rest is known to have within two of them.
const FIRST: Duration = Duration::from_millis(250);

/// Longest pause between two looks.
const LONGEST: Duration = Duration::from_secs(30);

/// One that is empty, or that was seen to grow, may be a download that waits for its server: a few more looks, far apart.
const STALLED: Duration = Duration::from_secs(120);

/// A file that a listing finds is at rest when its inode did not change for so long: larger than [`CROWDED`], so that a directory that is looked at
/// again finds what changed since.
pub(super) const RECENT: Duration = Duration::from_secs(60);

/// When there are more than [`MOST`], the directories of the others are looked through after this time.
const CROWDED: Duration = Duration::from_secs(10);

/// Size in bytes and stamp.
type Version = (u64, u32);

#[derive(Debug)]
struct Growth {
    seen: Version,
    /// Unchanged since.
    since: Instant,
    due: Instant,
    pause: Duration,
    changed: bool,
}

impl Growth {
    fn is_over(&self, now: Instant) -> bool {
        let enough = if self.changed || self.seen.0 == 0 {
            STALLED
        } else {
            AT_REST
        };
        now.saturating_duration_since(self.since) >= enough
    }
}

/// The files that may still be written to.
#[derive(Debug, Default)]
pub(super) struct Growing {
    files: HashMap<FileId, Growth>,
    next: Option<Instant>,
    /// Directories with files that found no room above.
    crowded: HashSet<DirNumber>,
    crowded_due: Option<Instant>,
}

impl Growing {
    /// A name of `file`, in `dir`, has just come, or its inode is young.
    pub fn enter(&mut self, file: FileId, dir: DirNumber, seen: Version, now: Instant) {
        if let Some(known) = self.files.get_mut(&file) {
            known.changed |= known.seen != seen;
            (known.seen, known.since, known.pause) = (seen, now, FIRST);
            known.due = known.due.min(now + FIRST);
            self.next = self.next.into_iter().chain([known.due]).min();
            return;
        }
        if self.files.len() >= MOST {
            self.crowded.insert(dir);
            self.crowded_due.get_or_insert(now + CROWDED);
            return;
        }
        let due = now + FIRST;
        let growth = Growth {
            seen,
            since: now,
            due,
            pause: FIRST,
            changed: false,
        };
        self.files.insert(file, growth);
        self.next = self.next.into_iter().chain([due]).min();
    }

    /// `file` was found changed by somebody else's look: it is followed from now on, if it is not already.
    fn follow(&mut self, file: FileId, dir: DirNumber, seen: Version, now: Instant) {
        if !self.files.contains_key(&file) {
            self.enter(file, dir, seen, now);
        }
    }

    /// When something is to be looked at; `None` when nothing is.
    pub fn due(&self) -> Option<Instant> {
        self.next.into_iter().chain(self.crowded_due).min()
    }

    /// The files to look at now, and those that are nearly due, so that one round serves many. Their next look is set.
    fn take_due(&mut self, now: Instant) -> Vec<FileId> {
        let due = self.files.iter_mut().filter(|(_, growth)| growth.due <= now + BURST);
        due.map(|(file, growth)| {
            growth.pause = (growth.pause * 2).min(LONGEST);
            growth.due = now + growth.pause;
            *file
        })
        .collect()
    }

    /// Takes what a look found; whether it is the same as the last time.
    fn looked(&mut self, file: FileId, seen: Version, now: Instant) -> bool {
        let Some(growth) = self.files.get_mut(&file) else {
            return true;
        };
        let same = growth.seen == seen;
        if !same {
            *growth = Growth {
                seen,
                since: now,
                due: now + FIRST,
                pause: FIRST,
                changed: true,
            };
        }
        same
    }

    /// Ends a round that began at `began`: drops what has come to rest.
    fn finish(&mut self, began: Instant) {
        self.files.retain(|_, growth| !growth.is_over(began));
        // At most one tenth of the time is spent on looking, however slow the file system.
        let earliest = Instant::now() + began.elapsed() * 10;
        let due = self.files.values().map(|growth| growth.due).min();
        self.next = due.map(|due| due.max(earliest));
    }

    /// The directories to look through now.
    pub fn take_crowded(&mut self, now: Instant) -> Vec<DirNumber> {
        if self.crowded_due.is_none_or(|due| due > now) {
            return Vec::new();
        }
        self.crowded_due = None;
        self.crowded.drain().collect()
    }

    /// Looking through those directories took so long.
    pub fn rest(&mut self, took: Duration) {
        self.crowded_due = self.crowded_due.map(|due| due.max(Instant::now() + took * 20));
    }
}

impl Catalog {
    /// Looks at the files that may have grown. A change is told once it is over, so that a download is not told of four times a second; but a
    /// file becomes watched as soon as it is large enough.
    pub(super) fn look_at_growing(&mut self, now: Instant, delta: &mut Delta) {
        let due = self.growing.take_due(now);
        for (dir, names) in self.names_of(due) {
            for (name, found) in self.still_there(dir, &names) {
                let Found::File { file, size, stamp } = found else {
                    continue;
                };
                let known = self.table.state(file).map_or(0, |(size, _)| size);
                let comes = known < SMALLEST_WATCHED && size >= SMALLEST_WATCHED;
                if self.growing.looked(file, (size, stamp), now) || comes {
                    self.table.put(dir, name, found, delta);
                }
            }
        }
        self.growing.finish(now);
    }

    /// What stands at the first names of `files` now, directory by directory.
    pub(super) fn names_of(&self, files: impl IntoIterator<Item = FileId>) -> Vec<(DirNumber, Names)> {
        let mut by_dir: HashMap<DirNumber, Vec<&[u8]>> = HashMap::new();
        for node in files.into_iter().filter_map(|file| self.table.file(file)) {
            let names = by_dir.entry(self.table.parent(node)).or_default();
            names.push(self.table.name(node));
        }
        let look = |(dir, names): (DirNumber, Vec<&[u8]>)| {
            let names = listing::look(&self.job(dir)?, names, &self.devices).ok()?;
            Some((dir, names))
        };
        by_dir.into_iter().filter_map(look).collect()
    }

    /// Of `names`, those behind which the same file still stands. When another one does, or none, it was renamed or deleted: the events
    /// on their way say which.
    pub(super) fn still_there<'a>(&self, dir: DirNumber, names: &'a Names) -> Vec<(&'a [u8], Found<'a>)> {
        let is_same = |(name, found): &(&[u8], Found<'_>)| {
            let known = self.table.child(dir, name).and_then(|node| self.table.as_file(node));
            matches!(found, Found::File { file, .. } if known.is_some_and(|(known, _)| known == *file))
        };
        names.iter().filter(is_same).collect()
    }

    /// Follows the files that a batch found changed.
    pub(super) fn follow_changed(&mut self, delta: &Delta) {
        let now = Instant::now();
        for file in delta.changed(&self.table) {
            if let Some((node, seen)) = self.table.file(file).zip(self.table.state(file)) {
                self.growing.follow(file, self.table.parent(node), seen, now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: FileId = FileId { device: 1, inode: 1 };

    /// Looks when a look is due, for `time`; the version changes until `rests`. Returns when it was looked at.
    fn follow(growing: &mut Growing, began: Instant, rests: Duration, time: Duration) -> Vec<Duration> {
        let mut looks = Vec::new();
        while let Some(now) = growing.files.get(&FILE).map(|growth| growth.due) {
            let after = now - began;
            if after > time {
                break;
            }
            assert_eq!(growing.take_due(now), [FILE]);
            let stamp = after.min(rests).as_millis() as u32;
            growing.looked(FILE, (1, stamp), now);
            growing.files.retain(|_, growth| !growth.is_over(now));
            looks.push(after);
        }
        looks
    }

    #[test]
    fn a_file_at_rest_is_looked_at_less_and_less_and_then_no_more() {
        let (mut growing, began) = (Growing::default(), Instant::now());
        growing.enter(FILE, 0, (1, 0), began);
        let looks = follow(&mut growing, began, Duration::ZERO, Duration::from_secs(1000));
        let looks: Vec<_> = looks.iter().map(Duration::as_millis).collect();
        assert_eq!(looks, [250, 750, 1750, 3750, 7750, 15750]);
        growing.finish(began);
        assert_eq!(growing.due(), None, "an idle agent sleeps");
    }

    #[test]
    fn a_file_that_grows_for_minutes_is_known_to_rest_within_a_second() {
        let (mut growing, began) = (Growing::default(), Instant::now());
        growing.enter(FILE, 0, (1, 0), began);
        let rests = Duration::from_secs(200);
        let looks = follow(&mut growing, began, rests, Duration::from_secs(1000));
        let second = looks.iter().filter(|look| **look >= rests).nth(1).unwrap();
        assert!(*second - rests < Duration::from_secs(1), "{second:?}");
        assert!(growing.files.is_empty());
    }

    #[test]
    fn more_files_than_there_is_room_for_lead_to_a_look_at_their_directory() {
        let (mut growing, now) = (Growing::default(), Instant::now());
        for inode in 0..MOST as u64 + 10 {
            growing.enter(FileId { device: 1, inode }, 7, (1, 0), now);
        }
        assert_eq!(growing.files.len(), MOST);
        assert!(growing.take_crowded(now).is_empty());
        assert_eq!(growing.take_crowded(now + CROWDED), [7]);
        assert!(growing.take_crowded(now + CROWDED).is_empty());
    }
}
