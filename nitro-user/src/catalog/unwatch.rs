//! Taking out what is no longer to be watched, while the agent runs.
//!
//! In: an absolute path. Out: a table without what is at or below it. Roots there stay away, and names below other roots are left out from
//! now on, whatever appears. A file stays as long as it has another name that is watched.

use std::path::{Path, PathBuf};

use super::{
    Catalog,
    delta::Delta,
    links::Anchor,
    table::{DirNumber, NodeNumber},
};
use crate::units::ByteCount;

/// What went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// Watch roots.
    pub roots: u64,
    /// Distinct files.
    pub files: u64,
    /// Their bytes.
    pub bytes: ByteCount,
}

/// Why everything stays as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Kept {
    /// No root there, nor above it.
    #[error("nothing at {path:?} is watched: `nitro-agent status` lists the directories that are")]
    Stranger {
        /// As it was asked for.
        path: PathBuf,
    },
    /// Too many paths already.
    #[error(
        "too many paths are unwatched one by one: unwatch a directory above them, or start the agent without their root"
    )]
    TooMany,
}

impl Catalog {
    /// Takes out everything at or below `path`, for good.
    ///
    /// # Errors
    /// [`Kept`], and nothing has changed.
    pub(super) fn unwatch(&mut self, path: &Path, delta: &mut Delta) -> Result<Left, Kept> {
        let stays_away = |anchor: &Anchor| anchor.root.path.starts_with(path) || anchor.root.given.starts_with(path);
        let holds = |anchor: &Anchor| !anchor.dropped && path.starts_with(&anchor.root.path);
        if !self
            .anchors
            .iter()
            .any(|anchor| holds(anchor) || !anchor.dropped && stays_away(anchor))
        {
            return Err(Kept::Stranger { path: path.to_owned() });
        }
        self.exclude = self.exclude.without(path).ok_or(Kept::TooMany)?;
        self.unwatch_refused(path);
        let (files, bytes) = (self.table.file_count(), self.table.bytes());
        let mut roots = 0;
        for anchor in &mut self.anchors {
            if !anchor.dropped && stays_away(anchor) {
                (anchor.dropped, anchor.root.present) = (true, false);
                roots += 1;
                let suggested = anchor.root.suggested.as_ref();
                self.unwanted.extend(suggested.map(|suggested| suggested.identity));
                if let Some(dir) = anchor.dir.take() {
                    self.table.remove_root(dir, delta);
                }
            }
        }
        // In every root that holds it: one root can lie in another, and each has its own tree.
        let tops: Vec<(DirNumber, PathBuf)> = self
            .anchors
            .iter()
            .filter_map(|anchor| Some((anchor.dir?, path.strip_prefix(&anchor.root.path).ok()?.to_owned())))
            .collect();
        for (top, below) in tops {
            if let Some(node) = self.node_at(top, &below) {
                self.table.remove(node, delta);
            }
        }
        Ok(Left {
            roots,
            files: files.saturating_sub(self.table.file_count()) as u64,
            bytes: ByteCount(bytes.saturating_sub(self.table.bytes())),
        })
    }

    /// What is known at the plain path `below` a root's top directory.
    fn node_at(&self, top: DirNumber, below: &Path) -> Option<NodeNumber> {
        let mut names = below.iter();
        let last = names.next_back()?;
        let mut dir = top;
        for name in names {
            dir = self.table.as_dir(self.table.child(dir, name.as_encoded_bytes())?)?;
        }
        self.table.child(dir, last.as_encoded_bytes())
    }
}
