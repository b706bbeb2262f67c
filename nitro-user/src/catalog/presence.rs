//! Whether the roots are there: roots that appear later, go, come back, are moved away, mounted or unmounted.
//!
//! In: inotify events of the directories above the roots, on the roots' own file systems, and changes of the mount table. Out: roots added to the table
//! and taken out of it. A root that is missing costs one watch on the nearest directory that exists; nothing is polled.

use std::{
    collections::HashSet,
    ffi::OsString,
    fs::File,
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use nix::{
    fcntl::{OFlag, open},
    sys::{
        inotify::{AddWatchFlags, InitFlags, Inotify},
        stat::Mode,
    },
};

use super::{
    Catalog,
    delta::Delta,
    identity::Devices,
    links::{Anchor, resolve_plain},
    listing,
    roots::Refused,
    scan::{Means, Reach},
    table::DirNumber,
};
use crate::sys::{
    mounts::{self, unescape},
    stat, top,
};

/// Links followed to find where a missing root would appear.
const MOST_HOPS: usize = 8;

/// What watches the roots' existence.
#[derive(Debug)]
pub(super) struct Presence {
    /// Watches on the directories above the roots.
    pub above: Inotify,
    /// The mount table: `poll` tells when it changes. `None` without /proc.
    pub mounts: Option<File>,
    /// For roots of other mount namespaces, the processes they are reached through: readable when one ends.
    pub ends: Vec<OwnedFd>,
    mount_points: HashSet<(PathBuf, Vec<u8>)>,
    places: Vec<PathBuf>,
}

impl Presence {
    /// Begins to watch, with nothing to watch yet.
    ///
    /// # Errors
    ///
    /// No inotify instance to be had.
    pub fn new() -> io::Result<Self> {
        let mount_points = mount_points();
        Ok(Self {
            above: empty_inotify()?,
            mounts: File::open(mounts::OWN).ok(),
            ends: Vec::new(),
            mount_points,
            places: Vec::new(),
        })
    }

    /// Whether a missing root would now appear elsewhere than where it is waited for: a directory on the way has come.
    pub fn is_stale(&self, anchors: &[Anchor]) -> bool {
        self.places != places(anchors)
    }

    /// Watches the directories above `anchors` as they are now.
    pub fn watch(&mut self, anchors: &[Anchor], devices: &Devices) {
        // A new instance is simpler than telling which of the old watches are still wanted. It costs microseconds.
        match empty_inotify() {
            Ok(fresh) => self.above = fresh,
            Err(_) => return,
        }
        self.places = places(anchors);
        let mut through: Vec<u32> = wanted(anchors)
            .filter_map(|anchor| anchor.root.path.process())
            .collect();
        through.sort_unstable();
        through.dedup();
        // One that has ended already: whoever called looks again afterwards.
        self.ends = through
            .into_iter()
            .filter_map(|process| top::end_of(process).ok())
            .collect();
        let own = AddWatchFlags::IN_MOVE_SELF | AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_ONLYDIR;
        // Roots share directories above them, with different wishes: IN_MASK_ADD, which nix has no name for.
        let also = AddWatchFlags::from_bits_retain(nix::libc::IN_MASK_ADD);
        let add = |path: &Path, flags: AddWatchFlags| {
            // It may be gone: whoever called looks again afterwards.
            let _ = self.above.add_watch(path, flags | also);
        };
        for (anchor, place) in wanted(anchors).zip(&self.places) {
            let device_of = |path: &Path| {
                // Not opened for reading: whoever may write there can put a FIFO in its place.
                let found = open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty());
                stat::status_of(found.ok()?).ok().map(|found| devices.device_of(&found))
            };
            let device = device_of(place);
            // Any watch makes every open and close on its file system dearer. Above a mount point nothing can be deleted, and a file system without a
            // root on it need not pay for a directory above being renamed, which is noticed when the mount table changes next.
            let above_on_device = |path: &Path| {
                path.parent()
                    .filter(|above| device.is_some() && device_of(above) == device)
                    .map(Path::to_owned)
            };
            if !anchor.root.present {
                add(place, own | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO);
            }
            // A directory's own watch hears of its removal only when nobody has a file of it open any more; the one above hears at once.
            for below in place.ancestors() {
                let Some(above) = above_on_device(below) else { break };
                add(&above, AddWatchFlags::IN_DELETE | AddWatchFlags::IN_ONLYDIR);
                if above.parent().is_some() {
                    add(&above, own);
                }
            }
        }
    }

    /// Mount points that have come or gone since the last call.
    pub fn changed_mounts(&mut self) -> Vec<PathBuf> {
        let before = std::mem::replace(&mut self.mount_points, mount_points());
        before
            .symmetric_difference(&self.mount_points)
            .map(|(path, _)| path.clone())
            .collect()
    }

    /// Takes the waiting events. Whether there was one that may concern a root: others are deleted beside it, too.
    pub fn drain(&self) -> bool {
        let mut concerned = false;
        while let Ok(events) = self.above.read_events() {
            concerned |= events.iter().any(|event| {
                let deleted = event.mask.contains(AddWatchFlags::IN_DELETE);
                let is_ours = |name: &OsString| {
                    let mut on_the_way = self.places.iter().flat_map(|place| place.components());
                    on_the_way.any(|part| part.as_os_str() == name)
                };
                !deleted || event.name.as_ref().is_none_or(is_ours)
            });
        }
        concerned
    }
}

