//! Taking up directories that somebody suggests, at the start and while the agent runs.
//!
//! In: roots that were judged elsewhere. Out: anchors for those that are news. What is watched already, was unwatched, or lies in what the
//! administrator named, is none. A root that goes leaves its place to the next one.

use super::{
    Catalog, WatchRoot,
    links::{Anchor, resolve_plain},
    table::DirNumber,
};

/// Suggested roots that are watched at one time: others may make any number of directories.
const MOST_SUGGESTED: usize = 64;

/// Adds what was suggested to the roots that the administrator named, which come first.
pub fn add_suggested(roots: &mut Vec<WatchRoot>, suggested: impl IntoIterator<Item = WatchRoot>) {
    for root in suggested.into_iter().take(MOST_SUGGESTED) {
        if !roots.iter().any(|known| root.path.starts_with(&known.path)) {
            roots.push(root);
        }
    }
}

/// Names in the table after which suggested roots get no more: what is left is for those of the administrator.
const MOST_SUGGESTED_NAMES: usize = if cfg!(test) { 2000 } else { 500_000 };

impl Catalog {
    /// Whether there is no room for another name in `dir`, since nobody who may decide so has asked for it.
    pub(super) fn is_crowded(&mut self, dir: DirNumber) -> bool {
        let root = self.table.dir(dir).and_then(|dir| self.anchors.get(dir.root as usize));
        let crowded =
            root.is_some_and(|anchor| anchor.root.suggested.is_some()) && self.table.len() >= MOST_SUGGESTED_NAMES;
        if crowded {
            self.warnings.once("crowded", || {
                format!("more than {MOST_SUGGESTED_NAMES} names in directories that were found: the rest is not watched; give with --watch what matters")
            });
        }
        crowded
    }

    /// Whether another directory stands at a suggested root than the one that was judged.
    pub(super) fn is_exchanged(&self, dir: DirNumber, identity: (u32, u64)) -> bool {
        let top = self.anchors.iter().find(|anchor| anchor.dir == Some(dir));
        let suggested = top.and_then(|anchor| anchor.root.suggested.as_ref());
        suggested.is_some_and(|suggested| suggested.identity != identity)
    }

    /// Takes a root up, unless it is known. Returns its top directory, which is to be looked through.
    pub(super) fn suggest(&mut self, root: WatchRoot) -> Option<DirNumber> {
        let live = || self.anchors.iter().filter(|anchor| !anchor.dropped);
        let in_another = live().any(|anchor| root.path.starts_with(&anchor.root.path));
        let identity = root.suggested.as_ref()?.identity;
        // Whatever the path: a bind mount of what is watched is no other directory.
        let is_known = in_another || self.table.dir_by_identity(identity).is_some();
        if is_known
            || self.unwanted.contains(&identity)
            || self.exclude.is_unwatched(&root.path)
            || resolve_plain(&self.table, &self.anchors, &root.path).is_some()
        {
            return None;
        }
        if live().filter(|anchor| anchor.root.suggested.is_some()).count() >= MOST_SUGGESTED {
            self.warnings.once("suggested", || {
                format!("more than {MOST_SUGGESTED} directories were found: the rest is not watched; give with --watch what is missing")
            });
            return None;
        }
        let free = |anchor: &Anchor| anchor.dropped && anchor.root.suggested.is_some();
        let number = self.anchors.iter().position(free).unwrap_or(self.anchors.len());
        let dir = self.table.add_root(number as u32);
        let anchor = Anchor {
            root,
            dir: Some(dir),
            dropped: false,
        };
        match self.anchors.get_mut(number) {
            Some(place) => *place = anchor,
            None => self.anchors.push(anchor),
        }
        Some(dir)
    }
}
