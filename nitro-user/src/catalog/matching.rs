//! Recognising a watched file on the command line of some process.
//!
//! In: an argument, say `--model=/models/blobs/sha256-…`. Out: the file it names, by its name alone. The process may live
//! in another mount namespace, where the same path is another file or none, so the path is never looked up: its last
//! component must be the name of one large file below the roots, and further components decide between several.
//!
//! A directory's name matches nothing, and neither do small files: their names are everywhere.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

use super::{
    Catalog, SMALLEST_MATCHED,
    links::{Target, resolve},
    table::{DirNumber, NodeNumber},
};
use crate::units::FileId;

/// Longest argument that is looked at: longer than any path with its option.
const LONGEST: usize = 8192;
/// Files of the same name that are compared; with more, the name says nothing.
const MOST_COMPARED: usize = 1024;

impl Catalog {
    /// The file that `argument` names, by as many of its last components as it takes; `None` when no file fits, or more
    /// than one. Of `--option=value` the value counts. A link below a roots' snapshot names its target.
    pub fn match_argument(&self, argument: &OsStr) -> Option<FileId> {
        let bytes = argument.as_bytes();
        if bytes.len() > LONGEST {
            return None;
        }
        // A file may have `=` in its name: first all of it, then what follows the option.
        self.match_path(bytes).or_else(|| {
            let value = bytes.iter().position(|byte| *byte == b'=').map(|at| &bytes[at + 1..]);
            value.and_then(|value| self.match_path(value))
        })
    }

    fn match_path(&self, path: &[u8]) -> Option<FileId> {
        let mut parts = path.rsplit(|byte| *byte == b'/');
        let name = parts.next()?;
        let mut fits: Vec<(DirNumber, FileId)> = Vec::new();
        for node in self.table.matched_by_name(name) {
            if fits.len() >= MOST_COMPARED {
                return None;
            }
            fits.extend(self.large_file(node).map(|file| (self.table.parent(node), file)));
        }
        loop {
            let (_, file) = *fits.first()?;
            if fits.iter().all(|(_, other)| *other == file) {
                return Some(file);
            }
            let part = parts.find(|part| !part.is_empty() && *part != b".")?;
            fits = fits
                .into_iter()
                .filter_map(|(dir, file)| Some((self.above(dir, part)?, file)))
                .collect();
        }
    }

    /// The directory above `dir`, if `dir` is called `name`.
    fn above(&self, dir: DirNumber, name: &[u8]) -> Option<DirNumber> {
        let known = self.table.dir(dir)?;
        if known.node == super::NONE {
            // The root's own name counts, too; nothing above it is ours to compare.
            let root = self.anchors.get(known.root as usize)?;
            return (root.root.path.file_name()?.as_bytes() == name).then_some(super::NONE);
        }
        (self.table.name(known.node) == name).then(|| self.table.parent(known.node))
    }

    /// The file of at least [`SMALLEST_MATCHED`] bytes that a name or a link stands for.
    fn large_file(&self, node: NodeNumber) -> Option<FileId> {
        let (file, size) = match self.table.as_link(node) {
            Some(text) => match resolve(&self.table, &self.anchors, Some(self.table.parent(node)), text) {
                Target::File(node) => self.table.as_file(node)?,
                _ => return None,
            },
            None => self.table.as_file(node)?,
        };
        (size >= SMALLEST_MATCHED).then_some(file)
    }
}