/// For each root where it is, or the directory in which it would appear.
fn places(anchors: &[Anchor]) -> Vec<PathBuf> {
    let place = |anchor: &Anchor| {
        let root = &anchor.root;
        if root.present {
            root.path.to_path_buf()
        } else {
            nearest(&root.given)
        }
    };
    wanted(anchors).map(place).collect()
}

/// The roots whose coming and going matters.
fn wanted(anchors: &[Anchor]) -> impl Iterator<Item = &Anchor> {
    anchors.iter().filter(|anchor| !anchor.dropped)
}

fn empty_inotify() -> io::Result<Inotify> {
    Ok(Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?)
}

/// The deepest directory that exists on the way to `missing`.
fn nearest(missing: &Path) -> PathBuf {
    let mut path = missing.to_owned();
    for _ in 0..MOST_HOPS {
        match path.ancestors().find(|above| above.symlink_metadata().is_ok()) {
            Some(above) if above.is_dir() => return above.to_owned(),
            // A link that leads nowhere yet: what it names must appear.
            Some(above) => match above.read_link() {
                Ok(target) => path = above.parent().unwrap_or(Path::new("/")).join(target),
                Err(_) => return above.parent().unwrap_or(Path::new("/")).to_owned(),
            },
            None => break,
        }
    }
    PathBuf::from("/")
}

/// Where file systems are mounted, with the fields that tell one from another.
fn mount_points() -> HashSet<(PathBuf, Vec<u8>)> {
    parse_mount_points(&std::fs::read(mounts::OWN).unwrap_or_default())
}

fn parse_mount_points(table: &[u8]) -> HashSet<(PathBuf, Vec<u8>)> {
    let lines = table.split(|byte| *byte == b'\n');
    lines
        .filter_map(|line| {
            let fields: Vec<&[u8]> = line.splitn(6, |byte| *byte == b' ').collect();
            let [number, _, device, root, point, _] = fields.as_slice() else {
                return None;
            };
            Some((unescape(point).into(), [*number, *device, *root].join(&b' ')))
        })
        .collect()
}

impl Catalog {
    /// The roots as they are known.
    pub(super) fn anchors(&self) -> &[Anchor] {
        &self.anchors
    }

