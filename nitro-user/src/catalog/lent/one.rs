//! One file without its directory, as layouts see it, and the model that they make of it.
//!
//! In: a borrowed file, its place and its size. Out: a [`Model`] of one part. What is read is read at its place: the position of the descriptor is its owner's.

use std::{
    cell::{Cell, RefCell},
    ffi::OsStr,
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
    path::Path,
};

use crate::{
    catalog::{
        layout::{Content, Group, Listed, Refusal, Seen, View, group_of, read_small},
        model::{LayoutKind, Model, Part, Place},
    },
    units::FileId,
};

/// Bytes read of one file for its description.
const MOST_READ: u64 = 64 << 20;

/// The file, of `size` bytes and at `place`, as a model, and what of it was not believed. Without a descriptor nothing is read: it is only to be observed.
pub(super) fn describe(id: FileId, size: u64, place: Place, file: Option<&File>) -> (Model, Vec<Refusal>) {
    let view = One {
        seen: Seen {
            file: id,
            size,
            path: place.root.join(&place.below),
        },
        file,
        read: Cell::new(0),
        disbelieved: RefCell::default(),
    };
    let path = &view.seen.path;
    let (layout, group) = group_of(&view, path).unzip();
    let own = |group: &Group| {
        group
            .members
            .iter()
            .find(|member| member.seen.file == id)
            .map(|own| own.header)
    };
    let header = group.as_ref().and_then(own).unwrap_or(0);
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let model = Model {
        name: group.map_or(name, |group| group.name),
        layout: layout.unwrap_or(LayoutKind::Single),
        parts: vec![Part {
            file: id,
            size,
            header,
            generation: 0,
            place,
            layer: None,
        }],
        observe_only: file.is_none(),
        lent: true,
        changes_unseen: true,
    };
    (model, view.disbelieved.into_inner())
}

/// A world of one file.
struct One<'a> {
    seen: Seen,
    /// `None` where nothing is to be read.
    file: Option<&'a File>,
    read: Cell<u64>,
    /// What was not believed.
    disbelieved: RefCell<Vec<Refusal>>,
}

impl View for One<'_> {
    fn file(&self, path: &Path) -> Option<Seen> {
        (path == self.seen.path).then(|| self.seen.clone())
    }

    fn list(&self, directory: &Path, each: &mut dyn FnMut(&OsStr, Listed) -> bool) -> bool {
        let is_its = self.seen.path.parent() == Some(directory);
        if is_its && let Some(name) = self.seen.path.file_name() {
            each(name, Listed::File(self.seen.size));
        }
        is_its
    }

    fn head(&self, path: &Path, limit: u64) -> Option<Box<dyn Read + '_>> {
        let left = MOST_READ.saturating_sub(self.read.get());
        let file = self.file.filter(|_| path == self.seen.path && left > 0)?;
        let at = Positioned {
            file,
            at: 0,
            read: &self.read,
        };
        Some(Box::new(at.take(limit.min(left))))
    }

    fn read(&self, path: &Path, limit: u64) -> Option<Content> {
        read_small(self, path, limit)
    }

    fn refuse(&self, path: &Path, reason: &str) {
        self.disbelieved.borrow_mut().push(Refusal {
            path: path.to_owned(),
            reason: reason.to_owned(),
        });
    }
}

/// Reads without moving the descriptor's position, which is its owner's.
struct Positioned<'a> {
    file: &'a File,
    at: u64,
    /// Bytes that count towards the bound.
    read: &'a Cell<u64>,
}

impl Read for Positioned<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.at)?;
        self.at += count as u64;
        self.read.set(self.read.get() + count as u64);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};

    use super::*;

    #[test]
    fn a_file_is_described_without_its_directory_and_without_moving_its_position() {
        let mut file = tempfile::tempfile().unwrap();
        // Eight bytes of length, and so many of a header.
        file.write_all(&[&16u64.to_le_bytes()[..], &[b' '; 64]].concat())
            .unwrap();
        file.seek(io::SeekFrom::Start(5)).unwrap();
        let id = FileId { device: 44, inode: 7 };
        let place = Place {
            root: Path::new("/home/u/store").into(),
            below: "m-00001-of-00002.safetensors".into(),
        };
        let (model, refused) = describe(id, 72, place.clone(), Some(&file));
        assert_eq!((model.layout, refused.len()), (LayoutKind::Safetensors, 0));
        assert!(model.lent && !model.observe_only && model.parts.len() == 1);
        assert_eq!((model.parts[0].file, model.parts[0].header), (id, 24));
        assert_eq!(file.stream_position().unwrap(), 5);
        // Where nothing may be read, nothing is known of the header.
        let (unread, _) = describe(id, 72, place.clone(), None);
        assert!(unread.observe_only && unread.parts[0].header == 0);
        // A header that is longer than its file is none.
        let (broken, refused) = describe(id, 20, place, Some(&file));
        assert_eq!((broken.parts[0].header, broken.parts[0].size), (0, 20), "{refused:?}");
    }
}