    /// Looks whether each root is where it was. Returns whether any came, went or was replaced.
    pub(super) fn check_roots(&mut self, means: Means<'_>, delta: &mut Delta) -> bool {
        let state = |catalog: &Self| -> Vec<_> {
            let identity = |dir| catalog.table.dir(dir).and_then(|dir| dir.identity);
            catalog
                .anchors
                .iter()
                .map(|anchor| (anchor.root.clone(), anchor.dir.and_then(identity)))
                .collect()
        };
        let before = state(self);
        let fresh: Vec<_> = (0..self.anchors.len())
            .filter_map(|number| self.check_root(number, delta))
            .collect();
        // All below them is new, or another.
        self.look_through(&fresh, Reach::Everything, means, delta);
        self.drop_empty_roots(delta);
        state(self) != before
    }

    /// Looks whether one root is where it was. Returns its top directory when that is to be looked through.
    fn check_root(&mut self, number: usize, delta: &mut Delta) -> Option<DirNumber> {
        let anchor = self.anchors.get_mut(number).filter(|anchor| !anchor.dropped)?;
        // A root that became a file, or that cannot be looked at, is a root that is not there; so is a link to what was unwatched.
        let looked = anchor.root.look_again();
        let root = anchor.root.path.clone();
        match looked {
            Err(Refused) => drop(self.refuse(&root, Path::new(""))),
            // One that is there is admitted when it is listed.
            Ok(None) => self.admit(&root),
            Ok(Some(_)) => {}
        }
        let anchor = self.anchors.get_mut(number)?;
        let now = looked
            .ok()
            .flatten()
            .filter(|now| !self.exclude.is_unwatched(&now.path));
        if now.as_ref().is_none_or(|now| now.path != anchor.root.path)
            && let Some(dir) = anchor.dir.take()
        {
            self.table.remove_root(dir, delta);
        }
        match now {
            Some(root) => anchor.root = root,
            None => {
                anchor.root.present = false;
                // Nobody is waiting for it: it is suggested again if it comes back.
                anchor.dropped = anchor.root.suggested.is_some();
                return None;
            }
        }
        if let Some(dir) = anchor.dir {
            // Another directory, or another file system, may stand there by now; listing it finds out which.
            let now = self.job(dir).and_then(|job| listing::identity(&job).ok());
            return (now != self.table.dir(dir).and_then(|dir| dir.identity)).then_some(dir);
        }
        if resolve_plain(&self.table, &self.anchors, &self.anchors.get(number)?.root.path).is_some() {
            // It lies in another root, whose tree holds it.
            return None;
        }
        let dir = self.table.add_root(number as u32);
        self.anchors.get_mut(number)?.dir = Some(dir);
        Some(dir)
    }

    /// The directories of the table that `paths` are, or are in.
    pub(super) fn directories_at(&self, paths: &[PathBuf]) -> Vec<DirNumber> {
        let dir = |path: &Path| resolve_plain(&self.table, &self.anchors, path);
        let found = paths.iter().flat_map(|path| [dir(path), path.parent().and_then(dir)]);
        // The parent, too: a single file can be a mount point.
        let found: HashSet<_> = found.flatten().collect();
        found.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_with_spaces_are_read() {
        let table =
            b"22 27 0:21 / /proc rw - proc proc rw\n30 22 8:1 /a /mnt/my\\040models rw - ext4 x rw\nshort line\n";
        let points = parse_mount_points(table);
        assert_eq!(points.len(), 2);
        assert!(points.iter().any(|(path, _)| path == Path::new("/mnt/my models")));
    }

    #[test]
    fn the_nearest_existing_directory_is_found_through_links_that_lead_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        assert_eq!(nearest(&base.join("a/b/c")), base);
        std::fs::create_dir(base.join("real")).unwrap();
        std::os::unix::fs::symlink(base.join("real/later"), base.join("link")).unwrap();
        assert_eq!(nearest(&base.join("link")), base.join("real"));
        std::os::unix::fs::symlink("cycle", base.join("cycle")).unwrap();
        assert_eq!(nearest(&base.join("cycle")), Path::new("/"));
    }
}
